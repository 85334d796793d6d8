//! AgentPolicy: what no agent may ever hold, what every agent must have, who is suspended.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LabelSelector, Mode, rules};

/// What no agent may hold, what every agent must have, who is suspended. A policy only ever takes away.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "agentid.dev",
    version = "v1alpha1",
    kind = "AgentPolicy",
    plural = "agentpolicies",
    status = "AgentPolicyStatus",
    shortname = "apol",
    category = "agentid",
    doc = "What no agent may hold, what every agent must have, who is suspended. A policy only ever takes away.",
    derive = "PartialEq",
    derive = "Default",
    printcolumn(name = "Enforcement", type_ = "string", json_path = ".spec.enforcement"),
    printcolumn(name = "Suspend", type_ = "boolean", json_path = ".spec.suspend"),
    printcolumn(name = "Matched", type_ = "integer", json_path = ".status.matched"),
    printcolumn(name = "Refused", type_ = "integer", json_path = ".status.refused"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        priority = 1
    ),
    printcolumn(
        name = "Refused-Grants",
        type_ = "integer",
        json_path = ".status.refusedGrants",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.suspend) || has(self.require) || has(self.limits) || has(self.deny)")
        .message("the policy says nothing: set at least one of suspend, require, limits and deny")
        .reason(Reason::FieldValueRequired),
    validation = Rule::new("!has(self.match) || !has(self.match.resources) || !has(self.require)")
        .message("require speaks of agents, match.resources of grants: write two policies")
        .field_path(".require"),
    validation = Rule::new("!has(self.match) || !has(self.match.resources) || !has(self.limits) || !has(self.limits.agentLifetime)")
        .message("limits.agentLifetime speaks of agents, match.resources of grants: write two policies")
        .field_path(".limits")
)]
pub struct AgentPolicySpec {
    /// `Enforce` when absent. `Audit`: nothing is taken away; what would be is said in the statuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Enforcement")]
    pub enforcement: Option<Enforcement>,
    /// Whom it speaks of; all agents when absent.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub matches: Option<PolicyMatch>,
    /// The kill switch: takes the credentials of all matched agents away while true. With `match.resources`: all
    /// their grants on these resources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// What every matched agent must have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub require: Vec<Requirement>,
    /// How long things may live at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<PolicyLimits>,
    /// What no matched agent may hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub deny: Vec<Denial>,
}

/// Whether a policy takes away or only says what it would.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Enforcement {
    /// It takes away.
    #[default]
    Enforce,
    /// It only says what it would take away.
    Audit,
}

/// Whom a policy speaks of: every field that is set must hold, of a list one item. In globs, `*` stands for any run
/// of characters and `?` for one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyMatch {
    /// Agents of the namespaces with such labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Agents with such labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_selector: Option<LabelSelector>,
    /// Agents of these blueprints: globs of names. An agent without a blueprint is of none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 253), regex(pattern = rules::GLOB)))]
    pub blueprints: Option<Vec<String>>,
    /// Grants on these AgentResources alone: globs of names. The policy then speaks of these grants, not of their
    /// agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 253), regex(pattern = rules::GLOB)))]
    pub resources: Option<Vec<String>>,
}

/// Something that an agent may be required to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Requirement {
    /// `spec.sponsors`: somebody who answers for it.
    Sponsor,
    /// `spec.boundObjectRef`: something that it lives and dies with.
    BoundObject,
    /// A blueprint that it is made of.
    Blueprint,
    /// `spec.expiresAt`: an end.
    Expiry,
}

/// How long things may live at most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyLimits {
    /// No token lives longer: 1m to 24h. Below the configuration's minTokenLifetime (10m), tokens of grants are on
    /// demand only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 24))]
    #[x_kube(validation = rules::lifetime("tokenLifetime", "1m", "24h"))]
    pub token_lifetime: Option<String>,
    /// An agent's time is over so long after its creation: 1m to 87600h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 24))]
    #[x_kube(validation = rules::lifetime("agentLifetime", "1m", "87600h"))]
    pub agent_lifetime: Option<String>,
    /// A grant's time is over so long after its creation: 1m to 87600h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 24))]
    #[x_kube(validation = rules::lifetime("grantLifetime", "1m", "87600h"))]
    pub grant_lifetime: Option<String>,
}

/// Something that may not be held. `resources` and `modes` say of which grants it speaks (both must hold; absent:
/// all); `roles` and `scopes` say what is taken from these, both absent: the grant as a whole. In globs, `*` stands
/// for any run of characters and `?` for one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = Rule::new("has(self.resources) || has(self.roles) || has(self.scopes) || has(self.modes)")
        .message("the entry denies nothing: set at least one of resources, roles, scopes and modes; resources: ['*'] denies every grant")
        .reason(Reason::FieldValueRequired)
)]
pub struct Denial {
    /// Globs of AgentResources' names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 253), regex(pattern = rules::GLOB)))]
    pub resources: Option<Vec<String>>,
    /// Globs of roles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 253), regex(pattern = rules::GLOB)))]
    pub roles: Option<Vec<String>>,
    /// Globs of scopes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 253), regex(pattern = rules::GLOB)))]
    pub scopes: Option<Vec<String>>,
    /// The modes of grants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 3))]
    pub modes: Option<Vec<Mode>>,
    /// Why, for whoever is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), regex(pattern = rules::ONE_LINE))]
    pub reason: Option<String>,
}

/// What agentid says of a policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentPolicyStatus {
    /// `Ready`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// How many agents it speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched: Option<i64>,
    /// To how many of them it refuses something, or would if it were enforced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<i64>,
    /// How many of their grants it refuses or narrows, or would.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_grants: Option<i64>,
    /// The generation that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

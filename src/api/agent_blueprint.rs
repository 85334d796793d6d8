//! AgentBlueprint: a template of agents: defaults, inherited grants, and which pods become agents by themselves.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Application, Delegation, LabelSelector, Sponsor, UserRights, rules};

/// A template of agents: what they have in common, and which pods become agents by themselves.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "agentid.dev",
    version = "v1alpha1",
    kind = "AgentBlueprint",
    status = "AgentBlueprintStatus",
    shortname = "abp",
    category = "agentid",
    doc = "A template of agents: what they have in common, and which pods become agents by themselves.",
    derive = "PartialEq",
    derive = "Default",
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Accepted")].status"#
    ),
    printcolumn(name = "Per", type_ = "string", json_path = ".spec.identityPer"),
    printcolumn(name = "Suspend", type_ = "boolean", json_path = ".spec.suspend"),
    printcolumn(name = "Made", type_ = "integer", json_path = ".status.made"),
    printcolumn(name = "Ready", type_ = "integer", json_path = ".status.ready"),
    printcolumn(name = "Refused", type_ = "integer", json_path = ".status.refused"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Suspended", type_ = "integer", json_path = ".status.suspended", priority = 1),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Accepted")].reason"#,
        priority = 1
    ),
    validation = Rule::new("size(self.metadata.name) <= 63")
        .message("metadata.name must be at most 63 characters: choose a shorter name")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = rules::immutable("identityPer", "AgentBlueprint"),
    validation = Rule::new("!has(self.identityPer) || has(self.podSelector)")
        .message("identityPer says what a pod's agent is, so it needs podSelector: set that too")
        .field_path(".identityPer")
)]
pub struct AgentBlueprintSpec {
    /// What these agents do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub description: Option<String>,
    /// Who answers for the agents, beside the sponsors that an agent names itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["kind".into(), "name".into()]))]
    pub sponsors: Vec<Sponsor>,
    /// In which namespaces there may be such agents, made or written; `{}` selects all.
    pub namespace_selector: LabelSelector,
    /// Which pods of these namespaces become agents by themselves; none when absent. Only pods that carry the label
    /// agentid.dev/agent are seen at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    /// What is an agent: the workload of the pods (`Workload`, when absent) or each pod (`Pod`). Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "IdentityPer")]
    pub identity_per: Option<IdentityPer>,
    /// What holds for an agent that does not say otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub defaults: Option<BlueprintDefaults>,
    /// Grants that every agent of the blueprint inherits, as far as the resources allow its namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub grants: Vec<InheritedGrant>,
    /// Takes the credentials of all agents of the blueprint away while true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
}

/// What a pod's agent is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum IdentityPer {
    /// One agent for the workload that controls the pods, such as their Deployment. Its Secret is
    /// `<workload>-agentid`, so that the pod template can name it.
    #[default]
    Workload,
    /// One agent for each pod, without a Secret: the pod's service-account token buys what it needs.
    Pod,
}

impl IdentityPer {
    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Workload => "Workload",
            Self::Pod => "Pod",
        }
    }
}

/// What holds for an agent that does not say otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlueprintDefaults {
    /// How long a token in the Secret lives: 10m to 24h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 24))]
    #[x_kube(validation = rules::lifetime("tokenLifetime", "10m", "24h"))]
    pub token_lifetime: Option<String>,
    /// An agent's time is over so long after its creation: 1m to 87600h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 24))]
    #[x_kube(validation = rules::lifetime("lifetime", "1m", "87600h"))]
    pub lifetime: Option<String>,
}

/// An AgentGrant's spec less `agents`, with a name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("[has(self.application), has(self.delegation), has(self.agentUser)].exists_one(form, form)")
        .message("exactly one form must be set: application, such as application: {roles: [triager]}; delegation, such as delegation: {issuer: https://idp.example.com, scopes: [tickets.read]}; or agentUser, such as agentUser: {scopes: [mail.read]}")
        .reason(Reason::FieldValueRequired),
    validation = Rule::new("!has(self.delegation) || !has(self.secretKey)")
        .message("secretKey does not go with delegation: a delegated token needs the user's live token and is got on demand; leave it out")
        .field_path(".secretKey"),
    validation = Rule::new("!has(self.notBefore) || !has(self.expiresAt) || self.notBefore < self.expiresAt")
        .message("expiresAt must be after notBefore")
        .field_path(".expiresAt")
)]
pub struct InheritedGrant {
    /// Its name; agents hold it as `<blueprint>/<name>`.
    #[schemars(length(min = 1, max = 63), regex(pattern = rules::OBJECT_NAME))]
    pub name: String,
    /// The name of an AgentResource.
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::OBJECT_NAME))]
    pub resource: String,
    /// The agent's own rights; both lists empty: it may authenticate there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application: Option<Application>,
    /// Rights of users of one issuer, as far as their live tokens give them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegation: Option<Delegation>,
    /// Rights of the agents' own users (`spec.user` of each AgentIdentity).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_user: Option<UserRights>,
    /// Not held before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::time("notBefore"))]
    pub not_before: Option<Time>,
    /// Not held from then on. No token outlives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::time("expiresAt"))]
    pub expires_at: Option<Time>,
    /// Deliver a token in the agents' Secrets under this key, such as `tickets.jwt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 5, max = 253), regex(pattern = rules::TOKEN_FILE))]
    #[x_kube(validation = Rule::new("self != 'identity.jwt'")
        .message("secretKey identity.jwt is the agent's own identity token: choose another name, such as tickets.jwt"))]
    pub secret_key: Option<String>,
}

/// What agentid says of a blueprint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentBlueprintStatus {
    /// `Accepted`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// How many agents were made from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<i64>,
    /// How many of its agents, made and written, have their credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<i64>,
    /// How many of its agents are refused, suspended ones apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<i64>,
    /// How many of its agents are suspended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended: Option<i64>,
    /// The generation that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

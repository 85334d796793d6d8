//! AgentGrant: these agents hold these rights on that resource, until then.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{LabelSelector, rules};

/// Rights of agents of this namespace on one resource. They are held as far as the resource allows this
/// namespace.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "agentid.dev",
    version = "v1alpha1",
    kind = "AgentGrant",
    namespaced,
    status = "AgentGrantStatus",
    shortname = "agr",
    category = "agentid",
    doc = "Rights of agents of this namespace on one resource. They are held as far as the resource allows this namespace.",
    derive = "PartialEq",
    derive = "Default",
    selectable = ".spec.resource",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(name = "Resource", type_ = "string", json_path = ".spec.resource"),
    printcolumn(name = "Held", type_ = "integer", json_path = ".status.held"),
    printcolumn(name = "Refused", type_ = "integer", json_path = ".status.refused"),
    printcolumn(name = "Expires", type_ = "date", json_path = ".spec.expiresAt"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "File", type_ = "string", json_path = ".spec.secretKey", priority = 1),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        priority = 1
    )
)]
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
pub struct AgentGrantSpec {
    /// Which agents of this namespace.
    pub agents: AgentSelection,
    /// The name of an AgentResource.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = rules::OBJECT_NAME)
    )]
    pub resource: String,
    /// The agent's own rights; both lists empty: it may authenticate there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application: Option<Application>,
    /// Rights of users of one issuer, as far as their live tokens give them: a ceiling, never delivered in a
    /// Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegation: Option<Delegation>,
    /// Rights of the agents' own users (`spec.user` of each AgentIdentity); without scopes: they may
    /// authenticate there.
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
    #[schemars(
        length(min = 5, max = 253),
        regex(pattern = rules::TOKEN_FILE)
    )]
    #[x_kube(validation = Rule::new("self != 'identity.jwt'")
        .message("secretKey identity.jwt is the agent's own identity token: choose another name, such as tickets.jwt"))]
    pub secret_key: Option<String>,
}

/// Agents of the grant's namespace: by name, or by labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = Rule::new("has(self.names) != has(self.selector)")
        .message("exactly one of names and selector must be set; selector: {} selects all agents of the namespace")
)]
pub struct AgentSelection {
    /// These agents, whether they exist yet or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), inner(length(min = 1, max = 63), regex(pattern = rules::OBJECT_NAME)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub names: Option<Vec<String>>,
    /// All agents with such labels; `{}` selects all of the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// The agent's own rights.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct Application {
    /// Roles, as the `roles` claim (RFC 9068 §2.2.3.1).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), inner(length(min = 1, max = 128), regex(pattern = rules::SCOPE_TOKEN)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub roles: Vec<String>,
    /// Scopes, as the `scope` claim (RFC 9068 §2.2.3).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), inner(length(min = 1, max = 128), regex(pattern = rules::SCOPE_TOKEN)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub scopes: Vec<String>,
}

/// Rights of users, as far as their live tokens give them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct Delegation {
    /// The `iss` of the users' tokens: a trusted user issuer of agentid's configuration, or agentid's own issuer
    /// for calls that agents pass on without a user.
    #[schemars(length(min = 1, max = 512), regex(pattern = rules::ISSUER))]
    pub issuer: String,
    /// The `sub` of the users; absent: any user of that issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), inner(length(min = 1, max = 512)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub subjects: Option<Vec<String>>,
    /// Scopes, as the `scope` claim (RFC 9068 §2.2.3): the most that a token may carry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), inner(length(min = 1, max = 128), regex(pattern = rules::SCOPE_TOKEN)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub scopes: Vec<String>,
}

/// Rights of agent users.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct UserRights {
    /// Scopes, as the `scope` claim (RFC 9068 §2.2.3).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), inner(length(min = 1, max = 128), regex(pattern = rules::SCOPE_TOKEN)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub scopes: Vec<String>,
}

/// What agentid says of a grant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentGrantStatus {
    /// `Ready`; `PolicyCompliant` while a policy in Audit would take something.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// How many agents hold it, in full or in part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<i64>,
    /// To how many agents it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<i64>,
    /// The generation that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

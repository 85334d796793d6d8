//! AgentIdentity: this agent exists, who answers for it, whom it lives and dies with.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Reason, rules};

/// An AI agent with an identity of its own. Its credentials are in the Secret that the status names.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "agentid.dev",
    version = "v1alpha1",
    kind = "AgentIdentity",
    plural = "agentidentities",
    namespaced,
    status = "AgentIdentityStatus",
    shortname = "aid",
    category = "agentid",
    doc = "An AI agent with an identity of its own. Its credentials are in the Secret that the status names.",
    derive = "PartialEq",
    derive = "Default",
    selectable = ".spec.secretName",
    selectable = ".spec.boundObjectRef.kind",
    selectable = ".spec.boundObjectRef.name",
    selectable = ".spec.serviceAccountName",
    selectable = ".spec.blueprint",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Secret", type_ = "string", json_path = ".status.secretName"),
    printcolumn(name = "Grants", type_ = "string", json_path = ".status.grantsHeld"),
    printcolumn(name = "Blueprint", type_ = "string", json_path = ".spec.blueprint"),
    printcolumn(name = "Expires", type_ = "date", json_path = ".spec.expiresAt"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Sponsor", type_ = "string", json_path = ".spec.sponsors[0].name", priority = 1),
    printcolumn(name = "Bound-To", type_ = "string", json_path = ".spec.boundObjectRef.name", priority = 1),
    printcolumn(name = "Agent-Id", type_ = "string", json_path = ".status.agentId", priority = 1),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        priority = 1
    ),
    validation = Rule::new("size(self.metadata.name) <= 63")
        .message("metadata.name must be at most 63 characters: choose a shorter name")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = rules::immutable("blueprint", "AgentIdentity"),
    validation = rules::immutable("boundObjectRef", "AgentIdentity"),
    validation = rules::immutable("secretName", "AgentIdentity"),
    validation = Rule::new("!has(oldSelf.serviceAccountName) || (has(self.serviceAccountName) && self.serviceAccountName == oldSelf.serviceAccountName)")
        .message("serviceAccountName is immutable once set: create another AgentIdentity instead")
        .field_path(".serviceAccountName")
        .reason(Reason::FieldValueForbidden),
    validation = Rule::new("!has(self.user) || !has(oldSelf.user) || self.user.username == oldSelf.user.username")
        .message("user.username is immutable while user is set: remove user, then set it with another username")
        .field_path(".user.username")
        .reason(Reason::FieldValueForbidden),
    validation = Rule::new("!has(self.ttlSecondsAfterExpired) || has(self.expiresAt)")
        .message("ttlSecondsAfterExpired needs expiresAt: set it too")
        .field_path(".ttlSecondsAfterExpired")
)]
pub struct AgentIdentitySpec {
    /// A name for people; may change at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub display_name: Option<String>,
    /// What the agent does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub description: Option<String>,
    /// Who answers for the agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["kind".into(), "name".into()]))]
    pub sponsors: Vec<Sponsor>,
    /// The AgentBlueprint that the agent is of: its defaults, inherited grants and limits hold. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = rules::OBJECT_NAME))]
    pub blueprint: Option<String>,
    /// The object that the agent lives and dies with. With `uid`, or for a Pod: this very object. By name
    /// only: whatever bears the name; while nothing does, the credential is withdrawn. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound_object_ref: Option<BoundObjectRef>,
    /// The service account of the agent's pods: a pod that runs as it may authenticate as this agent at the token
    /// service. Immutable once set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::OBJECT_NAME))]
    pub service_account_name: Option<String>,
    /// The Secret that carries the credentials; `<name>-agentid` when absent. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = rules::OBJECT_NAME)
    )]
    pub secret_name: Option<String>,
    /// How long a token in the Secret lives: 10m to 24h; the configuration's (1h) when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 24))]
    #[x_kube(validation = rules::lifetime("tokenLifetime", "10m", "24h"))]
    pub token_lifetime: Option<String>,
    /// When the agent's time is over. No token outlives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::time("expiresAt"))]
    pub expires_at: Option<Time>,
    /// Delete the agent this many seconds after `expiresAt`; never when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub ttl_seconds_after_expired: Option<i32>,
    /// Takes the credentials away while true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// The agent user: an account of this agent alone, for services that know users only. Grants in the form
    /// agentUser speak as it. It may be removed, and set again, without touching the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<AgentUser>,
}

/// The user that an agent is paired with, one to one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentUser {
    /// Its name, `<local part>@<domain>`: the domain is one of agentUserDomains in agentid's configuration. Unique in
    /// the cluster whatever its case; the older AgentIdentity wins. Immutable while `user` is set.
    #[schemars(length(min = 3, max = 254), regex(pattern = rules::USERNAME))]
    pub username: String,
    /// A name for people; never in a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), regex(pattern = rules::ONE_LINE))]
    pub display_name: Option<String>,
    /// Where mail reaches it; never in a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 254), regex(pattern = rules::EMAIL))]
    pub email: Option<String>,
    /// Whom it reports to; never in a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), regex(pattern = rules::ONE_LINE))]
    pub manager: Option<String>,
}

/// Somebody who answers for an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sponsor {
    /// User or Group.
    pub kind: SponsorKind,
    /// The name as Kubernetes' authentication gives it.
    #[schemars(length(min = 1, max = 256), regex(pattern = rules::ONE_LINE))]
    pub name: String,
}

/// What a [`Sponsor`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SponsorKind {
    /// A person.
    User,
    /// Several people.
    Group,
}

/// A reference to the object that an agent is bound to; the words are TokenRequest's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BoundObjectRef {
    /// Group and version, such as `v1` or `apps/v1`.
    #[schemars(
        length(min = 1, max = 317),
        regex(pattern = rules::GROUP_VERSION)
    )]
    pub api_version: String,
    /// The kind, such as `Pod` or `Deployment`.
    #[schemars(length(min = 1, max = 63), regex(pattern = rules::KIND))]
    pub kind: String,
    /// The name, in the agent's namespace.
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::OBJECT_NAME))]
    pub name: String,
    /// Bind to the object of this UID alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 36), regex(pattern = rules::UID))]
    pub uid: Option<String>,
}

/// What agentid says of an agent. Nothing in it changes with a renewal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentIdentityStatus {
    /// The agent's id, `spiffe://<trust domain>/agent/<uid>`: opaque, never reassigned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub agent_id: Option<String>,
    /// The Secret that carries the credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub secret_name: Option<String>,
    /// The UID of the bound object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 36))]
    pub bound_object_uid: Option<String>,
    /// Held grants of all, such as `2/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub grants_held: Option<String>,
    /// `Ready` and `GrantsHeld`; `UserAccepted` where `spec.user` is set; `PolicyCompliant` while a policy in Audit
    /// would take something.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// What came of every grant that names or selects the agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub grants: Vec<GrantStatus>,
    /// The generation that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// What came of one grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GrantStatus {
    /// The AgentGrant's name.
    #[schemars(length(max = 512))]
    pub name: String,
    /// The AgentGrant's UID.
    #[schemars(length(max = 36))]
    pub uid: String,
    /// The AgentResource's name.
    #[schemars(length(max = 253))]
    pub resource: String,
    /// The AgentResource's UID; absent while there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 36))]
    pub resource_uid: Option<String>,
    /// Whether the agent holds it.
    pub state: GrantState,
    /// Why it is refused or narrowed: one of the closed set of reasons.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub reason: Option<String>,
    /// The roles held.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), inner(length(max = 128)))]
    pub roles: Vec<String>,
    /// The scopes held.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), inner(length(max = 128)))]
    pub scopes: Vec<String>,
    /// A digest of the rest of the answer (audience, profile, subject, lifetime, whose users).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub digest: Option<String>,
    /// Where the tokens of this answer stand in a status list; absent where nothing is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_index: Option<StatusIndex>,
}

/// An entry of a status list (Token Status List §5.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StatusIndex {
    /// The list: 128 bits as 32 hexadecimal digits.
    #[schemars(length(max = 32))]
    pub list: String,
    /// The index in it.
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub index: i64,
}

/// Whether a grant is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum GrantState {
    /// Everything that was asked.
    Held,
    /// A part of what was asked.
    Narrowed,
    /// Nothing.
    Refused,
}

impl GrantStatus {
    /// The reason as one of the closed set; `None` where it is held, or was written by a newer version.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        self.reason.as_deref().and_then(|r| r.parse().ok())
    }
}

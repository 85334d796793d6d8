//! AgentResource: this service exists, what it offers, and from which namespaces it may be granted.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LabelSelector, rules};

/// Holds for access tokens' audiences: a scheme, a host without user, perhaps a port, a path; or a URN
/// (RFC 8141). What has characters that no audience may have is refused by that rule alone.
const ABSOLUTE_URI: &str = r#"has(self.kubernetes) || (has(self.tokenProfile) && self.tokenProfile == 'Identity') || !self.audience.matches(r'^[!"$-~]+$') || self.audience.matches(r'^[a-z][a-z0-9+.-]*://([A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?([/?][!-~]*)?$') || self.audience.matches(r'^urn:[a-z0-9][a-z0-9-]{0,31}:[!-~]+$')"#;

/// A service that agents may be granted rights on. Nothing is grantable by default: see `allow`.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "agentid.dev",
    version = "v1alpha1",
    kind = "AgentResource",
    status = "AgentResourceStatus",
    shortname = "ares",
    category = "agentid",
    doc = "A service that agents may be granted rights on. Nothing is grantable by default: see spec.allow.",
    derive = "PartialEq",
    derive = "Default",
    selectable = ".spec.audience",
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Accepted")].status"#
    ),
    printcolumn(name = "Audience", type_ = "string", json_path = ".spec.audience"),
    printcolumn(name = "Profile", type_ = "string", json_path = ".spec.tokenProfile"),
    printcolumn(name = "Holders", type_ = "integer", json_path = ".status.holders"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Algorithm", type_ = "string", json_path = ".spec.signingAlgorithm", priority = 1),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Accepted")].reason"#,
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.kubernetes) || (has(self.tokenProfile) ? self.tokenProfile : 'Access') == (has(oldSelf.tokenProfile) ? oldSelf.tokenProfile : 'Access')")
        .message("tokenProfile is immutable, since no audience may ever take both token kinds: create another AgentResource instead")
        .field_path(".tokenProfile")
        .reason(Reason::FieldValueForbidden),
    validation = Rule::new("has(self.kubernetes) == has(oldSelf.kubernetes)")
        .message("kubernetes is immutable, since it decides the token kind: create another AgentResource instead")
        .field_path(".kubernetes")
        .reason(Reason::FieldValueForbidden),
    validation = Rule::new(ABSOLUTE_URI)
        .message("audience must be an absolute URI, such as https://tickets.example.com or urn:example:tickets, where tokenProfile is Access (the default)")
        .field_path(".audience"),
    validation = Rule::new("!has(self.kubernetes) || !has(self.tokenProfile) || self.tokenProfile == 'Identity'")
        .message("kubernetes implies tokenProfile: Identity, since the API server takes no access tokens: leave tokenProfile out")
        .field_path(".tokenProfile"),
    validation = Rule::new("!has(self.kubernetes) || !has(self.subject) || self.subject == 'Id'")
        .message("kubernetes implies subject: Id, since RoleBindings name agents by their id: leave subject out")
        .field_path(".subject"),
    validation = Rule::new("has(self.kubernetes) || !has(self.subject) || (has(self.tokenProfile) && self.tokenProfile == 'Identity')")
        .message("subject needs tokenProfile: Identity; an access token's subject is always the agent id: leave it out")
        .field_path(".subject"),
    validation = Rule::new("has(self.kubernetes) || !(has(self.tokenProfile) && self.tokenProfile == 'Identity') || !has(self.roles) || size(self.roles) == 0")
        .message("roles need tokenProfile: Access, or kubernetes; an identity token only authenticates: leave them out")
        .field_path(".roles"),
    validation = Rule::new("!has(self.kubernetes) || !has(self.scopes) || size(self.scopes) == 0")
        .message("kubernetes has no scopes: offer ClusterRoles as roles instead")
        .field_path(".scopes"),
    validation = Rule::new("has(self.kubernetes) || !(has(self.tokenProfile) && self.tokenProfile == 'Identity') || !has(self.scopes) || size(self.scopes) == 0")
        .message("scopes need tokenProfile: Access; an identity token only authenticates: leave them out")
        .field_path(".scopes"),
    validation = Rule::new("!(has(self.kubernetes) || (has(self.tokenProfile) && self.tokenProfile == 'Identity')) || !has(self.agent)")
        .message("agent needs tokenProfile: Access: an agent that takes calls is called with access tokens; leave it out")
        .field_path(".agent"),
    validation = Rule::new("!has(self.kubernetes) || !has(self.allow) || self.allow.all(a, !has(a.scopes) || size(a.scopes) == 0)")
        .message("kubernetes has no scopes: leave them out of allow")
        .field_path(".allow"),
    validation = Rule::new("!has(self.kubernetes) || !has(self.allow) || self.allow.all(a, !has(a.modes) || a.modes.all(m, m == 'Application'))")
        .message("kubernetes takes the mode Application alone, since its tokens never speak for a user: leave modes out of allow")
        .field_path(".allow")
)]
pub struct AgentResourceSpec {
    /// The `aud` of its tokens; unique in the cluster, the older AgentResource wins. Immutable.
    #[schemars(length(min = 1, max = 512), regex(pattern = rules::AUDIENCE))]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("audience is immutable: create another AgentResource instead")
        .reason(Reason::FieldValueForbidden))]
    pub audience: String,
    /// `Access` (RFC 9068 `at+jwt`) when absent, or `Identity` (`JWT`, for parties that only authenticate).
    /// Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "TokenProfile")]
    pub token_profile: Option<TokenProfile>,
    /// `Id` when absent: `sub` is the agent id. `Name`: `spiffe://<trust domain>/ns/<ns>/agent/<name>`, for
    /// parties whose trust is written down beforehand (Identity only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SubjectForm")]
    pub subject: Option<SubjectForm>,
    /// How its tokens are signed; `ES256` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SigningAlgorithm")]
    pub signing_algorithm: Option<SigningAlgorithm>,
    /// No token for it lives longer: 1m to 24h. Below 10m its grants are on demand only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 24))]
    #[x_kube(validation = rules::lifetime("maxTokenLifetime", "1m", "24h"))]
    pub max_token_lifetime: Option<String>,
    /// The roles that it offers; of `kubernetes` the names of ClusterRoles.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub roles: Vec<Offer>,
    /// The scopes that it offers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub scopes: Vec<Offer>,
    /// From which namespaces it may be granted; from none when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub allow: Vec<Allowance>,
    /// The service accounts that may ask the introspection endpoint about its tokens (RFC 7662).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub introspectors: Vec<Introspector>,
    /// The resource is itself an agent that takes calls: it may ask about the tokens it is called with, and may
    /// pass calls on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentRef>,
    /// The resource is this cluster: its roles are ClusterRoles, and a grant becomes a RoleBinding in the grant's
    /// namespace. Implies `tokenProfile: Identity` and `subject: Id`. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ThisCluster")]
    pub kubernetes: Option<ThisCluster>,
}

/// Marks the AgentResource that is this cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ThisCluster {}

/// A service account that may ask about a resource's tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Introspector {
    /// Its namespace.
    #[schemars(length(min = 1, max = 63), regex(pattern = rules::OBJECT_NAME))]
    pub namespace: String,
    /// Its name.
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::OBJECT_NAME))]
    pub service_account_name: String,
}

/// An AgentIdentity of any namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AgentRef {
    /// Its namespace.
    #[schemars(length(min = 1, max = 63), regex(pattern = rules::OBJECT_NAME))]
    pub namespace: String,
    /// Its name.
    #[schemars(length(min = 1, max = 63), regex(pattern = rules::OBJECT_NAME))]
    pub name: String,
}

/// A role or scope that a resource offers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Offer {
    /// The name as it stands in tokens: a scope-token of RFC 6749 §3.3.
    #[schemars(length(min = 1, max = 128), regex(pattern = rules::SCOPE_TOKEN))]
    pub name: String,
    /// What it lets an agent do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
}

/// Namespaces from which a resource may be granted, and what of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Allowance {
    /// The namespaces, by labels; `{}` selects all. Use labels that tenants can't set, such as
    /// `kubernetes.io/metadata.name`.
    pub namespace_selector: LabelSelector,
    /// The roles that they may grant. Roles and scopes both absent: all that is offered; one absent: none of
    /// that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128), inner(length(min = 1, max = 128), regex(pattern = rules::SCOPE_TOKEN)))]
    pub roles: Option<Vec<String>>,
    /// The scopes that they may grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128), inner(length(min = 1, max = 128), regex(pattern = rules::SCOPE_TOKEN)))]
    pub scopes: Option<Vec<String>>,
    /// The modes in which they may be granted; Application alone when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 3))]
    pub modes: Option<Vec<Mode>>,
}

/// Whose rights a token carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// The agent's own rights.
    Application,
    /// A user's rights, which the user's live token hands over.
    Delegation,
    /// The rights of the user that the agent is paired with.
    AgentUser,
}

impl Mode {
    /// The word of the `agentid.dev` claim and of audit lines.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Application => "autonomous",
            Self::Delegation => "delegated",
            Self::AgentUser => "agent_user",
        }
    }

    /// The form of a grant, as its field is called.
    #[must_use]
    pub const fn form(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Delegation => "delegation",
            Self::AgentUser => "agentUser",
        }
    }
}

/// The token kinds (mutually exclusive by `typ` and by audience).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum TokenProfile {
    /// An access token, `typ: at+jwt` (RFC 9068).
    #[default]
    Access,
    /// An identity token, `typ: JWT`, shaped like a JWT-SVID.
    Identity,
}

/// What an identity token's `sub` is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum SubjectForm {
    /// `spiffe://<trust domain>/agent/<uid>`.
    #[default]
    Id,
    /// `spiffe://<trust domain>/ns/<namespace>/agent/<name>`.
    Name,
}

/// The signature algorithms (RFC 7518 §3.1).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum SigningAlgorithm {
    /// ECDSA over P-256 with SHA-256.
    #[default]
    ES256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RS256,
}

/// What agentid says of a resource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentResourceStatus {
    /// `Accepted`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// How many agents hold it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holders: Option<i64>,
    /// The generation that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

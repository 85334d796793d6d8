//! Objects as they were seen, trimmed to what decisions need. An idle agent costs a few hundred bytes here.
//!
//! Invariant: these say what the API server said, never what we wish.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{Digest, Hasher, Key, Uid};
use crate::api::{
    AgentGrant, AgentIdentity, AgentIdentityStatus, AgentResource, Allowance, IDENTITY_KEY, LabelSelector,
    Mode, Reason, SigningAlgorithm, SubjectForm, TokenProfile, parse_seconds,
};

/// What every object has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Namespace and name; the namespace is empty for cluster-scoped objects.
    pub key: Key,
    /// The UID.
    pub uid: Uid,
    /// The resourceVersion; versions of one kind are ordered (KEP-5504).
    pub version: u64,
    /// The creation time: the older wins conflicts.
    pub created: Timestamp,
    /// A deletionTimestamp was seen.
    pub deleting: bool,
}

impl Meta {
    /// The order in which objects win conflicts: the older, then the lower UID.
    #[must_use]
    pub const fn seniority(&self) -> (Timestamp, Uid) {
        (self.created, self.uid)
    }

    fn same_but_version(&self, other: &Self) -> bool {
        (&self.key, self.uid, self.created, self.deleting)
            == (&other.key, other.uid, other.created, other.deleting)
    }
}

/// Labels, looked up by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(Box<[(Box<str>, Box<str>)]>);

impl Labels {
    /// The value of a label.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| &**k == key).map(|(_, v)| &**v)
    }

    /// Whether a selector selects them.
    #[must_use]
    pub fn matched_by(&self, selector: &LabelSelector) -> bool {
        selector.matches(|key| self.get(key))
    }
}

impl<K: Into<Box<str>>, V: Into<Box<str>>> FromIterator<(K, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(labels: I) -> Self {
        Self(labels.into_iter().map(|(k, v)| (k.into(), v.into())).collect())
    }
}

/// A kind that agents may be bound to, as `apps/v1/Deployment`.
pub type KindName = Arc<str>;

/// The name of a kind in [`KindName`]'s form.
#[must_use]
pub fn kind_name(api_version: &str, kind: &str) -> KindName {
    format!("{api_version}/{kind}").into()
}

/// What an agent is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The kind.
    pub kind: KindName,
    /// The name, in the agent's namespace.
    pub name: Arc<str>,
    /// The UID that the spec asks for.
    pub uid: Option<Uid>,
}

impl Bound {
    /// Whether the agent is bound to one very object: by UID, or to a Pod.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.uid.is_some() || &*self.kind == "v1/Pod"
    }
}

/// An AgentIdentity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Its metadata.
    pub meta: Meta,
    /// `metadata.generation`.
    pub generation: i64,
    /// Its labels, by which grants select it.
    pub labels: Labels,
    /// The UIDs of its ownerReferences.
    pub owners: Box<[Uid]>,
    /// Whom it lives and dies with.
    pub bound: Option<Bound>,
    /// The Secret of its credentials, defaulted.
    pub secret_name: Arc<str>,
    /// `tokenLifetime` in seconds.
    pub token_lifetime: Option<u32>,
    /// `expiresAt`.
    pub expires_at: Option<Timestamp>,
    /// `ttlSecondsAfterExpired`.
    pub ttl_after_expired: Option<u32>,
    /// `suspend`.
    pub suspend: bool,
    /// What in its spec can't be understood (a schema of another version accepted it).
    pub invalid: Option<Box<str>>,
    /// Its status.
    pub status: SeenStatus,
}

impl Agent {
    /// The UID of the one object that the agent lives and dies with; `None` if it follows a name, or if its
    /// object has not been seen yet.
    #[must_use]
    pub fn bound_uid(&self) -> Option<Uid> {
        self.bound.as_ref().filter(|b| b.is_exact()).and_then(|b| b.uid.or(self.status.bound_uid))
    }

    /// Whether two sights of an agent differ in nothing but resourceVersion, owners and status.
    pub(crate) fn same_but_status(&self, other: &Self) -> bool {
        let Self {
            meta,
            generation,
            labels,
            owners: _,
            bound,
            secret_name,
            token_lifetime,
            expires_at,
            ttl_after_expired,
            suspend,
            invalid,
            status: _,
        } = self;
        meta.same_but_version(&other.meta)
            && *generation == other.generation
            && *labels == other.labels
            && *bound == other.bound
            && *secret_name == other.secret_name
            && *token_lifetime == other.token_lifetime
            && *expires_at == other.expires_at
            && *ttl_after_expired == other.ttl_after_expired
            && *suspend == other.suspend
            && *invalid == other.invalid
    }
}

/// A status as it was seen: enough to tell whether it must be written, and what a write must keep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenStatus {
    /// Digest of all but transition times.
    pub digest: Digest,
    /// `boundObjectUid`.
    pub bound_uid: Option<Uid>,
    /// The conditions.
    pub conditions: Box<[SeenCondition]>,
}

/// A condition as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenCondition {
    /// `type`.
    pub kind: Box<str>,
    /// `status`: True, False or Unknown (`None`).
    pub status: Option<bool>,
    /// `reason`, if it is of the closed set.
    pub reason: Option<Reason>,
    /// `lastTransitionTime`.
    pub since: Timestamp,
}

impl SeenStatus {
    /// A condition by type.
    #[must_use]
    pub fn condition(&self, kind: &str) -> Option<&SeenCondition> {
        self.conditions.iter().find(|c| &*c.kind == kind)
    }
}

/// The conditions of a status as they were seen.
pub(crate) fn seen_conditions(conditions: &[Condition]) -> Box<[SeenCondition]> {
    conditions
        .iter()
        .map(|c| SeenCondition {
            kind: c.type_.as_str().into(),
            status: match c.status.as_str() {
                "True" => Some(true),
                "False" => Some(false),
                _ => None,
            },
            reason: c.reason.parse().ok(),
            since: c.last_transition_time.0,
        })
        .collect()
}

/// Digest of a status, whatever its kind: its JSON with the transition times left out.
pub(crate) fn status_digest<T: serde::Serialize>(status: &T) -> Digest {
    let mut value = serde_json::to_value(status).unwrap_or_default();
    if let Some(conditions) = value.get_mut("conditions").and_then(|c| c.as_array_mut()) {
        for condition in conditions {
            if let Some(condition) = condition.as_object_mut() {
                condition.remove("lastTransitionTime");
            }
        }
    }
    let mut hasher = Hasher::new("status");
    hasher.part(value.to_string().as_bytes());
    hasher.finish()
}

/// An object that cannot be taken into the world: it says which field and why.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{field}: {problem}")]
pub struct Unfit {
    /// The field.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

fn unfit(field: &'static str, problem: impl ToString) -> Unfit {
    Unfit { field, problem: problem.to_string() }
}

/// Takes the metadata of an object of ours.
///
/// # Errors
/// [`Unfit`] where name or UID is missing or malformed.
pub fn meta_of(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> Result<Meta, Unfit> {
    let name = meta.name.as_deref().ok_or_else(|| unfit("metadata.name", "is missing"))?;
    let uid = meta.uid.as_deref().unwrap_or_default().parse().map_err(|e| unfit("metadata.uid", e))?;
    Ok(Meta {
        key: Key::new(meta.namespace.as_deref().unwrap_or_default(), name),
        uid,
        version: meta.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or_default(),
        created: meta.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0),
        deleting: meta.deletion_timestamp.is_some(),
    })
}

impl TryFrom<&AgentIdentity> for Agent {
    type Error = Unfit;

    fn try_from(object: &AgentIdentity) -> Result<Self, Unfit> {
        let meta = meta_of(&object.metadata)?;
        let spec = &object.spec;
        let mut invalid = None;
        let bound = spec.bound_object_ref.as_ref().map(|b| Bound {
            kind: kind_name(&b.api_version, &b.kind),
            name: b.name.as_str().into(),
            uid: b.uid.as_deref().and_then(|u| {
                u.parse().map_err(|e| invalid = Some(format!("spec.boundObjectRef.uid: {e}").into())).ok()
            }),
        });
        let token_lifetime = spec.token_lifetime.as_deref().and_then(|t| {
            parse_seconds(t).map_err(|e| invalid = Some(format!("spec.tokenLifetime: {e}").into())).ok()
        });
        let secret_name = spec
            .secret_name
            .as_deref()
            .map_or_else(|| Arc::from(format!("{}-agentid", meta.key.name)), Arc::from);
        Ok(Self {
            generation: object.metadata.generation.unwrap_or_default(),
            labels: object.metadata.labels.iter().flatten().map(|(k, v)| (k.as_str(), v.as_str())).collect(),
            owners: object
                .metadata
                .owner_references
                .iter()
                .flatten()
                .filter_map(|o| o.uid.parse().ok())
                .collect(),
            bound,
            secret_name,
            token_lifetime,
            expires_at: spec.expires_at.as_ref().map(|t| t.0),
            ttl_after_expired: spec.ttl_seconds_after_expired.and_then(|t| u32::try_from(t).ok()),
            suspend: spec.suspend.unwrap_or_default(),
            invalid,
            status: object.status.as_ref().map(SeenStatus::from).unwrap_or_default(),
            meta,
        })
    }
}

impl From<&AgentIdentityStatus> for SeenStatus {
    fn from(status: &AgentIdentityStatus) -> Self {
        Self {
            digest: status_digest(status),
            bound_uid: status.bound_object_uid.as_deref().and_then(|u| u.parse().ok()),
            conditions: seen_conditions(&status.conditions),
        }
    }
}

/// An AgentResource.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// Its metadata.
    pub meta: Meta,
    /// `metadata.generation`.
    pub generation: i64,
    /// The `aud` of its tokens.
    pub audience: Arc<str>,
    /// Its token kind.
    pub profile: TokenProfile,
    /// Its subject form.
    pub subject: SubjectForm,
    /// Its signature algorithm.
    pub algorithm: SigningAlgorithm,
    /// `maxTokenLifetime` in seconds.
    pub max_token_lifetime: Option<u32>,
    /// Names of the roles offered.
    pub roles: Box<[Arc<str>]>,
    /// Names of the scopes offered.
    pub scopes: Box<[Arc<str>]>,
    /// From where it may be granted.
    pub allow: Box<[Allowance]>,
    /// What in its spec can't be understood.
    pub invalid: Option<Box<str>>,
    /// Its status.
    pub status: SeenStatus,
}

impl Resource {
    /// Whether two sights of a resource say the same, whatever their versions, generations and statuses.
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        let Self {
            meta,
            generation: _,
            audience,
            profile,
            subject,
            algorithm,
            max_token_lifetime,
            roles,
            scopes,
            allow,
            invalid,
            status: _,
        } = self;
        meta.same_but_version(&other.meta)
            && *audience == other.audience
            && *profile == other.profile
            && *subject == other.subject
            && *algorithm == other.algorithm
            && *max_token_lifetime == other.max_token_lifetime
            && *roles == other.roles
            && *scopes == other.scopes
            && *allow == other.allow
            && *invalid == other.invalid
    }
}

impl TryFrom<&AgentResource> for Resource {
    type Error = Unfit;

    fn try_from(object: &AgentResource) -> Result<Self, Unfit> {
        let spec = &object.spec;
        let mut invalid = None;
        let max_token_lifetime = spec.max_token_lifetime.as_deref().and_then(|t| {
            parse_seconds(t).map_err(|e| invalid = Some(format!("spec.maxTokenLifetime: {e}").into())).ok()
        });
        Ok(Self {
            meta: meta_of(&object.metadata)?,
            generation: object.metadata.generation.unwrap_or_default(),
            audience: spec.audience.as_str().into(),
            profile: spec.token_profile.unwrap_or_default(),
            subject: spec.subject.unwrap_or_default(),
            algorithm: spec.signing_algorithm.unwrap_or_default(),
            max_token_lifetime,
            roles: spec.roles.iter().map(|o| o.name.as_str().into()).collect(),
            scopes: spec.scopes.iter().map(|o| o.name.as_str().into()).collect(),
            allow: spec.allow.clone().into(),
            invalid,
            status: object
                .status
                .as_ref()
                .map(|s| SeenStatus {
                    digest: status_digest(s),
                    bound_uid: None,
                    conditions: seen_conditions(&s.conditions),
                })
                .unwrap_or_default(),
        })
    }
}

/// Which agents a grant speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// These.
    Names(Box<[Arc<str>]>),
    /// All of the namespace with such labels.
    Selector(Box<LabelSelector>),
}

/// An AgentGrant.
#[derive(Clone, Debug, PartialEq)]
pub struct Grant {
    /// Its metadata.
    pub meta: Meta,
    /// `metadata.generation`.
    pub generation: i64,
    /// Which agents.
    pub selection: Selection,
    /// The AgentResource's name.
    pub resource: Arc<str>,
    /// In whose right.
    pub mode: Mode,
    /// Roles asked for.
    pub roles: Box<[Arc<str>]>,
    /// Scopes asked for.
    pub scopes: Box<[Arc<str>]>,
    /// `notBefore`.
    pub not_before: Option<Timestamp>,
    /// `expiresAt`.
    pub expires_at: Option<Timestamp>,
    /// `secretKey`.
    pub secret_key: Option<Arc<str>>,
    /// What in its spec can't be understood.
    pub invalid: Option<Box<str>>,
    /// Its status.
    pub status: SeenStatus,
}

impl Grant {
    /// Whether two sights of a grant say the same, whatever their versions, generations and statuses.
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        let Self {
            meta,
            generation: _,
            selection,
            resource,
            mode,
            roles,
            scopes,
            not_before,
            expires_at,
            secret_key,
            invalid,
            status: _,
        } = self;
        meta.same_but_version(&other.meta)
            && *selection == other.selection
            && *resource == other.resource
            && *mode == other.mode
            && *roles == other.roles
            && *scopes == other.scopes
            && *not_before == other.not_before
            && *expires_at == other.expires_at
            && *secret_key == other.secret_key
            && *invalid == other.invalid
    }

    /// Whether it speaks of an agent of its namespace.
    #[must_use]
    pub fn selects(&self, agent: &Agent) -> bool {
        match &self.selection {
            Selection::Names(names) => names.iter().any(|n| *n == agent.meta.key.name),
            Selection::Selector(selector) => agent.labels.matched_by(selector),
        }
    }
}

impl TryFrom<&AgentGrant> for Grant {
    type Error = Unfit;

    fn try_from(object: &AgentGrant) -> Result<Self, Unfit> {
        let spec = &object.spec;
        let selection = match (&spec.agents.names, &spec.agents.selector) {
            (Some(names), None) => Selection::Names(names.iter().map(|n| n.as_str().into()).collect()),
            (None, Some(selector)) => Selection::Selector(Box::new(selector.clone())),
            _ => return Err(unfit("spec.agents", "exactly one of names and selector must be set")),
        };
        let texts = |list: &[String]| list.iter().map(|t| Arc::from(t.as_str())).collect();
        let (roles, scopes, mut invalid) = spec.application.as_ref().map_or_else(
            || (Box::default(), Box::default(), Some("spec: has no form that this version knows".into())),
            |a| (texts(&a.roles), texts(&a.scopes), None),
        );
        // The schema says so too; but whatever was stored under another schema must not take the place of the
        // identity token, or leave the volume.
        if let Some(key) = &spec.secret_key
            && (key == IDENTITY_KEY || key.contains(['/', '\\']) || !key.ends_with(".jwt"))
        {
            invalid =
                Some(format!("spec.secretKey: {key:?} must end in .jwt and not be {IDENTITY_KEY}").into());
        }
        Ok(Self {
            meta: meta_of(&object.metadata)?,
            generation: object.metadata.generation.unwrap_or_default(),
            selection,
            resource: spec.resource.as_str().into(),
            mode: Mode::Application,
            roles,
            scopes,
            not_before: spec.not_before.as_ref().map(|t| t.0),
            expires_at: spec.expires_at.as_ref().map(|t| t.0),
            secret_key: spec.secret_key.as_deref().map(Arc::from),
            invalid,
            status: object
                .status
                .as_ref()
                .map(|s| SeenStatus {
                    digest: status_digest(s),
                    bound_uid: None,
                    conditions: seen_conditions(&s.conditions),
                })
                .unwrap_or_default(),
        })
    }
}

/// A Namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its metadata; the namespace of the key is empty.
    pub meta: Meta,
    /// Its labels, by which resources allow it.
    pub labels: Labels,
}

/// An object that agents may be bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundObject {
    /// Its metadata.
    pub meta: Meta,
    /// A pod that succeeded or failed, or a Job that completed or failed.
    pub finished: bool,
    /// It exists but does not carry the label by which pods are seen.
    pub unselected: bool,
}

/// A Secret of type `agentid.dev/credentials`, as its metadata tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Its metadata.
    pub meta: Meta,
    /// The agent that it says it was written for; `None` if it is not ours.
    pub agent: Option<Uid>,
    /// Digest of the plan that it was written by.
    pub plan: Digest,
    /// The token files that it holds, with a digest of what each says.
    pub tokens: Box<[(Box<str>, Digest)]>,
    /// Ids of the keys that signed them.
    pub kids: Box<[Arc<str>]>,
    /// When it is to be renewed.
    pub renew_at: Timestamp,
    /// When the first of its tokens expires.
    pub expires_at: Timestamp,
    /// How it differs from what we wrote.
    pub drift: Option<Drift>,
}

impl Credentials {
    /// Whether two sights of a Secret say the same, whatever their versions.
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        let Self { meta, agent, plan, tokens, kids, renew_at, expires_at, drift } = self;
        meta.same_but_version(&other.meta)
            && *agent == other.agent
            && *plan == other.plan
            && *tokens == other.tokens
            && *kids == other.kids
            && *renew_at == other.renew_at
            && *expires_at == other.expires_at
            && *drift == other.drift
    }
}

/// What somebody else changed on a Secret of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// The field manager that changed it.
    pub by: Box<str>,
    /// What was changed.
    pub what: Changed,
}

/// A part of a Secret that only we write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// `data`.
    Data,
    /// `immutable`: it can't be mended in place.
    Immutable,
    /// Our labels.
    Labels,
    /// Our annotations.
    Annotations,
    /// `ownerReferences`.
    Owners,
}

impl Changed {
    /// The field's path.
    #[must_use]
    pub const fn field(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Immutable => "immutable",
            Self::Labels => "metadata.labels",
            Self::Annotations => "metadata.annotations",
            Self::Owners => "metadata.ownerReferences",
        }
    }
}

/// The `agentid-trust` ConfigMap of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// Its metadata.
    pub meta: Meta,
    /// It bears our label.
    pub ours: bool,
    /// Digest of its data.
    pub digest: Digest,
}

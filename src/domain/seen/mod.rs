//! Objects as they were seen, trimmed to what decisions need. An idle agent costs a few hundred bytes here.
//!
//! Invariant: these say what the API server said, never what we wish.

mod blueprint;
mod held;
mod kubernetes;
mod rights;

use std::sync::Arc;

pub use blueprint::Blueprint;
pub use held::{BoundObject, Changed, Controller, Credentials, Drift, ServiceAccount, Trust};
pub use kubernetes::{Binding, ClusterRole};
pub use rights::{Grant, Namespace, Resource, Selection, Users};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::statuslist::{Recorded, StatusRef};
use super::{Digest, Hasher, Key, Uid};
use crate::api::{
    AgentBlueprintStatus, AgentGrantStatus, AgentIdentity, AgentIdentityStatus, AgentResourceStatus,
    GrantStatus, LabelSelector, MADE_LABEL, PER_LABEL, ROTATE_ANNOTATION, Reason, parse_seconds,
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

    pub(super) fn same_but_version(&self, other: &Self) -> bool {
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

/// The kind of pods, in [`KindName`]'s form.
pub const POD: &str = "v1/Pod";

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
        self.uid.is_some() || &*self.kind == POD
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
    /// The AgentBlueprint that it is of.
    pub blueprint: Option<Arc<str>>,
    /// The UID of the blueprint that it was made from; `None` if somebody wrote it.
    pub made_by: Option<Uid>,
    /// Whom it lives and dies with.
    pub bound: Option<Bound>,
    /// The service account of its pods.
    pub service_account: Option<Arc<str>>,
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
    /// Somebody answers for it: `sponsors` is not empty.
    pub sponsored: bool,
    /// The name of its user, as it is written.
    pub username: Option<Arc<str>>,
    /// What in its spec can't be understood (a schema of another version accepted it).
    pub invalid: Option<Box<str>>,
    /// The rotation that was last asked for; what is no instant asks for none.
    pub rotation: Option<Timestamp>,
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

    /// Whether its credentials are in a Secret. An agent that was made for each pod has none: a pod can't mount a
    /// name that it can't know.
    #[must_use]
    pub fn has_secret(&self) -> bool {
        self.made_by.is_none() || self.labels.get(PER_LABEL) != Some("Pod")
    }

    /// Whether two sights of an agent differ in nothing but resourceVersion, owners, a rotation asked for and status.
    pub(crate) fn same_but_status(&self, other: &Self) -> bool {
        let Self {
            meta,
            generation,
            labels,
            owners: _,
            blueprint,
            made_by,
            bound,
            service_account,
            secret_name,
            token_lifetime,
            expires_at,
            ttl_after_expired,
            suspend,
            sponsored,
            username,
            invalid,
            rotation: _,
            status: _,
        } = self;
        meta.same_but_version(&other.meta)
            && *generation == other.generation
            && *labels == other.labels
            && *blueprint == other.blueprint
            && *made_by == other.made_by
            && *bound == other.bound
            && *service_account == other.service_account
            && *secret_name == other.secret_name
            && *token_lifetime == other.token_lifetime
            && *expires_at == other.expires_at
            && *ttl_after_expired == other.ttl_after_expired
            && *suspend == other.suspend
            && *sponsored == other.sponsored
            && *username == other.username
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
    /// The held grants that it records an index of; none where it is another agent's status.
    pub grants: Box<[Recorded]>,
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
    /// What it records of a grant.
    #[must_use]
    pub fn recorded(&self, grant: Uid) -> Option<&Recorded> {
        self.grants.iter().find(|r| r.grant == grant)
    }

    /// The index that a token of this answer may bear: one that is recorded, for at least as much.
    #[must_use]
    pub fn index_of(
        &self,
        grant: Uid,
        resource: Option<Uid>,
        says: &super::Entitlement,
    ) -> Option<StatusRef> {
        self.recorded(grant).filter(|r| Some(r.resource) == resource && r.covers(says)).map(|r| r.at)
    }

    /// What it records under an index.
    #[must_use]
    pub fn recorded_at(&self, at: StatusRef) -> Option<&Recorded> {
        self.grants.iter().find(|r| r.at == at)
    }

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

fn unfit(field: &'static str, problem: impl Into<String>) -> Unfit {
    Unfit { field, problem: problem.into() }
}

/// Takes the metadata of an object of ours.
///
/// # Errors
/// [`Unfit`] where name or UID is missing or malformed.
pub fn meta_of(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> Result<Meta, Unfit> {
    let name = meta.name.as_deref().ok_or_else(|| unfit("metadata.name", "is missing"))?;
    let uid = meta
        .uid
        .as_deref()
        .unwrap_or_default()
        .parse()
        .map_err(|e: super::UidError| unfit("metadata.uid", e.to_string()))?;
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
            blueprint: spec.blueprint.as_deref().map(Arc::from),
            made_by: object
                .metadata
                .labels
                .as_ref()
                .and_then(|l| l.get(MADE_LABEL))
                .filter(|_| spec.blueprint.is_some())
                .and_then(|uid| uid.parse().ok()),
            bound,
            service_account: spec.service_account_name.as_deref().map(Arc::from),
            secret_name,
            token_lifetime,
            expires_at: spec.expires_at.as_ref().map(|t| t.0),
            ttl_after_expired: spec.ttl_seconds_after_expired.and_then(|t| u32::try_from(t).ok()),
            suspend: spec.suspend.unwrap_or_default(),
            sponsored: !spec.sponsors.is_empty(),
            username: spec.user.as_ref().map(|u| u.username.as_str().into()),
            invalid,
            rotation: object
                .metadata
                .annotations
                .as_ref()
                .and_then(|a| a.get(ROTATE_ANNOTATION))
                .and_then(|at| at.parse().ok()),
            status: object.status.as_ref().map(|s| SeenStatus::of_agent(s, meta.uid)).unwrap_or_default(),
            meta,
        })
    }
}

impl SeenStatus {
    pub(super) fn of<T: serde::Serialize>(status: &T, conditions: &[Condition]) -> Self {
        Self {
            digest: status_digest(status),
            bound_uid: None,
            conditions: seen_conditions(conditions),
            grants: Box::default(),
        }
    }

    /// The status of the agent of a UID. One that a backup brought back with another agent's indexes records
    /// nothing: an index is of one agent, for ever.
    fn of_agent(status: &AgentIdentityStatus, uid: Uid) -> Self {
        let own = status.agent_id.as_deref().is_some_and(|id| id.ends_with(&format!("/agent/{uid}")));
        let grants = status.grants.iter().filter(|_| own).filter_map(recorded).collect();
        let bound_uid = status.bound_object_uid.as_deref().and_then(|u| u.parse().ok());
        Self { bound_uid, grants, ..Self::of(status, &status.conditions) }
    }
}

fn recorded(grant: &GrantStatus) -> Option<Recorded> {
    let texts = |list: &[String]| list.iter().map(|t| Arc::from(t.as_str())).collect();
    Some(Recorded {
        grant: grant.uid.parse().ok()?,
        resource: grant.resource_uid.as_deref()?.parse().ok()?,
        roles: texts(&grant.roles),
        scopes: texts(&grant.scopes),
        rest: grant.digest.as_deref()?.parse().ok()?,
        at: grant.status_index.as_ref()?.try_into().ok()?,
    })
}

impl From<&AgentResourceStatus> for SeenStatus {
    fn from(status: &AgentResourceStatus) -> Self {
        Self::of(status, &status.conditions)
    }
}

impl From<&AgentBlueprintStatus> for SeenStatus {
    fn from(status: &AgentBlueprintStatus) -> Self {
        Self::of(status, &status.conditions)
    }
}

impl From<&AgentGrantStatus> for SeenStatus {
    fn from(status: &AgentGrantStatus) -> Self {
        Self::of(status, &status.conditions)
    }
}

//! Objects as they were seen, trimmed to what decisions need. An idle agent costs a few hundred bytes here.
//!
//! Invariant: these say what the API server said, never what we wish.

mod agent;
mod blueprint;
mod held;
mod kubernetes;
mod rights;
mod status;

use std::sync::Arc;

pub use agent::{Agent, Bound};
pub use blueprint::Blueprint;
pub use held::{BoundObject, Changed, Controller, Credentials, Drift, ServiceAccount, Trust};
pub use kubernetes::{Binding, ClusterRole};
pub use rights::{Grant, Namespace, Resource, Selection, Users};
pub(crate) use status::status_digest;
pub use status::{SeenCondition, SeenStatus};

use jiff::Timestamp;

use super::{Key, Uid, UidError};
use crate::api::LabelSelector;

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
        .map_err(|e: UidError| unfit("metadata.uid", e.to_string()))?;
    Ok(Meta {
        key: Key::new(meta.namespace.as_deref().unwrap_or_default(), name),
        uid,
        version: meta.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or_default(),
        created: meta.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0),
        deleting: meta.deletion_timestamp.is_some(),
    })
}

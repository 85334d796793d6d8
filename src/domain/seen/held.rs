//! What agents live with, and what is written for them, as they were seen.

use std::sync::Arc;

use jiff::Timestamp;

use super::{KindName, Labels, Meta};
use crate::domain::{Digest, Uid};

/// An object that agents may be bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundObject {
    /// Its metadata.
    pub meta: Meta,
    /// A pod that succeeded or failed, or a Job that completed or failed.
    pub finished: bool,
    /// It exists but does not carry the label by which pods are seen.
    pub unselected: bool,
    /// What controls it: its ownerReference with `controller: true`.
    pub controller: Option<Controller>,
    /// Of a pod: its labels, by which blueprints select it.
    pub labels: Labels,
    /// Of a pod: its service account.
    pub account: Option<Arc<str>>,
    /// Of a pod: the value of the label by which pods are seen, which may name the agent.
    pub agent: Option<Arc<str>>,
}

impl BoundObject {
    /// One of which only metadata is known.
    #[must_use]
    pub fn new(meta: Meta) -> Self {
        Self {
            meta,
            finished: false,
            unselected: false,
            controller: None,
            labels: Labels::default(),
            account: None,
            agent: None,
        }
    }
}

/// What controls an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Controller {
    /// Its kind.
    pub kind: KindName,
    /// Its name, in the same namespace.
    pub name: Arc<str>,
    /// Its UID.
    pub uid: Uid,
}

/// A ServiceAccount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccount {
    /// Its metadata.
    pub meta: Meta,
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
    /// The rotation that its tokens were minted for.
    pub rotated: Option<Timestamp>,
    /// How it differs from what we wrote.
    pub drift: Option<Drift>,
}

impl Credentials {
    /// Whether two sights of a Secret say the same, whatever their versions.
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        let Self { meta, agent, plan, tokens, kids, renew_at, expires_at, rotated, drift } = self;
        meta.same_but_version(&other.meta)
            && *agent == other.agent
            && *plan == other.plan
            && *tokens == other.tokens
            && *kids == other.kids
            && *renew_at == other.renew_at
            && *expires_at == other.expires_at
            && *rotated == other.rotated
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

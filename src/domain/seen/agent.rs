//! AgentIdentities, as they were seen.
//!
//! Invariant: what of a spec cannot be understood is said in `invalid`, and harms that agent alone.

use std::sync::Arc;

use jiff::Timestamp;

use super::{KindName, Labels, Meta, POD, SeenStatus, Unfit, kind_name, meta_of};
use crate::api::{AgentIdentity, MADE_LABEL, PER_LABEL, ROTATE_ANNOTATION, parse_seconds};
use crate::domain::Uid;

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

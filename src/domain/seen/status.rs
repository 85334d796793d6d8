//! Statuses, as they were seen: what must be written is what differs from them.
//!
//! Invariant: transition times make no difference; another agent's indexes are never read as an agent's own.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::api::{
    AgentBlueprintStatus, AgentGrantStatus, AgentIdentityStatus, AgentResourceStatus, GrantStatus, Reason,
};
use crate::domain::statuslist::{Recorded, StatusRef};
use crate::domain::{Digest, Entitlement, Hasher, Uid};

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
    pub fn index_of(&self, grant: Uid, resource: Option<Uid>, says: &Entitlement) -> Option<StatusRef> {
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
fn seen_conditions(conditions: &[Condition]) -> Box<[SeenCondition]> {
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

impl SeenStatus {
    pub(in crate::domain) fn of<T: serde::Serialize>(status: &T, conditions: &[Condition]) -> Self {
        Self {
            digest: status_digest(status),
            bound_uid: None,
            conditions: seen_conditions(conditions),
            grants: Box::default(),
        }
    }

    /// The status of the agent of a UID. One that a backup brought back with another agent's indexes records
    /// nothing: an index is of one agent, for ever.
    pub(super) fn of_agent(status: &AgentIdentityStatus, uid: Uid) -> Self {
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
        unbound: matches!(grant.reason(), Some(Reason::Internal | Reason::ForeignObject)),
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

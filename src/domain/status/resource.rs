//! The status of a resource: whether grants of it are served, and how many hold one.
//!
//! Invariant: it is accepted exactly where decisions find no fault with the resource itself.

use jiff::Timestamp;

use super::{Said, StatusChange, conditions};
use crate::api::{AgentResourceStatus, Reason};
use crate::domain::seen::status_digest;
use crate::domain::{Resource, World, decide};

/// The status of a resource, if it differs from what was seen.
#[must_use]
pub fn resource_status(
    world: &World,
    resource: &Resource,
    now: Timestamp,
) -> Option<StatusChange<AgentResourceStatus>> {
    let refusal = decide::resource_refusal(world, resource);
    let said = vec![Said {
        kind: "Accepted",
        status: Some(refusal.is_none()),
        reason: refusal.as_ref().map_or(Reason::Issued, |r| r.reason),
        message: refusal.map_or_else(
            || {
                if resource.allow.is_empty() {
                    "grants are served; spec.allow is empty, so no namespace may be granted it yet".to_owned()
                } else {
                    "grants of the namespaces in spec.allow are served".to_owned()
                }
            },
            |r| r.message,
        ),
    }];
    let (conditions, transitions) = conditions(said, &resource.status, resource.generation, now);
    let status = AgentResourceStatus {
        conditions,
        holders: Some(world.holders(&resource.meta.key.name)),
        observed_generation: Some(resource.generation),
    };
    (status_digest(&status) != resource.status.digest).then_some(StatusChange { status, transitions })
}

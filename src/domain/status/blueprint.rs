//! The status of a blueprint: whether it was read, whether its pods are its own, whether their agents can be made, and
//! how its agents stand.
//!
//! Invariant: of pods that two blueprints select, both say so, each naming the other.

use std::sync::Arc;

use jiff::Timestamp;

use super::{Said, StatusChange, conditions};
use crate::api::{AgentBlueprintStatus, Reason};
use crate::domain::seen::status_digest;
use crate::domain::{Blueprint, World};

/// The status of a blueprint, if it differs from what was seen.
#[must_use]
pub fn blueprint_status(
    world: &World,
    blueprint: &Blueprint,
    now: Timestamp,
) -> Option<StatusChange<AgentBlueprintStatus>> {
    let name = &blueprint.meta.key.name;
    let accepted = Said {
        kind: "Accepted",
        status: Some(blueprint.invalid.is_none()),
        reason: if blueprint.invalid.is_none() { Reason::Issued } else { Reason::Invalid },
        message: match (&blueprint.invalid, &blueprint.pod_selector) {
            (Some(problem), _) => format!("{problem}; correct the field"),
            (None, Some(_)) => "pods that spec.podSelector selects become agents".to_owned(),
            (None, None) => {
                "no spec.podSelector: agents that name the blueprint are written by hand".to_owned()
            }
        },
    };
    let said = vec![accepted, uncontested(world, name), agents_made(world, name)];
    let (conditions, transitions) = conditions(said, &blueprint.status, blueprint.generation, now);
    let tally = world.blueprint_tally(name);
    let status = AgentBlueprintStatus {
        conditions,
        made: Some(tally.made),
        ready: Some(tally.ready),
        refused: Some(tally.refused),
        suspended: Some(tally.suspended),
        observed_generation: Some(blueprint.generation),
    };
    (status_digest(&status) != blueprint.status.digest).then_some(StatusChange { status, transitions })
}

/// Whether a blueprint has its pods to itself, and the names of their agents.
fn uncontested(world: &World, name: &Arc<str>) -> Said {
    let pods = world.contests_of(name).count();
    let Some((pod, contest)) = world.contests_of(name).next() else {
        let message = "no other blueprint selects its pods".to_owned();
        return Said { kind: "Uncontested", status: Some(true), reason: Reason::Issued, message };
    };
    let message = if contest.rules != *name {
        format!(
            "pod {pod} is also selected by the older AgentBlueprint {}, which rules; narrow one of the two \
             spec.podSelector ({pods} such pods)",
            contest.rules
        )
    } else if let Some(other) = contest.others.first() {
        format!(
            "pod {pod} is also selected by the younger AgentBlueprint {other}, which is passed over; narrow one of \
             the two spec.podSelector ({pods} such pods)"
        )
    } else {
        let taken = contest.taken.clone().unwrap_or_default();
        let leaves = world.agent(&pod.sibling(taken.clone())).is_some_and(|a| a.meta.deleting);
        let why = if leaves {
            "bears its name and is being deleted, but held by a finalizer; take that off"
        } else {
            "bears its name and is another object's; rename one of the two"
        };
        format!("the agent of pod {pod} can't be made: AgentIdentity {taken} {why} ({pods} such pods)")
    };
    Said { kind: "Uncontested", status: Some(false), reason: Reason::Conflict, message }
}

/// Whether the API server takes the agents that a blueprint makes.
fn agents_made(world: &World, name: &Arc<str>) -> Said {
    let pods = world.unmade_of(name).count();
    let (status, reason, message) = match world.unmade_of(name).next() {
        None => (true, Reason::Issued, "no agent that was to be made was refused".to_owned()),
        Some((pod, unmade)) => (
            false,
            unmade.refusal.reason,
            format!("the agent of pod {pod} can't be made: {} ({pods} such pods)", unmade.refusal.message),
        ),
    };
    Said { kind: "AgentsMade", status: Some(status), reason, message }
}

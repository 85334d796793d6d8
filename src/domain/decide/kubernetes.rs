//! The checks on roles of this cluster: guardrails first, then whether there is such a ClusterRole and whether agentid
//! may bind it.
//!
//! Invariant: unknown is not absent. While no watch says what a ClusterRole may do, an agent that asks for one is
//! neither given anything nor robbed of it.

use std::sync::Arc;

use super::{Clock, GrantDecision, Refusal, Standing};
use crate::api::Reason;
use crate::domain::guardrails::Violations;
use crate::domain::{Resource, Source, World};

/// What is left of roles that are asked for, offered and allowed; and why it is less.
///
/// # Errors
/// `Unknown` while ClusterRoles can't be seen.
pub(super) fn narrow(
    world: &World,
    resource: &Resource,
    asked: Vec<Arc<str>>,
    clock: &mut Clock,
) -> Result<(Vec<Arc<str>>, Option<Refusal>), Refusal> {
    if !asked.is_empty() && !world.is_fresh(&Source::ClusterRoles, clock.now) {
        clock.again_in(5);
        return Err(Refusal::new(
            Reason::Unknown,
            format!(
                "AgentResource {}: the watch of {} says nothing now: {}",
                resource.meta.key.name,
                Source::ClusterRoles,
                world.source(&Source::ClusterRoles).problem()
            ),
        ));
    }
    let (mut held, mut refusal) = (Vec::new(), None);
    for role in asked {
        match refuse(world, resource, &role) {
            None => held.push(role),
            Some(refused) => drop(refusal.get_or_insert(refused)),
        }
    }
    Ok((held, refusal))
}

fn refuse(world: &World, resource: &Resource, role: &Arc<str>) -> Option<Refusal> {
    let name = &resource.meta.key.name;
    let seen = world.cluster_role(role).filter(|r| !r.meta.deleting);
    let violations = seen.map_or_else(|| Violations::of_name(role), |r| r.violations);
    if let Some(guardrail) = violations.first() {
        return Some(Refusal::new(
            Reason::GuardrailDenied,
            format!(
                "spec.application.roles: ClusterRole {role:?} of AgentResource {name} {}, which no agent may hold \
                 (guardrail {}); name a ClusterRole without it",
                guardrail.what, guardrail.name
            ),
        ));
    }
    if seen.is_none() {
        return Some(Refusal::new(
            Reason::RoleNotOffered,
            format!(
                "spec.application.roles: ClusterRole {role:?} of AgentResource {name} does not exist; create it, or \
                 name another"
            ),
        ));
    }
    (!world.config().kubernetes.may_bind(role)).then(|| {
        Refusal::new(
            Reason::RoleNotAllowed,
            format!(
                "spec.application.roles: ClusterRole {role:?} of AgentResource {name} is not among \
                 kubernetes.bindableRoles in agentid's configuration; remove it, or have it added there"
            ),
        )
    })
}

/// An agent one of whose grants can't be told now can't be told itself: its Secret is written as a whole.
pub(super) fn held_back(standing: Standing, grants: &[GrantDecision]) -> Standing {
    let unknown = grants.iter().filter_map(|g| g.refusal.as_ref()).find(|r| r.reason == Reason::Unknown);
    match (standing, unknown) {
        (Standing::Allowed, Some(refusal)) => Standing::Unknown(refusal.clone()),
        (standing, _) => standing,
    }
}

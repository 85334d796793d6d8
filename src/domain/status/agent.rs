//! The status of an agent: its credential, each of its grants, its user, and what a policy in Audit would take.
//!
//! Invariant: a grant that can't be told keeps the status-list index that it has.

use std::sync::Arc;

use jiff::Timestamp;

use super::{Said, StatusChange, agent_id, conditions};
use crate::api::{AgentIdentityStatus, GrantState, GrantStatus, Reason};
use crate::domain::agent_user::agent_user_id;
use crate::domain::plan::Credential;
use crate::domain::seen::status_digest;
use crate::domain::statuslist::{Indexes, Recorded};
use crate::domain::{Agent, Bound, Decision, GrantDecision, Objection, Refusal, World, decide};

/// The status of an agent, if it differs from what was seen.
#[must_use]
pub fn agent_status(
    world: &World,
    decision: &Decision,
    indexes: &Indexes,
    credential: &Credential,
    now: Timestamp,
) -> Option<StatusChange<AgentIdentityStatus>> {
    let agent = world.agent(&decision.agent).filter(|a| a.meta.uid == decision.uid)?;
    let refusal = match credential {
        Credential::Absent(r) | Credential::Unknown(r) => Some(r),
        Credential::Fresh => None,
        Credential::Unsaid => return None,
    };
    if !indexes.widened && world.is_untried(agent, decision) {
        return None;
    }
    let unknown = matches!(credential, Credential::Unknown(_));
    let withheld = refusal.filter(|_| !matches!(decision.standing, decide::Standing::Allowed));
    let ready = Said {
        kind: "Ready",
        status: if unknown { None } else { Some(refusal.is_none()) },
        reason: refusal.map_or(Reason::Issued, |r| r.reason),
        message: refusal.map_or_else(
            || {
                if agent.has_secret() {
                    format!("the credentials are in Secret {}", agent.secret_name)
                } else {
                    "the agent may buy tokens by its pod's own service-account token".to_owned()
                }
            },
            |r| r.message.clone(),
        ),
    };
    let grants: Vec<GrantStatus> = decision
        .grants
        .iter()
        .map(|g| {
            let held = g.held.as_ref().filter(|_| withheld.is_none());
            if let Some(kept) = agent.status.recorded(g.uid).filter(|_| unknown && held.is_none()) {
                return unknown_grant(g, kept);
            }
            let trouble = withheld.or_else(|| decision.trouble(world, g));
            GrantStatus {
                name: g.grant.to_string(),
                uid: g.uid.to_string(),
                resource: g.resource.to_string(),
                resource_uid: g.resource_uid.map(|u| u.to_string()),
                state: match (held, trouble) {
                    (None, _) => GrantState::Refused,
                    (Some(_), Some(_)) => GrantState::Narrowed,
                    (Some(_), None) => GrantState::Held,
                },
                reason: trouble.map(|r| r.reason.as_str().to_owned()),
                roles: held.map(|h| h.roles.iter().map(ToString::to_string).collect()).unwrap_or_default(),
                scopes: held.map(|h| h.scopes.iter().map(ToString::to_string).collect()).unwrap_or_default(),
                digest: held.map(|h| h.rest().to_string()),
                status_index: held.and_then(|_| indexes.get(g.uid)).map(Into::into),
            }
        })
        .take(256)
        .collect();
    let all = decision.grants.len();
    let held =
        if withheld.is_some() { 0 } else { decision.grants.iter().filter(|g| g.held.is_some()).count() };
    let mut said = vec![ready, grants_held(world, decision, withheld.map(|r| r.reason), unknown, held)];
    said.extend(user_accepted(world, agent, unknown));
    said.extend(compliant(&decision.audited));
    let (conditions, mut transitions) = conditions(said, &agent.status, agent.generation, now);
    for transition in &mut transitions {
        transition.common = is_common(world, agent, decision, withheld, transition.condition);
    }
    let exact = agent.bound.as_ref().is_some_and(Bound::is_exact);
    let status = AgentIdentityStatus {
        agent_id: Some(agent_id(&world.config().trust_domain, agent.meta.uid)),
        secret_name: agent.has_secret().then(|| agent.secret_name.to_string()),
        bound_object_uid: match agent.status.bound_uid {
            // The very object that the agent is bound to, once and for all.
            Some(uid) if exact => Some(uid),
            _ => decision
                .bound_uid
                .filter(|u| agent.bound.as_ref().is_some_and(|b| b.uid.is_none_or(|want| want == *u))),
        }
        .map(|u| u.to_string()),
        grants_held: Some(format!("{held}/{all}")),
        conditions,
        grants,
        observed_generation: Some(agent.generation),
    };
    (status_digest(&status) != agent.status.digest).then_some(StatusChange { status, transitions })
}

/// Whether what a condition comes to say of a made agent is its blueprint's doing alone, so that it is the same for
/// thousands of others.
fn is_common(
    world: &World,
    agent: &Agent,
    decision: &Decision,
    withheld: Option<&Refusal>,
    condition: &str,
) -> bool {
    let suspended = withheld.is_some_and(|r| r.reason == Reason::Suspended)
        && world.blueprint_of(agent).is_some_and(|b| b.suspend);
    let inherited = decision.grants.iter().all(|g| g.inherited());
    let common = match condition {
        "Ready" => suspended,
        "GrantsHeld" => inherited && (withheld.is_none() || suspended),
        _ => false,
    };
    common && agent.made_by.is_some()
}

/// What can't be told now keeps the index that it has: unknown is not absent.
fn unknown_grant(grant: &GrantDecision, kept: &Recorded) -> GrantStatus {
    let texts = |names: &[Arc<str>]| names.iter().map(ToString::to_string).collect();
    GrantStatus {
        name: grant.grant.to_string(),
        uid: grant.uid.to_string(),
        resource: grant.resource.to_string(),
        resource_uid: Some(kept.resource.to_string()),
        state: GrantState::Refused,
        reason: Some(Reason::Unknown.as_str().to_owned()),
        roles: texts(&kept.roles),
        scopes: texts(&kept.scopes),
        digest: Some(kept.rest.to_string()),
        status_index: Some(kept.at.into()),
    }
}

fn grants_held(
    world: &World,
    decision: &Decision,
    withheld: Option<Reason>,
    unknown: bool,
    held: usize,
) -> Said {
    let all = decision.grants.len();
    let grants = decision.grants.iter();
    let troubled: Vec<_> = grants.filter_map(|g| Some((&g.grant, decision.trouble(world, g)?))).collect();
    let (status, reason, message) = match (withheld, troubled.first()) {
        _ if unknown => (None, Reason::Unknown, format!("of {all} grants; see Ready")),
        (Some(reason), _) if all > 0 => {
            (Some(false), reason, format!("0 of {all} grants are held: see Ready"))
        }
        (None, Some((_, first))) => {
            let list: Vec<_> = troubled
                .iter()
                .take(5)
                .map(|(grant, r)| format!("AgentGrant {grant}: {}: {}", r.reason, r.message))
                .collect();
            let more =
                if troubled.len() > 5 { format!("; and {} more", troubled.len() - 5) } else { String::new() };
            (Some(false), first.reason, format!("{held} of {all} grants are held: {}{more}", list.join("; ")))
        }
        _ => (Some(true), Reason::Issued, format!("{held} of {all} grants are held")),
    };
    Said { kind: "GrantsHeld", status, reason, message }
}

/// Said only of an agent that has a user.
fn user_accepted(world: &World, agent: &Agent, unknown: bool) -> Option<Said> {
    let username = agent.username.as_ref()?;
    let refusal = decide::user_refusal(world, agent);
    let (status, reason, message) = match refusal {
        _ if unknown => (None, Reason::Unknown, "see Ready".to_owned()),
        Some(refusal) => (Some(false), refusal.reason, refusal.message),
        None => (
            Some(true),
            Reason::Issued,
            format!("{username} is the agent's user, {}", agent_user_id(agent.meta.uid, username)),
        ),
    };
    Some(Said { kind: "UserAccepted", status, reason, message })
}

/// Said only where a policy in Audit would take something.
fn compliant(audited: &[Objection]) -> Option<Said> {
    let list: Vec<_> = audited
        .iter()
        .take(5)
        .map(|o| {
            let grant = o.grant.as_ref().map(|g| format!("AgentGrant {g}: ")).unwrap_or_default();
            format!("{grant}{}: {}", o.refusal.reason, o.refusal.message)
        })
        .collect();
    let more = if audited.len() > 5 { format!("; and {} more", audited.len() - 5) } else { String::new() };
    (!audited.is_empty()).then(|| Said {
        kind: "PolicyCompliant",
        status: Some(false),
        reason: Reason::PolicyDenied,
        message: format!("only audited, nothing is taken yet: {}{more}", list.join("; ")),
    })
}

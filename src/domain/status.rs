//! The status of an agent, a grant, a resource and a policy, from what was decided.
//!
//! Invariant: nothing in a status changes with a renewal; transition times move only when a condition's status
//! does, so a status that says the same is never written.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::agent_user::agent_user_id;
use super::plan::Credential;
use super::seen::status_digest;
use super::statuslist::{Indexes, Recorded};
use super::{
    Agent, Blueprint, Decision, Grant, GrantDecision, Objection, Policy, Refusal, Resource, SeenStatus,
    World, decide,
};
use crate::api::{
    AgentBlueprintStatus, AgentGrantStatus, AgentIdentityStatus, AgentPolicyStatus, AgentResourceStatus,
    GrantState, GrantStatus, Reason,
};

/// The id of the agent of a UID: opaque, never reassigned (SPIFFE-ID §2).
#[must_use]
pub fn agent_id(trust_domain: &str, uid: super::Uid) -> String {
    format!("spiffe://{trust_domain}/agent/{uid}")
}

/// Something to tell in an Event: a transition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The condition's type.
    pub condition: &'static str,
    /// The same for all agents that a blueprint made in a namespace: to be told once, on the blueprint.
    pub common: bool,
    /// For the better.
    pub good: bool,
    /// Why.
    pub reason: Reason,
    /// For people.
    pub note: String,
}

/// A status that differs from what was seen.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusChange<S> {
    /// What to write.
    pub status: S,
    /// What to tell.
    pub transitions: Vec<Transition>,
}

struct Said {
    kind: &'static str,
    status: Option<bool>,
    reason: Reason,
    message: String,
}

/// The API server takes messages of 32,768 characters; people read fewer.
const LONGEST_MESSAGE: usize = 2048;

fn conditions(
    said: Vec<Said>,
    old: &SeenStatus,
    generation: i64,
    now: Timestamp,
) -> (Vec<Condition>, Vec<Transition>) {
    let mut transitions = Vec::new();
    let conditions = said
        .into_iter()
        .map(|s| {
            let before = old.condition(s.kind);
            let same = before.is_some_and(|b| b.status == s.status);
            let told = match before {
                // A first success makes no Event.
                None => s.status == Some(false),
                Some(b) => !same || (s.status == Some(false) && b.reason != Some(s.reason)),
            };
            if told && s.status.is_some() {
                transitions.push(Transition {
                    condition: s.kind,
                    common: false,
                    good: s.status == Some(true),
                    reason: s.reason,
                    note: s.message.clone(),
                });
            }
            Condition {
                type_: s.kind.to_owned(),
                status: s.status.map_or("Unknown", |t| if t { "True" } else { "False" }).to_owned(),
                reason: s.reason.as_str().to_owned(),
                message: truncated(s.message),
                observed_generation: Some(generation),
                last_transition_time: Time(match before {
                    Some(b) if same => b.since,
                    _ => whole_second(now),
                }),
            }
        })
        .collect();
    (conditions, transitions)
}

/// Kubernetes keeps times in whole seconds.
fn whole_second(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

fn truncated(mut message: String) -> String {
    if message.len() > LONGEST_MESSAGE {
        let mut end = LONGEST_MESSAGE;
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
        message.push('…');
    }
    message
}

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
    let exact = agent.bound.as_ref().is_some_and(super::Bound::is_exact);
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
    let texts = |names: &[std::sync::Arc<str>]| names.iter().map(ToString::to_string).collect();
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

/// The status of a grant, if it differs from what was seen.
#[must_use]
pub fn grant_status(world: &World, grant: &Grant, now: Timestamp) -> Option<StatusChange<AgentGrantStatus>> {
    let tally = world.grant_tally(&grant.meta.key);
    let (_, unknown_names) = world.selected_by(grant);
    let absent = i64::try_from(unknown_names.len()).unwrap_or(i64::MAX);
    let refused = tally.refused + absent;
    let mut reasons: Vec<_> = tally.reasons.iter().map(|(r, n)| (*r, *n)).collect();
    reasons.sort_unstable();
    let (status, reason, message) = if absent > 0 {
        let names: Vec<_> = unknown_names.iter().take(10).map(|n| &**n).collect();
        (
            false,
            Reason::AgentNotFound,
            format!(
                "spec.agents.names: AgentIdentity {} does not exist in namespace {}; the grant is held when it comes",
                names.join(", "),
                grant.meta.key.namespace
            ),
        )
    } else if let Some((reason, _)) = reasons.first().copied() {
        let detail = refusal_of_grant(world, grant, now).unwrap_or_else(|| {
            let list: Vec<_> = reasons.iter().map(|(r, n)| format!("{r}: {n} agents")).collect();
            format!("{}; see the agents' condition GrantsHeld", list.join(", "))
        });
        (false, reason, detail)
    } else if tally.held == 0 {
        (false, Reason::AgentNotFound, "spec.agents: selects no agent of this namespace yet".to_owned())
    } else {
        (true, Reason::Issued, format!("held by {} agents", tally.held))
    };
    let mut said = vec![Said { kind: "Ready", status: Some(status), reason, message }];
    if tally.audited > 0 {
        let first = audited_of_grant(world, grant, now);
        let first = first.unwrap_or_else(|| "see the agents' condition PolicyCompliant".to_owned());
        said.push(Said {
            kind: "PolicyCompliant",
            status: Some(false),
            reason: Reason::PolicyDenied,
            message: format!("only audited, nothing is taken yet from {} agents: {first}", tally.audited),
        });
    }
    let (conditions, transitions) = conditions(said, &grant.status, grant.generation, now);
    let status = AgentGrantStatus {
        conditions,
        held: Some(tally.held),
        refused: Some(refused),
        observed_generation: Some(grant.generation),
    };
    (status_digest(&status) != grant.status.digest).then_some(StatusChange { status, transitions })
}

/// The message of the first agent to which a grant is refused or narrowed, and which agent that is.
fn refusal_of_grant(world: &World, grant: &Grant, now: Timestamp) -> Option<String> {
    world.selected_by(grant).0.iter().take(50).find_map(|key| {
        let decision = decide(world, key, now)?;
        let of_grant = decision.grants.iter().find(|g| g.uid == grant.meta.uid)?;
        let refusal = match &decision.standing {
            decide::Standing::Refused(r) => r,
            _ => decision.trouble(world, of_grant)?,
        };
        Some(format!("AgentIdentity {}: {}: {}", key.name, refusal.reason, refusal.message))
    })
}

/// What the first agent would lose of a grant to a policy in Audit.
fn audited_of_grant(world: &World, grant: &Grant, now: Timestamp) -> Option<String> {
    world.selected_by(grant).0.iter().take(50).find_map(|key| {
        let audited = decide(world, key, now)?.audited;
        let found = audited.into_iter().find(|o| o.grant.as_ref() == Some(&grant.meta.key.name))?;
        Some(format!("AgentIdentity {}: {}: {}", key.name, found.refusal.reason, found.refusal.message))
    })
}

/// The status of a policy, if it differs from what was seen.
#[must_use]
pub fn policy_status(
    world: &World,
    policy: &Policy,
    now: Timestamp,
) -> Option<StatusChange<AgentPolicyStatus>> {
    let name = &policy.meta.key.name;
    let (matched, tally) = (world.matched(name), world.policy_tally(name));
    let (status, reason, message) = match &policy.invalid {
        Some(problem) => (
            false,
            Reason::Invalid,
            format!(
                "{problem}; correct the field: until then what the policy last said stands, if it was ever read"
            ),
        ),
        None if policy.rules.enforced => (true, Reason::Issued, "the policy is enforced".to_owned()),
        None => (true, Reason::Issued, "the policy is in Audit: it takes nothing away".to_owned()),
    };
    let said = vec![Said { kind: "Ready", status: Some(status), reason, message }];
    let (conditions, transitions) = conditions(said, &policy.status, policy.generation, now);
    let status = AgentPolicyStatus {
        conditions,
        matched: Some(matched),
        refused: Some(tally.agents),
        refused_grants: Some(tally.grants),
        observed_generation: Some(policy.generation),
    };
    (status_digest(&status) != policy.status.digest).then_some(StatusChange { status, transitions })
}

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
    let (conditions, transitions) =
        conditions(vec![accepted, uncontested(world, name)], &blueprint.status, blueprint.generation, now);
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
fn uncontested(world: &World, name: &std::sync::Arc<str>) -> Said {
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
        format!(
            "the agent of pod {pod} can't be made: AgentIdentity {} bears its name and is another object's; rename \
             one of the two ({pods} such pods)",
            contest.taken.as_deref().unwrap_or_default()
        )
    };
    Said { kind: "Uncontested", status: Some(false), reason: Reason::Conflict, message }
}

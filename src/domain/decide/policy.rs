//! What policies take away: from agents, and from what would otherwise be held.
//!
//! Invariants: a policy never adds; of those that refuse the oldest names itself; one in Audit changes nothing and says
//! what it would take.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::{Clock, Entitlement, Refusal};
use crate::api::{PolicyRequirement, Reason, format_seconds};
use crate::domain::{Agent, Blueprint, Grant, Policy, World};

/// What a policy refuses, or would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objection {
    /// The policy.
    pub policy: Arc<str>,
    /// The grant; `None`: the agent as a whole.
    pub grant: Option<Arc<str>>,
    /// Why.
    pub refusal: Refusal,
}

impl Objection {
    pub(super) fn new(policy: &Policy, grant: Option<&Grant>, refusal: Refusal) -> Self {
        let grant = grant.map(|g| g.meta.key.name.clone());
        Self { policy: policy.meta.key.name.clone(), grant, refusal }
    }
}

/// The policies of an agent, those that take away apart from those that only say.
pub(super) struct Policies<'a> {
    pub enforced: Vec<&'a Policy>,
    pub audit: Vec<&'a Policy>,
    /// What the agent's blueprint says, it need not say itself.
    blueprint: Option<&'a Blueprint>,
}

impl<'a> Policies<'a> {
    pub(super) fn of(world: &'a World, agent: &Agent) -> Self {
        let (enforced, audit) = world.policies_of(agent).into_iter().partition(|p| p.rules.enforced);
        Self { enforced, audit, blueprint: world.blueprint_of(agent) }
    }

    /// What refuses an agent as a whole: the oldest that does.
    pub(super) fn refuse(&self, agent: &Agent, clock: &mut Clock) -> Option<Objection> {
        self.enforced
            .iter()
            .find_map(|p| Some(Objection::new(p, None, of_agent(p, agent, self.blueprint, clock)?)))
    }

    /// What would refuse it, if it were enforced.
    pub(super) fn would_refuse(&self, agent: &Agent, clock: &mut Clock) -> Vec<Objection> {
        let objects = |p: &&Policy| Some(Objection::new(p, None, of_agent(p, agent, self.blueprint, clock)?));
        self.audit.iter().filter_map(objects).collect()
    }

    /// When an agent's time is over by the policies that are enforced.
    pub(super) fn end_of(&self, agent: &Agent) -> Option<Timestamp> {
        let of_agents = self.enforced.iter().filter(|p| p.rules.resources.is_none());
        of_agents.filter_map(|p| Some(after(agent.meta.created, p.rules.agent_lifetime?))).min()
    }

    /// When a grant's time is over, by itself or by the policies that are enforced.
    pub(super) fn end_of_grant(&self, grant: &Grant) -> Option<Timestamp> {
        let concerned = self.enforced.iter().filter(|p| p.rules.concern(&grant.resource));
        let ends = concerned.filter_map(|p| Some(after(grant.meta.created, p.rules.grant_lifetime?)));
        ends.chain(grant.expires_at).min()
    }

    /// The longest that any token of the agent may live, in seconds.
    pub(super) fn longest(&self) -> Option<u32> {
        let of_agents = self.enforced.iter().filter(|p| p.rules.resources.is_none());
        of_agents.filter_map(|p| p.rules.token_lifetime).min()
    }
}

fn after(start: Timestamp, seconds: u32) -> Timestamp {
    start.checked_add(SignedDuration::from_secs(i64::from(seconds))).unwrap_or(Timestamp::MAX)
}

fn says(policy: &Policy, what: &str) -> String {
    format!("AgentPolicy {}: {what}", policy.meta.key.name)
}

/// Why a policy refuses an agent.
fn of_agent(
    policy: &Policy,
    agent: &Agent,
    blueprint: Option<&Blueprint>,
    clock: &mut Clock,
) -> Option<Refusal> {
    let rules = &policy.rules;
    if rules.resources.is_some() {
        return None;
    }
    let refuse = |reason, what: &str| Some(Refusal::new(reason, says(policy, what)));
    if rules.suspend {
        return refuse(
            Reason::Suspended,
            "spec.suspend is true for every agent that it matches; ask its keeper to set it to false",
        );
    }
    for need in &rules.require {
        let (there, what) = match need {
            PolicyRequirement::Sponsor => (
                agent.sponsored || blueprint.is_some_and(|b| b.sponsored),
                "Sponsor: neither the agent nor its blueprint names one; set its spec.sponsors",
            ),
            PolicyRequirement::BoundObject => (
                agent.bound.is_some(),
                "BoundObject: the agent is bound to nothing; create it anew with spec.boundObjectRef",
            ),
            PolicyRequirement::Blueprint => (
                agent.blueprint.is_some(),
                "Blueprint: the agent is of no blueprint; create it anew with spec.blueprint",
            ),
            PolicyRequirement::Expiry => (
                agent.expires_at.is_some() || blueprint.is_some_and(|b| b.lifetime.is_some()),
                "Expiry: the agent has no end; set its spec.expiresAt",
            ),
        };
        if !there {
            return refuse(Reason::RequirementMissing, &format!("spec.require: {what}"));
        }
    }
    let limit = rules.agent_lifetime?;
    let end = after(agent.meta.created, limit);
    clock.has_come(end).then(|| {
        let limit = format_seconds(limit.into());
        let what = format!(
            "spec.limits.agentLifetime: the {limit} of an agent were over at {end}; create the agent anew"
        );
        Refusal::new(Reason::Expired, says(policy, &what))
    })
}

/// What a policy takes from a grant.
pub(super) enum Loss {
    /// All of it.
    Whole(Refusal),
    /// Some of it.
    Part(Refusal),
}

/// Takes from what would be held what a policy denies.
pub(super) fn take_from(
    policy: &Policy,
    grant: &Grant,
    held: &mut Entitlement,
    clock: &mut Clock,
) -> Option<Loss> {
    let rules = &policy.rules;
    if !rules.concern(&grant.resource) {
        return None;
    }
    if rules.suspend && rules.resources.is_some() {
        let what = format!(
            "spec.suspend is true for every grant on AgentResource {}; ask its keeper to set it to false",
            grant.resource
        );
        return Some(Loss::Whole(Refusal::new(Reason::Suspended, says(policy, &what))));
    }
    if let Some(limit) = rules.grant_lifetime {
        let end = after(grant.meta.created, limit);
        if clock.has_come(end) {
            let limit = format_seconds(limit.into());
            let what = format!(
                "spec.limits.grantLifetime: the {limit} of a grant were over at {end}; create the grant anew"
            );
            return Some(Loss::Whole(Refusal::new(Reason::Expired, says(policy, &what))));
        }
        held.not_after = held.not_after.into_iter().chain([end]).min();
    }
    if let Some(limit) = rules.token_lifetime {
        held.lifetime = held.lifetime.min(limit);
    }
    denied(policy, grant, held)
}

fn denied(policy: &Policy, grant: &Grant, held: &mut Entitlement) -> Option<Loss> {
    let mut first = None;
    for (i, entry) in policy.rules.deny.iter().enumerate() {
        let speaks = entry.resources.as_ref().is_none_or(|globs| globs.matches(&grant.resource))
            && entry.modes.as_ref().is_none_or(|modes| modes.contains(&grant.mode));
        if !speaks {
            continue;
        }
        let refusal = |what: &str, remedy: &str| {
            let why = entry.reason.as_ref().map(|r| format!(" ({r})")).unwrap_or_default();
            let what = format!("spec.deny[{i}]: {what} denied{why}; {remedy}, or ask the policy's keeper");
            Refusal::new(Reason::PolicyDenied, says(policy, &what))
        };
        if entry.roles.is_none() && entry.scopes.is_none() {
            let what = format!("{:?} grants on AgentResource {} are", grant.mode, grant.resource);
            return Some(Loss::Whole(refusal(&what, "delete the grant")));
        }
        for (one, names, globs) in
            [("role", &mut held.roles, &entry.roles), ("scope", &mut held.scopes, &entry.scopes)]
        {
            let Some(globs) = globs else { continue };
            names.retain(|name| {
                let taken = globs.matches(name);
                if taken && first.is_none() {
                    let what = format!("{one} {name:?} of AgentResource {} is", grant.resource);
                    first = Some(refusal(&what, "remove it from the grant"));
                }
                !taken
            });
        }
    }
    let empty = held.roles.is_empty() && held.scopes.is_empty();
    first.map(|refusal| if empty { Loss::Whole(refusal) } else { Loss::Part(refusal) })
}

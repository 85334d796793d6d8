//! Which ClusterRoles could not be bound, and why: what was decided is one thing, whether the API server took the
//! RoleBinding that says so is another.
//!
//! Invariants: a right that is not in force is said to be so only once writing it has been tried and refused for good;
//! an agent that a RoleBinding was seen to name has its right, whatever is refused to others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Unit, World};
use crate::domain::{Agent, Decision, GrantDecision, Key, Refusal, Standing, Uid};

/// What came of writing the RoleBindings of one grant in one namespace.
#[derive(Debug, Default)]
pub(super) struct Tried {
    /// It was tried since the start.
    once: bool,
    refused: BTreeMap<Arc<str>, Refused>,
}

/// A ClusterRole that could not be bound.
#[derive(Debug, PartialEq, Eq)]
struct Refused {
    why: Refusal,
    /// Whom RoleBindings name nevertheless.
    bound: BTreeSet<Uid>,
}

impl Tried {
    pub(super) fn retain(&mut self, keep: impl Fn(&Arc<str>) -> bool) {
        self.refused.retain(|role, _| keep(role));
    }
}

impl Agent {
    /// Whether its status says that a right on the cluster, by this grant, is not in force.
    #[must_use]
    pub fn says_unbound(&self, grant: Uid) -> bool {
        self.status.recorded(grant).is_some_and(|r| r.unbound)
    }
}

impl World {
    /// Records what came of writing the RoleBindings of a grant in a namespace: why each ClusterRole that was tried
    /// could not be bound; `None` where that can't be told yet, so that what was known stands. Marks the agents of
    /// which the status would now say something else, and no others.
    pub fn record_tried(&mut self, unit: &Unit, failed: BTreeMap<Arc<str>, Option<Refusal>>) {
        let bound_by = |role: &Arc<str>| -> BTreeSet<Uid> {
            let seen = self.bindings_of(unit).into_iter();
            let live = seen.filter(|b| !b.meta.deleting && b.role.as_ref() == Some(role));
            live.flat_map(|b| b.subjects.iter().copied()).collect()
        };
        let Some(holders) = self.binders.units.get(unit) else { return };
        let told = failed.values().all(Option::is_some);
        let mut refused: BTreeMap<Arc<str>, Refused> = BTreeMap::new();
        for (role, why) in failed {
            let known = || holders.tried.refused.get(&role).map(|r| r.why.clone());
            if let (true, Some(why)) = (holders.roles.contains_key(&role), why.or_else(known)) {
                let bound = bound_by(&role);
                refused.insert(role, Refused { why, bound });
            }
        }
        let mut touched = BTreeSet::new();
        for (role, agents) in &holders.roles {
            let (old, new) = (holders.tried.refused.get(role), refused.get(role));
            if old == new {
                continue;
            }
            let why = |r: Option<&Refused>, agent: &Uid| -> Option<Refusal> {
                r.filter(|r| !r.bound.contains(agent)).map(|r| r.why.clone())
            };
            touched.extend(agents.iter().filter(|a| why(old, a) != why(new, a)).copied());
        }
        if told && !holders.tried.once {
            let waiting = holders
                .roles
                .values()
                .flatten()
                .filter(|a| self.agent_of_uid(**a).is_some_and(|a| a.says_unbound(unit.grant)));
            touched.extend(waiting.copied());
        }
        let touched: Vec<Key> =
            touched.iter().filter_map(|a| self.agent_of_uid(*a)).map(|a| a.meta.key.clone()).collect();
        if let Some(holders) = self.binders.units.get_mut(unit) {
            holders.tried.once |= told;
            holders.tried.refused = refused;
        }
        self.mark_agents(touched);
    }

    /// Why a right that was decided to be held is not in force: a ClusterRole could not be bound.
    #[must_use]
    pub fn unbound(&self, agent: &Key, uid: Uid, grant: &GrantDecision) -> Option<&Refusal> {
        let held = grant.held.as_ref().filter(|h| h.kubernetes)?;
        let unit = Unit { namespace: agent.namespace.clone(), grant: grant.uid };
        let refused = &self.binders.units.get(&unit)?.tried.refused;
        let mut of_roles = held.roles.iter().filter_map(|role| refused.get(role));
        of_roles.find(|r| !r.bound.contains(&uid)).map(|r| &r.why)
    }

    /// Whether an agent's status says that a right is not in force, and that can't be told before it has been tried
    /// again: what is said then stands. An agent that is stopped holds nothing, tried or not: that is said at once.
    pub(in crate::domain) fn is_untried(&self, agent: &Agent, decision: &Decision) -> bool {
        matches!(decision.standing, Standing::Allowed)
            && decision.grants.iter().filter(|g| agent.says_unbound(g.uid)).any(|g| {
                let unit = Unit { namespace: agent.meta.key.namespace.clone(), grant: g.uid };
                let roles = g.held.as_ref().filter(|h| h.kubernetes).map(|h| &h.roles);
                roles.is_some_and(|r| !r.is_empty())
                    && self.binders.units.get(&unit).is_none_or(|h| !h.tried.once)
            })
    }
}

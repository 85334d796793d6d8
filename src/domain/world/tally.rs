//! Who holds what, counted: the statuses of grants and resources are kept from the agents' decisions, without
//! ever going over all agents.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::World;
use crate::api::{GrantState, Reason};
use crate::domain::Key;

/// What came of one grant for one agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The grant's name, in the agent's namespace.
    pub grant: Arc<str>,
    /// The resource's name.
    pub resource: Arc<str>,
    /// Whether it is held.
    pub state: GrantState,
    /// Why not, or not in full.
    pub reason: Option<Reason>,
}

/// The counts of one grant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrantTally {
    /// Agents that hold it, in full or in part.
    pub held: i64,
    /// Agents to which it is refused.
    pub refused: i64,
    /// How many refusals or narrowings of each reason there are.
    pub reasons: HashMap<Reason, i64>,
}

#[derive(Debug, Default)]
pub(super) struct Tally {
    holdings: HashMap<Key, Box<[Holding]>>,
    grants: HashMap<Key, GrantTally>,
    resources: HashMap<Arc<str>, i64>,
    dirty_grants: BTreeSet<Key>,
    dirty_resources: BTreeSet<Arc<str>>,
}

impl Tally {
    pub(super) fn touch_grant(&mut self, key: Key) {
        self.dirty_grants.insert(key);
    }

    pub(super) fn touch_resource(&mut self, name: Arc<str>) {
        self.dirty_resources.insert(name);
    }

    pub(super) fn forget_resource(&mut self, name: &Arc<str>) {
        self.dirty_resources.remove(name);
    }

    pub(super) fn forget_agent(&mut self, agent: &Key) {
        self.record(agent, Vec::new());
        self.holdings.remove(agent);
    }

    pub(super) fn holdings(&self, agent: &Key) -> &[Holding] {
        self.holdings.get(agent).map(|h| &**h).unwrap_or_default()
    }

    fn record(&mut self, agent: &Key, holdings: Vec<Holding>) {
        let old = self.holdings.get(agent).map(|h| &**h).unwrap_or_default();
        if old == holdings.as_slice() {
            return;
        }
        let old = self.holdings.remove(agent).unwrap_or_default();
        self.count(agent, &old, -1);
        self.count(agent, &holdings, 1);
        self.holdings.insert(agent.clone(), holdings.into());
    }

    fn count(&mut self, agent: &Key, holdings: &[Holding], by: i64) {
        let mut held_resources = BTreeSet::new();
        for holding in holdings {
            let key = agent.sibling(holding.grant.clone());
            let tally = self.grants.entry(key.clone()).or_default();
            match holding.state {
                GrantState::Held | GrantState::Narrowed => {
                    tally.held += by;
                    held_resources.insert(holding.resource.clone());
                }
                GrantState::Refused => tally.refused += by,
            }
            if let Some(reason) = holding.reason {
                let n = tally.reasons.entry(reason).or_default();
                *n += by;
                if *n == 0 {
                    tally.reasons.remove(&reason);
                }
            }
            if *tally == GrantTally::default() {
                self.grants.remove(&key);
            }
            self.dirty_grants.insert(key);
        }
        for resource in held_resources {
            let n = self.resources.entry(resource.clone()).or_default();
            *n += by;
            if *n == 0 {
                self.resources.remove(&resource);
            }
            self.dirty_resources.insert(resource);
        }
    }
}

impl World {
    /// Records what an agent was decided to hold; nothing, if it is gone meanwhile. Unknown is not absent: what
    /// was known of an agent before it could no longer be told still counts.
    pub fn record_holdings(&mut self, agent: &Key, holdings: Vec<Holding>) {
        let untold = holdings.iter().any(|h| h.reason == Some(Reason::Unknown));
        if self.agent(agent).is_some() && !(untold && self.tally.holdings.contains_key(agent)) {
            self.tally.record(agent, holdings);
        }
    }

    /// The counts of a grant.
    #[must_use]
    pub fn grant_tally(&self, grant: &Key) -> GrantTally {
        self.tally.grants.get(grant).cloned().unwrap_or_default()
    }

    /// How many agents hold a resource.
    #[must_use]
    pub fn holders(&self, resource: &Arc<str>) -> i64 {
        self.tally.resources.get(resource).copied().unwrap_or_default()
    }

    /// The grants and resources whose counts may have changed since the last call.
    #[must_use]
    pub fn take_tallied(&mut self) -> (BTreeSet<Key>, BTreeSet<Arc<str>>) {
        (std::mem::take(&mut self.tally.dirty_grants), std::mem::take(&mut self.tally.dirty_resources))
    }

    /// Marks a grant's status to be looked at again.
    pub fn touch_grant(&mut self, grant: Key) {
        self.tally.touch_grant(grant);
    }

    /// Marks a resource's status to be looked at again.
    pub fn touch_resource(&mut self, resource: Arc<str>) {
        self.tally.touch_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_follow_decisions() {
        let mut t = Tally::default();
        let (a, b) = (Key::new("ns", "a"), Key::new("ns", "b"));
        let holding = |state, reason| Holding { grant: "g".into(), resource: "r".into(), state, reason };
        t.record(&a, vec![holding(GrantState::Held, None)]);
        t.record(&b, vec![holding(GrantState::Refused, Some(Reason::RoleNotOffered))]);
        let g = a.sibling("g");
        assert_eq!((t.grants[&g].held, t.grants[&g].refused, t.resources["r"]), (1, 1, 1));
        t.dirty_grants.clear();
        t.record(&a, vec![holding(GrantState::Held, None)]);
        assert!(t.dirty_grants.is_empty(), "the same decision counts nothing");
        t.forget_agent(&a);
        t.forget_agent(&b);
        assert!(t.grants.is_empty() && t.resources.is_empty() && t.holdings.is_empty());
        assert!(t.dirty_grants.contains(&g));
    }
}

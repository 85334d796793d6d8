//! Who holds what, counted: the statuses of grants, resources and policies are kept from the agents' decisions, without
//! ever going over all agents.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
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
    /// A policy in Audit would refuse or narrow it.
    pub audited: bool,
}

/// What an agent was decided to hold, and which policies take from it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// What came of its grants.
    pub grants: Box<[Holding]>,
    /// The policies that refuse it something, or would, each with how many grants; 0: the agent as a whole.
    pub policies: Box<[(Arc<str>, i64)]>,
    /// Why it has no credentials itself; `None` if it may have them.
    pub refusal: Option<Reason>,
    /// How the agent stands could not be told.
    pub untold: bool,
}

/// The counts over all agents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Agents by why they have no credentials; `None`: they may have them.
    pub agents: HashMap<Option<Reason>, i64>,
    /// Pairs of an agent and a grant, by what came of it and why.
    pub grants: HashMap<(GrantState, Option<Reason>), i64>,
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
    /// Agents to which a policy in Audit would refuse or narrow it.
    pub audited: i64,
}

/// The counts of one policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicyTally {
    /// Agents to which it refuses something, or would.
    pub agents: i64,
    /// Their grants that it refuses or narrows, or would.
    pub grants: i64,
}

#[derive(Debug, Default)]
pub(super) struct Tally {
    holdings: HashMap<Key, Holdings>,
    grants: HashMap<Key, GrantTally>,
    resources: HashMap<Arc<str>, i64>,
    policies: HashMap<Arc<str>, PolicyTally>,
    totals: Totals,
    dirty_grants: BTreeSet<Key>,
    dirty_resources: BTreeSet<Arc<str>>,
    dirty_policies: BTreeSet<Arc<str>>,
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

    pub(super) fn touch_policy(&mut self, name: Arc<str>) {
        self.dirty_policies.insert(name);
    }

    pub(super) fn forget_policy(&mut self, name: &Arc<str>) {
        self.dirty_policies.remove(name);
    }

    pub(super) fn forget_agent(&mut self, agent: &Key) {
        if let Some(old) = self.holdings.remove(agent) {
            self.count(agent, &old, -1);
        }
    }

    pub(super) fn holdings(&self, agent: &Key) -> Option<&Holdings> {
        self.holdings.get(agent)
    }

    fn record(&mut self, agent: &Key, holdings: Holdings) {
        if self.holdings.get(agent) == Some(&holdings) {
            return;
        }
        self.forget_agent(agent);
        self.count(agent, &holdings, 1);
        self.holdings.insert(agent.clone(), holdings);
    }

    fn count(&mut self, agent: &Key, holdings: &Holdings, by: i64) {
        add(&mut self.totals.agents, &holdings.refusal, by);
        for (policy, grants) in &holdings.policies {
            let tally = self.policies.entry(policy.clone()).or_default();
            tally.agents += by;
            tally.grants += by * grants;
            if *tally == PolicyTally::default() {
                self.policies.remove(policy);
            }
            self.dirty_policies.insert(policy.clone());
        }
        let mut held_resources = BTreeSet::new();
        for holding in &holdings.grants {
            add(&mut self.totals.grants, &(holding.state, holding.reason), by);
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
                add(&mut tally.reasons, &reason, by);
            }
            tally.audited += if holding.audited { by } else { 0 };
            if *tally == GrantTally::default() {
                self.grants.remove(&key);
            }
            self.dirty_grants.insert(key);
        }
        for resource in held_resources {
            add(&mut self.resources, &resource, by);
            self.dirty_resources.insert(resource);
        }
    }
}

/// Counts; what comes to nothing takes no room.
fn add<K: Eq + Hash + Clone>(counts: &mut HashMap<K, i64>, key: &K, by: i64) {
    let n = counts.entry(key.clone()).or_default();
    *n += by;
    if *n == 0 {
        counts.remove(key);
    }
}

impl World {
    /// The counts over all agents that were decided.
    #[must_use]
    pub const fn totals(&self) -> &Totals {
        &self.tally.totals
    }

    /// Records what an agent was decided to hold; nothing, if it is gone meanwhile. Unknown is not absent: what
    /// was known of an agent before it could no longer be told still counts.
    pub fn record_holdings(&mut self, agent: &Key, holdings: Holdings) {
        if self.agent(agent).is_some() && !(holdings.untold && self.tally.holdings.contains_key(agent)) {
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

    /// The counts of a policy.
    #[must_use]
    pub fn policy_tally(&self, policy: &Arc<str>) -> PolicyTally {
        self.tally.policies.get(policy).copied().unwrap_or_default()
    }

    /// The grants, resources and policies whose counts may have changed since the last call.
    #[must_use]
    pub fn take_tallied(&mut self) -> (BTreeSet<Key>, BTreeSet<Arc<str>>, BTreeSet<Arc<str>>) {
        let tally = &mut self.tally;
        (
            std::mem::take(&mut tally.dirty_grants),
            std::mem::take(&mut tally.dirty_resources),
            std::mem::take(&mut tally.dirty_policies),
        )
    }

    /// Marks a grant's status to be looked at again.
    pub fn touch_grant(&mut self, grant: Key) {
        self.tally.touch_grant(grant);
    }

    /// Marks a policy's status to be looked at again.
    pub fn touch_policy(&mut self, policy: Arc<str>) {
        self.tally.touch_policy(policy);
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
        let holding = |state, reason: Option<Reason>| Holdings {
            policies: reason.iter().map(|_| (Arc::from("p"), 1)).collect(),
            grants: [Holding { grant: "g".into(), resource: "r".into(), state, reason, audited: true }]
                .into(),
            refusal: reason.filter(|r| *r == Reason::Suspended),
            untold: false,
        };
        t.record(&a, holding(GrantState::Held, None));
        t.record(&b, holding(GrantState::Refused, Some(Reason::PolicyDenied)));
        assert_eq!(t.policies["p"], PolicyTally { agents: 1, grants: 1 });
        let g = a.sibling("g");
        assert_eq!((t.grants[&g].held, t.grants[&g].refused, t.resources["r"]), (1, 1, 1));
        assert_eq!(t.grants[&g].audited, 2);
        t.dirty_grants.clear();
        t.record(&a, holding(GrantState::Held, None));
        assert!(t.dirty_grants.is_empty(), "the same decision counts nothing");
        let denied = (GrantState::Refused, Some(Reason::PolicyDenied));
        assert_eq!((t.totals.agents[&None], t.totals.grants[&denied]), (2, 1));
        t.record(&b, holding(GrantState::Refused, Some(Reason::Suspended)));
        assert_eq!(t.totals.agents, HashMap::from([(None, 1), (Some(Reason::Suspended), 1)]));
        assert!(!t.totals.grants.contains_key(&denied));
        t.forget_agent(&a);
        t.forget_agent(&b);
        assert!(t.grants.is_empty() && t.resources.is_empty() && t.holdings.is_empty());
        assert!(t.policies.is_empty());
        assert_eq!(t.totals, Totals::default());
        assert!(t.dirty_grants.contains(&g));
    }
}

//! Taking AgentPolicies in, and finding those that speak of an agent.
//!
//! Invariants: a decision looks at the policies of its agent's namespace alone, found by index; a change marks the
//! agents that the policy spoke of before or speaks of now, and no others; a policy that can no longer be
//! understood stands as it was last read.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;

use super::table::{Listing, Origin, Taken};
use super::{Lane, Work, World};
use crate::domain::{Agent, Key, Policy, Uid};

/// The order in which policies are asked: the older first.
pub(super) type Rank = (Timestamp, Uid, Arc<str>);

fn rank(policy: &Policy) -> Rank {
    let (created, uid) = policy.meta.seniority();
    (created, uid, policy.meta.key.name.clone())
}

#[derive(Debug, Default)]
pub(super) struct PolicyIndex {
    /// Those of all namespaces.
    everywhere: BTreeSet<Rank>,
    /// Those that select namespaces.
    selecting: BTreeSet<Rank>,
    /// Which of these select a namespace.
    within: HashMap<Arc<str>, BTreeSet<Rank>>,
    /// How many agents each speaks of.
    matched: HashMap<Arc<str>, i64>,
}

impl World {
    /// A policy.
    #[must_use]
    pub fn policy(&self, name: &Arc<str>) -> Option<&Policy> {
        self.policies.get(&Key::new("", name.clone()))
    }

    /// All policies.
    pub fn policies(&self) -> impl Iterator<Item = &Policy> {
        self.policies.iter().map(|(_, p)| p)
    }

    /// The policies that speak of an agent (or of grants of it), the oldest first.
    #[must_use]
    pub fn policies_of(&self, agent: &Agent) -> Vec<&Policy> {
        let index = &self.policy_index;
        let within = index.within.get(&agent.meta.key.namespace).into_iter().flatten();
        let mut ranks: Vec<_> = index.everywhere.iter().chain(within).collect();
        ranks.sort();
        ranks
            .into_iter()
            .filter_map(|(_, _, name)| self.policy(name))
            .filter(|p| p.rules.select(agent))
            .collect()
    }

    /// How many agents a policy speaks of.
    #[must_use]
    pub fn matched(&self, policy: &Arc<str>) -> i64 {
        self.policy_index.matched.get(policy).copied().unwrap_or_default()
    }

    pub(super) fn take_policy(&mut self, mut policy: Policy, origin: Origin) {
        if origin == Origin::Watch {
            self.policies.reached(policy.meta.version);
        }
        let name = policy.meta.key.name.clone();
        if let Some(old) = self.policies.get(&policy.meta.key) {
            if policy.invalid.is_some() && old.meta.uid == policy.meta.uid {
                policy.rules = old.rules.clone();
            }
            if old.says_the_same(&policy) {
                let edited = old.generation != policy.generation;
                if self.policies.take(policy, origin) != Taken::Stale && edited {
                    self.tally.touch_policy(name);
                }
                return;
            }
        }
        let spoken_of =
            self.policies.get(&policy.meta.key).map(|old| self.spoken_of(old)).unwrap_or_default();
        match self.policies.take(policy.clone(), origin) {
            Taken::Stale => {}
            Taken::New => self.policy_changed(None, Some(&policy), spoken_of),
            Taken::Replaced(old) => self.policy_changed(Some(&old), Some(&policy), spoken_of),
        }
    }

    pub(super) fn remove_policy(&mut self, key: &Key, uid: Uid) {
        let spoken_of = self.policies.get(key).map(|old| self.spoken_of(old)).unwrap_or_default();
        let Some(old) = self.policies.remove(key, uid) else { return };
        self.policy_changed(Some(&old), None, spoken_of);
        self.tally.forget_policy(&key.name);
    }

    /// The index is brought up to date, and whom the change may touch is marked: in the urgent lane whom a kill switch
    /// takes that did not before, and a narrow change of what is denied; all else is paced, however often it comes.
    fn policy_changed(&mut self, old: Option<&Policy>, new: Option<&Policy>, before: BTreeSet<Key>) {
        if let Some(old) = old {
            self.index_policy(old, false);
        }
        if let Some(new) = new {
            self.index_policy(new, true);
            let after = self.spoken_of(new);
            let name = new.meta.key.name.clone();
            self.policy_index.matched.insert(name.clone(), i64::try_from(after.len()).unwrap_or(i64::MAX));
            self.tally.touch_policy(name);
            if old.is_some_and(|o| o.rules == new.rules && rank(o) == rank(new)) {
                return;
            }
            if new.rules.suspends() {
                let as_before = |o: &Policy| o.rules.suspends() && o.rules.resources == new.rules.resources;
                let spared = old.is_some_and(as_before);
                let taken = after.iter().filter(|k| !(spared && before.contains(*k)));
                self.dirty.extend(taken.map(|k| (Work::Agent(k.clone()), Lane::Urgent)));
            }
            self.mark_policy(old, Some(new), before.into_iter().chain(after));
        } else {
            self.mark_policy(old, None, before.into_iter());
        }
    }

    fn mark_policy(&mut self, old: Option<&Policy>, new: Option<&Policy>, agents: impl Iterator<Item = Key>) {
        if old.into_iter().chain(new).any(|p| p.rules.withdraws()) {
            self.mark_agents(agents);
        } else {
            let agents: BTreeSet<Key> = agents.collect();
            self.dirty.extend(agents.into_iter().map(|k| (Work::Agent(k), Lane::Paced)));
        }
    }

    /// The agents that a policy speaks of, by the index.
    fn spoken_of(&self, policy: &Policy) -> BTreeSet<Key> {
        let rank = rank(policy);
        let index = &self.policy_index;
        let mut keys = BTreeSet::new();
        for (namespace, names) in &self.agents_in {
            let within = || index.within.get(namespace).is_some_and(|w| w.contains(&rank));
            if !index.everywhere.contains(&rank) && !within() {
                continue;
            }
            let agents = names.iter().map(|n| Key::new(namespace.clone(), n.clone()));
            keys.extend(agents.filter(|k| self.agents.get(k).is_some_and(|a| policy.rules.select(a))));
        }
        keys
    }

    fn index_policy(&mut self, policy: &Policy, there: bool) {
        let rank = rank(policy);
        let index = &mut self.policy_index;
        if !there {
            index.everywhere.remove(&rank);
            index.selecting.remove(&rank);
            index.within.retain(|_, ranks| {
                ranks.remove(&rank);
                !ranks.is_empty()
            });
            index.matched.remove(&policy.meta.key.name);
            return;
        }
        let Some(selector) = &policy.rules.namespaces else {
            index.everywhere.insert(rank);
            return;
        };
        for (key, namespace) in self.namespaces.iter() {
            if namespace.labels.matched_by(selector) {
                index.within.entry(key.name.clone()).or_default().insert(rank.clone());
            }
        }
        index.selecting.insert(rank);
    }

    /// A namespace has come, has gone, or has other labels. Its agents are marked by whoever took it in; those that a
    /// kill switch takes now are marked here, in the urgent lane.
    pub(super) fn select_policies(&mut self, namespace: &Arc<str>) {
        let index = &self.policy_index;
        let now: BTreeSet<Rank> = match self.namespace(namespace) {
            Some(n) => {
                let selects = |r: &&Rank| {
                    let selector = self.policy(&r.2).and_then(|p| p.rules.namespaces.as_ref());
                    selector.is_some_and(|s| n.labels.matched_by(s))
                };
                index.selecting.iter().filter(selects).cloned().collect()
            }
            None => BTreeSet::new(),
        };
        let before = index.within.get(namespace).cloned().unwrap_or_default();
        if now == before {
            return;
        }
        for (ranks, others, by) in [(&before, &now, -1), (&now, &before, 1)] {
            for rank in ranks.difference(others) {
                let Some(policy) = self.policy(&rank.2) else { continue };
                let names = self.agents_in.get(namespace).into_iter().flatten();
                let keys = names.map(|n| Key::new(namespace.clone(), n.clone()));
                let selects = |k: &Key| self.agents.get(k).is_some_and(|a| policy.rules.select(a));
                let agents: Vec<Key> = keys.filter(selects).collect();
                let count = by * i64::try_from(agents.len()).unwrap_or(i64::MAX);
                if by > 0 && policy.rules.suspends() {
                    self.dirty.extend(agents.into_iter().map(|k| (Work::Agent(k), Lane::Urgent)));
                }
                *self.policy_index.matched.entry(rank.2.clone()).or_default() += count;
                self.tally.touch_policy(rank.2.clone());
            }
        }
        if now.is_empty() {
            self.policy_index.within.remove(namespace);
        } else {
            self.policy_index.within.insert(namespace.clone(), now);
        }
    }

    /// An agent has come (1), or gone (-1), or speaks of itself with other labels (-1, then 1).
    pub(super) fn count_policies(&mut self, agent: &Agent, by: i64) {
        let names: Vec<_> = self.policies_of(agent).iter().map(|p| p.meta.key.name.clone()).collect();
        for name in names {
            *self.policy_index.matched.entry(name.clone()).or_default() += by;
            self.tally.touch_policy(name);
        }
    }
}

#[cfg(test)]
impl World {
    /// The index in a comparable form.
    pub(super) fn policy_texts(&self) -> [(&'static str, BTreeSet<String>); 3] {
        let index = &self.policy_index;
        let all = index.everywhere.iter().chain(&index.selecting);
        [
            ("policies", all.map(|r| format!("{r:?}")).collect()),
            ("policies_within", index.within.iter().map(|(n, r)| format!("{n}: {r:?}")).collect()),
            (
                "matched",
                index.matched.iter().filter(|(_, n)| **n != 0).map(|(p, n)| format!("{p}: {n}")).collect(),
            ),
        ]
    }
}

//! Who holds which ClusterRoles by which grant, counted from the agents' decisions, and the RoleBindings that say so.
//!
//! Invariants: what is to be bound comes from `decide` alone; of an agent that has not been decided yet, or can't be
//! told, nothing is taken.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::index::toggle;
use super::table::{Listing, Origin, Taken};
use super::unbound::Tried;
use super::{Lane, Source, Work, World};
use crate::domain::guardrails::Violations;
use crate::domain::{Binding, ClusterRole, Decision, Key, Standing, Uid};

/// The RoleBindings of one grant in one namespace: an inherited grant has some in each namespace of its agents.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Unit {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The grant's UID.
    pub grant: Uid,
}

/// Who holds what by one grant.
#[derive(Debug, Default)]
pub(in crate::domain) struct Holders {
    /// The grant's name, of an inherited one with its blueprint's.
    pub grant: Arc<str>,
    /// The agents of each ClusterRole.
    pub roles: BTreeMap<Arc<str>, BTreeSet<Uid>>,
    /// What came of writing the RoleBindings.
    pub(super) tried: Tried,
}

type Held = Vec<(Uid, Arc<str>, Vec<Arc<str>>)>;

#[derive(Debug, Default)]
pub(super) struct Binders {
    /// What each agent holds that holds any.
    agents: HashMap<Key, (Uid, Held)>,
    pub(super) units: HashMap<Unit, Holders>,
    bindings_of: HashMap<Unit, BTreeSet<Arc<str>>>,
    touched: BTreeSet<Unit>,
}

impl Binders {
    fn record(&mut self, agent: &Key, now: Option<(Uid, Held)>) {
        if self.agents.get(agent) == now.as_ref() {
            return;
        }
        let old = self.agents.remove(agent);
        for (said, there) in [(&old, false), (&now, true)] {
            let Some((uid, held)) = said else { continue };
            for (grant, name, roles) in held {
                let unit = Unit { namespace: agent.namespace.clone(), grant: *grant };
                let holders = self.units.entry(unit.clone()).or_default();
                holders.grant = name.clone();
                for role in roles {
                    let agents = holders.roles.entry(role.clone()).or_default();
                    if there {
                        agents.insert(*uid);
                    } else {
                        agents.remove(uid);
                    }
                }
                holders.roles.retain(|_, agents| !agents.is_empty());
                holders.tried.retain(|role| holders.roles.contains_key(role));
                if holders.roles.is_empty() {
                    self.units.remove(&unit);
                }
                self.touched.insert(unit);
            }
        }
        if let Some(now) = now {
            self.agents.insert(agent.clone(), now);
        }
    }

    pub(super) fn forget_agent(&mut self, agent: &Key) {
        self.record(agent, None);
    }
}

fn unit_of(binding: &Binding) -> Unit {
    Unit { namespace: binding.meta.key.namespace.clone(), grant: binding.grant }
}

impl World {
    /// A ClusterRole.
    #[must_use]
    pub fn cluster_role(&self, name: &Arc<str>) -> Option<&ClusterRole> {
        self.cluster_roles.get(&Key::new("", name.clone()))
    }

    /// Every role that a resource of this cluster offers may be bound: for who asks without the operator's
    /// configuration.
    pub fn assume_bindable(&mut self) {
        let offered = self.resources.iter().filter(|(_, r)| r.kubernetes).flat_map(|(_, r)| &r.roles);
        self.config.kubernetes.bindable_roles = offered.map(ToString::to_string).collect();
    }

    /// Whether [`Self::record_bindings`] may have something to do: for most agents it never has.
    #[must_use]
    pub fn may_be_bound(&self, decision: &Decision) -> bool {
        self.binders.agents.contains_key(&decision.agent)
            || decision.grants.iter().any(|g| g.held.as_ref().is_some_and(|h| h.kubernetes))
    }

    /// Records which ClusterRoles an agent was decided to hold; nothing, where it can't be told. To be called before
    /// what it holds is recorded otherwise: who is told holds no more than is recorded here.
    pub fn record_bindings(&mut self, decision: &Decision) {
        let held = match decision.standing {
            Standing::Unknown(_) => return,
            Standing::Allowed => decision
                .grants
                .iter()
                .filter_map(|g| Some((g, g.held.as_ref().filter(|h| h.kubernetes && !h.roles.is_empty())?)))
                .map(|(g, h)| (g.uid, g.grant.clone(), h.roles.clone()))
                .collect(),
            _ => Vec::new(),
        };
        let there = self.agent(&decision.agent).is_some_and(|a| a.meta.uid == decision.uid);
        let now = (there && !held.is_empty()).then_some((decision.uid, held));
        self.binders.record(&decision.agent, now);
    }

    /// Who holds what by a grant in a namespace.
    pub(in crate::domain) fn holders_of(&self, unit: &Unit) -> Option<&Holders> {
        self.binders.units.get(unit)
    }

    /// The RoleBindings that say to stand for a grant in a namespace.
    #[must_use]
    pub fn bindings_of(&self, unit: &Unit) -> Vec<&Binding> {
        let names = self.binders.bindings_of.get(unit).into_iter().flatten();
        names.filter_map(|n| self.bindings.get(&Key::new(unit.namespace.clone(), n.clone()))).collect()
    }

    /// A RoleBinding of ours.
    #[must_use]
    pub fn binding(&self, key: &Key) -> Option<&Binding> {
        self.bindings.get(key)
    }

    /// Gives what has been touched since the last call to the loop, so that many changes are one write.
    pub fn release_bindings(&mut self) -> bool {
        let touched = std::mem::take(&mut self.binders.touched);
        let some = !touched.is_empty();
        self.dirty.extend(touched.into_iter().map(|u| (Work::Binding(u), Lane::Urgent)));
        some
    }

    pub(super) fn touch_bindings(&mut self) {
        let binders = &mut self.binders;
        binders.touched.extend(binders.units.keys().chain(binders.bindings_of.keys()).cloned());
    }

    /// A source is believed again: who waits for it is looked at.
    pub(super) fn mark_kubernetes(&mut self, source: &Source) {
        if *source == Source::Bindings {
            return self.touch_bindings();
        }
        let names: Vec<_> =
            self.resources.iter().filter(|(_, r)| r.kubernetes).map(|(k, _)| k.name.clone()).collect();
        names.iter().for_each(|n| self.mark_resource(n));
    }

    pub(super) fn take_cluster_role(&mut self, role: ClusterRole, origin: Origin) {
        if origin == Origin::Watch {
            self.cluster_roles.reached(role.meta.version);
        }
        let (name, uid, violations, deleting) =
            (role.meta.key.name.clone(), role.meta.uid, role.violations, role.meta.deleting);
        match self.cluster_roles.take(role, origin) {
            Taken::Stale => {}
            Taken::Replaced(old)
                if (old.meta.uid, old.violations, old.meta.deleting) == (uid, violations, deleting) => {}
            Taken::Replaced(old) => self.mark_role(&name, violations.exceeds(old.violations)),
            Taken::New => self.mark_role(&name, violations != Violations::default()),
        }
    }

    pub(super) fn remove_cluster_role(&mut self, key: &Key, uid: Uid, version: u64) {
        self.cluster_roles.reached(version);
        if self.cluster_roles.remove(key, uid).is_some() {
            self.mark_role(&key.name, true);
        }
    }

    /// Marks who may hold a role; at once, however many they are, where it is to be taken.
    fn mark_role(&mut self, role: &Arc<str>, urgent: bool) {
        let offering: Vec<_> = self
            .resources
            .iter()
            .filter(|(_, r)| r.kubernetes && r.roles.contains(role))
            .map(|(k, _)| k.name.clone())
            .collect();
        let before = self.dirty.len();
        offering.iter().for_each(|n| self.mark_resource(n));
        if urgent {
            self.dirty[before..].iter_mut().for_each(|(_, lane)| *lane = Lane::Urgent);
        }
    }

    pub(super) fn take_binding(&mut self, binding: Binding, origin: Origin) {
        if origin == Origin::Watch {
            self.bindings.reached(binding.meta.version);
        }
        let (unit, name) = (unit_of(&binding), binding.meta.key.name.clone());
        let old = match self.bindings.take(binding, origin) {
            Taken::Stale => return,
            Taken::New => None,
            Taken::Replaced(old) => Some(unit_of(&old)),
        };
        if let Some(old) = old.filter(|o| *o != unit) {
            toggle(&mut self.binders.bindings_of, old.clone(), name.clone(), false);
            self.binders.touched.insert(old);
        }
        toggle(&mut self.binders.bindings_of, unit.clone(), name, true);
        if origin == Origin::Watch {
            self.binders.touched.insert(unit);
        }
    }

    pub(super) fn remove_binding(&mut self, key: &Key, uid: Uid, version: u64) {
        self.bindings.reached(version);
        if let Some(old) = self.bindings.remove(key, uid) {
            toggle(&mut self.binders.bindings_of, unit_of(&old), key.name.clone(), false);
            self.binders.touched.insert(unit_of(&old));
        }
    }
}

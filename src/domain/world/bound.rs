//! Bound objects: who lives and dies with them.
//!
//! Invariant: a pod that leaves the label selector looks deleted to a watch; it counts as gone only once a
//! deletionTimestamp was seen or a GET has confirmed it.

use super::World;
use super::source::kind_is_of_etcd;
use super::table::{Listing, Origin, Taken};
use crate::domain::{Agent, BoundObject, Key, KindName, Uid};

impl World {
    pub(super) fn take_bound(&mut self, kind: &KindName, object: BoundObject, origin: Origin) {
        let Some(table) = self.bound.get_mut(kind) else { return };
        let key = object.meta.key.clone();
        let counted = kind_is_of_etcd(kind);
        if origin == Origin::Watch && counted {
            table.reached(object.meta.version);
        }
        // The answer of a GET may come late; it is no list's word.
        if object.unselected && table.get(&key).is_some_and(|known| known.meta.version >= object.meta.version)
        {
            return;
        }
        let now = (object.meta.uid, object.finished, object.unselected);
        let labels = object.labels.clone();
        // What the watch does not select it does not see deleted either: however far it has come, it does not
        // contradict the answer of a GET.
        let origin = if object.unselected { Origin::Watch } else { origin };
        let taken = if origin == Origin::Watch && !counted {
            table.replace(object)
        } else {
            table.take(object, origin)
        };
        match taken {
            Taken::Stale => {}
            Taken::Replaced(old) if (old.meta.uid, old.finished, old.unselected) == now => {
                if old.labels != labels {
                    self.mark_pod(kind, &key);
                }
            }
            Taken::Replaced(old) => {
                if old.meta.uid != now.0 {
                    self.note_gone(kind, &key, old.meta.uid);
                }
                self.mark_bound(kind, &key);
            }
            Taken::New => self.mark_bound(kind, &key),
        }
    }

    pub(super) fn remove_bound(&mut self, kind: &KindName, key: &Key, uid: Uid, version: u64) {
        let Some(table) = self.bound.get_mut(kind) else { return };
        if kind_is_of_etcd(kind) {
            table.reached(version);
        }
        if let Some(old) = table.remove(key, uid) {
            if old.meta.deleting {
                self.note_gone(kind, key, uid);
            }
            self.mark_bound(kind, key);
        }
    }

    /// Notes a bound object that a GET has shown and that our watch does not, since its labels do not match.
    pub fn note_unselected(&mut self, kind: &KindName, mut object: BoundObject) {
        object.unselected = true;
        self.take_bound(kind, object, Origin::Answer);
    }

    /// Notes that a GET has found no object of a name that our watch does not show either.
    pub fn note_absent(&mut self, kind: &KindName, key: &Key) {
        let Some(table) = self.bound.get_mut(kind) else { return };
        if let Some(uid) = table.get(key).filter(|o| o.unselected).map(|o| o.meta.uid) {
            table.remove(key, uid);
            self.note_gone(kind, key, uid);
            self.mark_bound(kind, key);
        }
    }

    /// Notes that a bound object is gone for good: a deletionTimestamp was seen, another object bears its name,
    /// or a GET has confirmed it. Kept only for agents that are bound to this very object, until they are gone.
    pub fn note_gone(&mut self, kind: &KindName, key: &Key, uid: Uid) {
        if self.awaits(kind, key, uid) {
            self.confirmed_gone.insert(uid);
        }
    }

    fn awaits(&self, kind: &KindName, key: &Key, uid: Uid) -> bool {
        let agents = self.bound_to.get(&(kind.clone(), key.clone()));
        agents
            .into_iter()
            .flatten()
            .filter_map(|a| self.agents.get(&key.sibling(a.clone())))
            .any(|a| a.bound_uid() == Some(uid))
    }

    /// Drops the note about an agent's bound object once no other agent is bound to it.
    pub(super) fn forget_gone(&mut self, agent: &Agent) {
        let (Some(bound), Some(uid)) = (&agent.bound, agent.bound_uid()) else { return };
        let key = agent.meta.key.sibling(bound.name.clone());
        if self.confirmed_gone.contains(&uid) && !self.awaits(&bound.kind, &key, uid) {
            self.confirmed_gone.remove(&uid);
        }
    }

    /// The agents that are bound to an object of this name.
    pub fn agents_bound_to(&self, kind: &KindName, key: &Key) -> impl Iterator<Item = &Agent> {
        let names = self.bound_to.get(&(kind.clone(), key.clone()));
        let (agents, key) = (&self.agents, key.clone());
        names.into_iter().flatten().filter_map(move |n| agents.get(&key.sibling(n.clone())))
    }

    /// Whether objects of a kind are watched.
    #[must_use]
    pub fn sees(&self, kind: &KindName) -> bool {
        self.bound.contains_key(kind)
    }

    fn mark_bound(&mut self, kind: &KindName, key: &Key) {
        let agents = self.bound_to.get(&(kind.clone(), key.clone())).cloned().unwrap_or_default();
        self.mark_agents(agents.into_iter().map(|a| key.sibling(a)));
        self.mark_pod(kind, key);
    }
}

//! Bound objects: who lives and dies with them.
//!
//! Invariant: a pod that leaves the label selector looks deleted to a watch; it counts as gone only once a
//! deletionTimestamp was seen or a GET has confirmed it.

use super::table::{Origin, Taken};
use super::{Lane, Work, World};
use crate::domain::{BoundObject, Key, KindName, Uid};

impl World {
    pub(super) fn take_bound(&mut self, kind: KindName, object: BoundObject, origin: Origin) {
        let Some(table) = self.bound.get_mut(&kind) else { return };
        let key = object.meta.key.clone();
        if origin == Origin::Watch {
            table.reached(object.meta.version);
        }
        let now = (object.meta.uid, object.finished, object.unselected);
        match table.take(object, origin) {
            Taken::Stale => {}
            Taken::Replaced(old) if (old.meta.uid, old.finished, old.unselected) == now => {}
            Taken::Replaced(old) => {
                if old.meta.uid != now.0 {
                    self.note_gone(&kind, &key, old.meta.uid);
                }
                self.mark_bound(&kind, &key);
            }
            Taken::New => self.mark_bound(&kind, &key),
        }
    }

    pub(super) fn remove_bound(&mut self, kind: &KindName, key: &Key, uid: Uid, version: u64) {
        let Some(table) = self.bound.get_mut(kind) else { return };
        table.reached(version);
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
        let key = object.meta.key.clone();
        let Some(table) = self.bound.get_mut(kind) else { return };
        if table.get(&key).is_none() {
            table.put(object);
            self.mark_bound(kind, &key);
        }
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
    /// or a GET has confirmed it.
    pub fn note_gone(&mut self, kind: &KindName, key: &Key, uid: Uid) {
        if self.bound_to.contains_key(&(kind.clone(), key.clone())) {
            self.confirmed_gone.insert(uid);
        }
    }

    /// Drops the note about a bound object once the last agent that was bound to it is gone.
    pub fn forget_gone(&mut self, uid: Uid) {
        self.confirmed_gone.remove(&uid);
    }

    fn mark_bound(&mut self, kind: &KindName, key: &Key) {
        let agents = self.bound_to.get(&(kind.clone(), key.clone())).cloned().unwrap_or_default();
        self.dirty.extend(agents.into_iter().map(|a| (Work::Agent(key.sibling(a)), Lane::Urgent)));
    }
}

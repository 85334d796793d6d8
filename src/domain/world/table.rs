//! One kind's objects as they were seen, by namespace and name.
//!
//! Invariant: an object never goes back to an older version, and what the watch saw deleted is not brought
//! back by the late answer to a write of ours.

use std::collections::HashMap;

use crate::domain::{Key, Meta, Uid};

/// An object with metadata.
pub(crate) trait Seen {
    /// Its metadata.
    fn meta(&self) -> &Meta;
}

macro_rules! seen {
    ($($t:ty),*) => { $(impl Seen for $t { fn meta(&self) -> &Meta { &self.meta } })* };
}
seen!(
    crate::domain::Agent,
    crate::domain::Resource,
    crate::domain::Grant,
    crate::domain::Blueprint,
    crate::domain::Policy,
    crate::domain::Namespace,
    crate::domain::Binding,
    crate::domain::BoundObject,
    crate::domain::ClusterRole,
    crate::domain::Credentials,
    crate::domain::ServiceAccount,
    crate::domain::Trust
);

/// Whence an object comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From a list or watch.
    Watch,
    /// From the answer to a write or GET of ours.
    Answer,
}

/// What came of taking an object in.
#[derive(Debug, PartialEq)]
pub(crate) enum Taken<T> {
    /// It is not newer than what is known.
    Stale,
    /// It was not known.
    New,
    /// It replaced this one.
    Replaced(T),
}

#[derive(Debug)]
struct Entry<T> {
    object: T,
    epoch: u32,
}

/// The objects of one kind.
#[derive(Debug)]
pub(crate) struct Table<T> {
    entries: HashMap<Key, Entry<T>>,
    epoch: u32,
    newest: u64,
    ahead: Option<(u64, u64)>,
}

/// What a list or watch says of a table, whatever it holds.
pub(crate) trait Listing {
    /// A list begins.
    fn begin_list(&mut self);
    /// What the list that has just ended did not hold, although it is no newer than the list.
    fn missing(&self, listed: u64) -> Vec<(Key, Uid)>;
    /// Of the objects that the running list held in an older version than the known one: both versions of the one
    /// whose known version is the lowest.
    fn ahead(&self) -> Option<(u64, u64)>;
    /// Notes how far the watch has come.
    fn reached(&mut self, version: u64);
    /// Keeps an object through the running relist although it could not be read this time; not one whose name another
    /// UID has by now.
    fn keep(&mut self, key: &Key, uid: Option<Uid>);
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { entries: HashMap::new(), epoch: 0, newest: 0, ahead: None }
    }
}

impl<T: Seen> Table<T> {
    pub(crate) fn get(&self, key: &Key) -> Option<&T> {
        self.entries.get(key).map(|e| &e.object)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Key, &T)> {
        self.entries.iter().map(|(k, e)| (k, &e.object))
    }

    /// Takes an object in.
    pub(crate) fn take(&mut self, object: T, origin: Origin) -> Taken<T> {
        let (epoch, version) = (self.epoch, object.meta().version);
        match self.entries.get_mut(&object.meta().key) {
            Some(entry) => {
                // Of what the running list holds, it alone can tell.
                if origin == Origin::Watch {
                    entry.epoch = epoch;
                }
                let known = entry.object.meta().version;
                if known > version && origin == Origin::Watch && self.ahead.is_none_or(|(_, k)| known < k) {
                    self.ahead = Some((version, known));
                }
                if known >= version {
                    return Taken::Stale;
                }
                Taken::Replaced(std::mem::replace(&mut entry.object, object))
            }
            None if origin == Origin::Answer && version <= self.newest => Taken::Stale,
            None => {
                let epoch = if origin == Origin::Watch { epoch } else { epoch.wrapping_sub(1) };
                self.entries.insert(object.meta().key.clone(), Entry { object, epoch });
                Taken::New
            }
        }
    }

    /// Takes an object in as a list or watch says it is, whatever its version: its server counts as it likes.
    pub(crate) fn replace(&mut self, object: T) -> Taken<T> {
        let entry = Entry { epoch: self.epoch, object };
        let old = self.entries.insert(entry.object.meta().key.clone(), entry);
        old.map_or(Taken::New, |old| Taken::Replaced(old.object))
    }

    /// How far the watch has come.
    pub(crate) const fn newest(&self) -> u64 {
        self.newest
    }

    /// Removes an object, if it is still the one of this UID.
    pub(crate) fn remove(&mut self, key: &Key, uid: Uid) -> Option<T> {
        if self.get(key)?.meta().uid != uid {
            return None;
        }
        self.entries.remove(key).map(|e| e.object)
    }
}

impl<T: Seen> Listing for Table<T> {
    fn begin_list(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        self.ahead = None;
    }

    fn missing(&self, listed: u64) -> Vec<(Key, Uid)> {
        self.entries
            .iter()
            .filter(|(_, e)| e.epoch != self.epoch && e.object.meta().version <= listed)
            .map(|(k, e)| (k.clone(), e.object.meta().uid))
            .collect()
    }

    fn ahead(&self) -> Option<(u64, u64)> {
        self.ahead
    }

    fn reached(&mut self, version: u64) {
        self.newest = self.newest.max(version);
    }

    fn keep(&mut self, key: &Key, uid: Option<Uid>) {
        let known = self.entries.get_mut(key);
        if let Some(entry) = known.filter(|e| uid.is_none_or(|uid| e.object.meta().uid == uid)) {
            entry.epoch = self.epoch;
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::domain::Namespace;

    fn object(uid: u128, version: u64) -> Namespace {
        let meta = Meta {
            key: Key::new("", "a"),
            uid: Uid(uid),
            version,
            created: Timestamp::UNIX_EPOCH,
            deleting: false,
        };
        Namespace { meta, labels: Default::default() }
    }

    #[test]
    fn where_versions_are_not_comparable_the_last_word_counts() {
        let mut t = Table::default();
        assert_eq!(t.replace(object(1, 9)), Taken::New);
        t.begin_list();
        assert_eq!(t.replace(object(2, 3)), Taken::Replaced(object(1, 9)));
        assert_eq!(t.missing(u64::MAX), []);
        assert_eq!((t.get(&Key::new("", "a")), t.ahead()), (Some(&object(2, 3)), None));
        t.begin_list();
        assert_eq!(t.missing(u64::MAX), [(Key::new("", "a"), Uid(2))]);
    }

    #[test]
    fn never_goes_back() {
        let mut t = Table::default();
        assert_eq!(t.take(object(1, 5), Origin::Watch), Taken::New);
        assert_eq!(t.take(object(1, 5), Origin::Watch), Taken::Stale);
        assert_eq!(t.take(object(1, 4), Origin::Answer), Taken::Stale);
        assert_eq!(t.take(object(1, 6), Origin::Answer), Taken::Replaced(object(1, 5)));
        assert_eq!(t.remove(&Key::new("", "a"), Uid(2)), None);
        t.reached(7);
        assert_eq!(t.remove(&Key::new("", "a"), Uid(1)), Some(object(1, 6)));
        // The late answer to a write before the deletion.
        assert_eq!(t.take(object(1, 6), Origin::Answer), Taken::Stale);
        assert_eq!(t.take(object(2, 8), Origin::Answer), Taken::New);
    }

    #[test]
    fn a_relist_is_a_diff() {
        let mut t = Table::default();
        t.take(object(1, 5), Origin::Watch);
        t.begin_list();
        assert_eq!(t.missing(7), [(Key::new("", "a"), Uid(1))]);
        assert!(t.missing(4).is_empty(), "a write of ours made it after the list");
        assert_eq!(t.take(object(1, 5), Origin::Watch), Taken::Stale);
        assert!(t.missing(7).is_empty());
        assert_eq!(t.ahead(), None);
        t.begin_list();
        t.keep(&Key::new("", "a"), Some(Uid(1)));
        assert!(t.missing(7).is_empty());
        // The answer to a write comes late, while the list runs that no longer holds the object.
        t.begin_list();
        assert_eq!(t.take(object(1, 6), Origin::Answer), Taken::Replaced(object(1, 5)));
        assert_eq!(t.missing(7), [(Key::new("", "a"), Uid(1))]);
        t.remove(&Key::new("", "a"), Uid(1));
        assert_eq!(t.take(object(2, 8), Origin::Answer), Taken::New);
        assert_eq!(t.missing(8), [(Key::new("", "a"), Uid(2))]);
        assert!(t.missing(7).is_empty());
    }

    #[test]
    fn a_list_that_shows_an_older_version_is_noted() {
        let mut t = Table::default();
        t.take(object(1, 9), Origin::Watch);
        assert_eq!(t.take(object(1, 7), Origin::Answer), Taken::Stale);
        assert_eq!(t.ahead(), None, "an answer of ours may come late");
        assert_eq!(t.take(object(1, 7), Origin::Watch), Taken::Stale);
        assert_eq!(t.ahead(), Some((7, 9)));
        t.begin_list();
        assert_eq!(t.ahead(), None);
    }
}

//! Which index of which status list is recorded by which agent, and what of the lists may read otherwise now.
//!
//! Invariant: an index that was seen recorded and no longer is never reads VALID again, also while the mark has
//! not passed it yet.

use std::collections::HashMap;

use super::{View, World};
use crate::domain::statuslist::{ListId, Mark, OpenList, StatusRef};
use crate::domain::{Agent, Uid};

/// Who has recorded an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordedBy {
    /// Nobody, as far as was ever seen.
    Nobody,
    /// The agent of this UID.
    One(Uid),
    /// An agent did, and does no longer.
    NoLonger,
    /// More than one: nobody may bear it.
    Several,
}

#[derive(Debug)]
enum Holders {
    One(Uid),
    Many(Vec<Uid>),
    Gone,
}

/// The lists that are known, and what the Lease says of the open one.
#[derive(Debug, Default)]
pub(super) struct Lists {
    lists: HashMap<ListId, HashMap<u32, Holders>>,
    /// As the Lease says it; believed once the watch of the agents has come that far.
    said: Option<Mark>,
    believed: Option<OpenList>,
    changed: Vec<StatusRef>,
}

impl Lists {
    fn add(&mut self, at: StatusRef, agent: Uid) {
        self.changed.push(at);
        let list = self.lists.entry(at.list).or_default();
        match list.get_mut(&at.index) {
            None => drop(list.insert(at.index, Holders::One(agent))),
            Some(holders) => {
                *holders = match std::mem::replace(holders, Holders::Gone) {
                    Holders::Gone => Holders::One(agent),
                    Holders::One(other) => Holders::Many(vec![other, agent]),
                    Holders::Many(mut all) => {
                        all.push(agent);
                        Holders::Many(all)
                    }
                };
            }
        }
    }

    /// `marked`: whether a mark is known, or will be.
    fn remove(&mut self, at: StatusRef, agent: Uid, marked: bool) {
        self.changed.push(at);
        let Some(list) = self.lists.get_mut(&at.list) else { return };
        let Some(holders) = list.get_mut(&at.index) else { return };
        *holders = match std::mem::replace(holders, Holders::Gone) {
            Holders::Many(mut all) => {
                if let Some(i) = all.iter().position(|a| *a == agent) {
                    all.swap_remove(i);
                }
                match all.as_slice() {
                    [one] => Holders::One(*one),
                    _ => Holders::Many(all),
                }
            }
            Holders::One(_) | Holders::Gone => Holders::Gone,
        };
        // Below the mark absence says as much. Of another list than the open one the mark may be on its way.
        let young = self.believed.map_or(marked, |o| o.list != at.list || at.index >= o.mark);
        if matches!(holders, Holders::Gone) && !young {
            list.remove(&at.index);
            if list.is_empty() {
                self.lists.remove(&at.list);
            }
        }
    }

    fn believe(&mut self, reached: u64) -> bool {
        let Some(said) = self.said.filter(|s| s.version <= reached) else { return false };
        let open = OpenList { list: said.list, mark: said.mark };
        if self.believed == Some(open) {
            return false;
        }
        let moved = self.believed.replace(open).is_some_and(|old| old.list == open.list);
        if let Some(list) = self.lists.get_mut(&open.list) {
            list.retain(|index, h| !matches!(h, Holders::Gone) || *index >= open.mark);
        }
        self.lists.retain(|id, list| {
            // Where the same list goes on, the mark of the one that follows may still be on its way.
            if *id != open.list && !moved {
                list.retain(|_, h| !matches!(h, Holders::Gone));
            }
            !list.is_empty()
        });
        true
    }
}

impl World {
    /// Who has recorded an index.
    #[must_use]
    pub fn recorded_by(&self, at: StatusRef) -> RecordedBy {
        match self.lists.lists.get(&at.list).and_then(|l| l.get(&at.index)) {
            None => RecordedBy::Nobody,
            Some(Holders::One(agent)) => RecordedBy::One(*agent),
            Some(Holders::Gone) => RecordedBy::NoLonger,
            Some(Holders::Many(_)) => RecordedBy::Several,
        }
    }

    /// Whether more than one grant has recorded an index.
    #[must_use]
    pub fn is_recorded_twice(&self, at: StatusRef) -> bool {
        self.recorded_by(at) == RecordedBy::Several
    }

    /// The open list, as far as it may be believed.
    #[must_use]
    pub const fn open_list(&self) -> Option<OpenList> {
        self.lists.believed
    }

    /// The lists of which an index is recorded, with the highest index, and the open list.
    #[must_use]
    pub fn lists(&self) -> HashMap<ListId, u32> {
        let mut all: HashMap<_, _> = self
            .lists
            .lists
            .iter()
            .map(|(id, list)| (*id, list.keys().copied().max().unwrap_or_default()))
            .collect();
        if let Some(open) = self.open_list() {
            all.entry(open.list).or_default();
        }
        all
    }

    /// The recorded entries of a list with their agents.
    pub fn recorded_in(&self, list: ListId) -> impl Iterator<Item = (u32, RecordedBy)> + '_ {
        let entries = self.lists.lists.get(&list).into_iter().flatten();
        let entries = entries.filter(|(_, holders)| !matches!(holders, Holders::Gone));
        entries.map(move |(index, _)| (*index, self.recorded_by(StatusRef { list, index: *index })))
    }

    /// The entries that were recorded, or are no longer, since the last call.
    #[must_use]
    pub fn take_changed_entries(&mut self) -> Vec<StatusRef> {
        std::mem::take(&mut self.lists.changed)
    }

    /// Takes in what the leader's Lease says; believed at once or when the watch of the agents has come so far.
    pub fn take_mark(&mut self, mark: Option<Mark>) {
        if mark.is_some() {
            self.lists.said = mark;
        }
        self.believe_mark();
    }

    pub(super) fn believe_mark(&mut self) {
        self.lists.believe(self.agents.newest());
    }

    pub(super) fn index_recorded(&mut self, agent: &Agent, there: bool) {
        // The operator follows no Lease.
        let marked = self.view == View::Service;
        for recorded in &agent.status.grants {
            if there {
                self.lists.add(recorded.at, agent.meta.uid);
            } else {
                self.lists.remove(recorded.at, agent.meta.uid, marked);
            }
        }
    }
}

//! The bits of the lists.
//!
//! Invariants: an index that was never recorded reads INVALID, but for those of the open list from the mark on; a
//! list ends with its highest recorded index, and the open one with its capacity.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::served::Slot;
use crate::crypto::{MAX_STATUS_ENTRIES, StatusBits};
use crate::domain::statuslist::{Entry, OpenList};
use crate::domain::{ListId, StatusRef};

/// The lists by name.
#[derive(Debug, Default)]
pub(super) struct Table {
    lists: HashMap<ListId, List>,
    open: Option<OpenList>,
    /// The lists of which an entry was looked at since the last [`Table::forget`].
    touched: HashSet<ListId>,
    /// Those of which nothing is recorded any more, since when.
    forgotten: HashMap<ListId, Timestamp>,
}

#[derive(Debug, Default)]
struct List {
    /// Set: INVALID.
    bits: StatusBits,
    /// Which entries were ever looked at: those that were ever recorded.
    said: StatusBits,
    /// Grows with every change of the bits.
    version: u64,
    slot: Arc<Slot>,
}

impl List {
    /// Writes a bit; it is one of the list's.
    fn write(&mut self, index: usize, invalid: bool) {
        if self.bits.get(index) != Some(invalid) && self.bits.set(index, invalid).is_ok() {
            self.version += 1;
        }
    }

    /// Makes the list so long at least, with entries that read INVALID.
    fn reach(&mut self, len: usize) {
        for index in self.bits.len()..len.next_multiple_of(8).min(MAX_STATUS_ENTRIES) {
            self.write(index, true);
        }
    }

    fn was_said(&self, index: usize) -> bool {
        self.said.get(index) == Some(true)
    }

    /// Says whether an entry that was said to be VALID is INVALID now.
    fn take(&mut self, index: usize, entry: Entry) -> bool {
        if index >= MAX_STATUS_ENTRIES {
            return false;
        }
        let was_valid = self.was_said(index) && self.bits.get(index) == Some(false);
        self.reach(index + 1);
        match entry {
            Entry::Valid => self.write(index, false),
            Entry::Invalid => self.write(index, true),
            Entry::Unknown if self.was_said(index) => {}
            Entry::Unknown => self.write(index, false),
        }
        // Cannot fail: it is below the limit.
        let _ = self.said.set(index, true);
        was_valid && entry == Entry::Invalid
    }

    /// Lets the entries of a range that nobody ever recorded read the same.
    fn write_unsaid(&mut self, range: std::ops::Range<usize>, invalid: bool) {
        for index in range {
            if !self.was_said(index) {
                self.write(index, invalid);
            }
        }
    }

    /// Cuts what is behind the highest recorded index off.
    fn close(&mut self) {
        let end = (0..self.said.len()).rev().find(|i| self.was_said(*i)).map_or(1, |i| i + 1);
        let mut bits = StatusBits::new(end);
        for index in 0..bits.len() {
            let invalid = !self.was_said(index) || self.bits.get(index) == Some(true);
            // Cannot fail: it is one of the array's.
            let _ = bits.set(index, invalid);
        }
        self.bits = bits;
        self.version += 1;
    }
}

impl Table {
    pub(super) fn names(&self) -> Vec<ListId> {
        let mut names: Vec<_> = self.lists.keys().copied().collect();
        names.sort_unstable();
        names
    }

    pub(super) fn sizes(&self) -> (usize, usize, usize) {
        let lists = self.lists.values();
        let (len, set) = lists.fold((0, 0), |(len, set), l| (len + l.bits.len(), set + l.bits.count_set()));
        (self.lists.len(), len, set)
    }

    /// Whether an entry reads INVALID.
    pub(super) fn reads(&self, at: StatusRef) -> Option<bool> {
        self.lists.get(&at.list)?.bits.get(usize::try_from(at.index).ok()?)
    }

    /// Where a list's signed form is kept, and the version of its bits.
    pub(super) fn slot(&self, list: ListId) -> Option<(Arc<Slot>, u64)> {
        self.lists.get(&list).map(|l| (l.slot.clone(), l.version))
    }

    /// The bits with their version.
    pub(super) fn snapshot(&self, list: ListId) -> Option<(StatusBits, u64)> {
        self.lists.get(&list).map(|l| (l.bits.clone(), l.version))
    }

    /// Takes in what an entry reads; says whether it was revoked by that.
    pub(super) fn take(&mut self, at: StatusRef, entry: Entry) -> bool {
        let Ok(index) = usize::try_from(at.index) else { return false };
        self.touched.insert(at.list);
        self.lists.entry(at.list).or_default().take(index, entry)
    }

    /// Gives another list its length, every entry VALID that nobody recorded; [`Table::settle`] does the rest.
    pub(super) fn open(&mut self, list: ListId, capacity: u32) {
        if self.open.is_some_and(|known| known.list == list) {
            return;
        }
        let capacity = usize::try_from(capacity).unwrap_or(MAX_STATUS_ENTRIES);
        let opened = self.lists.entry(list).or_default();
        opened.reach(capacity);
        opened.write_unsaid(0..opened.bits.len(), false);
    }

    /// Takes the mark in, and closes the list that was open before. Every recorded entry was looked at.
    pub(super) fn settle(&mut self, open: Option<OpenList>) {
        let Some(open) = open else { return };
        let known = self.open.replace(open);
        if known == Some(open) {
            return;
        }
        let from = known.filter(|k| k.list == open.list).map_or(0, |k| k.mark);
        let (from, mark) = (usize::try_from(from), usize::try_from(open.mark));
        if let (Some(list), Ok(from), Ok(mark)) = (self.lists.get_mut(&open.list), from, mark) {
            let end = list.bits.len();
            list.write_unsaid(from..mark.min(end), true);
        }
        let before = known.filter(|k| k.list != open.list);
        if let Some((before, list)) = before.and_then(|k| Some((k.list, self.lists.get_mut(&k.list)?))) {
            list.close();
            self.touched.insert(before);
        }
    }

    /// Drops the lists of which nothing has been recorded for longer than `keep`; `recorded` tells whether
    /// something is.
    pub(super) fn forget(&mut self, recorded: impl Fn(ListId) -> bool, now: Timestamp, keep: SignedDuration) {
        let open = self.open.map(|o| o.list);
        for list in self.touched.drain() {
            if Some(list) == open || recorded(list) {
                self.forgotten.remove(&list);
            } else {
                self.forgotten.entry(list).or_insert(now);
            }
        }
        let lists = &mut self.lists;
        self.forgotten.retain(|list, since| {
            let stays = now.duration_since(*since) <= keep;
            if !stays {
                lists.remove(list);
            }
            stays
        });
    }
}

//! The work queue: what is dirty, in two lanes.
//!
//! Invariants: an item is worked on by one worker at a time; what became dirty meanwhile is worked on again;
//! the urgent lane goes first, so a withdrawal never waits behind re-decisions; but one turn in some is the paced
//! lane's, so that whoever makes urgent work without end (a policy that is edited all the time) stops no renewal;
//! within the paced lane, what goes ahead comes first.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;

/// How soon an item is worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Renewals, rotations, re-decisions.
    Paced,
    /// The head of the paced lane: tokens that nobody takes any more, since their key was revoked.
    Ahead,
    /// What is new, withdrawn, suspended or deleted.
    Urgent,
}

/// After so many urgent items in a row a paced one has its turn.
const URGENT_IN_A_ROW: u32 = 15;

/// A queue of items of two lanes.
#[derive(Debug)]
pub struct Queue<T> {
    urgent: VecDeque<T>,
    ahead: VecDeque<T>,
    paced: VecDeque<T>,
    waiting: HashMap<T, Lane>,
    waiting_urgent: usize,
    busy: HashMap<T, Option<Lane>>,
    busy_paced: HashSet<T>,
    in_a_row: u32,
}

impl<T: Clone + Eq + Hash> Default for Queue<T> {
    fn default() -> Self {
        Self {
            urgent: VecDeque::new(),
            ahead: VecDeque::new(),
            paced: VecDeque::new(),
            waiting: HashMap::new(),
            waiting_urgent: 0,
            busy: HashMap::new(),
            busy_paced: HashSet::new(),
            in_a_row: 0,
        }
    }
}

impl<T: Clone + Eq + Hash> Queue<T> {
    /// Marks an item dirty; in the more urgent of two lanes if it waits already.
    pub fn push(&mut self, item: T, lane: Lane) {
        if let Some(again) = self.busy.get_mut(&item) {
            *again = (*again).max(Some(lane));
            return;
        }
        match self.waiting.get(&item) {
            Some(&known) if known >= lane => return,
            _ => {}
        }
        // A known one was in a less urgent lane, or it would have been enough.
        self.waiting.insert(item.clone(), lane);
        self.waiting_urgent += usize::from(lane == Lane::Urgent);
        match lane {
            Lane::Urgent => self.urgent.push_back(item),
            Lane::Ahead => self.ahead.push_back(item),
            Lane::Paced => self.paced.push_back(item),
        }
    }

    /// Takes the next item; of the paced lane only while fewer than `paced_limit` of it are being worked on.
    pub fn pop(&mut self, paced_limit: usize) -> Option<(T, Lane)> {
        if self.in_a_row >= URGENT_IN_A_ROW
            && let Some(paced) = self.pop_paced(paced_limit)
        {
            return Some(paced);
        }
        while let Some(item) = self.urgent.pop_front() {
            if self.start(&item, Lane::Urgent) {
                self.in_a_row += 1;
                return Some((item, Lane::Urgent));
            }
        }
        self.pop_paced(paced_limit)
    }

    fn pop_paced(&mut self, paced_limit: usize) -> Option<(T, Lane)> {
        self.in_a_row = 0;
        while self.busy_paced.len() < paced_limit {
            let ahead = self.ahead.pop_front().map(|item| (item, Lane::Ahead));
            let (item, lane) = ahead.or_else(|| Some((self.paced.pop_front()?, Lane::Paced)))?;
            if self.start(&item, lane) {
                self.busy_paced.insert(item.clone());
                return Some((item, lane));
            }
        }
        None
    }

    /// An item that was raised to another lane left its old entry behind, which is passed over here.
    fn start(&mut self, item: &T, lane: Lane) -> bool {
        if self.waiting.get(item) != Some(&lane) {
            return false;
        }
        self.waiting.remove(item);
        self.waiting_urgent -= usize::from(lane == Lane::Urgent);
        self.busy.insert(item.clone(), None);
        true
    }

    /// Reports that an item's work has ended; queues it again if it became dirty meanwhile.
    pub fn done(&mut self, item: &T) {
        self.busy_paced.remove(item);
        if let Some(Some(lane)) = self.busy.remove(item) {
            self.push(item.clone(), lane);
        }
    }

    /// Items that wait: (urgent, paced with what goes ahead there).
    #[must_use]
    pub fn depths(&self) -> (usize, usize) {
        (self.waiting_urgent, self.waiting.len() - self.waiting_urgent)
    }

    /// Whether nothing waits and nothing is being worked on.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.busy.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn urgent_goes_first_and_raises() {
        let mut q = Queue::default();
        q.push(1, Lane::Paced);
        q.push(2, Lane::Paced);
        q.push(3, Lane::Urgent);
        q.push(2, Lane::Urgent);
        assert_eq!(q.depths(), (2, 1));
        assert_eq!(q.pop(8), Some((3, Lane::Urgent)));
        assert_eq!(q.pop(8), Some((2, Lane::Urgent)));
        assert_eq!(q.pop(8), Some((1, Lane::Paced)));
        assert_eq!(q.pop(8), None);
    }

    #[test]
    fn what_goes_ahead_is_paced_and_comes_first_there() {
        let mut q = Queue::default();
        (0..4).for_each(|i| q.push(i, Lane::Paced));
        q.push(2, Lane::Ahead);
        q.push(8, Lane::Ahead);
        q.push(8, Lane::Paced);
        q.push(9, Lane::Urgent);
        assert_eq!(q.depths(), (1, 5));
        assert_eq!(q.pop(2), Some((9, Lane::Urgent)));
        assert_eq!(q.pop(2), Some((2, Lane::Ahead)));
        assert_eq!(q.pop(2), Some((8, Lane::Ahead)));
        assert_eq!(q.pop(2), None, "workers are left for withdrawals");
        assert_eq!(q.pop(3), Some((0, Lane::Paced)));
        q.push(8, Lane::Urgent);
        [2, 8, 0].iter().for_each(|i| q.done(i));
        assert_eq!(q.pop(2), Some((8, Lane::Urgent)));
        assert_eq!(q.pop(2), Some((1, Lane::Paced)));
        assert_eq!(q.pop(2), Some((3, Lane::Paced)));
        assert_eq!(q.pop(2), None);
    }

    #[test]
    fn urgent_work_without_end_stops_no_paced_work() {
        let mut q = Queue::default();
        q.push(0, Lane::Paced);
        let mut turns = 0;
        for item in 1.. {
            q.push(item, Lane::Urgent);
            turns += 1;
            if q.pop(8) == Some((0, Lane::Paced)) {
                break;
            }
        }
        assert_eq!(turns, URGENT_IN_A_ROW + 1);
        assert_eq!(q.pop(0).map(|(_, lane)| lane), Some(Lane::Urgent));
    }

    #[test]
    fn paced_work_leaves_workers_free() {
        let mut q = Queue::default();
        (0..4).for_each(|i| q.push(i, Lane::Paced));
        assert!(q.pop(2).is_some() && q.pop(2).is_some());
        assert_eq!(q.pop(2), None);
        q.push(9, Lane::Urgent);
        assert_eq!(q.pop(2), Some((9, Lane::Urgent)));
        q.done(&0);
        assert_eq!(q.pop(2), Some((2, Lane::Paced)));
    }

    #[test]
    fn dirty_again_while_busy_is_worked_on_again() {
        let mut q = Queue::default();
        q.push(1, Lane::Paced);
        q.pop(8);
        q.push(1, Lane::Urgent);
        assert_eq!(q.pop(8), None);
        q.done(&1);
        assert_eq!(q.pop(8), Some((1, Lane::Urgent)));
        q.done(&1);
        assert!(q.is_idle());
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_nothing_runs_twice(ops in prop::collection::vec((0u8..3, 0u8..6, 0usize..3), 0..200)) {
            let (mut q, mut running, mut owed) = (Queue::default(), HashSet::new(), HashSet::new());
            for (op, item, lane) in ops {
                match op {
                    0 => { q.push(item, [Lane::Paced, Lane::Ahead, Lane::Urgent][lane]); owed.insert(item); }
                    1 => if let Some((got, _)) = q.pop(2) {
                        prop_assert!(running.insert(got), "runs twice");
                        prop_assert!(owed.remove(&got), "not owed");
                    },
                    _ => if running.remove(&item) { q.done(&item); },
                }
            }
            for item in running.drain() { q.done(&item); }
            while let Some((got, _)) = q.pop(2) { owed.remove(&got); q.done(&got); }
            prop_assert!(owed.is_empty());
            prop_assert_eq!(q.depths(), (0, 0));
            prop_assert!(q.is_idle());
        }
    }
}

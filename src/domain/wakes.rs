//! Work that waits for its time, and in which lane it is due then.
//!
//! Invariants: an item waits for one time at most; what failed is tried again in the lane that it was in, so a
//! withdrawal that the API server would not take at first does not fall behind re-decisions.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use jiff::Timestamp;

use super::Lane;

/// Items that wait for a time.
#[derive(Debug)]
pub struct Wakes<T> {
    order: BTreeSet<(Timestamp, T)>,
    of: HashMap<T, (Timestamp, Lane)>,
}

impl<T> Default for Wakes<T> {
    fn default() -> Self {
        Self { order: BTreeSet::new(), of: HashMap::new() }
    }
}

impl<T: Clone + Ord + Hash> Wakes<T> {
    /// The item's work is done: it waits for its next time, if there is one, and is paced then.
    pub fn done(&mut self, item: &T, next: Option<Timestamp>) {
        self.forget(item);
        if let Some(at) = next {
            self.set(item, at, Lane::Paced);
        }
    }

    /// The item's work has failed: it is to be tried again then, in the lane in which it was.
    pub fn failed(&mut self, item: &T, lane: Lane, again: Timestamp) {
        self.forget(item);
        self.set(item, again, lane);
    }

    /// The lane of an item that was taken from this one: the more urgent one, if it waits here as well.
    #[must_use]
    pub fn lane(&self, item: &T, lane: Lane) -> Lane {
        self.of.get(item).map_or(lane, |(_, waits)| lane.max(*waits))
    }

    /// Takes an item whose time has come.
    pub fn pop(&mut self, now: Timestamp) -> Option<(T, Lane)> {
        let (_, item) = self.order.first().filter(|(at, _)| *at <= now)?;
        let item = item.clone();
        let lane = self.forget(&item)?;
        Some((item, lane))
    }

    /// When the next item's time comes.
    #[must_use]
    pub fn next(&self) -> Option<Timestamp> {
        self.order.first().map(|(at, _)| *at)
    }

    fn set(&mut self, item: &T, at: Timestamp, lane: Lane) {
        self.order.insert((at, item.clone()));
        self.of.insert(item.clone(), (at, lane));
    }

    fn forget(&mut self, item: &T) -> Option<Lane> {
        let (at, lane) = self.of.remove(item)?;
        self.order.remove(&(at, item.clone()));
        Some(lane)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Queue;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    /// Moves what is due to the queue, as the loop does.
    fn collect(wakes: &mut Wakes<u32>, queue: &mut Queue<u32>, now: i64) {
        while let Some((item, lane)) = wakes.pop(at(now)) {
            queue.push(item, lane);
        }
    }

    #[test]
    fn a_withdrawal_that_failed_goes_before_what_is_paced() {
        let (mut wakes, mut queue) = (Wakes::default(), Queue::default());
        (0..1000).for_each(|i| queue.push(i, Lane::Paced));
        queue.push(2000, Lane::Urgent);
        for second in 0..5 {
            let (item, lane) = queue.pop(8).unwrap();
            assert_eq!((item, lane), (2000, Lane::Urgent));
            wakes.failed(&item, wakes.lane(&item, lane), at(second + 1));
            queue.done(&item);
            collect(&mut wakes, &mut queue, second);
            assert_eq!(queue.depths().0, 0, "not before its time");
            collect(&mut wakes, &mut queue, second + 1);
        }
    }

    #[test]
    fn what_was_looked_at_meanwhile_in_another_lane_stays_urgent() {
        let mut wakes = Wakes::default();
        wakes.failed(&1, Lane::Urgent, at(9));
        let lane = wakes.lane(&1, Lane::Paced);
        wakes.failed(&1, lane, at(5));
        assert_eq!((wakes.next(), wakes.pop(at(4))), (Some(at(5)), None));
        assert_eq!((wakes.pop(at(9)), wakes.pop(at(9))), (Some((1, Lane::Urgent)), None));
    }

    #[test]
    fn what_is_done_is_paced_from_then_on() {
        let mut wakes = Wakes::default();
        wakes.failed(&1, Lane::Urgent, at(1));
        wakes.done(&1, Some(at(2)));
        wakes.done(&2, Some(at(3)));
        wakes.done(&2, None);
        assert_eq!((wakes.pop(at(9)), wakes.next()), (Some((1, Lane::Paced)), None));
    }
}

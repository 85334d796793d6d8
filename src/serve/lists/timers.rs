//! When which agent is to be looked at again, by time alone. Invariant: one instant an agent.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;

use crate::domain::Key;

/// The instants.
#[derive(Debug, Default)]
pub(super) struct Timers {
    at: BTreeSet<(Timestamp, Key)>,
    of: HashMap<Key, Timestamp>,
}

impl Timers {
    /// Sets or takes away an agent's instant.
    pub(super) fn set(&mut self, key: Key, at: Option<Timestamp>) {
        let old = match at {
            Some(at) => self.of.insert(key.clone(), at),
            None => self.of.remove(&key),
        };
        if old == at {
            return;
        }
        if let Some(old) = old {
            self.at.remove(&(old, key.clone()));
        }
        self.at.extend(at.map(|at| (at, key)));
    }

    /// Takes out the agents whose instant has come.
    pub(super) fn due(&mut self, now: Timestamp) -> Vec<Key> {
        let mut due = Vec::new();
        while self.at.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, key)) = self.at.pop_first() else { break };
            self.of.remove(&key);
            due.push(key);
        }
        due
    }

    /// The next instant.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.at.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_instant_an_agent() {
        let at = |s| Timestamp::from_second(s).unwrap();
        let (a, b) = (Key::new("ns", "a"), Key::new("ns", "b"));
        let mut timers = Timers::default();
        timers.set(a.clone(), Some(at(5)));
        timers.set(a.clone(), Some(at(9)));
        timers.set(b.clone(), Some(at(7)));
        assert_eq!(timers.next(), Some(at(7)));
        assert_eq!(timers.due(at(8)), [b]);
        timers.set(a, None);
        assert_eq!((timers.due(at(99)), timers.next()), (vec![], None));
    }
}

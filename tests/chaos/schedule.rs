//! What is done, and what breaks, and when: from a seed alone.
//!
//! Invariants: the same seed and size give the same schedule; every fault comes at least once where there is room; an
//! event speaks only of objects that events before it left there.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::digest;

use crate::dice::Dice;
use crate::draw::Draw;
use crate::world::GROUP;

/// How much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub events: usize,
    pub namespaces: usize,
    /// About how many agents are alive at a time.
    pub alive: usize,
    /// Over what time events and faults are spread.
    pub spread: Duration,
    pub faults: usize,
}

/// Which object an event is about. The numbers are places in the world and parts of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Thing {
    /// An AgentIdentity that somebody writes.
    Agent { ns: usize, n: u32 },
    /// A pod that becomes an agent of its own.
    Pod { ns: usize, n: u32 },
    /// A Deployment whose pods are one agent.
    Workload { ns: usize, n: u32 },
    /// One of the grants of a namespace.
    Grant { ns: usize, g: usize },
    /// What a resource allows a namespace.
    Allow { ns: usize, r: usize },
    /// The policy that denies a role in a namespace.
    Deny { ns: usize },
    /// The policy that suspends the silver agents of a namespace.
    Stop { ns: usize },
    /// A blueprint of a group of namespaces: that of pods, or that of workloads.
    Blueprint { group: usize, of_pods: bool },
    /// A whole namespace, of which only the end is told.
    Namespace { ns: usize },
}

/// What is done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Created; agents as gold or silver.
    Create { gold: bool },
    /// Deleted; with or without what it owns.
    Delete { orphan: bool },
    /// The switch of an agent, a policy or a blueprint that takes credentials away.
    Suspend(bool),
    /// These roles (a bit each) are allowed from now on.
    Allow(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    pub at: Duration,
    pub thing: Thing,
    pub deed: Deed,
}

impl Event {
    /// The word of the table.
    pub const fn word(&self) -> &'static str {
        match (self.thing, self.deed) {
            (Thing::Agent { .. }, Deed::Create { .. }) => "create agent",
            (Thing::Agent { .. }, Deed::Delete { .. }) => "delete agent",
            (Thing::Agent { .. }, Deed::Suspend(true)) => "suspend agent",
            (Thing::Agent { .. }, _) => "resume agent",
            (Thing::Pod { .. }, Deed::Create { .. }) => "create pod",
            (Thing::Pod { .. }, _) => "delete pod",
            (Thing::Workload { .. }, Deed::Create { .. }) => "create workload",
            (Thing::Workload { .. }, _) => "delete workload",
            (Thing::Grant { .. }, Deed::Create { .. }) => "create grant",
            (Thing::Grant { .. }, _) => "delete grant",
            (Thing::Allow { .. }, _) => "allow",
            (Thing::Deny { .. }, Deed::Create { .. }) => "deny",
            (Thing::Deny { .. }, _) => "deny no more",
            (Thing::Stop { .. } | Thing::Blueprint { .. }, Deed::Suspend(true)) => "suspend many",
            (Thing::Stop { .. } | Thing::Blueprint { .. }, _) => "resume many",
            (Thing::Namespace { .. }, _) => "delete namespace",
        }
    }

    /// Events of one object follow each other; resources are one object for several namespaces.
    pub const fn lane(&self, lanes: usize) -> usize {
        let number = match self.thing {
            Thing::Agent { ns, n } | Thing::Pod { ns, n } | Thing::Workload { ns, n } => ns * 7 + n as usize,
            Thing::Grant { ns, g } => ns * 5 + g,
            Thing::Allow { ns, r } => (ns / GROUP) * 11 + r,
            Thing::Deny { ns } | Thing::Namespace { ns } => ns + 3,
            Thing::Stop { ns } => ns + 9,
            Thing::Blueprint { group, of_pods } => group * 2 + of_pods as usize,
        };
        number % lanes
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Break {
    ApiServerKilled,
    EtcdPaused,
    OperatorKilled,
    LeaderFrozen,
    ServeKilled,
    ServeFrozen,
    ClockShifted,
}

impl Break {
    pub const ALL: [Self; 7] = [
        Self::ApiServerKilled,
        Self::EtcdPaused,
        Self::OperatorKilled,
        Self::LeaderFrozen,
        Self::ServeKilled,
        Self::ServeFrozen,
        Self::ClockShifted,
    ];

    /// How long it lasts, in milliseconds: from, to.
    const fn lasts(self) -> (u64, u64) {
        match self {
            Self::ApiServerKilled => (2_000, 10_000),
            Self::EtcdPaused => (3_000, 8_000),
            Self::OperatorKilled | Self::ServeKilled => (0, 5_000),
            // Past the lease.
            Self::LeaderFrozen => (20_000, 26_000),
            // Short of, and past, what the replica may know.
            Self::ServeFrozen => (3_000, 26_000),
            // Once it leads.
            Self::ClockShifted => (5_000, 25_000),
        }
    }
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ApiServerKilled => "API server killed",
            Self::EtcdPaused => "etcd paused",
            Self::OperatorKilled => "operator killed",
            Self::LeaderFrozen => "leader frozen",
            Self::ServeKilled => "serve killed",
            Self::ServeFrozen => "serve frozen",
            Self::ClockShifted => "clock shifted",
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    pub at: Duration,
    pub what: Break,
    pub lasts: Duration,
    /// Which of two operators or replicas.
    pub slot: usize,
    /// By how many seconds a clock is off.
    pub shift: i64,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    pub seed: u64,
    pub size: Size,
    pub events: Vec<Event>,
    pub faults: Vec<Fault>,
}

impl Schedule {
    pub fn new(seed: u64, size: Size) -> Self {
        Self { seed, size, events: Draw::new(seed, size).events(), faults: faults(seed, size) }
    }

    /// The same for the same schedule.
    pub fn digest(&self) -> String {
        let text = format!("{:?} {:?}", self.events, self.faults);
        let hash = digest::digest(&digest::SHA256, text.as_bytes());
        hash.as_ref()[..8].iter().map(|b| format!("{b:02x}")).collect()
    }
}

fn faults(seed: u64, size: Size) -> Vec<Fault> {
    let mut dice = Dice::new(seed, "faults");
    let spread = u64::try_from(size.spread.as_millis()).unwrap();
    let mut bag: Vec<Break> = Vec::new();
    (0..size.faults as u64)
        .map(|i| {
            if bag.is_empty() {
                bag = Break::ALL.to_vec();
                dice.shuffle(&mut bag);
            }
            let what = bag.pop().unwrap();
            let step = spread / size.faults as u64;
            let at = Duration::from_millis(i * step + dice.between(0, step.max(1)));
            let (from, to) = what.lasts();
            let lasts = Duration::from_millis(dice.between(from, to));
            // Behind, a clock does not believe certificates that are younger than its shift: the control plane's.
            let shift = if at >= Duration::from_secs(120) && dice.percent(50) { -60 } else { 180 };
            Fault { at, what, lasts, slot: dice.below(2), shift }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SIZE: Size =
        Size { events: 5000, namespaces: 12, alive: 300, spread: Duration::from_secs(300), faults: 14 };

    #[test]
    fn a_seed_is_a_schedule() {
        let one = Schedule::new(7, SIZE);
        assert_eq!(one, Schedule::new(7, SIZE));
        assert_eq!(one.digest(), Schedule::new(7, SIZE).digest());
        assert_ne!(one.digest(), Schedule::new(8, SIZE).digest());
    }

    #[test]
    fn every_event_and_every_fault_is_there_and_in_order() {
        let schedule = Schedule::new(1, SIZE);
        assert_eq!(schedule.events.len(), SIZE.events);
        assert!(schedule.events.is_sorted_by_key(|e| e.at));
        let words: BTreeSet<_> = schedule.events.iter().map(Event::word).collect();
        assert_eq!(words.len(), 15, "{words:?}");
        for what in Break::ALL {
            assert_eq!(schedule.faults.iter().filter(|f| f.what == what).count(), 2, "{what}");
        }
    }

    /// Whatever is deleted, suspended or resumed is there, and in the state that this changes.
    #[test]
    fn events_speak_of_what_is_there() {
        let mut there = BTreeSet::new();
        let mut suspended = BTreeSet::new();
        for event in Schedule::new(3, SIZE).events {
            let thing = event.thing;
            let written = matches!(thing, Thing::Agent { .. } | Thing::Pod { .. } | Thing::Workload { .. });
            match event.deed {
                Deed::Create { .. } if written => assert!(there.insert(thing), "{event:?}"),
                Deed::Delete { .. } if written => {
                    assert!(there.remove(&thing), "{event:?}");
                    suspended.remove(&thing);
                }
                Deed::Suspend(true) => assert!(suspended.insert(thing), "{event:?}"),
                Deed::Suspend(false) => assert!(suspended.remove(&thing), "{event:?}"),
                _ => {}
            }
            if matches!(thing, Thing::Agent { .. }) && matches!(event.deed, Deed::Suspend(_)) {
                assert!(there.contains(&thing), "{event:?}");
            }
        }
        assert!(there.len() > 200, "{}", there.len());
        // Of twelve namespaces the last but one is emptied.
        let in_it = |t: &&Thing| {
            matches!(
                t,
                Thing::Agent { ns: 10, .. } | Thing::Pod { ns: 10, .. } | Thing::Workload { ns: 10, .. }
            )
        };
        assert_eq!(there.iter().find(in_it), None);
    }
}

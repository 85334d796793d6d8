//! The events of a schedule, drawn one after the other.
//!
//! Invariant: an event speaks only of what the events before it left there.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use crate::dice::Dice;
use crate::schedule::{Deed, Event, Size, Thing};
use crate::world::{GRANTS, GROUP, RESOURCES, ROLES};

/// What is there while events are drawn: names alone.
pub struct Draw {
    dice: Dice,
    size: Size,
    next: u32,
    agents: Vec<(usize, u32)>,
    pods: Vec<(usize, u32)>,
    workloads: Vec<(usize, u32)>,
    suspended: BTreeSet<(usize, u32)>,
    /// Names that are free again.
    free: Vec<(usize, u32)>,
    on: BTreeSet<Thing>,
}

impl Draw {
    pub fn new(seed: u64, size: Size) -> Self {
        let on = (0..size.namespaces)
            .flat_map(|ns| {
                GRANTS
                    .iter()
                    .enumerate()
                    .filter(|(_, g)| g.from_start)
                    .map(move |(g, _)| Thing::Grant { ns, g })
            })
            .collect();
        Self {
            dice: Dice::new(seed, "events"),
            size,
            next: 0,
            agents: Vec::new(),
            pods: Vec::new(),
            workloads: Vec::new(),
            suspended: BTreeSet::new(),
            free: Vec::new(),
            on,
        }
    }

    /// All events, in the order of their times.
    pub fn events(mut self) -> Vec<Event> {
        let mut deeds = Vec::with_capacity(self.size.events);
        // Before the end all agents of some namespaces go: nothing of ours may be left there. The last one stays, and is
        // deleted as a whole when all is done.
        let drain_from = self.size.events * 9 / 10;
        let mut drained: Vec<(Thing, Deed)> = Vec::new();
        let all = self.size.namespaces;
        let last = all - 1 - (all / 10).max(1);
        let mut open = all;
        while deeds.len() < self.size.events {
            if deeds.len() == drain_from {
                open = last;
                drained = self.drain(last..all - 1);
            }
            let next = match drained.pop() {
                Some(next) => next,
                None => self.one(open),
            };
            deeds.push(next);
        }
        let spread = u64::try_from(self.size.spread.as_millis()).unwrap();
        let mut times: Vec<_> = deeds.iter().map(|_| self.dice.between(0, spread)).collect();
        times.sort_unstable();
        let timed = times.into_iter().zip(deeds);
        timed.map(|(at, (thing, deed))| Event { at: Duration::from_millis(at), thing, deed }).collect()
    }

    fn drain(&mut self, these: Range<usize>) -> Vec<(Thing, Deed)> {
        let gone = |all: &mut Vec<(usize, u32)>| -> Vec<(usize, u32)> {
            let (gone, stay) = std::mem::take(all).into_iter().partition(|(ns, _)| these.contains(ns));
            *all = stay;
            gone
        };
        let delete = Deed::Delete { orphan: false };
        let mut all = Vec::new();
        all.extend(gone(&mut self.agents).into_iter().map(|(ns, n)| (Thing::Agent { ns, n }, delete)));
        all.extend(gone(&mut self.pods).into_iter().map(|(ns, n)| (Thing::Pod { ns, n }, delete)));
        all.extend(gone(&mut self.workloads).into_iter().map(|(ns, n)| (Thing::Workload { ns, n }, delete)));
        self.suspended.retain(|(ns, _)| !these.contains(ns));
        self.free.retain(|(ns, _)| !these.contains(ns));
        all
    }

    fn one(&mut self, namespaces: usize) -> (Thing, Deed) {
        let few = |there: usize, share: usize| there < self.size.alive * share / 100;
        let (agents, pods, workloads) = (self.agents.len(), self.pods.len(), self.workloads.len());
        let weights = [
            if few(agents, 78) { 44 } else { 20 },
            if few(agents, 40) { 4 } else { 20 },
            if few(agents, 5) { 0 } else { 22 },
            if few(pods, 16) { 12 } else { 5 },
            if few(pods, 8) { 1 } else { 5 },
            if few(workloads, 6) { 3 } else { 1 },
            if few(workloads, 3) { 0 } else { 1 },
            5,
            9,
            3,
            1,
            1,
        ];
        let ns = self.dice.below(namespaces);
        match self.dice.weighted(&weights) {
            0 => {
                let (ns, n) = self.fresh(ns);
                self.agents.push((ns, n));
                (Thing::Agent { ns, n }, Deed::Create { gold: self.dice.percent(50) })
            }
            1 if agents > 0 => {
                let (ns, n) = self.agents.swap_remove(self.dice.below(agents));
                self.suspended.remove(&(ns, n));
                self.free.push((ns, n));
                (Thing::Agent { ns, n }, Deed::Delete { orphan: self.dice.percent(5) })
            }
            2 if agents > 0 => {
                let back = self.suspended.len() * 10 > agents && self.dice.percent(70);
                let (ns, n) = if back {
                    *self.suspended.iter().nth(self.dice.below(self.suspended.len())).unwrap()
                } else {
                    self.agents[self.dice.below(agents)]
                };
                let on = self.suspended.insert((ns, n));
                if !on {
                    self.suspended.remove(&(ns, n));
                }
                (Thing::Agent { ns, n }, Deed::Suspend(on))
            }
            4 if pods > 0 => {
                let (ns, n) = self.pods.swap_remove(self.dice.below(pods));
                (Thing::Pod { ns, n }, Deed::Delete { orphan: false })
            }
            5 => {
                self.next += 1;
                self.workloads.push((ns, self.next));
                (Thing::Workload { ns, n: self.next }, Deed::Create { gold: false })
            }
            6 if workloads > 0 => {
                let (ns, n) = self.workloads.swap_remove(self.dice.below(workloads));
                (Thing::Workload { ns, n }, Deed::Delete { orphan: false })
            }
            7 => {
                let g = self.dice.below(GRANTS.len());
                self.made_or_gone(Thing::Grant { ns, g })
            }
            8 => {
                let all = (1u8 << ROLES.len()) - 1;
                let roles =
                    if self.dice.percent(50) { all } else { self.dice.below(usize::from(all) + 1) as u8 };
                (Thing::Allow { ns, r: self.dice.below(RESOURCES.len()) }, Deed::Allow(roles))
            }
            9 => self.made_or_gone(Thing::Deny { ns }),
            10 => self.switch(Thing::Stop { ns }),
            11 => {
                let of_pods = self.dice.percent(50);
                self.switch(Thing::Blueprint { group: ns / GROUP, of_pods })
            }
            // 3, and deletes of what is not there.
            _ => {
                self.next += 1;
                self.pods.push((ns, self.next));
                (Thing::Pod { ns, n: self.next }, Deed::Create { gold: false })
            }
        }
    }

    /// A new name, or one that another agent had.
    fn fresh(&mut self, ns: usize) -> (usize, u32) {
        if !self.free.is_empty() && self.dice.percent(10) {
            return self.free.swap_remove(self.dice.below(self.free.len()));
        }
        self.next += 1;
        (ns, self.next)
    }

    fn made_or_gone(&mut self, thing: Thing) -> (Thing, Deed) {
        if self.on.remove(&thing) {
            (thing, Deed::Delete { orphan: false })
        } else {
            self.on.insert(thing);
            (thing, Deed::Create { gold: false })
        }
    }

    /// Switches that stop many are on for a short while: one that is on is taken back first.
    fn switch(&mut self, thing: Thing) -> (Thing, Deed) {
        let kind = std::mem::discriminant(&thing);
        let on = self.on.iter().copied().find(|t| std::mem::discriminant(t) == kind);
        match on {
            Some(on) => {
                self.on.remove(&on);
                (on, Deed::Suspend(false))
            }
            None => {
                self.on.insert(thing);
                (thing, Deed::Suspend(true))
            }
        }
    }
}

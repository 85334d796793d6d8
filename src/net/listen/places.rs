//! How many connections there may be, in all and of one source.
//!
//! Invariant: a place is given back when its guard is dropped, and a source without connections takes no memory.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::super::Source;
use super::{Bounds, Stats};

#[derive(Default)]
struct Taken {
    all: usize,
    by: HashMap<Source, usize>,
}

pub(super) struct Places {
    most: usize,
    most_of_one: usize,
    taken: Arc<Mutex<Taken>>,
}

/// One connection's place.
pub(super) struct Place {
    source: Source,
    taken: Arc<Mutex<Taken>>,
}

impl Places {
    pub(super) fn new(bounds: &Bounds) -> Self {
        Self { most: bounds.connections, most_of_one: bounds.per_source_connections, taken: Arc::default() }
    }

    /// A place, if there is one.
    pub(super) fn take(&self, address: IpAddr, stats: &Stats) -> Option<Place> {
        let source = Source::of(address);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_one = taken.by.get(&source).copied().unwrap_or_default();
        if taken.all >= self.most || of_one >= self.most_of_one {
            stats.refused.add();
            return None;
        }
        taken.all += 1;
        taken.by.insert(source, of_one + 1);
        Some(Place { source, taken: self.taken.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        if let Entry::Occupied(mut of_one) = taken.by.entry(self.source) {
            *of_one.get_mut() -= 1;
            if *of_one.get() == 0 {
                of_one.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_run_out_by_source_and_in_all_and_come_back() {
        let bounds = Bounds { connections: 3, per_source_connections: 2, ..Bounds::default() };
        let (places, stats) = (Places::new(&bounds), Stats::default());
        let take = |ip: &str| places.take(ip.parse().unwrap(), &stats);
        let (a, _b) = (take("192.0.2.1").unwrap(), take("::ffff:192.0.2.1").unwrap());
        assert!(take("192.0.2.1").is_none(), "two of one source");
        let c = take("192.0.2.2").unwrap();
        assert!(take("192.0.2.3").is_none(), "three in all");
        drop(c);
        assert_eq!(places.taken.lock().unwrap().by.len(), 1, "nothing is kept of who is gone");
        drop(a);
        assert!(take("192.0.2.1").is_some());
        assert_eq!(stats.refused.get(), 2);
    }
}

//! What a port counts, for metrics. Invariant: a gauge goes down by the guard that brought it up.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters and gauges of a port. Gauges say what is now, counters only grow.
#[derive(Debug, Default)]
pub struct Stats {
    /// Gauge: connections open.
    pub connections: Count,
    /// Gauge: requests being read or handled.
    pub in_flight: Count,
    /// Counter: connections accepted and served.
    pub accepted: Count,
    /// Counter: connections closed at once, since there were too many.
    pub refused: Count,
    /// Counter: TLS handshakes that failed or took too long.
    pub handshake_failures: Count,
    /// Counter: requests.
    pub requests: Count,
    /// Counter: requests answered 503 since too many were in flight.
    pub shed: Count,
    /// Counter: requests whose head, body, handling or response took too long.
    pub timeouts: Count,
    /// Counter: requests answered 413.
    pub too_large: Count,
    /// Counter: panics in a handler.
    pub panics: Count,
}

/// A number that many tasks change.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Its value now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One more until the guard is dropped.
    pub(super) fn enter(&self) -> Entered<'_> {
        self.add();
        Entered(self)
    }
}

pub(super) struct Entered<'a>(&'a Count);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

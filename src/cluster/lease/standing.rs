//! Where a process stands in the election, and what others may ask of it or hand to it.
//!
//! Invariant: a [`Claim`] lapses by the clock, whether or not the election's task gets to run.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, watch};

use super::LeaseError;

/// Why a leader isn't one any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostReason {
    /// No renewal succeeded within the deadline.
    Expired,
    /// Another one holds the lease.
    Taken,
    /// Given back at the end, or never held.
    Released,
}

impl LostReason {
    /// The reason as a label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Taken => "taken",
            Self::Released => "released",
        }
    }
}

impl fmt::Display for LostReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where this process stands.
#[derive(Debug, Clone)]
pub enum Leadership {
    /// Another one leads, or nobody yet.
    Standby {
        /// The holder as last read.
        holder: Option<String>,
        /// The annotations of the Lease as last read.
        annotations: BTreeMap<String, String>,
    },
    /// This process leads.
    Leading {
        /// Since when.
        since: Instant,
        /// The annotations of the Lease as last written, the predecessor's among them.
        annotations: BTreeMap<String, String>,
        /// Answers at any moment whether it still does.
        claim: Claim,
    },
    /// It leads no more and won't again: end the process.
    Lost {
        /// Why.
        reason: LostReason,
    },
}

/// A leader's claim, to be asked before each write: it lapses by the clock, whoever may be stuck.
#[derive(Debug, Clone)]
pub struct Claim {
    pub(super) until: Arc<Mutex<Instant>>,
}

impl Claim {
    /// Whether the last renewal is recent enough.
    #[must_use]
    pub fn is_current(&self) -> bool {
        Instant::now() < *locked(&self.until)
    }
}

#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Counts the sets.
    pub(super) version: u64,
    pub(super) annotations: BTreeMap<String, String>,
    /// Set by us once, and no longer wanted.
    pub(super) removed: Vec<String>,
    /// The key ring's generation, 0 if none is known: every write carries it, also one that makes the Lease anew.
    pub(super) generation: u64,
}

pub(super) struct Shared {
    pub(super) state: watch::Sender<Leadership>,
    pub(super) wanted: Mutex<Wanted>,
    /// Version of the annotations that are on the Lease, and the Lease's resourceVersion since.
    pub(super) written: watch::Sender<(u64, String)>,
    pub(super) urgent: Notify,
    /// How often the lease has changed hands, as it says; none before it was read.
    pub(super) transitions: Mutex<Option<u64>>,
}

/// Access to a running election from elsewhere.
#[derive(Clone)]
pub struct LeaseHandle {
    pub(super) shared: Arc<Shared>,
}

impl LeaseHandle {
    /// The standing, now and as it changes.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Leadership> {
        self.shared.state.subscribe()
    }

    /// How often the lease has changed hands, as it was last seen; `None` before it was.
    #[must_use]
    pub fn transitions(&self) -> Option<u64> {
        *locked(&self.shared.transitions)
    }

    /// Replaces what was set before; other annotations of the Lease stay. Written with the next renewal.
    pub fn set_annotations(&self, annotations: BTreeMap<String, String>) {
        self.want(annotations);
    }

    /// The key ring's generation, which stays noted on the Lease from now on, whatever becomes of the Lease. A lower
    /// one than before changes nothing.
    pub fn keep_generation(&self, generation: u64) {
        let mut wanted = locked(&self.shared.wanted);
        wanted.generation = wanted.generation.max(generation);
    }

    /// As [`Self::set_annotations`], at once; returns when they stand on the Lease, with the
    /// resourceVersion of a write that carried them (or later ones).
    ///
    /// # Errors
    /// When this process isn't the leader, or ceases to be before it is done. The write may have happened.
    pub async fn write_annotations(
        &self,
        annotations: BTreeMap<String, String>,
    ) -> Result<String, LeaseError> {
        let mut state = self.subscribe();
        if !matches!(*state.borrow_and_update(), Leadership::Leading { .. }) {
            return Err(LeaseError::NotLeading);
        }
        let mut written = self.shared.written.subscribe();
        let version = self.want(annotations);
        self.shared.urgent.notify_one();
        let lost = state.wait_for(|s| matches!(s, Leadership::Lost { .. }));
        tokio::select! {
            biased;
            done = written.wait_for(|(v, _)| *v >= version) =>
                done.map(|w| w.1.clone()).map_err(|_| LeaseError::NotLeading),
            _ = lost => Err(LeaseError::NotLeading),
        }
    }

    fn want(&self, annotations: BTreeMap<String, String>) -> u64 {
        let mut wanted = locked(&self.shared.wanted);
        let before = std::mem::replace(&mut wanted.annotations, annotations);
        wanted.removed.extend(before.into_keys());
        let Wanted { version, annotations, removed, generation: _ } = &mut *wanted;
        removed.retain(|k| !annotations.contains_key(k));
        removed.sort_unstable();
        removed.dedup();
        *version += 1;
        *version
    }
}

/// A lock that a panicking holder leaves usable: each of these values is replaced whole.
pub(super) fn locked<V>(mutex: &Mutex<V>) -> MutexGuard<'_, V> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

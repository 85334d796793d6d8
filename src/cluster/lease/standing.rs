//! Where a process stands in the election, and what others may ask of it or hand to it.
//!
//! Invariant: a [`Claim`] lapses by the clock, whether or not the election's task gets to run.

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Instant;

use tokio::sync::{Notify, watch};

use super::LeaseError;
use crate::cluster::client::{CallError, Class};

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

/// A leader's claim, which every write is made under ([`Self::hold`]): it lapses by the clock, whoever may be stuck.
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

    /// Lets a call go on while the claim is current, and no step further: whoever is held still between two steps of a
    /// call, such as connecting and sending, and wakes when another leads, sends nothing.
    ///
    /// # Errors
    /// The call's; [`Class::Timeout`] once the claim has lapsed: what was sent before may have had its effect.
    pub async fn hold<V>(&self, call: impl Future<Output = Result<V, CallError>>) -> Result<V, CallError> {
        let mut call = pin!(call);
        poll_fn(|step| {
            if self.is_current() {
                call.as_mut().poll(step)
            } else {
                Poll::Ready(Err(CallError::new(Class::Timeout, "no answer before the lease ran out")))
            }
        })
        .await
    }
}

#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Counts the sets.
    pub(super) version: u64,
    pub(super) annotations: BTreeMap<String, String>,
    /// Set by us once, and no longer wanted.
    pub(super) removed: Vec<String>,
}

pub(super) struct Shared {
    pub(super) state: watch::Sender<Leadership>,
    pub(super) wanted: Mutex<Wanted>,
    /// Version of the annotations that are on the Lease, and the Lease's resourceVersion since.
    pub(super) written: watch::Sender<(u64, String)>,
    pub(super) urgent: Notify,
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

    /// Replaces what was set before; other annotations of the Lease stay. Written with the next renewal.
    pub fn set_annotations(&self, annotations: BTreeMap<String, String>) {
        self.want(annotations);
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
        let Wanted { version, annotations, removed } = &mut *wanted;
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn claim(left: Duration) -> Claim {
        Claim { until: Arc::new(Mutex::new(Instant::now() + left)) }
    }

    /// A call of two steps; whether the second was taken.
    async fn woken_between_two_steps(claim: &Claim, lapses: bool) -> (Result<(), CallError>, bool) {
        let sent = std::cell::Cell::new(false);
        let call = async {
            tokio::task::yield_now().await;
            sent.set(true);
            Ok(())
        };
        let mut call = pin!(claim.hold(call));
        assert!(futures::poll!(call.as_mut()).is_pending(), "it is still connecting");
        if lapses {
            *locked(&claim.until) = Instant::now();
        }
        let done = call.await;
        (done, sent.get())
    }

    #[tokio::test]
    async fn who_wakes_after_the_claim_sends_nothing() {
        let hour = Duration::from_secs(3600);
        assert_eq!(woken_between_two_steps(&claim(hour), false).await, (Ok(()), true));
        let (done, sent) = woken_between_two_steps(&claim(hour), true).await;
        assert_eq!((done.unwrap_err().class(), sent), (Class::Timeout, false));
        let (begun, lapsed) = (std::cell::Cell::new(false), claim(Duration::ZERO));
        let call = async {
            begun.set(true);
            Ok(())
        };
        assert!(lapsed.hold(call).await.is_err() && !begun.get());
    }
}

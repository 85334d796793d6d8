//! Another issuer's keys, remembered.
//!
//! Invariants: at most one attempt to get them is under way, and all who need it wait for that one; attempts are
//! spaced ([`Times`]), whatever tokens come in; an attempt goes on to its end though the request that began it is
//! gone; who waits does so for [`WAIT`] at most, and no more than [`WAITERS`] do: an issuer that does not answer
//! takes no more than that from anybody.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// How long a request waits for keys.
const WAIT: Duration = Duration::from_secs(5);
/// How many requests wait for the keys of one issuer at once.
const WAITERS: usize = 64;

/// Where keys come from.
pub(super) trait Source: Send + Sync + 'static {
    /// The keys, with what belongs to them.
    type Keys: Send + Sync + 'static;

    /// Whose they are, for people.
    fn name(&self) -> &str;

    /// The keys of now and for how long they are fresh, or what is wrong. Must end by itself.
    fn read(&self) -> impl Future<Output = Result<(Self::Keys, Duration), String>> + Send;
}

/// How attempts are spaced and how long keys are used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// At least so long between two attempts because of a key that is not known.
    pub(super) unknown: Duration,
    /// At least so long after an attempt that failed, until the next.
    pub(super) retry: Duration,
    /// How long keys are used that can't be had anew.
    pub(super) keep: Duration,
}

/// The keys can't be had now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoKeys {
    /// When to come again; at least a second.
    pub(super) retry_after: Duration,
}

/// A clock that never goes back. Tests turn it forward.
#[derive(Clone, Debug, Default)]
pub(super) struct Clock {
    #[cfg(test)]
    ahead: Arc<Mutex<Duration>>,
}

impl Clock {
    pub(super) fn now(&self) -> Instant {
        #[cfg(test)]
        let ahead = *self.ahead.lock().unwrap();
        #[cfg(not(test))]
        let ahead = Duration::ZERO;
        Instant::now() + ahead
    }

    #[cfg(test)]
    pub(super) fn advance(&self, by: Duration) {
        *self.ahead.lock().unwrap() += by;
    }
}

/// The keys of one source.
pub(super) struct KeySet<S: Source>(Arc<Inner<S>>);

struct Inner<S: Source> {
    source: S,
    times: Times,
    clock: Clock,
    slot: Mutex<Slot<S::Keys>>,
    done: watch::Sender<()>,
    waiters: AtomicUsize,
}

struct Slot<K> {
    held: Option<Held<K>>,
    running: bool,
    /// When the last attempt failed, if it did.
    failed: Option<Instant>,
    /// When the last attempt because of an unknown key began.
    asked: Option<Instant>,
}

struct Held<K> {
    keys: Arc<K>,
    fresh_until: Instant,
    keep_until: Instant,
}

impl<S: Source> KeySet<S> {
    pub(super) fn new(source: S, times: Times, clock: Clock) -> Self {
        let slot = Mutex::new(Slot { held: None, running: false, failed: None, asked: None });
        let (done, _) = watch::channel(());
        Self(Arc::new(Inner { source, times, clock, slot, done, waiters: AtomicUsize::new(0) }))
    }

    /// What was had last, however old.
    pub(super) fn last(&self) -> Option<Arc<S::Keys>> {
        self.0.slot().held.as_ref().map(|held| held.keys.clone())
    }

    /// The keys. Those that are not fresh are used while new ones are on their way.
    pub(super) async fn get(&self) -> Result<Arc<S::Keys>, NoKeys> {
        let done = {
            let mut slot = self.0.slot();
            let now = self.0.clock.now();
            let held = slot.held.as_ref().filter(|h| now < h.keep_until);
            let fresh = held.is_some_and(|h| now < h.fresh_until);
            let keys = held.map(|h| h.keys.clone());
            if !fresh && !slot.running && self.0.retry_in(&slot, now).is_none() {
                self.0.begin(&mut slot);
            }
            if let Some(keys) = keys {
                return Ok(keys);
            }
            if !slot.running {
                return Err(self.0.none(&slot, now));
            }
            self.0.done.subscribe()
        };
        self.0.wait(done).await;
        let (slot, now) = (self.0.slot(), self.0.clock.now());
        let held = slot.held.as_ref().filter(|h| now < h.keep_until);
        held.map(|h| h.keys.clone()).ok_or_else(|| self.0.none(&slot, now))
    }

    /// Newer keys than those that lack one; `None` if the source has been asked only now and has none.
    ///
    /// Ask only on behalf of a token that is right in everything else that can be seen without a key.
    pub(super) async fn newer(&self, than: &Arc<S::Keys>) -> Result<Option<Arc<S::Keys>>, NoKeys> {
        let done = {
            let mut slot = self.0.slot();
            let now = self.0.clock.now();
            if let Some(newer) = slot.newer(than) {
                return Ok(Some(newer));
            }
            if !slot.running {
                if self.0.retry_in(&slot, now).is_some() {
                    return Err(self.0.none(&slot, now));
                }
                if slot.asked.is_some_and(|asked| now < asked + self.0.times.unknown) {
                    return Ok(None);
                }
                slot.asked = Some(now);
                self.0.begin(&mut slot);
            }
            self.0.done.subscribe()
        };
        self.0.wait(done).await;
        let (slot, now) = (self.0.slot(), self.0.clock.now());
        slot.newer(than).map(Some).ok_or_else(|| self.0.none(&slot, now))
    }
}

impl<K> Slot<K> {
    fn newer(&self, than: &Arc<K>) -> Option<Arc<K>> {
        self.held.as_ref().filter(|h| !Arc::ptr_eq(&h.keys, than)).map(|h| h.keys.clone())
    }
}

impl<S: Source> Inner<S> {
    fn slot(&self) -> MutexGuard<'_, Slot<S::Keys>> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long no attempt is made because the last one failed.
    fn retry_in(&self, slot: &Slot<S::Keys>, now: Instant) -> Option<Duration> {
        let until = slot.failed? + self.times.retry;
        (now < until).then(|| until - now)
    }

    fn none(&self, slot: &Slot<S::Keys>, now: Instant) -> NoKeys {
        let wait = self.retry_in(slot, now).unwrap_or_default();
        NoKeys { retry_after: wait.max(Duration::from_secs(1)) }
    }

    /// Begins an attempt, in a task of its own.
    fn begin(self: &Arc<Self>, slot: &mut Slot<S::Keys>) {
        slot.running = true;
        let (inner, reader) = (self.clone(), self.clone());
        tokio::spawn(async move {
            // In a task within, so that a panic is an attempt that failed.
            let read = tokio::spawn(async move { reader.source.read().await }).await;
            inner.end(read.unwrap_or_else(|_| Err("reading the keys broke off".to_owned())));
        });
    }

    fn end(&self, read: Result<(S::Keys, Duration), String>) {
        let name = self.source.name();
        let now = self.clock.now();
        let mut slot = self.slot();
        slot.running = false;
        match read {
            Ok((keys, fresh)) => {
                if slot.failed.take().is_some() {
                    tracing::info!(issuer = name, "the keys can be had again");
                }
                let keep = fresh.max(self.times.keep);
                slot.held =
                    Some(Held { keys: Arc::new(keys), fresh_until: now + fresh, keep_until: now + keep });
            }
            Err(problem) => {
                slot.failed = Some(now);
                let kept = slot.held.as_ref().is_some_and(|h| now < h.keep_until);
                tracing::warn!(issuer = name, problem, kept, "the keys can't be had");
            }
        }
        drop(slot);
        self.done.send_replace(());
    }

    /// Waits for the end of the attempt under way, or not: who asked looks for what there is.
    async fn wait(&self, mut done: watch::Receiver<()>) {
        struct Place<'a>(&'a AtomicUsize);
        impl Drop for Place<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::AcqRel);
            }
        }
        let before = self.waiters.fetch_add(1, Ordering::AcqRel);
        let _place = Place(&self.waiters);
        if before < WAITERS {
            let _ = tokio::time::timeout(WAIT, done.changed()).await;
        }
    }
}

#[cfg(test)]
mod tests;

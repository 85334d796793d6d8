//! The loop: takes dirty work from the world's queue and gives it to workers, one item to one worker.
//!
//! Invariants: the urgent lane always finds a free worker; a panic or a failure delays its own item alone, which
//! keeps its lane (but a pod's, which is paced then); no work begins without the lease.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::apply::{self, Failure};
use super::context::Context;
use super::{bindings, maker, statuses, trust};
use crate::cluster::lease::Claim;
use crate::domain::{Lane, Queue, Uid, Wakes, Work, schedule};

/// Pieces of work under way at once, and how many of them may be of the paced lane.
const WORKERS: usize = 40;
const PACED_WORKERS: usize = 12;

/// A piece of work, its lane, since when there was something to do, and what came of it.
type Outcome = (Work, Lane, Instant, Result<Option<Timestamp>, Failure>);

/// The state of the loop.
pub(super) struct Engine {
    cx: Arc<Context>,
    claim: Claim,
    queue: Queue<Work>,
    /// Since when what waits has been dirty.
    since: HashMap<Work, Instant>,
    wakes: Wakes<Work>,
    failures: HashMap<Work, u32>,
    running: JoinSet<Outcome>,
    settled: bool,
    problem: Option<Arc<str>>,
}

impl Engine {
    pub(super) fn new(cx: Arc<Context>, claim: Claim) -> Self {
        let problem = cx.keys().seen.problem.clone();
        // What was told while this process stood by was not for it to take up.
        let _ = cx.world.taken_up();
        Self {
            cx,
            claim,
            queue: Queue::default(),
            since: HashMap::new(),
            wakes: Wakes::default(),
            failures: HashMap::new(),
            running: JoinSet::new(),
            settled: false,
            problem,
        }
    }

    /// Works until told to stop; then lets what is under way come to its end, for a bounded time.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut keys = self.cx.keys.clone();
        let mut certificates = self.cx.certificates.clone();
        let mut flush = tokio::time::interval(statuses::PERIOD);
        flush.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut gather = tokio::time::interval(bindings::GATHER);
        gather.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut flushing: Option<tokio::task::JoinHandle<()>> = None;
        loop {
            self.collect();
            self.start();
            let sleep = self.until_next_wake();
            let cx = self.cx.clone();
            tokio::select! {
                () = stop.cancelled() => break,
                () = cx.world.changed() => {}
                Some(done) = self.running.join_next() => {
                    self.finished(done);
                    while let Some(done) = self.running.try_join_next() {
                        self.finished(done);
                    }
                }
                () = tokio::time::sleep(sleep) => {}
                changed = keys.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    self.keys_changed();
                }
                Ok(()) = certificates.changed() => self.cx.world.write().mark_trust(),
                _ = gather.tick() => {
                    self.cx.world.write().release_bindings();
                }
                _ = flush.tick() => {
                    if self.settled && flushing.as_ref().is_none_or(|f| f.is_finished()) && self.claim.is_current() {
                        let cx = self.cx.clone();
                        flushing = Some(tokio::spawn(async move { statuses::flush(&cx).await }));
                    }
                }
            }
        }
        let rest = async { while self.running.join_next().await.is_some() {} };
        if tokio::time::timeout(Duration::from_secs(20), rest).await.is_err() {
            tracing::warn!(left = self.running.len(), "stopping although work is still under way");
        }
        if let Some(flushing) = flushing {
            flushing.abort();
        }
    }

    /// Dirty work of the world, and work whose time has come.
    fn collect(&mut self) {
        let since = self.cx.world.taken_up();
        let (dirty, synced) = {
            let mut world = self.cx.world.write();
            (world.take_dirty(), world.is_synced())
        };
        for (work, lane) in dirty {
            self.push(work, lane, since);
        }
        let now = Timestamp::now();
        while let Some((work, lane)) = self.wakes.pop(now) {
            self.push(work, lane, Instant::now());
        }
        if synced && !self.settled && self.queue.is_idle() && !self.cx.is_loading() {
            self.settled = true;
            tracing::info!("every agent has been looked at once");
        }
        self.cx.metrics.depths(self.queue.depths(), self.running.len());
    }

    fn push(&mut self, work: Work, lane: Lane, since: Instant) {
        self.since.entry(work.clone()).or_insert(since);
        self.queue.push(work, lane);
    }

    fn start(&mut self) {
        if !self.claim.is_current() || self.cx.is_loading() || !self.cx.world.read().is_synced() {
            return;
        }
        while self.running.len() < WORKERS {
            let Some((work, lane)) = self.queue.pop(PACED_WORKERS) else { return };
            let lane = self.wakes.lane(&work, lane);
            let since = self.since.remove(&work).unwrap_or_else(Instant::now);
            let cx = self.cx.clone();
            let claim = self.claim.clone();
            self.running.spawn(async move {
                let done = isolated(perform(&cx, &claim, &work, since)).await;
                (work, lane, since, done)
            });
        }
    }

    fn finished(&mut self, done: Result<Outcome, tokio::task::JoinError>) {
        // The workers catch panics themselves, and nobody aborts them before the end.
        let Ok((work, lane, since, outcome)) = done else { return };
        match outcome {
            Ok(next) => {
                self.failures.remove(&work);
                self.wakes.done(&work, next);
            }
            Err(failure) => {
                // What is still to do has been so since then.
                self.since.insert(work.clone(), since);
                let attempt = self.failures.entry(work.clone()).or_default();
                *attempt = attempt.saturating_add(1);
                let attempt = *attempt;
                let pause = schedule::backoff(self.uid(&work), attempt);
                if attempt == 1 && failure.is_stale() {
                    tracing::debug!(?work, error = %failure, "an object was changed meanwhile");
                } else {
                    self.cx.metrics.failed(failure.reason());
                    tracing::warn!(?work, error = %failure, pause_ms = pause.as_millis(), "work failed and will be tried again");
                }
                // A pod whose agent can't be made takes nothing away from anybody by waiting.
                let lane = if matches!(work, Work::Pod(_)) { Lane::Paced } else { lane };
                self.wakes.failed(&work, lane, Timestamp::now() + pause);
            }
        }
        self.queue.done(&work);
    }

    fn uid(&self, work: &Work) -> Uid {
        match work {
            Work::Agent(key) => self.cx.world.read().agent(key).map_or(Uid(0), |a| a.meta.uid),
            // Spread as well, though by its name.
            other => {
                let mut hasher = DefaultHasher::new();
                other.hash(&mut hasher);
                Uid(hasher.finish().into())
            }
        }
    }

    fn until_next_wake(&self) -> Duration {
        self.wakes
            .next()
            .map(|at| at.duration_since(Timestamp::now()).max(SignedDuration::from_millis(1)))
            .and_then(|d| Duration::try_from(d).ok())
            .unwrap_or(Duration::from_secs(5))
            .min(Duration::from_secs(5))
    }

    fn keys_changed(&mut self) {
        let view = self.cx.keys();
        let mut world = self.cx.world.write();
        world.mark_trust();
        let before = std::mem::replace(&mut self.problem, view.seen.problem.clone());
        if before != self.problem {
            // Whoever waited for a key waits no longer, or for another reason.
            world.mark_all();
        }
        if self.problem.is_some() {
            return;
        }
        let again = world.mark_key_gone(&view.seen.good);
        if again > 0 {
            tracing::warn!(
                agents = again,
                "tokens of a key that is no longer published are being minted anew"
            );
        }
    }
}

async fn perform(
    cx: &Context,
    claim: &Claim,
    work: &Work,
    since: Instant,
) -> Result<Option<Timestamp>, Failure> {
    if !claim.is_current() {
        return Ok(Some(Timestamp::now() + SignedDuration::from_secs(1)));
    }
    match work {
        Work::Agent(key) => apply::agent(cx, key, since).await,
        Work::Orphan(key) => apply::orphan(cx, key, since).await,
        Work::Trust(namespace) => trust::one(cx, namespace).await,
        Work::Pod(pod) => maker::pod(cx, pod).await,
        Work::Binding(unit) => bindings::one(cx, unit).await,
    }
}

/// A panic in one agent's work is that work's failure, and nobody else's.
async fn isolated<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let done = AssertUnwindSafe(work).catch_unwind().await;
    done.unwrap_or_else(|panic| Err(Failure::Panic(panic_text(&*panic))))
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panicked".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_failure_of_its_own_work_alone() {
        let failed = isolated::<()>(async { panic!("poison {}", 7) }).await.unwrap_err();
        assert_eq!(failed.to_string(), "a fault of agentid's own: poison 7");
        assert_eq!(failed.reason(), crate::api::Reason::Internal);
        assert!(isolated(async { Ok(1) }).await.is_ok());
    }
}

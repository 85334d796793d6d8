//! The status lists (Token Status List §5.1), computed from live objects: there is no database.
//!
//! Invariants: an entry says what [`crate::domain::statuslist::entry`] says of it, or, while that is unknown,
//! what it said last; no list is handed out before every recorded entry was looked at in a world that is complete; what
//! changes costs the agents that it touches, never a scan over all.

mod served;
mod table;
#[cfg(test)]
mod tests;
mod timers;

use std::collections::{BTreeSet, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use prometheus_client::metrics::histogram::Histogram;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

pub use self::served::Served;
use self::table::Table;
use self::timers::Timers;
use crate::api::{Configuration, StatusLists};
use crate::cluster::feed::SharedWorld;
use crate::cluster::keystore::Loaded;
use crate::domain::statuslist::{Entry, OpenList, entry};
use crate::domain::{Key, ListId, RecordedBy, StatusRef, Work, World, decide};
use crate::metrics::delay;

/// Agents or entries that are looked at under one lock.
const CHUNK: usize = 200;
/// How often to look whether a stale world has become fresh.
const STALE: Duration = Duration::from_secs(1);
/// The longest sleep.
const LONGEST: Duration = Duration::from_secs(30);

/// Why there is no list to hand out.
#[derive(Debug, Error)]
pub enum NoList {
    /// No such list: 404.
    #[error("there is no such status list")]
    Unknown,
    /// Not every entry was looked at yet: 503.
    #[error("the status lists are not made yet")]
    NotReady,
    /// The ring has no key for status lists yet: 503.
    #[error("no key signs status lists yet")]
    NoKey,
    /// It could not be encoded or signed: 500.
    #[error("the status list can't be made: {0}")]
    Failed(String),
}

/// The status lists of this process.
#[derive(Debug)]
pub struct Lists {
    settings: StatusLists,
    /// For so long a list that nobody refers to any more is still handed out.
    keep: SignedDuration,
    /// How long changes took to get here.
    delays: Histogram,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    table: Table,
    timers: Timers,
    ready: bool,
    updated: Option<Timestamp>,
}

/// What one pass has to look at.
#[derive(Debug)]
struct Pass {
    agents: BTreeSet<Key>,
    entries: Vec<StatusRef>,
    open: Option<OpenList>,
    /// Since when, at the longest, what is looked at has changed.
    since: Instant,
}

/// As of when, and since when, something is looked at.
#[derive(Clone, Copy, Debug)]
struct Look {
    now: Timestamp,
    since: Instant,
}

/// What was seen of some agents.
#[derive(Default)]
struct Readings {
    entries: Vec<(StatusRef, Entry)>,
    until: Vec<(Key, Option<Timestamp>)>,
}

impl Lists {
    /// No list yet.
    #[must_use]
    pub fn new(config: &Configuration) -> Self {
        Self {
            settings: config.status_lists.clone(),
            keep: config.limits.max_token_lifetime.signed(),
            delays: delay(),
            inner: Mutex::new(Inner::default()),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether lists can be handed out.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.inner().ready
    }

    /// The lists that are handed out, in a stable order.
    #[must_use]
    pub fn names(&self) -> Vec<ListId> {
        self.inner().table.names()
    }

    /// Numbers of lists, of entries and of entries that read INVALID, for metrics.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize, usize) {
        self.inner().table.sizes()
    }

    /// When every entry was last brought up to date; `None` before the first time.
    #[must_use]
    pub fn updated(&self) -> Option<Timestamp> {
        self.inner().updated
    }

    /// How long it took from when a change was seen until an entry said INVALID, in seconds.
    #[must_use]
    pub fn delays(&self) -> Histogram {
        self.delays.clone()
    }

    /// What an entry says now; `None` beyond the end of its list, or without such a list.
    #[must_use]
    pub fn reads(&self, at: StatusRef) -> Option<Entry> {
        self.inner().table.reads(at).map(|invalid| if invalid { Entry::Invalid } else { Entry::Valid })
    }

    /// Keeps the lists until told to stop. The only one that takes what is dirty out of `world`.
    pub async fn run(&self, world: Arc<SharedWorld>, stop: CancellationToken) {
        let work = async {
            loop {
                let now = Timestamp::now();
                let fresh = self.may_look(&world.read(), now);
                if fresh {
                    self.pass(&world, now).await;
                }
                let wait = if fresh { self.wait(Timestamp::now()) } else { STALE };
                tokio::select! {
                    () = world.changed() => {}
                    () = tokio::time::sleep(wait) => {}
                }
            }
        };
        stop.run_until_cancelled(work).await;
    }

    /// An entry that nothing was ever said of reads VALID while it is unknown: the first time waits for what would tell.
    fn may_look(&self, world: &World, now: Timestamp) -> bool {
        is_fresh(world, now) && (self.is_ready() || world.awaited().is_empty())
    }

    fn wait(&self, now: Timestamp) -> Duration {
        let next = self.inner().timers.next();
        let wait = next.and_then(|at| Duration::try_from(at.duration_since(now)).ok());
        if next.is_some() { wait.unwrap_or_default().min(LONGEST) } else { LONGEST }
    }

    async fn pass(&self, world: &SharedWorld, now: Timestamp) {
        let since = world.taken_up();
        let mut pass = self.begin(&mut world.write(), since, now);
        for chunk in std::mem::take(&mut pass.entries).chunks(CHUNK) {
            let look = Look { now, since: pass.since };
            self.look_at_entries(&world.read(), chunk, look, &mut pass.agents);
            tokio::task::yield_now().await;
        }
        let agents: Vec<Key> = std::mem::take(&mut pass.agents).into_iter().collect();
        for chunk in agents.chunks(CHUNK) {
            self.look_at_agents(&world.read(), chunk, Look { now, since: pass.since });
            tokio::task::yield_now().await;
        }
        self.end(&world.read(), pass.open, now);
    }

    /// Takes in everything that has changed in a world that can be believed, at once: what [`Lists::run`] does in
    /// pieces.
    pub fn take_in(&self, world: &mut World, now: Timestamp) {
        let mut pass = self.begin(world, Instant::now(), now);
        let look = Look { now, since: pass.since };
        self.look_at_entries(world, &pass.entries, look, &mut pass.agents);
        let agents: Vec<Key> = pass.agents.into_iter().collect();
        self.look_at_agents(world, &agents, look);
        self.end(world, pass.open, now);
    }

    fn begin(&self, world: &mut World, since: Instant, now: Timestamp) -> Pass {
        let mut inner = self.inner();
        let dirty = world.take_dirty().into_iter().filter_map(|(work, _)| match work {
            Work::Agent(key) => Some(key),
            Work::Orphan(_) | Work::Trust(_) | Work::Pod(_) | Work::Binding(_) => None,
        });
        let mut agents: BTreeSet<Key> = dirty.collect();
        agents.extend(inner.timers.due(now));
        if !inner.ready {
            agents.extend(world.agents().map(|a| a.meta.key.clone()));
        }
        let open = world.open_list();
        if let Some(open) = open {
            inner.table.open(open.list, self.settings.capacity);
        }
        let changed: HashSet<StatusRef> = world.take_changed_entries().into_iter().collect();
        Pass { agents, entries: changed.into_iter().collect(), open, since }
    }

    /// Entries that an agent has recorded are looked at with that agent, which may need a timer.
    fn look_at_entries(&self, world: &World, entries: &[StatusRef], look: Look, agents: &mut BTreeSet<Key>) {
        let mut readings = Vec::with_capacity(entries.len());
        for at in entries {
            match world.recorded_by(*at) {
                RecordedBy::One(uid) => {
                    agents.extend(world.agent_of_uid(uid).map(|a| a.meta.key.clone()));
                }
                _ => readings.push((*at, read(world, *at, look.now))),
            }
        }
        self.take(&mut self.inner(), readings, look.since);
    }

    fn look_at_agents(&self, world: &World, agents: &[Key], Look { now, since }: Look) {
        let mut readings = Readings::default();
        for key in agents {
            let recorded = world.agent(key).map(|a| &*a.status.grants).unwrap_or_default();
            readings.entries.extend(recorded.iter().map(|r| (r.at, read(world, r.at, now))));
            let until = (!recorded.is_empty()).then(|| until(world, key, now)).flatten();
            readings.until.push((key.clone(), until));
        }
        let mut inner = self.inner();
        self.take(&mut inner, readings.entries, since);
        readings.until.into_iter().for_each(|(key, until)| inner.timers.set(key, until));
    }

    fn take(&self, inner: &mut Inner, readings: Vec<(StatusRef, Entry)>, since: Instant) {
        for (at, entry) in readings {
            if inner.table.take(at, entry) {
                self.delays.observe(since.elapsed().as_secs_f64());
            }
        }
    }

    /// Only now, since until here it was not known which indexes below the mark are recorded.
    fn end(&self, world: &World, open: Option<OpenList>, now: Timestamp) {
        let mut inner = self.inner();
        inner.table.settle(open);
        let recorded = |list| world.recorded_in(list).next().is_some();
        inner.table.forget(recorded, now, self.keep);
        inner.ready = true;
        inner.updated = Some(now);
    }

    /// The signed list, as new as its bits; made at most every 50 ms, and at most once for all who wait.
    ///
    /// # Errors
    /// [`NoList`].
    pub async fn token(
        &self,
        list: ListId,
        keys: &Loaded,
        issuer: &str,
        now: Timestamp,
    ) -> Result<Arc<Served>, NoList> {
        let key = keys.status_signer().ok_or(NoList::NoKey)?;
        let (slot, version) = {
            let inner = self.inner();
            if !inner.ready {
                return Err(NoList::NotReady);
            }
            inner.table.slot(list).ok_or(NoList::Unknown)?
        };
        let made = served::Terms { key, issuer, settings: &self.settings, list, now };
        slot.get(&made, version, || self.inner().table.snapshot(list)).await
    }
}

/// Whether every source that all entries rest on can be believed.
#[must_use]
pub fn is_fresh(world: &World, now: Timestamp) -> bool {
    world.core().iter().all(|source| world.is_fresh(source, now))
}

/// What an entry reads; an agent over which the reading panics keeps what was said.
fn read(world: &World, at: StatusRef, now: Timestamp) -> Entry {
    catch_unwind(AssertUnwindSafe(|| entry(world, at, now))).unwrap_or_else(|_| {
        tracing::error!(list = %at.list, index = at.index, "a panic over an entry of a status list; it stays as it is");
        Entry::Unknown
    })
}

fn until(world: &World, key: &Key, now: Timestamp) -> Option<Timestamp> {
    catch_unwind(AssertUnwindSafe(|| decide(world, key, now))).ok().flatten().and_then(|d| d.until)
}

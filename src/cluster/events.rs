//! Events for people (`kubectl describe`, `kubectl events`), posted aside.
//!
//! Invariants: telling never blocks, never fails and never delays the teller; the same thing about the same
//! object is told once in [`WINDOW`], across restarts too (an event's name follows from its content and the
//! window); what can't be posted is counted and forgotten. Events carry no secrets: notes are made from
//! reasons and names.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{Context, SHA256};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event as Object;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, PostParams};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::client::{Class, clip, spread, timed_within};

/// For how long the same event isn't repeated.
pub const WINDOW: Duration = Duration::from_secs(600);
/// Events waiting to be posted, at most.
const QUEUE: usize = 1024;
/// Events remembered so as not to repeat them, at most.
const REMEMBERED: usize = 16_384;
const NOTE_LIMIT: usize = 1024;
const WORD_LIMIT: usize = 128;
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long what is queued may take to be posted at the end.
const FAREWELL: Duration = Duration::from_secs(2);

/// How serious it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// As it should be.
    Normal,
    /// Somebody should look at it.
    Warning,
}

impl Severity {
    /// As in the event's `type`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Something to tell about an object.
#[derive(Debug, Clone)]
pub struct Notice {
    /// The object: apiVersion, kind, namespace (if it has one), name, uid.
    pub regarding: ObjectReference,
    /// How serious it is.
    pub severity: Severity,
    /// Why, in one CamelCase word of a closed set, at most 128 bytes.
    pub reason: &'static str,
    /// What was done or refused, in one CamelCase word, at most 128 bytes.
    pub action: &'static str,
    /// A sentence; what exceeds 1024 bytes is cut off.
    pub note: String,
}

/// What became of what was told, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Posted.
    pub posted: u64,
    /// Not posted, as the same had been told within the window.
    pub coalesced: u64,
    /// Not posted, as too many were waiting.
    pub dropped: u64,
    /// Refused by the API server, or not answered.
    pub failed: u64,
}

#[derive(Default)]
struct Counters {
    posted: AtomicU64,
    coalesced: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Takes events; cheap to clone.
#[derive(Clone)]
pub struct EventSink {
    queue: mpsc::Sender<Object>,
    told: Arc<Mutex<Told>>,
    counters: Arc<Counters>,
    controller: Arc<str>,
    instance: Arc<str>,
}

impl EventSink {
    /// Starts the task that posts. It ends when every sink is gone or `cancel` fires, and then posts for
    /// two more seconds what is queued. `controller` is like `agentid.dev/operator`, `instance` the pod.
    #[must_use]
    pub fn start(
        client: Client,
        controller: &str,
        instance: &str,
        cancel: CancellationToken,
    ) -> (Self, JoinHandle<()>) {
        let (sink, queue) = Self::with_queue(controller, instance, QUEUE);
        let task = tokio::spawn(post_all(client, queue, sink.counters.clone(), cancel));
        (sink, task)
    }

    fn with_queue(controller: &str, instance: &str, length: usize) -> (Self, mpsc::Receiver<Object>) {
        let (sender, receiver) = mpsc::channel(length);
        let sink = Self {
            queue: sender,
            told: Arc::default(),
            counters: Arc::default(),
            controller: controller.into(),
            instance: clip(instance, WORD_LIMIT).into(),
        };
        (sink, receiver)
    }

    /// Tells it, unless it was just told or too much is waiting. Never waits.
    pub fn tell(&self, notice: &Notice) {
        self.tell_at(notice, Instant::now(), Timestamp::now());
    }

    fn tell_at(&self, notice: &Notice, now: Instant, wall: Timestamp) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let key = told.key(notice);
        if told.recently(key, now) {
            return count(&self.counters.coalesced);
        }
        // Remembered only if it will be posted.
        let Ok(place) = self.queue.try_reserve() else { return count(&self.counters.dropped) };
        told.remember(key, now);
        drop(told);
        place.send(object(notice, &self.controller, &self.instance, wall));
    }

    /// What became of them so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let read = |c: &AtomicU64| c.load(Ordering::Relaxed);
        Counts {
            posted: read(&self.counters.posted),
            coalesced: read(&self.counters.coalesced),
            dropped: read(&self.counters.dropped),
            failed: read(&self.counters.failed),
        }
    }
}

/// What was told lately.
#[derive(Default)]
struct Told {
    hasher: RandomState,
    last: HashMap<u64, Instant>,
}

impl Told {
    fn key(&self, notice: &Notice) -> u64 {
        self.hasher.hash_one((identity(&notice.regarding), notice.severity, notice.reason, &notice.note))
    }

    fn recently(&self, key: u64, now: Instant) -> bool {
        self.last.get(&key).is_some_and(|at| now.saturating_duration_since(*at) < WINDOW)
    }

    fn remember(&mut self, key: u64, now: Instant) {
        if self.last.len() >= REMEMBERED {
            self.last.retain(|_, at| now.saturating_duration_since(*at) < WINDOW);
        }
        // A flood of different events: the names still keep repetitions out, at the price of a call.
        if self.last.len() >= REMEMBERED {
            self.last.clear();
        }
        self.last.insert(key, now);
    }
}

/// The UID; for what has none, kind, namespace and name.
fn identity(regarding: &ObjectReference) -> [&str; 3] {
    match regarding.uid.as_deref() {
        Some(uid) => [uid, "", ""],
        None => [&regarding.kind, &regarding.namespace, &regarding.name]
            .map(|part| part.as_deref().unwrap_or_default()),
    }
}

/// The event as it is posted. Its name is the same for the same news within one window.
fn object(notice: &Notice, controller: &str, instance: &str, wall: Timestamp) -> Object {
    let window = wall.as_second().div_euclid(i64::try_from(WINDOW.as_secs()).unwrap_or(i64::MAX));
    let mut digest = Context::new(&SHA256);
    let parts = [notice.severity.as_str(), notice.reason, &notice.note];
    for part in identity(&notice.regarding).iter().chain(&parts) {
        digest.update(&part.len().to_be_bytes());
        digest.update(part.as_bytes());
    }
    digest.update(&window.to_be_bytes());
    let hash = digest.finish().as_ref()[..8].iter().fold(0_u64, |n, byte| n << 8 | u64::from(*byte));
    let about = notice.regarding.name.as_deref().unwrap_or_default();
    // An event's name is a DNS subdomain; some kinds (ClusterRoles) allow more in theirs.
    let dns =
        |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c) { c } else { '-' };
    let about: String = clip(about, 200).chars().map(dns).collect();
    let about = about.trim_matches(['-', '.']);
    let name = if about.is_empty() { format!("{hash:016x}") } else { format!("{about}.{hash:016x}") };
    let namespace = notice.regarding.namespace.clone().filter(|n| !n.is_empty());
    Object {
        metadata: ObjectMeta {
            name: Some(name),
            // Where the API server wants the events of what has no namespace.
            namespace: Some(namespace.unwrap_or_else(|| "default".into())),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(wall)),
        type_: Some(notice.severity.as_str().into()),
        reason: Some(clip(notice.reason, WORD_LIMIT).into()),
        action: Some(clip(notice.action, WORD_LIMIT).into()),
        note: Some(clip(&notice.note, NOTE_LIMIT).into()),
        regarding: Some(notice.regarding.clone()),
        reporting_controller: Some(controller.into()),
        reporting_instance: Some(instance.into()),
        ..Object::default()
    }
}

async fn post_all(
    client: Client,
    mut queue: mpsc::Receiver<Object>,
    counters: Arc<Counters>,
    cancel: CancellationToken,
) {
    let work = async {
        while let Some(event) = queue.recv().await {
            post(&client, &event, &counters).await;
        }
    };
    tokio::pin!(work);
    tokio::select! {
        () = &mut work => {}
        () = cancel.cancelled() => {
            // What is still queued then was worth a try, not a delay of the end.
            let _ = tokio::time::timeout(FAREWELL, work).await;
        }
    }
}

async fn post(client: &Client, event: &Object, counters: &Counters) {
    let api =
        Api::<Object>::namespaced(client.clone(), event.metadata.namespace.as_deref().unwrap_or("default"));
    for last in [false, true] {
        match timed_within(CALL_TIMEOUT, api.create(&PostParams::default(), event)).await {
            Ok(_) => return count(&counters.posted),
            // Told before a restart, or by the try that seemed to fail.
            Err(e) if e.class() == Class::AlreadyExists => return count(&counters.coalesced),
            Err(e) if e.class().is_transient() && !last => {
                tokio::time::sleep(Duration::from_secs(1).mul_f64(0.5 + spread())).await;
            }
            Err(e) => {
                debug!(class = %e.class(), reason = event.reason, "event not posted");
                return count(&counters.failed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(uid: &str, note: &str) -> Notice {
        Notice {
            regarding: ObjectReference {
                kind: Some("AgentIdentity".into()),
                namespace: Some("team-a".into()),
                name: Some("helper".into()),
                uid: Some(uid.into()),
                ..ObjectReference::default()
            },
            severity: Severity::Warning,
            reason: "GrantRefused",
            action: "Grant",
            note: note.into(),
        }
    }

    fn named(notice: &Notice, second: i64) -> Object {
        object(notice, "agentid.dev/operator", "pod", Timestamp::from_second(second).unwrap())
    }

    #[test]
    fn the_same_is_told_once_in_a_window() {
        let (sink, mut queue) = EventSink::with_queue("c", "i", 8);
        let (start, wall) = (Instant::now(), Timestamp::from_second(1000).unwrap());
        let later = |s| start + Duration::from_secs(s);
        sink.tell_at(&notice("u1", "a"), start, wall);
        sink.tell_at(&notice("u1", "a"), later(599), wall);
        sink.tell_at(&notice("u2", "a"), later(599), wall);
        sink.tell_at(&notice("u1", "b"), later(599), wall);
        sink.tell_at(&notice("u1", "a"), later(600), wall);
        assert_eq!(sink.counts(), Counts { coalesced: 1, ..Counts::default() });
        assert_eq!(std::iter::from_fn(|| queue.try_recv().ok()).count(), 4);
    }

    #[test]
    fn a_full_queue_drops_and_does_not_remember() {
        let (sink, mut queue) = EventSink::with_queue("c", "i", 1);
        sink.tell(&notice("u1", "a"));
        sink.tell(&notice("u2", "a"));
        assert_eq!(sink.counts().dropped, 1);
        queue.try_recv().unwrap();
        sink.tell(&notice("u2", "a"));
        assert_eq!(queue.try_recv().unwrap().regarding.unwrap().uid.as_deref(), Some("u2"));
        drop(queue);
        sink.tell(&notice("u3", "a"));
        assert_eq!(sink.counts().dropped, 2);
    }

    #[test]
    fn a_flood_is_remembered_within_bounds() {
        let mut told = Told::default();
        let now = Instant::now();
        for key in 0..3 * REMEMBERED as u64 {
            told.remember(key, now);
        }
        assert!(told.last.len() <= REMEMBERED && told.recently(3 * REMEMBERED as u64 - 1, now));
    }

    #[test]
    fn names_follow_from_content_and_window() {
        let name = |event: Object| event.metadata.name.unwrap();
        let first = name(named(&notice("u1", "a"), 600));
        assert!(first.starts_with("helper.") && first.len() == "helper.".len() + 16, "{first}");
        assert_eq!(first, name(named(&notice("u1", "a"), 1199)));
        assert_ne!(first, name(named(&notice("u1", "a"), 1200)));
        assert_ne!(first, name(named(&notice("u2", "a"), 600)));
        assert_ne!(first, name(named(&notice("u1", "b"), 600)));
    }

    #[test]
    fn what_the_api_server_would_refuse_is_made_to_fit() {
        let mut cluster_wide = notice("u", &"ä".repeat(600));
        cluster_wide.regarding.namespace = None;
        cluster_wide.regarding.name = Some("system:Admin".into());
        let event = named(&cluster_wide, 0);
        assert_eq!(event.metadata.namespace.as_deref(), Some("default"));
        assert!(event.metadata.name.unwrap().starts_with("system--dmin."));
        assert_eq!(event.note.unwrap().len(), NOTE_LIMIT);
    }
}

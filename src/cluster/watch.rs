//! List and watch: one endless stream of what the API server says about one kind.
//!
//! Invariants: every signal but [`Signal::Lost`] is an answer of the server, so the age of what a consumer
//! knows is the time since the last such signal; a source that is silent for `timeout_seconds` + 5 s is
//! given up and said to be lost; one object that doesn't parse stops nothing; no more than one page is held; where the
//! cluster was set back to an older state, that is said before anything that is known of it since.
//!
//! A watch is served from the API server's watch cache. A server cut off from its etcd still answers
//! watches; it then fails lists and writes.

mod answer;
mod backoff;
mod lines;
mod past;
mod spec;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use futures::Stream;
use http::Request;
use http::header::ACCEPT;
use kube::Client;
use kube::client::Body;
use serde::de::{DeserializeOwned, IgnoredAny};
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::client::{CallError, Class, spread};
use answer::{collect, refusal};
use backoff::Backoff;
use lines::Lines;
use past::Past;
pub use past::{Rewound, What};
pub use spec::WatchSpec;
use wire::{Line, Page};

/// Why a try to list or watch failed.
pub type WatchError = CallError;

/// How long the head of an answer may take: a list is made before it is sent, a watch answers at once.
const LIST_HEAD: Duration = Duration::from_secs(30);
const WATCH_HEAD: Duration = Duration::from_secs(10);
/// How long to wait for word of where the server is before a watch goes on.
const LOOK_BACK: Duration = Duration::from_secs(2);
/// A watch of a revision that the server doesn't know is answered with success and then an error: only one
/// that has nothing to say for so long was taken up.
const SETTLING: Duration = Duration::from_millis(250);
/// Silence allowed beyond the time after which the server itself ends a watch.
const GRACE: Duration = Duration::from_secs(5);
/// How often to look for a kind that isn't served.
const MISSING_KIND: Duration = Duration::from_secs(5);
const RETRY_AFTER_LAST: Duration = Duration::from_secs(30);
/// A watch that ends sooner, and said nothing, is a failure that must not be repeated without a pause.
const SHORT_WATCH: Duration = Duration::from_secs(1);
/// After so many refusals of one revision it is asked for no more.
const REFUSALS: u32 = 3;

/// What the stream says. Between [`Signal::Listing`] and [`Signal::Listed`] lies a whole list: what a
/// consumer knew before and didn't see there is gone. A second `Listing` without a `Listed` starts it over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal<T> {
    /// A list has begun.
    Listing,
    /// A part of the list; never empty.
    Page(Vec<T>),
    /// The list is complete, at this resourceVersion.
    Listed(String),
    /// Created or changed.
    Apply(T),
    /// Deleted, or no longer selected; as it last was.
    Delete(T),
    /// Nothing new, and the server says so: a bookmark with its resourceVersion, or a watch that was taken up and
    /// stays silent.
    Heard(Option<String>),
    /// An object that exists (or is deleted) and can't be read as `T`.
    Unreadable(Unreadable),
    /// A try failed; the next follows by itself.
    Lost(WatchError),
    /// The cluster was set back to an older state: what was said before is of a past that never was. A list of what
    /// is there follows.
    Rewound(Rewound),
}

/// An object that doesn't have the shape it should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Its namespace, if it has one.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Whether this was the news of its deletion.
    pub deleted: bool,
    /// What is wrong with it, without quoting its strings.
    pub error: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}: {}", self.namespace.as_deref().unwrap_or("-"), self.name, self.error)
    }
}

/// Lists, then watches, for ever. Nothing is read ahead: who doesn't poll holds back the server.
pub fn watch<T>(client: Client, spec: WatchSpec) -> impl Stream<Item = Signal<T>> + Send + Unpin + use<T>
where
    T: DeserializeOwned + Send + 'static,
{
    let engine = Engine {
        client,
        spec,
        phase: Phase::List { token: None },
        pending: VecDeque::new(),
        pause: None,
        backoff: Backoff::default(),
        expired: 0,
        refused: 0,
        past: Past::default(),
    };
    Box::pin(futures::stream::unfold(engine, |mut engine| async move {
        let signal = engine.next().await;
        Some((signal, engine))
    }))
}

enum Phase {
    List { token: Option<String> },
    Watch { revision: String },
    Follow(Box<Followed>),
}

/// A watch that was answered.
struct Followed {
    lines: Lines,
    revision: String,
    since: Instant,
    /// The longest silence: what the server was asked for, and [`GRACE`].
    silence: Duration,
    spoke: bool,
    /// Whether it was taken up: the first line came, or [`SETTLING`] passed.
    settled: bool,
}

struct Engine<T> {
    client: Client,
    spec: WatchSpec,
    phase: Phase,
    pending: VecDeque<Signal<T>>,
    pause: Option<Duration>,
    backoff: Backoff,
    /// 410s since the server last said something useful.
    expired: u32,
    /// Refusals of the current revision.
    refused: u32,
    past: Past,
}

impl<T: DeserializeOwned + Send + 'static> Engine<T> {
    async fn next(&mut self) -> Signal<T> {
        loop {
            if let Some(signal) = self.pending.pop_front() {
                return signal;
            }
            if let Some(pause) = self.pause.take() {
                sleep(pause).await;
            }
            self.phase = match std::mem::replace(&mut self.phase, Phase::List { token: None }) {
                Phase::List { token } => self.list(token).await,
                Phase::Watch { revision } => self.open(revision).await,
                Phase::Follow(followed) => self.follow(followed).await,
            };
        }
    }

    async fn list(&mut self, token: Option<String>) -> Phase {
        let page = match self.page::<T>(&wire::list_uri(&self.spec, token.as_deref())).await {
            Ok(page) => page,
            Err(e) if e.class() == Class::Expired => return self.relist(e),
            Err(e) => {
                self.lost(e);
                return Phase::List { token };
            }
        };
        self.backoff.reset();
        if token.is_none() {
            self.judge(&page.revision);
            self.pending.push_back(Signal::Listing);
        }
        self.pending.extend(page.unreadable.into_iter().map(Signal::Unreadable));
        if !page.items.is_empty() {
            self.pending.push_back(Signal::Page(page.items));
        }
        if page.token.is_some() {
            return Phase::List { token: page.token };
        }
        self.pending.push_back(Signal::Listed(page.revision.clone()));
        self.refused = 0;
        Phase::Watch { revision: page.revision }
    }

    async fn page<P: DeserializeOwned>(&mut self, uri: &str) -> Result<Page<P>, CallError> {
        let mut body = self.get(uri, false, LIST_HEAD).await?;
        let bytes = collect(&mut body, usize::MAX).await?;
        wire::read_page(&bytes)
    }

    /// Whether a list is behind what was known.
    fn judge(&mut self, revision: &str) -> bool {
        let rewound = self.past.judge(&self.spec.path, revision);
        let is = rewound.is_some();
        self.pending.extend(rewound.map(Signal::Rewound));
        is
    }

    /// Asks where the server is, if there is doubt that it is where it was. One that doesn't say is asked again
    /// before the next watch: a watch tells more than no watch.
    async fn was_rewound(&mut self) -> bool {
        if !self.past.is_doubtful() {
            return false;
        }
        // Without labels, which a server without a cache would search the whole collection for.
        let one = WatchSpec { page_size: 1, label_selector: None, ..self.spec.clone() };
        let uri = wire::list_uri(&one, None);
        match timeout(LOOK_BACK, self.page::<IgnoredAny>(&uri)).await {
            Ok(Ok(page)) => self.judge(&page.revision),
            _ => false,
        }
    }

    async fn open(&mut self, revision: String) -> Phase {
        if self.was_rewound().await {
            return Phase::List { token: None };
        }
        let asked = self.spec.timeout_seconds.max(1);
        // Between seven eighths and the whole.
        let seconds = asked - (f64::from(asked) / 8.0 * spread()) as u32;
        match self.get(&wire::watch_uri(&self.spec, &revision, seconds), true, WATCH_HEAD).await {
            Ok(body) => Phase::Follow(Box::new(Followed {
                lines: Lines::new(body),
                revision,
                since: Instant::now(),
                silence: Duration::from_secs(seconds.into()) + GRACE,
                spoke: false,
                settled: false,
            })),
            Err(e) => self.broken(e, revision),
        }
    }

    async fn follow(&mut self, mut followed: Box<Followed>) -> Phase {
        let limit = if followed.settled { followed.silence } else { SETTLING };
        let line = match timeout(limit, followed.lines.next()).await {
            Ok(Ok(Some(line))) => wire::read_line::<T>(line),
            Ok(Ok(None)) => {
                if followed.since.elapsed() + GRACE + SHORT_WATCH < followed.silence {
                    self.past.doubt();
                }
                if followed.spoke || followed.since.elapsed() >= SHORT_WATCH {
                    self.backoff.reset();
                } else {
                    self.pause = Some(self.backoff.next());
                }
                return Phase::Watch { revision: followed.revision };
            }
            Ok(Err(e)) => Err(e),
            Err(_) if !followed.settled => {
                self.pending.push_back(Signal::Heard(None));
                followed.settled = true;
                (self.expired, self.refused) = (0, 0);
                return Phase::Follow(followed);
            }
            Err(_) => Err(CallError::new(Class::Timeout, "the watch fell silent")),
        };
        let revision = match line {
            Ok(Line::Object(signal, revision)) => {
                self.pending.push_back(signal);
                revision
            }
            Ok(Line::Bookmark(revision)) => {
                self.pending.push_back(Signal::Heard(revision.clone()));
                revision
            }
            Ok(Line::Error(e)) | Err(e) => return self.broken(e, followed.revision),
        };
        (followed.spoke, followed.settled) = (true, true);
        self.backoff.reset();
        (self.expired, self.refused) = (0, 0);
        if let Some(revision) = revision {
            self.past.reached(&revision);
            followed.revision = revision;
        }
        Phase::Follow(followed)
    }

    /// What follows a watch that failed.
    fn broken(&mut self, error: WatchError, revision: String) -> Phase {
        self.past.doubt();
        match error.class() {
            Class::Expired => return self.relist(error),
            Class::NotFound => self.refused = REFUSALS,
            Class::Server | Class::Timeout | Class::Invalid => self.refused += 1,
            _ => {}
        }
        self.lost(error);
        if self.refused < REFUSALS {
            return Phase::Watch { revision };
        }
        self.refused = 0;
        Phase::List { token: None }
    }

    /// 410: list again, at once the first time; a server that does nothing but expire is a lost one.
    fn relist(&mut self, error: WatchError) -> Phase {
        debug!(path = self.spec.path, "revision expired, listing again");
        self.expired += 1;
        if self.expired > 1 {
            self.lost(error);
        }
        Phase::List { token: None }
    }

    fn lost(&mut self, error: WatchError) {
        let pause = if error.class() == Class::NotFound {
            MISSING_KIND.mul_f64(0.8 + 0.4 * spread())
        } else {
            self.backoff.next().max(error.retry_after().unwrap_or_default().min(RETRY_AFTER_LAST))
        };
        let ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        debug!(path = self.spec.path, class = %error.class(), retry_ms = ms, "watch lost");
        self.pause = Some(pause);
        self.pending.push_back(Signal::Lost(error));
    }

    async fn get(&mut self, uri: &str, watch: bool, head: Duration) -> Result<Body, CallError> {
        let request = Request::get(uri)
            .header(ACCEPT, wire::accept(&self.spec, watch))
            .body(Body::empty())
            .map_err(|_| CallError::new(Class::Invalid, "not a path"))?;
        let response = match timeout(head, self.client.send(request)).await {
            Ok(response) => response?,
            Err(_) => return Err(CallError::new(Class::Timeout, format!("no answer within {head:?}"))),
        };
        if response.status().is_success() {
            return Ok(response.into_body());
        }
        Err(refusal(response).await)
    }
}

//! Asking at a pace, and following until all is answered.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use kube::Client;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::RotateError;
use super::report::{Report, State};
use crate::api::SECRET_TYPE;
use crate::cli::progress::Progress;
use crate::cluster::client::{CallError, Class};
use crate::cluster::watch::{Signal, WatchSpec, watch};
use crate::cluster::wire::WireSecret;
use crate::cluster::write::Writer;
use crate::domain::{Credentials, Key};

/// How long nothing may come of what was asked for before it is given up.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// So many patches are under way at once.
const AT_ONCE: usize = 16;
/// The operator may be so far behind what is asked for, at least, and by what is asked for in so long.
const BEHIND: usize = 64;
const BEHIND_FOR: Duration = Duration::from_secs(10);

/// What is still to come.
struct Follow<'a> {
    report: &'a mut Report,
    /// The place in the report of what is not minted yet, by its Secret.
    open: HashMap<Key, usize>,
    to_ask: VecDeque<usize>,
    listed: HashSet<Key>,
    last: Instant,
}

/// Asks for all that wait, and waits for all that were asked for.
pub(super) async fn follow(
    writer: &Writer,
    client: Client,
    namespace: Option<&str>,
    report: &mut Report,
) -> Result<(), RotateError> {
    let (rotation, pace) = (report.rotation, report.pace);
    let patience = pace.patience();
    let mut follow = Follow::new(report);
    let all = follow.open.len();
    eprintln!("this rotation is {rotation}; interrupted, go on with it by --since {rotation}");
    let mut progress = Progress::new("Secrets minted anew", all);
    let path =
        namespace.map_or_else(|| "/api/v1/secrets".to_owned(), |n| format!("/api/v1/namespaces/{n}/secrets"));
    let spec = WatchSpec::new(path).fields(format!("type={SECRET_TYPE}")).metadata_only();
    let mut signals = Box::pin(watch::<WireSecret>(client, spec));
    let mut asking = FuturesUnordered::new();
    let mut tick = interval(pace.pause());
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let most =
        BEHIND.max(usize::try_from(BEHIND_FOR.as_nanos() / pace.pause().as_nanos().max(1)).unwrap_or(BEHIND));
    let mut interrupt = Box::pin(tokio::signal::ctrl_c());
    let ended = loop {
        progress.at(all - follow.open.len());
        if follow.open.is_empty() && asking.is_empty() {
            break Ok(());
        }
        let may_ask = !follow.to_ask.is_empty() && asking.len() < AT_ONCE && follow.asked() < most;
        tokio::select! {
            _ = &mut interrupt => break Err(None),
            _ = tick.tick(), if may_ask => {
                if let Some(at) = follow.to_ask.pop_front() {
                    let hit = &follow.report.secrets[at];
                    let agent = Key::new(hit.namespace.as_str(), hit.agent.as_str());
                    let uid = hit.uid;
                    asking.push(async move { (at, writer.rotate_agent(&agent, uid, rotation).await) });
                }
            }
            Some((at, answer)) = asking.next() => follow.answered(at, answer),
            Some(signal) = signals.next() => {
                if let Signal::Lost(e) = &signal && e.class() == Class::Forbidden {
                    break Err(Some(e.clone()));
                }
                follow.heard(signal);
            }
            () = sleep_until(follow.last + patience) => break Err(None),
        }
    };
    progress.end();
    let waited = follow.last.elapsed() >= patience;
    let left = follow.open.len();
    match ended {
        Ok(()) => failures(report),
        Err(Some(error)) => Err(RotateError::Secrets(error)),
        Err(None) if waited => Err(RotateError::NoAnswer { left, all, patience, since: rotation }),
        Err(None) => Err(RotateError::Interrupted { done: all - left, all, since: rotation }),
    }
}

fn failures(report: &Report) -> Result<(), RotateError> {
    let failed = report.count(State::Failed);
    let first = report.secrets.iter().find_map(|s| {
        s.problem.as_ref().map(|problem| format!("AgentIdentity {}/{}: {problem}", s.namespace, s.agent))
    });
    match first {
        Some(first) => {
            let (all, since) = (report.secrets.len(), report.rotation);
            Err(RotateError::Failed { failed, all, first, since })
        }
        None => Ok(()),
    }
}

impl<'a> Follow<'a> {
    fn new(report: &'a mut Report) -> Self {
        let (mut open, mut to_ask) = (HashMap::new(), VecDeque::new());
        for (at, hit) in report.secrets.iter().enumerate() {
            if hit.state == State::Waiting {
                to_ask.push_back(at);
            }
            if matches!(hit.state, State::Waiting | State::Asked) {
                open.insert(Key::new(hit.namespace.as_str(), hit.secret.as_str()), at);
            }
        }
        Self { report, open, to_ask, listed: HashSet::new(), last: Instant::now() }
    }

    /// What the operator has still to do.
    fn asked(&self) -> usize {
        self.open.len() - self.to_ask.len().min(self.open.len())
    }

    fn answered(&mut self, at: usize, answer: Result<(), CallError>) {
        let hit = &mut self.report.secrets[at];
        let key = Key::new(hit.namespace.as_str(), hit.secret.as_str());
        match answer {
            // The Secret may have been seen before the answer.
            Ok(()) if hit.state == State::Waiting => hit.state = State::Asked,
            Ok(()) => {}
            Err(e) if matches!(e.class(), Class::NotFound | Class::Conflict) => {
                self.settle(&key, State::Gone)
            }
            Err(e) => {
                hit.problem = Some(e.to_string());
                self.settle(&key, State::Failed);
            }
        }
    }

    fn heard(&mut self, signal: Signal<WireSecret>) {
        match signal {
            Signal::Listing => self.listed.clear(),
            Signal::Page(page) => {
                for secret in page.into_iter().filter_map(|s| s.credentials().ok()) {
                    self.listed.insert(secret.meta.key.clone());
                    self.seen(&secret);
                }
            }
            Signal::Listed(_) => {
                let listed = std::mem::take(&mut self.listed);
                let gone: Vec<_> = self.open.keys().filter(|k| !listed.contains(*k)).cloned().collect();
                gone.iter().for_each(|key| self.settle(key, State::Gone));
            }
            Signal::Apply(secret) => {
                if let Ok(secret) = secret.credentials() {
                    self.seen(&secret);
                }
            }
            Signal::Delete(secret) => {
                if let Ok(secret) = secret.credentials() {
                    self.settle(&secret.meta.key, State::Gone);
                }
            }
            // After a cluster was set back, the list that follows says which Secrets are there.
            Signal::Unreadable(_) | Signal::Heard(_) | Signal::Lost(_) | Signal::Rewound(_) => {}
        }
    }

    fn seen(&mut self, secret: &Credentials) {
        if secret.rotated == Some(self.report.rotation) && !secret.tokens.is_empty() {
            self.settle(&secret.meta.key, State::Minted);
        } else if secret.tokens.is_empty() {
            self.settle(&secret.meta.key, State::Withdrawn);
        }
    }

    fn settle(&mut self, secret: &Key, state: State) {
        if let Some(at) = self.open.remove(secret) {
            self.report.secrets[at].state = state;
            self.to_ask.retain(|waiting| *waiting != at);
            self.last = Instant::now();
        }
    }
}

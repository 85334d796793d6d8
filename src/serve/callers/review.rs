//! What the API server said of tokens, while there were no keys.
//!
//! Invariants: at most [`RATE`] questions a second; an answer is remembered for seconds and by the token's digest,
//! never by the token; at most [`MOST`] are.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::super::keysets::Clock;
use super::known::Print;
use crate::cluster::client::CallError;
use crate::net::rate::Limiter;

const RATE: u32 = 20;
/// More than can be asked for while an answer is remembered.
const MOST: usize = 1024;
const GOOD: Duration = Duration::from_secs(10);
const BAD: Duration = Duration::from_secs(5);

/// What was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    Bad,
    /// It could not be asked; when it can, if that is known.
    Later(Option<Duration>),
}

/// What was said lately.
pub(super) struct Verdicts {
    clock: Clock,
    limiter: Limiter<()>,
    known: Mutex<HashMap<Print, (Instant, bool)>>,
}

impl Verdicts {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, limiter: Limiter::new(RATE, RATE, 1), known: Mutex::default() }
    }

    /// What is said of a token: what was said lately, or what `ask` says now.
    pub(super) async fn of<F>(&self, token: &str, ask: impl FnOnce() -> F + Send) -> Verdict
    where
        F: Future<Output = Result<bool, CallError>> + Send,
    {
        let print = Print::of(token);
        let now = self.clock.now();
        let known = self.known().get(&print).filter(|(until, _)| now < *until).map(|(_, good)| *good);
        let good = match known {
            Some(good) => good,
            None => {
                if let Err(wait) = self.limiter.check(&()) {
                    return Verdict::Later(Some(wait.0));
                }
                match ask().await {
                    Ok(good) => {
                        self.remember(print, good);
                        good
                    }
                    Err(e) => {
                        tracing::warn!(problem = %e, "a service-account token could not be reviewed");
                        return Verdict::Later(e.retry_after());
                    }
                }
            }
        };
        if good { Verdict::Good } else { Verdict::Bad }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Print, (Instant, bool)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, print: Print, good: bool) {
        let now = self.clock.now();
        let mut known = self.known();
        known.retain(|_, (until, _)| now < *until);
        if known.len() < MOST {
            known.insert(print, (now + if good { GOOD } else { BAD }, good));
        }
    }
}

//! The leader's task that owns the key ring: reads it, rotates it, carries out what people ask, and hands
//! every state to those who mint and publish.
//!
//! Invariants: at most one process rotates (it leads, and every write names the resourceVersion it stands
//! on); no new key is made in the place of one whose tokens may live, unless a person asks for it; whatever
//! is wrong with the ring stops signing and says so, and the good ring's return starts it again.

mod answer;
mod keep;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    api::Configuration,
    cluster::{
        keystore::{KeyStore, KeyringError, LeaseNote},
        keywatch::{KeyState, POLL},
    },
    domain::keyring::Times,
};

/// How soon a write that met another one is tried again.
const AGAIN: Duration = Duration::from_millis(100);
/// A verifier's leeway on `exp`, in seconds.
const LEEWAY: i64 = 60;
/// How long, in seconds, a ring that this process has used must be gone before another may take its place: a
/// token that it signed last may still be on its way here, and a backup tool deletes before it restores.
const GRACE: i64 = 30;

/// The tokens that were seen in Secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LiveTokens {
    /// Not every Secret has been seen: any token may live.
    Unknown,
    /// Every Secret has been seen.
    Known {
        /// The ids of the keys that signed unexpired tokens.
        kids: BTreeSet<String>,
        /// When the last of those tokens expires; absent where there is none.
        latest_expiry: Option<Timestamp>,
    },
}

impl LiveTokens {
    /// Whether it is known that no verifier takes any token any more.
    fn none_lives(&self, now: Timestamp) -> bool {
        match self {
            Self::Unknown => false,
            Self::Known { kids, latest_expiry: None } => kids.is_empty(),
            Self::Known { latest_expiry: Some(expiry), .. } => {
                now.duration_since(*expiry) > SignedDuration::from_secs(LEEWAY)
            }
        }
    }

    fn said(&self, now: Timestamp) -> String {
        match self {
            _ if self.none_lives(now) => format!("no token lives: a new ring is made within {GRACE}s"),
            Self::Known { latest_expiry: Some(expiry), .. } => format!("tokens live until {expiry:.0}"),
            Self::Known { .. } => "tokens live".to_owned(),
            Self::Unknown => "which tokens live is not known yet".to_owned(),
        }
    }
}

/// What the keeper is told by others while it runs.
#[derive(Clone)]
pub struct Inputs {
    /// The generation of the ring whose key set every trust ConfigMap carries.
    pub published: watch::Receiver<u64>,
    /// Counts the tokens in Secrets at this moment. Asked only while no ring may sign: an answer from before
    /// the ring was lost would not know the tokens that it signed last.
    pub live: Arc<dyn Fn(Timestamp) -> LiveTokens + Send + Sync>,
}

impl std::fmt::Debug for Inputs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inputs").field("published", &self.published).finish_non_exhaustive()
    }
}

/// The keeper of the ring.
#[derive(Debug)]
pub struct KeyKeeper {
    store: KeyStore,
    note: LeaseNote,
    issuer: String,
    trust_domain: String,
    times: Times,
}

impl KeyKeeper {
    /// A keeper for what is configured; `note` is on the Lease by which this process leads.
    #[must_use]
    pub fn new(store: KeyStore, note: LeaseNote, config: &Configuration) -> Self {
        Self {
            store,
            note,
            issuer: config.issuer.clone(),
            trust_domain: config.trust_domain.clone(),
            times: Times::from(config),
        }
    }

    /// Keeps the ring until told to stop, which it does at once, between or within calls. To be run only while
    /// this process leads. Ends with [`KeyState::Loading`], so that nobody goes on signing.
    pub async fn run(self, inputs: Inputs, state: &watch::Sender<KeyState>, stop: &CancellationToken) {
        stop.run_until_cancelled(self.serve(inputs, state)).await;
        KeyState::Loading.publish(state);
    }

    async fn serve(self, mut inputs: Inputs, state: &watch::Sender<KeyState>) {
        let mut keep = keep::Keep::new(self);
        loop {
            let now = Timestamp::now();
            let published = *inputs.published.borrow_and_update();
            let mut pause = POLL;
            match keep.turn(now, published, &*inputs.live).await {
                Ok(Some(loaded)) => {
                    if let Some(wake) = loaded.ring.next_wake(keep.times(), now) {
                        let until = Duration::try_from(wake.duration_since(now)).unwrap_or_default();
                        pause = until.clamp(AGAIN, POLL);
                    }
                    KeyState::Ready(loaded).publish(state);
                }
                // A new installation: whether tokens live is not known yet.
                Ok(None) => KeyState::Loading.publish(state),
                Err(e) if e.is_conflict() => pause = AGAIN,
                // The API server says nothing about the ring: what was read stands.
                Err(KeyringError::Api(e)) if matches!(*state.borrow(), KeyState::Ready(_)) => {
                    tracing::warn!(error = %e, "the key ring can't be looked at");
                }
                Err(e) => {
                    let message = match &e {
                        KeyringError::Missing | KeyringError::Readdressed { .. } => {
                            format!("{e} ({})", (inputs.live)(now).said(now))
                        }
                        _ => e.to_string(),
                    };
                    KeyState::Unavailable { message }.publish(state);
                }
            }
            tokio::select! {
                () = sleep(pause) => {}
                Ok(()) = inputs.published.changed() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_die_a_minute_after_they_expire() {
        let at = |s: i64| Timestamp::from_second(1_800_000_000 + s).unwrap();
        let known =
            |latest_expiry| LiveTokens::Known { kids: BTreeSet::from(["k".to_owned()]), latest_expiry };
        assert!(!LiveTokens::Unknown.none_lives(at(0)));
        assert!(!known(None).none_lives(at(0)), "a key of a token without a known end");
        assert!(!known(Some(at(0))).none_lives(at(60)));
        assert!(known(Some(at(0))).none_lives(at(61)));
        assert!(LiveTokens::Known { kids: BTreeSet::new(), latest_expiry: None }.none_lives(at(0)));
    }
}

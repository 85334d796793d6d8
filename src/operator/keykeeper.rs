//! The leader's task that owns the key ring: reads it, rotates it, carries out what people ask, and hands
//! every state to those who mint and publish.
//!
//! Invariants: at most one process rotates (it leads, and every write names the resourceVersion it stands
//! on); no new key is made in the place of one whose tokens may live, in a Secret or bought on demand, unless a person
//! asks for it; whatever is wrong with the ring stops signing and says so, and the good ring's return starts it again.

mod answer;
mod keep;
mod renewal;

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
/// Which tokens may live, as far as the world tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LiveTokens {
    /// Not every Secret and agent has been seen: any token may live.
    Unknown,
    /// All have been seen.
    Known {
        /// The ids of the keys that signed unexpired tokens in Secrets.
        kids: BTreeSet<String>,
        /// When the last of those tokens expires: absent where there is none, [`Timestamp::MAX`] where it isn't known.
        latest_expiry: Option<Timestamp>,
        /// Whether there are agents: they may have bought tokens on demand, which are in no Secret.
        agents: bool,
    },
}

/// What the keeper is told by others while it runs.
#[derive(Clone)]
pub struct Inputs {
    /// The generation of the ring whose key set every trust ConfigMap carries.
    pub published: watch::Receiver<u64>,
    /// Looks which tokens may live at this moment. Asked only while no ring may sign: an answer from before
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
    /// The longest lifetime of a token that is bought on demand.
    on_demand: SignedDuration,
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
            on_demand: {
                let limits = &config.limits;
                limits.on_demand_token_lifetime.max(limits.identity_token_lifetime).signed()
            },
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
                            format!("{e} ({})", keep.renewal(&e, &(inputs.live)(now), now))
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

//! What every request has at hand.
//!
//! Invariant: a World that is not synced, or staler than `maxStale`, answers nobody.

use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard};

use jiff::Timestamp;
use tokio::sync::watch;

use super::callers::Callers;
use super::fault::Fault;
use super::lists::Lists;
use super::metrics::Metrics;
use super::users::UserIssuers;
use crate::api::{Configuration, SigningAlgorithm};
use crate::cluster::client::Calls;
use crate::cluster::feed::SharedWorld;
use crate::cluster::keystore::Loaded;
use crate::cluster::keywatch::KeyState;
use crate::cluster::reviews::Reviews;
use crate::crypto::SigningKey;
use crate::domain::{Key, World};
use crate::issue::{Issuer, Signers};
use crate::net::Source;
use crate::net::rate::Limiter;
use crate::net::tls::Tls;

/// The tools of every endpoint; shared.
pub(super) struct State {
    pub(super) config: Configuration,
    pub(super) world: Arc<SharedWorld>,
    pub(super) keys: watch::Receiver<KeyState>,
    pub(super) issuer: Issuer,
    pub(super) callers: Callers,
    pub(super) users: UserIssuers,
    pub(super) reviews: Reviews,
    pub(super) lists: Lists,
    pub(super) metrics: Arc<Metrics>,
    pub(super) per_source: Limiter<Source>,
    pub(super) per_agent: Limiter<Key>,
    /// The CAs that vouch for the self-managed certificate (PEM).
    pub(super) ca: RwLock<Option<String>>,
    /// The certificate that is served, once there is one.
    pub(super) tls: OnceLock<Tls>,
    /// What the API server was asked.
    pub(super) calls: Calls,
}

/// The keys of one moment.
pub(super) struct Ring(pub(super) Arc<Loaded>);

impl Signers for Ring {
    fn signer(&self, algorithm: SigningAlgorithm) -> Option<&SigningKey> {
        self.0.signer(algorithm).map(|k| &**k)
    }
}

impl State {
    pub(super) fn set_ca(&self, pem: String) {
        *self.ca.write().unwrap_or_else(PoisonError::into_inner) = Some(pem);
    }

    /// The CAs that vouch for the self-managed certificate.
    pub(super) fn ca_pem(&self) -> Option<String> {
        self.ca.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The keys, if they may be used.
    ///
    /// # Errors
    /// `KeysUnavailable`, 503.
    pub(super) fn ring(&self) -> Result<Ring, Fault> {
        match &*self.keys.borrow() {
            KeyState::Ready(loaded) => Ok(Ring(loaded.clone())),
            KeyState::Loading => Err(Fault::keys("the key ring is not read yet")),
            KeyState::Unavailable { .. } => Err(Fault::keys("no signing key can be used")),
        }
    }

    /// The world, if it may be believed.
    ///
    /// # Errors
    /// `Unknown`, 503.
    pub(super) fn fresh_world(&self, now: Timestamp) -> Result<RwLockReadGuard<'_, World>, Fault> {
        let world = self.world.read();
        let stale = world.core().iter().find(|s| !world.is_fresh(s, now));
        match stale {
            None => Ok(world),
            Some(source) => {
                let problem = world.source(source).problem();
                Err(Fault::unknown(format!("the watch of {source} says nothing now: {problem}")))
            }
        }
    }
}

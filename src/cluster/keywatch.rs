//! The key ring as a process that does not lead sees it: read again whenever the Secret changes, and used only as
//! long as it may be.
//!
//! Invariants: a ring that is older than the Lease's note or than one seen before, or speaks for another issuer,
//! signs nothing; an API server that can't be reached takes nothing away.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use super::keystore::{KeyStore, KeyringError, LeaseNote, Loaded};
use crate::api::Configuration;

/// How often the Secret's resourceVersion is looked at.
pub const POLL: Duration = Duration::from_secs(2);

/// What those who mint and publish know of the keys.
#[derive(Clone, Debug)]
pub enum KeyState {
    /// Not known yet: sign nothing.
    Loading,
    /// These keys sign and are published.
    Ready(Arc<Loaded>),
    /// Sign nothing (`KeysUnavailable`).
    Unavailable {
        /// What is wrong and what to do, for people.
        message: String,
    },
}

impl KeyState {
    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Loading, Self::Loading) => true,
            (Self::Ready(a), Self::Ready(b)) => a.uid == b.uid && a.resource_version == b.resource_version,
            (Self::Unavailable { message: a }, Self::Unavailable { message: b }) => a == b,
            _ => false,
        }
    }

    /// Hands the state on, and logs it, if it is another one.
    pub fn publish(self, to: &watch::Sender<Self>) {
        to.send_if_modified(|old| {
            if old.same(&self) {
                return false;
            }
            match &self {
                Self::Unavailable { message } => tracing::error!("no signing keys: {message}"),
                Self::Ready(loaded) => {
                    tracing::info!(generation = loaded.ring.generation, "signing keys ready");
                }
                Self::Loading => {}
            }
            *old = self;
            true
        });
    }
}

/// A reader of the ring that keeps up with it.
#[derive(Debug)]
pub struct KeyWatcher {
    store: KeyStore,
    note: LeaseNote,
    issuer: String,
    trust_domain: String,
    /// The resourceVersion that was judged last; `Some(None)` where there was no Secret.
    judged: Option<Option<String>>,
    /// The highest generation seen anywhere.
    highest: u64,
}

impl KeyWatcher {
    /// A reader for what is configured; `note` is on the leader's Lease.
    #[must_use]
    pub fn new(store: KeyStore, note: LeaseNote, config: &Configuration) -> Self {
        Self {
            store,
            note,
            issuer: config.issuer.clone(),
            trust_domain: config.trust_domain.clone(),
            judged: None,
            highest: 0,
        }
    }

    /// Keeps `state` up to date until told to stop. Ends with [`KeyState::Loading`], so that nobody goes on
    /// signing.
    pub async fn run(mut self, state: &watch::Sender<KeyState>, stop: &CancellationToken) {
        let serve = async {
            loop {
                self.turn(state).await;
                sleep(POLL).await;
            }
        };
        stop.run_until_cancelled(serve).await;
        KeyState::Loading.publish(state);
    }

    /// One look.
    async fn turn(&mut self, state: &watch::Sender<KeyState>) {
        match self.look().await {
            Ok(Some(seen)) => seen.publish(state),
            Ok(None) => {}
            // The API server says nothing about the ring: what was read stands.
            Err(e) if matches!(*state.borrow(), KeyState::Ready(_)) => {
                tracing::warn!(error = %e, "the key ring can't be looked at");
            }
            Err(e) => KeyState::Unavailable { message: e.to_string() }.publish(state),
        }
    }

    /// The state of the ring, if it may have changed. An error says nothing about the ring.
    async fn look(&mut self) -> Result<Option<KeyState>, KeyringError> {
        let version = self.store.resource_version().await?;
        if self.judged.as_ref() == Some(&version) {
            return Ok(None);
        }
        // The note first: it never runs ahead of the ring, so a ring that is read after it is as new.
        self.highest = self.highest.max(self.note.read().await?);
        let (judged, found) = match self.store.fetch().await {
            Ok(None) => (None, Err(KeyringError::Missing)),
            Ok(Some(stored)) => (Some(stored.metadata.resource_version().to_owned()), stored.ring),
            Err(e @ KeyringError::Api(_)) => return Err(e),
            // What is there is no ring, and stays so in this version.
            Err(e) => (version, Err(e)),
        };
        self.judged = Some(judged);
        Ok(Some(judge(found, &mut self.highest, &self.issuer, &self.trust_domain)))
    }
}

/// Whether what was found may sign. `highest` is the highest generation seen, and is raised by a ring that may.
fn judge(
    found: Result<Arc<Loaded>, KeyringError>,
    highest: &mut u64,
    issuer: &str,
    trust_domain: &str,
) -> KeyState {
    let checked = found.and_then(|loaded| {
        loaded.check(*highest, issuer, trust_domain)?;
        Ok(loaded)
    });
    match checked {
        Ok(loaded) => {
            *highest = loaded.ring.generation;
            KeyState::Ready(loaded)
        }
        // A new installation: the leader has yet to make the ring.
        Err(KeyringError::Missing) if *highest == 0 => KeyState::Loading,
        Err(e) => KeyState::Unavailable { message: e.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::{crypto::JwkSet, domain::keyring::KeyRing};

    const ISSUER: &str = "https://agents.example.com";

    fn ring(generation: u64) -> Result<Arc<Loaded>, KeyringError> {
        let empty = || Vec::new().into_iter().collect::<JwkSet>();
        Ok(Arc::new(Loaded {
            ring: KeyRing::empty(ISSUER, "x", generation),
            resource_version: generation.to_string(),
            uid: "u".to_owned(),
            signers: HashMap::new(),
            jwks: empty(),
            token_jwks: empty(),
        }))
    }

    #[test]
    fn only_the_newest_ring_of_this_issuer_signs() {
        let mut highest = 0;
        let mut says = |found, noted: u64, issuer: &str| {
            highest = highest.max(noted);
            match judge(found, &mut highest, issuer, "x") {
                KeyState::Loading => "loading".to_owned(),
                KeyState::Ready(loaded) => format!("ready {}", loaded.ring.generation),
                KeyState::Unavailable { message } => message,
            }
        };
        assert_eq!(says(Err(KeyringError::Missing), 0, ISSUER), "loading", "a new installation");
        assert_eq!(says(ring(5), 3, ISSUER), "ready 5");
        assert!(says(ring(4), 3, ISSUER).contains("old copy"), "older than one seen before");
        assert!(says(ring(5), 6, ISSUER).contains("the Lease notes 6"));
        assert!(says(ring(7), 6, "https://other.example.com").contains("issuer"));
        assert!(says(Err(KeyringError::Missing), 6, ISSUER).contains("missing"));
        assert!(says(Err(KeyringError::Edited), 6, ISSUER).contains("another hand"));
        assert_eq!(says(ring(6), 6, ISSUER), "ready 6", "the good ring's return");
    }
}

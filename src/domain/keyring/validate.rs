//! What makes a ring one that may sign.
//!
//! Invariant: a ring that breaks a rule is never used and never written.

use std::collections::HashSet;

use thiserror::Error;

use super::{KeyRecord, KeyRing, KeySlot, Purpose, Stage};

/// Why a ring may not be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RingFault {
    /// Generation 0, or no issuer or trust domain.
    #[error("the ring names no {0}")]
    Nameless(&'static str),
    /// A key id that is not the base64url of 32 octets (RFC 7638 with SHA-256).
    #[error("{0:?} is not a key id")]
    Kid(String),
    /// A key id twice, or both published and revoked.
    #[error("the key {0} is in the ring more than once")]
    Twice(String),
    /// Not exactly one key that signs, or more than one next key.
    #[error("{count} {state:?} keys of {slot}, where there must be one")]
    Count {
        /// The slot.
        slot: KeySlot,
        /// The state that is held more or less often than once.
        state: Stage,
        /// How often.
        count: usize,
    },
    /// An algorithm that is not in use for what the key signs.
    #[error("the key {0} is of an algorithm that its purpose does not use")]
    Algorithm(String),
    /// A time that is missing for the state, does not belong to it, or is out of order.
    #[error("the times of the key {0} do not fit its state")]
    Times(String),
    /// A step about a key that is not there or not in the state for it.
    #[error("the key {0} can't take this step")]
    Step(String),
    /// Fewer new keys than the steps ask for.
    #[error("a step asks for a new key and none was given")]
    NoNewKey,
}

impl KeyRing {
    /// Holds the ring against the rules.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn validate(&self) -> Result<(), RingFault> {
        for (what, empty) in [
            ("generation", self.generation == 0),
            ("issuer", self.issuer.is_empty()),
            ("trust domain", self.trust_domain.is_empty()),
        ] {
            if empty {
                return Err(RingFault::Nameless(what));
            }
        }
        let mut seen = HashSet::new();
        for kid in self.published_kids().chain(self.revoked.iter().map(|r| r.kid.as_str())) {
            if !is_kid(kid) {
                return Err(RingFault::Kid(kid.chars().take(64).collect()));
            }
            if !seen.insert(kid) {
                return Err(RingFault::Twice(kid.to_owned()));
            }
        }
        if let Some(key) = self.keys.iter().find(|k| k.slot().algorithm() != k.algorithm) {
            return Err(RingFault::Algorithm(key.kid.clone()));
        }
        for slot in KeySlot::ALL {
            // A ring from before status lists has no key for them; the next write adds it.
            if slot.purpose() == Purpose::StatusLists && self.keys.iter().all(|k| k.slot() != slot) {
                continue;
            }
            for state in [Stage::Active, Stage::Next] {
                let count = self.keys.iter().filter(|k| k.slot() == slot && k.state == state).count();
                if count > 1 || (count == 0 && state == Stage::Active) {
                    return Err(RingFault::Count { slot, state, count });
                }
            }
        }
        match self.keys.iter().find(|k| !times_fit(k)) {
            Some(key) => Err(RingFault::Times(key.kid.clone())),
            None => Ok(()),
        }
    }
}

/// Whether this is the base64url of 32 octets: it becomes a key of a Secret.
pub(super) fn is_kid(kid: &str) -> bool {
    kid.len() == 43 && kid.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
}

fn times_fit(key: &KeyRecord) -> bool {
    let present = match key.state {
        Stage::Next => key.activated_at.is_none() && key.retired_at.is_none(),
        Stage::Active => key.activated_at.is_some() && key.retired_at.is_none(),
        Stage::Retired => key.activated_at.is_some() && key.retired_at.is_some(),
    };
    let line = [Some(key.created_at), key.published_at, key.activated_at, key.retired_at];
    present && line.iter().flatten().is_sorted()
}

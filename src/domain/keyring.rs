//! The signing key ring as a state machine: next → active → retired, over `now`. Holds which keys there are
//! and why, never key material.
//!
//! Invariant: a key is published before it signs and stays published until its last token has died (a
//! revoked key apart); exactly one key signs for each [`KeySlot`]; the generation only grows.
//!
//! A change of the ring is a batch: [`due`] or [`ask`] says which steps, [`KeyRing::advance`] takes them as
//! one write. A write that was lost is simply worked out again.

mod due;
mod slot;
mod validate;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::api::{Configuration, SigningAlgorithm};

pub use due::{Request, RequestFault, Step, ask, due};
pub use slot::{KeySlot, Purpose};
pub use validate::RingFault;

/// How long, in seconds, a retired key stays published beyond the longest lifetime of a token: one minute of
/// a verifier's leeway, and twice the five minutes by which clocks may be off (once when the last token was
/// signed, once when the key is dropped).
pub const RETENTION_SECONDS: u32 = 60 + 2 * 300;

/// The keys of one installation, with what they were made for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyRing {
    /// Grows by one with every write.
    pub generation: u64,
    /// The `iss` of every token that these keys signed.
    pub issuer: String,
    /// The SPIFFE trust domain of every agent id that these keys signed.
    pub trust_domain: String,
    /// The longest lifetime, in seconds, under which any key of this ring has signed (tokens and status list
    /// tokens alike): a limit that was lowered since does not shorten what is out.
    pub longest_token: u32,
    /// The slots of which a rotation was asked for and is still to come.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rotate: Vec<KeySlot>,
    /// Every published key.
    pub keys: Vec<KeyRecord>,
    /// The keys that were revoked while tokens of theirs may still be about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revoked: Vec<RevokedKey>,
}

/// One key of the ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyRecord {
    /// The RFC 7638 SHA-256 thumbprint of the public key, base64url without padding.
    pub kid: String,
    /// The one algorithm that it signs with.
    pub algorithm: SigningAlgorithm,
    /// What it signs; tokens where nothing is said, as in rings from before status lists.
    #[serde(default, skip_serializing_if = "Purpose::is_tokens")]
    pub purpose: Purpose,
    /// Where it stands.
    pub state: Stage,
    /// When it was made.
    pub created_at: Timestamp,
    /// Since when every trust ConfigMap is known to carry it, before it signed. Absent for a key that had to
    /// sign at once: one of the first ring, or the one after a revocation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published_at: Option<Timestamp>,
    /// Since when it signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activated_at: Option<Timestamp>,
    /// Since when it signs no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired_at: Option<Timestamp>,
}

/// Where a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Stage {
    /// Published, and does not sign yet.
    Next,
    /// Signs.
    Active,
    /// Signs no more, and is published until its last token has died.
    Retired,
}

/// A key that was revoked: what it signed has to be minted again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RevokedKey {
    /// The key id.
    pub kid: String,
    /// When it was revoked.
    pub at: Timestamp,
}

/// The configured times, all in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Times {
    /// How long an active key signs.
    pub sign_for: u32,
    /// How long a next key is published before it signs.
    pub publish_ahead: u32,
    /// The longest lifetime of anything that a key of the ring signs: a token, or a status list token.
    pub max_token_lifetime: u32,
}

impl From<&Configuration> for Times {
    fn from(config: &Configuration) -> Self {
        Self {
            sign_for: config.keys.sign_for.0,
            publish_ahead: config.keys.publish_ahead.0,
            max_token_lifetime: config.limits.max_token_lifetime.max(config.status_lists.lifetime).0,
        }
    }
}

impl KeyRing {
    /// A ring without keys, which [`due`] then asks to fill. `generation` is the highest one ever noted, 0 for
    /// a new installation: the first [`KeyRing::advance`] makes it one more.
    #[must_use]
    pub fn empty(issuer: &str, trust_domain: &str, generation: u64) -> Self {
        Self {
            generation,
            issuer: issuer.to_owned(),
            trust_domain: trust_domain.to_owned(),
            longest_token: 0,
            rotate: Vec::new(),
            keys: Vec::new(),
            revoked: Vec::new(),
        }
    }

    /// The key that signs for a slot. Only a ring from before status lists has none for them.
    #[must_use]
    pub fn active(&self, slot: KeySlot) -> Option<&KeyRecord> {
        self.find(slot, Stage::Active)
    }

    /// The key that will sign next for a slot.
    #[must_use]
    pub fn next(&self, slot: KeySlot) -> Option<&KeyRecord> {
        self.find(slot, Stage::Next)
    }

    fn find(&self, slot: KeySlot, state: Stage) -> Option<&KeyRecord> {
        self.keys.iter().find(|k| k.slot() == slot && k.state == state)
    }

    /// The id of the key that signs for a slot.
    #[must_use]
    pub fn signing_kid(&self, slot: KeySlot) -> Option<&str> {
        self.active(slot).map(|k| k.kid.as_str())
    }

    /// The ids of the keys that belong into the JWKS: next, active and retired.
    pub fn published_kids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|k| k.kid.as_str())
    }

    /// Whether tokens of this key have to be minted again.
    #[must_use]
    pub fn is_revoked(&self, kid: &str) -> bool {
        self.revoked.iter().any(|r| r.kid == kid)
    }

    /// When the next key of a slot starts to sign; absent as long as it is not known to be out everywhere.
    #[must_use]
    pub fn promotes_at(&self, slot: KeySlot, times: &Times) -> Option<Timestamp> {
        let safe = self.safe_at(slot, times)?;
        if self.rotate.contains(&slot) {
            return Some(safe);
        }
        self.signs_until(slot, times).map(|end| end.max(safe))
    }

    /// When the next key of a slot has been out long enough to sign.
    #[must_use]
    pub fn safe_at(&self, slot: KeySlot, times: &Times) -> Option<Timestamp> {
        Some(after(self.next(slot)?.published_at?, times.publish_ahead))
    }

    /// When the active key of a slot has signed for its time.
    #[must_use]
    pub fn signs_until(&self, slot: KeySlot, times: &Times) -> Option<Timestamp> {
        Some(after(self.active(slot)?.activated_at?, times.sign_for))
    }

    /// When the last token of a key that was retired at `retired_at` has died for every verifier; status list
    /// tokens too, since [`Times`] counts their lifetime in.
    #[must_use]
    pub fn dies_at(&self, retired_at: Timestamp, times: &Times) -> Timestamp {
        let longest = self.longest_token.max(times.max_token_lifetime);
        after(retired_at, longest.saturating_add(RETENTION_SECONDS))
    }

    /// When [`due`] has something to do by the clock alone, at or after `now`.
    #[must_use]
    pub fn next_wake(&self, times: &Times, now: Timestamp) -> Option<Timestamp> {
        let promotions = KeySlot::ALL.iter().filter_map(|slot| self.promotes_at(*slot, times));
        let drops = self.keys.iter().filter_map(|k| k.retired_at);
        let revoked = self.revoked.iter().map(|r| r.at);
        promotions
            .chain(drops.chain(revoked).map(|at| self.dies_at(at, times)))
            .min()
            .map(|wake| wake.max(now))
    }
}

/// Adds seconds, up to the end of time.
fn after(at: Timestamp, seconds: u32) -> Timestamp {
    at.checked_add(SignedDuration::from_secs(i64::from(seconds))).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;

//! The certificates of our own TLS as a state machine: authorities go next → active → retired, over `now`, and the
//! active one signs what the token service serves. Holds which authorities there are and why, never key material.
//!
//! Invariants: an authority is published before it signs, unless nothing else could sign; it stays published
//! until the last certificate that it signed has expired; no certificate outlives its authority.
//!
//! As with the key ring, a change is a batch: [`due`] says which steps, [`Authorities::advance`] takes them as
//! one write, and a write that was lost is worked out again. [`Authorities::signing`] says when a certificate
//! is to be issued; its [`Step::Sign`] is written before the certificate is.

mod due;

use std::collections::HashSet;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::keyring::Stage;
use crate::api::Configuration;

pub use due::{Signing, Step, due};

/// The authorities of one installation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Authorities {
    /// Grows by one with every write.
    pub generation: u64,
    /// Every published authority.
    pub authorities: Vec<AuthorityRecord>,
}

/// One certificate authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthorityRecord {
    /// Its id: 32 hexadecimal digits, drawn at random. Part of its common name.
    pub id: String,
    /// Where it stands.
    pub state: Stage,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its own certificate expires.
    pub not_after: Timestamp,
    /// Since when every trust ConfigMap is known to carry it, before it signed. Absent for one that had to sign
    /// at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published_at: Option<Timestamp>,
    /// Since when it signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activated_at: Option<Timestamp>,
    /// Since when it signs no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired_at: Option<Timestamp>,
    /// When the last certificate that it signed expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_expiry: Option<Timestamp>,
}

/// What the token service serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServingRecord {
    /// The id of the authority that signed it.
    pub authority: String,
    /// For whom it is.
    pub subject: Subject,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// When it expires.
    pub not_after: Timestamp,
}

/// Whom a certificate is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Subject {
    /// The DNS names.
    pub dns_names: Vec<String>,
    /// The addresses.
    pub ip_addresses: Vec<IpAddr>,
}

impl Subject {
    /// Whom the configuration's certificate is for; `namespace` is the operator's.
    #[must_use]
    pub fn of(config: &Configuration, namespace: &str) -> Self {
        Self { dns_names: config.serving_names(namespace), ip_addresses: config.serving.ip_addresses.clone() }
    }
}

/// The configured times, all in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// How long an authority's certificate lives.
    pub authority: u32,
    /// How long a serving certificate lives.
    pub serving: u32,
    /// How long a next authority is published before it signs.
    pub publish_ahead: u32,
}

impl From<&Configuration> for Times {
    fn from(config: &Configuration) -> Self {
        let lifetimes = &config.serving.certificates;
        Self {
            authority: lifetimes.authority.0,
            serving: lifetimes.serving.0,
            publish_ahead: config.keys.publish_ahead.0,
        }
    }
}

/// Why authorities may not be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AuthoritiesFault {
    /// Generation 0.
    #[error("there is no generation")]
    Generation,
    /// An id that is not 32 hexadecimal digits.
    #[error("{0:?} is not an authority's id")]
    Id(String),
    /// An id twice.
    #[error("the authority {0} is there more than once")]
    Twice(String),
    /// Not exactly one that signs, or more than one next.
    #[error("{count} {state:?} authorities, where there must be one")]
    Count {
        /// The state that is held more or less often than once.
        state: Stage,
        /// How often.
        count: usize,
    },
    /// A time that is missing for the state, does not belong to it, or is out of order.
    #[error("the times of the authority {0} do not fit its state")]
    Times(String),
    /// A step about an authority that is not there or not in the state for it.
    #[error("the authority {0} can't take this step")]
    Step(String),
    /// Fewer new authorities than the steps ask for.
    #[error("a step asks for a new authority and none was given")]
    NoNewAuthority,
}

impl Authorities {
    /// None yet, which [`due`] then asks to make. `generation` is the highest one seen.
    #[must_use]
    pub const fn empty(generation: u64) -> Self {
        Self { generation, authorities: Vec::new() }
    }

    /// The one that signs.
    #[must_use]
    pub fn active(&self) -> Option<&AuthorityRecord> {
        self.authorities.iter().find(|a| a.state == Stage::Active)
    }

    /// The one that will sign next.
    #[must_use]
    pub fn next(&self) -> Option<&AuthorityRecord> {
        self.authorities.iter().find(|a| a.state == Stage::Next)
    }

    /// The one of this id.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<&AuthorityRecord> {
        self.authorities.iter().find(|a| a.id == id)
    }

    /// Holds the authorities against the rules.
    ///
    /// # Errors
    /// The first rule that they break.
    pub fn validate(&self) -> Result<(), AuthoritiesFault> {
        if self.generation == 0 {
            return Err(AuthoritiesFault::Generation);
        }
        let mut seen = HashSet::new();
        for AuthorityRecord { id, .. } in &self.authorities {
            if id.len() != 32 || !id.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')) {
                return Err(AuthoritiesFault::Id(id.chars().take(32).collect()));
            }
            if !seen.insert(id) {
                return Err(AuthoritiesFault::Twice(id.clone()));
            }
        }
        for state in [Stage::Active, Stage::Next] {
            let count = self.authorities.iter().filter(|a| a.state == state).count();
            if count > 1 || (count == 0 && state == Stage::Active) {
                return Err(AuthoritiesFault::Count { state, count });
            }
        }
        match self.authorities.iter().find(|a| !a.times_fit()) {
            Some(authority) => Err(AuthoritiesFault::Times(authority.id.clone())),
            None => Ok(()),
        }
    }
}

impl AuthorityRecord {
    /// The common name of its certificate.
    #[must_use]
    pub fn common_name(&self) -> String {
        format!("agentid CA {}", self.id)
    }

    /// When this part of its life has passed.
    fn part(&self, of: u32, whole: u32) -> Timestamp {
        part(self.created_at, self.not_after, of, whole)
    }

    fn times_fit(&self) -> bool {
        let present = match self.state {
            Stage::Next => {
                self.activated_at.is_none() && self.retired_at.is_none() && self.last_expiry.is_none()
            }
            Stage::Active => self.activated_at.is_some() && self.retired_at.is_none(),
            Stage::Retired => self.activated_at.is_some() && self.retired_at.is_some(),
        };
        let line = [Some(self.created_at), self.published_at, self.activated_at, self.retired_at];
        present
            && line.iter().flatten().is_sorted()
            && self.created_at < self.not_after
            && self.last_expiry.is_none_or(|last| last <= self.not_after)
    }
}

/// The moment at which a part of the time between two others has passed.
fn part(from: Timestamp, until: Timestamp, of: u32, whole: u32) -> Timestamp {
    let life = until.duration_since(from).as_secs();
    after(from, life.saturating_mul(i64::from(of)) / i64::from(whole.max(1)))
}

/// Adds seconds, up to the end of time.
fn after(at: Timestamp, seconds: i64) -> Timestamp {
    at.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;

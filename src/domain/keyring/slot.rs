//! The places of the ring: what is signed, and with which algorithm.
//!
//! Invariant: what a key signs never changes, so nothing that one purpose's key signed passes for the other's.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::KeyRecord;
use crate::api::SigningAlgorithm;

/// What a key signs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Purpose {
    /// Identity and access tokens.
    #[default]
    Tokens,
    /// Status list tokens (Token Status List §5.1), and nothing else.
    StatusLists,
}

impl Purpose {
    /// Whether it signs tokens; rings from before status lists say nothing else.
    #[must_use]
    pub const fn is_tokens(&self) -> bool {
        matches!(self, Self::Tokens)
    }
}

/// A place of the ring, in which one key signs and one waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum KeySlot {
    /// Tokens, with ES256.
    #[serde(rename = "ES256")]
    TokenES256,
    /// Tokens, with RS256.
    #[serde(rename = "RS256")]
    TokenRS256,
    /// Status lists, with ES256.
    #[serde(rename = "StatusListES256")]
    StatusListES256,
}

impl KeySlot {
    /// Every slot.
    pub const ALL: [Self; 3] = [Self::TokenES256, Self::TokenRS256, Self::StatusListES256];

    /// What its keys sign.
    #[must_use]
    pub const fn purpose(self) -> Purpose {
        match self {
            Self::TokenES256 | Self::TokenRS256 => Purpose::Tokens,
            Self::StatusListES256 => Purpose::StatusLists,
        }
    }

    /// What its keys sign with.
    #[must_use]
    pub const fn algorithm(self) -> SigningAlgorithm {
        match self {
            Self::TokenES256 | Self::StatusListES256 => SigningAlgorithm::ES256,
            Self::TokenRS256 => SigningAlgorithm::RS256,
        }
    }
}

/// The slot whose key signs tokens with this algorithm.
impl From<SigningAlgorithm> for KeySlot {
    fn from(algorithm: SigningAlgorithm) -> Self {
        match algorithm {
            SigningAlgorithm::ES256 => Self::TokenES256,
            SigningAlgorithm::RS256 => Self::TokenRS256,
        }
    }
}

impl fmt::Display for KeySlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TokenES256 => "ES256",
            Self::TokenRS256 => "RS256",
            Self::StatusListES256 => "status lists",
        })
    }
}

impl KeyRecord {
    /// The place of the ring to which it belongs.
    #[must_use]
    pub fn slot(&self) -> KeySlot {
        match self.purpose {
            Purpose::Tokens => self.algorithm.into(),
            Purpose::StatusLists => KeySlot::StatusListES256,
        }
    }
}

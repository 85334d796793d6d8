//! What people ask of the keys and what the leader answers, as they stand in the Secret's annotations.
//!
//! Invariant: a request is carried out once: it is open until an answer bears its id.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What may be asked of the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Operation {
    /// Rotate every slot as soon as it is safe.
    Rotate,
    /// Take one key out at once.
    Revoke,
    /// Throw all keys away and make new ones.
    Reset,
}

/// What a person asks of the leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeysRequest {
    /// Tells this request from the one before.
    pub id: String,
    /// What is asked.
    pub op: Operation,
    /// The key, for [`Operation::Revoke`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// When it was asked.
    pub at: Timestamp,
}

impl KeysRequest {
    /// A request with an id of its own.
    #[must_use]
    pub fn new(op: Operation, kid: Option<String>, at: Timestamp) -> Self {
        let mut id = [0; 8];
        // The time tells requests apart well enough should there be no randomness.
        let random = aws_lc_rs::rand::fill(&mut id).is_ok();
        let id = if random { u64::from_be_bytes(id) } else { at.as_nanosecond() as u64 };
        Self { id: format!("{id:016x}"), op, kid, at }
    }
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// It is done.
    Done,
    /// It will be done; the message says when.
    Scheduled,
    /// It will not be done; the message says why.
    Refused,
}

/// The leader's answer to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeysAnswer {
    /// The id of the request.
    pub id: String,
    /// What came of it.
    pub outcome: Outcome,
    /// One sentence for people.
    pub message: String,
    /// When it was answered.
    pub at: Timestamp,
}

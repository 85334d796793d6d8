//! Who holds which index of which status list (Token Status List; invariant 4 of the design).
//!
//! Invariants: a list belongs to one leader term; an index is handed out once, ever, for one answer about one
//! grant of one agent; below the mark every index is recorded in an AgentIdentity's status or abandoned. What is
//! recorded is read back from statuses alone: there is no database.

mod entry;
mod hand_out;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

pub use entry::{Entry, OpenList, entry};
pub use hand_out::{Full, HandOut, Indexes, Mark};

use super::{Digest, Entitlement, Uid};
use crate::api::StatusIndex;

/// The name of a status list: 128 random bits, written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListId(pub u128);

impl fmt::Display for ListId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ListId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for ListId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let hex = |c: u8| matches!(c, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 32 || !text.bytes().all(hex) {
            return Err(());
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| ())
    }
}

/// An entry of a status list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatusRef {
    /// The list.
    pub list: ListId,
    /// The index in it.
    pub index: u32,
}

impl StatusRef {
    /// The `uri` of a token's `status.status_list` (Token Status List §6.2).
    #[must_use]
    pub fn uri(&self, issuer: &str) -> String {
        format!("{issuer}/statuslists/{}", self.list)
    }

    /// Reads an entry back from its `uri`; `None` where it is no list of this issuer.
    #[must_use]
    pub fn of_uri(issuer: &str, uri: &str, index: u32) -> Option<Self> {
        let list = uri.strip_prefix(issuer)?.strip_prefix("/statuslists/")?.parse().ok()?;
        Some(Self { list, index })
    }
}

impl From<StatusRef> for StatusIndex {
    fn from(at: StatusRef) -> Self {
        Self { list: at.list.to_string(), index: i64::from(at.index) }
    }
}

impl TryFrom<&StatusIndex> for StatusRef {
    type Error = ();

    fn try_from(at: &StatusIndex) -> Result<Self, ()> {
        Ok(Self { list: at.list.parse()?, index: u32::try_from(at.index).map_err(|_| ())? })
    }
}

/// What an AgentIdentity's status records of one held grant: the answer that its index was handed out for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The grant's UID.
    pub grant: Uid,
    /// The resource's UID.
    pub resource: Uid,
    /// The roles.
    pub roles: Box<[Arc<str>]>,
    /// The scopes.
    pub scopes: Box<[Arc<str>]>,
    /// [`Entitlement::rest`].
    pub rest: Digest,
    /// The index.
    pub at: StatusRef,
    /// It says that a role of it could not be bound.
    pub unbound: bool,
}

impl Recorded {
    /// Whether what is allowed now is at least what was recorded.
    #[must_use]
    pub fn is_within(&self, resource: Option<Uid>, held: &Entitlement) -> bool {
        let all = |names: &[Arc<str>], of: &[Arc<str>]| names.iter().all(|n| of.contains(n));
        resource == Some(self.resource)
            && self.rest == held.rest()
            && all(&self.roles, &held.roles)
            && all(&self.scopes, &held.scopes)
    }

    /// Whether the record covers all that is allowed now, so that a token of that answer may bear its index.
    #[must_use]
    pub fn covers(&self, held: &Entitlement) -> bool {
        let all = |names: &[Arc<str>], of: &[Arc<str>]| names.iter().all(|n| of.contains(n));
        self.rest == held.rest() && all(&held.roles, &self.roles) && all(&held.scopes, &self.scopes)
    }
}

#[cfg(test)]
mod tests;

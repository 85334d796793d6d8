//! Whether the cluster's past is still the one that was watched: etcd can be set back to a backup.
//!
//! Invariant: only a list without resourceVersion is compared. It is a quorum read, whichever API server answers,
//! so it is never below what was seen before, unless time went back.
//!
//! A watch of a revision that is yet to come is taken up and stays silent until it has come: without asking, a
//! consumer would believe its old picture for as long.

use std::fmt;

/// The proof that the cluster was set back to an older state. What was known of it is worth nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the cluster was set back to an older state, such as a backup of etcd: {what} resourceVersion {now}, and was at \
     {known}; ending, to start anew with what is there"
)]
pub struct Rewound {
    /// What was compared.
    pub what: What,
    /// The resourceVersion that was known.
    pub known: u64,
    /// The one that is there now.
    pub now: u64,
}

/// What was compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A collection, by its path.
    Collection(String),
    /// An object in a collection's list.
    Object(String),
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Collection(path) => write!(f, "{path} is at"),
            Self::Object(source) => write!(f, "an object of {source} is in a newer list at"),
        }
    }
}

/// How far a source has come, and whether to ask before it is watched on from there.
#[derive(Debug, Default)]
pub(super) struct Past {
    reached: u64,
    doubtful: bool,
}

impl Past {
    /// A watch said this revision. A server whose revisions are no numbers is not judged.
    pub(super) fn reached(&mut self, revision: &str) {
        self.reached = self.reached.max(revision.parse().unwrap_or_default());
    }

    /// The watch broke off, or ended before its time: the server may be another one now.
    pub(super) const fn doubt(&mut self) {
        self.doubtful = true;
    }

    pub(super) const fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    /// Takes in the revision of a list that was asked for without one.
    pub(super) fn judge(&mut self, path: &str, revision: &str) -> Option<Rewound> {
        self.doubtful = false;
        let now = revision.parse().ok()?;
        let known = std::mem::replace(&mut self.reached, now);
        (now < known).then(|| Rewound { what: What::Collection(path.to_owned()), known, now })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_list_that_is_behind_is_a_proof() {
        let mut past = Past::default();
        assert_eq!(past.judge("/t", "7"), None);
        past.reached("9");
        past.doubt();
        assert!(past.is_doubtful());
        assert_eq!(past.judge("/t", "9"), None);
        assert!(!past.is_doubtful());
        past.reached("8");
        assert_eq!(past.judge("/t", "x"), None);
        let rewound = past.judge("/t", "8").unwrap();
        assert_eq!((rewound.known, rewound.now), (9, 8));
        assert!(rewound.to_string().contains("/t is at resourceVersion 8, and was at 9"), "{rewound}");
        assert_eq!(past.judge("/t", "8"), None, "it is said once");
    }
}

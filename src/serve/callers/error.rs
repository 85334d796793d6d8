//! Why a caller's or a user's token is not believed.
//!
//! Invariant: what is said holds no token and is printable ASCII of at most [`LONGEST`] characters.

use std::time::Duration;

use crate::api::Reason;
use crate::crypto::ForeignError;

/// The longest description, in characters.
const LONGEST: usize = 200;

/// Why a token is not believed.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum CallerError {
    /// A bad credential: what is wrong with it, fit to be told to its bearer.
    #[error("{0}")]
    Rejected(String),
    /// An issuer that is not trusted here: which, fit to be told.
    #[error("{0}")]
    Untrusted(String),
    /// What it takes to check the token can't be had now.
    #[error("{what} can't be had now")]
    Unavailable {
        /// What is missing.
        what: String,
        /// When to come again; at least a second.
        retry_after: Duration,
    },
}

impl CallerError {
    pub(in crate::serve) fn rejected(description: impl AsRef<str>) -> Self {
        Self::Rejected(said(description.as_ref()))
    }

    pub(in crate::serve) fn untrusted(description: impl AsRef<str>) -> Self {
        Self::Untrusted(said(description.as_ref()))
    }

    pub(in crate::serve) fn unavailable(what: &str, retry_after: Duration) -> Self {
        Self::Unavailable { what: said(what), retry_after: retry_after.max(Duration::from_secs(1)) }
    }

    /// The reason of the closed set.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Rejected(_) => Reason::CredentialRejected,
            Self::Untrusted(_) => Reason::IssuerNotTrusted,
            Self::Unavailable { .. } => Reason::Unknown,
        }
    }
}

impl From<&ForeignError> for CallerError {
    fn from(error: &ForeignError) -> Self {
        Self::rejected(error.to_string())
    }
}

fn said(text: &str) -> String {
    text.chars().take(LONGEST).map(|c| if matches!(c, ' '..='~') { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_short_and_printable() {
        let error = CallerError::rejected(format!("a\u{1b}[2J\u{e9}{}", "x".repeat(500)));
        let text = error.to_string();
        assert!(text.starts_with("a?[2J?xxx"), "{text}");
        assert_eq!(text.len(), LONGEST);
    }

    #[test]
    fn each_has_its_reason() {
        let later = CallerError::unavailable("the keys", Duration::ZERO);
        assert!(matches!(later, CallerError::Unavailable { retry_after, .. } if retry_after.as_secs() == 1));
        assert_eq!(later.reason(), Reason::Unknown);
        assert_eq!(CallerError::rejected("").reason(), Reason::CredentialRejected);
        assert_eq!(CallerError::untrusted("").reason(), Reason::IssuerNotTrusted);
    }
}

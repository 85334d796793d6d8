//! Why a request is refused: the OAuth error, the HTTP status, the reason of the closed set.
//!
//! Invariants: a description holds nothing of a token or assertion and only the characters of RFC 6749 §5.2; the
//! reason is also the audit line's and the metric's.

use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::api::Reason;
use crate::net::listen::{Response, json};

/// The error codes in use (RFC 6749 §5.2, RFC 8693 §2.2.2, RFC 8707 §2, RFC 7009 §2.2.1, RFC 6750 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    InvalidRequest,
    InvalidClient,
    InvalidGrant,
    InvalidScope,
    InvalidTarget,
    UnauthorizedClient,
    UnsupportedGrantType,
    UnsupportedTokenType,
    /// Not of OAuth's: the service can't answer now.
    TemporarilyUnavailable,
    /// Not of OAuth's: too many requests.
    SlowDown,
    /// Not of OAuth's: a fault of ours.
    ServerError,
}

impl Code {
    /// The code on the wire.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidClient => "invalid_client",
            Self::InvalidGrant => "invalid_grant",
            Self::InvalidScope => "invalid_scope",
            Self::InvalidTarget => "invalid_target",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::UnsupportedTokenType => "unsupported_token_type",
            Self::TemporarilyUnavailable => "temporarily_unavailable",
            Self::SlowDown => "slow_down",
            Self::ServerError => "server_error",
        }
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::InvalidClient => StatusCode::UNAUTHORIZED,
            Self::TemporarilyUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::SlowDown => StatusCode::TOO_MANY_REQUESTS,
            Self::ServerError => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// A refusal.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}: {description}", code.as_str())]
pub(super) struct Fault {
    pub(super) code: Code,
    pub(super) reason: Reason,
    pub(super) description: String,
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<u64>,
    /// The client used the `Authorization` header, so the answer names the scheme (RFC 6749 §5.2).
    pub(super) challenge: bool,
}

#[derive(Serialize)]
struct Body<'a> {
    error: &'static str,
    error_description: &'a str,
}

impl Fault {
    pub(super) fn new(code: Code, reason: Reason, description: impl AsRef<str>) -> Self {
        Self {
            code,
            reason,
            description: describable(description.as_ref()),
            status: code.status(),
            retry_after: None,
            challenge: false,
        }
    }

    /// A malformed request.
    pub(super) fn request(description: impl AsRef<str>) -> Self {
        Self::new(Code::InvalidRequest, Reason::Invalid, description)
    }

    /// A caller that is not who it must be.
    pub(super) fn client(reason: Reason, description: impl AsRef<str>) -> Self {
        Self::new(Code::InvalidClient, reason, description)
    }

    /// Not now, with when to come again.
    pub(super) fn later(reason: Reason, seconds: u64, description: impl AsRef<str>) -> Self {
        let fault = Self::new(Code::TemporarilyUnavailable, reason, description);
        Self { retry_after: Some(seconds), ..fault }
    }

    /// The world can't be believed.
    pub(super) fn unknown(description: impl AsRef<str>) -> Self {
        Self::later(Reason::Unknown, 5, description)
    }

    /// No key.
    pub(super) fn keys(description: impl AsRef<str>) -> Self {
        Self::later(Reason::KeysUnavailable, 5, description)
    }

    /// Too many requests.
    pub(super) fn slow_down(seconds: u64, description: impl AsRef<str>) -> Self {
        let fault = Self::new(Code::SlowDown, Reason::Invalid, description);
        Self { retry_after: Some(seconds.max(1)), ..fault }
    }

    /// A method or media type that is not taken.
    pub(super) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// The answer (RFC 6749 §5.2).
    pub(super) fn response(&self) -> Response {
        let body = Body { error: self.code.as_str(), error_description: &self.description };
        let mut response = json(self.status, &body);
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.challenge {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"agentid\""));
        }
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
        }
        response
    }
}

/// Only what RFC 6749 §5.2 lets stand in a description, and not too much of it.
fn describable(text: &str) -> String {
    let fit = |c: char| match c {
        '"' => '\'',
        '\u{20}'..='\u{7e}' if c != '\\' => c,
        _ => '?',
    };
    text.chars().take(500).map(fit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_keep_to_the_characters_of_the_standard() {
        assert_eq!(describable("a \"b\" \\ \n é"), "a 'b' ? ? ?");
        assert_eq!(describable(&"x".repeat(9_999)).len(), 500);
    }

    #[test]
    fn answers_say_how_to_go_on() {
        let later = Fault::later(Reason::IndexPending, 1, "soon").response();
        assert_eq!((later.status().as_u16(), later.headers()["retry-after"].to_str().unwrap()), (503, "1"));
        let client = Fault { challenge: true, ..Fault::client(Reason::CredentialRejected, "no") }.response();
        assert_eq!(client.status(), 401);
        assert!(client.headers().contains_key("www-authenticate"));
        assert_eq!(client.headers()["cache-control"], "no-store");
    }
}

//! What went wrong with a call, as a closed set of classes.
//!
//! Invariant: no error carries a response body, a credential, the output of a credential plugin, or a
//! string quoted from an object.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use kube::core::Status;

/// The longest part of an API server's message that is kept, in bytes.
const MESSAGE_LIMIT: usize = 512;

/// What kind of failure a call met: the closed set used in metrics, logs and decisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// 404: the object, or for a list the kind itself, is not there.
    NotFound,
    /// 401 or 403, or no credentials could be had.
    Forbidden,
    /// 409 with the reason `AlreadyExists`.
    AlreadyExists,
    /// Any other 409: the object has changed meanwhile.
    Conflict,
    /// 410: the resourceVersion or the list's continuation is too old.
    Expired,
    /// 400, 405, 413, 415, 422: asking again won't help.
    Invalid,
    /// 429.
    Throttled,
    /// No connection, or it broke.
    Unreachable,
    /// No answer in time: here, or at the server (408, 504). The call may have had its effect.
    Timeout,
    /// Anything else the server answered with, or an answer that can't be read.
    Server,
}

impl Class {
    /// The class as a label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not-found",
            Self::Forbidden => "forbidden",
            Self::AlreadyExists => "already-exists",
            Self::Conflict => "conflict",
            Self::Expired => "expired",
            Self::Invalid => "invalid",
            Self::Throttled => "throttled",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Server => "server",
        }
    }

    /// Whether the same call may well succeed a little later.
    #[must_use]
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::Throttled | Self::Unreachable | Self::Timeout | Self::Server)
    }

    pub(in crate::cluster) fn of_status(code: u16, reason: &str) -> Self {
        match code {
            401 | 403 => Self::Forbidden,
            404 => Self::NotFound,
            408 | 504 => Self::Timeout,
            409 if reason == "AlreadyExists" => Self::AlreadyExists,
            409 => Self::Conflict,
            410 => Self::Expired,
            400 | 405 | 406 | 413 | 415 | 422 => Self::Invalid,
            429 => Self::Throttled,
            _ => Self::Server,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{class}: {message}")]
pub struct CallError {
    class: Class,
    message: String,
    retry_after: Option<Duration>,
    nobody: bool,
}

impl CallError {
    pub(in crate::cluster) fn new(class: Class, message: impl AsRef<str>) -> Self {
        Self {
            class,
            message: clip(message.as_ref(), MESSAGE_LIMIT).to_owned(),
            retry_after: None,
            nobody: false,
        }
    }

    fn of_nobody(mut self, nobody: bool) -> Self {
        self.nobody = nobody;
        self
    }

    /// The class, for decisions and labels.
    #[must_use]
    pub const fn class(&self) -> Class {
        self.class
    }

    /// Whether the call may well succeed a little later: its class says so, the object was changed meanwhile, or it was
    /// not seen who calls (401, or no credentials could be had), which says nothing of what may be done.
    #[must_use]
    pub const fn passes(&self) -> bool {
        self.class.is_transient() || matches!(self.class, Class::Conflict) || self.nobody
    }

    /// One line for people; never a body.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// How long the server asked to be left alone.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    pub(in crate::cluster) fn after(mut self, seconds: Option<u64>) -> Self {
        self.retry_after = seconds.filter(|s| *s > 0).map(Duration::from_secs);
        self
    }

    /// From an answer of the API server, or of whatever stands before it.
    pub(in crate::cluster) fn from_status(status: &Status) -> Self {
        let class = Class::of_status(status.code, &status.reason);
        // kube puts a body that is no Status (a proxy's page) into the message.
        let message = if status.reason == "Failed to parse error data" {
            format!("HTTP {} without a Status", status.code)
        } else {
            one_line(&status.message)
        };
        let seconds = status.details.as_ref().map(|d| u64::from(d.retry_after_seconds));
        Self::new(class, message).after(seconds).of_nobody(status.code == 401)
    }

    /// From kube's error, leaving out what may hold content.
    #[must_use]
    pub fn from_kube(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::from_status(&status),
            kube::Error::SerdeError(e) => Self::new(Class::Server, shape_error(&e)),
            // The output of an exec plugin is part of these errors' texts.
            kube::Error::Auth(_) => {
                Self::new(Class::Forbidden, "no credentials could be had").of_nobody(true)
            }
            kube::Error::HyperError(e) => Self::new(Class::Unreachable, chain(&e)),
            kube::Error::Service(e) => {
                if e.is::<kube::client::AuthError>() {
                    return Self::new(Class::Forbidden, "no credentials could be had").of_nobody(true);
                }
                Self::new(Class::Unreachable, chain(e.as_ref()))
            }
            kube::Error::ReadEvents(e) => Self::new(Class::Unreachable, chain(&e)),
            kube::Error::FromUtf8(_) => Self::new(Class::Server, "the answer is not UTF-8"),
            kube::Error::InferKubeconfig(e) => Self::new(Class::Invalid, super::kubeconfig_text(&e)),
            other => Self::new(Class::Invalid, one_line(&other.to_string())),
        }
    }
}

impl From<kube::Error> for CallError {
    fn from(error: kube::Error) -> Self {
        Self::from_kube(error)
    }
}

/// What serde says of an answer, without what it quotes from it.
pub(in crate::cluster) fn shape_error(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match (text.find('"'), text.rfind('"')) {
        (Some(first), Some(last)) if first < last => format!("{}\"…\"{}", &text[..first], &text[last + 1..]),
        _ => text,
    }
}

/// An error and its causes, each said once.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut seen = BTreeSet::new();
    let mut parts = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next.filter(|_| parts.len() < 8) {
        let text = one_line(&error.to_string());
        if seen.insert(text.clone()) {
            parts.push(text);
        }
        next = error.source();
    }
    parts.join(": ")
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// At most `limit` bytes, cut between characters.
pub(in crate::cluster) fn clip(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16, reason: &str, message: &str) -> Status {
        Status { code, reason: reason.into(), message: message.into(), ..Status::failure("", "") }
    }

    #[test]
    fn answers_are_classed() {
        for (code, reason, class) in [
            (401, "Unauthorized", Class::Forbidden),
            (403, "Forbidden", Class::Forbidden),
            (404, "NotFound", Class::NotFound),
            (409, "AlreadyExists", Class::AlreadyExists),
            (409, "Conflict", Class::Conflict),
            (410, "Expired", Class::Expired),
            (422, "Invalid", Class::Invalid),
            (429, "TooManyRequests", Class::Throttled),
            (500, "InternalError", Class::Server),
            (504, "Timeout", Class::Timeout),
        ] {
            let error = CallError::from_status(&status(code, reason, "m"));
            assert_eq!(error.class(), class, "{code} {reason}");
            assert_eq!(
                error.passes(),
                [401, 429, 500, 504].contains(&code) || reason == "Conflict",
                "{code}"
            );
        }
    }

    #[test]
    fn a_body_never_becomes_the_message() {
        let page = status(502, "Failed to parse error data", "<html>cookie=hunter2</html>");
        assert_eq!(CallError::from_status(&page).to_string(), "server: HTTP 502 without a Status");
        let quoted = serde_json::from_str::<u8>(r#""hun\"ter2""#).unwrap_err();
        assert!(!shape_error(&quoted).contains("ter2"), "{}", shape_error(&quoted));
        assert!(shape_error(&quoted).contains("expected u8"));
    }

    #[test]
    fn messages_are_cut_between_characters() {
        assert_eq!(clip("aäb", 2), "a");
        assert_eq!(clip("aäb", 3), "aä");
        let long = CallError::new(Class::Server, "ä".repeat(1000));
        assert!(long.message().len() <= MESSAGE_LIMIT);
    }
}

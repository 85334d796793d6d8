//! How a command reaches the token service, and what its refusals mean.
//!
//! Invariants: a credential is read from its file for every request and never shown; an answer is read within bounds.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use http::StatusCode;
use serde_json::Value;
use thiserror::Error;

use super::text::printable;
use crate::net::fetch::{FetchError, FetchOptions, Guard, Roots, post_form};

/// The one `client_assertion_type` in use (RFC 7523 §2.2).
pub const JWT_BEARER_ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// The longest service-account token, in bytes.
const LONGEST_TOKEN: u64 = 64 << 10;

/// Where the token service is, and how the pod says who it is.
#[derive(Clone, Debug, Args)]
pub struct Server {
    /// The token service: the issuer's URL
    #[arg(long, value_name = "URL", env = "AGENTID_ISSUER", help_heading = "Token service")]
    pub server: String,
    /// Certificates (PEM) that may vouch for it, such as ca.crt of agentid-trust; the system's when absent
    #[arg(long, value_name = "FILE", env = "AGENTID_CA", help_heading = "Token service")]
    pub ca: Option<PathBuf>,
    /// The pod's projected service-account token; its audience is the issuer
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/var/run/secrets/agentid/token",
        help_heading = "Token service"
    )]
    pub token_file: PathBuf,
    // The text of --help, not HTML.
    #[allow(rustdoc::invalid_html_tags)]
    /// Which agent, where the pod may be more than one: its id or <namespace>/<name>
    #[arg(long, value_name = "AGENT", help_heading = "Token service")]
    pub client_id: Option<String>,
}

/// Why the token service gave nothing.
#[derive(Debug, Error)]
pub enum ServerError {
    /// A file that can't be read.
    #[error("{what} {path}: {source}")]
    File {
        /// What it is.
        what: &'static str,
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A service-account token that is none.
    #[error("the service-account token {path} is empty; is the volume's serviceAccountToken source there?")]
    NoToken {
        /// The file.
        path: String,
    },
    /// No answer.
    #[error("the token service can't be reached: {0}")]
    Unreachable(#[from] FetchError),
    /// It can't answer now.
    #[error("the token service can't answer now ({status}): {description}")]
    Later {
        /// The status.
        status: StatusCode,
        /// What it says.
        description: String,
        /// When to come again.
        after: Option<Duration>,
    },
    /// It refuses (RFC 6749 §5.2).
    #[error("the token service refuses: {code}: {description}{remedy}")]
    Refused {
        /// The OAuth error.
        code: String,
        /// What it says.
        description: String,
        /// What to do.
        remedy: &'static str,
    },
    /// An answer that can't be understood.
    #[error("the token service's answer can't be understood: {0}")]
    Answer(&'static str),
}

impl ServerError {
    /// Whether it is the agent that is refused, not this one request or moment.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }

    /// The exit code that tells this from other failures.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Refused { .. } => 3,
            Self::Unreachable(_) | Self::Later { .. } | Self::Answer(_) => 4,
            Self::File { .. } | Self::NoToken { .. } => 5,
        }
    }
}

const fn remedy(code: &[u8]) -> &'static str {
    match code {
        b"invalid_client" => {
            "; see `agentid why <agent>` and the pod's label, service account and token volume"
        }
        b"invalid_target" => "; an AgentGrant must give the agent something on that resource",
        b"invalid_scope" => "; ask for less, or have the AgentGrant widened",
        b"unauthorized_client" => "; ask for the verb run on this AgentIdentity",
        b"invalid_grant" => "; use a live token whose audience is the issuer",
        _ => "",
    }
}

/// Reads a token from a file.
///
/// # Errors
/// [`ServerError::File`], [`ServerError::NoToken`].
pub fn read_token(path: &Path) -> Result<String, ServerError> {
    use std::io::Read;
    let shown = path.display().to_string();
    let failed = |source| ServerError::File { what: "token", path: shown.clone(), source };
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(LONGEST_TOKEN).read_to_string(&mut text))
        .map_err(failed)?;
    let token = text.trim().to_owned();
    if token.is_empty() { Err(ServerError::NoToken { path: shown }) } else { Ok(token) }
}

impl Server {
    /// Posts a form to an endpoint and gives what a success says.
    ///
    /// # Errors
    /// [`ServerError`].
    pub async fn post(&self, path: &str, form: &[(&str, &str)]) -> Result<Value, ServerError> {
        let roots =
            match &self.ca {
                None => Roots::System,
                Some(path) => Roots::Pem(std::fs::read_to_string(path).map_err(|source| {
                    ServerError::File { what: "certificates", path: path.display().to_string(), source }
                })?),
            };
        // Whom to ask is the operator of this command's own word.
        let options = FetchOptions { roots, guard: Guard::Anywhere, ..FetchOptions::default() };
        let url = format!("{}{path}", self.server.trim_end_matches('/'));
        let answer = post_form(&url, form, &options).await?;
        let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        if answer.status.is_success() {
            return if body.is_object() {
                Ok(body)
            } else {
                Err(ServerError::Answer("it is no JSON object"))
            };
        }
        let text = |name: &str| printable(body.get(name).and_then(Value::as_str).unwrap_or_default());
        let (code, description) = (text("error"), text("error_description"));
        if answer.status.is_server_error() || answer.status == StatusCode::TOO_MANY_REQUESTS {
            let after = answer.headers.get(http::header::RETRY_AFTER);
            let after = after.and_then(|v| v.to_str().ok()?.parse().ok()).map(Duration::from_secs);
            return Err(ServerError::Later { status: answer.status, description, after });
        }
        if code.is_empty() {
            return Err(ServerError::Answer("a refusal without an OAuth error; is this the issuer's URL?"));
        }
        Err(ServerError::Refused { remedy: remedy(code.as_bytes()), code, description })
    }

    /// The parameters by which the pod says who it is.
    ///
    /// # Errors
    /// As [`read_token`].
    pub fn identification(&self) -> Result<Vec<(&'static str, String)>, ServerError> {
        let mut form = vec![
            ("client_assertion_type", JWT_BEARER_ASSERTION.to_owned()),
            ("client_assertion", read_token(&self.token_file)?),
        ];
        form.extend(self.client_id.iter().map(|id| ("client_id", id.clone())));
        Ok(form)
    }
}

/// A form of owned values, as it is posted.
pub fn borrowed<'a>(form: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    form.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

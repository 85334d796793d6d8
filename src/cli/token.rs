//! `agentid token`: explains a token, or verifies it.
//!
//! Invariants: neither the token nor its signature is ever printed; whatever a token says is shown escaped;
//! what was not verified is said not to be.

mod explain;
mod fetch;
mod get;
mod input;
mod status;
#[cfg(test)]
mod tests;
mod verify;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Value, json};
use thiserror::Error;

use self::fetch::FetchError;
use self::input::InputError;
use self::status::StatusError;
use super::look::{self, LookError, Output, documents};
use super::server::ServerError;
use crate::crypto::{JwkError, VerifyError, inspect};

/// Get, explain or verify a token
#[derive(Debug, Args)]
pub struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Explain what a token says, claim by claim, and when it expires; verifies nothing
    Inspect(InspectArgs),
    /// Get a token for a resource from the token service
    Get(get::GetArgs),
    // A text here would take the place of the command's own, which says more.
    Verify(verify::VerifyArgs),
}

/// Explain what a token says, claim by claim, and when it expires.
///
/// Nothing is verified: anybody can write a token that says anything. Verify with `agentid token verify`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  agentid token inspect /var/run/agentid/tickets.jwt
  kubectl get secret triage-agentid -o jsonpath='{.data.tickets\\.jwt}' | base64 -d | agentid token inspect")]
struct InspectArgs {
    /// A file that holds the token, - for standard input (the default), or the token itself
    #[arg(value_name = "TOKEN|-|FILE", default_value = "-", hide_default_value = true)]
    token: String,
    /// How to print the explanation
    #[arg(long, short, value_parser = documents(), default_value = "text")]
    output: Output,
}

/// Why a token was not explained, or was refused.
#[derive(Debug, Error)]
pub enum TokenError {
    /// No token could be read.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The token service gave none.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// What was read is no token.
    #[error("not a token: {0}")]
    NotAToken(VerifyError),
    /// The token was refused.
    #[error("refused: {0}")]
    Refused(VerifyError),
    /// The token's status refuses it, or can't be told.
    #[error("refused: {0}")]
    Status(StatusError),
    /// The keys can't be had.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The keys can't be used.
    #[error("{from}: {source}")]
    Jwks {
        /// The file or URL.
        from: String,
        /// Why.
        source: JwkError,
    },
    /// Standard output can't be written.
    #[error(transparent)]
    Print(#[from] LookError),
}

impl TokenArgs {
    /// Explains or verifies.
    ///
    /// # Errors
    /// [`TokenError`]; of a token that was refused, after the checks were printed.
    pub async fn run(self) -> Result<(), TokenError> {
        match self.command {
            TokenCommand::Inspect(args) => args.run(),
            TokenCommand::Get(args) => args.run().await,
            TokenCommand::Verify(args) => args.run().await,
        }
    }
}

impl InspectArgs {
    fn run(&self) -> Result<(), TokenError> {
        let token = input::read(&self.token)?;
        let found = inspect(&token).map_err(TokenError::NotAToken)?;
        let now = Timestamp::now();
        Ok(look::print(self.output, &explain::json(&found, now), |_| explain::text(&found, now))?)
    }
}

/// The time claims of a token that are whole seconds within the calendar.
fn times(claims: &serde_json::Map<String, Value>) -> [(&'static str, Option<Timestamp>); 3] {
    ["iat", "nbf", "exp"].map(|name| {
        let at = claims.get(name).and_then(Value::as_i64).and_then(|s| Timestamp::from_second(s).ok());
        (name, at)
    })
}

fn times_json(claims: &serde_json::Map<String, Value>, now: Timestamp) -> Value {
    let [issued, not_before, expires] = times(claims).map(|(_, at)| at);
    json!({
        "issuedAt": issued,
        "notBefore": not_before,
        "expiresAt": expires,
        "expiresInSeconds": expires.map(|e| e.as_second() - now.as_second()),
        "lifetimeSeconds": issued.zip(expires).map(|(i, e)| e.as_second() - i.as_second()),
        "expired": expires.map(|e| e <= now),
    })
}

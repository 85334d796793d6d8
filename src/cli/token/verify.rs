//! `agentid token verify`: every check of [`crate::crypto::verify()`], told one by one.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::look::{Output, documents, print};
use super::super::text::{instant, printable};
use super::status::{self, StatusError};
use super::{TokenError, fetch, input, times, times_json};
use crate::crypto::{CHECKS, Expect, JwkSet, StatusRef, Typ, Verified, VerifyError, inspect, verify};

/// Verify a token against published keys, an issuer and an audience.
///
/// The exit code is 0 if every check passed and 1 if the token is refused or the keys can't be had. A token of a
/// revoked key fails, since the key is no longer published; whether the token itself was withdrawn before it expires
/// is looked up with --status alone.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  agentid token verify --jwks /var/run/agentid/jwks.json --issuer https://agents.example.com \\
      --audience https://tickets.example.com /var/run/agentid/tickets.jwt
  agentid token verify --jwks https://agents.example.com/jwks --issuer https://agents.example.com \\
      --audience https://tickets.example.com - < tickets.jwt
  agentid token verify --status --ca /var/run/agentid/ca.crt --jwks https://agents.example.com/jwks \\
      --issuer https://agents.example.com --audience https://tickets.example.com tickets.jwt")]
pub(super) struct VerifyArgs {
    /// The issuer's JWK set: a file, or an https URL (http on loopback only)
    #[arg(long, value_name = "FILE|URL")]
    jwks: String,
    /// What iss must be
    #[arg(long, value_name = "URL", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    issuer: String,
    /// What aud must be
    #[arg(long, value_name = "AUDIENCE", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    audience: String,
    /// Which kind of token is accepted; the kind that the token says it is when absent
    #[arg(long, value_enum)]
    typ: Option<Kind>,
    /// By how many seconds the issuer's clock may differ
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=300))]
    leeway: u32,
    /// Fetch the token's status list from its issuer, and refuse the token if it was withdrawn
    #[arg(long)]
    status: bool,
    /// Certificates (PEM) that may vouch for the server of the keys and the status list; the system's when absent
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// How to print the result
    #[arg(long, short, value_parser = documents(), default_value = "text")]
    output: Output,
    /// A file that holds the token, - for standard input, or the token itself
    #[arg(value_name = "TOKEN|-|FILE")]
    token: String,
}

/// The kinds of token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// An access token (`typ: at+jwt`)
    Access,
    /// An identity token (`typ: JWT`)
    Identity,
}

impl VerifyArgs {
    pub(super) async fn run(self) -> Result<(), TokenError> {
        let token = input::read(&self.token)?;
        let document = fetch::document(&self.jwks, self.ca.as_deref()).await?;
        let parsed = JwkSet::parse(&document)
            .map_err(|source| TokenError::Jwks { from: printable(&self.jwks), source })?;
        for skipped in &parsed.skipped {
            let kid = skipped.kid.as_deref().map(printable).unwrap_or_default();
            eprintln!("note: key {} {kid} of the set is of no use here: {}", skipped.index, skipped.reason);
        }
        let now = Timestamp::now();
        let expect = Expect {
            issuer: &self.issuer,
            audience: &self.audience,
            typ: self.typ(&token),
            leeway: self.leeway,
            now: now.as_second(),
        };
        let result = verify(&token, &parsed.set, &expect);
        // The list of a token that is refused is nobody's business.
        let status = match &result {
            Ok(verified) if self.status => Some(
                status::look(
                    &verified.claims,
                    &self.issuer,
                    &parsed.set,
                    self.ca.as_deref(),
                    (now, self.leeway),
                )
                .await,
            ),
            _ => None,
        };
        let mut value = as_json(&result, expect.typ, now);
        if let Some(status) = &status {
            status::add(&mut value, status);
        }
        let words = |_: &Value| text(&result, status.as_ref(), (expect.typ, self.typ.is_none()), now);
        print(self.output, &value, words)?;
        result.map_err(TokenError::Refused)?;
        status.transpose().map(drop).map_err(TokenError::Status)
    }

    /// The kind asked for; else the one that the header names, which the verifier then holds it to.
    fn typ(&self, token: &str) -> Typ {
        match self.typ {
            Some(Kind::Access) => Typ::Access,
            Some(Kind::Identity) => Typ::Identity,
            None => {
                let header = inspect(token).map(|t| t.header).unwrap_or_default();
                let typ = header.get("typ").and_then(Value::as_str).unwrap_or_default();
                if Typ::Identity.matches(typ) { Typ::Identity } else { Typ::Access }
            }
        }
    }
}

fn meaning(check: &str) -> &'static str {
    match check {
        "size" => "not longer than 16 KiB",
        "format" => "a compact JWS in canonical base64url (RFC 7515 §7.1)",
        "json" => "header and claims are objects with unique members (RFC 8725 §2.4)",
        "crit" => "no critical extension (RFC 7515 §4.1.11)",
        "typ" => "the kind of token that is expected (RFC 8725 §3.11)",
        "alg" => "an algorithm of the allowlist: ES256, RS256 (RFC 8725 §3.1)",
        "kid" => "a key that the issuer publishes",
        "key-alg" => "that key is for that algorithm (RFC 8725 §3.1)",
        "signature" => "signed by that key and unchanged since",
        "claims" => "every required claim is there and of its type (RFC 9068 §2.2)",
        "iss" => "the issuer that is expected",
        "aud" => "for this audience and no other",
        "exp" => "not expired",
        "nbf" => "already valid",
        "iat" => "not issued in the future",
        _ => "",
    }
}

/// What came of each check: passed, failed or not made.
fn outcomes(result: &Result<Verified, VerifyError>) -> Vec<(&'static str, &'static str)> {
    let failed = result.as_ref().err().map(VerifyError::check);
    let mut passed = true;
    CHECKS
        .into_iter()
        .map(|check| {
            if failed == Some(check) {
                passed = false;
                return (check, "failed");
            }
            (check, if passed { "passed" } else { "not-made" })
        })
        .collect()
}

pub(super) fn text(
    result: &Result<Verified, VerifyError>,
    status: Option<&Result<StatusRef, StatusError>>,
    (typ, any_typ): (Typ, bool),
    now: Timestamp,
) -> String {
    let mut out = String::new();
    for (check, outcome) in outcomes(result) {
        // Writing to a String can't fail.
        let _ = match (outcome, result) {
            ("passed", _) => writeln!(out, "ok       {check:<10} {}", meaning(check)),
            ("failed", Err(error)) => writeln!(out, "FAILED   {check:<10} {}", printable(&error.to_string())),
            _ => writeln!(out, "not made {check:<10}"),
        };
    }
    if let Some(status) = status {
        out.push_str(&status::text(status));
    }
    if any_typ {
        let _ = writeln!(out, "note     typ        {} as the token says; --typ demands one", typ.as_str());
    }
    let _ = match result {
        Ok(verified) if status.is_none_or(Result::is_ok) => {
            let sub = verified.claims.get("sub").and_then(Value::as_str).unwrap_or_default();
            let expires = times(&verified.claims)[2].1.map(|at| instant(at, now)).unwrap_or_default();
            writeln!(
                out,
                "\nVerified: {}\n  signed with {} by key {}\n  expires {expires}",
                printable(sub),
                verified.algorithm,
                printable(&verified.kid)
            )
        }
        _ => writeln!(out, "\nRefused."),
    };
    out
}

pub(super) fn as_json(result: &Result<Verified, VerifyError>, typ: Typ, now: Timestamp) -> Value {
    let checks: Vec<_> = outcomes(result)
        .into_iter()
        .map(|(check, outcome)| json!({"check": check, "result": outcome, "meaning": meaning(check)}))
        .collect();
    match result {
        Ok(verified) => json!({
            "verified": true,
            "typ": typ.as_str(),
            "algorithm": verified.algorithm.as_str(),
            "kid": verified.kid,
            "claims": verified.claims,
            "times": times_json(&verified.claims, now),
            "checks": checks,
        }),
        Err(error) => json!({
            "verified": false,
            "typ": typ.as_str(),
            "failed": error.check(),
            "problem": error.to_string(),
            "checks": checks,
        }),
    }
}

//! A token in words: what each member of the header and each claim means, and which standard says so.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::super::text::{instant, printable, span};
use crate::crypto::{Inspected, Typ};

/// What a header member means.
fn of_header(name: &str, value: &Value) -> (&'static str, &'static str) {
    match (name, value.as_str().unwrap_or_default()) {
        ("typ", typ) if Typ::Access.matches(typ) => ("an OAuth access token", "RFC 9068 §2.1"),
        ("typ", typ) if Typ::Identity.matches(typ) => (
            "a JWT: here, the statement of who an agent is (JWT-SVID)",
            "RFC 7519 §5.1, SPIFFE JWT-SVID §2.3",
        ),
        ("typ", _) => ("the kind of token; not one that agentid issues", "RFC 8725 §3.11"),
        ("alg", "ES256") => ("signed with ECDSA on P-256 and SHA-256", "RFC 7518 §3.4"),
        ("alg", "RS256") => ("signed with RSA PKCS #1 v1.5 and SHA-256", "RFC 7518 §3.3"),
        ("alg", "none") => ("NOT SIGNED: no verifier may accept it", "RFC 8725 §3.2"),
        ("alg", _) => ("the signature algorithm; not one that agentid uses", "RFC 7515 §4.1.1"),
        ("kid", _) => (
            "the key that signed, as the issuer's JWKS names it; here its thumbprint",
            "RFC 7515 §4.1.4, RFC 7638",
        ),
        ("jku" | "jwk" | "x5u" | "x5c", _) => {
            ("names or carries a key; a verifier must not follow it", "RFC 8725 §3.10")
        }
        ("crit", _) => ("extensions that a verifier must understand; agentid has none", "RFC 7515 §4.1.11"),
        _ => ("not known to agentid", ""),
    }
}

/// What a claim means.
fn of_claim(name: &str, value: &Value) -> (&'static str, &'static str) {
    match name {
        "iss" => ("who issued it; a verifier compares it byte for byte", "RFC 7519 §4.1.1"),
        "sub" => match value.as_str() {
            Some(sub) if sub.starts_with("spiffe://") => (
                "who it speaks of: a SPIFFE ID, compared as a whole and never taken apart",
                "RFC 7519 §4.1.2, SPIFFE-ID §2",
            ),
            _ => ("who it speaks of", "RFC 7519 §4.1.2"),
        },
        "aud" => ("for whom it is; everybody else must refuse it", "RFC 7519 §4.1.3"),
        "exp" => ("when it expires", "RFC 7519 §4.1.4"),
        "nbf" => ("not valid before", "RFC 7519 §4.1.5"),
        "iat" => ("when it was issued", "RFC 7519 §4.1.6"),
        "jti" => ("this token's own id, for logs and against replay", "RFC 7519 §4.1.7"),
        "client_id" => ("the OAuth client that it was issued to: the agent", "RFC 8693 §4.3"),
        "scope" => ("the scopes granted, separated by spaces", "RFC 8693 §4.2"),
        "roles" => ("the roles granted at the audience", "RFC 9068 §2.2.3.1, RFC 7643 §4.1.2"),
        "groups" | "entitlements" => ("rights granted at the audience", "RFC 9068 §2.2.3.1"),
        "act" => ("who acts for the subject; the outermost counts", "RFC 8693 §4.1"),
        "may_act" => ("who may act for the subject", "RFC 8693 §4.4"),
        "cnf" => ("the key that whoever presents it must hold", "RFC 7800 §3.1"),
        "status" => ("where its revocation is published", "Token Status List §6"),
        "sub_profile" => ("what the subject is", "draft-mora-oauth-entity-profiles"),
        "client_profile" => ("what the client is", "draft-mora-oauth-entity-profiles"),
        "sub_id" => ("the subject, as its own issuer names it", "RFC 9493"),
        "agentid.dev" => (
            "the agent's Kubernetes object, for people and logs; not to be used for authorization",
            "private to agentid",
        ),
        "kubernetes.io" => ("the pod and service account that it is bound to", "private to Kubernetes"),
        _ => ("not known to agentid", ""),
    }
}

const NOTHING_VERIFIED: &str =
    "Nothing was verified: neither signature nor issuer, audience or time. `agentid token verify` does.";

/// In words.
pub(super) fn text(token: &Inspected, now: Timestamp) -> String {
    let mut out = String::new();
    // Writing to a String can't fail.
    let _ = write_text(&mut out, token, now);
    out
}

fn write_text(out: &mut String, token: &Inspected, now: Timestamp) -> std::fmt::Result {
    section(out, "Header", &token.header, of_header)?;
    section(out, "Claims", &token.claims, of_claim)?;
    let [(_, issued), (_, not_before), (_, expires)] = super::times(&token.claims);
    writeln!(out, "Times")?;
    match issued {
        Some(at) => writeln!(out, "  issued   {}", instant(at, now))?,
        None => writeln!(out, "  issued   not said")?,
    }
    if let Some(at) = not_before {
        writeln!(out, "  valid    not before {}", instant(at, now))?;
    }
    match expires {
        Some(at) if at <= now => writeln!(out, "  EXPIRED  {}", instant(at, now))?,
        Some(at) => writeln!(out, "  expires  {}", instant(at, now))?,
        None => writeln!(out, "  expires  not said: no verifier of agentid's tokens may accept it")?,
    }
    if let Some((issued, expires)) = issued.zip(expires)
        && expires > issued
    {
        writeln!(out, "  lives    {} in all", span(expires.duration_since(issued)))?;
    }
    writeln!(out, "\n{NOTHING_VERIFIED}")
}

fn section(
    out: &mut String,
    title: &str,
    members: &Map<String, Value>,
    of: fn(&str, &Value) -> (&'static str, &'static str),
) -> std::fmt::Result {
    writeln!(out, "{title}")?;
    for (name, value) in members {
        let (meaning, standard) = of(name, value);
        let shown = match value {
            Value::String(text) => printable(text),
            other => printable(&other.to_string()),
        };
        let standard = if standard.is_empty() { String::new() } else { format!(" ({standard})") };
        writeln!(out, "  {}: {shown}\n      {meaning}{standard}", printable(name))?;
    }
    writeln!(out)
}

/// As JSON: the members as they stand, with their meanings beside them.
pub(super) fn json(token: &Inspected, now: Timestamp) -> Value {
    let meanings = |members: &Map<String, Value>, of: fn(&str, &Value) -> (&'static str, &'static str)| {
        members
            .iter()
            .map(|(name, value)| {
                let (meaning, standard) = of(name, value);
                (name.clone(), json!({"meaning": meaning, "standard": standard}))
            })
            .collect::<Map<_, _>>()
    };
    json!({
        "verified": false,
        "header": token.header,
        "claims": token.claims,
        "meanings": {
            "header": meanings(&token.header, of_header),
            "claims": meanings(&token.claims, of_claim),
        },
        "times": super::times_json(&token.claims, now),
    })
}

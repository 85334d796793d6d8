//! Strict verification of our tokens (RFC 7519 §7.2, RFC 8725, RFC 9068 §4). Invariants: a [`Verified`] exists only
//! for a token that passed every check; time is an argument; neither an error nor a result holds the signature.
//!
//! `jsonwebtoken` checks the signature alone. The rest is here, because its own validation accepts absent claims
//! and looks at neither `typ` nor `crit` nor a future `iat`.

use std::str::FromStr;

use serde_json::{Map, Value};
use thiserror::Error;

use super::{
    Algorithm, FormError, Inspected, JwkSet,
    compact::{Parts, same_media_type, shown, split},
    install_provider,
};

/// Longer tokens are refused unread, in bytes.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// The names of the checks, in the order in which they are made; see [`VerifyError::check`].
pub const CHECKS: [&str; 15] = [
    "size",
    "format",
    "json",
    "crit",
    "typ",
    "alg",
    "kid",
    "key-alg",
    "signature",
    "claims",
    "iss",
    "aud",
    "exp",
    "nbf",
    "iat",
];

/// The kinds of token, told apart by the header's `typ` (RFC 8725 §3.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Typ {
    /// An access token (RFC 9068 §2.1).
    Access,
    /// An agent's identity token (JWT-SVID).
    Identity,
}

impl Typ {
    /// The spelling that we sign.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Access => "at+jwt",
            Self::Identity => "JWT",
        }
    }

    /// Whether a header's `typ` says this: a media type, compared without case, `application/` optional
    /// (RFC 7515 §4.1.9).
    #[must_use]
    pub fn matches(self, typ: &str) -> bool {
        same_media_type(typ, self.as_str())
    }

    /// RFC 9068 §2.2 for access tokens; the same without `client_id` for identity tokens.
    const fn required_claims(self) -> &'static [&'static str] {
        match self {
            Self::Access => &["iss", "exp", "aud", "sub", "client_id", "iat", "jti"],
            Self::Identity => &["iss", "sub", "aud", "exp", "iat", "jti"],
        }
    }
}

/// What a token must be to be accepted.
#[derive(Debug, Clone, Copy)]
pub struct Expect<'a> {
    /// `iss`, compared byte for byte.
    pub issuer: &'a str,
    /// The one `aud`, compared byte for byte.
    pub audience: &'a str,
    /// The kind of token.
    pub typ: Typ,
    /// By how many seconds the signer's clock may differ.
    pub leeway: u32,
    /// The time, in seconds since the epoch.
    pub now: i64,
}

/// What a token must be to be accepted, whomever it is for: [`Expect`] without the audience.
#[derive(Debug, Clone, Copy)]
pub struct ExpectAny<'a> {
    /// `iss`, compared byte for byte.
    pub issuer: &'a str,
    /// The kind of token.
    pub typ: Typ,
    /// By how many seconds the signer's clock may differ.
    pub leeway: u32,
    /// The time, in seconds since the epoch.
    pub now: i64,
}

/// Why a token is refused. Values shown come from the token: escaped and shortened.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum VerifyError {
    /// Not a token at all.
    #[error(transparent)]
    Form(#[from] FormError),
    /// The header has critical extensions, none of which is understood.
    #[error("the header has the member \"crit\": no extension is understood")]
    Crit,
    /// Another kind of token, or none said.
    #[error("the header's typ is {found}, expected {expected:?}")]
    Typ {
        /// What the header says.
        found: String,
        /// What was asked for.
        expected: &'static str,
    },
    /// An algorithm outside the allowlist, `none` among them.
    #[error("the header's alg is {0}, expected ES256 or RS256")]
    Alg(String),
    /// The key is not in the set.
    #[error("no key has the header's kid {0}")]
    Kid(String),
    /// The key is for another algorithm than the header says.
    #[error("the header's alg is {header}, but its key is for {key}")]
    KeyAlg {
        /// The header's algorithm.
        header: Algorithm,
        /// The key's algorithm.
        key: Algorithm,
    },
    /// Not signed by that key, or changed since.
    #[error("the signature does not match")]
    Signature,
    /// A required claim is absent or of the wrong type, or an optional one is of the wrong type.
    #[error("the claim {claim} is {problem}")]
    Claim {
        /// The claim at fault.
        claim: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Another issuer.
    #[error("iss is {found}, expected {expected:?}")]
    Iss {
        /// What the token says.
        found: String,
        /// What was asked for.
        expected: String,
    },
    /// For somebody else.
    #[error("aud is {found}, expected {expected}")]
    Aud {
        /// What the token says.
        found: String,
        /// What was asked for, quoted, or `one audience`.
        expected: String,
    },
    /// No longer valid.
    #[error("expired: exp is {exp}, now is {now}")]
    Exp {
        /// Seconds since the epoch.
        exp: i64,
        /// Seconds since the epoch.
        now: i64,
    },
    /// Not yet valid.
    #[error("not yet valid: nbf is {nbf}, now is {now}")]
    Nbf {
        /// Seconds since the epoch.
        nbf: i64,
        /// Seconds since the epoch.
        now: i64,
    },
    /// Made in the future.
    #[error("issued in the future: iat is {iat}, now is {now}")]
    Iat {
        /// Seconds since the epoch.
        iat: i64,
        /// Seconds since the epoch.
        now: i64,
    },
}

impl VerifyError {
    /// The name of the check that failed, one of [`CHECKS`]; the checks before it passed.
    #[must_use]
    pub const fn check(&self) -> &'static str {
        match self {
            Self::Form(form) => form.check(),
            Self::Crit => "crit",
            Self::Typ { .. } => "typ",
            Self::Alg(_) => "alg",
            Self::Kid(_) => "kid",
            Self::KeyAlg { .. } => "key-alg",
            Self::Signature => "signature",
            Self::Claim { .. } => "claims",
            Self::Iss { .. } => "iss",
            Self::Aud { .. } => "aud",
            Self::Exp { .. } => "exp",
            Self::Nbf { .. } => "nbf",
            Self::Iat { .. } => "iat",
        }
    }
}

/// A token that passed every check.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    /// The algorithm that it was signed with.
    pub algorithm: Algorithm,
    /// The key that signed it.
    pub kid: String,
    /// Its one audience.
    pub audience: String,
    /// Its claims.
    pub claims: Map<String, Value>,
}

/// Reads a token without checking its signature.
///
/// # Errors
/// [`VerifyError`] of the checks `size`, `format` and `json`.
pub fn inspect(token: &str) -> Result<Inspected, VerifyError> {
    Ok(split(token, MAX_TOKEN_BYTES)?.untrusted)
}

/// Verifies a token against the issuer's keys and what is expected of it.
///
/// # Errors
/// [`VerifyError`] of the first check that fails, in the order of [`CHECKS`].
pub fn verify(token: &str, keys: &JwkSet, expect: &Expect<'_>) -> Result<Verified, VerifyError> {
    let Expect { issuer, audience, typ, leeway, now } = *expect;
    verify_for(token, keys, &ExpectAny { issuer, typ, leeway, now }, Some(audience))
}

/// Verifies a token whose audience is not known beforehand, as an introspection endpoint meets it (RFC 7662 §4).
/// It still has exactly one: [`Verified::audience`], which is for the caller to judge.
///
/// # Errors
/// [`VerifyError`] of the first check that fails, in the order of [`CHECKS`]; `aud` when there is not exactly one.
pub fn verify_any_audience(
    token: &str,
    keys: &JwkSet,
    expect: &ExpectAny<'_>,
) -> Result<Verified, VerifyError> {
    verify_for(token, keys, expect, None)
}

fn verify_for(
    token: &str,
    keys: &JwkSet,
    expect: &ExpectAny<'_>,
    audience: Option<&str>,
) -> Result<Verified, VerifyError> {
    let parts = split(token, MAX_TOKEN_BYTES)?;
    let (algorithm, kid) = verify_signature(&parts, keys, expect.typ.as_str())?;
    let claims = parts.untrusted.claims;
    let audience = verify_claims(&claims, expect, audience)?;
    Ok(Verified { algorithm, kid, audience, claims })
}

/// Checks header and signature of a token of ours, of whatever kind.
pub(super) fn verify_signature(
    parts: &Parts<'_>,
    keys: &JwkSet,
    expected: &'static str,
) -> Result<(Algorithm, String), VerifyError> {
    let Parts { untrusted: Inspected { header, .. }, signed, signature, .. } = parts;
    if header.contains_key("crit") {
        return Err(VerifyError::Crit);
    }
    match header.get("typ") {
        Some(Value::String(typ)) if same_media_type(typ, expected) => {}
        other => return Err(VerifyError::Typ { found: shown(other), expected }),
    }
    let alg = header.get("alg");
    let algorithm = alg
        .and_then(Value::as_str)
        .and_then(|name| Algorithm::from_str(name).ok())
        .ok_or_else(|| VerifyError::Alg(shown(alg)))?;
    // jku, jwk and x5u are never followed: the key comes from the issuer's set or not at all.
    let kid = header.get("kid");
    let (kid, key) = kid
        .and_then(Value::as_str)
        .and_then(|kid| Some((kid, keys.find(kid)?)))
        .ok_or_else(|| VerifyError::Kid(shown(kid)))?;
    if key.algorithm() != algorithm {
        return Err(VerifyError::KeyAlg { header: algorithm, key: key.algorithm() });
    }
    install_provider();
    let signature_algorithm = match algorithm {
        Algorithm::ES256 => jsonwebtoken::Algorithm::ES256,
        Algorithm::RS256 => jsonwebtoken::Algorithm::RS256,
    };
    let decoding_key = key.decoding_key().map_err(|_| VerifyError::Signature)?;
    match jsonwebtoken::crypto::verify(signature, signed.as_bytes(), &decoding_key, signature_algorithm) {
        Ok(true) => Ok((algorithm, kid.to_owned())),
        Ok(false) | Err(_) => Err(VerifyError::Signature),
    }
}

/// Checks the claims and returns the one audience: the expected one or, if none is, whichever there is.
fn verify_claims(
    claims: &Map<String, Value>,
    expect: &ExpectAny<'_>,
    expected_audience: Option<&str>,
) -> Result<String, VerifyError> {
    for claim in expect.typ.required_claims() {
        match claims.get(*claim) {
            None => return Err(VerifyError::Claim { claim, problem: "missing" }),
            Some(Value::String(text)) if text.is_empty() => {
                return Err(VerifyError::Claim { claim, problem: "empty" });
            }
            Some(_) => {}
        }
    }
    let text = |claim| match claims.get(claim) {
        Some(Value::String(_)) | None => Ok(()),
        Some(_) => Err(VerifyError::Claim { claim, problem: "not a string" }),
    };
    ["iss", "sub", "client_id", "jti"].into_iter().try_for_each(text)?;
    let exp = seconds(claims, "exp")?;
    let iat = seconds(claims, "iat")?;
    let nbf = claims.contains_key("nbf").then(|| seconds(claims, "nbf")).transpose()?;

    if claims.get("iss").and_then(Value::as_str) != Some(expect.issuer) {
        return Err(VerifyError::Iss { found: shown(claims.get("iss")), expected: expect.issuer.to_owned() });
    }
    // One audience, and no other beside it: a second party could pass the token on to the first.
    let audience = match claims.get("aud") {
        Some(Value::Array(items)) if items.len() == 1 => items.first(),
        other => other,
    };
    let audience = match audience.and_then(Value::as_str) {
        Some(found) if expected_audience.unwrap_or(found) == found && !found.is_empty() => found,
        _ => {
            let expected =
                expected_audience.map_or_else(|| "one audience".to_owned(), |aud| format!("{aud:?}"));
            return Err(VerifyError::Aud { found: shown(claims.get("aud")), expected });
        }
    };
    let (now, leeway) = (expect.now, i64::from(expect.leeway));
    if exp <= now.saturating_sub(leeway) {
        return Err(VerifyError::Exp { exp, now });
    }
    let latest = now.saturating_add(leeway);
    match nbf {
        Some(nbf) if nbf > latest => return Err(VerifyError::Nbf { nbf, now }),
        _ => {}
    }
    if iat > latest {
        return Err(VerifyError::Iat { iat, now });
    }
    Ok(audience.to_owned())
}

/// A time claim. RFC 7519 §2 allows fractions; we sign whole seconds and accept nothing else.
pub(super) fn seconds(claims: &Map<String, Value>, claim: &'static str) -> Result<i64, VerifyError> {
    let value = claims.get(claim).and_then(Value::as_i64);
    value.ok_or(VerifyError::Claim { claim, problem: "not a whole number of seconds since the epoch" })
}

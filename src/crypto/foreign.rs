//! Strict verification of tokens that others signed: Kubernetes service-account tokens, users' OIDC tokens
//! (RFC 7519 §7.2, RFC 8725). Invariants: claims are returned as trusted only once signature, issuer and times are
//! checked; the key comes from the issuer's set alone (`jku`, `x5u`, `jwk` are never followed), its algorithm from
//! the key; time is an argument; no error holds the token.
//!
//! Whom the token is for and whom it is about are for the caller to judge: [`audiences`].

mod keys;

use serde_json::{Map, Value};
use thiserror::Error;

pub use self::keys::{ForeignAlgorithm, ForeignKey, ForeignKeys};
use super::{
    FormError, Inspected, MAX_TOKEN_BYTES,
    compact::{Parts, same_media_type, shown, split},
};

/// What another issuer's token must be to be accepted.
#[derive(Debug, Clone, Copy)]
pub struct ForeignExpect<'a> {
    /// `iss`, compared byte for byte.
    pub issuer: &'a str,
    /// The kinds of token: the values of the header's `typ` that are accepted, compared as media types; `None`
    /// accepts a header without one. Kubernetes writes none, OIDC providers mostly `JWT`, RFC 9068 `at+jwt`.
    pub typ: &'a [Option<&'a str>],
    /// By how many seconds the signer's clock may differ.
    pub leeway: u32,
    /// The time, in seconds since the epoch.
    pub now: i64,
}

/// Why another issuer's token is refused. Values shown come from the token: escaped and shortened.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ForeignError {
    /// Not a token at all.
    #[error(transparent)]
    Form(#[from] FormError),
    /// The header has critical extensions, none of which is understood.
    #[error("the header has the member \"crit\": no extension is understood")]
    Crit,
    /// A kind of token that is not accepted.
    #[error("the header's typ is {0}, which is not accepted here")]
    Typ(String),
    /// An algorithm outside the allowlist, `none` and HMAC among them.
    #[error("the header's alg is {0}, expected RS*, PS* or ES* with 256, 384 or 512")]
    Alg(String),
    /// The issuer's set has no such key. It may have changed: see [`Self::is_unknown_key`].
    #[error("no key of the issuer has the header's kid {0}")]
    Kid(String),
    /// The header names no key, and not exactly one is for its algorithm.
    #[error("the header has no kid, and {fitting} keys of the issuer are for its algorithm")]
    NoKid {
        /// How many are.
        fitting: usize,
    },
    /// The key is not for the header's algorithm.
    #[error("the header's alg is {0}, which its key is not for")]
    KeyAlg(ForeignAlgorithm),
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

impl ForeignError {
    /// The name of the check that failed, one of [`CHECKS`](super::CHECKS); the checks before it passed.
    #[must_use]
    pub const fn check(&self) -> &'static str {
        match self {
            Self::Form(form) => form.check(),
            Self::Crit => "crit",
            Self::Typ(_) => "typ",
            Self::Alg(_) => "alg",
            Self::Kid(_) | Self::NoKid { .. } => "kid",
            Self::KeyAlg(_) => "key-alg",
            Self::Signature => "signature",
            Self::Claim { .. } => "claims",
            Self::Iss { .. } => "iss",
            Self::Exp { .. } => "exp",
            Self::Nbf { .. } => "nbf",
            Self::Iat { .. } => "iat",
        }
    }

    /// Whether the issuer's newest set might have the key that this one lacks. Whoever asks for it on such an error
    /// must limit how often: the `kid` is the bearer's choice.
    #[must_use]
    pub const fn is_unknown_key(&self) -> bool {
        matches!(self, Self::Kid(_) | Self::NoKid { fitting: 0 })
    }
}

/// Reads a token without checking its signature, to find out by its `iss` whose keys to check it with.
///
/// # Errors
/// [`ForeignError::Form`] for what is no token or has more than [`MAX_TOKEN_BYTES`].
pub fn peek(token: &str) -> Result<Inspected, ForeignError> {
    Ok(split(token, MAX_TOKEN_BYTES)?.untrusted)
}

/// Verifies a token against its issuer's keys and what is expected of it, and returns its claims.
///
/// `exp` is required, `nbf` and `iat` are held to if they are there.
///
/// # Errors
/// [`ForeignError`] of the first check that fails, in the order of [`CHECKS`](super::CHECKS) less `aud`.
pub fn verify_foreign(
    token: &str,
    keys: &ForeignKeys,
    expect: &ForeignExpect<'_>,
) -> Result<Map<String, Value>, ForeignError> {
    let parts = split(token, MAX_TOKEN_BYTES)?;
    verify_signature(&parts, keys, expect)?;
    let claims = parts.untrusted.claims;
    verify_claims(&claims, expect)?;
    Ok(claims)
}

/// The audiences of a token: those of `aud`, which is a string or an array of strings (RFC 7519 §4.1.3).
///
/// # Errors
/// [`ForeignError::Claim`] if `aud` is absent or empty or holds anything else.
pub fn audiences(claims: &Map<String, Value>) -> Result<Vec<&str>, ForeignError> {
    let fault = |problem| ForeignError::Claim { claim: "aud", problem };
    let audiences = match claims.get("aud").ok_or_else(|| fault("missing"))? {
        Value::Array(items) => items.iter().map(Value::as_str).collect(),
        one => one.as_str().map(|one| vec![one]),
    };
    let audiences = audiences.ok_or_else(|| fault("neither a string nor an array of strings"))?;
    match audiences[..] {
        [] | [""] => Err(fault("empty")),
        _ => Ok(audiences),
    }
}

fn verify_signature(
    parts: &Parts<'_>,
    keys: &ForeignKeys,
    expect: &ForeignExpect<'_>,
) -> Result<(), ForeignError> {
    let header = &parts.untrusted.header;
    if header.contains_key("crit") {
        return Err(ForeignError::Crit);
    }
    let typ = header.get("typ");
    let accepted = expect.typ.iter().any(|accepted| match (accepted, typ) {
        (None, None) => true,
        (Some(accepted), Some(Value::String(typ))) => same_media_type(accepted, typ),
        _ => false,
    });
    if !accepted {
        return Err(ForeignError::Typ(shown(typ)));
    }
    let alg = header.get("alg");
    let algorithm = alg
        .and_then(Value::as_str)
        .and_then(ForeignAlgorithm::from_name)
        .ok_or_else(|| ForeignError::Alg(shown(alg)))?;
    let verifier = match header.get("kid") {
        None => {
            let mut fitting = keys.keys().iter().filter_map(|key| key.verifier(algorithm));
            match (fitting.next(), fitting.count()) {
                (Some(only), 0) => only,
                (first, more) => {
                    return Err(ForeignError::NoKid { fitting: usize::from(first.is_some()) + more });
                }
            }
        }
        Some(kid) => {
            let key = kid.as_str().and_then(|kid| keys.find(kid));
            let key = key.ok_or_else(|| ForeignError::Kid(shown(Some(kid))))?;
            key.verifier(algorithm).ok_or(ForeignError::KeyAlg(algorithm))?
        }
    };
    verifier.verify_sig(parts.signed.as_bytes(), &parts.signature_bytes).map_err(|_| ForeignError::Signature)
}

fn verify_claims(claims: &Map<String, Value>, expect: &ForeignExpect<'_>) -> Result<(), ForeignError> {
    // Rounded to the side on which the token is valid for less.
    let exp = time(claims, "exp", f64::floor)?;
    let exp = exp.ok_or(ForeignError::Claim { claim: "exp", problem: "missing" })?;
    let nbf = time(claims, "nbf", f64::ceil)?;
    let iat = time(claims, "iat", f64::ceil)?;
    let iss = claims.get("iss");
    if iss.and_then(Value::as_str) != Some(expect.issuer) {
        return Err(ForeignError::Iss { found: shown(iss), expected: expect.issuer.to_owned() });
    }
    let (now, leeway) = (expect.now, i64::from(expect.leeway));
    if exp <= now.saturating_sub(leeway) {
        return Err(ForeignError::Exp { exp, now });
    }
    let latest = now.saturating_add(leeway);
    match (nbf, iat) {
        (Some(nbf), _) if nbf > latest => Err(ForeignError::Nbf { nbf, now }),
        (_, Some(iat)) if iat > latest => Err(ForeignError::Iat { iat, now }),
        _ => Ok(()),
    }
}

/// A time claim, if it is there: a number of seconds since the epoch, fractions allowed (RFC 7519 §2), rounded.
fn time(
    claims: &Map<String, Value>,
    claim: &'static str,
    round: fn(f64) -> f64,
) -> Result<Option<i64>, ForeignError> {
    /// Above it, a double has no fractions, and no clock is there yet.
    const LIMIT: f64 = (1_u64 << 53) as f64;
    let fault = || ForeignError::Claim { claim, problem: "not a number of seconds since the epoch" };
    let Some(value) = claims.get(claim) else { return Ok(None) };
    if let Some(whole) = value.as_i64() {
        return Ok(Some(whole));
    }
    match value.as_f64() {
        Some(seconds) if seconds.abs() < LIMIT => Ok(Some(round(seconds) as i64)),
        _ => Err(fault()),
    }
}

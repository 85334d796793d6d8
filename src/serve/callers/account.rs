//! The claims of a bound service-account token.
//!
//! Invariant: `sub` and the claims of `kubernetes.io` name the same account, by a name and a UID that Kubernetes can
//! have given.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{CallerError, LEEWAY};
use crate::cluster::reviews::Reviewed;
use crate::crypto::audiences;
use crate::domain::{Key, Uid};

/// Who bears a service-account token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccountToken {
    /// The service account.
    pub account: Key,
    /// Its UID.
    pub account_uid: Uid,
    /// Name and UID of the pod that the token is bound to, if it is bound to one.
    pub pod: Option<(Arc<str>, Uid)>,
    /// When it was issued, if it says so.
    pub issued_at: Option<Timestamp>,
    /// When it ends.
    pub expires_at: Timestamp,
    /// The token's id, which ties it to the API server's audit log. Not for use once: such tokens are used again
    /// and again.
    pub jti: Option<String>,
}

impl ServiceAccountToken {
    fn subject(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.account.namespace, self.account.name)
    }

    /// Whether the API server says the same of the token.
    pub(super) fn is_of(&self, reviewed: &Reviewed) -> bool {
        let pod = reviewed.pod.as_ref().map(|(name, uid)| (name.as_str(), uid.parse().ok()));
        reviewed.username == self.subject()
            && reviewed.uid.parse() == Ok(self.account_uid)
            && pod == self.pod.as_ref().map(|(name, uid)| (&**name, Some(*uid)))
    }
}

/// Reads the claims, checking everything but the signature and the issuer.
pub(super) fn read(
    claims: &Map<String, Value>,
    audience: &str,
    now: Timestamp,
) -> Result<ServiceAccountToken, CallerError> {
    let expires_at = times(claims, now)?;
    let for_whom = audiences(claims).map_err(|e| CallerError::from(&e))?;
    if for_whom.iter().any(|aud| *aud != audience) {
        return Err(CallerError::rejected(format!("aud must be {audience} alone")));
    }
    let kubernetes = object(claims, "kubernetes.io")?;
    let namespace = text(kubernetes, "namespace").filter(|n| is_name(n) && !n.contains('.'));
    let namespace = namespace.ok_or_else(|| fault("kubernetes.io.namespace"))?;
    let (name, account_uid) = named(kubernetes, "serviceaccount")?;
    let pod = if kubernetes.contains_key("pod") { Some(named(kubernetes, "pod")?) } else { None };
    let jti = match claims.get("jti") {
        None => None,
        Some(Value::String(jti)) if jti.len() <= 256 && jti.bytes().all(|c| c.is_ascii_graphic()) => {
            Some(jti.clone())
        }
        Some(_) => return Err(fault("jti")),
    };
    let issued_at = seconds(claims, "iat", f64::floor)?.and_then(|at| Timestamp::from_second(at).ok());
    let account = Key::new(namespace, name);
    let token = ServiceAccountToken { account, account_uid, pod, issued_at, expires_at, jti };
    if text(claims, "sub") != Some(&token.subject()) {
        return Err(CallerError::rejected("sub is not the account that kubernetes.io names"));
    }
    Ok(token)
}

/// Holds the times of a token against the clock, the end without leeway, and returns the end.
pub(in crate::serve) fn times(claims: &Map<String, Value>, now: Timestamp) -> Result<Timestamp, CallerError> {
    let (second, latest) = (now.as_second(), now.as_second().saturating_add(LEEWAY.into()));
    let exp = seconds(claims, "exp", f64::floor)?;
    let exp = exp.ok_or_else(|| CallerError::rejected("the claim exp is missing"))?;
    if exp <= second {
        return Err(CallerError::rejected(format!("expired: exp is {exp}, now is {second}")));
    }
    for claim in ["nbf", "iat"] {
        if let Some(at) = seconds(claims, claim, f64::ceil)?
            && at > latest
        {
            return Err(CallerError::rejected(format!("not yet valid: {claim} is {at}, now is {second}")));
        }
    }
    Timestamp::from_second(exp).map_err(|_| fault("exp"))
}

/// A time claim in seconds since the epoch, if it is there.
pub(in crate::serve) fn seconds(
    claims: &Map<String, Value>,
    claim: &str,
    round: fn(f64) -> f64,
) -> Result<Option<i64>, CallerError> {
    let Some(value) = claims.get(claim) else { return Ok(None) };
    let whole = value.as_i64().or_else(|| {
        let seconds = value.as_f64().filter(|s| s.abs() < (1_u64 << 53) as f64)?;
        Some(round(seconds) as i64)
    });
    whole.map(Some).ok_or_else(|| fault(claim))
}

fn fault(claim: impl fmt::Display) -> CallerError {
    CallerError::rejected(format!("the claim {claim} is missing or not of the form that Kubernetes writes"))
}

fn text<'a>(object: &'a Map<String, Value>, member: &str) -> Option<&'a str> {
    object.get(member)?.as_str()
}

fn object<'a>(of: &'a Map<String, Value>, member: &str) -> Result<&'a Map<String, Value>, CallerError> {
    of.get(member).and_then(Value::as_object).ok_or_else(|| fault(member))
}

/// Name and UID of an object that the token is of or bound to.
fn named(kubernetes: &Map<String, Value>, member: &str) -> Result<(Arc<str>, Uid), CallerError> {
    let named = object(kubernetes, member)?;
    let name = text(named, "name").filter(|name| is_name(name));
    let uid = text(named, "uid").and_then(|uid| uid.parse().ok());
    name.map(Into::into).zip(uid).ok_or_else(|| fault(format_args!("kubernetes.io.{member}")))
}

/// Whether Kubernetes could have given such a name (RFC 1123 subdomain).
fn is_name(name: &str) -> bool {
    let fits = |c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
    !name.is_empty() && name.len() <= 253 && name.bytes().all(fits)
}

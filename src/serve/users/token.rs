//! What a user's token says.
//!
//! Invariant: a claim that bounds what may be done (`sub`, `aud`, `scope`, `scp`, `may_act`) is of the right form, or
//! the token is refused, as is one in which somebody acts (`act`); one that only tells (`auth_time`, `acr`, `amr`) is left out if it is not.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::Trusted;
use crate::crypto::audiences;
use crate::serve::callers::{CallerError, seconds};

/// The longest `sub`, in bytes.
const SUBJECT_BYTES: usize = 512;
/// The longest `acr` or entry of `amr`, in bytes, and the most entries.
const TOLD_BYTES: usize = 256;
const TOLD_ENTRIES: usize = 32;

/// A user's token, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserToken {
    /// The issuer.
    pub issuer: Arc<str>,
    /// The `sub`: 1 to 512 bytes without control characters.
    pub subject: String,
    /// The user in our tokens: the issuer's subject prefix and the `sub`.
    pub principal: String,
    /// For whom it is: at least one. Not judged here.
    pub audiences: Vec<String>,
    /// Its scopes: `scope` (RFC 8693 §4.2), else `scp`; `None` if it says none.
    pub scopes: Option<Vec<String>>,
    /// Whether those bound the scopes of delegated tokens (`scopesApply`).
    pub scopes_apply: bool,
    /// When it ends.
    pub expires_at: Timestamp,
    /// Who may act for the user (RFC 8693 §4.4).
    pub may_act: Option<MayAct>,
    /// When the user proved who they are, in seconds since the epoch.
    pub auth_time: Option<i64>,
    /// How well they did.
    pub acr: Option<String>,
    /// By what means.
    pub amr: Option<Vec<String>>,
}

/// Who may act (RFC 8693 §4.4). Further members are information about the same actor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MayAct {
    /// Its issuer, if it is named.
    pub iss: Option<String>,
    /// Its `sub`.
    pub sub: String,
}

/// Reads verified claims.
pub(super) fn read(
    claims: &Map<String, Value>,
    trusted: &Trusted,
    expires_at: Timestamp,
) -> Result<UserToken, CallerError> {
    // Somebody acts for the user already. Ours would have to name that actor, of whom nothing is known here.
    if claims.contains_key("act") {
        return Err(CallerError::rejected("the claim act is there: only the user's own token is taken"));
    }
    let subject = claims
        .get("sub")
        .and_then(Value::as_str)
        .filter(|sub| !sub.is_empty() && sub.len() <= SUBJECT_BYTES && !sub.chars().any(char::is_control));
    let subject = subject.ok_or_else(|| fault("sub"))?;
    let audiences = audiences(claims).map_err(|e| CallerError::from(&e))?;
    let told = |text: &str| text.len() <= TOLD_BYTES && !text.chars().any(char::is_control);
    let amr = claims.get("amr").and_then(texts);
    Ok(UserToken {
        issuer: trusted.url.clone(),
        subject: subject.to_owned(),
        principal: format!("{}{subject}", trusted.subject_prefix),
        audiences: audiences.into_iter().map(str::to_owned).collect(),
        scopes: scopes(claims)?,
        scopes_apply: trusted.scopes_apply,
        expires_at,
        may_act: claims.get("may_act").map(may_act).transpose()?,
        auth_time: seconds(claims, "auth_time", f64::floor).ok().flatten(),
        acr: claims.get("acr").and_then(Value::as_str).filter(|acr| told(acr)).map(str::to_owned),
        amr: amr.filter(|amr| amr.len() <= TOLD_ENTRIES && amr.iter().all(|entry| told(entry))),
    })
}

fn fault(claim: &str) -> CallerError {
    CallerError::rejected(format!(
        "the claim {claim} is missing or not of the form that its standard demands"
    ))
}

fn scopes(claims: &Map<String, Value>) -> Result<Option<Vec<String>>, CallerError> {
    let apart = |text: &str| text.split(' ').filter(|s| !s.is_empty()).map(str::to_owned).collect();
    match (claims.get("scope"), claims.get("scp")) {
        (Some(Value::String(scope)), _) => Ok(Some(apart(scope))),
        (Some(_), _) => Err(fault("scope")),
        (None, Some(Value::String(scp))) => Ok(Some(apart(scp))),
        (None, Some(scp)) => texts(scp).map(Some).ok_or_else(|| fault("scp")),
        (None, None) => Ok(None),
    }
}

fn may_act(value: &Value) -> Result<MayAct, CallerError> {
    let text = |member| match value.get(member) {
        None => Ok(None),
        Some(Value::String(text)) if !text.is_empty() => Ok(Some(text.clone())),
        Some(_) => Err(fault("may_act")),
    };
    Ok(MayAct { iss: text("iss")?, sub: text("sub")?.ok_or_else(|| fault("may_act"))? })
}

/// An array of nothing but strings.
fn texts(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
}

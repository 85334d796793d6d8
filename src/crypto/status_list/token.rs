//! The token that carries a status list, and the place in one that another token refers to
//! (draft-ietf-oauth-status-list §5, §6). Invariant: a [`StatusListToken`] exists only for a list that the issuer's
//! keys signed for the very address that was asked, and that has not expired.

use serde::Serialize;
use serde_json::{Map, Value};

use super::{DecodedList, MAX_STATUS_ENTRIES, StatusListError};
use crate::crypto::{
    Algorithm, JwkSet, SignError, SigningKey, VerifyError,
    compact::{shown, split},
    verify::{seconds, verify_signature},
};

/// The `typ` of a token that carries a status list (§5.1).
pub const STATUS_LIST_TYP: &str = "statuslist+jwt";

/// Longer tokens with a list are refused unread, in bytes: several times the largest that we sign.
pub const MAX_STATUS_LIST_TOKEN_BYTES: usize = 8 * 1024 * 1024;

/// The claims of a token that carries a status list (§5.1). Times are in seconds since the epoch.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct StatusListClaims {
    /// The address of the list, as tokens refer to it.
    pub sub: String,
    /// When it was made.
    pub iat: i64,
    /// Until when it may be used at the latest.
    pub exp: i64,
    /// For how many seconds a verifier may use it before it asks again; positive.
    pub ttl: u32,
    /// The list.
    pub status_list: StatusList,
}

/// A list in the form of §4.2.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct StatusList {
    /// The bits of an entry: 1 for what [`StatusBits::encode`](super::StatusBits::encode) returns.
    pub bits: u8,
    /// The entries, encoded.
    pub lst: String,
    /// Where the addresses of all lists of the issuer are listed (§9.2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggregation_uri: Option<String>,
}

impl StatusListClaims {
    /// Signs the list.
    ///
    /// # Errors
    /// [`SignError`] if the provider fails.
    pub fn sign(&self, key: &SigningKey) -> Result<String, SignError> {
        key.sign(STATUS_LIST_TYP, self)
    }
}

/// A status list that passed every check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusListToken {
    /// The algorithm that it was signed with.
    pub algorithm: Algorithm,
    /// The key that signed it.
    pub kid: String,
    /// When it was made, in seconds since the epoch.
    pub iat: i64,
    /// Until when it may be used at the latest, in seconds since the epoch.
    pub exp: Option<i64>,
    /// For how many seconds after it was fetched it may be used before it is fetched anew.
    pub ttl: Option<u64>,
    /// The list.
    pub list: DecodedList,
}

/// Verifies a token that carries the status list at `uri`, as fetched from there, at the time `now` (seconds since
/// the epoch) with clocks differing by at most `leeway` seconds (§8.3).
///
/// # Errors
/// [`StatusListError::Token`] if it is not a valid token of that kind, another [`StatusListError`] if it carries
/// another list, or one that cannot be read.
pub fn verify_status_list(
    token: &str,
    keys: &JwkSet,
    uri: &str,
    now: i64,
    leeway: u32,
) -> Result<StatusListToken, StatusListError> {
    let parts = split(token, MAX_STATUS_LIST_TOKEN_BYTES).map_err(VerifyError::from)?;
    let (algorithm, kid) = verify_signature(&parts, keys, STATUS_LIST_TYP)?;
    let claims = &parts.untrusted.claims;

    let sub = claims.get("sub");
    if sub.and_then(Value::as_str) != Some(uri) {
        return Err(StatusListError::Sub { found: shown(sub), expected: uri.to_owned() });
    }
    let iat = seconds(claims, "iat")?;
    let exp = claims.contains_key("exp").then(|| seconds(claims, "exp")).transpose()?;
    match exp {
        Some(exp) if exp <= now.saturating_sub(leeway.into()) => {
            return Err(VerifyError::Exp { exp, now }.into());
        }
        _ => {}
    }
    if iat > now.saturating_add(leeway.into()) {
        return Err(VerifyError::Iat { iat, now }.into());
    }
    let fault = |claim, problem| StatusListError::Claim { claim, problem };
    let ttl = match claims.get("ttl").map(Value::as_u64) {
        None => None,
        Some(Some(ttl)) if ttl > 0 => Some(ttl),
        Some(_) => return Err(fault("ttl", "not a positive whole number of seconds")),
    };

    let list = claims.get("status_list").and_then(Value::as_object);
    let list = list.ok_or_else(|| fault("status_list", "not an object"))?;
    let bits = list.get("bits").and_then(Value::as_u64);
    let bits = bits.ok_or_else(|| fault("status_list.bits", "not a whole number"))?;
    let width = u8::try_from(bits).map_err(|_| StatusListError::Bits(bits))?;
    let lst = list.get("lst").and_then(Value::as_str);
    let lst = lst.ok_or_else(|| fault("status_list.lst", "not a string"))?;
    // As many bytes as the most entries have at the widest.
    let list = DecodedList::decode(lst, width, MAX_STATUS_ENTRIES)?;
    Ok(StatusListToken { algorithm, kid, iat, exp, ttl, list })
}

/// Where a token's status stands (§6.2).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StatusRef {
    /// The address of the list.
    pub uri: String,
    /// The index in it.
    pub index: u64,
}

impl StatusRef {
    /// Reads `status.status_list` of a verified token's claims; `None` for a token without `status`.
    ///
    /// # Errors
    /// [`StatusListError::Claim`] if `status` is there but does not say `idx` and `uri` of a list: whoever could not
    /// look its status up must not take it for valid.
    pub fn from_claims(claims: &Map<String, Value>) -> Result<Option<Self>, StatusListError> {
        let fault = |claim, problem| StatusListError::Claim { claim, problem };
        let Some(status) = claims.get("status") else { return Ok(None) };
        let list = status.get("status_list").and_then(Value::as_object);
        let list = list.ok_or_else(|| fault("status", "without a status_list"))?;
        let index = list.get("idx").and_then(Value::as_u64);
        let index = index.ok_or_else(|| fault("status.status_list.idx", "not a whole number from 0"))?;
        match list.get("uri").and_then(Value::as_str) {
            Some(uri) if !uri.is_empty() => Ok(Some(Self { uri: uri.to_owned(), index })),
            _ => Err(fault("status.status_list.uri", "not a URI")),
        }
    }
}

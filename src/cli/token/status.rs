//! `agentid token verify --status`: what the token's status list says of it.
//!
//! Invariants: only a verified token's list is fetched, and only from its issuer; whatever can't be read, or lies beyond
//! the list's end, refuses the token (Token Status List §8.3).

use std::path::Path;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use thiserror::Error;

use super::super::text::printable;
use super::fetch::{self, FetchError};
use crate::crypto::{JwkSet, StatusListError, StatusRef, verify_status_list};

/// The word by which the check is told from those of the token itself.
pub(super) const CHECK: &str = "status";

/// Why a verified token is refused by its status, or its status can't be told.
#[derive(Debug, Error)]
pub enum StatusError {
    /// There is nothing to look up.
    #[error(
        "the token has no claim status: nobody lists whether it was withdrawn (an identity.jwt has none). Leave --status \
         out, or ask /introspect"
    )]
    NoStatus,
    /// The claim can't be used.
    #[error("the token's claim status can't be used: {0}")]
    Claim(StatusListError),
    /// A list of somebody else's.
    #[error("the token's status list {0} is not one of its issuer, and is not fetched")]
    Elsewhere(String),
    /// The list can't be had.
    #[error("the status list can't be fetched: {0}")]
    Fetch(#[source] FetchError),
    /// The list can't be relied on.
    #[error("the status list {uri} can't be relied on: {source}")]
    List {
        /// Its address.
        uri: String,
        /// Why.
        source: StatusListError,
    },
    /// The entry lies beyond the list's end.
    #[error("the status list {uri} has no entry {index}")]
    Beyond {
        /// The list.
        uri: String,
        /// The entry.
        index: u64,
    },
    /// The list says that it is no longer valid.
    #[error(
        "the token was withdrawn: entry {index} of {uri} is {value}, not 0. Its agent, grant or allowance is gone or \
         narrower; `agentid trace JTI` says which"
    )]
    Withdrawn {
        /// The list.
        uri: String,
        /// The entry.
        index: u64,
        /// What it reads: 1 is INVALID.
        value: u8,
    },
}

/// The entry of a verified token, if it is one of its issuer's.
fn entry(claims: &Map<String, Value>, issuer: &str) -> Result<StatusRef, StatusError> {
    let at = StatusRef::from_claims(claims).map_err(StatusError::Claim)?.ok_or(StatusError::NoStatus)?;
    let ours = at.uri.strip_prefix(issuer).is_some_and(|rest| rest.starts_with("/statuslists/"));
    if ours { Ok(at) } else { Err(StatusError::Elsewhere(printable(&at.uri))) }
}

/// Reads the entry out of a list as it was fetched.
fn read(list: &str, at: &StatusRef, keys: &JwkSet, now: Timestamp, leeway: u32) -> Result<(), StatusError> {
    let uri = || printable(&at.uri);
    let list = verify_status_list(list.trim_end(), keys, &at.uri, now.as_second(), leeway)
        .map_err(|source| StatusError::List { uri: uri(), source })?;
    match list.list.status(at.index) {
        Some(0) => Ok(()),
        Some(value) => Err(StatusError::Withdrawn { uri: uri(), index: at.index, value }),
        None => Err(StatusError::Beyond { uri: uri(), index: at.index }),
    }
}

/// Looks the status of a verified token up.
pub(super) async fn look(
    claims: &Map<String, Value>,
    issuer: &str,
    keys: &JwkSet,
    ca: Option<&Path>,
    (now, leeway): (Timestamp, u32),
) -> Result<StatusRef, StatusError> {
    let at = entry(claims, issuer)?;
    let list = fetch::status_list(&at.uri, ca).await.map_err(StatusError::Fetch)?;
    read(&list, &at, keys, now, leeway)?;
    Ok(at)
}

/// The line that is added to the checks.
pub(super) fn text(result: &Result<StatusRef, StatusError>) -> String {
    match result {
        Ok(at) => {
            format!(
                "ok       {CHECK:<10} VALID: not withdrawn, by entry {} of {}\n",
                at.index,
                printable(&at.uri)
            )
        }
        Err(error) => format!("FAILED   {CHECK:<10} {}\n", printable(&error.to_string())),
    }
}

/// Adds the check to a result that has passed all others.
pub(super) fn add(value: &mut Value, result: &Result<StatusRef, StatusError>) {
    let outcome = if result.is_ok() { "passed" } else { "failed" };
    if let Some(checks) = value.get_mut("checks").and_then(Value::as_array_mut) {
        let meaning = "not withdrawn (Token Status List §8.3)";
        checks.push(json!({"check": CHECK, "result": outcome, "meaning": meaning}));
    }
    if let Err(error) = result {
        value["verified"] = json!(false);
        value["failed"] = json!(CHECK);
        value["problem"] = json!(error.to_string());
        // What was refused is not handed on.
        if let Some(value) = value.as_object_mut() {
            value.remove("claims");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{Algorithm, SigningKey, StatusBits, StatusList, StatusListClaims};

    const ISSUER: &str = "https://agents.example.com";
    const URI: &str = "https://agents.example.com/statuslists/0a";
    const NOW: i64 = 1_800_000_000;

    fn claims(status: Value) -> Map<String, Value> {
        Map::from_iter([("status".to_owned(), status)])
    }

    #[test]
    fn only_a_list_of_the_issuer_is_fetched() {
        let at = |uri: &str| entry(&claims(json!({"status_list": {"idx": 9, "uri": uri}})), ISSUER);
        assert_eq!(at(URI).unwrap(), StatusRef { uri: URI.to_owned(), index: 9 });
        for uri in [
            "https://evil.example.com/statuslists/0a",
            "https://agents.example.com.evil.example/statuslists/0a",
            "https://agents.example.com/other",
            "file:///etc/passwd",
        ] {
            assert!(matches!(at(uri), Err(StatusError::Elsewhere(_))), "{uri}");
        }
        assert!(matches!(entry(&Map::new(), ISSUER), Err(StatusError::NoStatus)));
        assert!(matches!(entry(&claims(json!({})), ISSUER), Err(StatusError::Claim(_))));
        assert!(StatusError::NoStatus.to_string().contains("no claim status"));
    }

    #[test]
    fn an_entry_is_valid_only_by_a_list_that_holds() {
        let key = SigningKey::generate(Algorithm::ES256).unwrap();
        let keys: JwkSet = [key.public_jwk()].into_iter().collect();
        let other = SigningKey::generate(Algorithm::ES256).unwrap();
        let mut bits = StatusBits::new(16);
        bits.set(3, true).unwrap();
        let list = |sub: &str, exp: i64| StatusListClaims {
            sub: sub.to_owned(),
            iat: NOW - 10,
            exp,
            ttl: 30,
            status_list: StatusList { bits: 1, lst: bits.encode().unwrap(), aggregation_uri: None },
        };
        let good = list(URI, NOW + 60).sign(&key).unwrap();
        let at = |index| StatusRef { uri: URI.to_owned(), index };
        let look = |list: &str, index| {
            read(list, &at(index), &keys, Timestamp::from_second(NOW).unwrap(), 0).map_err(|e| e.to_string())
        };
        assert_eq!(look(&format!("{good}\n"), 2), Ok(()));
        for (list, index, wanted) in [
            (good.clone(), 3, "withdrawn: entry 3"),
            (good, 16, "has no entry 16"),
            (list("https://agents.example.com/statuslists/0b", NOW + 60).sign(&key).unwrap(), 2, "sub is"),
            (list(URI, NOW - 1).sign(&key).unwrap(), 2, "exp"),
            (list(URI, NOW + 60).sign(&other).unwrap(), 2, "can't be relied on"),
            (key.sign("at+jwt", &list(URI, NOW + 60)).unwrap(), 2, "typ"),
            ("<html>".to_owned(), 2, "can't be relied on"),
        ] {
            let said = look(&list, index).unwrap_err();
            assert!(said.contains(wanted), "{wanted}: {said}");
        }
    }

    #[test]
    fn a_failed_status_refuses_the_whole() {
        let passed = || json!({"verified": true, "claims": {"sub": "x"}, "checks": []});
        let mut value = passed();
        add(&mut value, &Ok(StatusRef { uri: URI.to_owned(), index: 9 }));
        assert_eq!((&value["verified"], &value["checks"][0]["result"]), (&json!(true), &json!("passed")));
        let mut value = passed();
        add(&mut value, &Err(StatusError::NoStatus));
        assert_eq!((&value["verified"], &value["failed"]), (&json!(false), &json!("status")));
        assert_eq!(value["claims"], Value::Null);
    }
}

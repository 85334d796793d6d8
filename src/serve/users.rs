//! Users' tokens: from issuers that the configuration trusts (`userIssuers`), and from no other.
//!
//! Invariants: a token is believed once its signature, issuer, times and shape are checked; keys are fetched only
//! for a configured issuer, from where its discovery document says, within its `allowedNetworks`; an issuer that is
//! down, slow or malicious harms its own users alone. For whom a token is and what its scopes mean is for the caller
//! to judge.

mod issuer;
mod token;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};

use self::issuer::Published;
pub use self::token::{MayAct, UserToken};
use super::callers::{CallerError, LEEWAY, form, times};
use super::keysets::{Clock, KeySet, Times};
use crate::api::{Configuration, UserIssuer};
use crate::crypto::{ForeignError, ForeignExpect, ForeignKeys, peek, verify_foreign};

const TIMES: Times = Times {
    unknown: Duration::from_secs(30),
    retry: Duration::from_secs(10),
    keep: Duration::from_secs(24 * 3600),
};
/// None or `JWT` for ID tokens, RFC 9068 for access tokens.
const TYP: &[Option<&str>] = &[None, Some("JWT"), Some("at+jwt")];

/// Verifies users' tokens.
pub struct UserIssuers(HashMap<String, Trusted>);

struct Trusted {
    url: Arc<str>,
    subject_prefix: String,
    scopes_apply: bool,
    keys: KeySet<Published>,
}

impl fmt::Debug for UserIssuers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl UserIssuers {
    /// Trusts the user issuers of a configuration. Nothing is fetched before a token of theirs comes.
    #[must_use]
    pub fn new(config: &Configuration) -> Self {
        Self::with_clock(config, &Clock::default())
    }

    fn with_clock(config: &Configuration, clock: &Clock) -> Self {
        let trusted = |user: &UserIssuer| {
            let trusted = Trusted {
                url: user.issuer.url.as_str().into(),
                subject_prefix: user.subject_prefix.clone(),
                scopes_apply: user.scopes_apply,
                keys: KeySet::new(Published::new(&user.issuer), TIMES, clock.clone()),
            };
            (user.issuer.url.clone(), trusted)
        };
        Self(config.user_issuers.iter().map(trusted).collect())
    }

    /// Whose a token is and what it says.
    ///
    /// # Errors
    /// [`CallerError`]: `Rejected`; `Untrusted` for an issuer that is not configured; `Unavailable` if its keys
    /// can't be had now.
    pub async fn verify(&self, token: &str, now: Timestamp) -> Result<UserToken, CallerError> {
        let untrusted = peek(token).map_err(|e| CallerError::from(&e))?;
        let Some(iss) = untrusted.claims.get("iss").and_then(Value::as_str) else {
            return Err(CallerError::rejected("the claim iss is missing or not a string"));
        };
        let Some(trusted) = self.0.get(iss) else {
            return Err(CallerError::untrusted(format!("not a trusted user issuer: {iss:?}")));
        };
        // What is hopeless asks nobody for keys.
        form(token, TYP)?;
        times(&untrusted.claims, now)?;
        let claims = trusted.verify(token, now).await?;
        token::read(&claims, trusted, times(&claims, now)?)
    }
}

impl Trusted {
    async fn verify(&self, token: &str, now: Timestamp) -> Result<Map<String, Value>, CallerError> {
        let keys = self.keys.get().await.map_err(|none| self.unavailable(none.retry_after))?;
        match self.signed(token, &keys, now) {
            Err(e) if e.is_unknown_key() => {
                let newer = self.keys.newer(&keys).await;
                let newer = newer.map_err(|none| self.unavailable(none.retry_after))?;
                let newer = newer.ok_or_else(|| CallerError::from(&e))?;
                self.signed(token, &newer, now).map_err(|e| CallerError::from(&e))
            }
            other => other.map_err(|e| CallerError::from(&e)),
        }
    }

    fn signed(
        &self,
        token: &str,
        keys: &ForeignKeys,
        now: Timestamp,
    ) -> Result<Map<String, Value>, ForeignError> {
        let expect = ForeignExpect { issuer: &self.url, typ: TYP, leeway: LEEWAY, now: now.as_second() };
        verify_foreign(token, keys, &expect)
    }

    fn unavailable(&self, retry_after: Duration) -> CallerError {
        CallerError::unavailable(&format!("the keys of {}", self.url), retry_after)
    }
}

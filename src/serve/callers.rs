//! Who calls: the service account and pod of a projected token (`tokens.md` has its claims; Kubernetes calls it a
//! bound service-account token).
//!
//! Invariants: a token is believed once its signature, issuer, times, sole audience and shape are checked, by the
//! cluster's own keys or, while those can't be had, by the API server; it is believed again without checking its
//! signature as long as these keys are the cluster's and it has not ended; what is not of that shape never reaches the
//! API server; no error holds a token. Whether pod and account still exist is for the caller to ask the World.

mod account;
mod error;
mod known;
mod review;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

pub use self::account::ServiceAccountToken;
pub(super) use self::account::{seconds, times};
pub use self::error::CallerError;
use self::known::{Known, Print};
use self::review::{Verdict, Verdicts};
use super::keysets::{Clock, KeySet, NoKeys, Source, Times};
use crate::cluster::client::CallError;
use crate::cluster::discovery::{ClusterKeys, Discovery};
use crate::cluster::reviews::{Reviewed, Reviews};
use crate::crypto::{ForeignError, ForeignExpect, ForeignKeys, peek, verify_foreign};

/// By how much the signer's clock may be ahead, in seconds. An expired token is refused without any.
pub(super) const LEEWAY: u32 = 5;
/// How long the cluster's keys are fresh: the API server says so itself (`max-age=3600`).
const FRESH: Duration = Duration::from_secs(3600);
const TIMES: Times = Times {
    unknown: Duration::from_secs(10),
    retry: Duration::from_secs(10),
    keep: Duration::from_secs(24 * 3600),
};
/// Kubernetes writes no `typ`.
const TYP: &[Option<&str>] = &[None, Some("JWT")];

/// What the cluster says of its tokens.
pub trait Cluster: Send + Sync + 'static {
    /// Its issuer and keys.
    fn keys(&self) -> impl Future<Output = Result<ClusterKeys, CallError>> + Send;

    /// Whose a token for an audience is.
    fn review(
        &self,
        token: &str,
        audience: &str,
    ) -> impl Future<Output = Result<Option<Reviewed>, CallError>> + Send;
}

/// The API server as [`Cluster`].
#[derive(Clone, Debug)]
pub struct ApiServer {
    /// Reads the keys.
    pub discovery: Discovery,
    /// Asks while there are none.
    pub reviews: Reviews,
}

impl Cluster for ApiServer {
    async fn keys(&self) -> Result<ClusterKeys, CallError> {
        self.discovery.read().await
    }

    async fn review(&self, token: &str, audience: &str) -> Result<Option<Reviewed>, CallError> {
        self.reviews.token_review(token, audience).await
    }
}

struct Published<C>(Arc<C>);

impl<C: Cluster> Source for Published<C> {
    type Keys = ClusterKeys;

    fn name(&self) -> &str {
        "the cluster"
    }

    async fn read(&self) -> Result<(ClusterKeys, Duration), String> {
        self.0.keys().await.map(|keys| (keys, FRESH)).map_err(|e| e.to_string())
    }
}

/// Verifies the cluster's service-account tokens.
pub struct Callers<C: Cluster = ApiServer> {
    audience: String,
    keys: KeySet<Published<C>>,
    cluster: Arc<C>,
    verdicts: Verdicts,
    known: Known<ClusterKeys>,
}

impl<C: Cluster> fmt::Debug for Callers<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callers").field("audience", &self.audience).finish_non_exhaustive()
    }
}

impl<C: Cluster> Callers<C> {
    /// Takes tokens whose audience is `issuer`: ours.
    #[must_use]
    pub fn new(cluster: C, issuer: &str) -> Self {
        Self::with_clock(cluster, issuer, Clock::default())
    }

    fn with_clock(cluster: C, issuer: &str, clock: Clock) -> Self {
        let cluster = Arc::new(cluster);
        Self {
            audience: issuer.to_owned(),
            keys: KeySet::new(Published(cluster.clone()), TIMES, clock.clone()),
            cluster,
            verdicts: Verdicts::new(clock),
            known: Known::new(),
        }
    }

    /// Gets the cluster's keys, so that the first caller needn't wait, and says whether they are there.
    pub async fn prepare(&self) -> bool {
        self.keys.get().await.is_ok()
    }

    /// Who bears a token.
    ///
    /// # Errors
    /// [`CallerError`]: `Rejected`; `Untrusted` for another issuer's; `Unavailable` if it can't be found out now.
    pub async fn verify(&self, token: &str, now: Timestamp) -> Result<ServiceAccountToken, CallerError> {
        let print = Print::of(token);
        // Asked for only then: what is hopeless must not make keys be read.
        if self.known.holds(&print)
            && let Ok(keys) = self.keys.get().await
            && let Some(known) = self.known.get(&print, &keys, now)
        {
            return Ok(known);
        }
        self.of_cluster(token, None)?;
        let of_known = self.of_cluster(token, self.keys.last().as_deref());
        let claimed = match (self.claimed(token, now), &of_known) {
            (Ok(claimed), _) => claimed,
            (Err(_), Err(foreign)) => return Err(foreign.clone()),
            (Err(e), Ok(())) => return Err(e),
        };
        // Even for another issuer than the one known: the cluster may have changed its own.
        let keys = match self.keys.get().await {
            Ok(keys) => keys,
            Err(none) => {
                of_known?;
                return self.review(token, claimed, none).await;
            }
        };
        self.of_cluster(token, Some(&keys))?;
        let keys = match self.signed(token, &keys, now) {
            Err(e) if e.is_unknown_key() => {
                let newer = self.keys.newer(&keys).await.map_err(unavailable)?;
                let newer = newer.ok_or_else(|| CallerError::from(&e))?;
                self.signed(token, &newer, now).map_err(|e| CallerError::from(&e))?;
                newer
            }
            other => {
                other.map_err(|e| CallerError::from(&e))?;
                keys
            }
        };
        self.known.insert(print, &keys, claimed.clone(), now);
        Ok(claimed)
    }

    /// Everything that can be seen without a key.
    fn claimed(&self, token: &str, now: Timestamp) -> Result<ServiceAccountToken, CallerError> {
        let untrusted = peek(token).map_err(|e| CallerError::from(&e))?;
        form(token, TYP)?;
        account::read(&untrusted.claims, &self.audience, now)
    }

    /// That a token is the cluster's, as far as the cluster's issuer is known.
    fn of_cluster(&self, token: &str, known: Option<&ClusterKeys>) -> Result<(), CallerError> {
        let untrusted = peek(token).map_err(|e| CallerError::from(&e))?;
        match (untrusted.claims.get("iss").and_then(Value::as_str), known) {
            (Some(iss), Some(known)) if iss != &*known.issuer => {
                Err(CallerError::untrusted(format!("not the cluster's issuer: {iss:?}")))
            }
            (Some(iss), _) if !iss.is_empty() => Ok(()),
            _ => Err(CallerError::rejected("the claim iss is missing or not a string")),
        }
    }

    fn signed(&self, token: &str, keys: &ClusterKeys, now: Timestamp) -> Result<(), ForeignError> {
        let expect = ForeignExpect { issuer: &keys.issuer, typ: TYP, leeway: LEEWAY, now: now.as_second() };
        verify_foreign(token, &keys.keys, &expect).map(drop)
    }

    /// Asks the API server, as there are no keys.
    async fn review(
        &self,
        token: &str,
        claimed: ServiceAccountToken,
        none: NoKeys,
    ) -> Result<ServiceAccountToken, CallerError> {
        let asked = self.verdicts.of(token, || async {
            let reviewed = self.cluster.review(token, &self.audience).await?;
            Ok(reviewed.is_some_and(|reviewed| claimed.is_of(&reviewed)))
        });
        match asked.await {
            Verdict::Good => Ok(claimed),
            Verdict::Bad => Err(CallerError::rejected("the API server does not accept the token")),
            Verdict::Later(wait) => Err(unavailable(wait.map_or(none, |retry_after| NoKeys { retry_after }))),
        }
    }
}

/// Holds the header of a token against what is accepted, without any key: what remains is that its key is not known.
pub(super) fn form(token: &str, typ: &[Option<&str>]) -> Result<(), CallerError> {
    let expect = ForeignExpect { issuer: "", typ, leeway: 0, now: 0 };
    match verify_foreign(token, &ForeignKeys::default(), &expect) {
        Err(e) if !e.is_unknown_key() => Err(CallerError::from(&e)),
        _ => Ok(()),
    }
}

fn unavailable(none: NoKeys) -> CallerError {
    CallerError::unavailable("the keys of the cluster", none.retry_after)
}

//! A list as it is handed out: signed, and kept until something about it changes.
//!
//! Invariants: whoever asks gets at least the bits of the moment of asking; a list is encoded by one at a time, at
//! most every [`PACE`], and never on a thread that answers requests.

use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use hyper::body::Bytes;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

use super::NoList;
use crate::api::StatusLists;
use crate::crypto::{SigningKey, StatusBits, StatusList, StatusListClaims};
use crate::domain::{Hasher, ListId, StatusRef};

/// How often a list is encoded at most.
const PACE: Duration = Duration::from_millis(50);

/// A signed list.
#[derive(Clone, Debug)]
pub struct Served {
    /// The status list token, compact (Token Status List §5.1).
    pub jws: Bytes,
    /// A strong entity tag, with its quotes (RFC 9110 §8.8.3).
    pub etag: String,
    /// For how many seconds a verifier may use it before it asks again.
    pub ttl: u32,
    /// Its `iat`.
    pub made: Timestamp,
    /// Its `exp`.
    pub expires: Timestamp,
    /// When it is made anew, though nothing has changed.
    pub renew: Timestamp,
    /// The version of its bits.
    pub version: u64,
    /// The key that signed it.
    pub kid: String,
}

/// What a list is signed with and for.
pub(super) struct Terms<'a> {
    pub(super) key: &'a Arc<SigningKey>,
    pub(super) issuer: &'a str,
    pub(super) settings: &'a StatusLists,
    pub(super) list: ListId,
    pub(super) now: Timestamp,
}

/// Where the signed form of one list is kept.
#[derive(Debug, Default)]
pub(super) struct Slot {
    last: StdMutex<Option<Arc<Served>>>,
    /// Who makes it anew, and when it was last made.
    turn: Mutex<Option<Instant>>,
}

impl Slot {
    fn last(&self, terms: &Terms<'_>, version: u64) -> Option<Arc<Served>> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        last.filter(|served| {
            served.version >= version
                && served.kid == terms.key.kid()
                // A clock that was set back makes it anew too.
                && served.made.as_second() <= terms.now.as_second()
                && terms.now < served.renew
        })
    }

    /// The list with bits of at least this version; `snapshot` gives those of now.
    ///
    /// # Errors
    /// [`NoList::Unknown`] if it has gone meanwhile, [`NoList::Failed`].
    pub(super) async fn get(
        &self,
        terms: &Terms<'_>,
        version: u64,
        snapshot: impl Fn() -> Option<(StatusBits, u64)>,
    ) -> Result<Arc<Served>, NoList> {
        if let Some(served) = self.last(terms, version) {
            return Ok(served);
        }
        let mut made = self.turn.lock().await;
        if let Some(served) = self.last(terms, version) {
            return Ok(served);
        }
        if let Some(made) = *made {
            sleep_until(made + PACE).await;
        }
        *made = Some(Instant::now());
        let (bits, version) = snapshot().ok_or(NoList::Unknown)?;
        let StatusLists { ttl, lifetime, .. } = *terms.settings;
        let (now, key, list) = (terms.now, terms.key.clone(), terms.list);
        let issuer = terms.issuer.to_owned();
        let signed = tokio::task::spawn_blocking(move || {
            let lst = bits.encode().map_err(|e| NoList::Failed(e.to_string()))?;
            let iat = now.as_second();
            let claims = StatusListClaims {
                sub: StatusRef { list, index: 0 }.uri(&issuer),
                iat,
                exp: iat.saturating_add(i64::from(lifetime.0)),
                ttl: ttl.0,
                status_list: StatusList {
                    bits: 1,
                    lst,
                    aggregation_uri: Some(format!("{issuer}/statuslists")),
                },
            };
            claims.sign(&key).map_err(|e| NoList::Failed(e.to_string()))
        });
        let jws = signed.await.map_err(|e| NoList::Failed(e.to_string()))??;
        let mut digest = Hasher::new("status list token");
        digest.part(jws.as_bytes());
        let after = |seconds| now.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(now);
        let lifetime = i64::from(lifetime.0);
        let served = Arc::new(Served {
            etag: format!("\"{}\"", digest.finish()),
            jws: Bytes::from(jws),
            ttl: ttl.0,
            made: now,
            expires: after(lifetime),
            renew: after((lifetime / 2).min(i64::from(ttl.0))),
            version,
            kid: terms.key.kid().to_owned(),
        });
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(served.clone());
        Ok(served)
    }
}

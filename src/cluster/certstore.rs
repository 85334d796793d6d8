//! The Secrets of our own TLS, in the operator's namespace: `agentid-ca` with the authorities (`authorities.json`
//! and for each `<id>.crt` and `<id>.key`), which the leader alone reads, and `agentid-serving` with what the
//! token service serves.
//!
//! Invariants: as in [`super::keystore`], key material is in no error, log line or Debug, nor in the hands of
//! code that logs what it can't decode; what is not ours is never overwritten; every write names the
//! resourceVersion that it stands on.

mod serving;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use kube::Client;
use thiserror::Error;

use super::client::{CallError, Class, shape_error};
use super::keystore::Metadata;
use super::keystore::raw::{RawSecret, RawSecrets, body};
use crate::crypto::{Authority, Secret};
use crate::domain::certificates::Authorities;

pub use serving::{ServingCertificate, ServingContent, ServingStore, StoredServing};

/// The name of the Secret with the authorities.
pub const CA_SECRET: &str = "agentid-ca";
/// Its type.
pub const CA_SECRET_TYPE: &str = "agentid.dev/ca";
/// The name of the Secret with the serving certificate.
pub const SERVING_SECRET: &str = "agentid-serving";
/// Its type.
pub const SERVING_SECRET_TYPE: &str = "agentid.dev/serving";

const STATE_KEY: &str = "authorities.json";

/// Why there is no authority or certificate. The text says what to do.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CertificatesError {
    /// It can't be read as what it is for.
    #[error(
        "the Secret {secret} is damaged ({what}): restore it from a backup, or delete it and agentid makes a new one"
    )]
    Damaged {
        /// Its name.
        secret: &'static str,
        /// What is wrong with it; no content.
        what: String,
    },
    /// A Secret of that name that is not ours.
    #[error(
        "the Secret {secret} has the type {found:?} instead of {expected:?}, so it is not agentid's: delete it if nothing else \
         needs it"
    )]
    Foreign {
        /// Its name.
        secret: &'static str,
        /// Its type.
        found: String,
        /// Ours.
        expected: &'static str,
    },
    /// A new authority or certificate could not be made.
    #[error("no certificate could be made: {0}")]
    Make(String),
    /// The API server.
    #[error("the Secret {secret} can't be reached: {error}")]
    Api {
        /// Its name.
        secret: &'static str,
        /// What the call met.
        error: CallError,
    },
}

impl CertificatesError {
    /// Whether a write was refused because the Secret has changed meanwhile: read it again.
    #[must_use]
    pub const fn is_conflict(&self) -> bool {
        match self {
            Self::Api { error, .. } => {
                matches!(error.class(), Class::Conflict | Class::AlreadyExists | Class::NotFound)
            }
            _ => false,
        }
    }

    /// The Secret that it is about.
    #[must_use]
    pub const fn secret(&self) -> &'static str {
        match self {
            Self::Damaged { secret, .. } | Self::Foreign { secret, .. } | Self::Api { secret, .. } => secret,
            Self::Make(_) => CA_SECRET,
        }
    }
}

/// The authorities with their keys.
#[derive(Clone, Debug)]
pub struct LoadedAuthorities {
    /// Which there are and why.
    pub state: Authorities,
    /// Every one by its id.
    pub authorities: HashMap<String, Arc<Authority>>,
}

impl LoadedAuthorities {
    /// The certificates of all, in PEM, the oldest first: the `ca.crt` of those who are to trust us. A promotion
    /// does not change it.
    #[must_use]
    pub fn bundle_pem(&self) -> String {
        let mut order: Vec<_> = self.state.authorities.iter().collect();
        order.sort_by_key(|a| (a.created_at, &a.id));
        let found = order.into_iter().filter_map(|a| self.authorities.get(&a.id));
        found.map(|a| a.certificate_pem()).collect()
    }

    /// The one that signs.
    #[must_use]
    pub fn active(&self) -> Option<&Arc<Authority>> {
        self.authorities.get(&self.state.active()?.id)
    }
}

/// The Secret with the authorities as it stands, whole or not.
#[derive(Clone, Debug)]
pub struct StoredAuthorities {
    /// The Secret's metadata, kept as it is by a write.
    pub metadata: Metadata,
    /// The authorities, or what is wrong with them.
    pub loaded: Result<Arc<LoadedAuthorities>, CertificatesError>,
}

/// The Secret with the authorities, on the API server.
#[derive(Clone, Debug)]
pub struct AuthorityStore {
    secrets: RawSecrets,
}

impl AuthorityStore {
    /// The store in the operator's namespace.
    #[must_use]
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { secrets: RawSecrets::new(client, namespace) }
    }

    /// The Secret's resourceVersion, without its content; `None` where there is no Secret.
    ///
    /// # Errors
    /// [`CertificatesError::Api`].
    pub async fn resource_version(&self) -> Result<Option<String>, CertificatesError> {
        self.secrets.resource_version(CA_SECRET).await.map_err(api(CA_SECRET))
    }

    /// The Secret as it stands; `None` where there is none.
    ///
    /// # Errors
    /// [`CertificatesError::Api`], [`CertificatesError::Foreign`], and [`CertificatesError::Damaged`] for an answer
    /// that is no Secret at all.
    pub async fn fetch(&self) -> Result<Option<StoredAuthorities>, CertificatesError> {
        let text = self.secrets.get(CA_SECRET).await.map_err(api(CA_SECRET))?;
        text.map(|text| parse(&text)).transpose()
    }

    /// Writes the Secret over the one that was read, or makes it.
    ///
    /// # Errors
    /// [`CertificatesError::Api`]; one that has changed, come or gone meanwhile is
    /// [`CertificatesError::is_conflict`].
    pub async fn write(
        &self,
        over: Option<&Metadata>,
        content: &LoadedAuthorities,
    ) -> Result<StoredAuthorities, CertificatesError> {
        let fresh = || self.secrets.fresh(CA_SECRET);
        let body = form(&over.cloned().unwrap_or_else(fresh), content)?;
        let written = match over {
            Some(_) => self.secrets.replace(CA_SECRET, body).await,
            None => self.secrets.create(body).await,
        };
        parse(&written.map_err(api(CA_SECRET))?)
    }
}

/// Names the Secret of a call that failed.
fn api(secret: &'static str) -> impl Fn(CallError) -> CertificatesError {
    move |error| CertificatesError::Api { secret, error }
}

fn damaged(secret: &'static str, what: impl Into<String>) -> CertificatesError {
    CertificatesError::Damaged { secret, what: what.into() }
}

/// Reads an answer of the API server as the Secret of this name and type.
fn ours(
    text: &Secret<String>,
    secret: &'static str,
    expected: &'static str,
) -> Result<RawSecret, CertificatesError> {
    let raw =
        RawSecret::parse(text).ok_or_else(|| damaged(secret, "the API server's answer is no Secret"))?;
    if raw.kind == expected {
        Ok(raw)
    } else {
        Err(CertificatesError::Foreign { secret, found: raw.kind, expected })
    }
}

fn parse(text: &Secret<String>) -> Result<StoredAuthorities, CertificatesError> {
    let raw = ours(text, CA_SECRET, CA_SECRET_TYPE)?;
    Ok(StoredAuthorities { loaded: load(&raw).map(Arc::new), metadata: raw.metadata })
}

fn load(raw: &RawSecret) -> Result<LoadedAuthorities, CertificatesError> {
    let damaged = |what: String| damaged(CA_SECRET, what);
    let file = |name: &str| raw.file(name).map_err(damaged);
    let state: Authorities = serde_json::from_str(file(STATE_KEY)?.expose())
        .map_err(|e| damaged(format!("{STATE_KEY}: {}", shape_error(&e))))?;
    state.validate().map_err(|e| damaged(format!("{STATE_KEY}: {e}")))?;
    let mut authorities = HashMap::new();
    for record in &state.authorities {
        let (certificate, key) = (file(&format!("{}.crt", record.id))?, file(&format!("{}.key", record.id))?);
        let authority = Authority::from_pem(&record.common_name(), certificate.expose(), key.expose())
            .map_err(|e| damaged(format!("{}: {e}", record.id)))?;
        authorities.insert(record.id.clone(), Arc::new(authority));
    }
    Ok(LoadedAuthorities { state, authorities })
}

fn form(metadata: &Metadata, content: &LoadedAuthorities) -> Result<Vec<u8>, CertificatesError> {
    let no_json = |_| damaged(CA_SECRET, "it is no JSON");
    let state = serde_json::to_string_pretty(&content.state).map_err(no_json)?;
    let mut data = BTreeMap::from([(STATE_KEY.to_owned(), STANDARD.encode(state))]);
    for record in &content.state.authorities {
        let authority = content
            .authorities
            .get(&record.id)
            .ok_or_else(|| damaged(CA_SECRET, format!("the authority {} is not at hand", record.id)))?;
        data.insert(format!("{}.crt", record.id), STANDARD.encode(authority.certificate_pem()));
        data.insert(format!("{}.key", record.id), STANDARD.encode(authority.key_pem().expose()));
    }
    body(metadata, CA_SECRET_TYPE, &data).map_err(no_json)
}

#[cfg(test)]
mod tests;

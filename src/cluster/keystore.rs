//! The Secret that holds the signing keys, in the operator's namespace: `ring.json` (the ring and a digest
//! over it) and one `<kid>.pem` (PKCS#8) for each key. Also the note of the ring's generation on the leader's
//! Lease, and what people ask of the keys.
//!
//! Invariants: key material is in no error, log line or Debug, nor in the hands of code that logs what it
//! can't decode; a ring is used only if it is whole, as it was written, and not older than the Lease says;
//! every write names the resourceVersion that it stands on.

mod form;
mod note;
pub(super) mod raw;
mod request;

use std::{collections::HashMap, sync::Arc};

use kube::Client;
use serde_json::{Value, json};
use thiserror::Error;

use self::raw::RawSecrets;
use super::client::{CallError, Class};
use crate::{
    api::SigningAlgorithm,
    crypto::{Algorithm, JwkSet, SigningKey},
    domain::keyring::{KeyRing, KeySlot, Times},
};

pub use note::{GENERATION_ANNOTATION, LeaseNote};
pub use raw::Metadata;
pub use request::{KeysAnswer, KeysRequest, Operation, Outcome};

/// The Secret's name.
pub const SECRET_NAME: &str = "agentid-signing-keys";
/// The Secret's type.
pub const KEYS_SECRET_TYPE: &str = "agentid.dev/signing-keys";
/// The annotation by which a person asks the leader for something: a [`KeysRequest`].
pub const REQUEST_ANNOTATION: &str = "agentid.dev/keys-request";
/// The annotation in which the leader answers: a [`KeysAnswer`].
pub const ANSWER_ANNOTATION: &str = "agentid.dev/keys-answer";
/// The annotation that says, for people, by which times the leader keeps the ring: a [`Times`].
pub const TIMES_ANNOTATION: &str = "agentid.dev/keys-times";

/// A ring that may sign, with its keys.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The ring.
    pub ring: KeyRing,
    /// The Secret's resourceVersion.
    pub resource_version: String,
    /// The Secret's UID.
    pub uid: String,
    /// Every key of the ring by its id.
    pub signers: HashMap<String, Arc<SigningKey>>,
    /// What is to be published: next, active and retired keys of every purpose.
    pub jwks: JwkSet,
    /// Of these, the keys that sign tokens: only by them may a token of ours be verified.
    pub token_jwks: JwkSet,
}

impl Loaded {
    /// The key that signs tokens with this algorithm.
    #[must_use]
    pub fn signer(&self, algorithm: SigningAlgorithm) -> Option<&Arc<SigningKey>> {
        self.signers.get(self.ring.signing_kid(algorithm.into())?)
    }

    /// The key that signs status lists. Absent only in a ring from before status lists, until the leader has
    /// written it once.
    #[must_use]
    pub fn status_signer(&self) -> Option<&Arc<SigningKey>> {
        self.signers.get(self.ring.signing_kid(KeySlot::StatusListES256)?)
    }

    /// Holds the ring against what is known of it from elsewhere: `generation` is the highest one ever seen.
    ///
    /// # Errors
    /// [`KeyringError::RolledBack`], [`KeyringError::Readdressed`].
    pub fn check(&self, generation: u64, issuer: &str, trust_domain: &str) -> Result<(), KeyringError> {
        let ring = &self.ring;
        if ring.generation < generation {
            return Err(KeyringError::RolledBack { found: ring.generation, expected: generation });
        }
        for (what, ring, configured) in
            [("issuer", &ring.issuer, issuer), ("trustDomain", &ring.trust_domain, trust_domain)]
        {
            if ring != configured {
                let (ring, configured) = (ring.clone(), configured.to_owned());
                return Err(KeyringError::Readdressed { what, ring, configured });
            }
        }
        Ok(())
    }
}

/// The Secret as it stands, whole or not.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The Secret's metadata, kept as it is by a write.
    pub metadata: Metadata,
    /// What a person asks, if it can be read.
    pub request: Option<KeysRequest>,
    /// What was answered last.
    pub answer: Option<KeysAnswer>,
    /// By which times the leader last kept the ring.
    pub times: Option<Times>,
    /// The ring, or what is wrong with it.
    pub ring: Result<Arc<Loaded>, KeyringError>,
}

impl Stored {
    /// The request that is still to be answered.
    #[must_use]
    pub fn open_request(&self) -> Option<&KeysRequest> {
        self.request.as_ref().filter(|r| self.answer.as_ref().is_none_or(|a| a.id != r.id))
    }
}

/// Why there is no ring to sign with. The text says what to do.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeyringError {
    /// No Secret, or one without a ring in it.
    #[error("the Secret {SECRET_NAME} with the signing keys is missing: {RESTORE}")]
    Missing,
    /// It can't be read as a ring with its keys.
    #[error("the Secret {SECRET_NAME} with the signing keys is damaged ({what}): {RESTORE}")]
    Damaged {
        /// What is wrong with it; no content.
        what: String,
    },
    /// The ring is not as it was written.
    #[error("ring.json in the Secret {SECRET_NAME} was changed by another hand than agentid's: {RESTORE}")]
    Edited,
    /// An older ring than the one that signed last: keys that were revoked or dropped would sign again.
    #[error(
        "the Secret {SECRET_NAME} is an old copy: its generation is {found} and the Lease notes {expected}: restore the \
         newest backup, or run `agentid keys reset` to make new keys, after which every token is minted anew"
    )]
    RolledBack {
        /// The generation in the Secret.
        found: u64,
        /// The generation noted on the Lease.
        expected: u64,
    },
    /// The configuration names another issuer or trust domain than the ring, and so than the tokens that agents hold.
    #[error(
        "the configuration says {what} {configured:?} and the key ring says {ring:?}, which is fixed while there are agents: put \
         {ring:?} back, or run `agentid keys reset` to make new keys, after which every token is minted anew"
    )]
    Readdressed {
        /// The configuration's field.
        what: &'static str,
        /// The ring's value.
        ring: String,
        /// The configured value.
        configured: String,
    },
    /// A Secret of that name that is not ours.
    #[error(
        "the Secret {SECRET_NAME} has the type {found:?} instead of {KEYS_SECRET_TYPE:?}, so it is not agentid's: delete it if \
         nothing else needs it"
    )]
    Foreign {
        /// Its type.
        found: String,
    },
    /// A new key could not be made.
    #[error("no new signing key could be made: {0}")]
    Generate(String),
    /// The API server.
    #[error("the Secret {SECRET_NAME} with the signing keys can't be reached: {0}")]
    Api(#[from] CallError),
}

const RESTORE: &str = "restore it from a backup, or run `agentid keys reset` to make new keys, after which every token is minted anew";

impl KeyringError {
    /// Whether a write was refused because the Secret has changed meanwhile: read it again.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Api(e) if matches!(e.class(), Class::Conflict | Class::AlreadyExists | Class::NotFound))
    }

    fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged { what: what.into() }
    }
}

/// What one write puts into the Secret.
#[derive(Debug)]
pub struct Content<'a> {
    /// The ring.
    pub ring: &'a KeyRing,
    /// At least the keys of the ring.
    pub signers: &'a HashMap<String, Arc<SigningKey>>,
    /// The times by which the ring is kept.
    pub times: Times,
    /// The answer to a request that this write carries out.
    pub answer: Option<&'a KeysAnswer>,
}

/// The Secret on the API server.
#[derive(Clone, Debug)]
pub struct KeyStore {
    secrets: RawSecrets,
}

impl KeyStore {
    /// The store in the operator's namespace.
    #[must_use]
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { secrets: RawSecrets::new(client, namespace) }
    }

    /// The Secret's resourceVersion, without its content; `None` where there is no Secret.
    ///
    /// # Errors
    /// [`KeyringError::Api`].
    pub async fn resource_version(&self) -> Result<Option<String>, KeyringError> {
        Ok(self.secrets.resource_version(SECRET_NAME).await?)
    }

    /// The Secret as it stands; `None` where there is none.
    ///
    /// # Errors
    /// [`KeyringError::Api`], [`KeyringError::Foreign`], and [`KeyringError::Damaged`] for an answer that is
    /// no Secret at all.
    pub async fn fetch(&self) -> Result<Option<Stored>, KeyringError> {
        self.secrets.get(SECRET_NAME).await?.map(|text| form::parse(&text)).transpose()
    }

    /// The ring, whole and as it was written. Whether it is the newest one and speaks for the configured
    /// issuer is for [`Loaded::check`].
    ///
    /// # Errors
    /// [`KeyringError`].
    pub async fn load(&self) -> Result<Arc<Loaded>, KeyringError> {
        self.fetch().await?.ok_or(KeyringError::Missing)?.ring
    }

    /// Makes the Secret.
    ///
    /// # Errors
    /// [`KeyringError::Api`]; a Secret that came meanwhile is [`KeyringError::is_conflict`].
    pub async fn create(&self, content: &Content<'_>) -> Result<Stored, KeyringError> {
        let body = form::body(&self.secrets.fresh(SECRET_NAME), content)?;
        form::parse(&self.secrets.create(body).await?)
    }

    /// Writes the Secret over the one that was read.
    ///
    /// # Errors
    /// [`KeyringError::Api`]; one that has changed or gone meanwhile is [`KeyringError::is_conflict`].
    pub async fn write(&self, over: &Metadata, content: &Content<'_>) -> Result<Stored, KeyringError> {
        let body = form::body(over, content)?;
        form::parse(&self.secrets.replace(SECRET_NAME, body).await?)
    }

    /// Answers a request without touching the keys.
    ///
    /// # Errors
    /// As [`KeyStore::write`].
    pub async fn answer(&self, over: &Metadata, answer: &KeysAnswer) -> Result<Stored, KeyringError> {
        let version = json!({"resourceVersion": over.resource_version()});
        self.annotate(ANSWER_ANNOTATION, &form::line(answer), version).await
    }

    /// Asks the leader. A reset may find no Secret: then an empty one carries the request.
    ///
    /// # Errors
    /// [`KeyringError::Missing`] where there is no Secret to ask on; [`KeyringError::Foreign`],
    /// [`KeyringError::Api`].
    pub async fn ask(&self, request: &KeysRequest) -> Result<(), KeyringError> {
        let line = form::line(request);
        match self.fetch().await? {
            Some(stored) => {
                let known = json!({"uid": stored.metadata.uid()});
                self.annotate(REQUEST_ANNOTATION, &line, known).await.map(drop)
            }
            None if request.op == Operation::Reset => {
                let mut metadata = self.secrets.fresh(SECRET_NAME);
                metadata.annotate(REQUEST_ANNOTATION, line);
                let body = form::empty(&metadata)?;
                self.secrets.create(body).await.map(drop).map_err(KeyringError::Api)
            }
            None => Err(KeyringError::Missing),
        }
    }

    async fn annotate(&self, name: &str, value: &str, known: Value) -> Result<Stored, KeyringError> {
        let mut patch = json!({"metadata": known});
        patch["metadata"]["annotations"] = json!({name: value});
        form::parse(&self.secrets.merge(SECRET_NAME, &patch).await?)
    }
}

/// The algorithm as the crypto room names it.
#[must_use]
pub const fn crypto_algorithm(algorithm: SigningAlgorithm) -> Algorithm {
    match algorithm {
        SigningAlgorithm::ES256 => Algorithm::ES256,
        SigningAlgorithm::RS256 => Algorithm::RS256,
    }
}

//! The Secret with the certificate that the token service serves: `tls.crt`, `tls.key`, and in `ca.crt` the
//! authorities as they are to be published.
//!
//! Invariant: a certificate is served only as it was written (a digest), with the record of how it came about.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{Context, SHA256};
use base64::{Engine, engine::general_purpose::STANDARD};
use kube::Client;
use serde::{Deserialize, Serialize};

use super::{CertificatesError, SERVING_SECRET, SERVING_SECRET_TYPE, api, damaged, ours};
use crate::cluster::keystore::Metadata;
use crate::cluster::keystore::raw::{RawSecret, RawSecrets, body};
use crate::crypto::Secret;
use crate::domain::certificates::ServingRecord;

/// The annotation that says how the certificate came about: a [`Note`].
const NOTE_ANNOTATION: &str = "agentid.dev/serving-certificate";
const FILES: [&str; 3] = ["tls.crt", "tls.key", "ca.crt"];

#[derive(Serialize, Deserialize)]
struct Note {
    record: ServingRecord,
    /// `sha256:` and the hex digest over the files.
    digest: String,
}

/// What the token service serves.
#[derive(Clone, Debug)]
pub struct ServingCertificate {
    /// The chain in PEM, the server's own certificate first.
    pub chain_pem: String,
    /// The key as PKCS#8 in PEM.
    pub key_pem: Secret<String>,
    /// The certificates of every published authority, in PEM.
    pub ca_pem: String,
    /// How it came about.
    pub record: ServingRecord,
    /// The Secret's resourceVersion.
    pub resource_version: String,
}

/// The Secret as it stands, whole or not.
#[derive(Clone, Debug)]
pub struct StoredServing {
    /// The Secret's metadata, kept as it is by a write.
    pub metadata: Metadata,
    /// The certificate, or what is wrong with it.
    pub certificate: Result<ServingCertificate, CertificatesError>,
}

/// What one write puts into the Secret.
#[derive(Debug)]
pub struct ServingContent<'a> {
    /// The chain in PEM.
    pub chain_pem: &'a str,
    /// The key in PEM.
    pub key_pem: &'a Secret<String>,
    /// The authorities in PEM.
    pub ca_pem: &'a str,
    /// How it came about.
    pub record: &'a ServingRecord,
}

/// The Secret with the serving certificate, on the API server.
#[derive(Clone, Debug)]
pub struct ServingStore {
    secrets: RawSecrets,
}

impl ServingStore {
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
        self.secrets.resource_version(SERVING_SECRET).await.map_err(api(SERVING_SECRET))
    }

    /// The certificate to serve; `None` where the leader has yet to make one.
    ///
    /// # Errors
    /// [`CertificatesError`]; one that was served already stays good.
    pub async fn fetch(&self) -> Result<Option<ServingCertificate>, CertificatesError> {
        self.stored().await?.map(|stored| stored.certificate).transpose()
    }

    /// The Secret as it stands; `None` where there is none.
    ///
    /// # Errors
    /// [`CertificatesError::Api`], [`CertificatesError::Foreign`], and [`CertificatesError::Damaged`] for an answer
    /// that is no Secret at all.
    pub async fn stored(&self) -> Result<Option<StoredServing>, CertificatesError> {
        let text = self.secrets.get(SERVING_SECRET).await.map_err(api(SERVING_SECRET))?;
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
        content: &ServingContent<'_>,
    ) -> Result<StoredServing, CertificatesError> {
        let fresh = || self.secrets.fresh(SERVING_SECRET);
        let body = form(&over.cloned().unwrap_or_else(fresh), content)?;
        let written = match over {
            Some(_) => self.secrets.replace(SERVING_SECRET, body).await,
            None => self.secrets.create(body).await,
        };
        parse(&written.map_err(api(SERVING_SECRET))?)
    }
}

pub(super) fn parse(text: &Secret<String>) -> Result<StoredServing, CertificatesError> {
    let raw = ours(text, SERVING_SECRET, SERVING_SECRET_TYPE)?;
    Ok(StoredServing { certificate: load(&raw), metadata: raw.metadata })
}

fn load(raw: &RawSecret) -> Result<ServingCertificate, CertificatesError> {
    let file = |name: &str| raw.file(name).map_err(|what| damaged(SERVING_SECRET, what));
    let [chain, key, ca] = FILES.map(file);
    let (chain, key_pem, ca) = (chain?, key?, ca?);
    let note: Note = raw.metadata.annotation(NOTE_ANNOTATION).ok_or_else(|| {
        damaged(SERVING_SECRET, format!("the annotation {NOTE_ANNOTATION} is missing or can't be read"))
    })?;
    if note.digest != digest([chain.expose(), key_pem.expose(), ca.expose()]) {
        return Err(damaged(SERVING_SECRET, "it was changed by another hand than agentid's"));
    }
    Ok(ServingCertificate {
        chain_pem: chain.expose().clone(),
        key_pem,
        ca_pem: ca.expose().clone(),
        record: note.record,
        resource_version: raw.metadata.resource_version().to_owned(),
    })
}

pub(super) fn form(metadata: &Metadata, content: &ServingContent<'_>) -> Result<Vec<u8>, CertificatesError> {
    let no_json = |_| damaged(SERVING_SECRET, "it is no JSON");
    let files = [content.chain_pem, content.key_pem.expose(), content.ca_pem];
    let note = Note { record: content.record.clone(), digest: digest(files) };
    let mut metadata = metadata.clone();
    metadata.annotate(NOTE_ANNOTATION, serde_json::to_string(&note).map_err(no_json)?);
    let data: BTreeMap<_, _> =
        FILES.into_iter().zip(files).map(|(name, text)| (name.to_owned(), STANDARD.encode(text))).collect();
    body(&metadata, SERVING_SECRET_TYPE, &data).map_err(no_json)
}

fn digest<T: AsRef<str>>(files: [T; 3]) -> String {
    let mut context = Context::new(&SHA256);
    for file in files {
        let file = file.as_ref();
        context.update(&(file.len() as u64).to_be_bytes());
        context.update(file.as_bytes());
    }
    let mut text = "sha256:".to_owned();
    for byte in context.finish().as_ref() {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

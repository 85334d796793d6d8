//! The Secret's form on the wire: bytes to a ring with its keys, and back. No I/O.
//!
//! Invariant: what is read is what was written (a digest), and every key is the one that its id names (its
//! thumbprint).

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use super::{
    ANSWER_ANNOTATION, Content, KEYS_SECRET_TYPE, KeyringError, Loaded, Metadata, REQUEST_ANNOTATION,
    SECRET_NAME, Stored, TIMES_ANNOTATION, crypto_algorithm,
    raw::{self, RawSecret},
};
use crate::{
    cluster::client::shape_error,
    crypto::{JwkSet, Secret, SigningKey},
    domain::keyring::{KeyRing, Purpose},
};

const RING_KEY: &str = "ring.json";

/// `ring.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RingFile {
    /// `sha256:` and the hex digest of the ring, written without spaces in the order of its fields.
    digest: String,
    ring: KeyRing,
}

/// Reads the Secret from the API server's answer.
pub(super) fn parse(text: &Secret<String>) -> Result<Stored, KeyringError> {
    let raw = RawSecret::parse(text)
        .ok_or_else(|| KeyringError::damaged("the API server's answer is no Secret"))?;
    if raw.kind != KEYS_SECRET_TYPE {
        return Err(KeyringError::Foreign { found: raw.kind });
    }
    Ok(Stored {
        request: raw.metadata.annotation(REQUEST_ANNOTATION),
        answer: raw.metadata.annotation(ANSWER_ANNOTATION),
        times: raw.metadata.annotation(TIMES_ANNOTATION),
        ring: load(&raw).map(Arc::new),
        metadata: raw.metadata,
    })
}

fn load(raw: &RawSecret) -> Result<Loaded, KeyringError> {
    if raw.is_empty() {
        return Err(KeyringError::Missing);
    }
    let file = |name: &str| raw.file(name).map_err(KeyringError::damaged);
    let ring = ring(&file(RING_KEY)?)?;
    let mut signers = HashMap::new();
    for key in &ring.keys {
        let name = format!("{}.pem", key.kid);
        let pem = file(&name)?;
        let signer = SigningKey::from_pkcs8_pem(crypto_algorithm(key.algorithm), pem.expose())
            .map_err(|e| KeyringError::damaged(format!("{name}: {e}")))?;
        if signer.kid() != key.kid {
            return Err(KeyringError::damaged(format!("{name} holds another key")));
        }
        signers.insert(key.kid.clone(), Arc::new(signer));
    }
    let published = |such: &dyn Fn(Purpose) -> bool| -> JwkSet {
        let keys = ring.keys.iter().filter(|k| such(k.purpose));
        keys.filter_map(|k| signers.get(&k.kid)).map(|s| s.public_jwk()).collect()
    };
    Ok(Loaded {
        jwks: published(&|_| true),
        token_jwks: published(&|purpose| purpose == Purpose::Tokens),
        ring,
        resource_version: raw.metadata.resource_version().to_owned(),
        uid: raw.metadata.uid().to_owned(),
        signers,
    })
}

fn ring(text: &Secret<String>) -> Result<KeyRing, KeyringError> {
    let file: RingFile = serde_json::from_str(text.expose())
        .map_err(|e| KeyringError::damaged(format!("{RING_KEY}: {}", shape_error(&e))))?;
    if digest_of(&file.ring)? != file.digest {
        return Err(KeyringError::Edited);
    }
    file.ring.validate().map_err(|e| KeyringError::damaged(format!("{RING_KEY}: {e}")))?;
    Ok(file.ring)
}

fn digest_of(ring: &KeyRing) -> Result<String, KeyringError> {
    let bytes = serde_json::to_vec(ring).map_err(|_| KeyringError::damaged("the ring is no JSON"))?;
    let mut text = "sha256:".to_owned();
    for byte in digest(&SHA256, &bytes).as_ref() {
        text.push_str(&format!("{byte:02x}"));
    }
    Ok(text)
}

/// The Secret to write, over the metadata that was read.
pub(super) fn body(over: &Metadata, content: &Content<'_>) -> Result<Vec<u8>, KeyringError> {
    let ring = RingFile { digest: digest_of(content.ring)?, ring: content.ring.clone() };
    let ring =
        serde_json::to_string_pretty(&ring).map_err(|_| KeyringError::damaged("the ring is no JSON"))?;
    let mut data = BTreeMap::from([(RING_KEY.to_owned(), STANDARD.encode(ring))]);
    for kid in content.ring.published_kids() {
        let signer = content
            .signers
            .get(kid)
            .ok_or_else(|| KeyringError::damaged(format!("the key {kid} is not at hand")))?;
        let pem = signer.to_pkcs8_pem().map_err(|e| KeyringError::Generate(e.to_string()))?;
        data.insert(format!("{kid}.pem"), STANDARD.encode(pem.expose()));
    }
    let mut metadata = over.clone();
    metadata.annotate(TIMES_ANNOTATION, line(&content.times));
    if let Some(answer) = content.answer {
        metadata.annotate(ANSWER_ANNOTATION, line(answer));
    }
    write(&metadata, &data)
}

/// A Secret without a ring, to carry a request.
pub(super) fn empty(metadata: &Metadata) -> Result<Vec<u8>, KeyringError> {
    write(metadata, &BTreeMap::new())
}

fn write(metadata: &Metadata, data: &BTreeMap<String, String>) -> Result<Vec<u8>, KeyringError> {
    raw::body(metadata, KEYS_SECRET_TYPE, data)
        .map_err(|_| KeyringError::damaged(format!("{SECRET_NAME} is no JSON")))
}

/// One line of JSON for an annotation.
pub(super) fn line(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests;

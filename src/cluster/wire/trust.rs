//! Trust ConfigMaps on the wire, and the digest by which they are compared.
//!
//! Invariant: one that holds anything but what was written has another digest.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Wire, WireMeta};
use crate::api::MANAGED_BY;
use crate::domain::{Digest, Hasher, Object, Source, Trust, Unfit};

/// A trust ConfigMap, whole.
#[derive(Debug, Deserialize)]
pub struct WireTrust {
    metadata: WireMeta,
    #[serde(default)]
    data: BTreeMap<String, String>,
    #[serde(default, rename = "binaryData")]
    binary_data: BTreeMap<String, String>,
    #[serde(default)]
    immutable: bool,
}

/// Digest of a trust ConfigMap's data.
#[must_use]
pub fn trust_digest(data: &BTreeMap<String, String>) -> Digest {
    let mut h = Hasher::new("trust v1");
    for (key, value) in data {
        h.part(key.as_bytes()).part(value.as_bytes());
    }
    h.finish()
}

impl Wire for WireTrust {
    fn which(&self) -> [&str; 3] {
        self.metadata.which()
    }

    fn object(self, _: &Source) -> Result<Object, Unfit> {
        let ours = self.metadata.labels.get(MANAGED_BY.0).map(String::as_str) == Some(MANAGED_BY.1);
        // Whatever else it holds makes it differ from what is wanted.
        let digest = if self.binary_data.is_empty() && !self.immutable {
            trust_digest(&self.data)
        } else {
            Digest::default()
        };
        Ok(Object::Trust(Box::new(Trust { meta: self.metadata.meta()?, ours, digest })))
    }
}

//! Secrets of ours with key material, on the wire: calls whose answers stay out of kube's decoder, since that logs
//! a body that it can't decode.
//!
//! Invariants: no value of a Secret is in an error or a Debug; a write keeps the metadata that it stands on, its
//! resourceVersion with it.

use std::{collections::BTreeMap, fmt};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{Method, Request, header::CONTENT_TYPE};
use k8s_openapi::api::core::v1::Secret as SecretKind;
use kube::{Api, Client};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    api::MANAGED_BY,
    cluster::{
        client::{CallError, Class, timed},
        wire::FIELD_MANAGER,
    },
    crypto::Secret,
};

/// The Secrets of one namespace.
#[derive(Clone)]
pub(in crate::cluster) struct RawSecrets {
    client: Client,
    namespace: String,
}

impl fmt::Debug for RawSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawSecrets").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl RawSecrets {
    pub(in crate::cluster) fn new(client: Client, namespace: &str) -> Self {
        Self { client, namespace: namespace.to_owned() }
    }

    /// The metadata of a Secret that is still to be made.
    pub(in crate::cluster) fn fresh(&self, name: &str) -> Metadata {
        let labels = Map::from_iter([(MANAGED_BY.0.to_owned(), MANAGED_BY.1.into())]);
        Metadata(Map::from_iter([
            ("name".to_owned(), name.into()),
            ("namespace".to_owned(), self.namespace.as_str().into()),
            ("labels".to_owned(), labels.into()),
        ]))
    }

    /// A Secret's resourceVersion, without its content.
    pub(in crate::cluster) async fn resource_version(&self, name: &str) -> Result<Option<String>, CallError> {
        let api = Api::<SecretKind>::namespaced(self.client.clone(), &self.namespace);
        let found = timed(api.get_metadata_opt(name)).await?;
        Ok(found.and_then(|s| s.metadata.resource_version))
    }

    pub(in crate::cluster) async fn get(&self, name: &str) -> Result<Option<Secret<String>>, CallError> {
        match self.call(Method::GET, name, Vec::new()).await {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.class() == Class::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// What does not exist then is the namespace: that is no conflict, and is not tried again at once.
    pub(in crate::cluster) async fn create(&self, body: Vec<u8>) -> Result<Secret<String>, CallError> {
        self.call(Method::POST, "", body).await.map_err(|e| match e.class() {
            Class::NotFound => {
                let message = format!("the namespace {} does not exist: create it", self.namespace);
                CallError::new(Class::Invalid, message)
            }
            _ => e,
        })
    }

    pub(in crate::cluster) async fn replace(
        &self,
        name: &str,
        body: Vec<u8>,
    ) -> Result<Secret<String>, CallError> {
        self.call(Method::PUT, name, body).await
    }

    pub(in crate::cluster) async fn merge(
        &self,
        name: &str,
        patch: &Value,
    ) -> Result<Secret<String>, CallError> {
        self.call(Method::PATCH, name, patch.to_string().into_bytes()).await
    }

    async fn call(&self, method: Method, name: &str, body: Vec<u8>) -> Result<Secret<String>, CallError> {
        let mut path = format!("/api/v1/namespaces/{}/secrets", self.namespace);
        if !name.is_empty() {
            path = format!("{path}/{name}");
        }
        let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        if method != Method::GET {
            path = format!("{path}?fieldManager={FIELD_MANAGER}");
        }
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(CONTENT_TYPE, kind)
            .body(body)
            .map_err(|_| CallError::new(Class::Invalid, "the namespace can't be part of a path"))?;
        timed(self.client.request_text(request)).await.map(Secret::new)
    }
}

/// The metadata of a Secret as the API server gave it, less its managedFields.
#[derive(Clone, Default)]
pub struct Metadata(pub(super) Map<String, Value>);

impl fmt::Debug for Metadata {
    // `kubectl apply` leaves a copy of the data in an annotation.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metadata").field("resource_version", &self.resource_version()).finish_non_exhaustive()
    }
}

impl Metadata {
    fn text(&self, name: &str) -> &str {
        self.0.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// The resourceVersion, empty for a Secret that is still to be made.
    #[must_use]
    pub fn resource_version(&self) -> &str {
        self.text("resourceVersion")
    }

    /// The UID.
    #[must_use]
    pub fn uid(&self) -> &str {
        self.text("uid")
    }

    /// An annotation that holds JSON, if it can be read.
    pub(in crate::cluster) fn annotation<T: serde::de::DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_str(self.0.get("annotations")?.get(name)?.as_str()?).ok()
    }

    /// Sets an annotation.
    pub(in crate::cluster) fn annotate(&mut self, name: &str, value: String) {
        let annotations = self.0.entry("annotations").or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(annotations) = annotations {
            annotations.insert(name.to_owned(), value.into());
        }
    }
}

/// A Secret as it was read.
pub(in crate::cluster) struct RawSecret {
    pub(in crate::cluster) metadata: Metadata,
    /// Its type.
    pub(in crate::cluster) kind: String,
    /// Its data, in base64.
    data: BTreeMap<String, Secret<String>>,
}

impl RawSecret {
    /// Reads the API server's answer; `None` for one that is no Secret.
    pub(in crate::cluster) fn parse(text: &Secret<String>) -> Option<Self> {
        #[derive(Deserialize)]
        struct Body {
            metadata: Map<String, Value>,
            #[serde(rename = "type")]
            kind: Option<String>,
            #[serde(default)]
            data: Option<BTreeMap<String, String>>,
        }
        // serde's messages quote what they stumble over: the error is dropped.
        let Body { mut metadata, kind, data } = serde_json::from_str(text.expose()).ok()?;
        metadata.remove("managedFields");
        let data = data.unwrap_or_default().into_iter().map(|(k, v)| (k, Secret::new(v))).collect();
        Some(Self { metadata: Metadata(metadata), kind: kind.unwrap_or_default(), data })
    }

    pub(in crate::cluster) fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The text of a file, or what is wrong with it.
    pub(in crate::cluster) fn file(&self, name: &str) -> Result<Secret<String>, String> {
        let text = self.data.get(name).ok_or_else(|| format!("{name} is missing"))?;
        let bytes = STANDARD.decode(text.expose()).map_err(|_| format!("{name}: base64"))?;
        // The bytes that are no text are dropped with the error, not shown by it.
        String::from_utf8(bytes).map(Secret::new).map_err(|_| format!("{name} is not UTF-8"))
    }
}

/// A Secret to write: over the metadata that was read, its type, and its files in base64.
pub(in crate::cluster) fn body(
    metadata: &Metadata,
    secret_type: &str,
    data: &BTreeMap<String, String>,
) -> Result<Vec<u8>, serde_json::Error> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Body<'a> {
        api_version: &'a str,
        kind: &'a str,
        metadata: &'a Map<String, Value>,
        #[serde(rename = "type")]
        secret_type: &'a str,
        data: &'a BTreeMap<String, String>,
    }
    serde_json::to_vec(&Body { api_version: "v1", kind: "Secret", metadata: &metadata.0, secret_type, data })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use kube::client::Body;
    use tower::service_fn;

    use super::*;
    use crate::cluster::keystore::{Content, KeyStore};
    use crate::domain::keyring::{KeyRing, Times};

    #[tokio::test]
    async fn a_namespace_that_is_missing_is_no_conflict() {
        let service = service_fn(|_: Request<Body>| async {
            let said = br#"{"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404, "message": "gone"}"#;
            let answer = http::Response::builder().status(404).body(Body::from(said.to_vec()));
            answer.map_err(tower::BoxError::from)
        });
        let store = KeyStore::new(Client::new(service, "default"), "agentid-system");
        let ring = KeyRing::empty("https://agents.example.com", "agents.example.com", 0);
        let times = Times { sign_for: 1000, publish_ahead: 10, max_token_lifetime: 60 };
        let content = Content { ring: &ring, signers: &HashMap::new(), times, answer: None };
        let made = store.create(&content).await.unwrap_err();
        assert!(!made.is_conflict() && made.to_string().contains("namespace agentid-system"), "{made}");
        let written = store.write(&Metadata::default(), &content).await.unwrap_err();
        assert!(written.is_conflict(), "it has gone meanwhile: {written}");
    }
}

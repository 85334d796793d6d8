//! Writes of namespaces' trust ConfigMaps.
//!
//! Invariant: what is written is the whole of one: nothing that another put into it stays.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::json;

use super::{At, JSON, JSON_PATCH, Outcome, Writer, add};
use crate::api::{MANAGED_BY, TRUST_NAME};
use crate::domain::Uid;

impl Writer {
    /// Creates a namespace's trust ConfigMap.
    ///
    /// # Errors
    /// The call's; `AlreadyExists` where one is there that no watch has shown yet.
    pub async fn create_trust<T: DeserializeOwned>(
        &self,
        namespace: &str,
        data: &BTreeMap<String, String>,
    ) -> Outcome<T> {
        let body = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": TRUST_NAME, "namespace": namespace, "labels": {MANAGED_BY.0: MANAGED_BY.1}},
            "data": data,
        });
        self.call("POST", &format!("/api/v1/namespaces/{namespace}/configmaps"), JSON, JSON, Some(&body))
            .await
    }

    /// Writes a namespace's trust ConfigMap anew.
    ///
    /// # Errors
    /// As [`Self::update_secret`].
    pub async fn update_trust<T: DeserializeOwned>(
        &self,
        namespace: &str,
        at: At,
        data: &BTreeMap<String, String>,
    ) -> Outcome<T> {
        let mut ops = at.ops();
        ops.extend([add("/data", json!(data)), add("/binaryData", json!({}))]);
        self.call("PATCH", &trust_path(namespace), JSON, JSON_PATCH, Some(&ops)).await
    }

    /// Deletes a namespace's trust ConfigMap of this UID.
    ///
    /// # Errors
    /// The call's.
    pub async fn delete_trust(&self, namespace: &str, uid: Uid) -> Outcome<()> {
        self.delete(&trust_path(namespace), At::any(uid)).await
    }
}

fn trust_path(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps/{TRUST_NAME}")
}

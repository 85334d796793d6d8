//! Writes of agents' Secrets.
//!
//! Invariant: no answer carries data: what comes back is metadata alone.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{At, JSON, JSON_PATCH, METADATA, Outcome, Writer, absent_as_none, add};
use crate::api::{AGENT_LABEL, API_VERSION, MANAGED_BY, SECRET_TYPE};
use crate::cluster::wire::WireSecret;
use crate::domain::{Key, Uid};

/// What is written into an agent's Secret.
#[derive(Clone, Copy)]
pub struct SecretWrite<'a> {
    /// The agent.
    pub agent: &'a Key,
    /// Its UID.
    pub uid: Uid,
    /// The data, not yet base64.
    pub data: &'a BTreeMap<String, String>,
    /// Our annotations.
    pub annotations: &'a BTreeMap<String, String>,
}

impl SecretWrite<'_> {
    fn labels(&self) -> Value {
        json!({
            MANAGED_BY.0: MANAGED_BY.1,
            AGENT_LABEL: &*self.agent.name,
            // A restored credential would be stale at best; it comes back from its agent.
            "velero.io/exclude-from-backup": "true",
        })
    }

    fn annotations(&self) -> Value {
        let mut all: BTreeMap<&str, &str> =
            self.annotations.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        // A renewal is not a reason to restart pods: the kubelet brings it in.
        all.insert("reloader.stakater.com/ignore", "true");
        json!(all)
    }

    fn owner(&self) -> Value {
        json!([{
            "apiVersion": API_VERSION, "kind": "AgentIdentity", "name": &*self.agent.name,
            "uid": self.uid.to_string(), "controller": true,
        }])
    }

    fn encoded(&self) -> Value {
        json!(self.data.iter().map(|(k, v)| (k.as_str(), STANDARD.encode(v))).collect::<BTreeMap<_, _>>())
    }
}

impl Writer {
    /// Creates an agent's Secret.
    ///
    /// # Errors
    /// The call's; `AlreadyExists` where something bears the name.
    pub async fn create_secret(&self, key: &Key, write: SecretWrite<'_>) -> Outcome<WireSecret> {
        let body = json!({
            "apiVersion": "v1", "kind": "Secret", "type": SECRET_TYPE,
            "metadata": {
                "name": &*key.name, "namespace": &*key.namespace, "labels": write.labels(),
                "annotations": write.annotations(), "ownerReferences": write.owner(),
            },
            "data": write.encoded(),
        });
        let path = format!("/api/v1/namespaces/{}/secrets", key.namespace);
        self.call("POST", &path, METADATA, JSON, Some(&body)).await
    }

    /// Writes an agent's Secret anew; `heal` also sets labels, annotations and owner as a whole.
    ///
    /// # Errors
    /// The call's; `Invalid` or `NotFound` where the Secret of this UID is gone, `Conflict` where it has changed.
    pub async fn update_secret(
        &self,
        key: &Key,
        at: At,
        write: SecretWrite<'_>,
        heal: bool,
    ) -> Outcome<WireSecret> {
        let mut ops = at.ops();
        if heal {
            ops.push(add("/metadata/labels", write.labels()));
            ops.push(add("/metadata/annotations", write.annotations()));
            ops.push(add("/metadata/ownerReferences", write.owner()));
        } else {
            annotate(&mut ops, write.annotations);
        }
        ops.push(add("/data", write.encoded()));
        self.call("PATCH", &secret_path(key), METADATA, JSON_PATCH, Some(&ops)).await
    }

    /// Takes files out of an agent's Secret and leaves the other tokens as they are.
    ///
    /// # Errors
    /// As [`Self::update_secret`].
    pub async fn strip_secret(
        &self,
        key: &Key,
        uid: Uid,
        write: SecretWrite<'_>,
        undue: &[Box<str>],
    ) -> Outcome<WireSecret> {
        let mut ops = At::any(uid).ops();
        annotate(&mut ops, write.annotations);
        ops.extend(undue.iter().map(|f| json!({"op": "remove", "path": format!("/data/{}", escape(f))})));
        ops.extend(
            write.data.iter().map(|(k, v)| add(&format!("/data/{}", escape(k)), json!(STANDARD.encode(v)))),
        );
        self.call("PATCH", &secret_path(key), METADATA, JSON_PATCH, Some(&ops)).await
    }

    /// Deletes a Secret of this UID; one that is gone already is no error.
    ///
    /// # Errors
    /// The call's.
    pub async fn delete_secret(&self, key: &Key, uid: Uid) -> Outcome<()> {
        self.delete(&secret_path(key), At::any(uid)).await
    }

    /// What bears the name of a Secret: its type, for people; `None` if nothing does. Data is not read.
    ///
    /// # Errors
    /// The call's.
    pub async fn secret_in_the_way(&self, key: &Key) -> Outcome<Option<WireSecret>> {
        let found = self.call("GET", &secret_path(key), METADATA, JSON, None::<&()>).await;
        absent_as_none(found)
    }
}

fn secret_path(key: &Key) -> String {
    format!("/api/v1/namespaces/{}/secrets/{}", key.namespace, key.name)
}

fn annotate(ops: &mut Vec<Value>, annotations: &BTreeMap<String, String>) {
    ops.extend(
        annotations.iter().map(|(k, v)| add(&format!("/metadata/annotations/{}", escape(k)), json!(v))),
    );
}

/// A reference token of a JSON Pointer (RFC 6901 §3).
fn escape(token: &str) -> String {
    token.replace('~', "~0").replace('/', "~1")
}

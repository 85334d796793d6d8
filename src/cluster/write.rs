//! Writes of the operator, one call each.
//!
//! Invariants: every patch tests the UID and every delete has it as a precondition, so a late write meets
//! nobody else's object; what gives names the resourceVersion that it stands on too, so a late one meets nothing
//! newer than what it was decided for; nothing that is gone is ever brought back; the answer, as metadata where
//! that is enough, goes back into the world.

mod at;
mod bindings;

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Request;
use jiff::Timestamp;
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Value, json};

use super::client::{CallError, Class, timed};
use super::wire::{FIELD_MANAGER, WireAgent, WireSecret};
use crate::api::{
    AGENT_LABEL, API_VERSION, MADE_LABEL, MANAGED_BY, PER_LABEL, ROTATE_ANNOTATION, SECRET_TYPE, TRUST_NAME,
};
use crate::domain::maker::Made;
use crate::domain::{Key, Uid};

pub use at::At;

/// The field manager of what commands write for people.
const PEOPLE: &str = "agentid-cli";
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const JSON: &str = "application/json";
const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";

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

/// The writes.
#[derive(Clone)]
pub struct Writer {
    client: kube::Client,
    manager: &'static str,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Writer")
    }
}

type Outcome<T> = Result<T, CallError>;

impl Writer {
    /// Writes through a client.
    #[must_use]
    pub const fn new(client: kube::Client) -> Self {
        Self { client, manager: FIELD_MANAGER }
    }

    /// Writes what a person asked a command for, in that person's name.
    #[must_use]
    pub const fn for_people(client: kube::Client) -> Self {
        Self { client, manager: PEOPLE }
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: &'static str,
        path: &str,
        accept: &'static str,
        content: &'static str,
        body: Option<&impl Serialize>,
    ) -> Outcome<T> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let manager = if matches!(method, "POST" | "PUT" | "PATCH") {
            format!("{separator}fieldManager={}", self.manager)
        } else {
            String::new()
        };
        let body = body.map(serde_json::to_vec).transpose().map_err(kube::Error::SerdeError)?;
        let request = Request::builder()
            .method(method)
            .uri(format!("{path}{manager}"))
            .header("accept", accept)
            .header("content-type", content)
            .body(body.unwrap_or_default())
            .map_err(kube::Error::HttpError)?;
        timed(self.client.request::<T>(request)).await
    }

    /// Deletes whatever is at a path, if it has this UID; what is gone already, or is another by now, is no error.
    ///
    /// # Errors
    /// The call's.
    pub async fn delete_at(&self, path: &str, uid: Uid) -> Outcome<()> {
        self.delete(path, At::any(uid)).await
    }

    async fn delete(&self, path: &str, at: At) -> Outcome<()> {
        let options = json!({
            "apiVersion": "v1", "kind": "DeleteOptions",
            "preconditions": at.preconditions(), "propagationPolicy": "Background",
        });
        let deleted = self.call::<IgnoredAny>("DELETE", path, METADATA, JSON, Some(&options)).await;
        match deleted {
            Ok(_) => Ok(()),
            Err(e) if e.class() == Class::NotFound => Ok(()),
            // Another object has its name: this one is not there.
            Err(e) if e.class() == Class::Conflict && at.version.is_none() => Ok(()),
            Err(e) => Err(e),
        }
    }

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

    /// Writes the status of an object of ours; `plural` is its kind's, such as `agentgrants`.
    ///
    /// # Errors
    /// As [`Self::update_secret`].
    pub async fn status<T: DeserializeOwned>(
        &self,
        plural: &str,
        key: &Key,
        at: At,
        status: &impl Serialize,
    ) -> Outcome<T> {
        let mut ops = at.ops();
        ops.push(add("/status", json!(status)));
        let path = format!("{}/status", custom_path(plural, key));
        self.call("PATCH", &path, JSON, JSON_PATCH, Some(&ops)).await
    }

    /// Adds an ownerReference to an agent, beside those that it has.
    ///
    /// # Errors
    /// As [`Self::update_secret`].
    pub async fn own_agent(&self, key: &Key, at: At, has_owners: bool, owner: &Value) -> Outcome<WireAgent> {
        let mut ops = at.ops();
        ops.push(if has_owners {
            add("/metadata/ownerReferences/-", owner.clone())
        } else {
            add("/metadata/ownerReferences", json!([owner]))
        });
        self.call("PATCH", &agent_path(key), JSON, JSON_PATCH, Some(&ops)).await
    }

    /// Makes an agent from a blueprint.
    ///
    /// # Errors
    /// The call's; `AlreadyExists` where one bears the name.
    pub async fn create_agent(&self, made: &Made) -> Outcome<WireAgent> {
        let (api_version, kind) = made.kind.rsplit_once('/').unwrap_or(("v1", &made.kind));
        let bound = json!({
            "apiVersion": api_version, "kind": kind, "name": &*made.name, "uid": made.uid.to_string(),
        });
        let mut spec = json!({"blueprint": &*made.blueprint, "boundObjectRef": bound.clone()});
        if let Some(account) = &made.account {
            spec["serviceAccountName"] = json!(&**account);
        }
        let body = json!({
            "apiVersion": API_VERSION, "kind": "AgentIdentity",
            "metadata": {
                "name": &*made.agent.name,
                "labels": {
                    MANAGED_BY.0: MANAGED_BY.1,
                    MADE_LABEL: made.blueprint_uid.to_string(),
                    PER_LABEL: made.per.as_str(),
                },
                "ownerReferences": [bound],
            },
            "spec": spec,
        });
        let path = format!("/apis/{API_VERSION}/namespaces/{}/agentidentities", made.agent.namespace);
        self.call("POST", &path, JSON, JSON, Some(&body)).await
    }

    /// Sets `spec.suspend` of an agent.
    ///
    /// # Errors
    /// The call's; `NotFound` where the agent of this UID is gone.
    pub async fn suspend_agent(&self, key: &Key, uid: Uid, suspend: bool) -> Outcome<()> {
        self.suspend(&agent_path(key), uid, suspend).await
    }

    /// Sets `spec.suspend` of a blueprint.
    ///
    /// # Errors
    /// The call's; `NotFound` where the blueprint of this UID is gone.
    pub async fn suspend_blueprint(&self, name: &str, uid: Uid, suspend: bool) -> Outcome<()> {
        self.suspend(&format!("/apis/{API_VERSION}/agentblueprints/{name}"), uid, suspend).await
    }

    async fn suspend(&self, path: &str, uid: Uid, suspend: bool) -> Outcome<()> {
        let mut ops = At::any(uid).ops();
        ops.push(add("/spec/suspend", json!(suspend)));
        let done = self.call::<IgnoredAny>("PATCH", path, METADATA, JSON_PATCH, Some(&ops)).await;
        let Err(error) = done else { return Ok(()) };
        if error.class() != Class::Invalid {
            return Err(error);
        }
        // Another UID is as invalid as what a schema or an admission policy refuses: the object itself tells which.
        let found = absent_as_none(self.call::<Named>("GET", path, METADATA, JSON, None::<&()>).await)?;
        match found {
            Some(found) if found.metadata.uid == uid.to_string() => Err(error),
            _ => Err(CallError::new(Class::NotFound, "it is gone")),
        }
    }

    /// Asks the operator for an agent's tokens to be minted anew; once for each value.
    ///
    /// # Errors
    /// The call's; `NotFound` or `Conflict` where the agent of this UID is gone.
    pub async fn rotate_agent(&self, key: &Key, uid: Uid, at: Timestamp) -> Outcome<()> {
        // A merge patch makes the map where there is none; the UID in it is tested.
        let patch = json!({"metadata": {
            "uid": uid.to_string(), "annotations": {ROTATE_ANNOTATION: at.to_string()},
        }});
        let done: Outcome<IgnoredAny> =
            self.call("PATCH", &agent_path(key), METADATA, MERGE_PATCH, Some(&patch)).await;
        done.map(drop)
    }

    /// Deletes an agent as it was seen; one that is gone already is no error.
    ///
    /// # Errors
    /// The call's; `Conflict` where it has changed.
    pub async fn delete_agent(&self, key: &Key, at: At) -> Outcome<()> {
        self.delete(&agent_path(key), at).await
    }

    /// One object of any kind, read as far as `T` goes; `None` if there is none.
    ///
    /// # Errors
    /// The call's.
    pub async fn look<T: DeserializeOwned>(&self, collection: &str, key: &Key) -> Outcome<Option<T>> {
        let (head, kind) = collection.rsplit_once('/').unwrap_or(("", collection));
        let path = format!("{head}/namespaces/{}/{kind}/{}", key.namespace, key.name);
        absent_as_none(self.call("GET", &path, JSON, JSON, None::<&()>).await)
    }

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

/// An object of which the UID is all that is asked.
#[derive(serde::Deserialize)]
struct Named {
    metadata: NamedMeta,
}

#[derive(serde::Deserialize)]
struct NamedMeta {
    uid: String,
}

fn secret_path(key: &Key) -> String {
    format!("/api/v1/namespaces/{}/secrets/{}", key.namespace, key.name)
}

/// Where an object of ours is.
fn custom_path(plural: &str, key: &Key) -> String {
    let Key { namespace, name } = key;
    if namespace.is_empty() {
        format!("/apis/{API_VERSION}/{plural}/{name}")
    } else {
        format!("/apis/{API_VERSION}/namespaces/{namespace}/{plural}/{name}")
    }
}

fn agent_path(key: &Key) -> String {
    custom_path("agentidentities", key)
}

fn trust_path(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps/{TRUST_NAME}")
}

#[expect(clippy::needless_pass_by_value, reason = "every caller makes it on the spot")]
fn add(path: &str, value: Value) -> Value {
    json!({"op": "add", "path": path, "value": value})
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

fn absent_as_none<T>(found: Outcome<T>) -> Outcome<Option<T>> {
    match found {
        Ok(object) => Ok(Some(object)),
        Err(e) if e.class() == Class::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

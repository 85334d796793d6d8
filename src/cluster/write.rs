//! Writes of the operator, one call each.
//!
//! Invariants: every patch tests the UID and every delete has it as a precondition, so a late write meets
//! nobody else's object; a leader's write goes no step further than its claim; nothing that is gone is ever brought
//! back; the answer, as metadata where that is enough, goes back into the world.

mod bindings;

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Request;
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Value, json};

use super::client::{CallError, Class, timed};
use super::lease::Claim;
use super::wire::{FIELD_MANAGER, WireAgent, WireBlueprint, WireGrant, WirePolicy, WireResource, WireSecret};
use crate::api::{AGENT_LABEL, API_VERSION, MADE_LABEL, MANAGED_BY, PER_LABEL, SECRET_TYPE, TRUST_NAME};
use crate::domain::maker::Made;
use crate::domain::{Key, Uid};

/// The field manager of what commands write for people.
const PEOPLE: &str = "agentid-cli";
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const JSON: &str = "application/json";
const JSON_PATCH: &str = "application/json-patch+json";

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
    claim: Option<Claim>,
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
        Self { client, manager: FIELD_MANAGER, claim: None }
    }

    /// Writes only as long as the claim is current.
    #[must_use]
    pub fn under(self, claim: Claim) -> Self {
        Self { claim: Some(claim), ..self }
    }

    /// Writes what a person asked a command for, in that person's name.
    #[must_use]
    pub const fn for_people(client: kube::Client) -> Self {
        Self { client, manager: PEOPLE, claim: None }
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
        let call = timed(self.client.request::<T>(request));
        match &self.claim {
            Some(claim) => claim.hold(call).await,
            None => call.await,
        }
    }

    async fn delete(&self, path: &str, uid: Uid) -> Outcome<()> {
        let options = json!({
            "apiVersion": "v1", "kind": "DeleteOptions",
            "preconditions": {"uid": uid.to_string()}, "propagationPolicy": "Background",
        });
        let deleted = self.call::<IgnoredAny>("DELETE", path, METADATA, JSON, Some(&options)).await;
        match deleted {
            Ok(_) => Ok(()),
            // It is gone, or another object has its name: either way this one is not there.
            Err(e) if matches!(e.class(), Class::NotFound | Class::Conflict) => Ok(()),
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
    /// The call's; `Invalid` or `NotFound` where the Secret of this UID is gone.
    pub async fn update_secret(
        &self,
        key: &Key,
        uid: Uid,
        write: SecretWrite<'_>,
        heal: bool,
    ) -> Outcome<WireSecret> {
        let mut ops = vec![test_uid(uid)];
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
        let mut ops = vec![test_uid(uid)];
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
        self.delete(&secret_path(key), uid).await
    }

    /// What bears the name of a Secret: its type, for people; `None` if nothing does. Data is not read.
    ///
    /// # Errors
    /// The call's.
    pub async fn secret_in_the_way(&self, key: &Key) -> Outcome<Option<WireSecret>> {
        let found = self.call("GET", &secret_path(key), METADATA, JSON, None::<&()>).await;
        absent_as_none(found)
    }

    /// Writes an agent's status.
    ///
    /// # Errors
    /// As [`Self::update_secret`].
    pub async fn agent_status(&self, key: &Key, uid: Uid, status: &impl Serialize) -> Outcome<WireAgent> {
        let path = format!("{}/status", agent_path(key));
        self.call("PATCH", &path, JSON, JSON_PATCH, Some(&[test_uid(uid), add("/status", json!(status))]))
            .await
    }

    /// Adds an ownerReference to an agent, beside those that it has.
    ///
    /// # Errors
    /// As [`Self::update_secret`]; `Invalid` also where the agent has changed meanwhile.
    pub async fn own_agent(
        &self,
        key: &Key,
        uid: Uid,
        version: u64,
        has_owners: bool,
        owner: &Value,
    ) -> Outcome<WireAgent> {
        let version =
            json!({"op": "test", "path": "/metadata/resourceVersion", "value": version.to_string()});
        let add = if has_owners {
            add("/metadata/ownerReferences/-", owner.clone())
        } else {
            add("/metadata/ownerReferences", json!([owner]))
        };
        self.call("PATCH", &agent_path(key), JSON, JSON_PATCH, Some(&[test_uid(uid), version, add])).await
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
        let ops = [test_uid(uid), add("/spec/suspend", json!(suspend))];
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

    /// Deletes an agent of this UID; one that is gone already is no error.
    ///
    /// # Errors
    /// The call's.
    pub async fn delete_agent(&self, key: &Key, uid: Uid) -> Outcome<()> {
        self.delete(&agent_path(key), uid).await
    }

    /// Writes a grant's status.
    ///
    /// # Errors
    /// As [`Self::update_secret`].
    pub async fn grant_status(&self, key: &Key, uid: Uid, status: &impl Serialize) -> Outcome<WireGrant> {
        let path =
            format!("/apis/{API_VERSION}/namespaces/{}/agentgrants/{}/status", key.namespace, key.name);
        self.call("PATCH", &path, JSON, JSON_PATCH, Some(&[test_uid(uid), add("/status", json!(status))]))
            .await
    }

    /// Writes a blueprint's status.
    ///
    /// # Errors
    /// As [`Self::update_secret`].
    pub async fn blueprint_status(
        &self,
        name: &str,
        uid: Uid,
        status: &impl Serialize,
    ) -> Outcome<WireBlueprint> {
        let path = format!("/apis/{API_VERSION}/agentblueprints/{name}/status");
        self.call("PATCH", &path, JSON, JSON_PATCH, Some(&[test_uid(uid), add("/status", json!(status))]))
            .await
    }

    /// Writes a resource's status.
    ///
    /// # Errors
    /// As [`Self::update_secret`].
    pub async fn resource_status(
        &self,
        name: &str,
        uid: Uid,
        status: &impl Serialize,
    ) -> Outcome<WireResource> {
        let path = format!("/apis/{API_VERSION}/agentresources/{name}/status");
        self.call("PATCH", &path, JSON, JSON_PATCH, Some(&[test_uid(uid), add("/status", json!(status))]))
            .await
    }

    /// Writes a policy's status.
    ///
    /// # Errors
    /// As [`Self::update_secret`].
    pub async fn policy_status(&self, name: &str, uid: Uid, status: &impl Serialize) -> Outcome<WirePolicy> {
        let path = format!("/apis/{API_VERSION}/agentpolicies/{name}/status");
        self.call("PATCH", &path, JSON, JSON_PATCH, Some(&[test_uid(uid), add("/status", json!(status))]))
            .await
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
        uid: Uid,
        data: &BTreeMap<String, String>,
    ) -> Outcome<T> {
        let ops = [test_uid(uid), add("/data", json!(data)), add("/binaryData", json!({}))];
        self.call("PATCH", &trust_path(namespace), JSON, JSON_PATCH, Some(&ops)).await
    }

    /// Deletes a namespace's trust ConfigMap of this UID.
    ///
    /// # Errors
    /// The call's.
    pub async fn delete_trust(&self, namespace: &str, uid: Uid) -> Outcome<()> {
        self.delete(&trust_path(namespace), uid).await
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

fn agent_path(key: &Key) -> String {
    format!("/apis/{API_VERSION}/namespaces/{}/agentidentities/{}", key.namespace, key.name)
}

fn trust_path(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps/{TRUST_NAME}")
}

fn test_uid(uid: Uid) -> Value {
    json!({"op": "test", "path": "/metadata/uid", "value": uid.to_string()})
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

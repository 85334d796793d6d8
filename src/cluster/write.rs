//! Writes of the operator, one call each.
//!
//! Invariants: every patch tests the UID and every delete has it as a precondition, so a late write meets
//! nobody else's object; what gives names the resourceVersion that it stands on too, so a late one meets nothing
//! newer than what it was decided for; nothing that is gone is ever brought back; the answer, as metadata where
//! that is enough, goes back into the world.

mod agents;
mod at;
mod bindings;
mod secrets;
mod trust;

use http::Request;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::client::{CallError, Class, timed};
use super::wire::FIELD_MANAGER;
use crate::api::API_VERSION;
use crate::domain::{Key, Uid};

pub use at::At;
pub use secrets::SecretWrite;

/// The field manager of what commands write for people.
const PEOPLE: &str = "agentid-cli";
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const JSON: &str = "application/json";
const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";

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

    /// Why a patch that tests the UID was refused: `NotFound` where the object of this UID is gone. Another UID is as
    /// invalid as what a schema or an admission policy refuses: the object itself tells which.
    async fn or_gone(&self, path: &str, uid: Uid, error: CallError) -> CallError {
        if error.class() != Class::Invalid {
            return error;
        }
        match absent_as_none(self.call::<Named>("GET", path, METADATA, JSON, None::<&()>).await) {
            Ok(Some(found)) if found.metadata.uid == uid.to_string() => error,
            Ok(_) => CallError::new(Class::NotFound, "it is gone"),
            Err(error) => error,
        }
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
}

/// An object of which the UID is all that is asked.
#[derive(Deserialize)]
struct Named {
    metadata: NamedMeta,
}

#[derive(Deserialize)]
struct NamedMeta {
    uid: String,
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

#[expect(clippy::needless_pass_by_value, reason = "every caller makes it on the spot")]
fn add(path: &str, value: Value) -> Value {
    json!({"op": "add", "path": path, "value": value})
}

fn absent_as_none<T>(found: Outcome<T>) -> Outcome<Option<T>> {
    match found {
        Ok(object) => Ok(Some(object)),
        Err(e) if e.class() == Class::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

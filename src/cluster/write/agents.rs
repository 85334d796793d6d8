//! Writes of AgentIdentities, and the suspension of AgentBlueprints.
//!
//! Invariant: of a spec that people write nothing is set but what a person asked a command for.

use jiff::Timestamp;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::{At, JSON, JSON_PATCH, MERGE_PATCH, METADATA, Outcome, Writer, add, custom_path};
use crate::api::{API_VERSION, MADE_LABEL, MANAGED_BY, PER_LABEL, ROTATE_ANNOTATION};
use crate::cluster::wire::WireAgent;
use crate::domain::maker::Made;
use crate::domain::{Key, Uid};

impl Writer {
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
        Err(self.or_gone(path, uid, error).await)
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
}

fn agent_path(key: &Key) -> String {
    custom_path("agentidentities", key)
}

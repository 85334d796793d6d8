//! What is to be said of each grant. Pure.
//!
//! Invariants: a grant that the record can't tell about (delivered in a Secret, or not as old as the time that is
//! looked at) is never called unused and never narrowed; a narrower grant differs from the one that was read in its
//! lists of roles and scopes alone.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::api::{API_VERSION, AgentGrantSpec};
use crate::issue::usage::{Usage, Used};

/// What kubectl's client-side apply keeps, which would be the old spec.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// A grant as it was read.
#[derive(Clone, Debug)]
pub(super) struct Live {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) spec: AgentGrantSpec,
    /// When it became what it is; `None` of a manifest.
    pub(super) since: Option<Timestamp>,
    /// Who wrote its spec by server-side apply; `None` if somebody wrote it otherwise, or that is not known.
    pub(super) applied_by: Option<String>,
    value: Value,
}

impl Live {
    /// Reads a grant; else its name, and why not.
    pub(super) fn of(value: Value) -> Result<Self, (String, String)> {
        let text = |at: &str| value.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        let refuse = |problem: String| (format!("{namespace}/{name}"), problem);
        let spec: AgentGrantSpec = serde_json::from_value(value["spec"].clone())
            .map_err(|e| refuse(format!("spec can't be read: {e}")))?;
        let meta: ObjectMeta = serde_json::from_value(value["metadata"].clone())
            .map_err(|e| refuse(format!("metadata can't be read: {e}")))?;
        if name.is_empty() {
            return Err(refuse("it has no name".to_owned()));
        }
        let writers: Vec<_> = meta
            .managed_fields
            .iter()
            .flatten()
            .filter(|m| m.subresource.is_none())
            .filter(|m| m.fields_v1.as_ref().is_some_and(|f| f.0.get("f:spec").is_some()))
            .collect();
        let created = meta.creation_timestamp.as_ref().map(|t| t.0);
        // Of the first generation is what was never changed, whatever was written beside the spec.
        let changed = match meta.generation {
            Some(1) => None,
            _ => writers.iter().filter_map(|m| m.time.as_ref()).map(|t| t.0).max(),
        };
        let applied_by = match writers.as_slice() {
            [only] if only.operation.as_deref() == Some("Apply") => only.manager.clone(),
            _ => None,
        };
        Ok(Self { namespace, name, spec, since: created.max(changed), applied_by, value })
    }

    fn asked(&self) -> (&[String], &[String]) {
        match (&self.spec.application, &self.spec.delegation, &self.spec.agent_user) {
            (Some(a), _, _) => (&a.roles, &a.scopes),
            (None, Some(d), _) => (&[], &d.scopes),
            (None, None, Some(u)) => (&[], &u.scopes),
            (None, None, None) => (&[], &[]),
        }
    }

    /// The manifest, with nothing but what was used.
    fn narrowed(&self, used: &Used) -> Value {
        let mut meta = Map::new();
        for member in ["name", "namespace", "labels", "annotations"] {
            if let Some(value) = self.value["metadata"].get(member) {
                meta.insert(member.to_owned(), value.clone());
            }
        }
        if let Some(annotations) = meta.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove(LAST_APPLIED);
            if annotations.is_empty() {
                meta.remove("annotations");
            }
        }
        let mut spec = self.value["spec"].clone();
        for (at, kept) in [
            ("/application/roles", &used.roles),
            ("/application/scopes", &used.scopes),
            ("/delegation/scopes", &used.scopes),
            ("/agentUser/scopes", &used.scopes),
        ] {
            if let Some(list) = spec.pointer_mut(at).and_then(Value::as_array_mut) {
                list.retain(|name| name.as_str().is_none_or(|n| kept.contains(n)));
            }
        }
        json!({"apiVersion": API_VERSION, "kind": "AgentGrant", "metadata": meta, "spec": spec})
    }
}

/// What is said of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Verdict {
    /// Nobody used it.
    Unused,
    /// It was used, and not all that it gives.
    Narrower,
    /// All that it gives was used.
    Used,
    /// It is delivered in a Secret: its use can't be told.
    Delivered,
    /// It is not as old as the time that is looked at.
    TooYoung,
}

/// A grant, and what is said of it.
#[derive(Clone, Debug)]
pub(super) struct Judged<'a> {
    pub(super) grant: &'a Live,
    pub(super) verdict: Verdict,
    pub(super) used: Option<&'a Used>,
    /// Roles that no token carried.
    pub(super) roles: Vec<&'a str>,
    /// Scopes that no token carried.
    pub(super) scopes: Vec<&'a str>,
    /// Agents that it names and that did not ask.
    pub(super) agents: Vec<&'a str>,
    /// The narrower grant, of [`Verdict::Narrower`] alone.
    pub(super) narrowed: Option<Value>,
}

/// Judges a grant.
pub(super) fn judge<'a>(grant: &'a Live, usage: &'a Usage, since: Timestamp) -> Judged<'a> {
    let used = usage.of(&grant.namespace, &grant.name);
    let mut judged = Judged {
        grant,
        verdict: Verdict::Unused,
        used,
        roles: Vec::new(),
        scopes: Vec::new(),
        agents: Vec::new(),
        narrowed: None,
    };
    // One that did not hold yet is as young as its beginning.
    let begins = grant.since.max(grant.spec.not_before.as_ref().map(|t| t.0));
    if grant.spec.secret_key.is_some() {
        judged.verdict = Verdict::Delivered;
        return judged;
    }
    // The API server writes whole seconds, so it may have been up to a second later.
    if begins.is_some_and(|begins| begins.duration_since(since) > SignedDuration::from_secs(-1)) {
        judged.verdict = Verdict::TooYoung;
        return judged;
    }
    let Some(used) = used else { return judged };
    let (roles, scopes) = grant.asked();
    let idle = |asked: &'a [String], used: &BTreeSet<String>| -> Vec<&'a str> {
        asked.iter().filter(|name| !used.contains(*name)).map(String::as_str).collect()
    };
    judged.roles = idle(roles, &used.roles);
    judged.scopes = idle(scopes, &used.scopes);
    judged.agents = idle(grant.spec.agents.names.as_deref().unwrap_or_default(), &used.agents);
    judged.verdict = Verdict::Used;
    if !judged.roles.is_empty() || !judged.scopes.is_empty() {
        judged.verdict = Verdict::Narrower;
        judged.narrowed = Some(grant.narrowed(used));
    }
    judged
}

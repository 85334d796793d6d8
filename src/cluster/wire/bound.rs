//! Objects that agents are bound to, and others of which metadata is enough.
//!
//! Invariant: nothing of a spec or status is read but whether it has finished and as whom it runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use super::mark::{STATUS_LIST_ANNOTATION, read_mark};
use super::{Wire, WireMeta};
use crate::api::AGENT_LABEL;
use crate::domain::{BoundObject, Labels, Namespace, Object, POD, ServiceAccount, Source, Unfit};

/// An object of which only metadata is watched: a namespace, or one of a bound kind.
#[derive(Debug, Deserialize)]
pub struct WireObject {
    metadata: WireMeta,
}

impl Wire for WireObject {
    fn which(&self) -> [&str; 3] {
        self.metadata.which()
    }

    fn object(self, source: &Source) -> Result<Object, Unfit> {
        let meta = self.metadata.meta()?;
        Ok(match source {
            Source::Bound(kind) => {
                let controller = self.metadata.controller();
                Object::Bound(kind.clone(), Box::new(BoundObject { controller, ..BoundObject::new(meta) }))
            }
            Source::ServiceAccounts => Object::Account(Box::new(ServiceAccount { meta })),
            Source::Lease => {
                let said = self.metadata.annotations.get(STATUS_LIST_ANNOTATION);
                Object::Lease(Box::new((meta, said.and_then(|text| read_mark(text)))))
            }
            _ => {
                let labels = self.metadata.labels.into_iter().collect();
                Object::Namespace(Box::new(Namespace { meta, labels }))
            }
        })
    }
}

/// A pod or Job: whole on the wire, trimmed to whether it has finished.
#[derive(Debug, Deserialize)]
pub struct WireWorkload {
    metadata: WireMeta,
    #[serde(default)]
    spec: WorkloadSpec,
    #[serde(default)]
    status: WorkloadStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WorkloadSpec {
    service_account_name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct WorkloadStatus {
    phase: Option<String>,
    #[serde(default)]
    conditions: Vec<WorkloadCondition>,
}

#[derive(Debug, Deserialize)]
struct WorkloadCondition {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    status: String,
}

impl WireWorkload {
    /// A pod that succeeded or failed, or a Job that completed or failed.
    fn is_finished(&self) -> bool {
        matches!(self.status.phase.as_deref(), Some("Succeeded" | "Failed"))
            || self
                .status
                .conditions
                .iter()
                .any(|c| c.status == "True" && matches!(c.kind.as_str(), "Complete" | "Failed"))
    }

    /// The labels, for a selector.
    #[must_use]
    pub const fn labels(&self) -> &BTreeMap<String, String> {
        &self.metadata.labels
    }
}

impl Wire for WireWorkload {
    fn which(&self) -> [&str; 3] {
        self.metadata.which()
    }

    fn object(self, source: &Source) -> Result<Object, Unfit> {
        let Source::Bound(kind) = source else {
            return Err(Unfit { field: "kind", problem: format!("{source} is no bound kind") });
        };
        let object = BoundObject {
            finished: self.is_finished(),
            controller: self.metadata.controller(),
            account: self.spec.service_account_name.as_deref().map(Arc::from),
            // Of Jobs nobody asks for them.
            labels: if &**kind == POD {
                self.metadata.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect()
            } else {
                Labels::default()
            },
            agent: self.metadata.labels.get(AGENT_LABEL).filter(|v| !v.is_empty()).map(|v| v.as_str().into()),
            ..BoundObject::new(self.metadata.meta()?)
        };
        Ok(Object::Bound(kind.clone(), Box::new(object)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_and_jobs_finish() {
        for (status, finished) in [
            (serde_json::json!({"phase": "Running"}), false),
            (serde_json::json!({"phase": "Succeeded"}), true),
            (serde_json::json!({"conditions": [{"type": "Complete", "status": "True"}]}), true),
            (serde_json::json!({"conditions": [{"type": "Failed", "status": "False"}]}), false),
            (serde_json::json!({"conditions": [{"type": "Suspended", "status": "True"}]}), false),
        ] {
            let w: WireWorkload = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "x", "namespace": "y", "uid": "7f3d9a2e-0001-4abc-8def-0123456789ab"}, "status": status}))
        .unwrap();
            assert_eq!(w.is_finished(), finished, "{status}");
        }
    }
}

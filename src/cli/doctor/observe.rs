//! What the checks need beside the world: pods as they mount, and who is bound to which role.
//!
//! Invariant: each list is made once; one that fails is noted and stops no other.

use std::collections::HashMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::cli::look::Seen;
use crate::cluster::snapshot::list;
use crate::cluster::watch::WatchSpec;

/// What was seen beside the world.
#[derive(Debug, Default)]
pub(super) struct Others {
    pub(super) pods: Vec<Pod>,
    /// What controls ReplicaSets and Jobs, by namespace, kind and name.
    pub(super) hops: HashMap<(String, String, String), Owner>,
    pub(super) bindings: Vec<Binding>,
    /// Lists that failed, for people.
    pub(super) missed: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Metadata {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) labels: HashMap<String, String>,
    pub(super) owner_references: Vec<Owner>,
}

impl Metadata {
    pub(super) fn controller(&self) -> Option<&Owner> {
        self.owner_references.iter().find(|o| o.controller)
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Owner {
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) controller: bool,
}

/// A pod, as far as it says who it runs as and what it mounts.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Pod {
    pub(super) metadata: Metadata,
    pub(super) spec: PodSpec,
    pub(super) status: PodStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PodSpec {
    pub(super) service_account_name: String,
    pub(super) containers: Vec<Container>,
    pub(super) init_containers: Vec<Container>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Container {
    pub(super) volume_mounts: Vec<Mount>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Mount {
    pub(super) mount_path: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PodStatus {
    pub(super) phase: String,
}

/// A RoleBinding, or (without a namespace) a ClusterRoleBinding.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Binding {
    pub(super) metadata: Metadata,
    pub(super) subjects: Option<Vec<Subject>>,
    pub(super) role_ref: RoleRef,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Subject {
    pub(super) kind: String,
    pub(super) name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RoleRef {
    pub(super) kind: String,
    pub(super) name: String,
}

#[derive(Deserialize)]
struct MetadataOnly {
    #[serde(default)]
    metadata: Metadata,
}

/// Lists what the checks need, in one namespace or in all.
pub(super) async fn observe(seen: &Seen, namespace: Option<&str>) -> Others {
    let mut others = Others::default();
    let path = |group: &str, plural: &str| match namespace {
        Some(ns) => format!("{group}/namespaces/{ns}/{plural}"),
        None => format!("{group}/{plural}"),
    };
    // An agent's pods need not bear the label by which pods are seen: its Secret can be mounted without.
    let pods = WatchSpec::new(path("/api/v1", "pods"));
    take(seen, &mut others.missed, "pods", pods, |pod: Pod| others.pods.push(pod)).await;
    for (group, plural, kind) in
        [("/apis/apps/v1", "replicasets", "ReplicaSet"), ("/apis/batch/v1", "jobs", "Job")]
    {
        // They are asked for only where a pod has such a controller.
        let is_needed = |p: &Pod| p.metadata.controller().is_some_and(|o| o.kind == kind);
        if !others.pods.iter().any(is_needed) {
            continue;
        }
        let spec = WatchSpec::new(path(group, plural)).metadata_only();
        take(seen, &mut others.missed, plural, spec, |object: MetadataOnly| {
            let Some(owner) = object.metadata.controller().cloned() else { return };
            let Metadata { namespace, name, .. } = object.metadata;
            others.hops.insert((namespace, kind.to_owned(), name), owner);
        })
        .await;
    }
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let of_namespaces = WatchSpec::new(path(rbac, "rolebindings"));
    take(seen, &mut others.missed, "rolebindings", of_namespaces, |b| others.bindings.push(b)).await;
    let of_cluster = WatchSpec::new(format!("{rbac}/clusterrolebindings"));
    take(seen, &mut others.missed, "clusterrolebindings", of_cluster, |b| others.bindings.push(b)).await;
    others
}

async fn take<T: DeserializeOwned + Send + 'static>(
    seen: &Seen,
    missed: &mut Vec<String>,
    plural: &str,
    spec: WatchSpec,
    each: impl FnMut(T),
) {
    match list(&seen.clients.write, spec, each).await {
        Ok(unreadable) => missed.extend(
            unreadable.into_iter().map(|o| format!("{plural}: {} can't be read: {}", o.name, o.error)),
        ),
        Err(e) => missed.push(format!("{plural} can't be listed: {e}")),
    }
}

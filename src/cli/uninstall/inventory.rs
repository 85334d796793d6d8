//! What agentid leaves in a cluster: every kind of object, and by what it is known as ours.
//!
//! Invariant: only metadata is read; what merely bears a name of ours is not ours.

use std::collections::HashMap;

use kube::Client;
use serde::Deserialize;
use serde::ser::{Serialize, SerializeStruct, Serializer};
use thiserror::Error;

use crate::api::{API_VERSION, GRANT_LABEL, GROUP, MANAGED_BY, SECRET_TYPE, TRUST_NAME, annotation};
use crate::cluster::certstore::{CA_SECRET, CA_SECRET_TYPE, SERVING_SECRET, SERVING_SECRET_TYPE};
use crate::cluster::client::{CallError, Class};
use crate::cluster::keystore::{KEYS_SECRET_TYPE, SECRET_NAME};
use crate::cluster::lease::LEASE_NAME;
use crate::cluster::snapshot::list;
use crate::cluster::watch::WatchSpec;
use crate::domain::Uid;

/// What may be ours.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Metadata {
    name: String,
    namespace: String,
    uid: String,
    labels: HashMap<String, String>,
    annotations: HashMap<String, String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Listed {
    #[serde(default)]
    pub(super) metadata: Metadata,
}

/// An object of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: Uid,
}

/// All objects of one kind.
#[derive(Debug)]
pub(super) struct Group {
    /// What they are, and that they go: for people who see them go.
    pub(super) what: &'static str,
    /// As kubectl names the kind.
    pub(super) kind: &'static str,
    /// The path of the list, over all namespaces.
    path: String,
    pub(super) objects: Vec<Object>,
}

/// A list without which it can't be told what is there.
#[derive(Debug, Error)]
#[error("nothing was deleted: {kind} can't be listed, so what is there can't be told: {source}")]
pub struct Unlisted {
    kind: &'static str,
    source: CallError,
}

/// How objects of a kind are found, and known as ours.
struct Look {
    what: &'static str,
    kind: &'static str,
    path: String,
    fields: String,
    labels: String,
    ours: fn(&Metadata) -> bool,
}

fn managed(metadata: &Metadata) -> bool {
    metadata.labels.get(MANAGED_BY.0).map(String::as_str) == Some(MANAGED_BY.1)
}

fn written_for_an_agent(metadata: &Metadata) -> bool {
    metadata.annotations.get(annotation::AGENT_UID).is_some_and(|uid| uid.parse::<Uid>().is_ok())
}

fn of_our_policies(metadata: &Metadata) -> bool {
    managed(metadata) && metadata.name.starts_with("agentid-")
}

fn of_our_group(metadata: &Metadata) -> bool {
    metadata.name.split_once('.').is_some_and(|(_, group)| group == GROUP)
}

fn noted_by_a_leader(metadata: &Metadata) -> bool {
    metadata.annotations.keys().any(|k| k.starts_with("agentid.dev/"))
}

/// Everything, in the order in which it goes: first what makes and names agents, so that nothing is made anew if an
/// operator comes back in between, then what was made for them; the keys last.
fn looks(namespace: &str) -> Vec<Look> {
    let look = |what, kind, path: String, ours: fn(&Metadata) -> bool| Look {
        what,
        kind,
        path,
        fields: String::new(),
        labels: String::new(),
        ours,
    };
    let admission = |plural: &str| format!("/apis/admissionregistration.k8s.io/v1/{plural}");
    let custom = |plural: &str| format!("/apis/{API_VERSION}/{plural}");
    let managed_by = format!("{}={}", MANAGED_BY.0, MANAGED_BY.1);
    let any: fn(&Metadata) -> bool = |_| true;
    let mut all: Vec<Look> = [
        (
            "ValidatingAdmissionPolicyBindings deleted",
            "validatingadmissionpolicybinding",
            "validatingadmissionpolicybindings",
        ),
        (
            "MutatingAdmissionPolicyBindings deleted",
            "mutatingadmissionpolicybinding",
            "mutatingadmissionpolicybindings",
        ),
        ("ValidatingAdmissionPolicies deleted", "validatingadmissionpolicy", "validatingadmissionpolicies"),
        ("MutatingAdmissionPolicies deleted", "mutatingadmissionpolicy", "mutatingadmissionpolicies"),
    ]
    .into_iter()
    .map(|(what, kind, plural)| Look {
        labels: managed_by.clone(),
        ..look(what, kind, admission(plural), of_our_policies)
    })
    .collect();
    all.extend([
        look("AgentBlueprints deleted", "agentblueprint.agentid.dev", custom("agentblueprints"), any),
        look("AgentIdentities deleted", "agentidentity.agentid.dev", custom("agentidentities"), any),
        look("AgentGrants deleted", "agentgrant.agentid.dev", custom("agentgrants"), any),
        look("AgentResources deleted", "agentresource.agentid.dev", custom("agentresources"), any),
        look("AgentPolicies deleted", "agentpolicy.agentid.dev", custom("agentpolicies"), any),
        Look {
            labels: format!("{managed_by},{GRANT_LABEL}"),
            ..look(
                "RoleBindings deleted",
                "rolebinding.rbac.authorization.k8s.io",
                "/apis/rbac.authorization.k8s.io/v1/rolebindings".to_owned(),
                managed,
            )
        },
        Look {
            fields: format!("type={SECRET_TYPE}"),
            ..look(
                "Secrets with credentials deleted",
                "secret",
                "/api/v1/secrets".to_owned(),
                written_for_an_agent,
            )
        },
        Look {
            fields: format!("metadata.name={TRUST_NAME}"),
            ..look("trust ConfigMaps deleted", "configmap", "/api/v1/configmaps".to_owned(), managed)
        },
        look(
            "CustomResourceDefinitions deleted",
            "customresourcedefinition.apiextensions.k8s.io",
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions".to_owned(),
            of_our_group,
        ),
    ]);
    for (name, type_) in
        [(SERVING_SECRET, SERVING_SECRET_TYPE), (CA_SECRET, CA_SECRET_TYPE), (SECRET_NAME, KEYS_SECRET_TYPE)]
    {
        let path = format!("/api/v1/namespaces/{namespace}/secrets");
        let fields = format!("metadata.name={name},type={type_}");
        all.push(Look { fields, ..look("Secrets with keys deleted", "secret", path, any) });
    }
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases");
    let fields = format!("metadata.name={LEASE_NAME}");
    all.push(Look { fields, ..look("Leases deleted", "lease.coordination.k8s.io", path, noted_by_a_leader) });
    all
}

/// Lists everything that is ours, and says what only looks like it.
pub(super) async fn inventory(
    client: &Client,
    namespace: &str,
) -> Result<(Vec<Group>, Vec<String>), Unlisted> {
    let (mut groups, mut notes) = (Vec::new(), Vec::new());
    for look in looks(namespace) {
        let mut spec = WatchSpec::new(look.path.clone()).metadata_only();
        if !look.fields.is_empty() {
            spec = spec.fields(look.fields.clone());
        }
        if !look.labels.is_empty() {
            spec = spec.labels(look.labels.clone());
        }
        let mut group = Group { what: look.what, kind: look.kind, path: look.path, objects: Vec::new() };
        let mut foreign = 0;
        let each = |listed: Listed| {
            let Metadata { name, namespace, uid, .. } = &listed.metadata;
            match uid.parse() {
                Ok(uid) if (look.ours)(&listed.metadata) => {
                    group.objects.push(Object { namespace: namespace.clone(), name: name.clone(), uid });
                }
                // Definitions of others are no business of ours.
                _ if look.kind.starts_with("customresourcedefinition") => {}
                _ => foreign += 1,
            }
        };
        match list(client, spec, each).await {
            Ok(_) => {}
            // A kind that is not served, or no longer, has no objects.
            Err(e) if e.class() == Class::NotFound => {}
            Err(source) => return Err(Unlisted { kind: look.kind, source }),
        }
        if foreign > 0 {
            notes.push(format!(
                "{foreign} objects ({}) look like agentid's and were not written by it: they are left alone",
                look.kind
            ));
        }
        groups.push(group);
    }
    Ok((groups, notes))
}

impl Group {
    /// The path of an object.
    pub(super) fn path_of(&self, object: &Object) -> String {
        let collection = match self.path.rsplit_once('/') {
            Some((head, plural)) if !object.namespace.is_empty() && !head.contains("/namespaces/") => {
                format!("{head}/namespaces/{}/{plural}", object.namespace)
            }
            _ => self.path.clone(),
        };
        format!("{collection}/{}", object.name)
    }

    /// An object as kubectl names it, with its namespace.
    pub(super) fn name_of(&self, object: &Object) -> String {
        let place =
            if object.namespace.is_empty() { String::new() } else { format!(" in {}", object.namespace) };
        format!("{}/{}{place}", self.kind, object.name)
    }

    /// All of them, as [`Self::name_of`].
    pub(super) fn said(&self) -> impl Iterator<Item = String> + '_ {
        self.objects.iter().map(|o| self.name_of(o))
    }
}

impl Serialize for Group {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let names: Vec<_> =
            self.objects
                .iter()
                .map(|o| {
                    if o.namespace.is_empty() {
                        o.name.clone()
                    } else {
                        format!("{}/{}", o.namespace, o.name)
                    }
                })
                .collect();
        let mut group = serializer.serialize_struct("Group", 3)?;
        group.serialize_field("kind", self.kind)?;
        group.serialize_field("count", &names.len())?;
        group.serialize_field("objects", &names)?;
        group.end()
    }
}

#[cfg(test)]
pub(super) fn group_for_tests(kind: &'static str, path: &str, objects: &[(&str, &str)]) -> Group {
    let objects = objects.iter().map(|(namespace, name)| Object {
        namespace: (*namespace).to_owned(),
        name: (*name).to_owned(),
        uid: Uid(1),
    });
    Group { what: "objects deleted", kind, path: path.to_owned(), objects: objects.collect() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_merely_bears_a_name_is_not_ours() {
        let all = looks("agentid-system");
        let ours = |kind: &str, fields: &str, metadata: serde_json::Value| {
            let look = all.iter().find(|l| l.kind == kind && l.fields.contains(fields)).unwrap();
            (look.ours)(&serde_json::from_value(metadata).unwrap())
        };
        let label = json!({"app.kubernetes.io/managed-by": "agentid"});
        let uid = json!({"agentid.dev/agent-uid": "7f3d9a2e-0001-4abc-8def-0123456789ab"});
        for (kind, fields, metadata, expected) in [
            ("secret", SECRET_TYPE, json!({"annotations": uid}), true),
            ("secret", SECRET_TYPE, json!({"labels": label}), false),
            ("secret", SECRET_TYPE, json!({"annotations": {"agentid.dev/agent-uid": "me"}}), false),
            ("configmap", TRUST_NAME, json!({"labels": label}), true),
            ("configmap", TRUST_NAME, json!({}), false),
            ("rolebinding.rbac.authorization.k8s.io", "", json!({}), false),
            ("validatingadmissionpolicy", "", json!({"name": "agentid-agents", "labels": label}), true),
            ("validatingadmissionpolicy", "", json!({"name": "others", "labels": label}), false),
            (
                "customresourcedefinition.apiextensions.k8s.io",
                "",
                json!({"name": "agentgrants.agentid.dev"}),
                true,
            ),
            (
                "customresourcedefinition.apiextensions.k8s.io",
                "",
                json!({"name": "agents.example.agentid.dev"}),
                false,
            ),
            (
                "lease.coordination.k8s.io",
                LEASE_NAME,
                json!({"annotations": {"agentid.dev/keyring-generation": "1"}}),
                true,
            ),
            ("lease.coordination.k8s.io", LEASE_NAME, json!({}), false),
        ] {
            assert_eq!(ours(kind, fields, metadata.clone()), expected, "{kind} {metadata}");
        }
    }

    #[test]
    fn paths_of_objects() {
        for (path, (namespace, name), expected) in [
            ("/api/v1/secrets", ("a", "s"), "/api/v1/namespaces/a/secrets/s"),
            ("/api/v1/namespaces/x/secrets", ("x", "s"), "/api/v1/namespaces/x/secrets/s"),
            (
                "/apis/agentid.dev/v1alpha1/agentresources",
                ("", "r"),
                "/apis/agentid.dev/v1alpha1/agentresources/r",
            ),
            (
                "/apis/agentid.dev/v1alpha1/agentgrants",
                ("a", "g"),
                "/apis/agentid.dev/v1alpha1/namespaces/a/agentgrants/g",
            ),
        ] {
            let group = group_for_tests("k", path, &[(namespace, name)]);
            assert_eq!(group.path_of(&group.objects[0]), expected);
        }
    }
}

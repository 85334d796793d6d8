//! ClusterRoles and RoleBindings on the wire.
//!
//! Invariant: a ClusterRole's rules are judged on arrival and dropped; nothing keeps them.

use std::sync::Arc;

use k8s_openapi::api::rbac::v1::PolicyRule;
use serde::Deserialize;

use super::{Wire, WireMeta};
use crate::api::{GRANT_LABEL, MANAGED_BY};
use crate::domain::bindings::subjects_digest;
use crate::domain::guardrails::Violations;
use crate::domain::{Binding, ClusterRole, Digest, Meta, Object, Source, Uid, Unfit};

const GROUP: &str = "rbac.authorization.k8s.io";

/// A ClusterRole. Where it is aggregated, its rules are what the controller has gathered.
#[derive(Debug, Deserialize)]
pub struct WireClusterRole {
    metadata: WireMeta,
    rules: Option<Vec<PolicyRule>>,
}

impl Wire for WireClusterRole {
    fn which(&self) -> [&str; 3] {
        self.metadata.which()
    }

    fn object(self, _: &Source) -> Result<Object, Unfit> {
        let violations = Violations::of(&self.metadata.name, self.rules.as_deref().unwrap_or_default());
        Ok(Object::ClusterRole(Box::new(ClusterRole { meta: self.metadata.meta()?, violations })))
    }
}

/// A RoleBinding.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WireBinding {
    metadata: WireMeta,
    role_ref: Reference,
    subjects: Option<Vec<Reference>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Reference {
    api_group: String,
    kind: String,
    name: String,
}

impl WireBinding {
    fn role(&self) -> Option<Arc<str>> {
        let Reference { api_group, kind, name } = &self.role_ref;
        (api_group == GROUP && kind == "ClusterRole").then(|| name.as_str().into())
    }

    fn owner(&self) -> Option<Uid> {
        match self.metadata.owner_references.as_slice() {
            [one] => one.uid.parse().ok(),
            _ => None,
        }
    }

    /// Its metadata, if it is one of ours that has lost its labels: what it gives and whom it goes with say so.
    #[must_use]
    pub fn is_ours(&self, role: &str, owner: Uid) -> Option<Meta> {
        let ours = self.role().as_deref() == Some(role) && self.owner() == Some(owner);
        if ours { self.metadata.meta().ok() } else { None }
    }
}

impl Wire for WireBinding {
    fn which(&self) -> [&str; 3] {
        self.metadata.which()
    }

    fn object(self, _: &Source) -> Result<Object, Unfit> {
        let unfit = |problem: &str| Unfit { field: "metadata.labels", problem: problem.to_owned() };
        if self.metadata.labels.get(MANAGED_BY.0).map(String::as_str) != Some(MANAGED_BY.1) {
            return Err(unfit("is not agentid's"));
        }
        // Of no grant is also what names none: nobody holds anything by it, so it goes or is healed.
        let grant = self.metadata.labels.get(GRANT_LABEL).and_then(|uid| uid.parse().ok());
        let names: Option<Vec<&str>> = self
            .subjects
            .iter()
            .flatten()
            .map(|s| (s.kind == "User" && s.api_group == GROUP).then_some(s.name.as_str()))
            .collect();
        let agent = |name: &str| name.strip_prefix("spiffe://")?.split_once("/agent/")?.1.parse().ok();
        Ok(Object::Binding(Box::new(Binding {
            meta: self.metadata.meta()?,
            grant: grant.unwrap_or(Binding::OF_NONE),
            role: self.role(),
            subjects: self.subjects.iter().flatten().filter_map(|s| agent(&s.name)).collect(),
            digest: names.map_or_else(Digest::default, subjects_digest),
            owner: self.owner(),
        })))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn binding(change: impl FnOnce(&mut serde_json::Value)) -> Result<Binding, Unfit> {
        let uid = "00000000-0000-4000-8000-000000000001";
        let name = format!("spiffe://example.com/agent/{uid}");
        let mut value = json!({
            "metadata": {"name": "x", "namespace": "ns", "uid": uid, "labels": {MANAGED_BY.0: MANAGED_BY.1, GRANT_LABEL: uid},
                "ownerReferences": [{"apiVersion": "agentid.dev/v1alpha1", "kind": "AgentGrant", "name": "g", "uid": uid}]},
            "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": "view"},
            "subjects": [{"apiGroup": GROUP, "kind": "User", "name": name}],
        });
        change(&mut value);
        let wire: WireBinding = serde_json::from_value(value).unwrap();
        match wire.object(&Source::Bindings)? {
            Object::Binding(b) => Ok(*b),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_others_change_shows() {
        let good = binding(|_| ()).unwrap();
        assert_eq!((good.role.as_deref(), good.subjects.len()), (Some("view"), 1));
        assert_eq!(good.owner, Some(good.grant));
        let more = json!({"apiGroup": GROUP, "kind": "Group", "name": "all"});
        let changed = binding(|v| v["subjects"].as_array_mut().unwrap().push(more)).unwrap();
        assert_ne!(changed.digest, good.digest);
        let none = binding(|v| v["subjects"] = serde_json::Value::Null).unwrap();
        assert_eq!(none.subjects.len(), 0);
        assert_ne!(none.digest, good.digest);
        assert_eq!(binding(|v| v["roleRef"]["kind"] = "Role".into()).unwrap().role, None);
        assert_eq!(binding(|v| v["metadata"]["ownerReferences"] = json!([])).unwrap().owner, None);
        assert!(binding(|v| v["metadata"]["labels"] = json!({})).is_err());
        let stray = binding(|v| v["metadata"]["labels"][GRANT_LABEL] = "x".into()).unwrap();
        assert_eq!((stray.grant, stray.subjects.len()), (Binding::OF_NONE, 1));
    }

    #[test]
    fn rules_that_are_not_there_are_none() {
        for rules in [json!(null), json!([])] {
            let wire: WireClusterRole = serde_json::from_value(json!({
                "metadata": {"name": "x", "uid": "00000000-0000-4000-8000-000000000001"}, "rules": rules,
            }))
            .unwrap();
            let Object::ClusterRole(role) = wire.object(&Source::ClusterRoles).unwrap() else { panic!() };
            assert!(role.violations.is_empty());
        }
    }
}

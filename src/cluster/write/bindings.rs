//! Writes of RoleBindings.

use serde_json::{Value, json};

use super::{At, JSON, JSON_PATCH, Outcome, Writer, add};
use crate::api::{API_VERSION, GRANT_LABEL, MANAGED_BY};
use crate::cluster::wire::WireBinding;
use crate::domain::bindings::{Taking, Wanted};
use crate::domain::{Key, Uid};

/// Where RoleBindings are served.
pub const COLLECTION: &str = "/apis/rbac.authorization.k8s.io/v1/rolebindings";
const GROUP: &str = "rbac.authorization.k8s.io";

fn labels(wanted: &Wanted) -> Value {
    json!({MANAGED_BY.0: MANAGED_BY.1, GRANT_LABEL: wanted.grant.to_string()})
}

fn owners(wanted: &Wanted) -> Value {
    let owner = &wanted.owner;
    json!([{
        "apiVersion": API_VERSION, "kind": owner.kind, "name": &*owner.name, "uid": owner.uid.to_string(),
        "controller": true,
    }])
}

fn subjects(names: &[String]) -> Value {
    let one = |name: &String| json!({"apiGroup": GROUP, "kind": "User", "name": name});
    names.iter().map(one).collect()
}

fn path(key: &Key) -> String {
    format!("/apis/{GROUP}/v1/namespaces/{}/rolebindings/{}", key.namespace, key.name)
}

impl Writer {
    /// Creates a RoleBinding.
    ///
    /// # Errors
    /// The call's; `AlreadyExists` where one bears the name, `Forbidden` where we may not bind the role.
    pub async fn create_binding(&self, wanted: &Wanted) -> Outcome<WireBinding> {
        let body = json!({
            "apiVersion": format!("{GROUP}/v1"), "kind": "RoleBinding",
            "metadata": {
                "name": &*wanted.key.name, "labels": labels(wanted), "ownerReferences": owners(wanted),
            },
            "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": &*wanted.role},
            "subjects": subjects(&wanted.subjects),
        });
        let path = format!("/apis/{GROUP}/v1/namespaces/{}/rolebindings", wanted.key.namespace);
        self.call("POST", &path, JSON, JSON, Some(&body)).await
    }

    /// Writes subjects, labels and owner of a RoleBinding anew; what it gives is immutable.
    ///
    /// # Errors
    /// The call's; `NotFound` where the RoleBinding of this UID is gone, `Conflict` where it has changed; `Forbidden`
    /// where we may not bind the role, that or `Invalid` where an admission policy refuses.
    pub async fn update_binding(&self, at: At, wanted: &Wanted) -> Outcome<WireBinding> {
        let mut ops = at.ops();
        ops.extend([
            add("/metadata/labels", labels(wanted)),
            add("/metadata/ownerReferences", owners(wanted)),
            add("/subjects", subjects(&wanted.subjects)),
        ]);
        self.patch_binding(&wanted.key, at.uid, &ops).await
    }

    /// Takes subjects off a RoleBinding, whatever has become of it otherwise.
    ///
    /// # Errors
    /// As [`Self::update_binding`].
    pub async fn take_subjects(&self, taking: &Taking) -> Outcome<WireBinding> {
        let mut ops = At::any(taking.uid).ops();
        ops.push(add("/subjects", subjects(&taking.left)));
        self.patch_binding(&taking.key, taking.uid, &ops).await
    }

    async fn patch_binding(&self, key: &Key, uid: Uid, ops: &[Value]) -> Outcome<WireBinding> {
        let path = path(key);
        match self.call("PATCH", &path, JSON, JSON_PATCH, Some(&ops)).await {
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.or_gone(&path, uid, error).await),
        }
    }

    /// Deletes a RoleBinding of this UID; one that is gone already is no error.
    ///
    /// # Errors
    /// The call's.
    pub async fn delete_binding(&self, key: &Key, uid: Uid) -> Outcome<()> {
        self.delete(&path(key), At::any(uid)).await
    }

    /// The RoleBinding that bears a name; `None` if none does.
    ///
    /// # Errors
    /// The call's.
    pub async fn binding_in_the_way(&self, key: &Key) -> Outcome<Option<WireBinding>> {
        self.look(COLLECTION, key).await
    }
}

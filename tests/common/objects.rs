//! Objects of any kind from YAML.

use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client};
use serde_json::Value;

/// The kinds of the tests that live outside namespaces.
const CLUSTER_KINDS: &[&str] = &[
    "AgentBlueprint",
    "AgentPolicy",
    "AgentResource",
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "Namespace",
    "Node",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
];

/// The objects of a stream of YAML documents. A number, truth value or null stays what YAML makes of it.
///
/// # Panics
/// On what is not YAML, or no object.
pub fn parse(yaml: &str) -> Vec<DynamicObject> {
    yaml.split("\n---")
        .filter(|text| text.lines().any(|l| !l.trim().is_empty() && !l.starts_with('#')))
        .map(|text| {
            let value: Value = serde_yaml::from_str(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
            serde_json::from_value(value).unwrap_or_else(|e| panic!("{e}\n{text}"))
        })
        .collect()
}

/// The resource of an object's kind, and whether it lives in namespaces.
pub fn resource_of(object: &DynamicObject) -> (ApiResource, bool) {
    let types = object.types.as_ref().expect("apiVersion and kind");
    let gvk = GroupVersionKind::try_from(types).unwrap();
    (ApiResource::from_gvk(&gvk), !CLUSTER_KINDS.contains(&gvk.kind.as_str()))
}

/// The API of an object's kind, in the object's namespace.
pub fn api_of(client: Client, object: &DynamicObject) -> Api<DynamicObject> {
    match (resource_of(object), object.metadata.namespace.as_deref()) {
        ((resource, true), Some(namespace)) => Api::namespaced_with(client, namespace, &resource),
        ((_, true), None) => panic!("{:?}: no namespace", object.metadata.name),
        ((resource, false), _) => Api::all_with(client, &resource),
    }
}

/// What the API server says of a refused request.
///
/// # Panics
/// If it is no answer of the API server.
pub fn message(error: &kube::Error) -> &str {
    match error {
        kube::Error::Api(status) => &status.message,
        other => panic!("not refused by the API server: {other}"),
    }
}

/// An AgentResource `<name>-$NS` that the test's namespace, and no other, may be granted; `offers` is the rest of its spec.
pub fn resource_for(name: &str, offers: &str) -> String {
    format!(
        "---\napiVersion: agentid.dev/v1alpha1\nkind: AgentResource\nmetadata: {{name: {name}-$NS}}\nspec: {{audience: \
         'https://{name}.$NS.example.com', {offers}, allow: [{{namespaceSelector: {{matchLabels: \
         {{kubernetes.io/metadata.name: $NS}}}}}}]}}\n"
    )
}

/// What the bursts grant: AgentResources with two scopes and a role (`tickets`), and with a role alone (`wiki`, `ledger`).
pub fn burst_resources() -> String {
    let tickets = "roles: [{name: triager}], scopes: [{name: tickets.read}, {name: tickets.write}]";
    let [wiki, ledger] = ["roles: [{name: reader}]", "roles: [{name: payer}]"];
    [resource_for("tickets", tickets), resource_for("wiki", wiki), resource_for("ledger", ledger)].concat()
}

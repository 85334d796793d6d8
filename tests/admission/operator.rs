//! The operator is held to what it is for.

use serde_json::json;

use crate::common::Namespace;
use crate::{AGENT, ALL, OPERATOR, aid, binding, control_plane, person, secret, user};

const OURS: &str = "app.kubernetes.io/managed-by: agentid";

#[tokio::test(flavor = "multi_thread")]
async fn it_writes_secrets_of_its_own_type_alone() {
    let (cp, _turn) = control_plane().await;
    let ns = Namespace::new(cp, "op-secrets").await;
    let operator = user(cp, OPERATOR, &["system:serviceaccounts", ALL]).await;
    operator.creates(&ns, &secret("a-agentid", "agentid.dev/credentials")).await;
    operator
        .changes(
            &ns,
            &secret("a-agentid", "agentid.dev/credentials"),
            json!({"stringData": {"agent.json": "{}"}}),
        )
        .await;
    for name in ["agentid-signing-keys", "agentid-ca", "agentid-serving"] {
        let own = secret(name, "agentid.dev/signing-keys");
        operator.creates(&ns, &own.replace("metadata: {", "metadata: {namespace: agentid-system, ")).await;
        operator.cannot_create(&ns, &own, &["secrets", &ns.name, name, "its own"]).await;
    }
    let token = "{apiVersion: v1, kind: Secret, metadata: {name: t, annotations: {kubernetes.io/service-account.name: default}}, type: kubernetes.io/service-account-token}";
    operator.cannot_create(&ns, token, &["type is kubernetes.io/service-account-token"]).await;
    operator
        .cannot_create(
            &ns,
            &secret("o", "Opaque"),
            &["agentid-operator", "type is Opaque", "agentid.dev/credentials"],
        )
        .await;

    let ann = person(cp, "ann").await;
    ann.creates(&ns, &secret("hers", "Opaque")).await;
    let change = json!({"stringData": {"a": "b"}});
    operator
        .cannot_change(&ns, &secret("hers", "Opaque"), change, &["secrets", "hers", "type is Opaque"])
        .await;
    // An ownerReference on somebody's Secret would have it collected.
    let owner = json!({"metadata": {"ownerReferences": [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "0b5f4b3e-6f0e-4c64-9a51-0f4f1f0e7a11"}]}});
    operator.cannot_change(&ns, &secret("hers", "Opaque"), owner, &["type is Opaque"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_binds_agents_alone_and_in_bindings_of_its_own() {
    let (cp, _turn) = control_plane().await;
    let ns = Namespace::new(cp, "op-bindings").await;
    let operator = user(cp, OPERATOR, &["system:serviceaccounts", ALL]).await;
    let agents = [("User", AGENT)];
    operator.creates(&ns, &binding("RoleBinding", "ours", OURS, &agents)).await;
    let empty = json!({"subjects": []});
    operator.changes(&ns, &binding("RoleBinding", "ours", OURS, &agents), empty).await;
    let label = "the label app.kubernetes.io/managed-by=agentid";
    operator
        .cannot_create(&ns, &binding("RoleBinding", "b", "", &agents), &["rolebindings", "/b: ", label])
        .await;
    for other in [("User", "ann"), ("Group", "agentid:agents"), ("User", "spiffe://agents.example.com/ns/a")]
    {
        operator
            .cannot_create(
                &ns,
                &binding("RoleBinding", "b", OURS, &[agents[0], other]),
                &["subjects are agents"],
            )
            .await;
    }
    operator
        .cannot_create(&ns, &binding("ClusterRoleBinding", "$NS", OURS, &agents), &["no business with it"])
        .await;
    let role = "{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: r}, rules: []}";
    operator.cannot_create(&ns, role, &["roles", "/r: ", "no business with it"]).await;

    let ann = person(cp, "ann").await;
    ann.creates(&ns, &binding("RoleBinding", "hers", "", &[("User", "ann")])).await;
    let taken = json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": "agentid"}}, "subjects": []});
    operator
        .cannot_change(&ns, &binding("RoleBinding", "hers", "", &[]), taken.clone(), &["hers", label])
        .await;
    // One of its own that has lost its labels is healed: the grant that it goes with says whose it is.
    let owner = "ownerReferences: [{apiVersion: agentid.dev/v1alpha1, kind: AgentGrant, name: g, \
                 uid: 0b5f4b3e-6f0e-4c64-9a51-0f4f1f0e7a11}], labels: {";
    ann.creates(&ns, &binding("RoleBinding", "stripped", "", &[]).replace("labels: {", owner)).await;
    operator.changes(&ns, &binding("RoleBinding", "stripped", "", &[]), taken).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_writes_its_own_kinds_and_no_workloads() {
    let (cp, _turn) = control_plane().await;
    let ns = Namespace::new(cp, "op-kinds").await;
    let operator = user(cp, OPERATOR, &["system:serviceaccounts", ALL]).await;
    operator.creates(&ns, &aid("made", "{}")).await;
    operator.creates(&ns, "{apiVersion: v1, kind: ConfigMap, metadata: {name: agentid-trust}}").await;
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: i}]}}";
    operator.cannot_create(&ns, pod, &["pods", "/p: ", "no business with it", "roles"]).await;
    let labels = json!({"metadata": {"labels": {"team": "support"}}});
    let namespace = "{apiVersion: v1, kind: Namespace, metadata: {name: $NS}}";
    operator.cannot_change(&ns, namespace, labels, &["namespaces", "no business with it"]).await;
}

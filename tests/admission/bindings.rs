//! Nobody but the operator binds roles to agents.

use serde_json::json;

use crate::common::Namespace;
use crate::{AGENT, ALL, OPERATOR, binding, control_plane, person, user};

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_binds_agents() {
    let (cp, _turn) = control_plane().await;
    let ns = Namespace::new(cp, "bindings").await;
    let root = user(cp, "root", &["system:masters"]).await;
    let ann = person(cp, "ann").await;
    ann.creates(&ns, &binding("RoleBinding", "people", "", &[("User", "ann"), ("Group", "team")])).await;
    // Another trust domain's agents are not ours; a service account is no user of ours.
    ann.creates(
        &ns,
        &binding("RoleBinding", "others", "", &[("User", "spiffe://other.example.com/agent/1")]),
    )
    .await;

    for user in [&ann, &root] {
        for kind in ["RoleBinding", "ClusterRoleBinding"] {
            for subject in [("User", AGENT), ("Group", "agentid:agents"), ("Group", "agentid:else")] {
                let yaml = binding(kind, "$NS", "", &[("User", "ann"), subject]);
                let wanted = ["agentid-bindings", "subjects: ", subject.1, "write an AgentGrant"];
                user.cannot_create(&ns, &yaml, &wanted).await;
            }
        }
    }
    let people = binding("RoleBinding", "people", "", &[]);
    let subjects =
        json!({"subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": AGENT}]});
    ann.cannot_change(&ns, &people, subjects, &["people", AGENT]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_operator_has_bound_may_be_changed_otherwise() {
    let (cp, _turn) = control_plane().await;
    let ns = Namespace::new(cp, "bound").await;
    let operator = user(cp, OPERATOR, &["system:serviceaccounts", ALL]).await;
    let ours = binding("RoleBinding", "ours", "app.kubernetes.io/managed-by: agentid", &[("User", AGENT)]);
    operator.creates(&ns, &ours).await;
    let ann = person(cp, "ann").await;
    ann.changes(&ns, &ours, json!({"metadata": {"annotations": {"note": "seen"}}})).await;
    let subjects = json!({"subjects": [
        {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": AGENT},
        {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ann"}]});
    ann.changes(&ns, &ours, subjects).await;
    ann.changes(&ns, &ours, json!({"subjects": []})).await;
}

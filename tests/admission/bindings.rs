//! Nobody but the operator binds roles to agents.

use kube::api::DeleteParams;
use serde_json::json;

use crate::common::{Namespace, api_of};
use crate::{AGENT, ALL, OPERATOR, agent, binding, control_plane, person, user};

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

/// The API server honours a binding until its last finalizer is gone.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_its_way_out_takes_no_agent_in() {
    let (cp, _turn) = control_plane().await;
    let ns = Namespace::new(cp, "parting").await;
    let (ann, agent) = (person(cp, "ann").await, agent(cp).await);
    let theirs = binding("RoleBinding", "parting", "", &[("User", "ann")]);
    let held = theirs.replace("metadata: {", "metadata: {finalizers: [example.com/held], ");
    let object = ann.creates(&ns, &held).await;
    api_of(ann.client.clone(), &object).delete("parting", &DeleteParams::default()).await.unwrap();
    let subject = |name: &str| json!({"subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}]});
    ann.cannot_change(&ns, &theirs, subject(AGENT), &["parting", AGENT]).await;
    agent.cannot_change(&ns, &theirs, subject("ed"), &["parting", "no agent may write it"]).await;
    // Whoever keeps it goes on: other subjects, and the finalizer's end.
    ann.changes(&ns, &theirs, subject("ed")).await;
    ann.changes(&ns, &theirs, json!({"metadata": {"finalizers": null}})).await;
}

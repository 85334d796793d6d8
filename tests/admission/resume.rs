//! Ending a suspension needs a verb of its own.

use serde_json::{Value, json};

use crate::common::{Namespace, eventually};
use crate::{control_plane, person, user};

fn of(kind: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: agentid.dev/v1alpha1, kind: {kind}, metadata: {{name: $NS, labels: {{agentid.dev/test-namespace: $NS}}}}, spec: {spec}}}"
    )
}

const KINDS: [(&str, &str, &str); 3] = [
    ("AgentIdentity", "agentidentities", "{suspend: true}"),
    ("AgentBlueprint", "agentblueprints", "{suspend: true, namespaceSelector: {matchLabels: {none: such}}}"),
    ("AgentPolicy", "agentpolicies", "{suspend: true, require: [Sponsor], match: {blueprints: [a]}}"),
];

#[tokio::test(flavor = "multi_thread")]
async fn who_may_edit_may_suspend_but_not_resume() {
    let (cp, _turn) = control_plane().await;
    let ns = Namespace::new(cp, "resume").await;
    let (root, ed) = (person(cp, "root").await, user(cp, "ed", &["fence-edit"]).await);
    let name = ns.name.clone();
    let roles = format!(
        "{{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {{name: {name}, labels: {{agentid.dev/test-namespace: {name}}}}}, rules: [{{apiGroups: [agentid.dev], resources: [agentblueprints, agentpolicies], resourceNames: [{name}], verbs: [resume]}}]}}"
    );
    let role = format!(
        "{{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {{name: resume}}, rules: [{{apiGroups: [agentid.dev], resources: [agentidentities], resourceNames: [{name}], verbs: [resume]}}]}}"
    );
    let bind = |kind: &str, role_kind: &str, role: &str| {
        crate::binding(kind, role, "", &[("User", "rea")])
            .replace("kind: ClusterRole, name: view", &format!("kind: {role_kind}, name: {role}"))
    };
    root.creates(&ns, &roles).await;
    root.creates(&ns, &role).await;
    root.creates(&ns, &bind("ClusterRoleBinding", "ClusterRole", &name)).await;
    root.creates(&ns, &bind("RoleBinding", "Role", "resume")).await;
    let rea = user(cp, "rea", &["fence-edit"]).await;

    for (kind, resource, spec) in KINDS {
        let object = of(kind, spec);
        ed.creates(&ns, &object).await;
        for end in [json!(false), Value::Null] {
            let wanted = ["agentid-resume", resource, &ns.name, "spec.suspend", "the verb resume"];
            ed.cannot_change(&ns, &object, json!({"spec": {"suspend": end}}), &wanted).await;
        }
        // All else may be changed meanwhile, and suspended again.
        ed.changes(
            &ns,
            &object,
            json!({"spec": {"suspend": true, "tokenLifetime": null}, "metadata": {"labels": {"a": "b"}}}),
        )
        .await;
        // Rights may take a moment to be known.
        let end = json!({"spec": {"suspend": false}});
        eventually("rea may resume", std::time::Duration::from_secs(10), || {
            let (rea, object, name, end) =
                (rea.clone(), object.replace("$NS", &ns.name), ns.name.clone(), end.clone());
            async move { rea.try_merge(&name, &object, &end, false).await }
        })
        .await;
        // What is not suspended is nobody's business here.
        ed.changes(
            &ns,
            &object,
            json!({"spec": {"suspend": null, "tokenLifetime": null}, "metadata": {"labels": {"a": "c"}}}),
        )
        .await;
        ed.changes(&ns, &object, json!({"spec": {"suspend": true}})).await;
        // The right is on one object by name, and in one namespace.
        let other = object.replace("name: $NS", "name: $NS-b");
        ed.creates(&ns, &other).await;
        rea.cannot_change(&ns, &other, json!({"spec": {"suspend": false}}), &["the verb resume"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_switch_is_not_let_go_by_other_fields() {
    let (cp, _turn) = control_plane().await;
    let ns = Namespace::new(cp, "killswitch").await;
    let ed = user(cp, "ed", &["fence-edit"]).await;
    let policy = of("AgentPolicy", "{suspend: true, require: [Sponsor], match: {blueprints: [a]}}");
    ed.creates(&ns, &policy).await;
    for spec in [json!({"enforcement": "Audit"}), json!({"match": {"blueprints": ["b"]}})] {
        ed.cannot_change(&ns, &policy, json!({"spec": spec}), &["spec.suspend", "narrow", "the verb resume"])
            .await;
    }
    ed.changes(&ns, &policy, json!({"spec": {"limits": {"tokenLifetime": "1h"}}})).await;
    let audited =
        of("AgentPolicy", "{suspend: true, enforcement: Audit}").replace("name: $NS", "name: $NS-b");
    ed.creates(&ns, &audited).await;
    ed.changes(&ns, &audited, json!({"spec": {"suspend": null, "limits": {"tokenLifetime": "1h"}}})).await;
}

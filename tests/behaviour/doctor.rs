//! `agentid doctor` on a real control plane: one of each thing that it looks for, and nothing where all is well.

use serde_json::Value;

use crate::answers::{agentid, json_of};
use crate::kit::*;

/// What is found in the test's namespace: check and object.
fn found(t: &Test) -> (bool, Vec<(String, String)>, Value) {
    let (done, said) = json_of(&["doctor", "-n", &t.name, "-o", "json"]);
    let text = |f: &Value, member: &str| f[member].as_str().unwrap().to_owned();
    let all =
        said["findings"].as_array().unwrap().iter().map(|f| (text(f, "check"), text(f, "object"))).collect();
    (done, all, said)
}

const SAFE: &str = "automountServiceAccountToken: false, ";

/// A pod that is seen.
fn seen_pod(name: &str, automount: &str) -> String {
    pod(name, "app: bot, agentid.dev/agent: ''").replace("spec: {", &format!("spec: {{{automount}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_namespace_has_no_findings() {
    let t = Test::for_pods("well").await;
    t.apply(&seen_pod("p", SAFE)).await;
    t.apply(&(agent("a", "boundObjectRef: {apiVersion: v1, kind: Pod, name: p}") + &agent("b", ""))).await;
    t.ready("a").await;
    t.ready("b").await;
    let (done, all, said) = found(&t);
    assert!(done && all.is_empty(), "{said}");
    let text = agentid(&["doctor", "-n", &t.name]);
    says(&String::from_utf8(text.stdout).unwrap(), &["nothing found"]);
    let missing = agentid(&["doctor", "-n", "no-such-namespace"]);
    assert_eq!(missing.status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_each_is_found() {
    let t = Test::for_pods("ill").await;
    // A pod with the default token, which two blueprints select.
    t.apply(&seen_pod("p", "")).await;
    t.apply(&agent("a", "boundObjectRef: {apiVersion: v1, kind: Pod, name: p}")).await;
    let ready = t.ready("a").await;
    next_second().await;
    t.apply(&agent("late", "secretName: a-agentid")).await;
    t.refused("late", "Conflict", &["AgentIdentity a"]).await;
    for name in ["old", "new"] {
        t.apply(&format!(
            "apiVersion: agentid.dev/v1alpha1\nkind: AgentBlueprint\nmetadata: {{name: {name}-$NS}}\nspec: {{namespaceSelector: \
             {{matchLabels: {{kubernetes.io/metadata.name: $NS}}}}, podSelector: {{matchLabels: {{app: bot}}}}, \
             identityPer: Pod}}\n"
        ))
        .await;
    }
    // A pod that is not seen at all is an agent's by its service account.
    t.apply("{apiVersion: v1, kind: ServiceAccount, metadata: {name: quiet}}").await;
    t.apply(&pod("quiet", "app: none").replace("spec: {", "spec: {serviceAccountName: quiet, ")).await;
    t.apply(&agent("quiet", "serviceAccountName: quiet")).await;
    // Roles that nobody granted, and rights through a group that everybody is in.
    let id = ready.status.unwrap().agent_id.unwrap();
    let bind = |name: &str, kind: &str, subject: &str| {
        format!(
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{name: {name}}}\nroleRef: {{apiGroup: \
             rbac.authorization.k8s.io, kind: ClusterRole, name: view}}\nsubjects: [{{apiGroup: rbac.authorization.k8s.io, \
             kind: {kind}, name: '{subject}'}}]\n"
        )
    };
    t.apply(&bind("hand", "User", &id)).await;
    t.apply(&bind("hands", "Group", "agentid:agents")).await;
    t.apply(&bind("broad", "Group", "system:serviceaccounts:$NS")).await;
    t.apply(&bind("fine", "User", "ann")).await;
    let (done, all, said) = found(&t);
    assert!(!done);
    let wanted = [
        ("conflict", "AgentIdentity $NS/late"),
        ("conflict", "Pod $NS/p"),
        ("boundByHand", "RoleBinding $NS/hand"),
        ("boundByHand", "RoleBinding $NS/hands"),
        ("defaultToken", "AgentIdentity $NS/a"),
        ("defaultToken", "AgentIdentity $NS/quiet"),
        ("broadRights", "RoleBinding $NS/broad"),
    ];
    let wanted: Vec<_> = wanted.iter().map(|(c, o)| ((*c).to_owned(), t.fill(o))).collect();
    assert_eq!(all, wanted, "{said:#}");
    for finding in said["findings"].as_array().unwrap() {
        assert!(!finding["message"].as_str().unwrap().is_empty(), "{finding}");
        let remedy = finding["remedy"].as_str().unwrap();
        assert!(remedy.starts_with("kubectl ") || remedy.starts_with("agentid why "), "{finding}");
    }
    let text = agentid(&["doctor", "-n", &t.name]);
    assert_eq!(text.status.code(), Some(1));
    says(&String::from_utf8(text.stderr).unwrap(), &["error: 7 findings"]);
    says(
        &String::from_utf8(text.stdout).unwrap(),
        &[
            "Roles bound to agents by hand\n  RoleBinding ",
            "$ kubectl delete rolebinding -n ",
            "automountServiceAccountToken",
        ],
    );
}

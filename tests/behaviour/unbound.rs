//! Rights on the cluster that the API server does not let the operator give: said where they are looked for, and given
//! as soon as they can be. On a control plane of its own, by an operator without the rights of an administrator.

use std::time::Duration;

use crate::common::{ControlPlane, Operator, Setup, audit};
use crate::kit::*;
use crate::kubernetes::{bound, can, cluster, grant_role, role};

const READS: &str = "[{apiGroups: [\"\"], resources: [services], verbs: [get, list]}]";
const USER: &str = "agentid-without-bind";

/// What the operator needs, but `bind`.
const RULES: &str = "[{apiGroups: [agentid.dev], resources: [\"*\"], verbs: [\"*\"]}, \
    {apiGroups: [\"\"], resources: [secrets, configmaps], verbs: [get, list, watch, create, update, patch, delete]}, \
    {apiGroups: [\"\"], resources: [namespaces, pods], verbs: [get, list, watch]}, \
    {apiGroups: [apps, batch], resources: [\"*\"], verbs: [get, list, watch]}, \
    {apiGroups: [rbac.authorization.k8s.io], resources: [clusterroles], verbs: [list, watch]}, \
    {apiGroups: [rbac.authorization.k8s.io], resources: [rolebindings], verbs: [get, list, watch, create, patch, delete]}, \
    {apiGroups: [coordination.k8s.io], resources: [leases], verbs: [get, create, update, patch]}, \
    {apiGroups: [events.k8s.io], resources: [events], verbs: [create]}]";
const BIND: &str = "[{apiGroups: [rbac.authorization.k8s.io], resources: [clusterroles], \
    resourceNames: [behave-unbound], verbs: [bind]}]";

/// A ClusterRole, given to the operator's user.
fn given(name: &str, rules: &str) -> String {
    format!(
        "{}---\napiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {{name: {name}}}\n\
         roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {name}}}\n\
         subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: {USER}}}]\n",
        role(name, rules)
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_not_be_bound_is_told_to_its_holders_until_it_may() {
    let cp = ControlPlane::private("kube-unbound");
    let t = Test::on(&cp, "kube-unbound").await;
    t.apply(&given("behave-operator", RULES)).await;
    let config = cp.kubeconfig_as(USER, &["system:authenticated"]);
    let setup = Setup {
        configuration: Setup::default().configuration + "kubernetes: {bindableRoles: [behave-unbound]}\n",
        kubeconfig: Some(config.clone()),
        ..Setup::default()
    };
    let operator = Operator::start(&cp, setup.clone()).await;
    t.apply(&[role("behave-unbound", READS), cluster("behave-unbound"), agent("a", "")].concat()).await;
    t.apply(&grant_role("k", "names: [a]", "behave-unbound")).await;

    let says = [
        "ClusterRole behave-unbound can't be bound in namespace $NS",
        "attempting to grant",
        "give the operator's ClusterRole the verb bind on clusterroles/behave-unbound",
    ];
    t.grant_is("a", "k", "Narrowed", "Internal").await;
    t.condition("a", "GrantsHeld", "False", "Internal", &[&["AgentGrant k: Internal"][..], &says].concat())
        .await;
    t.grant_says("k", "False", "Internal", &[&["AgentIdentity a: Internal"][..], &says].concat()).await;
    t.event("k", "Warning Internal", &["can't be bound"]).await;
    t.ready("a").await;

    // It is tried again and again, and said once; a restart, too, says nothing else in between.
    let since = audit::mark(&cp);
    tokio::time::sleep(Duration::from_secs(4)).await;
    operator.stop();
    let operator = Operator::start(&cp, setup).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let ours = |e: &audit::Entry| e.is_in(&t.name) && e.user_agent.starts_with("agentid/");
    let tries = audit::count(&cp, since, |e| ours(e) && e.is_of("rolebindings") && !e.succeeded());
    assert!((4..40).contains(&tries), "{tries} tries");
    let written = audit::since(&cp, since, |e| ours(e) && e.succeeded() && !e.is_of("events"));
    assert!(written.is_empty(), "{written:?}");

    t.apply(&given("behave-bind", BIND)).await;
    bound(&t, &["a"]).await;
    t.grant_is("a", "k", "Held", "").await;
    t.condition("a", "GrantsHeld", "True", "Issued", &["1 of 1 grants are held"]).await;
    t.grant_says("k", "True", "Issued", &["held by 1 agents"]).await;

    // Who is to lose a right loses it also when the API server lets the operator write the role no more; those who
    // lose it with him are told.
    t.apply(&[agent("b", ""), grant_role("k", "names: [a, b]", "behave-unbound")].concat()).await;
    bound(&t, &["a", "b"]).await;
    let b = t.agent("b").await.unwrap().status.unwrap().agent_id.unwrap();
    t.delete(&given("behave-bind", BIND)).await;
    t.apply(&agent("b", "suspend: true")).await;
    bound(&t, &[]).await;
    assert!(!can(&t, &b, "list", "services", &t.name).await);
    t.grant_is("a", "k", "Narrowed", "Internal").await;
    t.apply(&given("behave-bind", BIND)).await;
    bound(&t, &["a"]).await;
    t.grant_is("a", "k", "Held", "").await;
    operator.stop();
    std::fs::remove_file(config).unwrap();
}

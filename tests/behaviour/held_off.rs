//! What stands in the way when a right on the cluster is to be taken: admission policies and finalizers of others.

use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;

use crate::common::eventually;
use crate::kit::*;
use crate::kubernetes::{bound, can, cluster, grant_role, role};

const READS: &str = "[{apiGroups: [\"\"], resources: [pods], verbs: [get, list]}]";

/// An admission policy of somebody else's over the RoleBindings of the test's namespace. It names no reason, so that the
/// API server answers as to what is invalid.
fn policy(name: &str, operation: &str, expression: &str) -> String {
    format!(
        "---\napiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicy\nmetadata: {{name: {name}-$NS}}\n\
         spec: {{matchConstraints: {{resourceRules: [{{apiGroups: [rbac.authorization.k8s.io], apiVersions: [v1], \
         operations: [{operation}], resources: [rolebindings]}}]}}, validations: [{{expression: \"{expression}\", message: \
         frozen by the customer}}]}}\n---\napiVersion: admissionregistration.k8s.io/v1\nkind: \
         ValidatingAdmissionPolicyBinding\nmetadata: {{name: {name}-$NS}}\nspec: {{policyName: {name}-$NS, \
         validationActions: [Deny], matchResources: {{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: \
         $NS}}}}}}}}\n"
    )
}

async fn id(t: &Test, agent: &str) -> String {
    t.agent(agent).await.unwrap().status.unwrap().agent_id.unwrap()
}

async fn loses(t: &Test, user: &str) {
    eventually(format!("{user} may not read pods"), LATER, || async {
        if can(t, user, "list", "pods", &t.name).await { Err("it may") } else { Ok(()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_be_taken_off_a_role_binding_loses_it_with_all() {
    let t = Test::new("held-update").await;
    let agents = agent("a", "") + &agent("b", "");
    t.apply(&[role("behave-reader", READS), cluster("behave-reader"), agents].concat()).await;
    t.apply(&grant_role("k", "names: [a, b]", "behave-reader")).await;
    let found = bound(&t, &["a", "b"]).await;
    let b = id(&t, "b").await;
    let frozen = policy("update", "UPDATE", "false");
    t.apply(&frozen).await;
    let name = found[0].metadata.name.clone().unwrap();
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    let change = Patch::Merge(json!({"metadata": {"annotations": {"x": "y"}}}));
    eventually("the policy is in force", LATER, || async {
        match t.api::<RoleBinding>().patch(&name, &dry, &change).await {
            Err(kube::Error::Api(status)) if status.code == 422 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    t.apply(&agent("b", "suspend: true")).await;
    loses(&t, &b).await;
    let again = bound(&t, &["a"]).await;
    assert_ne!(again[0].metadata.uid, found[0].metadata.uid);
    t.event("k", "Warning Internal", &["frozen by the customer", "admission policies"]).await;
    t.grant_is("a", "k", "Held", "").await;
    t.delete(&frozen).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_binding_that_a_finalizer_holds_gives_nothing_any_more() {
    let t = Test::new("held-final").await;
    let agents = agent("a", "") + &agent("b", "");
    t.apply(&[role("behave-reader", READS), cluster("behave-reader"), agents].concat()).await;
    t.apply(&grant_role("k", "names: [a]", "behave-reader")).await;
    let found = bound(&t, &["a"]).await;
    let name = found[0].metadata.name.clone().unwrap();
    let a = id(&t, "a").await;
    let holds = |finalizers: serde_json::Value| json!({"metadata": {"finalizers": finalizers}});
    t.merge::<RoleBinding>(&name, holds(json!(["example.com/hold"]))).await;
    assert!(can(&t, &a, "list", "pods", &t.name).await);
    t.apply(&agent("a", "suspend: true")).await;
    loses(&t, &a).await;
    let left = t.api::<RoleBinding>().get(&name).await.unwrap();
    assert!(left.metadata.deletion_timestamp.is_some(), "{left:?}");
    // Others get theirs meanwhile, and this one is left in peace.
    t.apply(&grant_role("k", "names: [a, b]", "behave-reader")).await;
    let since = mark();
    bound(&t, &["b"]).await;
    tokio::time::sleep(PAUSE).await;
    let writes = t.writes(since).into_iter().filter(|w| w.contains("rolebindings")).count();
    assert!(writes <= 1, "{writes}");
    t.merge::<RoleBinding>(&name, holds(json!([]))).await;
    eventually("it is gone", SOON, || async {
        let found = t.api::<RoleBinding>().get_opt(&name).await.unwrap();
        found.map_or(Ok(()), |b| Err(format!("{b:?}")))
    })
    .await;
    bound(&t, &["b"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_can_not_be_deleted_holds_no_other_back_and_is_told() {
    let t = Test::new("held-delete").await;
    let offers =
        cluster("behave-many").replace("{name: behave-many}", "{name: behave-many}, {name: behave-reader}");
    t.apply(&[role("behave-many", READS), role("behave-reader", READS), offers, agent("a", "")].concat())
        .await;
    t.apply(&grant_role("k", "names: [a]", "behave-many, behave-reader")).await;
    eventually("two are bound", LATER, || async {
        let all = ours(&t).await;
        if all.len() == 2 { Ok(()) } else { Err(all) }
    })
    .await;
    let frozen = policy("delete", "DELETE", "!oldObject.metadata.name.contains('behave-many')");
    t.apply(&frozen).await;
    let many = ours(&t).await.into_iter().find(|n| n.contains("behave-many")).unwrap();
    let dry = DeleteParams { dry_run: true, ..DeleteParams::default() };
    eventually("the policy is in force", LATER, || async {
        match t.api::<RoleBinding>().delete(&many, &dry).await {
            Err(kube::Error::Api(status)) if status.code == 422 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    t.apply(&agent("a", "suspend: true")).await;
    eventually("the other one is gone", SOON, || async {
        let all = ours(&t).await;
        if all == [many.clone()] { Ok(()) } else { Err(all) }
    })
    .await;
    t.event("k", "Warning Internal", &[&many, "can't be taken away", "frozen by the customer"]).await;
    t.delete(&frozen).await;
    bound(&t, &[]).await;
}

/// The names of our RoleBindings of the test's namespace.
async fn ours(t: &Test) -> Vec<String> {
    let ours = ListParams::default().labels("app.kubernetes.io/managed-by=agentid");
    let all = t.api::<RoleBinding>().list(&ours).await.unwrap().items;
    all.into_iter().filter_map(|b| b.metadata.name).collect()
}

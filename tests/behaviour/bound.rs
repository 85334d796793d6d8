//! Agents bound to a pod: they live and die with it.

use serde_json::json;

use agentid::api::AgentIdentity;
use k8s_openapi::api::core::v1::Pod;

use crate::kit::*;

const TO_POD: &str = "boundObjectRef: {apiVersion: v1, kind: Pod, name: p}";
const LABEL: &str = "agentid.dev/agent: a";

/// A pod with an agent that is Ready.
async fn setup(prefix: &str) -> (Test, AgentIdentity) {
    let t = Test::for_pods(prefix).await;
    t.apply(&(pod("p", LABEL) + &agent("a", TO_POD))).await;
    let agent = t.ready("a").await;
    (t, agent)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_goes_with_its_pod() {
    let (t, agent_) = setup("pod").await;
    let uid = t.api::<Pod>().get("p").await.unwrap().metadata.uid.unwrap();
    let owners = agent_.metadata.owner_references.clone().unwrap();
    assert_eq!(owners.len(), 1);
    assert_eq!((owners[0].kind.as_str(), &owners[0].uid), ("Pod", &uid));
    assert_eq!(agent_.status.as_ref().unwrap().bound_object_uid.as_deref(), Some(&*uid));
    t.verified("a-agentid").await;
    t.delete(&pod("p", "")).await;
    t.no_agent(&agent_).await;
    t.no_secret("a-agentid").await;
}

/// Ours goes beside the owner that somebody gave the agent.
#[tokio::test(flavor = "multi_thread")]
async fn an_owner_of_others_is_kept() {
    let t = Test::for_pods("owners").await;
    let theirs = t.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: theirs}}").await;
    let uid = theirs.metadata.uid.unwrap();
    t.apply(&pod("p", LABEL)).await;
    let owned = agent("a", TO_POD).replace(
        "{name: a}",
        &format!(
            "{{name: a, ownerReferences: [{{apiVersion: v1, kind: ConfigMap, name: theirs, uid: {uid}}}]}}"
        ),
    );
    t.apply(&owned).await;
    let agent = t.ready("a").await;
    let kinds: Vec<_> =
        agent.metadata.owner_references.clone().unwrap().into_iter().map(|o| o.kind).collect();
    assert_eq!(kinds, ["ConfigMap", "Pod"]);
    // With another owner left, the garbage collector would keep it.
    t.delete(&pod("p", "")).await;
    t.no_agent(&agent).await;
    t.no_secret("a-agentid").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_waits_for_its_pod() {
    let t = Test::for_pods("wait").await;
    t.apply(&agent("a", TO_POD)).await;
    t.refused(
        "a",
        "BoundObjectNotFound",
        &["spec.boundObjectRef", "v1/Pod p", "namespace $NS", "comes with it"],
    )
    .await;
    assert!(t.secret("a-agentid").await.is_none());
    t.apply(&pod("p", LABEL)).await;
    t.ready("a").await;
    t.verified("a-agentid").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_taken_off_is_no_deletion() {
    let (t, agent_) = setup("unlabelled").await;
    t.merge::<Pod>("p", json!({"metadata": {"labels": {"agentid.dev/agent": null}}})).await;
    let parts = ["spec.boundObjectRef", "v1/Pod p", "selector \"agentid.dev/agent\"", "label it"];
    t.refused("a", "BoundObjectNotSelected", &parts).await;
    t.withdrawn("a-agentid", "BoundObjectNotSelected").await;
    tokio::time::sleep(PAUSE).await;
    assert_eq!(t.agent("a").await.unwrap().metadata.uid, agent_.metadata.uid, "the agent was deleted");
    t.merge::<Pod>("p", json!({"metadata": {"labels": {"agentid.dev/agent": "a"}}})).await;
    t.ready("a").await;
    t.verified("a-agentid").await;
    assert_eq!(t.agent("a").await.unwrap().metadata.uid, agent_.metadata.uid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_never_had_the_label_is_told_of() {
    let t = Test::for_pods("nolabel").await;
    t.apply(&(pod("p", "app: x") + &agent("a", TO_POD))).await;
    t.refused("a", "BoundObjectNotSelected", &["v1/Pod p", "label it agentid.dev/agent"]).await;
    assert!(t.secret("a-agentid").await.is_none());
    t.merge::<Pod>("p", json!({"metadata": {"labels": {"agentid.dev/agent": ""}}})).await;
    t.ready("a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_pod_counts_as_gone_but_its_agent_stays() {
    let (t, agent_) = setup("finished").await;
    t.merge_status(&pod("p", ""), json!({"phase": "Running"})).await;
    tokio::time::sleep(PAUSE).await;
    t.ready("a").await;
    t.merge_status(&pod("p", ""), json!({"phase": "Succeeded"})).await;
    t.refused("a", "BoundObjectFinished", &["spec.boundObjectRef", "v1/Pod p", "has finished"]).await;
    t.withdrawn("a-agentid", "BoundObjectFinished").await;
    tokio::time::sleep(PAUSE).await;
    assert_eq!(t.agent("a").await.unwrap().metadata.uid, agent_.metadata.uid);
    t.delete(&pod("p", "")).await;
    t.no_agent(&agent_).await;
    t.no_secret("a-agentid").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_recreated_under_the_name_is_another_pod() {
    let (t, agent_) = setup("recreated").await;
    t.delete(&pod("p", "")).await;
    t.apply(&pod("p", LABEL)).await;
    t.no_agent(&agent_).await;
    t.no_secret("a-agentid").await;
    tokio::time::sleep(PAUSE).await;
    assert!(t.agent("a").await.is_none());
    // Whoever makes the agent anew binds it to the pod of today.
    t.apply(&agent("a", TO_POD)).await;
    let again = t.ready("a").await;
    let uid = t.api::<Pod>().get("p").await.unwrap().metadata.uid;
    assert_eq!(again.status.unwrap().bound_object_uid, uid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_deleted_with_its_label_off_takes_the_agent_along() {
    let (t, agent_) = setup("unseen").await;
    t.merge::<Pod>("p", json!({"metadata": {"labels": {"agentid.dev/agent": null}}})).await;
    t.refused("a", "BoundObjectNotSelected", &[]).await;
    t.delete(&pod("p", "")).await;
    // No watch shows it: it is looked at once a minute, and the garbage collector knows the owner.
    t.no_agent(&agent_).await;
    t.no_secret("a-agentid").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_may_not_be_bound_is_refused() {
    let t = Test::new("kind").await;
    t.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: c}}").await;
    t.apply(&agent("a", "boundObjectRef: {apiVersion: v1, kind: ConfigMap, name: c}")).await;
    let parts = ["spec.boundObjectRef", "v1/ConfigMap", "boundKinds", "bind to another kind"];
    t.refused("a", "BoundKindNotAllowed", &parts).await;
    assert!(t.secret("a-agentid").await.is_none());
}

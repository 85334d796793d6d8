//! Agents bound to workloads: by UID like a pod, by name as long as the name is there.

use agentid::api::AgentIdentity;
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use serde_json::json;

use crate::common::eventually;
use crate::kit::*;

const BY_NAME: &str = "boundObjectRef: {apiVersion: apps/v1, kind: Deployment, name: d}";

fn by_uid(uid: &str) -> String {
    format!("boundObjectRef: {{apiVersion: apps/v1, kind: Deployment, name: d, uid: {uid}}}")
}

/// A Deployment with an agent of its UID that is Ready.
async fn setup(prefix: &str) -> (Test, AgentIdentity) {
    let t = Test::new(prefix).await;
    let uid = t.apply(&deployment("d")).await.metadata.uid.unwrap();
    t.apply(&agent("a", &by_uid(&uid))).await;
    let agent = t.ready("a").await;
    assert_eq!(agent.status.as_ref().unwrap().bound_object_uid.as_deref(), Some(&*uid));
    assert_eq!(agent.metadata.owner_references.as_ref().unwrap()[0].uid, uid);
    (t, agent)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_recreated_is_another_object() {
    let (t, agent_) = setup("uid").await;
    t.delete(&deployment("d")).await;
    t.apply(&deployment("d")).await;
    t.no_agent(&agent_).await;
    t.no_secret("a-agentid").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orphaning_delete_is_a_delete() {
    let (t, agent_) = setup("orphaning").await;
    t.orphan::<Deployment>("d").await;
    t.no_agent(&agent_).await;
    t.no_secret("a-agentid").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_uid_under_the_name_is_refused() {
    let t = Test::new("wrong-uid").await;
    let real = t.apply(&deployment("d")).await.metadata.uid.unwrap();
    let wrong = "00000000-0000-4000-8000-000000000001";
    t.apply(&agent("a", &by_uid(wrong))).await;
    let parts = ["spec.boundObjectRef.uid", "apps/v1/Deployment d", &real, wrong, "anew"];
    t.refused("a", "BoundObjectReplaced", &parts).await;
    tokio::time::sleep(PAUSE).await;
    assert!(t.agent("a").await.is_some());
    assert!(t.secret("a-agentid").await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_followed() {
    let t = Test::new("by-name").await;
    t.apply(&(deployment("d") + &agent("a", BY_NAME))).await;
    let first = t.ready("a").await;
    assert_eq!(first.metadata.owner_references, None, "a GitOps tool would drop it");
    t.verified("a-agentid").await;

    t.delete(&deployment("d")).await;
    let parts = ["spec.boundObjectRef", "apps/v1/Deployment d", "namespace $NS", "comes with it"];
    t.refused("a", "BoundObjectNotFound", &parts).await;
    t.withdrawn("a-agentid", "BoundObjectNotFound").await;

    let uid = t.apply(&deployment("d")).await.metadata.uid;
    let second = t.ready("a").await;
    t.verified("a-agentid").await;
    assert_eq!(first.metadata.uid, second.metadata.uid);
    eventually("the UID of today in the status", SOON, || async {
        let seen = t.agent("a").await.and_then(|a| a.status).and_then(|s| s.bound_object_uid);
        if seen == uid { Ok(()) } else { Err(format!("{seen:?}, wanted {uid:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_job_withdraws() {
    let t = Test::new("job").await;
    let job = |name: &str| {
        format!(
            "---\napiVersion: batch/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec: {{managedBy: example.com/test, template: \
             {{spec: {{restartPolicy: Never, containers: [{{name: c, image: example.com/none}}]}}}}}}\n"
        )
    };
    let condition = |type_: &str| json!({"type": type_, "status": "True", "lastTransitionTime": in_seconds(0), "reason": "Test", "message": ""});
    let start = in_seconds(-5);
    let ends = [
        (
            "done",
            json!({"startTime": start, "completionTime": in_seconds(0), "succeeded": 1,
            "conditions": [condition("SuccessCriteriaMet"), condition("Complete")]}),
        ),
        (
            "failed",
            json!({"startTime": start, "failed": 1,
            "conditions": [condition("FailureTarget"), condition("Failed")]}),
        ),
    ];
    for (name, status) in ends {
        let bound = format!("boundObjectRef: {{apiVersion: batch/v1, kind: Job, name: {name}}}");
        t.apply(&(job(name) + &agent(name, &bound))).await;
        t.ready(name).await;
        t.merge_status(&job(name), json!({"startTime": start, "active": 1})).await;
        t.merge_status(&job(name), json!({"active": 0})).await;
        t.merge_status(&job(name), status).await;
        t.refused(name, "BoundObjectFinished", &[&format!("batch/v1/Job {name}"), "has finished"]).await;
        t.withdrawn(&format!("{name}-agentid"), "BoundObjectFinished").await;
        assert!(t.agent(name).await.is_some());
    }
}

/// A kind of the configuration that nobody serves: its own agents wait, the others don't notice.
#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_is_not_there_yet() {
    let t = Test::new("sandbox").await;
    let definition = "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: sandboxes.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: sandboxes, singular: sandbox, kind: Sandbox}
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}
";
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    let definitions: Api<CustomResourceDefinition> = Api::all(t.client.clone());
    assert!(
        definitions.get_opt("sandboxes.example.com").await.unwrap().is_none(),
        "the cluster has a kind example.com/v1 Sandbox, which this test wants to make"
    );
    t.apply(&agent("boxed", "boundObjectRef: {apiVersion: example.com/v1, kind: Sandbox, name: s}")).await;
    t.apply(&agent("free", "")).await;
    t.condition("boxed", "Ready", "Unknown", "Unknown", &["example.com/v1/Sandbox"]).await;
    t.ready("free").await;
    assert!(t.secret("boxed-agentid").await.is_none());

    t.apply(definition).await;
    let parts = ["spec.boundObjectRef", "example.com/v1/Sandbox s", "does not exist"];
    t.refused("boxed", "BoundObjectNotFound", &parts).await;
    let sandbox = "{apiVersion: example.com/v1, kind: Sandbox, metadata: {name: s}}";
    t.apply(sandbox).await;
    t.ready("boxed").await;
    t.verified("boxed-agentid").await;
    t.delete(sandbox).await;
    t.refused("boxed", "BoundObjectNotFound", &[]).await;
    t.withdrawn("boxed-agentid", "BoundObjectNotFound").await;

    t.apply(sandbox).await;
    t.ready("boxed").await;
    // With the definition go its objects; what is unknown afterwards withdraws nothing more, and harms nobody.
    t.delete(definition).await;
    eventually("the definition is gone", LATER, || async {
        let left = definitions.get_opt("sandboxes.example.com").await.unwrap();
        left.map_or(Ok(()), |d| Err(format!("{:?}", d.metadata)))
    })
    .await;
    t.ready("free").await;
    t.apply(&agent("late", "")).await;
    t.ready("late").await;
}

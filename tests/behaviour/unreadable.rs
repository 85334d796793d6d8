//! Objects that don't parse: a definition that somebody loosened lets them in.

use agentid::api::AgentIdentity;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::common::{ControlPlane, Operator, Setup, eventually};
use crate::kit::*;

/// Lets AgentIdentities with any spec in.
async fn loosen(t: &Test) {
    let definitions: Api<CustomResourceDefinition> = Api::all(t.client.clone());
    let name = "agentidentities.agentid.dev";
    let mut loose = serde_json::to_value(definitions.get(name).await.unwrap()).unwrap();
    let version = &mut loose["spec"]["versions"][0];
    version["schema"]["openAPIV3Schema"]["properties"]["spec"] =
        json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    version.as_object_mut().unwrap().remove("selectableFields");
    let loose = serde_json::from_value(loose).unwrap();
    definitions.replace(name, &PostParams::default(), &loose).await.unwrap();
}

/// Changes a spec to what the types can't read.
async fn spec(t: &Test, name: &str, spec: Value) {
    let resource = ApiResource::erase::<AgentIdentity>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(t.client.clone(), &t.name, &resource);
    let patch = json!({"spec": spec});
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_does_not_parse_harms_itself_alone() {
    let control_plane = ControlPlane::private("unreadable");
    let t = Test::on(&control_plane, "unreadable").await;
    loosen(&t).await;
    let broken = agent("broken", "suspend: \"yes\"");
    eventually("the loosened definition is in force", LATER, || t.try_apply(&broken)).await;
    t.apply(&agent("good", "")).await;

    // It is among the first that the operator lists.
    let operator = Operator::start(&control_plane, Setup::default()).await;
    t.ready("good").await;
    t.event("broken", "Warning Invalid", &["can't be read and is skipped", "spec.suspend", "correct it"])
        .await;
    assert!(t.secret("broken-agentid").await.is_none());

    // One that was readable keeps what it has while it is not.
    t.apply(&agent("later", "")).await;
    t.ready("later").await;
    let before = t.secret("later-agentid").await.unwrap();
    spec(&t, "later", json!({"suspend": "yes"})).await;
    t.event("later", "Warning Invalid", &["can't be read"]).await;
    tokio::time::sleep(PAUSE).await;
    assert_eq!(
        t.secret("later-agentid").await.unwrap().metadata.resource_version,
        before.metadata.resource_version
    );
    spec(&t, "later", json!({"suspend": true})).await;
    t.withdrawn("later-agentid", "Suspended").await;

    // It comes in when it is corrected, and goes like any other.
    spec(&t, "broken", json!({"suspend": false})).await;
    t.ready("broken").await;
    t.verified("broken-agentid").await;
    spec(&t, "broken", json!({"suspend": "yes"})).await;
    t.event("broken", "Warning Invalid", &[]).await;
    t.delete(&agent("broken", "")).await;
    eventually("the Secret is gone", SOON, || async {
        let left: Option<Secret> = t.secret("broken-agentid").await;
        left.map_or(Ok(()), |s| Err(format!("{:?}", s.metadata)))
    })
    .await;
    t.ready("good").await;
    let metrics = operator.metrics().await;
    let counted = metrics.lines().find(|l| l.starts_with("agentid_objects_skipped_total{"));
    let count = counted.and_then(|l| l.rsplit(' ').next()).and_then(|n| n.parse::<f64>().ok());
    assert!(count.is_some_and(|n| n >= 3.0), "{metrics}");
    drop(operator);
}

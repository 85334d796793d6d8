//! Objects that don't parse: a definition that somebody loosened lets them in.

use agentid::api::AgentIdentity;
use k8s_openapi::api::core::v1::{Event, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::common::{ControlPlane, Operator, Setup, condition, eventually};
use crate::kit::*;

/// Lets objects of a kind with any spec in.
async fn loosen(t: &Test, plural: &str) {
    let definitions: Api<CustomResourceDefinition> = Api::all(t.client.clone());
    let name = &format!("{plural}.agentid.dev");
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
    loosen(&t, "agentidentities").await;
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
    let counted = metrics.lines().filter(|l| l.starts_with("agentid_objects_skipped_total{"));
    let counts: Vec<f64> = counted.map(|l| l.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    assert!(counts.iter().any(|n| *n >= 3.0), "{metrics}");
    assert_eq!(counts.iter().filter(|n| **n > 0.0).count(), 1, "{metrics}");
    drop(operator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_can_no_longer_be_read_stands_as_it_was() {
    let policy = |name: &str, spec: &str| {
        format!(
            "---\napiVersion: agentid.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
        )
    };
    let control_plane = ControlPlane::private("unreadable-policy");
    let t = Test::on(&control_plane, "unreadable-policy").await;
    t.apply(&agent("a", "")).await;
    let operator = Operator::start(&control_plane, Setup::default()).await;
    t.ready("a").await;
    t.apply(&policy("p", "require: [Sponsor]")).await;
    t.refused("a", "RequirementMissing", &["AgentPolicy p: spec.require"]).await;
    loosen(&t, "agentpolicies").await;
    let broken = policy("q", "suspend: \"yes\"");
    eventually("the loosened definition is in force", LATER, || t.try_apply(&broken)).await;
    t.apply(&policy("p", "suspend: \"no\"")).await;
    for name in ["p", "q"] {
        eventually(format!("the Event about {name}"), LATER, || async {
            let events: Api<Event> = Api::all(t.client.clone());
            let about = ListParams::default().fields(&format!("involvedObject.name={name},reason=Invalid"));
            let found = events.list(&about).await.unwrap().items;
            let said = |e: &Event| e.message.as_deref().is_some_and(|m| m.contains("spec.suspend"));
            if found.iter().any(said) { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
    }
    // Understood in part: said by its condition, and it too changes nothing.
    t.apply(&policy("p", "limits: {agentLifetime: soon}")).await;
    eventually("the condition", LATER, || async {
        let status = t.policy("p").await.and_then(|p| p.status).unwrap_or_default();
        let ready =
            condition(&status.conditions, "Ready").filter(|c| c.status == "False" && c.reason == "Invalid");
        ready
            .map(|c| says(&c.message, &["spec.limits.agentLifetime", "soon"]))
            .ok_or_else(|| format!("{status:?}"))
    })
    .await;
    t.refused("a", "RequirementMissing", &["AgentPolicy p: spec.require"]).await;
    t.apply(&policy("p", "require: [Expiry]")).await;
    t.refused("a", "RequirementMissing", &["AgentPolicy p: spec.require: Expiry"]).await;
    t.delete(&policy("p", "suspend: false")).await;
    t.ready("a").await;
    drop(operator);
}

//! None of the policies is in the way of who cleans up: deletions, orphans, namespaces that go, statuses.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace as Core};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PropagationPolicy};
use serde_json::json;

use crate::common::{Namespace, api_of, eventually};
use crate::{
    AGENT, ALL, OPERATOR, agent, aid, annotation, binding, control_plane, one, person, secret, user,
};

const OURS: &str = "app.kubernetes.io/managed-by: agentid";
/// The first deletion under new definitions waits for the garbage collector to read discovery again.
const PATIENCE: Duration = Duration::from_secs(120);

fn owned(yaml: &str, owner: &kube::core::DynamicObject) -> String {
    let types = owner.types.as_ref().unwrap();
    let (name, uid) = (owner.metadata.name.as_ref().unwrap(), owner.metadata.uid.as_ref().unwrap());
    yaml.replace(
        "metadata: {",
        &format!(
            "metadata: {{ownerReferences: [{{apiVersion: {}, kind: {}, name: {name}, uid: {uid}}}], ",
            types.api_version, types.kind
        ),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_are_let_go() {
    let (cp, _turn) = control_plane().await;
    let ns = Namespace::new(cp, "orphans").await;
    let ann = person(cp, "ann").await;
    let operator = user(cp, OPERATOR, &["system:serviceaccounts", ALL]).await;
    let map = "{apiVersion: v1, kind: ConfigMap, metadata: {name: owner}}";
    // Before the collector knows our kinds it lets go of owners without looking for agents: one whose owner never
    // was tells when it does.
    let mut never = ann.creates(&ns, &map.replace("owner", "never")).await;
    never.metadata.uid = Some("0b5f4b3e-6f0e-4c64-9a51-0f4f1f0e7a11".to_owned());
    ann.creates(&ns, &owned(&aid("canary", "{}"), &never)).await;
    eventually("the collector knows our kinds", PATIENCE, || async {
        ns.agent("canary").await.map_or(Ok(()), |a| Err(format!("{:?}", a.metadata)))
    })
    .await;
    let map = ann.creates(&ns, map).await;
    let agent = ann.creates(&ns, &owned(&aid("a", "{suspend: true}"), &map)).await;
    let written = [
        owned(&secret("a-agentid", "agentid.dev/credentials"), &agent),
        owned(&binding("RoleBinding", "ours", OURS, &[("User", AGENT)]), &agent),
    ];
    for yaml in &written {
        operator.creates(&ns, yaml).await;
    }
    let orphan =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() };
    let maps: Api<ConfigMap> = Api::namespaced(ann.client.clone(), &ns.name);
    maps.delete("owner", &orphan).await.unwrap();
    eventually("the agent has no owner", PATIENCE, || async {
        let now = ns.agent("a").await.ok_or("the agent is gone")?;
        if now.metadata.owner_references.is_none() && maps.get_opt("owner").await.unwrap().is_none() {
            Ok(())
        } else {
            Err(format!("{:?}", now.metadata.owner_references))
        }
    })
    .await;
    assert_eq!(ns.agent("a").await.unwrap().metadata.annotations.unwrap()["agentid.dev/author"], "ann");

    api_of(ann.client.clone(), &agent).delete("a", &orphan).await.unwrap();
    eventually("the agent is gone and what it owned is not", PATIENCE, || async {
        if let Some(agent) = ns.agent("a").await {
            return Err(format!("{agent:?}"));
        }
        for yaml in &written {
            let object = one(&ns.name, yaml);
            let name = object.metadata.name.clone().unwrap();
            let now = api_of(ann.client.clone(), &object).get(&name).await.map_err(|e| e.to_string())?;
            if now.metadata.owner_references.is_some() {
                return Err(format!("{:?}", now.metadata));
            }
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_goes() {
    let (cp, _turn) = control_plane().await;
    let ns = Namespace::for_pods(cp, "going").await;
    let ann = person(cp, "ann").await;
    let operator = user(cp, OPERATOR, &["system:serviceaccounts", ALL]).await;
    let agent = ann.creates(&ns, &aid("a", "{suspend: true}")).await;
    ann.creates(&ns, "{apiVersion: agentid.dev/v1alpha1, kind: AgentGrant, metadata: {name: g}, spec: {agents: {selector: {}}, resource: r, application: {}}}").await;
    operator.creates(&ns, &owned(&secret("a-agentid", "agentid.dev/credentials"), &agent)).await;
    operator.creates(&ns, &binding("RoleBinding", "ours", OURS, &[("User", AGENT)])).await;
    ann.creates(&ns, &crate::inject::pod("true", "")).await;
    let namespaces: Api<Core> = Api::all(ann.client.clone());
    namespaces.delete(&ns.name, &DeleteParams::default()).await.unwrap();
    eventually("the namespace is gone", PATIENCE, || async {
        match namespaces.get_opt(&ns.name).await.unwrap() {
            None => Ok(()),
            Some(left) => Err(format!("{:?}", left.status)),
        }
    })
    .await;
}

/// While a finalizer of somebody else holds it, what is on its way out may be changed by everybody whom a role lets.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_its_way_out_is_not_held() {
    let (cp, _turn) = control_plane().await;
    let ns = Namespace::new(cp, "leaving").await;
    let (ann, ed) = (person(cp, "ann").await, user(cp, "ed", &["fence-edit"]).await);
    let (agent, operator) = (agent(cp).await, user(cp, OPERATOR, &[ALL]).await);
    let held = |yaml: &str| yaml.replace("metadata: {", "metadata: {finalizers: [example.com/held], ");
    let object = ann.creates(&ns, &held(&aid("a", "{suspend: true}"))).await;
    let theirs = ann.creates(&ns, &held(&secret("s", "Opaque"))).await;
    for object in [&object, &theirs] {
        let name = object.metadata.name.as_ref().unwrap();
        api_of(ann.client.clone(), object).delete(name, &DeleteParams::default()).await.unwrap();
    }
    let resumed = ed.changes(&ns, &aid("a", "{}"), json!({"spec": {"suspend": false}})).await;
    assert_eq!(annotation(&resumed, "edited-by"), "", "nothing is written to it either");
    agent.changes(&ns, &secret("s", "Opaque"), json!({"stringData": {"a": "b"}})).await;
    operator.changes(&ns, &secret("s", "Opaque"), json!({"metadata": {"labels": {"a": "b"}}})).await;
    agent.changes(&ns, &aid("a", "{}"), json!({"metadata": {"finalizers": null}})).await;
    agent.changes(&ns, &secret("s", "Opaque"), json!({"metadata": {"finalizers": null}})).await;
    assert!(ns.agent("a").await.is_none() && ns.secret("s").await.is_none());

    // The same in a namespace that is on its way out, of objects that are not yet.
    let going = Namespace::new(cp, "leaving-ns").await;
    ann.creates(&going, &aid("a", "{suspend: true}")).await;
    ann.creates(&going, &held(&aid("b", "{suspend: true}"))).await;
    let namespaces: Api<Core> = Api::all(ann.client.clone());
    let held_namespace = json!({"metadata": {"finalizers": ["example.com/held"]}});
    namespaces.patch(&going.name, &PatchParams::default(), &Patch::Merge(&held_namespace)).await.unwrap();
    namespaces.delete(&going.name, &DeleteParams::default()).await.unwrap();
    // The API server learns of it a moment later.
    let resumed = json!({"spec": {"suspend": false}});
    eventually("the suspension may be ended", Duration::from_secs(10), || async {
        ed.try_merge(&going.name, &aid("b", "{}"), &resumed, false).await
    })
    .await;
    ann.changes(&going, &aid("b", "{}"), json!({"metadata": {"finalizers": null}})).await;
    namespaces
        .patch(
            &going.name,
            &PatchParams::default(),
            &Patch::Merge(&json!({"metadata": {"finalizers": null}})),
        )
        .await
        .unwrap();
}

/// A deletion asks nobody of ours, whoever does it.
#[tokio::test(flavor = "multi_thread")]
async fn deletions_pass() {
    let (cp, _turn) = control_plane().await;
    let ns = Namespace::new(cp, "deletions").await;
    let (ann, agent) = (person(cp, "ann").await, agent(cp).await);
    for yaml in [secret("s", "Opaque"), aid("a", "{suspend: true}"), binding("RoleBinding", "b", "", &[])] {
        let object = ann.creates(&ns, &yaml).await;
        let name = object.metadata.name.clone().unwrap();
        api_of(agent.client.clone(), &object).delete(&name, &DeleteParams::default()).await.unwrap();
    }
}

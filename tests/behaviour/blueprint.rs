//! Blueprints: what they make of pods, what their agents inherit, and what goes with them.

use std::collections::BTreeMap;

use agentid::api::{AgentBlueprint, AgentIdentity};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::json;

use crate::common::{condition, eventually, parse};
use crate::kit::*;

/// A blueprint `<name>-$NS` for the test's namespace; `spec` is the rest of its spec's fields.
fn blueprint(name: &str, spec: &str) -> String {
    let comma = if spec.is_empty() { "" } else { ", " };
    format!(
        "---\napiVersion: agentid.dev/v1alpha1\nkind: AgentBlueprint\nmetadata: {{name: {name}-$NS}}\nspec: \
         {{namespaceSelector: {{matchLabels: {{\"kubernetes.io/metadata.name\": $NS}}}}{comma}{spec}}}\n"
    )
}

const PODS: &str = "podSelector: {matchLabels: {app: bot}}";
const EACH_POD: &str = "podSelector: {matchLabels: {app: bot}}, identityPer: Pod";
/// The labels of a pod that is seen, and selected.
const BOT: &str = "app: bot, agentid.dev/agent: ''";

/// A Deployment whose pods are selected and mount the Secret that is to come.
fn bots(name: &str, replicas: u32) -> String {
    format!(
        "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec: {{replicas: {replicas}, selector: \
         {{matchLabels: {{d: {name}}}}}, template: {{metadata: {{labels: {{d: {name}, {BOT}}}}}, spec: {{schedulerName: none, \
         containers: [{{name: c, image: example.com/none}}], volumes: [{{name: agentid, secret: {{secretName: \
         {name}-agentid}}}}]}}}}}}\n"
    )
}

/// Waits for what a blueprint says of itself: made, ready, refused, suspended.
async fn counts(t: &Test, name: &str, wanted: [i64; 4]) {
    let blueprints: Api<AgentBlueprint> = Api::all(t.client.clone());
    let name = format!("{name}-{}", t.name);
    eventually(format!("AgentBlueprint {name} counts {wanted:?}"), LATER, || async {
        let status = blueprints.get(&name).await.map_err(|e| e.to_string())?.status.unwrap_or_default();
        let all =
            [status.made, status.ready, status.refused, status.suspended].map(Option::unwrap_or_default);
        if all == wanted { Ok(()) } else { Err(format!("{all:?}")) }
    })
    .await;
}

/// Waits until a condition of a blueprint has this status, and its message all these parts.
async fn says_of(t: &Test, name: &str, type_: &str, status: &str, parts: &[&str]) {
    let blueprints: Api<AgentBlueprint> = Api::all(t.client.clone());
    let name = format!("{name}-{}", t.name);
    let parts: Vec<_> = parts.iter().map(|p| t.fill(p)).collect();
    eventually(format!("AgentBlueprint {name}: {type_} is {status}"), LATER, || async {
        let found = blueprints.get(&name).await.map_err(|e| e.to_string())?.status.unwrap_or_default();
        match condition(&found.conditions, type_) {
            Some(c) if c.status == status && parts.iter().all(|p| c.message.contains(p)) => Ok(()),
            _ => Err(format!("{found:?}")),
        }
    })
    .await;
}

async fn uncontested(t: &Test, name: &str, status: &str, parts: &[&str]) {
    says_of(t, name, "Uncontested", status, parts).await;
}

/// What Events say about a blueprint. Those of what is in no namespace are in the namespace default.
async fn events_of(t: &Test, name: &str) -> Vec<String> {
    let all = Api::<Event>::namespaced(t.client.clone(), "default");
    let about = ListParams::default().fields(&format!("involvedObject.name={name}-{}", t.name));
    let events = all.list(&about).await.unwrap().items;
    events.into_iter().filter_map(|e| e.message).collect()
}

async fn agents(t: &Test) -> BTreeMap<String, AgentIdentity> {
    let all = t.api::<AgentIdentity>().list(&ListParams::default()).await.unwrap().items;
    all.into_iter().map(|a| (a.metadata.name.clone().unwrap(), a)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_a_deployment_become_one_agent_with_the_secret_that_they_name() {
    let t = Test::for_pods("bp-workload").await;
    let inherits = format!(
        "{PODS}, grants: [{{name: tickets, resource: res-$NS, application: {{roles: [reader]}}, secretKey: t.jwt}}]"
    );
    t.apply(&resource("res")).await;
    t.apply(&blueprint("bots", &inherits)).await;
    let uid = t.apply(&bots("bot", 3)).await.metadata.uid.unwrap();
    let agent = t.ready("bot").await;
    assert_eq!(agent.metadata.owner_references.as_ref().unwrap()[0].uid, uid);
    assert_eq!(agent.spec.blueprint, Some(t.fill("bots-$NS")));
    assert_eq!(agent.spec.service_account_name.as_deref(), Some("default"));
    let tokens = t.verified("bot-agentid").await;
    let own = &tokens["t.jwt"].claims["agentid.dev"];
    assert_eq!(own["blueprint"], t.fill("bots-$NS").as_str());
    let grant = t.grant_is("bot", &t.fill("bots-$NS/tickets"), "Held", "").await;
    assert!(grant.status_index.is_some());
    assert_eq!(agents(&t).await.len(), 1, "of three pods");
    counts(&t, "bots", [1, 1, 0, 0]).await;
    // Taking the word back reaches who inherits.
    t.apply(&resource_with("res", "[]", "")).await;
    t.grant_is("bot", &t.fill("bots-$NS/tickets"), "Refused", "NamespaceNotAllowed").await;
    t.has_files("bot-agentid", &["agent.json", "identity.jwt"], SOON).await;

    t.delete(&bots("bot", 3)).await;
    t.no_agent(&agent).await;
    t.no_secret("bot-agentid").await;
    counts(&t, "bots", [0, 0, 0, 0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_pod_becomes_an_agent_without_a_secret_and_takes_it_along() {
    let t = Test::for_pods("bp-pod").await;
    t.apply(&blueprint("bots", EACH_POD)).await;
    t.apply(&(pod("p", BOT) + &pod("other", "app: web, agentid.dev/agent: ''"))).await;
    let agent = t.condition("p", "Ready", "True", "Issued", &["pod's own service-account token"]).await;
    assert!(agent.observed_generation.is_some());
    let agent = t.agent("p").await.unwrap();
    assert_eq!(agent.status.as_ref().unwrap().secret_name, None);
    assert!(t.secret("p-agentid").await.is_none());
    assert_eq!(agents(&t).await.keys().collect::<Vec<_>>(), ["p"]);
    // Somebody deletes it: it comes back while its pod lives.
    t.api::<AgentIdentity>().delete("p", &DeleteParams::default()).await.unwrap();
    t.no_agent(&agent).await;
    let again = t.ready("p").await;
    t.delete(&pod("p", BOT)).await;
    t.no_agent(&again).await;
    // One that has finished is no agent any more.
    t.apply(&pod("q", BOT)).await;
    let agent = t.ready("q").await;
    t.merge_status(&pod("q", BOT), json!({"phase": "Succeeded"})).await;
    t.no_agent(&agent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn suspend_stops_them_all_and_is_lifted() {
    let t = Test::for_pods("bp-suspend").await;
    t.apply(&blueprint("bots", EACH_POD)).await;
    t.apply(&(pod("p", BOT) + &agent("hand", "blueprint: bots-$NS"))).await;
    t.ready("p").await;
    t.ready("hand").await;
    t.apply(&blueprint("bots", &format!("{EACH_POD}, suspend: true"))).await;
    for name in ["p", "hand"] {
        t.refused(name, "Suspended", &["AgentBlueprint bots-$NS", "spec.suspend", "resume"]).await;
    }
    t.withdrawn("hand-agentid", "Suspended").await;
    counts(&t, "bots", [1, 0, 0, 2]).await;
    t.apply(&blueprint("bots", EACH_POD)).await;
    t.ready("p").await;
    t.ready("hand").await;
    t.verified("hand-agentid").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_the_same_for_all_that_it_made_is_told_once() {
    let t = Test::for_pods("bp-told").await;
    let inherits = format!("{EACH_POD}, grants: [{{name: tickets, resource: none-$NS, application: {{}}}}]");
    t.apply(&blueprint("bots", &inherits)).await;
    let pods = ["p", "q", "r"];
    t.apply(&pods.map(|p| pod(p, BOT)).concat()).await;
    counts(&t, "bots", [3, 3, 0, 0]).await;
    t.apply(&blueprint("bots", &format!("{inherits}, suspend: true"))).await;
    counts(&t, "bots", [3, 0, 0, 3]).await;
    let mut told = eventually("three Events about the blueprint", LATER, || async {
        let notes = events_of(&t, "bots").await;
        if notes.len() == 3 { Ok(notes) } else { Err(format!("{notes:#?}")) }
    })
    .await;
    told.sort_unstable();
    let start = t.fill("its agents in namespace $NS: ");
    says(&told[0], &[&start, "0 of 1 grants are held: AgentGrant", "ResourceNotFound"]);
    says(&told[1], &[&start, "0 of 1 grants are held: see Ready"]);
    says(&told[2], &[&start, &t.fill("AgentBlueprint bots-$NS: spec.suspend is true")]);
    for pod in pods {
        assert_eq!(t.events(pod).await, Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_older_of_two_rules_and_both_say_so() {
    let t = Test::for_pods("bp-two").await;
    t.apply(&blueprint("old", EACH_POD)).await;
    next_second().await;
    t.apply(&blueprint("new", EACH_POD)).await;
    t.apply(&pod("p", BOT)).await;
    let agent = t.ready("p").await;
    assert_eq!(agent.spec.blueprint, Some(t.fill("old-$NS")));
    uncontested(&t, "old", "False", &["pod $NS/p", "younger AgentBlueprint new-$NS", "podSelector"]).await;
    uncontested(&t, "new", "False", &["pod $NS/p", "older AgentBlueprint old-$NS", "podSelector"]).await;
    // The ruler goes, and with it what it made; the other one takes the pod over.
    t.delete(&blueprint("old", EACH_POD)).await;
    t.no_agent(&agent).await;
    let agent = t.ready("p").await;
    assert_eq!(agent.spec.blueprint, Some(t.fill("new-$NS")));
    uncontested(&t, "new", "True", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blueprint_that_goes_takes_what_it_made_and_leaves_what_was_written() {
    let t = Test::for_pods("bp-gone").await;
    t.apply(&blueprint("bots", EACH_POD)).await;
    let pods = t.api::<Pod>();
    for n in 0..20 {
        let object = parse(&pod(&format!("p{n}"), BOT)).remove(0);
        let object: Pod = serde_json::from_value(serde_json::to_value(object).unwrap()).unwrap();
        pods.create(&PostParams::default(), &object).await.unwrap();
    }
    t.apply(&agent("hand", "blueprint: bots-$NS")).await;
    counts(&t, "bots", [20, 21, 0, 0]).await;
    t.delete(&blueprint("bots", EACH_POD)).await;
    t.refused("hand", "BlueprintNotFound", &["spec.blueprint", "bots-$NS"]).await;
    t.withdrawn("hand-agentid", "BlueprintNotFound").await;
    eventually("what it made is gone", LATER, || async {
        let left = agents(&t).await;
        if left.len() == 1 { Ok(()) } else { Err(format!("{:?}", left.keys())) }
    })
    .await;
    t.apply(&blueprint("bots", "")).await;
    t.ready("hand").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_is_not_selected_has_no_such_agent() {
    let t = Test::for_pods("bp-namespace").await;
    let elsewhere = blueprint("bots", EACH_POD).replace("\"kubernetes.io/metadata.name\": $NS", "team: $NS");
    t.apply(&elsewhere).await;
    t.apply(&(pod("p", BOT) + &agent("hand", "blueprint: bots-$NS"))).await;
    t.refused("hand", "NamespaceNotSelected", &["bots-$NS", "namespace $NS", "namespaceSelector"]).await;
    assert_eq!(agents(&t).await.keys().collect::<Vec<_>>(), ["hand"]);
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(t.client.clone());
    let label = kube::api::Patch::Merge(json!({"metadata": {"labels": {"team": t.name}}}));
    namespaces.patch(&t.name, &kube::api::PatchParams::default(), &label).await.unwrap();
    t.ready("hand").await;
    t.ready("p").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_name_is_left_alone_and_said() {
    let t = Test::for_pods("bp-taken").await;
    t.apply(&(agent("p", "") + &agent("mine", "boundObjectRef: {apiVersion: v1, kind: Pod, name: q}"))).await;
    t.apply(&blueprint("bots", EACH_POD)).await;
    t.apply(&(pod("p", BOT) + &pod("q", BOT))).await;
    uncontested(&t, "bots", "False", &["pod $NS/p", "AgentIdentity p", "rename"]).await;
    t.ready("mine").await;
    let all = agents(&t).await;
    assert_eq!(all.keys().collect::<Vec<_>>(), ["mine", "p"]);
    assert_eq!(all["p"].spec.blueprint, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_made_is_said_until_it_can() {
    let t = Test::for_pods("bp-quota").await;
    let quota = "---\napiVersion: v1\nkind: ResourceQuota\nmetadata: {name: q}\nspec: {hard: \
                 {count/agentidentities.agentid.dev: 0}}\n";
    t.apply(quota).await;
    // The quotas' controller takes its time with kinds that are not Kubernetes' own.
    let none = json!({"count/agentidentities.agentid.dev": "0"});
    t.merge_status(quota, json!({"hard": none, "used": none})).await;
    let one_more = agent("probe", "");
    eventually("the quota is in force", LATER, || async {
        match t.try_apply(&one_more).await {
            Err(e) if e.to_string().contains("exceeded quota") => Ok(()),
            Err(e) => Err(e.to_string()),
            Ok(_) => {
                t.delete(&one_more).await;
                Err("it is not".to_owned())
            }
        }
    })
    .await;
    t.apply(&blueprint("bots", EACH_POD)).await;
    t.apply(&(pod("p", BOT) + &pod("q", BOT))).await;
    let parts = ["pod $NS/p can't be made", "exceeded quota", "see the namespace's quotas", "2 such pods"];
    says_of(&t, "bots", "AgentsMade", "False", &parts).await;
    eventually("an Event about the blueprint", LATER, || async {
        let notes = events_of(&t, "bots").await;
        if notes.iter().any(|n| n.contains("exceeded quota")) { Ok(()) } else { Err(notes) }
    })
    .await;
    t.delete(quota).await;
    says_of(&t, "bots", "AgentsMade", "True", &[]).await;
    t.ready("p").await;
    t.ready("q").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_the_system_become_agents_only_by_two_words_and_are_not_touched() {
    let t = Test::for_pods("bp-system").await;
    let everywhere = "{matchExpressions: [{key: \"kubernetes.io/metadata.name\", operator: In, values: [kube-system, $NS]}]}";
    let selects = |namespaces: &str| {
        format!(
            "---\napiVersion: agentid.dev/v1alpha1\nkind: AgentBlueprint\nmetadata: {{name: sys-$NS}}\nspec: \
             {{namespaceSelector: {namespaces}, podSelector: {{matchLabels: {{app: sys-$NS}}}}, identityPer: Pod}}\n"
        )
    };
    let system = |name: &str, labels: &str| {
        pod(&format!("$NS-{name}"), &format!("app: sys-$NS{labels}"))
            .replace("metadata: {", "metadata: {namespace: kube-system, ")
    };
    let (plain, labelled) = (system("plain", ""), system("labelled", ", agentid.dev/agent: ''"));
    let pods: Api<Pod> = Api::namespaced(t.client.clone(), "kube-system");
    let agents: Api<AgentIdentity> = Api::namespaced(t.client.clone(), "kube-system");
    let (plain_name, labelled_name) = (format!("{}-plain", t.name), format!("{}-labelled", t.name));
    // The selector alone would take them all: the namespace is not selected yet.
    t.apply(&selects("{matchLabels: {\"kubernetes.io/metadata.name\": $NS}}")).await;
    let version = |object: kube::core::DynamicObject| object.metadata.resource_version.unwrap();
    let (plain_at, labelled_at) = (version(t.apply(&plain).await), version(t.apply(&labelled).await));
    t.apply(&pod("here", "app: sys-$NS, agentid.dev/agent: ''")).await;
    t.ready("here").await;
    assert!(agents.get_opt(&labelled_name).await.unwrap().is_none());

    t.apply(&selects(everywhere)).await;
    let made = eventually("the labelled pod is an agent", LATER, || agents.get(&labelled_name)).await;
    assert_eq!(made.spec.bound_object_ref.unwrap().name, labelled_name);
    tokio::time::sleep(PAUSE).await;
    assert!(agents.get_opt(&plain_name).await.unwrap().is_none(), "it does not bear agentid's label");
    for (name, before) in [(&plain_name, plain_at), (&labelled_name, labelled_at)] {
        let now = pods.get(name).await.unwrap().metadata;
        assert_eq!(now.resource_version, Some(before), "{name} was written");
    }
    // A mistake is taken back as it was made.
    t.apply(&selects("{matchLabels: {\"kubernetes.io/metadata.name\": $NS}}")).await;
    t.delete(&(selects(everywhere) + &plain + &labelled)).await;
    eventually("nothing is left in kube-system", LATER, || async {
        let maps: Api<k8s_openapi::api::core::v1::ConfigMap> =
            Api::namespaced(t.client.clone(), "kube-system");
        let left = agents.get_opt(&labelled_name).await.map_err(|e| e.to_string())?.map(|a| a.metadata.name);
        let trust = maps.get_opt("agentid-trust").await.map_err(|e| e.to_string())?.is_some();
        if left.is_none() && !trust { Ok(()) } else { Err(format!("{left:?}, trust: {trust}")) }
    })
    .await;
}

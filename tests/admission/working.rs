//! The operator does all its work inside the fence, as its own service account.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Api;
use kube::api::DeleteParams;
use serde_json::json;

use crate::common::{Namespace, Operator, Setup, condition, eventually};
use crate::{ALL, OPERATOR, aid, alone, annotation, one, person};

const LATER: Duration = Duration::from_secs(60);

async fn ready(ns: &Namespace, name: &str) {
    eventually(format!("{name} is Ready"), LATER, || async {
        let status = ns.agent(name).await.and_then(|a| a.status).ok_or("no status")?;
        match condition(&status.conditions, "Ready") {
            Some(c) if c.status == "True" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_works_inside_the_fence() {
    let (cp, _turn) = alone().await;
    let config = cp.kubeconfig_as(OPERATOR, &["system:serviceaccounts", "system:authenticated", ALL]);
    let operator = Operator::start(cp, Setup { kubeconfig: Some(config.clone()), ..Setup::default() }).await;
    let ns = Namespace::for_pods(cp, "working").await;
    let ann = person(cp, "ann").await;
    let test = "labels: {agentid.dev/test-namespace: $NS}";
    for yaml in [
        format!("{{apiVersion: agentid.dev/v1alpha1, kind: AgentResource, metadata: {{name: $NS, {test}}}, spec: {{audience: 'https://$NS.example.com', roles: [{{name: reader}}], allow: [{{namespaceSelector: {{}}}}]}}}}"),
        "{apiVersion: agentid.dev/v1alpha1, kind: AgentGrant, metadata: {name: tickets}, spec: {agents: {selector: {}}, resource: $NS, application: {roles: [reader]}, secretKey: tickets.jwt}}".to_owned(),
        format!("{{apiVersion: agentid.dev/v1alpha1, kind: AgentBlueprint, metadata: {{name: $NS, {test}}}, spec: {{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: $NS}}}}, podSelector: {{matchLabels: {{app: bot}}}}, identityPer: Pod}}}}"),
        "{apiVersion: v1, kind: Pod, metadata: {name: p, labels: {app: q}}, spec: {containers: [{name: c, image: i}]}}".to_owned(),
        // Bound to a pod, so that the operator writes an ownerReference to it.
        aid("triage", "{boundObjectRef: {apiVersion: v1, kind: Pod, name: p}}"),
        crate::inject::pod("sidecar", "").replace("name: p, labels: {", "name: bot, labels: {app: bot, "),
    ] {
        // The pod that an agent is bound to must be seen.
        ann.creates(&ns, &yaml.replace("labels: {app: q}", "labels: {agentid.dev/agent: triage}")).await;
    }
    ready(&ns, "triage").await;
    let data = ns.secret("triage-agentid").await.unwrap().data.unwrap();
    assert!(data.contains_key("tickets.jwt"), "{:?}", data.keys());
    // An agent that the operator made says so, and has no person for a sponsor.
    eventually("the pod's agent is made", LATER, || ns.agent("bot")).await;
    let made = one(&ns.name, &aid("bot", "{}"));
    let made = crate::api_of(ann.client.clone(), &made).get("bot").await.unwrap();
    assert_eq!(annotation(&made, "author"), OPERATOR);
    assert_eq!(made.data["spec"]["sponsors"], json!(null));
    let maps: Api<ConfigMap> = Api::namespaced(ann.client.clone(), &ns.name);
    eventually("the published keys", LATER, || maps.get("agentid-trust")).await;

    let pods: Api<Pod> = Api::namespaced(ann.client.clone(), &ns.name);
    for pod in ["p", "bot"] {
        pods.delete(pod, &DeleteParams::default().grace_period(0)).await.unwrap();
    }
    eventually("the pods' agents and their Secret are gone", LATER, || async {
        let left = (ns.agent("triage").await, ns.agent("bot").await, ns.secret("triage-agentid").await);
        if matches!(left, (None, None, None)) { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    let log = std::fs::read_to_string(operator.log()).unwrap();
    assert!(!log.contains("ValidatingAdmissionPolicy"), "the fence refused the operator something:\n{log}");
    operator.stop();
    std::fs::remove_file(config).unwrap();
}

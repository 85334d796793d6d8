//! What agents don't write, whatever rights they were given.

use std::collections::BTreeSet;

use agentid::api::PROTECTED;
use http::Request;
use serde_json::json;

use crate::common::{Namespace, message};
use crate::{ALL, agent, aid, binding, control_plane, person, secret, user};

const POD: &str = "spec: {containers: [{name: c, image: i}], restartPolicy: Never}";

/// One object of each resource that an object can be created of.
fn objects() -> Vec<(&'static str, String)> {
    let workload = |group: &str, kind: &str| {
        let restart = POD.replace("restartPolicy: Never", "restartPolicy: Always");
        format!(
            "{{apiVersion: {group}v1, kind: {kind}, metadata: {{name: x}}, spec: {{selector: {{matchLabels: {{a: b}}}}, \
             serviceName: x, template: {{metadata: {{labels: {{a: b}}}}, {restart}}}}}}}"
        )
    };
    let job =
        format!("{{apiVersion: batch/v1, kind: Job, metadata: {{name: x}}, spec: {{template: {{{POD}}}}}}}");
    let cron = format!(
        "{{apiVersion: batch/v1, kind: CronJob, metadata: {{name: x}}, spec: {{schedule: '0 0 * * *', jobTemplate: {{spec: {{template: {{{POD}}}}}}}}}}}"
    );
    let rc = format!(
        "{{apiVersion: v1, kind: ReplicationController, metadata: {{name: x}}, spec: {{selector: {{a: b}}, template: {{metadata: {{labels: {{a: b}}}}, {}}}}}}}",
        POD.replace("restartPolicy: Never", "restartPolicy: Always")
    );
    vec![
        ("secrets", secret("x", "Opaque")),
        ("pods", format!("{{apiVersion: v1, kind: Pod, metadata: {{name: x}}, {POD}}}")),
        ("replicationcontrollers", rc),
        ("nodes", "{apiVersion: v1, kind: Node, metadata: {name: $NS}}".to_owned()),
        ("namespaces", "{apiVersion: v1, kind: Namespace, metadata: {name: $NS-b}}".to_owned()),
        ("deployments", workload("apps/", "Deployment")),
        ("statefulsets", workload("apps/", "StatefulSet")),
        ("daemonsets", workload("apps/", "DaemonSet")),
        ("replicasets", workload("apps/", "ReplicaSet")),
        ("jobs", job),
        ("cronjobs", cron),
        ("rbac.authorization.k8s.io", binding("RoleBinding", "x", "", &[("User", "ann")])),
        ("agentid.dev", aid("x", "{}")),
        ("agentid.dev", GRANT.to_owned()),
    ]
}

/// What an agent would write that gives itself something.
const GRANT: &str = "{apiVersion: agentid.dev/v1alpha1, kind: AgentGrant, metadata: {name: x}, spec: {agents: {selector: {}}, \
    resource: tickets, application: {}}}";

#[tokio::test(flavor = "multi_thread")]
async fn agents_create_none_of_what_is_protected() {
    let (cp, _turn) = control_plane().await;
    let ns = Namespace::for_pods(cp, "agents").await;
    let (agent, ann) = (agent(cp).await, person(cp, "ann").await);
    let objects = objects();
    for (_, yaml) in &objects {
        agent.cannot_create(&ns, yaml, &["agentid-agents", "no agent may write it", "let a person"]).await;
        ann.try_create(&ns.name, &yaml.replace("$NS", &ns.name), true)
            .await
            .unwrap_or_else(|e| panic!("{e}\n{yaml}"));
    }
    // Every resource of the list is tried, here or below.
    let tried: BTreeSet<_> =
        objects.iter().map(|(name, _)| *name).chain(SUBRESOURCES.iter().map(|s| s.0)).collect();
    // Admission policies are exempt from admission, lest they lock a cluster.
    let listed: BTreeSet<_> = PROTECTED
        .iter()
        .filter(|p| p.group != "admissionregistration.k8s.io")
        .flat_map(|p| p.resources.iter().map(|r| if *r == "*" { p.group } else { r }))
        .collect();
    assert_eq!(tried, listed);
    // To say that it is on its way out does not help.
    let leaving =
        secret("x", "Opaque").replace("name: x", "name: x, deletionTimestamp: \"2030-01-01T00:00:00Z\"");
    agent.cannot_create(&ns, &leaving, &["no agent may write it"]).await;
    // What is not on the list is the roles' business.
    agent.creates(&ns, "{apiVersion: v1, kind: ConfigMap, metadata: {name: notes}}").await;
    agent.creates(&ns, "{apiVersion: v1, kind: ServiceAccount, metadata: {name: s}}").await;
    // Who holds a namespace's service account is bounded by its roles and by what resources allow, not by this fence.
    let runner = format!("system:serviceaccount:{}:runner", ns.name);
    user(cp, &runner, &["system:serviceaccounts", ALL]).await.creates(&ns, GRANT).await;
}

/// Method and path of each subresource, and the body.
const SUBRESOURCES: &[(&str, &str, &str)] = &[
    ("serviceaccounts/token", "POST", "/api/v1/namespaces/$NS/serviceaccounts/default/token"),
    ("pods/exec", "POST", "/api/v1/namespaces/$NS/pods/p/exec?command=sh&stdout=true"),
    ("pods/attach", "POST", "/api/v1/namespaces/$NS/pods/p/attach?stdout=true"),
    ("pods/portforward", "POST", "/api/v1/namespaces/$NS/pods/p/portforward?ports=80"),
    ("nodes/proxy", "GET", "/api/v1/nodes/none/proxy/pods"),
    ("pods/ephemeralcontainers", "PATCH", "/api/v1/namespaces/$NS/pods/p/ephemeralcontainers"),
];

#[tokio::test(flavor = "multi_thread")]
async fn agents_enter_no_pods_and_mint_no_tokens() {
    let (cp, _turn) = control_plane().await;
    let ns = Namespace::for_pods(cp, "agents-sub").await;
    let (agent, ann) = (agent(cp).await, person(cp, "ann").await);
    ann.creates(&ns, &format!("{{apiVersion: v1, kind: Pod, metadata: {{name: p}}, {POD}}}")).await;
    for (resource, method, path) in SUBRESOURCES {
        let body = match *method {
            "GET" => String::new(),
            "PATCH" => json!({"spec": {"ephemeralContainers": [{"name": "e", "image": "i"}]}}).to_string(),
            _ => json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": ["a"]}}).to_string(),
        };
        let kind =
            if *method == "PATCH" { "application/strategic-merge-patch+json" } else { "application/json" };
        for (who, refused) in [(&agent, true), (&ann, false)] {
            let request = Request::builder().method(*method).uri(path.replace("$NS", &ns.name));
            let request = request.header("content-type", kind).body(body.clone().into_bytes()).unwrap();
            let answer = who.client.request::<serde_json::Value>(request).await;
            // Without a node nothing more comes of it; only whose word stops it counts.
            let said = answer.as_ref().err().map(|e| match e {
                kube::Error::Api(_) => message(e).to_owned(),
                other => other.to_string(),
            });
            let by_us =
                said.as_ref().is_some_and(|s| s.contains("no agent may write it") && s.contains(resource));
            assert_eq!(by_us, refused, "{resource}: {said:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_change_nothing_of_what_is_protected() {
    let (cp, _turn) = control_plane().await;
    let ns = Namespace::new(cp, "agents-up").await;
    let (agent, ann) = (agent(cp).await, person(cp, "ann").await);
    ann.creates(&ns, &secret("s", "Opaque")).await;
    ann.creates(&ns, &aid("a", "{}")).await;
    let refused = ["no agent may write it"];
    agent.cannot_change(&ns, &secret("s", "Opaque"), json!({"stringData": {"a": "b"}}), &refused).await;
    agent.cannot_change(&ns, &aid("a", "{}"), json!({"spec": {"displayName": "A"}}), &refused).await;
    // The labels of a namespace decide what may be granted there.
    let namespace = "{apiVersion: v1, kind: Namespace, metadata: {name: $NS}}";
    agent.cannot_change(&ns, namespace, json!({"metadata": {"labels": {"team": "support"}}}), &refused).await;
    // Who is not of the group is no agent, whatever the name.
    let named = user(cp, "spiffe://agents.example.com/agent-like", &[ALL]).await;
    named.changes(&ns, &secret("s", "Opaque"), json!({"stringData": {"a": "b"}})).await;
}

//! Two hundred workloads at once, whose pod templates name a Secret that is not there yet.

use std::collections::BTreeMap;

use agentid::api::TRUST_NAME;
use agentid::crypto::{JwkSet, Typ};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};

use crate::common::{burst_resources, eventually};
use crate::kit::{PATIENCE, Stage, each};

const DEPLOYMENTS: usize = 200;

const RIGHTS: &str = "
apiVersion: agentid.dev/v1alpha1
kind: AgentPolicy
metadata: {name: careful-$NS}
spec:
  match: {blueprints: [bots-$NS]}
  deny: [{roles: [payer]}, {scopes: ['*.write']}]
---
apiVersion: agentid.dev/v1alpha1
kind: AgentBlueprint
metadata: {name: bots-$NS}
spec:
  namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: $NS}}
  podSelector: {matchLabels: {app: bot}}
  grants:
  - name: tickets
    resource: tickets-$NS
    application: {roles: [triager], scopes: [tickets.read, tickets.write]}
    secretKey: tickets.jwt
  - {name: wiki, resource: wiki-$NS, application: {roles: [reader]}, secretKey: wiki.jwt}
  - {name: ledger, resource: ledger-$NS, application: {roles: [payer]}, secretKey: ledger.jwt}
";

fn deployment(name: &str) -> Deployment {
    let labels = json!({"d": name, "app": "bot", "agentid.dev/agent": ""});
    serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"d": name}}, "template": {
            "metadata": {"labels": labels},
            "spec": {
                "schedulerName": "none",
                "containers": [{"name": "c", "image": "example.com/none"}],
                "volumes": [{"name": "agentid", "secret": {"secretName": format!("{name}-agentid")}}],
            },
        }},
    }))
    .unwrap()
}

/// The Secrets that a pod mounts.
fn mounted(pod: &Pod) -> impl Iterator<Item = String> {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    volumes.filter_map(|v| v.secret.as_ref()?.secret_name.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_two_hundred_workloads_finds_its_own_secret_and_nothing_is_left_of_them() {
    let stage = Stage::new("burst-workloads", "").await;
    stage.apply(&burst_resources()).await;
    stage.apply(RIGHTS).await;
    stage.phase(format_args!("{DEPLOYMENTS} Deployments are created at once"));
    let deployments = stage.api::<Deployment>();
    let uids: BTreeMap<_, _> = each((0..DEPLOYMENTS).map(|i| format!("bot-{i:03}")), |name| {
        let deployments = deployments.clone();
        async move {
            let made = deployments.create(&PostParams::default(), &deployment(&name)).await.unwrap();
            (name, made.metadata.uid.unwrap())
        }
    })
    .await
    .into_iter()
    .collect();
    stage.phase("they are created");
    let pods = stage.api::<Pod>();
    eventually("every Deployment has its pod", PATIENCE, || async {
        let found = pods.list(&ListParams::default()).await.map_err(|e| e.to_string())?.items.len();
        if found == DEPLOYMENTS { Ok(()) } else { Err(format!("{found} pods")) }
    })
    .await;
    stage.phase("every one has its pod");
    stage.counts(&format!("bots-{}", stage.name), DEPLOYMENTS).await;
    stage.phase("the blueprint counts their agents");
    // Its create, its Secret and its status.
    let most = 3 * DEPLOYMENTS + DEPLOYMENTS / 20;
    assert!(stage.writes().is_none_or(|n| n <= most), "{:?} writes", stage.writes());
    the_right_ones(&stage, &uids).await;
    stage.phase("every Secret is its agent's");

    stage.delete_all::<Deployment>(uids.into_keys(), &DeleteParams::background()).await;
    stage.phase("the Deployments are deleted");
    stage.nothing_is_left().await;
    stage.phase("nothing of ours is left");
    stage.counts(&format!("bots-{}", stage.name), 0).await;
}

/// Each pod mounts a Secret that is there, with what its own workload's agent is and holds.
async fn the_right_ones(stage: &Stage, deployments: &BTreeMap<String, String>) {
    let trust = stage.api::<ConfigMap>().get(TRUST_NAME).await.unwrap().data.unwrap();
    let keys = JwkSet::parse(&trust["jwks.json"]).unwrap().set;
    let agents = stage.agents().await;
    assert_eq!(agents.len(), DEPLOYMENTS);
    let agents: BTreeMap<_, _> = agents.into_iter().map(|a| (a.metadata.name.clone().unwrap(), a)).collect();
    let secrets = stage.api::<Secret>().list(&ListParams::default()).await.unwrap().items;
    let secrets: BTreeMap<_, _> =
        secrets.into_iter().map(|s| (s.metadata.name.clone().unwrap(), s)).collect();
    for pod in stage.api::<Pod>().list(&ListParams::default()).await.unwrap().items {
        let workload = pod.metadata.labels.as_ref().unwrap()["d"].clone();
        let agent = &agents[&workload];
        let owner = &agent.metadata.owner_references.as_ref().unwrap()[0];
        assert_eq!((&*owner.kind, &owner.uid), ("Deployment", &deployments[&workload]));
        let (uid, id) =
            (agent.metadata.uid.as_deref().unwrap(), agent.status.as_ref().unwrap().agent_id.as_deref());

        let names: Vec<_> = mounted(&pod).filter(|n| secrets.contains_key(n)).collect();
        assert_eq!(names, [format!("{workload}-agentid")], "what the pod of {workload} mounts");
        let data = secrets[&names[0]].data.as_ref().unwrap();
        let file = |name: &str| std::str::from_utf8(&data[name].0).unwrap();
        assert_eq!(
            data.keys().collect::<Vec<_>>(),
            ["agent.json", "identity.jwt", "tickets.jwt", "wiki.jwt"]
        );
        let document: Value = serde_json::from_str(file("agent.json")).unwrap();
        assert_eq!(
            (document["uid"].as_str(), document["name"].as_str(), document["agentId"].as_str()),
            (Some(uid), Some(&*workload), id)
        );
        let missing = document["missing"].as_array().unwrap().iter().map(|m| (&m["grant"], &m["reason"]));
        let denied = json!("PolicyDenied");
        let [narrowed, refused] =
            ["tickets", "ledger"].map(|grant| json!(format!("bots-{}/{grant}", stage.name)));
        assert_eq!(missing.collect::<Vec<_>>(), [(&narrowed, &denied), (&refused, &denied)]);

        let who = stage.verified(file("identity.jwt"), &keys, &stage.town.issuer, Typ::Identity);
        let tickets = format!("https://tickets.{}.example.com", stage.name);
        let tickets = stage.verified(file("tickets.jwt"), &keys, &tickets, Typ::Access);
        let wiki = format!("https://wiki.{}.example.com", stage.name);
        let wiki = stage.verified(file("wiki.jwt"), &keys, &wiki, Typ::Access);
        for claims in [&who, &tickets, &wiki] {
            assert_eq!(claims["sub"].as_str(), id);
            let said = &claims["agentid.dev"];
            assert_eq!((said["uid"].as_str(), said["name"].as_str()), (Some(uid), Some(&*workload)));
            assert_eq!(
                (&said["namespace"], &said["blueprint"]),
                (&json!(stage.name), &json!(format!("bots-{}", stage.name)))
            );
        }
        assert_eq!((&tickets["roles"], &tickets["scope"]), (&json!(["triager"]), &json!("tickets.read")));
        assert_eq!((&wiki["roles"], wiki.get("scope")), (&json!(["reader"]), None));
    }
}

//! Thousands of pods that become agents at once: how fast, for how many writes, and how fast all is gone with them.

use std::time::Instant;

use agentid::api::{AgentIdentity, SECRET_TYPE, TRUST_NAME};
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use kube::{Api, Client};
use serde_json::json;

use crate::bed::{Bed, agents_of, cpu_seconds, quiet};
use crate::common::{Namespace, Operator, audit, burst_resources, eventually};
use crate::create::{names, per_second};
use crate::report::{Report, percentile, say};
use crate::watch::{GoneAgent, SeenAgent, Sightings};
use crate::writes::is_operators;

const PODS: usize = 2000;
const ROUNDS: usize = 3;
/// How many creations or deletions of the bench's own are under way at once; the raw deletes are tried with each, and
/// the faster counts.
const AT_ONCE: [usize; 2] = [32, 16];

/// Three grants that are inherited, and a policy that takes something from one of them.
const RIGHTS: &str = "
apiVersion: agentid.dev/v1alpha1
kind: AgentPolicy
metadata: {name: careful-$NS}
spec: {match: {blueprints: [bots-$NS]}, deny: [{roles: [payer]}]}
---
apiVersion: agentid.dev/v1alpha1
kind: AgentBlueprint
metadata: {name: bots-$NS}
spec:
  namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: $NS}}
  podSelector: {matchLabels: {app: bot}}
  identityPer: Pod
  grants:
  - {name: tickets, resource: tickets-$NS, application: {roles: [triager], scopes: [tickets.read, tickets.write]}}
  - {name: wiki, resource: wiki-$NS, application: {roles: [reader]}}
  - {name: ledger, resource: ledger-$NS, application: {roles: [payer]}}
";

/// `burst_rate`, `burst_writes_per_agent`, `cleanup_rate`: bursts that the operator cleans up and bursts that a client
/// cleans up without it take turns, since the machine's own speed changes.
pub async fn burst(bed: &Bed, report: &mut Report) {
    if !report.wants(&["burst_rate", "burst_writes_per_agent", "cleanup_rate"]) {
        return;
    }
    let namespace = Namespace::for_pods(bed.control_plane(), "bench-burst").await;
    namespace.apply(&burst_resources()).await;
    namespace.apply(RIGHTS).await;
    let [mut rates, mut writes, mut cpus] = [const { Vec::new() }; 3];
    let [mut ratios, mut raws, mut ours] = [const { Vec::new() }; 3];
    for round in 1..=ROUNDS {
        let mut raw: f64 = 0.0;
        for at_once in AT_ONCE {
            let operator = bed.operator("").await;
            made(bed, &namespace, &operator, [&mut rates, &mut writes, &mut cpus]).await;
            operator.stop();
            raw = raw.max(raw_cleanup(bed, &namespace, at_once).await);
        }
        let operator = bed.operator("").await;
        made(bed, &namespace, &operator, [&mut rates, &mut writes, &mut cpus]).await;
        let our = cleanup(bed, &namespace).await;
        quiet(&operator).await;
        operator.stop();
        say(format_args!(
            "cleanup_rate: round {round} of {ROUNDS}: {our:.0} agents/s, raw {raw:.0}/s, ratio {:.2}",
            our / raw
        ));
        ratios.push(our / raw);
        raws.push(raw);
        ours.push(our);
    }
    let of = format!(
        "{PODS} pods, from the first create until the last agent is Ready in a watch; median of {} bursts, {:.0} to {:.0}; {:.2} ms of the operator's CPU each",
        rates.len(),
        percentile(&mut rates, 0.0),
        percentile(&mut rates, 1.0),
        percentile(&mut cpus, 0.5),
    );
    report.add("burst_rate", percentile(&mut rates, 0.5), of);
    let of = format!(
        "all writes of the operator, its Lease apart, for a burst of {PODS} pods with three inherited grants, one of them refused; most of {} bursts, least {:.3}",
        writes.len(),
        percentile(&mut writes, 0.0)
    );
    report.add("burst_writes_per_agent", percentile(&mut writes, 1.0), of);
    let of = format!(
        "{PODS} pods deleted, until no agent is left, {:.0}/s against {:.0}/s of a client that deletes pods and agents ({} or {} at once, the faster); median of {ROUNDS} rounds, {:.2} to {:.2}",
        percentile(&mut ours, 0.5),
        percentile(&mut raws, 0.5),
        AT_ONCE[0],
        AT_ONCE[1],
        percentile(&mut ratios, 0.0),
        percentile(&mut ratios, 1.0),
    );
    report.add("cleanup_rate", percentile(&mut ratios, 0.5), of);
}

/// A burst: agents/s, the operator's writes for each, and its processor time for each in ms are added.
async fn made(bed: &Bed, namespace: &Namespace, operator: &Operator, to: [&mut Vec<f64>; 3]) {
    let [rates, writes, cpus] = to;
    let watch = Sightings::of::<SeenAgent>(&bed.client, &agents_of(&namespace.name)).await;
    let (mark, idle, began) = (audit::mark(bed.control_plane()), cpu_seconds(operator), Instant::now());
    each(AT_ONCE[0], |name| create(bed.client.clone(), namespace.name.clone(), name)).await;
    let ended = watch.until("burst_rate: agents Ready", PODS).await;
    let rate = per_second(PODS, ended - began);
    // The counts of blueprints, resources and policies are written up to two seconds later.
    quiet(operator).await;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    #[allow(clippy::cast_precision_loss)] // of counts
    let count = audit::count(bed.control_plane(), mark, is_operators) as f64 / PODS as f64;
    #[allow(clippy::cast_precision_loss)] // of a count
    cpus.push((cpu_seconds(operator) - idle) * 1000.0 / PODS as f64);
    say(format_args!("burst_rate: {rate:.0} agents/s, {count:.3} writes each"));
    rates.push(rate);
    writes.push(count);
}

/// Deletes the pods and waits until the operator has left nothing: agents/s, the pods' deletion included.
async fn cleanup(bed: &Bed, namespace: &Namespace) -> f64 {
    let watch = Sightings::of::<GoneAgent>(&bed.client, &agents_of(&namespace.name)).await;
    let began = Instant::now();
    each(AT_ONCE[0], |name| delete_pod(bed.client.clone(), namespace.name.clone(), name)).await;
    let ended = watch.until("cleanup_rate: agents gone", PODS).await;
    eventually("nothing is left", std::time::Duration::from_secs(60), || async {
        let left = left(&bed.client, &namespace.name).await;
        if left == [0; 3] { Ok(()) } else { Err(left) }
    })
    .await;
    per_second(PODS, ended - began)
}

/// The same deletes by one client, the operator being away: each pod's, then its agent's of the UID that is known.
async fn raw_cleanup(bed: &Bed, namespace: &Namespace, at_once: usize) -> f64 {
    let agents: Api<AgentIdentity> = Api::namespaced(bed.client.clone(), &namespace.name);
    let known = agents.list_metadata(&ListParams::default()).await.unwrap().items;
    let uids: std::collections::HashMap<_, _> =
        known.into_iter().map(|a| (a.metadata.name.unwrap(), a.metadata.uid)).collect();
    let watch = Sightings::of::<GoneAgent>(&bed.client, &agents_of(&namespace.name)).await;
    let began = Instant::now();
    each(at_once, |name| {
        let (client, space, uid) = (bed.client.clone(), namespace.name.clone(), uids[&name].clone());
        async move {
            delete_pod(client.clone(), space.clone(), name.clone()).await;
            let preconditions = Some(Preconditions { uid, resource_version: None });
            let params = DeleteParams { preconditions, ..DeleteParams::default() };
            match Api::<AgentIdentity>::namespaced(client, &space).delete(&name, &params).await {
                // The garbage collector was first.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                done => drop(done.unwrap()),
            }
        }
    })
    .await;
    let ended = watch.until("cleanup_rate: raw deletes", PODS).await;
    per_second(PODS, ended - began)
}

/// What there is of ours: AgentIdentities, Secrets, trust ConfigMaps.
async fn left(client: &Client, namespace: &str) -> [usize; 3] {
    let all = ListParams::default();
    let agents =
        Api::<AgentIdentity>::namespaced(client.clone(), namespace).list_metadata(&all).await.unwrap();
    let of_type = all.clone().fields(&format!("type={SECRET_TYPE}"));
    let secrets = Api::<Secret>::namespaced(client.clone(), namespace).list_metadata(&of_type).await.unwrap();
    let named = all.fields(&format!("metadata.name={TRUST_NAME}"));
    let trust = Api::<ConfigMap>::namespaced(client.clone(), namespace).list_metadata(&named).await.unwrap();
    [agents.items.len(), secrets.items.len(), trust.items.len()]
}

async fn create(client: Client, namespace: String, name: String) {
    let pod = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"app": "bot", "agentid.dev/agent": ""}},
        "spec": {"schedulerName": "none", "containers": [{"name": "c", "image": "example.com/none"}]},
    }));
    let pods: Api<Pod> = Api::namespaced(client, &namespace);
    pods.create(&PostParams::default(), &pod.unwrap()).await.unwrap();
}

async fn delete_pod(client: Client, namespace: String, name: String) {
    let now = DeleteParams::default().grace_period(0);
    Api::<Pod>::namespaced(client, &namespace).delete(&name, &now).await.unwrap();
}

/// Does something with each pod's name, so many at once, each on a task of its own.
async fn each<F>(at_once: usize, work: impl Fn(String) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    stream::iter(names("pod", PODS).map(|name| tokio::spawn(work(name))))
        .buffer_unordered(at_once)
        .for_each(|done| async { done.unwrap() })
        .await;
}

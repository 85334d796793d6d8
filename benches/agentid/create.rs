//! How fast agents become Ready: against the API server's own rate of the same writes, and one by one.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::bed::{Bed, agent_body, agents_of, cpu_seconds, post};
use crate::common::Namespace;
use crate::report::{Report, percentile, say};
use crate::watch::{SeenAgent, Sightings};

const AGENTS: usize = 2000;
const ROUNDS: usize = 5;
/// Concurrencies of the raw writes that are tried, with so many agents each, so many times.
const CONCURRENCIES: [usize; 5] = [4, 8, 16, 32, 64];
const TRIAL: usize = 400;
const PASSES: u32 = 3;
/// Of the latency.
const PER_SECOND: u32 = 20;
const SECONDS: u32 = 40;

/// `create_rate`: rounds of raw writes and of the operator take turns, since the machine's own speed changes;
/// the median of their ratios counts.
pub async fn rate(bed: &Bed, report: &mut Report) {
    if !report.wants(&["create_rate"]) {
        return;
    }
    let namespace = bed.namespace("bench-create").await;
    let template = template(bed, &namespace).await;

    // The machine's speed changes while they are tried: each has several turns, and the best two stay.
    let mut trials: Vec<(f64, usize)> = CONCURRENCIES.iter().map(|c| (0.0, *c)).collect();
    for pass in 0..PASSES {
        for (sum, concurrency) in &mut trials {
            let prefix = format!("trial{pass}-{concurrency}");
            *sum += 1.0 / raw(bed, &namespace, &template, &prefix, TRIAL, *concurrency).await;
        }
        bed.clear(&namespace.name).await;
    }
    trials.sort_by(|a, b| a.0.total_cmp(&b.0));
    for (sum, concurrency) in &trials {
        let rate = f64::from(PASSES) / sum;
        say(format_args!("create_rate: raw writes, {concurrency} at once: {rate:.0} agents/s"));
    }
    let best = [trials[0].1, trials[1].1];

    let [mut ratios, mut raws, mut ours, mut cpus] = [const { Vec::new() }; 4];
    for round in 1..=ROUNDS {
        let mut raw_rate: f64 = 0.0;
        for concurrency in best {
            let rate = raw(bed, &namespace, &template, "raw", AGENTS, concurrency).await;
            raw_rate = raw_rate.max(rate);
            bed.clear(&namespace.name).await;
        }
        let (our, cpu) = operators_rate(bed, &namespace).await;
        say(format_args!(
            "create_rate: round {round} of {ROUNDS}: {our:.0} agents/s, raw {raw_rate:.0}/s, ratio {:.2}",
            our / raw_rate
        ));
        ratios.push(our / raw_rate);
        raws.push(raw_rate);
        ours.push(our);
        cpus.push(cpu);
    }
    let of = format!(
        "{AGENTS} agents from create to Ready, {:.0}/s against {:.0}/s raw ({} or {} at once, the faster); median of {ROUNDS} rounds, {:.2} to {:.2}; {:.2} ms of the operator's CPU each",
        percentile(&mut ours, 0.5),
        percentile(&mut raws, 0.5),
        best[0],
        best[1],
        percentile(&mut ratios, 0.0),
        percentile(&mut ratios, 1.0),
        percentile(&mut cpus, 0.5),
    );
    report.add("create_rate", percentile(&mut ratios, 0.5), of);
}

/// Agents/s with the operator, and its processor time for each in ms.
async fn operators_rate(bed: &Bed, namespace: &Namespace) -> (f64, f64) {
    let operator = bed.operator("").await;
    let watch = Sightings::of::<SeenAgent>(&bed.client, &agents_of(&namespace.name)).await;
    let (began, idle) = (Instant::now(), cpu_seconds(&operator));
    bed.create_agents(&namespace.name, names("ours", AGENTS)).await;
    let ended = watch.until("create_rate: agents Ready", AGENTS).await;
    let cpu = Duration::from_secs_f64(cpu_seconds(&operator) - idle);
    operator.stop();
    bed.clear(&namespace.name).await;
    (per_second(AGENTS, ended - began), 1000.0 / per_second(AGENTS, cpu))
}

/// `create_latency_p50`, `create_latency_p99`.
pub async fn latency(bed: &Bed, report: &mut Report) {
    if !report.wants(&["create_latency_p50", "create_latency_p99"]) {
        return;
    }
    let namespace = bed.namespace("bench-latency").await;
    let operator = bed.operator("").await;
    let watch = Sightings::of::<SeenAgent>(&bed.client, &agents_of(&namespace.name)).await;
    say(format_args!("create_latency: {PER_SECOND} agents/s for {SECONDS} s"));
    let count = (PER_SECOND * SECONDS) as usize;
    let mut tick = tokio::time::interval(Duration::from_secs(1) / PER_SECOND);
    let mut begun = Vec::new();
    let creations = stream::FuturesUnordered::new();
    for name in names("one", count) {
        tick.tick().await;
        begun.push((format!("{}/{name}", namespace.name), Instant::now()));
        let (client, path) = (bed.client.clone(), agents_of(&namespace.name));
        creations.push(tokio::spawn(async move {
            post(&client, &path, &agent_body(&name), "application/json").await.unwrap();
        }));
    }
    creations.for_each(|done| async { done.unwrap() }).await;
    watch.until("create_latency: agents Ready", count).await;
    let mut times: Vec<f64> =
        begun.iter().map(|(key, at)| (watch.at(key).unwrap() - *at).as_secs_f64()).collect();
    operator.stop();
    bed.clear(&namespace.name).await;
    let of = format!("{count} agents at {PER_SECOND}/s, from the create's call to Ready in a watch");
    report.add("create_latency_p50", percentile(&mut times, 0.5), of.clone());
    report.add("create_latency_p99", percentile(&mut times, 0.99), of);
}

/// What the operator wrote for an agent.
struct Template {
    secret: Value,
    status: Value,
}

/// Lets the operator make one agent, to write the very same.
async fn template(bed: &Bed, namespace: &Namespace) -> Template {
    let operator = bed.operator("").await;
    let watch = Sightings::of::<SeenAgent>(&bed.client, &agents_of(&namespace.name)).await;
    bed.create_agents(&namespace.name, names("model", 1)).await;
    watch.until("create_rate: the model is Ready", 1).await;
    operator.stop();
    let name = names("model", 1).next().unwrap();
    let secret = Api::<Secret>::namespaced(bed.client.clone(), &namespace.name)
        .get(&format!("{name}-agentid"))
        .await
        .unwrap();
    let secret = serde_json::to_value(secret).unwrap();
    let data = secret["data"].as_object().unwrap();
    assert!(data.contains_key("identity.jwt") && data.contains_key("tickets.jwt"), "two tokens are wanted");
    let agent =
        http::Request::get(format!("{}/{name}", agents_of(&namespace.name))).body(Vec::new()).unwrap();
    let agent: Value = bed.client.request(agent).await.unwrap();
    bed.clear(&namespace.name).await;
    let meta = &secret["metadata"];
    Template {
        secret: json!({
            "apiVersion": "v1", "kind": "Secret", "type": secret["type"], "data": secret["data"],
            "metadata": {
                "labels": meta["labels"], "annotations": meta["annotations"], "ownerReferences": meta["ownerReferences"],
            },
        }),
        status: agent["status"].clone(),
    }
}

#[derive(Deserialize)]
struct Created {
    metadata: CreatedMeta,
}

#[derive(Deserialize)]
struct CreatedMeta {
    uid: String,
}

/// The writes alone, agent by agent; the operator does not run. Gives agents/s, from the first create until a
/// watch shows the last one Ready.
async fn raw(
    bed: &Bed,
    namespace: &Namespace,
    template: &Template,
    prefix: &str,
    count: usize,
    concurrency: usize,
) -> f64 {
    let watch = Sightings::of::<SeenAgent>(&bed.client, &agents_of(&namespace.name)).await;
    let began = Instant::now();
    stream::iter(names(prefix, count))
        .map(|name| {
            // Each on a task of its own: both cores are there for the raw writes too.
            let (client, namespace) = (bed.client.clone(), namespace.name.clone());
            let (secret, status) = (template.secret.clone(), template.status.clone());
            tokio::spawn(async move { raw_agent(&client, &namespace, secret, status, &name).await.unwrap() })
        })
        .buffer_unordered(concurrency)
        .for_each(|done| async { done.unwrap() })
        .await;
    let ended = watch.until("create_rate: raw writes", count).await;
    per_second(count, ended - began)
}

async fn raw_agent(
    client: &kube::Client,
    namespace: &str,
    mut secret: Value,
    mut status: Value,
    name: &str,
) -> Result<(), kube::Error> {
    let created = post(client, &agents_of(namespace), &agent_body(name), "application/json").await?;
    let uid = serde_json::from_str::<Created>(&created).unwrap().metadata.uid;

    let secret_name = format!("{name}-agentid");
    let meta = &mut secret["metadata"];
    meta["name"] = json!(secret_name);
    meta["labels"]["agentid.dev/agent"] = json!(name);
    meta["annotations"]["agentid.dev/agent-uid"] = json!(uid);
    meta["ownerReferences"][0]["name"] = json!(name);
    meta["ownerReferences"][0]["uid"] = json!(uid);
    let secrets = format!("/api/v1/namespaces/{namespace}/secrets");
    post(client, &secrets, &secret, "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1").await?;

    status["secretName"] = json!(secret_name);
    let patch = json!([
        {"op": "test", "path": "/metadata/uid", "value": uid}, {"op": "add", "path": "/status", "value": status},
    ]);
    let request = http::Request::patch(format!("{}/{name}/status?fieldManager=bench", agents_of(namespace)))
        .header("content-type", "application/json-patch+json")
        .header("accept", "application/json")
        .body(serde_json::to_vec(&patch).unwrap())
        .unwrap();
    client.request_text(request).await.map(drop)
}

/// Names of agents.
pub fn names(prefix: &str, count: usize) -> impl Iterator<Item = String> + use<> {
    let prefix = prefix.to_owned();
    (0..count).map(move |i| format!("{prefix}-{i:05}"))
}

/// How many a second.
#[allow(clippy::cast_precision_loss)] // of counts
pub fn per_second(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

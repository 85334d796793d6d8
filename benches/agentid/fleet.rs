//! Ten thousand agents: what they cost in memory, what a restart writes, and how fast one is withdrawn while
//! all are being re-decided; and what Secrets that are not ours cost.

use std::time::{Duration, Instant};

use agentid::api::{AgentIdentity, AgentResource};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::bed::{AGENTS, Bed, quiet, resident};
use crate::common::{Namespace, Operator, audit};
use crate::create::names;
use crate::report::{Report, percentile, say};
use crate::watch::{SeenAgent, SeenSecret, Sightings};
use crate::writes::is_operators;

const FOREIGN: usize = 20_000;
/// Starts of the operator of which the median counts.
const STARTS: usize = 3;
const NAMESPACES: usize = 10;
const PER_NAMESPACE: usize = 1000;
const ALL: usize = NAMESPACES * PER_NAMESPACE;
/// Before memory is read, and after a restart until its writes are counted.
const CALM: Duration = Duration::from_secs(15);
/// Agents suspended in each of the two kinds of unrest, and how fast.
const WITHDRAWN: usize = 240;
const PAUSE: Duration = Duration::from_millis(250);

/// `memory_foreign_secrets`.
pub async fn foreign(bed: &Bed, report: &mut Report) {
    if !report.wants(&["memory_foreign_secrets"]) {
        return;
    }
    let namespace = Namespace::new(bed.control_plane(), "bench-foreign").await;
    let without = started_memory(bed).await;
    say(format_args!("memory_foreign_secrets: {:.1} MB without; making {FOREIGN} Secrets", without / 1e6));
    bed.create_foreign_secrets(&namespace.name, FOREIGN).await;
    let with = started_memory(bed).await;
    bed.clear(&namespace.name).await;
    let of = format!(
        "{:.1} MB with {FOREIGN} Secrets of 8 kB against {:.1} MB without, freshly started, no agents",
        with / 1e6,
        without / 1e6
    );
    report.add("memory_foreign_secrets", with / without, of);
}

/// The resident memory of a freshly started operator: the median of some starts.
async fn started_memory(bed: &Bed) -> f64 {
    let mut values = Vec::new();
    for _ in 0..STARTS {
        let operator = bed.operator("").await;
        values.push(calm_memory(&operator).await);
        operator.stop();
    }
    percentile(&mut values, 0.5)
}

/// Resident bytes, when there has been nothing to do for a while.
async fn calm_memory(operator: &Operator) -> f64 {
    quiet(operator).await;
    tokio::time::sleep(CALM).await;
    resident(operator.pid())
}

/// `memory_per_agent`, `restart_writes`, `withdraw_busy_p99`.
pub async fn ten_thousand(bed: &Bed, report: &mut Report) {
    if !report.wants(&["memory_per_agent", "restart_writes", "withdraw_busy_p99"]) {
        return;
    }
    let operator = bed.operator("").await;
    let empty = calm_memory(&operator).await;
    say(format_args!("the empty operator: {:.1} MB; making {ALL} agents", empty / 1e6));
    let fleet = fleet(bed).await;
    let grown = calm_memory(&operator).await;
    say(format_args!("grown to {ALL} agents: {:.1} MB", grown / 1e6));
    operator.stop();

    let mark = audit::mark(bed.control_plane());
    let operator = bed.operator("").await;
    let restarted = calm_memory(&operator).await;
    say(format_args!("restarted with {ALL} agents: {:.1} MB", restarted / 1e6));
    let writes = audit::since(bed.control_plane(), mark, is_operators);
    let of =
        format!("restart with {ALL} agents, counted {} s beyond rest{}", CALM.as_secs(), examples(&writes));
    report.add("restart_writes", f64::from(u32::try_from(writes.len()).unwrap()), of);
    let count = f64::from(u32::try_from(ALL).unwrap());
    let of = format!(
        "the worse of {:.1} MB grown and {:.1} MB restarted with {ALL} agents, over {:.1} MB empty",
        grown / 1e6,
        restarted / 1e6,
        empty / 1e6
    );
    report.add("memory_per_agent", (grown.max(restarted) - empty) / count, of);

    if report.wants(&["withdraw_busy_p99"]) {
        let silent = withdrawals(bed, &fleet, 0, |i| {
            // An entry that selects nothing: all are re-decided, to the same end.
            let nowhere =
                json!({"namespaceSelector": {"matchLabels": {"bench.example.com/round": i.to_string()}}});
            (Duration::from_secs(1), json!([allow(true), nowhere]))
        })
        .await;
        let written = withdrawals(bed, &fleet, WITHDRAWN, |i| {
            // A role is taken and given back: every Secret is written anew, and that never ends.
            (Duration::from_secs(8), json!([allow(i % 2 == 1)]))
        })
        .await;
        let of = format!(
            "{WITHDRAWN} agents suspended while {ALL} are re-decided: {} s without, {} s with all Secrets rewritten; the worse, until the Secret holds no token",
            format_args!("{silent:.3}"),
            format_args!("{written:.3}"),
        );
        report.add("withdraw_busy_p99", silent.max(written), of);
    }
    operator.stop();
    for namespace in &fleet {
        bed.clear(&namespace.name).await;
    }
}

fn examples(writes: &[audit::Entry]) -> String {
    let first: Vec<_> = writes
        .iter()
        .take(3)
        .filter_map(|w| {
            w.object_ref.as_ref().map(|o| format!("{} {}/{} {}", w.verb, o.resource, o.subresource, o.name))
        })
        .collect();
    if first.is_empty() { String::new() } else { format!("; such as {}", first.join(", ")) }
}

async fn fleet(bed: &Bed) -> Vec<Namespace> {
    let watch = Sightings::of::<SeenAgent>(&bed.client, AGENTS).await;
    let mut fleet: Vec<Namespace> = Vec::new();
    for _ in 0..NAMESPACES {
        let namespace = match fleet.first() {
            None => bed.namespace("bench-fleet").await,
            Some(first) => {
                let namespace = Namespace::new(bed.control_plane(), "bench-fleet").await;
                bed.grant(&namespace, &first.name).await;
                namespace
            }
        };
        fleet.push(namespace);
    }
    for namespace in &fleet {
        bed.create_agents(&namespace.name, names("agent", PER_NAMESPACE)).await;
    }
    watch.until("agents Ready", ALL).await;
    fleet
}

fn allow(whole: bool) -> Value {
    let roles: &[&str] = if whole { &["triager", "reader"] } else { &["triager"] };
    json!({"namespaceSelector": {"matchLabels": {"agentid.dev/test": "true"}}, "roles": roles})
}

/// Suspends agents one by one while the resource's allowance keeps changing; the 99th percentile of the time
/// until the Secret is seen without a token.
async fn withdrawals(
    bed: &Bed,
    fleet: &[Namespace],
    from: usize,
    unrest: impl Fn(usize) -> (Duration, Value),
) -> f64 {
    let watch = Sightings::of::<SeenSecret>(&bed.client, "/api/v1/secrets").await;
    let resources = Api::<AgentResource>::all(bed.client.clone());
    let disturb = async {
        let mut i = 0;
        loop {
            let (pause, allow) = unrest(i);
            let patch = Patch::Merge(json!({"spec": {"allow": allow}}));
            resources.patch(&fleet[0].name, &PatchParams::default(), &patch).await.unwrap();
            tokio::time::sleep(pause).await;
            i += 1;
        }
    };
    let suspend = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let mut begun = Vec::new();
        for i in from..from + WITHDRAWN {
            // Spread over all namespaces and, by a step that is prime to their size, over each.
            let namespace = &fleet[i % NAMESPACES].name;
            let name = format!("agent-{:05}", i * 617 % PER_NAMESPACE);
            begun.push((format!("{namespace}/{name}-agentid"), Instant::now()));
            let agents = Api::<AgentIdentity>::namespaced(bed.client.clone(), namespace);
            let patch = Patch::Merge(json!({"spec": {"suspend": true}}));
            agents.patch_metadata(&name, &PatchParams::default(), &patch).await.unwrap();
            tokio::time::sleep(PAUSE).await;
        }
        watch.until("withdraw_busy: Secrets without tokens", WITHDRAWN).await;
        begun
    };
    let begun = tokio::select! {
        begun = suspend => begun,
        () = disturb => unreachable!("it never ends"),
    };
    let mut times: Vec<f64> =
        begun.iter().map(|(key, at)| (watch.at(key).unwrap() - *at).as_secs_f64()).collect();
    let p99 = percentile(&mut times, 0.99);
    say(format_args!(
        "withdraw_busy: p50 {:.3} s, p99 {p99:.3} s, worst {:.3} s",
        percentile(&mut times, 0.5),
        percentile(&mut times, 1.0)
    ));
    p99
}

//! How long after a blueprint is suspended its agents can still buy, and still have tokens in their Secrets.

use std::time::{Duration, Instant};

use agentid::api::AgentBlueprint;
use futures::{StreamExt, stream};
use hyper::body::Bytes;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use crate::bed::{Bed, CREATORS, agents_of, post};
use crate::client::{Poster, form};
use crate::common::{Namespace, eventually};
use crate::create::names;
use crate::report::{Report, percentile, say};
use crate::serve::{JWT_BEARER, Scene};
use crate::watch::{SeenAgent, SeenSecret, Sightings};

const AGENTS: usize = 2000;
/// Agents that keep asking while they are suspended, and how often each does: two thousand requests a second. All are
/// asked once afterwards.
const ASKING: usize = 200;
const POLL: Duration = Duration::from_millis(100);

const RIGHTS: &str = "
{apiVersion: v1, kind: ServiceAccount, metadata: {name: runner}}
---
apiVersion: agentid.dev/v1alpha1
kind: AgentResource
metadata: {name: $NS}
spec:
  audience: https://$NS.example.com
  roles: [{name: triager}]
  allow: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: $NS}}}]
---
apiVersion: agentid.dev/v1alpha1
kind: AgentBlueprint
metadata: {name: crew-$NS}
spec:
  namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: $NS}}
  grants: [{name: tickets, resource: $NS, application: {roles: [triager]}, secretKey: tickets.jwt}]
";

/// `suspend_refused_p99`, `suspend_emptied_p99`.
pub async fn suspend(bed: &Bed, report: &mut Report) {
    if !report.wants(&["suspend_refused_p99", "suspend_emptied_p99"]) {
        return;
    }
    let scene = Scene::new(bed, "").await;
    let namespace = Namespace::for_pods(bed.control_plane(), "bench-suspend").await;
    namespace.apply(RIGHTS).await;
    let watch = Sightings::of::<SeenAgent>(&bed.client, &agents_of(&namespace.name)).await;
    let poster = Poster::new(&scene.service);
    let asks = crew(&scene, &namespace, &poster).await;
    watch.until("suspend: agents Ready", AGENTS).await;
    say(format_args!("suspend: a blueprint with {AGENTS} agents is suspended"));

    let secrets = format!("/api/v1/namespaces/{}/secrets", namespace.name);
    let emptied = Sightings::of::<SeenSecret>(&bed.client, &secrets).await;
    let blueprints: Api<AgentBlueprint> = Api::all(bed.client.clone());
    let patch = Patch::Merge(json!({"spec": {"suspend": true}}));
    let name = format!("crew-{}", namespace.name);
    blueprints.patch_metadata(&name, &PatchParams::default(), &patch).await.unwrap();
    let patched = Instant::now();
    let asking = stream::FuturesUnordered::new();
    for (i, ask) in asks.iter().step_by(AGENTS / ASKING).enumerate() {
        let (poster, ask) = (poster.clone(), ask.clone());
        // One after the other, not all at the same moment.
        let offset = POLL * u32::try_from(i).unwrap() / u32::try_from(ASKING).unwrap();
        asking.push(tokio::spawn(async move {
            tokio::time::sleep(offset).await;
            while !is_refused(&poster, &ask).await {
                assert!(patched.elapsed() < Duration::from_secs(60), "an agent still buys");
                tokio::time::sleep(POLL).await;
            }
            patched.elapsed().as_secs_f64()
        }));
    }
    let mut refused: Vec<f64> = asking.map(|ended| ended.unwrap()).collect().await;
    emptied.until("suspend_emptied_p99: Secrets emptied", AGENTS).await;
    let mut times: Vec<f64> = names("crew", AGENTS)
        .map(|name| emptied.at(&format!("{}/{name}-agentid", namespace.name)).unwrap())
        .map(|at| at.saturating_duration_since(patched).as_secs_f64())
        .collect();
    let buying = stream::iter(&asks)
        .map(|ask| is_refused(&poster, ask))
        .buffer_unordered(CREATORS)
        .filter(|refused| std::future::ready(!refused))
        .count()
        .await;
    assert_eq!(buying, 0, "of {AGENTS} agents so many still buy");
    drop(poster);
    scene.stop();
    bed.clear(&namespace.name).await;

    let of = format!(
        "a blueprint with {AGENTS} agents, from the patch's answer to the first refusal at the token service; {ASKING} agents that each ask every {} ms; median {:.3}, most {:.3}",
        POLL.as_millis(),
        percentile(&mut refused, 0.5),
        percentile(&mut refused, 1.0),
    );
    report.add("suspend_refused_p99", percentile(&mut refused, 0.99), of);
    let of = format!(
        "the same {AGENTS} agents, from the patch's answer until a watch shows the Secret without a token; median {:.3}, most {:.3}",
        percentile(&mut times, 0.5),
        percentile(&mut times, 1.0),
    );
    report.add("suspend_emptied_p99", percentile(&mut times, 0.99), of);
}

/// Agents of the blueprint, each with a pod and a Secret; gives what each asks for. All have bought once.
async fn crew(scene: &Scene, namespace: &Namespace, poster: &Poster) -> Vec<Bytes> {
    let audience = &format!("https://{}.example.com", namespace.name);
    stream::iter(names("crew", AGENTS))
        .map(|name| async move {
            let pods: Api<Pod> = Api::namespaced(namespace.client.clone(), &namespace.name);
            let pod = serde_json::from_value(json!({
                "metadata": {"name": name, "labels": {"agentid.dev/agent": ""}},
                "spec": {"serviceAccountName": "runner", "schedulerName": "none", "containers": [{"name": "c", "image": "example.com/none"}]},
            }));
            let pod = pods.create(&PostParams::default(), &pod.unwrap()).await.unwrap();
            let agent = json!({
                "apiVersion": "agentid.dev/v1alpha1", "kind": "AgentIdentity", "metadata": {"name": name},
                "spec": {
                    "blueprint": format!("crew-{}", namespace.name), "serviceAccountName": "runner",
                    "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": name},
                },
            });
            post(&namespace.client, &agents_of(&namespace.name), &agent, "application/json").await.unwrap();
            let token = scene.account_token(namespace, "runner", Some(&pod)).await;
            let ask = form(&[
                ("grant_type", "client_credentials"),
                ("client_assertion_type", JWT_BEARER),
                ("client_assertion", &token),
                ("resource", audience),
            ]);
            eventually("every agent buys", Duration::from_secs(60), || async {
                let (status, body) = poster.json("/token", ask.clone()).await;
                if status == 200 { Ok(()) } else { Err(format!("{status} {body}")) }
            })
            .await;
            ask
        })
        .buffered(CREATORS)
        .collect()
        .await
}

/// Whether an agent is told that it is suspended; anything but a token or that is a fault.
async fn is_refused(poster: &Poster, ask: &Bytes) -> bool {
    let (status, body) = poster.json("/token", ask.clone()).await;
    let said = body["error_description"].as_str().unwrap_or_default();
    assert!(status == 200 || (status == 401 && said.starts_with("Suspended")), "{status} {body}");
    status == 401
}

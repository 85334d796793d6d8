//! How many tokens a core of the token service mints, against its bare signatures; and how long one takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use agentid::crypto::{Algorithm, SigningKey, inspect};
use hyper::body::Bytes;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::Api;
use kube::api::PostParams;
use serde_json::json;

use crate::bed::{Bed, cpu_of};
use crate::client::{Poster, form};
use crate::common::{Namespace, Operator, eventually};
use crate::report::{Report, percentile, say};
use crate::service::{Service, Town};

/// The one way in which callers say who they are.
pub const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const AGENTS: usize = 16;
/// Kept connections, each with one request at a time.
const CONNECTIONS: usize = 64;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(4);
const SIGNING: Duration = Duration::from_secs(2);
const LATENCY: Duration = Duration::from_secs(15);

/// A token service beside its operator. Its rate limits are out of the way: one machine is all callers.
pub struct Scene {
    pub town: Town,
    pub operator: Operator,
    pub service: Service,
    // Last, so that it goes last.
    _system: Namespace,
}

impl Scene {
    pub async fn new(bed: &Bed, more: &str) -> Self {
        let system = Namespace::new(bed.control_plane(), "bench-serve").await;
        let mut town = Town::new(&system.name, "");
        town.configuration = format!(
            "apiVersion: config.agentid.dev/v1alpha1\nkind: Configuration\nissuer: {}\n\
             trustDomain: agents.example.com\nserving: {{ipAddresses: [127.0.0.1], rateLimits: {{perSource: \
             {{perSecond: 1000000, burst: 1000000}}, perAgent: {{perSecond: 1000000, burst: 1000000}}}}}}\n{more}",
            town.issuer
        );
        let operator = town.operator(bed.control_plane()).await;
        let service = town.serve(bed.control_plane()).await;
        Self { town, operator, service, _system: system }
    }

    /// A projected token of a service account, bound to a pod if one is named.
    pub async fn account_token(&self, namespace: &Namespace, account: &str, pod: Option<&Pod>) -> String {
        let bound_object_ref = pod.map(|pod| BoundObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
        });
        let spec = TokenRequestSpec {
            audiences: vec![self.town.issuer.clone()],
            bound_object_ref,
            expiration_seconds: Some(3600),
        };
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let accounts: Api<ServiceAccount> = Api::namespaced(namespace.client.clone(), &namespace.name);
        let answer = accounts.create_token_request(account, &PostParams::default(), &request).await.unwrap();
        answer.status.unwrap().token
    }

    /// Ends service and operator.
    pub fn stop(self) {
        self.service.stop();
        self.operator.stop();
    }
}

const TOWN: &str = r"
apiVersion: agentid.dev/v1alpha1
kind: AgentResource
metadata: {name: $NS}
spec:
  audience: https://$NS.example.com
  roles: [{name: triager}, {name: reader}]
  allow: [{namespaceSelector: {matchLabels: {agentid.dev/test: 'true'}}, roles: [triager, reader]}]
---
apiVersion: agentid.dev/v1alpha1
kind: AgentGrant
metadata: {name: tickets}
spec:
  agents: {selector: {}}
  resource: $NS
  application: {roles: [triager, reader]}
  secretKey: tickets.jwt
";

const AGENT: &str = r"
{apiVersion: v1, kind: ServiceAccount, metadata: {name: $A}}
---
apiVersion: agentid.dev/v1alpha1
kind: AgentIdentity
metadata: {name: $A}
spec: {serviceAccountName: $A}
";

/// `token_rate`, `token_latency_p50`, `token_latency_p99`.
pub async fn tokens(bed: &Bed, report: &mut Report) {
    if !report.wants(&["token_rate", "token_latency_p50", "token_latency_p99"]) {
        return;
    }
    // A core of its own for the service, which takes as many threads as it finds cores; its callers keep off it.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let apart = cores > 1 && pinned("0");
    let scene = Scene::new(bed, "").await;
    if apart {
        pinned(&format!("1-{}", cores - 1));
    }
    let namespace = Namespace::for_pods(bed.control_plane(), "bench-tokens").await;
    let (poster, forms) = callers(&scene, &namespace).await;

    let (_, answer) = poster.json("/token", forms[0].clone()).await;
    let claims = inspect(answer["access_token"].as_str().unwrap()).unwrap().claims;
    let key = Arc::new(SigningKey::generate(Algorithm::ES256).unwrap());
    let [mut ratios, mut per_core, mut signed, mut walls] = [const { Vec::new() }; 4];
    // The first fills connections and caches and is not counted.
    load(&scene, &poster, &forms, ROUND / 2).await;
    for round in 1..=ROUNDS {
        let (key, claims) = (key.clone(), claims.clone());
        let bare = tokio::task::spawn_blocking(move || signatures(&key, &claims)).await.unwrap();
        let (wall, core) = load(&scene, &poster, &forms, ROUND).await;
        say(format_args!(
            "token_rate: round {round} of {ROUNDS}: {core:.0} tokens and {bare:.0} signatures a CPU second, ratio {:.2}; {wall:.0} tokens/s",
            core / bare
        ));
        ratios.push(core / bare);
        per_core.push(core);
        signed.push(bare);
        walls.push(wall);
    }
    let wall = percentile(&mut walls, 0.5);
    let of = format!(
        "{:.0} tokens against {:.0} signatures a CPU second; median of {ROUNDS} rounds, {:.2} to {:.2}; {CONNECTIONS} connections, {AGENTS} agents, {wall:.0} tokens/s {}",
        percentile(&mut per_core, 0.5),
        percentile(&mut signed, 0.5),
        percentile(&mut ratios, 0.0),
        percentile(&mut ratios, 1.0),
        if apart { "on one core" } else { "beside their client" },
    );
    report.add("token_rate", percentile(&mut ratios, 0.5), of);

    if report.wants(&["token_latency_p50", "token_latency_p99"]) {
        let mut times = paced(&poster, &forms, wall / 2.0).await;
        let of = format!(
            "{} tokens at {:.0}/s, half of the most, from when each was due to its answer",
            times.len(),
            wall / 2.0
        );
        report.add("token_latency_p50", percentile(&mut times, 0.5), of.clone());
        report.add("token_latency_p99", percentile(&mut times, 0.99), of);
    }
    drop(poster);
    scene.stop();
    if apart {
        pinned(&format!("0-{}", cores - 1));
    }
    bed.clear(&namespace.name).await;
}

/// Keeps this process, and what it starts from now on, on some cores; says whether the machine can do that.
fn pinned(cores: &str) -> bool {
    let pid = std::process::id().to_string();
    let done = std::process::Command::new("taskset").args(["-acp", cores, &pid]).output();
    done.is_ok_and(|output| output.status.success())
}

/// Agents with a pod each, and the requests by which they get tokens.
async fn callers(scene: &Scene, namespace: &Namespace) -> (Poster, Arc<Vec<Bytes>>) {
    namespace.apply(TOWN).await;
    let audience = format!("https://{}.example.com", namespace.name);
    let poster = Poster::new(&scene.service);
    let pods: Api<Pod> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let mut forms = Vec::new();
    for i in 0..AGENTS {
        let name = format!("a{i}");
        namespace.apply(&AGENT.replace("$A", &name)).await;
        let pod = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"agentid.dev/agent": ""}},
            "spec": {"serviceAccountName": name, "containers": [{"name": "c", "image": "none"}]},
        }));
        let pod = pods.create(&PostParams::default(), &pod.unwrap()).await.unwrap();
        let token = scene.account_token(namespace, &name, Some(&pod)).await;
        forms.push(form(&[
            ("grant_type", "client_credentials"),
            ("client_assertion_type", JWT_BEARER),
            ("client_assertion", &token),
            ("resource", &audience),
        ]));
    }
    for form in &forms {
        eventually("every agent gets a token", Duration::from_secs(60), || async {
            let (status, body) = poster.json("/token", form.clone()).await;
            if status == 200 { Ok(()) } else { Err(format!("{status} {body}")) }
        })
        .await;
    }
    (poster, Arc::new(forms))
}

/// Signatures of one thread by its own processor time, over the claims of a token of the service.
fn signatures(key: &SigningKey, claims: &serde_json::Map<String, serde_json::Value>) -> f64 {
    let (began, idle) = (Instant::now(), cpu_of("thread-self"));
    let mut count = 0u32;
    while began.elapsed() < SIGNING {
        std::hint::black_box(key.sign("at+jwt", claims).unwrap());
        count += 1;
    }
    f64::from(count) / (cpu_of("thread-self") - idle)
}

/// As many tokens as there are to be had: how many a second, and how many a processor second of the service.
async fn load(scene: &Scene, poster: &Poster, forms: &Arc<Vec<Bytes>>, time: Duration) -> (f64, f64) {
    let pid = scene.service.pid().to_string();
    let (began, idle) = (Instant::now(), cpu_of(&pid));
    let workers: Vec<_> = (0..CONNECTIONS)
        .map(|i| {
            let (poster, form) = (poster.clone(), forms[i % forms.len()].clone());
            tokio::spawn(async move {
                let mut count = 0u32;
                while began.elapsed() < time {
                    let (status, body) = poster.post("/token", form.clone()).await;
                    assert_eq!(status, 200, "{body:?}");
                    count += 1;
                }
                count
            })
        })
        .collect();
    let mut count = 0;
    for worker in workers {
        count += worker.await.unwrap();
    }
    let (wall, cpu) = (began.elapsed().as_secs_f64(), cpu_of(&pid) - idle);
    (f64::from(count) / wall, f64::from(count) / cpu)
}

/// Requests that are due at fixed times, whatever became of those before: how long each took since it was due.
async fn paced(poster: &Poster, forms: &Arc<Vec<Bytes>>, rate: f64) -> Vec<f64> {
    let (began, next) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
    let workers: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let (poster, forms, next) = (poster.clone(), forms.clone(), next.clone());
            tokio::spawn(async move {
                let mut times = Vec::new();
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    #[allow(clippy::cast_precision_loss)] // of a count
                    let due = Duration::from_secs_f64(i as f64 / rate);
                    if due >= LATENCY {
                        return times;
                    }
                    tokio::time::sleep_until((began + due).into()).await;
                    // The timer rounds up to a millisecond; that is the client's and is not counted, but what
                    // a request waits for a connection is.
                    let woke = Instant::now();
                    let late = woke - (began + due);
                    let since = if late < Duration::from_millis(2) { woke } else { began + due };
                    let (status, body) = poster.post("/token", forms[i % forms.len()].clone()).await;
                    assert_eq!(status, 200, "{body:?}");
                    times.push(since.elapsed().as_secs_f64());
                }
            })
        })
        .collect();
    let mut times = Vec::new();
    for worker in workers {
        times.extend(worker.await.unwrap());
    }
    times
}

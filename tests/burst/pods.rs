//! Two thousand pods at once, each an agent of its own.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use agentid::api::{AgentIdentity, GRANT_LABEL};
use agentid::crypto::Typ;
use hyper::body::Bytes;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::client::{Poster, form};
use crate::common::{eventually, resource_for};
use crate::kit::{AT_ONCE, PATIENCE, Stage, each};

const PODS: usize = 2000;
/// Tokens that are asked about before and after the end.
const SAMPLE: usize = 25;
const CONFIGURATION: &str = "kubernetes: {bindableRoles: [burst-pod-reader]}\n";
const ASSERTION_TYPE: (&str, &str) =
    ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

const RIGHTS: &str = "
{apiVersion: v1, kind: ServiceAccount, metadata: {name: runner}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: asker}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: burst-pod-reader}
rules: [{apiGroups: [''], resources: [pods], verbs: [get, list]}]
---
apiVersion: agentid.dev/v1alpha1
kind: AgentPolicy
metadata: {name: careful-$NS}
spec:
  match: {blueprints: [bots-$NS]}
  deny: [{roles: [payer], reason: agents don't pay}, {scopes: ['*.write']}]
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
  - {name: ledger, resource: ledger-$NS, application: {roles: [payer]}}
  - {name: cluster, resource: cluster-$NS, application: {roles: [burst-pod-reader]}}
";

/// What came of a pod's requests.
struct Bought {
    pod: String,
    tickets: String,
    cluster: String,
}

/// Who asks the token service.
struct Asker {
    poster: Poster,
    issuer: String,
    namespace: String,
    accounts: Api<ServiceAccount>,
    pods: Api<Pod>,
    /// As many calls are under way at once, however many pods ask.
    gate: Semaphore,
    /// Answers that said: come again.
    later: AtomicUsize,
}

impl Asker {
    fn new(stage: &Stage) -> Arc<Self> {
        Arc::new(Self {
            poster: Poster::new(&stage.service),
            issuer: stage.town.issuer.clone(),
            namespace: stage.name.clone(),
            accounts: stage.api(),
            pods: stage.api(),
            gate: Semaphore::new(AT_ONCE),
            later: AtomicUsize::new(0),
        })
    }

    fn audience(&self, resource: &str) -> String {
        format!("https://{resource}.{}.example.com", self.namespace)
    }

    async fn pod(&self, name: &str) -> Pod {
        let pod = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"app": "bot", "agentid.dev/agent": ""}},
            "spec": {"serviceAccountName": "runner", "schedulerName": "none", "containers": [{"name": "c", "image": "example.com/none"}]},
        }));
        self.pods.create(&PostParams::default(), &pod.unwrap()).await.unwrap()
    }

    /// The projected token of a service account, bound to a pod if one is given.
    async fn account_token(&self, account: &str, pod: Option<&Pod>) -> String {
        let bound_object_ref = pod.map(|pod| BoundObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
        });
        let spec = TokenRequestSpec {
            audiences: vec![self.issuer.clone()],
            bound_object_ref,
            expiration_seconds: Some(3600),
        };
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let _turn = self.gate.acquire().await.unwrap();
        let answer = self.accounts.create_token_request(account, &PostParams::default(), &request).await;
        answer.unwrap().status.unwrap().token
    }

    /// POSTs, and comes again when it is told to: as a client has to, and no sooner.
    async fn settled(&self, path: &str, form: Bytes) -> (u16, Value) {
        let began = Instant::now();
        loop {
            let turn = self.gate.acquire().await.unwrap();
            let answer = self.poster.answer(path, form.clone()).await;
            drop(turn);
            // A connection that breaks is made anew, like any client's.
            let Ok(answer) = answer else {
                assert!(began.elapsed() < PATIENCE, "no connection lasts: {answer:?}");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            };
            let status = answer.status().as_u16();
            let body: Value = serde_json::from_slice(answer.body()).unwrap();
            if !matches!(status, 429 | 503) {
                return (status, body);
            }
            let after = answer.headers().get("retry-after").and_then(|v| v.to_str().ok()?.parse().ok());
            let after =
                Duration::from_secs(after.unwrap_or_else(|| panic!("{status} without Retry-After: {body}")));
            assert!(began.elapsed() + after < PATIENCE, "it is never settled: {status} {body}");
            self.later.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(after).await;
        }
    }

    async fn application(&self, own: &str, resource: &str) -> (u16, Value) {
        let form = form(&[
            ("grant_type", "client_credentials"),
            ASSERTION_TYPE,
            ("client_assertion", own),
            ("resource", &self.audience(resource)),
        ]);
        self.settled("/token", form).await
    }

    async fn identity(&self, own: &str, resource: &str) -> (u16, Value) {
        let form = form(&[
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("subject_token", own),
            ("subject_token_type", JWT),
            ("requested_token_type", JWT),
            ("audience", &self.audience(resource)),
        ]);
        self.settled("/token", form).await
    }

    /// All that a pod asks for: what it inherits, and what the policy keeps from it.
    async fn buy(&self, pod: &Pod) -> Result<Bought, String> {
        let own = self.account_token("runner", Some(pod)).await;
        let name = pod.metadata.name.clone().unwrap();
        let token = |what: &str, (status, body): (u16, Value)| match body["access_token"].as_str() {
            Some(token) if status == 200 => Ok(token.to_owned()),
            _ => Err(format!("{name}: {what}: {status} {body}")),
        };
        let tickets = token("tickets", self.application(&own, "tickets").await)?;
        let cluster = token("cluster", self.identity(&own, "cluster").await)?;
        let (status, body) = self.application(&own, "ledger").await;
        let said = body["error_description"].as_str().unwrap_or_default();
        let denied =
            format!("PolicyDenied: AgentPolicy careful-{}: spec.deny[0]: role 'payer'", self.namespace);
        if (status, body["error"].as_str()) != (400, Some("invalid_target")) || !said.contains(&denied) {
            return Err(format!("{name}: ledger: {status} {body}"));
        }
        Ok(Bought { pod: name, tickets, cluster })
    }

    async fn active(&self, own: &str, token: &str) -> Value {
        let form = form(&[ASSERTION_TYPE, ("client_assertion", own), ("token", token)]);
        let (status, body) = self.settled("/introspect", form).await;
        assert_eq!(status, 200, "{body}");
        body["active"].clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_two_thousand_pods_gets_its_own_tokens_and_nothing_is_left_of_them() {
    let stage = Stage::new("burst-pods", CONFIGURATION).await;
    let asker = Asker::new(&stage);
    let tickets = "roles: [{name: triager}, {name: reader}], scopes: [{name: tickets.read}, {name: tickets.write}], \
                   introspectors: [{namespace: $NS, serviceAccountName: asker}]";
    let resources = [
        resource_for("tickets", tickets),
        resource_for("ledger", "roles: [{name: payer}]"),
        resource_for("cluster", "kubernetes: {}, roles: [{name: burst-pod-reader}]"),
    ];
    stage.apply(&resources.concat()).await;
    stage.apply(RIGHTS).await;
    // From here on operator and service know the rights; what is new in the burst are the pods alone.
    let first = asker.pod("first").await;
    eventually("the first pod buys", PATIENCE, || asker.buy(&first)).await;

    stage.phase(format_args!("{PODS} pods are created and buy at once"));
    let mut buyers = JoinSet::new();
    let buy = |asker: Arc<Asker>, pod: Pod| async move { asker.buy(&pod).await };
    buyers.spawn(buy(asker.clone(), first));
    // Each buys as soon as it is there, like a container that starts fast.
    let buyers = Arc::new(Mutex::new(buyers));
    each((1..PODS).map(|i| format!("bot-{i:04}")), |name| {
        let (asker, buyers) = (asker.clone(), buyers.clone());
        async move {
            let pod = asker.pod(&name).await;
            buyers.lock().unwrap().spawn(buy(asker, pod));
        }
    })
    .await;
    stage.phase("all are created");
    let buyers: JoinSet<_> = std::mem::take(&mut *buyers.lock().unwrap());
    let bought = buyers.join_all().await;
    let wrong: Vec<_> = bought.iter().filter_map(|b| b.as_ref().err()).collect();
    assert!(
        wrong.is_empty(),
        "{} pods were refused, such as {:?}",
        wrong.len(),
        &wrong[..wrong.len().min(3)]
    );
    let bought: Vec<_> = bought.into_iter().map(Result::unwrap).collect();
    stage.phase(format_args!(
        "all have bought; {} answers said to come again",
        asker.later.load(Ordering::Relaxed)
    ));
    stage.counts(&format!("bots-{}", stage.name), PODS).await;
    stage.phase("the blueprint counts them");
    // Its create and its status: a policy that takes something from each is no further write for each.
    assert!(stage.writes().is_none_or(|n| n <= 2 * PODS + PODS / 20), "{:?} writes", stage.writes());

    let agents: BTreeMap<_, _> =
        stage.agents().await.into_iter().map(|a| (a.metadata.name.clone().unwrap(), a)).collect();
    assert_eq!(agents.len(), PODS);
    exactly_theirs(&stage, &agents, &bought).await;
    bound(&stage, &agents).await;
    stage.phase("every token is its agent's");

    let own = asker.account_token("asker", None).await;
    let sample: Vec<_> = bought.iter().step_by(PODS / SAMPLE).collect();
    for sold in &sample {
        assert_eq!(asker.active(&own, &sold.tickets).await, true, "{}", sold.pod);
    }
    let now = DeleteParams::default().grace_period(0);
    stage.delete_all::<Pod>(bought.iter().map(|b| b.pod.clone()), &now).await;
    stage.phase("the pods are deleted");
    stage.nothing_is_left().await;
    stage.phase("nothing of ours is left");
    for sold in &sample {
        eventually(format!("the token of {} is dead", sold.pod), PATIENCE, || async {
            let active = asker.active(&own, &sold.tickets).await;
            if active == false { Ok(()) } else { Err(active) }
        })
        .await;
    }
    stage.counts(&format!("bots-{}", stage.name), 0).await;
    stage.phase("the blueprint counts none");
}

/// Every token says all that it should, of its own pod's agent, and nothing besides; no two say the same.
async fn exactly_theirs(stage: &Stage, agents: &BTreeMap<String, AgentIdentity>, bought: &[Bought]) {
    let keys = stage.service.keys().await;
    let (mut ids, mut entries) = (HashSet::new(), HashSet::new());
    let mut grants = BTreeSet::new();
    for sold in bought {
        let agent = &agents[&sold.pod];
        let (uid, id) =
            (agent.metadata.uid.as_ref().unwrap(), agent.status.as_ref().unwrap().agent_id.as_ref());
        let aud = |resource: &str| format!("https://{resource}.{}.example.com", stage.name);
        let who = json!({
            "namespace": stage.name, "name": sold.pod, "uid": uid, "blueprint": format!("bots-{}", stage.name),
        });
        let mut autonomous = who.clone();
        autonomous["mode"] = json!("autonomous");
        let tickets = json!({
            "iss": stage.town.issuer, "sub": id, "client_id": id, "aud": aud("tickets"), "roles": ["triager"],
            "scope": "tickets.read", "sub_profile": "ai_agent", "client_profile": "ai_agent", "agentid.dev": autonomous,
        });
        let cluster = json!({
            "iss": stage.town.issuer, "sub": id, "aud": aud("cluster"), "sub_profile": "ai_agent", "agentid.dev": who,
        });
        for (token, resource, typ, wanted) in [
            (&sold.tickets, "tickets", Typ::Access, tickets),
            (&sold.cluster, "cluster", Typ::Identity, cluster),
        ] {
            let mut claims = stage.verified(token, &keys, &aud(resource), typ);
            let (iat, exp) = (claims["iat"].as_i64().unwrap(), claims["exp"].as_i64().unwrap());
            assert!(exp > iat && exp <= iat + 600, "{claims:?}");
            assert!(ids.insert(claims["jti"].to_string()), "a jti twice: {claims:?}");
            assert!(entries.insert(claims["status"].to_string()), "a status entry twice: {claims:?}");
            let grant = claims["agentid.dev"].as_object_mut().unwrap().remove("grant").unwrap();
            grants.insert((resource, grant.as_str().unwrap().to_owned()));
            let rest: Map<_, _> = claims
                .into_iter()
                .filter(|(k, _)| !["iat", "exp", "jti", "status"].contains(&&**k))
                .collect();
            assert_eq!(Value::Object(rest), wanted);
        }
    }
    assert_eq!(ids.len(), 2 * PODS);
    assert_eq!(grants.len(), 2, "each resource has one inherited grant: {grants:?}");
}

/// The RoleBindings of the grant on the cluster name all agents, and nobody else.
async fn bound(stage: &Stage, agents: &BTreeMap<String, AgentIdentity>) {
    let wanted: BTreeSet<_> =
        agents.values().map(|a| a.status.as_ref().unwrap().agent_id.clone().unwrap()).collect();
    let ours = ListParams::default().labels(GRANT_LABEL);
    let bindings = stage.api::<RoleBinding>();
    eventually("the RoleBindings name every agent", PATIENCE, || async {
        let all = bindings.list(&ours).await.map_err(|e| e.to_string())?.items;
        let named: BTreeSet<_> =
            all.iter().flat_map(|b| b.subjects.iter().flatten()).map(|s| s.name.clone()).collect();
        let missing = wanted.difference(&named).count();
        if named == wanted { Ok(()) } else { Err(format!("{} named, {missing} missing", named.len())) }
    })
    .await;
}

//! etcd is set back to an older backup: the procedure of docs/operations.md keeps what it promises, and who lived
//! through it without the procedure notices, says so, and starts anew.

use std::process::Command;
use std::time::Duration;

use agentid::crypto::{inspect, verify_status_list};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::common::{ControlPlane, Namespace, Operator, Setup, eventually};
use crate::drills::{kid, run as drill};
use crate::keys::{jwks, keys};
use crate::serve::{ask, introspect, pods_token};
use crate::service::{Service, Town};
use crate::{BROKEN, agent, files, ready, refused, turn};

const SOON: Duration = Duration::from_secs(60);
/// Tokens in Secrets are old soon, unless their agent says otherwise.
const SHORT: &str = "keys: {publishAhead: 3s}\n\
    limits: {tokenLifetime: 20s, minTokenLifetime: 5s, maxTokenLifetime: 10m}\n";
/// A pod that may ask about every token, and whom the resource is for.
const OBJECTS: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: asker}
---
apiVersion: v1
kind: Pod
metadata: {name: asker}
spec: {serviceAccountName: asker, automountServiceAccountToken: false, containers: [{name: c, image: none}]}
---
apiVersion: agentid.dev/v1alpha1
kind: AgentResource
metadata: {name: $NS}
spec:
  audience: 'https://$NS.example.com'
  scopes: [{name: read}]
  allow: [{namespaceSelector: {}}]
  introspectors: [{namespace: $NS, serviceAccountName: asker}]
";

/// An agent in a pod of its own, with a grant on demand.
fn buyer(name: &str) -> String {
    "
apiVersion: v1
kind: ServiceAccount
metadata: {name: NAME}
---
apiVersion: v1
kind: Pod
metadata: {name: NAME, labels: {agentid.dev/agent: ''}}
spec: {serviceAccountName: NAME, automountServiceAccountToken: false, containers: [{name: c, image: none}]}
---
apiVersion: agentid.dev/v1alpha1
kind: AgentIdentity
metadata: {name: NAME}
spec: {serviceAccountName: NAME, tokenLifetime: 10m}
---
apiVersion: agentid.dev/v1alpha1
kind: AgentGrant
metadata: {name: NAME}
spec: {agents: {names: [NAME]}, resource: $NS, application: {scopes: [read]}}
"
    .replace("NAME", name)
}

fn deployment(replicas: u32) -> String {
    format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: operator}}, spec: {{replicas: {replicas}, \
         selector: {{matchLabels: {{app: operator}}}}, template: {{metadata: {{labels: {{app: operator}}}}, \
         spec: {{automountServiceAccountToken: false, containers: [{{name: c, image: none}}]}}}}}}}}"
    )
}

/// The place, and who is in it.
struct Scene<'a> {
    cp: &'a ControlPlane,
    town: Town,
    ns: Namespace,
}

impl Scene<'_> {
    /// A token that an agent buys.
    async fn buy(&self, service: &Service, name: &str) -> String {
        let own = pods_token(self.cp, &self.ns.name, &self.town.issuer, name, name);
        eventually(format!("a token for {name}"), SOON, || async {
            let (status, _, body) = ask(service, &own).await;
            body["access_token"].as_str().map(str::to_owned).ok_or_else(|| format!("{status} {body}"))
        })
        .await
    }

    /// Whether a token is active, as the resource's service learns it.
    async fn is_active(&self, service: &Service, token: &str) -> bool {
        let asker = pods_token(self.cp, &self.ns.name, &self.town.issuer, "asker", "asker");
        let (status, body) = introspect(service, &asker, token).await;
        assert_eq!(status, 200, "{body}");
        body["active"].as_bool().unwrap()
    }

    /// Where a token stands in its status list; `Err` where the list can't be had.
    async fn status(&self, service: &Service, token: &str) -> Result<u8, String> {
        let (uri, index) = entry(token);
        let fetched = service.get(uri.strip_prefix(&self.town.issuer).unwrap()).await?;
        let now = jiff::Timestamp::now().as_second();
        let list = verify_status_list(&fetched.body, &service.keys().await, &uri, now, 5).unwrap();
        Ok(list.list.status(index).unwrap())
    }

    /// What a cluster writes in a while.
    async fn write(&self, revisions: u32) {
        let maps: Api<ConfigMap> = Api::namespaced(self.ns.client.clone(), &self.ns.name);
        let map = |name: String| ConfigMap {
            metadata: ObjectMeta { name: Some(name), ..ObjectMeta::default() },
            ..ConfigMap::default()
        };
        for i in 0..revisions {
            maps.create(&PostParams::default(), &map(format!("written-{i}"))).await.unwrap();
        }
    }

    async fn suspend(&self, name: &str, suspend: bool) {
        let agents: Api<agentid::api::AgentIdentity> = Api::namespaced(self.ns.client.clone(), &self.ns.name);
        let patch = Patch::Merge(json!({"spec": {"suspend": suspend}}));
        agents.patch(name, &PatchParams::default(), &patch).await.unwrap();
    }

    async fn identity(&self, name: &str) -> String {
        files(&self.ns, &format!("{name}-agentid")).await.unwrap()["identity.jwt"].clone()
    }

    async fn replicas(&self) -> Option<i32> {
        let deployments: Api<Deployment> = Api::namespaced(self.ns.client.clone(), &self.ns.name);
        deployments.get("operator").await.unwrap().spec.and_then(|s| s.replicas)
    }

    async fn delete_agent(&self, name: &str) {
        self.ns.delete(&agent(name)).await;
        eventually(format!("the Secret of {name} is gone"), SOON, || async {
            if self.ns.secret(&format!("{name}-agentid")).await.is_none() { Ok(()) } else { Err("there") }
        })
        .await;
    }
}

/// The list and index of a token.
fn entry(token: &str) -> (String, u64) {
    let claims = inspect(token).unwrap().claims;
    let entry = &claims["status"]["status_list"];
    (entry["uri"].as_str().unwrap().to_owned(), entry["idx"].as_u64().unwrap())
}

async fn dies(token: &str) {
    let exp = inspect(token).unwrap().claims["exp"].as_i64().unwrap();
    let left = exp - jiff::Timestamp::now().as_second() + 1;
    tokio::time::sleep(Duration::from_secs(u64::try_from(left).unwrap_or(0))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_procedure_keeps_what_it_promises() {
    // One test at a time; on a control plane of its own, so that nothing of others is found there.
    let _turn = BROKEN.lock().await;
    let cp = tokio::task::spawn_blocking(|| ControlPlane::private("restore")).await.unwrap();
    let system = "agentid-restore";
    let town = Town::new(system, SHORT);
    let operator = town.operator(&cp).await;
    let service = town.serve(&cp).await;
    let ns = Namespace::for_pods(&cp, "restore").await;
    let t = Scene { cp: &cp, town, ns };
    t.ns.apply(OBJECTS).await;
    t.ns.apply(&buyer("kept")).await;
    for name in ["deleted", "suspended", "resumed"] {
        t.ns.apply(&agent(name)).await;
    }
    t.suspend("resumed", true).await;
    for name in ["kept", "deleted", "suspended"] {
        ready(&t.ns, name).await;
    }
    refused(&t.ns, "resumed", "Suspended").await;
    let old = t.buy(&service, "kept").await;
    let filed = t.identity("deleted").await;
    t.ns.apply(&deployment(1)).await;
    cp.backup_etcd();

    // The time between: one is made, one deleted, one suspended, one resumed; another key signs.
    t.ns.apply(&buyer("made")).await;
    t.delete_agent("deleted").await;
    t.suspend("suspended", true).await;
    t.suspend("resumed", false).await;
    refused(&t.ns, "suspended", "Suspended").await;
    ready(&t.ns, "resumed").await;
    let (code, said) = keys(&cp, system, &["rotate"]);
    assert_eq!(code, 0, "{said}");
    let between = eventually("the next key signs", SOON, || async {
        let token = t.buy(&service, "kept").await;
        if kid(&token) == kid(&old) { Err("the old key signs") } else { Ok(token) }
    })
    .await;
    let made = t.buy(&service, "made").await;
    // Another leader, so another status list.
    assert_eq!(operator.stop().code(), Some(0));
    let operator = t.town.operator(&cp).await;
    t.ns.apply(&buyer("newer")).await;
    let newer = t.buy(&service, "newer").await;
    assert_eq!(entry(&made).0, entry(&old).0);
    assert_ne!(entry(&newer).0, entry(&old).0);
    for token in [&old, &between, &made, &newer] {
        assert!(t.is_active(&service, token).await);
        assert_eq!(t.status(&service, token).await, Ok(0));
    }
    drill(&cp, system, "backup");
    dies(&filed).await;

    // The procedure. Deployments that were scaled down for it are not when it is done.
    t.ns.apply(&deployment(0)).await;
    assert_eq!(operator.stop().code(), Some(0));
    assert_eq!(service.stop().code(), Some(0));
    tokio::task::block_in_place(|| cp.restore_etcd());
    assert_eq!(t.identity("deleted").await, filed);
    assert_eq!(t.replicas().await, Some(1));
    drill(&cp, system, "restore");
    let operator = t.town.operator(&cp).await;
    let service = t.town.serve(&cp).await;

    // Secrets whose time had passed are renewed, by the newer key, which is in every namespace.
    ready(&t.ns, "kept").await;
    for name in ["deleted", "suspended"] {
        ready(&t.ns, name).await;
        let token = eventually(format!("{name} is renewed"), SOON, || async {
            let token = t.identity(name).await;
            let exp = inspect(&token).unwrap().claims["exp"].as_i64().unwrap();
            if exp > jiff::Timestamp::now().as_second() { Ok(token) } else { Err("expired") }
        })
        .await;
        assert_eq!(kid(&token), kid(&between), "{name}: the newer ring was not taken");
    }
    assert!(jwks(&t.ns).await.find(&kid(&between)).is_some());
    let (code, said) = keys(&cp, system, &["status"]);
    let signs = |l: &str| l.contains(&kid(&between)) && l.contains("Active");
    assert!(code == 0 && said.lines().any(signs), "{said}");

    // What was ended since is back; what was made since is gone.
    refused(&t.ns, "resumed", "Suspended").await;
    for name in ["made", "newer"] {
        assert!(t.ns.agent(name).await.is_none(), "{name} is there");
        assert!(t.ns.secret(&format!("{name}-agentid")).await.is_none(), "{name} has a Secret");
    }

    // Tokens of the time between: an agent that is there, one that is gone, one whose list is gone too.
    for (what, token, active) in
        [("old", &old, true), ("between", &between, true), ("made", &made, false), ("newer", &newer, false)]
    {
        let seen = t.is_active(&service, token).await;
        assert_eq!(seen, active, "{what}: {:?}", inspect(token).unwrap().claims);
    }
    assert_eq!(t.status(&service, &between).await, Ok(0));
    assert_eq!(t.status(&service, &made).await, Ok(1));
    let said = t.status(&service, &newer).await.unwrap_err();
    assert!(said.contains("404"), "{said}");

    // No index is handed out twice.
    t.ns.apply(&buyer("later")).await;
    let later = entry(&t.buy(&service, "later").await);
    for token in [&old, &between, &made, &newer] {
        assert_ne!(later.0, entry(token).0, "an old list is open again");
    }

    // The whole cluster: there is nothing on it but what Kubernetes itself brings and what this test made.
    let doctor = Command::new(env!("CARGO_BIN_EXE_agentid"))
        .args(["doctor", "--kubeconfig"])
        .arg(&cp.kubeconfig)
        .output()
        .unwrap();
    assert!(doctor.status.success(), "{}", String::from_utf8_lossy(&doctor.stdout));
    assert_eq!(operator.stop().code(), Some(0));
    assert_eq!(service.stop().code(), Some(0));
}

/// Waits for the end of a process that lived through it, and gives its log.
async fn ended(what: &str, log: &std::path::Path, runs: impl Fn() -> bool) -> String {
    eventually(format!("the {what} ends by itself"), SOON, || async {
        if runs() { Err("it goes on") } else { Ok(()) }
    })
    .await;
    std::fs::read_to_string(log).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lives_through_it_says_so_and_starts_anew() {
    let turn = turn().await;
    let cp = &turn.control_plane;
    let town = Town::new("agentid-rewound", "");
    let leader = town.operator(cp).await;
    let setup = Setup {
        namespace: town.namespace.clone(),
        configuration: town.configuration.clone(),
        ..Setup::default()
    };
    let standby = Operator::spawn(cp, &setup);
    let service = town.serve(cp).await;
    let ns = Namespace::for_pods(cp, "rewound").await;
    let t = Scene { cp, town, ns };
    t.ns.apply(OBJECTS).await;
    t.ns.apply(&buyer("kept")).await;
    t.ns.apply(&agent("deleted")).await;
    ready(&t.ns, "deleted").await;
    let old = t.buy(&service, "kept").await;
    cp.backup_etcd();

    t.write(300).await;
    t.ns.apply(&buyer("made")).await;
    t.delete_agent("deleted").await;
    let made = t.buy(&service, "made").await;
    tokio::task::block_in_place(|| cp.restore_etcd());

    let mut said = vec![ended("token service", service.log(), || service.runs()).await];
    assert_eq!(service.wait().code(), Some(1));
    said.push(ended("standby", standby.log(), || standby.runs()).await);
    assert_eq!(standby.wait().code(), Some(1));
    for log in &said {
        assert!(log.contains("was set back") && log.contains("resourceVersion"), "{log}");
    }
    // The leader may have lost its Lease before it saw.
    ended("leader", leader.log(), || leader.runs()).await;
    assert_eq!(leader.wait().code(), Some(1));

    // As whoever restarts them would: nothing else is to be done.
    let operator = t.town.operator(cp).await;
    let service = t.town.serve(cp).await;
    ready(&t.ns, "deleted").await;
    assert!(t.is_active(&service, &old).await);
    assert!(!t.is_active(&service, &made).await);
    assert_eq!(t.status(&service, &made).await, Ok(1));
    t.ns.apply(&buyer("later")).await;
    assert_ne!(entry(&t.buy(&service, "later").await).0, entry(&made).0);
    operator.stop();
    service.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_found_out_though_writes_have_caught_up() {
    let turn = turn().await;
    let cp = &turn.control_plane;
    let town = Town::new("agentid-caught-up", "");
    let operator = town.operator(cp).await;
    let service = town.serve(cp).await;
    let ns = Namespace::for_pods(cp, "caught-up").await;
    let t = Scene { cp, town, ns };
    t.ns.apply(OBJECTS).await;
    t.ns.apply(&buyer("kept")).await;
    let token = t.buy(&service, "kept").await;
    cp.backup_etcd();

    t.suspend("kept", true).await;
    eventually("the service knows that it is suspended", SOON, || async {
        if t.is_active(&service, &token).await { Err("active") } else { Ok(()) }
    })
    .await;
    assert_eq!(operator.stop().code(), Some(0));
    // It looks again only when the API server's revision is past all that it knew.
    service.signal("STOP");
    tokio::task::block_in_place(|| cp.restore_etcd());
    t.write(400).await;
    tokio::task::block_in_place(|| {
        cp.stop_apiserver();
        cp.start_apiserver();
    });
    service.signal("CONT");
    let log = ended("token service", service.log(), || service.runs()).await;
    assert!(log.contains("was set back") && log.contains("an object of"), "{log}");
    assert_eq!(service.wait().code(), Some(1));

    let service = t.town.serve(cp).await;
    assert!(t.is_active(&service, &token).await, "the suspension was set back too");
    assert_eq!(service.stop().code(), Some(0));
}

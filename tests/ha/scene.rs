//! Operators that can be told apart in the audit log, two replicas of the token service, and load on all of them.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::time::Duration;

use agentid::api::AgentIdentity;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::config::Kubeconfig;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::common::{
    ControlPlane, Namespace, Operator, Setup, condition, eventually, http_get, target_dir, unique,
};
use crate::proxy::Proxy;
use crate::service::{RUNNER, Service, Town, free_port};

pub const SYSTEM: &str = "agentid-ha";
/// Agents that stay, and renew every 40 s.
const STEADY: usize = 40;
const LIFETIME: &str = "limits: {tokenLifetime: 60s, minTokenLifetime: 10s}\n";
/// One agent comes, and one that has lived for a while goes, so often.
const CHURN: Duration = Duration::from_millis(400);
const LIVES: usize = 12;
const ASK: Duration = Duration::from_millis(50);

const OBJECTS: &str = "
apiVersion: agentid.dev/v1alpha1
kind: AgentGrant
metadata: {name: g}
spec:
  agents: {selector: {matchLabels: {load: steady}}}
  resource: $NS
  application: {scopes: [read]}
  secretKey: g.jwt
";

/// One operator, with an account of its own and a network of its own.
pub struct Member {
    /// Its name on the Lease, and its account's.
    pub name: String,
    pub operator: Operator,
    pub proxy: Proxy,
}

impl Member {
    /// As the audit log names it.
    pub fn user(name: &str) -> String {
        format!("system:serviceaccount:{SYSTEM}:{name}")
    }
}

pub struct Scene {
    pub ns: Namespace,
    town: Town,
    services: Vec<Service>,
    // Last, so that it goes last.
    pub cp: ControlPlane,
}

impl Scene {
    /// With a first operator that leads.
    pub async fn new() -> (Self, Member) {
        let cp = tokio::task::spawn_blocking(|| ControlPlane::private("ha")).await.unwrap();
        cp.kubectl(["create", "namespace", SYSTEM]);
        let town = Town::new(SYSTEM, LIFETIME);
        let ns = Namespace::for_pods(&cp, "ha").await;
        let mut scene = Self { ns, town, services: Vec::new(), cp };
        let first = scene.member("first").await;
        scene.led_by("first", 30).await;
        scene.services.push(scene.town.serve(&scene.cp).await);
        let address = format!("127.0.0.1:{}", free_port());
        let mut second = scene.town.serve_at(&scene.cp, &address).await;
        second.issuer = format!("https://{address}");
        scene.services.push(second);
        scene.ns.apply(RUNNER).await;
        scene.ns.apply(OBJECTS).await;
        for i in 0..STEADY {
            scene.agent(&format!("steady-{i}"), "steady").await.unwrap();
        }
        (scene, first)
    }

    /// Starts an operator and waits until it knows what there is.
    pub async fn member(&self, name: &str) -> Member {
        let kubeconfig = Kubeconfig::read_from(&self.cp.kubeconfig).unwrap();
        let cluster = kubeconfig.clusters[0].cluster.clone().unwrap();
        let proxy = Proxy::start(cluster.server.unwrap().trim_start_matches("https://")).await;
        let account = format!("--serviceaccount={SYSTEM}:{name}");
        self.cp.kubectl(["-n", SYSTEM, "create", "serviceaccount", name]);
        self.cp.kubectl(["create", "clusterrolebinding", name, "--clusterrole=cluster-admin", &account]);
        let token = self.cp.kubectl(["-n", SYSTEM, "create", "token", name, "--duration=2h"]);
        let own = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "users": [{"name": "u", "user": {"token": token.trim()}}],
            "clusters": [{"name": "c", "cluster": {
                "server": format!("https://{}", proxy.address),
                "certificate-authority-data": cluster.certificate_authority_data.unwrap(),
            }}],
        });
        let path = target_dir().join("test-logs").join(format!("{name}-{}.kubeconfig", unique()));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap();
        file.write_all(own.to_string().as_bytes()).unwrap();

        let mut setup = Setup {
            namespace: SYSTEM.to_owned(),
            configuration: self.town.configuration.clone(),
            kubeconfig: Some(path),
            ..Setup::default()
        };
        setup.environment.push(("POD_NAME".to_owned(), name.to_owned()));
        let operator = Operator::spawn(&self.cp, &setup);
        let member = Member { name: name.to_owned(), operator, proxy };
        eventually(format!("{name} is ready"), Duration::from_secs(60), || async {
            let (code, body) =
                http_get(&member.operator.admin, "/readyz").await.map_err(|e| e.to_string())?;
            if code == 200 { Ok(()) } else { Err(body) }
        })
        .await;
        member
    }

    pub async fn led_by(&self, name: &str, within: u64) {
        let leases: Api<Lease> = Api::namespaced(self.ns.client.clone(), SYSTEM);
        eventually(format!("{name} leads"), Duration::from_secs(within), || async {
            let lease = leases.get("agentid-operator").await.map_err(|e| e.to_string())?;
            match lease.spec.and_then(|s| s.holder_identity) {
                Some(holder) if holder.starts_with(&format!("{name}_")) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    /// Creates an agent.
    pub async fn agent(&self, name: &str, load: &str) -> Result<(), kube::Error> {
        create(&Api::namespaced(self.ns.client.clone(), &self.ns.name), name, load).await
    }

    /// Waits until an agent is Ready.
    pub async fn ready(&self, name: &str) {
        eventually(format!("{name} is Ready"), Duration::from_secs(60), || async {
            self.ns.agent(name).await.filter(is_ready)
        })
        .await;
    }

    /// Waits until exactly those agents that are there have Secrets and are Ready.
    pub async fn settled(&self) {
        let agents: Api<AgentIdentity> = Api::namespaced(self.ns.client.clone(), &self.ns.name);
        let secrets: Api<Secret> = Api::namespaced(self.ns.client.clone(), &self.ns.name);
        eventually("all agents are Ready and no Secret is left", Duration::from_secs(60), || async {
            let all = agents.list(&ListParams::default()).await.map_err(|e| e.to_string())?.items;
            let waiting = all.iter().filter(|a| !is_ready(a)).count();
            let names: BTreeSet<_> = all.into_iter().filter_map(|a| a.metadata.name).collect();
            let ours = ListParams::default().fields("type=agentid.dev/credentials");
            let held = secrets.list_metadata(&ours).await.map_err(|e| e.to_string())?.items;
            let held: BTreeSet<_> = held
                .into_iter()
                .filter_map(|s| s.metadata.name?.strip_suffix("-agentid").map(str::to_owned))
                .collect();
            if waiting == 0 && names == held {
                return Ok(());
            }
            let (lost, left) = (names.difference(&held).count(), held.difference(&names).count());
            Err(format!("{waiting} are not Ready, {lost} have no Secret, {left} Secrets are left"))
        })
        .await;
    }

    /// Asks both replicas for tokens all the time.
    pub async fn probe(&self) -> Probe {
        let token = self.cp.kubectl([
            "-n",
            &self.ns.name,
            "create",
            "token",
            "runner",
            "--audience",
            &self.town.issuer,
            "--bound-object-kind=Pod",
            "--bound-object-name=p",
        ]);
        let token: Arc<str> = token.trim().into();
        self.ns
            .apply(
                "{apiVersion: agentid.dev/v1alpha1, kind: AgentIdentity, metadata: {name: asker, \
                 labels: {load: steady}}, spec: {serviceAccountName: runner}}",
            )
            .await;
        let stop = CancellationToken::new();
        let mut tasks = Vec::new();
        for service in &self.services {
            let asker = service.asker();
            eventually("a first token", Duration::from_secs(60), || async { ask(&asker, &token).await })
                .await;
            tasks.push(tokio::spawn(keep_asking(asker, token.clone(), stop.clone())));
        }
        Probe { stop, tasks }
    }

    /// Lets agents come and go.
    pub fn churn(&self) -> Churn {
        let stop = CancellationToken::new();
        let agents: Api<AgentIdentity> = Api::namespaced(self.ns.client.clone(), &self.ns.name);
        let task = tokio::spawn(come_and_go(agents, stop.clone()));
        Churn { stop, task }
    }

    /// Ends the token service.
    pub fn stop(self) {
        for service in self.services {
            assert_eq!(service.stop().code(), Some(0));
        }
    }
}

fn is_ready(agent: &AgentIdentity) -> bool {
    agent
        .status
        .as_ref()
        .is_some_and(|s| condition(&s.conditions, "Ready").is_some_and(|c| c.status == "True"))
}

async fn create(agents: &Api<AgentIdentity>, name: &str, load: &str) -> Result<(), kube::Error> {
    let mut agent = AgentIdentity::new(name, Default::default());
    agent.metadata.labels = Some([("load".to_owned(), load.to_owned())].into());
    agents.create(&PostParams::default(), &agent).await.map(drop)
}

/// Agents that come and go.
pub struct Churn {
    stop: CancellationToken,
    task: JoinHandle<usize>,
}

impl Churn {
    /// Ends it; gives how many came.
    pub async fn stop(self) -> usize {
        self.stop.cancel();
        self.task.await.unwrap()
    }
}

async fn come_and_go(agents: Api<AgentIdentity>, stop: CancellationToken) -> usize {
    let mut tick = tokio::time::interval(CHURN);
    let mut count = 0usize;
    while !stop.is_cancelled() {
        tick.tick().await;
        create(&agents, &format!("churn-{count}"), "churn").await.unwrap();
        if let Some(old) = count.checked_sub(LIVES) {
            agents.delete(&format!("churn-{old}"), &DeleteParams::default()).await.unwrap();
        }
        count += 1;
    }
    count
}

/// Callers of the token service.
pub struct Probe {
    stop: CancellationToken,
    tasks: Vec<JoinHandle<(usize, Vec<String>)>>,
}

impl Probe {
    /// Ends it; gives how many tokens were bought, and what was answered instead of a token.
    pub async fn stop(self) -> (usize, Vec<String>) {
        self.stop.cancel();
        let (mut tokens, mut failures) = (0, Vec::new());
        for task in self.tasks {
            let (count, failed) = task.await.unwrap();
            tokens += count;
            failures.extend(failed);
        }
        (tokens, failures)
    }
}

async fn keep_asking(
    asker: crate::service::Asker,
    token: Arc<str>,
    stop: CancellationToken,
) -> (usize, Vec<String>) {
    let (mut tokens, mut failures) = (0, Vec::new());
    let mut tick = tokio::time::interval(ASK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !stop.is_cancelled() {
        tick.tick().await;
        match ask(&asker, &token).await {
            Ok(()) => tokens += 1,
            Err(failure) => failures.push(format!("{} {failure}", Timestamp::now())),
        }
    }
    (tokens, failures)
}

async fn ask(asker: &crate::service::Asker, token: &str) -> Result<(), String> {
    let form = [
        ("grant_type", "client_credentials"),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", token),
    ];
    let (status, body) = asker.post("/token", &form).await?;
    if status == 200 && body["access_token"].is_string() { Ok(()) } else { Err(format!("{status} {body}")) }
}

//! An agent logs into the cluster itself: a second API server on the same etcd takes agents' tokens by what
//! `agentid kube-auth-config` prints, and the operator's RoleBindings say what they may do.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;

use crate::common::{ControlPlane, Process, eventually, target_dir};
use crate::kit::*;

const AUDIT: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, userGroups: [\"agentid:agents\"]}
- {level: None}
";
const OBJECTS: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: serve-pod-reader}
rules: [{apiGroups: [\"\"], resources: [pods], verbs: [get, list]}]
---
apiVersion: agentid.dev/v1alpha1
kind: AgentResource
metadata: {name: k-$NS}
spec:
  audience: https://kubernetes.$NS.example.com
  kubernetes: {}
  roles: [{name: serve-pod-reader}]
  allow: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: $NS}}}]
---
apiVersion: agentid.dev/v1alpha1
kind: AgentIdentity
metadata: {name: k}
spec: {boundObjectRef: {apiVersion: v1, kind: Pod, name: p}}
---
apiVersion: agentid.dev/v1alpha1
kind: AgentIdentity
metadata: {name: l}
spec: {}
";
const LOGIN: &str = "
apiVersion: agentid.dev/v1alpha1
kind: AgentGrant
metadata: {name: cluster}
spec: {agents: {names: [k, l]}, resource: k-$NS, application: {roles: [serve-pod-reader]}, secretKey: cluster.jwt}
";
/// The cluster once more, by tokens that live a minute: too short for a Secret, so they are bought.
const SHORT: &str = "
apiVersion: agentid.dev/v1alpha1
kind: AgentResource
metadata: {name: short-$NS}
spec:
  audience: https://short.$NS.example.com
  kubernetes: {}
  maxTokenLifetime: 1m
  roles: [{name: serve-pod-reader}]
  allow: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: $NS}}}]
---
apiVersion: agentid.dev/v1alpha1
kind: AgentGrant
metadata: {name: short}
spec: {agents: {names: [a]}, resource: short-$NS, application: {roles: [serve-pod-reader]}}
";

/// A second API server on the control plane's etcd.
struct Second {
    process: Process,
    audit: PathBuf,
    /// An administrator's.
    admin: PathBuf,
}

fn settings(dir: &Path, name: &str) -> String {
    let text = std::fs::read_to_string(dir.join("settings")).unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix(&format!("{name}="))).unwrap();
    line.to_owned()
}

impl Second {
    async fn start(control_plane: &ControlPlane, dir: &Path, authentication: &str, port: u16) -> Self {
        let home = control_plane.kubeconfig.parent().unwrap();
        let (bin, first) = (settings(home, "bin"), settings(home, "port").parse::<u16>().unwrap());
        let pki = |file: &str| home.join("pki").join(file).to_string_lossy().into_owned();
        let written = |name: &str, text: &str| {
            std::fs::write(dir.join(name), text).unwrap();
            dir.join(name).to_string_lossy().into_owned()
        };
        let audit = dir.join("audit.log");
        let words = [
            format!("{bin}/kube-apiserver"),
            format!("--etcd-servers=http://127.0.0.1:{}", first + 1),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            "--advertise-address=192.0.2.1".to_owned(),
            "--endpoint-reconciler-type=none".to_owned(),
            format!("--tls-cert-file={}", pki("apiserver.crt")),
            format!("--tls-private-key-file={}", pki("apiserver.key")),
            format!("--client-ca-file={}", pki("ca.crt")),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
            format!("--service-account-key-file={}", pki("sa.pub")),
            format!("--service-account-signing-key-file={}", pki("sa.key")),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--service-cluster-ip-range=10.0.0.0/16".to_owned(),
            format!("--authentication-config={}", written("authentication.yaml", authentication)),
            format!("--audit-policy-file={}", written("audit-policy.yaml", AUDIT)),
            format!("--audit-log-path={}", audit.to_string_lossy()),
            format!("--cert-dir={}", dir.join("certs").to_string_lossy()),
        ];
        let process = Process::spawn(dir.join("kube-apiserver.log"), &words, &[]);
        let kubeconfig = std::fs::read_to_string(&control_plane.kubeconfig).unwrap();
        let moved =
            kubeconfig.replace(&format!("https://127.0.0.1:{first}"), &format!("https://127.0.0.1:{port}"));
        let second = Self { process, audit, admin: written("admin.kubeconfig", &moved).into() };
        eventually("the second API server is ready", Duration::from_secs(90), || async {
            let log = || std::fs::read_to_string(dir.join("kube-apiserver.log")).unwrap_or_default();
            assert!(second.process.runs(), "it ended: {}", log());
            let ready = kubectl(control_plane, &second.admin, &["get", "--raw", "/readyz"]);
            if ready.status.success() {
                Ok(())
            } else {
                Err(String::from_utf8_lossy(&ready.stderr).into_owned())
            }
        })
        .await;
        second
    }

    /// Somebody who has a token and nothing else.
    async fn bearer(&self, token: &str) -> Client {
        let mut kubeconfig = Kubeconfig::read_from(&self.admin).unwrap();
        for user in &mut kubeconfig.auth_infos {
            user.auth_info = Some(AuthInfo { token: Some(token.to_owned().into()), ..AuthInfo::default() });
        }
        let options = KubeConfigOptions::default();
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
        config.default_retry = false;
        Client::try_from(config).unwrap()
    }
}

/// What whoever lists the namespace's pods is answered: an HTTP status.
async fn status(client: &Client, namespace: &str) -> u16 {
    match Api::<Pod>::namespaced(client.clone(), namespace).list(&ListParams::default()).await {
        Ok(_) => 200,
        Err(kube::Error::Api(status)) => status.code,
        Err(e) => panic!("{e}"),
    }
}

/// Asks without pause until the answer is no longer 200; gives the moment, and the answer.
async fn until_refused(what: &str, client: &Client, namespace: &str) -> (Timestamp, u16) {
    let began = Instant::now();
    loop {
        let answer = status(client, namespace).await;
        if answer != 200 {
            return (Timestamp::now(), answer);
        }
        assert!(began.elapsed() < Duration::from_secs(90), "still listed: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn seconds_since(then: Timestamp, now: Timestamp) -> f64 {
    now.duration_since(then).as_secs_f64()
}

fn kubectl(control_plane: &ControlPlane, kubeconfig: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(&control_plane.kubectl);
    command.arg("--kubeconfig").arg(kubeconfig).args(["--request-timeout=10s", "--cache-dir=/nonexistent"]);
    command.args(args).env_remove("HOME").output().unwrap()
}

/// What an agent gets: `Ok` with what it is shown, or `Err` with why it is refused.
fn try_as(control_plane: &ControlPlane, kubeconfig: &Path, args: &[&str]) -> Result<String, String> {
    let output = kubectl(control_plane, kubeconfig, args);
    let [out, err] = [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned());
    if output.status.success() { Ok(out) } else { Err(err) }
}

impl Test {
    /// A token of agent `a` for the cluster that lives a minute.
    async fn short_token(&self) -> String {
        let (own, audience) = (self.sa_token().await, self.fill("https://short.$NS.example.com"));
        let form = [
            ("grant_type", EXCHANGE),
            ("subject_token", own.as_str()),
            ("subject_token_type", JWT),
            ("requested_token_type", JWT),
            ("audience", audience.as_str()),
        ];
        eventually("a token for a minute", SOON, || async {
            match self.settled("/token", &form).await {
                (200, body) => Ok(body["access_token"].as_str().unwrap().to_owned()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    /// The files of an agent's Secret in a directory, once these are there.
    async fn mounted(&self, secret: &str, wanted: &[&str], dir: &Path) {
        let files =
            eventually(format!("Secret {secret} has {wanted:?}"), Duration::from_secs(60), || async {
                let data = self.secret(secret).await.and_then(|s| s.data).ok_or("none")?;
                let names: Vec<_> = data.keys().map(String::as_str).collect();
                if wanted.iter().all(|w| names.contains(w)) {
                    Ok(data.clone())
                } else {
                    Err(format!("{names:?}"))
                }
            })
            .await;
        for (name, content) in files {
            std::fs::write(dir.join(name), content.0).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_logs_into_the_cluster_itself() {
    let control_plane = ControlPlane::shared();
    if !control_plane.kubeconfig.parent().is_some_and(|d| d.join("settings").exists()) {
        eprintln!("left out: a cluster that the tests did not start has no etcd for a second API server");
        return;
    }
    let t = Test::new("login").await;
    let dir = target_dir().join("test-logs").join(&t.name);
    std::fs::create_dir_all(&dir).unwrap();
    t.apply(OBJECTS).await;
    t.apply(SHORT).await;
    t.apply(LOGIN).await;
    let other_dir = dir.join("l");
    std::fs::create_dir_all(&other_dir).unwrap();
    t.mounted("k-agentid", &["cluster.jwt", "identity.jwt", "kubeconfig"], &dir).await;
    t.mounted("l-agentid", &["cluster.jwt"], &other_dir).await;
    t.mounted("a-agentid", &["tickets.jwt"], &dir).await;

    let printed = Command::new(env!("CARGO_BIN_EXE_agentid"))
        .args([
            "kube-auth-config",
            &format!("k-{}", t.name),
            &format!("short-{}", t.name),
            "-n",
            &t.name,
            "--kubeconfig",
        ])
        .arg(&control_plane.kubeconfig)
        .output()
        .unwrap();
    let authentication = String::from_utf8(printed.stdout).unwrap();
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let second = Second::start(control_plane, &dir, &authentication, t.stage.kube_port).await;

    let kubeconfig = dir.join("kubeconfig");
    let ask = |args: &[&str]| try_as(control_plane, &kubeconfig, args);
    // The keys are fetched after the server is ready.
    let pods = eventually("the agent lists its pods", Duration::from_secs(60), || async {
        ask(&["get", "pods", "-o", "name"])
    })
    .await;
    assert!(pods.contains("pod/p"), "{pods}");
    let id = t.agent_id("k").await;
    let who: Value = serde_json::from_str(&ask(&["auth", "whoami", "-o", "json"]).unwrap()).unwrap();
    let user = &who["status"]["userInfo"];
    assert_eq!(user["username"], id.as_str(), "{user}");
    assert_eq!(user["uid"], id.rsplit('/').next().unwrap());
    assert!(user["groups"].as_array().unwrap().contains(&"agentid:agents".into()), "{user}");
    assert_eq!(user["extra"]["agentid.dev/namespace"][0], t.name.as_str());
    assert_eq!(user["extra"]["agentid.dev/name"][0], "k");
    assert_eq!(user["extra"]["agentid.dev/jti"].as_array().unwrap().len(), 1);

    // All else is refused.
    for args in [
        &["get", "secrets"][..],
        &["get", "pods", "-n", "default"],
        &["get", "pods", "-A"],
        &["delete", "pod", "p"],
        &["get", "agentidentities"],
    ] {
        let refused = ask(args).unwrap_err();
        assert!(refused.contains("forbidden"), "{args:?}: {refused}");
    }
    // No other token of ours is a login.
    for other in ["identity.jwt", "tickets.jwt"] {
        let text = std::fs::read_to_string(&kubeconfig).unwrap().replace("cluster.jwt", other);
        std::fs::write(dir.join("other"), text).unwrap();
        let refused = try_as(control_plane, &dir.join("other"), &["get", "pods"]).unwrap_err();
        assert!(
            refused.contains("Unauthorized") || refused.contains("must be logged in"),
            "{other}: {refused}"
        );
    }
    let audit = std::fs::read_to_string(&second.audit).unwrap();
    let line = audit.lines().find(|l| l.contains(&id) && l.contains("\"pods\"")).unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!(line["user"]["extra"]["agentid.dev/name"][0], "k", "{line}");

    // How long each end takes, as who asks without pause sees it.
    let token_in = |dir: &Path| std::fs::read_to_string(dir.join("cluster.jwt")).unwrap();
    let (k, l) = (second.bearer(&token_in(&dir)).await, second.bearer(&token_in(&other_dir)).await);
    let short = t.short_token().await;
    let dies = Timestamp::from_second(claims(&short)["exp"].as_i64().unwrap()).unwrap();
    let a = second.bearer(&short).await;
    for (name, client) in [("k", &k), ("l", &l), ("a", &a)] {
        eventually(format!("{name} lists the pods"), SOON, || async {
            match status(client, &t.name).await {
                200 => Ok(()),
                other => Err(other),
            }
        })
        .await;
    }

    let mut figures = Vec::new();
    for end in ["grant", "agent", "pod"] {
        let client = if end == "agent" { &l } else { &k };
        assert_eq!(status(client, &t.name).await, 200, "{end}");
        let began = Timestamp::now();
        match end {
            "grant" => t.delete_grant("cluster").await,
            "agent" => t.delete_agent("l").await,
            _ => t.end_pod("p").await,
        }
        let (refused, answer) = until_refused(end, client, &t.name).await;
        // Its token still says who it is; there is nothing left that it may do.
        assert_eq!(answer, 403, "{end}");
        let took = seconds_since(began, refused);
        assert!(took < SOON.as_secs_f64(), "{end}: {took} s");
        figures.push(format!("{took:.2} s after the {end} was deleted (403)"));
        if end == "grant" {
            t.apply(LOGIN).await;
            eventually("held again", SOON, || async { ask(&["get", "pods"]) }).await;
            eventually("held again by the other", SOON, || async {
                let answer = status(&l, &t.name).await;
                if answer == 200 { Ok(()) } else { Err(answer) }
            })
            .await;
        }
    }
    // By then the pod whose own token bought it is gone, and with it who may buy another.
    assert!(Timestamp::now() < dies, "the minute is over too soon to be measured");
    assert_eq!(status(&a, &t.name).await, 200, "a token that was bought lives its minute");
    let (refused, answer) = until_refused("a token that is over", &a, &t.name).await;
    assert_eq!(answer, 401);
    let took = seconds_since(dies, refused);
    // The API server takes whom it knows for another ten seconds without looking.
    assert!((-1.0..15.0).contains(&took), "{took} s");
    figures.push(format!("{took:.2} s after its token's exp (401)"));
    println!("login: an agent is refused {}", figures.join(", "));
    drop(second);
    // Tokens were in it.
    let _ = std::fs::remove_dir_all(&dir);
}

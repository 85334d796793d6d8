//! An agent logs into the cluster itself: a second API server on the same etcd takes agents' tokens by what
//! `agentid kube-auth-config` prints, and the operator's RoleBindings say what they may do.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use kube::api::{Api, DeleteParams};
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
";
const LOGIN: &str = "
apiVersion: agentid.dev/v1alpha1
kind: AgentGrant
metadata: {name: cluster}
spec: {agents: {names: [k]}, resource: k-$NS, application: {roles: [serve-pod-reader]}, secretKey: cluster.jwt}
";

/// A second API server on the control plane's etcd.
struct Second {
    process: Process,
    audit: PathBuf,
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
        let second = Self { process, audit };
        let kubeconfig = std::fs::read_to_string(&control_plane.kubeconfig).unwrap();
        let moved =
            kubeconfig.replace(&format!("https://127.0.0.1:{first}"), &format!("https://127.0.0.1:{port}"));
        let admin = written("admin.kubeconfig", &moved);
        eventually("the second API server is ready", Duration::from_secs(90), || async {
            let log = || std::fs::read_to_string(dir.join("kube-apiserver.log")).unwrap_or_default();
            assert!(second.process.runs(), "it ended: {}", log());
            let ready = kubectl(control_plane, Path::new(&admin), &["get", "--raw", "/readyz"]);
            if ready.status.success() {
                Ok(())
            } else {
                Err(String::from_utf8_lossy(&ready.stderr).into_owned())
            }
        })
        .await;
        second
    }
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
    t.apply(LOGIN).await;
    t.mounted("k-agentid", &["cluster.jwt", "identity.jwt", "kubeconfig"], &dir).await;
    t.mounted("a-agentid", &["tickets.jwt"], &dir).await;

    let printed = Command::new(env!("CARGO_BIN_EXE_agentid"))
        .args(["kube-auth-config", &format!("k-{}", t.name), "-n", &t.name, "--kubeconfig"])
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

    let gone = |what: &'static str| {
        eventually(format!("refused without the {what}"), SOON, || async {
            match ask(&["get", "pods"]) {
                Err(e) if e.contains("forbidden") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
    };
    t.delete(LOGIN).await;
    gone("grant").await;
    t.apply(LOGIN).await;
    eventually("held again", SOON, || async { ask(&["get", "pods"]) }).await;
    let pods: Api<k8s_openapi::api::core::v1::Pod> = t.api();
    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    pods.delete("p", &now).await.unwrap();
    gone("pod").await;
    drop(second);
    // Tokens were in it.
    let _ = std::fs::remove_dir_all(&dir);
}

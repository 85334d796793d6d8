//! The chart on a real API server, installed by helm. Its pods don't run there, as there are no nodes: the two processes
//! run beside it, as its service accounts and with its configuration.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::{Value, json};

use crate::common::{ControlPlane, Operator, Setup, audit, eventually, target_dir};
use crate::helm::{NAMESPACE, at, chart, documents, helm, objects, template, values};
use crate::service::{Service, Town, free_port};
use crate::story::Story;
use crate::{flow, people, rights};

const LATER: Duration = Duration::from_secs(60);

/// A control plane that logs what the two accounts ask, with the namespace, which holds pods to the restricted standard.
fn control_plane(name: &str) -> ControlPlane {
    let policy = at("tests/chart/audit-policy.yaml");
    let control_plane = ControlPlane::bare(name, &format!("--audit-policy-file={}", policy.display()));
    let namespace = format!(
        "{{apiVersion: v1, kind: Namespace, metadata: {{name: {NAMESPACE}, labels: {{pod-security.kubernetes.io/enforce: \
         restricted, pod-security.kubernetes.io/warn: restricted}}}}}}"
    );
    control_plane.kubectl_with_input(&["apply", "--server-side", "-f", "-"], namespace.as_bytes());
    control_plane
}

struct Install {
    control_plane: ControlPlane,
    town: Town,
    values: PathBuf,
}

impl Install {
    /// Installs it, and waits until its pods and its policies are there.
    async fn new(control_plane: ControlPlane) -> Self {
        let issuer = format!("https://127.0.0.1:{}", free_port());
        let dir = target_dir().join("chart");
        fs::create_dir_all(&dir).unwrap();
        let values = dir.join(format!("values-{}.json", crate::common::unique()));
        // Certificates that are made anew while the story goes on, and keys that may be rotated in it.
        let given = json!({
            "image": {"repository": "registry.example.com/agentid"},
            "config": {
                "issuer": issuer,
                "trustDomain": "agents.example.com",
                "serving": {"ipAddresses": ["127.0.0.1"], "certificates": {"authority": "60s", "serving": "20s"}},
                "keys": {"signFor": "1h", "publishAhead": "1s"},
                "kubernetes": {"bindableRoles": ["chart-pod-reader"]},
            },
        });
        fs::write(&values, given.to_string()).unwrap();
        let town = Town { issuer, ..Town::new(NAMESPACE, "") };
        let mut install = Self { control_plane, town, values };
        install.release("install", &chart(), &[]);
        install.pods_are_there(4).await;
        install.town.configuration = install.configuration().await;
        install
    }

    /// Runs helm on this cluster.
    fn helm(&self, args: &[&str]) -> String {
        let kubeconfig = self.control_plane.kubeconfig.to_string_lossy();
        let cluster = ["--namespace", NAMESPACE, "--kubeconfig", &kubeconfig];
        helm(&args.iter().chain(&cluster).copied().collect::<Vec<_>>())
    }

    /// `helm install` or `helm upgrade`.
    fn release(&self, verb: &str, chart: &str, more: &[&str]) -> String {
        let values = self.values.to_string_lossy();
        let args = [verb, "agentid", chart, "--values", &values];
        self.helm(&args.iter().chain(more).copied().collect::<Vec<_>>())
    }

    /// What helm has applied.
    fn manifest(&self) -> String {
        self.helm(&["get", "manifest", "agentid"])
    }

    /// The restricted standard lets the Deployments make them.
    async fn pods_are_there(&self, wanted: usize) {
        eventually(format!("there are {wanted} pods"), LATER, || async {
            let get = ["get", "pods", "--namespace", NAMESPACE, "--output=name"];
            let found = self.control_plane.kubectl(get).lines().count();
            if found == wanted {
                return Ok(());
            }
            let events = self.control_plane.kubectl(["get", "events", "--namespace", NAMESPACE]);
            Err(format!("{found} pods\n{events}"))
        })
        .await;
    }

    /// The configuration file as the pods would mount it.
    async fn configuration(&self) -> String {
        let maps: Api<ConfigMap> = Api::namespaced(self.control_plane.client().await, NAMESPACE);
        maps.get("agentid").await.unwrap().data.unwrap().remove("configuration.yaml").unwrap()
    }

    /// A kubeconfig with a token of one of the chart's service accounts and no other right.
    async fn kubeconfig(&self, account: &str) -> PathBuf {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.control_plane.client().await, NAMESPACE);
        let request = TokenRequest { spec: TokenRequestSpec::default(), ..TokenRequest::default() };
        let answer = accounts.create_token_request(account, &PostParams::default(), &request).await.unwrap();
        let admin: Value =
            serde_yaml::from_str(&fs::read_to_string(&self.control_plane.kubeconfig).unwrap()).unwrap();
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{"name": "it", "cluster": admin["clusters"][0]["cluster"]}],
            "users": [{"name": "it", "user": {"token": answer.status.unwrap().token}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        });
        let path =
            target_dir().join("chart").join(format!("{account}-{}.kubeconfig", crate::common::unique()));
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap();
        file.write_all(config.to_string().as_bytes()).unwrap();
        path
    }

    async fn operator_setup(&self) -> Setup {
        Setup {
            namespace: NAMESPACE.to_owned(),
            configuration: self.configuration().await,
            kubeconfig: Some(self.kubeconfig("agentid-operator").await),
            ..Setup::default()
        }
    }

    /// What stands in the cluster of all that the chart renders, each by its kind and name. Less its resourceVersion: the
    /// API server counts on with each apply of a ValidatingAdmissionPolicy, also if nothing changes.
    fn state(&self) -> BTreeMap<String, Value> {
        let get = ["get", "--output=json", "-f", "-"];
        let (found, _) = self.control_plane.kubectl_with_input(&get, self.manifest().as_bytes());
        let mut found: Value = serde_json::from_str(&found).unwrap();
        let objects = found["items"].as_array_mut().unwrap().drain(..);
        let state: BTreeMap<_, _> = objects
            .map(|mut object| {
                object["metadata"].as_object_mut().unwrap().remove("resourceVersion");
                object.as_object_mut().unwrap().remove("status");
                (format!("{} {}", object["kind"], object["metadata"]["name"]), object)
            })
            .collect();
        assert!(state.len() > 40, "{:?}", state.keys());
        state
    }
}

/// The API server takes all that the chart can render, but for the kinds of the Prometheus Operator. It says no word of
/// warning, and unknown fields are refused.
fn everything_is_accepted(control_plane: &ControlPlane) {
    for name in ["minimal.yaml", "everything.yaml"] {
        let rendered = template(&["--values", &values(name)]);
        let known: Vec<_> =
            documents(&rendered).into_iter().filter(|d| !d.contains("monitoring.coreos.com")).collect();
        let args = ["apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-"];
        let (out, err) = control_plane.kubectl_with_input(&args, known.join("\n---\n").as_bytes());
        assert_eq!(out.lines().count(), known.len(), "{name}: {out}");
        assert_eq!(err, "", "{name}");
    }
}

/// Another release of the chart, as a package.
fn next_release(dir: &Path) -> String {
    let to = dir.to_string_lossy();
    let said =
        helm(&["package", &chart(), "--version", "0.2.0", "--app-version", "0.2.0", "--destination", &to]);
    assert!(said.contains("agentid-0.2.0.tgz"), "{said}");
    dir.join("agentid-0.2.0.tgz").to_string_lossy().into_owned()
}

/// Name and resourceVersion of the Secrets in which tokens and keys are.
async fn secrets(control_plane: &ControlPlane) -> BTreeMap<String, String> {
    let secrets: Api<Secret> = Api::all(control_plane.client().await);
    let all = secrets.list(&ListParams::default()).await.unwrap().items.into_iter();
    let ours = all.filter(|s| {
        s.type_.as_deref() == Some("agentid.dev/credentials")
            || s.metadata.name.as_deref() == Some("agentid-signing-keys")
    });
    ours.map(|s| {
        (format!("{:?}/{:?}", s.metadata.namespace, s.metadata.name), s.metadata.resource_version.unwrap())
    })
    .collect()
}

/// What `kubectl diff` says that applying these objects would change, as another tool than helm.
fn difference(control_plane: &ControlPlane, manifest: &str) -> String {
    let path = target_dir().join("chart").join(format!("manifest-{}.yaml", crate::common::unique()));
    fs::write(&path, manifest).unwrap();
    let mut command = Command::new(&control_plane.kubectl);
    command.arg("--kubeconfig").arg(&control_plane.kubeconfig);
    command.args(["diff", "--server-side", "--force-conflicts", "--field-manager=gitops", "-f"]).arg(&path);
    let output = command.output().unwrap();
    fs::remove_file(&path).unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned());
    assert!(output.status.code().is_some_and(|c| c <= 1), "kubectl diff: {err}");
    assert_eq!(output.status.success(), out.is_empty(), "{err}");
    out
}

/// A rolling update, as the Deployments would do it: a new process stands by before the old one goes.
async fn roll(install: &Install, operator: Operator, service: Service) -> (Operator, Service) {
    let setup = install.operator_setup().await;
    let next = Operator::spawn(&install.control_plane, &setup);
    eventually("the new operator stands by", LATER, || async {
        let (code, body) =
            crate::common::http_get(&next.admin, "/readyz").await.map_err(|e| e.to_string())?;
        if code == 200 { Ok(()) } else { Err(body) }
    })
    .await;
    assert!(operator.stop().success());
    eventually("the new operator leads", LATER, || async {
        if next.metrics().await.contains("agentid_leader 1") { Ok(()) } else { Err("it stands by") }
    })
    .await;
    assert!(service.stop().success());
    let town = Town { configuration: install.configuration().await, ..install.town.clone() };
    (next, town.serve(&install.control_plane).await)
}

/// From the installation to the end. One control plane and one story for all of it, since both take their time.
#[tokio::test(flavor = "multi_thread")]
async fn installed_it_works_is_upgraded_and_goes() {
    let control_plane = tokio::task::spawn_blocking(|| {
        let control_plane = control_plane("chart");
        everything_is_accepted(&control_plane);
        control_plane
    });
    let mut install = Install::new(control_plane.await.unwrap()).await;
    install.town.kubeconfig = Some(install.kubeconfig("agentid-serve").await);
    let control_plane = &install.control_plane;
    let operator = install.kubeconfig("agentid-operator").await;
    flow::check(control_plane, &operator, install.town.kubeconfig.as_deref().unwrap()).await;
    let began = audit::mark(control_plane);

    // The two processes, with exactly the chart's rules, inside the chart's admission policies.
    let operator = Operator::start(control_plane, install.operator_setup().await).await;
    let story = Story::begin(control_plane, &install.town).await;
    story.publishes_keys(false).await;
    let service = install.town.serve(control_plane).await;
    story.is_told().await;
    story.everybody_buys("triager").await;
    story.publishes_keys(true).await;
    story.goes_on().await;
    story.rotates().await;
    story.certificates_are_made_anew().await;

    people::check(control_plane).await;

    // What runs has changed nothing that the chart says, and who applies it again changes nothing either.
    let (manifest, state) = (install.manifest(), install.state());
    assert_eq!(difference(control_plane, &manifest), "");
    assert_eq!(objects(&manifest), objects(&template(&["--values", &install.values.to_string_lossy()])));
    install.release("upgrade", &chart(), &[]);
    assert!(install.manifest() == manifest, "rendered differently the second time");
    let changed: Vec<_> =
        install.state().into_iter().filter(|(name, now)| state.get(name) != Some(now)).collect();
    assert!(changed.is_empty(), "changed: {changed:?}");

    // The next version of the chart: pods are replaced, credentials are not.
    let next = next_release(&target_dir().join("chart"));
    let before = secrets(control_plane).await;
    assert!(before.len() >= 4, "{before:?}");
    let changes = ["--set", "config.limits.onDemandTokenLifetime=5m", "--set", "operator.podLabels.tier=one"];
    install.release("upgrade", &next, &changes);
    assert!(install.configuration().await.contains("onDemandTokenLifetime: 5m"));
    let (operator, service) = roll(&install, operator, service).await;
    story.everybody_buys("reader").await;
    assert_eq!(secrets(control_plane).await, before, "an upgrade re-minted something");
    assert_eq!(difference(control_plane, &install.manifest()), "");

    story.ends().await;
    story.leaves_one().await;
    for (process, log) in [("operator", operator.log()), ("serve", service.log())] {
        let log = fs::read_to_string(log).unwrap();
        assert!(!log.contains("ValidatingAdmissionPolicy"), "the fence refused {process} something:\n{log}");
    }
    assert!(operator.stop().success() && service.stop().success());
    rights::check(control_plane, began);

    // Uninstalled, the definitions stay, and all agents with them.
    let before = secrets(control_plane).await;
    install.helm(&["uninstall", "agentid"]);
    let left = control_plane.kubectl(["get", "crds", "--output=name"]);
    assert_eq!(left.lines().filter(|l| l.ends_with(".agentid.dev")).count(), 5, "{left}");
    let ours = "deployments,services,configmaps,clusterroles,validatingadmissionpolicies,flowschemas";
    let left = control_plane.kubectl([
        "get",
        ours,
        "--all-namespaces",
        "--selector=app.kubernetes.io/name=agentid",
        "--output=name",
    ]);
    assert_eq!(left, "");
    // What is installed anew takes them over, and mints nothing anew.
    install.release("install", &next, &[]);
    install.pods_are_there(4).await;
    let operator = Operator::start(control_plane, install.operator_setup().await).await;
    story.has_left_one().await;
    assert_eq!(secrets(control_plane).await, before, "an installation anew re-minted something");
    assert!(operator.stop().success());

    // To end it for good, in docs/install.md's words.
    install.helm(&["uninstall", "agentid"]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_agentid"));
    command.args(["uninstall", "--everything", "--yes", "--output=json", "--namespace", NAMESPACE]);
    let output = command.env("KUBECONFIG", &control_plane.kubeconfig).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["left"], json!([]), "{report:#}");
    assert!(report["deleted"].as_u64().unwrap() > 5, "{report:#}");
    nothing_is_left(control_plane).await;
}

/// Nothing in the cluster bears our name, whoever has made it: what helm had installed goes in its own time.
async fn nothing_is_left(control_plane: &ControlPlane) {
    let kinds = "crds,clusterroles,clusterrolebindings,roles,rolebindings,serviceaccounts,secrets,configmaps,services,\
                 endpointslices,deployments,replicasets,pods,leases,poddisruptionbudgets,networkpolicies,flowschemas,\
                 validatingadmissionpolicies,validatingadmissionpolicybindings,mutatingadmissionpolicies,\
                 mutatingadmissionpolicybindings";
    eventually("nothing is left", LATER, || async {
        let all = control_plane.kubectl(["get", kinds, "--all-namespaces", "--output=name"]);
        assert!(all.lines().count() > 50, "{all}");
        let ours: Vec<_> = all.lines().filter(|name| name.contains("agentid")).map(str::to_owned).collect();
        if ours.is_empty() { Ok(()) } else { Err(ours) }
    })
    .await;
}

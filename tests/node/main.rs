//! agentid on a real node: our image and chart, by the README's own words, and agents in pods that call a service which
//! verifies. Skipped, loudly, where the machine can have no node; `tests/node/node.sh check` says why.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod node;
mod pods;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::figures::{figure, keep};
use common::{eventually, target_dir};
use node::{Node, made_by, obstacle, run_told, tell};
use serde_json::Value;

/// For what agentid and the control plane do at once.
const SOON: Duration = Duration::from_secs(60);
/// For what waits for the kubelet's next look at a pod, once a minute by default, and for the machine.
const SYNC: Duration = Duration::from_secs(240);
/// Beside the README's words: tokens that are renewed while we look, and lists that are read often.
const SHORT: [&str; 4] = [
    "config.limits.tokenLifetime=2m",
    "config.limits.minTokenLifetime=1m",
    "config.limits.onDemandTokenLifetime=1m",
    "config.statusLists.ttl=5s",
];
const SYSTEM: &str = "agentid-system";

/// The words of the README's `helm install`, for the packaged chart and the image of this build.
fn install(chart: &str, image: &str) -> Vec<String> {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let from = readme.find("helm install ").expect("README.md says how to install");
    let command = readme[from..].split("\n```").next().unwrap().replace("\\\n", " ");
    let words: Vec<_> = command.split_whitespace().skip(1).map(str::to_owned).collect();
    assert!(words.contains(&"charts/agentid".to_owned()), "{words:?}");
    words
        .into_iter()
        .map(|word| match word.as_str() {
            "charts/agentid" => chart.to_owned(),
            _ if word.starts_with("image.repository=") => format!("image.repository={image}"),
            _ => word,
        })
        .collect()
}

/// Packs the chart, and the image of what agents and their service run.
fn packed(node: &Node) -> String {
    let out = target_dir().join("node-test");
    std::fs::create_dir_all(&out).unwrap();
    let text = out.display().to_string();
    let said = node.helm([
        "package",
        concat!(env!("CARGO_MANIFEST_DIR"), "/charts/agentid"),
        "--destination",
        &text,
    ]);
    let chart = said.trim().rsplit(": ").next().expect("where the chart is").to_owned();

    let interop =
        run_told(&mut Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/setup.sh")));
    let python = interop.lines().find_map(|l| l.strip_prefix("AGENTID_INTEROP_PYTHON=")).unwrap();
    let archive = out.join("examples.tar").display().to_string();
    let mut command = Command::new(python);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args([
        "tests/node/images.py",
        "python",
        pods::IMAGE,
        &archive,
    ]);
    command.args(["examples/service/service.py", "examples/client/client.py", "tests/node/watch.py"]);
    node::run(&mut command);
    node.import(&archive);
    chart
}

async fn ready(node: &Node, namespace: &str, what: &str) {
    let began = Instant::now();
    eventually(format!("{what} in {namespace} is ready"), SYNC, || async {
        node.try_kubectl(["-n", namespace, "rollout", "status", what, "--timeout=2s"])
    })
    .await;
    tell(format!("{what} ready after {:.1} s", began.elapsed().as_secs_f64()));
}

/// The lines that a container has written; `previous`: in its life before this one. Not more than twice a second: a
/// look costs a process.
async fn lines(node: &Node, pod: &str, container: &str, previous: bool) -> Vec<String> {
    tokio::time::sleep(Duration::from_millis(500)).await;
    let previous = format!("--previous={previous}");
    let text =
        node.try_kubectl(["-n", "support", "logs", pod, "-c", container, &previous]).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Waits until a container was answered by the service, as this agent; gives what the service said.
async fn answered(node: &Node, pod: &str, container: &str, agent: &str) {
    let said = eventually(format!("an answer to {container} in {pod}"), SYNC, || async {
        let said = lines(node, pod, container, false).await;
        said.iter().find(|l| l.contains("\"tickets\"")).cloned().ok_or(said)
    })
    .await;
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["caller"]["name"], format!("support/{agent}"), "{said}");
    assert!(
        said["caller"]["agent"].as_str().unwrap().starts_with("spiffe://prod.example.com/agent/"),
        "{said}"
    );
}

/// What a container saw of a file, in order: when, and what it was.
async fn seen(node: &Node, pod: &str, file: &str) -> Vec<Value> {
    let lines = lines(node, pod, "watch", false).await;
    lines.iter().filter_map(|l| serde_json::from_str(l).ok()).filter(|v: &Value| v["file"] == file).collect()
}

/// Waits for a renewal; gives the seconds from the new token's birth until the container saw it.
async fn renewed(node: &Node, pod: &str, file: &str) -> f64 {
    let second = eventually(format!("a renewed {file} in {pod}"), SYNC, || async {
        let all = seen(node, pod, file).await;
        all.get(1).cloned().ok_or(all)
    })
    .await;
    let first = &seen(node, pod, file).await[0];
    assert!(second["gone"].is_null() && second["jti"] != first["jti"], "{first} then {second}");
    assert!(second["iat"].as_i64() > first["iat"].as_i64(), "{first} then {second}");
    let after = second["at"].as_f64().unwrap() - second["iat"].as_f64().unwrap();
    // Born in a whole second, seen within the watch's fifth of one.
    assert!(after > -1.0, "{second}: seen before it was made");
    after
}

/// Waits until the service refuses a client that goes on calling; gives the words of the refusal.
async fn refused(node: &Node, pod: &str, container: &str) -> String {
    eventually(format!("{container} in {pod} is refused"), SYNC, || async {
        let said =
            [lines(node, pod, container, true).await, lines(node, pod, container, false).await].concat();
        said.iter().find(|l| l.contains("the service refuses")).cloned().ok_or(said)
    })
    .await
}

fn pod_of(node: &Node, label: &str) -> String {
    let list = node.json(["-n", "support", "get", "pods", "-l", label]).unwrap();
    list["items"][0]["metadata"]["name"].as_str().expect("a pod").to_owned()
}

fn names(node: &Node, kind: &str, namespace: &str) -> Vec<String> {
    let list = node.json(["-n", namespace, "get", kind]).unwrap();
    let items = list["items"].as_array().unwrap();
    items.iter().map(|i| i["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

/// A machine that lacks something says so before anything is made, as `make test` needs it.
#[test]
fn what_the_machine_lacks_is_said() {
    let dir = target_dir().join("node-check");
    std::fs::create_dir_all(&dir).unwrap();
    let cc = dir.join("cc");
    std::fs::write(&cc, "#!/bin/sh\nexit 1\n").unwrap();
    std::fs::set_permissions(&cc, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap());
    let check = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/node/node.sh");
    let output = Command::new(check).arg("check").env("PATH", path).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(3), "{said}");
    // Who is not root hears that first.
    let obstacles = ["install the package", "needs root", "Linux"];
    assert!(obstacles.iter().any(|o| said.contains(o)), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_live_in_pods_of_a_real_node() {
    if let Some(why) = obstacle() {
        tell(format!("SKIPPED: no agent ran in a pod, since this machine can have no node: {why}"));
        return;
    }
    // Another one, such as of a debug build, while something is tried out.
    let archive = std::env::var("AGENTID_TEST_IMAGE").unwrap_or_else(|_| made_by("scripts/image.sh"));
    let began = Instant::now();
    let node = Node::up();
    node.import(&archive);
    let chart = packed(&node);
    tell(format!("node and images after {:.1} s", began.elapsed().as_secs_f64()));

    installed(&node, &chart).await;
    let (triage, helper) = agents_call_the_service(&node).await;
    files_are_renewed_in_place(&node).await;
    who_is_deleted_is_refused(&node, &triage, &helper).await;
    upgraded_and_uninstalled(&node, &chart).await;

    let left = node.down();
    assert!(left.is_empty(), "left on this machine: {left:#?}");
    tell(format!("the whole after {:.0} s", began.elapsed().as_secs_f64()));
}

async fn installed(node: &Node, chart: &str) {
    let mut words = install(chart, "localhost/agentid");
    words.extend(SHORT.iter().flat_map(|s| ["--set".to_owned(), (*s).to_owned()]));
    node.helm(words.iter().map(String::as_str));
    for deployment in ["deployment/agentid-operator", "deployment/agentid-serve"] {
        ready(node, SYSTEM, deployment).await;
    }
    // Of our image, and as it says.
    let pods = node.json(["-n", SYSTEM, "get", "pods"]).unwrap();
    for pod in pods["items"].as_array().unwrap() {
        assert!(
            pod["spec"]["containers"][0]["image"].as_str().unwrap().starts_with("localhost/agentid:"),
            "{pod}"
        );
    }
}

/// Three agents: with its Secret by the Deployment's name, with its Secret by the pod's, and with the sidecar.
async fn agents_call_the_service(node: &Node) -> (String, String) {
    node.apply(&pods::town());
    ready(node, "tickets", "deployment/tickets").await;
    node.apply(&pods::agents());
    ready(node, "support", "deployment/triage").await;
    let triage = pod_of(node, "app=triage");
    answered(node, &triage, "agent", "triage").await;
    answered(node, "errand", "agent", "errand").await;
    // Injected by the chart's admission policy, from our image.
    let helper = node.json(["-n", "support", "get", "pod", "helper"]).unwrap();
    let sidecar = &helper["spec"]["initContainers"][0];
    assert_eq!(
        (&sidecar["name"], &sidecar["restartPolicy"]),
        (&"agentid".into(), &"Always".into()),
        "{helper}"
    );
    answered(node, "helper", "agent", "helper").await;
    let secrets = names(node, "secrets", "support");
    assert!(secrets.contains(&"errand-agentid".to_owned()), "{secrets:?}");
    (triage, "helper".to_owned())
}

async fn files_are_renewed_in_place(node: &Node) {
    let (secret, sidecar) =
        tokio::join!(renewed(node, "errand", "tickets.jwt"), renewed(node, "helper", "tickets.jwt"));
    let of = |by| format!("from a token's birth to its sight in the container, by the {by}");
    tell(format!("renewal_seen_secret = {secret:.1} s ({})", of("kubelet")));
    tell(format!("renewal_seen_sidecar = {sidecar:.1} s ({})", of("sidecar")));
    keep(&[
        figure("renewal_seen_secret", secret, "s", &of("kubelet")),
        figure("renewal_seen_sidecar", sidecar, "s", &of("sidecar")),
    ]);
    assert!(sidecar < 5.0, "the sidecar writes at once: {sidecar}");
    // The other files of the volume are there too, and the pods' own tokens.
    for file in ["agent.json", "identity.jwt", "jwks.json", "issuer", "ca.crt", "token"] {
        assert!(!seen(node, "errand", file).await.is_empty(), "{file}");
    }
}

async fn who_is_deleted_is_refused(node: &Node, triage: &str, helper: &str) {
    // The clients go on calling, with tokens that live on.
    node.kubectl(["-n", "support", "delete", "agentidentity", "triage", "helper"]);
    let began = Instant::now();
    let by_secret = async { (refused(node, triage, "agent").await, began.elapsed()) };
    let by_sidecar = async { (refused_or_without(node, helper).await, began.elapsed()) };
    let ((words, secret), (_, sidecar)) = tokio::join!(by_secret, by_sidecar);
    assert!(words.contains("401") && words.contains("invalid_token"), "{words}");
    tell(format!(
        "refused after the agent's deletion: {:.1} s with the Secret's token, {:.1} s with the sidecar's",
        secret.as_secs_f64(),
        sidecar.as_secs_f64()
    ));
    eventually("the sidecar takes the deleted agent's token away", SYNC, || async {
        let all = seen(node, helper, "tickets.jwt").await;
        all.last().is_some_and(|last| last["gone"] == true).then_some(()).ok_or(all)
    })
    .await;

    // With its pod goes the agent, and with it the Secret.
    node.kubectl(["-n", "support", "delete", "pod", "errand", "--grace-period=1"]);
    eventually("the pod's agent and its Secret are gone", SOON, || async {
        let left = [names(node, "agentidentities", "support"), names(node, "secrets", "support")].concat();
        if left.iter().any(|name| name.starts_with("errand")) { Err(left) } else { Ok(()) }
    })
    .await;
}

/// The sidecar may notice before the list is read: then there is no token to be refused with.
async fn refused_or_without(node: &Node, pod: &str) {
    eventually(format!("{pod} is refused, or has no token"), SYNC, || async {
        let said = [lines(node, pod, "agent", true).await, lines(node, pod, "agent", false).await].concat();
        said.iter()
            .any(|l| l.contains("the service refuses: 401") || l.contains("no token: "))
            .then_some(())
            .ok_or(said)
    })
    .await;
}

async fn upgraded_and_uninstalled(node: &Node, chart: &str) {
    let generation = |name: &str| {
        let object = node.json(["-n", SYSTEM, "get", "deployment", name]).unwrap();
        object["metadata"]["generation"].as_i64().unwrap()
    };
    let before = generation("agentid-operator");
    node.helm([
        "upgrade",
        "agentid",
        chart,
        "--namespace",
        SYSTEM,
        "--reuse-values",
        "--set",
        "logLevel=debug",
    ]);
    assert!(generation("agentid-operator") > before, "the upgrade changed nothing");
    for deployment in ["deployment/agentid-operator", "deployment/agentid-serve"] {
        ready(node, SYSTEM, deployment).await;
    }
    node.apply(&[pods::stays()]);
    eventually("an agent of after the upgrade is ready", SOON, || async {
        node.try_kubectl([
            "-n",
            "support",
            "wait",
            "--for=condition=Ready",
            "agentidentity/stays",
            "--timeout=2s",
        ])
    })
    .await;

    node.helm(["uninstall", "agentid", "--namespace", SYSTEM, "--wait"]);
    assert_eq!(names(node, "deployments", SYSTEM), [""; 0]);
    assert_eq!(names(node, "agentidentities", "support"), ["stays"], "an uninstall takes no agent");
    let kinds = node.kubectl(["get", "crd", "-o", "name"]);
    for kind in ["agentidentities", "agentresources", "agentgrants", "agentblueprints", "agentpolicies"] {
        assert!(kinds.contains(&format!("/{kind}.agentid.dev")), "{kind}: {kinds}");
    }
}

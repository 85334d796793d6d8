//! Nothing is left: on a control plane of its own, since the kinds go too.

use std::process::{Command, Output, Stdio};

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::common::{ControlPlane, Namespace, Operator};
use crate::{BROKEN, agent, ready, setup};

const SYSTEM: &str = "agentid-uninstall";

fn uninstall(cp: &ControlPlane, args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_agentid"));
    command.args(["uninstall", "-n", SYSTEM, "--kubeconfig"]).arg(&cp.kubeconfig).args(args);
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
    let [out, err] = [stdout, stderr].map(|b| String::from_utf8(b).unwrap());
    (status.code().unwrap_or(-1), out, err)
}

fn count(report: &Value, kind: &str) -> u64 {
    let groups = report["found"].as_array().unwrap();
    groups.iter().filter(|g| g["kind"] == kind).map(|g| g["count"].as_u64().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn uninstall_leaves_nothing_of_ours_and_all_else() {
    // One control plane is enough for two cores.
    let _alone = BROKEN.lock().await;
    let cp = tokio::task::spawn_blocking(|| ControlPlane::private("uninstall")).await.unwrap();
    let operator = Operator::start(&cp, setup(SYSTEM, "")).await;
    let ns = Namespace::new(&cp, "uninstall").await;
    let other = Namespace::new(&cp, "uninstall-b").await;
    ns.apply(&(0..3).map(|i| agent(&format!("a{i}")) + "\n---\n").collect::<String>()).await;
    other.apply(&agent("b")).await;
    ns.apply(
        "{apiVersion: agentid.dev/v1alpha1, kind: AgentResource, metadata: {name: left}, spec: {audience: \"https://left.example.com\"}}\n\
         ---\n{apiVersion: agentid.dev/v1alpha1, kind: AgentPolicy, metadata: {name: left}, spec: {deny: [{roles: [x]}]}}\n\
         ---\n{apiVersion: agentid.dev/v1alpha1, kind: AgentBlueprint, metadata: {name: left}, spec: {namespaceSelector: {}}}\n\
         ---\n{apiVersion: v1, kind: Secret, type: agentid.dev/credentials, metadata: {name: theirs}, stringData: {a: b}}",
    )
    .await;
    for i in 0..3 {
        ready(&ns, &format!("a{i}")).await;
    }
    ready(&other, "b").await;
    let admission =
        Command::new(env!("CARGO_BIN_EXE_agentid")).args(["admission", "-n", SYSTEM]).output().unwrap();
    let validating: String = String::from_utf8(admission.stdout)
        .unwrap()
        .split("---\n")
        .filter(|d| d.contains("kind: Validating"))
        .map(|d| format!("---\n{d}"))
        .collect();
    cp.kubectl_with_input(&["apply", "--server-side", "-f", "-"], validating.as_bytes());

    // While an operator leads, nothing is deleted, whatever is said.
    let (code, out, err) = uninstall(&cp, &["--everything", "--yes"]);
    assert_eq!(code, 1, "{out}{err}");
    assert!(err.contains("nothing was deleted: the operator ") && err.contains("helm uninstall"), "{err}");
    let (code, out, _) = uninstall(&cp, &["-o", "json"]);
    assert_eq!(code, 0);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert!(report["leader"].is_string(), "{report}");
    operator.stop();

    // Said, and not done: without --everything, with --dry-run, and where nobody can be asked.
    for args in [&["-o", "json"][..], &["--everything", "--dry-run", "-o", "json"]] {
        let (code, out, err) = uninstall(&cp, args);
        assert_eq!(code, 0, "{out}{err}");
        let report: Value = serde_json::from_str(&out).unwrap();
        for (kind, n) in [
            ("agentidentity.agentid.dev", 4),
            ("agentresource.agentid.dev", 1),
            ("agentpolicy.agentid.dev", 1),
            ("agentblueprint.agentid.dev", 1),
            ("secret", 4 + 3),
            ("configmap", 2),
            ("customresourcedefinition.apiextensions.k8s.io", 5),
            ("lease.coordination.k8s.io", 1),
        ] {
            assert_eq!(count(&report, kind), n, "{kind}: {report:#}");
        }
        assert!(count(&report, "validatingadmissionpolicy") >= 3, "{report:#}");
        assert!(report["notes"][0].as_str().unwrap().contains("left alone"), "{report:#}");
        assert!(report.get("leader").is_none() && report.get("left").is_none(), "{report:#}");
    }
    let (code, _, err) = uninstall(&cp, &["--everything"]);
    assert_eq!(code, 1);
    assert!(err.contains("there is no terminal to ask at"), "{err}");
    ready(&ns, "a0").await;

    // A finalizer of somebody else's holds one: it is said, and what else can go goes.
    let secrets: Api<Secret> = Api::namespaced(ns.client.clone(), &ns.name);
    let hold = |on: bool| json!({"metadata": {"finalizers": if on { json!(["example.com/hold"]) } else { json!(null) }}});
    secrets.patch("a0-agentid", &PatchParams::default(), &Patch::Merge(hold(true))).await.unwrap();
    let (code, out, err) = uninstall(&cp, &["--everything", "--yes"]);
    assert_eq!(code, 1, "{out}{err}");
    assert!(err.contains("1 objects are left, such as secret/a0-agentid"), "{err}");
    secrets.patch("a0-agentid", &PatchParams::default(), &Patch::Merge(hold(false))).await.unwrap();

    let (code, out, err) = uninstall(&cp, &["--everything", "--yes", "-o", "json"]);
    assert_eq!(code, 0, "{out}{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["left"], json!([]), "{report:#}");
    let (code, out, _) = uninstall(&cp, &[]);
    assert_eq!(code, 0);
    assert!(out.starts_with("nothing of agentid's is there\n"), "{out}");

    // The API server itself says so, and what is not ours is there.
    for (what, wanted) in [
        (&["get", "crd", "-o", "name"][..], ""),
        (
            &["get", "secrets", "-A", "--field-selector", "type=agentid.dev/credentials", "-o", "name"],
            "secret/theirs\n",
        ),
        (&["get", "secrets,leases", "-n", SYSTEM, "-o", "name"], ""),
        (&["get", "configmaps", "-A", "--field-selector", "metadata.name=agentid-trust", "-o", "name"], ""),
    ] {
        assert_eq!(cp.kubectl(what), wanted, "{what:?}");
    }
    let policies =
        cp.kubectl(["get", "validatingadmissionpolicies,validatingadmissionpolicybindings", "-o", "name"]);
    assert!(!policies.contains("agentid"), "{policies}");
    secrets.delete("theirs", &DeleteParams::default()).await.unwrap();
}

//! helm, as `setup.sh` finds or makes it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;

/// The namespace that everything is rendered for and installed in.
pub const NAMESPACE: &str = "agentid-system";

/// A file or directory of this repository.
pub fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The chart's directory.
pub fn chart() -> String {
    at("charts/agentid").to_string_lossy().into_owned()
}

/// A file of values.
pub fn values(name: &str) -> String {
    at("tests/chart/values").join(name).to_string_lossy().into_owned()
}

fn program() -> &'static str {
    static PROGRAM: OnceLock<String> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let output = Command::new(at("tests/chart/setup.sh")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    })
}

/// Runs helm without what the caller's own helm has been told.
pub fn try_helm(args: &[&str]) -> Output {
    let mut command = Command::new(program());
    let home = common_dir();
    for (name, place) in
        [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")]
    {
        command.env(name, home.join(place));
    }
    for name in ["HELM_NAMESPACE", "HELM_KUBECONTEXT", "HELM_DRIVER", "KUBECONFIG"] {
        command.env_remove(name);
    }
    command.args(args).output().unwrap()
}

fn common_dir() -> PathBuf {
    crate::common::target_dir().join("chart").join("helm")
}

/// Runs helm; gives what it printed.
///
/// # Panics
/// If it fails.
#[track_caller]
pub fn helm(args: &[&str]) -> String {
    let output = try_helm(args);
    assert!(output.status.success(), "helm {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What `helm template` makes of values, for the Kubernetes of the tests.
#[track_caller]
pub fn template(more: &[&str]) -> String {
    template_for("v1.37.1", more)
}

/// The same for another version of Kubernetes.
#[track_caller]
pub fn template_for(kubernetes: &str, more: &[&str]) -> String {
    let chart = chart();
    let mut args =
        vec!["template", "agentid", &chart, "--namespace", NAMESPACE, "--kube-version", kubernetes];
    args.extend(more);
    helm(&args)
}

/// The objects of a rendered chart.
pub fn objects(rendered: &str) -> Vec<Value> {
    let parse = |text: &str| serde_yaml::from_str(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    documents(rendered).into_iter().map(parse).collect()
}

/// The documents of a rendered chart that say anything.
pub fn documents(rendered: &str) -> Vec<&str> {
    let says = |text: &&str| text.lines().any(|l| !l.trim().is_empty() && !l.starts_with('#') && l != "---");
    rendered.split("\n---\n").filter(says).collect()
}

/// The object of a kind and name.
#[track_caller]
pub fn object<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = objects.iter().find(|o| o["kind"] == kind && o["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}

//! Commands that people and pipelines run against a cluster, as they are: the built program.

use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::common::{ControlPlane, audit};
use crate::kit::*;

/// The program, against the shared control plane.
fn agentid(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_agentid"));
    command.args(args).arg("--kubeconfig").arg(&ControlPlane::shared().kubeconfig);
    command.env_remove("KUBECONFIG").env_remove("AGENTID_CONFIG").stdin(Stdio::null());
    command
}

/// Runs it; gives its exit code, standard output and standard error.
fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let [out, err] = [stdout, stderr].map(|b| String::from_utf8(b).unwrap());
    (status.code().unwrap_or(-1), out, err)
}

/// What it prints; it must succeed.
#[track_caller]
fn ran(args: &[&str]) -> String {
    let (code, out, err) = run(&mut agentid(args));
    assert_eq!(code, 0, "{args:?}: {out}{err}");
    out
}

fn json_of(args: &[&str]) -> Value {
    serde_json::from_str(&ran(&[args, &["-o", "json"]].concat())).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_is_one_write_for_each_secret_and_goes_on_where_it_was() {
    let t = Test::new("rotate").await;
    let agents: Vec<_> = (0..8).map(|i| agent(&format!("a{i}"), "")).collect();
    t.apply(&(agents.concat() + &agent("stopped", "suspend: true"))).await;
    for i in 0..8 {
        t.ready(&format!("a{i}")).await;
    }
    t.refused("stopped", "Suspended", &[]).await;
    let ns = t.name.as_str();
    let mut before = Vec::new();
    for i in 0..8 {
        before.push(t.files(&format!("a{i}-agentid")).await);
    }

    let out = ran(&["rotate", "--all", "-n", ns, "--dry-run"]);
    says(
        &out,
        &["8 Secrets would be minted anew, at 20/s", "a7: Secret a7-agentid", "1 agents are left out"],
    );
    let out = ran(&["rotate", "--all", "-n", ns, "--dry-run", "-o", "name"]);
    assert_eq!(out.lines().count(), 8);
    assert!(out.starts_with("secret/a0-agentid\n"), "{out}");

    // Interrupted after the first ones, at a slow pace.
    let since = mark();
    let mut command = agentid(&["rotate", "--all", "-n", ns, "--pace", "60/m"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(3500)).await;
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let ended = child.wait_with_output().unwrap();
    let err = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{err}");
    let (_, rest) = err.rsplit_once("go on with --since ").unwrap();
    let rotation = rest.trim();
    says(&err, &["interrupted: ", " of 8 Secrets were minted anew"]);

    let report = json_of(&["rotate", "--all", "-n", ns, "--since", rotation]);
    assert_eq!(report["rotation"], rotation);
    let states: Vec<_> = report["secrets"].as_array().unwrap().iter().map(|s| &s["state"]).collect();
    assert_eq!(states, [&json!("minted"); 8]);
    assert_eq!(report["leftOut"][0]["agent"], "stopped");
    for (i, before) in before.iter().enumerate() {
        let after = t.files(&format!("a{i}-agentid")).await;
        assert_ne!(after["identity.jwt"], before["identity.jwt"], "a{i}");
    }
    t.verified("a0-agentid").await;
    let secrets = t.writes(since).into_iter().filter(|w| w.contains("secrets")).collect::<Vec<_>>();
    assert_eq!(secrets, ["patch secrets"; 8], "one write for each, however often it was asked");
    let all = audit::since(ControlPlane::shared(), since, |e| e.is_in(ns) && e.is_of("agentidentities"));
    assert!(all.iter().filter(|e| e.verb == "patch").count() >= 8, "{all:?}");

    // One more of the same has nothing to do; another rotation has.
    let out = ran(&["rotate", "--all", "-n", ns, "--since", rotation]);
    says(&out, &["0 Secrets are to be minted anew", "8 were minted anew for it already"]);
    let out = ran(&["rotate", "a0", "-n", ns]);
    says(&out, &["1 Secrets were minted anew"]);
    let (code, _, err) = run(&mut agentid(&["rotate", "nobody", "-n", ns]));
    assert_eq!(code, 1);
    says(&err, &["AgentIdentity nobody does not exist"]);
}

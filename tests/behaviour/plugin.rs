//! Commands that people and pipelines run against a cluster, as they are: the built program.

use std::path::{Path, PathBuf};
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

/// A directory of this test's own, empty.
fn directory(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_set_of_manifests_makes_an_agent_that_is_ready() {
    let t = Test::new("init").await;
    let (ns, dir) = (t.name.as_str(), directory("init"));
    let (resource, audience) = (format!("tickets-{ns}"), format!("https://tickets.{ns}.example.com"));
    let dir_text = dir.to_string_lossy().into_owned();
    let args = [
        "init",
        "-n",
        ns,
        "--agent",
        "triage",
        "--workload",
        "Deployment/triage",
        "--sponsor",
        "ann@example.com",
        "--resource",
        &resource,
        "--audience",
        &audience,
        "--role",
        "triager",
        "--scope",
        "tickets.read",
        "--output-dir",
        &dir_text,
    ];
    let init = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_agentid"));
        run(command.args(args).stdin(Stdio::null()))
    };
    let (code, out, err) = init(&args);
    assert_eq!(code, 0, "{err}");
    says(&out, &["agent.yaml: AgentIdentity", "Next: kubectl apply -f "]);
    let (code, _, err) = init(&args);
    assert_eq!(code, 1);
    says(&err, &["is there already; nothing was written"]);
    assert_eq!(init(&[&args[..], &["--force"]].concat()).0, 0);
    let (code, _, err) = init(&["init", "-n", "Bad"]);
    assert_eq!(code, 2);
    says(&err, &["lower-case letters"]);

    let cp = ControlPlane::shared();
    t.apply(&deployment("triage")).await;
    for file in ["resource.yaml", "agent.yaml", "grant.yaml"] {
        let path = dir.join(file);
        let (_, warnings) = cp.kubectl_with_input(&["apply", "-f", &path.to_string_lossy()], b"");
        assert_eq!(warnings, "", "{file}");
    }
    t.ready("triage").await;
    let file = format!("{resource}.jwt");
    let files = t.has_files("triage-agentid", &["agent.json", "identity.jwt", &file], SOON).await;
    says(&files["agent.json"], &["triager", "tickets.read"]);
    assert_eq!(t.verified("triage-agentid").await[&file].claims["aud"], json!(audience));

    // What `mount` prints is a pod's.
    let out = ran(&["mount", "triage", "-n", ns, "--container", "c"]);
    says(
        &out,
        &[
            "# For the pods of AgentIdentity ",
            "# It names no service account",
            "name: triage-agentid",
            ISSUER,
            "/var/run/agentid",
        ],
    );
    let template = json_of(&["mount", "triage", "-n", ns, "--container", "c"]);
    let patch = json!({"spec": {"template": template}}).to_string();
    cp.kubectl(["patch", "deployment", "triage", "-n", ns, "--patch", &patch]);
    let patched = cp.kubectl(["get", "deployment", "triage", "-n", ns, "-o", "json"]);
    let patched: Value = serde_json::from_str(&patched).unwrap();
    let pod = &patched["spec"]["template"];
    assert_eq!(pod["spec"]["containers"].as_array().unwrap().len(), 1, "{pod:#}");
    assert_eq!(pod["spec"]["containers"][0]["volumeMounts"][0]["mountPath"], "/var/run/agentid");
    assert_eq!(pod["metadata"]["labels"]["agentid.dev/agent"], "triage");
    let (code, _, err) = run(&mut agentid(&["mount", "nobody", "-n", ns]));
    assert_eq!(code, 1);
    says(&err, &["AgentIdentity nobody does not exist"]);
    cp.kubectl(["delete", "agentresource", &resource]);
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_set_of_manifests_with_a_blueprint_makes_agents_of_pods() {
    let t = Test::for_pods("init-blueprint").await;
    let (ns, dir) = (t.name.as_str(), directory("init-blueprint"));
    let [resource, audience] = [format!("tickets-{ns}"), format!("https://tickets.{ns}.example.com")];
    let (blueprint, dir_text) = (format!("bots-{ns}"), dir.to_string_lossy().into_owned());
    let about = ["--resource", &resource, "--audience", &audience, "--role", "reader", "--policy"];
    let whom = ["init", "-n", ns, "--blueprint", &blueprint, "--pods", "app=bot", "--identity-per", "Pod"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_agentid"));
    command.args(whom).args(about).args(["--output-dir", &dir_text]).stdin(Stdio::null());
    let (code, out, err) = run(&mut command);
    assert_eq!(code, 0, "{err}");
    says(&out, &["blueprint.yaml: AgentBlueprint", "policy.yaml: AgentPolicy", "Next: kubectl apply -f "]);

    let cp = ControlPlane::shared();
    let files = ["resource.yaml", "blueprint.yaml", "policy.yaml"];
    for file in files {
        let path = dir.join(file);
        let (_, warnings) = cp.kubectl_with_input(&["apply", "-f", &path.to_string_lossy()], b"");
        assert_eq!(warnings, "", "{file}");
    }
    t.apply(&pod("p", "app: bot, agentid.dev/agent: ''")).await;
    t.ready("p").await;
    t.grant_is("p", &format!("{blueprint}/{resource}"), "Held", "").await;
    // Nobody answers for it, and the policy only says so.
    t.condition("p", "PolicyCompliant", "False", "PolicyDenied", &[ns, "spec.require: Sponsor"]).await;
    for file in files.iter().rev() {
        cp.kubectl(["delete", "-f", &dir.join(file).to_string_lossy()]);
    }
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_that_answers_has_its_forms() {
    let t = Test::new("forms").await;
    t.apply(&[resource("r"), agent("a", ""), grant("g", "names: [a]", "r", "")].concat()).await;
    t.ready("a").await;
    t.grant_says("g", "True", "Issued", &[]).await;
    let ns = t.name.as_str();
    let policy = directory("forms").join("policy.yaml");
    std::fs::write(
        &policy,
        t.fill(
            "apiVersion: agentid.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {name: p}\nspec: {match: {namespaceSelector: \
             {matchLabels: {kubernetes.io/metadata.name: $NS}}}, deny: [{roles: [\"*\"]}]}\n",
        ),
    )
    .unwrap();
    let policy_text = policy.to_string_lossy().into_owned();
    let agent_name = "agentidentity.agentid.dev/a\n";
    for (args, names) in [
        (&["tree", "-n", ns][..], Some(agent_name)),
        (&["why", "a", "-n", ns], Some(agent_name)),
        (&["policy", "test", "-f", &policy_text], Some(agent_name)),
        (&["suspend", "a", "-n", ns, "--dry-run"], Some(agent_name)),
        (&["resume", "a", "-n", ns, "--dry-run"], Some(agent_name)),
        (&["rotate", "a", "-n", ns, "--dry-run"], Some("secret/a-agentid\n")),
        (&["keys", "status"], None),
        (&["mount", "a", "-n", ns], None),
    ] {
        let text = ran(args);
        assert!(!text.is_empty() && !text.contains('\u{1b}'), "{args:?}: {text}");
        let document = json_of(args);
        assert!(document.is_object(), "{args:?}: {document}");
        let yaml = ran(&[args, &["-o", "yaml"]].concat());
        let read: Value = serde_yaml::from_str(&yaml).unwrap();
        let keys = |v: &Value| v.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&read), keys(&document), "{args:?}: {yaml}");
        let named = run(&mut agentid(&[args, &["-o", "name"]].concat()));
        match names {
            Some(names) => assert_eq!((named.0, named.1.as_str()), (0, names), "{args:?}: {}", named.2),
            None => assert_eq!(named.0, 2, "{args:?}: {}", named.1),
        }
    }
    // Of the whole control plane, which other tests share: only the form is looked at.
    let (_, out, _) = run(&mut agentid(&["doctor", "-n", ns, "-o", "yaml"]));
    let read: Value = serde_yaml::from_str(&out).unwrap();
    assert!(read["findings"].is_array(), "{out}");

    let painted = run(agentid(&["tree", "-n", ns]).env("CLICOLOR_FORCE", "1"));
    says(&painted.1, &["\u{1b}[32mReady\u{1b}[0m"]);
    let plain = run(agentid(&["tree", "-n", ns]).env("CLICOLOR_FORCE", "1").env("NO_COLOR", "1"));
    assert!(!plain.1.contains('\u{1b}'), "{}", plain.1);
    let document = run(agentid(&["tree", "-n", ns, "-o", "yaml"]).env("CLICOLOR_FORCE", "1"));
    assert!(!document.1.contains('\u{1b}'), "{}", document.1);
    let (_, _, err) = run(agentid(&["keys", "revoke", "none", "--dry-run"]).env_remove("POD_NAMESPACE"));
    says(&err, &["there is no key \"none\""]);
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_finds_its_plugin_and_its_completion() {
    let t = Test::new("kubectl").await;
    t.apply(&agent("a", "")).await;
    t.ready("a").await;
    let cp = ControlPlane::shared();
    let dir = directory("plugin");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_agentid"), dir.join("kubectl-agentid")).unwrap();
    let complete = dir.join("kubectl_complete-agentid");
    std::fs::write(&complete, ran_alone(&["completion", "kubectl"])).unwrap();
    assert!(Command::new("chmod").arg("+x").arg(&complete).status().unwrap().success());
    let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap());
    let kubectl = |args: &[&str]| {
        run(Command::new(&cp.kubectl).args(args).env("PATH", &path).env("KUBECONFIG", &cp.kubeconfig))
    };
    let (code, out, err) = kubectl(&["agentid", "tree", "-n", &t.name, "-o", "name"]);
    assert_eq!((code, out.as_str()), (0, "agentidentity.agentid.dev/a\n"), "{err}");
    let (_, out, _) = kubectl(&["agentid", "keys", "--help"]);
    says(&out, &["Usage: kubectl agentid keys", "  kubectl agentid keys status\n"]);
    let (code, _, err) = kubectl(&["agentid", "why"]);
    assert_eq!(code, 2);
    says(&err, &["Usage: kubectl agentid why"]);
    let (_, out, _) = kubectl(&["plugin", "list"]);
    says(&out, &["kubectl-agentid"]);
    // As kubectl's own completion asks it.
    let (_, out, err) = kubectl(&["__complete", "agentid", "keys", "re"]);
    says(&out, &["revoke\t", "reset\t", ":4\n"]);
    assert!(!out.contains("rotate"), "{out}{err}");
    // What is there by that name, and where nothing answers, nothing.
    let (_, out, err) = kubectl(&["__complete", "agentid", "why", "-n", &t.name, ""]);
    assert!(out.starts_with("a\n:4\n"), "{out}{err}");
    let (_, out, _) = kubectl(&["__complete", "agentid", "tree", "--namespace", &t.name[..t.name.len() - 3]]);
    says(&out, &[&format!("{}\n", t.name)]);
    let (code, out, _) = kubectl(&["__complete", "agentid", "why", "--context", "nowhere", ""]);
    assert_eq!((code, out.starts_with(":4\n")), (0, true), "{out}");
    std::fs::remove_dir_all(dir).unwrap();
}

/// What it prints without a cluster.
fn ran_alone(args: &[&str]) -> String {
    let (code, out, err) = run(Command::new(env!("CARGO_BIN_EXE_agentid")).args(args));
    assert_eq!(code, 0, "{args:?}: {err}");
    out
}

#[test]
fn completion_scripts_and_manual_pages_can_be_read() {
    let dir = directory("completion");
    for shell in ["bash", "zsh", "fish"] {
        let script = ran_alone(&["completion", shell]);
        for command in ["tree", "rotate", "uninstall"] {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
    for (shell, script) in
        [("bash", ran_alone(&["completion", "bash"])), ("sh", ran_alone(&["completion", "kubectl"]))]
    {
        let file = dir.join(shell);
        std::fs::write(&file, script).unwrap();
        let read = Command::new(shell).arg("-n").arg(&file).output().unwrap();
        assert!(read.status.success(), "{shell}: {}", String::from_utf8_lossy(&read.stderr));
    }
    let page = ran_alone(&["man"]);
    assert!(page.contains(".TH agentid 1") && page.contains("agentid\\-rotate(1)"), "{page}");
    std::fs::remove_dir_all(dir).unwrap();
}

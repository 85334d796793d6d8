//! A node with its control plane, and the commands of those who use it: kubectl, helm.
//!
//! Invariant: dropped, or with the end of the test process, it is gone and has left nothing on the machine.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::common::target_dir;

/// What the image's certificates are made of.
const AUTHORITIES: &str = "/usr/share/ca-certificates/mozilla";
/// How long another worktree's node is waited for.
const TURN: &str = "900";

/// Tells, past the capture of a test's output: what was skipped and what was measured is to be seen.
pub fn tell(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "node test: {text}");
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Why there can be no node here.
pub fn obstacle() -> Option<String> {
    if std::env::var("AGENTID_TEST_CONTEXT").is_ok_and(|c| !c.is_empty()) {
        return Some("AGENTID_TEST_CONTEXT names a cluster; this test makes its own".to_owned());
    }
    let output = Command::new(script("tests/node/node.sh")).arg("check").output().unwrap();
    match output.status.code() {
        Some(0) => {}
        Some(3) => return Some(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        _ => panic!("node.sh check: {}", String::from_utf8_lossy(&output.stderr)),
    }
    let given = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    if !given("AGENTID_TEST_IMAGE") && !given("AGENTID_CA_BUNDLE") && !Path::new(AUTHORITIES).exists() {
        return Some(format!("there is no {AUTHORITIES} for the image: install the package ca-certificates"));
    }
    // Here and not when it is started: what runc, Go or the network lack is no fault of what is tested.
    let programs =
        Command::new(script("tests/node/get.sh")).stdin(Stdio::null()).stdout(Stdio::null()).status();
    (!programs.unwrap().success())
        .then(|| "its programs can't be had; tests/node/get.sh has said above why".to_owned())
}

/// A command that must do what it is asked; gives what it printed.
pub fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).stderr(Stdio::piped()).output();
    let output = output.unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// One that tells its progress, since the first time it takes minutes; gives what it printed.
pub fn run_told(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// The last line that a script printed: what it has made.
pub fn made_by(name: &str) -> String {
    run_told(&mut Command::new(script(name))).lines().last().expect("what was made").to_owned()
}

/// The node.
pub struct Node {
    dir: PathBuf,
    kubeconfig: String,
    kubectl: String,
    helm: String,
    clean_before: Vec<String>,
}

impl Node {
    pub fn up() -> Self {
        let dir = target_dir().join("control-planes").join(format!("node-{}", std::process::id()));
        let helm = made_by("tests/chart/setup.sh");
        let clean_before = traces();
        let mut node = Self { dir, kubeconfig: String::new(), kubectl: String::new(), helm, clean_before };
        let parent = std::process::id().to_string();
        run_told(node.script(["up", "--with-parent", &parent]).env("AGENTID_NODE_WAIT", TURN));
        let env = run(&mut node.script(["env"]));
        let value = |name: &str| {
            let line = env.lines().find_map(|l| l.strip_prefix(&format!("export {name}=")));
            line.unwrap_or_else(|| panic!("no {name}: {env}")).to_owned()
        };
        (node.kubeconfig, node.kubectl) = (value("KUBECONFIG"), value("AGENTID_KUBECTL"));
        node
    }

    fn script<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(script("tests/node/node.sh"));
        command.args(args).env("AGENTID_CP_DIR", &self.dir).env("AGENTID_CP_PORT", "auto");
        command.env_remove("APISERVER_ARGS").env_remove("KCM_ARGS");
        command
    }

    /// Makes the images of an archive known.
    pub fn import(&self, archive: &str) {
        run(&mut self.script(["import", archive]));
    }

    /// kubectl, as the administrator.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(args);
        command
    }

    pub fn kubectl<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> String {
        run(&mut self.command(args))
    }

    /// What kubectl prints, or why it fails.
    pub fn try_kubectl<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Result<String, String> {
        let output = self.command(args).stdin(Stdio::null()).output().unwrap();
        if output.status.success() { Ok(said(&output)) } else { Err(said(&output)) }
    }

    pub fn json<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Result<Value, String> {
        let text = self.try_kubectl(args.into_iter().chain(["-o", "json"]))?;
        serde_json::from_str(&text).map_err(|e| format!("{e}: {text}"))
    }

    pub fn apply(&self, objects: &[Value]) {
        let mut child = self
            .command(["apply", "--server-side", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let text: String = objects.iter().map(|o| format!("---\n{o}\n")).collect();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    }

    /// helm with the node's cluster, and with what it keeps for itself in our directory.
    pub fn helm<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> String {
        let mut command = Command::new(&self.helm);
        for kind in ["CACHE", "CONFIG", "DATA"] {
            command.env(format!("HELM_{kind}_HOME"), target_dir().join("helm").join(kind));
        }
        run(command.args(args).arg("--kubeconfig").arg(&self.kubeconfig))
    }

    /// Takes it down, and says what is left of it on the machine.
    pub fn down(self) -> Vec<String> {
        run(&mut self.script(["down"]));
        let dir = self.dir.display().to_string();
        let mut left = traces();
        left.retain(|trace| !self.clean_before.contains(trace));
        // Processes and mounts of it may take a moment to be taken apart.
        for _ in 0..50 {
            if !mentions(&dir) {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        if mentions(&dir) {
            left.push(format!("processes or mounts that name {dir}"));
        }
        if self.dir.exists() {
            left.push(dir);
        }
        left
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.dir.exists() {
            if std::thread::panicking() {
                self.explain();
            }
            let _ = self.script(["down"]).stderr(Stdio::null()).status();
        }
    }
}

impl Node {
    /// What a failure's reader wants to know of the cluster: it is gone a moment later.
    fn explain(&self) {
        for args in [
            &["get", "pods", "-A", "-o", "wide"][..],
            &["get", "events", "-A", "--sort-by=.lastTimestamp"],
            &["get", "agentid", "-A"],
            &[
                "logs",
                "-n",
                "agentid-system",
                "-l",
                "app.kubernetes.io/name=agentid",
                "--tail=15",
                "--prefix",
            ],
            &["logs", "-n", "support", "--all-pods", "deployment/triage", "--tail=5"],
        ] {
            // It may have failed before there was a kubectl.
            let Ok(output) = self.command(args).stdin(Stdio::null()).output() else { return };
            let text = said(&output);
            let lines: Vec<_> = text.lines().collect();
            eprintln!("$ kubectl {}\n{}", args.join(" "), lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}

fn lines_of(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Whether a process or a mount that is seen from here names a directory.
fn mentions(dir: &str) -> bool {
    lines_of("/proc/self/mountinfo").contains(dir)
        || std::fs::read_dir("/proc").unwrap().filter_map(Result::ok).any(|entry| {
            let own = entry.file_name().to_str() == Some(&std::process::id().to_string());
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            !own && String::from_utf8_lossy(&command).contains(dir)
        })
}

/// What a node could leave: interfaces, control groups, mounts, directories, kernel settings.
fn traces() -> Vec<String> {
    let mut found = Vec::new();
    let list = |at: &str| -> Vec<String> {
        let entries = std::fs::read_dir(at).into_iter().flatten().filter_map(Result::ok);
        entries.map(|e| e.path().display().to_string()).collect()
    };
    found.extend(list("/sys/class/net"));
    for place in ["/sys/fs/cgroup", "/run", "/var/lib", "/var/log", "/run/netns", "/run/containerd"] {
        // What `mount` keeps for itself since whoever called it first.
        found.extend(list(place).into_iter().filter(|p| p != "/run/mount"));
    }
    for hierarchy in list("/sys/fs/cgroup") {
        found.extend(list(&hierarchy).into_iter().filter(|p| Path::new(p).is_dir()));
    }
    found.extend(lines_of("/proc/self/mounts").lines().map(str::to_owned));
    for setting in ["vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops"] {
        found.push(format!("{setting} = {}", lines_of(&format!("/proc/sys/{setting}")).trim()));
    }
    found.push(format!("net.ipv4.ip_forward = {}", lines_of("/proc/sys/net/ipv4/ip_forward").trim()));
    found
}

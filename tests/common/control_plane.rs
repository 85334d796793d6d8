//! Control planes: the one that all tests of the process share, and private ones for tests that break it.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::{target_dir, unique};

/// A Kubernetes API server with controllers, with the CustomResourceDefinitions of this version.
pub struct ControlPlane {
    /// The kubeconfig of a cluster administrator.
    pub kubeconfig: PathBuf,
    /// The kubectl of the control plane's version.
    pub kubectl: PathBuf,
    /// The audit log: of control planes that the tests started.
    pub audit_log: Option<PathBuf>,
    /// The state directory of one that the tests started.
    dir: Option<PathBuf>,
    private: bool,
}

impl ControlPlane {
    /// The control plane that every test may use, each in a namespace of its own. One that is up is used;
    /// else it is started, and lives as long as the processes that asked for it.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<ControlPlane> = OnceLock::new();
        SHARED.get_or_init(|| {
            let control_plane = match std::env::var("AGENTID_TEST_CONTEXT") {
                Ok(context) if !context.is_empty() => Self::existing(&context),
                _ => {
                    let dir = std::env::var_os("AGENTID_CP_DIR").map(PathBuf::from);
                    Self::start(dir.unwrap_or_else(|| target_dir().join("control-plane")), false, "")
                }
            };
            control_plane.install_crds();
            control_plane
        })
    }

    /// One that the test may break. It is taken down when the value is dropped or the process ends.
    pub fn private(name: &str) -> Self {
        let control_plane = Self::bare(name, "");
        control_plane.install_crds();
        control_plane
    }

    /// A private one without our definitions; with further flags of the API server (words, no quoting).
    pub fn bare(name: &str, apiserver_args: &str) -> Self {
        let dir = target_dir().join("control-planes").join(format!("{name}-{}", std::process::id()));
        Self::start(dir, true, apiserver_args)
    }

    fn start(dir: PathBuf, private: bool, apiserver_args: &str) -> Self {
        let parent = if private { std::process::id() } else { lasting_process() };
        script(&dir, ["up", "--with-parent", &parent.to_string()], apiserver_args);
        let bash =
            r#"eval "$("$0" env)"; printf '%s\n' "$KUBECONFIG" "$AGENTID_KUBECTL" "$AGENTID_AUDIT_LOG""#;
        let mut command = Command::new("bash");
        command.args(["-euc", bash]).arg(script_path()).env("AGENTID_CP_DIR", &dir);
        let text = String::from_utf8(run(&mut command).stdout).unwrap();
        let paths: Vec<_> = text.lines().map(PathBuf::from).collect();
        let [kubeconfig, kubectl, audit_log] = &paths[..] else { panic!("cp.sh env: {text}") };
        Self {
            kubeconfig: kubeconfig.clone(),
            kubectl: kubectl.clone(),
            audit_log: Some(audit_log.clone()),
            dir: Some(dir),
            private,
        }
    }

    /// The cluster behind a context of the user's kubeconfig, asked for by name.
    fn existing(context: &str) -> Self {
        let view = ["config", "view", "--minify", "--flatten", "--raw", "--context", context];
        let config = run(Command::new("kubectl").args(view)).stdout;
        let kubeconfig = target_dir().join("test-context.kubeconfig");
        // It holds the user's credentials.
        let _ = std::fs::remove_file(&kubeconfig);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&kubeconfig).unwrap();
        file.write_all(&config).unwrap();
        Self { kubeconfig, kubectl: PathBuf::from("kubectl"), audit_log: None, dir: None, private: false }
    }

    fn install_crds(&self) {
        let definitions = run(Command::new(env!("CARGO_BIN_EXE_agentid")).arg("crds")).stdout;
        self.kubectl_with_input(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &definitions);
        let names =
            ["agentidentities", "agentresources", "agentgrants"].map(|n| format!("crd/{n}.agentid.dev"));
        self.kubectl(
            ["wait", "--for=condition=Established", "--timeout=60s"]
                .into_iter()
                .chain(names.iter().map(|n| &**n)),
        );
    }

    /// A client of a cluster administrator. It belongs to the calling test's runtime.
    pub async fn client(&self) -> Client {
        // Whoever tests refusals and outages wants the answer itself, not the client's patience.
        let mut config = self.config().await;
        config.default_retry = false;
        Client::try_from(config).unwrap()
    }

    /// The client configuration of a cluster administrator.
    pub async fn config(&self) -> Config {
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig).unwrap();
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap()
    }

    /// A new kubeconfig with which an administrator acts as a user of these groups; only its owner may read it.
    pub fn kubeconfig_as(&self, user: &str, groups: &[&str]) -> PathBuf {
        let mut config = Kubeconfig::read_from(&self.kubeconfig).unwrap();
        for auth in &mut config.auth_infos {
            let auth = auth.auth_info.as_mut().unwrap();
            auth.impersonate = Some(user.to_owned());
            auth.impersonate_groups = Some(groups.iter().map(|g| (*g).to_owned()).collect());
        }
        let path = target_dir().join("test-logs").join(format!("as-{}.kubeconfig", unique()));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap();
        serde_json::to_writer(file, &config).unwrap();
        path
    }

    /// Runs kubectl; gives what it printed.
    ///
    /// # Panics
    /// If it fails.
    pub fn kubectl<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> String {
        let mut command = Command::new(&self.kubectl);
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(args);
        String::from_utf8(run(&mut command).stdout).unwrap()
    }

    /// Runs kubectl with standard input; gives what it printed to standard output and to standard error,
    /// where the API server's warnings are.
    ///
    /// # Panics
    /// If it fails.
    pub fn kubectl_with_input(&self, args: &[&str], input: &[u8]) -> (String, String) {
        let mut command = Command::new(&self.kubectl);
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        let [out, err] = [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned());
        assert!(output.status.success(), "kubectl {args:?}: {err}");
        (out, err)
    }

    /// Stops the API server, leaving the rest. For private ones only.
    pub fn stop_apiserver(&self) {
        self.fault("stop-apiserver");
    }

    /// Kills the API server (SIGKILL), leaving the rest. For private ones only.
    pub fn kill_apiserver(&self) {
        self.fault("kill-apiserver");
    }

    /// Starts the API server again, and returns when it is ready.
    pub fn start_apiserver(&self) {
        self.fault("start-apiserver");
    }

    /// Holds etcd still: the API server answers nothing that it does not have at hand. For private ones only.
    pub fn pause_etcd(&self) {
        self.fault("pause-etcd");
    }

    /// Lets etcd run on.
    pub fn resume_etcd(&self) {
        self.fault("resume-etcd");
    }

    /// Copies what etcd holds; it runs on. For private ones only.
    pub fn backup_etcd(&self) {
        self.fault("backup-etcd");
    }

    /// Sets etcd back to the copy, everything that belongs to the control plane started anew, and returns when
    /// it is ready.
    pub fn restore_etcd(&self) {
        self.fault("restore-etcd");
    }

    fn fault(&self, command: &str) {
        assert!(self.private, "{command}: only on a private control plane");
        script(self.dir.as_ref().unwrap(), [command], "");
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        if let (true, Some(dir)) = (self.private, &self.dir) {
            let down = Command::new(script_path()).arg("down").env("AGENTID_CP_DIR", dir).output();
            if !down.is_ok_and(|o| o.status.success()) {
                eprintln!("{}: could not be taken down", dir.display());
            }
        }
    }
}

/// The process whose end should end the shared control plane: cargo, where it runs several test binaries
/// one after the other, else this one.
fn lasting_process() -> u32 {
    let parent = std::os::unix::process::parent_id();
    let name = std::fs::read_to_string(format!("/proc/{parent}/comm")).unwrap_or_default();
    if name.starts_with("cargo") { parent } else { std::process::id() }
}

fn script_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/control-plane/cp.sh")
}

/// Runs `cp.sh`. Its progress goes to the test's standard error, since the first time takes minutes.
fn script<'a>(dir: &Path, args: impl IntoIterator<Item = &'a str>, apiserver_args: &str) {
    let mut command = Command::new(script_path());
    if !apiserver_args.is_empty() {
        command.env("APISERVER_ARGS", apiserver_args);
    }
    command.args(args).env("AGENTID_CP_DIR", dir).stdin(Stdio::null()).stdout(Stdio::null());
    if std::env::var_os("AGENTID_CP_PORT").is_none() || dir.starts_with(target_dir().join("control-planes")) {
        command.env("AGENTID_CP_PORT", "auto");
    }
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}

fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

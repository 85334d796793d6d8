//! The operator as a process: the built program, started, stopped, killed, held still.

use std::fs;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Mutex;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use super::process::{Process, tail};
use super::{ControlPlane, eventually, http_get, target_dir, unique};

/// The logs of this process's operators, to show their ends when a test fails.
static LOGS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// How an operator is started.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The namespace of its key ring and Lease; made if need be.
    pub namespace: String,
    /// The configuration file's content.
    pub configuration: String,
    /// Further environment.
    pub environment: Vec<(String, String)>,
    /// How long it may take to be ready and lead. A predecessor that was killed holds the Lease for a while.
    pub patience: Duration,
    /// As whom it asks the API server; the control plane's administrator when absent.
    pub kubeconfig: Option<PathBuf>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            namespace: "agentid-system".to_owned(),
            configuration: "apiVersion: config.agentid.dev/v1alpha1\nkind: Configuration\n\
                issuer: https://agents.example.com\ntrustDomain: agents.example.com\n"
                .to_owned(),
            environment: vec![("RUST_LOG".to_owned(), "info,agentid=debug".to_owned())],
            patience: Duration::from_secs(60),
            kubeconfig: None,
        }
    }
}

/// A running operator. Dropped, it is ended by SIGTERM.
pub struct Operator {
    /// `127.0.0.1:<port>` of its health and metrics.
    pub admin: String,
    process: Process,
}

impl Operator {
    /// The operator that all tests of the process share, on the shared control plane. Two operators must
    /// never serve one cluster, so test binaries that use it must not run at the same time (cargo runs them
    /// one after the other).
    pub async fn shared() -> &'static Self {
        static SHARED: tokio::sync::OnceCell<Operator> = tokio::sync::OnceCell::const_new();
        SHARED.get_or_init(|| Self::start(ControlPlane::shared(), Setup::default())).await
    }

    /// Starts one and waits until it is ready and leads.
    pub async fn start(control_plane: &ControlPlane, setup: Setup) -> Self {
        let client = control_plane.client().await;
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": setup.namespace}});
        Api::<Namespace>::all(client.clone())
            .patch(&setup.namespace, &PatchParams::apply("test"), &Patch::Apply(&namespace))
            .await
            .unwrap();
        let before = holders(&client, &setup.namespace).await.unwrap();

        let operator = Self::spawn(control_plane, &setup);
        eventually("the operator is ready and leads", setup.patience, || async {
            assert!(operator.process.runs(), "the operator ended by itself\n{}", tail(operator.log()));
            let (code, body) = http_get(&operator.admin, "/readyz").await.map_err(|e| e.to_string())?;
            if code != 200 {
                return Err(format!("/readyz: {code} {body}"));
            }
            let now = holders(&client, &setup.namespace).await.map_err(|e| e.to_string())?;
            if now == before { Err(format!("no Lease was taken since the start: {now:?}")) } else { Ok(()) }
        })
        .await;
        operator
    }

    /// Starts one and does not wait: its namespace must be there.
    pub fn spawn(control_plane: &ControlPlane, setup: &Setup) -> Self {
        let dir = target_dir().join("test-logs");
        fs::create_dir_all(&dir).unwrap();
        let id = unique();
        let log = dir.join(format!("operator-{id}.log"));
        LOGS.lock().unwrap().push(log.clone());
        let config = dir.join(format!("operator-{id}.yaml"));
        fs::write(&config, &setup.configuration).unwrap();
        let admin = format!("127.0.0.1:{}", free_port());
        let words = [
            env!("CARGO_BIN_EXE_agentid"),
            "operator",
            "--config",
            &config.to_string_lossy(),
            "--namespace",
            &setup.namespace,
            "--kubeconfig",
            &setup.kubeconfig.as_ref().unwrap_or(&control_plane.kubeconfig).to_string_lossy(),
            "--admin-listen",
            &admin,
        ]
        .map(str::to_owned);
        Self { process: Process::spawn(log, &words, &setup.environment), admin }
    }

    /// Its log file.
    pub fn log(&self) -> &PathBuf {
        &self.process.log
    }

    /// Its PID.
    pub fn pid(&self) -> u32 {
        self.process.pid
    }

    /// Whether it still runs.
    pub fn runs(&self) -> bool {
        self.process.runs()
    }

    /// Waits for its end; gives its exit status.
    pub fn wait(self) -> ExitStatus {
        self.process.wait()
    }

    /// Ends it by SIGTERM; gives its exit status.
    ///
    /// # Panics
    /// If it takes more than 30 s.
    pub fn stop(self) -> ExitStatus {
        self.process.signal("TERM");
        self.process.wait()
    }

    /// Ends it by SIGKILL, as a lost node would.
    pub fn kill9(self) {
        self.process.signal("KILL");
        self.process.wait();
    }

    /// Holds it still (SIGSTOP), as an overloaded node would.
    pub fn pause(&self) {
        self.process.signal("STOP");
    }

    /// Lets it run on.
    pub fn resume(&self) {
        self.process.signal("CONT");
    }

    /// Sends it a signal, if it still runs.
    pub fn signal_if_running(&self, name: &str) {
        self.process.signal_if_running(name);
    }

    /// Its metrics, in the text format.
    pub async fn metrics(&self) -> String {
        http_get(&self.admin, "/metrics").await.unwrap().1
    }
}

/// Who holds each Lease of the namespace, and since when: another answer shows that one was taken.
async fn holders(client: &Client, namespace: &str) -> Result<Vec<String>, kube::Error> {
    let leases = Api::<Lease>::namespaced(client.clone(), namespace).list(&ListParams::default()).await?;
    Ok(leases
        .items
        .into_iter()
        .filter_map(|l| l.spec)
        .filter(|s| s.holder_identity.as_ref().is_some_and(|h| !h.is_empty()))
        .map(|s| format!("{:?} since {:?}", s.holder_identity, s.acquire_time))
        .collect())
}

/// A port that nothing listens on now.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Prints the end of every operator's log.
pub fn print_log_tails() {
    for log in LOGS.lock().unwrap().iter() {
        eprintln!("--- the end of {}\n{}", log.display(), tail(log));
    }
}

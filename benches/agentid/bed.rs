//! What the benchmarks run on: a control plane, the operator, namespaces with agents.
//!
//! Invariant: no other operator works on the same cluster; whatever is made is in namespaces that go when the
//! value is dropped.

use std::time::Duration;

use agentid::api::AgentIdentity;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ListParams, PartialObjectMeta, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::common::{ControlPlane, Namespace, Operator, Setup, eventually, http_get};
use crate::report::say;

/// Where AgentIdentities of all namespaces are.
pub const AGENTS: &str = "/apis/agentid.dev/v1alpha1/agentidentities";
/// How many creations of the bench's own are under way at once.
pub const CREATORS: usize = 16;

/// A control plane, and the namespace of the operator.
pub struct Bed {
    /// A cluster administrator, who is not the operator.
    pub client: Client,
    system: Namespace,
    // Last, so that it goes last.
    private: Option<ControlPlane>,
}

impl Bed {
    /// The control plane that is up, else one that is started; one of our own, if somebody else's operator
    /// leads on it.
    pub async fn new() -> Self {
        let shared = ControlPlane::shared();
        assert!(shared.audit_log.is_some(), "the figures need an audit log: AGENTID_TEST_CONTEXT has none");
        let private = if leads(&shared.client().await).await {
            say("another operator leads on that control plane; starting one of the bench's own");
            Some(ControlPlane::private("bench"))
        } else {
            None
        };
        let control_plane = private.as_ref().unwrap_or(shared);
        let client = control_plane.client().await;
        let system = Namespace::new(control_plane, "bench-system").await;
        Self { client, system, private }
    }

    /// The control plane.
    pub fn control_plane(&self) -> &ControlPlane {
        self.private.as_ref().unwrap_or_else(|| ControlPlane::shared())
    }

    /// Starts the operator, with further lines of configuration; returns when it leads and has looked at
    /// every agent once.
    pub async fn operator(&self, configuration: &str) -> Operator {
        let operator = Operator::start(self.control_plane(), self.setup(configuration)).await;
        eventually("every agent has been looked at once", Duration::from_secs(120), || async {
            let log = std::fs::read_to_string(operator.log()).map_err(|e| e.to_string())?;
            if log.contains("looked at once") { Ok(()) } else { Err("not told in the log".to_owned()) }
        })
        .await;
        quiet(&operator).await;
        operator
    }

    /// How [`Self::operator`] starts it.
    pub fn setup(&self, configuration: &str) -> Setup {
        let mut setup = Setup {
            namespace: self.system.name.clone(),
            // As it is shipped: the log that users have.
            environment: vec![("RUST_LOG".to_owned(), "info".to_owned())],
            ..Setup::default()
        };
        setup.configuration.push_str(configuration);
        setup
    }

    /// Starts one more operator; returns when it has seen what there is. It leads when no other does.
    pub async fn standby(&self, setup: Setup) -> Operator {
        let operator = Operator::spawn(self.control_plane(), &setup);
        eventually("the operator has seen what there is", setup.patience, || async {
            let (code, body) = http_get(&operator.admin, "/readyz").await.map_err(|e| e.to_string())?;
            if code == 200 { Ok(()) } else { Err(body) }
        })
        .await;
        operator
    }

    /// Makes a namespace in which every agent gets two tokens: who it is, and a right on a resource.
    pub async fn namespace(&self, prefix: &str) -> Namespace {
        let namespace = Namespace::new(self.control_plane(), prefix).await;
        namespace.apply(RESOURCE).await;
        self.grant(&namespace, &namespace.name).await;
        namespace
    }

    /// Grants all agents of a namespace a resource of [`Self::namespace`].
    pub async fn grant(&self, namespace: &Namespace, resource: &str) {
        namespace.apply(&GRANT.replace("$RESOURCE", resource)).await;
    }

    /// Deletes all agents and Secrets of a namespace and waits until they are gone. The operator must not
    /// run: the figures that follow should not pay for this.
    pub async fn clear(&self, namespace: &str) {
        self.delete_all::<Secret>(namespace).await;
        self.delete_all::<AgentIdentity>(namespace).await;
    }

    async fn delete_all<K>(&self, namespace: &str)
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        let api = Api::<K>::namespaced(self.client.clone(), namespace);
        eventually("the bench's objects are deleted", Duration::from_secs(600), || async {
            // The API server ends a long deletion after a minute: it is asked again.
            let _ = api.delete_collection(&DeleteParams::default(), &ListParams::default()).await;
            let left = api.list_metadata(&ListParams::default().limit(1)).await.map_err(|e| e.to_string())?;
            let left: Vec<PartialObjectMeta<K>> = left.items;
            if left.is_empty() { Ok(()) } else { Err("some are left".to_owned()) }
        })
        .await;
    }

    /// Creates agents, many at once.
    pub async fn create_agents(&self, namespace: &str, names: impl IntoIterator<Item = String>) {
        stream::iter(names)
            .map(|name| self.create_agent(namespace, name))
            .buffer_unordered(CREATORS)
            .try_collect::<()>()
            .await
            .unwrap();
    }

    /// Creates one agent.
    pub async fn create_agent(&self, namespace: &str, name: String) -> Result<(), kube::Error> {
        post(&self.client, &agents_of(namespace), &agent_body(&name), "application/json").await.map(drop)
    }

    /// Creates Secrets that are nobody's business, of 8 kB each.
    pub async fn create_foreign_secrets(&self, namespace: &str, count: usize) {
        let api = &Api::<Secret>::namespaced(self.client.clone(), namespace);
        let filler = &"x".repeat(8192);
        stream::iter(0..count)
            .map(|i| async move {
                let secret = json!({
                    "metadata": {"name": format!("foreign-{i:05}")}, "type": "Opaque", "stringData": {"a": filler},
                });
                api.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.map(drop)
            })
            .buffer_unordered(CREATORS)
            .try_collect::<()>()
            .await
            .unwrap();
    }
}

/// A resource in reach of every test namespace.
const RESOURCE: &str = r"
apiVersion: agentid.dev/v1alpha1
kind: AgentResource
metadata: {name: $NS}
spec:
  audience: https://$NS.example.com
  roles: [{name: triager}, {name: reader}]
  allow: [{namespaceSelector: {matchLabels: {agentid.dev/test: 'true'}}, roles: [triager, reader]}]
";

const GRANT: &str = r"
apiVersion: agentid.dev/v1alpha1
kind: AgentGrant
metadata: {name: tickets}
spec:
  agents: {selector: {}}
  resource: $RESOURCE
  application: {roles: [triager, reader]}
  secretKey: tickets.jwt
";

/// The collection of a namespace's agents.
pub fn agents_of(namespace: &str) -> String {
    format!("/apis/agentid.dev/v1alpha1/namespaces/{namespace}/agentidentities")
}

/// An agent as teams write it.
pub fn agent_body(name: &str) -> Value {
    json!({
        "apiVersion": "agentid.dev/v1alpha1", "kind": "AgentIdentity", "metadata": {"name": name},
        "spec": {
            "displayName": "Ticket triage",
            "sponsors": [{"kind": "User", "name": "ann@example.com"}],
        },
    })
}

/// Creates an object; gives the answer unread.
pub async fn post(client: &Client, path: &str, body: &Value, accept: &str) -> Result<String, kube::Error> {
    let request = http::Request::post(format!("{path}?fieldManager=bench"))
        .header("content-type", "application/json")
        .header("accept", accept)
        .body(serde_json::to_vec(body).unwrap())
        .unwrap();
    client.request_text(request).await
}

/// Waits until the operator has nothing to do.
pub async fn quiet(operator: &Operator) {
    eventually("the operator has nothing to do", Duration::from_secs(300), || async {
        let text = operator.metrics().await;
        let busy: f64 =
            ["agentid_queue_depth", "agentid_work_in_progress"].iter().map(|m| metric(&text, m)).sum();
        if busy == 0.0 { Ok(()) } else { Err(format!("{busy} pieces of work are left")) }
    })
    .await;
}

/// The resident memory of a process, in bytes.
pub fn resident(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0
}

/// The processor time that the operator has used, in seconds.
pub fn cpu_seconds(operator: &Operator) -> f64 {
    cpu_of(&operator.pid().to_string())
}

/// The processor time that `/proc/<of>` has used, in seconds: in units of 10 ms, as Linux counts for programs.
pub fn cpu_of(of: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{of}/stat")).unwrap();
    // proc(5): utime and stime are the 14th and 15th field; the 2nd, in brackets, may hold spaces.
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    let ticks: f64 = rest.split(' ').skip(11).take(2).map(|t| t.parse::<f64>().unwrap()).sum();
    ticks / 100.0
}

/// The sum of a metric's lines whose name and labels begin so.
pub fn metric(text: &str, begin: &str) -> f64 {
    text.lines()
        .filter(|l| l.starts_with(begin))
        .filter_map(|l| l.rsplit_once(' ').and_then(|(_, v)| v.parse::<f64>().ok()))
        .sum()
}

/// Whether an operator leads, somewhere on the cluster.
async fn leads(client: &Client) -> bool {
    let leases = Api::<Lease>::all(client.clone());
    let ours = ListParams::default().fields("metadata.name=agentid-operator");
    leases.list(&ours).await.unwrap().items.into_iter().filter_map(|l| l.spec).any(|s| {
        let held = s.holder_identity.is_some_and(|h| !h.is_empty());
        let since = s.renew_time.map(|t| jiff::Timestamp::now().duration_since(t.0).as_secs());
        held && since.is_some_and(|s| s < 60)
    })
}

//! The operator and the token service of one burst, its namespace, and what is counted there.

use std::fmt::Debug;
use std::ops::Deref;
use std::sync::{Arc, Mutex as StdMutex};
use std::time::{Duration, Instant};

use agentid::api::{AgentBlueprint, AgentIdentity, GRANT_LABEL, MANAGED_BY, SECRET_TYPE, TRUST_NAME};
use agentid::crypto::{Expect, Typ, verify};
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use kube::core::NamespaceResourceScope;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinHandle;

use crate::common::audit::{self, Entry};
use crate::common::{ControlPlane, Namespace, Operator, eventually};
use crate::service::{Service, Town};

/// Calls of a test's own that are under way at once.
pub const AT_ONCE: usize = 32;
/// For what a whole burst waits for.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// Two operators must never serve one cluster, and two bursts would be one.
static TURN: Mutex<()> = Mutex::const_new(());

/// The namespace of a burst, with an operator and a token service that know of nothing else.
pub struct Stage {
    pub ns: Namespace,
    pub town: Town,
    pub service: Service,
    began: Instant,
    _operator: Kept,
    _system: Namespace,
    // Last: the next one comes when all else is gone.
    _turn: MutexGuard<'static, ()>,
}

/// An operator that is started again when it ends by itself, as Kubernetes would: on a machine that stalls for seconds it
/// loses its Lease.
struct Kept {
    operator: Arc<StdMutex<Option<Operator>>>,
    keeper: JoinHandle<()>,
}

impl Kept {
    async fn start(town: &Town) -> Self {
        let operator = town.operator(ControlPlane::shared()).await;
        let operator = Arc::new(StdMutex::new(Some(operator)));
        let (kept, town) = (operator.clone(), town.clone());
        let keeper = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let ended = kept.lock().unwrap().as_ref().is_some_and(|o| !o.runs());
                if ended {
                    println!("the operator has ended by itself and is started again");
                    let again = town.operator(ControlPlane::shared()).await;
                    *kept.lock().unwrap() = Some(again);
                }
            }
        });
        Self { operator, keeper }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.keeper.abort();
        // It has ended when this returns.
        drop(self.operator.lock().unwrap().take());
    }
}

impl Deref for Stage {
    type Target = Namespace;
    fn deref(&self) -> &Namespace {
        &self.ns
    }
}

impl Stage {
    /// `more` is appended to the configuration.
    pub async fn new(prefix: &str, more: &str) -> Self {
        let turn = TURN.lock().await;
        let control_plane = ControlPlane::shared();
        // The key ring is of one issuer, which is another each time.
        let system = Namespace::new(control_plane, "burst-system").await;
        let town = Town::new(&system.name, more);
        let operator = Kept::start(&town).await;
        let service = town.serve(control_plane).await;
        let ns = Namespace::for_pods(control_plane, prefix).await;
        Self { ns, town, service, began: Instant::now(), _operator: operator, _system: system, _turn: turn }
    }

    /// Prints how long it took so far.
    pub fn phase(&self, what: impl std::fmt::Display) {
        println!("{:6.1} s  {what}", self.began.elapsed().as_secs_f64());
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    pub async fn agents(&self) -> Vec<AgentIdentity> {
        self.api().list(&ListParams::default()).await.unwrap().items
    }

    /// Waits until a blueprint counts so many made agents, and as many that may have credentials.
    pub async fn counts(&self, blueprint: &str, wanted: usize) {
        let blueprints: Api<AgentBlueprint> = Api::all(self.client.clone());
        let wanted = i64::try_from(wanted).unwrap();
        eventually(format!("AgentBlueprint {blueprint} counts {wanted}"), PATIENCE, || async {
            let status = blueprints.get(blueprint).await.map_err(|e| e.to_string())?.status;
            let status = status.unwrap_or_default();
            let all = [status.made, status.ready].map(Option::unwrap_or_default);
            if all == [wanted, wanted] { Ok(()) } else { Err(format!("made, ready: {all:?}")) }
        })
        .await;
    }

    /// How many writes the operator has made about agents and their Secrets, Events among them; none is known on a
    /// cluster that the tests did not start.
    pub fn writes(&self) -> Option<usize> {
        let control_plane = ControlPlane::shared();
        let ours = |e: &Entry| {
            let kinds = ["agentidentities", "agentidentities/status", "secrets", "events"];
            e.user_agent.starts_with("agentid/")
                && e.is_in(&self.name)
                && kinds.iter().any(|kind| e.is_of(kind))
        };
        control_plane.audit_log.as_ref().map(|_| audit::count(control_plane, audit::Mark::start(), ours))
    }

    /// What there is of ours in the namespace, at the API server: AgentIdentities, Secrets, RoleBindings, ConfigMaps.
    pub async fn ours(&self) -> [usize; 4] {
        let secrets = ListParams::default().fields(&format!("type={SECRET_TYPE}"));
        let bindings = format!("{}={},{GRANT_LABEL}", MANAGED_BY.0, MANAGED_BY.1);
        let trust = ListParams::default().fields(&format!("metadata.name={TRUST_NAME}"));
        [
            self.count::<AgentIdentity>(&ListParams::default()).await,
            self.count::<Secret>(&secrets).await,
            self.count::<RoleBinding>(&ListParams::default().labels(&bindings)).await,
            self.count::<ConfigMap>(&trust).await,
        ]
    }

    async fn count<K>(&self, of: &ListParams) -> usize
    where
        K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        self.api::<K>().list_metadata(of).await.unwrap().items.len()
    }

    /// Waits until nothing of ours is left.
    pub async fn nothing_is_left(&self) {
        eventually("nothing of agentid is left", PATIENCE, || async {
            let left = self.ours().await;
            if left == [0; 4] {
                Ok(())
            } else {
                // A look lists thousands of objects: not every 50 ms.
                tokio::time::sleep(Duration::from_millis(500)).await;
                Err(format!("agents, Secrets, RoleBindings, ConfigMaps: {left:?}"))
            }
        })
        .await;
    }

    /// Deletes objects, many at once.
    pub async fn delete_all<K>(&self, names: impl IntoIterator<Item = String>, params: &DeleteParams)
    where
        K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + 'static,
    {
        let api = self.api::<K>();
        each(names, |name| {
            let (api, params) = (api.clone(), params.clone());
            async move { api.delete(&name, &params).await.map(drop).unwrap() }
        })
        .await;
    }

    /// The claims of a token, which the service's published keys vouch for.
    pub fn verified(
        &self,
        token: &str,
        keys: &agentid::crypto::JwkSet,
        audience: &str,
        typ: Typ,
    ) -> serde_json::Map<String, Value> {
        let now = jiff::Timestamp::now().as_second();
        let expect = Expect { issuer: &self.town.issuer, audience, typ, leeway: 2, now };
        verify(token, keys, &expect).unwrap_or_else(|e| panic!("{audience}: {e}")).claims
    }
}

/// Does something with each, many at once and each on a task of its own; in no order.
pub async fn each<I, T, F>(items: impl IntoIterator<Item = I>, work: impl Fn(I) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    stream::iter(items.into_iter().map(|item| tokio::spawn(work(item))))
        .buffer_unordered(AT_ONCE)
        .map(Result::unwrap)
        .collect()
        .await
}

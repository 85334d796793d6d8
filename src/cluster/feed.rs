//! Watches → World: one task a source.
//!
//! Invariants: a relist is a diff, taken in by chunks so that decisions go on between them; an object that
//! can't be read is reported and skipped, and what is known of it stays; a kind that isn't served makes only
//! its own agents wait; a world of a cluster that was set back to an older state is not mended but given up.

mod shared;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

pub use self::shared::SharedWorld;
use super::client::{CallError, Class, timed};
use super::watch::{Rewound, Signal, Unreadable, WatchSpec, What, watch};
use super::wire::{
    Wire, WireAgent, WireBinding, WireBlueprint, WireClusterRole, WireGrant, WireObject, WirePolicy,
    WireResource, WireSecret, WireTrust, WireWorkload,
};
use crate::api::{BoundKind, GRANT_LABEL, MANAGED_BY, SECRET_TYPE, TRUST_NAME};
use crate::domain::{Key, Lost, Object, Origin, Source, kind_name};

/// Where ClusterRoles are served.
pub(super) const CLUSTER_ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
/// Objects taken in under one lock.
const CHUNK: usize = 200;
/// How often to ask for a kind that isn't served.
const MISSING_KIND: Duration = Duration::from_secs(5);

/// An object that was skipped, to be reported.
#[derive(Clone, Debug)]
pub struct Skipped {
    /// Its source.
    pub source: Source,
    /// Its name.
    pub key: Key,
    /// Its UID, as it was said.
    pub uid: String,
    /// Why.
    pub problem: String,
}

/// Where skipped objects are reported.
pub type Report = Arc<dyn Fn(Skipped) + Send + Sync>;

/// Starts the operator's watches, one a source; they end with `stop`.
pub fn feed_operator(
    client: &kube::Client,
    world: &Arc<SharedWorld>,
    report: &Report,
    stop: &CancellationToken,
) {
    let feeds = Feeds { client, world, report, stop };
    feeds.shared();
    let secrets = WatchSpec::new("/api/v1/secrets").fields(format!("type={SECRET_TYPE}")).metadata_only();
    feeds.start::<WireSecret>(Source::Secrets, secrets);
    let trust = WatchSpec::new("/api/v1/configmaps").fields(format!("metadata.name={TRUST_NAME}"));
    feeds.start::<WireTrust>(Source::Trust, trust);
    let ours = format!("{}={},{GRANT_LABEL}", MANAGED_BY.0, MANAGED_BY.1);
    let bindings = WatchSpec::new("/apis/rbac.authorization.k8s.io/v1/rolebindings").labels(&ours);
    feeds.start::<WireBinding>(Source::Bindings, bindings);
}

/// Starts the token service's watches; `lease` names the operator's Lease.
pub fn feed_service(
    client: &kube::Client,
    world: &Arc<SharedWorld>,
    report: &Report,
    lease: &Key,
    stop: &CancellationToken,
) {
    let feeds = Feeds { client, world, report, stop };
    feeds.shared();
    let accounts = WatchSpec::new("/api/v1/serviceaccounts").metadata_only();
    feeds.start::<WireObject>(Source::ServiceAccounts, accounts);
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", lease.namespace);
    let lease = WatchSpec::new(path).fields(format!("metadata.name={}", lease.name)).metadata_only();
    feeds.start::<WireObject>(Source::Lease, lease);
}

struct Feeds<'a> {
    client: &'a kube::Client,
    world: &'a Arc<SharedWorld>,
    report: &'a Report,
    stop: &'a CancellationToken,
}

impl Feeds<'_> {
    fn feeder(&self, source: Source, mut spec: WatchSpec) -> Feeder {
        // A quiet watch is heard of when it is asked for anew: well within the time for which it is believed.
        let stale = self.world.read().config().max_stale.0;
        spec.timeout_seconds = spec.timeout_seconds.min(stale * 2 / 5).max(1);
        Feeder {
            client: self.client.clone(),
            world: self.world.clone(),
            report: self.report.clone(),
            source,
            spec,
        }
    }

    fn start<T: Wire>(&self, source: Source, spec: WatchSpec) {
        spawn(self.feeder(source, spec).run::<T>(), self.stop);
    }

    /// Our kinds, namespaces, ClusterRoles, and the bound kinds with their hops.
    fn shared(&self) {
        let ours = |plural: &str| WatchSpec::new(format!("/apis/{}/{plural}", crate::api::API_VERSION));
        self.start::<WireAgent>(Source::Agents, ours("agentidentities"));
        self.start::<WireResource>(Source::Resources, ours("agentresources"));
        self.start::<WireGrant>(Source::Grants, ours("agentgrants"));
        self.start::<WireBlueprint>(Source::Blueprints, ours("agentblueprints"));
        self.start::<WirePolicy>(Source::Policies, ours("agentpolicies"));
        self.start::<WireObject>(Source::Namespaces, WatchSpec::new("/api/v1/namespaces").metadata_only());
        self.start::<WireClusterRole>(Source::ClusterRoles, WatchSpec::new(CLUSTER_ROLES));
        let (config, hops) = {
            let world = self.world.read();
            (world.config().clone(), world.hops())
        };
        let hops = hops.iter().filter_map(|hop| hop.rsplit_once('/')).map(|(api_version, kind)| BoundKind {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
        });
        for kind in config.bound_kinds.iter().cloned().chain(hops) {
            let source = Source::Bound(kind_name(&kind.api_version, &kind.kind));
            let spec = match (kind.api_version.as_str(), kind.kind.as_str()) {
                ("v1", "Pod") => WatchSpec::new("").labels(&config.pod_selector),
                ("batch/v1", "Job") => WatchSpec::new(""),
                _ => WatchSpec::new("").metadata_only(),
            };
            spawn(self.feeder(source, spec).run_discovered(kind), self.stop);
        }
    }
}

fn spawn(work: impl Future<Output = ()> + Send + 'static, stop: &CancellationToken) {
    let stop = stop.clone();
    tokio::spawn(async move { stop.run_until_cancelled(work).await });
}

struct Feeder {
    client: kube::Client,
    world: Arc<SharedWorld>,
    report: Report,
    source: Source,
    spec: WatchSpec,
}

impl Feeder {
    /// A bound kind: its plural is asked for until the API server serves it.
    async fn run_discovered(mut self, kind: BoundKind) {
        self.spec.path = loop {
            match collection(&self.client, &kind).await {
                Ok(Some(path)) => break path,
                Ok(None) => {
                    self.lost(Lost::NotServed);
                    tracing::warn!(source = %self.source, "the API server does not serve this kind; its agents wait");
                }
                Err(e) => self.lost(lost(&e)),
            }
            tokio::time::sleep(MISSING_KIND).await;
        };
        if self.spec.metadata_only {
            self.run::<WireObject>().await;
        } else {
            self.run::<WireWorkload>().await;
        }
    }

    async fn run<T: Wire>(self) {
        let mut signals = watch::<T>(self.client.clone(), self.spec.clone());
        while let Some(signal) = signals.next().await {
            match signal {
                Signal::Listing => self.world.write().begin_list(&self.source),
                Signal::Page(page) => {
                    let mut page = page.into_iter();
                    while page.len() > 0 {
                        self.take_all(page.by_ref().take(CHUNK));
                    }
                }
                Signal::Listed(revision) => {
                    if let Some(proof) = self.older_than_known(&revision) {
                        return self.world.give_up(proof);
                    }
                    self.listed(&revision).await;
                    self.reached(&revision);
                }
                Signal::Apply(object) => {
                    self.world.write().heard(&self.source, Timestamp::now());
                    self.take_all([object]);
                }
                Signal::Delete(object) => self.delete(object),
                Signal::Heard(revision) => {
                    self.world.write().heard(&self.source, Timestamp::now());
                    if let Some(revision) = revision {
                        self.reached(&revision);
                    }
                }
                Signal::Unreadable(object) => self.skip(object),
                Signal::Lost(error) => {
                    tracing::warn!(source = %self.source, class = %error.class(), %error, "watch failed");
                    self.lost(lost(&error));
                }
                Signal::Rewound(proof) if self.source.is_of_etcd() => return self.world.give_up(proof),
                // The list that follows says what is there.
                Signal::Rewound(proof) => tracing::debug!(source = %self.source, %proof, "it counts anew"),
            }
            self.world.tell();
        }
    }

    /// Whether a list held an object as it was before it was what we know: a backup can be restored with its
    /// revision raised, so that the list itself is not behind.
    fn older_than_known(&self, revision: &str) -> Option<Rewound> {
        let (now, known) = self.world.read().ahead(&self.source).filter(|_| self.source.is_of_etcd())?;
        let listed: u64 = revision.parse().ok()?;
        // What is newer than the list is the answer to a write of ours.
        (known <= listed).then(|| Rewound { what: What::Object(self.source.to_string()), known, now })
    }

    fn reached(&self, revision: &str) {
        if let Ok(version) = revision.parse() {
            self.world.write().reached(&self.source, version);
        }
    }

    /// Takes objects in under one lock; what can't be understood is reported without it.
    fn take_all<T: Wire>(&self, objects: impl IntoIterator<Item = T>) {
        let mut unreadable = Vec::new();
        let mut world = self.world.write();
        for object in objects {
            match self.read(object, false) {
                Ok(object) => world.take(object, Origin::Watch),
                Err(object) => unreadable.push(object),
            }
        }
        drop(world);
        unreadable.into_iter().for_each(|object| self.skip(object));
    }

    /// What the world takes in of an object, or which it is and why it can't.
    fn read<T: Wire>(&self, object: T, deleted: bool) -> Result<Object, Unreadable> {
        let [namespace, name, uid] = object.which().map(str::to_owned);
        object.object(&self.source).map_err(|unfit| Unreadable {
            namespace: Some(namespace),
            name,
            uid,
            deleted,
            error: unfit.to_string(),
        })
    }

    async fn listed(&self, revision: &str) {
        let revision = revision.parse().ok().filter(|_| self.source.is_of_etcd()).unwrap_or(u64::MAX);
        let missing = self.world.read().missing(&self.source, revision);
        for chunk in missing.chunks(CHUNK) {
            {
                let mut world = self.world.write();
                for (key, uid) in chunk {
                    world.remove(&self.source, key, *uid, 0);
                }
            }
            self.world.tell();
            tokio::task::yield_now().await;
        }
        self.world.write().end_list(&self.source, Timestamp::now());
        tracing::debug!(source = %self.source, removed = missing.len(), "listed");
    }

    fn delete<T: Wire>(&self, object: T) {
        let read = self.read(object, true);
        let mut world = self.world.write();
        world.heard(&self.source, Timestamp::now());
        let object = match read {
            Ok(object) => object,
            Err(unreadable) => {
                drop(world);
                return self.skip(unreadable);
            }
        };
        let (key, uid, version) = {
            let meta = object.meta();
            (meta.key.clone(), meta.uid, meta.version)
        };
        if let Object::Bound(kind, bound) = &object
            && bound.meta.deleting
        {
            world.note_gone(kind, &key, uid);
        }
        world.remove(&self.source, &key, uid, version);
    }

    /// What can't be read stays as it is known, unless another object has its name by now, and is reported; its deletion
    /// needs no reading.
    fn skip(&self, object: Unreadable) {
        let key = Key::new(object.namespace.unwrap_or_default(), object.name);
        let uid = object.uid.parse().ok();
        if object.deleted {
            if let Some(uid) = uid {
                self.world.write().remove(&self.source, &key, uid, 0);
            }
            return;
        }
        self.world.write().keep(&self.source, &key, uid);
        (self.report)(Skipped { source: self.source.clone(), key, uid: object.uid, problem: object.error });
    }

    fn lost(&self, why: Lost) {
        self.world.write().lost(&self.source, why);
    }
}

fn lost(error: &CallError) -> Lost {
    match error.class() {
        Class::NotFound => Lost::NotServed,
        Class::Forbidden => Lost::Forbidden,
        _ => Lost::Unreachable,
    }
}

#[derive(Deserialize)]
struct ResourceList {
    #[serde(default)]
    resources: Vec<ServedResource>,
}

#[derive(Deserialize)]
struct ServedResource {
    name: String,
    kind: String,
    #[serde(default)]
    namespaced: bool,
}

/// The path under which a kind is served in all namespaces; `None` while it isn't.
///
/// # Errors
/// The call's.
pub async fn collection(client: &kube::Client, kind: &BoundKind) -> Result<Option<String>, CallError> {
    let root =
        if kind.api_version == "v1" { "/api/v1".to_owned() } else { format!("/apis/{}", kind.api_version) };
    let request = http::Request::get(&root)
        .header("accept", "application/json")
        .body(Vec::new())
        .map_err(|e| CallError::from(kube::Error::HttpError(e)))?;
    match timed(client.request::<ResourceList>(request)).await {
        Ok(list) => Ok(list
            .resources
            .into_iter()
            .find(|r| r.kind == kind.kind && r.namespaced && !r.name.contains('/'))
            .map(|r| format!("{root}/{}", r.name))),
        Err(e) if e.class() == Class::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests;

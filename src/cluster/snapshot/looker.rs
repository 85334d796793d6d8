//! Who looks: lists and gets, each once, into the world that is being put together.
//!
//! Invariant: nothing is written, and no watch is opened.

use futures::StreamExt;
use jiff::Timestamp;
use kube::Client;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::taking::Taking;
use super::{SnapshotError, similar};
use crate::api::{API_VERSION, BoundKind, LabelSelector, SECRET_TYPE};
use crate::cluster::client::{CallError, Class, timed};
use crate::cluster::feed::{CLUSTER_ROLES, Skipped, collection};
use crate::cluster::watch::{Signal, Unreadable, WatchSpec, watch};
use crate::cluster::wire::{
    Wire, WireAgent, WireBlueprint, WireClusterRole, WireGrant, WireObject, WirePolicy, WireResource,
    WireSecret, WireTrust, WireWorkload,
};
use crate::cluster::write::Writer;
use crate::domain::{Bound, Foreign, Key, Object, Source, kind_name};

pub(super) struct Looker<'a> {
    pub(super) client: &'a Client,
    pub(super) writer: Writer,
    pub(super) namespace: &'a str,
}

impl Looker<'_> {
    pub(super) async fn agent(&self, agent: &Key) -> Result<Value, SnapshotError> {
        let collection = format!("/apis/{API_VERSION}/agentidentities");
        let failed = |source| SnapshotError::Call { agent: agent.clone(), source };
        if let Some(found) = self.writer.look::<Value>(&collection, agent).await.map_err(failed)? {
            return Ok(found);
        }
        let here = WatchSpec::new(self.namespaced("agentidentities")).metadata_only();
        let mut names = Vec::new();
        match self.list::<WireObject>(here, |o| names.extend(named(o))).await {
            Err(e) if e.class() == Class::NotFound => return Err(SnapshotError::NotInstalled),
            Err(e) => return Err(failed(e)),
            Ok(_) => {}
        }
        let everywhere =
            WatchSpec::new(collection).fields(format!("metadata.name={}", agent.name)).metadata_only();
        let mut elsewhere = Vec::new();
        // Who may not look everywhere gets no such hint.
        let _ = self.list::<WireObject>(everywhere, |o| elsewhere.extend(named(o))).await;
        Err(SnapshotError::AgentNotFound {
            similar: similar(&agent.name, names.iter().map(|k| &*k.name)),
            elsewhere: elsewhere.iter().map(|k| k.namespace.to_string()).take(5).collect(),
            others: names.len(),
            agent: agent.clone(),
        })
    }

    pub(super) async fn fill(&self, taking: &mut Taking, trust: Result<Option<Value>, CallError>) {
        let ours = |plural: &str| WatchSpec::new(self.namespaced(plural));
        self.take::<WireAgent>(taking, Source::Agents, ours("agentidentities")).await;
        self.take::<WireGrant>(taking, Source::Grants, ours("agentgrants")).await;
        let resources = WatchSpec::new(format!("/apis/{API_VERSION}/agentresources"));
        self.take::<WireResource>(taking, Source::Resources, resources).await;
        let blueprints = WatchSpec::new(format!("/apis/{API_VERSION}/agentblueprints"));
        self.take::<WireBlueprint>(taking, Source::Blueprints, blueprints).await;
        let policies = WatchSpec::new(format!("/apis/{API_VERSION}/agentpolicies"));
        self.take::<WirePolicy>(taking, Source::Policies, policies).await;
        let secrets = WatchSpec::new(format!("/api/v1/namespaces/{}/secrets", self.namespace))
            .fields(format!("type={SECRET_TYPE}"))
            .metadata_only();
        self.take::<WireSecret>(taking, Source::Secrets, secrets).await;
        // One that may not list namespaces may often read its own.
        let namespace = self.get(&format!("/api/v1/namespaces/{}", self.namespace)).await;
        taking.one::<WireObject>(&Source::Namespaces, namespace);
        taking.one::<WireTrust>(&Source::Trust, trust);
    }

    /// The ClusterRoles, if some resource is this cluster.
    pub(super) async fn cluster_roles(&self, taking: &mut Taking, assumed: bool) {
        if !taking.world.resources().any(|r| r.kubernetes) {
            return;
        }
        if assumed {
            taking.world.assume_bindable();
        }
        self.take::<WireClusterRole>(taking, Source::ClusterRoles, WatchSpec::new(CLUSTER_ROLES)).await;
    }

    /// The object that the agent is bound to, looked up by name: a pod also where no watch would show it.
    pub(super) async fn bound(&self, taking: &mut Taking, agent: &Key, bound: &Bound) {
        let Bound { kind, name, .. } = bound;
        if !taking.world.may_bind(kind) {
            return;
        }
        let source = Source::Bound(kind.clone());
        let (api_version, kind_only) = kind.rsplit_once('/').unwrap_or(("v1", kind));
        let of = BoundKind { api_version: api_version.to_owned(), kind: kind_only.to_owned() };
        let path = match collection(self.client, &of).await {
            Ok(Some(path)) => path,
            Ok(None) => {
                let missing = format!("{} is not served", kind_name(api_version, kind_only));
                return taking.failed(source, CallError::new(Class::NotFound, missing));
            }
            Err(e) => return taking.failed(source, e),
        };
        let object = agent.sibling(name.clone());
        match kind_only {
            "Pod" if api_version == "v1" => {
                let pod = self.writer.look::<WireWorkload>(&path, &object).await;
                let selector =
                    taking.world.config().pod_selector.parse::<LabelSelector>().unwrap_or_default();
                let selected = |p: &WireWorkload| selector.matches(|k| p.labels().get(k).map(String::as_str));
                match pod {
                    Ok(Some(pod)) if !selected(&pod) => {
                        if let Ok(Object::Bound(kind, pod)) = pod.object(&source) {
                            taking.world.note_unselected(&kind, *pod);
                        }
                        taking.listed(&source);
                    }
                    other => taking.read(&source, other),
                }
            }
            "Job" => taking.read(&source, self.writer.look::<WireWorkload>(&path, &object).await),
            _ => taking.read(&source, self.writer.look::<WireObject>(&path, &object).await),
        }
    }

    /// A Secret that bears the agent's Secret's name without being ours, which no list of ours shows.
    pub(super) async fn foreign(&self, taking: &mut Taking, agent: &Key) {
        let Some(key) = taking.world.agent(agent).map(|a| agent.sibling(a.secret_name.clone())) else {
            return;
        };
        if taking.world.secret(&key).is_some() {
            return;
        }
        // One of ours may have been written since the list.
        let foreign = match self.writer.secret_in_the_way(&key).await {
            Ok(Some(found)) => found.credentials().is_ok_and(|c| c.agent.is_none()),
            _ => false,
        };
        if foreign {
            let foreign = Foreign { what: "a Secret".into(), checked: Timestamp::now() };
            taking.world.note_foreign(&key, Some(foreign));
        }
    }

    fn namespaced(&self, plural: &str) -> String {
        format!("/apis/{API_VERSION}/namespaces/{}/{plural}", self.namespace)
    }

    pub(super) async fn get(&self, path: &str) -> Result<Option<Value>, CallError> {
        let request = http::Request::get(path)
            .header("accept", "application/json")
            .body(Vec::new())
            .map_err(|e| CallError::from(kube::Error::HttpError(e)))?;
        match timed(self.client.request::<Value>(request)).await {
            Ok(found) => Ok(Some(found)),
            Err(e) if e.class() == Class::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Takes a whole list in.
    pub(super) async fn take<T: Wire>(&self, taking: &mut Taking, source: Source, spec: WatchSpec) {
        taking.world.begin_list(&source);
        let listed = self.list::<T>(spec, |object| taking.object(&source, object.object(&source))).await;
        match listed {
            Ok(unreadable) => {
                taking.skipped.extend(unreadable.into_iter().map(|object| Skipped {
                    source: source.clone(),
                    key: Key::new(object.namespace.unwrap_or_default(), object.name),
                    uid: object.uid,
                    problem: object.error,
                }));
                taking.listed(&source);
            }
            Err(error) => taking.failed(source, error),
        }
    }

    async fn list<T: DeserializeOwned + Send + 'static>(
        &self,
        spec: WatchSpec,
        each: impl FnMut(T),
    ) -> Result<Vec<Unreadable>, CallError> {
        list(self.client, spec, each).await
    }
}

/// Lists by pages and gives up at the first failure; gives what can't be read. The stream reads nothing ahead, so no
/// watch is opened.
///
/// # Errors
/// What the API server said.
pub async fn list<T: DeserializeOwned + Send + 'static>(
    client: &Client,
    spec: WatchSpec,
    mut each: impl FnMut(T),
) -> Result<Vec<Unreadable>, CallError> {
    let mut unreadable = Vec::new();
    let mut signals = watch::<T>(client.clone(), spec);
    while let Some(signal) = signals.next().await {
        match signal {
            Signal::Page(page) => page.into_iter().for_each(&mut each),
            Signal::Unreadable(object) => unreadable.push(object),
            Signal::Listed(_) => break,
            Signal::Lost(error) => return Err(error),
            Signal::Listing
            | Signal::Apply(_)
            | Signal::Delete(_)
            | Signal::Heard(_)
            | Signal::Rewound(_) => {}
        }
    }
    Ok(unreadable)
}

fn named(object: WireObject) -> Option<Key> {
    object.object(&Source::Namespaces).ok().map(|o| o.meta().key.clone())
}

//! One look at the cluster: as much of the world as the decision about one agent needs, listed once.
//!
//! Invariants: nothing is written; objects are read by the wire types of the watches, so the decision is the
//! operator's; a source that could not be listed says nothing (unknown is not absent), and that it could not
//! is said beside the world.

mod similar;
#[cfg(test)]
mod tests;
mod whole;

use std::collections::BTreeMap;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Client;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;

pub use self::similar::similar;
pub use self::whole::{Whole, WholeError, whole};
use super::client::{CallError, Class, timed};
use super::feed::{CLUSTER_ROLES, Skipped, collection};
use super::watch::{Signal, Unreadable, WatchSpec, watch};
use super::wire::{
    Wire, WireAgent, WireBlueprint, WireClusterRole, WireGrant, WireObject, WirePolicy, WireResource,
    WireSecret, WireTrust, WireWorkload,
};
use super::write::Writer;
use crate::api::{
    API_VERSION, AgentIdentityStatus, BoundKind, Configuration, LabelSelector, SECRET_TYPE, TRUST_NAME,
};
use crate::domain::{Bound, Foreign, Key, Lost, Object, Origin, POD, Source, Unfit, World, kind_name};

/// A source that could not be listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unseen {
    /// The source.
    pub source: Source,
    /// What the API server said.
    pub error: CallError,
    /// Whether the decision was made without it, as though it were empty: it can change no grant.
    pub assumed_empty: bool,
}

/// The world as one agent's decision needs it.
#[derive(Debug)]
pub struct Snapshot {
    /// The world.
    pub world: World,
    /// The conditions that stand in the agent's status: what the operator has said last.
    pub conditions: Vec<Condition>,
    /// The agent's id as its status says it; `None` before the operator wrote it.
    pub agent_id: Option<String>,
    /// What could not be seen.
    pub unseen: Vec<Unseen>,
    /// Objects that can't be read and are left out.
    pub skipped: Vec<Skipped>,
    /// The issuer as the trust ConfigMap or the configuration says it; `None` where neither is there.
    pub issuer: Option<String>,
}

/// Why there is no snapshot.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// There is no such agent.
    #[error("AgentIdentity {agent} does not exist in namespace {namespace}{hint}", agent = agent.name,
        namespace = agent.namespace, hint = hint(similar, elsewhere, *others))]
    AgentNotFound {
        /// The agent.
        agent: Key,
        /// Agents of the namespace with a similar name.
        similar: Vec<String>,
        /// Other namespaces that have an agent of this name.
        elsewhere: Vec<String>,
        /// How many agents the namespace has.
        others: usize,
    },
    /// Our kinds are not installed.
    #[error(
        "the API server does not serve {API_VERSION}: install the kinds with `agentid crds | kubectl apply \
         --server-side -f -`"
    )]
    NotInstalled,
    /// The agent can't be read.
    #[error("AgentIdentity {agent}: {problem}")]
    Unreadable {
        /// The agent.
        agent: Key,
        /// Why.
        problem: String,
    },
    /// A call without which nothing can be said.
    #[error("cannot read AgentIdentity {agent}: {source}")]
    Call {
        /// The agent.
        agent: Key,
        /// What the API server said.
        source: CallError,
    },
}

fn hint(similar: &[String], elsewhere: &[String], others: usize) -> String {
    if !similar.is_empty() {
        return format!("; did you mean {}?", similar.join(", "));
    }
    if !elsewhere.is_empty() {
        return format!("; one of that name is in namespace {} (-n)", elsewhere.join(", "));
    }
    match others {
        0 => ", which has none; name another namespace with -n".to_owned(),
        n => format!(", which has {n} of other names: kubectl get agentidentities shows them"),
    }
}

/// Looks once. Without a configuration the defaults are taken, with the issuer of the namespace's trust
/// ConfigMap and the trust domain of the agent's id.
///
/// # Errors
/// [`SnapshotError`] where the agent does not exist or can't be read.
pub async fn snapshot(
    client: &Client,
    config: Option<Configuration>,
    agent: &Key,
) -> Result<Snapshot, SnapshotError> {
    let looker = Looker { client, writer: Writer::new(client.clone()), namespace: &agent.namespace };
    let found = looker.agent(agent).await?;
    let unreadable = |problem: String| SnapshotError::Unreadable { agent: agent.clone(), problem };
    let status: AgentIdentityStatus = match found.get("status") {
        Some(status) => serde_json::from_value(status.clone()).map_err(|e| unreadable(e.to_string()))?,
        None => AgentIdentityStatus::default(),
    };
    let (bound, blueprint) = match serde_json::from_value::<WireAgent>(found)
        .map_err(|e| unreadable(e.to_string()))?
        .object(&Source::Agents)
        .map_err(|e| unreadable(e.to_string()))?
    {
        Object::Agent(agent) => (agent.bound, agent.blueprint),
        _ => (None, None),
    };
    let trust = looker.writer.look::<Value>("/api/v1/configmaps", &agent.sibling(TRUST_NAME)).await;
    let issuer =
        config.as_ref().map(|c| c.issuer.clone()).or_else(|| issuer_of(trust.as_ref().ok()?.as_ref()?));
    let assumed = config.is_none();
    let config = config.unwrap_or_else(|| {
        let trust_domain = status.agent_id.as_deref().and_then(trust_domain_of).unwrap_or_default();
        let mut config = Configuration::new(issuer.as_deref().unwrap_or_default(), trust_domain);
        // What the operator has recorded the UID of, it may be bound to by the operator's configuration.
        if let Some((api_version, kind)) = bound.as_ref().and_then(|b| b.kind.rsplit_once('/'))
            && status.bound_object_uid.is_some()
        {
            config.bound_kinds.push(BoundKind { api_version: api_version.to_owned(), kind: kind.to_owned() });
        }
        config
    });
    let mut taking = Taking {
        world: World::new(config),
        unseen: Vec::new(),
        skipped: Vec::new(),
        of_blueprint: blueprint.is_some(),
    };
    looker.fill(&mut taking, trust).await;
    looker.cluster_roles(&mut taking, assumed).await;
    if let Some(bound) = bound {
        looker.bound(&mut taking, agent, &bound).await;
    }
    looker.foreign(&mut taking, agent).await;
    let Taking { world, unseen, skipped, .. } = taking;
    if world.agent(agent).is_none() && unseen.iter().all(|u| u.source != Source::Agents) {
        return Err(unreadable("it was deleted while it was being looked at".to_owned()));
    }
    Ok(Snapshot { world, conditions: status.conditions, agent_id: status.agent_id, unseen, skipped, issuer })
}

fn issuer_of(trust: &Value) -> Option<String> {
    #[derive(Deserialize)]
    struct Trust {
        #[serde(default)]
        data: BTreeMap<String, String>,
    }
    Trust::deserialize(trust).ok()?.data.remove("issuer")
}

fn trust_domain_of(agent_id: &str) -> Option<&str> {
    agent_id.strip_prefix("spiffe://")?.split_once('/').map(|(domain, _)| domain)
}

/// What is being put together.
struct Taking {
    world: World,
    unseen: Vec<Unseen>,
    skipped: Vec<Skipped>,
    /// The agent names a blueprint.
    of_blueprint: bool,
}

impl Taking {
    fn object(&mut self, source: &Source, object: Result<Object, Unfit>) {
        match object {
            Ok(object) => self.world.take(object, Origin::Watch),
            Err(unfit) => tracing::warn!(%source, %unfit, "an object is left out"),
        }
    }

    /// A source that was listed completely.
    fn listed(&mut self, source: &Source) {
        self.world.end_list(source, Timestamp::now());
    }

    /// A source that could not be listed. Who asks may see less than the operator does: what changes no grant
    /// is then taken for empty, and said.
    fn failed(&mut self, source: Source, error: CallError) {
        let changes_nothing = matches!(source, Source::Secrets | Source::Trust)
            || (source == Source::Blueprints && !self.of_blueprint);
        let assumed_empty = changes_nothing && error.class() == Class::Forbidden;
        if assumed_empty {
            self.listed(&source);
        } else {
            self.world.lost(&source, lost(&error));
        }
        self.unseen.push(Unseen { source, error, assumed_empty });
    }
}

fn lost(error: &CallError) -> Lost {
    match error.class() {
        Class::NotFound => Lost::NotServed,
        Class::Forbidden => Lost::Forbidden,
        _ => Lost::Unreachable,
    }
}

struct Looker<'a> {
    client: &'a Client,
    writer: Writer,
    namespace: &'a str,
}

impl Looker<'_> {
    async fn agent(&self, agent: &Key) -> Result<Value, SnapshotError> {
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

    async fn fill(&self, taking: &mut Taking, trust: Result<Option<Value>, CallError>) {
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
    async fn cluster_roles(&self, taking: &mut Taking, assumed: bool) {
        if !taking.world.resources().any(|r| r.kubernetes) {
            return;
        }
        if assumed {
            taking.world.assume_bindable();
        }
        self.take::<WireClusterRole>(taking, Source::ClusterRoles, WatchSpec::new(CLUSTER_ROLES)).await;
    }

    /// The object that the agent is bound to, looked up by name: a pod also where no watch would show it.
    async fn bound(&self, taking: &mut Taking, agent: &Key, bound: &Bound) {
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
    async fn foreign(&self, taking: &mut Taking, agent: &Key) {
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

    async fn get(&self, path: &str) -> Result<Option<Value>, CallError> {
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
    async fn take<T: Wire>(&self, taking: &mut Taking, source: Source, spec: WatchSpec) {
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

impl Taking {
    /// A source of which one object by name is all that is needed.
    fn one<T: Wire>(&mut self, source: &Source, found: Result<Option<Value>, CallError>) {
        let found = match found {
            Ok(Some(value)) => match serde_json::from_value::<T>(value) {
                Ok(object) => Ok(Some(object)),
                Err(e) => Err(CallError::new(Class::Server, super::client::shape_error(&e))),
            },
            Ok(None) => Ok(None),
            Err(e) => Err(e),
        };
        self.read(source, found);
    }

    fn read<T: Wire>(&mut self, source: &Source, found: Result<Option<T>, CallError>) {
        match found {
            Ok(found) => {
                if let Some(object) = found {
                    self.object(source, object.object(source));
                }
                self.listed(source);
            }
            Err(error) => self.failed(source.clone(), error),
        }
    }
}

fn named(object: WireObject) -> Option<Key> {
    object.object(&Source::Namespaces).ok().map(|o| o.meta().key.clone())
}

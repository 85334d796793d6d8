//! One look at the cluster: as much of the world as the decision about one agent needs, listed once.
//!
//! Invariants: nothing is written; objects are read by the wire types of the watches, so the decision is the
//! operator's; a source that could not be listed says nothing (unknown is not absent), and that it could not
//! is said beside the world.

mod looker;
mod similar;
mod taking;
#[cfg(test)]
mod tests;
mod whole;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Client;
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use self::looker::Looker;
pub use self::looker::list;
pub use self::similar::similar;
use self::taking::Taking;
pub use self::whole::{Whole, WholeError, whole};
use super::client::CallError;
use super::feed::Skipped;
use super::wire::{Wire, WireAgent};
use super::write::Writer;
use crate::api::{API_VERSION, AgentIdentityStatus, BoundKind, Configuration, TRUST_NAME};
use crate::domain::{Key, Object, Source, World};

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

//! Which agents a command means: one by name, by labels, of a blueprint, or all.
//!
//! Invariant: one agent needs no more than its namespace's rights; all else is of the whole cluster.

use clap::{ArgGroup, Args};
use kube::Client;
use thiserror::Error;

use super::look::{Look, LookError, notes};
use super::why::object_name;
use crate::api::LabelSelector;
use crate::cluster::snapshot::{SnapshotError, Unseen, snapshot};
use crate::domain::{Agent, Key, World};

/// Which agents.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("whom").required(true).multiple(false))]
pub struct WhomArgs {
    /// One AgentIdentity, of the namespace of -n or of the kubeconfig's context
    #[arg(group = "whom", value_parser = object_name)]
    agent: Option<String>,
    /// All agents with these labels, as `kubectl -l` takes them; of all namespaces unless -n names one
    #[arg(long, short = 'l', group = "whom", value_name = "LABELS", value_parser = selector)]
    selector: Option<LabelSelector>,
    /// All agents of an AgentBlueprint
    #[arg(long, group = "whom", value_name = "NAME", conflicts_with = "namespace")]
    blueprint: Option<String>,
    /// All agents; of all namespaces unless -n names one
    #[arg(long, group = "whom")]
    all: bool,
    /// Only in this namespace
    #[arg(long, short, value_parser = object_name)]
    pub(super) namespace: Option<String>,
}

/// Which agents, said.
#[derive(Debug)]
pub(super) enum Whom {
    One(Key),
    /// All if both are absent.
    Selected {
        namespace: Option<String>,
        selector: Option<LabelSelector>,
    },
    Blueprint(String),
}

/// What was seen of the cluster.
pub(super) struct Sight {
    pub(super) client: Client,
    pub(super) world: World,
    pub(super) unseen: Vec<Unseen>,
    pub(super) notes: Vec<String>,
    pub(super) whom: Whom,
}

/// Why nobody can be meant.
#[derive(Debug, Error)]
pub enum WhomError {
    /// The cluster can't be looked at.
    #[error(transparent)]
    Look(#[from] LookError),
    /// The agent.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// No such blueprint.
    #[error("AgentBlueprint {0} does not exist; `kubectl get agentblueprints` shows those that do")]
    NoBlueprint(String),
}

fn selector(text: &str) -> Result<LabelSelector, String> {
    text.parse::<LabelSelector>().map_err(|e| e.to_string())
}

impl WhomArgs {
    /// Looks at the cluster, as far as it is needed for those who are meant.
    pub(super) async fn look(&self, look: &Look) -> Result<Sight, WhomError> {
        if let Some(name) = &self.agent {
            let config = look.configuration()?;
            let assumed = config.is_none();
            let clients = look.clients().await?;
            let namespace = self.namespace.as_ref().unwrap_or(&clients.namespace_default);
            let key = Key::new(namespace.as_str(), name.as_str());
            let seen = snapshot(&clients.write, config, &key).await?;
            let notes = notes(&seen.unseen, &seen.skipped, assumed);
            let (client, world, unseen) = (clients.write, seen.world, seen.unseen);
            return Ok(Sight { client, world, unseen, notes, whom: Whom::One(key) });
        }
        let seen = look.take().await?;
        let notes = seen.notes();
        let whom = match (&self.blueprint, &self.selector) {
            (Some(name), _) if seen.whole.world.blueprint(&name.as_str().into()).is_none() => {
                return Err(WhomError::NoBlueprint(name.clone()));
            }
            (Some(name), _) => Whom::Blueprint(name.clone()),
            (None, selector) => {
                Whom::Selected { namespace: self.namespace.clone(), selector: selector.clone() }
            }
        };
        let (client, world, unseen) = (seen.clients.write, seen.whole.world, seen.whole.unseen);
        Ok(Sight { client, world, unseen, notes, whom })
    }

    /// Where nobody was found, for people.
    pub(super) fn place(&self) -> String {
        self.namespace.as_ref().map(|n| format!(" in namespace {n}")).unwrap_or_default()
    }
}

impl Whom {
    /// Those of a world, in their order.
    pub(super) fn of(&self, world: &World) -> Vec<Agent> {
        let mut agents: Vec<Agent> = world.agents().filter(|a| self.means(a)).cloned().collect();
        agents.sort_unstable_by(|a, b| a.meta.key.cmp(&b.meta.key));
        agents
    }

    fn means(&self, agent: &Agent) -> bool {
        match self {
            Self::One(key) => agent.meta.key == *key,
            Self::Blueprint(name) => agent.blueprint.as_deref() == Some(name),
            Self::Selected { namespace, selector } => {
                namespace.as_ref().is_none_or(|n| *agent.meta.key.namespace == **n)
                    && selector.as_ref().is_none_or(|s| agent.labels.matched_by(s))
            }
        }
    }
}

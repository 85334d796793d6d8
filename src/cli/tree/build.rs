//! The tree, from a world.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use crate::api::{GrantState, Reason};
use crate::cli::look::{AGENT, named};
use crate::domain::{Agent, Decision, GrantDecision, Key, Refusal, Standing, World, decide};

/// The answer. Members are only ever added.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    pub(super) blueprints: Vec<BlueprintNode>,
    /// Of agents without a blueprint.
    pub(super) namespaces: Vec<NamespaceNode>,
    pub(super) summary: Summary,
    pub(super) notes: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BlueprintNode {
    pub(super) name: String,
    /// False where agents name one that is not there.
    pub(super) exists: bool,
    /// Workload or Pod; absent where it makes no agents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) identity_per: Option<&'static str>,
    pub(super) suspend: bool,
    pub(super) agents: Vec<AgentNode>,
}

#[derive(Debug, Serialize)]
pub(super) struct NamespaceNode {
    pub(super) name: String,
    pub(super) agents: Vec<AgentNode>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AgentNode {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    /// A blueprint made it; else somebody wrote it.
    pub(super) made: bool,
    /// What it lives and dies with, such as `apps/v1/Deployment triage`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bound_to: Option<String>,
    /// Ready, Suspended, Refused, Unknown, or Ending: it is about to be deleted.
    pub(super) state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<String>,
    /// Absent: it has none by its nature, and buys tokens on demand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) secret: Option<SecretNode>,
    pub(super) grants: Vec<GrantNode>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SecretNode {
    pub(super) name: String,
    /// Absent where Secrets can't be seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exists: Option<bool>,
    /// When its files are renewed; absent where it holds no token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) renew_at: Option<Timestamp>,
    /// When the first of them expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expires_at: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GrantNode {
    /// Of an inherited one: `<blueprint>/<name>`.
    pub(super) grant: String,
    pub(super) resource: String,
    /// Held, Narrowed, Refused or Unknown.
    pub(super) state: &'static str,
    pub(super) roles: Vec<String>,
    pub(super) scopes: Vec<String>,
    /// The file in the Secret; absent: on demand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<String>,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Summary {
    pub(super) agents: usize,
    pub(super) ready: usize,
    pub(super) suspended: usize,
    pub(super) refused: usize,
    pub(super) unknown: usize,
    pub(super) ending: usize,
}

impl Report {
    /// The agents.
    pub(super) fn names(&self) -> Vec<String> {
        let of_blueprints = self.blueprints.iter().flat_map(|b| &b.agents);
        let agents = of_blueprints.chain(self.namespaces.iter().flat_map(|n| &n.agents));
        agents.map(|a| named(AGENT, &a.name)).collect()
    }
}

/// Which agents are shown.
pub(super) struct Filter<'a> {
    pub(super) namespace: Option<&'a str>,
    pub(super) blueprint: Option<&'a str>,
}

/// The tree of all agents that the filter lets through; `secrets`: whether they could be seen.
pub(super) fn tree(
    world: &World,
    filter: &Filter<'_>,
    secrets: bool,
    notes: Vec<String>,
    now: Timestamp,
) -> Report {
    let mut blueprints = BTreeMap::<String, BlueprintNode>::new();
    let wanted = |name: &str| filter.blueprint.is_none_or(|b| b == name);
    // One without agents is shown too, unless it is asked what a namespace has.
    if filter.namespace.is_none() {
        for blueprint in world.blueprints().filter(|b| wanted(&b.meta.key.name)) {
            blueprints
                .insert(blueprint.meta.key.name.to_string(), blueprint_node(world, &blueprint.meta.key.name));
        }
    }
    let mut namespaces = BTreeMap::<String, Vec<AgentNode>>::new();
    let mut summary = Summary::default();
    let mut agents: Vec<&Agent> = world
        .agents()
        .filter(|a| filter.namespace.is_none_or(|n| *a.meta.key.namespace == *n))
        .filter(|a| filter.blueprint.is_none_or(|b| a.blueprint.as_deref() == Some(b)))
        .collect();
    agents.sort_unstable_by(|a, b| a.meta.key.cmp(&b.meta.key));
    for agent in agents {
        let Some(decision) = decide(world, &agent.meta.key, now) else { continue };
        let node = agent_node(world, agent, &decision, secrets);
        summary.agents += 1;
        *match node.state {
            "Ready" => &mut summary.ready,
            "Suspended" => &mut summary.suspended,
            "Unknown" => &mut summary.unknown,
            "Ending" => &mut summary.ending,
            _ => &mut summary.refused,
        } += 1;
        match &agent.blueprint {
            Some(name) => {
                let of = blueprints.entry(name.to_string()).or_insert_with(|| blueprint_node(world, name));
                of.agents.push(node);
            }
            None => namespaces.entry(node.namespace.clone()).or_default().push(node),
        }
    }
    Report {
        blueprints: blueprints.into_values().collect(),
        namespaces: namespaces.into_iter().map(|(name, agents)| NamespaceNode { name, agents }).collect(),
        summary,
        notes,
    }
}

fn blueprint_node(world: &World, name: &Arc<str>) -> BlueprintNode {
    let found = world.blueprint(name);
    BlueprintNode {
        name: name.to_string(),
        exists: found.is_some(),
        identity_per: found.filter(|b| b.pod_selector.is_some()).map(|b| b.per.as_str()),
        suspend: found.is_some_and(|b| b.suspend),
        agents: Vec::new(),
    }
}

/// How an agent stands, in a word, with why.
pub(in crate::cli) fn state(standing: &Standing) -> (&'static str, Option<&'static str>, Option<String>) {
    let said = |word, r: &Refusal| (word, Some(r.reason.as_str()), Some(r.message.clone()));
    match standing {
        Standing::Allowed => ("Ready", None, None),
        Standing::Refused(r) if r.reason == Reason::Suspended => said("Suspended", r),
        Standing::Refused(r) => said("Refused", r),
        Standing::Unknown(r) => said("Unknown", r),
        Standing::Unmade(r) => said("Ending", r),
        Standing::Orphaned { message, .. } => {
            ("Ending", Some(Reason::BoundObjectNotFound.as_str()), Some(message.clone()))
        }
        Standing::Ended => ("Ending", Some(Reason::Expired.as_str()), Some("its time is over".to_owned())),
        Standing::Deleting => ("Ending", None, Some("it, or its namespace, is being deleted".to_owned())),
    }
}

fn agent_node(world: &World, agent: &Agent, decision: &Decision, secrets: bool) -> AgentNode {
    let Key { namespace, name } = &agent.meta.key;
    let (state, reason, message) = state(&decision.standing);
    let secret = agent.has_secret().then(|| {
        let found = world.secret(&agent.meta.key.sibling(agent.secret_name.clone()));
        let found = found.filter(|s| s.agent == Some(agent.meta.uid));
        let told = |at: Timestamp| (at != Timestamp::MAX).then_some(at);
        SecretNode {
            name: agent.secret_name.to_string(),
            exists: secrets.then_some(found.is_some()),
            renew_at: found.and_then(|s| told(s.renew_at)),
            expires_at: found.and_then(|s| told(s.expires_at)),
        }
    });
    AgentNode {
        namespace: namespace.to_string(),
        name: name.to_string(),
        uid: agent.meta.uid.to_string(),
        made: agent.made_by.is_some(),
        bound_to: agent.bound.as_ref().map(|b| format!("{} {}", b.kind, b.name)),
        state,
        reason,
        message,
        grants: decision.grants.iter().map(|g| grant_node(g, agent, &decision.standing)).collect(),
        secret,
    }
}

fn grant_node(grant: &GrantDecision, agent: &Agent, standing: &Standing) -> GrantNode {
    // What was decided is one thing, whether the API server has taken the RoleBinding another: the status says it.
    let unbound = matches!(standing, Standing::Allowed)
        && grant.held.as_ref().is_some_and(|h| h.kubernetes && !h.roles.is_empty())
        && agent.says_unbound(grant.uid);
    let refusal = grant.refusal.clone().or_else(|| {
        let message =
            "a role on the cluster could not be bound: the conditions of the grant and its agents say why";
        unbound.then(|| Refusal::new(Reason::Internal, message))
    });
    let state = match standing {
        Standing::Allowed if unbound => "Narrowed",
        Standing::Allowed => match grant.state() {
            GrantState::Held => "Held",
            GrantState::Narrowed => "Narrowed",
            GrantState::Refused => "Refused",
        },
        Standing::Unknown(_) => "Unknown",
        // The agent's own reason stands above.
        _ => "Refused",
    };
    let held = grant.held.as_ref().filter(|_| matches!(standing, Standing::Allowed));
    let texts = |names: &[Arc<str>]| names.iter().map(ToString::to_string).collect();
    GrantNode {
        grant: grant.grant.to_string(),
        resource: grant.resource.to_string(),
        state,
        roles: held.map(|h| texts(&h.roles)).unwrap_or_default(),
        scopes: held.map(|h| texts(&h.scopes)).unwrap_or_default(),
        file: held.and(grant.file.as_ref()).filter(|_| agent.has_secret()).map(ToString::to_string),
        reason: refusal.as_ref().map(|r| r.reason.as_str()),
        message: refusal.map(|r| r.message),
    }
}

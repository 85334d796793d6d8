//! The one picture of what exists, with the indexes that decisions need.
//!
//! Watches feed it; there is no second store beside it. Taking a change in marks whom it touches dirty, by
//! index and never by a scan over all agents.

mod agents;
mod binders;
mod blueprints;
mod bound;
mod feed;
mod index;
mod made;
mod policies;
mod recorded;
mod renewals;
mod rights;
mod secrets;
mod source;
mod table;
mod tally;
mod unbound;
mod users;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;

pub use binders::Unit;
pub use feed::Object;
pub use made::{BlueprintTally, Contest};
pub use recorded::RecordedBy;
pub use renewals::Renewals;
pub use source::{Lost, Source, SourceState};
pub use table::Origin;
pub use tally::{GrantTally, Holding, Holdings, PolicyTally, Totals};

use self::binders::Binders;
use self::made::Made;
use self::policies::PolicyIndex;
use self::recorded::Lists;
use self::renewals::Instants;
use self::table::Table;
use self::tally::Tally;
use self::users::Users;
use super::{
    Agent, Binding, Blueprint, BoundObject, ClusterRole, Credentials, Grant, Key, KindName, Lane, Namespace,
    Policy, Resource, Selection, ServiceAccount, Trust, Uid,
};
use crate::api::Configuration;

/// What the loop works on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Work {
    /// An agent: decide, plan, apply.
    Agent(Key),
    /// A Secret of ours whose agent is gone.
    Orphan(Key),
    /// A namespace's trust ConfigMap.
    Trust(Arc<str>),
    /// A pod that may be to have an agent made for it.
    Pod(Key),
    /// The RoleBindings of one grant in one namespace.
    Binding(Unit),
}

/// A Secret (or what else bears the name) that is not ours where an agent's should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// What it is, for people.
    pub what: Box<str>,
    /// When it was last seen.
    pub checked: Timestamp,
}

/// Whose picture it is: which sources feed it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum View {
    /// The operator's.
    #[default]
    Operator,
    /// The token service's: without Secrets and ConfigMaps, with service accounts, the leader's Lease and the hops
    /// from pods to their workloads.
    Service,
}

/// The kinds by which a pod's controller is reached, and which kind that is.
const HOPS: &[(&str, &str)] = &[("apps/v1/ReplicaSet", "apps/v1/Deployment")];

/// More agents than this touched by one change are re-decided in the paced lane.
const URGENT_FAN_OUT: usize = 64;

/// The picture.
#[derive(Debug)]
pub struct World {
    config: Configuration,
    view: View,
    kinds: HashSet<KindName>,
    agents: Table<Agent>,
    resources: Table<Resource>,
    grants: Table<Grant>,
    blueprints: Table<Blueprint>,
    policies: Table<Policy>,
    namespaces: Table<Namespace>,
    secrets: Table<Credentials>,
    trust: Table<Trust>,
    accounts: Table<ServiceAccount>,
    cluster_roles: Table<ClusterRole>,
    bindings: Table<Binding>,
    bound: HashMap<KindName, Table<BoundObject>>,
    sources: HashMap<Source, SourceState>,

    agents_in: HashMap<Arc<str>, BTreeSet<Arc<str>>>,
    agent_of_uid: HashMap<Uid, Key>,
    claims: HashMap<Key, Vec<Arc<str>>>,
    bound_to: HashMap<(KindName, Key), Vec<Arc<str>>>,
    unbound_of_account: HashMap<Key, Vec<Arc<str>>>,
    secrets_of: HashMap<Uid, Vec<Key>>,
    grants_naming: HashMap<Key, BTreeSet<Arc<str>>>,
    grants_selecting: HashMap<Arc<str>, BTreeSet<Arc<str>>>,
    grants_on: HashMap<Arc<str>, BTreeSet<Key>>,
    agents_of_blueprint: HashMap<Arc<str>, BTreeSet<Key>>,
    blueprints_on: HashMap<Arc<str>, BTreeSet<Arc<str>>>,
    audiences: HashMap<Arc<str>, BTreeSet<Arc<str>>>,
    users: Users,
    policy_index: PolicyIndex,
    lists: Lists,
    instants: Instants,

    foreign: HashMap<Key, Foreign>,
    confirmed_gone: HashSet<Uid>,
    tally: Tally,
    made: Made,
    binders: Binders,
    dirty: Vec<(Work, Lane)>,
}

impl World {
    /// An empty world, the operator's.
    #[must_use]
    pub fn new(config: Configuration) -> Self {
        Self::of(config, View::Operator)
    }

    /// An empty world of a view.
    #[must_use]
    pub fn of(config: Configuration, view: View) -> Self {
        let kinds: HashSet<_> =
            config.bound_kinds.iter().map(|k| super::kind_name(&k.api_version, &k.kind)).collect();
        let hops = HOPS.iter().filter(|(_, of)| kinds.contains(*of));
        let hops = hops.map(|(hop, _)| KindName::from(*hop));
        Self {
            bound: kinds.iter().cloned().chain(hops).map(|k| (k, Table::default())).collect(),
            kinds,
            config,
            view,
            agents: Table::default(),
            resources: Table::default(),
            grants: Table::default(),
            blueprints: Table::default(),
            policies: Table::default(),
            namespaces: Table::default(),
            secrets: Table::default(),
            trust: Table::default(),
            accounts: Table::default(),
            cluster_roles: Table::default(),
            bindings: Table::default(),
            sources: HashMap::new(),
            agents_in: HashMap::new(),
            agent_of_uid: HashMap::new(),
            claims: HashMap::new(),
            bound_to: HashMap::new(),
            unbound_of_account: HashMap::new(),
            secrets_of: HashMap::new(),
            grants_naming: HashMap::new(),
            grants_selecting: HashMap::new(),
            grants_on: HashMap::new(),
            agents_of_blueprint: HashMap::new(),
            blueprints_on: HashMap::new(),
            audiences: HashMap::new(),
            users: Users::new(),
            policy_index: PolicyIndex::default(),
            lists: Lists::default(),
            instants: Instants::default(),
            foreign: HashMap::new(),
            confirmed_gone: HashSet::new(),
            tally: Tally::default(),
            made: Made::default(),
            binders: Binders::default(),
            dirty: Vec::new(),
        }
    }

    /// The configuration.
    #[must_use]
    pub const fn config(&self) -> &Configuration {
        &self.config
    }

    /// Whether agents may be bound to a kind.
    #[must_use]
    pub fn may_bind(&self, kind: &KindName) -> bool {
        self.kinds.contains(kind)
    }

    /// An agent.
    #[must_use]
    pub fn agent(&self, key: &Key) -> Option<&Agent> {
        self.agents.get(key)
    }

    /// The agent of a UID.
    #[must_use]
    pub fn agent_of_uid(&self, uid: Uid) -> Option<&Agent> {
        self.agent_of_uid.get(&uid).and_then(|key| self.agents.get(key))
    }

    /// All agents.
    pub fn agents(&self) -> impl Iterator<Item = &Agent> {
        self.agents.iter().map(|(_, a)| a)
    }

    /// A resource.
    #[must_use]
    pub fn resource(&self, name: &Arc<str>) -> Option<&Resource> {
        self.resources.get(&Key::new("", name.clone()))
    }

    /// All resources.
    pub fn resources(&self) -> impl Iterator<Item = &Resource> {
        self.resources.iter().map(|(_, r)| r)
    }

    /// A grant.
    #[must_use]
    pub fn grant(&self, key: &Key) -> Option<&Grant> {
        self.grants.get(key)
    }

    /// All grants.
    pub fn grants(&self) -> impl Iterator<Item = &Grant> {
        self.grants.iter().map(|(_, g)| g)
    }

    /// A blueprint.
    #[must_use]
    pub fn blueprint(&self, name: &Arc<str>) -> Option<&Blueprint> {
        self.blueprints.get(&Key::new("", name.clone()))
    }

    /// All blueprints.
    pub fn blueprints(&self) -> impl Iterator<Item = &Blueprint> {
        self.blueprints.iter().map(|(_, b)| b)
    }

    /// A namespace.
    #[must_use]
    pub fn namespace(&self, name: &Arc<str>) -> Option<&Namespace> {
        self.namespaces.get(&Key::new("", name.clone()))
    }

    /// A service account.
    #[must_use]
    pub fn account(&self, key: &Key) -> Option<&ServiceAccount> {
        self.accounts.get(key)
    }

    /// The agents whose pods run as a service account, and that are bound to nothing.
    #[must_use]
    pub fn unbound_agents_of(&self, account: &Key) -> Vec<&Agent> {
        let names = self.unbound_of_account.get(account).into_iter().flatten();
        names.filter_map(|n| self.agents.get(&account.sibling(n.clone()))).collect()
    }

    /// A Secret of our type.
    #[must_use]
    pub fn secret(&self, key: &Key) -> Option<&Credentials> {
        self.secrets.get(key)
    }

    /// All Secrets of our type.
    pub fn secrets(&self) -> impl Iterator<Item = &Credentials> {
        self.secrets.iter().map(|(_, s)| s)
    }

    /// A namespace's trust ConfigMap.
    #[must_use]
    pub fn trust(&self, namespace: &Arc<str>) -> Option<&Trust> {
        self.trust.get(&Key::new(namespace.clone(), crate::api::TRUST_NAME))
    }

    /// Whether a namespace is to have the trust ConfigMap.
    #[must_use]
    pub fn wants_trust(&self, namespace: &Arc<str>) -> bool {
        self.namespace(namespace).is_some_and(|n| {
            !n.meta.deleting
                && (self.agents_in.contains_key(namespace)
                    || n.labels.get(crate::api::TRUST_LABEL) == Some("true"))
        })
    }

    /// Namespaces that have agents, the trust label or a trust ConfigMap.
    #[must_use]
    pub fn trust_namespaces(&self) -> BTreeSet<Arc<str>> {
        let labelled = self
            .namespaces
            .iter()
            .filter(|(_, n)| n.labels.get(crate::api::TRUST_LABEL) == Some("true"))
            .map(|(k, _)| k.name.clone());
        let held = self.trust.iter().map(|(k, _)| k.namespace.clone());
        self.agents_in.keys().cloned().chain(labelled).chain(held).collect()
    }

    /// The object that bears a name among a bound kind's.
    #[must_use]
    pub fn bound_object(&self, kind: &KindName, key: &Key) -> Option<&BoundObject> {
        self.bound.get(kind).and_then(|t| t.get(key))
    }

    /// Whether a bound object of this UID is known to be gone for good.
    #[must_use]
    pub fn is_confirmed_gone(&self, uid: Uid) -> bool {
        self.confirmed_gone.contains(&uid)
    }

    /// What bears the name of an agent's Secret without being ours.
    #[must_use]
    pub fn foreign(&self, secret: &Key) -> Option<&Foreign> {
        self.foreign.get(secret)
    }

    /// The agents that want a Secret's name, the winner first.
    #[must_use]
    pub fn claimants(&self, secret: &Key) -> Vec<&Agent> {
        let names = self.claims.get(secret).map(Vec::as_slice).unwrap_or_default();
        let mut agents: Vec<_> =
            names.iter().filter_map(|n| self.agents.get(&secret.sibling(n.clone()))).collect();
        agents.sort_by_key(|a| a.meta.seniority());
        agents
    }

    /// The resource that has an audience: of several the oldest that stays.
    #[must_use]
    pub fn audience_holder(&self, audience: &Arc<str>) -> Option<&Resource> {
        let rivals = self.audiences.get(audience)?.iter().filter_map(|n| self.resource(n));
        rivals.filter(|r| !r.meta.deleting).min_by_key(|r| r.meta.seniority())
    }

    /// The grants that speak of an agent: its namespace's, the oldest first, then those that it inherits, as they
    /// stand in its blueprint.
    #[must_use]
    pub fn grants_of(&self, agent: &Agent) -> Vec<&Grant> {
        let key = &agent.meta.key;
        let named = self.grants_naming.get(key).into_iter().flatten();
        let selecting = self.grants_selecting.get(&key.namespace).into_iter().flatten();
        let mut grants: Vec<_> = named
            .chain(selecting)
            .filter_map(|n| self.grants.get(&key.sibling(n.clone())))
            .filter(|g| g.selects(agent))
            .collect();
        grants.sort_by_key(|g| g.meta.seniority());
        grants.extend(self.blueprint_of(agent).into_iter().flat_map(|b| &b.grants));
        grants
    }

    /// The agents that a grant speaks of, and the names among them that don't exist.
    #[must_use]
    pub fn selected_by(&self, grant: &Grant) -> (Vec<Key>, Vec<Arc<str>>) {
        let namespace = &grant.meta.key.namespace;
        match &grant.selection {
            Selection::Names(names) => {
                let (known, unknown): (Vec<_>, Vec<_>) = names
                    .iter()
                    .map(|n| Key::new(namespace.clone(), n.clone()))
                    .partition(|k| self.agents.get(k).is_some());
                (known, unknown.into_iter().map(|k| k.name).collect())
            }
            Selection::Selector(_) => {
                let names = self.agents_in.get(namespace).into_iter().flatten();
                let selected = names
                    .map(|n| Key::new(namespace.clone(), n.clone()))
                    .filter(|k| self.agents.get(k).is_some_and(|a| grant.selects(a)))
                    .collect();
                (selected, Vec::new())
            }
        }
    }

    /// How far a source can be believed.
    #[must_use]
    pub fn source(&self, source: &Source) -> SourceState {
        self.sources.get(source).copied().unwrap_or_default()
    }

    /// All sources with their states, in a stable order.
    #[must_use]
    pub fn sources(&self) -> BTreeMap<Source, SourceState> {
        let bound = self.bound.keys().cloned().map(Source::Bound);
        let beside = match self.view {
            View::Operator => &Source::BESIDE[..],
            View::Service => &Source::BESIDE[..1],
        };
        self.core()
            .iter()
            .cloned()
            .chain(beside.iter().cloned())
            .chain(bound)
            .map(|s| (s.clone(), self.source(&s)))
            .collect()
    }

    /// The sources without which this view decides nothing.
    #[must_use]
    pub const fn core(&self) -> &'static [Source] {
        match self.view {
            View::Operator => &Source::CORE,
            View::Service => &Source::SERVICE,
        }
    }

    /// The hops from pods to their workloads that this view watches.
    #[must_use]
    pub fn hops(&self) -> Vec<KindName> {
        self.bound.keys().filter(|k| !self.kinds.contains(*k)).cloned().collect()
    }

    /// Whether every source that all decisions need has synced once.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.core().iter().all(|s| self.source(s).synced)
    }

    /// Whether a source can be believed now.
    #[must_use]
    pub fn is_fresh(&self, source: &Source, now: Timestamp) -> bool {
        self.source(source).is_fresh(now, self.config.max_stale.signed())
    }

    /// Numbers of objects by kind, for metrics.
    #[must_use]
    pub fn sizes(&self) -> [(&'static str, usize); 12] {
        [
            ("agentidentities", self.agents.len()),
            ("agentresources", self.resources.len()),
            ("agentgrants", self.grants.len()),
            ("agentblueprints", self.blueprints.len()),
            ("agentpolicies", self.policies.len()),
            ("namespaces", self.namespaces.len()),
            ("secrets", self.secrets.len()),
            ("configmaps", self.trust.len()),
            ("serviceaccounts", self.accounts.len()),
            ("clusterroles", self.cluster_roles.len()),
            ("rolebindings", self.bindings.len()),
            ("boundobjects", self.bound.values().map(Table::len).sum()),
        ]
    }

    /// What has become dirty since the last call.
    #[must_use]
    pub fn take_dirty(&mut self) -> Vec<(Work, Lane)> {
        std::mem::take(&mut self.dirty)
    }

    /// Marks the agents of which a token was signed by a key that is no longer published; says how many.
    pub fn mark_key_gone(&mut self, good: &HashSet<Arc<str>>) -> usize {
        let agents: Vec<_> = self
            .secrets
            .iter()
            .filter(|(_, s)| s.kids.iter().any(|k| !good.contains(k)))
            .filter_map(|(_, s)| s.agent.and_then(|uid| self.agent_of_uid.get(&uid)).cloned())
            .collect();
        let count = agents.len();
        self.dirty.extend(agents.into_iter().map(|k| (Work::Agent(k), Lane::Paced)));
        count
    }

    /// Marks every trust ConfigMap to be looked at.
    pub fn mark_trust(&mut self) {
        let namespaces = self.trust_namespaces();
        self.dirty.extend(namespaces.into_iter().map(|n| (Work::Trust(n), Lane::Urgent)));
    }

    /// Whether every namespace that is to have the trust ConfigMap has it with this data; a foreign one does
    /// not count.
    #[must_use]
    pub fn trust_carries(&self, digest: super::Digest) -> bool {
        self.trust_namespaces()
            .iter()
            .filter(|n| self.wants_trust(n))
            .all(|n| self.trust(n).is_some_and(|t| !t.ours || t.digest == digest))
    }

    /// What an agent was last decided to hold.
    #[must_use]
    pub fn holdings(&self, agent: &Key) -> Option<&Holdings> {
        self.tally.holdings(agent)
    }

    fn mark_agents(&mut self, agents: impl IntoIterator<Item = Key>) {
        let agents: BTreeSet<Key> = agents.into_iter().collect();
        let lane = if agents.len() > URGENT_FAN_OUT { Lane::Paced } else { Lane::Urgent };
        self.dirty.extend(agents.into_iter().map(|k| (Work::Agent(k), lane)));
    }
}

#[cfg(test)]
mod tests;

//! The one picture of what exists, with the indexes that decisions need.
//!
//! Watches feed it; there is no second store beside it. Taking a change in marks whom it touches dirty, by
//! index and never by a scan over all agents.

mod agents;
mod ask;
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
mod trust;
mod unbound;
mod users;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;

pub use binders::Unit;
pub use feed::Object;
pub use made::{BlueprintTally, Contest, Unmade};
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
    Policy, Resource, ServiceAccount, Trust, Uid,
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

    /// What has become dirty since the last call.
    #[must_use]
    pub fn take_dirty(&mut self) -> Vec<(Work, Lane)> {
        std::mem::take(&mut self.dirty)
    }

    /// Marks the agents of which a token was signed by a key that is no longer published, so that they go ahead of what
    /// is still good; says how many.
    pub fn mark_key_gone(&mut self, good: &HashSet<Arc<str>>) -> usize {
        let agents: Vec<_> = self
            .secrets
            .iter()
            .filter(|(_, s)| s.kids.iter().any(|k| !good.contains(k)))
            .filter_map(|(_, s)| s.agent.and_then(|uid| self.agent_of_uid.get(&uid)).cloned())
            .collect();
        let count = agents.len();
        self.dirty.extend(agents.into_iter().map(|k| (Work::Agent(k), Lane::Ahead)));
        count
    }

    fn mark_agents(&mut self, agents: impl IntoIterator<Item = Key>) {
        let agents: BTreeSet<Key> = agents.into_iter().collect();
        let lane = if agents.len() > URGENT_FAN_OUT { Lane::Paced } else { Lane::Urgent };
        self.dirty.extend(agents.into_iter().map(|k| (Work::Agent(k), lane)));
    }
}

#[cfg(test)]
mod bound_tests;
#[cfg(test)]
mod lane_tests;
#[cfg(test)]
mod tests;

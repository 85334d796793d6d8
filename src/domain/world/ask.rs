//! What is asked of the picture: each object by its name, and who belongs to whom.
//!
//! Invariant: it changes nothing; nothing that decisions ask scans all agents.

use std::sync::Arc;

use super::table::Table;
use super::{Foreign, Holdings, World};
use crate::domain::{
    Agent, Blueprint, BoundObject, Credentials, Grant, Key, KindName, Namespace, Resource, Selection,
    ServiceAccount, Uid,
};

impl World {
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

    /// What an agent was last decided to hold.
    #[must_use]
    pub fn holdings(&self, agent: &Key) -> Option<&Holdings> {
        self.tally.holdings(agent)
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
}

//! Taking changes in: each marks dirty whom it touches.

use jiff::Timestamp;

use super::table::{Listing, Origin};
use super::{Lost, Source, Work, World};
use crate::domain::statuslist::Mark;
use crate::domain::{
    Agent, Binding, Blueprint, ClusterRole, Credentials, Grant, Key, Lane, Meta, Namespace, Policy, Resource,
    ServiceAccount, Trust, Uid,
};

/// An object of a source, as it was seen.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// An AgentIdentity.
    Agent(Box<Agent>),
    /// An AgentResource.
    Resource(Box<Resource>),
    /// An AgentGrant.
    Grant(Box<Grant>),
    /// An AgentBlueprint.
    Blueprint(Box<Blueprint>),
    /// An AgentPolicy.
    Policy(Box<Policy>),
    /// A Namespace.
    Namespace(Box<Namespace>),
    /// A Secret of our type.
    Secret(Box<Credentials>),
    /// A trust ConfigMap.
    Trust(Box<Trust>),
    /// A ServiceAccount.
    Account(Box<ServiceAccount>),
    /// The leader's Lease, with what it says of the open status list.
    Lease(Box<(Meta, Option<Mark>)>),
    /// A ClusterRole.
    ClusterRole(Box<ClusterRole>),
    /// A RoleBinding of ours.
    Binding(Box<Binding>),
    /// An object of a bound kind.
    Bound(crate::domain::KindName, Box<crate::domain::BoundObject>),
}

impl Object {
    /// Its metadata.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        match self {
            Self::Agent(a) => &a.meta,
            Self::Resource(r) => &r.meta,
            Self::Grant(g) => &g.meta,
            Self::Blueprint(b) => &b.meta,
            Self::Policy(p) => &p.meta,
            Self::Namespace(n) => &n.meta,
            Self::Secret(s) => &s.meta,
            Self::Trust(t) => &t.meta,
            Self::Account(a) => &a.meta,
            Self::Lease(l) => &l.0,
            Self::ClusterRole(r) => &r.meta,
            Self::Binding(b) => &b.meta,
            Self::Bound(_, o) => &o.meta,
        }
    }
}

impl World {
    /// A source's objects; the Lease has none.
    fn table(&self, source: &Source) -> Option<&dyn Listing> {
        Some(match source {
            Source::Agents => &self.agents,
            Source::Resources => &self.resources,
            Source::Grants => &self.grants,
            Source::Blueprints => &self.blueprints,
            Source::Policies => &self.policies,
            Source::Namespaces => &self.namespaces,
            Source::Secrets => &self.secrets,
            Source::Trust => &self.trust,
            Source::ServiceAccounts => &self.accounts,
            Source::ClusterRoles => &self.cluster_roles,
            Source::Bindings => &self.bindings,
            Source::Lease => return None,
            Source::Bound(kind) => self.bound.get(kind)?,
        })
    }

    fn table_mut(&mut self, source: &Source) -> Option<&mut dyn Listing> {
        Some(match source {
            Source::Agents => &mut self.agents,
            Source::Resources => &mut self.resources,
            Source::Grants => &mut self.grants,
            Source::Blueprints => &mut self.blueprints,
            Source::Policies => &mut self.policies,
            Source::Namespaces => &mut self.namespaces,
            Source::Secrets => &mut self.secrets,
            Source::Trust => &mut self.trust,
            Source::ServiceAccounts => &mut self.accounts,
            Source::ClusterRoles => &mut self.cluster_roles,
            Source::Bindings => &mut self.bindings,
            Source::Lease => return None,
            Source::Bound(kind) => self.bound.get_mut(kind)?,
        })
    }

    /// A list of a source begins: what it does not hold will be found by [`World::missing`].
    pub fn begin_list(&mut self, source: &Source) {
        if let Some(table) = self.table_mut(source) {
            table.begin_list();
        }
    }

    /// What the list that has just ended did not hold; to be removed in chunks by [`World::remove`]. Not what is newer
    /// than the list (its resourceVersion): what a write of ours has made since.
    #[must_use]
    pub fn missing(&self, source: &Source, listed: u64) -> Vec<(Key, Uid)> {
        self.table(source).map(|table| table.missing(listed)).unwrap_or_default()
    }

    /// An object that the running list held in an older version than the known one, if any: both versions, of the
    /// object whose known version is the lowest.
    #[must_use]
    pub fn ahead(&self, source: &Source) -> Option<(u64, u64)> {
        self.table(source)?.ahead()
    }

    /// A list has been taken in completely.
    pub fn end_list(&mut self, source: &Source, now: Timestamp) {
        let was_synced = self.is_synced();
        let known = self.is_fresh(source, now);
        let state = self.sources.entry(source.clone()).or_default();
        state.synced = true;
        state.heard = Some(now);
        state.lost = None;
        if self.is_synced() && !was_synced {
            self.mark_everything();
        } else if !known && Source::BESIDE.contains(source) {
            self.mark_kubernetes(source);
        } else if let (Source::Bound(kind), false) = (source, known) {
            // Its agents wait for it; after a mere relist the differences alone are marked.
            let waiting: Vec<_> = self
                .bound_to
                .iter()
                .filter(|((k, _), _)| k == kind)
                .flat_map(|((_, object), agents)| agents.iter().map(|a| object.sibling(a.clone())))
                .collect();
            self.dirty.extend(waiting.into_iter().map(|k| (Work::Agent(k), Lane::Paced)));
            // And so do pods for what controls them.
            self.mark_pods(|_, pod| pod.controller.is_some());
        }
    }

    fn mark_everything(&mut self) {
        let agents = self.agents.iter().map(|(k, _)| (Work::Agent(k.clone()), Lane::Paced));
        let orphans = self
            .secrets
            .iter()
            .filter(|(_, s)| self.is_orphan(s))
            .map(|(k, _)| (Work::Orphan(k.clone()), Lane::Urgent));
        let trust = self.trust_namespaces().into_iter().map(|n| (Work::Trust(n), Lane::Paced));
        let all: Vec<_> = agents.chain(orphans).chain(trust).collect();
        self.dirty.extend(all);
        let grants: Vec<_> = self.grants.iter().map(|(k, _)| k.clone()).collect();
        let resources: Vec<_> = self.resources.iter().map(|(k, _)| k.name.clone()).collect();
        let policies: Vec<_> = self.policies.iter().map(|(k, _)| k.name.clone()).collect();
        grants.into_iter().for_each(|g| self.tally.touch_grant(g));
        resources.into_iter().for_each(|r| self.tally.touch_resource(r));
        let blueprints: Vec<_> = self.blueprints.iter().map(|(k, _)| k.name.clone()).collect();
        blueprints.into_iter().for_each(|b| self.made.touch(b));
        self.mark_pods(|_, _| true);
        self.touch_bindings();
        policies.into_iter().for_each(|p| self.tally.touch_policy(p));
    }

    /// Marks every agent and namespace to be decided anew, in the paced lane: the keys have changed.
    pub fn mark_all(&mut self) {
        self.mark_everything();
    }

    /// The watch of a source has come to a resourceVersion, by a list or a bookmark.
    pub fn reached(&mut self, source: &Source, version: u64) {
        if let Some(table) = self.table_mut(source) {
            table.reached(version);
        }
        if *source == Source::Agents {
            self.believe_mark();
        }
    }

    /// A source was heard of.
    pub fn heard(&mut self, source: &Source, now: Timestamp) {
        let state = self.sources.entry(source.clone()).or_default();
        state.heard = Some(now);
        state.lost = None;
    }

    /// A try to watch a source failed.
    pub fn lost(&mut self, source: &Source, why: Lost) {
        self.sources.entry(source.clone()).or_default().lost = Some(why);
    }

    /// Whether a Secret of ours is no live agent's: its agent is gone, or it is a copy of an agent's under
    /// another name or in another namespace.
    #[must_use]
    pub fn is_orphan(&self, secret: &Credentials) -> bool {
        let key = &secret.meta.key;
        secret.agent.is_some_and(|uid| {
            self.agent_of_uid(uid).is_none_or(|a| {
                !a.has_secret() || a.meta.key.namespace != key.namespace || a.secret_name != key.name
            })
        })
    }

    /// Takes an object in.
    pub fn take(&mut self, object: Object, origin: Origin) {
        match object {
            Object::Agent(a) => self.take_agent(*a, origin),
            Object::Resource(r) => self.take_resource(*r, origin),
            Object::Grant(g) => self.take_grant(*g, origin),
            Object::Blueprint(b) => self.take_blueprint(*b, origin),
            Object::Policy(p) => self.take_policy(*p, origin),
            Object::Namespace(n) => self.take_namespace(*n, origin),
            Object::Secret(s) => self.take_secret(*s, origin),
            Object::Trust(t) => self.take_trust(*t, origin),
            Object::Account(a) => {
                if origin == Origin::Watch {
                    self.accounts.reached(a.meta.version);
                }
                self.accounts.take(*a, origin);
            }
            Object::Lease(lease) => self.take_mark(lease.1),
            Object::ClusterRole(r) => self.take_cluster_role(*r, origin),
            Object::Binding(b) => self.take_binding(*b, origin),
            Object::Bound(kind, o) => self.take_bound(&kind, *o, origin),
        }
    }

    /// Keeps what is known of an object that could not be read, if it is the one of this UID, or its UID can't be read.
    pub fn keep(&mut self, source: &Source, key: &Key, uid: Option<Uid>) {
        if let Some(table) = self.table_mut(source) {
            table.keep(key, uid);
        }
    }

    /// Removes an object that is gone; `version` is how far the watch has come, if a watch says so.
    pub fn remove(&mut self, source: &Source, key: &Key, uid: Uid, version: u64) {
        match source {
            Source::Agents => {
                self.agents.reached(version);
                self.remove_agent(key, uid);
                self.believe_mark();
            }
            Source::Resources => {
                self.resources.reached(version);
                self.remove_resource(key, uid);
            }
            Source::Grants => {
                self.grants.reached(version);
                if let Some(old) = self.grants.remove(key, uid) {
                    self.index_grant(&old, false);
                    self.mark_selected(&old);
                }
            }
            Source::Blueprints => {
                self.blueprints.reached(version);
                self.remove_blueprint(key, uid);
            }
            Source::Policies => {
                self.policies.reached(version);
                self.remove_policy(key, uid);
            }
            Source::Namespaces => {
                self.namespaces.reached(version);
                if self.namespaces.remove(key, uid).is_some() {
                    self.select_policies(&key.name);
                    self.mark_namespace(&key.name);
                }
            }
            Source::Secrets => {
                self.secrets.reached(version);
                if let Some(old) = self.secrets.remove(key, uid) {
                    self.forget_secret(&old);
                    self.mark_claimants(key);
                }
            }
            Source::Trust => {
                self.trust.reached(version);
                if self.trust.remove(key, uid).is_some() {
                    self.dirty.push((Work::Trust(key.namespace.clone()), Lane::Urgent));
                }
            }
            Source::ServiceAccounts => {
                self.accounts.reached(version);
                self.accounts.remove(key, uid);
            }
            // A Lease that is gone says nothing new: what it said last stands until another leader speaks.
            Source::Lease => {}
            Source::ClusterRoles => self.remove_cluster_role(key, uid, version),
            Source::Bindings => self.remove_binding(key, uid, version),
            Source::Bound(kind) => self.remove_bound(kind, key, uid, version),
        }
    }
}

//! Taking changes in: each marks dirty whom it touches.

use std::sync::Arc;

use jiff::Timestamp;

use super::table::{Origin, Taken};
use super::{Foreign, Lost, Source, Work, World};
use crate::domain::{Agent, Credentials, Grant, Key, Lane, Namespace, Resource, Selection, Trust, Uid};

/// An object of a source, as it was seen.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// An AgentIdentity.
    Agent(Box<Agent>),
    /// An AgentResource.
    Resource(Box<Resource>),
    /// An AgentGrant.
    Grant(Box<Grant>),
    /// A Namespace.
    Namespace(Box<Namespace>),
    /// A Secret of our type.
    Secret(Box<Credentials>),
    /// A trust ConfigMap.
    Trust(Box<Trust>),
    /// An object of a bound kind.
    Bound(crate::domain::KindName, Box<crate::domain::BoundObject>),
}

impl Object {
    /// Its metadata.
    #[must_use]
    pub fn meta(&self) -> &crate::domain::Meta {
        match self {
            Self::Agent(a) => &a.meta,
            Self::Resource(r) => &r.meta,
            Self::Grant(g) => &g.meta,
            Self::Namespace(n) => &n.meta,
            Self::Secret(s) => &s.meta,
            Self::Trust(t) => &t.meta,
            Self::Bound(_, o) => &o.meta,
        }
    }
}

impl World {
    /// A list of a source begins: what it does not hold will be removed by [`World::missing`].
    pub fn begin_list(&mut self, source: &Source) {
        match source {
            Source::Agents => self.agents.begin_list(),
            Source::Resources => self.resources.begin_list(),
            Source::Grants => self.grants.begin_list(),
            Source::Namespaces => self.namespaces.begin_list(),
            Source::Secrets => self.secrets.begin_list(),
            Source::Trust => self.trust.begin_list(),
            Source::Bound(kind) => {
                if let Some(table) = self.bound.get_mut(kind) {
                    table.begin_list();
                }
            }
        }
    }

    /// What the list that has just ended did not hold; to be removed in chunks by [`World::remove`].
    #[must_use]
    pub fn missing(&self, source: &Source) -> Vec<(Key, Uid)> {
        match source {
            Source::Agents => self.agents.missing(),
            Source::Resources => self.resources.missing(),
            Source::Grants => self.grants.missing(),
            Source::Namespaces => self.namespaces.missing(),
            Source::Secrets => self.secrets.missing(),
            Source::Trust => self.trust.missing(),
            Source::Bound(kind) => self.bound.get(kind).map(|t| t.missing()).unwrap_or_default(),
        }
    }

    /// A list has been taken in completely.
    pub fn end_list(&mut self, source: &Source, now: Timestamp) {
        let was_synced = self.is_synced();
        let state = self.sources.entry(source.clone()).or_default();
        state.synced = true;
        state.heard = Some(now);
        state.lost = None;
        if self.is_synced() && !was_synced {
            self.mark_everything();
        } else if let Source::Bound(kind) = source {
            let waiting: Vec<_> = self
                .bound_to
                .iter()
                .filter(|((k, _), _)| k == kind)
                .flat_map(|((_, object), agents)| agents.iter().map(|a| object.sibling(a.clone())))
                .collect();
            self.dirty.extend(waiting.into_iter().map(|k| (Work::Agent(k), Lane::Paced)));
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
        grants.into_iter().for_each(|g| self.tally.touch_grant(g));
        resources.into_iter().for_each(|r| self.tally.touch_resource(r));
    }

    /// Marks every agent and namespace to be decided anew, in the paced lane: the keys have changed.
    pub fn mark_all(&mut self) {
        self.mark_everything();
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
            self.agent_of_uid(uid)
                .is_none_or(|a| a.meta.key.namespace != key.namespace || a.secret_name != key.name)
        })
    }

    /// Takes an object in.
    pub fn take(&mut self, object: Object, origin: Origin) {
        match object {
            Object::Agent(a) => self.take_agent(*a, origin),
            Object::Resource(r) => self.take_resource(*r, origin),
            Object::Grant(g) => self.take_grant(*g, origin),
            Object::Namespace(n) => self.take_namespace(*n, origin),
            Object::Secret(s) => self.take_secret(*s, origin),
            Object::Trust(t) => self.take_trust(*t, origin),
            Object::Bound(kind, o) => self.take_bound(kind, *o, origin),
        }
    }

    /// Keeps what is known of an object that could not be read.
    pub fn keep(&mut self, source: &Source, key: &Key) {
        match source {
            Source::Agents => self.agents.keep(key),
            Source::Resources => self.resources.keep(key),
            Source::Grants => self.grants.keep(key),
            Source::Namespaces => self.namespaces.keep(key),
            Source::Secrets => self.secrets.keep(key),
            Source::Trust => self.trust.keep(key),
            Source::Bound(kind) => {
                if let Some(table) = self.bound.get_mut(kind) {
                    table.keep(key);
                }
            }
        }
    }

    /// Removes an object that is gone; `version` is how far the watch has come, if a watch says so.
    pub fn remove(&mut self, source: &Source, key: &Key, uid: Uid, version: u64) {
        match source {
            Source::Agents => {
                self.agents.reached(version);
                self.remove_agent(key, uid);
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
                    self.tally.forget_grant(&old.meta.key);
                }
            }
            Source::Namespaces => {
                self.namespaces.reached(version);
                if self.namespaces.remove(key, uid).is_some() {
                    self.mark_namespace(&key.name);
                }
            }
            Source::Secrets => {
                self.secrets.reached(version);
                if let Some(old) = self.secrets.remove(key, uid) {
                    self.index_secret(&old, false);
                    self.mark_claimants(key);
                }
            }
            Source::Trust => {
                self.trust.reached(version);
                if self.trust.remove(key, uid).is_some() {
                    self.dirty.push((Work::Trust(key.namespace.clone()), Lane::Urgent));
                }
            }
            Source::Bound(kind) => self.remove_bound(kind, key, uid, version),
        }
    }

    fn take_agent(&mut self, agent: Agent, origin: Origin) {
        let key = agent.meta.key.clone();
        if origin == Origin::Watch {
            self.agents.reached(agent.meta.version);
        }
        let rivals = key.sibling(agent.secret_name.clone());
        match self.agents.take(agent.clone(), origin) {
            Taken::Stale => {}
            Taken::Replaced(old) if old.meta.uid == agent.meta.uid => {
                let status_alone =
                    Agent { meta: agent.meta.clone(), status: agent.status.clone(), ..old.clone() } == agent
                        && old.meta.deleting == agent.meta.deleting;
                if !status_alone {
                    self.index_agent(&old, false);
                    self.index_agent(&agent, true);
                    self.dirty.push((Work::Agent(key.clone()), Lane::Urgent));
                    if old.secret_name != agent.secret_name || old.meta.deleting != agent.meta.deleting {
                        self.mark_claimants(&rivals);
                    }
                    if old.labels != agent.labels {
                        self.touch_grants_around(&agent);
                    }
                } else if origin == Origin::Watch && old.status.digest != agent.status.digest {
                    self.dirty.push((Work::Agent(key), Lane::Paced));
                }
            }
            Taken::Replaced(old) => {
                self.agent_removed(&old);
                self.agent_added(&agent, &rivals);
            }
            Taken::New => self.agent_added(&agent, &rivals),
        }
    }

    fn agent_added(&mut self, agent: &Agent, rivals: &Key) {
        let first = !self.agents_in.contains_key(&agent.meta.key.namespace);
        self.index_agent(agent, true);
        self.mark_claimants(rivals);
        self.dirty.push((Work::Agent(agent.meta.key.clone()), Lane::Urgent));
        if first {
            self.dirty.push((Work::Trust(agent.meta.key.namespace.clone()), Lane::Urgent));
        }
        self.touch_grants_around(agent);
    }

    fn touch_grants_around(&mut self, agent: &Agent) {
        let grants: Vec<_> = self.grants_of(agent).into_iter().map(|g| g.meta.key.clone()).collect();
        grants.into_iter().for_each(|g| self.tally.touch_grant(g));
    }

    fn remove_agent(&mut self, key: &Key, uid: Uid) {
        if let Some(old) = self.agents.remove(key, uid) {
            self.agent_removed(&old);
        }
    }

    fn agent_removed(&mut self, old: &Agent) {
        let key = &old.meta.key;
        self.index_agent(old, false);
        let orphans = self.secrets_of.get(&old.meta.uid).cloned().unwrap_or_default();
        self.dirty.extend(orphans.into_iter().map(|s| (Work::Orphan(s), Lane::Urgent)));
        self.mark_claimants(&key.sibling(old.secret_name.clone()));
        self.dirty.push((Work::Agent(key.clone()), Lane::Urgent));
        if !self.agents_in.contains_key(&key.namespace) {
            self.dirty.push((Work::Trust(key.namespace.clone()), Lane::Urgent));
        }
        self.foreign.remove(&key.sibling(old.secret_name.clone()));
        self.touch_grants_around(old);
        self.tally.forget_agent(key);
    }

    fn index_agent(&mut self, agent: &Agent, there: bool) {
        let key = &agent.meta.key;
        let claim = key.sibling(agent.secret_name.clone());
        let bound = agent.bound.as_ref().map(|b| (b.kind.clone(), key.sibling(b.name.clone())));
        if there {
            self.agents_in.entry(key.namespace.clone()).or_default().insert(key.name.clone());
            self.agent_of_uid.insert(agent.meta.uid, key.clone());
            insert(self.claims.entry(claim).or_default(), &key.name);
            if let Some(bound) = bound {
                insert(self.bound_to.entry(bound).or_default(), &key.name);
            }
            return;
        }
        if let Some(names) = self.agents_in.get_mut(&key.namespace) {
            names.remove(&key.name);
            if names.is_empty() {
                self.agents_in.remove(&key.namespace);
            }
        }
        self.agent_of_uid.remove(&agent.meta.uid);
        forget(&mut self.claims, &claim, &key.name);
        if let Some(bound) = bound {
            forget(&mut self.bound_to, &bound, &key.name);
        }
    }

    fn take_resource(&mut self, resource: Resource, origin: Origin) {
        if origin == Origin::Watch {
            self.resources.reached(resource.meta.version);
        }
        let name = resource.meta.key.name.clone();
        match self.resources.take(resource.clone(), origin) {
            Taken::Stale => {}
            Taken::Replaced(old) if old.meta.uid == resource.meta.uid => {
                let status_alone =
                    Resource { meta: resource.meta.clone(), status: resource.status.clone(), ..old.clone() }
                        == resource
                        && old.meta.deleting == resource.meta.deleting;
                if !status_alone {
                    self.mark_resource(&name);
                }
            }
            Taken::Replaced(_) => self.mark_resource(&name),
            Taken::New => {
                self.audiences.entry(resource.audience.clone()).or_default().insert(name);
                self.mark_audience(&resource.audience);
            }
        }
    }

    fn remove_resource(&mut self, key: &Key, uid: Uid) {
        let Some(old) = self.resources.remove(key, uid) else { return };
        if let Some(names) = self.audiences.get_mut(&old.audience) {
            names.remove(&key.name);
            if names.is_empty() {
                self.audiences.remove(&old.audience);
            }
        }
        self.mark_resource(&key.name);
        self.mark_audience(&old.audience);
        self.tally.forget_resource(&key.name);
    }

    fn mark_audience(&mut self, audience: &Arc<str>) {
        let names: Vec<_> = self.audiences.get(audience).into_iter().flatten().cloned().collect();
        names.iter().for_each(|n| self.mark_resource(n));
    }

    fn mark_resource(&mut self, name: &Arc<str>) {
        self.tally.touch_resource(name.clone());
        let grants: Vec<_> = self.grants_on.get(name).into_iter().flatten().cloned().collect();
        let agents: Vec<_> =
            grants.iter().filter_map(|k| self.grants.get(k)).flat_map(|g| self.selected_by(g).0).collect();
        grants.into_iter().for_each(|g| self.tally.touch_grant(g));
        self.mark_agents(agents);
    }

    fn take_grant(&mut self, grant: Grant, origin: Origin) {
        if origin == Origin::Watch {
            self.grants.reached(grant.meta.version);
        }
        match self.grants.take(grant.clone(), origin) {
            Taken::Stale => return,
            Taken::Replaced(old) => {
                let status_alone =
                    Grant { meta: grant.meta.clone(), status: grant.status.clone(), ..old.clone() } == grant
                        && old.meta.uid == grant.meta.uid
                        && old.meta.deleting == grant.meta.deleting;
                if status_alone {
                    return;
                }
                self.index_grant(&old, false);
                self.mark_selected(&old);
            }
            Taken::New => {}
        }
        self.index_grant(&grant, true);
        self.mark_selected(&grant);
    }

    fn mark_selected(&mut self, grant: &Grant) {
        self.tally.touch_grant(grant.meta.key.clone());
        let agents = self.selected_by(grant).0;
        self.mark_agents(agents);
    }

    fn index_grant(&mut self, grant: &Grant, there: bool) {
        let Key { namespace, name } = &grant.meta.key;
        match &grant.selection {
            Selection::Names(agents) => {
                for agent in agents {
                    let agent = Key::new(namespace.clone(), agent.clone());
                    toggle(&mut self.grants_naming, agent, name.clone(), there);
                }
            }
            Selection::Selector(_) => {
                toggle(&mut self.grants_selecting, namespace.clone(), name.clone(), there);
            }
        }
        toggle(&mut self.grants_on, grant.resource.clone(), grant.meta.key.clone(), there);
    }

    fn take_namespace(&mut self, namespace: Namespace, origin: Origin) {
        if origin == Origin::Watch {
            self.namespaces.reached(namespace.meta.version);
        }
        let (name, labels, deleting) =
            (namespace.meta.key.name.clone(), namespace.labels.clone(), namespace.meta.deleting);
        match self.namespaces.take(namespace, origin) {
            Taken::Stale => {}
            Taken::Replaced(old) if old.labels == labels && old.meta.deleting == deleting => {}
            _ => self.mark_namespace(&name),
        }
    }

    fn mark_namespace(&mut self, name: &Arc<str>) {
        let agents: Vec<_> = self.agents_in.get(name).into_iter().flatten().cloned().collect();
        self.mark_agents(agents.into_iter().map(|a| Key::new(name.clone(), a)));
        self.dirty.push((Work::Trust(name.clone()), Lane::Urgent));
    }

    fn take_secret(&mut self, secret: Credentials, origin: Origin) {
        if origin == Origin::Watch {
            self.secrets.reached(secret.meta.version);
        }
        let key = secret.meta.key.clone();
        let taken = self.secrets.take(secret.clone(), origin);
        match &taken {
            Taken::Stale => return,
            Taken::Replaced(old) => self.index_secret(old, false),
            Taken::New => {}
        }
        self.foreign.remove(&key);
        self.index_secret(&secret, true);
        if self.is_orphan(&secret) {
            self.dirty.push((Work::Orphan(key.clone()), Lane::Urgent));
        }
        if origin == Origin::Watch {
            self.mark_claimants(&key);
        }
    }

    fn index_secret(&mut self, secret: &Credentials, there: bool) {
        let Some(agent) = secret.agent else { return };
        let secrets = self.secrets_of.entry(agent).or_default();
        secrets.retain(|k| *k != secret.meta.key);
        if there {
            secrets.push(secret.meta.key.clone());
        } else if secrets.is_empty() {
            self.secrets_of.remove(&agent);
        }
    }

    fn mark_claimants(&mut self, secret: &Key) {
        let names = self.claims.get(secret).cloned().unwrap_or_default();
        self.mark_agents(names.into_iter().map(|n| secret.sibling(n)));
    }

    fn take_trust(&mut self, trust: Trust, origin: Origin) {
        let namespace = trust.meta.key.namespace.clone();
        if origin == Origin::Watch {
            self.trust.reached(trust.meta.version);
        }
        if self.trust.take(trust, origin) != Taken::Stale && origin == Origin::Watch {
            self.dirty.push((Work::Trust(namespace), Lane::Urgent));
        }
    }

    /// Notes that something that is not ours bears the name of an agent's Secret, or (`None`) no longer does.
    pub fn note_foreign(&mut self, secret: &Key, foreign: Option<Foreign>) {
        match foreign {
            Some(foreign) => self.foreign.insert(secret.clone(), foreign),
            None => self.foreign.remove(secret),
        };
    }
}

fn insert(names: &mut Vec<Arc<str>>, name: &Arc<str>) {
    if !names.contains(name) {
        names.push(name.clone());
    }
}

fn forget<K: Eq + std::hash::Hash>(
    index: &mut std::collections::HashMap<K, Vec<Arc<str>>>,
    key: &K,
    name: &Arc<str>,
) {
    if let Some(names) = index.get_mut(key) {
        names.retain(|n| n != name);
        if names.is_empty() {
            index.remove(key);
        }
    }
}

fn toggle<K: Eq + std::hash::Hash, V: Ord>(
    index: &mut std::collections::HashMap<K, std::collections::BTreeSet<V>>,
    key: K,
    value: V,
    there: bool,
) {
    if there {
        index.entry(key).or_default().insert(value);
    } else if let Some(values) = index.get_mut(&key) {
        values.remove(&value);
        if values.is_empty() {
            index.remove(&key);
        }
    }
}

//! A pure API server for tests: it holds objects as the real one does, hands them to the world as watches do,
//! and takes plans in.
//!
//! Invariant: the world learns of nothing but by events, lists and answers.

mod apply;
mod bindings;
mod oracle;
mod oracle_policy;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use self::apply::Undone;
pub(crate) use self::apply::Writes;
pub(crate) use self::bindings::rules;
use super::plan::KeysSeen;
use super::statuslist::HandOut;
use super::*;
use crate::api::{AgentBlueprint, AgentGrant, AgentIdentity, AgentPolicy, AgentResource, Configuration};

/// A token as it would have been signed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Minted {
    pub file: Arc<str>,
    pub entitlement: Entitlement,
    pub iat: Timestamp,
    pub exp: Timestamp,
}

/// A Secret of our type with what is in it.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub seen: Credentials,
    pub tokens: Vec<Minted>,
}

/// What a watch has still to tell.
#[derive(Debug)]
enum Event {
    Put(Object),
    Gone(Key, Uid, u64),
}

/// The API server, and the world that watches it.
pub(crate) struct Cluster {
    pub world: World,
    pub now: Timestamp,
    pub keys: KeysSeen,
    pub kid: Arc<str>,
    pub agents: BTreeMap<Key, AgentIdentity>,
    pub resources: BTreeMap<Key, AgentResource>,
    pub grants: BTreeMap<Key, AgentGrant>,
    pub blueprints: BTreeMap<Key, AgentBlueprint>,
    pub policies: BTreeMap<Key, AgentPolicy>,
    pub namespaces: BTreeMap<Key, Namespace>,
    pub bound: BTreeMap<(KindName, Key), BoundObject>,
    pub secrets: BTreeMap<Key, Stored>,
    pub trust: BTreeMap<Key, Trust>,
    pub cluster_roles: BTreeMap<Key, ClusterRole>,
    pub bindings: BTreeMap<Key, Binding>,
    pub hand_out: HandOut,
    pub foreign: BTreeSet<Key>,
    pub lost: BTreeSet<Source>,
    pub writes: Writes,
    /// Writes until the operator dies.
    pub dies_after: Option<u32>,
    /// The ClusterRoles that the API server does not let the operator bind, and what is said then.
    pub unbindable: BTreeMap<String, Refusal>,
    pending: Vec<(Source, Event)>,
    due: BTreeMap<Key, Timestamp>,
    retry: BTreeSet<Work>,
    version: u64,
    uids: u64,
    terms: u128,
}

pub(crate) const START: i64 = 1_800_000_000;

pub(crate) fn uid_of(meta: &ObjectMeta) -> Uid {
    meta.uid.as_deref().unwrap().parse().unwrap()
}

pub(crate) fn key_of(meta: &ObjectMeta) -> Key {
    Key::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap())
}

impl Cluster {
    /// An empty one whose sources have all synced.
    pub fn new() -> Self {
        Self::configured(Configuration::new("https://agentid.example.com", "example.com"))
    }

    pub fn configured(config: Configuration) -> Self {
        let mut cluster = Self {
            world: World::new(config),
            now: Timestamp::from_second(START).unwrap(),
            keys: KeysSeen { good: std::iter::once("k0".into()).collect(), problem: None },
            kid: "k0".into(),
            agents: BTreeMap::new(),
            resources: BTreeMap::new(),
            grants: BTreeMap::new(),
            blueprints: BTreeMap::new(),
            policies: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            bound: BTreeMap::new(),
            secrets: BTreeMap::new(),
            trust: BTreeMap::new(),
            cluster_roles: BTreeMap::new(),
            bindings: BTreeMap::new(),
            hand_out: HandOut::open(ListId(1), 1 << 20),
            foreign: BTreeSet::new(),
            lost: BTreeSet::new(),
            writes: Writes::default(),
            dies_after: None,
            unbindable: BTreeMap::new(),
            pending: Vec::new(),
            due: BTreeMap::new(),
            retry: BTreeSet::new(),
            version: 0,
            uids: 0,
            terms: 0,
        };
        cluster.restart();
        cluster
    }

    /// With a namespace `ns` of the label `team: a`, an agent `a`, a resource `res` that allows it all, and a
    /// grant `g` of the file `res.jwt`.
    pub fn example() -> Self {
        let mut c = Self::new();
        c.namespace("ns", &[("team", "a")]);
        c.apply("{kind: AgentIdentity, metadata: {name: a, namespace: ns}, spec: {}}");
        c.apply(RESOURCE);
        c.apply(GRANT);
        c
    }

    /// All sources, the core first.
    pub fn sources(&self) -> Vec<Source> {
        let bound = &self.world.config().bound_kinds;
        let bound = bound.iter().map(|k| Source::Bound(kind_name(&k.api_version, &k.kind)));
        Source::CORE.into_iter().chain(Source::BESIDE).chain(bound).collect()
    }

    /// The operator starts anew: the world is made of what the API server holds, and of nothing else.
    pub fn restart(&mut self) {
        self.world = World::new(self.world.config().clone());
        self.terms += 1;
        self.hand_out = HandOut::open(ListId(self.terms), 1 << 20);
        self.pending.clear();
        self.due.clear();
        self.retry.clear();
        self.dies_after = None;
        for source in self.sources() {
            if !self.lost.contains(&source) {
                self.relist(&source);
            }
        }
    }

    /// A source is lost: its events no longer arrive.
    pub fn lose(&mut self, source: &Source) {
        self.lost.insert(source.clone());
        self.world.lost(source, Lost::Unreachable);
    }

    /// A source is back.
    pub fn find(&mut self, source: &Source) {
        if self.lost.remove(source) {
            self.relist(source);
        }
    }

    /// A whole list, as after a watch that has expired.
    pub fn relist(&mut self, source: &Source) {
        self.pending.retain(|(s, _)| s != source);
        self.world.begin_list(source);
        for object in self.list(source) {
            self.world.take(object, Origin::Watch);
        }
        for (key, uid) in self.world.missing(source) {
            self.world.remove(source, &key, uid, self.version);
        }
        self.world.end_list(source, self.now);
    }

    fn list(&self, source: &Source) -> Vec<Object> {
        match source {
            Source::Agents => self.agents.values().map(Self::agent_object).collect(),
            Source::Resources => self.resources.values().map(Self::resource_object).collect(),
            Source::Grants => self.grants.values().map(Self::grant_object).collect(),
            Source::Blueprints => self.blueprints.values().map(Self::blueprint_object).collect(),
            Source::Policies => self.policies.values().map(Self::policy_object).collect(),
            Source::Namespaces => {
                self.namespaces.values().cloned().map(|n| Object::Namespace(Box::new(n))).collect()
            }
            Source::Secrets => {
                self.secrets.values().map(|s| Object::Secret(Box::new(s.seen.clone()))).collect()
            }
            Source::Trust => self.trust.values().cloned().map(|t| Object::Trust(Box::new(t))).collect(),
            Source::ServiceAccounts | Source::Lease => Vec::new(),
            Source::ClusterRoles => {
                self.cluster_roles.values().cloned().map(|r| Object::ClusterRole(Box::new(r))).collect()
            }
            Source::Bindings => {
                self.bindings.values().cloned().map(|b| Object::Binding(Box::new(b))).collect()
            }
            Source::Bound(kind) => {
                let of_kind = self.bound.iter().filter(|((k, _), o)| k == kind && !o.unselected);
                of_kind.map(|(_, o)| Object::Bound(kind.clone(), Box::new(o.clone()))).collect()
            }
        }
    }

    fn agent_object(agent: &AgentIdentity) -> Object {
        Object::Agent(Box::new(Agent::try_from(agent).unwrap()))
    }

    fn resource_object(resource: &AgentResource) -> Object {
        Object::Resource(Box::new(Resource::try_from(resource).unwrap()))
    }

    fn grant_object(grant: &AgentGrant) -> Object {
        Object::Grant(Box::new(Grant::try_from(grant).unwrap()))
    }

    fn blueprint_object(blueprint: &AgentBlueprint) -> Object {
        Object::Blueprint(Box::new(Blueprint::try_from(blueprint).unwrap()))
    }

    fn policy_object(policy: &AgentPolicy) -> Object {
        Object::Policy(Box::new(Policy::try_from(policy).unwrap()))
    }

    fn put(&mut self, source: Source, object: Object) {
        self.pending.push((source, Event::Put(object)));
    }

    fn gone(&mut self, source: Source, key: &Key, uid: Uid) {
        let version = self.next_version();
        self.pending.push((source, Event::Gone(key.clone(), uid, version)));
    }

    /// Hands the world what its watches have to tell.
    pub fn deliver(&mut self) {
        for (source, event) in std::mem::take(&mut self.pending) {
            if self.lost.contains(&source) {
                continue; // The list on its return tells it all.
            }
            match event {
                Event::Put(object) => self.world.take(object, Origin::Watch),
                Event::Gone(key, uid, version) => self.world.remove(&source, &key, uid, version),
            }
        }
    }

    fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    fn next_uid(&mut self) -> Uid {
        self.uids += 1;
        // Neither ordered nor alike, as UUIDs of version 4.
        let spread = u128::from(self.uids).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        Uid(spread.rotate_left(61))
    }

    fn new_meta(&mut self, key: &Key) -> Meta {
        let (uid, version) = (self.next_uid(), self.next_version());
        let created = Timestamp::from_second(self.now.as_second()).unwrap();
        Meta { key: key.clone(), uid, version, created, deleting: false }
    }

    /// Time passes; sources that are not lost are heard of.
    pub fn advance(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
        self.hear();
    }

    pub fn hear(&mut self) {
        for source in self.sources() {
            if !self.lost.contains(&source) {
                self.world.heard(&source, self.now);
            }
        }
    }

    /// Creates or replaces a custom resource; immutable fields stay.
    pub fn apply(&mut self, yaml: &str) -> Uid {
        let value: serde_json::Value = serde_yaml::from_str(yaml).unwrap();
        let value = |kind: &str| {
            let mut value = value.clone();
            value["apiVersion"] = crate::api::API_VERSION.into();
            (value["kind"] == kind).then_some(value)
        };
        if let Some(value) = value("AgentIdentity") {
            let mut new: AgentIdentity = serde_json::from_value(value).unwrap();
            let old = self.agents.get(&key_of(&new.metadata));
            if let Some(old) = old {
                new.spec.blueprint = old.spec.blueprint.clone();
                new.spec.bound_object_ref = old.spec.bound_object_ref.clone();
                new.spec.secret_name = old.spec.secret_name.clone();
                new.status = old.status.clone();
                new.metadata.owner_references = old.metadata.owner_references.clone();
            }
            let edited = old.is_none_or(|o| o.spec != new.spec);
            let old = old.map(|o| o.metadata.clone());
            self.stamp(&mut new.metadata, old, edited);
            self.put(Source::Agents, Self::agent_object(&new));
            let uid = uid_of(&new.metadata);
            self.agents.insert(key_of(&new.metadata), new);
            uid
        } else if let Some(value) = value("AgentResource") {
            let mut new: AgentResource = serde_json::from_value(value).unwrap();
            let old = self.resources.get(&key_of(&new.metadata));
            if let Some(old) = old {
                new.spec.audience = old.spec.audience.clone();
            }
            let edited = old.is_none_or(|o| o.spec != new.spec);
            let old = old.map(|o| o.metadata.clone());
            self.stamp(&mut new.metadata, old, edited);
            self.put(Source::Resources, Self::resource_object(&new));
            let uid = uid_of(&new.metadata);
            self.resources.insert(key_of(&new.metadata), new);
            uid
        } else if let Some(value) = value("AgentGrant") {
            let mut new: AgentGrant = serde_json::from_value(value).unwrap();
            let old = self.grants.get(&key_of(&new.metadata));
            let edited = old.is_none_or(|o| o.spec != new.spec);
            let old = old.map(|o| o.metadata.clone());
            self.stamp(&mut new.metadata, old, edited);
            self.put(Source::Grants, Self::grant_object(&new));
            let uid = uid_of(&new.metadata);
            self.grants.insert(key_of(&new.metadata), new);
            uid
        } else if let Some(value) = value("AgentBlueprint") {
            let mut new: AgentBlueprint = serde_json::from_value(value).unwrap();
            let old = self.blueprints.get(&key_of(&new.metadata));
            if let Some(old) = old {
                new.spec.identity_per = old.spec.identity_per;
            }
            let edited = old.is_none_or(|o| o.spec != new.spec);
            let old = old.map(|o| o.metadata.clone());
            self.stamp(&mut new.metadata, old, edited);
            self.put(Source::Blueprints, Self::blueprint_object(&new));
            let uid = uid_of(&new.metadata);
            self.blueprints.insert(key_of(&new.metadata), new);
            uid
        } else if let Some(value) = value("AgentPolicy") {
            let mut new: AgentPolicy = serde_json::from_value(value).unwrap();
            let old = self.policies.get(&key_of(&new.metadata));
            let edited = old.is_none_or(|o| o.spec != new.spec);
            let old = old.map(|o| o.metadata.clone());
            self.stamp(&mut new.metadata, old, edited);
            self.put(Source::Policies, Self::policy_object(&new));
            let uid = uid_of(&new.metadata);
            self.policies.insert(key_of(&new.metadata), new);
            uid
        } else {
            panic!("an unknown kind: {yaml}")
        }
    }

    /// Asks for an agent's tokens to be minted anew, as `agentid rotate` does; whether it is there.
    pub fn rotate(&mut self, key: &Key, at: &str) -> bool {
        let version = self.next_version();
        let Some(agent) = self.agents.get_mut(key) else { return false };
        agent.metadata.resource_version = Some(version.to_string());
        let annotations = agent.metadata.annotations.get_or_insert_default();
        annotations.insert(crate::api::ROTATE_ANNOTATION.to_owned(), at.to_owned());
        let object = Self::agent_object(agent);
        self.put(Source::Agents, object);
        true
    }

    fn stamp(&mut self, meta: &mut ObjectMeta, old: Option<ObjectMeta>, edited: bool) {
        let version = self.next_version();
        meta.resource_version = Some(version.to_string());
        match old {
            Some(old) => {
                meta.uid = old.uid;
                meta.creation_timestamp = old.creation_timestamp;
                meta.generation = old.generation.map(|g| g + i64::from(edited));
            }
            None => {
                let seen = self.new_meta(&key_of(meta));
                meta.uid = Some(seen.uid.to_string());
                meta.creation_timestamp = Some(Time(seen.created));
                meta.generation = Some(1);
            }
        }
    }

    /// Deletes an object; whether it was there.
    pub fn delete(&mut self, source: &Source, key: &Key) -> bool {
        let uid = match source {
            Source::Agents => self.agents.remove(key).map(|a| uid_of(&a.metadata)),
            Source::Resources => self.resources.remove(key).map(|a| uid_of(&a.metadata)),
            Source::Grants => self.grants.remove(key).map(|a| uid_of(&a.metadata)),
            Source::Blueprints => self.blueprints.remove(key).map(|a| uid_of(&a.metadata)),
            Source::Policies => self.policies.remove(key).map(|a| uid_of(&a.metadata)),
            Source::Namespaces => self.namespaces.remove(key).map(|n| n.meta.uid),
            Source::Secrets => self.secrets.remove(key).map(|s| s.seen.meta.uid),
            Source::Trust => self.trust.remove(key).map(|t| t.meta.uid),
            Source::ServiceAccounts | Source::Lease => None,
            Source::ClusterRoles => self.cluster_roles.remove(key).map(|r| r.meta.uid),
            Source::Bindings => self.bindings.remove(key).map(|b| b.meta.uid),
            Source::Bound(kind) => {
                let object = self.bound.remove(&(kind.clone(), key.clone()));
                object.map(|o| o.meta.uid)
            }
        };
        uid.map(|uid| self.gone(source.clone(), key, uid)).is_some()
    }

    /// Creates or labels a namespace.
    pub fn namespace(&mut self, name: &str, labels: &[(&str, &str)]) {
        let key = Key::new("", name);
        let mut meta = match self.namespaces.get(&key) {
            Some(old) => old.meta.clone(),
            None => self.new_meta(&key),
        };
        meta.version = self.next_version();
        let namespace = Namespace { meta, labels: labels.iter().copied().collect() };
        self.put(Source::Namespaces, Object::Namespace(Box::new(namespace.clone())));
        self.namespaces.insert(key, namespace);
    }

    /// Creates or changes an object that agents are bound to; one that is not selected is not watched.
    pub fn bound(&mut self, kind: &str, key: &Key, finished: bool, selected: bool) -> Uid {
        let kind = KindName::from(kind);
        let at = (kind.clone(), key.clone());
        let old = self.bound.get(&at).cloned();
        let mut meta = old.as_ref().map_or_else(|| self.new_meta(key), |o| o.meta.clone());
        meta.version = self.next_version();
        let object = BoundObject { finished, unselected: !selected, ..BoundObject::new(meta) };
        let uid = object.meta.uid;
        if selected {
            self.put(Source::Bound(kind.clone()), Object::Bound(kind, Box::new(object.clone())));
        } else if old.is_some_and(|o| !o.unselected) {
            let version = object.meta.version;
            self.pending.push((Source::Bound(kind), Event::Gone(key.clone(), uid, version)));
        }
        self.bound.insert(at, object);
        uid
    }

    /// Creates or changes a pod, or what controls it, whole.
    pub fn put_bound(&mut self, kind: &str, key: &Key, change: impl FnOnce(&mut BoundObject)) -> Uid {
        let kind = KindName::from(kind);
        let at = (kind.clone(), key.clone());
        let mut object = match self.bound.get(&at) {
            Some(old) => old.clone(),
            None => BoundObject::new(self.new_meta(key)),
        };
        object.meta.version = self.next_version();
        change(&mut object);
        self.put(Source::Bound(kind), Object::Bound(at.0.clone(), Box::new(object.clone())));
        let uid = object.meta.uid;
        self.bound.insert(at, object);
        uid
    }

    /// The answer about an agent.
    pub fn decide(&self, namespace: &str, name: &str) -> Decision {
        decide(&self.world, &Key::new(namespace, name), self.now).unwrap()
    }

    /// The files of an agent's Secret.
    pub fn files(&self, namespace: &str, secret: &str) -> Option<Vec<&str>> {
        let secret = self.secrets.get(&Key::new(namespace, secret))?;
        let mut files: Vec<_> = secret.tokens.iter().map(|t| &*t.file).collect();
        files.sort_unstable();
        Some(files)
    }
}

pub(crate) const RESOURCE: &str = "
kind: AgentResource
metadata: {name: res}
spec:
  audience: https://res.example.com
  roles: [{name: reader}, {name: writer}]
  scopes: [{name: x.read}, {name: x.write}]
  allow: [{namespaceSelector: {matchLabels: {team: a}}}]
";
pub(crate) const GRANT: &str = "
kind: AgentGrant
metadata: {name: g, namespace: ns}
spec:
  agents: {names: [a]}
  resource: res
  application: {roles: [reader], scopes: [x.read]}
  secretKey: res.jwt
";

impl Cluster {
    /// Somebody else changes a Secret of ours.
    pub fn drift(&mut self, key: &Key, what: Changed) {
        let version = self.next_version();
        let Some(stored) = self.secrets.get_mut(key) else { return };
        stored.seen.meta.version = version;
        stored.seen.drift = Some(Drift { by: "kubectl-edit".into(), what });
        let object = Object::Secret(Box::new(stored.seen.clone()));
        self.put(Source::Secrets, object);
    }

    /// Somebody copies a Secret of ours.
    pub fn copy_secret(&mut self, from: &Key, to: &Key) {
        if self.secrets.contains_key(to) || self.foreign.contains(to) {
            return;
        }
        let Some(mut copy) = self.secrets.get(from).cloned() else { return };
        copy.seen.meta = self.new_meta(to);
        self.put(Source::Secrets, Object::Secret(Box::new(copy.seen.clone())));
        self.secrets.insert(to.clone(), copy);
    }
}

//! A pure API server for tests: it holds objects as the real one does, hands them to the world as watches do,
//! and takes plans in.
//!
//! Invariant: the world learns of nothing but by events, lists and answers.

mod apply;
mod bindings;
mod oracle;
mod oracle_policy;
mod people;
mod secrets;

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
        for (key, uid) in self.world.missing(source, self.version) {
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

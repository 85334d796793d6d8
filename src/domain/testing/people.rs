//! What people and other controllers do on the API server for tests: they create, edit, meddle and delete.
//!
//! Invariant: immutable fields stay, and whatever changes gets a new resourceVersion and is told to the watches.

use super::*;

impl Cluster {
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

//! ClusterRoles and RoleBindings on the API server for tests.

use k8s_openapi::api::rbac::v1::PolicyRule;

use super::*;
use crate::domain::bindings::{BindingStep, Taking, Wanted, plan, subjects_digest};
use crate::domain::guardrails::Violations;

/// A rule of a ClusterRole, from YAML.
pub(crate) fn rules(yaml: &str) -> Vec<PolicyRule> {
    serde_yaml::from_str(yaml).unwrap()
}

fn uids(names: &[String]) -> Box<[Uid]> {
    names.iter().map(|s| s.rsplit('/').next().unwrap().parse().unwrap()).collect()
}

impl Cluster {
    /// Creates or changes a ClusterRole.
    pub fn cluster_role(&mut self, name: &str, yaml: &str) {
        let key = Key::new("", name);
        let old = self.cluster_roles.get(&key).map(|r| r.meta.clone());
        let mut meta = old.unwrap_or_else(|| self.new_meta(&key));
        meta.version = self.next_version();
        let role = ClusterRole { meta, violations: Violations::of(name, &rules(yaml)) };
        self.put(Source::ClusterRoles, Object::ClusterRole(Box::new(role.clone())));
        self.cluster_roles.insert(key, role);
    }

    /// Somebody else changes a RoleBinding of ours.
    pub fn change_binding(&mut self, key: &Key, change: impl FnOnce(&mut Binding)) {
        let version = self.next_version();
        let binding = self.bindings.get_mut(key).unwrap();
        binding.meta.version = version;
        change(binding);
        let object = Object::Binding(Box::new(binding.clone()));
        self.put(Source::Bindings, object);
    }

    pub fn work_on_binding(&mut self, unit: &Unit) -> Result<(), Undone> {
        let plan = plan(&self.world, unit, self.now);
        let mut unbound = BTreeMap::new();
        for step in plan.steps {
            self.alive()?;
            if let BindingStep::Create(wanted) | BindingStep::Update(_, wanted) = &step
                && let Some(why) = self.unbindable.get(&*wanted.role)
            {
                unbound.insert(wanted.role.clone(), Some(why.clone()));
                // Nobody keeps a right because it can't be taken from him alone.
                if let BindingStep::Update(uid, wanted) = &step
                    && let left = uids(&wanted.subjects)
                    && let Some(had) = self.bindings.get(&wanted.key)
                    && had.subjects.iter().any(|agent| !left.contains(agent))
                {
                    self.writes.bindings += 1;
                    self.delete(&Source::Bindings, &wanted.key);
                    self.world.remove(&Source::Bindings, &wanted.key, *uid, 0);
                }
                continue;
            }
            self.writes.bindings += 1;
            match step {
                BindingStep::Create(wanted) => {
                    assert!(!self.bindings.contains_key(&wanted.key), "{wanted:?}");
                    let meta = self.new_meta(&wanted.key);
                    self.store_binding(meta, &wanted);
                }
                BindingStep::Update(uid, wanted) => {
                    let old = self.bindings.get(&wanted.key).filter(|b| b.meta.uid == uid);
                    let Some(mut meta) = old.map(|b| b.meta.clone()) else { return Err(Undone::Refused) };
                    meta.version = self.next_version();
                    self.store_binding(meta, &wanted);
                }
                BindingStep::Take(Taking { key, uid, left, .. }) => {
                    if let Some(binding) = self.bindings.get(&key).filter(|b| b.meta.uid == uid).cloned() {
                        let meta = Meta { version: self.next_version(), ..binding.meta.clone() };
                        let digest = subjects_digest(left.iter().map(String::as_str));
                        self.keep_binding(Binding { meta, subjects: uids(&left), digest, ..binding });
                    }
                }
                BindingStep::Delete(key, uid) => {
                    if self.bindings.get(&key).is_some_and(|b| b.meta.uid == uid) {
                        self.delete(&Source::Bindings, &key);
                    }
                    self.world.remove(&Source::Bindings, &key, uid, 0);
                }
            }
        }
        let refused = !unbound.is_empty();
        if plan.known {
            self.world.record_tried(unit, unbound);
        }
        if plan.wake.is_some() || refused { Err(Undone::Refused) } else { Ok(()) }
    }

    fn store_binding(&mut self, meta: Meta, wanted: &Wanted) {
        let binding = Binding {
            grant: wanted.grant,
            role: Some(wanted.role.clone()),
            subjects: uids(&wanted.subjects),
            digest: subjects_digest(wanted.subjects.iter().map(String::as_str)),
            owner: Some(wanted.owner.uid),
            meta,
        };
        self.keep_binding(binding);
    }

    fn keep_binding(&mut self, binding: Binding) {
        assert!(binding.subjects.len() <= crate::domain::bindings::SUBJECTS);
        self.world.take(Object::Binding(Box::new(binding.clone())), Origin::Answer);
        self.put(Source::Bindings, Object::Binding(Box::new(binding.clone())));
        self.bindings.insert(binding.meta.key.clone(), binding);
    }

    /// Who is bound to what: namespace, role, agent.
    pub fn bound_roles(&self) -> BTreeSet<(String, String, String)> {
        let one = |b: &Binding| {
            let (ns, role) = (b.meta.key.namespace.to_string(), b.role.as_ref().unwrap().to_string());
            let of = |uid: &Uid| {
                let agent = self.agents.values().find(|a| uid_of(&a.metadata) == *uid);
                let name = agent.map_or_else(|| "gone".to_owned(), |a| a.metadata.name.clone().unwrap());
                (ns.clone(), role.clone(), name)
            };
            b.subjects.iter().map(of).collect::<Vec<_>>()
        };
        self.bindings.values().flat_map(one).collect()
    }
}

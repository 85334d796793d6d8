//! What the indexes are kept by.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;

pub(super) fn insert(names: &mut Vec<Arc<str>>, name: &Arc<str>) {
    if !names.contains(name) {
        names.push(name.clone());
    }
}

pub(super) fn forget<K: Eq + Hash>(index: &mut HashMap<K, Vec<Arc<str>>>, key: &K, name: &Arc<str>) {
    if let Some(names) = index.get_mut(key) {
        names.retain(|n| n != name);
        if names.is_empty() {
            index.remove(key);
        }
    }
}

pub(super) fn toggle<K: Eq + Hash, V: Ord>(
    index: &mut HashMap<K, BTreeSet<V>>,
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

#[cfg(test)]
impl super::World {
    /// Every index in a comparable form.
    pub(crate) fn indexes(&self) -> std::collections::BTreeMap<&'static str, BTreeSet<String>> {
        fn text<K: std::fmt::Debug, V: std::fmt::Debug + Ord>(
            index: impl IntoIterator<Item = (K, Vec<V>)>,
        ) -> BTreeSet<String> {
            let sorted = index.into_iter().map(|(k, v)| (k, v.into_iter().collect::<BTreeSet<_>>()));
            sorted.map(|(k, v)| format!("{k:?}: {v:?}")).collect()
        }
        fn set<V: Clone>(set: &BTreeSet<V>) -> Vec<V> {
            set.iter().cloned().collect()
        }
        let awaited = self.agents.iter().filter_map(|(_, a)| a.bound_uid()).collect::<Vec<_>>();
        let leaked = self.confirmed_gone.iter().filter(|u| !awaited.contains(u));
        [
            ("agents_in", text(self.agents_in.iter().map(|(k, v)| (k, set(v))))),
            ("agent_of_uid", text(self.agent_of_uid.iter().map(|(k, v)| (k, vec![v.clone()])))),
            ("claims", text(self.claims.iter().map(|(k, v)| (k, v.clone())))),
            ("bound_to", text(self.bound_to.iter().map(|(k, v)| (k, v.clone())))),
            ("unbound_of_account", text(self.unbound_of_account.iter().map(|(k, v)| (k, v.clone())))),
            ("secrets_of", text(self.secrets_of.iter().map(|(k, v)| (k, v.clone())))),
            ("grants_naming", text(self.grants_naming.iter().map(|(k, v)| (k, set(v))))),
            ("grants_selecting", text(self.grants_selecting.iter().map(|(k, v)| (k, set(v))))),
            ("grants_on", text(self.grants_on.iter().map(|(k, v)| (k, set(v))))),
            ("audiences", text(self.audiences.iter().map(|(k, v)| (k, set(v))))),
            ("users", text(self.users.iter().map(|(k, v)| (k, set(v))))),
            ("leaked notes", text(leaked.map(|u| (u, vec![0])))),
        ]
        .into_iter()
        .chain(self.policy_texts())
        .collect()
    }

    /// A world of the same objects, taken in anew.
    pub(crate) fn rebuilt(&self) -> Self {
        use super::{Object, Origin};
        let mut world = Self::new(self.config.clone());
        let agents = self.agents().cloned().map(|o| Object::Agent(Box::new(o)));
        let resources = self.resources().cloned().map(|o| Object::Resource(Box::new(o)));
        let grants = self.grants().cloned().map(|o| Object::Grant(Box::new(o)));
        let policies = self.policies().cloned().map(|o| Object::Policy(Box::new(o)));
        let namespaces = self.namespaces.iter().map(|(_, n)| Object::Namespace(Box::new(n.clone())));
        let secrets = self.secrets().cloned().map(|o| Object::Secret(Box::new(o)));
        let all = agents.chain(resources).chain(grants).chain(policies).chain(namespaces).chain(secrets);
        all.for_each(|o| world.take(o, Origin::Watch));
        world
    }
}

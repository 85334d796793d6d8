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

//! The trust ConfigMaps: which namespaces are to have one, and which they have.
//!
//! Invariant: a namespace is to have one while it has agents or asks for it by its label; one that is not ours
//! counts for nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::table::{Listing, Origin, Taken};
use super::{Lane, Work, World};
use crate::api::{TRUST_LABEL, TRUST_NAME};
use crate::domain::{Digest, Key, Trust};

impl World {
    /// A namespace's trust ConfigMap.
    #[must_use]
    pub fn trust(&self, namespace: &Arc<str>) -> Option<&Trust> {
        self.trust.get(&Key::new(namespace.clone(), TRUST_NAME))
    }

    /// Whether a namespace is to have the trust ConfigMap.
    #[must_use]
    pub fn wants_trust(&self, namespace: &Arc<str>) -> bool {
        self.namespace(namespace).is_some_and(|n| {
            !n.meta.deleting
                && (self.agents_in.contains_key(namespace) || n.labels.get(TRUST_LABEL) == Some("true"))
        })
    }

    /// Namespaces that have agents, the trust label or a trust ConfigMap.
    #[must_use]
    pub fn trust_namespaces(&self) -> BTreeSet<Arc<str>> {
        let labelled = self
            .namespaces
            .iter()
            .filter(|(_, n)| n.labels.get(TRUST_LABEL) == Some("true"))
            .map(|(k, _)| k.name.clone());
        let held = self.trust.iter().map(|(k, _)| k.namespace.clone());
        self.agents_in.keys().cloned().chain(labelled).chain(held).collect()
    }

    pub(super) fn take_trust(&mut self, trust: Trust, origin: Origin) {
        let namespace = trust.meta.key.namespace.clone();
        if origin == Origin::Watch {
            self.trust.reached(trust.meta.version);
        }
        if self.trust.take(trust, origin) != Taken::Stale && origin == Origin::Watch {
            self.dirty.push((Work::Trust(namespace), Lane::Urgent));
        }
    }

    /// Marks every trust ConfigMap to be looked at.
    pub fn mark_trust(&mut self) {
        let namespaces = self.trust_namespaces();
        self.dirty.extend(namespaces.into_iter().map(|n| (Work::Trust(n), Lane::Urgent)));
    }

    /// Whether every namespace that is to have the trust ConfigMap has it with this data; a foreign one does
    /// not count.
    #[must_use]
    pub fn trust_carries(&self, digest: Digest) -> bool {
        self.trust_namespaces()
            .iter()
            .filter(|n| self.wants_trust(n))
            .all(|n| self.trust(n).is_some_and(|t| !t.ours || t.digest == digest))
    }
}

//! The cluster as a resource: ClusterRoles and RoleBindings, what is done to them, and who must be bound.

use std::collections::BTreeSet;

use super::super::testing::Cluster;
use super::super::*;
use crate::api::Reason;

/// Creates or edits the AgentResource `r3`, which is this cluster.
pub(super) fn resource(c: &mut Cluster, offer: u8, allow: u8) {
    let offer = ["[{name: r0}, {name: r1}]", "[{name: r0}]", "[{name: r1}, {name: r9}]"][usize::from(offer)];
    let allow = [
        "[{namespaceSelector: {}}]",
        "[{namespaceSelector: {matchLabels: {team: a}}}]",
        "[{namespaceSelector: {}, roles: [r0]}]",
        "[]",
    ][usize::from(allow)];
    c.apply(&format!(
        "{{kind: AgentResource, metadata: {{name: r3}}, spec: {{audience: \"https://cluster.example.com\", kubernetes: {{}}, \
         roles: {offer}, allow: {allow}}}}}"
    ));
}

/// A ClusterRole is harmless, more than an agent may be bound to, or gone.
pub(super) fn role(c: &mut Cluster, name: u8, what: u8) {
    let name = format!("r{name}");
    match what {
        0 => {
            c.delete(&Source::ClusterRoles, &Key::new("", name.as_str()));
        }
        1 => c.cluster_role(&name, "[{apiGroups: [\"\"], resources: [pods/exec], verbs: [create]}]"),
        _ => c.cluster_role(&name, "[{apiGroups: [\"\"], resources: [pods], verbs: [get, list]}]"),
    }
}

/// The API server begins, or ceases, to let the operator bind a ClusterRole.
pub(super) fn bindable(c: &mut Cluster, name: u8, bindable: bool) {
    let name = format!("r{name}");
    if bindable {
        c.unbindable.remove(&name);
    } else {
        let why = Refusal::new(Reason::Internal, format!("ClusterRole {name} can't be bound"));
        c.unbindable.insert(name, why);
    }
}

/// Somebody else edits or deletes a RoleBinding of ours.
pub(super) fn tamper(c: &mut Cluster, nth: u8, what: u8) {
    let n = c.bindings.len();
    let Some(key) = (n > 0).then(|| c.bindings.keys().nth(usize::from(nth) % n).cloned()).flatten() else {
        return;
    };
    match what {
        0 => {
            c.delete(&Source::Bindings, &key);
        }
        1 => c.change_binding(&key, |b| {
            b.subjects = [Uid(1)].into();
            b.digest = Digest::default();
        }),
        _ => c.change_binding(&key, |b| b.owner = None),
    }
}

/// Who must be bound is, and nobody else; of a role that can't be bound, some may be.
pub(super) fn check(c: &Cluster) {
    let wanted: BTreeSet<_> = c.agents.values().flat_map(|a| c.oracle_roles(a)).collect();
    let bound = c.bound_roles();
    assert!(bound.is_subset(&wanted), "{bound:?} of {wanted:?}");
    let free = |all: &BTreeSet<(String, String, String)>| -> BTreeSet<_> {
        all.iter().filter(|(_, role, _)| !c.unbindable.contains_key(role)).cloned().collect()
    };
    assert_eq!(free(&bound), free(&wanted));
}

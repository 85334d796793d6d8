//! Bindings by which agents have rights that no grant gives.
//!
//! Invariant: only what the operator itself sees and heals counts as agentid's; a label that anybody can write does not.

use std::collections::BTreeSet;

use super::findings::{Check, Finding, Scope};
use super::observe::{Binding, Metadata, Others};
use crate::api::{GRANT_LABEL, MANAGED_BY};
use crate::domain::{Key, Uid, World};

/// What every cluster gives to everybody.
const WELL_KNOWN: [&str; 5] = [
    "system:basic-user",
    "system:cluster-trust-bundle-discovery",
    "system:discovery",
    "system:public-info-viewer",
    "system:service-account-issuer-discovery",
];

pub(super) fn bindings(world: &World, others: &Others, scope: &Scope<'_>) -> Vec<Finding> {
    let namespaces: BTreeSet<&str> =
        world.agents().map(|a| &*a.meta.key.namespace).filter(|n| scope.has(n)).collect();
    let mut found = Vec::new();
    for binding in &others.bindings {
        let namespace = Some(binding.metadata.namespace.as_str()).filter(|n| !n.is_empty());
        let in_scope = namespace.is_none_or(|n| scope.has(n));
        let kept = is_kept(binding);
        for subject in binding.subjects.iter().flatten() {
            let of_agent = match subject.kind.as_str() {
                "User" => agent_of(world, scope, &subject.name),
                "Group" if subject.name.starts_with("agentid:") => Some(None),
                _ => None,
            };
            // What is of the whole cluster concerns a namespace only if it names one of its agents.
            let concerns = match (&of_agent, namespace, scope.namespace) {
                (Some(Some(agent)), None, Some(n)) => *agent.namespace == *n,
                (Some(None), None, Some(_)) => false,
                _ => true,
            };
            let ours = kept && subject.kind == "User";
            if let (Some(agent), true, false) = (&of_agent, in_scope && concerns, ours) {
                found.push(by_hand(binding, namespace, &subject.name, agent.as_ref()));
            } else if subject.kind == "Group" && in_scope {
                found.extend(broad(binding, namespace, &subject.name, scope, &namespaces));
            }
        }
    }
    found
}

/// Whether the operator keeps a binding: it sees RoleBindings that say for which grant they stand, and takes away what no
/// grant gives. The label of what is managed, which anybody can write, is not enough.
fn is_kept(binding: &Binding) -> bool {
    let Metadata { namespace, labels, .. } = &binding.metadata;
    let says = |label: &str| labels.get(label).map(String::as_str);
    !namespace.is_empty()
        && says(MANAGED_BY.0) == Some(MANAGED_BY.1)
        && says(GRANT_LABEL).is_some_and(|grant| grant.parse::<Uid>().is_ok())
}

/// The agent that a user name is; the inner `None` where it is none of today's. `None` where it is no agent's name.
#[expect(clippy::option_option, reason = "no agent's name, or one of an agent that may be gone")]
fn agent_of(world: &World, scope: &Scope<'_>, user: &str) -> Option<Option<Key>> {
    let (domain, path) = user.strip_prefix("spiffe://")?.split_once('/')?;
    if scope.trust_domain.is_some_and(|d| d != domain) {
        return None;
    }
    if let Some(uid) = path.strip_prefix("agent/") {
        let agent = uid.parse().ok().and_then(|uid| world.agent_of_uid(uid));
        return Some(agent.map(|a| a.meta.key.clone()));
    }
    let (namespace, name) = path.strip_prefix("ns/")?.split_once("/agent/")?;
    Some(Some(Key::new(namespace, name)))
}

fn name_of(binding: &Binding, namespace: Option<&str>) -> (String, String) {
    let name = &binding.metadata.name;
    match namespace {
        Some(n) => (format!("RoleBinding {n}/{name}"), format!("kubectl delete rolebinding -n {n} {name}")),
        None => (format!("ClusterRoleBinding {name}"), format!("kubectl delete clusterrolebinding {name}")),
    }
}

fn by_hand(binding: &Binding, namespace: Option<&str>, subject: &str, agent: Option<&Key>) -> Finding {
    let (object, remedy) = name_of(binding, namespace);
    let whom = match agent {
        Some(key) => format!("AgentIdentity {key}"),
        None if subject.starts_with("agentid:") => format!("every agent of the group {subject}"),
        None => format!("{subject}, which is no agent of today's"),
    };
    Finding {
        check: Check::BoundByHand,
        object,
        message: format!(
            "gives {} {} to {whom} by hand: no grant says so, nothing takes it away with the agent's suspension or end \
             but its tokens' expiry, and no policy looks at it",
            binding.role_ref.kind, binding.role_ref.name
        ),
        remedy,
    }
}

/// A binding to a group that agents' pods or users are in without anybody having said so of them.
fn broad(
    binding: &Binding,
    namespace: Option<&str>,
    group: &str,
    scope: &Scope<'_>,
    namespaces: &BTreeSet<&str>,
) -> Option<Finding> {
    let role = &binding.role_ref;
    if WELL_KNOWN.contains(&role.name.as_str()) && role.kind == "ClusterRole" {
        return None;
    }
    let whom = if let Some(of) = group.strip_prefix("system:serviceaccounts:") {
        namespaces.contains(of).then(|| format!("every pod of namespace {of}, its agents' among them"))?
    } else if matches!(group, "system:authenticated" | "system:serviceaccounts") {
        // Of the whole cluster: not asked for where one namespace is.
        if namespaces.is_empty() || (namespace.is_none() && scope.namespace.is_some()) {
            return None;
        }
        "every pod of the cluster, agents' among them".to_owned()
    } else {
        return None;
    };
    let (object, delete) = name_of(binding, namespace);
    Some(Finding {
        check: Check::BroadRights,
        object,
        message: format!(
            "gives {} {} to the group {group}, so to {whom}, whatever their grants are; bind it to those who need it",
            role.kind, role.name
        ),
        remedy: delete,
    })
}

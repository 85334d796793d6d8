//! What the API server does not let the operator bind, or take.

use super::tests::{READS, bound, cluster, grant};
use super::*;
use crate::api::{GrantState, Reason};
use crate::domain::Refusal;
use crate::domain::testing::Cluster;

/// What the status of an agent of `ns` says: state and reason of its first grant, and of GrantsHeld the reason.
fn told(c: &Cluster, agent: &str) -> (GrantState, Option<String>, String) {
    let status = c.agents[&Key::new("ns", agent)].status.clone().unwrap();
    let held = status.conditions.iter().find(|c| c.type_ == "GrantsHeld").unwrap();
    (status.grants[0].state, status.grants[0].reason.clone(), held.message.clone())
}

#[test]
fn a_right_that_cannot_be_bound_is_said_to_its_holders_and_heals() {
    let mut c = cluster();
    let why = Refusal::new(Reason::Internal, "ClusterRole pod-reader can't be bound; give the verb bind");
    c.unbindable.insert("pod-reader".to_owned(), why);
    for agent in ["b", "d"] {
        c.apply(&format!("{{kind: AgentIdentity, metadata: {{name: {agent}, namespace: ns}}, spec: {{}}}}"));
    }
    c.settle();
    let held = |c: &Cluster, agent: &str| told(c, agent).0 == GrantState::Held;
    assert!(held(&c, "a"), "who was bound before still is");
    for agent in ["b", "d"] {
        let (state, reason, message) = told(&c, agent);
        assert_eq!((state, reason.as_deref()), (GrantState::Narrowed, Some("Internal")));
        assert!(
            message.contains("AgentGrant k: Internal: ClusterRole pod-reader can't be bound"),
            "{message}"
        );
    }
    let of_grant = |c: &Cluster| {
        let grant = c.world.grant(&Key::new("ns", "k")).unwrap();
        let status = crate::domain::status::grant_status(&c.world, grant, c.now).unwrap().status;
        (status.conditions[0].reason.clone(), status.conditions[0].message.clone(), status.held)
    };
    let (reason, message, holders) = of_grant(&c);
    assert_eq!((reason.as_str(), holders), ("Internal", Some(3)));
    assert!(message.starts_with("AgentIdentity b: Internal") && message.contains("verb bind"), "{message}");

    // Trying again writes nothing as long as the answer is the same, nor does a restart, before it has tried or after.
    let writes = c.writes;
    for _ in 0..20 {
        c.advance(60);
        c.settle();
    }
    c.restart();
    c.settle();
    assert_eq!(c.writes, writes);
    assert!(held(&c, "a") && !held(&c, "b"));
    // Another answer is one more write for whom it concerns.
    let other = Refusal::new(Reason::ForeignObject, "RoleBinding x is not agentid's");
    c.unbindable.insert("pod-reader".to_owned(), other);
    c.settle();
    assert_eq!(told(&c, "d").1.as_deref(), Some("ForeignObject"));
    assert_eq!(c.writes.statuses - writes.statuses, 2);

    // What comes right while nobody looks is seen at the next start.
    c.restart();
    c.unbindable.clear();
    c.settle();
    assert!(["a", "b", "d"].iter().all(|a| held(&c, a)), "{:?}", told(&c, "b"));
    assert_eq!(bound(&c).len(), 3);
    assert_eq!((c.writes.statuses - writes.statuses, c.writes.bindings - writes.bindings), (4, 1));
    assert_eq!(of_grant(&c).0, "Issued");
}

#[test]
fn a_role_that_cannot_be_bound_harms_no_other() {
    let mut c = cluster();
    c.cluster_role("wide", READS);
    c.unbindable.insert("wide".to_owned(), Refusal::new(Reason::Internal, "ClusterRole wide can't be bound"));
    c.apply(&grant("pod-reader, wide"));
    c.apply(
        "{kind: AgentGrant, metadata: {name: other, namespace: ns}, spec: {agents: {names: [a]}, resource: cluster, \
         application: {roles: [pod-reader]}}}",
    );
    c.settle();
    assert_eq!(bound(&c), ["ns pod-reader a"]);
    let status = c.agents[&Key::new("ns", "a")].status.clone().unwrap();
    let k = status.grants.iter().find(|g| g.name == "k").unwrap();
    let other = status.grants.iter().find(|g| g.name == "other").unwrap();
    assert_eq!((k.state, other.state), (GrantState::Narrowed, GrantState::Held));
    // What the index was handed out for is what was decided.
    assert_eq!(k.roles, ["pod-reader", "wide"]);
    // Nobody asks for it any longer: nothing is left to say.
    c.apply(&grant("pod-reader"));
    c.settle();
    let status = c.agents[&Key::new("ns", "a")].status.clone().unwrap();
    assert!(status.grants.iter().all(|g| g.state == GrantState::Held), "{status:?}");
}

#[test]
fn a_stopped_agent_says_so_whatever_of_it_could_not_be_bound() {
    let agent = |more: &str| {
        format!("{{kind: AgentIdentity, metadata: {{name: a, namespace: ns}}, spec: {{{more}}}}}")
    };
    for restarts in [false, true] {
        let mut c = cluster();
        c.delete(&Source::Grants, &Key::new("ns", "k"));
        c.settle();
        let why = Refusal::new(Reason::Internal, "ClusterRole pod-reader can't be bound");
        c.unbindable.insert("pod-reader".to_owned(), why);
        c.apply(&grant("pod-reader"));
        c.settle();
        let (state, ..) = told(&c, "a");
        assert_eq!(state, GrantState::Narrowed);
        let status = |c: &Cluster| c.agents[&Key::new("ns", "a")].status.clone().unwrap();
        let before = status(&c).grants[0].status_index.clone();
        assert!(before.is_some());

        // It is the only holder: nothing is left that could be tried again.
        c.apply(&agent("suspend: true"));
        if restarts {
            c.restart();
        }
        c.settle();
        let stopped = status(&c);
        let ready = stopped.conditions.iter().find(|c| c.type_ == "Ready").unwrap();
        assert_eq!((&*ready.status, &*ready.reason), ("False", "Suspended"));
        assert_eq!(stopped.grants[0].status_index, None, "a token of before would come to life again");

        c.apply(&agent(""));
        c.settle();
        let after = status(&c).grants[0].status_index.clone();
        assert!(after.is_some() && after != before, "{after:?}");
    }
}

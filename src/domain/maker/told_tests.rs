//! What is said of pods that have no agent, and how soon they are looked at again.

use super::tests::{BOT, PODS, agents, blueprint, pod, says, town};
use super::*;
use crate::api::{MADE_LABEL, Reason};
use crate::domain::testing::Cluster;
use crate::domain::{Object, Origin, Refusal, Source, Unmade, Work};

fn each_pod() -> String {
    format!("{PODS}, identityPer: Pod")
}

/// An agent that somebody wrote with the label of those that the blueprint makes.
fn labelled(c: &mut Cluster, name: &str, spec: &str) {
    let uid = c.world.blueprint(&"bots".into()).unwrap().meta.uid;
    c.apply(&format!(
        "{{kind: AgentIdentity, metadata: {{name: {name}, namespace: ns, labels: {{{MADE_LABEL}: {uid}}}}}, spec: \
         {{blueprint: bots, {spec}}}}}"
    ));
    c.settle();
}

#[test]
fn who_wrote_an_agent_with_the_label_of_made_ones_is_told_of_the_conflict() {
    for (spec, conflicts) in [
        ("displayName: free", true),
        ("boundObjectRef: {apiVersion: apps/v1, kind: Deployment, name: p}", true),
        ("boundObjectRef: {apiVersion: v1, kind: Pod, name: p}", false),
        ("boundObjectRef: {apiVersion: v1, kind: Secret, name: p}", true),
    ] {
        let mut c = town();
        c.apply(&blueprint("bots", &each_pod()));
        c.settle();
        labelled(&mut c, "p", spec);
        pod(&mut c, "ns", "p", BOT, None);
        c.settle();
        let (making, _) = make(&c.world, &Key::new("ns", "p"));
        assert_eq!(making, Making::Nothing, "{spec}");
        let (alone, message) = says(&c, "bots", "Uncontested");
        assert_eq!(alone, !conflicts, "{spec}: {message}");
        assert!(alone || message.contains("AgentIdentity p bears its name"), "{message}");
        assert_eq!(agents(&c), ["ns/p"]);
    }
}

#[test]
fn a_name_that_a_finalizer_holds_is_waited_for_and_said() {
    let mut c = town();
    c.apply(&blueprint("bots", &each_pod()));
    c.apply("{kind: AgentIdentity, metadata: {name: p, namespace: ns}, spec: {}}");
    c.settle();
    let key = Key::new("ns", "p");
    let mut leaving: crate::domain::Agent = (&c.agents[&key]).try_into().unwrap();
    leaving.meta.deleting = true;
    leaving.meta.version += 1000;
    c.world.take(Object::Agent(Box::new(leaving)), Origin::Watch);
    pod(&mut c, "ns", "p", BOT, None);
    c.settle();
    assert_eq!(make(&c.world, &key).0, Making::Later);
    let (alone, message) = says(&c, "bots", "Uncontested");
    assert!(!alone && message.contains("held by a finalizer; take that off"), "{message}");
    c.delete(&Source::Agents, &key);
    c.settle();
    assert!(says(&c, "bots", "Uncontested").0);
    assert!(c.agents[&key].spec.blueprint.is_some(), "it is made once the name is free");
}

#[test]
fn what_is_said_of_pods_ends_with_the_selector() {
    let mut c = town();
    c.apply(&blueprint("bots", PODS));
    c.apply("{kind: AgentIdentity, metadata: {name: p, namespace: ns}, spec: {}}");
    pod(&mut c, "ns", "p", BOT, None);
    c.settle();
    assert!(!says(&c, "bots", "Uncontested").0);
    let refusal = Refusal::new(Reason::Internal, "exceeded quota");
    c.world.record_unmade(&Key::new("ns", "q"), Some(Unmade { blueprint: "bots".into(), refusal }));
    let (made, message) = says(&c, "bots", "AgentsMade");
    assert!(!made && message.contains("pod ns/q can't be made: exceeded quota (1 such pods)"), "{message}");
    // It is the only one that makes any.
    c.apply(&blueprint("bots", "description: by hand"));
    c.settle();
    assert!(says(&c, "bots", "Uncontested").0);
}

#[test]
fn an_old_pod_is_looked_at_less_often() {
    let mut c = town();
    pod(&mut c, "ns", "p", BOT, None);
    c.deliver();
    let wait = |seconds: i64| {
        let object = c.world.bound_object(&POD.into(), &Key::new("ns", "p"));
        again(object, SignedDuration::from_secs(5), c.now + SignedDuration::from_secs(seconds)).as_millis()
    };
    assert_eq!([-9, 0, 8, 16, 3600].map(wait), [500, 500, 1000, 2000, 5000]);
}

#[test]
fn pods_are_looked_at_once_what_controls_them_is_seen() {
    let mut c = town();
    c.apply(&blueprint("bots", PODS));
    let sets = Source::Bound("apps/v1/ReplicaSet".into());
    c.lose(&sets);
    c.advance(3600);
    let set = c.put_bound("apps/v1/ReplicaSet", &Key::new("ns", "bot-5d9c"), |_| {});
    pod(&mut c, "ns", "bot-5d9c-a", BOT, Some(("apps/v1/ReplicaSet", "bot-5d9c", set)));
    pod(&mut c, "ns", "alone", BOT, None);
    c.settle();
    assert_eq!(agents(&c), ["ns/alone"]);
    c.find(&sets);
    let pods: Vec<_> = c.world.take_dirty().into_iter().filter(|(w, _)| matches!(w, Work::Pod(_))).collect();
    assert_eq!(pods.len(), 1, "{pods:?}");
}

use super::*;
use crate::api::Reason;
use crate::domain::testing::{Cluster, GRANT, RESOURCE};
use crate::domain::{Controller, GrantDecision, Source, Standing};

pub(super) const PODS: &str = "podSelector: {matchLabels: {app: bot}}";

pub(super) fn blueprint(name: &str, more: &str) -> String {
    format!(
        "{{kind: AgentBlueprint, metadata: {{name: {name}}}, spec: {{namespaceSelector: {{matchLabels: {{team: a}}}}, \
         {more}}}}}"
    )
}

/// A namespace `ns` that blueprints select, one that they don't, and a resource that allows both.
pub(super) fn town() -> Cluster {
    let mut c = Cluster::new();
    c.namespace("ns", &[("team", "a")]);
    c.namespace("other", &[]);
    c.apply(RESOURCE);
    c
}

pub(super) fn pod(
    c: &mut Cluster,
    ns: &str,
    name: &str,
    labels: &[(&str, &str)],
    of: Option<(&str, &str, Uid)>,
) -> Uid {
    c.put_bound(POD, &Key::new(ns, name), |p| {
        p.labels = labels.iter().copied().collect();
        p.account = Some("bot".into());
        p.controller = of.map(|(kind, name, uid)| Controller { kind: kind.into(), name: name.into(), uid });
    })
}

pub(super) fn agents(c: &Cluster) -> Vec<String> {
    c.agents.keys().map(ToString::to_string).collect()
}

/// Whether a condition of a blueprint is true, and its message.
pub(super) fn says(c: &Cluster, name: &str, condition: &str) -> (bool, String) {
    let blueprint = c.world.blueprint(&name.into()).unwrap();
    let status = crate::domain::status::blueprint_status(&c.world, blueprint, c.now).unwrap().status;
    let condition = status.conditions.into_iter().find(|c| c.type_ == condition).unwrap();
    (condition.status == "True", condition.message)
}

fn refused(c: &Cluster, name: &str) -> Option<Reason> {
    match c.decide("ns", name).standing {
        Standing::Refused(r) | Standing::Unmade(r) => Some(r.reason),
        Standing::Allowed => None,
        other => panic!("{other:?}"),
    }
}

pub(super) const BOT: &[(&str, &str)] = &[("app", "bot")];

#[test]
fn each_selected_pod_becomes_an_agent_without_a_secret_and_takes_it_along() {
    let mut c = town();
    c.apply(&blueprint("bots", &format!("{PODS}, identityPer: Pod")));
    let uid = pod(&mut c, "ns", "p", BOT, None);
    pod(&mut c, "ns", "unlike", &[("app", "web")], None);
    pod(&mut c, "other", "p", BOT, None);
    c.settle();
    assert_eq!(agents(&c), ["ns/p"]);
    let agent = &c.agents[&Key::new("ns", "p")];
    assert_eq!(agent.spec.service_account_name.as_deref(), Some("bot"));
    assert_eq!(agent.metadata.owner_references.as_ref().unwrap()[0].uid, uid.to_string());
    let status = agent.status.as_ref().unwrap();
    assert_eq!((status.secret_name.as_deref(), &*status.conditions[0].status), (None, "True"));
    assert!(c.secrets.is_empty());
    assert_eq!((c.writes.agents, c.writes.statuses), (1, 1), "made, and its status");
    let tally = c.world.blueprint_tally(&"bots".into());
    assert_eq!((tally.made, tally.ready), (1, 1));

    c.delete(&Source::Bound(POD.into()), &Key::new("ns", "p"));
    c.settle();
    assert!(c.agents.is_empty());
    assert_eq!(c.world.blueprint_tally(&"bots".into()), crate::domain::BlueprintTally::default());
}

#[test]
fn a_pod_that_has_finished_takes_its_agent_along_and_makes_none() {
    let mut c = town();
    c.apply(&blueprint("bots", &format!("{PODS}, identityPer: Pod")));
    pod(&mut c, "ns", "p", BOT, None);
    c.settle();
    c.put_bound(POD, &Key::new("ns", "p"), |p| p.finished = true);
    c.settle();
    assert!(c.agents.is_empty());
    // Also if it loses its label at that moment, so that no watch shows it any more.
    pod(&mut c, "ns", "q", BOT, None);
    c.settle();
    c.bound(POD, &Key::new("ns", "q"), true, false);
    c.settle();
    assert!(c.agents.is_empty());
    c.restart();
    c.settle();
    assert!(c.agents.is_empty());
}

#[test]
fn pods_of_one_workload_become_one_agent_whose_secret_the_template_can_name() {
    let mut c = town();
    c.apply(&blueprint("bots", PODS));
    let (deployment, set) = (Key::new("ns", "bot"), Key::new("ns", "bot-5d9c"));
    let top = c.put_bound("apps/v1/Deployment", &deployment, |_| {});
    let hop = c.put_bound("apps/v1/ReplicaSet", &set, |o| {
        o.controller = Some(Controller { kind: "apps/v1/Deployment".into(), name: "bot".into(), uid: top });
    });
    for name in ["bot-5d9c-a", "bot-5d9c-b", "bot-5d9c-c"] {
        pod(&mut c, "ns", name, BOT, Some(("apps/v1/ReplicaSet", "bot-5d9c", hop)));
    }
    c.settle();
    assert_eq!(agents(&c), ["ns/bot"]);
    assert_eq!(c.files("ns", "bot-agentid"), Some(vec!["identity.jwt"]));
    for name in ["bot-5d9c-a", "bot-5d9c-b", "bot-5d9c-c"] {
        c.delete(&Source::Bound(POD.into()), &Key::new("ns", name));
    }
    c.settle();
    assert_eq!(agents(&c), ["ns/bot"], "scaled to nothing, it waits for its pods");
    c.delete(&Source::Bound("apps/v1/Deployment".into()), &deployment);
    c.settle();
    assert!(c.agents.is_empty() && c.secrets.is_empty());
}

#[test]
fn a_controller_that_is_not_seen_yet_is_waited_for() {
    let mut c = town();
    c.apply(&blueprint("bots", PODS));
    pod(&mut c, "ns", "bot-1", BOT, Some(("batch/v1/Job", "bot", Uid(7))));
    c.deliver();
    let (making, _) = make(&c.world, &Key::new("ns", "bot-1"));
    assert_eq!(making, Making::Later);
    // Nobody says of such a kind that it may be bound: the pod stands for itself.
    pod(&mut c, "ns", "own", BOT, Some(("example.com/v1/Robot", "r", Uid(8))));
    c.settle();
    assert_eq!(agents(&c), ["ns/own"]);
}

#[test]
fn the_older_of_two_blueprints_rules_and_both_say_so() {
    let mut c = town();
    c.apply(&blueprint("old", &format!("{PODS}, identityPer: Pod")));
    c.advance(1);
    c.apply(&blueprint("new", &format!("{PODS}, identityPer: Pod")));
    pod(&mut c, "ns", "p", BOT, None);
    c.settle();
    assert_eq!(c.agents[&Key::new("ns", "p")].spec.blueprint.as_deref(), Some("old"));
    for (name, other) in [("old", "younger AgentBlueprint new"), ("new", "older AgentBlueprint old")] {
        let (alone, message) = says(&c, name, "Uncontested");
        assert!(!alone && message.contains(other) && message.contains("ns/p"), "{name}: {message}");
    }
    c.delete(&Source::Blueprints, &Key::new("", "old"));
    c.settle();
    c.settle();
    assert_eq!(
        c.agents[&Key::new("ns", "p")].spec.blueprint.as_deref(),
        Some("new"),
        "it takes the pod over"
    );
    assert!(says(&c, "new", "Uncontested").0);
}

#[test]
fn who_wrote_an_agent_for_the_pod_keeps_it_and_a_taken_name_is_left_alone() {
    let mut c = town();
    c.apply(&blueprint("bots", &format!("{PODS}, identityPer: Pod")));
    c.apply(
        "{kind: AgentIdentity, metadata: {name: mine, namespace: ns}, spec: {boundObjectRef: {apiVersion: v1, kind: \
         Pod, name: p}}}",
    );
    c.apply("{kind: AgentIdentity, metadata: {name: q, namespace: ns}, spec: {}}");
    pod(&mut c, "ns", "p", BOT, None);
    pod(&mut c, "ns", "q", BOT, None);
    c.settle();
    assert_eq!(agents(&c), ["ns/mine", "ns/q"]);
    let contests: Vec<_> =
        c.world.contests_of(&"bots".into()).map(|(k, v)| (k.clone(), v.taken.clone())).collect();
    assert_eq!(contests, [(Key::new("ns", "q"), Some("q".into()))]);
    // Once they are out of the way, the pods have agents of the blueprint's.
    c.delete(&Source::Agents, &Key::new("ns", "mine"));
    c.delete(&Source::Agents, &Key::new("ns", "q"));
    c.settle();
    assert_eq!(agents(&c), ["ns/p", "ns/q"]);
    assert!(c.agents.values().all(|a| a.spec.blueprint.is_some()));
}

#[test]
fn a_stopped_agent_ends_with_its_pod_too() {
    let mut c = town();
    let stopped = blueprint("bots", &format!("{PODS}, identityPer: Pod, suspend: true"));
    c.apply(&stopped);
    pod(&mut c, "ns", "p", BOT, None);
    pod(&mut c, "ns", "q", BOT, None);
    c.settle();
    assert_eq!(refused(&c, "p"), Some(Reason::Suspended));
    c.put_bound(POD, &Key::new("ns", "p"), |p| p.finished = true);
    c.delete(&Source::Bound(POD.into()), &Key::new("ns", "q"));
    c.settle();
    assert!(c.agents.is_empty(), "{:?}", agents(&c));
}

#[test]
fn an_agent_that_somebody_deletes_is_made_again_while_its_pod_lives() {
    let mut c = town();
    c.apply(&blueprint("bots", &format!("{PODS}, identityPer: Pod")));
    pod(&mut c, "ns", "p", BOT, None);
    c.settle();
    let before = c.agents[&Key::new("ns", "p")].metadata.uid.clone();
    c.delete(&Source::Agents, &Key::new("ns", "p"));
    c.settle();
    assert_ne!(c.agents[&Key::new("ns", "p")].metadata.uid, before);
}

#[test]
fn a_blueprint_that_goes_takes_what_it_made_and_leaves_what_was_written() {
    let mut c = town();
    c.apply(&blueprint("bots", &format!("{PODS}, identityPer: Pod")));
    c.apply("{kind: AgentIdentity, metadata: {name: hand, namespace: ns}, spec: {blueprint: bots}}");
    pod(&mut c, "ns", "p", BOT, None);
    c.settle();
    assert_eq!((agents(&c).len(), refused(&c, "hand")), (2, None));
    c.delete(&Source::Blueprints, &Key::new("", "bots"));
    c.settle();
    assert_eq!(agents(&c), ["ns/hand"]);
    assert_eq!(refused(&c, "hand"), Some(Reason::BlueprintNotFound));
    assert_eq!(c.files("ns", "hand-agentid"), Some(vec![]), "withdrawn");
    // Another one of the name: what the first has made would not be its own.
    c.apply(&blueprint("bots", &format!("{PODS}, identityPer: Pod")));
    c.settle();
    assert_eq!((agents(&c).len(), refused(&c, "hand")), (2, None));
}

#[test]
fn a_blueprint_that_was_replaced_while_nobody_looked_takes_what_it_made() {
    let mut c = town();
    c.apply(&blueprint("bots", &format!("{PODS}, identityPer: Pod")));
    pod(&mut c, "ns", "p", BOT, None);
    c.settle();
    let before = c.agents[&Key::new("ns", "p")].metadata.uid.clone();
    c.delete(&Source::Blueprints, &Key::new("", "bots"));
    c.apply(&blueprint("bots", &format!("{PODS}, identityPer: Pod")));
    c.restart();
    c.settle();
    c.settle();
    assert_ne!(c.agents[&Key::new("ns", "p")].metadata.uid, before, "made anew, by the new one");
}

#[test]
fn unknown_is_not_absent() {
    let mut c = town();
    c.apply(&blueprint("bots", &format!("{PODS}, identityPer: Pod")));
    pod(&mut c, "ns", "p", BOT, None);
    c.settle();
    c.lose(&Source::Blueprints);
    c.delete(&Source::Blueprints, &Key::new("", "bots"));
    c.advance(3600);
    c.settle();
    assert_eq!(agents(&c), ["ns/p"]);
    assert!(matches!(c.decide("ns", "p").standing, Standing::Unknown(_)));
    c.find(&Source::Blueprints);
    c.settle();
    assert!(c.agents.is_empty());
}

#[test]
fn suspend_stops_all_agents_and_lifting_it_brings_them_back() {
    let mut c = town();
    c.apply(&blueprint("bots", PODS));
    c.apply("{kind: AgentIdentity, metadata: {name: hand, namespace: ns}, spec: {blueprint: bots}}");
    pod(&mut c, "ns", "p", BOT, None);
    c.settle();
    assert_eq!(c.files("ns", "p-agentid"), Some(vec!["identity.jwt"]));
    c.apply(&blueprint("bots", &format!("{PODS}, suspend: true")));
    c.settle();
    for name in ["p", "hand"] {
        assert_eq!(refused(&c, name), Some(Reason::Suspended));
        assert_eq!(c.files("ns", &format!("{name}-agentid")), Some(vec![]));
    }
    assert_eq!(c.world.blueprint_tally(&"bots".into()).suspended, 2);
    c.apply(&blueprint("bots", PODS));
    c.settle();
    assert_eq!(c.files("ns", "hand-agentid"), Some(vec!["identity.jwt"]));
}

#[test]
fn a_written_agent_outside_the_blueprints_namespaces_is_refused() {
    let mut c = town();
    c.apply(&blueprint("bots", PODS));
    c.apply("{kind: AgentIdentity, metadata: {name: a, namespace: other}, spec: {blueprint: bots}}");
    c.settle();
    let Standing::Refused(refusal) = c.decide("other", "a").standing else { panic!() };
    assert_eq!(refusal.reason, Reason::NamespaceNotSelected);
    assert!(refusal.message.contains("bots") && refusal.message.contains("other"), "{}", refusal.message);
    c.namespace("other", &[("team", "a")]);
    c.settle();
    assert_eq!(c.decide("other", "a").standing, Standing::Allowed);
}

#[test]
fn grants_are_inherited_behind_the_agents_own() {
    let mut c = town();
    let inherits = "grants: [{name: g, resource: res, application: {roles: [reader]}, secretKey: res.jwt}, {name: h, \
                    resource: res, application: {roles: [writer]}, secretKey: more.jwt}]";
    c.apply(&blueprint("bots", inherits));
    c.apply("{kind: AgentIdentity, metadata: {name: a, namespace: ns}, spec: {blueprint: bots}}");
    c.apply("{kind: AgentIdentity, metadata: {name: none, namespace: ns}, spec: {}}");
    c.settle();
    let names = |g: &[GrantDecision]| g.iter().map(|g| g.grant.to_string()).collect::<Vec<_>>();
    let decision = c.decide("ns", "a");
    assert_eq!(names(&decision.grants), ["bots/g", "bots/h"]);
    assert!(decision.grants.iter().all(|g| g.held.is_some()), "{:?}", decision.grants);
    assert!(c.decide("ns", "none").grants.is_empty());
    assert_eq!(c.files("ns", "a-agentid"), Some(vec!["identity.jwt", "more.jwt", "res.jwt"]));
    assert_ne!(decision.grants[0].uid, decision.grants[1].uid);

    // The agent's own goes first, also where it is younger, and takes the file.
    c.advance(5);
    c.apply(GRANT);
    c.settle();
    let decision = c.decide("ns", "a");
    assert_eq!(names(&decision.grants), ["g", "bots/g", "bots/h"]);
    let refusal = decision.grants[1].refusal.as_ref().unwrap();
    assert_eq!(refusal.reason, Reason::Conflict);

    // The resource takes its word back: whoever inherits is touched too.
    c.delete(&Source::Resources, &Key::new("", "res"));
    c.settle();
    assert_eq!(c.files("ns", "a-agentid"), Some(vec!["identity.jwt"]));
    // The same grant in the same blueprint keeps its identity; the index does not come back.
    c.apply(&blueprint("bots", ""));
    c.settle();
    assert_eq!(names(&c.decide("ns", "a").grants), ["g"]);
    c.apply(&blueprint("bots", inherits));
    c.settle();
    assert_eq!(c.decide("ns", "a").grants[1].uid, decision.grants[1].uid);
}

#[test]
fn defaults_hold_for_who_does_not_say_otherwise() {
    let mut c = town();
    c.apply(&blueprint("bots", "defaults: {tokenLifetime: 20m, lifetime: 2h}"));
    c.apply("{kind: AgentIdentity, metadata: {name: a, namespace: ns}, spec: {blueprint: bots}}");
    c.apply(
        "{kind: AgentIdentity, metadata: {name: b, namespace: ns}, spec: {blueprint: bots, tokenLifetime: 30m, \
         expiresAt: '2030-01-01T00:00:00Z'}}",
    );
    c.settle();
    let (a, b) = (c.decide("ns", "a"), c.decide("ns", "b"));
    assert_eq!((a.lifetime, b.lifetime), (1200, 1800));
    assert_eq!(a.not_after.map(|t| t.as_second() - c.now.as_second()), Some(7200));
    assert_eq!(a.until, a.not_after);
    assert!(b.not_after > a.not_after);
    c.advance(7200);
    c.settle();
    assert_eq!((refused(&c, "a"), refused(&c, "b")), (Some(Reason::Expired), None));
}

#[test]
fn long_names_are_cut_with_a_hash() {
    assert_eq!(&*agent_name("bot"), "bot");
    let (long, other) = ("a".repeat(80), format!("{}b", "a".repeat(79)));
    let (one, two) = (agent_name(&long), agent_name(&other));
    assert_ne!(one, two);
    for name in [one, two, agent_name(&format!("{}.{}", "a".repeat(53), "b".repeat(30)))] {
        assert!(name.len() <= LONGEST, "{name}");
        assert!(!name.contains(".-"), "{name}");
    }
    assert_eq!(agent_name(&"a".repeat(63)).len(), 63);
}

//! What is asked for at size costs work in proportion: counted, not timed.

use std::collections::BTreeSet;

use super::plan::AgentStep;
use super::policy::steps_of;
use super::testing::Cluster;
use super::{Key, Lane, POD, Queue, Source, Work, decide};
use crate::api::{Configuration, MADE_LABEL};

const AGENTS: usize = 10_000;

const CLUSTER: &str = "{kind: AgentResource, metadata: {name: cluster}, spec: {audience: 'https://kubernetes.example.com', \
    kubernetes: {}, roles: [{name: pod-reader}], allow: [{namespaceSelector: {}}]}}";
const ALL: &str = "{kind: AgentGrant, metadata: {name: k, namespace: ns}, spec: {agents: {selector: {}}, resource: cluster, \
    application: {roles: [pod-reader]}}}";

/// The agents that are dirty, each once, and what else is.
fn dirty(c: &mut Cluster) -> (Vec<(Key, Lane)>, Vec<Work>) {
    let (mut agents, mut others) = (Vec::new(), Vec::new());
    for (work, lane) in c.world.take_dirty() {
        match work {
            Work::Agent(key) => agents.push((key, lane)),
            other => others.push(other),
        }
    }
    let once: BTreeSet<_> = agents.iter().map(|(key, _)| key).collect();
    assert_eq!(once.len(), agents.len(), "an agent is to be decided twice");
    (agents, others)
}

/// Decides and counts, as the loop does.
fn decided(c: &mut Cluster, agents: &[(Key, Lane)]) {
    for (key, _) in agents {
        let decision = decide(&c.world, key, c.now).unwrap();
        c.world.record_bindings(&decision);
        let holdings = decision.holdings(&c.world);
        c.world.record_holdings(key, holdings);
    }
}

/// Works on the RoleBindings of the one grant that is touched; says how many writes that took.
fn bound(c: &mut Cluster) -> u32 {
    let before = c.writes.bindings;
    assert!(c.world.release_bindings());
    let (_, mut units) = dirty(c);
    units.retain(|work| matches!(work, Work::Binding(_)));
    let [Work::Binding(unit)] = &units[..] else { panic!("{units:?}") };
    assert!(c.work_on_binding(unit).is_ok());
    c.writes.bindings - before
}

#[test]
fn a_grant_to_ten_thousand_agents_is_a_decision_each_one_status_and_fifty_role_bindings() {
    let mut config = Configuration::new("https://agentid.example.com", "example.com");
    config.kubernetes.bindable_roles = vec!["pod-reader".to_owned()];
    let mut c = Cluster::configured(config);
    c.namespace("ns", &[]);
    c.cluster_role("pod-reader", "[{apiGroups: [''], resources: [pods], verbs: [get]}]");
    c.apply(CLUSTER);
    for i in 0..AGENTS {
        c.apply(&format!("{{kind: AgentIdentity, metadata: {{name: m{i}, namespace: ns}}, spec: {{}}}}"));
    }
    c.deliver();
    let _ = (c.world.take_dirty(), c.world.take_tallied());

    c.apply(ALL);
    c.deliver();
    let (agents, _) = dirty(&mut c);
    assert_eq!(agents.len(), AGENTS);
    assert!(agents.iter().all(|(_, lane)| *lane == Lane::Paced), "nothing waits behind so many");
    decided(&mut c, &agents);
    let k = Key::new("ns", "k");
    assert_eq!(c.world.grant_tally(&k).held, 10_000);
    let (grants, resources, policies) = c.world.take_tallied();
    assert_eq!((grants, resources.len(), policies.len()), ([k].into(), 1, 0), "one status each");
    assert_eq!(bound(&mut c), 50);
    assert!(c.bindings.values().all(|b| b.subjects.len() == 200));
    assert_eq!(c.bindings.values().flat_map(|b| &b.subjects).collect::<BTreeSet<_>>().len(), AGENTS);
    let (again, _) = dirty(&mut c);
    assert!(again.is_empty(), "nobody is decided a second time: {}", again.len());

    // What the watch says of our own writes is no work; an agent that goes is one write.
    c.deliver();
    assert!(!c.world.release_bindings());
    c.delete(&Source::Agents, &Key::new("ns", "m7"));
    c.deliver();
    assert_eq!(bound(&mut c), 1);
    c.delete(&Source::Grants, &Key::new("ns", "k"));
    c.deliver();
    let (agents, _) = dirty(&mut c);
    assert_eq!(agents.len(), AGENTS - 1);
    decided(&mut c, &agents);
    assert_eq!(bound(&mut c), 50);
    assert!(c.bindings.is_empty());
}

#[test]
fn a_blueprint_that_goes_takes_two_thousand_agents_and_waits_for_nobody() {
    let mut c = Cluster::new();
    c.namespace("ns", &[]);
    let blueprint = c.apply(
        "{kind: AgentBlueprint, metadata: {name: bots}, spec: {namespaceSelector: {}, podSelector: {matchLabels: {app: bot}}, \
         identityPer: Pod}}",
    );
    for i in 0..2_000 {
        let pod = c.put_bound(POD, &Key::new("ns", format!("p{i}")), |p| {
            p.labels = [("app", "bot")].into_iter().collect();
        });
        c.apply(&format!(
            "{{kind: AgentIdentity, metadata: {{name: p{i}, namespace: ns, labels: {{{MADE_LABEL}: '{blueprint}'}}}}, spec: \
             {{blueprint: bots, boundObjectRef: {{apiVersion: v1, kind: Pod, name: p{i}, uid: '{pod}'}}}}}}"
        ));
    }
    c.deliver();
    let _ = c.world.take_dirty();
    assert!(matches!(c.decide("ns", "p7").standing, super::Standing::Allowed));

    c.delete(&Source::Blueprints, &Key::new("", "bots"));
    c.deliver();
    let (agents, others) = dirty(&mut c);
    assert_eq!(
        (agents.len(), others.len()),
        (2_000, 0),
        "and no pod is looked at, since none can become an agent"
    );
    for (key, lane) in &agents {
        assert_eq!(*lane, Lane::Urgent, "{key}");
        let (_, _, plan) = c.plan_of(key).unwrap();
        assert!(matches!(plan.agent, AgentStep::Delete(_)), "{key}: {:?}", plan.agent);
    }

    // As many renewals as a restart of 100,000 agents makes are in the queue already; a withdrawal comes last.
    let mut queue = Queue::default();
    (0..AGENTS).for_each(|i| queue.push(Key::new("other", i.to_string()), Lane::Paced));
    agents.iter().for_each(|(key, lane)| queue.push(key.clone(), *lane));
    queue.push(Key::new("other", "suspended"), Lane::Urgent);
    let (mut turns, mut paced) = (0, 0);
    loop {
        let (key, lane) = queue.pop(12).unwrap();
        turns += 1;
        paced += usize::from(lane == Lane::Paced);
        queue.done(&key);
        if &*key.name == "suspended" {
            break;
        }
    }
    assert_eq!(turns - paced, 2_001);
    assert!(paced <= 2_001 / 15 + 1 && paced > 0, "{paced} of the paced lane in between");
}

#[test]
fn five_hundred_policies_of_globs_take_as_many_steps_as_their_characters_allow() {
    let globs = |more: &str| {
        let globs: Vec<_> = (0..63).map(|i| format!("'*{i}*a*b*c*'")).collect();
        globs.join(", ") + more
    };
    let steps = |policies: usize| {
        let mut c = Cluster::example();
        for i in 0..policies {
            let (concerned, denied) = (globs(", 're?'"), globs(", '*x'"));
            c.apply(&format!(
                "{{kind: AgentPolicy, metadata: {{name: p{i}}}, spec: {{match: {{resources: [{concerned}]}}, deny: \
                 [{{resources: [{denied}]}}, {{roles: [{denied}]}}, {{scopes: [{denied}]}}]}}}}"
            ));
        }
        c.deliver();
        let (decision, steps) = steps_of(|| c.decide("ns", "a"));
        assert!(decision.grants[0].held.is_some() && decision.grants[0].refusal.is_none());
        steps
    };
    let (fifty, all) = (steps(50), steps(500));
    assert_eq!(all, 10 * fifty, "each policy costs the same, however many there are");
    // Four lists are looked at; `reader` is the longest name, `*62*a*b*c*` the longest glob.
    assert!(all > 500 * 4 * 64, "all are looked at: {all}");
    assert!(all <= 500 * 4 * 64 * (10 + 1) * (6 + 1), "{all}");
}

//! Which changes are urgent, which are paced, and what goes ahead.

use std::collections::BTreeSet;

use super::tests::{agent, quiet};
use super::*;
use crate::domain::testing::{Cluster, GRANT, RESOURCE};

#[test]
fn a_wide_change_is_paced() {
    for (n, lane) in [(64, Lane::Urgent), (65, Lane::Paced)] {
        let mut c = Cluster::new();
        c.namespace("ns", &[("team", "a")]);
        (0..n).for_each(|i| {
            c.apply(&agent(&format!("a{i}"), "ns", ""));
        });
        c.apply(RESOURCE);
        c.apply(&GRANT.replace("{names: [a]}", "{selector: {}}"));
        c.settle();
        c.apply(&RESOURCE.replace("team: a", "team: b"));
        c.deliver();
        let marks = c.world.take_dirty();
        assert_eq!((marks.len(), marks.iter().all(|(_, l)| *l == lane)), (n, true));
    }
}

#[test]
fn a_kill_switch_is_urgent_however_wide_and_all_else_of_policies_is_paced() {
    let policy = |spec: &str| format!("{{kind: AgentPolicy, metadata: {{name: p}}, spec: {{{spec}}}}}");
    let mut c = Cluster::new();
    c.namespace("ns", &[]);
    (0..100).for_each(|i| {
        c.apply(&agent(&format!("a{i}"), "ns", ""));
    });
    c.settle();
    // Off; on; on with more; off; nothing that anybody notices; gone.
    for (spec, lane) in [
        ("suspend: false, deny: [{roles: [x]}]", Lane::Paced),
        ("suspend: true", Lane::Urgent),
        ("suspend: true, limits: {tokenLifetime: 1h}", Lane::Paced),
        ("limits: {tokenLifetime: 1h}", Lane::Paced),
        ("limits: {tokenLifetime: 2h}", Lane::Paced),
        ("enforcement: Audit, suspend: true", Lane::Paced),
        ("suspend: true", Lane::Urgent),
        ("", Lane::Paced),
    ] {
        if spec.is_empty() {
            c.delete(&Source::Policies, &Key::new("", "p"));
        } else {
            c.apply(&policy(spec));
        }
        c.deliver();
        let mut lanes = HashMap::new();
        for (work, lane) in c.world.take_dirty() {
            let highest = lanes.entry(work).or_insert(lane);
            *highest = lane.max(*highest);
        }
        assert_eq!((lanes.len(), lanes.values().all(|l| *l == lane)), (100, true), "{spec}");
    }
}

/// In which lane the agents of each namespace go, when all of one go in the same.
fn lanes(c: &mut Cluster) -> Vec<String> {
    c.deliver();
    let mut lanes = HashMap::new();
    for (work, lane) in c.world.take_dirty() {
        let Work::Agent(key) = work else { continue };
        let highest = lanes.entry(key).or_insert(lane);
        *highest = lane.max(*highest);
    }
    let texts: BTreeSet<_> = lanes.iter().map(|(k, lane)| format!("{} {lane:?}", k.namespace)).collect();
    texts.into_iter().collect()
}

#[test]
fn a_kill_switch_that_reaches_further_is_urgent_for_whom_it_takes() {
    let policy = |matches: &str| {
        format!("{{kind: AgentPolicy, metadata: {{name: p}}, spec: {{suspend: true, match: {{{matches}}}}}}}")
    };
    let stopped = policy("namespaceSelector: {matchLabels: {stopped: 'yes'}}");
    let mut c = Cluster::new();
    c.namespace("here", &[("stopped", "yes")]);
    c.namespace("there", &[("stopped", "perhaps")]);
    for ns in ["here", "there"] {
        (0..100).for_each(|i| {
            c.apply(&agent(&format!("a{i}"), ns, ""));
        });
    }
    c.apply(&stopped);
    c.settle();
    // More namespaces; again; fewer.
    c.apply(&policy("namespaceSelector: {matchExpressions: [{key: stopped, operator: Exists}]}"));
    assert_eq!(lanes(&mut c), ["here Paced", "there Urgent"]);
    c.settle();
    c.apply(&stopped);
    assert_eq!(lanes(&mut c), ["here Paced", "there Paced"]);
    c.settle();
    // A namespace comes under it, and is let go.
    c.namespace("there", &[("stopped", "yes")]);
    assert_eq!(lanes(&mut c), ["there Urgent"]);
    c.settle();
    c.namespace("there", &[]);
    assert_eq!(lanes(&mut c), ["there Paced"]);
    c.settle();
    // From some grants of all its agents to all grants.
    c.apply(&policy("resources: [res]"));
    c.settle();
    c.apply(&policy(""));
    assert_eq!(lanes(&mut c), ["here Urgent", "there Urgent"]);
}

#[test]
fn what_a_revoked_key_signed_goes_ahead_of_all_else_that_is_paced() {
    let mut c = quiet();
    let good: HashSet<Arc<str>> = c.world.secrets().flat_map(|s| s.kids.to_vec()).collect();
    assert_eq!(c.world.mark_key_gone(&good), 0);
    assert_eq!(c.world.mark_key_gone(&HashSet::new()), 4);
    assert_eq!(lanes(&mut c), ["ns Ahead", "other Ahead"]);
}

//! Who is marked by what, and whom an agent lives and dies with.

use std::collections::BTreeSet;

use super::*;
use crate::domain::Changed;
use crate::domain::plan::{Cause, SecretStep};
use crate::domain::testing::{Cluster, GRANT, RESOURCE};

pub(super) fn agent(name: &str, ns: &str, more: &str) -> String {
    format!(
        "{{kind: AgentIdentity, metadata: {{name: {name}, namespace: {ns}, labels: {{l: {name}}}}}, spec: {{{more}}}}}"
    )
}

/// Agents a, b, c in `ns` and d in `other`, a granted by name, c by label.
pub(super) fn quiet() -> Cluster {
    let mut c = Cluster::example();
    c.namespace("other", &[]);
    for (name, ns) in [("a", "ns"), ("b", "ns"), ("c", "ns"), ("d", "other")] {
        c.apply(&agent(name, ns, ""));
    }
    c.apply(
        &GRANT.replace("name: g,", "name: h,").replace("{names: [a]}", "{selector: {matchLabels: {l: c}}}"),
    );
    c.settle();
    assert_eq!(marked(&mut c), [""; 0]);
    c
}

fn marked(c: &mut Cluster) -> Vec<String> {
    c.deliver();
    let marks: BTreeSet<String> = c
        .world
        .take_dirty()
        .into_iter()
        .map(|(work, lane)| match work {
            Work::Agent(k) => format!("{lane:?} {k}"),
            Work::Orphan(k) => format!("{lane:?} orphan {k}"),
            Work::Trust(n) => format!("{lane:?} trust {n}"),
            Work::Pod(k) => format!("{lane:?} pod {k}"),
            Work::Binding(u) => format!("{lane:?} binding {} {}", u.namespace, u.grant),
        })
        .collect();
    marks.into_iter().collect()
}

#[test]
fn each_change_marks_whom_it_touches() {
    type Change = fn(&mut Cluster);
    let rows: &[(&str, Change, &[&str])] = &[
        (
            "suspend",
            |c| {
                c.apply(&agent("a", "ns", "suspend: true"));
            },
            &["Urgent ns/a"],
        ),
        (
            "repeat",
            |c| {
                c.apply(&agent("a", "ns", ""));
            },
            &[],
        ),
        (
            "allowance",
            |c| {
                c.apply(&RESOURCE.replace("team: a", "team: b"));
            },
            &["Urgent ns/a", "Urgent ns/c"],
        ),
        (
            "a role's description",
            |c| {
                c.apply(&RESOURCE.replace("name: writer", "name: writer, description: x"));
            },
            &[],
        ),
        (
            "a grant's roles",
            |c| {
                c.apply(&GRANT.replace("[reader]", "[writer]"));
            },
            &["Urgent ns/a"],
        ),
        (
            "a grant's agents",
            |c| {
                c.apply(&GRANT.replace("[a]", "[b]"));
            },
            &["Urgent ns/a", "Urgent ns/b"],
        ),
        (
            "a grant goes",
            |c| {
                c.delete(&Source::Grants, &Key::new("ns", "h"));
            },
            &["Urgent ns/c"],
        ),
        (
            "a resource goes",
            |c| {
                c.delete(&Source::Resources, &Key::new("", "res"));
            },
            &["Urgent ns/a", "Urgent ns/c"],
        ),
        (
            "another resource",
            |c| {
                c.apply(&RESOURCE.replace("name: res}", "name: x}").replace("res.ex", "x.ex"));
            },
            &[],
        ),
        (
            "a namespace's labels",
            |c| c.namespace("other", &[("team", "a")]),
            &["Urgent other/d", "Urgent trust other"],
        ),
        ("the same labels", |c| c.namespace("other", &[]), &[]),
        ("a Secret is edited", |c| c.drift(&Key::new("ns", "b-agentid"), Changed::Data), &["Urgent ns/b"]),
        (
            "a Secret goes",
            |c| {
                c.delete(&Source::Secrets, &Key::new("ns", "b-agentid"));
            },
            &["Urgent ns/b"],
        ),
        (
            "a copy",
            |c| c.copy_secret(&Key::new("ns", "b-agentid"), &Key::new("ns", "stray")),
            &["Urgent orphan ns/stray"],
        ),
        (
            "a copy elsewhere",
            |c| c.copy_secret(&Key::new("ns", "b-agentid"), &Key::new("other", "b-agentid")),
            &["Urgent orphan other/b-agentid"],
        ),
        (
            "an agent goes",
            |c| {
                c.delete(&Source::Agents, &Key::new("ns", "b"));
            },
            &["Urgent ns/b", "Urgent orphan ns/b-agentid"],
        ),
        (
            "the last agent goes",
            |c| {
                c.delete(&Source::Agents, &Key::new("other", "d"));
            },
            &["Urgent orphan other/d-agentid", "Urgent other/d", "Urgent trust other"],
        ),
        (
            "a pod that nobody is bound to",
            |c| {
                c.bound("v1/Pod", &Key::new("ns", "p"), false, true);
            },
            &[],
        ),
        ("a relist", |c| c.sources().iter().for_each(|s| c.relist(s)), &[]),
        (
            "a relist that lacks one",
            |c| {
                c.lose(&Source::Grants);
                c.delete(&Source::Grants, &Key::new("ns", "h"));
                c.find(&Source::Grants);
            },
            &["Urgent ns/c"],
        ),
        (
            "the trust ConfigMap goes",
            |c| {
                c.delete(&Source::Trust, &Key::new("ns", "agentid-trust"));
            },
            &["Urgent trust ns"],
        ),
    ];
    for (what, change, wanted) in rows {
        let mut c = quiet();
        change(&mut c);
        assert_eq!(marked(&mut c), *wanted, "{what}");
    }
}

#[test]
fn our_own_writes_mark_nothing_more() {
    let mut c = quiet();
    c.apply(&agent("b", "ns", "suspend: true"));
    c.settle();
    assert_eq!(c.files("ns", "b-agentid").unwrap(), [""; 0]);
    assert_eq!(marked(&mut c), [""; 0]);
    // A status that somebody else has changed is put right, without haste.
    let b = Key::new("ns", "b");
    let mut object = c.agents[&b].clone();
    object.metadata.resource_version = Some("999999".to_owned());
    object.status.as_mut().unwrap().grants_held = Some("9/9".to_owned());
    c.world.take(Object::Agent(Box::new((&object).try_into().unwrap())), Origin::Watch);
    assert_eq!(marked(&mut c), ["Paced ns/b"]);
}

#[test]
fn ghosts_do_not_come_back() {
    let mut c = quiet();
    let b = Key::new("ns", "b");
    let late: Agent = (&c.agents[&b]).try_into().unwrap();
    c.delete(&Source::Agents, &b);
    c.settle();
    assert!(!c.secrets.contains_key(&Key::new("ns", "b-agentid")));
    c.world.take(Object::Agent(Box::new(late)), Origin::Answer);
    assert!(c.world.agent(&b).is_none());
    assert_eq!(marked(&mut c), [""; 0]);
}

#[test]
fn the_last_agent_takes_the_trust_along_and_copies_go() {
    let mut c = quiet();
    c.copy_secret(&Key::new("ns", "b-agentid"), &Key::new("ns", "stray"));
    c.copy_secret(&Key::new("ns", "b-agentid"), &Key::new("other", "stray"));
    c.delete(&Source::Agents, &Key::new("other", "d"));
    c.settle();
    let left: Vec<_> = c.secrets.keys().map(ToString::to_string).collect();
    assert_eq!(left, ["ns/a-agentid", "ns/b-agentid", "ns/c-agentid"]);
    assert_eq!(c.trust.keys().map(|k| &*k.namespace).collect::<Vec<_>>(), ["ns"]);
}

#[test]
fn a_resource_made_anew_takes_its_audience_along() {
    let mut c = quiet();
    c.lose(&Source::Resources);
    c.delete(&Source::Resources, &Key::new("", "res"));
    c.apply(&RESOURCE.replace("res.ex", "new.ex"));
    c.find(&Source::Resources);
    assert!(c.world.audience_holder(&"https://res.example.com".into()).is_none());
    assert!(c.world.audience_holder(&"https://new.example.com".into()).is_some());
    c.settle();
    let token = &c.secrets[&Key::new("ns", "a-agentid")].tokens[1];
    assert_eq!(&*token.entitlement.audience, "https://new.example.com");
}

#[test]
fn counts_survive_a_grant_made_anew() {
    let mut c = quiet();
    c.delete(&Source::Grants, &Key::new("ns", "g"));
    c.deliver();
    c.apply(GRANT);
    c.settle();
    assert_eq!(c.world.grant_tally(&Key::new("ns", "g")).held, 1);
    c.delete(&Source::Grants, &Key::new("ns", "g"));
    c.settle();
    assert_eq!(c.world.grant_tally(&Key::new("ns", "g")), GrantTally::default());
}

#[test]
fn an_expired_agent_goes_after_its_time_to_live() {
    let mut c = Cluster::new();
    c.namespace("ns", &[]);
    let end = c.now + jiff::SignedDuration::from_secs(100);
    c.apply(&agent("a", "ns", &format!("expiresAt: {end}, ttlSecondsAfterExpired: 50")));
    c.settle();
    assert!(c.secrets.values().all(|s| s.tokens.iter().all(|t| t.exp == end)));
    c.advance(100);
    c.settle();
    assert_eq!(c.files("ns", "a-agentid").unwrap(), [""; 0]);
    c.advance(50);
    c.settle();
    assert!(c.agents.is_empty() && c.secrets.is_empty());
}

#[test]
fn without_keys_what_is_no_longer_held_is_stripped_once() {
    let mut c = quiet();
    let (key, secret) = (Key::new("ns", "a"), Key::new("ns", "a-agentid"));
    c.keys.problem = Some("the key ring is damaged".into());
    c.delete(&Source::Grants, &Key::new("ns", "g"));
    c.settle();
    assert_eq!(c.files("ns", "a-agentid").unwrap(), ["identity.jwt"]);
    let (_, _, plan) = c.plan_of(&key).unwrap();
    assert_eq!(plan.secret, SecretStep::Keep);
    // Who it is the agent may always say, whatever else its configuration has come to say.
    c.apply(&agent("a", "ns", "tokenLifetime: 2h"));
    c.deliver();
    assert_eq!(c.plan_of(&key).unwrap().2.secret, SecretStep::Keep);

    // Nothing can be taken out of an immutable Secret: it goes as a whole.
    let mut c = quiet();
    c.keys.problem = Some("the key ring is damaged".into());
    c.drift(&secret, Changed::Immutable);
    c.delete(&Source::Grants, &Key::new("ns", "g"));
    c.deliver();
    assert!(matches!(c.plan_of(&key).unwrap().2.secret, SecretStep::Delete(_)));
    c.settle();
    let status = c.agents[&key].status.clone().unwrap();
    assert_eq!((&*status.conditions[0].status, &*status.conditions[0].reason), ("False", "KeysUnavailable"));
    c.keys.problem = None;
    c.world.mark_all();
    c.settle();
    assert_eq!(c.files("ns", "a-agentid").unwrap(), ["identity.jwt"]);
}

#[test]
fn every_drift_is_healed() {
    for what in [Changed::Data, Changed::Immutable, Changed::Labels, Changed::Annotations, Changed::Owners] {
        let mut c = quiet();
        let secret = Key::new("ns", "a-agentid");
        let before = c.secrets[&secret].seen.meta.uid;
        c.drift(&secret, what);
        c.deliver();
        let anew = match c.plan_of(&Key::new("ns", "a")).unwrap().2.secret {
            SecretStep::Update(_, _, Cause::Healed(d)) if d.what == what => false,
            SecretStep::Recreate(_, _, Cause::Healed(d)) if d.what == what => true,
            other => panic!("{other:?}"),
        };
        c.settle();
        assert_eq!(c.secrets[&secret].seen.drift, None);
        assert_eq!((anew, c.secrets[&secret].seen.meta.uid != before), (what == Changed::Immutable, anew));
    }
}

//! Who lives and dies with what.

use super::*;
use crate::api::{BoundKind, Configuration};
use crate::domain::Standing;
use crate::domain::plan::{AgentStep, SecretStep};
use crate::domain::testing::Cluster;

fn agent(name: &str, ns: &str, more: &str) -> String {
    format!("{{kind: AgentIdentity, metadata: {{name: {name}, namespace: {ns}}}, spec: {{{more}}}}}")
}

fn bound(kind: &str, more: &str) -> Cluster {
    let mut c = Cluster::new();
    c.namespace("ns", &[]);
    let uid = c.bound(kind, &Key::new("ns", "o"), false, true);
    let (version, kind) = kind.rsplit_once('/').unwrap();
    let more = more.replace("UID", &uid.to_string());
    c.apply(&agent(
        "a",
        "ns",
        &format!("boundObjectRef: {{apiVersion: {version}, kind: {kind}, name: o{more}}}"),
    ));
    c.settle();
    assert_eq!(c.files("ns", "a-agentid").unwrap(), ["identity.jwt"]);
    c
}

#[test]
fn an_agent_dies_with_the_very_object_that_it_is_bound_to() {
    for (kind, more, exact) in [
        ("v1/Pod", "", true),
        ("v1/Pod", ", uid: UID", true),
        ("apps/v1/Deployment", ", uid: UID", true),
        ("apps/v1/Deployment", "", false),
    ] {
        let source = Source::Bound(kind.into());
        for recreated in [false, true] {
            let mut c = bound(kind, more);
            let owners = c.world.agent(&Key::new("ns", "a")).unwrap().owners.len();
            assert_eq!(owners, usize::from(exact), "{kind}{more}");
            c.delete(&source, &Key::new("ns", "o"));
            if recreated {
                c.bound(kind, &Key::new("ns", "o"), false, true);
            }
            c.settle();
            c.advance(3);
            c.settle();
            if exact {
                assert!(c.agents.is_empty() && c.secrets.is_empty(), "{kind}{more} {recreated}");
                assert!(c.world.confirmed_gone.is_empty(), "a note outlives its agent");
                continue;
            }
            let there = c.files("ns", "a-agentid").unwrap();
            assert_eq!(there.len(), usize::from(recreated), "{kind}{more}");
            c.bound(kind, &Key::new("ns", "o"), false, true);
            c.settle();
            assert_eq!(
                c.files("ns", "a-agentid").unwrap(),
                ["identity.jwt"],
                "it comes back with its object"
            );
        }
    }
}

#[test]
fn a_label_taken_off_is_no_deletion() {
    let mut c = bound("v1/Pod", "");
    c.bound("v1/Pod", &Key::new("ns", "o"), false, false);
    c.bound("v1/Pod", &Key::new("ns", "another"), false, true);
    c.deliver();
    let (_, _, plan) = c.plan_of(&Key::new("ns", "a")).unwrap();
    assert!(matches!(plan.agent, AgentStep::Confirm(_)) && plan.secret == SecretStep::Keep);
    c.settle();
    let Standing::Refused(refusal) = c.decide("ns", "a").standing else { panic!("not refused") };
    assert_eq!(refusal.reason, crate::api::Reason::BoundObjectNotSelected);
    assert_eq!(c.files("ns", "a-agentid").unwrap(), [""; 0]);
    c.bound("v1/Pod", &Key::new("ns", "o"), false, true);
    c.settle();
    assert_eq!(c.files("ns", "a-agentid").unwrap(), ["identity.jwt"]);
    c.bound("v1/Pod", &Key::new("ns", "o"), true, true);
    c.settle();
    assert_eq!(c.files("ns", "a-agentid").unwrap(), [""; 0], "a finished pod counts as gone");
    assert_eq!(c.agents.len(), 1, "an agent that somebody wrote stays");
}

/// An aggregated API server may begin to count anew, or write no numbers at all.
#[test]
fn what_another_server_counts_is_taken_at_its_word() {
    let mut config = Configuration::new("https://agentid.example.com", "example.com");
    config
        .bound_kinds
        .push(BoundKind { api_version: "example.com/v1".to_owned(), kind: "Widget".to_owned() });
    let kind = KindName::from("example.com/v1/Widget");
    for later in [9, 3, 0] {
        let mut c = Cluster::configured(config.clone());
        c.namespace("ns", &[]);
        let key = Key::new("ns", "o");
        let first = c.put_bound(&kind, &key, |o| o.meta.version = 5);
        c.apply(&agent(
            "a",
            "ns",
            &format!("boundObjectRef: {{apiVersion: example.com/v1, kind: Widget, name: o, uid: {first}}}"),
        ));
        c.settle();
        assert_eq!(c.files("ns", "a-agentid").unwrap(), ["identity.jwt"]);
        // It was deleted and created anew while nobody watched.
        c.put_bound(&kind, &key, |o| (o.meta.uid, o.meta.version) = (Uid(first.0 + 1), later));
        c.relist(&Source::Bound(kind.clone()));
        c.settle();
        c.advance(3);
        c.settle();
        assert!(c.agents.is_empty() && c.secrets.is_empty(), "{later}");
    }
}

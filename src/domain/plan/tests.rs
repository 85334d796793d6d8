//! How often a rotation that was asked for is answered.

use crate::domain::Key;
use crate::domain::testing::{Cluster, Writes};

fn of(c: &Cluster) -> (Key, &crate::domain::testing::Stored) {
    let key = Key::new("ns", "a-agentid");
    let stored = &c.secrets[&key];
    (key, stored)
}

/// What was written since.
fn since(c: &Cluster, before: Writes) -> (u32, u32) {
    (c.writes.secrets - before.secrets, c.writes.statuses - before.statuses)
}

#[test]
fn a_rotation_is_one_write_for_each_value_whatever_it_says() {
    let mut c = Cluster::example();
    c.settle();
    let agent = Key::new("ns", "a");
    c.advance(60);
    for at in ["2027-01-15T08:00:00Z", "2020-01-01T00:00:00Z", "9999-01-01T00:00:00Z"] {
        let before = c.writes;
        let old = of(&c).1.tokens.clone();
        assert!(c.rotate(&agent, at));
        c.settle();
        assert_eq!(since(&c, before), (1, 0), "{at}");
        let (_, stored) = of(&c);
        assert_eq!(stored.seen.rotated, Some(at.parse().unwrap()));
        assert!(stored.tokens.iter().zip(&old).all(|(new, old)| new.iat >= old.iat), "{at}");
        assert_eq!(stored.tokens[0].iat, c.now, "{at}");
        let at_rest = c.writes;
        for _ in 0..10 {
            c.advance(5);
            c.settle();
        }
        c.restart();
        c.settle();
        assert_eq!(c.writes, at_rest, "{at}: it is answered once");
    }
    // The same value asks for nothing more, nor does one that is no instant.
    for at in ["9999-01-01T00:00:00Z", "now", ""] {
        let before = c.writes;
        c.rotate(&agent, at);
        c.settle();
        assert_eq!(c.writes, before, "{at:?}");
    }
}

#[test]
fn a_new_secret_and_a_renewal_answer_a_rotation_too() {
    let mut c = Cluster::example();
    c.rotate(&Key::new("ns", "a"), "2027-01-15T08:00:00Z");
    c.settle();
    assert_eq!(c.writes.secrets, 1);
    let (_, stored) = of(&c);
    let rotated = stored.seen.rotated;
    assert_eq!(rotated, Some("2027-01-15T08:00:00Z".parse().unwrap()));
    c.advance(3000);
    c.settle();
    assert_eq!((c.writes.secrets, of(&c).1.seen.rotated), (2, rotated), "it is carried on by renewals");
}

#[test]
fn a_rotation_waits_for_a_key_and_leaves_who_is_withdrawn() {
    let mut c = Cluster::example();
    c.settle();
    let agent = Key::new("ns", "a");
    c.keys.problem = Some("the key ring is lost".into());
    let before = c.writes;
    c.rotate(&agent, "2027-01-15T08:00:00Z");
    c.settle();
    assert_eq!(c.writes, before, "what is there stays, and the agent stays Ready");
    c.keys.problem = None;
    c.world.mark_all();
    c.settle();
    assert_eq!(since(&c, before), (1, 0));

    c.apply("{kind: AgentIdentity, metadata: {name: a, namespace: ns}, spec: {suspend: true}}");
    c.settle();
    let before = c.writes;
    c.rotate(&agent, "2027-01-16T08:00:00Z");
    c.settle();
    assert_eq!(c.writes, before, "a withdrawn credential has nothing to be minted anew");
    c.apply("{kind: AgentIdentity, metadata: {name: a, namespace: ns}, spec: {suspend: false}}");
    c.rotate(&agent, "2027-01-16T08:00:00Z");
    c.settle();
    assert_eq!(since(&c, before).0, 1, "and gets all at once");
}

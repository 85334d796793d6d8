//! Which change takes which token.

use super::*;
use crate::domain::testing::{Cluster, GRANT, RESOURCE};
use crate::domain::{Key, Source};

fn token(c: &Cluster) -> Presented {
    let agent = c.world.agent(&Key::new("ns", "a")).unwrap();
    let recorded = &agent.status.grants[0];
    Presented {
        agent: Some(agent.meta.uid),
        grant: Some(recorded.grant),
        audience: "https://res.example.com".to_owned(),
        is_access: true,
        roles: vec!["reader".to_owned()],
        scopes: vec!["x.read".to_owned()],
        status: Some(recorded.at),
        ..Presented::default()
    }
}

fn standing(c: &mut Cluster, token: &Presented) -> Result<(), Reason> {
    c.deliver();
    stands(&c.world, token, c.now).map(drop).map_err(|r| r.reason)
}

#[test]
fn each_way_to_revoke_is_felt_at_once() {
    type Change = fn(&mut Cluster);
    let rows: &[(&str, Change, Reason)] = &[
        (
            "suspend",
            |c| {
                discard(c.apply(
                    "{kind: AgentIdentity, metadata: {name: a, namespace: ns}, spec: {suspend: true}}",
                ))
            },
            Reason::Suspended,
        ),
        ("delete", |c| discard(c.delete(&Source::Agents, &Key::new("ns", "a"))), Reason::AgentNotFound),
        ("grant", |c| discard(c.delete(&Source::Grants, &Key::new("ns", "g"))), Reason::CredentialRejected),
        ("narrow", |c| discard(c.apply(&GRANT.replace("[x.read]", "[]"))), Reason::CredentialRejected),
        ("allow", |c| discard(c.apply(&RESOURCE.replace("team: a", "team: b"))), Reason::CredentialRejected),
        (
            "resource",
            |c| discard(c.delete(&Source::Resources, &Key::new("", "res"))),
            Reason::CredentialRejected,
        ),
    ];
    for (what, change, reason) in rows {
        let mut c = Cluster::example();
        c.settle();
        let mark = c.hand_out.mark(c.now);
        c.world.take_mark(Some(mark));
        let token = token(&c);
        assert_eq!(standing(&mut c, &token), Ok(()), "{what}");
        change(&mut c);
        assert_eq!(standing(&mut c, &token), Err(*reason), "{what}");
    }
}

#[test]
fn a_token_bears_an_entry_of_its_own_agents() {
    let mut c = Cluster::example();
    c.apply("{kind: AgentIdentity, metadata: {name: b, namespace: ns}, spec: {serviceAccountName: s}}");
    c.apply(&GRANT.replace("name: g", "name: h").replace("[a]", "[b]"));
    c.settle();
    let mark = c.hand_out.mark(c.now);
    c.world.take_mark(Some(mark));
    let token = token(&c);
    let others = c.world.agent(&Key::new("ns", "b")).unwrap().status.grants[0].at;
    assert_eq!(standing(&mut c, &token), Ok(()));
    for status in [None, Some(others)] {
        let token = Presented { status, ..token.clone() };
        assert_eq!(standing(&mut c, &token), Err(Reason::Invalid), "{status:?}");
    }
}

#[test]
fn a_resumed_agents_old_tokens_stay_dead() {
    let mut c = Cluster::example();
    c.settle();
    let old = token(&c);
    for suspend in [true, false] {
        c.apply(&format!(
            "{{kind: AgentIdentity, metadata: {{name: a, namespace: ns}}, spec: {{suspend: {suspend}}}}}"
        ));
        c.settle();
    }
    let mark = c.hand_out.mark(c.now);
    c.world.take_mark(Some(mark));
    assert_eq!(standing(&mut c, &old), Err(Reason::CredentialRejected));
    let new = token(&c);
    assert_eq!(standing(&mut c, &new), Ok(()));
    // Got with a token that is dead, or through an actor that is gone.
    let child = Presented { parents: old.status.into_iter().collect(), ..new.clone() };
    assert_eq!(standing(&mut c, &child), Err(Reason::CredentialRejected));
    let through = Presented { actors: vec![Uid(4)], ..new.clone() };
    assert_eq!(standing(&mut c, &through), Err(Reason::AgentNotFound));
    // It says more than is held.
    for more in [
        Presented { roles: vec!["writer".to_owned()], ..new.clone() },
        Presented { scopes: vec!["x.write".to_owned()], ..new.clone() },
        Presented { audience: "https://other".to_owned(), ..new.clone() },
        Presented { is_access: false, ..new.clone() },
        Presented { user: Some(("i".to_owned(), "s".to_owned())), ..new.clone() },
        Presented { username: Some("a@b.example".to_owned()), ..new.clone() },
        Presented { grant: None, ..new.clone() },
        Presented { agent: None, ..new },
    ] {
        assert!(standing(&mut c, &more).is_err(), "{more:?}");
    }
}

fn discard<T>(_: T) {}

//! Which grant serves, as a table; and that nothing is ever wider than what was asked, held and recorded.

use super::*;
use crate::domain::testing::{Cluster, GRANT};
use crate::domain::{Key, decide};

const USER: &str = "https://idp.example";

fn cluster() -> Cluster {
    let mut config = crate::api::Configuration::new("https://agentid.example.com", "example.com");
    config.user_issuers =
        serde_yaml::from_str("[{issuer: {url: https://idp.example}, subjectPrefix: 'corp:'}]").unwrap();
    config.agent_user_domains = vec!["b.example".to_owned()];
    let mut c = Cluster::configured(config);
    c.namespace("ns", &[("team", "a")]);
    c.apply(
        "{kind: AgentIdentity, metadata: {name: a, namespace: ns}, spec: {user: {username: a@b.example}}}",
    );
    c.apply(
        &crate::domain::testing::RESOURCE
            .replace("{team: a}}", "{team: a}}, modes: [Application, Delegation, AgentUser]"),
    );
    c.apply(GRANT);
    c.advance(1);
    c.apply(
        &GRANT
            .replace("name: g,", "name: h,")
            .replace("[x.read]", "[x.read, x.write]")
            .replace("secretKey: res.jwt", ""),
    );
    c.advance(1);
    c.apply(
        "{kind: AgentGrant, metadata: {name: d, namespace: ns}, spec: {agents: {names: [a]}, resource: res, \
         delegation: {issuer: 'https://idp.example', subjects: [ann], scopes: [x.read, x.write]}}}",
    );
    c.advance(1);
    c.apply(
        "{kind: AgentGrant, metadata: {name: u, namespace: ns}, spec: {agents: {names: [a]}, resource: res, agentUser: \
         {scopes: [x.write]}}}",
    );
    c.settle();
    c
}

fn ask(c: &Cluster, ask: &Ask<'_>) -> Result<(String, String), String> {
    let key = Key::new("ns", "a");
    let decision = decide(&c.world, &key, c.now).unwrap();
    let agent = c.world.agent(&key).unwrap();
    match choose(&c.world, agent, &decision, ask) {
        Ok(chosen) => {
            let recorded = agent.status.recorded(chosen.grant).unwrap();
            assert!(recorded.covers(&chosen.entitlement) && recorded.at == chosen.status);
            Ok((chosen.name.to_string(), chosen.entitlement.scopes.join(" ")))
        }
        Err(Denied::Target(r)) => Err(format!("target {}", r.reason)),
        Err(Denied::Scope(r)) => Err(format!("scope {}", r.reason)),
        Err(Denied::Subject(r)) => Err(format!("subject {}", r.reason)),
        Err(Denied::Pending(r)) => Err(format!("pending {}", r.reason)),
    }
}

#[test]
fn the_oldest_grant_that_covers_what_is_asked_serves() {
    let c = cluster();
    let target = Some("https://res.example.com");
    type Wanted = Result<(&'static str, &'static str), &'static str>;
    let rows: &[(Ask<'_>, Wanted)] = &[
        (Ask { target, ..Ask::default() }, Ok(("g", "x.read"))),
        (Ask { target: Some("res"), ..Ask::default() }, Ok(("g", "x.read"))),
        (Ask::default(), Ok(("g", "x.read"))),
        (Ask { target, scopes: Some(vec!["x.write"]), ..Ask::default() }, Ok(("h", "x.write"))),
        (Ask { target, grant: Some("h"), ..Ask::default() }, Ok(("h", "x.read x.write"))),
        (Ask { target, scopes: Some(vec!["x.read", "y"]), ..Ask::default() }, Err("scope ScopeNotAllowed")),
        (Ask { target, grant: Some("zz"), ..Ask::default() }, Err("target ResourceNotFound")),
        (Ask { target: Some("https://other"), ..Ask::default() }, Err("target ResourceNotFound")),
        (Ask { target, user: Some((USER, "ann")), ..Ask::default() }, Ok(("d", "x.read x.write"))),
        (Ask { target, user: Some((USER, "bob")), ..Ask::default() }, Err("subject SubjectNotAllowed")),
        (Ask { target, as_agent_user: true, ..Ask::default() }, Ok(("u", "x.write"))),
        (
            Ask { target, as_agent_user: true, scopes: Some(vec!["x.read"]), ..Ask::default() },
            Err("scope ScopeNotAllowed"),
        ),
        (Ask { as_agent_user: true, grant: Some("g"), ..Ask::default() }, Err("target ResourceNotFound")),
        (Ask { grant: Some("u"), ..Ask::default() }, Err("target ResourceNotFound")),
        (
            Ask { target, user: Some(("https://x", "ann")), ..Ask::default() },
            Err("subject SubjectNotAllowed"),
        ),
        (
            Ask { target, user: Some((USER, "ann")), ceiling: Some(vec!["x.read", "z"]), ..Ask::default() },
            Ok(("d", "x.read")),
        ),
        (
            Ask { target, user: Some((USER, "ann")), ceiling: Some(vec!["z"]), ..Ask::default() },
            Err("scope ScopeNotAllowed"),
        ),
        (
            Ask {
                target,
                user: Some((USER, "ann")),
                ceiling: Some(vec!["x.read"]),
                scopes: Some(vec!["x.write"]),
                ..Ask::default()
            },
            Err("scope ScopeNotAllowed"),
        ),
    ];
    for (asked, wanted) in rows {
        let wanted = wanted.map(|(g, s)| (g.to_owned(), s.to_owned())).map_err(str::to_owned);
        assert_eq!(ask(&c, asked), wanted, "{asked:?}");
    }
}

#[test]
fn what_is_not_recorded_yet_is_pending() {
    let mut c = cluster();
    c.apply(&GRANT.replace("[x.read]", "[x.read, x.write]"));
    c.deliver();
    let wider = Ask { grant: Some("g"), scopes: Some(vec!["x.write"]), ..Ask::default() };
    assert_eq!(ask(&c, &wider), Err("pending IndexPending".to_owned()));
    c.settle();
    assert_eq!(ask(&c, &wider), Ok(("g".to_owned(), "x.write".to_owned())));
}

//! Agent users: which names are taken, whose they are, and what hangs on them.

use super::*;
use crate::api::Configuration;
use crate::domain::testing::{Cluster, RESOURCE};
use crate::domain::{Source, StatusRef, Work};

const NAME: &str = "triage@agents.example.com";

fn cluster() -> Cluster {
    let mut config = Configuration::new("https://agentid.example.com", "example.com");
    config.agent_user_domains = vec!["agents.example.com".to_owned(), "b.example".to_owned()];
    let mut c = Cluster::configured(config);
    for ns in ["ns", "other"] {
        c.namespace(ns, &[("team", "a")]);
        c.apply(&format!(
            "{{kind: AgentGrant, metadata: {{name: own, namespace: {ns}}}, spec: {{agents: {{selector: {{}}}}, resource: \
             res, application: {{scopes: [x.read]}}, secretKey: own.jwt}}}}"
        ));
        c.apply(&format!(
            "{{kind: AgentGrant, metadata: {{name: user, namespace: {ns}}}, spec: {{agents: {{selector: {{}}}}, resource: \
             res, agentUser: {{scopes: [x.read, x.write]}}, secretKey: user.jwt}}}}"
        ));
    }
    c.apply(&RESOURCE.replace("{team: a}}", "{team: a}}, modes: [Application, AgentUser]"));
    c
}

/// An agent whose user has this name; without one, none.
fn agent(c: &mut Cluster, ns: &str, name: &str, username: Option<&str>) {
    let user = username.map(|u| format!("user: {{username: {u:?}}}")).unwrap_or_default();
    c.apply(&format!(
        "{{kind: AgentIdentity, metadata: {{name: {name}, namespace: {ns}}}, spec: {{{user}}}}}"
    ));
    c.settle();
    c.advance(1);
}

fn of(d: &Decision, grant: &str) -> GrantDecision {
    d.grants.iter().find(|g| *g.grant == *grant).unwrap().clone()
}

/// As whom an agent may speak, or why not. It may always speak for itself.
fn user(c: &Cluster, ns: &str, name: &str) -> Result<String, Refusal> {
    let d = c.decide(ns, name);
    assert_eq!(d.standing, Standing::Allowed, "{ns}/{name}");
    assert!(of(&d, "own").held.is_some(), "{ns}/{name}");
    let grant = of(&d, "user");
    let files = c.files(ns, &format!("{name}-agentid")).unwrap();
    assert_eq!(files.contains(&"user.jwt"), grant.held.is_some(), "{ns}/{name}: {files:?}");
    assert!(files.contains(&"own.jwt") && files.contains(&"identity.jwt"), "{ns}/{name}: {files:?}");
    match (grant.held, grant.refusal) {
        (Some(held), None) => {
            assert_eq!(held.mode, Mode::AgentUser);
            Ok(held.username.unwrap().to_string())
        }
        (None, Some(refusal)) => Err(refusal),
        other => panic!("{other:?}"),
    }
}

fn index(c: &Cluster, grant: &str) -> Option<StatusRef> {
    let agent = c.world.agent(&Key::new("ns", "a")).unwrap();
    agent.status.recorded(of(&c.decide("ns", "a"), grant).uid).map(|r| r.at)
}

fn accepted(c: &Cluster, ns: &str, name: &str) -> Option<(Option<bool>, Option<Reason>)> {
    let agent = c.world.agent(&Key::new(ns, name)).unwrap();
    agent.status.condition("UserAccepted").map(|c| (c.status, c.reason))
}

#[test]
fn a_name_lies_in_a_domain_of_agent_users_and_is_ascii() {
    type Wanted = Result<(), (Reason, &'static [&'static str])>;
    let rows: &[(Option<&str>, Wanted)] = &[
        (Some(NAME), Ok(())),
        (Some("Triage@Agents.example.com"), Ok(())),
        (Some("t@b.example"), Ok(())),
        (
            None,
            Err((Reason::Invalid, &["spec.agentUser", "AgentIdentity a has no user", "set its spec.user"])),
        ),
        (
            Some("triage@example.com"),
            Err((
                Reason::Invalid,
                &["spec.user.username", "not among agentUserDomains", "agents.example.com, b.example"],
            )),
        ),
        (Some("triage@x.b.example"), Err((Reason::Invalid, &["not among agentUserDomains"]))),
        // What an older schema let pass: a Cyrillic letter and a Kelvin sign.
        (
            Some("tri\u{430}ge@agents.example.com"),
            Err((Reason::Invalid, &["AgentIdentity a", "ASCII letters"])),
        ),
        (Some("\u{212a}ai@agents.example.com"), Err((Reason::Invalid, &["ASCII letters"]))),
    ];
    for (username, wanted) in rows {
        let mut c = cluster();
        agent(&mut c, "ns", "a", *username);
        match (user(&c, "ns", "a"), wanted) {
            (Ok(held), Ok(())) => assert_eq!(Some(held.as_str()), *username),
            (Err(refusal), Err((reason, words))) => {
                assert_eq!(refusal.reason, *reason, "{username:?}");
                for word in *words {
                    assert!(refusal.message.contains(word), "{word:?} is not in {:?}", refusal.message);
                }
            }
            other => panic!("{username:?}: {other:?}"),
        }
        let said = username.map(|_| match wanted {
            Ok(()) => (Some(true), Some(Reason::Issued)),
            Err((reason, _)) => (Some(false), Some(*reason)),
        });
        assert_eq!(accepted(&c, "ns", "a"), said, "{username:?}");
    }
}

#[test]
fn without_domains_there_are_no_agent_users() {
    let mut c = Cluster::configured(Configuration::new("https://agentid.example.com", "example.com"));
    c.namespace("ns", &[]);
    c.apply(&format!(
        "{{kind: AgentIdentity, metadata: {{name: a, namespace: ns}}, spec: {{user: {{username: {NAME}}}}}}}"
    ));
    c.deliver();
    let refusal = user_refusal(&c.world, c.world.agent(&Key::new("ns", "a")).unwrap()).unwrap();
    assert_eq!(refusal.reason, Reason::Invalid);
    assert!(refusal.message.contains("have one added to agentUserDomains"), "{}", refusal.message);
}

#[test]
fn a_name_is_one_agents_in_the_cluster_whatever_its_case_and_the_older_one_wins() {
    let mut c = cluster();
    agent(&mut c, "ns", "a", Some(NAME));
    agent(&mut c, "other", "b", Some("TRIAGE@agents.EXAMPLE.com"));
    agent(&mut c, "ns", "c", Some("triage2@agents.example.com"));
    assert!(user(&c, "ns", "a").is_ok());
    assert!(user(&c, "ns", "c").is_ok());
    let refusal = user(&c, "other", "b").unwrap_err();
    assert_eq!(refusal.reason, Reason::Conflict);
    for word in
        ["AgentIdentity b", "spec.user.username", "TRIAGE@", "older AgentIdentity ns/a", NAME, "remove"]
    {
        assert!(refusal.message.contains(word), "{word:?} is not in {:?}", refusal.message);
    }
    assert_eq!(accepted(&c, "other", "b"), Some((Some(false), Some(Reason::Conflict))));
    assert_eq!(accepted(&c, "ns", "a"), Some((Some(true), Some(Reason::Issued))));

    // Its removal frees it, and brings it back to the older one.
    agent(&mut c, "ns", "a", None);
    assert_eq!(user(&c, "other", "b").as_deref(), Ok("TRIAGE@agents.EXAMPLE.com"));
    assert_eq!(accepted(&c, "ns", "a"), None);
    agent(&mut c, "ns", "a", Some(NAME));
    assert_eq!(user(&c, "other", "b").unwrap_err().reason, Reason::Conflict);
    // And so does the end of the agent. Who comes last wakes nobody.
    let _ = c.world.take_dirty();
    c.apply(&format!(
        "{{kind: AgentIdentity, metadata: {{name: z, namespace: ns}}, spec: {{user: {{username: {NAME}}}}}}}"
    ));
    c.deliver();
    let marked: Vec<_> = c.world.take_dirty().into_iter().map(|(work, _)| work).collect();
    assert!(!marked.contains(&Work::Agent(Key::new("other", "b"))), "{marked:?}");
    c.delete(&Source::Agents, &Key::new("ns", "a"));
    c.settle();
    assert!(user(&c, "other", "b").is_ok());
    assert_eq!(c.world.indexes(), c.world.rebuilt().indexes());
}

#[test]
fn of_the_same_age_the_lower_uid_wins() {
    let mut c = cluster();
    for ns in ["ns", "other"] {
        c.apply(&format!(
            "{{kind: AgentIdentity, metadata: {{name: a, namespace: {ns}}}, spec: {{user: {{username: {NAME}}}}}}}"
        ));
    }
    c.settle();
    let uid = |ns| c.world.agent(&Key::new(ns, "a")).unwrap().meta.uid;
    let (first, second) = if uid("ns") < uid("other") { ("ns", "other") } else { ("other", "ns") };
    assert!(user(&c, first, "a").is_ok());
    assert_eq!(user(&c, second, "a").unwrap_err().reason, Reason::Conflict);
}

#[test]
fn another_user_is_another_answer_and_the_agents_own_stays() {
    let mut c = cluster();
    agent(&mut c, "ns", "a", Some(NAME));
    let (own, first) = (index(&c, "own"), index(&c, "user").unwrap());
    agent(&mut c, "ns", "a", None);
    assert_eq!(index(&c, "user"), None);
    agent(&mut c, "ns", "a", Some("other@agents.example.com"));
    let second = index(&c, "user").unwrap();
    // The same name in another case is another token, too.
    agent(&mut c, "ns", "a", Some("Other@agents.example.com"));
    let third = index(&c, "user").unwrap();
    assert!(first != second && second != third && first != third);
    // Back again: what was revoked stays so.
    agent(&mut c, "ns", "a", Some(NAME));
    assert!(![first, second, third].contains(&index(&c, "user").unwrap()));
    assert_eq!(index(&c, "own"), own);
}

#[test]
fn the_resource_and_policies_have_their_say() {
    let deny = "{kind: AgentPolicy, metadata: {name: p}, spec: {deny: [{modes: [AgentUser]}]}}";
    let rows: &[(&str, Reason, &str)] = &[
        (
            RESOURCE,
            Reason::ModeNotAllowed,
            "spec.agentUser: AgentResource res does not allow namespace ns the mode AgentUser",
        ),
        (deny, Reason::PolicyDenied, "AgentUser grants on AgentResource res are denied"),
        (
            "{kind: AgentResource, metadata: {name: res}, spec: {audience: \"https://res.example.com\", tokenProfile: \
             Identity, allow: [{namespaceSelector: {}, modes: [Application, AgentUser]}]}}",
            Reason::ModeNotAllowed,
            "takes identity tokens, which never speak for a user",
        ),
    ];
    for (change, reason, words) in rows {
        let mut c = cluster();
        agent(&mut c, "ns", "a", Some(NAME));
        c.apply(change);
        c.settle();
        let refusal = of(&c.decide("ns", "a"), "user").refusal.unwrap();
        assert_eq!(refusal.reason, *reason, "{change}");
        assert!(refusal.message.contains(words), "{}", refusal.message);
    }
}

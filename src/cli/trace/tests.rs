use clap::Parser;
use jiff::SignedDuration;
use serde_json::json;

use super::facts::Stands;
use super::*;
use crate::api::Reason;
use crate::cluster::snapshot::Snapshot;
use crate::domain::testing::{Cluster, GRANT};
use crate::domain::{Source, World, status};

const SUSPENDED: &str = "{kind: AgentIdentity, metadata: {name: a, namespace: ns}, spec: {suspend: true}}";
const RESUMED: &str = "{kind: AgentIdentity, metadata: {name: a, namespace: ns}, spec: {}}";

fn settled() -> Cluster {
    let mut c = Cluster::example();
    c.settle();
    let mark = c.hand_out.mark(c.now);
    c.world.take_mark(Some(mark));
    c
}

/// The line of a token that was minted for pod `p` a minute after the agent came.
fn mint(c: &mut Cluster) -> AuditLine {
    c.advance(60);
    c.settle();
    let agent = c.world.agent(&Key::new("ns", "a")).unwrap();
    let mut line = AuditLine::new(Action::Mint, Reason::Issued, c.now);
    line.at(agent.status.grants[0].at);
    AuditLine {
        agent_id: Some(status::agent_id("example.com", agent.meta.uid)),
        namespace: Some("ns".into()),
        name: Some("a".into()),
        pod: Some("p".into()),
        pod_uid: Some("u-1".into()),
        service_account: Some("ns/runner".into()),
        mode: Some("autonomous".into()),
        resource: Some("res".into()),
        audience: Some("https://res.example.com".into()),
        grant: Some("g".into()),
        roles: vec!["reader".into()],
        scopes: vec!["x.read".into()],
        jti: Some("01KA".into()),
        kid: Some("k0".into()),
        expires_at: Some(c.now + SignedDuration::from_secs(600)),
        endpoint: Some("/token".into()),
        source: Some("10.0.0.1".into()),
        ..line
    }
}

fn snapshot_of(c: &mut Cluster) -> Snapshot {
    c.deliver();
    let config = c.world.config().clone();
    Snapshot {
        world: std::mem::replace(&mut c.world, World::new(config)),
        conditions: Vec::new(),
        agent_id: None,
        unseen: Vec::new(),
        skipped: Vec::new(),
        issuer: None,
    }
}

fn there() -> PodSeen {
    PodSeen::There { uid: "u-1".into(), phase: "Running".into() }
}

fn looked(c: &mut Cluster, line: &AuditLine, pod: PodSeen) -> Now {
    let (snapshot, now) = (snapshot_of(c), c.now);
    Now::of(line, &Seen { snapshot: Some(&snapshot), pod, published: Some(true) }, now)
}

#[test]
fn a_token_stands_or_falls_by_what_is_left() {
    type Change = fn(&mut Cluster, &mut AuditLine);
    let rows: &[(&str, Change, Stands, Option<&str>, &str)] = &[
        ("nothing", |_, _| (), Stands::Accepted, None, ""),
        ("expiry", |c, _| c.advance(601), Stands::Refused, Some("Expired"), "it has expired"),
        ("suspend", |c, _| discard(c.apply(SUSPENDED)), Stands::Refused, Some("Suspended"), "spec.suspend"),
        (
            "suspend and resume",
            |c, _| {
                for spec in [SUSPENDED, RESUMED] {
                    c.apply(spec);
                    c.settle();
                }
            },
            Stands::Refused,
            Some("CredentialRejected"),
            "no longer recorded",
        ),
        (
            "grant",
            |c, _| discard(c.delete(&Source::Grants, &Key::new("ns", "g"))),
            Stands::Refused,
            Some("CredentialRejected"),
            "AgentGrant ns/g is gone",
        ),
        (
            "grant anew",
            |c, _| {
                c.delete(&Source::Grants, &Key::new("ns", "g"));
                c.advance(5);
                c.apply(GRANT);
            },
            Stands::Refused,
            Some("CredentialRejected"),
            "created after the token",
        ),
        (
            "resource",
            |c, _| discard(c.delete(&Source::Resources, &Key::new("", "res"))),
            Stands::Refused,
            Some("ResourceNotFound"),
            "AgentGrant g: ",
        ),
        (
            "wider than the record",
            |_, line| line.scopes.push("x.write".into()),
            Stands::Refused,
            Some("ScopeNotAllowed"),
            "a scope that is no longer held",
        ),
        (
            "another agent of the name",
            |_, line| {
                line.agent_id = Some("spiffe://example.com/agent/00000000-0000-0000-0000-000000000009".into())
            },
            Stands::Refused,
            Some("AgentNotFound"),
            "is another one",
        ),
        (
            "an id that is none",
            |_, line| line.agent_id = None,
            Stands::Unknown,
            Some("Unknown"),
            "does not say which",
        ),
        (
            "a Secret's newborn",
            |c, line| {
                line.endpoint = Some("secret".into());
                line.status_index = Some(7777);
                line.time = Some(c.now);
            },
            Stands::Unknown,
            Some("Unknown"),
            "about to be recorded",
        ),
    ];
    for (what, change, stands, reason, said) in rows {
        let mut c = settled();
        let mut line = mint(&mut c);
        change(&mut c, &mut line);
        let now = looked(&mut c, &line, there());
        assert_eq!((now.stands, now.reason), (*stands, *reason), "{what}: {now:?}");
        assert!(now.message.as_deref().unwrap_or_default().contains(said), "{what}: {now:?}");
    }
}

#[test]
fn a_token_without_a_name_left_in_the_cluster() {
    let mut c = settled();
    let line = mint(&mut c);
    let now = Now::of(&line, &Seen { snapshot: None, pod: PodSeen::Gone, published: None }, c.now);
    assert_eq!((now.stands, now.reason, now.agent.state), (Stands::Refused, Some("AgentNotFound"), "absent"));
    assert_eq!(now.grant.as_ref().unwrap().state, "unknown");
    assert!(now.notes[0].contains("agentid-trust"), "{:?}", now.notes);

    let snapshot = snapshot_of(&mut c);
    let revoked = Seen { snapshot: Some(&snapshot), pod: there(), published: Some(false) };
    let now = Now::of(&line, &revoked, c.now);
    assert!(now.message.as_deref().unwrap().contains("k0, is no longer published"), "{now:?}");
    // The identity token of a Secret has no grant, no index, and another audience.
    let identity = AuditLine {
        grant: None,
        status_list: None,
        mode: Some("identity".into()),
        audience: Some("https://agentid.example.com".into()),
        pod: None,
        ..line
    };
    let seen = Seen { snapshot: Some(&snapshot), pod: PodSeen::None, published: Some(true) };
    let now = Now::of(&identity, &seen, c.now);
    assert_eq!((now.stands, now.grant, now.pod), (Stands::Accepted, None, None));
}

#[test]
fn a_pods_end_is_told_and_is_not_the_tokens() {
    let rows = [
        (there(), "present"),
        (PodSeen::Gone, "absent"),
        (PodSeen::There { uid: "u-2".into(), phase: "Running".into() }, "replaced"),
        (PodSeen::There { uid: "u-1".into(), phase: "Failed".into() }, "finished"),
        (PodSeen::Unseen("pods can't be read as you".into()), "unknown"),
    ];
    for (pod, state) in rows {
        let mut c = settled();
        let line = mint(&mut c);
        let now = looked(&mut c, &line, pod);
        assert_eq!(now.pod.as_ref().map(|p| p.state), Some(state));
        assert_eq!(now.stands, Stands::Accepted, "{state}");
        let noted = now.notes.iter().any(|n| n.contains("spec.boundObjectRef"));
        assert_eq!(noted, matches!(state, "absent" | "replaced" | "finished"), "{state}");
    }
}

#[test]
fn a_token_in_a_users_name_is_told_by_its_user() {
    let resource = "{kind: AgentResource, metadata: {name: mail}, spec: {audience: 'https://mail.example.com', scopes: \
                    [{name: m.read}], allow: [{namespaceSelector: {matchLabels: {team: a}}, scopes: [m.read], modes: \
                    [Delegation]}]}}";
    let grant = |subjects: &str| {
        format!(
            "{{kind: AgentGrant, metadata: {{name: for-ann, namespace: ns}}, spec: {{agents: {{names: [a]}}, resource: \
             mail, delegation: {{issuer: 'https://idp.example.com', subjects: [{subjects}], scopes: [m.read]}}}}}}"
        )
    };
    let mut config = crate::api::Configuration::new("https://agentid.example.com", "example.com");
    config.user_issuers =
        serde_yaml::from_str("[{issuer: {url: 'https://idp.example.com'}, subjectPrefix: 'corp:'}]").unwrap();
    for (subjects, stands, reason) in
        [("ann, bob", Stands::Accepted, None), ("bob", Stands::Refused, Some("CredentialRejected"))]
    {
        let mut c = Cluster::configured(config.clone());
        c.namespace("ns", &[("team", "a")]);
        c.apply(RESUMED);
        c.apply(resource);
        c.apply(&grant("ann, bob"));
        c.settle();
        let line = mint(&mut c);
        let line = AuditLine {
            mode: Some("delegated".into()),
            on_behalf_of: Some("corp:ann".into()),
            grant: Some("for-ann".into()),
            audience: Some("https://mail.example.com".into()),
            roles: Vec::new(),
            scopes: vec!["m.read".into()],
            ..line
        };
        c.apply(&grant(subjects));
        let now = looked(&mut c, &line, there());
        assert_eq!((now.stands, now.reason), (stands, reason), "{now:?}");
        let noted = now.notes.iter().any(|n| n.contains("introspection"));
        assert_eq!(noted, stands == Stands::Accepted, "{now:?}");
    }
}

#[test]
fn a_token_of_an_agents_user_is_told_by_its_name() {
    let mut config = crate::api::Configuration::new("https://agentid.example.com", "example.com");
    config.agent_user_domains = vec!["b.example".to_owned()];
    for (username, stands) in [("a@b.example", Stands::Accepted), ("c@b.example", Stands::Refused)] {
        let mut c = Cluster::configured(config.clone());
        c.namespace("ns", &[("team", "a")]);
        c.apply(
            "{kind: AgentResource, metadata: {name: mail}, spec: {audience: 'https://mail.example.com', scopes: [{name: \
             m.read}], allow: [{namespaceSelector: {}, modes: [AgentUser]}]}}",
        );
        c.apply(
            "{kind: AgentGrant, metadata: {name: mail, namespace: ns}, spec: {agents: {names: [a]}, resource: mail, \
             agentUser: {scopes: [m.read]}}}",
        );
        c.apply(&RESUMED.replace("spec: {", "spec: {user: {username: a@b.example}, "));
        c.settle();
        let line = mint(&mut c);
        let line = AuditLine {
            mode: Some("agent_user".into()),
            on_behalf_of: Some(username.into()),
            grant: Some("mail".into()),
            audience: Some("https://mail.example.com".into()),
            roles: Vec::new(),
            scopes: vec!["m.read".into()],
            ..line
        };
        let now = looked(&mut c, &line, there());
        assert_eq!(now.stands, stands, "{now:?}");
    }
}

#[test]
fn everything_that_the_record_says_is_printed() {
    let mut c = settled();
    let mut line = mint(&mut c);
    line.on_behalf_of = Some("corp:\u{1b}ann".into());
    line.blueprint = Some("helper".into());
    let now = looked(&mut c, &line, there());
    let trace = Trace { jti: "01KA".into(), mint: line, now: Some(now) };
    let text = trace.text(c.now + SignedDuration::from_secs(60));
    for wanted in [
        "Token 01KA\n",
        "  agent     ns/a\n",
        "spiffe://example.com/agent/",
        "  blueprint helper\n",
        "  for       corp:\\u{1b}ann\n",
        "  resource  res\n",
        "  audience  https://res.example.com\n",
        "  grant     ns/g\n",
        "  roles     reader\n",
        "  scopes    x.read\n",
        "  pod       ns/p (UID u-1)\n",
        "  account   ns/runner\n",
        "  asked     at /token (from 10.0.0.1)\n",
        ", 1m ago\n",
        ", in 9m\n",
        "  key       k0\n",
        "  status    entry 0 of status list 0",
        "\nAccepted now.\n  agent     AgentIdentity ns/a is there\n  grant     AgentGrant ns/g is there\n  pod       Pod ns/p is there\n",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    let value = serde_json::to_value(&trace).unwrap();
    assert_eq!(value["mint"]["pod_uid"], "u-1");
    assert_eq!(
        (&value["now"]["stands"], &value["now"]["pod"]["state"]),
        (&json!("Accepted"), &json!("present"))
    );
    let offline = Trace { now: None, ..trace };
    assert!(!offline.text(c.now).contains("ccepted"));
    assert_eq!(serde_json::to_value(&offline).unwrap().get("now"), None);
}

#[test]
fn a_jti_is_matched_whole_and_reading_ends_with_it() {
    let path = std::env::temp_dir().join(format!("agentid-trace-{}", std::process::id()));
    let at = Timestamp::from_second(1_800_000_000).unwrap();
    let line = |action, jti: &str, name: &str| {
        let jti = Some(jti.to_owned());
        AuditLine { jti, name: Some(name.to_owned()), ..AuditLine::new(action, Reason::Issued, at) }.text()
    };
    let text = [
        line(Action::Mint, "01KAB", "longer"),
        line(Action::Refuse, "01KA", "refused"),
        "garbage 01KA\n".to_owned(),
        line(Action::Mint, "01KA", "first"),
        line(Action::Mint, "01KA", "again"),
    ]
    .concat();
    std::fs::write(&path, text).unwrap();
    let parse = |words: &[&str]| {
        let parsed = crate::cli::Cli::try_parse_from(["agentid", "trace"].iter().chain(words));
        parsed.map(|cli| match cli.command {
            crate::cli::Command::Trace(args) => args,
            _ => panic!("another command"),
        })
    };
    let file = path.display().to_string();
    let args = parse(&["01KA", "--file", &file, "--offline"]).unwrap();
    let (found, reach) = find(&args.record, "01KA").unwrap();
    assert_eq!((found.unwrap().name.as_deref(), reach.lines), (Some("first"), 4));
    let (found, reach) = find(&args.record, "01K").unwrap();
    assert_eq!((found, reach.lines, reach.audit_lines), (None, 5, 4));
    let error = TraceError::NotFound { jti: "01K".into(), reach: reach.to_string() }.to_string();
    assert!(error.contains("4 audit lines among 5, from 2027-01-15T08:00:00Z to"), "{error}");
    std::fs::remove_file(&path).unwrap();
    for wrong in
        [vec![], vec![""], vec!["a b"], vec!["eyJh.eyJi.c2ln"], vec!["x", "--offline", "--context", "c"]]
    {
        assert_eq!(parse(&wrong).err().map(|e| e.exit_code()), Some(2), "{wrong:?}");
    }
}

fn discard<T>(_: T) {}

//! One row for each refusal: its reason, and a message that names object or field, value and remedy.

use super::*;
use crate::domain::testing::{Cluster, GRANT, RESOURCE, START};
use crate::domain::{KindName, Lost, Source};

fn spec(grant: &str) -> String {
    format!(
        "{{kind: AgentGrant, metadata: {{name: g, namespace: ns}}, spec: {{resource: res, agents: {{names: [a]}}, {grant}}}}}"
    )
}

fn agent(spec: &str) -> String {
    format!("{{kind: AgentIdentity, metadata: {{name: a, namespace: ns}}, spec: {{{spec}}}}}")
}

fn resource(more: &str) -> String {
    format!(
        "{{kind: AgentResource, metadata: {{name: res}}, spec: {{audience: \"https://res.example.com\", \
         roles: [{{name: reader}}, {{name: writer}}], scopes: [{{name: x.read}}, {{name: x.write}}], {more}}}}}"
    )
}

fn settled(mut c: Cluster, yaml: &[&str]) -> Cluster {
    yaml.iter().for_each(|y| drop(c.apply(y)));
    c.settle();
    c
}

#[test]
fn every_refusal_of_a_grant_says_where_what_and_how_to_mend() {
    let all = "allow: [{namespaceSelector: {}}]";
    let rows: &[(&str, &str, Reason, &[&str])] = &[
        (
            "application: {roles: [boss]}",
            all,
            Reason::RoleNotOffered,
            &["spec.application.roles", "\"boss\"", "reader, writer", "remove it"],
        ),
        (
            "application: {scopes: [zap]}",
            all,
            Reason::ScopeNotOffered,
            &["spec.application.scopes", "\"zap\"", "x.read", "remove it"],
        ),
        (
            "application: {roles: [writer]}",
            "allow: [{namespaceSelector: {}, roles: [reader]}]",
            Reason::RoleNotAllowed,
            &["spec.application.roles", "\"writer\"", "namespace ns", "spec.allow"],
        ),
        (
            "application: {scopes: [x.write]}",
            "allow: [{namespaceSelector: {}, roles: [reader]}]",
            Reason::ScopeNotAllowed,
            &["spec.application.scopes", "\"x.write\"", "namespace ns", "spec.allow"],
        ),
        (
            "application: {}",
            "allow: [{namespaceSelector: {matchLabels: {team: b}}}]",
            Reason::NamespaceNotAllowed,
            &["spec.resource", "AgentResource res", "namespace ns", "spec.allow"],
        ),
        (
            "application: {}",
            "allow: [{namespaceSelector: {}, modes: []}]",
            Reason::ModeNotAllowed,
            &["spec.application", "AgentResource res", "Application", "ask its owner"],
        ),
        (
            "application: {}, expiresAt: 2027-01-15T07:00:00Z",
            all,
            Reason::Expired,
            &["spec.expiresAt", "2027-01-15T07:00:00Z", "later"],
        ),
        (
            "application: {}, notBefore: 2027-01-15T09:00:00Z",
            all,
            Reason::NotYetValid,
            &["spec.notBefore", "2027-01-15T09:00:00Z"],
        ),
        (
            "application: {}, resource: nil",
            all,
            Reason::ResourceNotFound,
            &["spec.resource", "nil", "create it"],
        ),
        (
            "application: {}, secretKey: identity.jwt",
            all,
            Reason::Invalid,
            &["spec.secretKey", "identity.jwt", "correct"],
        ),
        (
            "application: {}, secretKey: ../x.jwt",
            all,
            Reason::Invalid,
            &["spec.secretKey", "../x.jwt", "correct"],
        ),
        ("secretKey: x.jwt", all, Reason::Invalid, &["spec", "correct"]),
        (
            "application: {}",
            "maxTokenLifetime: 1d, allow: [{namespaceSelector: {}}]",
            Reason::Invalid,
            &["AgentResource res", "spec.maxTokenLifetime", "1d", "correct"],
        ),
    ];
    for (grant, offer, reason, words) in rows {
        let grant = spec(grant).replacen(
            "resource: res, ",
            if grant.contains("resource: nil") { "" } else { "resource: res, " },
            1,
        );
        let c = settled(Cluster::example(), &[&resource(offer), &grant]);
        let g = &c.decide("ns", "a").grants[0];
        let refusal = g.refusal.clone().unwrap_or_else(|| panic!("{grant} is held"));
        assert_eq!((refusal.reason, g.held.is_some()), (*reason, false), "{grant}");
        for word in *words {
            assert!(refusal.message.contains(word), "{:?} lacks {word:?}", refusal.message);
        }
        assert_eq!(c.files("ns", "a-agentid").unwrap(), ["identity.jwt"], "{grant}");
    }
}

#[test]
fn every_refusal_of_an_agent_says_where_what_and_how_to_mend() {
    let bound = |kind: &str| format!("boundObjectRef: {{apiVersion: {kind}, name: p}}");
    let pod = bound("v1, kind: Pod");
    type Before = fn(&mut Cluster);
    let rows: &[(String, Before, Reason, &[&str])] = &[
        ("suspend: true".into(), |_| (), Reason::Suspended, &["spec.suspend", "true", "false"]),
        (
            "expiresAt: 2027-01-15T07:00:00Z".into(),
            |_| (),
            Reason::Expired,
            &["spec.expiresAt", "2027-01-15T07:00:00Z", "later"],
        ),
        ("tokenLifetime: 1d".into(), |_| (), Reason::Invalid, &["spec.tokenLifetime", "1d", "correct"]),
        (
            bound("v1, kind: Secret"),
            |_| (),
            Reason::BoundKindNotAllowed,
            &["spec.boundObjectRef", "v1/Secret", "boundKinds"],
        ),
        (
            pod.clone(),
            |_| (),
            Reason::BoundObjectNotFound,
            &["spec.boundObjectRef", "v1/Pod p", "namespace ns"],
        ),
        (
            pod.clone(),
            |c| drop(c.bound("v1/Pod", &Key::new("ns", "p"), true, true)),
            Reason::BoundObjectFinished,
            &["spec.boundObjectRef", "v1/Pod p", "finished"],
        ),
        (
            pod.clone(),
            |c| drop(c.bound("v1/Pod", &Key::new("ns", "p"), false, false)),
            Reason::BoundObjectNotSelected,
            &["spec.boundObjectRef", "v1/Pod p", "label it agentid.dev/agent"],
        ),
        (
            bound("v1, kind: Pod, uid: 00000000-0000-4000-8000-000000000001"),
            |c| drop(c.bound("v1/Pod", &Key::new("ns", "p"), false, true)),
            Reason::BoundObjectReplaced,
            &["spec.boundObjectRef.uid", "00000000-0000-4000-8000-000000000001", "create the agent anew"],
        ),
        (
            String::new(),
            |c| drop(c.foreign.insert(Key::new("ns", "a-agentid"))),
            Reason::ForeignObject,
            &["spec.secretName", "a-agentid", "Opaque", "delete or rename"],
        ),
    ];
    for (spec, before, reason, words) in rows {
        let mut c = Cluster::new();
        c.namespace("ns", &[("team", "a")]);
        before(&mut c);
        let c = settled(c, &[&agent(spec), RESOURCE, GRANT]);
        let Standing::Refused(refusal) = c.decide("ns", "a").standing else {
            panic!("{spec} is not refused")
        };
        assert_eq!(refusal.reason, *reason, "{spec}");
        for word in *words {
            assert!(refusal.message.contains(word), "{:?} lacks {word:?}", refusal.message);
        }
        assert!(c.secrets.is_empty(), "{spec}");
        let status = c.agents[&Key::new("ns", "a")].status.clone().unwrap();
        assert_eq!(status.conditions[0].reason, reason.as_str());
        assert_eq!(status.grants_held.as_deref(), Some("0/1"), "{spec}");
    }
}

fn held(c: &Cluster) -> (String, Option<Reason>) {
    let d = c.decide("ns", "a");
    let g = &d.grants[0];
    let names = g.held.iter().flat_map(|h| h.roles.iter().chain(&h.scopes)).map(|n| &**n);
    (names.collect::<Vec<_>>().join(" "), g.refusal.as_ref().map(|r| r.reason))
}

#[test]
fn rights_are_intersections_and_entries_a_union() {
    let everything = "application: {roles: [reader, writer], scopes: [x.read, x.write]}";
    for (allow, wanted, reason) in [
        ("{namespaceSelector: {}}", "reader writer x.read x.write", None),
        ("{namespaceSelector: {}, roles: [reader]}", "reader", Some(Reason::RoleNotAllowed)),
        ("{namespaceSelector: {}, scopes: [x.read]}", "x.read", Some(Reason::RoleNotAllowed)),
        ("{namespaceSelector: {}, roles: [reader, writer]}", "reader writer", Some(Reason::ScopeNotAllowed)),
        (
            "{namespaceSelector: {}, roles: [reader]}, {namespaceSelector: {}, scopes: [x.read]}",
            "reader x.read",
            Some(Reason::RoleNotAllowed),
        ),
        (
            "{namespaceSelector: {}, roles: [reader]}, {namespaceSelector: {matchLabels: {team: a}}}",
            "reader writer x.read x.write",
            None,
        ),
        (
            "{namespaceSelector: {}, roles: [reader]}, {namespaceSelector: {matchLabels: {team: b}}}",
            "reader",
            Some(Reason::RoleNotAllowed),
        ),
        ("{namespaceSelector: {}, roles: [], scopes: []}", "", Some(Reason::RoleNotAllowed)),
        ("{namespaceSelector: {}, roles: [boss]}", "", Some(Reason::RoleNotAllowed)),
    ] {
        let offer = resource(&format!("allow: [{allow}]"));
        let c = settled(Cluster::example(), &[&offer, &spec(everything)]);
        assert_eq!(held(&c), (wanted.to_owned(), reason), "{allow}");
        let state = c.decide("ns", "a").grants[0].state();
        assert_eq!(state == GrantState::Refused, wanted.is_empty(), "{allow}");
        assert_eq!(state == GrantState::Held, reason.is_none(), "{allow}");
    }
    // Nothing asked: it may authenticate, where anything at all is allowed.
    let c = settled(
        Cluster::example(),
        &[&resource("allow: [{namespaceSelector: {}, roles: []}]"), &spec("application: {}")],
    );
    assert_eq!(held(&c), (String::new(), None));
    assert!(c.decide("ns", "a").grants[0].held.is_some());
}

#[test]
fn lifetimes_are_the_shortest_and_too_short_ones_stay_out_of_the_secret() {
    let short = resource("allow: [{namespaceSelector: {}}], maxTokenLifetime: 5m");
    let c = settled(Cluster::example(), &[&short, GRANT]);
    let g = &c.decide("ns", "a").grants[0];
    assert_eq!((g.state(), g.held.as_ref().unwrap().lifetime, &g.file), (GrantState::Narrowed, 300, &None));
    let refusal = g.refusal.clone().unwrap();
    assert_eq!(refusal.reason, Reason::LifetimeTooShort);
    for word in ["spec.secretKey", "300s", "600s", "maxTokenLifetime"] {
        assert!(refusal.message.contains(word), "{}", refusal.message);
    }
    assert_eq!(c.files("ns", "a-agentid").unwrap(), ["identity.jwt"]);
    for (own, most, wanted) in
        [("10m", "1h", 600), ("24h", "15m", 900), ("100h", "24h", 86_400), ("1s", "1h", 600)]
    {
        let offer = resource(&format!("allow: [{{namespaceSelector: {{}}}}], maxTokenLifetime: {most}"));
        let c = settled(Cluster::example(), &[&offer, &agent(&format!("tokenLifetime: {own}"))]);
        assert_eq!(c.decide("ns", "a").grants[0].held.as_ref().unwrap().lifetime, wanted, "{own} {most}");
    }
}

#[test]
fn the_older_wins_and_the_loser_follows_when_it_goes() {
    // The audience.
    let twin = RESOURCE.replace("name: res}", "name: twin}");
    let second = GRANT
        .replace("name: g,", "name: g2,")
        .replace("resource: res", "resource: twin")
        .replace("res.jwt", "twin.jwt");
    let mut c = Cluster::example();
    c.settle();
    c.advance(5);
    let mut c = settled(c, &[&twin, &second]);
    let refusal = c.decide("ns", "a").grants[1].refusal.clone().unwrap();
    assert_eq!(refusal.reason, Reason::Conflict);
    for word in [
        "AgentResource twin",
        "spec.audience",
        "https://res.example.com",
        "older AgentResource res",
        "delete",
    ] {
        assert!(refusal.message.contains(word), "{}", refusal.message);
    }
    assert_eq!(c.files("ns", "a-agentid").unwrap(), ["identity.jwt", "res.jwt"]);
    c.delete(&Source::Resources, &Key::new("", "res"));
    c.settle();
    assert_eq!(c.files("ns", "a-agentid").unwrap(), ["identity.jwt", "twin.jwt"]);

    // The key of a Secret.
    let mut c = Cluster::example();
    c.settle();
    c.advance(5);
    let mut c = settled(c, &[&GRANT.replace("name: g,", "name: g2,")]);
    let d = c.decide("ns", "a");
    let refusal = d.grants[1].refusal.clone().unwrap();
    assert_eq!((refusal.reason, &*d.grants[1].grant), (Reason::Conflict, "g2"));
    for word in ["spec.secretKey", "res.jwt", "older AgentGrant g", "another key"] {
        assert!(refusal.message.contains(word), "{}", refusal.message);
    }
    c.delete(&Source::Grants, &Key::new("ns", "g"));
    c.settle();
    assert_eq!(c.files("ns", "a-agentid").unwrap(), ["identity.jwt", "res.jwt"]);

    // The Secret's name; of two of one second the lower UID wins.
    let mut c = Cluster::new();
    c.namespace("ns", &[]);
    let named = |n: &str| {
        format!("{{kind: AgentIdentity, metadata: {{name: {n}, namespace: ns}}, spec: {{secretName: s}}}}")
    };
    let (x, y) = (c.apply(&named("x")), c.apply(&named("z")));
    c.settle();
    let (winner, loser) = if x < y { ("x", "z") } else { ("z", "x") };
    assert_eq!(c.decide("ns", winner).standing, Standing::Allowed);
    let Standing::Refused(refusal) = c.decide("ns", loser).standing else { panic!("both hold the Secret") };
    assert_eq!(refusal.reason, Reason::Conflict);
    for word in
        ["spec.secretName", "Secret s", &format!("older AgentIdentity {winner}"), "create this agent anew"]
    {
        assert!(refusal.message.contains(word), "{}", refusal.message);
    }
    c.delete(&Source::Agents, &Key::new("ns", winner));
    c.settle();
    assert_eq!(c.decide("ns", loser).standing, Standing::Allowed);
    assert_eq!(c.secrets[&Key::new("ns", "s")].seen.agent, Some(x.max(y)));
}

#[test]
fn a_grant_is_held_when_agent_and_resource_come() {
    let mut c = Cluster::new();
    c.namespace("ns", &[("team", "a")]);
    let mut c = settled(c, &[GRANT]);
    let grant = |c: &Cluster| {
        let grant = c.world.grant(&Key::new("ns", "g")).unwrap();
        let status = crate::domain::status::grant_status(&c.world, grant, c.now).unwrap().status;
        (status.conditions[0].reason.clone(), status.conditions[0].message.clone(), status.held)
    };
    let (reason, message, _) = grant(&c);
    assert!(reason == "AgentNotFound" && message.contains("spec.agents.names: AgentIdentity a"), "{message}");
    c = settled(c, &[&agent("")]);
    assert_eq!(held(&c).1, Some(Reason::ResourceNotFound));
    assert_eq!(grant(&c).0, "ResourceNotFound");
    c = settled(c, &[RESOURCE]);
    assert_eq!(held(&c), ("reader x.read".to_owned(), None));
    assert_eq!((grant(&c).0.as_str(), grant(&c).2), ("Issued", Some(1)));
    assert_eq!(c.files("ns", "a-agentid").unwrap(), ["identity.jwt", "res.jwt"]);
}

#[test]
fn our_own_issuer_is_no_audience() {
    let own = RESOURCE.replace("https://res.example.com", "https://agentid.example.com");
    let mut c = Cluster::new();
    c.namespace("ns", &[("team", "a")]);
    let c = settled(c, &[&agent(""), &own, GRANT]);
    let refusal = c.decide("ns", "a").grants[0].refusal.clone().unwrap();
    assert_eq!(refusal.reason, Reason::Invalid);
    assert!(refusal.message.contains("spec.audience \"https://agentid.example.com\""), "{}", refusal.message);
}

#[test]
fn unknown_is_not_absent() {
    for source in Source::CORE.into_iter().filter(|s| *s != Source::Trust) {
        let mut c = Cluster::example();
        c.settle();
        c.lose(&source);
        c.delete(&Source::Resources, &Key::new("", "res"));
        c.advance(61);
        c.settle();
        let Standing::Unknown(refusal) = c.decide("ns", "a").standing else { panic!("{source} is believed") };
        assert!(refusal.message.contains(&source.to_string()), "{}", refusal.message);
        c.advance(36_000);
        let version = c.secrets[&Key::new("ns", "a-agentid")].seen.meta.version;
        c.settle();
        assert_eq!(c.secrets[&Key::new("ns", "a-agentid")].seen.meta.version, version, "{source}");
        // Its tokens have died meanwhile, and that is said.
        let status = c.agents[&Key::new("ns", "a")].status.clone().unwrap();
        assert_eq!(
            (&*status.conditions[0].status, &*status.conditions[0].reason),
            ("Unknown", "Unknown"),
            "{source}"
        );
        c.find(&source);
        c.settle();
        c.advance(5);
        c.settle();
        assert_eq!(c.files("ns", "a-agentid").unwrap(), ["identity.jwt"], "{source}");
    }
}

#[test]
fn a_kind_that_is_not_served_holds_back_its_own_agents_alone() {
    let job = KindName::from("batch/v1/Job");
    let mut c = Cluster::new();
    c.lost.insert(Source::Bound(job.clone()));
    c.restart();
    c.world.lost(&Source::Bound(job.clone()), Lost::NotServed);
    c.namespace("ns", &[]);
    c.apply("{kind: AgentIdentity, metadata: {name: b, namespace: ns}, spec: {}}");
    c.apply(&agent("boundObjectRef: {apiVersion: batch/v1, kind: Job, name: j}"));
    c.settle();
    assert_eq!(c.decide("ns", "b").standing, Standing::Allowed);
    let Standing::Unknown(refusal) = c.decide("ns", "a").standing else {
        panic!("the Job's watch is believed")
    };
    assert!(refusal.message.contains("batch/v1/Job") && refusal.message.contains("install its CRD"));
    c.bound(&job, &Key::new("ns", "j"), false, true);
    c.find(&Source::Bound(job));
    c.settle();
    assert_eq!(c.decide("ns", "a").standing, Standing::Allowed);
    assert_eq!(c.secrets.len(), 2);
}

#[test]
fn the_clock_five_minutes_off_harms_nothing() {
    for off in [300, -300] {
        let mut c = Cluster::example();
        c.settle();
        let minted = c.secrets[&Key::new("ns", "a-agentid")].tokens.clone();
        c.now += jiff::SignedDuration::from_secs(off);
        c.settle();
        c.hear();
        c.advance(6);
        c.settle();
        assert_eq!(c.secrets[&Key::new("ns", "a-agentid")].tokens, minted, "{off}: nothing is minted anew");
        for _ in 0..40 {
            c.advance(300);
            c.settle();
            let tokens = &c.secrets[&Key::new("ns", "a-agentid")].tokens;
            assert_eq!(tokens.len(), 2);
            assert!(tokens.iter().all(|t| t.exp > c.now && t.exp.duration_since(t.iat).as_secs() == 3600));
        }
        assert!(c.now.as_second() > START);
    }
}

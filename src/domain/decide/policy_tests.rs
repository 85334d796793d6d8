//! What policies take: one row for each rule.

use super::*;
use crate::domain::testing::{Cluster, GRANT};
use crate::domain::{Digest, Lane, Source, Work};

fn policy(spec: &str) -> String {
    format!("{{kind: AgentPolicy, metadata: {{name: p}}, spec: {{{spec}}}}}")
}

fn with(policies: &[&str]) -> Cluster {
    let mut c = Cluster::example();
    for p in policies {
        c.apply(p);
    }
    c.settle();
    c
}

/// Reason and message of what refuses the agent, and of what refuses or narrows the grant.
fn said(d: &Decision) -> (Option<Refusal>, Option<Refusal>) {
    let agent = match &d.standing {
        Standing::Refused(r) => Some(r.clone()),
        Standing::Allowed => None,
        other => panic!("{other:?}"),
    };
    (agent, d.grants[0].refusal.clone())
}

fn held(d: &Decision) -> Option<String> {
    let held = d.grants[0].held.as_ref()?;
    Some(held.roles.iter().chain(&held.scopes).map(|n| &**n).collect::<Vec<_>>().join(" "))
}

#[test]
fn every_rule_about_agents_says_which_policy_what_and_how_to_mend() {
    let rows: &[(&str, Reason, &[&str])] = &[
        ("suspend: true", Reason::Suspended, &["spec.suspend is true", "set it to false"]),
        (
            "require: [Sponsor]",
            Reason::RequirementMissing,
            &["spec.require: Sponsor", "set its spec.sponsors"],
        ),
        (
            "require: [BoundObject]",
            Reason::RequirementMissing,
            &["spec.require: BoundObject", "with spec.boundObjectRef"],
        ),
        ("require: [Blueprint]", Reason::RequirementMissing, &["spec.require: Blueprint", "spec.blueprint"]),
        (
            "require: [Expiry]",
            Reason::RequirementMissing,
            &["spec.require: Expiry", "set its spec.expiresAt"],
        ),
        (
            "limits: {agentLifetime: 30m}",
            Reason::Expired,
            &["spec.limits.agentLifetime", "the 30m of an agent", "create the agent anew"],
        ),
    ];
    for (spec, reason, words) in rows {
        let mut c = with(&[&policy(spec)]);
        c.advance(1800);
        c.settle();
        let d = c.decide("ns", "a");
        let refusal = said(&d).0.unwrap_or_else(|| panic!("{spec} refuses nothing"));
        assert_eq!(refusal.reason, *reason, "{spec}");
        for word in words.iter().chain(&["AgentPolicy p: "]) {
            assert!(refusal.message.contains(word), "{:?} lacks {word:?}", refusal.message);
        }
        let objection = Objection { policy: "p".into(), grant: None, refusal };
        assert_eq!((&d.denied, &d.audited), (&vec![objection], &vec![]), "{spec}");
        assert_eq!(c.files("ns", "a-agentid").unwrap_or_default(), [""; 0], "{spec}");

        // In Audit it only says so.
        c.apply(&policy(&format!("enforcement: Audit, {spec}")));
        c.settle();
        let d = c.decide("ns", "a");
        assert_eq!((&d.standing, d.denied.len(), d.audited.len()), (&Standing::Allowed, 0, 1), "{spec}");
        assert_eq!(c.files("ns", "a-agentid").unwrap(), ["identity.jwt", "res.jwt"], "{spec}");
        let conditions = c.agents[&Key::new("ns", "a")].status.clone().unwrap().conditions;
        let said = conditions.iter().find(|x| x.type_ == "PolicyCompliant").unwrap();
        assert_eq!((&*said.status, &*said.reason), ("False", "PolicyDenied"));
        for word in words.iter().chain(&["only audited", "AgentPolicy p", reason.as_str()]) {
            assert!(said.message.contains(word), "{:?} lacks {word:?}", said.message);
        }
        c.delete(&Source::Policies, &Key::new("", "p"));
        c.settle();
        let conditions = c.agents[&Key::new("ns", "a")].status.clone().unwrap().conditions;
        assert_eq!(conditions.iter().map(|x| &*x.type_).collect::<Vec<_>>(), ["Ready", "GrantsHeld"]);
    }
}

#[test]
fn what_is_required_and_there_is_enough() {
    let all = policy("require: [Sponsor, BoundObject, Expiry], limits: {agentLifetime: 30m}");
    let mut c = with(&[&all]);
    c.bound("v1/Pod", &Key::new("ns", "p"), false, true);
    c.apply(
        "{kind: AgentIdentity, metadata: {name: b, namespace: ns}, spec: {sponsors: [{kind: User, name: ann}], \
         boundObjectRef: {apiVersion: v1, kind: Pod, name: p}, expiresAt: 2030-01-01T00:00:00Z}}",
    );
    c.settle();
    let d = c.decide("ns", "b");
    assert_eq!(d.standing, Standing::Allowed);
    // Its time ends by the policy, and its tokens with it.
    let end = c.now + jiff::SignedDuration::from_secs(1800);
    assert_eq!((d.not_after, d.until), (Some(end), Some(end)));
    assert!(c.secrets[&Key::new("ns", "b-agentid")].tokens.iter().all(|t| t.exp == end));
}

#[test]
fn every_rule_about_grants_says_which_policy_what_and_how_to_mend() {
    let asked = "application: {roles: [reader, writer], scopes: [x.read]}";
    type Row = (&'static str, Option<&'static str>, Option<Reason>, &'static [&'static str]);
    let rows: &[Row] = &[
        (
            "deny: [{roles: [writer]}]",
            Some("reader x.read"),
            Some(Reason::PolicyDenied),
            &["spec.deny[0]: role \"writer\" of AgentResource res is denied", "remove it from the grant"],
        ),
        (
            "deny: [{scopes: [z]}, {roles: [\"?riter\"], scopes: [\"x.*\"], reason: Not for machines}]",
            Some("reader"),
            Some(Reason::PolicyDenied),
            &["spec.deny[1]: role \"writer\"", "(Not for machines)"],
        ),
        ("deny: [{roles: [\"*\"], resources: [other]}]", Some("reader writer x.read"), None, &[]),
        ("deny: [{roles: [\"*\"], modes: [Delegation]}]", Some("reader writer x.read"), None, &[]),
        ("deny: [{roles: [\"*\"]}, {scopes: [\"*\"]}]", None, Some(Reason::PolicyDenied), &["spec.deny[0]"]),
        (
            "deny: [{resources: [\"r*\"]}]",
            None,
            Some(Reason::PolicyDenied),
            &["spec.deny[0]: Application grants on AgentResource res are denied", "delete the grant"],
        ),
        ("deny: [{modes: [Application]}]", None, Some(Reason::PolicyDenied), &["delete the grant"]),
        ("deny: [{modes: [Application], resources: [other]}]", Some("reader writer x.read"), None, &[]),
        (
            "match: {resources: [res]}, suspend: true",
            None,
            Some(Reason::Suspended),
            &["spec.suspend is true for every grant on AgentResource res", "set it to false"],
        ),
        ("match: {resources: [other]}, suspend: true", Some("reader writer x.read"), None, &[]),
        ("match: {resources: [other]}, deny: [{roles: [\"*\"]}]", Some("reader writer x.read"), None, &[]),
        (
            "limits: {grantLifetime: 30m}",
            None,
            Some(Reason::Expired),
            &["spec.limits.grantLifetime", "the 30m of a grant", "create the grant anew"],
        ),
        (
            "limits: {tokenLifetime: 5m}",
            Some("reader writer x.read"),
            Some(Reason::LifetimeTooShort),
            &["spec.limits.tokenLifetime", "300s", "600s", "leave secretKey out"],
        ),
        ("limits: {tokenLifetime: 20m}", Some("reader writer x.read"), None, &[]),
        (
            "match: {agentSelector: {matchLabels: {a: b}}}, suspend: true",
            Some("reader writer x.read"),
            None,
            &[],
        ),
        (
            "match: {namespaceSelector: {matchLabels: {team: b}}}, suspend: true",
            Some("reader writer x.read"),
            None,
            &[],
        ),
        ("match: {blueprints: [\"*\"]}, suspend: true", Some("reader writer x.read"), None, &[]),
    ];
    for (spec, wanted, reason, words) in rows {
        let mut c =
            with(&[&GRANT.replace("application: {roles: [reader], scopes: [x.read]}", asked), &policy(spec)]);
        c.advance(1800);
        c.settle();
        let d = c.decide("ns", "a");
        let (agent, grant) = said(&d);
        assert_eq!((agent, held(&d).as_deref()), (None, *wanted), "{spec}");
        assert_eq!(grant.as_ref().map(|r| r.reason), *reason, "{spec}");
        let message = grant.clone().map(|r| r.message).unwrap_or_default();
        for word in words.iter().chain(reason.iter().map(|_| &"AgentPolicy p: ")) {
            assert!(message.contains(word), "{message:?} lacks {word:?}");
        }
        let objections: Vec<_> = grant
            .map(|refusal| Objection { policy: "p".into(), grant: Some("g".into()), refusal })
            .into_iter()
            .collect();
        assert_eq!((&d.denied, d.audited.len()), (&objections, 0), "{spec}");
        let in_file = wanted.is_some() && *reason != Some(Reason::LifetimeTooShort);
        assert_eq!(c.files("ns", "a-agentid").unwrap().contains(&"res.jwt"), in_file, "{spec}");

        c.apply(&policy(&format!("enforcement: Audit, {spec}")));
        c.settle();
        let d = c.decide("ns", "a");
        assert_eq!((said(&d), held(&d).as_deref()), ((None, None), Some("reader writer x.read")), "{spec}");
        assert_eq!((&d.audited, d.denied.len()), (&objections, 0), "{spec}");
        let grant = c.world.grant(&Key::new("ns", "g")).unwrap();
        let status = crate::domain::status::grant_status(&c.world, grant, c.now).unwrap().status;
        let said = status.conditions.iter().find(|x| x.type_ == "PolicyCompliant");
        assert_eq!(said.is_some(), reason.is_some(), "{spec}");
        assert!(said.is_none_or(|s| s.message.contains(&message) && s.message.contains("from 1 agents")));
    }
}

#[test]
fn limits_are_the_shortest() {
    let c = with(&[&policy("limits: {tokenLifetime: 15m, grantLifetime: 40m}")]);
    let d = c.decide("ns", "a");
    let g = d.grants[0].held.as_ref().unwrap();
    let end = c.now + jiff::SignedDuration::from_secs(2400);
    assert_eq!(
        (d.lifetime, g.lifetime, g.not_after, d.not_after, d.until),
        (900, 900, Some(end), None, Some(end))
    );
    // The identity token is always in the Secret: the minimum is the least that it lives.
    assert_eq!(with(&[&policy("limits: {tokenLifetime: 1m}")]).decide("ns", "a").lifetime, 600);
    // Of one resource alone.
    let c = with(&[&policy("match: {resources: [res]}, limits: {tokenLifetime: 15m}")]);
    let d = c.decide("ns", "a");
    assert_eq!((d.lifetime, d.grants[0].held.as_ref().unwrap().lifetime), (3600, 900));
}

#[test]
fn an_ended_grant_frees_its_file() {
    let mut c = with(&[&policy("limits: {grantLifetime: 40m}")]);
    c.advance(1200);
    c.apply(&GRANT.replace("name: g,", "name: g2,"));
    c.settle();
    assert_eq!(c.decide("ns", "a").grants[1].refusal.as_ref().unwrap().reason, Reason::Conflict);
    c.advance(1200);
    c.settle();
    let d = c.decide("ns", "a");
    assert_eq!(d.grants[0].refusal.as_ref().unwrap().reason, Reason::Expired);
    assert_eq!(d.grants[1].refusal, None);
    assert_eq!(c.files("ns", "a-agentid").unwrap(), ["identity.jwt", "res.jwt"]);
}

#[test]
fn the_oldest_names_itself_and_each_that_takes_is_counted() {
    let mut c = with(&[&policy("deny: [{roles: [reader]}]")]);
    c.advance(5);
    let younger = |spec: &str| policy(spec).replace("name: p", "name: o");
    c.apply(&younger("deny: [{roles: [reader]}, {scopes: [x.read]}]"));
    c.settle();
    let d = c.decide("ns", "a");
    assert_eq!(d.grants[0].state(), GrantState::Refused);
    assert_eq!(d.denied.iter().map(|o| &*o.policy).collect::<Vec<_>>(), ["p", "o"]);
    c.apply(&younger("suspend: true"));
    c.apply(&policy("suspend: true"));
    c.settle();
    let refusal = said(&c.decide("ns", "a")).0.unwrap();
    assert!(refusal.message.starts_with("AgentPolicy p: "), "{}", refusal.message);
    let status = |name: &str| {
        let p = c.world.policy(&name.into()).unwrap();
        let s = crate::domain::status::policy_status(&c.world, p, c.now).unwrap().status;
        (s.matched, s.refused, s.refused_grants)
    };
    assert_eq!(status("p"), (Some(1), Some(1), Some(0)));
    assert_eq!(status("o"), (Some(1), Some(0), Some(0)), "the older has refused the agent already");
}

#[test]
fn what_cannot_be_understood_leaves_the_last_reading() {
    let mut c = with(&[]);
    c.apply(&policy("suspend: true, limits: {agentLifetime: soon}"));
    c.deliver();
    assert_eq!(c.decide("ns", "a").standing, Standing::Allowed, "it was never read");
    let status = |c: &Cluster| {
        let p = c.world.policy(&"p".into()).unwrap();
        crate::domain::status::policy_status(&c.world, p, c.now).unwrap().status.conditions[0].clone()
    };
    assert_eq!((&*status(&c).status, &*status(&c).reason), ("False", "Invalid"));
    assert!(status(&c).message.contains("spec.limits.agentLifetime: \"soon\" is not a duration"));
    c.apply(&policy("suspend: true"));
    c.settle();
    assert_eq!(status(&c).status, "True");
    c.apply(&policy("match: {resources: [x]}, require: [Sponsor]"));
    c.deliver();
    assert_eq!(said(&c.decide("ns", "a")).0.unwrap().reason, Reason::Suspended);
    assert_eq!(&*status(&c).reason, "Invalid");
    c.relist(&Source::Policies);
    assert_eq!(said(&c.decide("ns", "a")).0.unwrap().reason, Reason::Suspended);
}

#[test]
fn a_decision_looks_at_the_policies_of_its_namespace_alone() {
    let mut c = Cluster::example();
    c.namespace("other", &[("team", "b")]);
    c.apply("{kind: AgentIdentity, metadata: {name: a, namespace: other}, spec: {}}");
    let globs: Vec<_> = (0..64).map(|i| format!("\"*{i}*x*y*z\"")).collect();
    let deny = format!("deny: [{{roles: [{}]}}]", globs.join(", "));
    for i in 0..500 {
        let whom = format!("match: {{namespaceSelector: {{matchLabels: {{tier: \"{}\"}}}}}}", i % 50);
        c.apply(&policy(&format!("{whom}, {deny}")).replace("name: p", &format!("name: p{i}")));
    }
    c.settle();
    let of = |c: &Cluster, ns: &str| c.world.policies_of(c.world.agent(&Key::new(ns, "a")).unwrap()).len();
    assert_eq!((of(&c, "ns"), of(&c, "other")), (0, 0));
    c.namespace("ns", &[("team", "a"), ("tier", "7")]);
    c.settle();
    assert_eq!((of(&c, "ns"), of(&c, "other"), c.world.matched(&"p7".into())), (10, 0, 1));
    // A change of one touches the agents that it speaks of, in the paced lane where nothing is withdrawn.
    let _ = c.world.take_dirty();
    let whom = |tier: u8| format!("match: {{namespaceSelector: {{matchLabels: {{tier: \"{tier}\"}}}}}}");
    let change = |c: &mut Cluster, name: &str, spec: &str| {
        c.apply(&policy(spec).replace("name: p", &format!("name: {name}")));
        c.deliver();
        let mut dirty = c.world.take_dirty();
        dirty.sort();
        dirty.dedup();
        dirty
    };
    let a = |lane| vec![(Work::Agent(Key::new("ns", "a")), lane)];
    assert_eq!(
        change(&mut c, "p3", "suspend: true, match: {namespaceSelector: {matchLabels: {tier: \"3\"}}}"),
        []
    );
    assert_eq!(change(&mut c, "p7", &format!("{}, suspend: true", whom(7))), a(Lane::Urgent));
    assert_eq!(change(&mut c, "p7", &format!("{}, suspend: true", whom(7))), [], "nothing has changed");
    assert_eq!(change(&mut c, "p7", &format!("{}, limits: {{grantLifetime: 1h}}", whom(7))), a(Lane::Urgent));
    assert_eq!(change(&mut c, "p7", &format!("{}, limits: {{grantLifetime: 2h}}", whom(7))), a(Lane::Paced));
    assert_eq!(change(&mut c, "p7", &format!("{}, limits: {{grantLifetime: 2h}}", whom(8))), a(Lane::Paced));
    assert_eq!(change(&mut c, "p7", &format!("{}, limits: {{grantLifetime: 3h}}", whom(8))), []);
    assert_ne!(Digest::default(), c.secrets[&Key::new("ns", "a-agentid")].seen.plan);
}

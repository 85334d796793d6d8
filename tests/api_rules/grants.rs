//! What the API server accepts and refuses of AgentGrants.

use super::{grant, grant_with};
use crate::common::{ControlPlane, Namespace};

#[tokio::test(flavor = "multi_thread")]
async fn grants_that_are_accepted() {
    let ns = Namespace::new(ControlPlane::shared(), "grants-ok").await;
    for more in [
        "secretKey: tickets.jwt",
        "secretKey: T-1_x.y.jwt",
        "secretKey: a.jwt",
        "notBefore: \"2026-01-01T00:00:00Z\", expiresAt: \"2026-01-01T00:00:01Z\"",
        // The same wall clock, an hour later.
        "notBefore: \"2026-01-01T00:00:00+01:00\", expiresAt: \"2026-01-01T00:00:00Z\"",
        "expiresAt: \"2026-01-01T00:00:00.123456789Z\"",
        "secretKey: null, notBefore: null, expiresAt: null",
    ] {
        ns.expect_accepted(&grant_with(more)).await;
    }
    for spec in [
        "agents: {selector: {}}, resource: r, application: {}",
        "agents: {selector: {matchLabels: {team: a}}}, resource: r.s, application: {roles: [a], scopes: [a, b]}",
        "agents: {names: [a, b]}, resource: r, application: {roles: [], scopes: []}",
        "agents: {names: [a]}, resource: r, agentUser: {}",
        "agents: {selector: {}}, resource: r, agentUser: {scopes: [mail.read]}, secretKey: mail.jwt",
    ] {
        ns.expect_accepted(&grant(spec)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_that_are_refused() {
    let ns = Namespace::new(ControlPlane::shared(), "grants-bad").await;
    let key = &["spec.secretKey", "ends in .jwt", "such as tickets.jwt"][..];
    let order = &["spec.expiresAt", "must be after notBefore"][..];
    for (more, wanted) in [
        ("secretKey: ../x", key),
        ("secretKey: ../x.jwt", key),
        ("secretKey: x", key),
        ("secretKey: .jwt", key),
        ("secretKey: a..jwt", key),
        ("secretKey: ..a.jwt", key),
        ("secretKey: a/b.jwt", key),
        ("secretKey: agent.json", key),
        ("secretKey: \"a b.jwt\"", key),
        ("secretKey: tickets.JWT", key),
        ("secretKey: identity.jwt", &["spec.secretKey", "identity.jwt", "choose another name"]),
        ("notBefore: \"2026-01-02T00:00:00Z\", expiresAt: \"2026-01-01T00:00:00Z\"", order),
        ("notBefore: \"2026-01-01T00:00:00Z\", expiresAt: \"2026-01-01T00:00:00Z\"", order),
        // Later on the wall clock, but earlier.
        ("notBefore: \"2026-01-01T00:00:00Z\", expiresAt: \"2026-01-01T00:30:00+01:00\"", order),
        ("notBefore: never", &["spec.notBefore", "date-time"]),
        ("notBefore: \"0001-01-01T00:00:00Z\"", &["spec.notBefore", "from the year 2000"]),
        (
            "delegation: {issuer: https://idp.example.com}",
            &["spec", "exactly one form must be set", "delegation"],
        ),
        ("agentUser: {}", &["spec", "exactly one form must be set", "agentUser: {scopes: [mail.read]}"]),
    ] {
        ns.expect_rejected(&grant_with(more), wanted).await;
    }
    let long = format!("secretKey: {}.jwt", "x".repeat(250));
    ns.expect_rejected(&grant_with(&long), &["spec.secretKey", "may not be more than 253"]).await;

    let names: Vec<_> = (0..129).map(|i| format!("a{i}")).collect();
    let many: Vec<_> = (0..10_000).map(|i| format!("role-{i}")).collect();
    let select = |agents: &str| format!("agents: {{{agents}}}, resource: r, application: {{}}");
    let rights = |rights: &str| format!("agents: {{names: [a]}}, resource: r, application: {{{rights}}}");
    let delegate = |form: &str| format!("agents: {{names: [a]}}, resource: r, delegation: {{{form}}}");
    let one = &["spec.agents", "exactly one of names and selector"][..];
    let token = &["spec.application.roles[0]", "printable ASCII without space", "such as tickets.read"];
    for (spec, wanted) in [
        (
            "agents: {names: [a]}, resource: r".to_owned(),
            &["spec", "exactly one form must be set", "application"][..],
        ),
        (delegate("issuer: http://idp.example.com"), &["spec.delegation.issuer", "https URL"]),
        (delegate("issuer: https://a@idp.example.com"), &["spec.delegation.issuer", "https URL"]),
        (delegate("scopes: [a]"), &["spec.delegation.issuer", "Required"]),
        (
            delegate("issuer: https://idp.example.com, subjects: []"),
            &["spec.delegation.subjects", "at least 1"],
        ),
        (
            delegate("issuer: https://idp.example.com, scopes: [\"a b\"]"),
            &["spec.delegation.scopes[0]", "tickets.read"],
        ),
        (
            delegate("issuer: https://idp.example.com, roles: [a]"),
            &["unknown field \"spec.delegation.roles\""],
        ),
        (
            format!("{}, secretKey: x.jwt", delegate("issuer: https://idp.example.com")),
            &["spec.secretKey", "got on demand"],
        ),
        (
            "agents: {names: [a]}, resource: r, agentUser: {roles: [a]}".to_owned(),
            &["unknown field \"spec.agentUser.roles\""],
        ),
        (
            "agents: {names: [a]}, resource: r, agentUser: {scopes: [\"a b\"]}".to_owned(),
            &["spec.agentUser.scopes[0]", "tickets.read"],
        ),
        (
            "agents: {names: [a]}, resource: r, agentUser: {}, delegation: {issuer: https://idp.example.com}"
                .to_owned(),
            &["spec", "exactly one form must be set"],
        ),
        (select(""), one),
        (select("names: [a], selector: {}"), one),
        (select("names: []"), &["spec.agents.names", "at least 1"]),
        (select("names: [a, a]"), &["spec.agents.names[1]", "Duplicate value"]),
        (select("names: [Triage]"), &["spec.agents.names[0]", "Triage", "lower-case letters"]),
        (
            select(&format!("names: [{}]", "a".repeat(64))),
            &["spec.agents.names[0]", "may not be more than 63"],
        ),
        (select(&format!("names: [{}]", names.join(", "))), &["spec.agents.names", "at most 128 items"]),
        (rights(&format!("roles: [{}]", many.join(", "))), &["spec.application.roles", "at most 128 items"]),
        (rights("roles: [\"a\\u0007\"]"), token),
        (rights("roles: [\"a b\"]"), token),
        (rights("scopes: [x, x]"), &["spec.application.scopes[1]", "Duplicate value"]),
        (rights("role: [x]"), &["unknown field \"spec.application.role\""]),
        (
            "agents: {names: [a]}, resource: ../r, application: {}".to_owned(),
            &["spec.resource", "../r", "lower-case letters"],
        ),
        ("agents: {names: [a]}, application: {}".to_owned(), &["spec.resource", "Required"]),
        ("resource: r, application: {}".to_owned(), &["spec.agents", "Required"]),
    ] {
        ns.expect_rejected(&grant(&spec), wanted).await;
    }
}

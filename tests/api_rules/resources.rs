//! What the API server accepts and refuses of AgentResources.

use super::{ACCESS, IDENTITY, offering, resource};
use crate::common::{ControlPlane, Namespace};

#[tokio::test(flavor = "multi_thread")]
async fn resources_that_are_accepted() {
    let ns = Namespace::new(ControlPlane::shared(), "resources-ok").await;
    let roles: Vec<_> = (0..128).map(|i| format!("{{name: role-{i}}}")).collect();
    for (audience, more) in [
        ("https://tickets.example.com", ""),
        ("https://h:8443/p", ACCESS),
        ("https://h/p?q=1", "roles: [{name: a}]"),
        ("https://[2001:db8::1]:8443/p", "scopes: [{name: a:b/c}]"),
        ("api://x", "roles: [{name: a}]"),
        ("urn:example:tickets", "roles: [{name: a}]"),
        ("spiffe://example.org/tickets", ""),
        ("sts.amazonaws.com", IDENTITY),
        ("vault", "tokenProfile: Identity, subject: Name, signingAlgorithm: RS256"),
        ("https://k", "kubernetes: {}"),
        ("https://k", "kubernetes: {}, tokenProfile: Identity, subject: Id"),
        ("https://k", "kubernetes: {}, roles: [{name: view}, {name: \"ns:pod-reader\"}]"),
        (
            "kubernetes",
            "kubernetes: {}, roles: [{name: view}], allow: [{namespaceSelector: {}, modes: [Application]}]",
        ),
        ("https://vault.example.com", "tokenProfile: Identity, subject: Id, roles: []"),
    ] {
        ns.expect_accepted(&resource(audience, more)).await;
    }
    for more in [
        "maxTokenLifetime: 1m",
        "maxTokenLifetime: 24h",
        "signingAlgorithm: RS256",
        "tokenProfile: null, subject: null, signingAlgorithm: null",
        "allow: [{namespaceSelector: {}}]",
        "allow: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: a}}, roles: [], modes: [Application]}]",
        "allow: [{namespaceSelector: {matchExpressions: [{key: team, operator: In, values: [a, \"\"]}, {key: x, operator: Exists}]}}]",
        &format!("roles: [{}]", roles.join(", ")),
    ] {
        ns.expect_accepted(&offering(more)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn resources_that_are_refused() {
    let ns = Namespace::new(ControlPlane::shared(), "resources-bad").await;
    let uri = &["spec.audience", "absolute URI", "such as https://tickets.example.com"][..];
    let fragment = &["spec.audience", "fragment", "such as https://tickets.example.com"][..];
    for (audience, more, wanted) in [
        ("tickets", "roles: [{name: a}]", uri),
        ("sts.amazonaws.com", "", uri),
        ("tickets.example.com/x", "scopes: [{name: a}]", uri),
        ("https:tickets", "", uri),
        ("https://", "", uri),
        ("https:///x", "", uri),
        ("https://:443/x", "", uri),
        ("https://u:p@h/x", "", uri),
        ("HTTPS://a.b", "", uri),
        ("urn:x", "", uri),
        ("https://h#f", "roles: [{name: a}]", fragment),
        ("https://h/p#f", "", fragment),
        ("vault#f", IDENTITY, fragment),
        ("https://h/ p", "", fragment),
        ("https://h/p\u{e9}", "", fragment),
        ("https://h/\n", "", fragment),
        ("", "", fragment),
        ("vault", "tokenProfile: Identity, roles: [{name: a}]", &["spec.roles", "tokenProfile: Access"]),
        ("vault", "tokenProfile: Identity, scopes: [{name: a}]", &["spec.scopes", "tokenProfile: Access"]),
        ("https://h", "subject: Name", &["spec.subject", "tokenProfile: Identity"]),
        ("https://h", "tokenProfile: Both", &["spec.tokenProfile", "Both", "\"Access\", \"Identity\""]),
        ("https://h", "signingAlgorithm: none", &["spec.signingAlgorithm", "\"ES256\", \"RS256\""]),
        ("https://h", "signingAlgorithm: HS256", &["spec.signingAlgorithm", "\"ES256\", \"RS256\""]),
        ("https://k", "kubernetes: {x: 1}", &["unknown field \"spec.kubernetes.x\""]),
        (
            "https://k",
            "kubernetes: {}, tokenProfile: Access",
            &["spec.tokenProfile", "kubernetes implies tokenProfile: Identity", "leave tokenProfile out"],
        ),
        ("https://k", "kubernetes: {}, subject: Name", &["spec.subject", "kubernetes implies subject: Id"]),
        ("https://k", "kubernetes: {}, scopes: [{name: a}]", &["spec.scopes", "offer ClusterRoles as roles"]),
        (
            "https://k",
            "kubernetes: {}, agent: {namespace: a, name: b}",
            &["spec.agent", "tokenProfile: Access"],
        ),
        (
            "https://k",
            "kubernetes: {}, allow: [{namespaceSelector: {}, modes: [Application, Delegation]}]",
            &["spec.allow", "Application alone"],
        ),
        (
            "https://k",
            "kubernetes: {}, allow: [{namespaceSelector: {}, scopes: [a]}]",
            &["spec.allow", "kubernetes has no scopes"],
        ),
        (
            "https://h",
            "introspectors: [{namespace: a}]",
            &["spec.introspectors[0].serviceAccountName", "Required"],
        ),
        (
            "https://h",
            "introspectors: [{namespace: A, serviceAccountName: b}]",
            &["spec.introspectors[0].namespace", "lower-case letters"],
        ),
        ("https://h", "agent: {namespace: a}", &["spec.agent.name", "Required"]),
        (
            "vault",
            "tokenProfile: Identity, agent: {namespace: a, name: b}",
            &["spec.agent", "tokenProfile: Access"],
        ),
    ] {
        ns.expect_rejected(&resource(audience, more), wanted).await;
    }
    let long = format!("https://h/{}", "x".repeat(512));
    ns.expect_rejected(&resource(&long, ""), &["spec.audience", "may not be more than 512"]).await;

    let many: Vec<_> = (0..10_000).map(|i| format!("{{name: role-{i}}}")).collect();
    let token = &["printable ASCII without space", "such as tickets.read"];
    let allow = |entry: &str| format!("allow: [{{namespaceSelector: {{}}, {entry}}}]");
    let selector = |s: &str| format!("allow: [{{namespaceSelector: {{{s}}}}}]");
    for (more, field, wanted) in [
        (format!("roles: [{}]", many.join(", ")), "spec.roles", &["10000", "at most 128 items"][..]),
        ("roles: [{name: \"a\\tb\"}]".to_owned(), "spec.roles[0].name", token),
        ("roles: [{name: \"a\\u0000b\"}]".to_owned(), "spec.roles[0].name", token),
        ("roles: [{name: ok}, {name: \"a\\nb\"}]".to_owned(), "spec.roles[1].name", token),
        ("scopes: [{name: a b}]".to_owned(), "spec.scopes[0].name", token),
        ("scopes: [{name: \"a\\\"b\"}]".to_owned(), "spec.scopes[0].name", token),
        ("scopes: [{name: \"a\\\\b\"}]".to_owned(), "spec.scopes[0].name", token),
        ("scopes: [{name: \u{fc}ber}]".to_owned(), "spec.scopes[0].name", token),
        ("roles: [{name: \"\"}]".to_owned(), "spec.roles[0].name", token),
        (
            format!("roles: [{{name: {}}}]", "x".repeat(129)),
            "spec.roles[0].name",
            &["may not be more than 128"],
        ),
        ("roles: [{name: a}, {name: a}]".to_owned(), "spec.roles[1]", &["Duplicate value"]),
        (allow("roles: [\"a\\tb\"]"), "spec.allow[0].roles[0]", token),
        (
            allow("modes: [User]"),
            "spec.allow[0].modes[0]",
            &["\"Application\", \"Delegation\", \"AgentUser\""],
        ),
        (allow("modes: []"), "spec.allow[0].modes", &["at least 1"]),
        ("allow: [{roles: [a]}]".to_owned(), "spec.allow[0].namespaceSelector", &["Required"]),
        (selector("matchLabel: {a: b}"), "spec.allow[0].namespaceSelector.matchLabel", &["unknown field"]),
        (
            selector("matchLabels: {\"a b\": c}"),
            "namespaceSelector.matchLabels",
            &["labels' keys", "such as"],
        ),
        (selector("matchLabels: {a: \"b c\"}"), "namespaceSelector.matchLabels.a", &["b c"]),
        (
            selector(&format!("matchLabels: {{{}: c}}", "k".repeat(400))),
            "namespaceSelector.matchLabels",
            &["labels' keys"],
        ),
        (
            selector("matchExpressions: [{key: a, operator: In}]"),
            "matchExpressions[0].values",
            &["must be set with operator In"],
        ),
        (
            selector("matchExpressions: [{key: a, operator: Exists, values: [b]}]"),
            "matchExpressions[0].values",
            &["left out with Exists"],
        ),
        (
            selector("matchExpressions: [{key: a, operator: Near}]"),
            "matchExpressions[0].operator",
            &["\"In\""],
        ),
        ("maxTokenLifetime: 0s".to_owned(), "spec.maxTokenLifetime", &["from 1m to 24h"]),
        ("maxTokenLifetime: 59s".to_owned(), "spec.maxTokenLifetime", &["from 1m to 24h"]),
        ("maxTokenLifetime: -5m".to_owned(), "spec.maxTokenLifetime", &["from 1m to 24h"]),
        ("maxTokenLifetime: 876000h".to_owned(), "spec.maxTokenLifetime", &["from 1m to 24h"]),
        ("maxTokenLifetime: 24h1s".to_owned(), "spec.maxTokenLifetime", &["from 1m to 24h"]),
    ] {
        let wanted: Vec<_> = [field].into_iter().chain(wanted.iter().copied()).collect();
        ns.expect_rejected(&offering(&more), &wanted).await;
    }
}

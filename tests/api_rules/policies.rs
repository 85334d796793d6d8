//! What the API server accepts and refuses of AgentPolicies.

use crate::common::{ControlPlane, Namespace};

/// An AgentPolicy with this spec. It is never created for good: it would speak of every test's agents.
fn policy(spec: &str) -> String {
    format!(
        "{{apiVersion: agentid.dev/v1alpha1, kind: AgentPolicy, metadata: {{name: $NS}}, spec: {{{spec}}}}}"
    )
}

fn many(n: usize, item: &str) -> String {
    (0..n).map(|i| item.replace('#', &i.to_string())).collect::<Vec<_>>().join(", ")
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_that_are_accepted() {
    let ns = Namespace::new(ControlPlane::shared(), "policies-ok").await;
    for spec in [
        "suspend: true",
        "suspend: false",
        "suspend: true, match: {resources: [\"pay*\"]}",
        "enforcement: Audit, require: [Sponsor, BoundObject, Blueprint, Expiry]",
        "enforcement: Enforce, match: {namespaceSelector: {}, agentSelector: {matchLabels: {tier: \"1\"}}, \
         blueprints: [\"*\"]}, require: [Sponsor]",
        "limits: {tokenLifetime: 1m, agentLifetime: 87600h, grantLifetime: 720h}",
        "match: {resources: [tickets]}, limits: {tokenLifetime: 24h, grantLifetime: 1m}",
        "deny: [{resources: [\"*\"]}]",
        "deny: [{modes: [Delegation]}]",
        "deny: [{roles: [\"*.admin\", \"a?b[c]\\\\\"], scopes: [\"https://x/*\"], modes: [Application, Delegation], \
         reason: \"Admins are people\"}]",
        &format!("deny: [{}]", many(64, "{roles: [r#]}")),
        &format!("deny: [{{roles: [{}], scopes: [{}]}}]", many(64, "r#*"), many(64, "s#*")),
        &format!("deny: [{{roles: [\"{}\"]}}]", "*a".repeat(126)),
        // Rendered by a template without a value: as if left out.
        "suspend: true, match: null, require: null, limits: null, deny: null, enforcement: null",
    ] {
        ns.expect_accepted(&policy(spec)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_that_are_refused() {
    let ns = Namespace::new(ControlPlane::shared(), "policies-bad").await;
    let glob = "a glob of printable ASCII";
    for (spec, wanted) in [
        (String::new(), &["the policy says nothing", "suspend, require, limits and deny"][..]),
        ("enforcement: Audit, match: {}".to_owned(), &["the policy says nothing"]),
        (
            "enforcement: Warn, suspend: true".to_owned(),
            &["spec.enforcement", "Warn", "\"Enforce\", \"Audit\""],
        ),
        (
            "match: {resources: [a]}, require: [Sponsor]".to_owned(),
            &["spec.require", "match.resources", "write two policies"],
        ),
        (
            "match: {resources: [a]}, limits: {agentLifetime: 1h}".to_owned(),
            &["spec.limits", "agentLifetime", "write two policies"],
        ),
        ("suspend: true, match: {resources: []}".to_owned(), &["spec.match.resources", "at least 1 item"]),
        ("suspend: true, match: {resources: [\"\"]}".to_owned(), &["spec.match.resources[0]", glob]),
        ("suspend: true, match: {blueprints: [\"a b\"]}".to_owned(), &["spec.match.blueprints[0]", glob]),
        (
            format!("suspend: true, match: {{resources: [{}]}}", many(65, "r#")),
            &["spec.match.resources", "at most 64 items"],
        ),
        ("suspend: true, match: {names: [a]}".to_owned(), &["unknown field \"spec.match.names\""]),
        ("require: [Owner]".to_owned(), &["spec.require[0]", "Owner", "\"Sponsor\", \"BoundObject\""]),
        ("require: [Sponsor, Sponsor]".to_owned(), &["spec.require[1]", "Duplicate value"]),
        ("limits: {tokenLifetime: 59s}".to_owned(), &["spec.limits.tokenLifetime", "from 1m to 24h"]),
        ("limits: {tokenLifetime: 25h}".to_owned(), &["spec.limits.tokenLifetime", "from 1m to 24h"]),
        ("limits: {agentLifetime: 30d}".to_owned(), &["spec.limits.agentLifetime", "such as 1h30m"]),
        ("limits: {grantLifetime: 0s}".to_owned(), &["spec.limits.grantLifetime", "from 1m to 87600h"]),
        ("deny: [{}]".to_owned(), &["spec.deny[0]", "denies nothing", "resources: ['*']"]),
        ("deny: [{reason: x}]".to_owned(), &["spec.deny[0]", "denies nothing"]),
        ("deny: [{roles: []}]".to_owned(), &["spec.deny[0].roles", "at least 1 item"]),
        ("deny: [{roles: [\"a\\tb\"]}]".to_owned(), &["spec.deny[0].roles[0]", glob]),
        ("deny: [{scopes: [\"é*\"]}]".to_owned(), &["spec.deny[0].scopes[0]", glob]),
        (
            format!("deny: [{{roles: [{}]}}]", "a".repeat(254)),
            &["spec.deny[0].roles[0]", "may not be more than 253"],
        ),
        (format!("deny: [{}]", many(65, "{roles: [r#]}")), &["spec.deny", "at most 64 items"]),
        (format!("deny: [{{roles: [{}]}}]", many(65, "r#")), &["spec.deny[0].roles", "at most 64 items"]),
        (
            format!("deny: [{{resources: [{}]}}]", many(500, "r#")),
            &["spec.deny[0].resources", "at most 64 items"],
        ),
        ("deny: [{modes: [Root]}]".to_owned(), &["spec.deny[0].modes[0]", "Root", "\"Application\""]),
        ("deny: [{roles: [a], reason: \"two\\nlines\"}]".to_owned(), &["spec.deny[0].reason", "one line"]),
    ] {
        ns.expect_rejected(&policy(&spec), wanted).await;
    }
}

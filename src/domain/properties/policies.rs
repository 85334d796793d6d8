//! Policies, as histories create and edit them.

use super::super::testing::Cluster;

/// Creates or edits a policy.
pub(super) fn policy(c: &mut Cluster, name: u8, whom: u8, says: u8, audit: bool) {
    // What speaks of agents does not go with resources.
    let says = [
        "suspend: true",
        "suspend: false",
        "limits: {tokenLifetime: 5m}",
        "limits: {tokenLifetime: 15m, grantLifetime: 20m}",
        "deny: [{roles: [r0]}]",
        "deny: [{resources: [r1], modes: [Application]}]",
        "deny: [{roles: [\"r*\"], resources: [r0]}, {scopes: [\"*1\"]}]",
        "deny: [{resources: [\"*\"]}]",
        "deny: [{resources: [\"*\"], modes: [Delegation]}, {scopes: [\"s?\"], roles: [r1]}]",
        "deny: [{modes: [AgentUser]}]",
        "require: [BoundObject]",
        "require: [Sponsor, Expiry]",
        "limits: {agentLifetime: 30m}",
    ][usize::from(says)];
    let of_agents = says.starts_with("require") || says.contains("agentLifetime");
    let whom = match whom {
        0 => "{}",
        1 => "{namespaceSelector: {matchLabels: {team: a}}}",
        2 => "{agentSelector: {matchLabels: {l: \"true\"}}}",
        3 if !of_agents => "{resources: [r0]}",
        4 if !of_agents => "{resources: [\"r?\"], namespaceSelector: {}}",
        5 => "{blueprints: [\"*\"]}",
        _ => "{namespaceSelector: {}}",
    };
    let enforcement = if audit { "Audit" } else { "Enforce" };
    c.apply(&format!(
        "{{kind: AgentPolicy, metadata: {{name: p{name}}}, spec: {{enforcement: {enforcement}, match: {whom}, {says}}}}}"
    ));
}

//! What the API server accepts and refuses of AgentBlueprints.

use crate::common::{ControlPlane, Namespace};

/// An AgentBlueprint with this spec. It is created for good only where it selects nobody.
fn blueprint(spec: &str) -> String {
    format!(
        "{{apiVersion: agentid.dev/v1alpha1, kind: AgentBlueprint, metadata: {{name: $NS}}, spec: {{{spec}}}}}"
    )
}

fn many(n: usize, item: &str) -> String {
    (0..n).map(|i| item.replace('#', &i.to_string())).collect::<Vec<_>>().join(", ")
}

#[tokio::test(flavor = "multi_thread")]
async fn blueprints_that_are_accepted() {
    let ns = Namespace::new(ControlPlane::shared(), "blueprints-ok").await;
    for spec in [
        "namespaceSelector: {}",
        "namespaceSelector: {matchLabels: {team: a}}, suspend: true, sponsors: [{kind: User, name: ann}]",
        "namespaceSelector: {}, podSelector: {}",
        "namespaceSelector: {}, podSelector: {matchExpressions: [{key: app, operator: In, values: [a, b]}]}, identityPer: \
         Workload",
        "namespaceSelector: {}, podSelector: {matchLabels: {app: bot}}, identityPer: Pod, defaults: {tokenLifetime: 10m, \
         lifetime: 87600h}",
        "namespaceSelector: {}, defaults: {lifetime: 1m}",
        "namespaceSelector: {}, grants: [{name: a, resource: r, application: {}}]",
        "namespaceSelector: {}, grants: [{name: a, resource: r, application: {roles: [x]}, secretKey: a.jwt, notBefore: \
         \"2026-01-01T00:00:00Z\", expiresAt: \"2027-01-01T00:00:00Z\"}, {name: b, resource: r, delegation: {issuer: \
         \"https://idp.example.com\", scopes: [read]}}]",
        &format!(
            "namespaceSelector: {{}}, grants: [{}]",
            many(32, "{name: g#, resource: r, application: {}}")
        ),
        // Rendered by a template without a value: as if left out.
        "namespaceSelector: {}, podSelector: null, identityPer: null, defaults: null, grants: null, suspend: null",
    ] {
        ns.expect_accepted(&blueprint(spec)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blueprints_that_are_refused() {
    let ns = Namespace::new(ControlPlane::shared(), "blueprints-bad").await;
    let granting =
        |grant: &str| format!("namespaceSelector: {{}}, grants: [{{name: a, resource: r, {grant}}}]");
    for (spec, wanted) in [
        (String::new(), &["spec.namespaceSelector", "Required value"][..]),
        (
            "namespaceSelector: {}, identityPer: Pod".to_owned(),
            &["spec.identityPer", "needs podSelector", "set that too"],
        ),
        (
            "namespaceSelector: {}, podSelector: {}, identityPer: Node".to_owned(),
            &["spec.identityPer", "Node", "\"Workload\", \"Pod\""],
        ),
        ("namespaceSelector: {}, pods: {}".to_owned(), &["unknown field \"spec.pods\""]),
        (
            "namespaceSelector: {}, defaults: {tokenLifetime: 5m}".to_owned(),
            &["spec.defaults.tokenLifetime", "from 10m to 24h"],
        ),
        (
            "namespaceSelector: {}, defaults: {lifetime: 30d}".to_owned(),
            &["spec.defaults.lifetime", "such as 1h30m"],
        ),
        (
            "namespaceSelector: {}, sponsors: [{kind: User, name: a}, {kind: User, name: a}]".to_owned(),
            &["spec.sponsors[1]", "Duplicate value"],
        ),
        (granting("secretKey: a.jwt"), &["spec.grants[0]", "exactly one form must be set", "application: {roles:"]),
        (
            granting("application: {}, delegation: {issuer: \"https://idp.example.com\", scopes: [read]}"),
            &["spec.grants[0]", "exactly one form must be set"],
        ),
        (
            granting("delegation: {issuer: \"https://idp.example.com\", scopes: [read]}, secretKey: a.jwt"),
            &["spec.grants[0].secretKey", "got on demand", "leave it out"],
        ),
        (
            granting("application: {}, secretKey: identity.jwt"),
            &["spec.grants[0].secretKey", "choose another name, such as tickets.jwt"],
        ),
        (
            granting("application: {}, notBefore: \"2027-01-01T00:00:00Z\", expiresAt: \"2026-01-01T00:00:00Z\""),
            &["spec.grants[0].expiresAt", "must be after notBefore"],
        ),
        (granting("application: {}, agents: {names: [a]}"), &["unknown field \"spec.grants[0].agents\""]),
        (
            "namespaceSelector: {}, grants: [{name: a, resource: r, application: {}}, {name: a, resource: s, \
             application: {}}]"
                .to_owned(),
            &["spec.grants[1]", "Duplicate value"],
        ),
        (
            format!("namespaceSelector: {{}}, grants: [{}]", many(33, "{name: g#, resource: r, application: {}}")),
            &["spec.grants", "at most 32 items"],
        ),
    ] {
        ns.expect_rejected(&blueprint(&spec), wanted).await;
    }
    let long = blueprint("namespaceSelector: {}").replace("name: $NS", &format!("name: {}", "b".repeat(64)));
    ns.expect_rejected(&long, &["metadata.name", "at most 63 characters", "choose a shorter name"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_pods_agent_is_stays_as_it_was() {
    let ns = Namespace::new(ControlPlane::shared(), "blueprints-change").await;
    let nobody =
        "namespaceSelector: {matchLabels: {agentid.dev/nobody: $NS}}, podSelector: {matchLabels: {app: bot}}";
    ns.apply(&blueprint(&format!("{nobody}, identityPer: Pod"))).await;
    let remedy = &["spec", "identityPer", "immutable"];
    ns.expect_change_rejected(&blueprint(&format!("{nobody}, identityPer: Workload")), remedy).await;
    ns.expect_change_rejected(&blueprint(nobody), remedy).await;
    ns.expect_change_accepted(&blueprint(&format!("{nobody}, identityPer: Pod, suspend: true"))).await;
}

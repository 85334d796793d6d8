//! What the API server itself accepts and refuses of our kinds: every refusal names the field and
//! what to write instead, and is said once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "api_rules/blueprints.rs"]
mod blueprints;
mod common;
#[path = "api_rules/policies.rs"]
mod policies;
#[path = "api_rules/users.rs"]
mod users;

use std::time::Duration;

use agentid::api::{AgentGrant, AgentIdentity, AgentResource, Configuration};
use common::{ControlPlane, Namespace, eventually};
use kube::Api;
use kube::api::ListParams;

/// An AgentIdentity with this spec.
fn agent(spec: &str) -> String {
    format!(
        "{{apiVersion: agentid.dev/v1alpha1, kind: AgentIdentity, metadata: {{name: a}}, spec: {{{spec}}}}}"
    )
}

/// An AgentResource with this audience and more of a spec.
fn resource(audience: &str, more: &str) -> String {
    let comma = if more.is_empty() { "" } else { ", " };
    format!(
        "{{apiVersion: agentid.dev/v1alpha1, kind: AgentResource, metadata: {{name: $NS}}, spec: {{audience: {audience:?}{comma}{more}}}}}"
    )
}

/// An AgentGrant with this spec.
fn grant(spec: &str) -> String {
    format!("{{apiVersion: agentid.dev/v1alpha1, kind: AgentGrant, metadata: {{name: g}}, spec: {{{spec}}}}}")
}

/// An AgentGrant that is right but for what is added.
fn grant_with(more: &str) -> String {
    grant(&format!("agents: {{names: [a]}}, resource: r, application: {{}}, {more}"))
}

/// An AgentResource that offers and allows.
fn offering(more: &str) -> String {
    resource("https://tickets.example.com", more)
}

const ACCESS: &str = "tokenProfile: Access";
const IDENTITY: &str = "tokenProfile: Identity";

#[tokio::test(flavor = "multi_thread")]
async fn examples_are_applied() {
    let control_plane = ControlPlane::shared();
    let ns = Namespace::for_pods(control_plane, "examples").await;
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut applied = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        // Beside them are programs and their description.
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        if path.ends_with("configuration.yaml") {
            assert_eq!(
                Configuration::from_yaml(&text).unwrap(),
                Configuration::new("https://agents.example.com", "agents.example.com"),
                "it says that it shows the defaults"
            );
            continue;
        }
        // Names outside namespaces are this test's own.
        let text = text
            .replace("name: tickets\nspec:\n  audience", &format!("name: {}\nspec:\n  audience", ns.name));
        // As users do, and without a warning of the server or of kubectl. Not as a dry run: in one file a pod
        // may need the service account that stands above it.
        let args = ["apply", "--namespace", &ns.name, "-f", "-"];
        let (_, warnings) = control_plane.kubectl_with_input(&args, text.as_bytes());
        assert_eq!(warnings, "", "{}", path.display());
        applied += 1;
    }
    assert!(applied >= 4, "{applied} examples");
    for name in ["triage", "errand"] {
        assert!(ns.agent(name).await.is_some(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_apply_without_warnings_and_show_what_they_should() {
    let control_plane = ControlPlane::shared();
    for crd in agentid::api::crds().unwrap() {
        let yaml = serde_yaml::to_string(&crd).unwrap();
        let args = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        let (_, warnings) = control_plane.kubectl_with_input(&args, yaml.as_bytes());
        assert_eq!(warnings, "");
    }
    let ns = Namespace::new(control_plane, "columns").await;
    let bound = "boundObjectRef: {apiVersion: v1, kind: Pod, name: p}, sponsors: [{kind: User, name: ann}]";
    ns.apply(&agent(bound)).await;
    ns.apply(&agent("").replace("name: a}", "name: b}")).await;
    let get = |args: &str| {
        let words = ["get", "--namespace", &ns.name].into_iter().chain(args.split(' '));
        control_plane.kubectl(words).split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let mut table = get("aid");
    // The ages are the clock's.
    table.remove(10);
    table.remove(8);
    assert_eq!(table, ["NAME", "READY", "SECRET", "GRANTS", "BLUEPRINT", "EXPIRES", "AGE", "a", "b"]);
    let wide = get("aid a -o wide");
    for column in ["SPONSOR", "BOUND-TO", "AGENT-ID", "REASON", "ann", "p"] {
        assert!(wide.iter().any(|w| w == column), "{column}: {wide:?}");
    }
    for (selector, wanted) in [
        ("spec.boundObjectRef.kind=Pod", "agentidentity.agentid.dev/a"),
        ("spec.boundObjectRef.kind=", "agentidentity.agentid.dev/b"),
        ("spec.boundObjectRef.name=p", "agentidentity.agentid.dev/a"),
    ] {
        assert_eq!(get(&format!("aid -o name --field-selector {selector}")), [wanted], "{selector}");
    }
    ns.apply(&grant_with("secretKey: r.jwt")).await;
    assert_eq!(get("agr -o name --field-selector spec.resource=r"), ["agentgrant.agentid.dev/g"]);
    let all = get("agentid -o name");
    assert!(all.iter().any(|n| n.ends_with("/g")) && all.iter().any(|n| n.ends_with("/a")), "{all:?}");
    // The API server publishes a changed schema after a moment; kubectl wraps its lines.
    eventually("kubectl explain tells the field", Duration::from_secs(30), || async {
        let text = control_plane.kubectl(["explain", "ares.spec.tokenProfile"]);
        if text.contains("authenticate") { Ok(()) } else { Err(text) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_that_are_accepted() {
    let ns = Namespace::new(ControlPlane::shared(), "agents-ok").await;
    let sponsors: Vec<_> = (0..16).map(|i| format!("{{kind: User, name: u{i}}}")).collect();
    for spec in [
        "",
        "boundObjectRef: {apiVersion: apps/v1, kind: Deployment, name: triage}",
        "boundObjectRef: {apiVersion: v1, kind: Pod, name: p, uid: 0b5f4b3e-6f0e-4c64-9a51-0f4f1f0e7a11}",
        "boundObjectRef: {apiVersion: agents.example.com/v1beta2, kind: Crew, name: x.y}",
        "secretName: my.secret",
        "tokenLifetime: 10m",
        "tokenLifetime: 600s",
        "tokenLifetime: 24h",
        "tokenLifetime: 1h30m30s",
        "expiresAt: \"2030-12-31T23:59:59Z\", ttlSecondsAfterExpired: 0",
        "expiresAt: \"2020-01-01T00:00:00+02:00\"",
        "suspend: true, displayName: \"Triage (EU)\", description: \"two\\nlines\"",
        // Rendered by a template without a value: as if left out.
        "tokenLifetime: null, boundObjectRef: null, sponsors: null, suspend: null",
        // Two of one name, of different kinds.
        "sponsors: [{kind: User, name: ann}, {kind: Group, name: ann}]",
        &format!("sponsors: [{}]", sponsors.join(", ")),
    ] {
        ns.expect_accepted(&agent(spec)).await;
    }
    ns.expect_accepted(&agent("").replace("name: a}", &format!("name: {}}}", "a".repeat(63)))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_that_are_refused() {
    let ns = Namespace::new(ControlPlane::shared(), "agents-bad").await;
    let sponsors: Vec<_> = (0..17).map(|i| format!("{{kind: User, name: u{i}}}")).collect();
    let bound = |field: &str| format!("boundObjectRef: {{apiVersion: v1, kind: Pod, name: p, {field}}}");
    let lifetime = ["spec.tokenLifetime", "from 10m to 24h", "such as 1h30m"];
    for (spec, wanted) in [
        ("blueprint: X".to_owned(), &["spec.blueprint", "lower-case letters"][..]),
        ("serviceAccountName: Runner".to_owned(), &["spec.serviceAccountName", "lower-case letters"]),
        ("tokenLifetime: 0s".to_owned(), &lifetime),
        ("tokenLifetime: \"0\"".to_owned(), &lifetime),
        ("tokenLifetime: -1h".to_owned(), &lifetime),
        ("tokenLifetime: 876000h".to_owned(), &lifetime),
        ("tokenLifetime: 9m59s".to_owned(), &lifetime),
        ("tokenLifetime: 24h0m1s".to_owned(), &lifetime),
        ("tokenLifetime: soon".to_owned(), &lifetime),
        ("tokenLifetime: 1.5h".to_owned(), &lifetime),
        ("tokenLifetime: 99999h99999h99999h".to_owned(), &lifetime),
        ("tokenLifetime: \"99999999999999999999h\"".to_owned(), &lifetime),
        ("tokenLifetime: 3600".to_owned(), &["spec.tokenLifetime", "string"]),
        (format!("tokenLifetime: {}h", "0".repeat(300)), &["spec.tokenLifetime", "may not be more than 24"]),
        ("expiresAt: tomorrow".to_owned(), &["spec.expiresAt", "tomorrow", "date-time"]),
        ("expiresAt: \"2030-01-01\"".to_owned(), &["spec.expiresAt", "date-time"]),
        ("expiresAt: \"2030-01-01T00:00:00\"".to_owned(), &["spec.expiresAt", "date-time"]),
        ("expiresAt: \"2030-02-30T00:00:00Z\"".to_owned(), &["spec.expiresAt", "date-time"]),
        (
            "expiresAt: \"2030-01-01t00:00:00z\"".to_owned(),
            &["spec.expiresAt", "such as 2030-12-31T23:59:59Z"],
        ),
        ("expiresAt: \"9999-12-31T23:59:59Z\"".to_owned(), &["spec.expiresAt", "leave it out for never"]),
        ("ttlSecondsAfterExpired: 60".to_owned(), &["spec.ttlSecondsAfterExpired", "needs expiresAt"]),
        (
            "ttlSecondsAfterExpired: -1, expiresAt: \"2030-01-01T00:00:00Z\"".to_owned(),
            &["spec.ttlSecondsAfterExpired", "greater than or equal to 0"],
        ),
        (
            "ttlSecondsAfterExpired: 4294967296, expiresAt: \"2030-01-01T00:00:00Z\"".to_owned(),
            &["spec.ttlSecondsAfterExpired", "less than or equal to"],
        ),
        ("secretName: Bad_Name".to_owned(), &["spec.secretName", "Bad_Name", "lower-case letters"]),
        ("secretName: ../x".to_owned(), &["spec.secretName", "../x", "lower-case letters"]),
        ("secretName: \"\"".to_owned(), &["spec.secretName", "lower-case letters"]),
        (format!("secretName: {}", "a".repeat(254)), &["spec.secretName", "may not be more than 253"]),
        (format!("sponsors: [{}]", sponsors.join(", ")), &["spec.sponsors", "at most 16 items"]),
        (
            "sponsors: [{kind: User, name: ann}, {kind: User, name: ann}]".to_owned(),
            &["spec.sponsors[1]", "Duplicate value", "ann"],
        ),
        (
            "sponsors: [{kind: Robot, name: r}]".to_owned(),
            &["spec.sponsors[0].kind", "Robot", "\"User\", \"Group\""],
        ),
        ("sponsors: [{kind: User}]".to_owned(), &["spec.sponsors[0].name", "Required"]),
        ("sponsors: [{kind: User, name: \"a\\nb\"}]".to_owned(), &["spec.sponsors[0].name", "one line"]),
        (bound("uid: 12345"), &["spec.boundObjectRef.uid", "string"]),
        (bound("uid: not-a-uid"), &["spec.boundObjectRef.uid", "metadata.uid"]),
        (bound("uid: 0B5F4B3E-6F0E-4C64-9A51-0F4F1F0E7A11"), &["spec.boundObjectRef.uid", "metadata.uid"]),
        (bound("namespace: other"), &["unknown field \"spec.boundObjectRef.namespace\""]),
        ("boundObjectRef: {kind: Pod, name: p}".to_owned(), &["spec.boundObjectRef.apiVersion", "Required"]),
        (
            "boundObjectRef: {apiVersion: apps, kind: Deployment, name: p}".to_owned(),
            &["spec.boundObjectRef.apiVersion", "such as apps/v1"],
        ),
        (
            "boundObjectRef: {apiVersion: a/b/v1, kind: Deployment, name: p}".to_owned(),
            &["spec.boundObjectRef.apiVersion", "such as apps/v1"],
        ),
        (
            "boundObjectRef: {apiVersion: apps/v1, kind: deployments, name: p}".to_owned(),
            &["spec.boundObjectRef.kind", "such as Deployment"],
        ),
        (
            "boundObjectRef: {apiVersion: apps/v1, kind: Deployment, name: ../p}".to_owned(),
            &["spec.boundObjectRef.name", "lower-case letters"],
        ),
        (format!("displayName: {}", "x".repeat(257)), &["spec.displayName", "may not be more than 256"]),
        (format!("description: {}", "x".repeat(4097)), &["spec.description", "may not be more than 4096"]),
    ] {
        ns.expect_rejected(&agent(&spec), wanted).await;
    }
    for length in [64, 253] {
        let named = agent("").replace("name: a}", &format!("name: {}}}", "a".repeat(length)));
        ns.expect_rejected(&named, &["metadata.name must be at most 63 characters", "shorter"]).await;
    }
    let misplaced = agent("").replace("spec:", "status: {grantsHeld: 1/1, nonsense: 1}, spec:");
    ns.expect_rejected(&misplaced, &["unknown field \"status.nonsense\""]).await;
}

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

#[tokio::test(flavor = "multi_thread")]
async fn immutable_fields_stay() {
    let ns = Namespace::new(ControlPlane::shared(), "immutable").await;
    let bound = |name: &str| format!("boundObjectRef: {{apiVersion: v1, kind: Pod, name: {name}}}");
    let refused = |field: &'static str| [field, "is immutable", "create another"];

    ns.apply(&agent("")).await;
    ns.expect_change_rejected(&agent(&bound("p")), &refused("spec.boundObjectRef")).await;
    ns.expect_change_rejected(&agent("secretName: s"), &refused("spec.secretName")).await;
    ns.apply(&agent("displayName: may change, suspend: true, tokenLifetime: 2h")).await;

    let named = |spec: &str| agent(spec).replace("name: a}", "name: b}");
    ns.apply(&named(&format!("{}, secretName: s", bound("p")))).await;
    for (spec, field) in [
        (format!("{}, secretName: s", bound("q")), "spec.boundObjectRef"),
        ("secretName: s".to_owned(), "spec.boundObjectRef"),
        (format!("{}, secretName: t", bound("p")), "spec.secretName"),
        (bound("p"), "spec.secretName"),
    ] {
        ns.expect_change_rejected(&named(&spec), &refused(field)).await;
    }
    let uid = "uid: 0b5f4b3e-6f0e-4c64-9a51-0f4f1f0e7a11";
    let pinned = bound("p").replace("name: p", &format!("name: p, {uid}"));
    ns.expect_change_rejected(&named(&format!("{pinned}, secretName: s")), &refused("spec.boundObjectRef"))
        .await;

    ns.apply(&offering("roles: [{name: a}]")).await;
    let moved = resource("https://other.example.com", "roles: [{name: a}]");
    ns.expect_change_rejected(&moved, &refused("spec.audience")).await;
    ns.expect_change_rejected(&offering(IDENTITY), &refused("spec.tokenProfile")).await;
    let cluster = offering("roles: [{name: a}], kubernetes: {}");
    ns.expect_change_rejected(&cluster, &refused("spec.kubernetes")).await;
    // What is said with the default is what was said without it.
    ns.apply(&offering(ACCESS)).await;
    ns.apply(&offering("roles: [{name: b}, {name: a}], maxTokenLifetime: 5m")).await;
    ns.expect_change_rejected(&offering(IDENTITY), &refused("spec.tokenProfile")).await;
}

/// The objects of this version parse as the types of this version, whatever the API server lets pass.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_accepted_parses() {
    let ns = Namespace::new(ControlPlane::shared(), "parses").await;
    ns.apply(&agent(
        "expiresAt: \"2000-01-01T00:00:00Z\", tokenLifetime: 24h, ttlSecondsAfterExpired: 31536000",
    ))
    .await;
    ns.apply(&agent("expiresAt: \"8999-12-31T23:59:59.999999999+18:00\"").replace("name: a}", "name: b}"))
        .await;
    ns.apply(&grant_with("notBefore: \"2000-01-01T00:00:00-18:00\"")).await;
    ns.apply(&offering("allow: [{namespaceSelector: {}, roles: []}]")).await;
    let all = ListParams::default();
    let agents: Api<AgentIdentity> = Api::namespaced(ns.client.clone(), &ns.name);
    assert_eq!(agents.list(&all).await.unwrap().items.len(), 2);
    let grants: Api<AgentGrant> = Api::namespaced(ns.client.clone(), &ns.name);
    assert_eq!(grants.list(&all).await.unwrap().items.len(), 1);
    Api::<AgentResource>::all(ns.client.clone()).get(&ns.name).await.unwrap();
}

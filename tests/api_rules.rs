//! What the API server itself accepts and refuses of our kinds: every refusal names the field and
//! what to write instead, and is said once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "api_rules/agents.rs"]
mod agents;
#[path = "api_rules/blueprints.rs"]
mod blueprints;
mod common;
#[path = "api_rules/grants.rs"]
mod grants;
#[path = "api_rules/policies.rs"]
mod policies;
#[path = "api_rules/resources.rs"]
mod resources;
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

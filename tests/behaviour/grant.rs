//! What a grant gives: what was asked ∩ what the resource offers ∩ what it allows the namespace.

use std::time::Instant;

use agentid::api::AgentIdentity;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use crate::common::{ControlPlane, api_of, parse, resource_of};
use crate::kit::*;

const NONE: &[&str] = &["agent.json", "identity.jwt"];
const HELD: &[&str] = &["agent.json", "g.jwt", "identity.jwt"];

/// How soon a word that is taken back is out of the Secret. It takes a fraction of a second; the rest is for
/// machines that do more than this test.
const PROMPTLY: std::time::Duration = std::time::Duration::from_secs(4);

fn asks(roles: &str, scopes: &str) -> String {
    grant_of(
        "g",
        "names: [a]",
        "r",
        &format!("application: {{roles: [{roles}], scopes: [{scopes}]}}, secretKey: g.jwt"),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_offered_is_left_out() {
    let t = Test::new("offered").await;
    t.apply(&[resource("r"), agent("a", ""), asks("reader, admin", "")].concat()).await;
    let held = t.grant_is("a", "g", "Narrowed", "RoleNotOffered").await;
    assert_eq!(held.roles, ["reader"]);
    let parts = [
        "spec.application.roles",
        "\"admin\"",
        "AgentResource r-$NS",
        "it offers reader, writer",
        "remove it",
    ];
    t.condition("a", "GrantsHeld", "False", "RoleNotOffered", &parts).await;
    t.grant_says("g", "False", "RoleNotOffered", &parts).await;
    t.ready("a").await;
    t.has_files("a-agentid", HELD, SOON).await;
    assert_eq!(t.verified("a-agentid").await["g.jwt"].claims["roles"], json!(["reader"]));

    t.apply(&asks("admin", "")).await;
    t.grant_is("a", "g", "Refused", "RoleNotOffered").await;
    let files = t.has_files("a-agentid", NONE, SOON).await;
    says(&files["agent.json"], &["RoleNotOffered", "admin", "remove it"]);
    t.apply(&asks("", "read, delete")).await;
    let held = t.grant_is("a", "g", "Narrowed", "ScopeNotOffered").await;
    assert_eq!(held.scopes, ["read"]);
    t.condition("a", "GrantsHeld", "False", "ScopeNotOffered", &["spec.application.scopes", "\"delete\""])
        .await;
    t.apply(&asks("reader", "read")).await;
    t.grant_is("a", "g", "Held", "").await;
    t.condition("a", "GrantsHeld", "True", "Issued", &["1 of 1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_allowance_comes_and_goes() {
    let t = Test::new("allowance").await;
    t.apply(&[resource_with("r", "[]", ""), agent("a", ""), asks("reader, writer", "read")].concat()).await;
    let parts = ["spec.resource", "AgentResource r-$NS", "does not allow namespace $NS", "spec.allow"];
    t.grant_is("a", "g", "Refused", "NamespaceNotAllowed").await;
    t.condition("a", "GrantsHeld", "False", "NamespaceNotAllowed", &parts).await;
    t.grant_says("g", "False", "NamespaceNotAllowed", &parts).await;
    t.has_files("a-agentid", NONE, SOON).await;

    t.apply(&resource("r")).await;
    t.has_files("a-agentid", HELD, SOON).await;
    t.verified("a-agentid").await;

    // One role less, and no scope.
    let narrower = THIS_NAMESPACE.replace("}}}]", "}}, roles: [reader]}]");
    t.apply(&resource_with("r", &narrower, "")).await;
    let held = t.grant_is("a", "g", "Narrowed", "RoleNotAllowed").await;
    assert_eq!((held.roles, held.scopes), (vec!["reader".to_owned()], Vec::new()));
    let parts =
        ["spec.application.roles", "\"writer\"", "AgentResource r-$NS", "namespace $NS", "spec.allow"];
    t.condition("a", "GrantsHeld", "False", "RoleNotAllowed", &parts).await;
    let token = &t.verified("a-agentid").await["g.jwt"];
    assert_eq!(token.claims["roles"], json!(["reader"]));
    assert!(!token.claims.contains_key("scope"));

    t.apply(&asks("reader", "read")).await;
    t.grant_is("a", "g", "Narrowed", "ScopeNotAllowed").await;

    let began = Instant::now();
    t.apply(&resource_with("r", "[]", "")).await;
    t.has_files("a-agentid", NONE, PROMPTLY).await;
    eprintln!("withdrawn after {:?}", began.elapsed());
    t.grant_is("a", "g", "Refused", "NamespaceNotAllowed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_allowed_by_its_labels() {
    let t = Test::new("ns-labels").await;
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(t.client.clone());
    let label = async |value: serde_json::Value| {
        let patch = json!({"metadata": {"labels": {"team": value}}});
        namespaces.patch(&t.name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    };
    let allow = "[{namespaceSelector: {matchLabels: {team: $NS}}}]";
    t.apply(&[resource_with("r", allow, ""), agent("a", ""), asks("reader", "")].concat()).await;
    t.grant_is("a", "g", "Refused", "NamespaceNotAllowed").await;
    label(json!(t.name)).await;
    t.has_files("a-agentid", HELD, SOON).await;
    label(json!("other")).await;
    t.has_files("a-agentid", NONE, PROMPTLY).await;
    label(json!(t.name)).await;
    t.has_files("a-agentid", HELD, SOON).await;
    label(json!(null)).await;
    t.has_files("a-agentid", NONE, PROMPTLY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_may_come_before_its_agent_and_resource() {
    let t = Test::new("before").await;
    t.apply(&asks("reader", "")).await;
    let parts = ["spec.agents.names", "AgentIdentity a", "namespace $NS", "when it comes"];
    t.grant_says("g", "False", "AgentNotFound", &parts).await;
    t.apply(&agent("a", "")).await;
    t.grant_is("a", "g", "Refused", "ResourceNotFound").await;
    let parts = ["spec.resource", "AgentResource r-$NS", "create it or name another"];
    t.grant_says("g", "False", "ResourceNotFound", &parts).await;
    t.condition("a", "GrantsHeld", "False", "ResourceNotFound", &parts).await;
    t.apply(&resource("r")).await;
    t.has_files("a-agentid", HELD, SOON).await;
    t.grant_is("a", "g", "Held", "").await;
    t.grant_says("g", "True", "Issued", &["held by 1"]).await;
    t.verified("a-agentid").await;

    t.delete(&resource("r")).await;
    t.has_files("a-agentid", NONE, PROMPTLY).await;
    t.grant_is("a", "g", "Refused", "ResourceNotFound").await;
    t.apply(&resource("r")).await;
    t.has_files("a-agentid", HELD, SOON).await;
    t.delete(&asks("", "")).await;
    t.has_files("a-agentid", NONE, PROMPTLY).await;
    t.condition("a", "GrantsHeld", "True", "Issued", &["0 of 0"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selector_follows_the_agents_labels() {
    let t = Test::new("selector").await;
    let selecting =
        "selector: {matchLabels: {tier: gold}, matchExpressions: [{key: barred, operator: DoesNotExist}]}";
    t.apply(&[resource("r"), agent("a", ""), agent("b", ""), grant("g", selecting, "r", "")].concat()).await;
    t.grant_says("g", "False", "AgentNotFound", &["spec.agents", "selects no agent"]).await;
    let label = async |name: &str, labels: serde_json::Value| {
        t.merge::<AgentIdentity>(name, json!({"metadata": {"labels": labels}})).await;
    };
    t.ready("b").await;
    label("a", json!({"tier": "gold"})).await;
    t.has_files("a-agentid", HELD, SOON).await;
    label("b", json!({"tier": "gold"})).await;
    t.has_files("b-agentid", HELD, SOON).await;
    t.grant_says("g", "True", "Issued", &["held by 2"]).await;
    label("a", json!({"barred": "yes"})).await;
    t.has_files("a-agentid", NONE, PROMPTLY).await;
    label("b", json!({"tier": "silver"})).await;
    t.has_files("b-agentid", NONE, PROMPTLY).await;
    assert_eq!(t.agent("a").await.unwrap().status.unwrap().secret_name.unwrap(), "a-agentid");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_without_a_file_is_held_on_demand() {
    let t = Test::new("ondemand").await;
    let quiet = grant_of("g", "names: [a]", "r", "application: {roles: [reader]}");
    t.apply(&[resource("r"), agent("a", ""), quiet].concat()).await;
    t.grant_is("a", "g", "Held", "").await;
    t.condition("a", "GrantsHeld", "True", "Issued", &[]).await;
    let files = t.has_files("a-agentid", NONE, SOON).await;
    let document: serde_json::Value = serde_json::from_str(&files["agent.json"]).unwrap();
    assert_eq!(document["missing"][0]["grant"], "g", "{document}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lifetime_too_short_for_a_secret_is_said() {
    let t = Test::new("tooshort").await;
    let short = resource_with("r", THIS_NAMESPACE, ", maxTokenLifetime: 1m");
    t.apply(&[short, agent("a", ""), asks("reader", "")].concat()).await;
    t.grant_is("a", "g", "Narrowed", "LifetimeTooShort").await;
    let parts =
        ["spec.secretKey", "AgentResource r-$NS", "60s", "at least 61s", "raise its maxTokenLifetime"];
    t.condition("a", "GrantsHeld", "False", "LifetimeTooShort", &parts).await;
    let files = t.has_files("a-agentid", NONE, SOON).await;
    says(&files["agent.json"], &["LifetimeTooShort"]);
    t.apply(&resource_with("r", THIS_NAMESPACE, ", maxTokenLifetime: 15m")).await;
    t.has_files("a-agentid", HELD, SOON).await;
    let token = &t.verified("a-agentid").await["g.jwt"];
    assert_eq!(token.claims["exp"].as_i64().unwrap() - token.claims["iat"].as_i64().unwrap(), 900);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_writes_grants_for_itself_gets_no_more_than_the_resource_allows() {
    let t = Test::new("own-grants").await;
    let allow =
        "[{namespaceSelector: {matchLabels: {\"kubernetes.io/metadata.name\": $NS}}, roles: [reader]}]";
    let writes = "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: w}\nrules: [{apiGroups: \
        [agentid.dev], resources: [agentgrants], verbs: [create]}]\n---\napiVersion: rbac.authorization.k8s.io/v1\nkind: \
        RoleBinding\nmetadata: {name: w}\nroleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: w}\nsubjects: \
        [{kind: ServiceAccount, name: runner, namespace: $NS}]\n";
    let objects = [
        resource_with("r", allow, ""),
        resource_with("closed", "[]", ""),
        agent("a", "serviceAccountName: runner"),
    ];
    t.apply(&(objects.concat() + writes)).await;

    let mut config = ControlPlane::shared().config().await;
    config.default_retry = false;
    config.auth_info.impersonate = Some(t.fill("system:serviceaccount:$NS:runner"));
    let groups = ["system:serviceaccounts", "system:authenticated"].map(str::to_owned);
    config.auth_info.impersonate_groups = Some(groups.into());
    let runner = kube::Client::try_from(config).unwrap();
    let creates = async |yaml: &str| {
        let mut object = parse(&t.fill(yaml)).remove(0);
        object.metadata.namespace = resource_of(&object).1.then(|| t.name.clone());
        api_of(runner.clone(), &object).create(&PostParams::default(), &object).await
    };
    let everything = "application: {roles: [reader, writer], scopes: [read]}";
    creates(&asks("reader, writer", "read")).await.unwrap();
    creates(&grant_of("closed", "selector: {}", "closed", everything)).await.unwrap();
    let held = t.grant_is("a", "g", "Narrowed", "RoleNotAllowed").await;
    assert_eq!((held.roles, held.scopes.len()), (vec!["reader".to_owned()], 0));
    t.grant_is("a", "closed", "Refused", "NamespaceNotAllowed").await;
    t.has_files("a-agentid", HELD, SOON).await;
    assert_eq!(t.verified("a-agentid").await["g.jwt"].claims["roles"], json!(["reader"]));
    // The other word is not its own to give.
    for yaml in [resource_with("mine", "[{}]", ""), agent("b", "")] {
        let refused = creates(&yaml).await.unwrap_err();
        assert!(matches!(&refused, kube::Error::Api(s) if s.code == 403), "{refused}");
    }
}

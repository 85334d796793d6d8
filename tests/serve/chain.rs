//! An agent that was called calls on: the chain says who, never more than before, and ends with any link.

use agentid::crypto::Typ;
use serde_json::json;

use crate::common::eventually;
use crate::kit::*;

pub const B: (&str, &str) = ("runner-b", "q");

/// Agent `b`, which takes calls at a resource of its own; `a` may call it for itself and for ann.
pub async fn town(prefix: &str) -> Test {
    let t = Test::new(prefix).await;
    t.account("runner-b").await;
    t.apply(
        "
apiVersion: agentid.dev/v1alpha1
kind: AgentResource
metadata: {name: $NS-b}
spec:
  audience: https://$NS.b.example.com
  scopes: [{name: tickets.read}, {name: tickets.write}]
  allow: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: $NS}}, modes: [Application, Delegation, AgentUser]}]
  agent: {namespace: $NS, name: b}
---
apiVersion: agentid.dev/v1alpha1
kind: AgentIdentity
metadata: {name: b}
spec: {serviceAccountName: runner-b}
---
apiVersion: agentid.dev/v1alpha1
kind: AgentGrant
metadata: {name: call-b}
spec: {agents: {names: [a]}, resource: $NS-b, application: {scopes: [tickets.read]}}
",
    )
    .await;
    let id = t.agent_id("a").await;
    t.delegate("call-b-for-ann", "a", "$NS-b", &t.stage.idp.issuer, "ann").await;
    t.delegate("pass-on-a", "b", "$NS", &t.stage.town.issuer, &id).await;
    t.delegate("pass-on-ann", "b", "$NS", &t.stage.idp.issuer, "ann").await;
    t.pod(B.1, B.0).await;
    t.ready("b").await;
    t
}

/// A token with which `a` calls `b` in its own right.
pub async fn call(t: &Test) -> String {
    let aud = t.fill("https://$NS.b.example.com");
    let own = t.sa_token().await;
    eventually("a token for b", SOON, || async {
        let (status, body) = t.ask(&own, &[("resource", &aud)]).await;
        body["access_token"].as_str().filter(|_| status == 200).map(str::to_owned).ok_or_else(|| body.clone())
    })
    .await
}

pub async fn pass_on(t: &Test, subject: &str) -> String {
    t.delegated_as(B, subject, &[("resource", &t.aud())]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_a_user_keeps_the_agent_that_began_as_subject() {
    let t = town("chain-own").await;
    let (a, b) = (t.agent_id("a").await, t.agent_id("b").await);
    let called = call(&t).await;
    let token = pass_on(&t, &called).await;
    let c = t.verified(&token, &t.aud(), Typ::Access).await.claims;
    assert_eq!(c["sub"], json!(a));
    assert_eq!(c["sub_profile"], "ai_agent");
    assert_eq!(c["act"], json!({"iss": t.stage.town.issuer, "sub": b, "sub_profile": "ai_agent"}));
    assert_eq!(c["client_id"], json!(b));
    assert_eq!(c["scope"], "tickets.read", "b's grant holds more than the call");
    assert!(c["exp"].as_i64() <= claims(&called)["exp"].as_i64());
    assert_eq!(t.introspect("asker", &token).await["active"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn actors_nest_with_the_last_outermost() {
    let t = town("chain-user").await;
    let (a, b) = (t.agent_id("a").await, t.agent_id("b").await);
    let aud = t.fill("https://$NS.b.example.com");
    let called = t.delegated_as(("runner", "p"), &t.ann(&a), &[("resource", &aud)]).await;
    let token = pass_on(&t, &called).await;
    let c = t.verified(&token, &t.aud(), Typ::Access).await.claims;
    let us = &t.stage.town.issuer;
    assert_eq!(c["sub"], "corp:ann");
    assert_eq!(c["sub_id"]["sub"], "ann");
    assert_eq!(
        c["act"],
        json!({
            "iss": us, "sub": b, "sub_profile": "ai_agent",
            "act": {"iss": us, "sub": a, "sub_profile": "ai_agent"},
        })
    );
    assert_eq!(t.introspect("asker", &token).await["active"], true);
    t.suspend("a", true).await;
    t.is_active(&token, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_is_never_wider_than_the_call() {
    let t = town("chain-wide").await;
    let called = call(&t).await;
    pass_on(&t, &called).await;
    let aud = t.aud();
    let wider = t.exchange_as(B, &called, &[("resource", &aud), ("scope", "tickets.write")]).await;
    refused(&wider, 400, "invalid_scope");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_another_resource_is_passed_on_by_nobody() {
    let t = town("chain-other").await;
    let called = call(&t).await;
    pass_on(&t, &called).await;
    let aud = t.aud();
    let tickets = t.token(&[]).await;
    refused(&t.exchange_as(B, &tickets, &[("resource", &aud)]).await, 400, "invalid_request");
    // And b's call is b's alone.
    refused(&t.exchange(&called, &[]).await, 400, "invalid_request");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_ends_with_the_agent_that_began_it() {
    let t = town("chain-end").await;
    let called = call(&t).await;
    let token = pass_on(&t, &called).await;
    t.is_active(&token, true).await;
    t.delete_agent("a").await;
    t.is_active(&token, false).await;
    let aud = t.aud();
    refused(&t.exchange_as(B, &called, &[("resource", &aud)]).await, 400, "invalid_request");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_ends_with_the_grant_of_the_call() {
    let t = town("chain-grant").await;
    let called = call(&t).await;
    let token = pass_on(&t, &called).await;
    t.is_active(&token, true).await;
    t.delete_grant("call-b").await;
    t.is_active(&token, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn four_actors_are_the_most() {
    let t = town("chain-deep").await;
    // b calls itself, over and over.
    t.delegate("again", "b", "$NS-b", &t.stage.idp.issuer, "ann").await;
    let aud = t.fill("https://$NS.b.example.com");
    let a = t.agent_id("a").await;
    let mut token = t.delegated_as(("runner", "p"), &t.ann(&a), &[("resource", &aud)]).await;
    for _ in 0..3 {
        token = t.delegated_as(B, &token, &[("resource", &aud)]).await;
    }
    let act = &claims(&token)["act"];
    assert_eq!(act["act"]["act"]["act"]["sub"], json!(a), "{act}");
    refused(&t.exchange_as(B, &token, &[("resource", &aud)]).await, 400, "invalid_request");
}

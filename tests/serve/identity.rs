//! Identity tokens for other parties: got by exchange alone, short, and no access tokens.

use agentid::crypto::Typ;
use serde_json::{Value, json};

use crate::common::eventually;
use crate::kit::*;

async fn town(prefix: &str) -> (Test, String) {
    let t = Test::new(prefix).await;
    t.apply(
        "
apiVersion: agentid.dev/v1alpha1
kind: AgentResource
metadata: {name: $NS-partner}
spec:
  audience: https://$NS.partner.example.com
  tokenProfile: Identity
  allow: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: $NS}}}]
---
apiVersion: agentid.dev/v1alpha1
kind: AgentGrant
metadata: {name: partner}
spec: {agents: {names: [a]}, resource: $NS-partner, application: {}}
",
    )
    .await;
    let aud = t.fill("https://$NS.partner.example.com");
    (t, aud)
}

async fn identity(t: &Test, aud: &str, requested: &str) -> (u16, Value) {
    let own = t.sa_token().await;
    let form = [
        ("grant_type", EXCHANGE),
        ("subject_token", own.as_str()),
        ("subject_token_type", JWT),
        ("requested_token_type", requested),
        ("audience", aud),
    ];
    t.settled("/token", &form).await
}

async fn issued(t: &Test, aud: &str) -> Value {
    eventually("an identity token", SOON, || async {
        let (status, body) = identity(t, aud, JWT).await;
        if status == 200 { Ok(body) } else { Err(format!("{status} {body}")) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_token_says_who_and_nothing_else() {
    let (t, aud) = town("identity").await;
    let body = issued(&t, &aud).await;
    assert_eq!((&body["token_type"], &body["issued_token_type"]), (&json!("N_A"), &json!(JWT)), "{body}");
    assert!(body["expires_in"].as_i64().unwrap() <= 300, "{body}");
    let token = body["access_token"].as_str().unwrap();
    let verified = t.verified(token, &aud, Typ::Identity).await;
    let c = &verified.claims;
    assert_eq!(c["sub"], json!(t.agent_id("a").await));
    assert!(c["exp"].as_i64().unwrap() - c["iat"].as_i64().unwrap() <= 300);
    for absent in ["scope", "roles", "act", "client_id"] {
        assert!(!c.contains_key(absent), "{absent}: {c:?}");
    }
    let header = agentid::crypto::inspect(token).unwrap().header;
    assert_eq!(header.get("typ"), Some(&json!("JWT")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kinds_of_tokens_are_never_mixed() {
    let (t, aud) = town("kinds").await;
    issued(&t, &aud).await;
    let own = t.sa_token().await;
    refused(&t.ask(&own, &[("resource", &aud)]).await, 400, "invalid_target");
    t.token(&[]).await;
    refused(&identity(&t, &t.aud(), JWT).await, 400, "invalid_target");
    refused(
        &identity(&t, &aud, "urn:ietf:params:oauth:token-type:refresh_token").await,
        400,
        "invalid_request",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_tokens_buy_none() {
    let (t, aud) = town("no-buy").await;
    let token = issued(&t, &aud).await["access_token"].as_str().unwrap().to_owned();
    let access = t.token(&[]).await;
    for ours in [token.as_str(), access.as_str()] {
        refused(&t.ask(ours, &[("resource", &t.aud())]).await, 401, "invalid_client");
    }
    // An identity token is no subject of a chain either.
    refused(&t.exchange(&token, &[]).await, 400, "invalid_request");
}

//! Tokens in a user's name: only with the user's live token for this agent, and never more than it says.

use agentid::crypto::Typ;
use serde_json::json;

use crate::kit::*;
use crate::service::Idp;

#[tokio::test(flavor = "multi_thread")]
async fn a_delegated_token_names_user_and_actor_and_says_no_more_than_both_may() {
    let t = Test::new("user").await;
    t.delegate_ann().await;
    let id = t.agent_id("a").await;
    let more = json!({
        "scope": "tickets.read mail.read", "auth_time": 1_700_000_000, "acr": "urn:mfa", "amr": ["otp", "pwd"],
    });
    let user = t.stage.idp.token("ann", &id, 120, more);
    let token = t.delegated(&user, &[]).await;
    let c = t.verified(&token, &t.aud(), Typ::Access).await.claims;
    assert_eq!(c["sub"], "corp:ann");
    assert_eq!(c["sub_id"], json!({"format": "iss_sub", "iss": t.stage.idp.issuer, "sub": "ann"}));
    assert_eq!(c["act"], json!({"iss": t.stage.town.issuer, "sub": id, "sub_profile": "ai_agent"}));
    assert_eq!(c["client_id"], json!(id));
    assert_eq!(c["sub_profile"], "user");
    assert_eq!(c["scope"], "tickets.read");
    assert!(!c.contains_key("roles"), "{c:?}");
    assert_eq!(c["agentid.dev"]["mode"], "delegated");
    assert_eq!(
        (&c["auth_time"], &c["acr"], &c["amr"]),
        (&json!(1_700_000_000), &json!("urn:mfa"), &json!(["otp", "pwd"]))
    );
    assert!(c["exp"].as_i64() <= claims(&user)["exp"].as_i64(), "it outlives the user's");
    let lines = t.audit();
    let line = lines.iter().find(|l| l.jti.as_deref() == c["jti"].as_str()).expect("an audit line");
    assert_eq!(line.on_behalf_of.as_deref(), Some("corp:ann"));
    assert_eq!(line.grant.as_deref(), Some("for-ann"));
}

#[tokio::test(flavor = "multi_thread")]
async fn scopes_are_those_asked_for_of_the_grants_and_the_users() {
    let t = Test::new("user-scope").await;
    t.delegate_ann().await;
    let id = t.agent_id("a").await;
    let token = t.delegated(&t.ann(&id), &[("scope", "tickets.write")]).await;
    assert_eq!(claims(&token)["scope"], "tickets.write");
    let reader = t.stage.idp.token("ann", &id, 300, json!({"scope": "tickets.read"}));
    refused(&t.exchange(&reader, &[("scope", "tickets.write")]).await, 400, "invalid_scope");
    refused(&t.exchange(&t.ann(&id), &[("scope", "mail.read")]).await, 400, "invalid_scope");
    let none = t.stage.idp.token("ann", &id, 300, json!({}));
    refused(&t.exchange(&none, &[]).await, 400, "invalid_scope");
}

#[tokio::test(flavor = "multi_thread")]
async fn may_act_in_a_token_for_us_names_the_agent() {
    let t = Test::new("may-act").await;
    t.delegate_ann().await;
    let id = t.agent_id("a").await;
    let ours = t.stage.town.issuer.clone();
    let may = |aud: &str, may_act: serde_json::Value| {
        t.stage.idp.token("ann", aud, 300, json!({"scope": "tickets.read", "may_act": may_act}))
    };
    let token = t.delegated(&may(&ours, json!({"sub": id})), &[]).await;
    assert_eq!(claims(&token)["sub"], "corp:ann");
    let (status, body) = t.exchange(&may(&ours, json!({"iss": ours, "sub": id})), &[]).await;
    assert_eq!(status, 200, "{body}");
    let refusals = [
        may(&ours, json!({"sub": format!("{id}0")})),
        may(&ours, json!({"iss": "https://elsewhere.example.com", "sub": id})),
        may("https://elsewhere.example.com", json!({"sub": id})),
        t.stage.idp.token("ann", &ours, 300, json!({"scope": "tickets.read"})),
    ];
    for user in &refusals {
        refused(&t.exchange(user, &[]).await, 400, "invalid_request");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_token_that_is_not_for_this_grant_agent_and_moment_is_refused() {
    let t = Test::new("user-refused").await;
    t.delegate_ann().await;
    let id = t.agent_id("a").await;
    t.delegated(&t.ann(&id), &[]).await;
    let scope = json!({"scope": "tickets.read"});

    let bob = t.stage.idp.token("bob", &id, 300, scope.clone());
    let answer = t.exchange(&bob, &[]).await;
    refused(&answer, 400, "invalid_request");
    assert!(answer.1["error_description"].as_str().unwrap().contains("SubjectNotAllowed"), "{}", answer.1);

    let another = "spiffe://agents.example.com/agent/00000000-0000-4000-8000-000000000000";
    refused(&t.exchange(&t.ann(another), &[]).await, 400, "invalid_request");

    let expired = t.stage.idp.token("ann", &id, -1, scope.clone());
    refused(&t.exchange(&expired, &[]).await, 400, "invalid_request");

    let stranger = Idp::start().await;
    let untrusted = stranger.token("ann", &id, 300, scope.clone());
    refused(&t.exchange(&untrusted, &[]).await, 400, "invalid_request");

    // Another's signature under the trusted issuer's name.
    let mut forged = scope;
    forged["iss"] = json!(t.stage.idp.issuer);
    refused(&t.exchange(&stranger.token("ann", &id, 300, forged), &[]).await, 400, "invalid_request");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_delegation_grant_there_is_no_target() {
    let t = Test::new("no-delegation").await;
    t.token(&[]).await;
    let id = t.agent_id("a").await;
    refused(&t.exchange(&t.ann(&id), &[]).await, 400, "invalid_target");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_token_serves_in_place_of_a_client_assertion() {
    let t = Test::new("actor").await;
    t.delegate_ann().await;
    let id = t.agent_id("a").await;
    let user = t.ann(&id);
    t.delegated(&user, &[]).await;
    let (own, aud) = (t.sa_token().await, t.aud());
    let base = [
        ("grant_type", EXCHANGE),
        ("subject_token", user.as_str()),
        ("subject_token_type", ACCESS),
        ("resource", aud.as_str()),
    ];
    let actor = [&base[..], &[("actor_token", own.as_str()), ("actor_token_type", JWT)]].concat();
    let (status, body) = t.settled("/token", &actor).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["issued_token_type"], ACCESS);
    assert_eq!(body["token_type"], "Bearer");
    assert_eq!(claims(body["access_token"].as_str().unwrap())["act"]["sub"], json!(id));

    let assertion = [("client_assertion", own.as_str()), ("client_assertion_type", JWT_BEARER_ASSERTION)];
    refused(&t.settled("/token", &[&actor[..], &assertion].concat()).await, 400, "invalid_request");
    refused(&t.settled("/token", &base).await, 401, "invalid_client");
    let bad = [&base[..], &[("actor_token", user.as_str()), ("actor_token_type", JWT)]].concat();
    refused(&t.settled("/token", &bad).await, 400, "invalid_request");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delegated_token_is_active_until_its_grant_is_gone() {
    let t = Test::new("user-active").await;
    t.delegate_ann().await;
    let id = t.agent_id("a").await;
    let token = t.delegated(&t.ann(&id), &[]).await;
    let told = t.introspect("asker", &token).await;
    assert_eq!((&told["active"], &told["sub"]), (&json!(true), &json!("corp:ann")), "{told}");
    assert_eq!(told["act"]["sub"], json!(id));
    let own = t.token(&[]).await;
    t.delete_grant("for-ann").await;
    t.is_active(&token, false).await;
    assert_eq!(t.introspect("asker", &own).await["active"], true);
}

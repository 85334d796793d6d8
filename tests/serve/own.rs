//! Tokens in the agent's own right.

use agentid::crypto::Typ;
use serde_json::json;

use crate::kit::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_gets_a_token_that_stands_until_it_is_gone() {
    let t = Test::new("own").await;
    let token = t.token(&[("scope", "tickets.read")]).await;
    let verified = t.verified(&token, &t.aud(), Typ::Access).await;
    let claims = &verified.claims;
    assert_eq!(claims["sub"], json!(t.agent_id("a").await));
    assert_eq!(claims["client_id"], claims["sub"]);
    assert_eq!(claims["scope"], "tickets.read");
    assert_eq!(claims["roles"], json!(["triager"]));
    assert_eq!(claims["sub_profile"], "ai_agent");
    assert!(!claims.contains_key("act"));
    assert!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap() <= 600);
    let entry = &claims["status"]["status_list"];
    assert!(entry["uri"].as_str().unwrap().starts_with(&t.stage.town.issuer), "{entry}");

    let told = t.introspect("asker", &token).await;
    assert_eq!(told["active"], true, "{told}");
    assert_eq!(told["scope"], "tickets.read");
    assert_eq!(t.introspect("stranger", &token).await, json!({"active": false}));
    // Whom the service has not seen yet learns nothing by being told to come again.
    t.apply("{apiVersion: v1, kind: Pod, metadata: {name: unseen}, spec: {serviceAccountName: stranger, containers: [{name: c, image: none}]}}")
        .await;
    let unseen = t.sa_token_for("stranger", Some("unseen"), &t.stage.town.issuer).await;
    let mut answers = Vec::new();
    for asked_about in [&*token, "no.token.atall"] {
        let form = [
            ("client_assertion_type", JWT_BEARER_ASSERTION),
            ("client_assertion", unseen.as_str()),
            ("token", asked_about),
        ];
        let (status, headers, body) = t.service().post("/introspect", &form).await;
        assert_eq!((status, &headers["retry-after"]), (503, &http::HeaderValue::from_static("1")), "{body}");
        answers.push(body);
    }
    assert_eq!(answers[0], answers[1]);
    // Whom the resource names needs not be seen, and what it may know otherwise as an agent is not for now.
    let other = Test::new("own-other").await;
    t.apply("{apiVersion: v1, kind: Pod, metadata: {name: asks}, spec: {serviceAccountName: asker, containers: [{name: c, image: none}]}}")
        .await;
    for (asked_about, wanted) in [(&token, 200), (&other.token(&[]).await, 503)] {
        let asks = t.sa_token_for("asker", Some("asks"), &t.stage.town.issuer).await;
        let form = [
            ("client_assertion_type", JWT_BEARER_ASSERTION),
            ("client_assertion", asks.as_str()),
            ("token", asked_about),
        ];
        let (status, _, body) = t.service().post("/introspect", &form).await;
        assert_eq!((status, body["active"] == true), (wanted, wanted == 200), "{body}");
    }
    let form = [
        ("grant_type", "client_credentials"),
        ("client_assertion_type", JWT_BEARER_ASSERTION),
        ("client_assertion", unseen.as_str()),
    ];
    let (status, headers, body) = t.service().post("/token", &form).await;
    assert_eq!((status, &headers["retry-after"]), (503, &http::HeaderValue::from_static("1")), "{body}");

    let lines = t.audit();
    let jti = claims["jti"].as_str().unwrap();
    let line = lines.iter().find(|l| l.jti.as_deref() == Some(jti)).expect("an audit line");
    assert_eq!(line.pod.as_deref(), Some("p"));
    assert_eq!(line.grant.as_deref(), Some("tickets"));

    t.delete_agent("a").await;
    t.is_active(&token, false).await;
}

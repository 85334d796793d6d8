//! Tokens in a user's name, and in the name of an agent that called.

use agentid::crypto::Typ;
use serde_json::{Value, json};

use crate::common::eventually;
use crate::kit::*;

/// The grant by which agent `a` acts for ann.
fn delegation(t: &Test, more: &str) -> String {
    format!(
        "apiVersion: agentid.dev/v1alpha1\nkind: AgentGrant\nmetadata: {{name: for-ann}}\nspec:\n  agents: {{names: [a]}}\n  \
         resource: $NS\n  delegation: {{issuer: '{}', subjects: [ann], scopes: [tickets.read, tickets.write]}}\n{more}",
        t.stage.idp.issuer
    )
}

/// Exchanges a user's token with pod `p` as the actor.
async fn exchange(t: &Test, user: &str, more: &[(&str, &str)]) -> (u16, Value) {
    let (sa, aud) = (t.sa_token().await, t.aud());
    let mut form = vec![
        ("grant_type", EXCHANGE),
        ("subject_token", user),
        ("subject_token_type", ACCESS),
        ("actor_token", sa.as_str()),
        ("actor_token_type", JWT),
        ("resource", aud.as_str()),
    ];
    form.extend(more);
    t.settled("/token", &form).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_live_token_gives_what_it_and_the_grant_give() {
    let t = Test::new("delegated").await;
    t.apply(&delegation(&t, "")).await;
    let me = t.agent_id("a").await;
    let more = json!({"scope": "tickets.read other", "auth_time": 7, "acr": "high", "amr": ["otp"]});
    let user = t.stage.idp.token("ann", &me, 120, more);
    let token = eventually("a delegated token", SOON, || async {
        let (status, body) = exchange(&t, &user, &[]).await;
        if status != 200 {
            return Err(format!("{status} {body}"));
        }
        assert_eq!(body["issued_token_type"], ACCESS);
        assert_eq!(body["token_type"], "Bearer");
        assert!(body["expires_in"].as_i64().unwrap() <= 120, "{body}");
        Ok(body["access_token"].as_str().unwrap().to_owned())
    })
    .await;
    let verified = t.verified(&token, &t.aud(), Typ::Access).await;
    let claims = &verified.claims;
    assert_eq!(claims["sub"], "corp:ann");
    assert_eq!(claims["sub_id"], json!({"format": "iss_sub", "iss": t.stage.idp.issuer, "sub": "ann"}));
    assert_eq!(claims["act"], json!({"iss": t.stage.town.issuer, "sub": me, "sub_profile": "ai_agent"}));
    assert_eq!((&claims["client_id"], &claims["scope"]), (&json!(me), &json!("tickets.read")));
    assert_eq!((&claims["sub_profile"], &claims["client_profile"]), (&json!("user"), &json!("ai_agent")));
    assert_eq!(
        (&claims["auth_time"], &claims["acr"], &claims["amr"]),
        (&json!(7), &json!("high"), &json!(["otp"]))
    );
    assert!(!claims.contains_key("roles"));
    let line = t.audit().into_iter().find(|l| l.jti.as_deref() == claims["jti"].as_str()).unwrap();
    assert_eq!((line.on_behalf_of.as_deref(), line.mode.as_deref()), (Some("corp:ann"), Some("delegated")));
    let told = t.introspect("asker", &token).await;
    assert_eq!((&told["active"], &told["act"]["sub"]), (&json!(true), &json!(me)));

    // By may_act, in a token that is for us.
    let by_name = t.stage.idp.token(
        "ann",
        &t.stage.town.issuer,
        60,
        json!({"scope": "tickets.read", "may_act": {"sub": me}}),
    );
    assert_eq!(exchange(&t, &by_name, &[]).await.0, 200);

    t.delete_grant("for-ann").await;
    t.is_active(&token, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_elses_token_does() {
    let t = Test::new("undelegated").await;
    t.apply(&delegation(&t, "")).await;
    let me = t.agent_id("a").await;
    let scope = || json!({"scope": "tickets.read"});
    let idp = &t.stage.idp;
    // Until grant and pod are known.
    let good = idp.token("ann", &me, 600, scope());
    eventually("the delegation is known", SOON, || async {
        let answer = exchange(&t, &good, &[]).await;
        if answer.0 == 200 { Ok(()) } else { Err(answer) }
    })
    .await;
    let other = me.replace(&me[me.len() - 4..], "0000");
    let mut unsigned = good.rsplit_once('.').unwrap().0.to_owned();
    unsigned.push_str(".AAAA");
    for (what, token, more, code) in [
        ("another user", idp.token("bob", &me, 600, scope()), vec![], "invalid_request"),
        ("another agent's", idp.token("ann", &other, 600, scope()), vec![], "invalid_request"),
        (
            "for us, without may_act",
            idp.token("ann", &t.stage.town.issuer, 600, scope()),
            vec![],
            "invalid_request",
        ),
        (
            "may_act of another",
            idp.token("ann", &t.stage.town.issuer, 600, json!({"may_act": {"sub": other}})),
            vec![],
            "invalid_request",
        ),
        ("expired", idp.token("ann", &me, -1, scope()), vec![], "invalid_request"),
        ("unsigned", unsigned, vec![], "invalid_request"),
        ("no scope at all", idp.token("ann", &me, 600, json!({})), vec![], "invalid_scope"),
        (
            "a scope beyond the user's",
            idp.token("ann", &me, 600, scope()),
            vec![("scope", "tickets.write")],
            "invalid_scope",
        ),
        (
            "a scope beyond the grant",
            idp.token("ann", &me, 600, scope()),
            vec![("scope", "x")],
            "invalid_scope",
        ),
        (
            "nowhere",
            idp.token("ann", &me, 600, scope()),
            vec![("audience", "https://nowhere.example.com")],
            "invalid_target",
        ),
    ] {
        let (status, body) = exchange(&t, &token, &more).await;
        assert_eq!((status, body["error"].as_str()), (400, Some(code)), "{what}: {body}");
    }
}

/// Agent `b`, which takes calls, and its pod `q`.
async fn callee(t: &Test, subjects: &str, issuer: &str) {
    t.account("callee").await;
    t.pod("q", "callee").await;
    t.apply(&format!(
        "apiVersion: agentid.dev/v1alpha1\nkind: AgentIdentity\nmetadata: {{name: b}}\nspec: {{serviceAccountName: callee}}\n---\n\
         apiVersion: agentid.dev/v1alpha1\nkind: AgentResource\nmetadata: {{name: $NS-b}}\nspec:\n  audience: https://$NS.b.example.com\n  \
         scopes: [{{name: tickets.read}}]\n  agent: {{namespace: $NS, name: b}}\n  allow: [{{namespaceSelector: {{}}, modes: [Application, Delegation]}}]\n---\n\
         apiVersion: agentid.dev/v1alpha1\nkind: AgentGrant\nmetadata: {{name: call-b}}\nspec: {{agents: {{names: [a]}}, resource: $NS-b, application: {{scopes: [tickets.read]}}}}\n---\n\
         apiVersion: agentid.dev/v1alpha1\nkind: AgentGrant\nmetadata: {{name: b-calls-on}}\nspec: {{agents: {{names: [b]}}, resource: $NS, delegation: {{issuer: '{issuer}', subjects: [{subjects}], scopes: [tickets.read, tickets.write]}}}}\n"
    ))
    .await;
    t.ready("b").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_was_called_calls_on_and_both_must_stand() {
    let t = Test::new("chain").await;
    let a = t.agent_id("a").await;
    callee(&t, &format!("'{a}'"), &t.stage.town.issuer).await;
    let b = t.agent_id("b").await;
    let aud_b = t.fill("https://$NS.b.example.com");
    let sa = t.sa_token().await;
    let call = eventually("a token for b", SOON, || async {
        let (status, body) = t.ask(&sa, &[("resource", &aud_b)]).await;
        body["access_token"].as_str().map(str::to_owned).ok_or_else(|| format!("{status} {body}"))
    })
    .await;
    let sa_b = t.sa_token_for("callee", Some("q"), &t.stage.town.issuer).await;
    let aud = t.aud();
    let on = |subject: &str| {
        let form = [
            ("grant_type", EXCHANGE.to_owned()),
            ("subject_token", subject.to_owned()),
            ("subject_token_type", ACCESS.to_owned()),
            ("client_assertion_type", JWT_BEARER_ASSERTION.to_owned()),
            ("client_assertion", sa_b.clone()),
            ("resource", aud.clone()),
        ];
        let t = &t;
        async move {
            let form: Vec<_> = form.iter().map(|(n, v)| (*n, v.as_str())).collect();
            t.settled("/token", &form).await
        }
    };
    let chained = eventually("a chained token", SOON, || async {
        let (status, body) = on(&call).await;
        body["access_token"].as_str().map(str::to_owned).ok_or_else(|| format!("{status} {body}"))
    })
    .await;
    let claims = t.verified(&chained, &aud, Typ::Access).await.claims;
    assert_eq!((&claims["sub"], &claims["client_id"]), (&json!(a), &json!(b)));
    assert_eq!(claims["act"], json!({"iss": t.stage.town.issuer, "sub": b, "sub_profile": "ai_agent"}));
    assert_eq!(claims["scope"], "tickets.read", "never wider than what b was called with");
    assert!(claims["exp"].as_i64() <= crate::kit::claims(&call)["exp"].as_i64());

    // A token for another resource is nobody's to pass on, and b passes on nothing as pod p.
    let own = t.token(&[]).await;
    let (status, body) = on(&own).await;
    assert_eq!((status, body["error"].as_str()), (400, Some("invalid_request")), "{body}");

    t.is_active(&chained, true).await;
    t.suspend("a", true).await;
    t.is_active(&chained, false).await;
}

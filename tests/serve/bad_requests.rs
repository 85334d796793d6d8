//! What is wrong is refused as tokens.md §6 and the standards say: status, code, headers; and nothing of a credential
//! comes back.

use agentid::crypto::{Algorithm, SigningKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::common::eventually;
use crate::kit::*;

type Form<'a> = Vec<(&'a str, &'a str)>;

/// No part of a credential is in a text: neither its signature nor a stretch of its payload.
fn nothing_of(credential: &str, text: &str, what: &str) {
    for part in credential.split('.').skip(1) {
        for chunk in part.as_bytes().chunks(20).filter(|c| c.len() == 20) {
            let chunk = std::str::from_utf8(chunk).unwrap();
            assert!(!text.contains(chunk), "{what}: a part of the credential comes back");
        }
    }
}

async fn refused(
    t: &Test,
    what: &str,
    path: &str,
    form: &Form<'_>,
    status: u16,
    code: &str,
    credential: &str,
) {
    let (got, headers, body) = t.service().post(path, form).await;
    assert_eq!((got, body["error"].as_str()), (status, Some(code)), "{what}: {body}");
    assert_eq!(headers["cache-control"], "no-store", "{what}");
    assert_eq!(headers["content-type"], "application/json", "{what}");
    let description = body["error_description"].as_str().unwrap();
    assert!(
        description.chars().all(|c| (' '..='~').contains(&c) && c != '"' && c != '\\'),
        "{what}: {description}"
    );
    nothing_of(credential, &format!("{body}{headers:?}"), what);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_of_the_error_table() {
    let t = Test::new("rows").await;
    // All is known once a token was got.
    t.token(&[]).await;
    let sa = t.sa_token().await;
    let issuer = &t.stage.town.issuer;
    let other_aud = t.sa_token_for("runner", Some("p"), "https://other.example.com").await;
    let two = t.sa_token_for("runner", None, issuer).await;
    let stranger = t.sa_token_for("stranger", None, issuer).await;
    let aud = t.aud();
    let base: Form<'_> = vec![
        ("grant_type", "client_credentials"),
        ("client_assertion_type", JWT_BEARER_ASSERTION),
        ("client_assertion", &sa),
        ("resource", &aud),
    ];
    let with = |more: &[(&'static str, &'static str)]| -> Form<'_> {
        let names: Vec<_> = more.iter().map(|(n, _)| *n).collect();
        base.iter().copied().filter(|(n, _)| !names.contains(n)).chain(more.iter().copied()).collect()
    };
    let exchange = |more: &[(&'static str, &'static str)]| -> Form<'_> {
        let mut form = vec![
            ("grant_type", EXCHANGE),
            ("subject_token", sa.as_str()),
            ("subject_token_type", JWT),
            ("resource", aud.as_str()),
        ];
        form.extend(more);
        form
    };
    let mut tampered = sa.clone();
    tampered.replace_range(sa.len() - 6.., "AAAAAA");
    let replace = |assertion: &'static str| with(&[("client_assertion", assertion)]);
    let rows: Vec<(&str, Form<'_>, u16, &str)> = vec![
        ("no grant_type", with(&[("grant_type", "")]), 400, "invalid_request"),
        ("an unknown grant_type", with(&[("grant_type", "password")]), 400, "unsupported_grant_type"),
        (
            "a repeated parameter",
            base.iter().copied().chain([("resource", "https://x.example")]).collect(),
            400,
            "invalid_request",
        ),
        ("no assertion", vec![("grant_type", "client_credentials")], 401, "invalid_client"),
        (
            "half an assertion",
            vec![("grant_type", "client_credentials"), ("client_assertion", &sa)],
            400,
            "invalid_request",
        ),
        ("another assertion type", with(&[("client_assertion_type", "urn:x")]), 401, "invalid_client"),
        ("a client_secret beside it", with(&[("client_secret", "x")]), 400, "invalid_request"),
        ("garbage for an assertion", replace("x.y.z"), 401, "invalid_client"),
        ("a client_id that is none", with(&[("client_id", "../../etc/passwd")]), 401, "invalid_client"),
        ("a client_id of another agent", with(&[("client_id", "elsewhere/a")]), 401, "invalid_client"),
        ("a resource with a fragment", with(&[("resource", "https://x.example/#f")]), 400, "invalid_target"),
        ("a resource that is no URI", with(&[("resource", "tickets")]), 400, "invalid_target"),
        ("an unknown resource", with(&[("resource", "https://nowhere.example.com")]), 400, "invalid_target"),
        ("two targets", with(&[("audience", "https://nowhere.example.com")]), 400, "invalid_target"),
        ("an unknown grant", with(&[("grant", "none")]), 400, "invalid_target"),
        ("a scope that is not held", with(&[("scope", "tickets.write")]), 400, "invalid_scope"),
        ("a scope that is no scope-token", with(&[("scope", "a\"b")]), 400, "invalid_scope"),
        ("an exchange without a subject", vec![("grant_type", EXCHANGE)], 400, "invalid_request"),
        ("half an actor", exchange(&[("actor_token", "x")]), 400, "invalid_request"),
        (
            "an unknown actor type",
            exchange(&[("actor_token", "x"), ("actor_token_type", "urn:x")]),
            400,
            "invalid_request",
        ),
        ("an unknown requested type", exchange(&[("requested_token_type", "urn:x")]), 400, "invalid_request"),
        ("nobody acts", exchange(&[]), 401, "invalid_client"),
        ("jwt-bearer without an assertion", vec![("grant_type", JWT_BEARER)], 400, "invalid_request"),
        (
            "jwt-bearer with garbage",
            vec![("grant_type", JWT_BEARER), ("assertion", "x")],
            400,
            "invalid_grant",
        ),
        (
            "jwt-bearer beside client authentication",
            with(&[("grant_type", JWT_BEARER)]).into_iter().chain([("assertion", sa.as_str())]).collect(),
            400,
            "invalid_request",
        ),
    ];
    for (what, form, status, code) in &rows {
        refused(&t, what, "/token", form, *status, code, &sa).await;
    }
    for (what, token, status, code) in [
        ("a token for another audience", &other_aud, 401, "invalid_client"),
        ("a token bound to no pod", &two, 401, "invalid_client"),
        ("a stranger's token", &stranger, 401, "invalid_client"),
        ("a tampered token", &tampered, 401, "invalid_client"),
    ] {
        let form: Form<'_> = base
            .iter()
            .map(|(n, v)| if *n == "client_assertion" { (*n, token.as_str()) } else { (*n, *v) })
            .collect();
        refused(&t, what, "/token", &form, status, code, token).await;
        refused(&t, what, "/credentials", &form, status, code, token).await;
    }
    refused(&t, "nobody asks", "/introspect", &vec![("token", "x")], 401, "invalid_client", &sa).await;
    refused(&t, "revocation", "/revoke", &vec![("token", &sa)], 400, "unsupported_token_type", &sa).await;
    nothing_of(&sa, &t.service().log_text(), "the log and the audit lines");
    // Every refusal left a line.
    let lines = t.audit().into_iter().filter(|l| l.action == agentid::issue::Action::Refuse).count();
    assert!(lines >= 12, "{lines} lines of refusals");

    t.end_pod("p").await;
    eventually("the pod's token is refused", SOON, || async {
        let (status, body) = t.ask(&sa, &[]).await;
        if status == 401 { Ok(()) } else { Err(body) }
    })
    .await;
}

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_tokens_are_nobodys() {
    let t = Test::new("forged").await;
    let good = t.token(&[]).await;
    let identity = {
        let data = t.secret("a-agentid").await.unwrap().data.unwrap();
        String::from_utf8(data["identity.jwt"].0.clone()).unwrap()
    };
    let [header, payload, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("no JWS") };
    let decoded =
        |part: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    let headed = |change: Value| {
        let mut h = decoded(header);
        for (name, value) in change.as_object().unwrap() {
            h[name] = value.clone();
        }
        format!("{}.{payload}.{signature}", part(&h))
    };
    let said = |change: Value| {
        let mut c = decoded(payload);
        for (name, value) in change.as_object().unwrap() {
            c[name] = value.clone();
        }
        c
    };
    let stranger = SigningKey::generate(Algorithm::ES256).unwrap();
    let mut deep = json!({"iss": "x", "sub": "x"});
    for _ in 0..50 {
        deep = json!({"iss": "x", "sub": "x", "act": deep});
    }
    let list = claims(&good)["status"]["status_list"]["uri"].as_str().unwrap().to_owned();
    let list = t.service().get(list.strip_prefix(&t.stage.town.issuer).unwrap()).await.unwrap().body;
    for (what, token) in [
        ("alg none", format!("{}.{payload}.", part(&json!({"alg": "none", "typ": "at+jwt"})))),
        ("HS256", headed(json!({"alg": "HS256"}))),
        ("RS256 with an ES256 key", headed(json!({"alg": "RS256"}))),
        ("a kid of another place", headed(json!({"kid": "../../../etc/passwd"}))),
        ("a kid of SQL", headed(json!({"kid": "' OR 1=1 --"}))),
        ("jku", headed(json!({"jku": "https://evil.example.com/jwks"}))),
        ("x5u", headed(json!({"x5u": "https://evil.example.com/x"}))),
        ("crit", headed(json!({"crit": ["x"]}))),
        ("another typ", headed(json!({"typ": "JWT"}))),
        ("another's key", stranger.sign("at+jwt", &said(json!({}))).unwrap()),
        ("an actor 50 deep", stranger.sign("at+jwt", &said(json!({"act": deep}))).unwrap()),
        (
            "changed claims",
            format!("{header}.{}.{signature}", part(&said(json!({"scope": "tickets.write"})))),
        ),
        ("a status list", list.trim().to_owned()),
        ("a service-account token", t.sa_token().await),
        ("nothing", "x".to_owned()),
        ("far too long", "x".repeat(20_000)),
    ] {
        assert_eq!(t.introspect("asker", &token).await, json!({"active": false}), "{what}");
    }
    assert_eq!(
        t.introspect("asker", &identity).await,
        json!({"active": false}),
        "the agent's own, not the asker's"
    );
    // Our own tokens authenticate nobody.
    for (what, token) in [("an access token", &good), ("the identity token", &identity)] {
        let (status, body) = t.ask(token, &[]).await;
        assert_eq!((status, body["error"].as_str()), (401, Some("invalid_client")), "{what}: {body}");
    }
}

//! Tokens that somebody has made up, changed or put where they don't belong.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::bad_kit::{post, tells_nothing};
use crate::kit::*;

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// Changes a token's header; its signature stays.
fn headed(token: &str, change: &Value) -> String {
    let mut header = json!(agentid::crypto::inspect(token).unwrap().header);
    for (name, value) in change.as_object().unwrap() {
        header[name] = value.clone();
    }
    let (_, rest) = token.split_once('.').unwrap();
    format!("{}.{rest}", part(&header))
}

/// Changes a token's claims; its signature stays.
fn claiming(token: &str, change: &Value) -> String {
    let mut claims = json!(agentid::crypto::inspect(token).unwrap().claims);
    for (name, value) in change.as_object().unwrap() {
        claims[name] = value.clone();
    }
    let parts: Vec<_> = token.split('.').collect();
    format!("{}.{}.{}", parts[0], part(&claims), parts[2])
}

/// Versions of a token that must be refused wherever it is good.
fn forgeries(token: &str, own_alg: &str) -> Vec<String> {
    let other = if own_alg == "RS256" { "ES256" } else { "RS256" };
    let headers = [
        json!({"alg": "none"}),
        json!({"alg": "HS256"}),
        json!({"alg": other}),
        json!({"kid": "../../etc/passwd"}),
        json!({"kid": "' OR 1=1; DROP TABLE keys --"}),
        json!({"kid": ["x"]}),
        json!({"jku": "https://127.0.0.1:1/keys"}),
        json!({"x5u": "https://127.0.0.1:1/certificate"}),
        json!({"jwk": {"kty": "oct", "k": "AAAA"}}),
        json!({"crit": ["exp"], "exp": 1}),
        json!({"typ": "statuslist+jwt"}),
        json!({"typ": "dpop+jwt"}),
    ];
    let mut act = json!({"sub": "x"});
    for _ in 0..50 {
        act = json!({"sub": "x", "act": act});
    }
    let claims = [
        json!({"exp": 9_999_999_999_i64}),
        json!({"exp": 1}),
        json!({"iat": 9_999_999_999_i64}),
        json!({"act": act}),
        json!({"act": {"iss": "x"}}),
        json!({"pad": "x".repeat(20_000)}),
    ];
    let mut all: Vec<_> = headers.iter().map(|h| headed(token, h)).collect();
    all.extend(claims.iter().map(|c| claiming(token, c)));
    let (unsigned, _) = token.rsplit_once('.').unwrap();
    all.push(format!("{unsigned}."));
    all.push(unsigned.to_owned());
    all.push(format!("{token}A"));
    all.push(format!("{token}.x"));
    all.push(format!("{}{unsigned}.", headed(token, &json!({"alg": "none"}))));
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_tokens_are_refused_in_every_slot() {
    let t = Test::new("bad-tokens").await;
    let good = t.token(&[]).await;
    let sa = t.sa_token().await;
    let user = t.stage.idp.token("eve", &t.agent_id("a").await, 300, json!({}));
    let agent_file = crate::common::eventually("the agent's own token", SOON, || async {
        let data = t.secret("a-agentid").await?.data?;
        String::from_utf8(data.get("identity.jwt")?.0.clone()).ok()
    })
    .await;
    let uri = claims(&good)["status"]["status_list"]["uri"].as_str().unwrap().to_owned();
    let path = uri.strip_prefix(t.stage.town.issuer.as_str()).unwrap();
    let list = t.service().get(path).await.unwrap();
    assert_eq!(list.status, 200, "{}", list.body);

    let mut as_client = forgeries(&sa, "RS256");
    as_client.extend([good.clone(), agent_file.clone(), list.body.clone(), user.clone(), "x".repeat(20_000)]);
    for token in &as_client {
        let form = [
            ("grant_type", "client_credentials"),
            ("client_assertion_type", JWT_BEARER_ASSERTION),
            ("client_assertion", token.as_str()),
        ];
        let answer = post(t.service(), "/token", &[], &form).await;
        answer.is_refused(&format!("client_assertion {token}"), 401, "invalid_client");
        tells_nothing("the answer", &format!("{answer:?}"), &[token]);
        let form = [("grant_type", JWT_BEARER), ("assertion", token.as_str())];
        let answer = post(t.service(), "/token", &[], &form).await;
        answer.is_refused(&format!("assertion {token}"), 400, "invalid_grant");
    }
    let mut as_subject = forgeries(&user, "ES256");
    as_subject.extend(forgeries(&good, "ES256"));
    as_subject.extend([agent_file.clone(), list.body.clone(), sa.clone()]);
    for token in &as_subject {
        let form = [
            ("grant_type", EXCHANGE),
            ("subject_token", token.as_str()),
            ("subject_token_type", JWT),
            ("client_assertion_type", JWT_BEARER_ASSERTION),
            ("client_assertion", &sa),
        ];
        let answer = post(t.service(), "/token", &[], &form).await;
        answer.is_refused(&format!("subject_token {token}"), 400, "invalid_request");
        tells_nothing("the answer", &format!("{answer:?}"), &[token, &sa]);
    }
    let alg = agentid::crypto::inspect(&good).unwrap().header["alg"].as_str().unwrap().to_owned();
    let mut presented = forgeries(&good, &alg);
    presented.extend([list.body.clone(), sa.clone(), user.clone(), "x".repeat(20_000)]);
    let bearer = format!("Bearer {sa}");
    for token in &presented {
        let form = [("token", token.as_str())];
        let answer = post(t.service(), "/introspect", &[("authorization", &bearer)], &form).await;
        assert_eq!((answer.status, answer.json()), (200, json!({"active": false})), "{token}");
    }
    let form = [("token", good.as_str())];
    let answer = post(t.service(), "/introspect", &[("authorization", &bearer)], &form).await;
    assert_eq!(answer.json()["active"], true, "{answer:?}");
    let all: Vec<&str> =
        as_client.iter().chain(&as_subject).filter(|t| t.starts_with("ey")).map(String::as_str).collect();
    tells_nothing("the log", &t.service().log_text(), &all);
}

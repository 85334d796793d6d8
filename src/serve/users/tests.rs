use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{StatusCode, header};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::api::{Reason, UserIssuerSource};
use crate::crypto::{Algorithm, Authority, JwkSet, SigningKey};
use crate::net::listen::{self, Bounds, Handler, Request, Response};
use crate::net::tls::Tls;

const NOW: i64 = 1_795_400_000;

/// What an issuer answers.
#[derive(Clone)]
enum Answer {
    Keys(String, &'static str),
    Redirect,
    Silence,
}

struct Idp {
    url: String,
    named: Mutex<String>,
    answer: Mutex<Answer>,
    hits: AtomicUsize,
}

impl Handler for Idp {
    async fn handle(&self, request: Request) -> Response {
        if request.path.ends_with("openid-configuration") {
            let issuer = self.named.lock().unwrap().clone();
            return listen::json(
                StatusCode::OK,
                &json!({"issuer": issuer, "jwks_uri": format!("{}/keys", self.url)}),
            );
        }
        self.hits.fetch_add(1, Ordering::SeqCst);
        let answer = self.answer.lock().unwrap().clone();
        match answer {
            Answer::Keys(keys, cache) => {
                let mut response = listen::text(StatusCode::OK, keys);
                response.headers_mut().insert(header::CACHE_CONTROL, cache.parse().unwrap());
                response
            }
            Answer::Redirect => {
                let mut response = listen::empty(StatusCode::FOUND);
                let target = format!("{}/elsewhere", self.url);
                response.headers_mut().insert(header::LOCATION, target.parse().unwrap());
                response
            }
            Answer::Silence => std::future::pending().await,
        }
    }
}

struct Bed {
    idp: Arc<Idp>,
    ca: String,
    key: SigningKey,
    users: UserIssuers,
    clock: Clock,
}

fn published(keys: &[&SigningKey]) -> Answer {
    let set: JwkSet = keys.iter().map(|k| k.public_jwk()).collect();
    Answer::Keys(set.to_json(), "max-age=300")
}

fn user_issuer(url: &str, ca: &str, allowed: &[&str]) -> UserIssuer {
    UserIssuer {
        issuer: UserIssuerSource {
            url: url.to_owned(),
            discovery_url: None,
            certificate_authority: Some(ca.to_owned()),
            audiences: Vec::new(),
            allowed_networks: allowed.iter().map(|net| net.parse().unwrap()).collect(),
        },
        subject_prefix: "corp:".to_owned(),
        scopes_apply: true,
        blueprint_audiences: Vec::new(),
        domains: Vec::new(),
    }
}

fn trusting(issuers: Vec<UserIssuer>, clock: &Clock) -> UserIssuers {
    let mut config = Configuration::new("https://agents.example.com", "agents.example.com");
    config.user_issuers = issuers;
    UserIssuers::with_clock(&config, clock)
}

async fn bed() -> Bed {
    let now = Timestamp::now();
    let ca = Authority::generate("test", now, now + Duration::from_secs(3600)).unwrap();
    let issued =
        ca.issue_server(&[], &["127.0.0.1".parse().unwrap()], now, now + Duration::from_secs(600)).unwrap();
    let tls = Tls::new(&issued.chain_pem, issued.key_pem.expose()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let (key, clock) = (SigningKey::generate(Algorithm::ES256).unwrap(), Clock::default());
    let idp = Arc::new(Idp {
        url: url.clone(),
        named: Mutex::new(url.clone()),
        answer: Mutex::new(published(&[&key])),
        hits: AtomicUsize::new(0),
    });
    let (stats, stop) = (Arc::default(), CancellationToken::new());
    tokio::spawn(listen::serve(listener, Some(tls), Bounds::default(), idp.clone(), stats, stop));
    let ca = ca.certificate_pem().to_owned();
    let users = trusting(vec![user_issuer(&url, &ca, &["127.0.0.0/8"])], &clock);
    Bed { idp, ca, key, users, clock }
}

impl Bed {
    fn claims(&self, changes: &Value) -> Value {
        let mut claims = json!({
            "iss": self.idp.url, "sub": "ann", "aud": "x", "exp": NOW + 600, "iat": NOW,
        });
        let claims_map = claims.as_object_mut().unwrap();
        claims_map.extend(changes.as_object().unwrap().clone());
        claims_map.retain(|_, value| !value.is_null());
        claims
    }

    fn token(&self, changes: &Value) -> String {
        self.key.sign("JWT", &self.claims(changes)).unwrap()
    }

    async fn verify(&self, token: &str) -> Result<UserToken, CallerError> {
        self.users.verify(token, Timestamp::from_second(NOW).unwrap()).await
    }

    async fn said(&self, changes: &Value) -> Result<UserToken, CallerError> {
        self.verify(&self.token(changes)).await
    }

    fn hits(&self) -> usize {
        self.idp.hits.load(Ordering::SeqCst)
    }

    fn answer(&self, answer: Answer) {
        *self.idp.answer.lock().unwrap() = answer;
    }
}

#[tokio::test]
async fn a_users_token_is_read() {
    let bed = bed().await;
    let token = bed
        .said(&json!({
            "aud": ["someone-else", "y"], "scope": "read  write", "scp": ["other"],
            "may_act": {"sub": "bot", "iss": "i", "email": "e"},
            "auth_time": NOW - 5, "acr": "high", "amr": ["pwd", "otp"],
        }))
        .await
        .unwrap();
    assert_eq!((&*token.issuer, token.subject.as_str()), (bed.idp.url.as_str(), "ann"));
    assert_eq!(token.principal, "corp:ann");
    assert_eq!(token.audiences, ["someone-else", "y"], "whom it is for is not judged");
    assert_eq!(token.scopes, Some(vec!["read".to_owned(), "write".to_owned()]));
    assert_eq!(token.may_act, Some(MayAct { iss: Some("i".to_owned()), sub: "bot".to_owned() }));
    assert_eq!((token.auth_time, token.acr.as_deref()), (Some(NOW - 5), Some("high")));
    assert_eq!(token.amr, Some(vec!["pwd".to_owned(), "otp".to_owned()]));
    assert!(token.scopes_apply);
    assert_eq!(token.expires_at.as_second(), NOW + 600);

    let scopes = |changes: Value| {
        let bed = &bed;
        async move { bed.said(&changes).await.unwrap().scopes.map(|s| s.join("|")) }
    };
    assert_eq!(scopes(json!({})).await, None);
    assert_eq!(scopes(json!({"scope": ""})).await.as_deref(), Some(""));
    assert_eq!(scopes(json!({"scp": "a b"})).await.as_deref(), Some("a|b"));
    assert_eq!(scopes(json!({"scp": ["a", "b"]})).await.as_deref(), Some("a|b"));
    let told = bed.said(&json!({"auth_time": "then", "acr": 1, "amr": "pwd"})).await.unwrap();
    assert_eq!((told.auth_time, told.acr, told.amr), (None, None, None));
    for typ in ["JWT", "at+jwt", "application/at+jwt"] {
        assert!(bed.verify(&bed.key.sign(typ, &bed.claims(&json!({}))).unwrap()).await.is_ok(), "{typ}");
    }
    assert_eq!(bed.hits(), 1);
}

#[tokio::test]
async fn what_is_wrong_is_refused() {
    let bed = bed().await;
    for changes in
        [json!({"exp": NOW}), json!({"exp": null}), json!({"nbf": NOW + 6}), json!({"iat": NOW + 6})]
    {
        let error = bed.said(&changes).await.unwrap_err();
        assert_eq!(error.reason(), Reason::CredentialRejected, "{changes}: {error}");
    }
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let body = encode(&bed.claims(&json!({})).to_string());
    for header in
        [r#"{"alg":"none"}"#, r#"{"alg":"HS256","kid":"a"}"#, r#"{"alg":"ES256","typ":"logout+jwt"}"#]
    {
        let error = bed.verify(&format!("{}.{body}.AAAA", encode(header))).await.unwrap_err();
        assert_eq!(error.reason(), Reason::CredentialRejected, "{header}: {error}");
    }
    assert_eq!(bed.hits(), 0, "nobody was asked for keys");
    for changes in [
        json!({"sub": null}),
        json!({"sub": ""}),
        json!({"sub": "x".repeat(513)}),
        json!({"sub": "a\nb"}),
        json!({"aud": null}),
        json!({"scope": ["a"]}),
        json!({"scp": [1]}),
        json!({"may_act": "bot"}),
        json!({"act": {"iss": "i", "sub": "bot"}}),
        json!({"may_act": {}}),
        json!({"may_act": {"sub": "bot", "iss": 1}}),
    ] {
        let error = bed.said(&changes).await.unwrap_err();
        assert_eq!(error.reason(), Reason::CredentialRejected, "{changes}: {error}");
    }
    assert!(bed.said(&json!({"sub": "x".repeat(512)})).await.is_ok());
    for iss in [format!("{}/", bed.idp.url), "https://idp.example.com".to_owned()] {
        assert_eq!(bed.said(&json!({"iss": iss})).await.unwrap_err().reason(), Reason::IssuerNotTrusted);
    }
    assert_eq!(bed.hits(), 1);
}

#[tokio::test]
async fn a_rotated_key_is_picked_up_and_strangers_ask_seldom() {
    let mut bed = bed().await;
    bed.said(&json!({})).await.unwrap();
    let before = std::mem::replace(&mut bed.key, SigningKey::generate(Algorithm::ES256).unwrap());
    bed.answer(published(&[&bed.key]));
    bed.said(&json!({})).await.unwrap();
    assert_eq!(bed.hits(), 2);
    let old = before.sign("JWT", &bed.claims(&json!({}))).unwrap();
    for _ in 0..20 {
        assert_eq!(bed.verify(&old).await.unwrap_err().reason(), Reason::CredentialRejected);
    }
    assert_eq!(bed.hits(), 2);
    bed.clock.advance(Duration::from_secs(30));
    for _ in 0..20 {
        assert_eq!(bed.verify(&old).await.unwrap_err().reason(), Reason::CredentialRejected);
    }
    assert_eq!(bed.hits(), 3);
}

#[tokio::test]
async fn an_issuer_with_nothing_usable_makes_its_users_wait() {
    let bed = bed().await;
    let token = bed.token(&json!({}));
    let mut private: Value = serde_json::from_str(&match published(&[&bed.key]) {
        Answer::Keys(keys, _) => keys,
        _ => String::new(),
    })
    .unwrap();
    private["keys"][0]["d"] = "AAAA".into();
    for (n, answer) in [
        Answer::Redirect,
        Answer::Keys("x".repeat((512 << 10) + 1), "no-store"),
        Answer::Keys(private.to_string(), "no-store"),
        Answer::Keys("{}".to_owned(), "no-store"),
    ]
    .into_iter()
    .enumerate()
    {
        bed.answer(answer);
        for _ in 0..5 {
            let error = bed.verify(&token).await.unwrap_err();
            assert!(matches!(error, CallerError::Unavailable { .. }), "{n}: {error}");
        }
        assert_eq!(bed.hits(), n + 1);
        bed.clock.advance(Duration::from_secs(10));
    }
    bed.answer(published(&[&bed.key]));
    bed.verify(&token).await.unwrap();
    // Down, later: the keys that were had go on being used.
    bed.answer(Answer::Redirect);
    bed.clock.advance(Duration::from_secs(23 * 3600));
    bed.verify(&token).await.unwrap();
    while bed.hits() != 6 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_document_of_another_issuer_is_not_believed() {
    let bed = bed().await;
    *bed.idp.named.lock().unwrap() = "https://idp.example.com".to_owned();
    let error = bed.said(&json!({})).await.unwrap_err();
    assert!(matches!(error, CallerError::Unavailable { .. }), "{error}");
    assert_eq!(bed.hits(), 0);
}

#[tokio::test]
async fn nobody_is_reached_inside_unless_it_is_allowed() {
    let bed = bed().await;
    for allowed in [&[][..], &["10.0.0.0/8"]] {
        let users = trusting(vec![user_issuer(&bed.idp.url, &bed.ca, allowed)], &bed.clock);
        let now = Timestamp::from_second(NOW).unwrap();
        let error = users.verify(&bed.token(&json!({})), now).await.unwrap_err();
        assert!(matches!(error, CallerError::Unavailable { .. }), "{error}");
    }
    assert_eq!(bed.hits(), 0);
    bed.said(&json!({})).await.unwrap();
}

#[tokio::test]
async fn a_silent_issuer_harms_its_own_users_alone() {
    let (silent, good) = (bed().await, bed().await);
    silent.answer(Answer::Silence);
    let mut other = user_issuer(&good.idp.url, &good.ca, &["127.0.0.0/8"]);
    other.subject_prefix = "other:".to_owned();
    let users = Arc::new(trusting(
        vec![user_issuer(&silent.idp.url, &silent.ca, &["127.0.0.0/8"]), other],
        &Clock::default(),
    ));
    let now = Timestamp::from_second(NOW).unwrap();
    let waiting = tokio::spawn({
        let (users, token) = (users.clone(), silent.token(&json!({})));
        async move { users.verify(&token, now).await }
    });
    while silent.hits() == 0 {
        tokio::task::yield_now().await;
    }
    let began = std::time::Instant::now();
    let token = users.verify(&good.token(&json!({})), now).await.unwrap();
    assert_eq!(token.principal, "other:ann");
    assert!(!waiting.is_finished() && began.elapsed() < Duration::from_secs(4));
    let error = waiting.await.unwrap().unwrap_err();
    assert!(matches!(error, CallerError::Unavailable { .. }), "{error}");
    assert!(began.elapsed() < Duration::from_secs(8));
}

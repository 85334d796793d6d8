use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;

use super::*;
use crate::api::Reason;
use crate::crypto::{Algorithm, JwkSet, SigningKey};
use crate::domain::Key;

const US: &str = "https://agents.example.com";
const CLUSTER: &str = "https://kubernetes.default.svc";
const NOW: i64 = 1_795_400_000;
const ACCOUNT_UID: &str = "7f3d9a2e-0001-4abc-8def-0123456789ab";
const POD_UID: &str = "7f3d9a2e-0002-4abc-8def-0123456789ab";

/// The API server of a test: `None` is one that says no to everything.
#[derive(Default)]
struct Fake {
    keys: Mutex<Option<ForeignKeys>>,
    reviewed: Mutex<Option<Reviewed>>,
    reads: AtomicUsize,
    reviews: AtomicUsize,
}

fn refused() -> CallError {
    let status = kube::core::Status::failure("no", "Forbidden").with_code(403).boxed();
    CallError::from_kube(kube::Error::Api(status))
}

impl Cluster for Arc<Fake> {
    async fn keys(&self) -> Result<ClusterKeys, CallError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let keys = self.keys.lock().unwrap().clone().ok_or_else(refused)?;
        Ok(ClusterKeys { issuer: CLUSTER.into(), keys })
    }

    async fn review(&self, _: &str, audience: &str) -> Result<Option<Reviewed>, CallError> {
        assert_eq!(audience, US);
        self.reviews.fetch_add(1, Ordering::SeqCst);
        Ok(self.reviewed.lock().unwrap().clone())
    }
}

struct Bed {
    fake: Arc<Fake>,
    callers: Callers<Arc<Fake>>,
    clock: Clock,
    key: SigningKey,
}

fn new_key() -> SigningKey {
    SigningKey::generate(Algorithm::ES256).unwrap()
}

fn set(keys: &[&SigningKey]) -> ForeignKeys {
    let set: JwkSet = keys.iter().map(|k| k.public_jwk()).collect();
    ForeignKeys::parse(&set.to_json()).unwrap()
}

fn bed(with_keys: bool) -> Bed {
    let (fake, clock, key) = (Arc::<Fake>::default(), Clock::default(), new_key());
    *fake.keys.lock().unwrap() = with_keys.then(|| set(&[&key]));
    let callers = Callers::with_clock(fake.clone(), US, clock.clone());
    Bed { fake, callers, clock, key }
}

fn claims() -> Value {
    json!({
        "iss": CLUSTER, "aud": [US], "exp": NOW + 600, "iat": NOW, "nbf": NOW, "jti": "j-1",
        "sub": "system:serviceaccount:shop:bot",
        "kubernetes.io": {
            "namespace": "shop",
            "node": {"name": "n", "uid": POD_UID},
            "pod": {"name": "bot-0", "uid": POD_UID},
            "serviceaccount": {"name": "bot", "uid": ACCOUNT_UID},
        },
    })
}

/// The claims with one changed, by its path; null takes it out.
fn but(path: &str, value: Value) -> Value {
    let mut claims = claims();
    let (parent, member) = path.rsplit_once('/').unwrap();
    let parent = claims.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    if value.is_null() {
        parent.remove(member)
    } else {
        parent.insert(member.to_owned(), value)
    };
    claims
}

impl Bed {
    fn token(&self, claims: &Value) -> String {
        self.key.sign("JWT", claims).unwrap()
    }

    async fn verify(&self, token: &str) -> Result<ServiceAccountToken, CallerError> {
        self.callers.verify(token, Timestamp::from_second(NOW).unwrap()).await
    }

    /// How often the keys were read, and tokens reviewed.
    fn calls(&self) -> (usize, usize) {
        (self.fake.reads.load(Ordering::SeqCst), self.fake.reviews.load(Ordering::SeqCst))
    }
}

fn reviewed() -> Reviewed {
    Reviewed {
        username: "system:serviceaccount:shop:bot".to_owned(),
        uid: ACCOUNT_UID.to_owned(),
        pod: Some(("bot-0".to_owned(), POD_UID.to_owned())),
    }
}

/// Tokens, truly signed, that are refused without any key; with what is wrong.
fn hopeless() -> Vec<(&'static str, Value)> {
    vec![
        ("/exp", json!(NOW)),
        ("/exp", json!(NOW - 1)),
        ("/exp", Value::Null),
        ("/exp", json!("soon")),
        ("/iat", json!(NOW + 6)),
        ("/nbf", json!(NOW + 6)),
        ("/aud", Value::Null),
        ("/aud", json!([])),
        ("/aud", json!(["https://elsewhere.example.com"])),
        ("/aud", json!([US, "https://elsewhere.example.com"])),
        ("/iss", Value::Null),
        ("/iss", json!("")),
        ("/sub", json!("system:serviceaccount:shop:other")),
        ("/sub", json!("ann")),
        ("/sub", Value::Null),
        ("/jti", json!(1)),
        ("/kubernetes.io", Value::Null),
        ("/kubernetes.io/namespace", json!("other")),
        ("/kubernetes.io/namespace", json!("")),
        ("/kubernetes.io/serviceaccount/name", json!("other")),
        ("/kubernetes.io/serviceaccount/uid", json!("x")),
        ("/kubernetes.io/serviceaccount/uid", Value::Null),
        ("/kubernetes.io/serviceaccount", Value::Null),
        ("/kubernetes.io/pod", json!("bot-0")),
        ("/kubernetes.io/pod/uid", Value::Null),
        ("/kubernetes.io/pod/name", json!("BOT\n")),
    ]
}

#[tokio::test]
async fn a_projected_token_says_who_calls() {
    let bed = bed(true);
    let found = bed.verify(&bed.token(&claims())).await.unwrap();
    assert_eq!(found.account, Key::new("shop", "bot"));
    assert_eq!(found.account_uid.to_string(), ACCOUNT_UID);
    assert_eq!(found.pod, Some(("bot-0".into(), POD_UID.parse().unwrap())));
    assert_eq!(found.expires_at.as_second(), NOW + 600);
    assert_eq!(found.jti.as_deref(), Some("j-1"));
    for (path, value) in [
        ("/kubernetes.io/pod", Value::Null),
        ("/iat", json!(NOW + 5)),
        ("/nbf", json!(NOW + 5)),
        ("/exp", json!(NOW + 1)),
        ("/aud", json!(US)),
        ("/jti", Value::Null),
    ] {
        bed.verify(&bed.token(&but(path, value))).await.unwrap();
    }
    assert_eq!(bed.calls(), (1, 0));
}

#[tokio::test]
async fn what_is_wrong_is_refused_and_never_reaches_the_api_server() {
    for with_keys in [true, false] {
        let bed = bed(with_keys);
        let stranger = new_key();
        for (path, value) in hopeless() {
            let claims = but(path, value);
            for key in [&bed.key, &stranger] {
                let error = bed.verify(&key.sign("JWT", &claims).unwrap()).await.unwrap_err();
                assert_eq!(error.reason(), Reason::CredentialRejected, "{path}: {error}");
            }
        }
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let body = encode(&claims().to_string());
        for header in [
            r#"{"alg":"none"}"#,
            r#"{"alg":"HS256","kid":"a"}"#,
            r#"{"alg":"ES256","kid":"a","crit":["b64"]}"#,
            r#"{"alg":"ES256","kid":"a","typ":"at+jwt"}"#,
        ] {
            let error = bed.verify(&format!("{}.{body}.AAAA", encode(header))).await.unwrap_err();
            assert_eq!(error.reason(), Reason::CredentialRejected, "{header}: {error}");
        }
        for garbage in ["", "a.b.c", "opaque", &"x".repeat(1 << 20)] {
            assert!(bed.verify(garbage).await.is_err());
        }
        assert_eq!(bed.calls(), (0, 0));
    }
}

#[tokio::test]
async fn no_stranger_asks_more_than_once_for_keys() {
    let bed = bed(true);
    assert!(bed.callers.prepare().await);
    let error = bed.verify(&bed.token(&but("/iss", json!("https://idp.example.com")))).await.unwrap_err();
    assert_eq!(error.reason(), Reason::IssuerNotTrusted);
    let stranger = new_key();
    for _ in 0..20 {
        let error = bed.verify(&stranger.sign("JWT", &claims()).unwrap()).await.unwrap_err();
        assert_eq!(error.reason(), Reason::CredentialRejected, "{error}");
    }
    assert_eq!(bed.calls(), (2, 0));
    let signed = bed.token(&claims());
    let mut other = bed.token(&but("/sub", json!("system:serviceaccount:shop:bot")));
    other.truncate(other.rfind('.').unwrap());
    let forged = format!("{other}.{}", &stranger.sign("JWT", &claims()).unwrap().rsplit('.').next().unwrap());
    assert!(bed.verify(&signed).await.is_ok());
    assert_eq!(bed.verify(&forged).await.unwrap_err().to_string(), "the signature does not match");
    assert_eq!(bed.calls(), (2, 0));
}

#[tokio::test]
async fn a_new_key_of_the_cluster_is_picked_up_at_once() {
    let mut bed = bed(true);
    assert!(bed.callers.prepare().await);
    let before = std::mem::replace(&mut bed.key, new_key());
    *bed.fake.keys.lock().unwrap() = Some(set(&[&before, &bed.key]));
    let tokens = [bed.token(&claims()), before.sign("JWT", &claims()).unwrap()];
    for token in &tokens {
        bed.verify(token).await.unwrap();
    }
    assert_eq!(bed.calls(), (2, 0));
    *bed.fake.keys.lock().unwrap() = Some(set(&[&bed.key]));
    bed.clock.advance(FRESH);
    bed.verify(&tokens[1]).await.unwrap();
    while bed.calls() != (3, 0) || bed.verify(&tokens[1]).await.is_ok() {
        tokio::task::yield_now().await;
    }
    bed.verify(&tokens[0]).await.unwrap();
}

#[tokio::test]
async fn without_keys_the_api_server_is_asked_and_its_answer_remembered() {
    let bed = bed(false);
    *bed.fake.reviewed.lock().unwrap() = Some(reviewed());
    let token = bed.token(&claims());
    for _ in 0..5 {
        assert_eq!(bed.verify(&token).await.unwrap().account, Key::new("shop", "bot"));
    }
    assert_eq!(bed.calls(), (1, 1));
    *bed.fake.reviewed.lock().unwrap() = None;
    bed.clock.advance(Duration::from_millis(9_900));
    bed.verify(&token).await.unwrap();
    bed.clock.advance(Duration::from_millis(200));
    for _ in 0..5 {
        let error = bed.verify(&token).await.unwrap_err();
        assert_eq!(error.reason(), Reason::CredentialRejected, "{error}");
    }
    assert_eq!(bed.calls().1, 2);
    *bed.fake.reviewed.lock().unwrap() = Some(reviewed());
    bed.clock.advance(Duration::from_millis(5_100));
    bed.verify(&token).await.unwrap();
}

#[tokio::test]
async fn a_review_must_say_what_the_token_says() {
    let bed = bed(false);
    let other = |change: fn(&mut Reviewed)| {
        let mut reviewed = reviewed();
        change(&mut reviewed);
        reviewed
    };
    for (n, wrong) in [
        other(|r| r.username = "system:serviceaccount:shop:other".to_owned()),
        other(|r| r.uid = POD_UID.to_owned()),
        other(|r| r.uid = String::new()),
        other(|r| r.pod = None),
        other(|r| r.pod = Some(("bot-0".to_owned(), ACCOUNT_UID.to_owned()))),
        other(|r| r.pod = Some(("bot-1".to_owned(), POD_UID.to_owned()))),
    ]
    .into_iter()
    .enumerate()
    {
        *bed.fake.reviewed.lock().unwrap() = Some(wrong.clone());
        let token = bed.token(&but("/jti", json!(n.to_string())));
        assert_eq!(bed.verify(&token).await.unwrap_err().reason(), Reason::CredentialRejected, "{wrong:?}");
    }
    assert_eq!(bed.calls().1, 6);
}

#[tokio::test]
async fn reviews_are_rationed() {
    let bed = bed(false);
    let mut later = 0;
    for n in 0..100 {
        let token = bed.token(&but("/jti", json!(n.to_string())));
        later += usize::from(bed.verify(&token).await.unwrap_err().reason() == Reason::Unknown);
    }
    assert!(later > 0, "some were told to come again");
    assert_eq!(bed.calls().1, 100 - later);
}

#[tokio::test]
async fn strangers_make_no_known_token_be_forgotten() {
    let bed = bed(true);
    let token = bed.token(&claims());
    bed.verify(&token).await.unwrap();
    let knows = async || {
        let keys = bed.callers.keys.get().await.unwrap();
        bed.callers.known.get(&Print::of(&token), &keys, Timestamp::from_second(NOW).unwrap()).is_some()
    };
    assert!(knows().await);
    // A key that nobody publishes: the cluster's are read again, and are the same.
    let read = bed.calls().0;
    bed.verify(&new_key().sign("JWT", &claims()).unwrap()).await.unwrap_err();
    assert_eq!(bed.calls().0, read + 1);
    assert!(knows().await);
    // Others are not.
    *bed.fake.keys.lock().unwrap() = Some(set(&[&bed.key, &new_key()]));
    bed.clock.advance(TIMES.unknown);
    bed.verify(&new_key().sign("JWT", &claims()).unwrap()).await.unwrap_err();
    assert!(!knows().await);
}

#[tokio::test]
async fn a_known_token_ends_as_every_other() {
    let bed = bed(true);
    let token = bed.token(&claims());
    let at = |second| bed.callers.verify(&token, Timestamp::from_second(second).unwrap());
    let known = at(NOW).await.unwrap();
    assert_eq!(at(NOW + 599).await.unwrap(), known);
    assert_eq!(at(NOW + 600).await.unwrap_err().reason(), Reason::CredentialRejected, "it has expired");
    assert_eq!(at(NOW - 6).await.unwrap_err().reason(), Reason::CredentialRejected, "it is of the future");
    assert_eq!(bed.calls(), (1, 0));
}

/// A cluster that names another issuer by and by.
struct Renamed {
    issuer: Mutex<&'static str>,
    keys: ForeignKeys,
    reads: AtomicUsize,
}

impl Cluster for Arc<Renamed> {
    async fn keys(&self) -> Result<ClusterKeys, CallError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        Ok(ClusterKeys { issuer: (*self.issuer.lock().unwrap()).into(), keys: self.keys.clone() })
    }

    async fn review(&self, _: &str, _: &str) -> Result<Option<Reviewed>, CallError> {
        Ok(None)
    }
}

#[tokio::test]
async fn a_new_issuer_of_the_cluster_is_learnt() {
    let (key, clock) = (new_key(), Clock::default());
    let cluster =
        Arc::new(Renamed { issuer: Mutex::new(CLUSTER), keys: set(&[&key]), reads: AtomicUsize::new(0) });
    let callers = Callers::with_clock(cluster.clone(), US, clock.clone());
    assert!(callers.prepare().await);
    *cluster.issuer.lock().unwrap() = "https://new.example.com";
    let token = key.sign("JWT", &but("/iss", json!("https://new.example.com"))).unwrap();
    let verify = || callers.verify(&token, Timestamp::from_second(NOW).unwrap());
    for _ in 0..20 {
        assert_eq!(verify().await.unwrap_err().reason(), Reason::IssuerNotTrusted);
    }
    assert_eq!(cluster.reads.load(Ordering::SeqCst), 1, "a foreign issuer is no cause to ask");
    clock.advance(FRESH);
    for _ in 0..1000 {
        if verify().await.is_ok() {
            break;
        }
        tokio::task::yield_now().await;
    }
    verify().await.unwrap();
    assert_eq!(cluster.reads.load(Ordering::SeqCst), 2);
}

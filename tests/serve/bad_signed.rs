//! Tokens of trusted signers that are wrong in exactly one thing, beside the one that is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use agentid::api::SigningAlgorithm;
use agentid::cluster::keystore::KeyStore;
use agentid::crypto::{Algorithm, SigningKey};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::bad_kit::{Answer, post, tells_nothing};
use crate::forge::{Draft, fifty_actors, public, seal, unsigned};
use crate::kit::*;
use crate::{chain, checks};

fn now() -> i64 {
    Timestamp::now().as_second()
}

/// An exchange by the agent of a pod.
async fn exchanged(t: &Test, own: &str, subject: &str, resource: &str) -> Answer {
    let form = [
        ("grant_type", EXCHANGE),
        ("subject_token", subject),
        ("subject_token_type", ACCESS),
        ("client_assertion_type", JWT_BEARER_ASSERTION),
        ("client_assertion", own),
        ("resource", resource),
    ];
    post(t.service(), "/token", &[], &form).await
}

/// A refused exchange: nobody authenticated by header, so nobody is challenged.
fn is_refused_exchange(what: &str, answer: &Answer, credentials: &[&str]) {
    answer.is_refused(what, 400, "invalid_request");
    assert!(!answer.headers.contains_key("www-authenticate"), "{what}: {answer:?}");
    tells_nothing(what, &format!("{answer:?}"), credentials);
}

/// An address that counts who comes.
async fn bait() -> (String, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, came) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = came.clone();
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    (format!("https://{address}/keys"), came)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_token_that_is_wrong_in_one_thing_is_refused() {
    let t = Test::new("signed-user").await;
    t.delegate_ann().await;
    t.apply(&AGENT.replace("name: a", "name: b").replace("runner", "another")).await;
    let (me, other) = (t.agent_id("a").await, t.agent_id("b").await);
    let user = t.ann(&me);
    t.delegated(&user, &[]).await;
    let (own, aud) = (t.sa_token().await, t.aud());
    let keys = t.stage.idp.keys();
    let [key, rsa] = &keys[..] else { panic!("{} keys", keys.len()) };
    assert_eq!(rsa.algorithm(), Algorithm::RS256);
    let good = Draft::of(&user);
    let stranger = SigningKey::generate(Algorithm::ES256).unwrap();
    let jwk: Value = serde_json::to_value(stranger.public_jwk()).unwrap();
    let (der, pem) = public(key);
    let hs256 = good.head(json!({"alg": "HS256"}));
    let (rsa_der, rsa_pem) = public(rsa);
    let hs256_rsa = hs256.head(json!({"kid": rsa.kid()}));
    let (header, claims) = (good.header.to_string(), good.claims.to_string());
    let twice = |text: &str, member: &str| text.replacen('{', &format!("{{{member},"), 1);
    let (bait, came) = bait().await;

    let wrong = [
        ("typ of a status list", good.head(json!({"typ": "statuslist+jwt"})).sign(key)),
        ("typ of a proof", good.head(json!({"typ": "dpop+jwt"})).sign(key)),
        ("typ that is no text", good.head(json!({"typ": ["JWT"]})).sign(key)),
        ("alg none", good.head(json!({"alg": "none"})).bare()),
        ("no alg", good.head(json!({"alg": null})).sign(key)),
        ("HS256 by the public key in DER", hs256.hmac(&der)),
        ("HS256 by the public key in PEM", hs256.hmac(pem.as_bytes())),
        ("HS256 by the RSA key in DER", hs256_rsa.hmac(&rsa_der)),
        ("HS256 by the RSA key in PEM", hs256_rsa.hmac(rsa_pem.as_bytes())),
        ("ES256 by the kid of the RSA key", good.head(json!({"kid": rsa.kid()})).sign(key)),
        ("RS256 by the kid of the EC key", good.head(json!({"alg": "RS256"})).sign(rsa)),
        ("crit", good.head(json!({"crit": ["x"], "x": 1})).sign(key)),
        ("crit of nothing", good.head(json!({"crit": []})).sign(key)),
        ("a kid that is a path", good.head(json!({"kid": "../../etc/passwd"})).sign(key)),
        ("a kid that is SQL", good.head(json!({"kid": "' OR 1=1 --"})).sign(key)),
        ("a kid that is no text", good.head(json!({"kid": [key.kid()]})).sign(key)),
        ("a stranger's key", good.sign(&stranger)),
        ("a stranger's key, brought along", good.head(json!({"jwk": jwk})).sign(&stranger)),
        ("a stranger's key, linked to", good.head(json!({"jku": bait})).sign(&stranger)),
        ("a stranger's certificate, linked to", good.head(json!({"x5u": bait})).sign(&stranger)),
        ("a header that says alg twice", seal(&unsigned(&twice(&header, "\"alg\":\"none\""), &claims), key)),
        ("claims that say sub twice", seal(&unsigned(&header, &twice(&claims, "\"sub\":\"bob\"")), key)),
        ("claims that are no object", seal(&unsigned(&header, "[]"), key)),
        ("expired by a second", good.say(json!({"exp": now() - 1})).sign(key)),
        ("no exp", good.say(json!({"exp": null})).sign(key)),
        ("exp as text", good.say(json!({"exp": (now() + 60).to_string()})).sign(key)),
        ("iat in the future", good.say(json!({"iat": now() + 60})).sign(key)),
        ("nbf in the future", good.say(json!({"nbf": now() + 60})).sign(key)),
        ("another agent's", good.say(json!({"aud": other})).sign(key)),
        ("the agent's id and more", good.say(json!({"aud": format!("{me}0")})).sign(key)),
        ("no aud", good.say(json!({"aud": null})).sign(key)),
        ("another subject", good.say(json!({"sub": "bob"})).sign(key)),
        ("an empty sub", good.say(json!({"sub": ""})).sign(key)),
        ("a sub of two lines", good.say(json!({"sub": "ann\nbob"})).sign(key)),
        ("a scope that is no text", good.say(json!({"scope": ["tickets.read"]})).sign(key)),
        ("a may_act that is no object", good.say(json!({"may_act": "x"})).sign(key)),
        (
            "somebody acts already",
            good.say(json!({"act": {"iss": "https://x.example", "sub": "x"}})).sign(key),
        ),
        ("fifty act already", good.say(json!({"act": fifty_actors()})).sign(key)),
        (
            "an issuer with a slash more",
            good.say(json!({"iss": format!("{}/", t.stage.idp.issuer)})).sign(key),
        ),
        ("our own issuer", good.say(json!({"iss": t.stage.town.issuer})).sign(key)),
        ("far too long", good.say(json!({"pad": "x".repeat(20_000)})).sign(key)),
    ];
    for (what, token) in &wrong {
        let answer = exchanged(&t, &own, token, &aud).await;
        is_refused_exchange(what, &answer, &[token, &own]);
    }
    // What is beside the point changes nothing: links are not followed, a key that is brought along is not used.
    for (what, token) in [
        ("the same", good.sign(key)),
        ("an RSA key", good.head(json!({"alg": "RS256", "kid": rsa.kid()})).sign(rsa)),
        ("links", good.head(json!({"jku": bait, "x5u": bait})).sign(key)),
        ("a stranger's key beside the right one", good.head(json!({"jwk": jwk})).sign(key)),
    ] {
        let answer = exchanged(&t, &own, &token, &aud).await;
        assert_eq!(answer.status, 200, "{what}: {answer:?}");
    }
    assert_eq!(came.load(Ordering::SeqCst), 0, "a link in a header was followed");
    let all: Vec<_> = wrong.iter().map(|(_, token)| token.as_str()).collect();
    tells_nothing("the log", &t.service().log_text(), &all);
}

/// By our own keys, as somebody could who has got hold of them or found a way to have them sign.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_ours_that_is_wrong_in_one_thing_is_inactive() {
    let t = Test::new("signed-ours").await;
    t.apply(&AGENT.replace("name: a", "name: b").replace("runner", "another")).await;
    t.apply(&GRANT.replace("name: tickets", "name: of-b").replace("[a]", "[b]")).await;
    t.ready("b").await;
    let of_b = crate::common::eventually("the other agent's token", SOON, || async {
        let data = t.secret("b-agentid").await?.data?;
        String::from_utf8(data.get("tickets.jwt")?.0.clone()).ok()
    })
    .await;
    let entry_of_b = claims(&of_b)["status"]["status_list"].clone();
    let token = t.token(&[]).await;
    let ring = KeyStore::new(t.client.clone(), &t.stage.town.namespace).load().await.unwrap();
    let key = ring.signer(SigningAlgorithm::ES256).unwrap();
    let (rsa, of_lists) = (ring.signer(SigningAlgorithm::RS256).unwrap(), ring.status_signer().unwrap());
    let good = Draft::of(&token);
    let own = |changes: Value| {
        let mut claim = good.claims["agentid.dev"].clone();
        claim.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        good.say(json!({"agentid.dev": claim}))
    };
    let status = |changes: Value| {
        let mut entry = good.claims["status"]["status_list"].clone();
        entry.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        good.say(json!({"status": {"status_list": entry}}))
    };
    let b = t.agent("b").await.unwrap().metadata.uid.unwrap();
    let (der, pem) = public(key);
    let hs256 = good.head(json!({"alg": "HS256"}));
    let wrong = [
        ("typ of an identity token", good.head(json!({"typ": "JWT"})).sign(key)),
        ("typ of a status list", good.head(json!({"typ": "statuslist+jwt"})).sign(key)),
        ("no typ", good.head(json!({"typ": null})).sign(key)),
        ("HS256 by the public key in DER", hs256.hmac(&der)),
        ("HS256 by the public key in PEM", hs256.hmac(pem.as_bytes())),
        ("alg none", good.head(json!({"alg": "none"})).bare()),
        ("ES256 by the kid of the RSA key", good.head(json!({"kid": rsa.kid()})).sign(key)),
        ("the key of status lists", good.head(json!({"kid": of_lists.kid()})).sign(of_lists)),
        ("crit", good.head(json!({"crit": ["x"], "x": 1})).sign(key)),
        ("a kid that is a path", good.head(json!({"kid": "../../etc/passwd"})).sign(key)),
        ("expired by a second", good.say(json!({"exp": now() - 1})).sign(key)),
        ("no exp", good.say(json!({"exp": null})).sign(key)),
        ("iat in the future", good.say(json!({"iat": now() + 60})).sign(key)),
        ("nbf in the future", good.say(json!({"nbf": now() + 60})).sign(key)),
        ("another issuer", good.say(json!({"iss": "https://elsewhere.example.com"})).sign(key)),
        ("another audience", good.say(json!({"aud": "https://elsewhere.example.com"})).sign(key)),
        ("two audiences", good.say(json!({"aud": [t.aud(), "https://elsewhere.example.com"]})).sign(key)),
        ("fifty actors", good.say(json!({"act": fifty_actors()})).sign(key)),
        ("a scope that is not held", good.say(json!({"scope": "tickets.read tickets.write"})).sign(key)),
        ("a role that is not held", good.say(json!({"roles": ["triager", "admin"]})).sign(key)),
        ("another agent", own(json!({"uid": b})).sign(key)),
        ("no such agent", own(json!({"uid": "00000000-0000-4000-8000-000000000000"})).sign(key)),
        ("no such grant", own(json!({"grant": "00000000-0000-4000-8000-000000000000"})).sign(key)),
        ("another agent's entry", status(entry_of_b).sign(key)),
        ("an entry that is no number", status(json!({"idx": "0"})).sign(key)),
        ("no status", good.say(json!({"status": null})).sign(key)),
        ("a list elsewhere", status(json!({"uri": "https://elsewhere.example.com/statuslists/1"})).sign(key)),
    ];
    let asker = t.sa_token_for("asker", None, &t.stage.town.issuer).await;
    let bearer = format!("Bearer {asker}");
    let path = t.fill("/verify/$NS");
    for (what, token) in &wrong {
        let form = [("token", token.as_str())];
        let answer = post(t.service(), "/introspect", &[("authorization", &bearer)], &form).await;
        assert_eq!((answer.status, answer.json()), (200, json!({"active": false})), "{what}: {answer:?}");
        assert_eq!(answer.header("cache-control"), "no-store", "{what}");
        let (code, headers) = checks::verify(&t, &path, Some(&format!("Bearer {token}"))).await;
        assert_eq!(code, 401, "{what}: {headers:?}");
        assert!(headers["www-authenticate"].contains("error=\"invalid_token\""), "{what}: {headers:?}");
        tells_nothing(what, &format!("{headers:?}"), &[token, &asker]);
    }
    for (what, token) in [
        ("the same", good.sign(key)),
        ("an RSA key", { good.head(json!({"alg": "RS256", "kid": rsa.kid()})).sign(rsa) }),
    ] {
        let answer =
            post(t.service(), "/introspect", &[("authorization", &bearer)], &[("token", &token)]).await;
        assert_eq!(answer.json()["active"], true, "{what}: {answer:?}");
        assert_eq!(checks::verify(&t, &path, Some(&format!("Bearer {token}"))).await.0, 200, "{what}");
    }
    // The identity token of the Secret is the agent's own affair.
    let identity = t.secret("a-agentid").await.unwrap().data.unwrap()["identity.jwt"].0.clone();
    let identity = String::from_utf8(identity).unwrap();
    assert_eq!(t.introspect("asker", &identity).await, json!({"active": false}));
    let all: Vec<_> = wrong.iter().map(|(_, token)| token.as_str()).collect();
    tells_nothing("the log", &t.service().log_text(), &all);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handed_over_token_that_is_wrong_in_one_thing_is_passed_on_by_nobody() {
    let t = chain::town("signed-chain").await;
    let called = chain::call(&t).await;
    chain::pass_on(&t, &called).await;
    let ring = KeyStore::new(t.client.clone(), &t.stage.town.namespace).load().await.unwrap();
    let (key, of_lists) = (ring.signer(SigningAlgorithm::ES256).unwrap(), ring.status_signer().unwrap());
    let good = Draft::of(&called);
    let (account, pod) = chain::B;
    let own = t.sa_token_for(account, Some(pod), &t.stage.town.issuer).await;
    let aud = t.aud();
    let identity = t.secret("b-agentid").await.unwrap().data.unwrap()["identity.jwt"].0.clone();
    let wrong = [
        ("the identity token of the agent's Secret", String::from_utf8(identity).unwrap()),
        ("typ of an identity token", good.head(json!({"typ": "JWT"})).sign(key)),
        ("the key of status lists", good.head(json!({"kid": of_lists.kid()})).sign(of_lists)),
        ("expired by a second", good.say(json!({"exp": now() - 1})).sign(key)),
        ("iat in the future", good.say(json!({"iat": now() + 60})).sign(key)),
        ("another audience", good.say(json!({"aud": aud})).sign(key)),
        ("fifty actors", good.say(json!({"act": fifty_actors()})).sign(key)),
        ("no status", good.say(json!({"status": null})).sign(key)),
        ("crit", good.head(json!({"crit": ["x"], "x": 1})).sign(key)),
    ];
    for (what, token) in &wrong {
        let answer = exchanged(&t, &own, token, &aud).await;
        is_refused_exchange(what, &answer, &[token, &own]);
    }
    let answer = exchanged(&t, &own, &good.sign(key), &aud).await;
    assert_eq!(answer.status, 200, "the same with nothing wrong: {answer:?}");
}

/// Tokens that the cluster has signed, for somebody or some time else.
#[tokio::test(flavor = "multi_thread")]
async fn a_pods_token_is_good_for_its_own_agent_and_its_own_life() {
    let t = Test::new("signed-pod").await;
    t.apply(&GRANT.replace("name: tickets", "name: of-ended").replace("[a]", "[ended]")).await;
    for name in ["b", "ended"] {
        t.account(name).await;
        t.pod(name, name).await;
        t.apply(&AGENT.replace("name: a", &format!("name: {name}")).replace("runner", name)).await;
        t.ready(name).await;
    }
    let issuer = t.stage.town.issuer.as_str();
    let (a, b) = (t.agent_id("a").await, t.agent_id("b").await);
    t.token(&[]).await;
    let (own, ended) = (t.sa_token().await, t.sa_token_for("ended", Some("ended"), issuer).await);
    let unbound = t.sa_token_for("runner", None, issuer).await;
    let of_b = t.sa_token_for("b", Some("b"), issuer).await;
    // Known, and then gone for a second.
    let its_own = until_bought(&t, &ended).await;
    t.end_pod("ended").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    // At once it buys nothing, but as long as its token is new its pod might as well not have been seen yet.
    assert_eq!(t.ask(&ended, &[]).await.0, 401);
    for (what, token, client_id) in [
        ("a token that is bound to no pod", &unbound, None),
        ("another agent's pod", &of_b, Some(a.as_str())),
        ("this agent's pod for another", &own, Some(b.as_str())),
        ("a pod that has ended", &ended, None),
    ] {
        let named: Vec<_> = client_id.map(|id| ("client_id", id)).into_iter().collect();
        let client = [("client_assertion_type", JWT_BEARER_ASSERTION), ("client_assertion", token.as_str())];
        for path in ["/token", "/credentials"] {
            let form = [&[("grant_type", "client_credentials")], &client[..], &named].concat();
            let answer = post(t.service(), path, &[], &form).await;
            answer.is_refused(&format!("{what} at {path}"), 401, "invalid_client");
            assert!(!answer.headers.contains_key("www-authenticate"), "{what}: {answer:?}");
            tells_nothing(what, &format!("{answer:?}"), &[token]);
        }
        let subject = [("grant_type", EXCHANGE), ("subject_token", token), ("subject_token_type", JWT)];
        let form = [&subject[..], &[("requested_token_type", JWT)], &named].concat();
        post(t.service(), "/token", &[], &form).await.is_refused(what, 400, "invalid_request");
    }
    // As an introspector it is authenticated by its account alone, and as no agent it learns nothing.
    let bearer = format!("Bearer {ended}");
    let form = [("token", its_own.as_str())];
    let answer = post(t.service(), "/introspect", &[("authorization", &bearer)], &form).await;
    assert_eq!((answer.status, answer.json()), (200, json!({"active": false})), "{answer:?}");
    assert_eq!(t.introspect("asker", &its_own).await["active"], true, "the agent itself stands");
    tells_nothing("the log", &t.service().log_text(), &[&own, &ended, &unbound, &of_b]);
    assert_eq!(t.ask(&own, &[("client_id", &a)]).await.0, 200, "what is good is still taken");
}

/// What a pod's token buys, once the pod is known.
async fn until_bought(t: &Test, token: &str) -> String {
    crate::common::eventually("a token", SOON, || async {
        let (status, body) = t.ask(token, &[]).await;
        body["access_token"].as_str().map(str::to_owned).ok_or_else(|| format!("{status} {body}"))
    })
    .await
}

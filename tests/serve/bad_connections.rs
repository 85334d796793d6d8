//! Clients that are large, slow, many or speak nonsense, beside one that does not.

use std::time::{Duration, Instant};

use agentid::crypto::{Algorithm, SigningKey};
use agentid::net::fetch::{FetchOptions, Guard, Roots, post_form};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bad_kit::{FORM, connection, host, post, rest, send};
use crate::common::{ControlPlane, audit, unique};
use crate::forge::Draft;
use crate::kit::*;
use crate::service::free_port;

#[tokio::test(flavor = "multi_thread")]
async fn bad_sizes_are_refused_quickly() {
    let t = Test::bare("bad-size").await;
    let began = Instant::now();
    for path in ["/token", "/introspect", "/revoke", "/credentials"] {
        let body = format!("token={}", "x".repeat(1 << 20));
        let answer = send(t.service(), "POST", path, &[("content-type", FORM)], &body).await;
        assert_eq!(answer.status, 413, "{path}: {answer:?}");
    }
    let scopes = format!("grant_type=client_credentials&scope={}", "a+".repeat(100_000));
    let answer = send(t.service(), "POST", "/token", &[("content-type", FORM)], &scopes).await;
    assert_eq!(answer.status, 413, "{answer:?}");
    let scopes: String = (0..9000).map(|i| format!("s{i} ")).collect();
    let form = [("grant_type", JWT_BEARER), ("assertion", "x"), ("scope", scopes.as_str())];
    post(t.service(), "/token", &[], &form).await.is_refused("9,000 scopes", 400, "invalid_scope");
    let answer = send(t.service(), "GET", "/jwks", &[("content-type", FORM)], "a=b").await;
    assert_eq!(answer.status, 413, "a body where none is taken: {answer:?}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_clients_that_dawdle_are_cut_off_and_harm_nobody() {
    let t = Test::bare("bad-slow").await;
    let service = t.service();
    let mut heads = Vec::new();
    for _ in 0..40 {
        let mut stream = connection(service).await;
        stream.write_all(b"POST /token HTTP/1.1\r\nhost: x\r\n").await.unwrap();
        heads.push(stream);
    }
    let mut slow = connection(service).await;
    let head = format!(
        "POST /token HTTP/1.1\r\nhost: {}\r\ncontent-type: {FORM}\r\ncontent-length: 50\r\n\r\ngrant_type=",
        host(service)
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut nonsense = Vec::new();
    let kinds = [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 3, 1, 0xff, 0xff], &[0; 4096], b""];
    for bytes in kinds.into_iter().cycle().take(60) {
        let mut stream = TcpStream::connect(host(service)).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        nonsense.push(stream);
    }
    let began = Instant::now();
    assert_eq!(service.get("/jwks").await.unwrap().status, 200);
    assert!(began.elapsed() < Duration::from_secs(2), "the good one waited {:?}", began.elapsed());
    for mut stream in heads {
        // A byte now and then makes no difference.
        let _ = stream.write_all(b"x").await;
        let answer = rest(&mut stream).await;
        assert!(answer.as_ref().is_none_or(|a| [400, 408].contains(&a.status)), "{answer:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(10), "slow heads were kept for {:?}", began.elapsed());
    for mut stream in nonsense {
        let mut bytes = Vec::new();
        let read = stream.read_to_end(&mut bytes);
        let _ = tokio::time::timeout(Duration::from_secs(10), read).await.expect("closed");
    }
    let answer = rest(&mut slow).await;
    assert!(answer.as_ref().is_none_or(|a| a.status == 408), "{answer:?}");
    assert!(began.elapsed() < Duration::from_secs(25), "a slow body was kept for {:?}", began.elapsed());
    assert_eq!(service.get("/jwks").await.unwrap().status, 200);
}

/// What looks like the cluster's tokens in all but the signature, and what looks like nothing.
#[tokio::test(flavor = "multi_thread")]
async fn garbage_never_reaches_the_api_server() {
    let t = Test::new("bad-many").await;
    t.token(&[]).await;
    let good = Draft::of(&t.sa_token().await);
    let stranger = SigningKey::generate(Algorithm::ES256).unwrap();
    let alike = (0..500).map(|i| {
        let kid = format!("unknown-{i}-{}", unique());
        good.head(json!({"alg": "ES256", "kid": kid})).say(json!({"jti": kid})).sign(&stranger)
    });
    let junk = ["x", "a.b.c", "eyJhbGciOiJub25lIn0.e30.", "eyJhbGciOiJSUzI1NiIsImtpZCI6IngifQ.e30.AAAA"];
    let junk = (0..500).map(|i| match junk.get(i % 5) {
        Some(junk) => (*junk).to_owned(),
        None => unique().repeat(i),
    });
    let all: Vec<_> = alike.chain(junk).collect();
    let mark = audit::mark(ControlPlane::shared());
    let began = Instant::now();
    let service = t.service();
    let tasks = all.chunks(all.len() / 8).map(|tokens| async move {
        for token in tokens {
            let form = [
                ("grant_type", "client_credentials"),
                ("client_assertion_type", JWT_BEARER_ASSERTION),
                ("client_assertion", token.as_str()),
            ];
            let (status, _, body) = service.post("/token", &form).await;
            assert_eq!((status, body["error"].as_str()), (401, Some("invalid_client")), "{token}: {body}");
        }
    });
    futures::future::join_all(tasks).await;
    eprintln!("{} refusals in {:?}", all.len(), began.elapsed());
    let asked = audit::since(ControlPlane::shared(), mark, |e| e.is_of("tokenreviews"));
    assert!(asked.is_empty(), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_too_often_waits_and_a_stop_lets_requests_end() {
    let t = Test::new("rates").await;
    t.token(&[]).await;
    let mut town = t.stage.town.clone();
    town.configuration =
        town.configuration.replace("{perSecond: 500, burst: 500}", "{perSecond: 1, burst: 3}");
    assert!(town.configuration.contains("burst: 3"));
    let listen = format!("127.0.0.1:{}", free_port());
    let replica = town.serve_at(ControlPlane::shared(), &listen).await;
    let options =
        FetchOptions { roots: Roots::Pem(replica.ca.clone()), guard: Guard::Anywhere, ..Default::default() };
    let (sa, aud) = (t.sa_token().await, t.aud());
    let form = [
        ("grant_type", "client_credentials"),
        ("client_assertion_type", JWT_BEARER_ASSERTION),
        ("client_assertion", sa.as_str()),
        ("resource", aud.as_str()),
    ];
    let (mut got, mut slowed) = (0, 0);
    for _ in 0..10 {
        let answer = post_form(&format!("https://{listen}/token"), &form, &options).await.unwrap();
        match answer.status.as_u16() {
            200 => got += 1,
            429 => {
                assert!(answer.headers.contains_key("retry-after"));
                slowed += 1;
            }
            other => panic!("{other} {}", answer.body),
        }
    }
    assert!(got >= 3 && slowed >= 5, "{got} tokens, {slowed} refusals");
    assert_eq!(replica.stop().code(), Some(0));
}

//! What is wrong on the wire costs its sender alone.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::{ControlPlane, audit};
use crate::kit::*;
use crate::service::Town;

#[tokio::test(flavor = "multi_thread")]
async fn big_bodies_wrong_types_and_floods_are_refused_quickly() {
    let t = Test::new("wire").await;
    let token = t.token(&[]).await;
    let began = Instant::now();
    let (status, _, _) = t.service().post("/token", &[("x", &"y".repeat(1 << 20))]).await;
    assert_eq!(status, 413);
    let scopes = vec!["s"; 100_000].join(" ");
    let (status, _, _) =
        t.service().post("/token", &[("grant_type", "client_credentials"), ("scope", &scopes)]).await;
    assert!(status == 413 || status == 400, "{status}");
    assert!(t.service().get("/token").await.unwrap_err().contains("405"));
    assert!(began.elapsed() < Duration::from_secs(5));
    // Garbage for TLS, and a handshake that never comes.
    let address = t.stage.town.issuer.trim_start_matches("https://");
    let mut silent = Vec::new();
    for _ in 0..50 {
        let mut garbage = TcpStream::connect(address).await.unwrap();
        let _ = garbage.write_all(&[0x16, 3, 1, 0xff, 0xff, 0, 1, 2, 3]).await;
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    t.is_active(&token, true).await;
    let mut last = silent.pop().unwrap();
    let mut buffer = [0; 1];
    let closed = tokio::time::timeout(Duration::from_secs(12), last.read(&mut buffer)).await;
    assert!(matches!(closed, Ok(Ok(0) | Err(_))), "a silent connection is kept: {closed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_never_reaches_the_api_server() {
    let t = Test::new("garbage").await;
    t.token(&[]).await;
    let mark = audit::mark(ControlPlane::shared());
    let header = "eyJhbGciOiJSUzI1NiIsImtpZCI6InVua25vd24ifQ";
    for i in 0..500 {
        let token = format!("{header}.eyJpc3MiOiJodHRwczovL3gifQ.{i:0>86}");
        let form = [
            ("grant_type", "client_credentials"),
            ("client_assertion_type", JWT_BEARER_ASSERTION),
            ("client_assertion", token.as_str()),
        ];
        let (status, _, body) = t.service().post("/token", &form).await;
        assert_eq!(status, 401, "{body}");
    }
    let asked = audit::since(ControlPlane::shared(), mark, |e| e.is_of("tokenreviews"));
    assert!(asked.is_empty(), "{} TokenReviews", asked.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_too_often_waits_and_a_stop_lets_requests_end() {
    let t = Test::new("rates").await;
    t.token(&[]).await;
    let mut town: Town = t.stage.town.clone();
    town.configuration =
        town.configuration.replace("{perSecond: 500, burst: 500}", "{perSecond: 1, burst: 3}");
    assert!(town.configuration.contains("burst: 3"));
    let listen = format!("127.0.0.1:{}", crate::service::free_port());
    let replica = town.serve_at(ControlPlane::shared(), &listen).await;
    let options = agentid::net::fetch::FetchOptions {
        roots: agentid::net::fetch::Roots::Pem(replica.ca.clone()),
        guard: agentid::net::fetch::Guard::Anywhere,
        ..Default::default()
    };
    let (sa, aud) = (t.sa_token().await, t.aud());
    let form = [
        ("grant_type", "client_credentials"),
        ("client_assertion_type", JWT_BEARER_ASSERTION),
        ("client_assertion", sa.as_str()),
        ("resource", aud.as_str()),
    ];
    let (mut got, mut slowed) = (0, 0);
    for _ in 0..10 {
        let answer = agentid::net::fetch::post_form(&format!("https://{listen}/token"), &form, &options)
            .await
            .unwrap();
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

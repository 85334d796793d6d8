use clap::{Parser, error::ErrorKind};
use jiff::Timestamp;
use serde_json::json;

use super::*;
use crate::cli::{Cli, Command};
use crate::crypto::{Algorithm, CHECKS, Expect, JwkSet, SigningKey, Typ};

const NOW: i64 = 1_795_400_000;

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

fn claims() -> Value {
    json!({
        "iss": "https://agents.example.com", "sub": "spiffe://agents.example.com/agent/1",
        "aud": "https://tickets.example.com", "client_id": "spiffe://agents.example.com/agent/1",
        "iat": NOW - 600, "exp": NOW + 3000, "jti": "01K", "roles": ["triager"], "custom\u{1b}[2J": "x\u{1b}y",
    })
}

fn key() -> &'static SigningKey {
    static KEY: std::sync::OnceLock<SigningKey> = std::sync::OnceLock::new();
    KEY.get_or_init(|| SigningKey::generate(Algorithm::ES256).unwrap())
}

fn token(claims: &Value) -> String {
    key().sign("at+jwt", claims).unwrap()
}

fn checked(token: &str, audience: &str) -> Result<crate::crypto::Verified, VerifyError> {
    let keys: JwkSet = [key().public_jwk()].into_iter().collect();
    let expect =
        Expect { issuer: "https://agents.example.com", audience, typ: Typ::Access, leeway: 0, now: NOW };
    crate::crypto::verify(token, &keys, &expect)
}

#[test]
fn every_claim_is_explained_and_nothing_claimed_verified() {
    let token = token(&claims());
    let signature = token.rsplit('.').next().unwrap();
    let found = inspect(&token).unwrap();
    let text = explain::text(&found, now());
    for wanted in [
        "typ: at+jwt\n      an OAuth access token (RFC 9068 §2.1)",
        "alg: ES256",
        "aud: https://tickets.example.com\n      for whom it is",
        "roles: [\"triager\"]",
        "10m ago",
        ", in 50m",
        "lives    1h in all",
        "custom\\u{1b}[2J: x\\u{1b}y\n      not known to agentid",
        "Nothing was verified",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    assert!(!text.contains(signature) && !text.contains('\u{1b}'), "{text}");

    let value = explain::json(&found, now());
    assert_eq!(value["verified"], false);
    assert_eq!(value["claims"]["aud"], "https://tickets.example.com");
    assert_eq!(value["meanings"]["claims"]["jti"]["standard"], "RFC 7519 §4.1.7");
    assert_eq!(value["times"]["expiresInSeconds"], 3000);
    assert_eq!(value["times"]["lifetimeSeconds"], 3600);
    assert_eq!(value["times"]["expired"], false);
    assert!(!value.to_string().contains(signature));
}

#[test]
fn times_that_make_no_sense_are_told_plainly() {
    let with = |iat: Value, exp: Value| {
        let token = token(&json!({"iat": iat, "exp": exp}));
        explain::text(&inspect(&token).unwrap(), now())
    };
    assert!(with(json!(NOW - 20), json!(NOW - 10)).contains("EXPIRED  2026"));
    assert!(with(json!("x"), json!(i64::MAX)).contains("issued   not said"));
    assert!(with(json!("x"), json!(i64::MAX)).contains("expires  not said"));
    assert!(!with(json!(NOW), json!(NOW - 5)).contains("lives"), "never a negative lifetime");
}

#[test]
fn each_check_is_told_and_those_after_a_failure_are_not_made() {
    let good = checked(&token(&claims()), "https://tickets.example.com");
    let text = verify::text(&good, None, (Typ::Access, true), now());
    assert_eq!(text.lines().filter(|l| l.starts_with("ok ")).count(), CHECKS.len(), "{text}");
    assert!(text.contains("Verified: spiffe://agents.example.com/agent/1"), "{text}");
    assert!(text.contains("--typ demands one") && text.contains(", in 50m"), "{text}");
    assert_eq!(verify::as_json(&good, Typ::Access, now())["verified"], true);

    let bad = checked(&token(&claims()), "https://wiki.example.com");
    let text = verify::text(&bad, None, (Typ::Access, false), now());
    assert!(text.contains("ok       signature"), "{text}");
    assert!(text.contains("FAILED   aud        aud is \"https://tickets.example.com\", expected"), "{text}");
    assert!(text.contains("not made exp") && text.ends_with("\nRefused.\n"), "{text}");
    let value = verify::as_json(&bad, Typ::Access, now());
    assert_eq!((&value["verified"], &value["failed"]), (&json!(false), &json!("aud")));
    assert_eq!(value["claims"], Value::Null, "what was refused is not handed on");
    assert_eq!(
        value["checks"][14],
        json!({"check": "iat", "result": "not-made", "meaning": "not issued in the future"})
    );
}

#[test]
fn keys_are_fetched_safely_or_not_at_all() {
    for url in [
        "https://agents.example.com/jwks",
        "http://127.0.0.1:8080/jwks",
        "http://[::1]/jwks",
        "http://localhost:1/jwks",
        "HTTPS://agents.example.com",
    ] {
        assert!(fetch::address(url).is_ok(), "{url}");
    }
    for url in [
        "http://agents.example.com/jwks",
        "http://127.0.0.1.example.com/jwks",
        "https://user:secret@agents.example.com/jwks",
        "http://10.0.0.1/",
        "https://",
    ] {
        assert!(fetch::address(url).is_err(), "{url}");
    }
}

/// Answers one request with what is given, whatever is asked.
async fn server(answer: Vec<u8>) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await;
        let _ = stream.write_all(&answer).await;
        let _ = stream.shutdown().await;
    });
    url
}

#[tokio::test]
async fn a_document_comes_whole_or_not_at_all() {
    let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n{\"keys\":[]}".to_vec();
    assert_eq!(fetch::document(&server(ok).await, None).await.unwrap(), "{\"keys\":[]}");

    let moved = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n".to_vec();
    let missing = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec();
    let short = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{}".to_vec();
    let mut long = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    long.resize((1 << 20) + 200, b' ');
    for (answer, wanted) in [
        (moved, "redirects are not followed"),
        (missing, "404 Not Found"),
        (short, "127.0.0.1"),
        (long, "longer than 1 MiB"),
    ] {
        let error = fetch::document(&server(answer).await, None).await.unwrap_err().to_string();
        assert!(error.contains(wanted), "{wanted}: {error}");
    }
    let nobody = fetch::document("http://127.0.0.1:1/jwks", None).await.unwrap_err().to_string();
    assert!(nobody.contains("refused"), "{nobody}");
    let ca = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let error = fetch::document("https://127.0.0.1:1/jwks", Some(&ca)).await.unwrap_err().to_string();
    assert!(error.contains("no certificate"), "{error}");
}

#[test]
fn issuer_audience_and_keys_are_required() {
    let full = ["agentid", "token", "verify", "--jwks", "k", "--issuer", "i", "--audience", "a", "-"];
    assert!(matches!(Cli::try_parse_from(full).unwrap().command, Command::Token(_)));
    for missing in ["--jwks", "--issuer", "--audience"] {
        let at = full.iter().position(|a| *a == missing).unwrap();
        let less = full.iter().enumerate().filter(|(i, _)| *i != at && *i != at + 1).map(|(_, a)| *a);
        let error = Cli::try_parse_from(less).unwrap_err();
        assert_eq!((error.kind(), error.exit_code()), (ErrorKind::MissingRequiredArgument, 2), "{missing}");
    }
    for wrong in [["--typ", "any"], ["--leeway", "301"], ["--output", "name"]] {
        let error = Cli::try_parse_from(full.into_iter().chain(wrong)).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{wrong:?}");
    }
    assert!(Cli::try_parse_from(["agentid", "token", "inspect"]).is_ok(), "standard input is the default");
}

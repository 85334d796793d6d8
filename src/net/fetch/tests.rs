use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::net::listen::{self, Bounds, Handler, Response, Stats};
use crate::net::tls::Tls;
use crate::net::tls::tests::Authority;

fn anywhere() -> FetchOptions {
    FetchOptions { guard: Guard::Anywhere, timeout: Duration::from_secs(5), ..FetchOptions::default() }
}

/// Answers each connection with what is given, whatever is asked, and counts them.
async fn server(answer: impl Into<Vec<u8>>) -> (String, Arc<AtomicUsize>) {
    let (answer, asked) = (answer.into(), Arc::<AtomicUsize>::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/x?y", listener.local_addr().unwrap());
    let count = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(&answer).await;
            let _ = stream.shutdown().await;
        }
    });
    (url, asked)
}

/// An OAuth server that says no, and says what it was asked.
struct No;

impl Handler for No {
    async fn handle(&self, request: listen::Request) -> Response {
        let header = |name| request.headers.get(name).map_or("", |v| v.to_str().unwrap());
        let said = [header("content-type"), header("accept"), std::str::from_utf8(&request.body).unwrap()];
        listen::json(StatusCode::BAD_REQUEST, &serde_json::json!({"error": "invalid_grant", "said": said}))
    }
}

async fn secure(ca: &Authority) -> (SocketAddr, Arc<Stats>) {
    let (certificate, key) = ca.certificate();
    let tls = Tls::new(&certificate, &key).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stats = Arc::<Stats>::default();
    let (bounds, stop) = (Bounds::default(), CancellationToken::new());
    tokio::spawn(listen::serve(listener, Some(tls), bounds, Arc::new(No), stats.clone(), stop));
    (address, stats)
}

#[test]
fn urls_are_fetched_safely_or_not_at_all() {
    let public = Guard::Public { allowed: vec!["127.0.0.0/8".parse().unwrap()] };
    for url in ["http://127.0.0.1:8080/jwks", "http://[::1]/jwks", "http://localhost:1/jwks"] {
        assert!(address(url, &Guard::Anywhere).is_ok(), "{url}");
        assert!(address(url, &public).is_err(), "{url}");
    }
    for url in
        ["https://agents.example.com/jwks", "HTTPS://agents.example.com", "https://[2001:db8::1]:8443/"]
    {
        assert!(address(url, &Guard::Anywhere).is_ok(), "{url}");
        assert!(address(url, &public).is_ok(), "{url}");
    }
    for url in [
        "http://agents.example.com/jwks",
        "http://127.0.0.1.example.com/jwks",
        "https://user:secret@agents.example.com/jwks",
        "http://10.0.0.1/",
        "https://",
        "https://[localhost]/",
        "file:///etc/passwd",
        "agents.example.com",
        "/jwks",
    ] {
        assert!(address(url, &Guard::Anywhere).is_err(), "{url}");
        assert!(address(url, &public).is_err(), "{url}");
    }
}

#[tokio::test]
async fn a_document_comes_whole_or_not_at_all() {
    let ok = "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 2\r\n\r\n{}";
    let got = fetch(&server(ok).await.0, &anywhere()).await.unwrap();
    assert_eq!((got.body.as_str(), got.max_age()), ("{}", Some(Duration::from_secs(60))));
    assert!(!format!("{got:?}").contains("{}"), "bodies are not printed");
    let until_close = "HTTP/1.1 200 OK\r\n\r\n[]";
    assert_eq!(fetch(&server(until_close).await.0, &anywhere()).await.unwrap().body, "[]");

    let long = |n| format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(n)).into_bytes();
    assert_eq!(fetch(&server(long(1 << 20)).await.0, &anywhere()).await.unwrap().body.len(), 1 << 20);
    for (answer, wanted) in [
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 6\r\n\r\nsecret".to_vec(), "404 Not Found"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nsecret".to_vec(), "127.0.0.1"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n\xff".to_vec(), "not UTF-8"),
        (b"secret".to_vec(), "127.0.0.1"),
        (b"".to_vec(), "127.0.0.1"),
        (long((1 << 20) + 1), "longer than 1 MiB"),
    ] {
        let (url, _) = server(answer).await;
        let error = fetch(&url, &anywhere()).await.unwrap_err().to_string();
        assert!(error.starts_with(&url) && error.contains(wanted), "{wanted}: {error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let (target, asked) = server("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    for status in ["301 Moved", "302 Found", "307 Temporary Redirect"] {
        let (url, _) =
            server(format!("HTTP/1.1 {status}\r\nlocation: {target}\r\ncontent-length: 0\r\n\r\n")).await;
        for error in [
            fetch(&url, &anywhere()).await.unwrap_err().to_string(),
            post_form(&url, &[("a", "b")], &anywhere()).await.unwrap_err().to_string(),
        ] {
            assert!(error.contains("redirects are not followed"), "{error}");
        }
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_answer_that_does_not_end_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let started = Instant::now();
    let options = FetchOptions { timeout: Duration::from_millis(300), ..anywhere() };
    let error = fetch(&url, &options).await.unwrap_err().to_string();
    assert!(error.contains("no whole answer within 0.3 s"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(3));
    let error = fetch("http://127.0.0.1:1/", &anywhere()).await.unwrap_err().to_string();
    assert!(error.contains("refused"), "{error}");
}

#[tokio::test]
async fn a_form_is_posted_and_the_error_read() {
    let ca = Authority::new();
    let (address, _) = secure(&ca).await;
    let options = FetchOptions { roots: Roots::Pem(ca.pem()), ..anywhere() };
    let url = format!("https://127.0.0.1:{}/token", address.port());
    let form = [("grant_type", "urn:x y"), ("scope", "a&b")];
    let answer = post_form(&url, &form, &options).await.unwrap();
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(
        answer.body,
        "{\"error\":\"invalid_grant\",\"said\":[\"application/x-www-form-urlencoded\",\"application/json\",\"grant_type=urn%3Ax+y&scope=a%26b\"]}"
    );
    let small = FetchOptions { limit: 10, ..options };
    let error = post_form(&url, &form, &small).await.unwrap_err().to_string();
    assert!(error.contains("longer than 10 bytes") && !error.contains("grant"), "{error}");
}

#[tokio::test]
async fn only_a_server_that_the_roots_vouch_for_is_believed() {
    let (ca, other) = (Authority::new(), Authority::new());
    let (address, _) = secure(&ca).await;
    let url = format!("https://localhost:{}/", address.port());
    let options = |pem| FetchOptions { roots: Roots::Pem(pem), ..anywhere() };
    assert!(matches!(fetch(&url, &options(ca.pem())).await, Err(FetchError::Status { .. })));
    let error = fetch(&url, &options(other.pem())).await.unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
    let url = format!("https://127.0.0.2:{}/", address.port());
    assert!(fetch(&url, &options(ca.pem())).await.is_err(), "another name");
    for pem in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let error = fetch(&url, &options(pem.to_owned())).await.unwrap_err();
        assert!(matches!(error, FetchError::Certificates(_)), "{error}");
    }
}

#[tokio::test]
async fn a_guarded_fetch_does_not_reach_inside_by_name_or_number() {
    let ca = Authority::new();
    let (address, stats) = secure(&ca).await;
    let port = address.port();
    let guarded = |allowed: &[&str]| FetchOptions {
        roots: Roots::Pem(ca.pem()),
        guard: Guard::Public { allowed: allowed.iter().map(|n| n.parse().unwrap()).collect() },
        ..anywhere()
    };
    for host in ["localhost", "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]"] {
        let url = format!("https://{host}:{port}/");
        let error = fetch(&url, &guarded(&[])).await.unwrap_err();
        assert!(matches!(error, FetchError::Guarded { .. }), "{host}: {error}");
        let error = post_form(&url, &[("a", "b")], &guarded(&["10.0.0.0/8"])).await.unwrap_err();
        assert!(matches!(error, FetchError::Guarded { .. }), "{host}: {error}");
    }
    // Other spellings that resolvers know.
    for host in ["127.1", "0x7f.0.0.1", "2130706433", "0177.0.0.1", "localhost."] {
        assert!(fetch(&format!("https://{host}:{port}/"), &guarded(&[])).await.is_err(), "{host}");
    }
    assert_eq!(stats.accepted.get(), 0, "no connection was made");
    let url = format!("https://localhost:{port}/");
    let allowed = guarded(&["127.0.0.0/8", "::1/128"]);
    assert!(matches!(fetch(&url, &allowed).await, Err(FetchError::Status { .. })));
    assert_eq!(stats.accepted.get(), 1);
}

#[tokio::test]
async fn errors_show_no_password_and_steer_no_terminal() {
    let error = fetch("https://user:s3cret@example.com/a", &anywhere()).await.unwrap_err().to_string();
    assert!(error.starts_with("https://example.com/a: ") && !error.contains("s3cret"), "{error}");
    let error = fetch("https://x/\u{1b}[2J\u{202e}", &anywhere()).await.unwrap_err().to_string();
    assert!(!error.contains(['\u{1b}', '\u{202e}']), "{error}");
}

#[test]
fn how_long_an_answer_may_be_used() {
    for (fields, wanted) in [
        (vec![], None),
        (vec![("cache-control", "public")], None),
        (vec![("cache-control", "public, Max-Age=60")], Some(60)),
        (vec![("cache-control", "max-age=60"), ("age", "20")], Some(40)),
        (vec![("cache-control", "max-age=60"), ("age", "90")], Some(0)),
        (vec![("cache-control", "max-age=60"), ("cache-control", "no-cache")], Some(0)),
        (vec![("cache-control", "no-store")], Some(0)),
        (vec![("cache-control", "max-age=-1")], None),
    ] {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, http::HeaderValue::from_static(value));
        }
        let fetched = Fetched { status: StatusCode::OK, headers, body: String::new() };
        assert_eq!(fetched.max_age(), wanted.map(Duration::from_secs), "{:?}", fetched.headers);
    }
}

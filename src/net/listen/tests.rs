use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::net::tls::tests::{Authority, connect};

/// Far longer than anything here takes, unless it hangs.
const LONG: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(200);

/// Echoes bodies; `/wait` waits to be let go, `/panic` panics, `/long` answers at length.
#[derive(Default)]
struct Echo {
    entered: Notify,
    go: Notify,
}

impl Handler for Echo {
    fn body_limit(&self, method: &Method, path: &str) -> usize {
        match path {
            "/small" => 10,
            _ if *method == Method::POST => usize::MAX,
            _ => 0,
        }
    }

    async fn handle(&self, request: Request) -> Response {
        match request.path.as_str() {
            "/panic" => panic!("of a handler, as the test wants"),
            "/wait" => {
                self.entered.notify_one();
                self.go.notified().await;
                text(StatusCode::OK, "waited")
            }
            "/long" => text(StatusCode::OK, "x".repeat(8 << 20)),
            "/cached" => {
                let mut response = text(StatusCode::OK, "cached");
                let value = http::HeaderValue::from_static("public, max-age=60");
                response.headers_mut().insert(http::header::CACHE_CONTROL, value);
                response
            }
            _ => json(
                StatusCode::OK,
                &serde_json::json!({
                    "path": request.path, "query": request.query, "body": String::from_utf8_lossy(&request.body),
                }),
            ),
        }
    }
}

struct Server {
    address: SocketAddr,
    echo: Arc<Echo>,
    stats: Arc<Stats>,
    stop: CancellationToken,
    served: JoinHandle<()>,
}

impl Server {
    async fn start(bounds: Bounds, tls: Option<Tls>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (echo, stats, stop) = (Arc::<Echo>::default(), Arc::<Stats>::default(), CancellationToken::new());
        let served = serve(listener, tls, bounds, echo.clone(), stats.clone(), stop.clone());
        Self { address, echo, stats, stop, served: tokio::spawn(served) }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// What one connection is answered to some bytes, until it is closed.
    async fn ask(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        rest(&mut stream).await
    }

    /// Whether the server still answers.
    async fn is_well(&self) -> bool {
        self.ask(&get("/")).await.starts_with("HTTP/1.1 200 ")
    }
}

async fn rest(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut answer = Vec::new();
    // A reset is an end, too.
    let _ = tokio::time::timeout(LONG, stream.read_to_end(&mut answer)).await.expect("the end");
    String::from_utf8(answer).unwrap()
}

/// What comes up to and including some text.
async fn until(stream: &mut TcpStream, end: &str) -> String {
    let mut answer = Vec::new();
    while !answer.ends_with(end.as_bytes()) {
        let byte = tokio::time::timeout(LONG, stream.read_u8()).await.expect("more");
        answer.push(byte.unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&answer))));
    }
    String::from_utf8(answer).unwrap()
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
}

fn post(path: &str, length: usize) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n")
}

#[tokio::test]
async fn a_request_is_answered_with_what_every_response_carries() {
    let server = Server::start(Bounds::default(), None).await;
    let answer = server.ask(&get("/a%20b?c=d")).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("{\"body\":\"\",\"path\":\"/a%20b\",\"query\":\"c=d\"}"), "{answer}");
    for header in ["x-content-type-options: nosniff", "cache-control: no-store", "application/json"] {
        assert!(answer.contains(header), "{header}: {answer}");
    }
    let answer = server.ask(&get("/cached")).await;
    assert!(answer.contains("cache-control: public, max-age=60\r\n") && !answer.contains("no-store"));

    let answer = server.ask(&get("/cached").replace("GET", "HEAD")).await;
    assert!(answer.contains("content-length: 6\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "no body: {answer}");

    // Twice on one connection, the second in two parts.
    let mut stream = server.connect().await;
    stream.write_all(format!("{}hallo", post("/", 5)).as_bytes()).await.unwrap();
    until(&mut stream, "\"body\":\"hallo\",\"path\":\"/\",\"query\":null}").await;
    stream.write_all(b"GET / HTTP/1.1\r\nHo").await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    stream.write_all(b"st: x\r\n\r\n").await.unwrap();
    until(&mut stream, "null}").await;
    assert_eq!((server.stats.requests.get(), server.stats.accepted.get()), (5, 4));
}

#[tokio::test]
async fn a_request_without_a_host_is_refused() {
    let server = Server::start(Bounds::default(), None).await;
    for request in
        ["GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n"]
    {
        let mut stream = server.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        assert!(until(&mut stream, "\r\n").await.starts_with("HTTP/1.1 400 "), "{request}");
    }
    assert!(server.ask("GET / HTTP/1.0\r\n\r\n").await.starts_with("HTTP/1.0 200 "));
    assert!(server.ask("nonsense\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
}

#[tokio::test]
async fn heads_that_come_slowly_or_not_at_all_end_the_connection() {
    let bounds = Bounds { headers: SHORT, ..Bounds::default() };
    let server = Server::start(bounds, None).await;
    let mut silent = server.connect().await;
    let mut kept = server.connect().await;
    kept.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    until(&mut kept, "null}").await;
    let started = Instant::now();
    // A byte now and then, so that no time between two bytes is long.
    let mut slow = server.connect().await;
    let dripped = async {
        for byte in b"GET / HTTP/1.1\r\nHost: x\r\nA: ".iter().chain(std::iter::repeat_n(&b'a', 1000)) {
            if slow.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("never closed");
    };
    dripped.await;
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    assert_eq!(rest(&mut silent).await, "");
    assert_eq!(server.stats.timeouts.get(), 2);

    // An idle connection has longer, but once it has begun a head, no longer than another.
    assert!(kept.try_read(&mut [0]).is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock));
    let started = Instant::now();
    kept.write_all(b"G").await.unwrap();
    assert_eq!(rest(&mut kept).await, "");
    assert!(started.elapsed() >= SHORT && started.elapsed() < Duration::from_secs(3));
    assert!(server.is_well().await);
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let server = Server::start(Bounds { idle: SHORT, ..Bounds::default() }, None).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    until(&mut stream, "null}").await;
    let started = Instant::now();
    assert_eq!(rest(&mut stream).await, "");
    assert!(started.elapsed() < Duration::from_secs(3));
    assert_eq!(server.stats.timeouts.get(), 0, "nobody was late");
}

#[tokio::test]
async fn a_head_has_a_size() {
    let server = Server::start(Bounds { header_bytes: 8192, ..Bounds::default() }, None).await;
    let answer = server.ask(&format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "a".repeat(9000))).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert!(server.is_well().await);
}

#[tokio::test]
async fn a_slow_body_is_408_and_takes_no_slot() {
    let bounds = Bounds { request: SHORT, in_flight: 1, ..Bounds::default() };
    let server = Server::start(bounds, None).await;
    let mut slow = server.connect().await;
    slow.write_all(post("/", 100).as_bytes()).await.unwrap();
    slow.write_all(b"some").await.unwrap();
    assert!(server.is_well().await, "the only slot is free");
    let answer = rest(&mut slow).await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("connection: close"), "{answer}");
    assert_eq!((server.stats.timeouts.get(), server.stats.in_flight.get()), (1, 0));
}

#[tokio::test]
async fn a_body_that_is_too_long_is_413() {
    let server = Server::start(Bounds::default(), None).await;
    // Told beforehand: answered before any of it comes.
    let answer = server.ask(&post("/", 1 << 30)).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("connection: close"), "{answer}");
    // Sent whole by a client that looks for the answer only then.
    let answer = server.ask(&format!("{}{}", post("/", 1 << 20), "x".repeat(1 << 20))).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    // Sent little by little by such a client: it is not cut off before it has looked.
    let mut patient = server.connect().await;
    patient.write_all(post("/", 1 << 19).as_bytes()).await.unwrap();
    for _ in 0..8 {
        patient.write_all(&[b'x'; 1 << 16]).await.expect("the server still takes it in");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(rest(&mut patient).await.starts_with("HTTP/1.1 413 "));
    // Not told beforehand.
    let head = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = format!("8000\r\n{}\r\n", "x".repeat(0x8000));
    let answer = server.ask(&format!("{head}{}", chunk.repeat(8))).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    // What the handler allows here, and what it does not.
    let answer = server.ask(&format!("{}{}", post("/small", 11), "x".repeat(11))).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("at most 10 bytes"), "{answer}");
    let answer = server.ask(&post("/", 1).replace("POST", "GET")).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    let whole = post("/", 65_536).replace("Host", "Connection: close\r\nHost") + &"x".repeat(65_536);
    assert!(server.ask(&whole).await.starts_with("HTTP/1.1 200 "));
    assert_eq!(server.stats.too_large.get(), 6);
}

#[tokio::test]
async fn one_request_too_many_is_503_at_once() {
    let bounds = Bounds { in_flight: 1, ..Bounds::default() };
    let server = Server::start(bounds, None).await;
    let mut first = server.connect().await;
    first.write_all(get("/wait").as_bytes()).await.unwrap();
    server.echo.entered.notified().await;
    let answer = server.ask(&get("/")).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 1\r\n"), "{answer}");
    // The connection is kept, so that coming again costs no handshake.
    let mut kept = server.connect().await;
    kept.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    until(&mut kept, "come again\n").await;
    assert_eq!(server.stats.shed.get(), 2);
    server.echo.go.notify_one();
    assert!(rest(&mut first).await.ends_with("waited"));
    kept.write_all(get("/").as_bytes()).await.unwrap();
    assert!(rest(&mut kept).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_handler_that_takes_too_long_is_503() {
    let server = Server::start(Bounds { request: SHORT, ..Bounds::default() }, None).await;
    let answer = server.ask(&get("/wait")).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 1\r\n"), "{answer}");
    assert_eq!(server.stats.timeouts.get(), 1);
}

#[tokio::test]
async fn a_response_that_nobody_takes_ends_the_connection() {
    let server = Server::start(Bounds { request: SHORT, ..Bounds::default() }, None).await;
    let mut stream = server.connect().await;
    stream.write_all(get("/long").as_bytes()).await.unwrap();
    let started = Instant::now();
    while server.stats.connections.get() > 0 || server.stats.accepted.get() == 0 {
        assert!(started.elapsed() < LONG, "never closed");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(server.stats.timeouts.get(), 1);
    // Taken, it comes whole.
    let server = Server::start(Bounds::default(), None).await;
    assert!(server.ask(&get("/long")).await.len() > 8 << 20);
}

#[tokio::test]
async fn a_panic_costs_one_request() {
    let server = Server::start(Bounds::default(), None).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /panic HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let answer = until(&mut stream, "internal error\n").await;
    assert!(answer.starts_with("HTTP/1.1 500 ") && !answer.contains("as the test wants"), "{answer}");
    stream.write_all(get("/").as_bytes()).await.unwrap();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 200 "), "on the same connection");
    assert_eq!((server.stats.panics.get(), server.stats.in_flight.get()), (1, 0));
}

#[tokio::test]
async fn one_connection_too_many_is_closed() {
    let bounds = Bounds { per_source_connections: 2, ..Bounds::default() };
    let server = Server::start(bounds, None).await;
    let (mut one, two) = (server.connect().await, server.connect().await);
    one.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    until(&mut one, "null}").await;
    let mut three = server.connect().await;
    assert_eq!(rest(&mut three).await, "");
    assert_eq!(server.stats.refused.get(), 1);
    drop(two);
    let started = Instant::now();
    while server.stats.connections.get() > 1 {
        assert!(started.elapsed() < LONG);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(server.is_well().await, "the place was given back");
}

#[tokio::test]
async fn a_stop_lets_requests_end_and_takes_no_more() {
    let server = Server::start(Bounds::default(), None).await;
    let mut idle = server.connect().await;
    idle.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    until(&mut idle, "null}").await;
    let mut busy = server.connect().await;
    busy.write_all(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    server.echo.entered.notified().await;
    server.stop.cancel();
    assert_eq!(rest(&mut idle).await, "");
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens");
    assert!(!server.served.is_finished());
    server.echo.go.notify_one();
    let answer = rest(&mut busy).await;
    assert!(answer.contains("connection: close") && answer.ends_with("waited"), "{answer}");
    tokio::time::timeout(LONG, server.served).await.expect("ended").unwrap();
}

#[tokio::test]
async fn a_stop_waits_no_longer_than_its_bound() {
    let server = Server::start(Bounds { drain: SHORT, ..Bounds::default() }, None).await;
    let mut busy = server.connect().await;
    busy.write_all(get("/wait").as_bytes()).await.unwrap();
    server.echo.entered.notified().await;
    server.stop.cancel();
    tokio::time::timeout(LONG, server.served).await.expect("ended").unwrap();
    assert_eq!(rest(&mut busy).await, "");
    assert_eq!(server.stats.connections.get(), 0);
}

#[tokio::test]
async fn what_is_not_tls_ends_only_its_own_connection() {
    let authority = Authority::new();
    let (certificate, key) = authority.certificate();
    let bounds = Bounds { handshake: SHORT, ..Bounds::default() };
    let server = Server::start(bounds, Some(Tls::new(&certificate, &key).unwrap())).await;
    let mut silent = server.connect().await;
    let answer = {
        let mut garbage = server.connect().await;
        garbage.write_all(get("/").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(LONG, garbage.read_to_end(&mut answer)).await.expect("the end");
        answer
    };
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    assert_eq!(rest(&mut silent).await, "");
    assert_eq!(server.stats.handshake_failures.get(), 2);
    let mut good = connect(server.address, &authority).await.unwrap();
    good.write_all(get("/").as_bytes()).await.unwrap();
    assert!(rest(&mut good).await.starts_with("HTTP/1.1 200 "));
    assert_eq!(good.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    // A refusal reaches a client also through TLS.
    let mut good = connect(server.address, &authority).await.unwrap();
    good.write_all(format!("{}{}", post("/", 1 << 20), "x".repeat(1 << 20)).as_bytes()).await.unwrap();
    assert!(rest(&mut good).await.starts_with("HTTP/1.1 413 "));
}

/// Runs the next test where there are few file descriptors, in a process of its own.
#[test]
fn a_server_out_of_file_descriptors_comes_back() {
    let output = std::process::Command::new("sh")
        .args(["-c", "ulimit -n 64 && exec \"$0\" --ignored --exact net::listen::tests::without_descriptors"])
        .arg(std::env::current_exe().unwrap())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[tokio::test]
#[ignore = "run by a_server_out_of_file_descriptors_comes_back"]
async fn without_descriptors() {
    let server = Server::start(Bounds::default(), None).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    let mut files = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        files.push(file);
        assert!(files.len() < 1000, "descriptors are not few");
    }
    let mut stream = socket.connect(server.address).await.unwrap();
    stream.write_all(get("/").as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert_eq!(server.stats.accepted.get(), 0);
    drop(files);
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 200 "));
}

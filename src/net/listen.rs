//! The HTTP/1.1 server behind every port.
//!
//! Invariants: each connection, each request and each of their phases has a bound ([`Bounds`]); whoever exceeds
//! one loses that connection or request and nobody else notices; a panic in a handler costs one request; a stop
//! lets the requests under way come to their end.

mod answer;
mod connection;
mod places;
mod request;
mod stats;
mod turn;

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method};
use hyper::body::Bytes;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::answer::{Response, empty, json, text};
use self::places::Places;
pub use self::stats::Stats;
use super::tls::Tls;

/// The bounds of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Connections at once; one more is closed as soon as it is there. Default 4096.
    pub connections: usize,
    /// Connections at once of one [`Source`](super::Source). Default 512.
    pub per_source_connections: usize,
    /// How long a TLS handshake may take. Default 5 s.
    pub handshake: Duration,
    /// How long the head of a request may take: on a new connection from its start, on a kept one from the first
    /// byte. Default 5 s.
    pub headers: Duration,
    /// How long a request may take from its head to its response, and then once more how long the client may take
    /// to read the response. Default 15 s.
    pub request: Duration,
    /// How long a connection is kept that sends nothing. Default 60 s.
    pub idle: Duration,
    /// The longest head of a request, in bytes, at least 8192. Default 32 KiB.
    pub header_bytes: usize,
    /// The longest body of a request, in bytes; a handler may allow less. Default 64 KiB.
    pub body_bytes: usize,
    /// Requests that are handled at once; one more is answered 503. Default 512.
    pub in_flight: usize,
    /// How long requests under way have to come to their end after a stop. Default 20 s.
    pub drain: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 4096,
            per_source_connections: 512,
            handshake: Duration::from_secs(5),
            headers: Duration::from_secs(5),
            request: Duration::from_secs(15),
            idle: Duration::from_secs(60),
            header_bytes: 32 << 10,
            body_bytes: 64 << 10,
            in_flight: 512,
            drain: Duration::from_secs(20),
        }
    }
}

/// A request, read whole.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method. HEAD is answered as GET would be: the body is left out on the way.
    pub method: Method,
    /// The path as it was sent, not decoded.
    pub path: String,
    /// What stands behind the `?`, not decoded.
    pub query: Option<String>,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// Who sent it.
    pub peer: SocketAddr,
}

/// What answers requests.
pub trait Handler: Send + Sync + 'static {
    /// How many bytes of body a request may have, before any is read; more is answered 413. It is held to
    /// [`Bounds::body_bytes`] besides. By default only POST, PUT and PATCH may have one.
    fn body_limit(&self, method: &Method, path: &str) -> usize {
        let _ = path;
        if matches!(*method, Method::POST | Method::PUT | Method::PATCH) { usize::MAX } else { 0 }
    }

    /// Answers a request. The future is dropped when the client hangs up or the request's time is over: what must
    /// not be cut in two belongs into a task of its own.
    fn handle(&self, request: Request) -> impl Future<Output = Response> + Send;
}

/// What the connections of a port have in common.
struct Port<H> {
    handler: Arc<H>,
    bounds: Bounds,
    stats: Arc<Stats>,
    slots: Semaphore,
    stop: CancellationToken,
}

/// Serves a port until told to stop, then lets the requests under way come to their end, within
/// [`Bounds::drain`]. When the future is dropped, so are its connections.
pub async fn serve<H: Handler>(
    listener: TcpListener,
    tls: Option<Tls>,
    bounds: Bounds,
    handler: Arc<H>,
    stats: Arc<Stats>,
    stop: CancellationToken,
) {
    let places = Places::new(&bounds);
    let slots = Semaphore::new(bounds.in_flight.min(Semaphore::MAX_PERMITS));
    let port = Arc::new(Port { handler, bounds, stats, slots, stop });
    let mut connections = JoinSet::new();
    let mut exhausted = false;
    loop {
        let accepted = tokio::select! {
            biased;
            () = port.stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                exhausted = false;
                if let Some(place) = places.take(peer.ip(), &port.stats) {
                    connections.spawn(connection::run(port.clone(), tls.clone(), stream, peer, place));
                }
            }
            // The client's affair.
            Err(e) if gone(&e) => {}
            // Out of file descriptors or memory: give the connections time to end.
            Err(e) => {
                if !exhausted {
                    tracing::warn!(problem = %e, "no connection can be accepted; trying on");
                }
                exhausted = true;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(bounds.drain, drained).await.is_err() {
        tracing::warn!(connections = connections.len(), "requests were cut off: they did not end in time");
        connections.shutdown().await;
    }
}

/// Whether a connection ended before it was accepted.
fn gone(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

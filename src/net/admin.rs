//! The admin port: `/livez`, `/readyz`, `/metrics`. It is for probes and scrapers, and says nothing secret.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode, header};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::listen::{self, Bounds, Handler, Request, Response, text};

const OPENMETRICS: header::HeaderValue =
    header::HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// Why the admin port can't be served.
#[derive(Debug, Error)]
#[error("admin port {address}: {source}; choose another with --admin-listen")]
pub struct AdminError {
    address: SocketAddr,
    source: std::io::Error,
}

/// What the admin port tells.
pub trait Told: Send + Sync + 'static {
    /// Whether the process can do its work; if not, why not.
    ///
    /// # Errors
    /// What is missing, a line each.
    fn ready(&self) -> Result<(), String>;

    /// What hinders it though it is ready, a line each.
    fn remarks(&self) -> String {
        String::new()
    }

    /// The metrics in the OpenMetrics text format.
    fn metrics(&self) -> String;
}

/// Binds the admin port.
///
/// # Errors
/// [`AdminError`] if the address can't be had.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, AdminError> {
    TcpListener::bind(address).await.map_err(|source| AdminError { address, source })
}

/// Serves the admin port until told to stop.
pub async fn serve<T: Told>(listener: TcpListener, told: Arc<T>, stop: CancellationToken) {
    // Probes and scrapers are few, and a scrape that is cut off is made again.
    let bounds = Bounds {
        connections: 64,
        per_source_connections: 64,
        body_bytes: 0,
        in_flight: 64,
        drain: Duration::from_secs(1),
        ..Bounds::default()
    };
    listen::serve(listener, None, bounds, Arc::new(Admin(told)), Arc::default(), stop).await;
}

struct Admin<T>(Arc<T>);

impl<T: Told> Handler for Admin<T> {
    async fn handle(&self, request: Request) -> Response {
        if !matches!(request.method, Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
            response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.path.as_str() {
            "/livez" => text(StatusCode::OK, "ok\n"),
            "/readyz" => match self.0.ready() {
                Ok(()) => text(StatusCode::OK, format!("ok\n{}", self.0.remarks())),
                Err(missing) => text(StatusCode::SERVICE_UNAVAILABLE, missing),
            },
            "/metrics" => {
                let mut response = text(StatusCode::OK, self.0.metrics());
                response.headers_mut().insert(header::CONTENT_TYPE, OPENMETRICS);
                response
            }
            _ => text(StatusCode::NOT_FOUND, "try /livez, /readyz or /metrics\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    struct Process(bool);

    impl Told for Process {
        fn ready(&self) -> Result<(), String> {
            if self.0 { Ok(()) } else { Err("agents: not synced\n".to_owned()) }
        }

        fn remarks(&self) -> String {
            "agents: stale\n".to_owned()
        }

        fn metrics(&self) -> String {
            "# EOF\n".to_owned()
        }
    }

    #[tokio::test]
    async fn probes_and_scrapers_are_told() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let taken = bind(address).await.unwrap_err().to_string();
        assert!(taken.contains("--admin-listen"), "{taken}");
        let other = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let ready = other.local_addr().unwrap();
        let stop = CancellationToken::new();
        let served = tokio::spawn(serve(listener, Arc::new(Process(false)), stop.clone()));
        let other = tokio::spawn(serve(other, Arc::new(Process(true)), stop.clone()));
        for (address, request, status, end) in [
            (address, "GET /livez", "200", "\r\n\r\nok\n"),
            (address, "HEAD /livez", "200", "\r\n\r\n"),
            (address, "GET /readyz", "503", "\r\n\r\nagents: not synced\n"),
            (ready, "GET /readyz", "200", "\r\n\r\nok\nagents: stale\n"),
            (address, "GET /metrics", "200", "\r\n\r\n# EOF\n"),
            (address, "GET /", "404", "/metrics\n"),
            (address, "DELETE /livez", "405", "only GET\n"),
        ] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request = format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.ends_with(end), "{answer}");
            assert_eq!(answer.contains("content-type: application/openmetrics-text"), end.contains("EOF"));
        }
        stop.cancel();
        served.await.unwrap();
        other.await.unwrap();
    }
}

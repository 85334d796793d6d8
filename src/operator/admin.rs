//! The admin port: `/livez`, `/readyz`, `/metrics`. It is for probes and scrapers, and says nothing secret.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Probes and scrapers are few.
const CONNECTIONS: usize = 64;
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

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
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors, most likely: give others time to close theirs.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else { continue };
        let (told, stop) = (told.clone(), stop.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let told = told.clone();
                async move { Ok::<_, Infallible>(answer(&request, &*told)) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            // A probe that hangs up is no news.
            let _ = stop.run_until_cancelled(connection).await;
            drop(slot);
        });
    }
}

fn answer<T: Told>(request: &Request<Incoming>, told: &T) -> Response<Full<Bytes>> {
    let text = "text/plain; charset=utf-8";
    let (status, content_type, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/livez") => (StatusCode::OK, text, "ok\n".to_owned()),
        (&Method::GET | &Method::HEAD, "/readyz") => match told.ready() {
            Ok(()) => (StatusCode::OK, text, "ok\n".to_owned()),
            Err(missing) => (StatusCode::SERVICE_UNAVAILABLE, text, missing),
        },
        (&Method::GET | &Method::HEAD, "/metrics") => {
            (StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", told.metrics())
        }
        (&Method::GET | &Method::HEAD, _) => {
            (StatusCode::NOT_FOUND, text, "try /livez, /readyz or /metrics\n".to_owned())
        }
        _ => (StatusCode::METHOD_NOT_ALLOWED, text, "only GET\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

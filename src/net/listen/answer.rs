//! Responses. Invariant: no response leaves without `nosniff`, nor, unless its handler says otherwise, without
//! `no-store`.

use http::header::{self, HeaderValue};
use http::{HeaderName, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use serde::Serialize;

/// A response.
pub type Response = http::Response<Full<Bytes>>;

/// A JSON document (`application/json`). A value that can't be written as JSON is a 500.
pub fn json(status: StatusCode, body: &impl Serialize) -> Response {
    // Room for a token, so that it does not grow by and by.
    let mut text = Vec::with_capacity(2048);
    match serde_json::to_writer(&mut text, body).map(|()| text) {
        Ok(body) => with(status, "application/json", body),
        Err(e) => {
            tracing::error!(problem = %e, "a response can't be written as JSON");
            self::text(StatusCode::INTERNAL_SERVER_ERROR, "internal error\n")
        }
    }
}

/// A text for people (`text/plain`).
pub fn text(status: StatusCode, body: impl Into<String>) -> Response {
    with(status, "text/plain; charset=utf-8", body.into().into_bytes())
}

/// A status without a body.
#[must_use]
pub fn empty(status: StatusCode) -> Response {
    let mut response = Response::default();
    *response.status_mut() = status;
    response
}

fn with(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// 503: come again in a second.
pub(super) fn busy(why: &str) -> Response {
    let mut response = text(StatusCode::SERVICE_UNAVAILABLE, why);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// The response after which the connection is closed.
pub(super) fn closing(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Adds what every response carries.
pub(super) fn secured(mut response: Response) -> Response {
    let mut unless_set = |name: HeaderName, value| {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    };
    unless_set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    unless_set(header::CACHE_CONTROL, "no-store");
    response
}

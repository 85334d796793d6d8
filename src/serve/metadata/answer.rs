//! How public documents are answered: kept by whoever reads them, and not sent again while nothing has changed
//! (RFC 9110 §13.1.2, RFC 9111 §5.2.2).
//!
//! Invariant: an error is never kept.

use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper::body::Bytes;

use crate::domain::Hasher;
use crate::net::listen::{Response, empty, text};
use crate::serve::fault::Fault;

/// A document with a tag of its content, which may be kept for `age` seconds.
pub(super) fn document(
    content_type: &'static str,
    body: impl Into<Bytes>,
    age: u32,
    headers: &HeaderMap,
) -> Response {
    let body = body.into();
    let mut digest = Hasher::new("entity tag");
    digest.part(&body);
    tagged(content_type, body, &format!("\"{}\"", digest.finish()), age, headers)
}

/// A document with this tag.
pub(super) fn tagged(
    content_type: &'static str,
    body: Bytes,
    etag: &str,
    age: u32,
    headers: &HeaderMap,
) -> Response {
    let mut response = if is_known(headers, etag) {
        empty(StatusCode::NOT_MODIFIED)
    } else {
        let mut response = Response::new(body.into());
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        response
    };
    let values = [
        (header::ETAG, etag.to_owned()),
        (header::CACHE_CONTROL, format!("public, max-age={age}")),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*".to_owned()),
    ];
    for (name, value) in values {
        let Ok(value) = HeaderValue::try_from(value) else {
            return text(StatusCode::INTERNAL_SERVER_ERROR, "internal error\n");
        };
        response.headers_mut().insert(name, value);
    }
    response
}

/// A refusal that scripts of every origin may read too.
pub(super) fn refused(fault: &Fault) -> Response {
    let mut response = fault.response();
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

/// Whether the client has this very document (the weak comparison of RFC 9110 §8.8.3.2).
fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let values = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|v| v.to_str().ok());
    values
        .flat_map(|v| v.split(','))
        .map(str::trim)
        .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

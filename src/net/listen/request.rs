//! From a head to a response: the body within its limit, a slot, the handler within its time.
//!
//! Invariant: every request is answered, also one that is too large, too slow, too many or makes its handler panic.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use http::{HeaderMap, StatusCode, Version, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Incoming};
use tokio::time::{Instant, timeout_at};

use super::answer::{busy, closing, secured, text};
use super::turn::Turn;
use super::{Handler, Port, Request, Response};

/// Answers a request.
pub(super) async fn answer<H: Handler>(
    port: &Arc<Port<H>>,
    turn: &Turn,
    peer: SocketAddr,
    request: hyper::Request<Incoming>,
) -> Response {
    port.stats.requests.add();
    let _counted = port.stats.in_flight.enter();
    let deadline = Instant::now() + port.bounds.request;
    let (head, body) = request.into_parts();
    let unread = !body.is_end_stream();
    let refuse = |response: Response| {
        if unread {
            turn.leave_unread();
            return secured(closing(response));
        }
        secured(response)
    };
    if head.version == Version::HTTP_11 && !has_one_host(&head.headers) {
        return refuse(text(StatusCode::BAD_REQUEST, "one Host header, please (RFC 9112 section 3.2)\n"));
    }
    let limit = port.handler.body_limit(&head.method, head.uri.path()).min(port.bounds.body_bytes);
    if body.size_hint().lower() > limit as u64 {
        port.stats.too_large.add();
        return refuse(too_large(limit));
    }
    if port.slots.available_permits() == 0 {
        // Before the body is read, for those who can be told at once.
        port.stats.shed.add();
        return refuse(busy("too many requests at once; come again\n"));
    }
    let body = if unread {
        match timeout_at(deadline, Limited::new(body, limit).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(e)) if e.is::<LengthLimitError>() => {
                port.stats.too_large.add();
                return refuse(too_large(limit));
            }
            Ok(Err(_)) => return refuse(text(StatusCode::BAD_REQUEST, "the body can't be read\n")),
            Err(_) => {
                port.stats.timeouts.add();
                return refuse(text(StatusCode::REQUEST_TIMEOUT, "the body did not come in time\n"));
            }
        }
    } else {
        Bytes::new()
    };
    // Only now, so that those who send slowly take no slot from those who don't.
    let Ok(_slot) = port.slots.try_acquire() else {
        port.stats.shed.add();
        return secured(busy("too many requests at once; come again\n"));
    };
    let request = Request {
        method: head.method,
        path: head.uri.path().to_owned(),
        query: head.uri.query().map(str::to_owned),
        headers: head.headers,
        body,
        peer,
    };
    // A handler may panic before it has a future.
    let handled = async { port.handler.handle(request).await };
    secured(match timeout_at(deadline, AssertUnwindSafe(handled).catch_unwind()).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => {
            port.stats.panics.add();
            tracing::error!(%peer, "a panic in the handler of a request; only that request is lost");
            text(StatusCode::INTERNAL_SERVER_ERROR, "internal error\n")
        }
        Err(_) => {
            port.stats.timeouts.add();
            busy("no answer could be had in time; come again\n")
        }
    })
}

fn too_large(limit: usize) -> Response {
    text(StatusCode::PAYLOAD_TOO_LARGE, format!("at most {limit} bytes of body are taken here\n"))
}

fn has_one_host(headers: &HeaderMap) -> bool {
    headers.get_all(header::HOST).iter().count() == 1
}

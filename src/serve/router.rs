//! Paths to handlers, for both ports.
//!
//! Invariants: every source is held to its rate before anything is looked at; a path that is not served says so; a
//! body is read only where one is taken.

use std::sync::Arc;

use http::{HeaderValue, Method, StatusCode, header};
use jiff::Timestamp;

use super::fault::Fault;
use super::state::State;
use super::{credentials, introspect, metadata, proxy, token};
use crate::net::Source;
use crate::net::listen::{Handler, Request, Response, text};

/// Requests to `/token` and the like are this long at most: a form with three tokens.
const LONGEST_FORM: usize = 64 << 10;

/// The public port.
pub(super) struct Public(pub(super) Arc<State>);

/// The port for proxies.
pub(super) struct Proxies(pub(super) Arc<State>);

/// The path below the issuer's own.
fn below<'a>(issuer: &str, path: &'a str) -> &'a str {
    let host = issuer.strip_prefix("https://").unwrap_or(issuer);
    let base = host.find('/').map_or("", |at| &host[at..]);
    path.strip_prefix(base).filter(|rest| rest.starts_with('/')).unwrap_or(path)
}

impl Handler for Public {
    fn body_limit(&self, method: &Method, path: &str) -> usize {
        let posts = ["/token", "/introspect", "/revoke", "/credentials"];
        let takes = *method == Method::POST && posts.contains(&below(&self.0.config.issuer, path));
        if takes { LONGEST_FORM } else { 0 }
    }

    async fn handle(&self, request: Request) -> Response {
        let state = &self.0;
        if let Err(wait) = state.per_source.check(&Source::of(request.peer.ip())) {
            return Fault::slow_down(wait.seconds(), "too many requests from this address").response();
        }
        let now = Timestamp::now();
        match below(&state.config.issuer, &request.path) {
            "/token" => token::answer(state, &request, now).await,
            "/introspect" => introspect::answer(state, &request, now).await,
            "/credentials" => credentials::answer(state, &request, now).await,
            path => metadata::answer(state, &request, path, now).await,
        }
    }
}

impl Handler for Proxies {
    fn body_limit(&self, _: &Method, _: &str) -> usize {
        // Envoy and Traefik may send the original request's body along; nothing of it is looked at.
        LONGEST_FORM
    }

    async fn handle(&self, request: Request) -> Response {
        if request.path.starts_with("/verify/") {
            return proxy::answer(&self.0, &request, Timestamp::now());
        }
        text(StatusCode::NOT_FOUND, "try /verify/<AgentResource>\n")
    }
}

/// Only GET and HEAD.
pub(super) fn only_get() -> Response {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

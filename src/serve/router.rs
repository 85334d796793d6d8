//! Paths to handlers, for both ports.
//!
//! Invariants: on the public port every source is held to its rate before anything is looked at (the few proxies ask for
//! everybody, and are held to none); a path that is not served says so; a body is read only where one is taken.

use std::sync::Arc;
use std::time::Instant;

use http::{Method, StatusCode};
use jiff::Timestamp;

use super::fault::Fault;
use super::form::Form;
use super::metrics::Side;
use super::state::{Ring, State};
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
    fn body_limit(&self, _: &Method, path: &str) -> usize {
        // Whatever the method: that only POST is taken is for the endpoint to say.
        let posts = ["/token", "/introspect", "/revoke", "/credentials"];
        if posts.contains(&below(&self.0.config.issuer, path)) { LONGEST_FORM } else { 0 }
    }

    async fn handle(&self, request: Request) -> Response {
        let state = &self.0;
        let began = Instant::now();
        if let Err(wait) = state.per_source.check(&Source::of(request.peer.ip())) {
            state.metrics.limited(Side::Source);
            return Fault::slow_down(wait.seconds(), "too many requests from this address").response();
        }
        let now = Timestamp::now();
        let path = below(&state.config.issuer, &request.path);
        let response = match path {
            "/token" => token::answer(state, &request, now).await,
            "/introspect" => introspect::answer(state, &request, now).await,
            "/credentials" => credentials::answer(state, &request, now).await,
            path => published(state, &request, path, now).await,
        };
        state.metrics.took(path, began);
        response
    }
}

impl Handler for Proxies {
    fn body_limit(&self, _: &Method, _: &str) -> usize {
        // Envoy and Traefik may send the original request's body along; nothing of it is looked at.
        LONGEST_FORM
    }

    async fn handle(&self, request: Request) -> Response {
        if request.path.starts_with("/verify/") {
            let began = Instant::now();
            let response = proxy::answer(&self.0, &request, Timestamp::now());
            self.0.metrics.took(&request.path, began);
            return response;
        }
        text(StatusCode::NOT_FOUND, "try /verify/<AgentResource>\n")
    }
}

/// What is published: documents, keys and lists, and the two endpoints that refuse everybody.
async fn published(state: &State, request: &Request, path: &str, now: Timestamp) -> Response {
    let (config, headers) = (&state.config, &request.headers);
    if path == "/revoke" {
        return match Form::of(request) {
            Ok(form) => metadata::revoke(&form),
            Err(fault) => fault.response(),
        };
    }
    if path == "/authorize" && matches!(request.method, Method::GET | Method::HEAD | Method::POST) {
        return metadata::authorize();
    }
    if let Some(refused) = metadata::read_only(&request.method) {
        return refused;
    }
    let keyed = |answer: &dyn Fn(&Ring) -> Response| match state.ring() {
        Ok(ring) => answer(&ring),
        Err(fault) => fault.response(),
    };
    match path {
        "/jwks" => keyed(&|ring| metadata::jwks(&ring.0, config, headers, now)),
        "/spiffe/bundle" => keyed(&|ring| metadata::spiffe_bundle(&ring.0, config, headers, now)),
        "/statuslists" => metadata::aggregation(&state.lists, &state.world.read(), config, headers, now),
        "/openapi.json" => metadata::openapi(headers),
        _ => {
            if let Some(name) = path.strip_prefix("/statuslists/") {
                let ring = match state.ring() {
                    Ok(ring) => ring,
                    Err(fault) => return fault.response(),
                };
                return metadata::status_list(
                    &state.lists,
                    &state.world,
                    &ring.0,
                    config,
                    name,
                    request,
                    now,
                )
                .await;
            }
            let world = state.world.read();
            if metadata::is_discovery_path(&config.issuer, &request.path) {
                metadata::discovery(config, &world, headers)
            } else if let Some(agent) = metadata::protected_agent(path) {
                metadata::protected_resource(config, &world, &agent, headers)
            } else {
                text(StatusCode::NOT_FOUND, "nothing is served here; /openapi.json tells what is\n")
            }
        }
    }
}

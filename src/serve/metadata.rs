//! What anybody may read: metadata, keys, status lists; and the endpoints that only say why they do nothing.
//!
//! Invariants: a document names only what is done here; what verifiers may keep is kept for less time than a key is
//! published before it signs; a status list is handed out only while the world can be believed.

mod answer;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use jiff::Timestamp;
use serde_json::{Value, json};

use self::answer::{document, refused, tagged};
use super::fault::{Code, Fault};
use super::form::Form;
use super::lists::{Lists, NoList, is_fresh};
use crate::api::{Configuration, Reason, TokenProfile};
use crate::cluster::feed::SharedWorld;
use crate::cluster::keystore::Loaded;
use crate::crypto::JwkSet;
use crate::domain::decide::resource_refusal;
use crate::domain::keyring::{KeySlot, Times};
use crate::domain::{Key, ListId, World};
use crate::net::listen::{Request, Response, json as json_answer};

/// For how long the metadata may be kept, in seconds.
const METADATA_AGE: u32 = 300;
/// The most scopes that the metadata names.
const MOST_SCOPES: usize = 1000;
/// The suffixes of the metadata (OpenID Connect Discovery §4, RFC 8414 §3).
const WELL_KNOWN: [&str; 2] =
    ["/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"];
/// Where an agent's protected resource metadata is (RFC 9728 §3).
const PROTECTED_RESOURCE: &str = "/.well-known/oauth-protected-resource/";

/// The path of an issuer's URL, without a slash at its end.
fn path_of(issuer: &str) -> &str {
    let rest = issuer.strip_prefix("https://").unwrap_or(issuer);
    rest.find('/').map_or("", |at| &rest[at..])
}

/// Whether the metadata is at a path: at the root, with the issuer's path behind the suffix (RFC 8414 §3.1), and
/// before it (OpenID Connect Discovery §4).
#[must_use]
pub fn is_discovery_path(issuer: &str, path: &str) -> bool {
    let prefix = path_of(issuer);
    WELL_KNOWN.iter().any(|suffix| {
        path.strip_prefix(suffix).is_some_and(|rest| rest.is_empty() || rest == prefix)
            || path.strip_suffix(suffix).is_some_and(|rest| rest == prefix)
    })
}

/// The metadata (RFC 8414 §2, OpenID Connect Discovery §3); without `scopes_supported` where the scopes are not
/// known.
#[must_use]
pub fn discovery_document(config: &Configuration, scopes: Option<&BTreeSet<&str>>) -> Value {
    let issuer = &config.issuer;
    let at = |path: &str| format!("{issuer}/{path}");
    let mut metadata = json!({
        "issuer": issuer,
        "token_endpoint": at("token"),
        "jwks_uri": at("jwks"),
        "introspection_endpoint": at("introspect"),
        "revocation_endpoint": at("revoke"),
        // Clients drop metadata without it, though no grant here has a use for it.
        "authorization_endpoint": at("authorize"),
        "grant_types_supported": [
            "client_credentials",
            "urn:ietf:params:oauth:grant-type:jwt-bearer",
            "urn:ietf:params:oauth:grant-type:token-exchange",
            super::token::AGENT_USER,
        ],
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256", "RS256"],
        "token_endpoint_auth_methods_supported": ["private_key_jwt", "none"],
        "token_endpoint_auth_signing_alg_values_supported": ["ES256", "ES384", "RS256", "PS256"],
        "introspection_endpoint_auth_methods_supported": ["private_key_jwt"],
        "introspection_endpoint_auth_signing_alg_values_supported": ["ES256", "ES384", "RS256", "PS256"],
        "revocation_endpoint_auth_methods_supported": ["none"],
        "status_list_aggregation_endpoint": at("statuslists"),
        "entity_profiles_supported": {
            "client": ["ai_agent", "service"],
            "subject": ["ai_agent", "user"],
            "actor": ["ai_agent"],
        },
    });
    if let Some(scopes) = scopes {
        metadata["scopes_supported"] = scopes.iter().take(MOST_SCOPES).copied().collect();
    }
    metadata
}

/// The scopes that live resources offer, in order.
fn scopes(world: &World) -> BTreeSet<&str> {
    let live = world.resources().filter(|r| !r.meta.deleting && resource_refusal(world, r).is_none());
    live.flat_map(|r| r.scopes.iter().map(|s| &**s)).collect()
}

/// Answers for the metadata.
#[must_use]
pub fn discovery(config: &Configuration, world: &World, headers: &HeaderMap) -> Response {
    let metadata = discovery_document(config, Some(&scopes(world)));
    document("application/json", metadata.to_string(), METADATA_AGE, headers)
}

/// For how long a key set may be kept, in seconds: a key that appears now is in every kept copy before it signs.
#[must_use]
pub fn keys_age(keys: &Loaded, config: &Configuration, now: Timestamp) -> u32 {
    let times = Times::from(config);
    let promotions = KeySlot::ALL.into_iter().filter_map(|slot| keys.ring.promotes_at(slot, &times));
    let next = promotions.map(|at| u32::try_from(at.duration_since(now).as_secs()).unwrap_or(0)).min();
    next.unwrap_or(u32::MAX).min(times.publish_ahead / 2).clamp(5, 3600)
}

/// Answers for the key set (RFC 7517 §5).
#[must_use]
pub fn jwks(keys: &Loaded, config: &Configuration, headers: &HeaderMap, now: Timestamp) -> Response {
    document("application/jwk-set+json", keys.jwks.to_json(), keys_age(keys, config, now), headers)
}

/// The SPIFFE bundle of some keys (SPIFFE Trust Domain and Bundle §4).
#[must_use]
pub fn bundle_document(token_keys: &JwkSet, generation: u64, age: u32) -> String {
    token_keys.to_spiffe_bundle(generation, age)
}

/// Answers for the SPIFFE bundle, as the profile `https_web` asks for it (SPIFFE Federation §5.2).
#[must_use]
pub fn spiffe_bundle(keys: &Loaded, config: &Configuration, headers: &HeaderMap, now: Timestamp) -> Response {
    let age = keys_age(keys, config, now);
    document("application/json", bundle_document(&keys.token_jwks, keys.ring.generation, age), age, headers)
}

/// Answers for the authorization endpoint (RFC 6749 §3.1): there is nothing to authorize in a browser.
#[must_use]
pub fn authorize() -> Response {
    let body = json!({
        "error": "unsupported_response_type",
        "error_description": "agents need no browser: they get tokens at the token endpoint with the \
                              service-account token of their pod (client_credentials or jwt-bearer), or with a \
                              user's token (token-exchange)",
    });
    let mut response = json_answer(StatusCode::BAD_REQUEST, &body);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Answers for the revocation endpoint (RFC 7009 §2.2.1): a token is revoked with what it was got for.
#[must_use]
pub fn revoke(form: &Form) -> Response {
    let fault = match form.need("token") {
        Err(fault) => fault,
        Ok(_) => Fault::new(
            Code::UnsupportedTokenType,
            Reason::Invalid,
            "no single token is revoked: delete or narrow the AgentGrant, suspend or delete the AgentIdentity, or \
             revoke the signing key with agentid keys revoke; the status lists say so at once",
        ),
    };
    fault.response()
}

/// Answers for a status list (Token Status List §8); `name` is what stands behind `/statuslists/`.
pub async fn status_list(
    lists: &Lists,
    world: &SharedWorld,
    keys: &Loaded,
    config: &Configuration,
    name: &str,
    request: &Request,
    now: Timestamp,
) -> Response {
    let Ok(list) = name.parse::<ListId>() else { return no_list(&NoList::Unknown) };
    let query = request.query.as_deref().unwrap_or_default();
    if form_urlencoded::parse(query.as_bytes()).any(|(name, _)| name == "time") {
        let fault = Fault::request("lists of the past are not kept: leave the parameter time out");
        return refused(&fault.with_status(StatusCode::NOT_IMPLEMENTED));
    }
    if !is_fresh(&world.read(), now) {
        return stale();
    }
    match lists.token(list, keys, &config.issuer, now).await {
        Ok(served) => tagged(
            "application/statuslist+jwt",
            served.jws.clone(),
            &served.etag,
            served.ttl,
            &request.headers,
        ),
        Err(problem) => no_list(&problem),
    }
}

/// Answers for the aggregation of the status lists (Token Status List §9.3).
#[must_use]
pub fn aggregation(
    lists: &Lists,
    world: &World,
    config: &Configuration,
    headers: &HeaderMap,
    now: Timestamp,
) -> Response {
    if !is_fresh(world, now) {
        return stale();
    }
    if !lists.is_ready() {
        return no_list(&NoList::NotReady);
    }
    let uris: Vec<_> =
        lists.names().into_iter().map(|list| format!("{}/statuslists/{list}", config.issuer)).collect();
    let body = json!({"status_lists": uris}).to_string();
    document("application/json", body, config.status_lists.ttl.0, headers)
}

fn stale() -> Response {
    refused(&Fault::unknown("the API server has said nothing for too long, so no status can be told"))
}

fn no_list(problem: &NoList) -> Response {
    refused(&match problem {
        NoList::Unknown => Fault::request(problem.to_string()).with_status(StatusCode::NOT_FOUND),
        NoList::NotReady => Fault::later(Reason::Unknown, 1, problem.to_string()),
        NoList::NoKey => Fault::keys(problem.to_string()),
        NoList::Failed(_) => {
            tracing::error!(%problem, "a status list can't be handed out");
            Fault::new(Code::ServerError, Reason::Internal, "the status list can't be made")
        }
    })
}

/// The agent that a path asks the protected resource metadata of.
#[must_use]
pub fn protected_agent(path: &str) -> Option<Key> {
    let (namespace, name) = path.strip_prefix(PROTECTED_RESOURCE)?.split_once('/')?;
    let fits = |text: &str| {
        !text.is_empty()
            && text.len() <= 253
            && text.bytes().all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'))
    };
    (fits(namespace) && fits(name)).then(|| Key::new(namespace, name))
}

/// Answers for the metadata of an agent that takes calls (RFC 9728 §2). It names no `jwks_uri`: that would be keys
/// with which the agent itself signs.
#[must_use]
pub fn protected_resource(
    config: &Configuration,
    world: &World,
    agent: &Key,
    headers: &HeaderMap,
) -> Response {
    let is_live = |key| world.agent(key).is_some_and(|a| !a.meta.deleting);
    let resources = world.resources().filter(|r| {
        r.agent.as_ref() == Some(agent)
            && r.profile == TokenProfile::Access
            && !r.meta.deleting
            && resource_refusal(world, r).is_none()
    });
    let Some(resource) = resources.min_by_key(|r| r.meta.seniority()).filter(|_| is_live(agent)) else {
        let fault = Fault::request("no AgentResource says that this agent takes calls");
        return refused(&fault.with_status(StatusCode::NOT_FOUND));
    };
    let mut scopes: Vec<&str> = resource.scopes.iter().map(|s| &**s).collect();
    scopes.sort_unstable();
    let metadata = json!({
        "resource": &*resource.audience,
        "authorization_servers": [config.issuer],
        "scopes_supported": scopes,
        "bearer_methods_supported": ["header"],
        "resource_name": agent.to_string(),
    });
    document("application/json", metadata.to_string(), METADATA_AGE, headers)
}

/// Answers with the description of all public endpoints (OpenAPI 3.1).
#[must_use]
pub fn openapi(headers: &HeaderMap) -> Response {
    document("application/json", include_str!("openapi.json"), METADATA_AGE, headers)
}

/// Refuses every method but GET and HEAD.
#[must_use]
pub fn read_only(method: &Method) -> Option<Response> {
    if matches!(*method, Method::GET | Method::HEAD) {
        return None;
    }
    let fault = Fault::request("only GET and HEAD").with_status(StatusCode::METHOD_NOT_ALLOWED);
    let mut response = fault.response();
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    Some(response)
}

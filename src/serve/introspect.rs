//! `/introspect` (RFC 7662): whether a token of ours stands, for those whom it concerns.
//!
//! Invariants: the caller is authenticated; who is neither named by the token's resource, nor the agent that it is
//! for, nor the agent whose it is, learns `{"active": false}` and nothing else, or, whether the token stands or not, to come
//! again while who it is can't be told; the answer is decided from live objects at this moment.

use http::{HeaderValue, StatusCode, header};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::client::{Slot, assertion, caller_of};
use super::fault::{Code, Fault};
use super::form::Form;
use super::ours::{self, Ours};
use super::state::State;
use crate::api::Reason;
use crate::domain::identify::{agent_of_pod, live_account};
use crate::domain::presented::stands;
use crate::domain::{Agent, Key, Refusal, World};
use crate::net::listen::{Request, Response, json as json_response};

/// The claims that an answer repeats.
const TOLD: &[&str] = &[
    "scope",
    "client_id",
    "exp",
    "iat",
    "nbf",
    "sub",
    "aud",
    "iss",
    "jti",
    "roles",
    "act",
    "sub_id",
    "preferred_username",
    "sub_profile",
    "client_profile",
    "agentid.dev",
];

/// Answers an introspection.
pub(super) async fn answer(state: &State, request: &Request, now: Timestamp) -> Response {
    match serve(state, request, now).await {
        Ok(active) => {
            state.metrics.introspected(active.contains_key("sub"));
            let mut response = json_response(StatusCode::OK, &Value::Object(active));
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        Err(fault) => {
            state.metrics.refused(fault.reason);
            fault.response()
        }
    }
}

async fn serve(state: &State, request: &Request, now: Timestamp) -> Result<Map<String, Value>, Fault> {
    let form = Form::of(request)?;
    let by_header = request.headers.contains_key(header::AUTHORIZATION);
    let challenged =
        |fault: Fault| Fault { challenge: by_header && fault.code == Code::InvalidClient, ..fault };
    let credential = assertion(&form, request, true).map_err(challenged)?.ok_or_else(|| {
        let fault = Fault::client(
            Reason::CredentialRejected,
            "who asks? send client_assertion or Authorization: Bearer with a service-account token",
        );
        Fault { challenge: true, ..fault }
    })?;
    let verified =
        state.callers.verify(credential, now).await.map_err(|e| challenged(Slot::Client.caller(&e)))?;
    let token = form.need("token")?;
    let ring = state.ring()?;
    let world = state.fresh_world(now)?;
    let unidentified = |r: &Refusal| challenged(Slot::Client.unidentified(r));
    let caller = caller_of(&verified);
    live_account(&world, &caller, now).map_err(|r| unidentified(&r))?;
    // Before it is seen whether the token stands: whom it may not concern must not learn that by the answer. Who is named
    // by an AgentResource needs be no agent, and no pod that is seen.
    let (me, later) = match agent_of_pod(&world, &caller, None, now) {
        Ok(me) => (Some(me), None),
        Err(r) if matches!(r.reason, Reason::CallerPending | Reason::Unknown) => (None, Some(r)),
        Err(_) => (None, None),
    };
    if let Some(refusal) = &later
        && !introspects(&world, &caller.account)
    {
        return Err(unidentified(refusal));
    }
    let Ok(token) = ours::verify(&ring, &state.config, token, now) else { return Ok(inactive()) };
    if let Some(refusal) = &later
        && !named_for(&world, &token, &caller.account)
    {
        return Err(unidentified(refusal));
    }
    let agent = match stands(&world, &token.presented, now) {
        Ok(agent) => agent,
        // Unknown is neither active nor inactive.
        Err(refusal) if refusal.reason == Reason::Unknown => {
            return Err(Fault::unknown("whether the token stands can't be told now"));
        }
        Err(_) => return Ok(inactive()),
    };
    if concerns(&world, &caller.account, me, &token, agent) {
        Ok(active(token, agent))
    } else {
        Ok(inactive())
    }
}

/// Whether an AgentResource names the service account.
fn introspects(world: &World, account: &Key) -> bool {
    world.resources().any(|r| r.introspectors.contains(account))
}

/// Whether the AgentResource that a token is for names the service account.
fn named_for(world: &World, token: &Ours, account: &Key) -> bool {
    let resource = world.audience_holder(&token.presented.audience.as_str().into());
    resource.is_some_and(|r| r.introspectors.contains(account))
}

fn inactive() -> Map<String, Value> {
    Map::from_iter([("active".to_owned(), Value::Bool(false))])
}

/// Whether the caller, an account and the agent that its pod is, may know of the token.
fn concerns(world: &World, account: &Key, me: Option<&Agent>, token: &Ours, agent: &Agent) -> bool {
    let resource = world.audience_holder(&token.presented.audience.as_str().into());
    named_for(world, token, account)
        || me.is_some_and(|me| {
            me.meta.uid == agent.meta.uid || resource.is_some_and(|r| r.agent.as_ref() == Some(&me.meta.key))
        })
}

fn active(token: Ours, agent: &Agent) -> Map<String, Value> {
    let mut answer = inactive();
    answer.insert("active".to_owned(), Value::Bool(true));
    answer.insert("token_type".to_owned(), json!(if token.presented.is_access { "Bearer" } else { "N_A" }));
    let username = token.presented.username.unwrap_or_else(|| agent.meta.key.to_string());
    answer.insert("username".to_owned(), json!(username));
    let mut claims = token.claims;
    for name in TOLD {
        if let Some(value) = claims.remove(*name) {
            answer.insert((*name).to_owned(), value);
        }
    }
    answer
}

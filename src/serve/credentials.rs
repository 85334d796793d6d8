//! `/credentials`: what the agent's Secret would hold, minted for its pod, for `agentid sidecar`.
//!
//! Invariant: the same files as the Secret's, from the same plan, with recorded indexes and the lifetimes of tokens
//! on demand.

use std::collections::BTreeMap;

use http::{HeaderValue, StatusCode, header};
use jiff::Timestamp;
use serde::Serialize;

use super::client::{Slot, assertion, client_id};
use super::fault::{Code, Fault};
use super::form::Form;
use super::state::State;
use super::token::refuse;
use crate::api::{Reason, TokenProfile};
use crate::domain::plan::{Issue, on_demand};
use crate::issue::{Action, AuditLine};
use crate::net::listen::{Request, Response, json};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    files: BTreeMap<String, String>,
    expires_at: Timestamp,
    renew_at: Timestamp,
}

/// Answers a request for an agent's files.
pub(super) async fn answer(state: &State, request: &Request, now: Timestamp) -> Response {
    let mut line = AuditLine::new(Action::Refuse, Reason::Invalid, now);
    line.endpoint = Some("/credentials".to_owned());
    line.source = Some(request.peer.ip().to_string());
    match serve(state, request, &mut line, now).await {
        Ok(answer) => {
            let mut response = json(StatusCode::OK, &answer);
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        Err(fault) => refuse(state, line, &fault),
    }
}

async fn serve(
    state: &State,
    request: &Request,
    line: &mut AuditLine,
    now: Timestamp,
) -> Result<Answer, Fault> {
    let form = Form::of(request)?;
    let token = assertion(&form, request, false)?
        .ok_or_else(|| Fault::client(Reason::CredentialRejected, "client_assertion is missing"))?;
    let named = client_id(state, &form)?;
    let verified = state.service_account(token, Slot::Client, line, now).await?;
    let client = state.client(&verified, named.as_ref(), Slot::Client, line, now)?;
    let ring = state.ring()?;
    let issue = {
        let world = state.fresh_world(now)?;
        let (agent, decision) = client.allowed(&world, Slot::Client, now)?;
        on_demand(&world, agent, &decision).map_err(|grant| {
            Fault::later(
                Reason::IndexPending,
                1,
                format!("AgentGrant {grant} is held, and its status index is about to be recorded"),
            )
        })?
    };
    let issue = bounded(state, issue);
    let contents = state.issuer.mint_for(&issue, &ring, now, line).map_err(|e| match e.reason() {
        Reason::KeysUnavailable => Fault::keys(e.to_string()),
        reason => Fault::new(Code::ServerError, reason, "a token could not be signed"),
    })?;
    for token in &issue.tokens {
        state.metrics.issued(match token.entitlement.profile {
            TokenProfile::Access => "autonomous",
            TokenProfile::Identity => "identity",
        });
    }
    let mut files = contents.data;
    files.insert("jwks.json".to_owned(), ring.0.jwks.to_json());
    files.insert("issuer".to_owned(), state.config.issuer.clone());
    if let Some(ca) = state.ca_pem() {
        files.insert("ca.crt".to_owned(), ca);
    }
    let expires_at = contents.expires_at.unwrap_or(now);
    Ok(Answer { files, expires_at, renew_at: contents.renew_at.unwrap_or(expires_at) })
}

/// The lifetimes of tokens on demand: all renew by the shortest.
fn bounded(state: &State, mut issue: Issue) -> Issue {
    let limits = &state.config.limits;
    for token in &mut issue.tokens {
        let limit = match token.entitlement.profile {
            TokenProfile::Access => limits.on_demand_token_lifetime,
            TokenProfile::Identity => limits.identity_token_lifetime,
        };
        token.entitlement.lifetime = token.entitlement.lifetime.min(limit.0);
        issue.lifetime = issue.lifetime.min(token.entitlement.lifetime);
    }
    issue
}

//! From a wish to a token: decide, choose, mint, answer.
//!
//! Invariant: the world is asked once, under one lock, and minting needs no further look.

use http::{HeaderValue, StatusCode, header};
use jiff::Timestamp;
use serde::Serialize;

use super::super::client::{Client, Slot};
use super::super::fault::{Code, Fault};
use super::super::state::State;
use crate::api::{Reason, TokenProfile};
use crate::domain::choose::{Ask, Chosen, Denied, choose};
use crate::domain::{Agent, Refusal};
use crate::issue::{AuditLine, Chain, Demand};
use crate::net::listen::{Response, json};

/// The token types (RFC 8693 §3).
pub(super) const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
pub(super) const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// A token that is wished for.
pub(super) struct Wish<'a> {
    pub(super) ask: Ask<'a>,
    pub(super) slot: Slot,
    /// Which kind.
    pub(super) profile: TokenProfile,
    /// In whose name.
    pub(super) chain: Option<Chain>,
    /// No later than this.
    pub(super) not_after: Option<Timestamp>,
    /// It came by an exchange, whose answer names the token's type.
    pub(super) exchanged: bool,
}

impl<'a> Wish<'a> {
    /// An access token that needs nobody else's: in the agent's own right, or as its user.
    pub(super) const fn own(ask: Ask<'a>) -> Self {
        Self {
            ask,
            slot: Slot::Client,
            profile: TokenProfile::Access,
            chain: None,
            not_after: None,
            exchanged: false,
        }
    }
}

#[derive(Serialize)]
struct Answer<'a> {
    access_token: &'a str,
    token_type: &'static str,
    expires_in: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_token_type: Option<&'static str>,
}

/// Mints for an agent, and says in the line what.
pub(super) fn mint(
    state: &State,
    client: &Client,
    wish: &Wish<'_>,
    line: &mut AuditLine,
    now: Timestamp,
) -> Result<Response, Fault> {
    let ring = state.ring()?;
    let chosen = {
        let world = state.fresh_world(now)?;
        let (agent, decision) = client.allowed(&world, wish.slot, now)?;
        choose(&world, agent, &decision, &wish.ask).map_err(|d| denied(d, agent, wish.slot))?
    };
    let entitlement = bounded(state, &chosen, wish.profile)?;
    line.resource = Some(chosen.resource.to_string());
    line.grant = Some(chosen.name.to_string());
    line.says(&entitlement);
    line.at(chosen.status);
    if let Some(chain) = &wish.chain {
        line.on_behalf_of = Some(chain.subject.principal.clone());
    }
    let demand = Demand {
        agent: &client.agent,
        uid: client.uid,
        blueprint: client.blueprint.as_deref(),
        grant: chosen.grant,
        entitlement: &entitlement,
        status: chosen.status,
        chain: wish.chain.as_ref(),
        not_after: wish.not_after,
    };
    let minted = state.issuer.demand(&demand, &ring, now).map_err(|e| match e.reason() {
        Reason::KeysUnavailable => Fault::keys(e.to_string()),
        reason => Fault::new(Code::ServerError, reason, "the token could not be signed"),
    })?;
    if minted.expires_at <= now {
        return Err(wish.slot.fault(Reason::Expired, "no time is left for this token"));
    }
    line.expires_at = Some(minted.expires_at);
    line.jti = Some(minted.jti);
    line.kid = Some(minted.kid);
    let access = wish.profile == TokenProfile::Access;
    let answer = Answer {
        access_token: &minted.token,
        token_type: if access { "Bearer" } else { "N_A" },
        expires_in: minted.expires_at.as_second() - now.as_second(),
        scope: entitlement.scopes.join(" "),
        issued_token_type: wish.exchanged.then_some(if access { ACCESS_TOKEN } else { JWT }),
    };
    let mut response = json(StatusCode::OK, &answer);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// What is chosen, of the kind that is wished for, with a lifetime fit for a token on demand.
fn bounded(
    state: &State,
    chosen: &Chosen,
    profile: TokenProfile,
) -> Result<crate::domain::Entitlement, Fault> {
    let mut entitlement = chosen.entitlement.clone();
    if entitlement.profile != profile {
        let remedy = match entitlement.profile {
            TokenProfile::Identity => "it takes identity tokens: exchange with requested_token_type ...:jwt",
            TokenProfile::Access => "it takes access tokens: leave requested_token_type out",
        };
        return Err(Fault::new(Code::InvalidTarget, Reason::Invalid, remedy));
    }
    let limits = &state.config.limits;
    let limit = match profile {
        TokenProfile::Access => limits.on_demand_token_lifetime,
        TokenProfile::Identity => limits.identity_token_lifetime,
    };
    entitlement.lifetime = entitlement.lifetime.min(limit.0);
    Ok(entitlement)
}

fn denied(denied: Denied, agent: &Agent, slot: Slot) -> Fault {
    let of = |code, r: &Refusal| Fault::new(code, r.reason, format!("{}: {}", r.reason, r.message));
    match denied {
        Denied::Target(r) => of(Code::InvalidTarget, &r),
        Denied::Scope(r) => of(Code::InvalidScope, &r),
        Denied::Subject(r) => slot.refused(&r),
        Denied::Pending(r) => {
            // A Secret of somebody else's in the place of the agent's is seen by the operator alone.
            let ready = agent.status.condition("Ready");
            if ready.is_some_and(|c| c.status == Some(false) && c.reason == Some(Reason::ForeignObject)) {
                return slot.fault(Reason::ForeignObject, "ForeignObject: see the agent's condition Ready");
            }
            Fault::later(r.reason, 1, format!("{}: {}", r.reason, r.message))
        }
    }
}

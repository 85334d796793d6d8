//! Who asks: a pod by its service-account token, for the agent that it is.
//!
//! Invariants: exactly one way to authenticate per request (RFC 6749 §2.3); the error is that of the slot that the
//! credential came in; what is known of the caller goes into the audit line, refused or not.

use std::sync::Arc;

use http::header;
use jiff::Timestamp;

use super::callers::{CallerError, ServiceAccountToken};
use super::fault::{Code, Fault};
use super::form::Form;
use super::metrics::Side;
use super::state::State;
use crate::api::Reason;
use crate::domain::identify::{Caller, ClientId, agent_of_pod, standing_refusal};
use crate::domain::status::agent_id;
use crate::domain::{Agent, Decision, Key, Refusal, Uid, World, decide};
use crate::issue::AuditLine;
use crate::net::listen::Request;

/// The one `client_assertion_type` in use (RFC 7523 §2.2).
pub(super) const JWT_BEARER_ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Where a credential was presented, which decides the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// `client_assertion`: `invalid_client`.
    Client,
    /// `assertion`: `invalid_grant`.
    Assertion,
    /// `subject_token` and `actor_token`: `invalid_request` (RFC 8693 §2.2.2).
    Exchange,
}

impl Slot {
    pub(super) fn fault(self, reason: Reason, description: impl AsRef<str>) -> Fault {
        let code = match self {
            Self::Client => Code::InvalidClient,
            Self::Assertion => Code::InvalidGrant,
            Self::Exchange => Code::InvalidRequest,
        };
        Fault::new(code, reason, description)
    }

    /// A refusal of decide's: what can't be told is no refusal.
    pub(super) fn refused(self, refusal: &Refusal) -> Fault {
        if refusal.reason == Reason::Unknown {
            return Fault::unknown(&refusal.message);
        }
        self.fault(refusal.reason, format!("{}: {}", refusal.reason, refusal.message))
    }

    /// A refusal to say who asks: what can't be told yet will be in a moment.
    pub(super) fn unidentified(self, refusal: &Refusal) -> Fault {
        if refusal.reason == Reason::CallerPending {
            return Fault::later(refusal.reason, 1, &refusal.message);
        }
        self.refused(refusal)
    }

    pub(super) fn caller(self, error: &CallerError) -> Fault {
        match error {
            CallerError::Unavailable { retry_after, .. } => {
                Fault::later(error.reason(), retry_after.as_secs().max(1), error.to_string())
            }
            _ => self.fault(error.reason(), error.to_string()),
        }
    }
}

/// The agent that asks.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) agent: Key,
    pub(super) uid: Uid,
    pub(super) blueprint: Option<Arc<str>>,
}

/// A service-account token in the way that client authentication takes it: `client_assertion`, or (where a
/// resource server asks) the `Authorization` header.
pub(super) fn assertion<'a>(
    form: &'a Form,
    request: &'a Request,
    header_too: bool,
) -> Result<Option<&'a str>, Fault> {
    let mut found = None;
    let mut sent = request.headers.get_all(header::AUTHORIZATION).iter();
    let (by_header, again) = (sent.next(), sent.next());
    let also = ["client_assertion", "client_secret"].iter().any(|name| form.get(name).is_some());
    if again.is_some() || (by_header.is_some() && also) {
        return Err(Fault::request("two ways to authenticate in one request"));
    }
    if let Some(value) = by_header {
        let text = value.to_str().unwrap_or_default();
        let bearer = text.get(..7).filter(|s| s.eq_ignore_ascii_case("bearer ")).and_then(|_| text.get(7..));
        match bearer {
            Some(token) if header_too => found = Some(token.trim()),
            _ => {
                let fault = Fault::client(
                    Reason::CredentialRejected,
                    "the Authorization header is not taken here; use client_assertion",
                );
                return Err(Fault { challenge: true, ..fault });
            }
        }
    }
    if form.get("client_secret").is_some() {
        return Err(Fault::request("client_secret is not taken; use client_assertion"));
    }
    match (form.get("client_assertion"), form.get("client_assertion_type")) {
        (Some(token), Some(JWT_BEARER_ASSERTION)) => found = Some(token),
        (Some(_), Some(_)) => {
            return Err(Fault::client(
                Reason::CredentialRejected,
                format!("client_assertion_type must be {JWT_BEARER_ASSERTION}"),
            ));
        }
        (None, None) => {}
        _ => return Err(Fault::request("client_assertion and client_assertion_type go together")),
    }
    Ok(found)
}

/// The `client_id`, if there is one.
pub(super) fn client_id(state: &State, form: &Form) -> Result<Option<ClientId>, Fault> {
    let Some(text) = form.get("client_id") else { return Ok(None) };
    let id = ClientId::read(&state.config.trust_domain, text);
    id.map(Some).ok_or_else(|| {
        Fault::client(
            Reason::CredentialRejected,
            "client_id is neither an agent's id nor <namespace>/<name> of an AgentIdentity",
        )
    })
}

impl State {
    /// Verifies a service-account token; whether account and pod live is for the world.
    pub(super) async fn service_account(
        &self,
        token: &str,
        slot: Slot,
        line: &mut AuditLine,
        now: Timestamp,
    ) -> Result<ServiceAccountToken, Fault> {
        let verified = self.callers.verify(token, now).await.map_err(|e| slot.caller(&e))?;
        line.service_account = Some(verified.account.to_string());
        if let Some((pod, uid)) = &verified.pod {
            line.pod = Some(pod.to_string());
            line.pod_uid = Some(uid.to_string());
        }
        Ok(verified)
    }

    /// The agent that the pod of a service-account token is, held to its rate. Whether it may buy tokens now is
    /// still to be asked: of [`Self::standing`], or by whoever decides what it gets.
    pub(super) fn client(
        &self,
        token: &ServiceAccountToken,
        named: Option<&ClientId>,
        slot: Slot,
        line: &mut AuditLine,
        now: Timestamp,
    ) -> Result<Client, Fault> {
        let caller = caller_of(token);
        let client = {
            let world = self.fresh_world(now)?;
            let agent = agent_of_pod(&world, &caller, named, now).map_err(|r| slot.unidentified(&r))?;
            self.known(&world, agent, line);
            Client::of(agent)
        };
        self.paced(&client.agent)?;
        Ok(client)
    }

    /// Refuses an agent that may not buy tokens now, before more is done for it.
    pub(super) fn standing(&self, client: &Client, slot: Slot, now: Timestamp) -> Result<(), Fault> {
        client.allowed(&*self.fresh_world(now)?, slot, now).map(drop)
    }

    /// Notes whose request it is.
    pub(super) fn known(&self, world: &World, agent: &Agent, line: &mut AuditLine) {
        line.agent_id = Some(agent_id(&world.config().trust_domain, agent.meta.uid));
        line.namespace = Some(agent.meta.key.namespace.to_string());
        line.name = Some(agent.meta.key.name.to_string());
        line.blueprint = agent.blueprint.as_deref().map(str::to_owned);
    }

    /// Holds an agent to its rate.
    pub(super) fn paced(&self, agent: &Key) -> Result<(), Fault> {
        self.per_agent.check(agent).map_err(|wait| {
            self.metrics.limited(Side::Agent);
            Fault::slow_down(wait.seconds(), "this agent asks too often; come again later")
        })
    }
}

/// The caller as the world looks for it.
pub(super) fn caller_of(token: &ServiceAccountToken) -> Caller {
    Caller {
        account: token.account.clone(),
        account_uid: token.account_uid,
        pod: token.pod.clone(),
        issued_at: token.issued_at,
    }
}

impl Client {
    pub(super) fn of(agent: &Agent) -> Self {
        Self { agent: agent.meta.key.clone(), uid: agent.meta.uid, blueprint: agent.blueprint.clone() }
    }

    /// The agent, and the decision about it, if it may buy tokens now.
    pub(super) fn allowed<'a>(
        &self,
        world: &'a World,
        slot: Slot,
        now: Timestamp,
    ) -> Result<(&'a Agent, Decision), Fault> {
        let gone = || slot.fault(Reason::AgentNotFound, "the agent is gone");
        let agent = world.agent(&self.agent).filter(|a| a.meta.uid == self.uid).ok_or_else(gone)?;
        let decision = decide(world, &self.agent, now).ok_or_else(gone)?;
        match standing_refusal(&decision.standing) {
            None => Ok((agent, decision)),
            Some(refusal) => Err(slot.refused(&refusal)),
        }
    }
}

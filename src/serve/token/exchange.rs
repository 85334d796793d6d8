//! Token exchange (RFC 8693): for a user, for an identity token, and for a chain of agents.
//!
//! Invariants: no delegated token without a live token that is addressed to this agent; it never outlives it and
//! never says more; our own token as subject must be active.

use jiff::Timestamp;

use super::super::client::{Client, Slot, assertion, client_id};
use super::super::fault::Fault;
use super::super::form::Form;
use super::super::ours::{self, Ours};
use super::super::state::State;
use super::super::users::UserToken;
use super::ask;
use super::mint::{ACCESS_TOKEN, JWT, Wish, mint};
use crate::api::{Reason, TokenProfile};
use crate::domain::choose::Ask;
use crate::domain::status::agent_id;
use crate::issue::{Actor, AuditLine, Chain, UserSubject};
use crate::net::listen::{Request, Response};

const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
/// The most actors in a chain.
const DEEPEST: usize = 4;

/// Answers an exchange.
pub(super) async fn exchange(
    state: &State,
    request: &Request,
    form: &Form,
    line: &mut AuditLine,
    now: Timestamp,
) -> Result<Response, Fault> {
    let subject = form.need("subject_token")?;
    let subject_type = form.need("subject_token_type")?;
    if ![ACCESS_TOKEN, ID_TOKEN, JWT].contains(&subject_type) {
        return Err(Fault::request("subject_token_type must be access_token, id_token or jwt"));
    }
    let profile = match form.get("requested_token_type") {
        None | Some(ACCESS_TOKEN) => TokenProfile::Access,
        Some(JWT) => TokenProfile::Identity,
        Some(_) => return Err(Fault::request("requested_token_type must be access_token or jwt")),
    };
    let actor = match (form.get("actor_token"), form.get("actor_token_type")) {
        (Some(token), Some(JWT)) => Some(token),
        (Some(_), Some(_)) => return Err(Fault::request("actor_token_type must be jwt")),
        (None, None) => None,
        _ => return Err(Fault::request("actor_token and actor_token_type go together")),
    };
    let (credential, slot) = match (actor, assertion(form, request, false)?) {
        (Some(_), Some(_)) => return Err(Fault::request("two ways to authenticate in one request")),
        (Some(token), None) => (Some(token), Slot::Exchange),
        (None, Some(token)) => (Some(token), Slot::Client),
        (None, None) => (None, Slot::Exchange),
    };
    let named = client_id(state, form)?;
    let ask = ask(form)?;
    if profile == TokenProfile::Identity {
        // The pod's own token is subject and actor in one.
        if credential.is_some_and(|c| c != subject) {
            return Err(Fault::request("for an identity token subject_token is the pod's own token"));
        }
        let verified = state.service_account(subject, slot, line, now).await?;
        let client = state.client(&verified, named.as_ref(), slot, line, now)?;
        let wish = Wish { profile, exchanged: true, slot, ..Wish::own(ask) };
        return mint(state, &client, &wish, line, now);
    }
    let credential = credential.ok_or_else(|| {
        Fault::client(
            Reason::CredentialRejected,
            "who acts? send actor_token or client_assertion, the pod's service-account token",
        )
    })?;
    let verified = state.service_account(credential, slot, line, now).await?;
    let client = state.client(&verified, named.as_ref(), slot, line, now)?;
    // Whoever is stopped makes us fetch no issuer's keys.
    state.standing(&client, slot, now)?;
    let me = Actor {
        issuer: state.config.issuer.clone(),
        subject: agent_id(&state.config.trust_domain, client.uid),
    };
    if ours::issuer_of(subject).as_ref() == Some(&state.config.issuer) {
        return pass_on(state, subject, &client, me, ask, line, now);
    }
    let user = state.users.verify(subject, now).await.map_err(|e| Slot::Exchange.caller(&e))?;
    addressed(state, &user, &client, &me.subject, now)?;
    let ceiling =
        user.scopes_apply.then(|| user.scopes.iter().flatten().map(String::as_str).collect::<Vec<_>>());
    let ask = Ask { user: Some((&user.issuer, &user.subject)), ceiling, ..ask };
    let chain = Chain { subject: of_user(&user), actors: vec![me], parents: Vec::new() };
    let wish = Wish {
        ask,
        slot: Slot::Exchange,
        profile,
        chain: Some(chain),
        not_after: Some(user.expires_at),
        exchanged: true,
    };
    mint(state, &client, &wish, line, now)
}

/// A user's token is for this agent: by its audience, which is the agent's id or stands for its blueprint; or by
/// `may_act` in a token for us.
fn addressed(
    state: &State,
    user: &UserToken,
    client: &Client,
    me: &str,
    now: Timestamp,
) -> Result<(), Fault> {
    if user.audiences.iter().any(|a| a == me) {
        return Ok(());
    }
    let configured = state.config.user_issuer(&user.issuer);
    if let Some(issuer) = configured.filter(|c| !c.blueprint_audiences.is_empty()) {
        let world = state.fresh_world(now)?;
        let agent = world.agent(&client.agent).filter(|a| a.meta.uid == client.uid);
        // Of an agent that was made, the very blueprint that made it.
        let blueprint = agent.and_then(|a| world.blueprint_of(a));
        if blueprint.is_some_and(|b| issuer.is_for_blueprint(&user.audiences, &b.meta.key.name)) {
            return Ok(());
        }
    }
    let ours = user
        .audiences
        .iter()
        .any(|a| *a == state.config.issuer || configured.is_some_and(|c| c.issuer.audiences.contains(a)));
    let named = user
        .may_act
        .as_ref()
        .is_some_and(|may| may.sub == me && may.iss.as_ref().is_none_or(|iss| *iss == state.config.issuer));
    if ours && named {
        return Ok(());
    }
    Err(Slot::Exchange.fault(
        Reason::CredentialRejected,
        "the subject_token is not addressed to this agent: its aud must be the agent's id or an audience that stands \
         for its blueprint (blueprintAudiences), or may_act must name it",
    ))
}

fn of_user(user: &UserToken) -> UserSubject {
    UserSubject {
        principal: user.principal.clone(),
        issuer: user.issuer.to_string(),
        subject: user.subject.clone(),
        is_agent: false,
        username: None,
        auth_time: user.auth_time,
        acr: user.acr.clone(),
        amr: user.amr.clone(),
    }
}

/// An agent that was called with a token of ours calls on.
fn pass_on(
    state: &State,
    subject: &str,
    client: &Client,
    me: Actor,
    ask: Ask<'_>,
    line: &mut AuditLine,
    now: Timestamp,
) -> Result<Response, Fault> {
    let refuse = |reason, text: &str| Slot::Exchange.fault(reason, text);
    let ring = state.ring()?;
    let token = ours::verify(&ring, &state.config, subject, now)
        .map_err(|e| refuse(Reason::CredentialRejected, &format!("subject_token: {e}")))?;
    if !token.presented.is_access {
        return Err(refuse(
            Reason::CredentialRejected,
            "subject_token: an identity token is passed on by nobody",
        ));
    }
    {
        let world = state.fresh_world(now)?;
        let callee = world.audience_holder(&token.presented.audience.as_str().into());
        if callee.and_then(|r| r.agent.as_ref()) != Some(&client.agent) {
            return Err(refuse(
                Reason::CredentialRejected,
                "the subject_token is for another resource than this agent",
            ));
        }
        crate::domain::presented::stands(&world, &token.presented, now)
            .map_err(|r| Slot::Exchange.refused(&r))?;
    }
    let Ours { presented, actors, subject, expires_at, .. } = token;
    if actors.len() + 1 > DEEPEST {
        return Err(Fault::request(format!("the chain is deeper than {DEEPEST} actors")));
    }
    let parents = presented.status.into_iter().chain(presented.parents.iter().copied()).collect();
    let scopes: Vec<&str> = presented.scopes.iter().map(String::as_str).collect();
    let ask = Ask { user: Some((&subject.issuer, &subject.subject)), ceiling: Some(scopes), ..ask };
    let chain =
        Chain { subject: subject.clone(), actors: std::iter::once(me).chain(actors).collect(), parents };
    let wish = Wish {
        ask,
        slot: Slot::Exchange,
        profile: TokenProfile::Access,
        chain: Some(chain),
        not_after: Some(expires_at),
        exchanged: true,
    };
    mint(state, client, &wish, line, now)
}

#[cfg(test)]
mod tests {
    use super::super::super::fault::Code;
    use super::*;

    #[test]
    fn a_bad_subject_token_is_an_invalid_request() {
        let fault = Slot::Exchange.fault(Reason::CredentialRejected, "x");
        assert_eq!((fault.code, fault.status.as_u16()), (Code::InvalidRequest, 400));
    }
}

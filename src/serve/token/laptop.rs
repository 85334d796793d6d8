//! jwt-bearer: a pod without client authentication, or a human who runs an agent on a laptop.
//!
//! Invariants: a human names the agent by `client_id` and needs the verb `run` on it; the human's token is addressed
//! to our issuer; the token is the agent's own, and the human stands in the audit line.

use jiff::Timestamp;

use super::super::client::{Client, Slot, caller_of, client_id};
use super::super::fault::{Code, Fault};
use super::super::form::Form;
use super::super::ours::issuer_of;
use super::super::state::State;
use super::ask;
use super::mint::{Wish, mint};
use crate::api::Reason;
use crate::domain::identify::{ClientId, live_account};
use crate::issue::AuditLine;
use crate::net::listen::Response;

/// Answers jwt-bearer.
pub(super) async fn jwt_bearer(
    state: &State,
    form: &Form,
    line: &mut AuditLine,
    now: Timestamp,
) -> Result<Response, Fault> {
    let token = form.need("assertion")?;
    let named = client_id(state, form)?;
    let wish = Wish { slot: Slot::Assertion, ..Wish::own(ask(form)?) };
    if issuer_of(token).is_some_and(|iss| state.config.user_issuer(&iss).is_some()) {
        let user = state.users.verify(token, now).await.map_err(|e| Slot::Assertion.caller(&e))?;
        if user.audiences != [state.config.issuer.as_str()] {
            return Err(Slot::Assertion
                .fault(Reason::CredentialRejected, "the assertion's one audience must be agentid's issuer"));
        }
        let wish = Wish { not_after: Some(user.expires_at), ..wish };
        return run(state, named.as_ref(), &user.principal, &[], &wish, line, now).await;
    }
    let verified = state.service_account(token, Slot::Assertion, line, now).await?;
    if verified.pod.is_some() {
        let client = state.client(&verified, named.as_ref(), Slot::Assertion, line, now)?;
        return mint(state, &client, &wish, line, now);
    }
    {
        let world = state.fresh_world(now)?;
        live_account(&world, &caller_of(&verified), now).map_err(|r| Slot::Assertion.unidentified(&r))?;
    }
    let crate::domain::Key { namespace, name } = &verified.account;
    let groups = [
        "system:serviceaccounts".to_owned(),
        format!("system:serviceaccounts:{namespace}"),
        "system:authenticated".to_owned(),
    ];
    let human = format!("system:serviceaccount:{namespace}:{name}");
    let wish = Wish { not_after: Some(verified.expires_at), ..wish };
    run(state, named.as_ref(), &human, &groups, &wish, line, now).await
}

async fn run(
    state: &State,
    named: Option<&ClientId>,
    human: &str,
    groups: &[String],
    wish: &Wish<'_>,
    line: &mut AuditLine,
    now: Timestamp,
) -> Result<Response, Fault> {
    line.on_behalf_of = Some(human.to_owned());
    let named = named.ok_or_else(|| {
        Slot::Assertion.fault(
            Reason::CredentialRejected,
            "the assertion is not bound to a pod; a pod mounts a projected token, a human names the agent by client_id",
        )
    })?;
    let client = {
        let world = state.fresh_world(now)?;
        let agent = match named {
            ClientId::Uid(uid) => world.agent_of_uid(*uid),
            ClientId::Name(key) => world.agent(key),
        };
        agent.map(Client::of)
    };
    // Who may not run it learns nothing of it, not even whether it is there.
    let unauthorized = || {
        Fault::new(
            Code::UnauthorizedClient,
            Reason::CredentialRejected,
            "there is no such agent, or this user lacks the verb run on it (agentidentities in agentid.dev)",
        )
    };
    let client = client.ok_or_else(unauthorized)?;
    let may = state.reviews.may_run(human, groups, "", &client.agent).await.map_err(|e| {
        Fault::later(
            Reason::Unknown,
            5,
            format!("the API server can't say who may run the agent: {}", e.class()),
        )
    })?;
    if !may {
        return Err(unauthorized());
    }
    {
        let world = state.fresh_world(now)?;
        let agent =
            world.agent(&client.agent).filter(|a| a.meta.uid == client.uid).ok_or_else(unauthorized)?;
        state.known(&world, agent, line);
    }
    state.paced(&client.agent)?;
    mint(state, &client, wish, line, now)
}

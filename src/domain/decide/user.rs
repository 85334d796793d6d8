//! The checks on an agent's user, each pure; the first that refuses decides. They refuse what is done as the user and
//! nothing else: the agent itself stays in order.

use std::sync::Arc;

use super::Refusal;
use crate::api::{Mode, Reason, TokenProfile};
use crate::domain::agent_user::{is_username, lies_in};
use crate::domain::{Agent, Grant, Resource, World};

/// Why nothing is done as an agent's user, if it has one.
#[must_use]
pub fn user_refusal(world: &World, agent: &Agent) -> Option<Refusal> {
    let username = agent.username.as_ref()?;
    let domains = &world.config().agent_user_domains;
    let invalid = |message| Some(Refusal::new(Reason::Invalid, message));
    if !is_username(username) {
        return invalid(format!(
            "spec.user.username: {username:?} is no name of ASCII letters, digits, '.', '_' and '-' and a domain; remove \
             spec.user and set it with another one"
        ));
    }
    if domains.is_empty() {
        return invalid(format!(
            "spec.user.username: {username:?} lies in no domain of agent users, since agentid's configuration names none; \
             have one added to agentUserDomains"
        ));
    }
    if !lies_in(username, domains) {
        return invalid(format!(
            "spec.user.username: the domain of {username:?} is not among agentUserDomains in agentid's configuration; remove \
             spec.user and set it with a name in one of these: {}",
            domains.join(", ")
        ));
    }
    let holder = world.user_holder(username)?;
    (holder.meta.uid != agent.meta.uid).then(|| {
        Refusal::new(
            Reason::Conflict,
            format!(
                "spec.user.username: {username:?} belongs to the older AgentIdentity {}, where it is written {:?}; remove \
                 spec.user and set it with another name",
                holder.meta.key,
                holder.username.as_deref().unwrap_or_default()
            ),
        )
    })
}

/// Whose user a grant in this form speaks as; nobody's, where it has another form.
pub(super) fn user_of(
    world: &World,
    agent: &Agent,
    grant: &Grant,
    resource: &Resource,
) -> Result<Option<Arc<str>>, Refusal> {
    if grant.mode != Mode::AgentUser {
        return Ok(None);
    }
    if resource.profile == TokenProfile::Identity {
        return Err(Refusal::new(
            Reason::ModeNotAllowed,
            format!(
                "spec.agentUser: AgentResource {} takes identity tokens, which never speak for a user; use application",
                grant.resource
            ),
        ));
    }
    let Some(username) = &agent.username else {
        let name = &agent.meta.key.name;
        return Err(Refusal::new(
            Reason::Invalid,
            format!(
                "spec.agentUser: AgentIdentity {name} has no user; set its spec.user, or let the grant speak of others"
            ),
        ));
    };
    match user_refusal(world, agent) {
        Some(Refusal { reason, message }) => {
            Err(Refusal::new(reason, format!("AgentIdentity {}: {message}", agent.meta.key.name)))
        }
        None => Ok(Some(username.clone())),
    }
}

//! Which grant a token comes from (design §5), and what of it.
//!
//! Invariants: a token comes from one grant; it says no more than was asked for, than the grant holds, and than the
//! record of its index covers.

use std::sync::Arc;

use super::{Agent, Decision, Entitlement, GrantDecision, Refusal, StatusRef, Uid, World};
use crate::api::{Mode, Reason};

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Ask<'a> {
    /// The `resource` or `audience`: an audience, or an AgentResource's name.
    pub target: Option<&'a str>,
    /// The scopes; `None`: all that the grant holds.
    pub scopes: Option<Vec<&'a str>>,
    /// The AgentGrant's name.
    pub grant: Option<&'a str>,
    /// In whose name: issuer and subject of the token that was handed over first.
    pub user: Option<(&'a str, &'a str)>,
    /// As the agent's own user.
    pub as_agent_user: bool,
    /// The scopes of the token that was handed over; `None` where they are another vocabulary.
    pub ceiling: Option<Vec<&'a str>>,
}

/// Why nothing was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// No such resource, or nothing held on it: `invalid_target`.
    Target(Refusal),
    /// Nothing left of the scopes: `invalid_scope`.
    Scope(Refusal),
    /// Nobody lets this agent act for this user there.
    Subject(Refusal),
    /// Held, and its index is not recorded yet: come again.
    Pending(Refusal),
}

/// A grant, and what a token of it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The grant's UID.
    pub grant: Uid,
    /// The grant's name.
    pub name: Arc<str>,
    /// The AgentResource's name.
    pub resource: Arc<str>,
    /// What the token says; its lifetime is still to be bounded.
    pub entitlement: Entitlement,
    /// Where it stands in a status list.
    pub status: StatusRef,
}

/// Chooses for an agent that is allowed.
///
/// # Errors
/// [`Denied`].
pub fn choose(world: &World, agent: &Agent, decision: &Decision, ask: &Ask<'_>) -> Result<Chosen, Denied> {
    let mode = match ask.user {
        Some(_) => Mode::Delegation,
        None if ask.as_agent_user => Mode::AgentUser,
        None => Mode::Application,
    };
    let named: Vec<_> = decision
        .grants
        .iter()
        .filter(|g| ask.grant.is_none_or(|name| *g.grant == *name))
        .filter(|g| ask.target.is_none_or(|target| is_target(world, g, target)))
        .collect();
    let (held, refused): (Vec<&GrantDecision>, Vec<&GrantDecision>) =
        named.into_iter().partition(|g| g.held.as_ref().is_some_and(|h| h.mode == mode));
    let resources: std::collections::BTreeSet<_> = held.iter().map(|g| &g.resource).collect();
    if held.is_empty() {
        return Err(Denied::Target(nothing_held(ask, mode, &refused)));
    }
    if resources.len() > 1 {
        return Err(Denied::Target(Refusal::new(
            Reason::Invalid,
            "the agent holds grants on several resources; name one by the parameter resource",
        )));
    }
    let of_user: Vec<_> = held
        .into_iter()
        .filter(|g| {
            let users = g.held.as_ref().and_then(|h| h.users.as_ref());
            ask.user.is_none_or(|(issuer, subject)| users.is_some_and(|u| u.include(issuer, subject)))
        })
        .collect();
    if of_user.is_empty() {
        return Err(Denied::Subject(Refusal::new(
            Reason::SubjectNotAllowed,
            "no AgentGrant lets this agent act there for this user; see spec.delegation",
        )));
    }
    let mut refusal = None;
    for grant in of_user {
        match narrowed(grant, ask) {
            Ok(entitlement) => return with_index(agent, grant, entitlement),
            Err(scopes) => drop(refusal.get_or_insert(scopes)),
        }
    }
    Err(Denied::Scope(refusal.unwrap_or_else(|| Refusal::new(Reason::ScopeNotAllowed, "no scope is left"))))
}

fn is_target(world: &World, grant: &GrantDecision, target: &str) -> bool {
    *grant.resource == *target
        || grant.held.as_ref().is_some_and(|h| *h.audience == *target)
        || world.resource(&grant.resource).is_some_and(|r| *r.audience == *target)
}

fn nothing_held(ask: &Ask<'_>, mode: Mode, refused: &[&GrantDecision]) -> Refusal {
    let known = refused.iter().find_map(|g| Some((g, g.refusal.as_ref()?)));
    if let Some((grant, refusal)) = known {
        let message = format!("AgentGrant {}: {}: {}", grant.grant, refusal.reason, refusal.message);
        return Refusal::new(refusal.reason, message);
    }
    let what = match (ask.target, ask.grant) {
        (_, Some(grant)) => format!("the AgentGrant {grant}"),
        (Some(_), None) => "a grant on this resource".to_owned(),
        (None, None) => "any grant".to_owned(),
    };
    let form = mode.form();
    Refusal::new(
        Reason::ResourceNotFound,
        format!("the agent does not hold {what} in the form {form}, or there is no such resource"),
    )
}

/// The entitlement less what was not asked for and what the handed-over token does not say; all of what was asked
/// for must be held.
fn narrowed(grant: &GrantDecision, ask: &Ask<'_>) -> Result<Entitlement, Refusal> {
    let Some(held) = &grant.held else {
        return Err(Refusal::new(Reason::ScopeNotAllowed, "not held"));
    };
    let holds = |scope: &str| held.scopes.iter().any(|s| **s == *scope);
    let beyond =
        |ceiling: &Option<Vec<&str>>, scope: &str| ceiling.as_ref().is_some_and(|all| !all.contains(&scope));
    if let Some(asked) = &ask.scopes {
        if let Some(scope) = asked.iter().find(|s| !holds(s)) {
            let shown: String = scope.chars().take(64).collect();
            return Err(Refusal::new(
                Reason::ScopeNotAllowed,
                format!("AgentGrant {}: the scope {shown} is not held", grant.grant),
            ));
        }
        if let Some(scope) = asked.iter().find(|s| beyond(&ask.ceiling, s)) {
            let shown: String = scope.chars().take(64).collect();
            return Err(Refusal::new(
                Reason::ScopeNotAllowed,
                format!("the token that was handed over does not have the scope {shown}"),
            ));
        }
    }
    let scopes: Vec<_> = held
        .scopes
        .iter()
        .filter(|s| ask.scopes.as_ref().is_none_or(|asked| asked.contains(&&***s)))
        .filter(|s| !beyond(&ask.ceiling, s))
        .cloned()
        .collect();
    if scopes.is_empty() && !held.scopes.is_empty() && held.mode == Mode::Delegation {
        return Err(Refusal::new(
            Reason::ScopeNotAllowed,
            "nothing is left of the scopes: asked, of the grant, and of the token that was handed over",
        ));
    }
    Ok(Entitlement { scopes, ..held.clone() })
}

fn with_index(agent: &Agent, grant: &GrantDecision, entitlement: Entitlement) -> Result<Chosen, Denied> {
    let Some(status) = agent.status.index_of(grant.uid, grant.resource_uid, &entitlement) else {
        return Err(Denied::Pending(Refusal::new(
            Reason::IndexPending,
            format!("AgentGrant {} is held, and its status index is about to be recorded", grant.grant),
        )));
    };
    Ok(Chosen {
        grant: grant.uid,
        name: grant.grant.clone(),
        resource: grant.resource.clone(),
        entitlement,
        status,
    })
}

#[cfg(test)]
mod tests;

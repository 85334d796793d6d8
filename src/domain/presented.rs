//! Whether a token of ours that somebody presents still stands (RFC 7662 §2.2).
//!
//! Invariant: it is active only while `decide` allows its agent, its grant and every actor what it says, it bears an
//! index that reads VALID and is no other agent's, and every token that it was got with reads VALID.

use jiff::Timestamp;

use super::identify::standing_refusal;
use super::statuslist::{Entry, entry};
use super::{Agent, Decision, Entitlement, RecordedBy, Refusal, StatusRef, Uid, World, decide};
use crate::api::{Mode, Reason, TokenProfile};

/// What a verified token says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Presented {
    /// The agent's UID.
    pub agent: Option<Uid>,
    /// The grant's UID; `None`: the identity token of its Secret.
    pub grant: Option<Uid>,
    /// The `aud`.
    pub audience: String,
    /// An access token.
    pub is_access: bool,
    /// The roles.
    pub roles: Vec<String>,
    /// The scopes.
    pub scopes: Vec<String>,
    /// In whose name: issuer and subject.
    pub user: Option<(String, String)>,
    /// As which agent user: its name.
    pub username: Option<String>,
    /// The agents in `act` behind the first.
    pub actors: Vec<Uid>,
    /// Its index.
    pub status: Option<StatusRef>,
    /// The indexes of the tokens that it was got with.
    pub parents: Vec<StatusRef>,
}

fn gone(reason: Reason, message: impl Into<String>) -> Refusal {
    Refusal::new(reason, message)
}

/// The agent of a token that stands.
///
/// # Errors
/// Why it does not; `Unknown` where that can't be told now.
pub fn stands<'w>(world: &'w World, token: &Presented, now: Timestamp) -> Result<&'w Agent, Refusal> {
    let uid = token.agent.ok_or_else(|| gone(Reason::Invalid, "the token names no agent"))?;
    let (agent, decision) = allowed(world, uid, now)?;
    for actor in &token.actors {
        allowed(world, *actor, now)?;
    }
    for at in token.status.iter().chain(&token.parents) {
        match entry(world, *at, now) {
            Entry::Valid => {}
            Entry::Invalid => return Err(gone(Reason::CredentialRejected, "the token was revoked")),
            Entry::Unknown => return Err(gone(Reason::Unknown, "the token's standing can't be told now")),
        }
    }
    let Some(grant) = token.grant else {
        let own = token.audience == world.config().issuer && token.status.is_none();
        return if own { Ok(agent) } else { Err(gone(Reason::Invalid, "the token names no grant")) };
    };
    let Some(at) = token.status else {
        return Err(gone(Reason::Invalid, "the token has no entry in a status list"));
    };
    if matches!(world.recorded_by(at), RecordedBy::One(of) if of != uid) {
        return Err(gone(Reason::Invalid, "the token's entry in the status list is another agent's"));
    }
    let held = decision
        .grants
        .iter()
        .find(|g| g.uid == grant)
        .ok_or_else(|| gone(Reason::CredentialRejected, "its AgentGrant is gone"))?;
    let Some(entitlement) = &held.held else {
        let refusal = held.refusal.clone();
        return Err(refusal.unwrap_or_else(|| gone(Reason::CredentialRejected, "its grant is not held")));
    };
    says_no_more(token, entitlement)?;
    Ok(agent)
}

fn allowed(world: &World, uid: Uid, now: Timestamp) -> Result<(&Agent, Decision), Refusal> {
    let agent =
        world.agent_of_uid(uid).ok_or_else(|| gone(Reason::AgentNotFound, "its AgentIdentity is gone"))?;
    let decision = decide(world, &agent.meta.key, now)
        .ok_or_else(|| gone(Reason::AgentNotFound, "its AgentIdentity is gone"))?;
    match standing_refusal(&decision.standing) {
        None => Ok((agent, decision)),
        Some(refusal) => Err(refusal),
    }
}

fn says_no_more(token: &Presented, held: &Entitlement) -> Result<(), Refusal> {
    let mode = match (&token.user, &token.username) {
        (Some(_), _) => Mode::Delegation,
        (None, Some(_)) => Mode::AgentUser,
        (None, None) => Mode::Application,
    };
    let users = match (&token.user, &held.users) {
        (Some((issuer, subject)), Some(users)) => users.include(issuer, subject),
        (None, None) => true,
        _ => false,
    };
    let username = token.username.as_deref() == held.username.as_deref();
    let kind = token.is_access == (held.profile == TokenProfile::Access);
    if *held.audience != *token.audience || held.mode != mode || !users || !kind || !username {
        return Err(gone(Reason::CredentialRejected, "its grant now says something else"));
    }
    if token.roles.iter().any(|r| held.roles.iter().all(|h| **h != **r)) {
        return Err(gone(Reason::RoleNotAllowed, "it carries a role that is no longer held"));
    }
    if token.scopes.iter().any(|s| held.scopes.iter().all(|h| **h != **s)) {
        return Err(gone(Reason::ScopeNotAllowed, "it carries a scope that is no longer held"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;

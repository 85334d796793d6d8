//! The difference between what is and what should be, for one agent.
//!
//! Invariants: the plan of an applied plan is empty; a Secret that we do not control is never written; what is
//! unknown is left as it is.

mod issue;

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;

use self::issue::issue;
pub use self::issue::{Issue, Missing, TokenSpec, on_demand};
use super::schedule;
use super::statuslist::Indexes;
use super::{Agent, Changed, Credentials, Decision, Drift, POD, Refusal, Standing, Uid, World};
use crate::api::{IDENTITY_KEY, Reason};

/// What of the key ring matters to plans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeysSeen {
    /// The published keys. A token that another key signed is to be minted anew.
    pub good: HashSet<Arc<str>>,
    /// Why nothing can be signed; `None` if all is well.
    pub problem: Option<Arc<str>>,
}

/// Why a Secret is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// There is none yet.
    New,
    /// What the agent holds has changed.
    Changed,
    /// It is time.
    Renewal,
    /// Somebody asked for tokens that are minted anew.
    Rotation,
    /// Somebody else changed it.
    Healed(Drift),
    /// A key that signed it is no longer published.
    KeyGone,
}

/// What is to be done with an agent's Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretStep {
    /// Nothing.
    Keep,
    /// Create it.
    Create(Issue),
    /// Write its data, annotations, labels and owner.
    Update(Uid, Issue, Cause),
    /// Delete it and create it: it can't be mended in place, or was written for an agent that is gone.
    Recreate(Uid, Issue, Cause),
    /// Take files out of data and of the annotation that lists them, without minting: no key can sign now. The
    /// Secret then bears the digest of no plan, so that it is written in full as soon as a key can sign, also
    /// if the plan of before the strip is due again by then.
    Strip(Uid, Issue, Vec<Box<str>>),
    /// Delete it.
    Delete(Uid),
}

impl SecretStep {
    /// Whether it takes tokens away.
    #[must_use]
    pub const fn withdraws(&self) -> bool {
        match self {
            Self::Update(_, issue, _) | Self::Recreate(_, issue, _) => issue.refusal.is_some(),
            Self::Strip(..) | Self::Delete(_) => true,
            Self::Keep | Self::Create(_) => false,
        }
    }
}

/// What is to be done with the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentStep {
    /// Nothing.
    Keep,
    /// Add an ownerReference to the bound object.
    Own(Uid),
    /// Confirm by one GET that the bound object is gone; then plan again.
    Confirm(Uid),
    /// Find out by one GET why the bound pod is not seen; then plan again.
    Look,
    /// Delete it: why, for people.
    Delete(Refusal),
}

/// How the credential stands once the plan is carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// Tokens are in the Secret, and fresh.
    Fresh,
    /// There is none, or it is withdrawn.
    Absent(Refusal),
    /// It can't be told.
    Unknown(Refusal),
    /// Nothing is said of it.
    Unsaid,
}

/// The plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// For the agent's Secret.
    pub secret: SecretStep,
    /// For the agent.
    pub agent: AgentStep,
    /// How the credential stands then.
    pub credential: Credential,
    /// When to look again, whatever happens.
    pub wake: Option<Timestamp>,
}

/// Plans for an agent.
#[must_use]
pub fn plan(
    world: &World,
    decision: &Decision,
    indexes: &Indexes,
    keys: &KeysSeen,
    now: Timestamp,
) -> Option<Plan> {
    let agent = world.agent(&decision.agent)?;
    // Of an agent without a Secret, what bears the name is somebody else's.
    let seen =
        world.secret(&decision.agent.sibling(agent.secret_name.clone())).filter(|_| agent.has_secret());
    let ours = seen.filter(|s| s.agent == Some(agent.meta.uid));
    let mut plan = Plan {
        secret: SecretStep::Keep,
        agent: AgentStep::Keep,
        credential: Credential::Unsaid,
        wake: decision.until,
    };
    match &decision.standing {
        Standing::Allowed => {
            if agent.bound.as_ref().is_some_and(super::Bound::is_exact)
                && let Some(uid) = decision.bound_uid.filter(|u| !agent.owners.contains(u))
            {
                plan.agent = AgentStep::Own(uid);
            }
            if agent.has_secret() {
                allowed(&mut plan, agent, decision, indexes, seen, ours, keys, world, now);
            } else {
                plan.credential = match &keys.problem {
                    Some(problem) => Credential::Absent(keys_unavailable(problem)),
                    None => Credential::Fresh,
                };
            }
        }
        Standing::Refused(refusal) => {
            let pod = agent.bound.as_ref().is_some_and(|b| &*b.kind == POD);
            let unseen =
                matches!(refusal.reason, Reason::BoundObjectNotFound | Reason::BoundObjectNotSelected);
            if pod && unseen {
                plan.agent = AgentStep::Look;
            }
            let issue = issue(world, agent, decision, indexes, Some(refusal));
            plan.credential = Credential::Absent(refusal.clone());
            plan.secret = match ours {
                Some(s) => match mend(s) {
                    Some((cause, true)) => SecretStep::Recreate(s.meta.uid, issue, cause),
                    Some((cause, false)) => SecretStep::Update(s.meta.uid, issue, cause),
                    None if s.plan != issue.plan || !s.tokens.is_empty() => {
                        SecretStep::Update(s.meta.uid, issue, Cause::Changed)
                    }
                    None => SecretStep::Keep,
                },
                None => SecretStep::Keep,
            };
        }
        Standing::Unknown(refusal) => plan.credential = unknown(agent, ours, refusal, now),
        Standing::Orphaned { object, confirmed: false, .. } => plan.agent = AgentStep::Confirm(*object),
        Standing::Orphaned { confirmed: true, message, .. } => {
            plan.agent = AgentStep::Delete(Refusal::new(Reason::BoundObjectNotFound, message.clone()));
            plan.secret = ours.map_or(SecretStep::Keep, |s| SecretStep::Delete(s.meta.uid));
        }
        Standing::Unmade(refusal) => {
            plan.agent = AgentStep::Delete(refusal.clone());
            plan.secret = ours.map_or(SecretStep::Keep, |s| SecretStep::Delete(s.meta.uid));
        }
        Standing::Ended => {
            plan.agent = AgentStep::Delete(Refusal::new(
                Reason::Expired,
                "spec.ttlSecondsAfterExpired has passed since spec.expiresAt",
            ));
            plan.secret = ours.map_or(SecretStep::Keep, |s| SecretStep::Delete(s.meta.uid));
        }
        Standing::Deleting => {
            let leaving = world.namespace(&decision.agent.namespace).is_none_or(|n| n.meta.deleting);
            if let (Some(s), false) = (ours, leaving) {
                plan.secret = SecretStep::Delete(s.meta.uid);
            }
        }
    }
    Some(plan)
}

#[expect(clippy::too_many_arguments, reason = "one step of `plan`, with what it has at hand")]
fn allowed(
    plan: &mut Plan,
    agent: &Agent,
    decision: &Decision,
    indexes: &Indexes,
    seen: Option<&Credentials>,
    ours: Option<&Credentials>,
    keys: &KeysSeen,
    world: &World,
    now: Timestamp,
) {
    let issue = issue(world, agent, decision, indexes, None);
    let Some(secret) = ours else {
        if let Some(problem) = &keys.problem {
            plan.credential = Credential::Absent(keys_unavailable(problem));
            return;
        }
        plan.credential = Credential::Fresh;
        plan.wake = sooner(plan.wake, schedule::renew_at(issue.uid, now, issue.lifetime));
        plan.secret = match seen {
            Some(of_old) => SecretStep::Recreate(of_old.meta.uid, issue, Cause::New),
            None => SecretStep::Create(issue),
        };
        return;
    };
    let cause = mend(secret)
        .or_else(|| (secret.plan != issue.plan).then_some((Cause::Changed, false)))
        .or_else(|| {
            let gone = secret.kids.iter().any(|k| !keys.good.contains(k));
            (gone && keys.problem.is_none()).then_some((Cause::KeyGone, false))
        })
        .or_else(|| is_rotated_out(secret, agent).then_some((Cause::Rotation, false)))
        .or_else(|| (secret.renew_at <= now).then_some((Cause::Renewal, false)));
    match (cause, &keys.problem) {
        (None, _) => plan.wake = sooner(plan.wake, secret.renew_at),
        (Some((cause, anew)), None) => {
            // The answer to our own write marks nothing, so the renewal of what is written now is due from here.
            plan.wake = sooner(plan.wake, schedule::renew_at(issue.uid, now, issue.lifetime));
            plan.secret = if anew {
                SecretStep::Recreate(secret.meta.uid, issue, cause)
            } else {
                SecretStep::Update(secret.meta.uid, issue, cause)
            };
        }
        (Some((_, anew)), Some(problem)) => {
            let due = issue.files();
            let undue: Vec<_> = secret
                .tokens
                .iter()
                // An agent that is allowed has a right to say who it is, whatever else the configuration has
                // come to say: another issuer must not take every identity token while its ring is refused.
                .filter(|(file, _)| **file != *IDENTITY_KEY)
                .filter(|(file, digest)| !due.contains(&(&**file, *digest)))
                .map(|(file, _)| file.clone())
                .collect();
            let left = secret.tokens.len() - undue.len();
            if !undue.is_empty() {
                plan.secret = if anew {
                    // Nothing can be taken out of an immutable Secret.
                    SecretStep::Delete(secret.meta.uid)
                } else {
                    SecretStep::Strip(secret.meta.uid, issue, undue)
                };
            }
            if secret.expires_at > now {
                plan.wake = sooner(plan.wake, secret.expires_at);
            }
            let deleted = matches!(plan.secret, SecretStep::Delete(_));
            if left == 0 || deleted || secret.expires_at <= now {
                plan.credential = Credential::Absent(keys_unavailable(problem));
                return;
            }
        }
    }
    plan.credential = Credential::Fresh;
}

/// Whether tokens were asked for that are minted anew. Each value is answered once, whatever it says, so that no
/// clock and no value can make a loop of it.
fn is_rotated_out(secret: &Credentials, agent: &Agent) -> bool {
    agent.rotation.is_some() && agent.rotation != secret.rotated
}

fn sooner(wake: Option<Timestamp>, at: Timestamp) -> Option<Timestamp> {
    Some(wake.map_or(at, |w| w.min(at)))
}

fn keys_unavailable(problem: &str) -> Refusal {
    Refusal::new(Reason::KeysUnavailable, format!("no token can be signed: {problem}"))
}

/// Whether a Secret must be mended, and whether by making it anew.
fn mend(secret: &Credentials) -> Option<(Cause, bool)> {
    secret.drift.as_ref().map(|d| (Cause::Healed(d.clone()), d.what == Changed::Immutable))
}

/// An outage of the API server must not rewrite every status: something is said only where nothing was said
/// yet, where the agent alone waits, or where its tokens have died meanwhile.
fn unknown(agent: &Agent, ours: Option<&Credentials>, refusal: &Refusal, now: Timestamp) -> Credential {
    let ready = agent.status.condition("Ready");
    let silent = ready.is_none();
    let said = ready.is_some_and(|c| c.status.is_none());
    let dead = ready.is_some_and(|c| c.status == Some(true)) && ours.is_some_and(|s| s.expires_at <= now);
    if silent || said || dead { Credential::Unknown(refusal.clone()) } else { Credential::Unsaid }
}

#[cfg(test)]
mod tests;

//! What an agent holds, what it is refused and why, and until when the answer stands. Nothing else says so:
//! the operator, the token service, the status list and `agentid why` all ask here.
//!
//! Invariants: a token never says more than a grant and its resource's allowance; unknown is not absent, so
//! what cannot be seen is neither minted nor withdrawn.

mod agent;
mod delivery;
mod grant;
mod kubernetes;
mod policy;
mod user;

use std::sync::Arc;

use jiff::Timestamp;

pub use self::grant::resource_refusal;
pub use self::policy::Objection;
use self::policy::Policies;
pub use self::user::user_refusal;
use super::{Agent, Digest, Hasher, Holding, Holdings, Key, Uid, Users, World};
use crate::api::{GrantState, Mode, Reason, SigningAlgorithm, SubjectForm, TokenProfile};

/// Why something is refused: a reason of the closed set, and a message that names object, field, value and
/// remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason.
    pub reason: Reason,
    /// For people.
    pub message: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// How an agent itself stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may have credentials.
    Allowed,
    /// It may not, and what it has is withdrawn.
    Refused(Refusal),
    /// It cannot be told: nothing is minted, nothing withdrawn.
    Unknown(Refusal),
    /// The very object that it is bound to is gone: the agent is to be deleted.
    Orphaned {
        /// The object's UID; `None` if it was never seen and the spec names no UID.
        object: Uid,
        /// No GET needs to confirm it.
        confirmed: bool,
        /// For people.
        message: String,
    },
    /// `ttlSecondsAfterExpired` has passed: the agent is to be deleted.
    Ended,
    /// What it was made for, or made from, is over: the agent, which nobody wrote, is to be deleted.
    Unmade(Refusal),
    /// It is being deleted, or its namespace is: its credentials go.
    Deleting,
}

impl Standing {
    /// Why there are no credentials; `None` if there may be.
    #[must_use]
    pub const fn reason(&self) -> Option<Reason> {
        match self {
            Self::Allowed => None,
            Self::Refused(r) | Self::Unknown(r) | Self::Unmade(r) => Some(r.reason),
            Self::Orphaned { .. } => Some(Reason::BoundObjectNotFound),
            Self::Deleting => Some(Reason::AgentNotFound),
            Self::Ended => Some(Reason::Expired),
        }
    }
}

/// What a held grant entitles to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entitlement {
    /// The `aud`.
    pub audience: Arc<str>,
    /// The token kind.
    pub profile: TokenProfile,
    /// The subject form.
    pub subject: SubjectForm,
    /// The signature algorithm.
    pub algorithm: SigningAlgorithm,
    /// In whose right.
    pub mode: Mode,
    /// Of a delegation: whose rights.
    pub users: Option<Users>,
    /// The name of the agent user that it speaks as.
    pub username: Option<Arc<str>>,
    /// It is for this cluster's API server: its roles are ClusterRoles, which RoleBindings give.
    pub kubernetes: bool,
    /// The roles: asked ∩ offered ∩ allowed.
    pub roles: Vec<Arc<str>>,
    /// The scopes: asked ∩ offered ∩ allowed.
    pub scopes: Vec<Arc<str>>,
    /// The longest a token for it may live, in seconds.
    pub lifetime: u32,
    /// No token for it lives beyond.
    pub not_after: Option<Timestamp>,
}

impl Entitlement {
    /// A digest of the whole answer but its times.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut h = Hasher::new("entitlement");
        h.part(self.audience.as_bytes());
        h.part(
            format!("{:?} {:?} {:?} {}", self.profile, self.subject, self.algorithm, self.lifetime)
                .as_bytes(),
        );
        h.parts(self.roles.iter().map(|r| &**r));
        h.parts(self.scopes.iter().map(|s| &**s));
        h.part(self.not_after.map(|t| t.to_string()).unwrap_or_default().as_bytes());
        self.hash_users(&mut h);
        self.hash_kubernetes(&mut h);
        h.finish()
    }

    /// A digest of what a status index was handed out for, beside roles and scopes. Times are left out: a token
    /// has its own, and a grant whose time is over is refused.
    #[must_use]
    pub fn rest(&self) -> Digest {
        let mut h = Hasher::new("answer's rest");
        h.part(self.audience.as_bytes());
        h.part(format!("{:?} {:?}", self.profile, self.subject).as_bytes());
        self.hash_users(&mut h);
        self.hash_kubernetes(&mut h);
        h.finish()
    }

    /// What is no part of older digests is added only where it is there.
    fn hash_kubernetes(&self, h: &mut Hasher) {
        if self.kubernetes {
            h.part(b"kubernetes");
        }
    }

    fn hash_users(&self, h: &mut Hasher) {
        if let Some(users) = &self.users {
            h.part(users.issuer.as_bytes());
            h.parts(
                users.subjects.iter().flat_map(|s| s.iter().map(|s| &**s)).collect::<Vec<_>>().into_iter(),
            );
            h.part(&[u8::from(users.subjects.is_some())]);
        }
        if let Some(username) = &self.username {
            h.part(b"agent user").part(username.as_bytes());
        }
    }
}

/// What came of one grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantDecision {
    /// The grant.
    pub grant: Arc<str>,
    /// Its UID.
    pub uid: Uid,
    /// The resource that it names.
    pub resource: Arc<str>,
    /// The resource's UID, if there is one.
    pub resource_uid: Option<Uid>,
    /// What is held; `None` if nothing is.
    pub held: Option<Entitlement>,
    /// The file that it is delivered in; `None` if on demand only.
    pub file: Option<Arc<str>>,
    /// Why it is refused or narrowed.
    pub refusal: Option<Refusal>,
}

impl GrantDecision {
    /// Whether it is the blueprint's: such are named `<blueprint>/<grant>`.
    #[must_use]
    pub fn inherited(&self) -> bool {
        self.grant.contains('/')
    }

    /// Whether it is held.
    #[must_use]
    pub const fn state(&self) -> GrantState {
        match (&self.held, &self.refusal) {
            (None, _) => GrantState::Refused,
            (Some(_), Some(_)) => GrantState::Narrowed,
            (Some(_), None) => GrantState::Held,
        }
    }
}

/// The answer about one agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The agent.
    pub agent: Key,
    /// Its UID.
    pub uid: Uid,
    /// How it stands.
    pub standing: Standing,
    /// The UID of the object that it is bound to, if it is there.
    pub bound_uid: Option<Uid>,
    /// What came of its grants, the oldest first.
    pub grants: Vec<GrantDecision>,
    /// How long its own token lives, in seconds.
    pub lifetime: u32,
    /// No token of it lives beyond.
    pub not_after: Option<Timestamp>,
    /// When the answer may change by time alone.
    pub until: Option<Timestamp>,
    /// What policies take away; of an agent that something else refuses nothing is said.
    pub denied: Vec<Objection>,
    /// What policies in Audit would take away.
    pub audited: Vec<Objection>,
}

impl Decision {
    /// What the tally of grants, resources and policies counts.
    #[must_use]
    pub fn holdings(&self, world: &World) -> Holdings {
        let held = matches!(self.standing, Standing::Allowed);
        let reason = match &self.standing {
            Standing::Refused(r) | Standing::Unknown(r) => Some(r.reason),
            _ => None,
        };
        let grants = self.grants.iter().map(|g| Holding {
            grant: g.grant.clone(),
            resource: g.resource.clone(),
            state: if held { g.state() } else { GrantState::Refused },
            reason: reason.or_else(|| self.trouble(world, g).map(|r| r.reason)),
            audited: self.audited.iter().any(|o| o.grant.as_ref() == Some(&g.grant)),
        });
        let mut policies: Vec<(Arc<str>, i64)> = Vec::new();
        for objection in self.denied.iter().chain(&self.audited) {
            let grants = i64::from(objection.grant.is_some());
            match policies.iter_mut().find(|(name, _)| *name == objection.policy) {
                Some((_, n)) => *n += grants,
                None => policies.push((objection.policy.clone(), grants)),
            }
        }
        Holdings {
            grants: grants.collect(),
            policies: policies.into(),
            refusal: self.standing.reason(),
            untold: matches!(self.standing, Standing::Unknown(_)),
        }
    }

    /// Why one of its grants is not held, or not in full: it was decided so, or what was decided is not in force.
    #[must_use]
    pub fn trouble<'a>(&self, world: &'a World, grant: &'a GrantDecision) -> Option<&'a Refusal> {
        grant.refusal.as_ref().or_else(|| world.unbound(&self.agent, self.uid, grant))
    }
}

/// Decides about an agent; `None` if there is none of this name.
#[must_use]
pub fn decide(world: &World, key: &Key, now: Timestamp) -> Option<Decision> {
    let agent = world.agent(key)?;
    let config = world.config();
    let blueprint = world.blueprint_of(agent);
    let minimum = config.limits.min_token_lifetime.0;
    let lifetime = agent
        .token_lifetime
        .or_else(|| blueprint.and_then(|b| b.token_lifetime))
        .unwrap_or(config.limits.token_lifetime.0)
        .clamp(minimum, config.limits.max_token_lifetime.0);
    let mut clock = Clock { now, until: None };
    let policies = Policies::of(world, agent);
    let end = policies.end_of(agent).into_iter().chain(end_of(world, agent)).min();
    let (check, standing) = agent::standing(world, agent, &mut clock);
    let bound_uid = agent
        .bound
        .as_ref()
        .and_then(|b| world.bound_object(&b.kind, &key.sibling(b.name.clone())))
        .map(|o| o.meta.uid);
    let mut lives = grant::Lives { lifetime, end, clock };
    let (grants, mut denied, mut audited) = grant::grants(world, agent, &policies, &mut lives);
    let mut clock = lives.clock;
    let standing = kubernetes::held_back(standing, &grants);
    match standing {
        Standing::Allowed | Standing::Unknown(_) => {
            audited.splice(0..0, policies.would_refuse(agent, &mut clock));
        }
        _ => {
            audited.clear();
            denied.clear();
            if check == Some(agent::POLICY) {
                denied.extend(policies.refuse(agent, &mut clock));
            }
        }
    }
    Some(Decision {
        agent: key.clone(),
        uid: agent.meta.uid,
        standing,
        bound_uid,
        grants,
        // The identity token is always in the Secret, which none below the minimum may be.
        lifetime: policies.longest().map_or(lifetime, |longest| lifetime.min(longest.max(minimum))),
        not_after: end,
        until: clock.until,
        denied,
        audited,
    })
}

/// When an agent's time is over: as it says itself, else so long after its creation as its blueprint says.
pub(super) fn end_of(world: &World, agent: &Agent) -> Option<Timestamp> {
    agent.expires_at.or_else(|| {
        let lifetime = world.blueprint_of(agent)?.lifetime?;
        agent.meta.created.checked_add(jiff::SignedDuration::from_secs(i64::from(lifetime))).ok()
    })
}

/// The time, and when an answer that was given may change by time alone.
pub(super) struct Clock {
    now: Timestamp,
    until: Option<Timestamp>,
}

impl Clock {
    /// Whether an instant has come; if not, the answer stands until then at most.
    pub(super) fn has_come(&mut self, at: Timestamp) -> bool {
        if at <= self.now {
            return true;
        }
        self.until = Some(self.until.map_or(at, |u| u.min(at)));
        false
    }

    /// The answer is to be looked at again after some seconds.
    pub(super) fn again_in(&mut self, seconds: i64) {
        let _ = self.has_come(self.now + jiff::SignedDuration::from_secs(seconds));
    }
}

#[cfg(test)]
mod policy_tests;
#[cfg(test)]
mod product_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod user_tests;

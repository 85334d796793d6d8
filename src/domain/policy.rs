//! An AgentPolicy as it was seen, with its globs ready to match.
//!
//! Invariant: a policy only ever takes away; what cannot be read of one takes nothing away that was not taken
//! before (its last reading stands).

mod glob;

#[cfg(test)]
pub(crate) use self::glob::steps_of;
pub use self::glob::{Glob, Globs};
use super::seen::{SeenStatus, Unfit, meta_of};
use super::{Agent, Meta};
use crate::api::{
    AgentPolicy, AgentPolicySpec, AgentPolicyStatus, Denial, DurationError, Enforcement, LabelSelector, Mode,
    PolicyRequirement, parse_seconds,
};

/// An AgentPolicy.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Its metadata.
    pub meta: Meta,
    /// `metadata.generation`.
    pub generation: i64,
    /// What it says.
    pub rules: Box<Rules>,
    /// What in its spec can't be understood (a schema of another version accepted it).
    pub invalid: Option<Box<str>>,
    /// Its status.
    pub status: SeenStatus,
}

/// What a policy says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    /// Whether it takes away, or only says what it would.
    pub enforced: bool,
    /// Of which namespaces; `None`: all.
    pub namespaces: Option<LabelSelector>,
    /// Of which agents; `None`: all.
    pub agents: Option<LabelSelector>,
    /// Of which blueprints; `None`: of all and none.
    pub blueprints: Option<Globs>,
    /// It speaks of grants on these resources alone.
    pub resources: Option<Globs>,
    /// The kill switch.
    pub suspend: bool,
    /// What agents must have.
    pub require: Box<[PolicyRequirement]>,
    /// No token lives longer, in seconds.
    pub token_lifetime: Option<u32>,
    /// No agent lives longer.
    pub agent_lifetime: Option<u32>,
    /// No grant lives longer.
    pub grant_lifetime: Option<u32>,
    /// What may not be held.
    pub deny: Box<[Deny]>,
}

/// An entry of `deny`.
#[derive(Clone, Debug, PartialEq)]
pub struct Deny {
    /// Of grants on these resources.
    pub resources: Option<Globs>,
    /// These roles.
    pub roles: Option<Globs>,
    /// These scopes.
    pub scopes: Option<Globs>,
    /// Of grants of these modes.
    pub modes: Option<Box<[Mode]>>,
    /// Why, for people.
    pub reason: Option<Box<str>>,
}

impl Rules {
    /// Whether it speaks of an agent, its namespace apart.
    #[must_use]
    pub fn select(&self, agent: &Agent) -> bool {
        self.agents.as_ref().is_none_or(|s| agent.labels.matched_by(s))
            && self
                .blueprints
                .as_ref()
                .is_none_or(|globs| agent.blueprint.as_ref().is_some_and(|b| globs.matches(b)))
    }

    /// Whether it speaks of grants on a resource.
    #[must_use]
    pub fn concern(&self, resource: &str) -> bool {
        self.resources.as_ref().is_none_or(|globs| globs.matches(resource))
    }

    /// Whether it is a kill switch that is on.
    #[must_use]
    pub const fn suspends(&self) -> bool {
        self.enforced && self.suspend
    }

    /// Whether it withdraws what is held at this moment, whatever the time.
    #[must_use]
    pub const fn withdraws(&self) -> bool {
        self.enforced && (self.suspend || !self.deny.is_empty())
    }
}

impl Policy {
    /// Whether two sights of a policy say the same, whatever their versions, generations and statuses.
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        let Self { meta, generation: _, rules, invalid, status: _ } = self;
        meta.same_but_version(&other.meta) && *rules == other.rules && *invalid == other.invalid
    }
}

fn globs(patterns: Option<&Vec<String>>) -> Option<Globs> {
    patterns.map(|p| p.iter().collect())
}

impl TryFrom<&AgentPolicySpec> for Rules {
    type Error = Unfit;

    fn try_from(spec: &AgentPolicySpec) -> Result<Self, Unfit> {
        let matches = spec.matches.as_ref();
        let limits = spec.limits.clone().unwrap_or_default();
        let seconds = |field: &'static str, text: Option<&String>| {
            let read = text.map(|t| parse_seconds(t)).transpose();
            read.map_err(|e: DurationError| Unfit { field, problem: e.to_string() })
        };
        let resources = globs(matches.and_then(|m| m.resources.as_ref()));
        // The schema says so too; one that lets them pass must not make a policy that says less than it seems to.
        if resources.is_some() && (!spec.require.is_empty() || limits.agent_lifetime.is_some()) {
            let problem = "goes with neither require nor limits.agentLifetime: write two policies";
            return Err(Unfit { field: "spec.match.resources", problem: problem.to_owned() });
        }
        let says_nothing = |d: &&Denial| {
            d.resources.is_none() && d.roles.is_none() && d.scopes.is_none() && d.modes.is_none()
        };
        if spec.deny.iter().find(says_nothing).is_some() {
            let problem = "an entry denies nothing: set at least one of resources, roles, scopes and modes";
            return Err(Unfit { field: "spec.deny", problem: problem.to_owned() });
        }
        Ok(Self {
            enforced: spec.enforcement.unwrap_or_default() == Enforcement::Enforce,
            namespaces: matches.and_then(|m| m.namespace_selector.clone()),
            agents: matches.and_then(|m| m.agent_selector.clone()),
            blueprints: globs(matches.and_then(|m| m.blueprints.as_ref())),
            resources,
            suspend: spec.suspend.unwrap_or_default(),
            require: spec.require.clone().into(),
            token_lifetime: seconds("spec.limits.tokenLifetime", limits.token_lifetime.as_ref())?,
            agent_lifetime: seconds("spec.limits.agentLifetime", limits.agent_lifetime.as_ref())?,
            grant_lifetime: seconds("spec.limits.grantLifetime", limits.grant_lifetime.as_ref())?,
            deny: spec
                .deny
                .iter()
                .map(|d| Deny {
                    resources: globs(d.resources.as_ref()),
                    roles: globs(d.roles.as_ref()),
                    scopes: globs(d.scopes.as_ref()),
                    modes: d.modes.clone().map(Into::into),
                    reason: d.reason.as_deref().map(Into::into),
                })
                .collect(),
        })
    }
}

impl TryFrom<&AgentPolicy> for Policy {
    type Error = Unfit;

    fn try_from(object: &AgentPolicy) -> Result<Self, Unfit> {
        let meta = meta_of(&object.metadata)?;
        let (rules, invalid) = match Rules::try_from(&object.spec) {
            Ok(rules) => (rules, None),
            Err(unfit) => (Rules::default(), Some(unfit.to_string().into())),
        };
        Ok(Self {
            meta,
            generation: object.metadata.generation.unwrap_or_default(),
            rules: Box::new(rules),
            invalid,
            status: object.status.as_ref().map(SeenStatus::from).unwrap_or_default(),
        })
    }
}

impl From<&AgentPolicyStatus> for SeenStatus {
    fn from(status: &AgentPolicyStatus) -> Self {
        Self::of(status, &status.conditions)
    }
}

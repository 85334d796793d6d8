//! Whom it hits, from a world.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::Step;
use crate::api::TokenProfile;
use crate::cli::look::{AGENT, BLUEPRINT, named};
use crate::cli::tree::state;
use crate::cli::whom::Whom;
use crate::domain::{Agent, Decision, Key, Object, Origin, Standing, Uid, World, decide};

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Action {
    Suspend,
    Resume,
}

/// The answer. Members are only ever added.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    pub(super) action: Action,
    /// The one whose own `spec.suspend` is set; that of its agents is left alone then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) blueprint: Option<BlueprintHit>,
    pub(super) agents: Vec<Hit>,
    pub(super) summary: Summary,
    pub(super) notes: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct BlueprintHit {
    pub(super) name: String,
    #[serde(skip)]
    pub(super) uid: Uid,
    /// Its `spec.suspend` is as wanted already.
    pub(super) unchanged: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) outcome: Option<Outcome>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Hit {
    pub(super) namespace: String,
    pub(super) name: String,
    #[serde(skip)]
    pub(super) uid: Uid,
    /// Its `spec.suspend` is left as it is: it is so already, or the blueprint's is set.
    pub(super) unchanged: bool,
    /// Ready, Suspended, Refused, Unknown or Ending, as now.
    pub(super) before: &'static str,
    /// As it will be.
    pub(super) after: &'static str,
    /// Why it will not be Ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<String>,
    /// Grants that it loses, or gets back.
    pub(super) grants: usize,
    /// Until then a copy of a token of its is good, at most, where only signature and expiry are checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tokens_until: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) outcome: Option<Outcome>,
}

/// What came of a patch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Outcome {
    Done,
    /// The object is gone.
    Gone,
    Failed(String),
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Summary {
    pub(super) agents: usize,
    /// Agents that lose their credentials, or get them back.
    pub(super) changing: usize,
    pub(super) grants: usize,
    /// Agents that will not be Ready after a resume, or were not before a suspend.
    pub(super) staying: usize,
    /// The longest of the agents'.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tokens_until: Option<Timestamp>,
}

impl Report {
    /// What is to be patched.
    pub(super) fn steps(&self) -> Vec<Step> {
        let blueprint = self.blueprint.iter().filter(|b| !b.unchanged);
        let agents = self.agents.iter().filter(|a| !a.unchanged);
        blueprint
            .map(|b| Step::Blueprint(b.name.clone(), b.uid))
            .chain(agents.map(|a| Step::Agent(Key::new(a.namespace.as_str(), a.name.as_str()), a.uid)))
            .collect()
    }

    /// The objects.
    pub(super) fn names(&self) -> Vec<String> {
        let blueprint = self.blueprint.iter().map(|b| named(BLUEPRINT, &b.name));
        blueprint.chain(self.agents.iter().map(|a| named(AGENT, &a.name))).collect()
    }

    /// Notes what came of a patch.
    pub(super) fn record(&mut self, step: &Step, outcome: &Outcome) {
        match step {
            Step::Blueprint(..) => self.blueprint.iter_mut().for_each(|b| b.outcome = Some(outcome.clone())),
            Step::Agent(_, uid) => {
                let hit = self.agents.iter_mut().find(|a| a.uid == *uid);
                hit.into_iter().for_each(|a| a.outcome = Some(outcome.clone()));
            }
        }
    }
}

/// Says whom it hits; the world is then as it will be.
pub(super) fn plan(world: &mut World, whom: &Whom, action: Action, now: Timestamp) -> Report {
    let suspend = action == Action::Suspend;
    let agents = whom.of(world);
    let before: Vec<_> = agents.iter().map(|a| decide(world, &a.meta.key, now)).collect();
    let until: Vec<_> =
        agents.iter().zip(&before).map(|(a, d)| tokens_until(world, a, d.as_ref(), now)).collect();
    let blueprint = match whom {
        Whom::Blueprint(name) => set_blueprint(world, name, suspend),
        _ => {
            agents.iter().filter(|a| a.suspend != suspend).for_each(|a| set_agent(world, a, suspend));
            None
        }
    };
    let by_blueprint = matches!(whom, Whom::Blueprint(_));
    let mut summary = Summary { agents: agents.len(), ..Summary::default() };
    let mut hits = Vec::with_capacity(agents.len());
    for ((agent, old), tokens_until) in agents.iter().zip(&before).zip(until) {
        let (Some(old), Some(new)) = (old, decide(world, &agent.meta.key, now)) else { continue };
        let (before, ..) = state(&old.standing);
        let (after, _, message) = state(&new.standing);
        let changing = before != after && (before == "Ready" || after == "Ready");
        let of = if suspend { old } else { &new };
        let grants = if changing { of.grants.iter().filter(|g| g.held.is_some()).count() } else { 0 };
        summary.changing += usize::from(changing);
        summary.staying += usize::from(!changing);
        summary.grants += grants;
        summary.tokens_until = summary.tokens_until.max(tokens_until.filter(|_| suspend));
        hits.push(Hit {
            namespace: agent.meta.key.namespace.to_string(),
            name: agent.meta.key.name.to_string(),
            uid: agent.meta.uid,
            unchanged: by_blueprint || agent.suspend == suspend,
            before,
            after,
            message: message.filter(|_| !suspend || after != "Suspended"),
            grants,
            tokens_until: tokens_until.filter(|_| suspend),
            outcome: None,
        });
    }
    Report { action, blueprint, agents: hits, summary, notes: Vec::new() }
}

fn set_agent(world: &mut World, agent: &Agent, suspend: bool) {
    let mut changed = agent.clone();
    changed.suspend = suspend;
    changed.meta.version = changed.meta.version.saturating_add(1);
    world.take(Object::Agent(Box::new(changed)), Origin::Watch);
}

fn set_blueprint(world: &mut World, name: &str, suspend: bool) -> Option<BlueprintHit> {
    let mut changed = world.blueprint(&name.into())?.clone();
    let unchanged = changed.suspend == suspend;
    let uid = changed.meta.uid;
    changed.suspend = suspend;
    changed.meta.version = changed.meta.version.saturating_add(1);
    world.take(Object::Blueprint(Box::new(changed)), Origin::Watch);
    Some(BlueprintHit { name: name.to_owned(), uid, unchanged, outcome: None })
}

/// Until when a copy of any token of an agent's is good at most; `None` if it has no live one that is known.
fn tokens_until(
    world: &World,
    agent: &Agent,
    decision: Option<&Decision>,
    now: Timestamp,
) -> Option<Timestamp> {
    let decision = decision.filter(|d| matches!(d.standing, Standing::Allowed))?;
    let held = || decision.grants.iter().filter_map(|g| Some((g, g.held.as_ref()?)));
    let after = |at: Timestamp, seconds: u32| {
        at.checked_add(SignedDuration::from_secs(i64::from(seconds))).unwrap_or(Timestamp::MAX)
    };
    let secret = world.secret(&agent.meta.key.sibling(agent.secret_name.clone()));
    let secret = secret.filter(|s| agent.has_secret() && s.agent == Some(agent.meta.uid));
    let filed = secret.filter(|s| s.expires_at != Timestamp::MAX && !s.tokens.is_empty()).map(|s| {
        // All were minted at once; the annotation tells when the first of them expires.
        let files = held().filter(|(g, _)| g.file.is_some()).map(|(_, h)| h.lifetime);
        let all: Vec<u32> = files.chain([decision.lifetime]).collect();
        let (longest, shortest) = (all.iter().max().copied(), all.iter().min().copied());
        after(s.expires_at, longest.unwrap_or_default().saturating_sub(shortest.unwrap_or_default()))
    });
    let limits = &world.config().limits;
    let bought = agent.service_account.iter().flat_map(|_| held()).map(|(_, h)| {
        let most = match h.profile {
            TokenProfile::Access => limits.on_demand_token_lifetime.0,
            TokenProfile::Identity => limits.identity_token_lifetime.0,
        };
        let end = after(now, most.min(h.lifetime));
        h.not_after.map_or(end, |n| n.min(end))
    });
    let until = filed.into_iter().chain(bought).max()?;
    Some(decision.not_after.map_or(until, |n| n.min(until))).filter(|u| *u > now)
}

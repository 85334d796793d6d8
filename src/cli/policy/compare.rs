//! Every agent decided twice, and what it has lost the second time.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use crate::api::{AgentPolicy, Enforcement, Reason};
use crate::cli::look::{AGENT, named};
use crate::cluster::snapshot::Whole;
use crate::domain::{
    Decision, GrantDecision, Key, Meta, Object, Origin, Policy, Refusal, Standing, Uid, World, decide,
};

/// The answer. Members are only ever added.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    pub(super) policies: Vec<Tested>,
    pub(super) losses: Vec<Loss>,
    pub(super) summary: Summary,
    pub(super) notes: Vec<String>,
}

impl Report {
    /// The agents that would lose something.
    pub(super) fn names(&self) -> Vec<String> {
        let mut keys: Vec<_> = self.losses.iter().map(|l| (&l.namespace, &l.agent)).collect();
        keys.sort_unstable();
        keys.dedup();
        keys.into_iter().map(|(_, name)| named(AGENT, name)).collect()
    }
}

/// A policy that is tested.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Tested {
    pub(super) name: String,
    /// As it is written; it is tested as if it were enforced.
    pub(super) enforcement: Enforcement,
    /// Whether one of this name is there.
    pub(super) replaces: bool,
    /// How many agents it speaks of.
    pub(super) matched: i64,
}

/// What somebody would lose.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Loss {
    pub(super) namespace: String,
    pub(super) agent: String,
    /// Absent: the agent's whole credential.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) grant: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) resource: Option<String>,
    /// All of it; else what follows.
    pub(super) whole: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) roles: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) scopes: Vec<String>,
    /// The file that would leave the Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<String>,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// In numbers.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Summary {
    /// Agents that were looked at.
    pub(super) agents: usize,
    /// Agents that would lose something.
    pub(super) agents_losing: usize,
    /// Of these, those that would lose everything.
    pub(super) agents_withdrawn: usize,
    /// Grants that would be refused or narrowed, of agents that keep their credential.
    pub(super) grants_losing: usize,
    /// Grants whose tokens would live shorter, or end earlier.
    pub(super) grants_shortened: usize,
    /// Agents that would hold more: the policy that is replaced takes more.
    pub(super) agents_gaining: usize,
    /// Agents of which it can't be told.
    pub(super) agents_unknown: usize,
}

/// Puts the policies into the world and says what that changes.
pub(super) fn compare(seen: Whole, policies: &[AgentPolicy], assumed: bool, now: Timestamp) -> Report {
    let Whole { mut world, unseen, skipped } = seen;
    let mut keys: Vec<Key> = world.agents().map(|a| a.meta.key.clone()).collect();
    keys.sort_unstable();
    let before: Vec<_> = keys.iter().filter_map(|k| decide(&world, k, now)).collect();
    let mut tested: Vec<_> =
        policies.iter().enumerate().filter_map(|(i, p)| put(&mut world, p, i, now)).collect();
    for policy in &mut tested {
        policy.matched = world.matched(&policy.name.as_str().into());
    }
    let (mut losses, mut summary) = (Vec::new(), Summary { agents: keys.len(), ..Summary::default() });
    for old in &before {
        let Some(new) = decide(&world, &old.agent, now) else { continue };
        summary.agents_unknown += usize::from(matches!(new.standing, Standing::Unknown(_)));
        summary.agents_gaining += usize::from(gains(old, &new));
        let found = lost(old, &new, &mut summary);
        summary.agents_losing += usize::from(!found.is_empty());
        losses.extend(found);
    }
    let mut notes: Vec<_> =
        unseen.iter().map(|u| format!("{} can't be read: {}", u.source, u.error)).collect();
    notes.extend(
        skipped
            .iter()
            .map(|s| format!("{} {} can't be read and is left out: {}", s.source, s.key, s.problem)),
    );
    if assumed {
        let word = "without --config the operator's default limits and bound kinds are assumed, and no user issuers or agentUserDomains";
        notes.push(word.to_owned());
    }
    if tested.iter().any(|p| p.enforcement == Enforcement::Audit) {
        notes.push(
            "a policy in Audit takes nothing: this is what it would take if it were enforced".to_owned(),
        );
    }
    Report { policies: tested, losses, summary, notes }
}

/// Puts a policy in, enforced, in the place of the one of its name.
fn put(world: &mut World, policy: &AgentPolicy, nth: usize, now: Timestamp) -> Option<Tested> {
    let name: Arc<str> = policy.metadata.name.as_deref()?.into();
    let old = world.policy(&name).map(|p| p.meta.clone());
    let mut enforced = policy.clone();
    enforced.spec.enforcement = Some(Enforcement::Enforce);
    let meta = old.clone().unwrap_or_else(|| Meta {
        key: Key::new("", name.clone()),
        // As the youngest of all, in the order of the files.
        uid: Uid(u128::MAX - 4096 + nth as u128),
        version: 0,
        created: now,
        deleting: false,
    });
    enforced.metadata.uid = Some(meta.uid.to_string());
    enforced.metadata.resource_version = Some(meta.version.saturating_add(1).to_string());
    enforced.metadata.creation_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(meta.created));
    let taken = Policy::try_from(&enforced).ok()?;
    world.take(Object::Policy(Box::new(taken)), Origin::Watch);
    let enforcement = policy.spec.enforcement.unwrap_or_default();
    Some(Tested { name: name.to_string(), enforcement, replaces: old.is_some(), matched: 0 })
}

fn names_lost(old: &[Arc<str>], new: &[Arc<str>]) -> Vec<String> {
    old.iter().filter(|n| !new.contains(n)).map(ToString::to_string).collect()
}

fn loss(decision: &Decision, grant: Option<&GrantDecision>, refusal: Option<&Refusal>) -> Loss {
    Loss {
        namespace: decision.agent.namespace.to_string(),
        agent: decision.agent.name.to_string(),
        grant: grant.map(|g| g.grant.to_string()),
        resource: grant.map(|g| g.resource.to_string()),
        whole: true,
        roles: Vec::new(),
        scopes: Vec::new(),
        file: None,
        reason: refusal.map_or("Unknown", |r| r.reason.as_str()),
        message: refusal.map(|r| r.message.clone()).unwrap_or_default(),
    }
}

fn lost(old: &Decision, new: &Decision, summary: &mut Summary) -> Vec<Loss> {
    match (&old.standing, &new.standing) {
        (Standing::Allowed, Standing::Allowed) => {}
        // A policy is asked before what can't be seen, so it can stop those of whom nothing was told.
        (Standing::Allowed | Standing::Unknown(_), Standing::Refused(refusal)) => {
            summary.agents_withdrawn += 1;
            return vec![loss(new, None, Some(refusal))];
        }
        _ => return Vec::new(),
    }
    let mut losses = Vec::new();
    for (grant, after) in pairs(old, new) {
        let Some(before) = &grant.held else { continue };
        let Some(left) = &after.held else {
            losses.push(loss(new, Some(after), after.refusal.as_ref()));
            continue;
        };
        let roles = names_lost(&before.roles, &left.roles);
        let scopes = names_lost(&before.scopes, &left.scopes);
        let file = grant.file.as_ref().filter(|_| after.file.is_none()).map(ToString::to_string);
        let ends = |t: Option<Timestamp>| t.unwrap_or(Timestamp::MAX);
        let shorter = left.lifetime < before.lifetime || ends(left.not_after) < ends(before.not_after);
        summary.grants_shortened += usize::from(shorter);
        if !roles.is_empty() || !scopes.is_empty() || file.is_some() {
            let part = loss(new, Some(after), Some(&why(old, new, after)));
            losses.push(Loss { whole: false, roles, scopes, file, ..part });
        }
    }
    summary.grants_losing += losses.len();
    losses
}

/// What is said of a part that is lost: what a policy says now and did not say before.
fn why(old: &Decision, new: &Decision, grant: &GrantDecision) -> Refusal {
    let said = new.denied.iter().filter(|o| o.grant.as_ref() == Some(&grant.grant));
    let mut fresh = said.filter(|o| !old.denied.contains(o));
    let lives = grant.held.as_ref().map_or(0, |h| h.lifetime);
    fresh.next().map_or_else(
        || {
            let text = format!("tokens would live {lives}s, too short for a Secret; they are had on demand");
            Refusal::new(Reason::LifetimeTooShort, text)
        },
        |o| o.refusal.clone(),
    )
}

/// The grants of an agent before and after.
fn pairs<'a>(
    old: &'a Decision,
    new: &'a Decision,
) -> impl Iterator<Item = (&'a GrantDecision, &'a GrantDecision)> {
    old.grants.iter().filter_map(|g| Some((g, new.grants.iter().find(|n| n.uid == g.uid)?)))
}

fn gains(old: &Decision, new: &Decision) -> bool {
    let more = |before: &GrantDecision, after: &GrantDecision| match (&before.held, &after.held) {
        (None, Some(_)) => true,
        (Some(before), Some(after)) => {
            !names_lost(&after.roles, &before.roles).is_empty()
                || !names_lost(&after.scopes, &before.scopes).is_empty()
        }
        _ => false,
    };
    match (&old.standing, &new.standing) {
        (Standing::Allowed, Standing::Allowed) => pairs(old, new).any(|(b, a)| more(b, a)),
        (Standing::Refused(_), Standing::Allowed) => true,
        _ => false,
    }
}

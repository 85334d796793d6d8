//! One agent's work: decide, plan, apply, until the plan is empty.
//!
//! Invariants: the Secret is written before the status that speaks of it; what the API server answers is taken
//! into the world before the next look; nothing here lists.

use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use thiserror::Error;

use super::context::Context;
use super::foreign;
use crate::api::Reason;
use crate::cluster::client::{CallError, Class};
use crate::cluster::wire::{Wire, WireAgent, WireObject, WireSecret, WireWorkload};
use crate::cluster::write::{At, SecretWrite};
use crate::domain::plan::{AgentStep, Cause, Credential, Issue, Plan, SecretStep, plan};
use crate::domain::status::{Transition, agent_status};
use crate::domain::statuslist::{Full, Indexes, StatusRef};
use crate::domain::{BoundObject, Decision, Key, Object, POD, Refusal, Source, Uid, Unfit, World, decide};
use crate::issue::{Contents, MintError};

/// Why an agent's work failed; it is tried again after a pause of its own.
#[derive(Debug, Error)]
pub enum Failure {
    /// A call to the API server.
    #[error("{what}: {source}")]
    Call {
        /// Which call.
        what: &'static str,
        /// Why it failed.
        source: CallError,
    },
    /// Minting.
    #[error(transparent)]
    Mint(#[from] MintError),
    /// An answer that can't be understood.
    #[error("the API server's answer: {0}")]
    Answer(#[from] Unfit),
    /// The plan did not become empty.
    #[error("the work does not come to rest; somebody else may be changing the same object")]
    Restless,
    /// The status list is being followed by another.
    #[error(transparent)]
    Full(#[from] Full),
    /// A panic, in this agent's work alone.
    #[error("a fault of agentid's own: {0}")]
    Panic(String),
}

impl Failure {
    /// The reason, of the closed set.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Mint(e) => e.reason(),
            Self::Full(_) => Reason::IndexPending,
            _ => Reason::Internal,
        }
    }

    /// Whether an object had changed when it was written: the watch shows how, and the work is done again.
    pub(super) fn is_stale(&self) -> bool {
        matches!(self, Self::Call { source, .. } if source.class() == Class::Conflict)
    }
}

pub(super) fn call(what: &'static str) -> impl FnOnce(CallError) -> Failure {
    move |source| Failure::Call { what, source }
}

/// More rounds than any agent needs: own, confirm, look, secret, status.
const ROUNDS: usize = 8;

enum Round {
    Again,
    Rest(Option<Timestamp>),
}

/// Works on an agent until its plan is empty; says when to look again.
///
/// `since` is when it became known that there is something to do.
pub(super) async fn agent(cx: &Context, key: &Key, since: Instant) -> Result<Option<Timestamp>, Failure> {
    foreign::look_again(cx, key).await?;
    let mut looked = false;
    for _ in 0..ROUNDS {
        let now = Timestamp::now();
        let look = look(cx, &cx.world.read(), key, now)?;
        let Some(Look { decision, indexes, plan }) = look else { return Ok(None) };
        if cx.world.read().may_be_bound(&decision) {
            cx.world.write().record_bindings(&decision);
        }
        let holdings = decision.holdings(&cx.world.read());
        if cx.world.read().holdings(key) != Some(&holdings) {
            cx.world.write().record_holdings(key, holdings);
        }
        if !cx.world.read().is_counted(key, &decision.standing) {
            cx.world.write().record_standing(key, &decision.standing);
        }
        match round(cx, &decision, &indexes, &plan, &mut looked, now, since).await? {
            Round::Again => {}
            Round::Rest(wake) => return Ok(wake),
        }
    }
    Err(Failure::Restless)
}

struct Look {
    decision: Decision,
    indexes: Indexes,
    plan: Plan,
}

fn look(cx: &Context, world: &World, key: &Key, now: Timestamp) -> Result<Option<Look>, Failure> {
    let (Some(agent), Some(decision)) = (world.agent(key), decide(world, key, now)) else { return Ok(None) };
    let indexes = cx.indexes().assign(world, agent, &decision, now)?;
    let plan = plan(world, &decision, &indexes, &cx.keys().seen, now);
    Ok(plan.map(|plan| Look { decision, indexes, plan }))
}

async fn round(
    cx: &Context,
    decision: &Decision,
    indexes: &Indexes,
    plan: &Plan,
    looked: &mut bool,
    now: Timestamp,
    since: Instant,
) -> Result<Round, Failure> {
    match &plan.agent {
        AgentStep::Keep => {}
        AgentStep::Own(owner) => return own(cx, decision, *owner).await,
        AgentStep::Confirm(uid) => {
            if confirm(cx, &decision.agent, Some(*uid)).await? {
                return Ok(Round::Again);
            }
            return Ok(Round::Rest(plan.wake));
        }
        AgentStep::Look => {
            if !*looked {
                *looked = true;
                if confirm(cx, &decision.agent, None).await? {
                    return Ok(Round::Again);
                }
            }
        }
        AgentStep::Delete(refusal) => {
            if let SecretStep::Delete(uid) = plan.secret {
                delete_secret(cx, decision, uid).await?;
                cx.metrics.withdrawn(since);
            }
            let seen = cx.world.read().agent(&decision.agent).map(|a| At::seen(&a.meta));
            let Some(seen) = seen.filter(|at| at.uid == decision.uid) else { return Ok(Round::Rest(None)) };
            cx.writer.delete_agent(&decision.agent, seen).await.map_err(call("delete the agent"))?;
            cx.world.write().remove(&Source::Agents, &decision.agent, decision.uid, 0);
            tracing::info!(agent = %decision.agent, reason = %refusal.reason, why = %refusal.message, "agent deleted");
            cx.metrics.deleted(refusal.reason);
            return Ok(Round::Rest(None));
        }
    }
    if plan.secret != SecretStep::Keep {
        if indexes.widened && plan.credential == Credential::Fresh {
            status(cx, decision, indexes, &plan.credential, now).await?;
        }
        return match secret(cx, decision, plan, now).await {
            Ok(()) => {
                if plan.secret.withdraws() {
                    cx.metrics.withdrawn(since);
                }
                Ok(Round::Again)
            }
            Err(failure) => {
                report(cx, decision, indexes, &failure, now).await;
                Err(failure)
            }
        };
    }
    status(cx, decision, indexes, &plan.credential, now).await?;
    Ok(Round::Rest(plan.wake))
}

/// Says on the agent itself why its Secret can't be written, if trying again won't help.
async fn report(cx: &Context, decision: &Decision, indexes: &Indexes, failure: &Failure, now: Timestamp) {
    let Failure::Call { what, source } = failure else { return };
    if source.class().is_transient() || matches!(source.class(), Class::Conflict | Class::AlreadyExists) {
        return;
    }
    if source.message().contains("being terminated") {
        return;
    }
    let refusal = Refusal::new(
        Reason::Internal,
        format!("{what}: {}; see agentid's RBAC rules, quotas and admission policies", source.message()),
    );
    if let Err(e) = status(cx, decision, indexes, &Credential::Absent(refusal), now).await {
        tracing::debug!(agent = %decision.agent, error = %e, "the failure could not be written either");
    }
}

async fn status(
    cx: &Context,
    decision: &Decision,
    indexes: &Indexes,
    credential: &Credential,
    now: Timestamp,
) -> Result<(), Failure> {
    let change = {
        let world = cx.world.read();
        let change = agent_status(&world, decision, indexes, credential, now);
        // Of the same moment: the change is what differs from this very status.
        change.zip(world.agent(&decision.agent).map(|a| At::seen(&a.meta)))
    };
    let Some((change, seen)) = change else { return Ok(()) };
    match cx.writer.status::<WireAgent>("agentidentities", &decision.agent, seen, &change.status).await {
        Ok(object) => {
            let object = object.object(&Source::Agents)?;
            let recorded = change.status.grants.iter().filter_map(|g| {
                Some((g.uid.parse().ok()?, StatusRef::try_from(g.status_index.as_ref()?).ok()?))
            });
            cx.indexes().recorded(decision.uid, recorded, object.meta().version);
            cx.world.answer(object);
            tell(cx, &decision.agent, decision.uid, &change.transitions);
            Ok(())
        }
        // It is gone, or another agent has its name: the watch will say.
        Err(e) if matches!(e.class(), Class::NotFound | Class::Invalid | Class::Conflict) => {
            tracing::debug!(agent = %decision.agent, error = %e, "status not written");
            if e.class() == Class::NotFound {
                return Ok(());
            }
            Err(call("write the status")(e))
        }
        Err(e) => Err(call("write the status")(e)),
    }
}

fn tell(cx: &Context, key: &Key, uid: Uid, transitions: &[Transition]) {
    for t in transitions {
        cx.metrics.transition(t.reason);
        let blueprint = if t.common { blueprint(cx, key) } else { None };
        match blueprint {
            // Thousands say the same at once, and it is told once.
            Some((blueprint, uid)) => {
                let note = format!("its agents in namespace {}: {}", key.namespace, t.note);
                cx.tell("AgentBlueprint", &blueprint, uid, &Transition { note, ..t.clone() });
            }
            None => cx.tell("AgentIdentity", key, uid, t),
        }
    }
}

fn blueprint(cx: &Context, agent: &Key) -> Option<(Key, Uid)> {
    let world = cx.world.read();
    let meta = &world.blueprint_of(world.agent(agent)?)?.meta;
    Some((meta.key.clone(), meta.uid))
}

async fn own(cx: &Context, decision: &Decision, owner: Uid) -> Result<Round, Failure> {
    let parts = {
        let world = cx.world.read();
        let Some(agent) = world.agent(&decision.agent) else { return Ok(Round::Rest(None)) };
        agent.bound.clone().map(|b| (At::seen(&agent.meta), !agent.owners.is_empty(), b))
    };
    let Some((seen, has_owners, bound)) = parts else { return Ok(Round::Rest(None)) };
    let (api_version, kind) = bound.kind.rsplit_once('/').unwrap_or(("v1", &bound.kind));
    let reference =
        json!({"apiVersion": api_version, "kind": kind, "name": &*bound.name, "uid": owner.to_string()});
    let written = cx.writer.own_agent(&decision.agent, seen, has_owners, &reference).await;
    match written {
        Ok(object) => {
            cx.world.answer(object.object(&Source::Agents)?);
            Ok(Round::Again)
        }
        Err(e) if e.class() == Class::NotFound => Ok(Round::Rest(None)),
        // It has changed meanwhile; the watch will show how.
        Err(e) => Err(call("add the ownerReference")(e)),
    }
}

/// Finds out by one GET whether a bound object that no watch shows is there. Says whether something was
/// learnt.
async fn confirm(cx: &Context, key: &Key, wanted: Option<Uid>) -> Result<bool, Failure> {
    let bound = cx.world.read().agent(key).and_then(|a| a.bound.clone());
    let Some(bound) = bound else { return Ok(false) };
    let object = key.sibling(bound.name.clone());
    let Some(collection) = cx.collection(&bound.kind).await.map_err(call("find the bound kind"))? else {
        return Ok(false);
    };
    let source = Source::Bound(bound.kind.clone());
    let is_pod = &*bound.kind == POD;
    let (found, selected) = if is_pod {
        let pod = cx
            .writer
            .look::<WireWorkload>(&collection, &object)
            .await
            .map_err(call("look for the bound object"))?;
        let selected =
            pod.as_ref().is_some_and(|p| cx.pod_selector.matches(|k| p.labels().get(k).map(String::as_str)));
        (pod.map(|p| p.object(&source)).transpose()?, selected)
    } else {
        let found = cx
            .writer
            .look::<WireObject>(&collection, &object)
            .await
            .map_err(call("look for the bound object"))?;
        (found.map(|o| o.object(&source)).transpose()?, true)
    };
    let found: Option<BoundObject> = found.and_then(|o| match o {
        Object::Bound(_, object) => Some(*object),
        _ => None,
    });
    let mut world = cx.world.write();
    match (found, wanted) {
        (Some(found), Some(uid)) if found.meta.uid != uid => {
            world.note_gone(&bound.kind, &object, uid);
            Ok(true)
        }
        // Our watch is a little behind.
        (Some(_), _) if selected => Ok(false),
        (Some(found), _) => {
            let news = world.bound_object(&bound.kind, &object).is_none();
            world.note_unselected(&bound.kind, found);
            Ok(news)
        }
        (None, Some(uid)) => {
            world.note_absent(&bound.kind, &object);
            world.note_gone(&bound.kind, &object, uid);
            Ok(true)
        }
        (None, None) => {
            let news = world.bound_object(&bound.kind, &object).is_some();
            world.note_absent(&bound.kind, &object);
            Ok(news)
        }
    }
}

async fn secret(cx: &Context, decision: &Decision, plan: &Plan, now: Timestamp) -> Result<(), Failure> {
    match &plan.secret {
        SecretStep::Keep => Ok(()),
        SecretStep::Create(issue) => create(cx, issue, now, &Cause::New).await,
        SecretStep::Recreate(uid, issue, cause) => {
            delete_secret(cx, decision, *uid).await?;
            create(cx, issue, now, cause).await
        }
        SecretStep::Update(uid, issue, cause) => update(cx, *uid, issue, now, cause).await,
        SecretStep::Strip(uid, issue, undue) => strip(cx, *uid, issue, undue).await,
        SecretStep::Delete(uid) => delete_secret(cx, decision, *uid).await,
    }
}

async fn delete_secret(cx: &Context, decision: &Decision, uid: Uid) -> Result<(), Failure> {
    let name = cx.world.read().agent(&decision.agent).map(|a| a.secret_name.clone());
    let Some(name) = name else { return Ok(()) };
    let key = decision.agent.sibling(name);
    cx.writer.delete_secret(&key, uid).await.map_err(call("delete the Secret"))?;
    cx.world.write().remove(&Source::Secrets, &key, uid, 0);
    Ok(())
}

fn mint(cx: &Context, issue: &Issue, now: Timestamp) -> Result<Contents, MintError> {
    let contents = cx.issuer.mint(issue, &*cx.keys(), now)?;
    cx.metrics.minted(issue);
    Ok(contents)
}

async fn create(cx: &Context, issue: &Issue, now: Timestamp, cause: &Cause) -> Result<(), Failure> {
    let key = issue.agent.sibling(issue.secret.clone());
    // A key is published before what it signed arrives.
    super::trust::ensure(cx, &issue.agent.namespace).await?;
    let contents = mint(cx, issue, now)?;
    match cx.writer.create_secret(&key, write(issue, &contents)).await {
        Ok(answer) => written(cx, answer, issue, cause),
        Err(e) if e.class() == Class::AlreadyExists => foreign::in_the_way(cx, &key, issue).await,
        Err(e) => Err(call("create the Secret")(e)),
    }
}

async fn update(cx: &Context, uid: Uid, issue: &Issue, now: Timestamp, cause: &Cause) -> Result<(), Failure> {
    let key = issue.agent.sibling(issue.secret.clone());
    // What takes is not held off by others' edits; what gives must not come late.
    let at = match issue.refusal {
        Some(_) => At::any(uid),
        None => {
            let world = cx.world.read();
            let seen = world.secret(&key).filter(|s| s.meta.uid == uid);
            seen.map_or_else(|| At::any(uid), |s| At::seen(&s.meta))
        }
    };
    let contents = mint(cx, issue, now)?;
    let heal = matches!(cause, Cause::Healed(_));
    let answer = cx.writer.update_secret(&key, at, write(issue, &contents), heal).await;
    settle(cx, &key, uid, answer, issue, cause).await
}

async fn strip(cx: &Context, uid: Uid, issue: &Issue, undue: &[Box<str>]) -> Result<(), Failure> {
    let key = issue.agent.sibling(issue.secret.clone());
    let seen = cx.world.read().secret(&key).cloned();
    let Some(seen) = seen else { return Ok(()) };
    let contents = cx.issuer.strip(issue, &seen, undue);
    let answer = cx.writer.strip_secret(&key, uid, write(issue, &contents), undue).await;
    settle(cx, &key, uid, answer, issue, &Cause::Changed).await
}

async fn settle(
    cx: &Context,
    key: &Key,
    uid: Uid,
    answer: Result<WireSecret, CallError>,
    issue: &Issue,
    cause: &Cause,
) -> Result<(), Failure> {
    match answer {
        Ok(answer) => written(cx, answer, issue, cause),
        Err(e) if matches!(e.class(), Class::NotFound | Class::Invalid | Class::Conflict) => {
            // Gone, another one, changed, or no longer of the shape that we wrote: see which, and plan again.
            let changed = e.class() == Class::Conflict;
            let found = cx.writer.secret_in_the_way(key).await.map_err(call("look for the Secret"))?;
            match found.map(WireSecret::credentials).transpose()? {
                Some(found) if found.meta.uid == uid && found.drift.is_none() && !changed => {
                    return Err(call("write the Secret")(e));
                }
                Some(found) if found.meta.uid == uid => cx.world.answer(Object::Secret(Box::new(found))),
                _ => cx.world.write().remove(&Source::Secrets, key, uid, 0),
            }
            Ok(())
        }
        Err(e) => Err(call("write the Secret")(e)),
    }
}

fn write<'a>(issue: &'a Issue, contents: &'a Contents) -> SecretWrite<'a> {
    SecretWrite {
        agent: &issue.agent,
        uid: issue.uid,
        data: &contents.data,
        annotations: &contents.annotations,
    }
}

fn written(cx: &Context, answer: WireSecret, issue: &Issue, cause: &Cause) -> Result<(), Failure> {
    cx.world.answer(Object::Secret(Box::new(answer.credentials()?)));
    cx.metrics.written(cause, issue.refusal.is_some());
    if let Cause::Healed(drift) = cause {
        let note = format!(
            "Secret {}: {} was changed by {} and has been written anew",
            issue.secret,
            drift.what.field(),
            drift.by
        );
        tracing::warn!(agent = %issue.agent, secret = %issue.secret, by = %drift.by, field = drift.what.field(), "a Secret was healed");
        cx.tell(
            "AgentIdentity",
            &issue.agent,
            issue.uid,
            &Transition { condition: "Ready", common: false, good: true, reason: Reason::Issued, note },
        );
    }
    Ok(())
}

/// Deletes a Secret of ours that is no live agent's.
pub(super) async fn orphan(cx: &Context, key: &Key, since: Instant) -> Result<Option<Timestamp>, Failure> {
    let uid = {
        let world = cx.world.read();
        let now = Timestamp::now();
        // Unknown is not absent.
        if !world.is_fresh(&Source::Agents, now) || !world.is_fresh(&Source::Secrets, now) {
            return Ok(Some(now + SignedDuration::from_secs(5)));
        }
        let leaving = world.namespace(&key.namespace).is_none_or(|n| n.meta.deleting);
        match world.secret(key).filter(|s| world.is_orphan(s)) {
            Some(secret) if !leaving => secret.meta.uid,
            _ => return Ok(None),
        }
    };
    cx.writer.delete_secret(key, uid).await.map_err(call("delete the Secret"))?;
    cx.world.write().remove(&Source::Secrets, key, uid, 0);
    cx.world.tell();
    tracing::info!(secret = %key, "a Secret without its agent was deleted");
    cx.metrics.orphan();
    cx.metrics.withdrawn(since);
    Ok(None)
}

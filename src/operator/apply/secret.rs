//! What a plan says of an agent's Secret, done: created, written, stripped, deleted.
//!
//! Invariants: what gives is not written over what has changed, what takes is not held off by it; where the API server
//! finds another Secret than was seen, it is looked at and planned for anew.

use std::time::Instant;

use jiff::{SignedDuration, Timestamp};

use super::{Failure, call};
use crate::api::Reason;
use crate::cluster::client::{CallError, Class};
use crate::cluster::wire::WireSecret;
use crate::cluster::write::{At, SecretWrite};
use crate::domain::plan::{Cause, Issue, Plan, SecretStep};
use crate::domain::status::Transition;
use crate::domain::{Decision, Key, Object, Source, Uid};
use crate::issue::{Contents, MintError};
use crate::operator::context::Context;
use crate::operator::{foreign, trust};

pub(super) async fn secret(
    cx: &Context,
    decision: &Decision,
    plan: &Plan,
    now: Timestamp,
) -> Result<(), Failure> {
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

pub(super) async fn delete_secret(cx: &Context, decision: &Decision, uid: Uid) -> Result<(), Failure> {
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
    trust::ensure(cx, &issue.agent.namespace).await?;
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
pub(in crate::operator) async fn orphan(
    cx: &Context,
    key: &Key,
    since: Instant,
) -> Result<Option<Timestamp>, Failure> {
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

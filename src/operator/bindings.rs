//! The RoleBindings of one grant in one namespace: plan, apply.
//!
//! Invariants: rights are taken before others are given; what bears a name of ours and is not ours is reported and left
//! alone; a role that we may not bind harms its own grant alone.

use std::collections::HashSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::apply::{Failure, call};
use super::context::Context;
use crate::api::{API_VERSION, Reason};
use crate::cluster::client::{CallError, Class};
use crate::cluster::wire::{Wire, WireBinding};
use crate::cluster::write::At;
use crate::domain::bindings::{BindingStep, Wanted, plan};
use crate::domain::status::agent_id;
use crate::domain::{Key, Source, Uid, Unit, World};

/// For so long changes are gathered, so that many agents are one write.
pub(super) const GATHER: Duration = Duration::from_millis(500);
/// How soon to look whether something foreign has gone.
const FOREIGN: SignedDuration = SignedDuration::from_secs(30);

/// Works on a grant's RoleBindings; says when to look again.
pub(super) async fn one(cx: &Context, unit: &Unit) -> Result<Option<Timestamp>, Failure> {
    let plan = plan(&cx.world.read(), unit, Timestamp::now());
    let mut wake = plan.wake;
    for step in plan.steps {
        match step {
            BindingStep::Delete(key, uid) => {
                cx.writer.delete_binding(&key, uid).await.map_err(call("delete the RoleBinding"))?;
                cx.world.write().remove(&Source::Bindings, &key, uid, 0);
                tracing::info!(binding = %key, "RoleBinding deleted");
            }
            BindingStep::Update(uid, wanted) => {
                let at = stands_on(&cx.world.read(), unit, uid, &wanted);
                update(cx, at, &wanted).await?;
            }
            BindingStep::Create(wanted) => {
                if !create(cx, &wanted).await? {
                    wake = Some(Timestamp::now() + FOREIGN);
                }
            }
        }
    }
    Ok(wake)
}

/// What an update stands on. What only takes is not held off by others' edits; what gives must not come late.
fn stands_on(world: &World, unit: &Unit, uid: Uid, wanted: &Wanted) -> At {
    let Some(seen) = world.bindings_of(unit).into_iter().find(|b| b.meta.uid == uid) else {
        return At::any(uid);
    };
    let domain = &world.config().trust_domain;
    let had: HashSet<_> = seen.subjects.iter().map(|agent| agent_id(domain, *agent)).collect();
    if wanted.subjects.iter().all(|s| had.contains(s)) { At::any(uid) } else { At::seen(&seen.meta) }
}

async fn update(cx: &Context, at: At, wanted: &Wanted) -> Result<(), Failure> {
    match cx.writer.update_binding(at, wanted).await {
        Ok(answer) => answered(cx, answer),
        // Gone, or another one: the watch will say; what is known must not be written again meanwhile.
        Err(e) if matches!(e.class(), Class::NotFound | Class::Invalid) => {
            cx.world.write().remove(&Source::Bindings, &wanted.key, at.uid, 0);
            Ok(())
        }
        Err(e) if e.class() == Class::Conflict => Err(call("write the RoleBinding")(e)),
        Err(e) => Err(refused(cx, wanted, e)),
    }
}

/// Whether the RoleBinding is there afterwards.
async fn create(cx: &Context, wanted: &Wanted) -> Result<bool, Failure> {
    let error = match cx.writer.create_binding(wanted).await {
        Ok(answer) => return answered(cx, answer).map(|()| true),
        Err(error) => error,
    };
    if error.message().contains("being terminated") {
        return Ok(true);
    }
    if error.class() != Class::AlreadyExists {
        return Err(refused(cx, wanted, error));
    }
    let found = cx.writer.binding_in_the_way(&wanted.key).await.map_err(call("look for the RoleBinding"))?;
    let Some(found) = found else { return Ok(false) };
    if let Some(meta) = found.is_ours(&wanted.role, wanted.owner.uid) {
        // It has lost its labels, or our watch is a little behind.
        return update(cx, At::seen(&meta), wanted).await.map(|()| true);
    }
    let note = format!(
        "RoleBinding {} is not agentid's and is left alone, so the agents of this grant do not hold ClusterRole {}; \
         delete or rename it",
        wanted.key.name, wanted.role
    );
    tracing::warn!(binding = %wanted.key, "{note}");
    tell(cx, wanted, Reason::ForeignObject, &note);
    Ok(false)
}

fn answered(cx: &Context, answer: WireBinding) -> Result<(), Failure> {
    cx.world.answer(answer.object(&Source::Bindings)?);
    Ok(())
}

/// Says on the grant why its agents hold less than was decided.
fn refused(cx: &Context, wanted: &Wanted, error: CallError) -> Failure {
    if !error.class().is_transient() {
        let note = format!(
            "ClusterRole {} can't be bound: {}; agentid needs the verb bind on it",
            wanted.role,
            error.message()
        );
        tell(cx, wanted, Reason::Internal, &note);
    }
    call("write the RoleBinding")(error)
}

fn tell(cx: &Context, wanted: &Wanted, reason: Reason, note: &str) {
    let owner = &wanted.owner;
    let namespace = if owner.kind == "AgentGrant" { wanted.key.namespace.clone() } else { "".into() };
    let key = Key::new(namespace, owner.name.clone());
    cx.note(API_VERSION, owner.kind, &key, &owner.uid.to_string(), false, reason, note);
}

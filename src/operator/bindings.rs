//! The RoleBindings of one grant in one namespace: plan, apply.
//!
//! Invariants: rights are taken before others are given; what bears a name of ours and is not ours is reported and left
//! alone; a role that we may not bind harms its own grant alone.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::apply::{Failure, call};
use super::context::Context;
use crate::api::{API_VERSION, Reason};
use crate::cluster::client::{CallError, Class};
use crate::cluster::wire::{Wire, WireBinding};
use crate::domain::bindings::{BindingStep, Wanted, plan};
use crate::domain::{Key, Source, Uid, Unit};

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
            BindingStep::Update(uid, wanted) => update(cx, uid, &wanted).await?,
            BindingStep::Create(wanted) => {
                if !create(cx, &wanted).await? {
                    wake = Some(Timestamp::now() + FOREIGN);
                }
            }
        }
    }
    Ok(wake)
}

async fn update(cx: &Context, uid: Uid, wanted: &Wanted) -> Result<(), Failure> {
    match cx.writer.update_binding(uid, wanted).await {
        Ok(answer) => answered(cx, answer),
        // Gone, or another one: the watch will say; what is known must not be written again meanwhile.
        Err(e) if matches!(e.class(), Class::NotFound | Class::Invalid) => {
            cx.world.write().remove(&Source::Bindings, &wanted.key, uid, 0);
            Ok(())
        }
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
    if let Some(uid) = found.is_ours(&wanted.role, wanted.owner.uid) {
        // It has lost its labels, or our watch is a little behind.
        return update(cx, uid, wanted).await.map(|()| true);
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

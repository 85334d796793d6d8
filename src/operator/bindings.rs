//! The RoleBindings of one grant in one namespace: plan, apply.
//!
//! Invariants: rights are taken before others are given, also where they may no longer be given; what bears a name of
//! ours and is not ours is reported and left alone; a role that we may not bind harms nobody but its own holders, and
//! their statuses say so.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::apply::{Failure, call};
use super::context::Context;
use crate::api::{API_VERSION, Reason};
use crate::cluster::client::{CallError, Class};
use crate::cluster::wire::{Wire, WireBinding};
use crate::cluster::write::At;
use crate::domain::bindings::{BindingPlan, BindingStep, Owner, Taking, Wanted, owner_of, plan};
use crate::domain::status::agent_id;
use crate::domain::{Key, Refusal, Source, Uid, Unit, World};

/// For so long changes are gathered, so that many agents are one write.
pub(super) const GATHER: Duration = Duration::from_millis(500);
/// How soon to look whether something foreign has gone.
const FOREIGN: SignedDuration = SignedDuration::from_secs(30);
/// How soon to look again at what has changed under our hands.
const CHANGED: SignedDuration = SignedDuration::from_secs(1);
/// Of RoleBindings themselves.
const RBAC: &str = "rbac.authorization.k8s.io/v1";

/// Why a RoleBinding is not as it is to be.
struct Unwritten {
    /// The API server may well take it a little later, and what comes after it waits.
    passing: bool,
    /// Why its role can't be bound, if trying again won't help by itself.
    refusal: Option<Refusal>,
    /// What failed, or how soon to look again where nothing did.
    failure: Result<SignedDuration, Failure>,
}

type Written = Result<(), Box<Unwritten>>;

fn failed(passing: bool, refusal: Option<Refusal>, failure: Failure) -> Box<Unwritten> {
    Box::new(Unwritten { passing, refusal, failure: Err(failure) })
}

/// Works on a grant's RoleBindings; says when to look again.
pub(super) async fn one(cx: &Context, unit: &Unit) -> Result<Option<Timestamp>, Failure> {
    let BindingPlan { known, steps, mut wake } = plan(&cx.world.read(), unit, Timestamp::now());
    if !known {
        return Ok(wake);
    }
    let mut first = None;
    let mut unbound: BTreeMap<Arc<str>, Option<Refusal>> = BTreeMap::new();
    let mut steps = steps.into_iter();
    for step in steps.by_ref() {
        let (role, done) = match step {
            BindingStep::Delete(key, uid) => (None, delete(cx, unit, &key, uid).await),
            BindingStep::Take(taking) => (None, take(cx, unit, &taking).await),
            BindingStep::Update(uid, wanted) => {
                let at = stands_on(&cx.world.read(), uid, &wanted);
                (Some(wanted.role.clone()), update(cx, at, &wanted).await)
            }
            // What one of a role's was refused, the next will be.
            BindingStep::Create(wanted) if unbound.get(&wanted.role).is_some_and(Option::is_some) => continue,
            BindingStep::Create(wanted) => (Some(wanted.role.clone()), create(cx, &wanted).await),
        };
        let Err(unwritten) = done else { continue };
        let Unwritten { passing, refusal, failure } = *unwritten;
        if let Some(role) = role {
            let known = unbound.entry(role).or_default();
            *known = known.take().or(refusal);
        }
        match failure {
            Err(failure) => drop(first.get_or_insert(failure)),
            Ok(soon) => {
                let again = Timestamp::now() + soon;
                wake = Some(wake.map_or(again, |wake| wake.min(again)));
            }
        }
        if passing {
            break;
        }
    }
    for step in steps {
        if let BindingStep::Create(wanted) | BindingStep::Update(_, wanted) = step {
            unbound.entry(wanted.role).or_default();
        }
    }
    cx.world.write().record_tried(unit, unbound);
    first.map_or(Ok(wake), Err)
}

async fn delete(cx: &Context, unit: &Unit, key: &Key, uid: Uid) -> Written {
    if let Err(error) = cx.writer.delete_binding(key, uid).await {
        return Err(untaken(cx, unit, key, uid, error));
    }
    let mut world = cx.world.write();
    // One that a finalizer holds is still gone by, and the watch may have shown it already.
    if world.binding(key).is_some_and(|b| !b.meta.deleting) {
        world.remove(&Source::Bindings, key, uid, 0);
    }
    tracing::info!(binding = %key, "RoleBinding deleted");
    Ok(())
}

/// Takes subjects off a RoleBinding.
async fn take(cx: &Context, unit: &Unit, taking: &Taking) -> Written {
    let Taking { key, uid, leaving, .. } = taking;
    let error = match cx.writer.take_subjects(taking).await {
        Ok(answer) => {
            tracing::info!(binding = %key, "subjects taken off a RoleBinding");
            return answered(cx, answer);
        }
        Err(error) => error,
    };
    if error.class() == Class::NotFound {
        cx.world.write().remove(&Source::Bindings, key, *uid, 0);
        return Ok(());
    }
    if *leaving || error.passes() {
        return Err(untaken(cx, unit, key, *uid, error));
    }
    delete(cx, unit, key, *uid).await
}

/// Says that somebody keeps a right that was to be taken, if trying again won't help by itself.
fn untaken(cx: &Context, unit: &Unit, key: &Key, uid: Uid, error: CallError) -> Box<Unwritten> {
    let passing = error.passes();
    if !passing {
        let role = cx.world.read().binding(key).and_then(|b| b.role.clone());
        let note = format!(
            "RoleBinding {} in namespace {} can't be taken away, so whom it names keeps what it gives: {}; {}",
            key.name,
            key.namespace,
            error.message(),
            remedy(&error, role.as_deref().unwrap_or_default())
        );
        tracing::warn!(binding = %key, "{note}");
        let owner = owner_of(&cx.world.read(), unit);
        match owner {
            Some(owner) => drop(tell(cx, &owner, &key.namespace, Refusal::new(Reason::Internal, note))),
            // Nobody is left to tell it to but the RoleBinding itself.
            None => cx.note(RBAC, "RoleBinding", key, &uid.to_string(), false, Reason::Internal, &note),
        }
    }
    failed(passing, None, call("take a RoleBinding away")(error))
}

/// What an update changes of a RoleBinding as it was seen.
struct Change {
    seen: At,
    /// Somebody is to gain what it gives.
    gives: bool,
    /// Somebody is to lose it.
    takes: bool,
}

fn change(world: &World, wanted: &Wanted) -> Option<Change> {
    let seen = world.binding(&wanted.key)?;
    let domain = &world.config().trust_domain;
    let had: HashSet<_> = seen.subjects.iter().map(|agent| agent_id(domain, *agent)).collect();
    let kept = wanted.subjects.iter().filter(|s| had.contains(*s)).count();
    let (gives, takes) = (kept < wanted.subjects.len(), kept < had.len());
    Some(Change { seen: At::seen(&seen.meta), gives, takes })
}

/// What an update stands on. What only takes is not held off by others' edits; what gives must not come late.
fn stands_on(world: &World, uid: Uid, wanted: &Wanted) -> At {
    let gives = change(world, wanted).filter(|c| c.gives && c.seen.uid == uid);
    gives.map_or_else(|| At::any(uid), |c| c.seen)
}

async fn update(cx: &Context, at: At, wanted: &Wanted) -> Written {
    let error = match cx.writer.update_binding(at, wanted).await {
        Ok(answer) => return answered(cx, answer),
        Err(error) => error,
    };
    if error.class() == Class::NotFound {
        // Gone, or another one: the watch will say; what is known must not be written again meanwhile.
        cx.world.write().remove(&Source::Bindings, &wanted.key, at.uid, 0);
        return Ok(());
    }
    if !error.passes() && change(&cx.world.read(), wanted).is_some_and(|c| c.takes) {
        // The API server lets nobody shorten the list of those who hold a role that it may not give, and an admission
        // policy may hold off any change. Nobody keeps a right because it can't be taken from him alone.
        let unit = Unit { namespace: wanted.key.namespace.clone(), grant: wanted.grant };
        let deleted = delete(cx, &unit, &wanted.key, at.uid).await;
        deleted.or_else(|unwritten| if unwritten.passing { Err(unwritten) } else { Ok(()) })?;
    }
    Err(refused(cx, wanted, error))
}

async fn create(cx: &Context, wanted: &Wanted) -> Written {
    let error = match cx.writer.create_binding(wanted).await {
        Ok(answer) => return answered(cx, answer),
        Err(error) => error,
    };
    if error.message().contains("being terminated") {
        return Ok(());
    }
    if error.class() != Class::AlreadyExists {
        return Err(refused(cx, wanted, error));
    }
    let found = cx.writer.binding_in_the_way(&wanted.key).await;
    let found = found.map_err(|e| failed(e.passes(), None, call("look for the RoleBinding")(e)))?;
    let Some(found) = found else {
        return Err(Box::new(Unwritten { passing: false, refusal: None, failure: Ok(CHANGED) }));
    };
    if let Some(meta) = found.is_ours(&wanted.role, wanted.owner.uid) {
        if meta.deleting {
            // It still gives what it gives, and nobody is to be given anything by it: the watch will show it, and the
            // next plan takes another name.
            return Err(Box::new(Unwritten { passing: false, refusal: None, failure: Ok(FOREIGN) }));
        }
        // It has lost its labels, or our watch is a little behind.
        return update(cx, At::seen(&meta), wanted).await;
    }
    let note = format!(
        "RoleBinding {} is not agentid's and is left alone, so the agents of this grant do not hold ClusterRole {}; \
         delete or rename it",
        wanted.key.name, wanted.role
    );
    tracing::warn!(binding = %wanted.key, "{note}");
    let refusal = Refusal::new(Reason::ForeignObject, note);
    let refusal = Some(tell(cx, &wanted.owner, &wanted.key.namespace, refusal));
    Err(Box::new(Unwritten { passing: false, refusal, failure: Ok(FOREIGN) }))
}

fn answered(cx: &Context, answer: WireBinding) -> Written {
    let object = answer.object(&Source::Bindings).map_err(|e| failed(false, None, e.into()))?;
    cx.world.answer(object);
    Ok(())
}

/// Says on the grant why its agents hold less than was decided.
fn refused(cx: &Context, wanted: &Wanted, error: CallError) -> Box<Unwritten> {
    let passing = error.passes();
    let refusal = (!passing).then(|| {
        let note = format!(
            "ClusterRole {} can't be bound in namespace {}: {}; {}",
            wanted.role,
            wanted.key.namespace,
            error.message(),
            remedy(&error, &wanted.role)
        );
        tell(cx, &wanted.owner, &wanted.key.namespace, Refusal::new(Reason::Internal, note))
    });
    failed(passing, refusal, call("write the RoleBinding")(error))
}

/// The API server refuses in the same way whom a rule is missing and whom a quota or a policy holds back.
fn remedy(error: &CallError, role: &str) -> String {
    let said = error.message();
    if said.contains("attempting to grant") {
        format!("give the operator's ClusterRole the verb bind on clusterroles/{role}")
    } else if error.class() == Class::Forbidden && said.contains(" cannot ") {
        "give the operator's ClusterRole the verbs create, patch and delete on rolebindings".to_owned()
    } else {
        "see the namespace's quotas and the cluster's admission policies".to_owned()
    }
}

fn tell(cx: &Context, owner: &Owner, namespace: &Arc<str>, refusal: Refusal) -> Refusal {
    let namespace = if owner.kind == "AgentGrant" { namespace.clone() } else { "".into() };
    let key = Key::new(namespace, owner.name.clone());
    let uid = owner.uid.to_string();
    cx.note(API_VERSION, owner.kind, &key, &uid, false, refusal.reason, &refusal.message);
    refusal
}

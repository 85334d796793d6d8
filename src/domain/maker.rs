//! Which agent is to be made for a pod.
//!
//! Invariants: only a pod that lives and that a blueprint selects, in a namespace that it selects, has one made; the
//! oldest blueprint rules; an agent that somebody wrote for the same object is left in its place, and so is another
//! one that bears the name.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::world::Contest;
use super::{Blueprint, BoundObject, Hasher, Key, KindName, POD, Uid, World};
use crate::api::IdentityPer;

/// The longest name of an agent.
const LONGEST: usize = 63;
/// The most hops from a pod to what controls it in the end.
const HIGHEST: usize = 4;

/// What is to be done for a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Making {
    /// Nothing: it needs no agent, or has one.
    Nothing,
    /// What controls it, or the end of its predecessor, has not been seen yet.
    Later,
    /// An agent is to be made.
    Make(Box<Made>),
}

/// An agent to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// Its namespace and name.
    pub agent: Key,
    /// Its blueprint.
    pub blueprint: Arc<str>,
    /// The blueprint's UID.
    pub blueprint_uid: Uid,
    /// What it is made for.
    pub per: IdentityPer,
    /// The kind of the object that it lives and dies with.
    pub kind: KindName,
    /// That object's name.
    pub name: Arc<str>,
    /// That object's UID.
    pub uid: Uid,
    /// The service account of its pods.
    pub account: Option<Arc<str>>,
}

/// What is to be done for a pod, and which blueprints contest it.
#[must_use]
pub fn make(world: &World, pod: &Key) -> (Making, Option<Contest>) {
    let nothing = (Making::Nothing, None);
    let Some(pod) = world.bound_object(&POD.into(), pod) else { return nothing };
    let leaving = world.namespace(&pod.meta.key.namespace).is_none_or(|n| n.meta.deleting);
    if pod.finished || pod.unselected || pod.meta.deleting || leaving {
        return nothing;
    }
    let selecting = world.blueprints_of_pod(pod);
    let Some((blueprint, others)) = selecting.split_first() else { return nothing };
    let mut contest = Contest {
        rules: blueprint.meta.key.name.clone(),
        others: others.iter().map(|b| b.meta.key.name.clone()).collect(),
        taken: None,
    };
    let making = one(world, blueprint, pod, &mut contest.taken);
    let contested = !contest.others.is_empty() || contest.taken.is_some();
    (making, contested.then_some(contest))
}

fn one(world: &World, blueprint: &Blueprint, pod: &BoundObject, taken: &mut Option<Arc<str>>) -> Making {
    let object = match blueprint.per {
        IdentityPer::Pod => (KindName::from(POD), pod.meta.key.name.clone(), pod.meta.uid),
        IdentityPer::Workload => match workload(world, pod) {
            Some(object) => object,
            None => return Making::Later,
        },
    };
    let (kind, name, uid) = object;
    let key = pod.meta.key.sibling(agent_name(&name));
    let made = || {
        Making::Make(Box::new(Made {
            agent: key.clone(),
            blueprint: blueprint.meta.key.name.clone(),
            blueprint_uid: blueprint.meta.uid,
            per: blueprint.per,
            kind: kind.clone(),
            name: name.clone(),
            uid,
            account: pod.account.clone(),
        }))
    };
    let of_object = |a: &super::Agent| {
        a.bound.as_ref().is_some_and(|b| b.kind == kind && b.name == name && b.uid.is_none_or(|u| u == uid))
    };
    let object = pod.meta.key.sibling(name.clone());
    let mut rivals: Vec<_> =
        world.agents_bound_to(&kind, &object).filter(|a| !a.meta.deleting && of_object(a)).collect();
    if rivals.is_empty() {
        rivals.extend(world.agent(&key));
    }
    if rivals.is_empty() {
        return made();
    }
    let Some(agent) = rivals.iter().find(|a| !a.meta.deleting && stays(world, a)) else {
        // One that goes makes room, unless somebody else's finalizer holds it.
        *taken = rivals.iter().find(|a| a.meta.deleting).map(|a| a.meta.key.name.clone());
        return Making::Later;
    };
    if !of_object(agent) {
        *taken = Some(agent.meta.key.name.clone());
    }
    Making::Nothing
}

/// Whether an agent is there to stay: one that was made goes with its blueprint and its object. Others can bear the
/// label too: one that is bound to no very object stays.
fn stays(world: &World, agent: &super::Agent) -> bool {
    if agent.made_by.is_none() {
        return true;
    }
    if world.blueprint_of(agent).is_none() {
        return false;
    }
    let Some(bound) = &agent.bound else { return true };
    let object = world.bound_object(&bound.kind, &agent.meta.key.sibling(bound.name.clone()));
    match (object, agent.bound_uid()) {
        // We delete it if it ever had that object; if that owns it, the garbage collector does.
        (Some(object), Some(uid)) if object.meta.uid != uid => {
            agent.status.bound_uid != Some(uid) && !agent.owners.contains(&uid)
        }
        (Some(object), _) => !object.finished,
        (None, exact) => exact.is_none(),
    }
}

/// How soon to look again for what a pod waits for: most of it comes while the pod is young.
#[must_use]
pub fn again(pod: Option<&BoundObject>, longest: SignedDuration, now: Timestamp) -> SignedDuration {
    let age = pod.map_or(SignedDuration::ZERO, |p| now.duration_since(p.meta.created));
    (age / 8).clamp(SignedDuration::from_millis(500), longest)
}

/// What controls a pod in the end, of the kinds that agents may be bound to; the pod itself if nothing such does.
/// `None` while a controller has not been seen.
fn workload(world: &World, pod: &BoundObject) -> Option<(KindName, Arc<str>, Uid)> {
    let mut top = (KindName::from(POD), pod.meta.key.name.clone(), pod.meta.uid);
    let mut next = pod.controller.clone();
    for _ in 0..HIGHEST {
        let Some(controller) = next else { break };
        if !world.sees(&controller.kind) {
            break;
        }
        let key = pod.meta.key.sibling(controller.name.clone());
        let object = world.bound_object(&controller.kind, &key).filter(|o| o.meta.uid == controller.uid)?;
        if world.may_bind(&controller.kind) {
            top = (controller.kind, controller.name, controller.uid);
        }
        next = object.controller.clone();
    }
    Some(top)
}

/// The name of an agent that is made for an object: the object's own, if it is not too long for an agent.
#[must_use]
pub fn agent_name(object: &str) -> Arc<str> {
    if object.len() <= LONGEST {
        return object.into();
    }
    let mut hasher = Hasher::new("agent name");
    hasher.part(object.as_bytes());
    let hash = hasher.finish().to_string();
    let (hash, room) = (&hash[..8], LONGEST - 9);
    let cut: String = object.chars().take(room).collect();
    format!("{}-{hash}", cut.trim_end_matches(['-', '.'])).into()
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod told_tests;

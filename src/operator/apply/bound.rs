//! An agent and the object that it is bound to: owned by it, and looked for where no watch shows it.
//!
//! Invariant: nothing is decided here: one GET tells the world what is there, and the agent is planned for anew.

use serde_json::json;

use super::{Failure, Round, call};
use crate::cluster::client::Class;
use crate::cluster::wire::{Wire, WireObject, WireWorkload};
use crate::cluster::write::At;
use crate::domain::{BoundObject, Decision, Key, Object, POD, Source, Uid};
use crate::operator::context::Context;

pub(super) async fn own(cx: &Context, decision: &Decision, owner: Uid) -> Result<Round, Failure> {
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
pub(super) async fn confirm(cx: &Context, key: &Key, wanted: Option<Uid>) -> Result<bool, Failure> {
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

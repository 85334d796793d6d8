//! The statuses of grants, resources, blueprints and policies, from what was counted: at most one write in two seconds each.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use jiff::Timestamp;
use serde::Serialize;

use super::context::Context;
use crate::cluster::client::{CallError, Class};
use crate::cluster::wire::{Wire, WireBlueprint, WireGrant, WirePolicy, WireResource};
use crate::cluster::write::At;
use crate::domain::status::{StatusChange, blueprint_status, grant_status, policy_status, resource_status};
use crate::domain::{Key, Meta, Source};

/// The rhythm of the writes.
pub(super) const PERIOD: Duration = Duration::from_secs(2);
/// Writes under way at once: they are nobody's hurry.
const CONCURRENCY: usize = 8;

/// Whose status is looked at.
#[derive(Debug)]
enum Subject {
    Blueprint(Arc<str>),
    Grant(Key),
    Resource(Arc<str>),
    Policy(Arc<str>),
}

/// Writes the statuses that have changed since the last call.
pub(super) async fn flush(cx: &Context) {
    let (grants, resources, policies) = cx.world.write().take_tallied();
    let blueprints = cx.world.write().take_made();
    let subjects = (blueprints.into_iter().map(Subject::Blueprint))
        .chain(grants.into_iter().map(Subject::Grant))
        .chain(resources.into_iter().map(Subject::Resource))
        .chain(policies.into_iter().map(Subject::Policy));
    stream::iter(subjects)
        .for_each_concurrent(CONCURRENCY, |subject| async move {
            if let Err(error) = one(cx, &subject).await {
                tracing::debug!(object = ?subject, %error, "status not written");
                touch(cx, subject);
            }
        })
        .await;
}

/// Has it looked at again.
fn touch(cx: &Context, subject: Subject) {
    let mut world = cx.world.write();
    match subject {
        Subject::Blueprint(name) => world.touch_blueprint(name),
        Subject::Grant(key) => world.touch_grant(key),
        Subject::Resource(name) => world.touch_resource(name),
        Subject::Policy(name) => world.touch_policy(name),
    }
}

async fn one(cx: &Context, subject: &Subject) -> Result<(), CallError> {
    let now = Timestamp::now();
    match subject {
        Subject::Blueprint(name) => {
            let change = {
                let world = cx.world.read();
                world.blueprint(name).and_then(|b| due(&b.meta, || blueprint_status(&world, b, now)))
            };
            let names = (&Source::Blueprints, "AgentBlueprint", "agentblueprints");
            write::<WireBlueprint, _>(cx, names, &Key::new("", name.clone()), change).await
        }
        Subject::Grant(key) => {
            let change = {
                let world = cx.world.read();
                world.grant(key).and_then(|g| due(&g.meta, || grant_status(&world, g, now)))
            };
            let names = (&Source::Grants, "AgentGrant", "agentgrants");
            write::<WireGrant, _>(cx, names, key, change).await
        }
        Subject::Resource(name) => {
            let change = {
                let world = cx.world.read();
                world.resource(name).and_then(|r| due(&r.meta, || resource_status(&world, r, now)))
            };
            let names = (&Source::Resources, "AgentResource", "agentresources");
            write::<WireResource, _>(cx, names, &Key::new("", name.clone()), change).await
        }
        Subject::Policy(name) => {
            let change = {
                let world = cx.world.read();
                world.policy(name).and_then(|p| due(&p.meta, || policy_status(&world, p, now)))
            };
            let names = (&Source::Policies, "AgentPolicy", "agentpolicies");
            write::<WirePolicy, _>(cx, names, &Key::new("", name.clone()), change).await
        }
    }
}

/// What is to be written, and the version of the object that it differs from; nothing on what is on its way out.
fn due<S>(meta: &Meta, change: impl FnOnce() -> Option<StatusChange<S>>) -> Option<(At, StatusChange<S>)> {
    if meta.deleting { None } else { Some((At::seen(meta), change()?)) }
}

async fn write<W: Wire, S: Serialize>(
    cx: &Context,
    names: (&Source, &'static str, &str),
    key: &Key,
    change: Option<(At, StatusChange<S>)>,
) -> Result<(), CallError> {
    let Some((seen, change)) = change else { return Ok(()) };
    let (source, kind, plural) = names;
    match cx.writer.status::<W>(plural, key, seen, &change.status).await {
        Ok(object) => {
            if let Ok(object) = object.object(source) {
                cx.world.answer(object);
            }
            change.transitions.iter().for_each(|t| cx.tell(kind, key, seen.uid, t));
            Ok(())
        }
        Err(e) if e.class() == Class::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

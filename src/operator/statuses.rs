//! The statuses of grants, resources, blueprints and policies, from what was counted: at most one write in two seconds each.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use jiff::Timestamp;

use super::context::Context;
use crate::cluster::client::{CallError, Class};
use crate::cluster::wire::Wire;
use crate::cluster::write::At;
use crate::domain::status::{blueprint_status, grant_status, policy_status, resource_status};
use crate::domain::{Key, Source};

/// The rhythm of the writes.
pub(super) const PERIOD: Duration = Duration::from_secs(2);
/// Writes under way at once: they are nobody's hurry.
const CONCURRENCY: usize = 8;

/// Writes the statuses that have changed since the last call.
pub(super) async fn flush(cx: &Context) {
    let (grants, resources, policies) = cx.world.write().take_tallied();
    let blueprints = cx.world.write().take_made();
    stream::iter(blueprints)
        .for_each_concurrent(CONCURRENCY, |name| async move {
            if let Err(error) = blueprint(cx, &name).await {
                tracing::debug!(blueprint = %name, %error, "status not written");
                cx.world.write().touch_blueprint(name);
            }
        })
        .await;
    stream::iter(grants)
        .for_each_concurrent(CONCURRENCY, |key| async move {
            if let Err(error) = grant(cx, &key).await {
                tracing::debug!(grant = %key, %error, "status not written");
                cx.world.write().touch_grant(key);
            }
        })
        .await;
    stream::iter(resources)
        .for_each_concurrent(CONCURRENCY, |name| async move {
            if let Err(error) = resource(cx, &name).await {
                tracing::debug!(resource = %name, %error, "status not written");
                cx.world.write().touch_resource(name);
            }
        })
        .await;
    stream::iter(policies)
        .for_each_concurrent(CONCURRENCY, |name| async move {
            if let Err(error) = policy(cx, &name).await {
                tracing::debug!(policy = %name, %error, "status not written");
                cx.world.write().touch_policy(name);
            }
        })
        .await;
}

async fn grant(cx: &Context, key: &Key) -> Result<(), CallError> {
    let change = {
        let world = cx.world.read();
        let Some(grant) = world.grant(key).filter(|g| !g.meta.deleting) else { return Ok(()) };
        grant_status(&world, grant, Timestamp::now()).map(|c| (At::seen(&grant.meta), c))
    };
    let Some((seen, change)) = change else { return Ok(()) };
    match cx.writer.grant_status(key, seen, &change.status).await {
        Ok(object) => {
            if let Ok(object) = object.object(&Source::Grants) {
                cx.world.answer(object);
            }
            change.transitions.iter().for_each(|t| cx.tell("AgentGrant", key, seen.uid, t));
            Ok(())
        }
        Err(e) if e.class() == Class::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

async fn blueprint(cx: &Context, name: &Arc<str>) -> Result<(), CallError> {
    let change = {
        let world = cx.world.read();
        let Some(blueprint) = world.blueprint(name).filter(|b| !b.meta.deleting) else { return Ok(()) };
        blueprint_status(&world, blueprint, Timestamp::now()).map(|c| (At::seen(&blueprint.meta), c))
    };
    let Some((seen, change)) = change else { return Ok(()) };
    match cx.writer.blueprint_status(name, seen, &change.status).await {
        Ok(object) => {
            if let Ok(object) = object.object(&Source::Blueprints) {
                cx.world.answer(object);
            }
            let key = Key::new("", name.clone());
            change.transitions.iter().for_each(|t| cx.tell("AgentBlueprint", &key, seen.uid, t));
            Ok(())
        }
        Err(e) if e.class() == Class::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

async fn resource(cx: &Context, name: &Arc<str>) -> Result<(), CallError> {
    let change = {
        let world = cx.world.read();
        let Some(resource) = world.resource(name).filter(|r| !r.meta.deleting) else { return Ok(()) };
        resource_status(&world, resource, Timestamp::now()).map(|c| (At::seen(&resource.meta), c))
    };
    let Some((seen, change)) = change else { return Ok(()) };
    match cx.writer.resource_status(name, seen, &change.status).await {
        Ok(object) => {
            if let Ok(object) = object.object(&Source::Resources) {
                cx.world.answer(object);
            }
            let key = Key::new("", name.clone());
            change.transitions.iter().for_each(|t| cx.tell("AgentResource", &key, seen.uid, t));
            Ok(())
        }
        Err(e) if e.class() == Class::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

async fn policy(cx: &Context, name: &Arc<str>) -> Result<(), CallError> {
    let change = {
        let world = cx.world.read();
        let Some(policy) = world.policy(name).filter(|p| !p.meta.deleting) else { return Ok(()) };
        policy_status(&world, policy, Timestamp::now()).map(|c| (At::seen(&policy.meta), c))
    };
    let Some((seen, change)) = change else { return Ok(()) };
    match cx.writer.policy_status(name, seen, &change.status).await {
        Ok(object) => {
            if let Ok(object) = object.object(&Source::Policies) {
                cx.world.answer(object);
            }
            let key = Key::new("", name.clone());
            change.transitions.iter().for_each(|t| cx.tell("AgentPolicy", &key, seen.uid, t));
            Ok(())
        }
        Err(e) if e.class() == Class::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

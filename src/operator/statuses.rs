//! The statuses of grants, resources, blueprints and policies, from what was counted: at most one write in two seconds each.
//!
//! Invariant: what the API server refuses is tried ever less often, whatever changes meanwhile, and said once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use jiff::Timestamp;
use serde::Serialize;

use super::context::Context;
use crate::api::Reason;
use crate::cluster::client::{CallError, Class};
use crate::cluster::wire::{Wire, WireBlueprint, WireGrant, WirePolicy, WireResource};
use crate::cluster::write::At;
use crate::domain::status::{StatusChange, blueprint_status, grant_status, policy_status, resource_status};
use crate::domain::{Key, Meta, Source, Uid, schedule};

/// The rhythm of the writes.
pub(super) const PERIOD: Duration = Duration::from_secs(2);
/// Writes under way at once: they are nobody's hurry.
const CONCURRENCY: usize = 8;

/// Whose status is looked at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Blueprint(Arc<str>),
    Grant(Key),
    Resource(Arc<str>),
    Policy(Arc<str>),
}

/// Statuses that the API server refused.
#[derive(Debug, Default)]
pub struct Refusals(BTreeMap<Subject, Refused>);

#[derive(Debug)]
struct Refused {
    class: Class,
    /// Tries that failed so, one after the other.
    tries: u32,
    until: Timestamp,
}

impl Refusals {
    /// Of those that have changed, and of those that wait, the ones whose time has come.
    fn due(&self, mut changed: BTreeSet<Subject>, now: Timestamp) -> BTreeSet<Subject> {
        for (subject, refused) in &self.0 {
            if refused.until <= now {
                changed.insert(subject.clone());
            } else {
                changed.remove(subject);
            }
        }
        changed
    }

    /// Notes a refusal; says whether it is the second of its kind, which nothing passing explains.
    fn refused(&mut self, subject: &Subject, class: Class, now: Timestamp) -> bool {
        let fresh = Refused { class, tries: 0, until: now };
        let known = self.0.entry(subject.clone()).or_insert(fresh);
        known.tries = if known.class == class { known.tries.saturating_add(1) } else { 1 };
        known.class = class;
        known.until = now + schedule::backoff(Uid(0), known.tries);
        known.tries == 2
    }

    fn written(&mut self, subject: &Subject) {
        self.0.remove(subject);
    }
}

/// Writes the statuses that have changed since the last call.
pub(super) async fn flush(cx: &Context) {
    let (grants, resources, policies) = cx.world.write().take_tallied();
    let blueprints = cx.world.write().take_made();
    let changed = (blueprints.into_iter().map(Subject::Blueprint))
        .chain(grants.into_iter().map(Subject::Grant))
        .chain(resources.into_iter().map(Subject::Resource))
        .chain(policies.into_iter().map(Subject::Policy));
    let subjects = refusals(cx).due(changed.collect(), Timestamp::now());
    stream::iter(subjects)
        .for_each_concurrent(CONCURRENCY, |subject| async move {
            let Err(error) = one(cx, &subject).await else { return refusals(cx).written(&subject) };
            tracing::debug!(object = ?subject, %error, "status not written");
            if error.class().is_transient() || error.class() == Class::Conflict {
                return touch(cx, subject);
            }
            cx.metrics.failed(Reason::Internal);
            if refusals(cx).refused(&subject, error.class(), Timestamp::now()) {
                tracing::warn!(object = ?subject, %error, "a status can't be written; it is tried ever less often");
            }
        })
        .await;
}

fn refusals(cx: &Context) -> std::sync::MutexGuard<'_, Refusals> {
    cx.refusals.lock().unwrap_or_else(PoisonError::into_inner)
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

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn what_is_refused_is_tried_ever_less_often_and_said_once() {
        let (mut refusals, subject) = (Refusals::default(), Subject::Resource("r".into()));
        let start = Timestamp::UNIX_EPOCH;
        let mut tries = Vec::new();
        let mut told = 0;
        for second in (0..600).step_by(2) {
            let now = start + SignedDuration::from_secs(second);
            // It changes all the time.
            let changed = BTreeSet::from([subject.clone(), Subject::Policy("p".into())]);
            let due = refusals.due(changed, now);
            assert!(due.contains(&Subject::Policy("p".into())), "others do not wait");
            if due.contains(&subject) {
                tries.push(second);
                told += u32::from(refusals.refused(&subject, Class::Forbidden, now));
            }
        }
        assert_eq!(&tries[..3], [0, 2, 4]);
        assert!(tries.len() < 20 && told == 1, "{tries:?}, told {told} times");
        assert!(tries.windows(2).all(|pair| pair[1] - pair[0] <= 76), "{tries:?}");
        // Another reason is said too.
        let late = start + SignedDuration::from_secs(1000);
        let told = [0, 1, 2].map(|_| refusals.refused(&subject, Class::Invalid, late));
        assert_eq!(told, [false, true, false]);
        // Nothing has changed, and it is due all the same; once written it is like any other.
        let late = late + SignedDuration::from_secs(10);
        assert_eq!(refusals.due(BTreeSet::new(), late), BTreeSet::from([subject.clone()]));
        refusals.written(&subject);
        assert!(refusals.due(BTreeSet::new(), late).is_empty());
    }
}

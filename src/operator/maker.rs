//! Pods → agents: one pod's work.
//!
//! Invariants: what is made is made once, with its owner from the start; a name that somebody else has taken is left
//! alone and reported on the blueprint.

use jiff::{SignedDuration, Timestamp};

use super::apply::{Failure, call};
use super::context::Context;
use crate::cluster::client::Class;
use crate::cluster::wire::Wire;
use crate::domain::maker::{Making, make};
use crate::domain::{Key, Source};

/// How soon to look again for what has not been seen yet.
const AGAIN: SignedDuration = SignedDuration::from_millis(500);

/// Makes the agent of a pod, if it is to have one and has none; says when to look again.
pub(super) async fn pod(cx: &Context, pod: &Key) -> Result<Option<Timestamp>, Failure> {
    let now = Timestamp::now();
    let (making, contest) = {
        let world = cx.world.read();
        // Unknown is not absent: an agent, or an older blueprint, may be there.
        if !world.core().iter().filter(|s| s.decides()).all(|s| world.is_fresh(s, now)) {
            return Ok(Some(now + SignedDuration::from_secs(2)));
        }
        make(&world, pod)
    };
    cx.world.write().record_contest(pod, contest);
    let made = match making {
        Making::Nothing => return Ok(None),
        Making::Later => return Ok(Some(now + AGAIN)),
        Making::Make(made) => made,
    };
    match cx.writer.create_agent(&made).await {
        Ok(answer) => {
            cx.world.answer(answer.object(&Source::Agents)?);
            cx.metrics.made();
            tracing::debug!(agent = %made.agent, blueprint = %made.blueprint, pod = %pod, "agent made");
            Ok(None)
        }
        // Another pod of the workload was first, or somebody else: the watch will show whose it is.
        Err(e) if e.class() == Class::AlreadyExists => Ok(Some(now + AGAIN)),
        // The namespace is going.
        Err(e) if e.class() == Class::NotFound || e.message().contains("being terminated") => Ok(None),
        Err(e) => Err(call("make the agent")(e)),
    }
}

//! Pods → agents: one pod's work.
//!
//! Invariants: what is made is made once, with its owner from the start; a name that somebody else has taken is left
//! alone and reported on the blueprint, and so is what the API server refuses to take.

use jiff::{SignedDuration, Timestamp};

use super::apply::{Failure, call};
use super::context::Context;
use crate::api::Reason;
use crate::cluster::client::{CallError, Class};
use crate::cluster::wire::Wire;
use crate::domain::maker::{Made, Making, again, make};
use crate::domain::{Key, POD, Refusal, Source, Unmade};

/// At the longest, how soon to look again for what has not been seen yet.
const UNSEEN: SignedDuration = SignedDuration::from_secs(5);
/// At the longest, how soon to try again where an agent of the name is there and is not seen: it may be one that can't
/// be read.
const UNREADABLE: SignedDuration = SignedDuration::from_secs(60);

/// Makes the agent of a pod, if it is to have one and has none; says when to look again.
pub(super) async fn pod(cx: &Context, pod: &Key) -> Result<Option<Timestamp>, Failure> {
    let now = Timestamp::now();
    let (making, contest, later) = {
        let world = cx.world.read();
        // Unknown is not absent: an agent, or an older blueprint, may be there.
        if !world.core().iter().filter(|s| s.decides()).all(|s| world.is_fresh(s, now)) {
            return Ok(Some(now + SignedDuration::from_secs(2)));
        }
        let (making, contest) = make(&world, pod);
        let object = world.bound_object(&POD.into(), pod);
        (making, contest, [UNSEEN, UNREADABLE].map(|longest| now + again(object, longest, now)))
    };
    let [unseen, unreadable] = later;
    if cx.world.read().contest(pod) != contest.as_ref() {
        cx.world.write().record_contest(pod, contest);
    }
    let made = match making {
        Making::Make(made) => made,
        Making::Nothing | Making::Later => {
            told(cx, pod, None);
            return Ok((making == Making::Later).then_some(unseen));
        }
    };
    let error = match cx.writer.create_agent(&made).await {
        Ok(answer) => {
            cx.world.answer(answer.object(&Source::Agents)?);
            told(cx, pod, None);
            cx.metrics.made();
            tracing::debug!(agent = %made.agent, blueprint = %made.blueprint, pod = %pod, "agent made");
            return Ok(None);
        }
        Err(error) => error,
    };
    match error.class() {
        // Another pod of the workload was first, or somebody else: the watch will show whose it is.
        Class::AlreadyExists => {
            told(cx, pod, None);
            Ok(Some(unreadable))
        }
        // The namespace is going.
        _ if error.class() == Class::NotFound || error.message().contains("being terminated") => Ok(None),
        _ => {
            if !error.passes() {
                told(cx, pod, Some(refused(&made, &error)));
            }
            Err(call("make the agent")(error))
        }
    }
}

/// Has it said on the blueprint why the agent of a pod can't be made, or that it can.
fn told(cx: &Context, pod: &Key, unmade: Option<Unmade>) {
    if cx.world.read().unmade(pod) != unmade.as_ref() {
        cx.world.write().record_unmade(pod, unmade);
    }
}

fn refused(made: &Made, error: &CallError) -> Unmade {
    let note = format!(
        "{}; see the namespace's quotas, the cluster's admission policies and the operator's verb create on \
         agentidentities",
        error.message()
    );
    Unmade { blueprint: made.blueprint.clone(), refusal: Refusal::new(Reason::Internal, note) }
}

//! The status of each of our kinds, from what was decided: what they have in common, and how it is told.
//!
//! Invariant: nothing in a status changes with a renewal; transition times move only when a condition's status
//! does, so a status that says the same is never written.

mod agent;
mod blueprint;
mod grant;
mod policy;
mod resource;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

pub use self::agent::agent_status;
pub use self::blueprint::blueprint_status;
pub use self::grant::grant_status;
pub use self::policy::policy_status;
pub use self::resource::resource_status;
use super::{SeenStatus, Uid};
use crate::api::Reason;

/// The id of the agent of a UID: opaque, never reassigned (SPIFFE-ID §2).
#[must_use]
pub fn agent_id(trust_domain: &str, uid: Uid) -> String {
    format!("spiffe://{trust_domain}/agent/{uid}")
}

/// Something to tell in an Event: a transition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The condition's type.
    pub condition: &'static str,
    /// The same for all agents that a blueprint made in a namespace: to be told once, on the blueprint.
    pub common: bool,
    /// For the better.
    pub good: bool,
    /// Why.
    pub reason: Reason,
    /// For people.
    pub note: String,
}

/// A status that differs from what was seen.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusChange<S> {
    /// What to write.
    pub status: S,
    /// What to tell.
    pub transitions: Vec<Transition>,
}

struct Said {
    kind: &'static str,
    status: Option<bool>,
    reason: Reason,
    message: String,
}

/// The API server takes messages of 32,768 characters; people read fewer.
const LONGEST_MESSAGE: usize = 2048;

fn conditions(
    said: Vec<Said>,
    old: &SeenStatus,
    generation: i64,
    now: Timestamp,
) -> (Vec<Condition>, Vec<Transition>) {
    let mut transitions = Vec::new();
    let conditions = said
        .into_iter()
        .map(|s| {
            let before = old.condition(s.kind);
            let same = before.is_some_and(|b| b.status == s.status);
            let told = match before {
                // A first success makes no Event.
                None => s.status == Some(false),
                Some(b) => !same || (s.status == Some(false) && b.reason != Some(s.reason)),
            };
            if told && s.status.is_some() {
                transitions.push(Transition {
                    condition: s.kind,
                    common: false,
                    good: s.status == Some(true),
                    reason: s.reason,
                    note: s.message.clone(),
                });
            }
            Condition {
                type_: s.kind.to_owned(),
                status: s.status.map_or("Unknown", |t| if t { "True" } else { "False" }).to_owned(),
                reason: s.reason.as_str().to_owned(),
                message: truncated(s.message),
                observed_generation: Some(generation),
                last_transition_time: Time(match before {
                    Some(b) if same => b.since,
                    _ => whole_second(now),
                }),
            }
        })
        .collect();
    (conditions, transitions)
}

/// Kubernetes keeps times in whole seconds.
fn whole_second(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

fn truncated(mut message: String) -> String {
    if message.len() > LONGEST_MESSAGE {
        let mut end = LONGEST_MESSAGE;
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
        message.push('…');
    }
    message
}

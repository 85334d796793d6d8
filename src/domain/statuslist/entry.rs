//! What an entry of a list reads, from the world alone.
//!
//! Invariant: VALID only while `decide` allows the recorded agent, grant and resource at least the recorded
//! answer; at or above the mark of the open list VALID, since nobody but a newborn bears such an index; an index
//! that is recorded twice is INVALID.

use jiff::Timestamp;

use super::{ListId, StatusRef};
use crate::domain::{Key, RecordedBy, Standing, World, decide};

/// What an entry reads (Token Status List §7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// 0x00.
    Valid,
    /// 0x01.
    Invalid,
    /// It can't be told now: what was last said of it stands.
    Unknown,
}

/// The open list as this process may believe it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenList {
    /// The list.
    pub list: ListId,
    /// Below it every index is recorded or abandoned.
    pub mark: u32,
}

/// What an entry reads now.
#[must_use]
pub fn entry(world: &World, at: StatusRef, now: Timestamp) -> Entry {
    let young = world.open_list().is_some_and(|o| o.list == at.list && at.index >= o.mark);
    match world.recorded_by(at) {
        RecordedBy::Nobody if young => Entry::Valid,
        RecordedBy::One(uid) => match world.agent_of_uid(uid) {
            Some(agent) => of_agent(world, &agent.meta.key, at, now),
            None => Entry::Invalid,
        },
        RecordedBy::Nobody | RecordedBy::NoLonger | RecordedBy::Several => Entry::Invalid,
    }
}

fn of_agent(world: &World, key: &Key, at: StatusRef, now: Timestamp) -> Entry {
    let Some(recorded) = world.agent(key).and_then(|a| a.status.recorded_at(at)) else {
        return Entry::Invalid;
    };
    let Some(decision) = decide(world, key, now) else { return Entry::Invalid };
    match decision.standing {
        Standing::Unknown(_) => return Entry::Unknown,
        Standing::Allowed => {}
        _ => return Entry::Invalid,
    }
    let grant = decision.grants.iter().find(|g| g.uid == recorded.grant);
    let allowed =
        grant.is_some_and(|g| g.held.as_ref().is_some_and(|held| recorded.is_within(g.resource_uid, held)));
    if allowed { Entry::Valid } else { Entry::Invalid }
}

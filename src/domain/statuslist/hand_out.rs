//! Handing indexes out: the leader's side of the lists.
//!
//! Invariant: the counter only grows, and an index that was handed out is never handed out again.

use std::collections::{BTreeMap, HashMap};

use jiff::{SignedDuration, Timestamp};

use super::{ListId, StatusRef};
use crate::domain::{Agent, Decision, Digest, Hasher, Standing, Uid, World};

/// For so long an index that is not recorded yet holds the mark back. Later its entry may read INVALID until it
/// is recorded, which harms its own agent alone; a mark that never moved would harm every revocation.
const PATIENCE: SignedDuration = SignedDuration::from_secs(10);

/// The open list has no index left: it is followed by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the open status list is full; another is being opened")]
pub struct Full;

/// The indexes of an agent's held grants, by the grants' UIDs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Indexes {
    of: Box<[(Uid, StatusRef)]>,
    /// A recorded answer has become wider under the same index: it is to be recorded before a token says more.
    pub widened: bool,
}

impl Indexes {
    /// Those that statuses record.
    #[must_use]
    pub fn recorded(of: Vec<(Uid, StatusRef)>) -> Self {
        Self { of: of.into(), widened: false }
    }

    /// The index of a grant.
    #[must_use]
    pub fn get(&self, grant: Uid) -> Option<StatusRef> {
        self.of.iter().find(|(g, _)| *g == grant).map(|(_, at)| *at)
    }
}

/// What the leader's Lease says of the open list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The open list.
    pub list: ListId,
    /// Below it every index is recorded or abandoned.
    pub mark: u32,
    /// The resourceVersion of the last AgentIdentity status that recorded one of them.
    pub version: u64,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    answer: Digest,
    at: StatusRef,
}

/// The open list of a leader's term.
#[derive(Debug)]
pub struct HandOut {
    list: ListId,
    next: u32,
    capacity: u32,
    /// Handed out and not yet recorded, by agent and grant.
    pending: HashMap<(Uid, Uid), Pending>,
    /// The indexes of `pending` that are of the open list, with when they were handed out.
    outstanding: BTreeMap<u32, Timestamp>,
    version: u64,
}

impl HandOut {
    /// Opens a list.
    #[must_use]
    pub fn open(list: ListId, capacity: u32) -> Self {
        Self { list, next: 0, capacity, pending: HashMap::new(), outstanding: BTreeMap::new(), version: 0 }
    }

    /// The indexes of what an agent holds: the recorded ones where they still fit, new ones elsewhere.
    ///
    /// # Errors
    /// [`Full`].
    pub fn assign(
        &mut self,
        world: &World,
        agent: &Agent,
        decision: &Decision,
        now: Timestamp,
    ) -> Result<Indexes, Full> {
        let uid = agent.meta.uid;
        let (mut of, mut widened) = (Vec::new(), false);
        let allowed = matches!(decision.standing, Standing::Allowed);
        for grant in &decision.grants {
            let held = grant.held.as_ref().filter(|_| allowed);
            let (Some(held), Some(resource)) = (held, grant.resource_uid) else {
                self.abandon(uid, grant.uid);
                continue;
            };
            let recorded = agent
                .status
                .recorded(grant.uid)
                .filter(|r| r.is_within(Some(resource), held) && !world.is_recorded_twice(r.at));
            if let Some(recorded) = recorded {
                self.abandon(uid, grant.uid);
                widened |= !recorded.covers(held);
                of.push((grant.uid, recorded.at));
                continue;
            }
            let answer = answer(resource, held);
            let known = self.pending.get(&(uid, grant.uid)).filter(|p| p.answer == answer).map(|p| p.at);
            let at = match known {
                Some(at) => at,
                None => self.next((uid, grant.uid), answer, now)?,
            };
            of.push((grant.uid, at));
        }
        Ok(Indexes { of: of.into(), widened })
    }

    fn next(&mut self, of: (Uid, Uid), answer: Digest, now: Timestamp) -> Result<StatusRef, Full> {
        self.abandon(of.0, of.1);
        if self.next >= self.capacity {
            return Err(Full);
        }
        let at = StatusRef { list: self.list, index: self.next };
        self.next += 1;
        self.outstanding.insert(at.index, now);
        self.pending.insert(of, Pending { answer, at });
        Ok(at)
    }

    fn abandon(&mut self, agent: Uid, grant: Uid) {
        if let Some(pending) = self.pending.remove(&(agent, grant)) {
            self.settle(pending.at);
        }
    }

    fn settle(&mut self, at: StatusRef) {
        if at.list == self.list {
            self.outstanding.remove(&at.index);
        }
    }

    /// A status that records these was written, at this resourceVersion.
    pub fn recorded(&mut self, agent: Uid, grants: impl IntoIterator<Item = (Uid, StatusRef)>, version: u64) {
        for (grant, at) in grants {
            let ours = self.pending.get(&(agent, grant)).is_some_and(|p| p.at == at);
            if ours {
                self.abandon(agent, grant);
            }
            self.version = self.version.max(version);
        }
    }

    /// Abandons what was handed to agents that are gone and was never recorded.
    pub fn forget_gone(&mut self, world: &World) {
        let gone: Vec<_> =
            self.pending.keys().filter(|(a, _)| world.agent_of_uid(*a).is_none()).copied().collect();
        gone.into_iter().for_each(|(a, g)| self.abandon(a, g));
    }

    /// What the Lease is to say now.
    #[must_use]
    pub fn mark(&self, now: Timestamp) -> Mark {
        let waits = |since: &Timestamp| now.duration_since(*since) < PATIENCE;
        let mark = self.outstanding.iter().find(|(_, since)| waits(since)).map_or(self.next, |(i, _)| *i);
        Mark { list: self.list, mark, version: self.version }
    }

    /// Whether the list is used up and every index of it is settled, so that another may be opened.
    #[must_use]
    pub fn is_spent(&self, now: Timestamp) -> bool {
        self.next >= self.capacity && self.mark(now).mark >= self.capacity
    }

    /// Opens the list that follows a spent one; the Lease must say so before.
    pub fn reopen(&mut self, list: ListId) {
        self.list = list;
        self.next = 0;
        self.outstanding.clear();
        // What is still pending is of the list before, and is recorded late or never.
    }
}

fn answer(resource: Uid, held: &crate::domain::Entitlement) -> Digest {
    let mut h = Hasher::new("answer");
    h.part(&resource.0.to_be_bytes()).part(&held.rest().0);
    h.parts(held.roles.iter().map(|r| &**r));
    h.parts(held.scopes.iter().map(|s| &**s));
    h.finish()
}

//! Which agent has a user name: of several the oldest that stays.
//!
//! Invariant: whoever wants a name is marked when the one that has it may have changed.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;

use super::World;
use super::index::toggle;
use crate::domain::agent_user::folded;
use crate::domain::{Agent, Key, Uid};

/// The agents that want each name, the winner first, by the name's folded form.
pub(super) type Users = HashMap<Arc<str>, BTreeSet<(Timestamp, Uid, Key)>>;

impl World {
    /// The agent that has a user name.
    #[must_use]
    pub fn user_holder(&self, username: &str) -> Option<&Agent> {
        let mut rivals = self.users.get(&folded(username))?.iter();
        rivals.find_map(|(_, _, key)| self.agents.get(key).filter(|a| !a.meta.deleting))
    }

    pub(super) fn index_user(&mut self, agent: &Agent, there: bool) {
        if let Some(username) = &agent.username {
            let (created, uid) = agent.meta.seniority();
            toggle(&mut self.users, folded(username), (created, uid, agent.meta.key.clone()), there);
        }
    }

    /// Marks whoever wants the name of an agent's user, itself apart: that is marked anyhow. While somebody older has
    /// the name, nothing changes for the others.
    pub(super) fn mark_rivals(&mut self, agent: &Agent) {
        let Some(username) = &agent.username else { return };
        if self.user_holder(username).is_some_and(|a| a.meta.seniority() < agent.meta.seniority()) {
            return;
        }
        let rivals = self.users.get(&folded(username)).into_iter().flatten();
        let others: Vec<_> =
            rivals.filter(|(_, uid, _)| *uid != agent.meta.uid).map(|(_, _, key)| key.clone()).collect();
        self.mark_agents(others);
    }
}

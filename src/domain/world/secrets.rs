//! Taking in what we write: credential Secrets, and what is not ours in their place.
//!
//! Invariant: a Secret that no live agent has is marked as an orphan however it comes to be known.

use super::table::{Listing, Origin, Taken};
use super::{Foreign, Lane, Work, World};
use crate::domain::{Credentials, Key};

impl World {
    pub(super) fn take_secret(&mut self, secret: Credentials, origin: Origin) {
        if origin == Origin::Watch {
            self.secrets.reached(secret.meta.version);
        }
        if self.secrets.get(&secret.meta.key).is_some_and(|old| old.says_the_same(&secret)) {
            self.secrets.take(secret, origin);
            return;
        }
        let (key, agent, orphan) = (secret.meta.key.clone(), secret.agent, self.is_orphan(&secret));
        match self.secrets.take(secret, origin) {
            Taken::Stale => return,
            Taken::Replaced(old) => self.forget_secret(&old),
            Taken::New => {}
        }
        self.foreign.remove(&key);
        if let Some(agent) = agent {
            if let Some(taken) = self.secrets.get(&key) {
                self.instants.count(taken, true);
            }
            self.secrets_of.entry(agent).or_default().push(key.clone());
        }
        if orphan {
            self.dirty.push((Work::Orphan(key.clone()), Lane::Urgent));
        }
        if origin == Origin::Watch {
            self.mark_claimants(&key);
        }
    }

    pub(super) fn forget_secret(&mut self, secret: &Credentials) {
        let Some(agent) = secret.agent else { return };
        self.instants.count(secret, false);
        if let Some(secrets) = self.secrets_of.get_mut(&agent) {
            secrets.retain(|k| *k != secret.meta.key);
            if secrets.is_empty() {
                self.secrets_of.remove(&agent);
            }
        }
    }

    pub(super) fn mark_claimants(&mut self, secret: &Key) {
        let names = self.claims.get(secret).cloned().unwrap_or_default();
        self.mark_agents(names.into_iter().map(|n| secret.sibling(n)));
    }

    /// Notes that something that is not ours bears the name of an agent's Secret, or (`None`) no longer does.
    pub fn note_foreign(&mut self, secret: &Key, foreign: Option<Foreign>) {
        match foreign {
            Some(foreign) => self.foreign.insert(secret.clone(), foreign),
            None => self.foreign.remove(secret),
        };
    }
}

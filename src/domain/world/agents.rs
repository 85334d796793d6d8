//! Taking AgentIdentities in.
//!
//! Invariant: a change marks the agent, and the others that a conflict over its Secret's or user's name touches; our own
//! answers and what only repeats a status mark nothing.

use super::index::{forget, insert, toggle};
use super::table::{Listing, Origin, Taken};
use super::{Lane, Work, World};
use crate::domain::{Agent, Key, Uid};

impl World {
    pub(super) fn take_agent(&mut self, agent: Agent, origin: Origin) {
        let key = agent.meta.key.clone();
        if origin == Origin::Watch {
            self.agents.reached(agent.meta.version);
        }
        if let Some(old) = self.agents.get(&key)
            && old.same_but_status(&agent)
        {
            let said = old.owners != agent.owners
                || old.rotation != agent.rotation
                || old.status.digest != agent.status.digest;
            let indexed = (old.status.grants != agent.status.grants).then(|| agent.clone());
            let taken = self.agents.take(agent, origin);
            if let (Some(new), Taken::Replaced(old)) = (indexed, &taken) {
                self.index_recorded(old, false);
                self.index_recorded(&new, true);
            }
            if taken != Taken::Stale && said && origin == Origin::Watch {
                self.dirty.push((Work::Agent(key), Lane::Paced));
            }
            self.believe_mark();
            return;
        }
        match self.agents.take(agent.clone(), origin) {
            Taken::Stale => {}
            Taken::Replaced(old) if old.meta.uid == agent.meta.uid => self.agent_changed(&old, &agent),
            Taken::Replaced(old) => {
                self.agent_removed(&old);
                self.agent_added(&agent);
            }
            Taken::New => self.agent_added(&agent),
        }
        self.believe_mark();
    }

    fn agent_changed(&mut self, old: &Agent, new: &Agent) {
        let key = &new.meta.key;
        self.index_agent(old, false);
        self.index_agent(new, true);
        self.dirty.push((Work::Agent(key.clone()), Lane::Urgent));
        if old.secret_name != new.secret_name {
            self.mark_claimants(&key.sibling(old.secret_name.clone()));
            self.mark_orphans(new.meta.uid);
        }
        if old.secret_name != new.secret_name || old.meta.deleting != new.meta.deleting {
            self.mark_claimants(&key.sibling(new.secret_name.clone()));
        }
        if old.username != new.username || old.meta.deleting != new.meta.deleting {
            self.mark_rivals(old);
            self.mark_rivals(new);
        }
        if old.labels != new.labels || old.blueprint != new.blueprint {
            self.count_policies(old, -1);
            self.count_policies(new, 1);
        }
        if old.labels != new.labels {
            self.touch_grants_around(old);
            self.touch_grants_around(new);
        }
    }

    fn agent_added(&mut self, agent: &Agent) {
        let key = &agent.meta.key;
        let first = !self.agents_in.contains_key(&key.namespace);
        self.index_agent(agent, true);
        self.dirty.push((Work::Agent(key.clone()), Lane::Urgent));
        self.count_policies(agent, 1);
        self.mark_rivals(agent);
        self.mark_claimants(&key.sibling(agent.secret_name.clone()));
        if first {
            self.dirty.push((Work::Trust(key.namespace.clone()), Lane::Urgent));
        }
        self.touch_grants_around(agent);
    }

    fn touch_grants_around(&mut self, agent: &Agent) {
        let grants: Vec<_> = self.grants_of(agent).into_iter().map(|g| g.meta.key.clone()).collect();
        grants.into_iter().for_each(|g| self.tally.touch_grant(g));
    }

    pub(super) fn remove_agent(&mut self, key: &Key, uid: Uid) {
        if let Some(old) = self.agents.remove(key, uid) {
            self.agent_removed(&old);
        }
    }

    fn agent_removed(&mut self, old: &Agent) {
        let key = &old.meta.key;
        let secret = key.sibling(old.secret_name.clone());
        self.index_agent(old, false);
        self.count_policies(old, -1);
        self.forget_gone(old);
        self.mark_orphans(old.meta.uid);
        self.mark_claimants(&secret);
        self.mark_rivals(old);
        self.dirty.push((Work::Agent(key.clone()), Lane::Urgent));
        if !self.agents_in.contains_key(&key.namespace) {
            self.dirty.push((Work::Trust(key.namespace.clone()), Lane::Urgent));
        }
        if !self.claims.contains_key(&secret) {
            self.foreign.remove(&secret);
        }
        self.touch_grants_around(old);
        self.mark_unserved(old);
        self.tally.forget_agent(key);
        self.made.forget_agent(key);
        self.binders.forget_agent(key);
    }

    fn mark_orphans(&mut self, agent: Uid) {
        let secrets = self.secrets_of.get(&agent).cloned().unwrap_or_default();
        let orphans = secrets.into_iter().filter(|k| self.secrets.get(k).is_some_and(|s| self.is_orphan(s)));
        let orphans: Vec<_> = orphans.map(|k| (Work::Orphan(k), Lane::Urgent)).collect();
        self.dirty.extend(orphans);
    }

    fn index_agent(&mut self, agent: &Agent, there: bool) {
        let key = &agent.meta.key;
        let claim = key.sibling(agent.secret_name.clone());
        let bound = agent.bound.as_ref().map(|b| (b.kind.clone(), key.sibling(b.name.clone())));
        let unbound = agent.service_account.as_ref().filter(|_| agent.bound.is_none());
        let account = unbound.map(|a| key.sibling(a.clone()));
        if let Some(blueprint) = &agent.blueprint {
            toggle(&mut self.agents_of_blueprint, blueprint.clone(), key.clone(), there);
        }
        self.index_recorded(agent, there);
        self.index_user(agent, there);
        if there {
            self.agents_in.entry(key.namespace.clone()).or_default().insert(key.name.clone());
            self.agent_of_uid.insert(agent.meta.uid, key.clone());
            if agent.has_secret() {
                insert(self.claims.entry(claim).or_default(), &key.name);
            }
            if let Some(bound) = bound {
                insert(self.bound_to.entry(bound).or_default(), &key.name);
            }
            if let Some(account) = account {
                insert(self.unbound_of_account.entry(account).or_default(), &key.name);
            }
            return;
        }
        if let Some(names) = self.agents_in.get_mut(&key.namespace) {
            names.remove(&key.name);
            if names.is_empty() {
                self.agents_in.remove(&key.namespace);
            }
        }
        self.agent_of_uid.remove(&agent.meta.uid);
        forget(&mut self.claims, &claim, &key.name);
        if let Some(bound) = bound {
            forget(&mut self.bound_to, &bound, &key.name);
        }
        if let Some(account) = account {
            forget(&mut self.unbound_of_account, &account, &key.name);
        }
    }
}

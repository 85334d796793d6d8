//! Taking in what rights come from: AgentResources, AgentGrants, and Namespaces with their labels.
//!
//! Invariant: a change marks the agents that it may touch and no others, found by index.

use std::sync::Arc;

use super::index::toggle;
use super::table::{Listing, Origin, Taken};
use super::{Lane, Work, World};
use crate::domain::{Grant, Key, Namespace, Resource, Selection, Uid};

impl World {
    pub(super) fn take_resource(&mut self, resource: Resource, origin: Origin) {
        if origin == Origin::Watch {
            self.resources.reached(resource.meta.version);
        }
        let name = resource.meta.key.name.clone();
        if let Some(old) = self.resources.get(&resource.meta.key)
            && old.says_the_same(&resource)
        {
            let edited = old.generation != resource.generation;
            if self.resources.take(resource, origin) != Taken::Stale && edited {
                self.tally.touch_resource(name);
            }
            return;
        }
        let (audience, uid, deleting) =
            (resource.audience.clone(), resource.meta.uid, resource.meta.deleting);
        match self.resources.take(resource, origin) {
            Taken::Stale => {}
            Taken::New => {
                toggle(&mut self.audiences, audience.clone(), name, true);
                self.mark_audience(&audience);
            }
            Taken::Replaced(old) => {
                toggle(&mut self.audiences, old.audience.clone(), name.clone(), false);
                toggle(&mut self.audiences, audience.clone(), name.clone(), true);
                if (&old.audience, old.meta.uid, old.meta.deleting) == (&audience, uid, deleting) {
                    self.mark_resource(&name);
                    return;
                }
                if old.audience != audience {
                    self.mark_audience(&old.audience);
                }
                self.mark_audience(&audience);
            }
        }
    }

    pub(super) fn remove_resource(&mut self, key: &Key, uid: Uid) {
        let Some(old) = self.resources.remove(key, uid) else { return };
        toggle(&mut self.audiences, old.audience.clone(), key.name.clone(), false);
        self.mark_resource(&key.name);
        self.mark_audience(&old.audience);
        self.tally.forget_resource(&key.name);
    }

    fn mark_audience(&mut self, audience: &Arc<str>) {
        let names: Vec<_> = self.audiences.get(audience).into_iter().flatten().cloned().collect();
        names.iter().for_each(|n| self.mark_resource(n));
    }

    pub(super) fn mark_resource(&mut self, name: &Arc<str>) {
        self.tally.touch_resource(name.clone());
        let grants: Vec<_> = self.grants_on.get(name).into_iter().flatten().cloned().collect();
        let mut agents: Vec<_> =
            grants.iter().filter_map(|k| self.grants.get(k)).flat_map(|g| self.selected_by(g).0).collect();
        let blueprints = self.blueprints_on.get(name).into_iter().flatten();
        agents.extend(blueprints.flat_map(|b| self.agents_of_blueprint.get(b)).flatten().cloned());
        grants.into_iter().for_each(|g| self.tally.touch_grant(g));
        self.mark_agents(agents);
    }

    pub(super) fn take_grant(&mut self, grant: Grant, origin: Origin) {
        if origin == Origin::Watch {
            self.grants.reached(grant.meta.version);
        }
        if let Some(old) = self.grants.get(&grant.meta.key)
            && old.says_the_same(&grant)
        {
            let (edited, key) = (old.generation != grant.generation, grant.meta.key.clone());
            if self.grants.take(grant, origin) != Taken::Stale && edited {
                self.tally.touch_grant(key);
            }
            return;
        }
        match self.grants.take(grant.clone(), origin) {
            Taken::Stale => return,
            Taken::Replaced(old) => {
                self.index_grant(&old, false);
                self.mark_selected(&old);
            }
            Taken::New => {}
        }
        self.index_grant(&grant, true);
        self.mark_selected(&grant);
    }

    pub(super) fn mark_selected(&mut self, grant: &Grant) {
        self.tally.touch_grant(grant.meta.key.clone());
        let agents = self.selected_by(grant).0;
        self.mark_agents(agents);
    }

    pub(super) fn index_grant(&mut self, grant: &Grant, there: bool) {
        let Key { namespace, name } = &grant.meta.key;
        match &grant.selection {
            Selection::Names(agents) => {
                for agent in agents {
                    let agent = Key::new(namespace.clone(), agent.clone());
                    toggle(&mut self.grants_naming, agent, name.clone(), there);
                }
            }
            Selection::Selector(_) => {
                toggle(&mut self.grants_selecting, namespace.clone(), name.clone(), there);
            }
        }
        toggle(&mut self.grants_on, grant.resource.clone(), grant.meta.key.clone(), there);
    }

    pub(super) fn take_namespace(&mut self, namespace: Namespace, origin: Origin) {
        if origin == Origin::Watch {
            self.namespaces.reached(namespace.meta.version);
        }
        let (name, labels, deleting) =
            (namespace.meta.key.name.clone(), namespace.labels.clone(), namespace.meta.deleting);
        match self.namespaces.take(namespace, origin) {
            Taken::Stale => {}
            Taken::Replaced(old) if old.labels == labels && old.meta.deleting == deleting => {}
            _ => {
                self.select_policies(&name);
                self.mark_namespace(&name);
            }
        }
    }

    pub(super) fn mark_namespace(&mut self, name: &Arc<str>) {
        let agents: Vec<_> = self.agents_in.get(name).into_iter().flatten().cloned().collect();
        self.mark_agents(agents.into_iter().map(|a| Key::new(name.clone(), a)));
        self.mark_pods(|key, _| key.namespace == *name);
        self.dirty.push((Work::Trust(name.clone()), Lane::Urgent));
    }
}

//! Taking AgentBlueprints in, and the pods that agents are made for.
//!
//! Invariant: a change marks the agents of the blueprint, by index, and the pods that it may select. Whatever takes
//! credentials away is urgent, however many agents it hits.

use std::sync::Arc;

use super::index::toggle;
use super::table::{Listing, Origin, Taken};
use super::{Lane, View, Work, World};
use crate::domain::{Agent, Blueprint, BoundObject, Key, KindName, POD, Uid};

impl World {
    /// The blueprint of an agent, if it is there and, where it made the agent, still the same.
    #[must_use]
    pub fn blueprint_of(&self, agent: &Agent) -> Option<&Blueprint> {
        let blueprint = self.blueprint(agent.blueprint.as_ref()?)?;
        let same = agent.made_by.is_none_or(|uid| uid == blueprint.meta.uid);
        (same && !blueprint.meta.deleting).then_some(blueprint)
    }

    /// The blueprints that make agents of a pod, the one that rules first.
    #[must_use]
    pub fn blueprints_of_pod(&self, pod: &BoundObject) -> Vec<&Blueprint> {
        let namespace = self.namespace(&pod.meta.key.namespace);
        let mut selecting: Vec<_> = self
            .blueprints()
            .filter(|b| b.makes(&pod.labels))
            .filter(|b| namespace.is_some_and(|n| n.labels.matched_by(&b.namespace_selector)))
            .collect();
        selecting.sort_by_key(|b| b.meta.seniority());
        selecting
    }

    /// The agents of a blueprint, made and written.
    pub fn agents_of_blueprint(&self, name: &Arc<str>) -> impl Iterator<Item = &Agent> {
        self.agents_of_blueprint.get(name).into_iter().flatten().filter_map(|k| self.agents.get(k))
    }

    pub(super) fn take_blueprint(&mut self, blueprint: Blueprint, origin: Origin) {
        if origin == Origin::Watch {
            self.blueprints.reached(blueprint.meta.version);
        }
        let name = blueprint.meta.key.name.clone();
        if let Some(old) = self.blueprints.get(&blueprint.meta.key)
            && old.says_the_same(&blueprint)
        {
            let edited = old.generation != blueprint.generation;
            if self.blueprints.take(blueprint, origin) != Taken::Stale && edited {
                self.made.touch(name);
            }
            return;
        }
        let old: Option<Blueprint> = match self.blueprints.take(blueprint.clone(), origin) {
            Taken::Stale => return,
            Taken::New => None,
            Taken::Replaced(old) => Some(old),
        };
        if let Some(old) = &old {
            self.index_blueprint(old, false);
        }
        self.index_blueprint(&blueprint, true);
        self.mark_blueprint(&name);
        let selects =
            |b: &Blueprint| (b.meta.uid, b.makes_any(), b.pod_selector.clone(), b.namespace_selector.clone());
        if old.as_ref().is_none_or(|old| selects(old) != selects(&blueprint)) {
            self.mark_pods(|_, pod| {
                blueprint.makes(&pod.labels) || old.as_ref().is_some_and(|old| old.makes(&pod.labels))
            });
        }
    }

    pub(super) fn remove_blueprint(&mut self, key: &Key, uid: Uid) {
        let Some(old) = self.blueprints.remove(key, uid) else { return };
        self.index_blueprint(&old, false);
        self.mark_blueprint(&key.name);
        self.made.forget_blueprint(&key.name);
        self.mark_pods(|_, pod| old.makes(&pod.labels));
    }

    fn index_blueprint(&mut self, blueprint: &Blueprint, there: bool) {
        for grant in &blueprint.grants {
            let name = blueprint.meta.key.name.clone();
            toggle(&mut self.blueprints_on, grant.resource.clone(), name, there);
        }
    }

    fn mark_blueprint(&mut self, name: &Arc<str>) {
        self.made.touch(name.clone());
        let agents = self.agents_of_blueprint.get(name).into_iter().flatten().cloned();
        let stops = self.blueprint(name).is_none_or(|b| b.suspend || b.meta.deleting);
        if stops {
            self.dirty.extend(agents.map(|k| (Work::Agent(k), Lane::Urgent)));
        } else {
            let agents: Vec<_> = agents.collect();
            self.mark_agents(agents);
        }
    }

    /// Marks the pods that may be to have an agent made for them, or of which a blueprint says why they have none.
    pub(super) fn mark_pods(&mut self, which: impl Fn(&Key, &BoundObject) -> bool) {
        let any = self.blueprints().any(Blueprint::makes_any) || self.made.says_any();
        if self.view != View::Operator || !any {
            return;
        }
        let Some(pods) = self.bound.get(POD) else { return };
        let marked = pods.iter().filter(|(k, pod)| !pod.finished && which(k, pod));
        self.dirty.extend(marked.map(|(k, _)| (Work::Pod(k.clone()), Lane::Paced)));
    }

    /// Marks the pods that a removed agent was there for, or whose agent's name it bore: they are still there.
    pub(super) fn mark_unserved(&mut self, agent: &Agent) {
        for pod in self.made.kept_off_by(&agent.meta.key) {
            self.mark_pod(&POD.into(), &pod);
        }
        let Some(bound) = &agent.bound else { return };
        // What a blueprint that is gone has made is told by the blueprint's going.
        if agent.made_by.is_some() && self.blueprint_of(agent).is_none() {
            return;
        }
        let object = agent.meta.key.sibling(bound.name.clone());
        let is_it = |o: &BoundObject| bound.uid.is_none_or(|uid| uid == o.meta.uid);
        if !self.bound_object(&bound.kind, &object).is_some_and(is_it) {
            return;
        }
        if &*bound.kind == POD {
            self.mark_pod(&bound.kind.clone(), &object);
        } else {
            let namespace = agent.meta.key.namespace.clone();
            self.mark_pods(|key, _| key.namespace == namespace);
        }
    }

    /// Marks a pod that has come, gone or changed.
    pub(super) fn mark_pod(&mut self, kind: &KindName, key: &Key) {
        if self.view != View::Operator || &**kind != POD {
            return;
        }
        let said = self.says_of(key);
        let makes =
            self.bound_object(kind, key).is_some_and(|pod| self.blueprints().any(|b| b.makes(&pod.labels)));
        if makes || said {
            self.dirty.push((Work::Pod(key.clone()), Lane::Urgent));
        }
    }
}

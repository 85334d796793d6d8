//! The loop as the operator runs it: dirty work → decide → plan → apply, until nothing is left to do.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::*;
use crate::api::{AgentIdentityStatus, MADE_LABEL, PER_LABEL};
use crate::domain::maker::{Making, make};
use crate::domain::plan::{AgentStep, Plan, plan};
use crate::domain::status;
use crate::domain::statuslist::{Indexes, StatusRef};

/// What was written, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Writes {
    pub secrets: u32,
    pub agents: u32,
    pub statuses: u32,
    pub trust: u32,
    pub bindings: u32,
}

/// Why work was left undone: a write met another state than the world's, or the operator died.
pub(crate) enum Undone {
    Refused,
    /// Something foreign is in the way: plan anew with what is known now.
    Foreign,
    Died,
}

pub(super) type Done = Result<(), Undone>;

impl Cluster {
    /// Works until nothing is dirty and nothing due.
    pub fn settle(&mut self) {
        let again = std::mem::take(&mut self.retry);
        let mut queue: BTreeSet<Work> = again;
        for _ in 0..2_000 {
            self.deliver();
            self.world.release_bindings();
            queue.extend(self.world.take_dirty().into_iter().map(|(work, _)| work));
            let now = self.now;
            let due: Vec<_> = self.due.iter().filter(|(_, at)| **at <= now).map(|(k, _)| k.clone()).collect();
            for key in due {
                self.due.remove(&key);
                queue.insert(Work::Agent(key));
            }
            let Some(work) = queue.pop_first() else { return };
            let done = match &work {
                Work::Agent(key) => self.work_on(key, true),
                Work::Orphan(key) => self.work_on_orphan(key),
                Work::Trust(namespace) => self.work_on_trust(namespace),
                Work::Pod(pod) => self.work_on_pod(pod),
                Work::Binding(unit) => self.work_on_binding(unit),
            };
            match done {
                Ok(()) => {}
                Err(Undone::Refused | Undone::Foreign) => {
                    self.retry.insert(work);
                }
                Err(Undone::Died) => {
                    self.restart();
                    queue.clear();
                }
            }
        }
        panic!("the work does not come to an end: {queue:?}");
    }

    /// Whether the world may be behind the API server.
    pub fn is_known(&self) -> bool {
        self.lost.is_empty()
    }

    pub(super) fn alive(&mut self) -> Done {
        match &mut self.dies_after {
            Some(0) => return Err(Undone::Died),
            Some(n) => *n -= 1,
            None => {}
        }
        Ok(())
    }

    /// What the operator would do now.
    pub fn plan_of(&mut self, key: &Key) -> Option<(Decision, Indexes, Plan)> {
        let decision = decide(&self.world, key, self.now)?;
        let agent = self.world.agent(key)?;
        let indexes = self.hand_out.assign(&self.world, agent, &decision, self.now).unwrap();
        let plan = plan(&self.world, &decision, &indexes, &self.keys, self.now)?;
        Some((decision, indexes, plan))
    }

    fn work_on(&mut self, key: &Key, may_look: bool) -> Done {
        self.due.remove(key);
        let Some((decision, indexes, plan)) = self.plan_of(key) else { return Ok(()) };
        self.world.record_bindings(&decision);
        self.world.record_holdings(key, decision.holdings(&self.world));
        self.world.record_standing(key, &decision.standing);
        let uid = decision.uid;
        match &plan.agent {
            AgentStep::Confirm(object) => {
                self.get_bound(key, Some(*object));
                return if may_look { self.work_on(key, false) } else { Err(Undone::Refused) };
            }
            AgentStep::Look if may_look => {
                self.get_bound(key, None);
                return self.work_on(key, false);
            }
            AgentStep::Own(object) => self.own(key, uid, *object)?,
            _ => {}
        }
        if indexes.widened
            && let Some(change) =
                status::agent_status(&self.world, &decision, &indexes, &plan.credential, self.now)
        {
            self.write_status(key, uid, change.status)?;
        }
        match self.write_secret(plan.secret) {
            Err(Undone::Foreign) => return self.work_on(key, false),
            done => done?,
        }
        if matches!(plan.agent, AgentStep::Delete(_)) {
            if self.agents.get(key).is_some_and(|a| uid_of(&a.metadata) == uid) {
                self.alive()?;
                self.writes.agents += 1;
                self.delete(&Source::Agents, key);
            }
            self.world.remove(&Source::Agents, key, uid, 0);
            return Ok(());
        }
        if let Some(change) =
            status::agent_status(&self.world, &decision, &indexes, &plan.credential, self.now)
        {
            self.write_status(key, uid, change.status)?;
        }
        if let Some(wake) = plan.wake {
            assert!(wake > self.now, "{key} would be woken without end: {wake} at {}", self.now);
            self.due.insert(key.clone(), wake);
        }
        Ok(())
    }

    /// A GET of what an agent is bound to.
    fn get_bound(&mut self, agent: &Key, gone: Option<Uid>) {
        let bound = self.world.agent(agent).and_then(|a| a.bound.clone()).unwrap();
        let key = agent.sibling(bound.name.clone());
        let there = self.bound.get(&(bound.kind.clone(), key.clone())).cloned();
        let uid = there.as_ref().map(|o| o.meta.uid);
        if let Some(gone) = gone.filter(|g| uid != Some(*g)) {
            self.world.note_gone(&bound.kind, &key, gone);
        }
        match there {
            Some(object) => {
                self.world.take(Object::Bound(bound.kind, Box::new(object)), Origin::Answer);
            }
            None => {
                if let Some(old) = self.world.bound_object(&bound.kind, &key).map(|o| o.meta.uid) {
                    self.world.remove(&Source::Bound(bound.kind), &key, old, 0);
                }
            }
        }
    }

    fn own(&mut self, key: &Key, uid: Uid, object: Uid) -> Done {
        self.alive()?;
        let version = self.next_version();
        let Some(agent) = self.agents.get_mut(key).filter(|a| uid_of(&a.metadata) == uid) else {
            return Err(Undone::Refused);
        };
        agent.metadata.resource_version = Some(version.to_string());
        agent
            .metadata
            .owner_references
            .get_or_insert_default()
            .push(OwnerReference { uid: object.to_string(), ..OwnerReference::default() });
        self.answer_agent(key);
        self.writes.agents += 1;
        Ok(())
    }

    fn write_status(&mut self, key: &Key, uid: Uid, status: AgentIdentityStatus) -> Done {
        self.alive()?;
        let version = self.next_version();
        let Some(agent) = self.agents.get_mut(key).filter(|a| uid_of(&a.metadata) == uid) else {
            return Err(Undone::Refused);
        };
        for old in agent.status.iter().flat_map(|s| &s.conditions) {
            // One that says that a policy would object goes with the objection.
            let Some(new) = status.conditions.iter().find(|c| c.type_ == old.type_) else { continue };
            let moved = old.last_transition_time != new.last_transition_time;
            assert!(!moved || old.status != new.status, "{key}: {old:?} {new:?}");
        }
        agent.metadata.resource_version = Some(version.to_string());
        let grants = status.grants.iter().filter_map(|g| {
            Some((g.uid.parse().unwrap(), StatusRef::try_from(g.status_index.as_ref()?).unwrap()))
        });
        self.hand_out.recorded(uid, grants, version);
        agent.status = Some(status);
        self.answer_agent(key);
        self.writes.statuses += 1;
        Ok(())
    }

    fn answer_agent(&mut self, key: &Key) {
        let object = Self::agent_object(&self.agents[key]);
        self.world.take(object.clone(), Origin::Answer);
        self.put(Source::Agents, object);
    }

    fn work_on_pod(&mut self, pod: &Key) -> Done {
        if Source::CORE.iter().any(|s| !self.world.is_fresh(s, self.now)) {
            return Err(Undone::Refused);
        }
        let (making, contest) = make(&self.world, pod);
        self.world.record_contest(pod, contest);
        let made = match making {
            Making::Nothing => return Ok(()),
            Making::Later => return Err(Undone::Refused),
            Making::Make(made) => made,
        };
        if self.agents.contains_key(&made.agent) {
            return Err(Undone::Refused);
        }
        self.alive()?;
        let (api_version, kind) = made.kind.rsplit_once('/').unwrap();
        let account =
            made.account.as_ref().map_or_else(String::new, |a| format!(", serviceAccountName: {a}"));
        self.apply(&format!(
            "{{kind: AgentIdentity, metadata: {{name: {}, namespace: {}, labels: {{{MADE_LABEL}: {}, {PER_LABEL}: {}}}, ownerReferences: \
             [{{apiVersion: {api_version}, kind: {kind}, name: {}, uid: {}}}]}}, spec: {{blueprint: {}, boundObjectRef: \
             {{apiVersion: {api_version}, kind: {kind}, name: {}, uid: {}}}{account}}}}}",
            made.agent.name,
            made.agent.namespace,
            made.blueprint_uid,
            made.per.as_str(),
            made.name,
            made.uid,
            made.blueprint,
            made.name,
            made.uid,
        ));
        self.writes.agents += 1;
        Ok(())
    }

    fn work_on_trust(&mut self, namespace: &Arc<str>) -> Done {
        if Source::CORE.iter().any(|s| !self.world.is_fresh(s, self.now)) {
            return Err(Undone::Refused);
        }
        let key = Key::new(namespace.clone(), crate::api::TRUST_NAME);
        match (self.world.wants_trust(namespace), self.trust.contains_key(&key)) {
            (true, false) => {
                self.alive()?;
                let trust = Trust { meta: self.new_meta(&key), ours: true, digest: Digest::default() };
                self.writes.trust += 1;
                self.world.take(Object::Trust(Box::new(trust.clone())), Origin::Answer);
                self.put(Source::Trust, Object::Trust(Box::new(trust.clone())));
                self.trust.insert(key, trust);
            }
            (false, true) => {
                self.alive()?;
                self.writes.trust += 1;
                self.delete(&Source::Trust, &key);
            }
            _ => {}
        }
        Ok(())
    }

    /// What every policy's counts must be, by going over all agents: matched, and refused agents and grants.
    pub fn recount_policies(&self) -> BTreeMap<Arc<str>, (i64, i64, i64)> {
        let mut counts = BTreeMap::<Arc<str>, (i64, i64, i64)>::new();
        for agent in self.world.agents() {
            for policy in self.world.policies_of(agent) {
                counts.entry(policy.meta.key.name.clone()).or_default().0 += 1;
            }
            let decision = decide(&self.world, &agent.meta.key, self.now).unwrap();
            let mut agents = BTreeSet::new();
            for objection in decision.denied.iter().chain(&decision.audited) {
                let n = counts.entry(objection.policy.clone()).or_default();
                n.1 += i64::from(agents.insert(objection.policy.clone()));
                n.2 += i64::from(objection.grant.is_some());
            }
        }
        counts
    }

    /// What every grant's counts must be, by going over all agents.
    pub fn recount(&self) -> BTreeMap<Key, (i64, i64)> {
        let mut counts = BTreeMap::<Key, (i64, i64)>::new();
        for agent in self.world.agents() {
            let decision = decide(&self.world, &agent.meta.key, self.now).unwrap();
            for holding in decision.holdings(&self.world).grants {
                let n = counts.entry(agent.meta.key.sibling(holding.grant)).or_default();
                match holding.state {
                    crate::api::GrantState::Refused => n.1 += 1,
                    _ => n.0 += 1,
                }
            }
        }
        counts
    }
}

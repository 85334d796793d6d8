//! What blueprints made of their pods, counted: their statuses are kept from the agents' decisions and from what came
//! of each pod, without ever going over all agents.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::World;
use crate::api::Reason;
use crate::domain::{Key, Refusal, Standing};

/// How an agent of a blueprint stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It may have credentials.
    Ready,
    /// It may not.
    Refused,
    /// It is stopped until somebody resumes it.
    Suspended,
}

/// The agents of one blueprint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlueprintTally {
    /// Made from it.
    pub made: i64,
    /// That may have credentials.
    pub ready: i64,
    /// That may not.
    pub refused: i64,
    /// That are stopped.
    pub suspended: i64,
}

/// Why a blueprint does not make an agent of a pod, or not alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contest {
    /// The blueprint that rules.
    pub rules: Arc<str>,
    /// The younger ones that select the pod too.
    pub others: Box<[Arc<str>]>,
    /// The agent that bears the name of the one to be made, and is another.
    pub taken: Option<Arc<str>>,
}

/// Why the API server did not take an agent that was to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmade {
    /// The blueprint.
    pub blueprint: Arc<str>,
    /// Why.
    pub refusal: Refusal,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Counted {
    blueprint: Arc<str>,
    made: bool,
    state: State,
}

#[derive(Debug, Default)]
pub(super) struct Made {
    agents: HashMap<Key, Counted>,
    blueprints: HashMap<Arc<str>, BlueprintTally>,
    contests: HashMap<Key, Contest>,
    contests_of: HashMap<Arc<str>, BTreeSet<Key>>,
    unmade: HashMap<Key, Unmade>,
    unmade_of: HashMap<Arc<str>, BTreeSet<Key>>,
    dirty: BTreeSet<Arc<str>>,
}

impl Made {
    pub(super) fn touch(&mut self, blueprint: Arc<str>) {
        self.dirty.insert(blueprint);
    }

    pub(super) fn forget_blueprint(&mut self, blueprint: &Arc<str>) {
        self.dirty.remove(blueprint);
    }

    pub(super) fn forget_agent(&mut self, agent: &Key) {
        self.record(agent, None);
    }

    fn record(&mut self, agent: &Key, now: Option<Counted>) {
        if self.agents.get(agent) == now.as_ref() {
            return;
        }
        if let Some(old) = self.agents.remove(agent) {
            self.count(&old, -1);
        }
        if let Some(now) = now {
            self.count(&now, 1);
            self.agents.insert(agent.clone(), now);
        }
    }

    fn count(&mut self, counted: &Counted, by: i64) {
        let tally = self.blueprints.entry(counted.blueprint.clone()).or_default();
        tally.made += if counted.made { by } else { 0 };
        *match counted.state {
            State::Ready => &mut tally.ready,
            State::Refused => &mut tally.refused,
            State::Suspended => &mut tally.suspended,
        } += by;
        if *tally == BlueprintTally::default() {
            self.blueprints.remove(&counted.blueprint);
        }
        self.dirty.insert(counted.blueprint.clone());
    }

    fn contest(&mut self, pod: &Key, now: Option<Contest>) {
        if self.contests.get(pod) == now.as_ref() {
            return;
        }
        for (contest, there) in [(self.contests.remove(pod), false), (now.clone(), true)] {
            for name in contest.iter().flat_map(|c| std::iter::once(&c.rules).chain(&c.others)) {
                super::index::toggle(&mut self.contests_of, name.clone(), pod.clone(), there);
                self.dirty.insert(name.clone());
            }
        }
        if let Some(now) = now {
            self.contests.insert(pod.clone(), now);
        }
    }

    fn unmade(&mut self, pod: &Key, now: Option<Unmade>) {
        if self.unmade.get(pod) == now.as_ref() {
            return;
        }
        for (unmade, there) in [(self.unmade.remove(pod), false), (now.clone(), true)] {
            if let Some(Unmade { blueprint, .. }) = unmade {
                super::index::toggle(&mut self.unmade_of, blueprint.clone(), pod.clone(), there);
                self.dirty.insert(blueprint);
            }
        }
        if let Some(now) = now {
            self.unmade.insert(pod.clone(), now);
        }
    }

    /// Whether something is said of any pod.
    pub(super) fn says_any(&self) -> bool {
        !self.contests.is_empty() || !self.unmade.is_empty()
    }

    /// The pods of which no agent is made because another one bears the name.
    pub(super) fn kept_off_by(&self, agent: &Key) -> Vec<Key> {
        let is_it = |pod: &Key, c: &Contest| {
            pod.namespace == agent.namespace && c.taken.as_ref() == Some(&agent.name)
        };
        self.contests.iter().filter(|(pod, c)| is_it(pod, c)).map(|(pod, _)| pod.clone()).collect()
    }
}

impl World {
    /// Records how an agent was decided to stand. Unknown is not absent: what was known before still counts.
    pub fn record_standing(&mut self, agent: &Key, standing: &Standing) {
        let now = self.counted(agent, standing);
        if let Some(now) = now {
            self.made.record(agent, now);
        }
    }

    /// Whether [`Self::record_standing`] would change anything.
    #[must_use]
    pub fn is_counted(&self, agent: &Key, standing: &Standing) -> bool {
        self.counted(agent, standing).is_none_or(|now| self.made.agents.get(agent) == now.as_ref())
    }

    #[expect(clippy::option_option, reason = "nothing to say, or that it is not counted")]
    fn counted(&self, agent: &Key, standing: &Standing) -> Option<Option<Counted>> {
        let Some(agent) = self.agent(agent) else { return Some(None) };
        let Some(blueprint) = agent.blueprint.clone() else { return Some(None) };
        let state = match standing {
            Standing::Allowed => State::Ready,
            Standing::Refused(r) if r.reason == Reason::Suspended => State::Suspended,
            Standing::Unknown(_) => return None,
            _ => State::Refused,
        };
        Some(Some(Counted { blueprint, made: agent.made_by.is_some(), state }))
    }

    /// Records what came of a pod; `None` if one blueprint makes its agent, or none does.
    pub fn record_contest(&mut self, pod: &Key, contest: Option<Contest>) {
        self.made.contest(pod, contest);
    }

    /// What came of a pod.
    #[must_use]
    pub fn contest(&self, pod: &Key) -> Option<&Contest> {
        self.made.contests.get(pod)
    }

    /// Records what came of making a pod's agent; `None` if it was made, or is not to be.
    pub fn record_unmade(&mut self, pod: &Key, unmade: Option<Unmade>) {
        self.made.unmade(pod, unmade);
    }

    /// Why a pod's agent could not be made.
    #[must_use]
    pub fn unmade(&self, pod: &Key) -> Option<&Unmade> {
        self.made.unmade.get(pod)
    }

    /// The counts of a blueprint.
    #[must_use]
    pub fn blueprint_tally(&self, blueprint: &Arc<str>) -> BlueprintTally {
        self.made.blueprints.get(blueprint).copied().unwrap_or_default()
    }

    /// The pods that a blueprint does not have to itself, and why.
    pub fn contests_of(&self, blueprint: &Arc<str>) -> impl Iterator<Item = (&Key, &Contest)> {
        let pods = self.made.contests_of.get(blueprint).into_iter().flatten();
        pods.filter_map(|pod| self.made.contests.get_key_value(pod))
    }

    /// The pods of which a blueprint could not make the agent, and why.
    pub fn unmade_of(&self, blueprint: &Arc<str>) -> impl Iterator<Item = (&Key, &Unmade)> {
        let pods = self.made.unmade_of.get(blueprint).into_iter().flatten();
        pods.filter_map(|pod| self.made.unmade.get_key_value(pod))
    }

    /// Whether something is said of a pod on a blueprint.
    pub(super) fn says_of(&self, pod: &Key) -> bool {
        self.contest(pod).is_some() || self.unmade(pod).is_some()
    }

    /// The blueprints whose counts may have changed since the last call.
    #[must_use]
    pub fn take_made(&mut self) -> BTreeSet<Arc<str>> {
        std::mem::take(&mut self.made.dirty)
    }

    /// Marks a blueprint's status to be looked at again.
    pub fn touch_blueprint(&mut self, blueprint: Arc<str>) {
        self.made.touch(blueprint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_follow_agents() {
        let mut made = Made::default();
        let (a, b) = (Key::new("ns", "a"), Key::new("ns", "b"));
        let counted = |made, state| Some(Counted { blueprint: "bp".into(), made, state });
        made.record(&a, counted(true, State::Ready));
        made.record(&b, counted(false, State::Suspended));
        let tally = BlueprintTally { made: 1, ready: 1, refused: 0, suspended: 1 };
        assert_eq!(made.blueprints["bp"], tally);
        made.dirty.clear();
        made.record(&a, counted(true, State::Ready));
        assert!(made.dirty.is_empty(), "the same counts nothing");
        made.forget_agent(&a);
        made.forget_agent(&b);
        assert!(made.blueprints.is_empty() && made.agents.is_empty() && made.dirty.contains("bp"));
    }

    #[test]
    fn what_could_not_be_made_is_of_its_blueprint_until_it_is() {
        let mut made = Made::default();
        let pod = Key::new("ns", "p");
        let unmade = |blueprint: &str, why: &str| {
            Some(Unmade { blueprint: blueprint.into(), refusal: Refusal::new(Reason::Internal, why) })
        };
        made.unmade(&pod, unmade("bp", "quota"));
        assert!(made.says_any() && made.unmade_of.contains_key("bp") && made.dirty.contains("bp"));
        made.dirty.clear();
        made.unmade(&pod, unmade("bp", "quota"));
        assert!(made.dirty.is_empty(), "the same says nothing new");
        made.unmade(&pod, unmade("other", "quota"));
        assert!(!made.unmade_of.contains_key("bp") && made.dirty.len() == 2);
        made.unmade(&pod, None);
        assert!(!made.says_any() && made.unmade_of.is_empty());
    }

    #[test]
    fn contests_are_of_all_that_take_part() {
        let mut made = Made::default();
        let pod = Key::new("ns", "p");
        let contest = |others: &[&str]| {
            let others = others.iter().map(|o| Arc::from(*o)).collect();
            Some(Contest { rules: "old".into(), others, taken: None })
        };
        made.contest(&pod, contest(&["new", "newer"]));
        made.contest(&pod, contest(&["new"]));
        assert!(made.contests_of.contains_key("old") && made.contests_of.contains_key("new"));
        assert!(!made.contests_of.contains_key("newer") && made.dirty.contains("newer"));
        made.contest(&pod, None);
        assert!(made.contests.is_empty() && made.contests_of.is_empty());
    }
}

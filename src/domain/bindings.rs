//! The difference between the RoleBindings that are and those that should be, for one grant in one namespace.
//!
//! Invariants: the plan of an applied plan is empty; an agent stays a subject while it can't be told what it holds; what
//! does not bear our labels is never touched; a subject moves to another RoleBinding for no other's sake; what is taken
//! never waits for what is given, nor for a finalizer of somebody else's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::status::agent_id;
use super::{Binding, Digest, Hasher, Key, Source, Uid, Unit, World};

/// Subjects of one RoleBinding: an update sends them all.
pub const SUBJECTS: usize = 200;

/// Whom a RoleBinding goes with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// `AgentGrant`, or `AgentBlueprint` of an inherited grant.
    pub kind: &'static str,
    /// Its name.
    pub name: Arc<str>,
    /// Its UID.
    pub uid: Uid,
}

/// A RoleBinding as it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its name.
    pub key: Key,
    /// The grant's UID.
    pub grant: Uid,
    /// The ClusterRole.
    pub role: Arc<str>,
    /// Whom it goes with.
    pub owner: Owner,
    /// The agents' names for the API server.
    pub subjects: Vec<String>,
}

/// What is to be done with one RoleBinding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindingStep {
    /// Create it.
    Create(Wanted),
    /// Write the one of this UID anew.
    Update(Uid, Wanted),
    /// Take subjects off one, and change nothing else.
    Take(Taking),
    /// Delete the one of this UID.
    Delete(Key, Uid),
}

/// Subjects that are taken off a RoleBinding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taking {
    /// Its name.
    pub key: Key,
    /// Its UID.
    pub uid: Uid,
    /// The subjects that it keeps.
    pub left: Vec<String>,
    /// It is being deleted and held by a finalizer: the API server goes by it for as long.
    pub leaving: bool,
}

/// What is to be done, and when to look again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BindingPlan {
    /// Enough is seen to plan by: without steps all is as it should be.
    pub known: bool,
    /// In this order: what takes rights comes first.
    pub steps: Vec<BindingStep>,
    /// When to look again, whatever happens.
    pub wake: Option<Timestamp>,
}

/// Digest of subjects' names.
#[must_use]
pub fn subjects_digest<'a>(names: impl IntoIterator<Item = &'a str>) -> Digest {
    let mut hasher = Hasher::new("subjects v1");
    for name in names {
        hasher.part(name.as_bytes());
    }
    hasher.finish()
}

/// The name of the nth RoleBinding of a grant and role: always the same, and another for another grant of that name.
#[must_use]
pub fn binding_name(grant: &str, uid: Uid, role: &str, nth: usize) -> String {
    let mut hasher = Hasher::new("binding v1");
    hasher.part(&uid.0.to_be_bytes()).part(role.as_bytes());
    let hash = hasher.finish().to_string();
    let readable: String = format!("{grant}-{role}")
        .chars()
        .map(|c| if matches!(c, '/' | '%') || !c.is_ascii_graphic() { '.' } else { c })
        .take(180)
        .collect();
    format!("agentid-{readable}-{}-{nth}", &hash[..10.min(hash.len())])
}

/// Plans for a grant in a namespace.
#[must_use]
pub fn plan(world: &World, unit: &Unit, now: Timestamp) -> BindingPlan {
    let again =
        |ms| BindingPlan { wake: Some(now + SignedDuration::from_millis(ms)), ..BindingPlan::default() };
    let mut needed = world.core().iter().filter(|s| s.decides()).chain([&Source::Bindings]);
    if !needed.all(|s| world.is_fresh(s, now)) {
        return again(5_000);
    }
    if world.namespace(&unit.namespace).is_none_or(|n| n.meta.deleting) {
        return BindingPlan::default();
    }
    let seen = world.bindings_of(unit);
    let mut wanted: BTreeMap<Arc<str>, BTreeSet<Uid>> = BTreeMap::new();
    let (mut grant, mut waits) = (None, false);
    if let Some(holders) = world.holders_of(unit) {
        grant = Some(holders.grant.clone());
        wanted.clone_from(&holders.roles);
    }
    for binding in &seen {
        let Some(role) = &binding.role else { continue };
        for agent in binding.subjects.iter().filter(|a| is_untold(world, unit, **a)) {
            waits |= wanted.entry(role.clone()).or_default().insert(*agent);
        }
    }
    let owner = grant.as_ref().and_then(|name| owner(world, unit, name));
    let mut steps = Steps::default();
    let mut roles: BTreeMap<Arc<str>, Vec<&Binding>> =
        wanted.keys().map(|r| (r.clone(), Vec::new())).collect();
    for binding in seen {
        let holders = binding.role.as_ref().and_then(|r| wanted.get(r));
        if binding.meta.deleting {
            let stays = |s: &Uid| holders.is_some_and(|h| h.contains(s));
            steps.takes.extend(take(world, binding, stays));
        }
        match &binding.role {
            Some(role) => roles.entry(role.clone()).or_default().push(binding),
            None if binding.meta.deleting => {}
            None => steps.takes.push(delete(binding)),
        }
    }
    for (role, seen) in roles {
        let of_role = wanted.remove(&role).unwrap_or_default();
        let (Some(owner), Some(grant)) = (&owner, &grant) else {
            if of_role.is_empty() {
                steps.takes.extend(seen.into_iter().filter(|b| !b.meta.deleting).map(delete));
            } else {
                // Whose grant it is will be known when its agents are.
                waits = true;
            }
            continue;
        };
        let one = OneRole { world, unit, role: &role, owner, grant };
        one.plan(of_role, seen, &mut steps);
    }
    let wake = waits.then(|| now + SignedDuration::from_secs(1));
    BindingPlan { known: true, steps: steps.in_order(), wake }
}

/// Steps by what they do for those who are named.
#[derive(Default)]
struct Steps {
    takes: Vec<BindingStep>,
    gives: Vec<BindingStep>,
    creates: Vec<BindingStep>,
}

impl Steps {
    fn in_order(self) -> Vec<BindingStep> {
        let mut all = self.takes;
        all.extend(self.gives);
        all.extend(self.creates);
        all
    }
}

/// Takes off a RoleBinding whoever does not stay, if it names such.
fn take(world: &World, binding: &Binding, stays: impl Fn(&Uid) -> bool) -> Option<BindingStep> {
    let left: Vec<_> = binding.subjects.iter().filter(|s| stays(s)).collect();
    (left.len() < binding.subjects.len()).then(|| {
        let domain = &world.config().trust_domain;
        BindingStep::Take(Taking {
            key: binding.meta.key.clone(),
            uid: binding.meta.uid,
            left: left.into_iter().map(|uid| agent_id(domain, *uid)).collect(),
            leaving: binding.meta.deleting,
        })
    })
}

/// Whether it isn't known what an agent of the namespace holds: nothing is taken from it.
fn is_untold(world: &World, unit: &Unit, agent: Uid) -> bool {
    world.agent_of_uid(agent).is_some_and(|a| {
        a.meta.key.namespace == unit.namespace && world.holdings(&a.meta.key).is_none_or(|h| h.untold)
    })
}

fn owner(world: &World, unit: &Unit, grant: &Arc<str>) -> Option<Owner> {
    if let Some((blueprint, _)) = grant.split_once('/') {
        let blueprint = world.blueprint(&blueprint.into()).filter(|b| !b.meta.deleting)?;
        let of = blueprint.grants.iter().any(|g| g.meta.uid == unit.grant);
        let meta = &blueprint.meta;
        return of.then(|| Owner { kind: "AgentBlueprint", name: meta.key.name.clone(), uid: meta.uid });
    }
    let key = Key::new(unit.namespace.clone(), grant.clone());
    let meta = &world.grant(&key).filter(|g| g.meta.uid == unit.grant && !g.meta.deleting)?.meta;
    Some(Owner { kind: "AgentGrant", name: meta.key.name.clone(), uid: meta.uid })
}

/// Whom a unit's RoleBindings go with, also where nobody holds anything by it; `None` if that is gone. It looks at every
/// grant: for what is told when something has failed.
#[must_use]
pub fn owner_of(world: &World, unit: &Unit) -> Option<Owner> {
    let own = world.grants().find(|g| g.meta.uid == unit.grant && g.meta.key.namespace == unit.namespace);
    let inherited = || world.blueprints().flat_map(|b| &b.grants).find(|g| g.meta.uid == unit.grant);
    owner(world, unit, &own.or_else(inherited)?.meta.key.name)
}

fn delete(binding: &Binding) -> BindingStep {
    BindingStep::Delete(binding.meta.key.clone(), binding.meta.uid)
}

struct OneRole<'a> {
    world: &'a World,
    unit: &'a Unit,
    role: &'a Arc<str>,
    owner: &'a Owner,
    grant: &'a str,
}

impl OneRole<'_> {
    fn plan(&self, mut wanted: BTreeSet<Uid>, seen: Vec<&Binding>, steps: &mut Steps) {
        let mut taken = BTreeSet::new();
        let mut kept: Vec<(&Binding, Vec<Uid>)> = Vec::new();
        let nth_of = |b: &Binding| {
            // A copy under another name is not ours to keep.
            let nth: usize = b.meta.key.name.rsplit_once('-')?.1.parse().ok()?;
            (*b.meta.key.name == self.name(nth)).then_some(nth)
        };
        for binding in seen {
            let nth = nth_of(binding);
            taken.extend(nth);
            if binding.meta.deleting {
                continue;
            }
            if nth.is_none() {
                steps.takes.push(delete(binding));
                continue;
            }
            let stays = binding.subjects.iter().filter(|s| wanted.remove(s)).copied();
            kept.push((binding, stays.take(SUBJECTS).collect()));
        }
        let mut rest = wanted.into_iter();
        for (binding, mut subjects) in kept {
            let room = SUBJECTS - subjects.len();
            subjects.extend(rest.by_ref().take(room));
            if subjects.is_empty() {
                steps.takes.push(delete(binding));
                continue;
            }
            let wanted = self.wanted(binding.meta.key.name.clone(), &subjects);
            let same = subjects_digest(wanted.subjects.iter().map(String::as_str)) == binding.digest
                && binding.owner == Some(self.owner.uid);
            if same {
                continue;
            }
            let gives = subjects.iter().any(|s| !binding.subjects.contains(s));
            if gives {
                // In one write, who edits the RoleBinding would hold off both.
                steps.takes.extend(take(self.world, binding, |s| subjects.contains(s)));
            }
            let steps = if gives { &mut steps.gives } else { &mut steps.takes };
            steps.push(BindingStep::Update(binding.meta.uid, wanted));
        }
        let rest: Vec<_> = rest.collect();
        let names = (0..).filter(|n| !taken.contains(n));
        for (subjects, nth) in rest.chunks(SUBJECTS).zip(names) {
            steps.creates.push(BindingStep::Create(self.wanted(self.name(nth).into(), subjects)));
        }
    }

    fn name(&self, nth: usize) -> String {
        binding_name(self.grant, self.unit.grant, self.role, nth)
    }

    fn wanted(&self, name: Arc<str>, subjects: &[Uid]) -> Wanted {
        let domain = &self.world.config().trust_domain;
        Wanted {
            key: Key::new(self.unit.namespace.clone(), name),
            grant: self.unit.grant,
            role: self.role.clone(),
            owner: self.owner.clone(),
            subjects: subjects.iter().map(|uid| agent_id(domain, *uid)).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod unbound_tests;

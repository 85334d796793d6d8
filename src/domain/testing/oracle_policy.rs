//! What policies take away, said a second time and simply. Nothing of `decide` and its globs is used.

use super::oracle::{Held, mode_of, seconds};
use super::*;
use crate::api::{Enforcement, PolicyRequirement};

fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.first(), text.first()) {
        (None, None) => true,
        (Some(b'*'), _) => glob(&pattern[1..], text) || (!text.is_empty() && glob(pattern, &text[1..])),
        (Some(b'?'), Some(_)) => glob(&pattern[1..], &text[1..]),
        (Some(p), Some(t)) => p == t && glob(&pattern[1..], &text[1..]),
        _ => false,
    }
}

fn any(globs: Option<&Vec<String>>, text: &str) -> bool {
    globs.is_none_or(|g| g.iter().any(|p| glob(p.as_bytes(), text.as_bytes())))
}

fn lived(meta: &ObjectMeta, limit: Option<&String>) -> Option<Timestamp> {
    let created = meta.creation_timestamp.as_ref().unwrap().0;
    Some(created + SignedDuration::from_secs(seconds(limit)?))
}

impl Cluster {
    /// The enforced policies that speak of an agent, or with a resource of grants on it.
    fn enforced<'a>(
        &'a self,
        agent: &'a AgentIdentity,
        resource: Option<&'a str>,
    ) -> impl Iterator<Item = &'a AgentPolicy> {
        let namespace = self.namespaces.get(&Key::new("", agent.metadata.namespace.as_deref().unwrap()));
        self.policies.values().filter(move |p| {
            let matches = p.spec.matches.clone().unwrap_or_default();
            let label = |k: &str| agent.metadata.labels.as_ref()?.get(k).map(String::as_str);
            p.spec.enforcement != Some(Enforcement::Audit)
                && matches
                    .blueprints
                    .is_none_or(|globs| agent.spec.blueprint.as_ref().is_some_and(|b| any(Some(&globs), b)))
                && matches
                    .namespace_selector
                    .is_none_or(|s| namespace.is_some_and(|n| s.matches(|k| n.labels.get(k))))
                && matches.agent_selector.is_none_or(|s| s.matches(label))
                && match (resource, matches.resources) {
                    (None, globs) => globs.is_none(),
                    (Some(resource), globs) => any(globs.as_ref(), resource),
                }
        })
    }

    /// Whether policies leave an agent its credentials.
    pub fn oracle_complies(&self, agent: &AgentIdentity) -> bool {
        let blueprint = self.oracle_blueprint(agent);
        self.enforced(agent, None).all(|p| {
            let has = |need: &PolicyRequirement| match need {
                PolicyRequirement::Sponsor => {
                    !agent.spec.sponsors.is_empty() || blueprint.is_some_and(|b| !b.spec.sponsors.is_empty())
                }
                PolicyRequirement::BoundObject => agent.spec.bound_object_ref.is_some(),
                PolicyRequirement::Blueprint => agent.spec.blueprint.is_some(),
                PolicyRequirement::Expiry => self.oracle_own_end(agent).is_some(),
            };
            p.spec.suspend != Some(true) && p.spec.require.iter().all(has)
        }) && self.oracle_end(agent).is_none_or(|end| end > self.now)
    }

    /// When policies end an agent.
    pub fn oracle_end(&self, agent: &AgentIdentity) -> Option<Timestamp> {
        let limits = self.enforced(agent, None).filter_map(|p| p.spec.limits.as_ref());
        limits.filter_map(|l| lived(&agent.metadata, l.agent_lifetime.as_ref())).min()
    }

    /// When policies end a grant.
    pub fn oracle_grant_end(&self, agent: &AgentIdentity, grant: &AgentGrant) -> Option<Timestamp> {
        let limits = self.enforced(agent, Some(&grant.spec.resource)).filter_map(|p| p.spec.limits.as_ref());
        limits.filter_map(|l| lived(&grant.metadata, l.grant_lifetime.as_ref())).min()
    }

    /// What policies leave of a grant.
    pub fn oracle_left(&self, agent: &AgentIdentity, grant: &AgentGrant, mut held: Held) -> Option<Held> {
        let resource = grant.spec.resource.as_str();
        let some = !held.roles.is_empty() || !held.scopes.is_empty();
        for policy in self.enforced(agent, Some(resource)) {
            let spec = &policy.spec;
            if spec.suspend == Some(true) && spec.matches.as_ref().is_some_and(|m| m.resources.is_some()) {
                return None;
            }
            let limit = spec.limits.as_ref().and_then(|l| seconds(l.token_lifetime.as_ref()));
            held.seconds = held.seconds.min(limit.unwrap_or(i64::MAX));
            let modes = |m: &Vec<crate::api::Mode>| m.contains(&mode_of(grant));
            let speaks = spec.deny.iter().filter(|d| any(d.resources.as_ref(), resource));
            for entry in speaks.filter(|d| d.modes.as_ref().is_none_or(modes)) {
                if entry.roles.is_none() && entry.scopes.is_none() {
                    return None;
                }
                held.roles.retain(|r| entry.roles.is_none() || !any(entry.roles.as_ref(), r));
                held.scopes.retain(|s| entry.scopes.is_none() || !any(entry.scopes.as_ref(), s));
            }
        }
        let ends = [held.until, self.oracle_end(agent), self.oracle_grant_end(agent, grant)];
        held.until = ends.into_iter().flatten().min();
        let left = !held.roles.is_empty() || !held.scopes.is_empty();
        (left || !some).then_some(held)
    }
}

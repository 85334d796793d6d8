//! A grant that would be held, on its way to the agent: policies take from it, and what is left may live too short for
//! a Secret.

use super::policy::{Loss, take_from};
use super::{Clock, Entitlement, Objection, Refusal};
use crate::api::Reason;
use crate::domain::{Grant, Policy};

/// What would be held, and why it is less than was asked for.
pub(super) type Entitled = (Entitlement, Option<Refusal>);

/// A grant on its way to an agent, and how long a token in a Secret must live.
pub(super) struct Delivery<'a> {
    pub grant: &'a Grant,
    pub minimum: u32,
}

/// What is left of a grant, and the policy that made its tokens' lives as short as they are.
pub(super) type Left<'a> = Result<(Entitled, Option<&'a Policy>), Refusal>;

impl Delivery<'_> {
    /// Takes away what policies deny, the oldest first.
    pub(super) fn take<'p>(
        &self,
        policies: &[&'p Policy],
        (mut held, narrowed): Entitled,
        clock: &mut Clock,
    ) -> (Left<'p>, Vec<Objection>) {
        let (mut objections, mut first, mut capped) = (Vec::new(), None, None);
        for policy in policies {
            let lifetime = held.lifetime;
            let loss = take_from(policy, self.grant, &mut held, clock);
            if held.lifetime < lifetime {
                capped = Some(*policy);
            }
            let (refusal, whole) = match loss {
                None => continue,
                Some(Loss::Whole(refusal)) => (refusal, true),
                Some(Loss::Part(refusal)) => (refusal, false),
            };
            objections.push(Objection::new(policy, Some(self.grant), refusal.clone()));
            if whole {
                return (Err(refusal), objections);
            }
            first.get_or_insert(refusal);
        }
        if let (Some(policy), Some(short)) = (capped, self.short(&held, capped))
            && objections.iter().all(|o| o.policy != policy.meta.key.name)
        {
            objections.push(Objection::new(policy, Some(self.grant), short));
        }
        // What a policy has taken is said first: it is what changed last.
        (Ok(((held, first.or(narrowed)), capped)), objections)
    }

    /// What a policy in Audit would take from what is held.
    pub(super) fn would_take(
        &self,
        policy: &Policy,
        held: &Entitlement,
        clock: &mut Clock,
    ) -> Option<Refusal> {
        if !policy.rules.concern(&self.grant.resource) {
            return None;
        }
        let mut left = held.clone();
        match take_from(policy, self.grant, &mut left, clock) {
            Some(Loss::Whole(refusal) | Loss::Part(refusal)) => Some(refusal),
            None if self.short(held, None).is_none() => self.short(&left, Some(policy)),
            None => None,
        }
    }

    /// Why a token that is held stays out of the Secret.
    pub(super) fn short(&self, held: &Entitlement, capped: Option<&Policy>) -> Option<Refusal> {
        let Self { grant, minimum } = self;
        if grant.secret_key.is_none() || held.lifetime >= *minimum {
            return None;
        }
        let (lives, resource) = (held.lifetime, &grant.resource);
        let message = match capped {
            Some(policy) => format!(
                "AgentPolicy {}: spec.limits.tokenLifetime: tokens for AgentResource {resource} live {lives}s, too \
                 short for a Secret (at least {minimum}s); leave secretKey out, or ask the policy's keeper",
                policy.meta.key.name
            ),
            None => format!(
                "spec.secretKey: tokens for AgentResource {resource} live {lives}s, too short for a Secret (at \
                 least {minimum}s); raise its maxTokenLifetime or leave secretKey out"
            ),
        };
        Some(Refusal::new(Reason::LifetimeTooShort, message))
    }
}

//! The status of a policy: whether it was read, and how many it hits.
//!
//! Invariant: a policy that can't be read is said to be so, and that what it last said stands.

use jiff::Timestamp;

use super::{Said, StatusChange, conditions};
use crate::api::{AgentPolicyStatus, Reason};
use crate::domain::seen::status_digest;
use crate::domain::{Policy, World};

/// The status of a policy, if it differs from what was seen.
#[must_use]
pub fn policy_status(
    world: &World,
    policy: &Policy,
    now: Timestamp,
) -> Option<StatusChange<AgentPolicyStatus>> {
    let name = &policy.meta.key.name;
    let (matched, tally) = (world.matched(name), world.policy_tally(name));
    let (status, reason, message) = match &policy.invalid {
        Some(problem) => (
            false,
            Reason::Invalid,
            format!(
                "{problem}; correct the field: until then what the policy last said stands, if it was ever read"
            ),
        ),
        None if policy.rules.enforced => (true, Reason::Issued, "the policy is enforced".to_owned()),
        None => (true, Reason::Issued, "the policy is in Audit: it takes nothing away".to_owned()),
    };
    let said = vec![Said { kind: "Ready", status: Some(status), reason, message }];
    let (conditions, transitions) = conditions(said, &policy.status, policy.generation, now);
    let status = AgentPolicyStatus {
        conditions,
        matched: Some(matched),
        refused: Some(tally.agents),
        refused_grants: Some(tally.grants),
        observed_generation: Some(policy.generation),
    };
    (status_digest(&status) != policy.status.digest).then_some(StatusChange { status, transitions })
}

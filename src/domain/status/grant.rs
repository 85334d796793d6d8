//! The status of a grant: how many hold it, and why others don't.
//!
//! Invariant: numbers come from the world's tally; agents are decided anew only for an example, and few of them.

use jiff::Timestamp;

use super::{Said, StatusChange, conditions};
use crate::api::{AgentGrantStatus, Reason};
use crate::domain::seen::status_digest;
use crate::domain::{Grant, World, decide};

/// The status of a grant, if it differs from what was seen.
#[must_use]
pub fn grant_status(world: &World, grant: &Grant, now: Timestamp) -> Option<StatusChange<AgentGrantStatus>> {
    let tally = world.grant_tally(&grant.meta.key);
    let (_, unknown_names) = world.selected_by(grant);
    let absent = i64::try_from(unknown_names.len()).unwrap_or(i64::MAX);
    let refused = tally.refused + absent;
    let mut reasons: Vec<_> = tally.reasons.iter().map(|(r, n)| (*r, *n)).collect();
    reasons.sort_unstable();
    let (status, reason, message) = if absent > 0 {
        let names: Vec<_> = unknown_names.iter().take(10).map(|n| &**n).collect();
        (
            false,
            Reason::AgentNotFound,
            format!(
                "spec.agents.names: AgentIdentity {} does not exist in namespace {}; the grant is held when it comes",
                names.join(", "),
                grant.meta.key.namespace
            ),
        )
    } else if let Some((reason, _)) = reasons.first().copied() {
        let detail = refusal_of_grant(world, grant, reason, now).unwrap_or_else(|| {
            let list: Vec<_> = reasons.iter().map(|(r, n)| format!("{r}: {n} agents")).collect();
            format!("{}; see the agents' condition GrantsHeld", list.join(", "))
        });
        (false, reason, detail)
    } else if tally.held == 0 {
        (false, Reason::AgentNotFound, "spec.agents: selects no agent of this namespace yet".to_owned())
    } else {
        (true, Reason::Issued, format!("held by {} agents", tally.held))
    };
    let mut said = vec![Said { kind: "Ready", status: Some(status), reason, message }];
    if tally.audited > 0 {
        let first = audited_of_grant(world, grant, now);
        let first = first.unwrap_or_else(|| "see the agents' condition PolicyCompliant".to_owned());
        said.push(Said {
            kind: "PolicyCompliant",
            status: Some(false),
            reason: Reason::PolicyDenied,
            message: format!("only audited, nothing is taken yet from {} agents: {first}", tally.audited),
        });
    }
    let (conditions, transitions) = conditions(said, &grant.status, grant.generation, now);
    let status = AgentGrantStatus {
        conditions,
        held: Some(tally.held),
        refused: Some(refused),
        observed_generation: Some(grant.generation),
    };
    (status_digest(&status) != grant.status.digest).then_some(StatusChange { status, transitions })
}

/// The message of the first agent to which a grant is refused or narrowed for this reason, and which agent that is.
fn refusal_of_grant(world: &World, grant: &Grant, reason: Reason, now: Timestamp) -> Option<String> {
    world.selected_by(grant).0.iter().take(50).find_map(|key| {
        let decision = decide(world, key, now)?;
        let of_grant = decision.grants.iter().find(|g| g.uid == grant.meta.uid)?;
        let refusal = match &decision.standing {
            decide::Standing::Refused(r) => r,
            _ => decision.trouble(world, of_grant)?,
        };
        (refusal.reason == reason)
            .then(|| format!("AgentIdentity {}: {}: {}", key.name, refusal.reason, refusal.message))
    })
}

/// What the first agent would lose of a grant to a policy in Audit.
fn audited_of_grant(world: &World, grant: &Grant, now: Timestamp) -> Option<String> {
    world.selected_by(grant).0.iter().take(50).find_map(|key| {
        let audited = decide(world, key, now)?.audited;
        let found = audited.into_iter().find(|o| o.grant.as_ref() == Some(&grant.meta.key.name))?;
        Some(format!("AgentIdentity {}: {}: {}", key.name, found.refusal.reason, found.refusal.message))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::testing::{Cluster, GRANT};

    #[test]
    fn reason_and_example_are_of_one_agent() {
        let mut c = Cluster::example();
        c.apply("{kind: AgentIdentity, metadata: {name: b, namespace: ns}, spec: {suspend: true}}");
        c.apply(&GRANT.replace("{names: [a]}", "{names: [a, b]}").replace("[reader]", "[reader, admin]"));
        c.settle();
        let grant = c.world.grant(&crate::domain::Key::new("ns", "g")).unwrap();
        let ready = &grant_status(&c.world, grant, c.now).unwrap().status.conditions[0];
        // Of the first agent, a, a role is refused.
        assert_eq!(ready.reason, "Suspended");
        assert!(ready.message.starts_with("AgentIdentity b: Suspended: "), "{}", ready.message);
    }
}

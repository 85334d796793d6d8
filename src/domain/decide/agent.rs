//! The chain of checks on an agent itself: each is named, pure, and the first that refuses decides.

use jiff::SignedDuration;

use super::{Clock, Policies, Refusal, Standing, end_of};
use crate::api::Reason;
use crate::domain::{Agent, Bound, POD, Source, World};

type Check = fn(&World, &Agent, &mut Clock) -> Option<Standing>;

/// In this order: what ends an agent first, then what cannot be told, then what refuses it.
const CHAIN: &[(&str, Check)] = &[
    ("deleting", deleting),
    ("sources", sources),
    ("namespace", namespace),
    ("over", over),
    ("blueprint", blueprint),
    ("valid", valid),
    ("secretName", secret_name),
    ("expired", expired),
    ("suspended", suspended),
    // A kill switch must not wait for what a bound kind's watch has to say.
    (POLICY, policy),
    ("bound", bound),
    ("foreign", foreign),
];

/// The name of the policies' check.
pub(super) const POLICY: &str = "policy";

/// For so long a foreign object is believed to be in the way.
const FOREIGN_FOR: SignedDuration = SignedDuration::from_secs(20);

/// How an agent stands, and the name of the check that says so; `None` if all let it pass.
pub(super) fn standing(world: &World, agent: &Agent, clock: &mut Clock) -> (Option<&'static str>, Standing) {
    let said = CHAIN.iter().find_map(|(name, check)| Some((*name, check(world, agent, clock)?)));
    said.map_or((None, Standing::Allowed), |(name, standing)| (Some(name), standing))
}

#[expect(clippy::unnecessary_wraps, reason = "the form of the checks")]
fn refuse(reason: Reason, message: String) -> Option<Standing> {
    Some(Standing::Refused(Refusal { reason, message }))
}

fn deleting(_: &World, agent: &Agent, _: &mut Clock) -> Option<Standing> {
    agent.meta.deleting.then_some(Standing::Deleting)
}

fn sources(world: &World, _: &Agent, clock: &mut Clock) -> Option<Standing> {
    let mut needed = world.core().iter().filter(|s| s.decides());
    needed.find(|s| !world.is_fresh(s, clock.now)).map(|source| {
        clock.again_in(5);
        unknown(world, source)
    })
}

fn unknown(world: &World, source: &Source) -> Standing {
    Standing::Unknown(Refusal {
        reason: Reason::Unknown,
        message: format!("the watch of {source} says nothing now: {}", world.source(source).problem()),
    })
}

fn namespace(world: &World, agent: &Agent, clock: &mut Clock) -> Option<Standing> {
    match world.namespace(&agent.meta.key.namespace) {
        Some(ns) => ns.meta.deleting.then_some(Standing::Deleting),
        // Its watch is a little behind that of the agents, or ahead at the end.
        None => {
            clock.again_in(1);
            Some(Standing::Unknown(Refusal {
                reason: Reason::Unknown,
                message: format!("namespace {} has not been seen yet", agent.meta.key.namespace),
            }))
        }
    }
}

/// What an agent is bound to for good has ended: so has the agent, whatever else would refuse it. While that can't be
/// told, nothing waits for it.
fn over(world: &World, agent: &Agent, clock: &mut Clock) -> Option<Standing> {
    let bound_to = agent.bound.as_ref()?;
    if !world.may_bind(&bound_to.kind) || !world.is_fresh(&Source::Bound(bound_to.kind.clone()), clock.now) {
        return None;
    }
    let ended = |s: &Standing| matches!(s, Standing::Orphaned { .. } | Standing::Unmade(_));
    bound(world, agent, &mut Clock { now: clock.now, until: None }).filter(ended)?;
    bound(world, agent, clock)
}

fn blueprint(world: &World, agent: &Agent, _: &mut Clock) -> Option<Standing> {
    let name = agent.blueprint.as_ref()?;
    let Some(blueprint) = world.blueprint_of(agent) else {
        let message = format!(
            "spec.blueprint: AgentBlueprint {name} does not exist; create it, or write the agent anew without it"
        );
        return match agent.made_by {
            Some(_) => Some(Standing::Unmade(Refusal::new(
                Reason::BlueprintNotFound,
                format!("AgentBlueprint {name}, from which it was made, is gone"),
            ))),
            None => refuse(Reason::BlueprintNotFound, message),
        };
    };
    if let Some(problem) = &blueprint.invalid {
        return refuse(Reason::Invalid, format!("AgentBlueprint {name}: {problem}; correct the field"));
    }
    let namespace = &agent.meta.key.namespace;
    let selected =
        world.namespace(namespace).is_some_and(|n| n.labels.matched_by(&blueprint.namespace_selector));
    if selected {
        return None;
    }
    refuse(
        Reason::NamespaceNotSelected,
        format!(
            "spec.blueprint: AgentBlueprint {name} does not select namespace {namespace}; ask the platform team to \
             label the namespace or to widen spec.namespaceSelector"
        ),
    )
}

fn valid(_: &World, agent: &Agent, _: &mut Clock) -> Option<Standing> {
    let problem = agent.invalid.as_ref()?;
    refuse(Reason::Invalid, format!("{problem}; correct the field"))
}

fn secret_name(world: &World, agent: &Agent, _: &mut Clock) -> Option<Standing> {
    if !agent.has_secret() {
        return None;
    }
    let key = agent.meta.key.sibling(agent.secret_name.clone());
    let winner = world.claimants(&key).into_iter().find(|a| !a.meta.deleting)?;
    if winner.meta.uid == agent.meta.uid {
        return None;
    }
    refuse(
        Reason::Conflict,
        format!(
            "spec.secretName: Secret {} belongs to the older AgentIdentity {}; secretName is immutable, so create \
             this agent anew with another one",
            agent.secret_name, winner.meta.key.name
        ),
    )
}

fn expired(world: &World, agent: &Agent, clock: &mut Clock) -> Option<Standing> {
    let end = end_of(world, agent)?;
    if !clock.has_come(end) {
        return None;
    }
    if let Some(ttl) = agent.ttl_after_expired
        && clock.has_come(end.checked_add(SignedDuration::from_secs(i64::from(ttl))).unwrap_or(end))
    {
        return Some(Standing::Ended);
    }
    let message = if agent.expires_at.is_some() {
        format!("spec.expiresAt: {end} is past; set a later time to renew the agent")
    } else {
        format!(
            "spec.defaults.lifetime of its blueprint: over at {end}; set spec.expiresAt to renew the agent"
        )
    };
    refuse(Reason::Expired, message)
}

fn suspended(world: &World, agent: &Agent, _: &mut Clock) -> Option<Standing> {
    if let Some(blueprint) = world.blueprint_of(agent).filter(|b| b.suspend) {
        return refuse(
            Reason::Suspended,
            format!(
                "AgentBlueprint {}: spec.suspend is true; set it to false to resume all its agents",
                blueprint.meta.key.name
            ),
        );
    }
    agent.suspend.then(|| {
        Standing::Refused(Refusal {
            reason: Reason::Suspended,
            message: "spec.suspend is true; set it to false to resume the agent".to_owned(),
        })
    })
}

fn policy(world: &World, agent: &Agent, clock: &mut Clock) -> Option<Standing> {
    Policies::of(world, agent).refuse(agent, clock).map(|o| Standing::Refused(o.refusal))
}

fn bound(world: &World, agent: &Agent, clock: &mut Clock) -> Option<Standing> {
    let bound = agent.bound.as_ref()?;
    let Bound { kind, name, .. } = bound;
    if !world.may_bind(kind) {
        return refuse(
            Reason::BoundKindNotAllowed,
            format!(
                "spec.boundObjectRef: {kind} is not among the kinds that may be bound; bind to another kind, or add \
                 it to boundKinds in agentid's configuration"
            ),
        );
    }
    let source = Source::Bound(kind.clone());
    if !world.is_fresh(&source, clock.now) {
        clock.again_in(5);
        return Some(unknown(world, &source));
    }
    let exact = agent.bound_uid();
    let Some(object) = world.bound_object(kind, &agent.meta.key.sibling(name.clone())) else {
        return absent(world, agent, bound, exact, clock);
    };
    // One that has finished is over for who was made for it, seen or not.
    let over = object.finished && agent.made_by.is_some() && exact == Some(object.meta.uid);
    if object.unselected && !over {
        clock.again_in(60);
        return refuse(
            Reason::BoundObjectNotSelected,
            format!(
                "spec.boundObjectRef: {kind} {name} exists but does not match the selector {:?}; label it {}",
                world.config().pod_selector,
                crate::api::AGENT_LABEL
            ),
        );
    }
    match exact {
        Some(uid) if uid != object.meta.uid && agent.status.bound_uid == Some(uid) => {
            Some(Standing::Orphaned {
                object: uid,
                confirmed: true,
                message: format!("{kind} {name} of UID {uid} is gone; another object has taken its name"),
            })
        }
        Some(uid) if uid != object.meta.uid => refuse(
            Reason::BoundObjectReplaced,
            format!(
                "spec.boundObjectRef.uid: {kind} {name} has UID {}, not {uid}; create the agent anew for the object \
                 of today",
                object.meta.uid
            ),
        ),
        _ if object.finished && agent.made_by.is_some() => Some(Standing::Unmade(Refusal::new(
            Reason::BoundObjectFinished,
            format!("{kind} {name} has finished; an agent that was made for it does not outlive it"),
        ))),
        _ if object.finished => refuse(
            Reason::BoundObjectFinished,
            format!("spec.boundObjectRef: {kind} {name} has finished; an agent does not outlive its work"),
        ),
        _ => None,
    }
}

fn absent(
    world: &World,
    agent: &Agent,
    bound: &Bound,
    exact: Option<crate::domain::Uid>,
    clock: &mut Clock,
) -> Option<Standing> {
    let Bound { kind, name, .. } = bound;
    if let Some(uid) = exact {
        clock.again_in(2);
        return Some(Standing::Orphaned {
            object: uid,
            confirmed: world.is_confirmed_gone(uid),
            message: format!("{kind} {name} of UID {uid} is gone"),
        });
    }
    if &**kind == POD {
        // It may be there without the label, which our watch does not show.
        clock.again_in(60);
    }
    refuse(
        Reason::BoundObjectNotFound,
        format!(
            "spec.boundObjectRef: {kind} {name} does not exist in namespace {}; the credential comes with it",
            agent.meta.key.namespace
        ),
    )
}

fn foreign(world: &World, agent: &Agent, clock: &mut Clock) -> Option<Standing> {
    if !agent.has_secret() {
        return None;
    }
    let key = agent.meta.key.sibling(agent.secret_name.clone());
    // One of our type that was not written for an agent is seen by our watch, every other is not.
    let what = match world.secret(&key) {
        Some(secret) if secret.agent.is_none() => "a Secret of type agentid.dev/credentials",
        Some(_) => return None,
        None => {
            let foreign = world.foreign(&key)?;
            // Nothing tells that it has gone. An old note is forgotten, and the next create finds out.
            if clock.has_come(foreign.checked.checked_add(FOREIGN_FOR).unwrap_or(clock.now)) {
                return None;
            }
            &foreign.what
        }
    };
    refuse(
        Reason::ForeignObject,
        format!(
            "spec.secretName: {} in namespace {} is {what} that agentid did not write, and is left alone; delete or \
             rename it, or create the agent anew with another secretName",
            key.name, key.namespace
        ),
    )
}

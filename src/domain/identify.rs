//! Which agent a pod is (design §5).
//!
//! Invariants: only a live pod that runs as the agent's service account is that agent; whom a pod names it still
//! must be; of several the most specific, and a tie is nobody; what a token of this moment names and the world does not
//! is `CallerPending` and not gone; while a watch that it takes says nothing, nobody is refused and nobody is taken for
//! another.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::maker::{Making, make};
use super::{Agent, BoundObject, Key, KindName, POD, Refusal, Source, Uid, World, decide::Standing};
use crate::api::Reason;

/// Who presents a service-account token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The service account.
    pub account: Key,
    /// Its UID.
    pub account_uid: Uid,
    /// The pod that the token is bound to.
    pub pod: Option<(Arc<str>, Uid)>,
    /// When the token was issued, if it says so: account and pod were there then.
    pub issued_at: Option<Timestamp>,
}

/// For how long after a token was issued what it names may be there and not seen yet: the watches of a busy API server
/// are seconds behind.
const UNSEEN: SignedDuration = SignedDuration::from_secs(10);

impl Caller {
    /// Why what its token names is not to be found: gone, or not seen yet.
    fn missing(&self, now: Timestamp, gone: String) -> Refusal {
        if self.issued_at.is_some_and(|at| now.duration_since(at) < UNSEEN) {
            return Refusal::new(
                Reason::CallerPending,
                format!("{gone}; or it is seen in a moment: come again"),
            );
        }
        refuse(gone)
    }
}

/// A client id that names an agent: its id, or `<namespace>/<name>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientId {
    /// By UID.
    Uid(Uid),
    /// By namespace and name.
    Name(Key),
}

impl ClientId {
    /// Reads one; `None` where it is neither.
    #[must_use]
    pub fn read(trust_domain: &str, text: &str) -> Option<Self> {
        let id = format!("spiffe://{trust_domain}/agent/");
        if let Some(uid) = text.strip_prefix(&id) {
            return uid.parse().ok().map(Self::Uid);
        }
        let (namespace, name) = text.split_once('/')?;
        let plain = |s: &str| {
            !s.is_empty()
                && s.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'.'))
        };
        (plain(namespace) && plain(name)).then(|| Self::Name(Key::new(namespace, name)))
    }

    /// Whether it names an agent.
    #[must_use]
    pub fn names(&self, agent: &Agent) -> bool {
        match self {
            Self::Uid(uid) => agent.meta.uid == *uid,
            Self::Name(key) => agent.meta.key == *key,
        }
    }
}

fn refuse(message: String) -> Refusal {
    Refusal::new(Reason::CredentialRejected, message)
}

/// Whether the service account lives; a token outlives it.
///
/// # Errors
/// `CredentialRejected`; `CallerPending` if it may not have been seen yet.
pub fn live_account(world: &World, caller: &Caller, now: Timestamp) -> Result<(), Refusal> {
    match world.account(&caller.account) {
        Some(account) if account.meta.uid == caller.account_uid => Ok(()),
        _ => Err(caller.missing(
            now,
            format!(
                "the service account {} of this token does not exist any more; use a token of today's",
                caller.account
            ),
        )),
    }
}

/// Whether a kind's watch can be believed.
///
/// # Errors
/// `Unknown`.
fn believed(world: &World, kind: &KindName, now: Timestamp) -> Result<(), Refusal> {
    let source = Source::Bound(kind.clone());
    if world.is_fresh(&source, now) {
        return Ok(());
    }
    let problem = world.source(&source).problem();
    Err(Refusal::new(Reason::Unknown, format!("the watch of {source} says nothing now: {problem}")))
}

/// The pod, if it lives and runs.
///
/// # Errors
/// `CredentialRejected`, `BoundObjectFinished`; `CallerPending` if it may not have been seen yet; `Unknown` while the
/// watch of pods says nothing.
pub fn live_pod<'w>(world: &'w World, caller: &Caller, now: Timestamp) -> Result<&'w BoundObject, Refusal> {
    let Some((name, uid)) = &caller.pod else {
        return Err(refuse(
            "the token is not bound to a pod; mount a projected serviceAccountToken volume with agentid's issuer as \
             its audience"
                .to_owned(),
        ));
    };
    let kind = KindName::from(POD);
    if !world.sees(&kind) {
        return Err(refuse(
            "no pod can be an agent here: boundKinds of the configuration lacks v1/Pod".to_owned(),
        ));
    }
    believed(world, &kind, now)?;
    let pod = world.bound_object(&kind, &caller.account.sibling(name.clone()));
    let gone = || {
        format!(
            "pod {name} of namespace {} is gone, or lacks the label {} by which pods are seen",
            caller.account.namespace,
            world.config().pod_selector
        )
    };
    let Some(pod) = pod.filter(|p| p.meta.uid == *uid) else { return Err(caller.missing(now, gone())) };
    if pod.unselected {
        return Err(refuse(gone()));
    }
    if pod.finished {
        return Err(Refusal::new(
            Reason::BoundObjectFinished,
            format!("pod {name} of namespace {} has finished", caller.account.namespace),
        ));
    }
    if pod.account.as_ref().is_some_and(|a| *a != caller.account.name) {
        return Err(refuse(format!("pod {name} does not run as the service account of the token")));
    }
    Ok(pod)
}

/// The agent that a pod is. `named` is what the request itself says.
///
/// # Errors
/// `CredentialRejected` where it is none, another, or more than one; `CallerPending` while it is being made or not seen yet,
/// and `Unknown` while a watch that it takes says nothing; `Suspended` and the like are for decide.
pub fn agent_of_pod<'w>(
    world: &'w World,
    caller: &Caller,
    named: Option<&ClientId>,
    now: Timestamp,
) -> Result<&'w Agent, Refusal> {
    live_account(world, caller, now)?;
    let pod = live_pod(world, caller, now)?;
    let Line { steps, open } = controllers(world, pod, now);
    let mut candidates = candidates(world, caller, &steps);
    let label = pod.agent.as_ref().map(|name| ClientId::Name(caller.account.sibling(name.clone())));
    // Behind an open end of the line may be whom they name.
    let beyond =
        |id: &ClientId| open.clone().filter(|_| may_be_beyond(world, caller, id)).map_or(Ok(()), Err);
    let mut chosen = named.is_some();
    if let Some(asked) = named {
        candidates.retain(|(_, a)| asked.names(a));
        if candidates.is_empty() {
            beyond(asked)?;
        }
    } else if let Some(label) = &label {
        // A label that names no agent, such as "true", only makes the pod seen.
        if candidates.iter().any(|(_, a)| label.names(a)) {
            candidates.retain(|(_, a)| label.names(a));
            chosen = true;
        } else {
            beyond(label)?;
        }
    }
    let best = candidates.iter().map(|(rank, _)| *rank).min();
    candidates.retain(|(rank, _)| Some(*rank) == best);
    // Whoever stands behind the line is it only if nobody stands further up.
    if let Some(refusal) = open
        && !chosen
        && candidates.iter().all(|(rank, _)| *rank >= steps.len())
    {
        return Err(refusal);
    }
    match candidates.as_slice() {
        [(_, agent)] => Ok(agent),
        [] if named.is_none() && matches!(make(world, &pod.meta.key).0, Making::Make(_) | Making::Later) => {
            Err(Refusal::new(
                Reason::CallerPending,
                format!("the agent of pod {} is being made; come again", pod.meta.key.name),
            ))
        }
        [] => Err(refuse(format!(
            "pod {} of service account {} is {}; an AgentIdentity needs spec.serviceAccountName: {} and, if it is \
             bound, the pod or a controller of it",
            pod.meta.key.name,
            caller.account,
            if named.is_some() { "not the agent that is named" } else { "no agent" },
            caller.account.name
        ))),
        several => {
            let mut names: Vec<_> = several.iter().map(|(_, a)| a.meta.key.name.to_string()).collect();
            names.sort_unstable();
            Err(refuse(format!(
                "pod {} may be {}; name one by client_id or by the pod's label {}",
                pod.meta.key.name,
                names.join(" or "),
                crate::api::AGENT_LABEL
            )))
        }
    }
}

/// A pod and what controls it.
struct Line {
    /// The nearest first.
    steps: Vec<(KindName, Arc<str>, Uid)>,
    /// Why it can't be told what controls the last one, if it can't.
    open: Option<Refusal>,
}

/// The pod and what controls it. Of a controller that was not seen yet it is known who it is, and not what controls it:
/// as with [`super::maker`].
fn controllers(world: &World, pod: &BoundObject, now: Timestamp) -> Line {
    let mut line =
        Line { steps: vec![(KindName::from(POD), pod.meta.key.name.clone(), pod.meta.uid)], open: None };
    let mut next = pod.controller.clone();
    while let Some(controller) = next
        && line.steps.len() < 5
    {
        let key = pod.meta.key.sibling(controller.name.clone());
        let object = world.bound_object(&controller.kind, &key).filter(|o| o.meta.uid == controller.uid);
        if world.sees(&controller.kind) {
            line.open = believed(world, &controller.kind, now).err();
            if object.is_none() && line.open.is_none() {
                line.open = Some(Refusal::new(
                    Reason::CallerPending,
                    format!(
                        "{} {} of pod {} was not seen yet; come again",
                        controller.kind, key.name, pod.meta.key.name
                    ),
                ));
            }
        }
        next = object.filter(|_| line.open.is_none()).and_then(|o| o.controller.clone());
        line.steps.push((controller.kind, controller.name, controller.uid));
    }
    line
}

/// Whether an agent that is named may be bound to what controls a pod beyond an open end of its line.
fn may_be_beyond(world: &World, caller: &Caller, id: &ClientId) -> bool {
    let agent = match id {
        ClientId::Uid(uid) => world.agent_of_uid(*uid),
        ClientId::Name(key) => world.agent(key),
    };
    agent.is_some_and(|a| {
        a.meta.key.namespace == caller.account.namespace
            && a.service_account.as_ref() == Some(&caller.account.name)
            && a.bound.is_some()
            && !a.meta.deleting
    })
}

/// The agents that a pod may be, and how near each is to it: the place of its bound object in the line, or behind
/// all of them. By index: thousands of pods of one service account may be an agent each.
fn candidates<'w>(
    world: &'w World,
    caller: &Caller,
    line: &[(KindName, Arc<str>, Uid)],
) -> Vec<(usize, &'w Agent)> {
    let account = &caller.account;
    let mut candidates = Vec::new();
    for (place, (kind, name, uid)) in line.iter().enumerate() {
        let object = account.sibling(name.clone());
        let bound = world
            .agents_bound_to(kind, &object)
            .filter(|a| a.service_account.as_ref() == Some(&account.name))
            .filter(|a| a.bound_uid().is_none_or(|exact| exact == *uid));
        candidates.extend(bound.map(|a| (place, a)));
    }
    candidates.extend(world.unbound_agents_of(account).into_iter().map(|a| (usize::MAX, a)));
    candidates.retain(|(_, a)| !a.meta.deleting);
    candidates
}

/// Why an agent may buy nothing now; `None` if it may. What can't be told is `Unknown`.
#[must_use]
pub fn standing_refusal(standing: &Standing) -> Option<Refusal> {
    match standing {
        Standing::Allowed => None,
        Standing::Refused(r) | Standing::Unknown(r) | Standing::Unmade(r) => Some(r.clone()),
        Standing::Orphaned { message, .. } => {
            Some(Refusal::new(Reason::BoundObjectNotFound, message.clone()))
        }
        Standing::Ended => Some(Refusal::new(Reason::Expired, "the agent's time is over")),
        Standing::Deleting => Some(Refusal::new(Reason::AgentNotFound, "the agent is being deleted")),
    }
}

#[cfg(test)]
mod tests;

//! One agent's work: decide, plan, apply, until the plan is empty.
//!
//! Invariants: the Secret is written before the status that speaks of it; what the API server answers is taken
//! into the world before the next look; nothing here lists.

mod bound;
mod secret;

use std::time::Instant;

use jiff::Timestamp;
use thiserror::Error;

use self::bound::{confirm, own};
pub(super) use self::secret::orphan;
use self::secret::{delete_secret, secret};
use super::context::Context;
use super::foreign;
use crate::api::Reason;
use crate::cluster::client::{CallError, Class};
use crate::cluster::wire::{Wire, WireAgent};
use crate::cluster::write::At;
use crate::domain::plan::{AgentStep, Credential, Plan, SecretStep, plan};
use crate::domain::status::{Transition, agent_status};
use crate::domain::statuslist::{Full, Indexes, StatusRef};
use crate::domain::{Decision, Key, Refusal, Source, Uid, Unfit, World, decide};
use crate::issue::MintError;

/// Why an agent's work failed; it is tried again after a pause of its own.
#[derive(Debug, Error)]
pub enum Failure {
    /// A call to the API server.
    #[error("{what}: {source}")]
    Call {
        /// Which call.
        what: &'static str,
        /// Why it failed.
        source: CallError,
    },
    /// Minting.
    #[error(transparent)]
    Mint(#[from] MintError),
    /// An answer that can't be understood.
    #[error("the API server's answer: {0}")]
    Answer(#[from] Unfit),
    /// The plan did not become empty.
    #[error("the work does not come to rest; somebody else may be changing the same object")]
    Restless,
    /// The status list is being followed by another.
    #[error(transparent)]
    Full(#[from] Full),
    /// A panic, in this agent's work alone.
    #[error("a fault of agentid's own: {0}")]
    Panic(String),
}

impl Failure {
    /// The reason, of the closed set.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Mint(e) => e.reason(),
            Self::Full(_) => Reason::IndexPending,
            _ => Reason::Internal,
        }
    }

    /// Whether an object had changed when it was written: the watch shows how, and the work is done again.
    pub(super) fn is_stale(&self) -> bool {
        matches!(self, Self::Call { source, .. } if source.class() == Class::Conflict)
    }
}

pub(super) fn call(what: &'static str) -> impl FnOnce(CallError) -> Failure {
    move |source| Failure::Call { what, source }
}

/// More rounds than any agent needs: own, confirm, look, secret, status.
const ROUNDS: usize = 8;

enum Round {
    Again,
    Rest(Option<Timestamp>),
}

/// Works on an agent until its plan is empty; says when to look again.
///
/// `since` is when it became known that there is something to do.
pub(super) async fn agent(cx: &Context, key: &Key, since: Instant) -> Result<Option<Timestamp>, Failure> {
    foreign::look_again(cx, key).await?;
    let mut looked = false;
    for _ in 0..ROUNDS {
        let now = Timestamp::now();
        let look = look(cx, &cx.world.read(), key, now)?;
        let Some(Look { decision, indexes, plan }) = look else { return Ok(None) };
        if cx.world.read().may_be_bound(&decision) {
            cx.world.write().record_bindings(&decision);
        }
        let holdings = decision.holdings(&cx.world.read());
        if cx.world.read().holdings(key) != Some(&holdings) {
            cx.world.write().record_holdings(key, holdings);
        }
        if !cx.world.read().is_counted(key, &decision.standing) {
            cx.world.write().record_standing(key, &decision.standing);
        }
        match round(cx, &decision, &indexes, &plan, &mut looked, now, since).await? {
            Round::Again => {}
            Round::Rest(wake) => return Ok(wake),
        }
    }
    Err(Failure::Restless)
}

struct Look {
    decision: Decision,
    indexes: Indexes,
    plan: Plan,
}

fn look(cx: &Context, world: &World, key: &Key, now: Timestamp) -> Result<Option<Look>, Failure> {
    let (Some(agent), Some(decision)) = (world.agent(key), decide(world, key, now)) else { return Ok(None) };
    let indexes = cx.indexes().assign(world, agent, &decision, now)?;
    let plan = plan(world, &decision, &indexes, &cx.keys().seen, now);
    Ok(plan.map(|plan| Look { decision, indexes, plan }))
}

async fn round(
    cx: &Context,
    decision: &Decision,
    indexes: &Indexes,
    plan: &Plan,
    looked: &mut bool,
    now: Timestamp,
    since: Instant,
) -> Result<Round, Failure> {
    match &plan.agent {
        AgentStep::Keep => {}
        AgentStep::Own(owner) => return own(cx, decision, *owner).await,
        AgentStep::Confirm(uid) => {
            if confirm(cx, &decision.agent, Some(*uid)).await? {
                return Ok(Round::Again);
            }
            return Ok(Round::Rest(plan.wake));
        }
        AgentStep::Look => {
            if !*looked {
                *looked = true;
                if confirm(cx, &decision.agent, None).await? {
                    return Ok(Round::Again);
                }
            }
        }
        AgentStep::Delete(refusal) => {
            if let SecretStep::Delete(uid) = plan.secret {
                delete_secret(cx, decision, uid).await?;
                cx.metrics.withdrawn(since);
            }
            let seen = cx.world.read().agent(&decision.agent).map(|a| At::seen(&a.meta));
            let Some(seen) = seen.filter(|at| at.uid == decision.uid) else { return Ok(Round::Rest(None)) };
            cx.writer.delete_agent(&decision.agent, seen).await.map_err(call("delete the agent"))?;
            cx.world.write().remove(&Source::Agents, &decision.agent, decision.uid, 0);
            tracing::info!(agent = %decision.agent, reason = %refusal.reason, why = %refusal.message, "agent deleted");
            cx.metrics.deleted(refusal.reason);
            return Ok(Round::Rest(None));
        }
    }
    if plan.secret != SecretStep::Keep {
        if indexes.widened && plan.credential == Credential::Fresh {
            status(cx, decision, indexes, &plan.credential, now).await?;
        }
        return match secret(cx, decision, plan, now).await {
            Ok(()) => {
                if plan.secret.withdraws() {
                    cx.metrics.withdrawn(since);
                }
                Ok(Round::Again)
            }
            Err(failure) => {
                report(cx, decision, indexes, &failure, now).await;
                Err(failure)
            }
        };
    }
    status(cx, decision, indexes, &plan.credential, now).await?;
    Ok(Round::Rest(plan.wake))
}

/// Says on the agent itself why its Secret can't be written, if trying again won't help.
async fn report(cx: &Context, decision: &Decision, indexes: &Indexes, failure: &Failure, now: Timestamp) {
    let Failure::Call { what, source } = failure else { return };
    if source.class().is_transient() || matches!(source.class(), Class::Conflict | Class::AlreadyExists) {
        return;
    }
    if source.message().contains("being terminated") {
        return;
    }
    let refusal = Refusal::new(
        Reason::Internal,
        format!("{what}: {}; see agentid's RBAC rules, quotas and admission policies", source.message()),
    );
    if let Err(e) = status(cx, decision, indexes, &Credential::Absent(refusal), now).await {
        tracing::debug!(agent = %decision.agent, error = %e, "the failure could not be written either");
    }
}

async fn status(
    cx: &Context,
    decision: &Decision,
    indexes: &Indexes,
    credential: &Credential,
    now: Timestamp,
) -> Result<(), Failure> {
    let change = {
        let world = cx.world.read();
        let change = agent_status(&world, decision, indexes, credential, now);
        // Of the same moment: the change is what differs from this very status.
        change.zip(world.agent(&decision.agent).map(|a| At::seen(&a.meta)))
    };
    let Some((change, seen)) = change else { return Ok(()) };
    match cx.writer.status::<WireAgent>("agentidentities", &decision.agent, seen, &change.status).await {
        Ok(object) => {
            let object = object.object(&Source::Agents)?;
            let recorded = change.status.grants.iter().filter_map(|g| {
                Some((g.uid.parse().ok()?, StatusRef::try_from(g.status_index.as_ref()?).ok()?))
            });
            cx.indexes().recorded(decision.uid, recorded, object.meta().version);
            cx.world.answer(object);
            tell(cx, &decision.agent, decision.uid, &change.transitions);
            Ok(())
        }
        // It is gone, or another agent has its name: the watch will say.
        Err(e) if matches!(e.class(), Class::NotFound | Class::Invalid | Class::Conflict) => {
            tracing::debug!(agent = %decision.agent, error = %e, "status not written");
            if e.class() == Class::NotFound {
                return Ok(());
            }
            Err(call("write the status")(e))
        }
        Err(e) => Err(call("write the status")(e)),
    }
}

fn tell(cx: &Context, key: &Key, uid: Uid, transitions: &[Transition]) {
    for t in transitions {
        cx.metrics.transition(t.reason);
        let blueprint = if t.common { blueprint(cx, key) } else { None };
        match blueprint {
            // Thousands say the same at once, and it is told once.
            Some((blueprint, uid)) => {
                let note = format!("its agents in namespace {}: {}", key.namespace, t.note);
                cx.tell("AgentBlueprint", &blueprint, uid, &Transition { note, ..t.clone() });
            }
            None => cx.tell("AgentIdentity", key, uid, t),
        }
    }
}

fn blueprint(cx: &Context, agent: &Key) -> Option<(Key, Uid)> {
    let world = cx.world.read();
    let meta = &world.blueprint_of(world.agent(agent)?)?.meta;
    Some((meta.key.clone(), meta.uid))
}

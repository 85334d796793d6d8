//! What exists, what is allowed, what must change. Pure: no I/O, no clock, no randomness; `now` is an
//! argument everywhere.

pub mod agent_user;
pub mod bindings;
pub mod certificates;
pub mod choose;
pub mod decide;
mod digest;
pub mod guardrails;
pub mod identify;
pub mod keyring;
mod kubeconfig;
pub mod maker;
mod names;
pub mod plan;
pub mod policy;
pub mod presented;
#[cfg(test)]
mod properties;
mod queue;
pub mod schedule;
mod seen;
#[cfg(test)]
mod sizes;
pub mod status;
pub mod statuslist;
#[cfg(test)]
pub(crate) mod testing;
mod wakes;
mod world;

pub use decide::{Decision, Entitlement, GrantDecision, Objection, Refusal, Standing, decide};
pub use digest::{Digest, Hasher};
pub use names::{Key, Uid, UidError};
pub use policy::Policy;
pub use queue::{Lane, Queue};
pub use seen::*;
pub use statuslist::{ListId, StatusRef};
pub use wakes::Wakes;
pub use world::{
    BlueprintTally, Contest, Foreign, GrantTally, Holding, Holdings, Lost, Object, Origin, PolicyTally,
    RecordedBy, Renewals, Source, SourceState, Totals, Unit, Unmade, View, Work, World,
};

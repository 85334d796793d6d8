//! What exists, what is allowed, what must change. Pure: no I/O, no clock, no randomness; `now` is an
//! argument everywhere.

pub mod decide;
mod digest;
mod names;
pub mod plan;
mod queue;
pub mod schedule;
mod seen;
pub mod status;
mod world;

pub use decide::{Decision, Entitlement, GrantDecision, Refusal, Standing, decide};
pub use digest::{Digest, Hasher};
pub use names::{Key, Uid, UidError};
pub use queue::{Lane, Queue};
pub use seen::*;
pub use world::{Foreign, GrantTally, Holding, Lost, Object, Origin, Source, SourceState, Work, World};

//! What every port and every fetch has in common: listeners with bounds, TLS, guarded fetches, rate limits, the
//! admin port. Knows nothing of agents.
//!
//! Invariant: nothing that comes from outside is read without a limit on its size and its time.

pub mod admin;
pub mod fetch;
pub mod listen;
pub mod rate;
pub mod signal;
mod source;
pub mod tls;

pub use source::Source;

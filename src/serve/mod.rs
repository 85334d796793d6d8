//! The token service over HTTP: metadata, tokens, introspection, status lists, verification for proxies.
//!
//! Invariants: it writes nothing into the cluster but reviews; every answer comes from the same decide as the
//! operator's; a World staler than `maxStale` fails closed.

pub mod callers;
mod fault;
mod form;
mod keysets;
pub mod users;

pub use form::{Form, parse_form};

//! The API server: clients, watches, writes, the lease, the key store.

pub mod client;
pub mod events;
pub mod lease;
pub mod watch;

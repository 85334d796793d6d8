//! The API server: clients, watches, writes, the lease, the key store.

pub mod client;
pub mod events;
pub mod feed;
pub mod keystore;
pub mod lease;
pub mod snapshot;
pub mod watch;
pub mod wire;
pub mod write;

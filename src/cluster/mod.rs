//! The API server: clients, watches, writes, the lease, the key store.

pub mod certstore;
pub mod client;
pub mod discovery;
pub mod events;
pub mod feed;
pub mod keystore;
pub mod keywatch;
pub mod lease;
pub mod reviews;
pub mod snapshot;
pub mod watch;
pub mod wire;
pub mod write;

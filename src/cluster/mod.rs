//! The API server: clients, watches, writes, the lease, the key store.

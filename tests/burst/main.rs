//! Bursts: thousands of pods and hundreds of workloads that become agents at once, get exactly what is theirs, and leave
//! nothing. One after another, each with an operator of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/client.rs"]
mod client;
#[path = "../common/mod.rs"]
mod common;
mod kit;
mod pods;
#[path = "../common/serve.rs"]
mod service;
mod workloads;

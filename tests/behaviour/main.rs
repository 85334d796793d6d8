//! What the operator does, seen through a real API server: from YAML to a verified credential and back.
//!
//! One operator serves all tests of this binary; each test has a namespace of its own, and names outside
//! namespaces contain it. Faults (killed processes, lost API servers, damaged key rings) have their own tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod agent;
mod agent_user;
mod answers;
mod blueprint;
mod bound;
mod bound_workload;
mod conflict;
mod doctor;
mod drift;
mod foreign;
mod grant;
mod grant_time;
mod held_off;
mod issue;
mod kit;
mod kubernetes;
mod plugin;
mod policy;
mod renewal;
mod tell;
mod trust;
mod unbound;
mod unreadable;
mod yaml;

//! The token service on a real API server, beside a real operator: tokens, checks, revocation, bad input.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod agent_user;
mod bad_connections;
mod bad_form;
mod bad_kit;
mod bad_signed;
mod bad_tokens;
mod blueprint;
mod chain;
mod checks;
mod clients;
#[path = "../common/mod.rs"]
mod common;
mod delegation;
mod forge;
mod identity;
mod kit;
mod login;
#[path = "../common/metrics.rs"]
mod metrics;
mod nginx;
mod observed;
mod own;
mod policy;
mod record;
#[path = "../common/serve.rs"]
mod service;

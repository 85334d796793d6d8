//! The token service on a real API server, beside a real operator: tokens, checks, revocation, bad input.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bad_connections;
mod bad_form;
mod bad_kit;
mod bad_requests;
mod bad_tokens;
mod bad_wire;
mod chain;
mod checks;
mod clients;
#[path = "../common/mod.rs"]
mod common;
mod delegation;
mod identity;
mod kit;
mod own;
mod policy;
#[path = "../common/serve.rs"]
mod service;

//! The chart: what it renders and refuses, and that what it installs on a real API server is all that the two processes
//! need, and no more. On a control plane of its own, since it holds for a whole cluster.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod flow;
mod helm;
mod installed;
mod people;
mod render;
mod rights;
#[path = "../common/serve.rs"]
mod service;
mod story;

//! Chaos: agents, pods, grants, allowances and policies come and go by the thousand while the API server, etcd, the
//! operators, the token service and their clocks break; and in the end nothing is left behind, nobody is lost, and no
//! token that was revoked is valid anywhere. Everything is drawn from a seed (docs/benchmarks.md).
//!
//! `make chaos` is the whole run; `cargo test` has a short one of the same, with every kind of fault.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod act;
mod check;
#[path = "../common/mod.rs"]
mod common;
mod crew;
mod dice;
mod draw;
mod judge;
mod model;
mod record;
mod report;
mod run;
mod schedule;
#[path = "../common/serve.rs"]
mod service;
mod taken;
mod tokens;
mod world;

use std::time::Duration;

use schedule::{Schedule, Size};

/// A number of the environment.
fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) if !text.is_empty() => {
            text.parse().unwrap_or_else(|_| panic!("{name}={text}: not a number"))
        }
        _ => default,
    }
}

/// 300 events and one fault of each kind.
#[tokio::test(flavor = "multi_thread")]
async fn a_short_run() {
    let size = Size { events: 300, namespaces: 4, alive: 60, spread: Duration::from_secs(50), faults: 7 };
    let schedule = Schedule::new(number("SEED", 6), size);
    assert!(run::run(&schedule, Duration::from_secs(120), false).await, "see above");
}

/// `make chaos`: CHAOS_EVENTS events in CHAOS_MINUTES at most, by SEED.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes ten minutes: make chaos"]
async fn the_whole_run() {
    let events = usize::try_from(number("CHAOS_EVENTS", 20_000)).unwrap();
    let bound = Duration::from_secs(60 * number("CHAOS_MINUTES", 10));
    let any = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() % 100_000;
    // What the machine can't do in time shows as a finding.
    let spread = bound * 8 / 10;
    let size = Size {
        events,
        namespaces: 20,
        alive: (events / 25).clamp(60, 800),
        spread,
        faults: usize::try_from(spread.as_secs() / 20).unwrap().max(7),
    };
    let schedule = Schedule::new(number("SEED", any), size);
    assert!(run::run(&schedule, bound, true).await, "see above");
}

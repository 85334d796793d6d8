//! `make bench`: the figures of docs/benchmarks.md, measured on a real control plane with the release build of
//! the operator as a process of its own.
//!
//! Invariant: whatever way it ends (done, failed, Ctrl-C), what it made is deleted and what it started stops.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a benchmark that can't measure ends

#[path = "../../tests/common/client.rs"]
mod client;
#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../../tests/common/serve.rs"]
mod service;

mod bed;
mod burst;
mod create;
mod fleet;
mod image;
mod report;
mod rest;
mod revoke;
mod serve;
mod statuslist;
mod suspend;
mod takeover;
mod watch;
mod writes;

use std::process::ExitCode;

use report::{Report, say};

fn main() -> ExitCode {
    // `cargo bench` adds flags of its own.
    let only = std::env::args().skip(1).find(|a| !a.starts_with('-') && !a.is_empty());
    let mut report = match Report::new(only) {
        Ok(report) => report,
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    // Dropped in either case, with all that it made.
    let done = runtime.block_on(async {
        tokio::select! {
            () = run(&mut report) => true,
            _ = tokio::signal::ctrl_c() => false,
        }
    });
    report.print();
    if done { ExitCode::SUCCESS } else { ExitCode::from(130) }
}

async fn run(report: &mut Report) {
    // Need no cluster.
    image::size(report);
    if report.wants(&["statuslist_bytes", "statuslist_ms"]) {
        statuslist::a_million(report).await;
    }
    if !report.wants_others(&["image_bytes", "statuslist_bytes", "statuslist_ms"]) {
        return;
    }
    let bed = bed::Bed::new().await;
    create::rate(&bed, report).await;
    create::latency(&bed, report).await;
    burst::burst(&bed, report).await;
    writes::renewals(&bed, report).await;
    fleet::foreign(&bed, report).await;
    fleet::ten_thousand(&bed, report).await;
    rest::rest(&bed, report).await;
    takeover::takeover(&bed, report).await;
    serve::tokens(&bed, report).await;
    revoke::revoke(&bed, report).await;
    suspend::suspend(&bed, report).await;
    say("done; deleting what was made");
}

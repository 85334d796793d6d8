//! The program `agentid`: installs the one crypto provider, reads the command line and runs the command.

use std::process::ExitCode;

use agentid::cli;

/// Requests and watches make and drop many small things on several threads (docs/decisions/018-allocator.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    agentid::crypto::install_provider();
    cli::run(cli::parse())
}

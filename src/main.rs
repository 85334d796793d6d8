//! The program `agentid`: reads the command line and runs the command.

use std::process::ExitCode;

use agentid::cli::{self, Cli};
use clap::Parser;

fn main() -> ExitCode {
    cli::run(Cli::parse())
}

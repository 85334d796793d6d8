//! The program `agentid`: installs the one crypto provider, reads the command line and runs the command.

use std::process::ExitCode;

use agentid::cli::{self, Cli};
use clap::Parser;

fn main() -> ExitCode {
    agentid::crypto::install_provider();
    cli::run(Cli::parse())
}

//! The command line: one file per command.
//!
//! Invariant: a command writes what was asked for to standard output and everything else to standard error;
//! its exit code is 0 if it did what was asked, 1 if not (one line `error: …` says why), 2 if it was called
//! wrongly.

pub mod crds;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use thiserror::Error;

/// An identity of its own for every AI agent on Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "agentid", version, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the CustomResourceDefinitions, to install them with kubectl
    Crds(crds::Crds),
}

/// Why a command did not do what was asked.
#[derive(Debug, Error)]
pub enum CliError {
    /// Of `agentid crds`.
    #[error(transparent)]
    Crds(#[from] crds::CrdsError),
}

/// Runs the command and reports its error, if any.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    let done: Result<(), CliError> = match cli.command {
        Command::Crds(command) => command.run().map_err(CliError::from),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}

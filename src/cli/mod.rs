//! The command line: one file per command.
//!
//! Invariant: a command writes what was asked for to standard output and everything else to standard error;
//! its exit code is 0 if it did what was asked, 1 if not (one line `error: …` says why), 2 if it was called
//! wrongly; those that talk to the token service tell a refusal (3), no answer (4) and a missing credential (5) apart.

pub mod admission;
mod connection;
pub mod crds;
pub mod doctor;
pub mod generated;
pub mod keys;
pub mod kube_auth_config;
mod look;
pub mod operator;
pub mod policy;
pub mod process;
pub mod publish;
mod record;
pub mod serve;
pub mod server;
pub mod sidecar;
pub mod suspend;
mod text;
pub mod token;
pub mod trace;
pub mod tree;
pub mod unused;
pub mod why;

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
// A text on a variant would take the place of the command's own, which says more.
#[allow(missing_docs)]
pub enum Command {
    Admission(admission::AdmissionArgs),
    Crds(crds::Crds),
    Doctor(doctor::DoctorArgs),
    Keys(keys::KeysArgs),
    KubeAuthConfig(kube_auth_config::KubeAuthConfigArgs),
    Operator(operator::OperatorArgs),
    Policy(policy::PolicyArgs),
    Serve(serve::ServeArgs),
    Publish(publish::PublishArgs),
    Resume(suspend::ResumeArgs),
    Sidecar(sidecar::SidecarArgs),
    SidecarReady(sidecar::ReadyArgs),
    Suspend(suspend::SuspendArgs),
    Token(token::TokenArgs),
    Trace(trace::TraceArgs),
    Tree(tree::TreeArgs),
    Unused(unused::UnusedArgs),
    Why(why::WhyArgs),
}

/// Why a command did not do what was asked.
#[derive(Debug, Error)]
pub enum CliError {
    /// Of `agentid admission`.
    #[error(transparent)]
    Admission(#[from] admission::AdmissionError),
    /// Of `agentid crds`.
    #[error(transparent)]
    Crds(#[from] generated::GeneratedError),
    /// Of `agentid doctor`.
    #[error(transparent)]
    Doctor(#[from] doctor::DoctorError),
    /// Of `agentid keys`.
    #[error(transparent)]
    Keys(#[from] keys::KeysError),
    /// Of `agentid kube-auth-config`.
    #[error(transparent)]
    KubeAuthConfig(#[from] kube_auth_config::KubeAuthConfigError),
    /// Of `agentid operator`.
    #[error(transparent)]
    Operator(#[from] operator::RunError),
    /// Of `agentid policy`.
    #[error(transparent)]
    Policy(#[from] policy::PolicyError),
    /// Of `agentid serve`.
    #[error(transparent)]
    Serve(#[from] serve::RunError),
    /// Of `agentid publish`.
    #[error(transparent)]
    Publish(#[from] publish::PublishError),
    /// Of `agentid sidecar` and `agentid sidecar-ready`.
    #[error(transparent)]
    Sidecar(#[from] sidecar::SidecarError),
    /// Of `agentid suspend` and `agentid resume`.
    #[error(transparent)]
    Suspend(#[from] suspend::SuspendError),
    /// Of `agentid token`.
    #[error(transparent)]
    Token(#[from] token::TokenError),
    /// Of `agentid trace`.
    #[error(transparent)]
    Trace(#[from] trace::TraceError),
    /// Of `agentid tree`.
    #[error(transparent)]
    Tree(#[from] tree::TreeError),
    /// Of `agentid unused`.
    #[error(transparent)]
    Unused(#[from] unused::UnusedError),
    /// Of `agentid why`.
    #[error(transparent)]
    Why(#[from] why::WhyError),
    /// No runtime could be started.
    #[error("no runtime: {0}")]
    Runtime(std::io::Error),
}

impl CliError {
    /// 1, but for the commands whose help names others.
    const fn exit_code(&self) -> u8 {
        match self {
            Self::Sidecar(error) => error.exit_code(),
            Self::Token(token::TokenError::Server(error)) => error.exit_code(),
            _ => 1,
        }
    }
}

/// Runs the command and reports its error, if any.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    let done: Result<(), CliError> = match cli.command {
        Command::Admission(command) => command.run().map_err(CliError::from),
        Command::Crds(command) => command.run().map_err(CliError::from),
        Command::Doctor(command) => wait(command.run()),
        Command::Keys(command) => wait(command.run()),
        Command::KubeAuthConfig(command) => wait(command.run()),
        Command::Operator(command) => wait(command.run()),
        Command::Policy(command) => wait(command.run()),
        Command::Serve(command) => wait(command.run()),
        Command::Publish(command) => wait(command.run()),
        Command::Resume(command) => wait(command.run()),
        Command::Sidecar(command) => wait(command.run()),
        Command::SidecarReady(command) => command.run().map_err(CliError::from),
        Command::Suspend(command) => wait(command.run()),
        Command::Token(command) => wait(command.run()),
        Command::Trace(command) => wait(command.run()),
        Command::Tree(command) => wait(command.run()),
        Command::Unused(command) => wait(command.run()),
        Command::Why(command) => wait(command.run()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// Runs a command that waits for the cluster.
fn wait<E: Into<CliError>>(work: impl Future<Output = Result<(), E>>) -> Result<(), CliError> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(CliError::Runtime)?;
    let done = runtime.block_on(work).map_err(Into::into);
    // What is still under way ends with the process.
    runtime.shutdown_background();
    done
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

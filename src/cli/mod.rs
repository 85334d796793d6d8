//! The command line: one file per command.
//!
//! Invariant: a command writes what was asked for to standard output and everything else to standard error;
//! its exit code is 0 if it did what was asked, 1 if not (one line `error: …` says why), 2 if it was called
//! wrongly; those that talk to the token service tell a refusal (3), no answer (4) and a missing credential (5) apart.

pub mod admission;
mod colour;
pub mod completion;
mod confirm;
mod connection;
pub mod crds;
pub mod doctor;
pub mod generated;
pub mod init;
pub mod keys;
pub mod kube_auth_config;
mod look;
pub mod man;
pub mod mount;
pub mod operator;
mod pod;
pub mod policy;
pub mod process;
mod progress;
pub mod publish;
mod record;
pub mod rotate;
pub mod serve;
pub mod server;
pub mod sidecar;
pub mod suspend;
mod text;
pub mod token;
pub mod trace;
pub mod tree;
pub mod uninstall;
pub mod unused;
mod whom;
pub mod why;

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
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
    #[command(name = "__complete", hide = true)]
    Complete(completion::CompleteArgs),
    Completion(completion::CompletionArgs),
    Crds(crds::Crds),
    Doctor(doctor::DoctorArgs),
    Init(init::InitArgs),
    Keys(keys::KeysArgs),
    KubeAuthConfig(kube_auth_config::KubeAuthConfigArgs),
    Man(man::ManArgs),
    Mount(mount::MountArgs),
    Operator(operator::OperatorArgs),
    Policy(policy::PolicyArgs),
    Serve(serve::ServeArgs),
    Publish(publish::PublishArgs),
    Resume(suspend::ResumeArgs),
    Rotate(rotate::RotateArgs),
    Sidecar(sidecar::SidecarArgs),
    SidecarReady(sidecar::ReadyArgs),
    Suspend(suspend::SuspendArgs),
    Token(token::TokenArgs),
    Trace(trace::TraceArgs),
    Tree(tree::TreeArgs),
    Uninstall(uninstall::UninstallArgs),
    Unused(unused::UnusedArgs),
    Why(why::WhyArgs),
}

/// Why a command did not do what was asked.
#[derive(Debug, Error)]
pub enum CliError {
    /// Of `agentid admission`.
    #[error(transparent)]
    Admission(#[from] admission::AdmissionError),
    /// Of `agentid completion`.
    #[error(transparent)]
    Completion(#[from] look::LookError),
    /// Of `agentid crds`.
    #[error(transparent)]
    Crds(#[from] generated::GeneratedError),
    /// Of `agentid doctor`.
    #[error(transparent)]
    Doctor(#[from] doctor::DoctorError),
    /// Of `agentid init`.
    #[error(transparent)]
    Init(#[from] init::InitError),
    /// Of `agentid keys`.
    #[error(transparent)]
    Keys(#[from] keys::KeysError),
    /// Of `agentid kube-auth-config`.
    #[error(transparent)]
    KubeAuthConfig(#[from] kube_auth_config::KubeAuthConfigError),
    /// Of `agentid man`.
    #[error(transparent)]
    Man(#[from] man::ManError),
    /// Of `agentid mount`.
    #[error(transparent)]
    Mount(#[from] mount::MountError),
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
    /// Of `agentid rotate`.
    #[error(transparent)]
    Rotate(#[from] rotate::RotateError),
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
    /// Of `agentid uninstall`.
    #[error(transparent)]
    Uninstall(#[from] uninstall::UninstallError),
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

/// The name under which kubectl finds the program as its plugin.
const PLUGIN: &str = "kubectl-agentid";

/// The command line's definition; `plugin`: as it is called through kubectl.
pub fn command(plugin: bool) -> clap::Command {
    let command = Cli::command();
    if !plugin {
        return command;
    }
    let names: Vec<_> = command.get_subcommands().map(|s| s.get_name().to_owned()).collect();
    through_kubectl(command.bin_name("kubectl agentid").display_name("kubectl agentid"), &names)
}

/// Examples say `kubectl agentid` where they name a command of ours.
fn through_kubectl(mut command: clap::Command, names: &[String]) -> clap::Command {
    if let Some(examples) = command.get_after_help().map(ToString::to_string) {
        let said = names.iter().fold(examples, |text, name| {
            [" ", "("].iter().fold(text, |text, before| {
                text.replace(&format!("{before}agentid {name}"), &format!("{before}kubectl agentid {name}"))
            })
        });
        command = command.after_help(said);
    }
    command.mut_subcommands(|sub| through_kubectl(sub, names))
}

/// Whether a program of this name is kubectl's plugin.
fn is_plugin(program: Option<&OsStr>) -> bool {
    program.map(Path::new).and_then(Path::file_stem).is_some_and(|name| name == PLUGIN)
}

/// Reads the command line; ends the process where it is wrong, or help is asked for.
#[must_use]
pub fn parse() -> Cli {
    let words: Vec<_> = std::env::args_os().collect();
    let mut command = command(is_plugin(words.first().map(|w| &**w)));
    let matches = command.get_matches_mut();
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut command).exit())
}

/// Runs the command and reports its error, if any.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    let done: Result<(), CliError> = match cli.command {
        Command::Admission(command) => command.run().map_err(CliError::from),
        Command::Complete(complete) => wait(complete.run(command(false))),
        Command::Completion(completion) => completion.run(command(false)).map_err(CliError::from),
        Command::Crds(command) => command.run().map_err(CliError::from),
        Command::Doctor(command) => wait(command.run()),
        Command::Init(command) => command.run().map_err(CliError::from),
        Command::Keys(command) => wait(command.run()),
        Command::KubeAuthConfig(command) => wait(command.run()),
        Command::Man(man) => man.run(command(false)).map_err(CliError::from),
        Command::Mount(command) => wait(command.run()),
        Command::Operator(command) => wait(command.run()),
        Command::Policy(command) => wait(command.run()),
        Command::Serve(command) => wait(command.run()),
        Command::Publish(command) => wait(command.run()),
        Command::Resume(command) => wait(command.run()),
        Command::Rotate(command) => wait(command.run()),
        Command::Sidecar(command) => wait(command.run()),
        Command::SidecarReady(command) => command.run().map_err(CliError::from),
        Command::Suspend(command) => wait(command.run()),
        Command::Token(command) => wait(command.run()),
        Command::Trace(command) => wait(command.run()),
        Command::Tree(command) => wait(command.run()),
        Command::Uninstall(command) => wait(command.run()),
        Command::Unused(command) => wait(command.run()),
        Command::Why(command) => wait(command.run()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{} {error}", colour::error());
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
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        command(false).debug_assert();
        command(true).debug_assert();
    }

    #[test]
    fn as_a_plugin_it_calls_itself_as_it_was_called() {
        for (program, plugin) in [
            ("/usr/local/bin/kubectl-agentid", true),
            ("kubectl-agentid.exe", true),
            ("agentid", false),
            ("/opt/agentid/kubectl-agentid-old", false),
        ] {
            assert_eq!(is_plugin(Some(OsStr::new(program))), plugin, "{program}");
        }
        let help = |words: &[&str]| command(true).try_get_matches_from(words).unwrap_err().to_string();
        let usage = help(&["kubectl-agentid", "keys", "revoke"]);
        assert!(usage.contains("Usage: kubectl agentid keys revoke"), "{usage}");
        let text = help(&["kubectl-agentid", "tree", "--help"]);
        assert!(text.contains("Usage: kubectl agentid tree"), "{text}");
        assert!(text.contains("\n  kubectl agentid tree -n support"), "{text}");
        assert!(!text.contains("kubectl kubectl"), "{text}");
    }

    #[test]
    fn a_key_id_may_begin_with_a_hyphen() {
        for words in [["-dKb8", "--dry-run"].as_slice(), &["--yes", "-dKb8"], &["--yes", "--", "-yes"]] {
            let line = ["agentid", "keys", "revoke"].iter().chain(words);
            assert!(Cli::try_parse_from(line).is_ok(), "{words:?}");
        }
    }

    #[test]
    fn where_a_namespace_is_asked_for_it_is_asked_for_as_kubectl_does() {
        fn look(command: &clap::Command) {
            for arg in command.get_arguments() {
                match (arg.get_long(), arg.get_short()) {
                    (Some("namespace"), short) => assert_eq!(short, Some('n'), "{}", command.get_name()),
                    (Some("output"), short) => assert_eq!(short, Some('o'), "{}", command.get_name()),
                    _ => {}
                }
            }
            command.get_subcommands().for_each(look);
        }
        look(&command(false));
    }
}

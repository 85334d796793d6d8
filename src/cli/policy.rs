//! `agentid policy`: who would lose what to a policy, before it is applied.
//!
//! Invariant: both answers are [`decide`](fn@crate::domain::decide)'s, of one world that is listed once; nothing is
//! written.

mod compare;
mod documents;
mod print;
#[cfg(test)]
mod tests;

use std::io::{self, Read};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use thiserror::Error;

use self::compare::{Summary, compare};
use self::documents::DocumentError;
use super::connection::Connection;
use super::look::{LookError, Output, print_objects};
use crate::api::{ConfigError, Configuration};
use crate::cluster::client::{ClientError, connect};
use crate::cluster::snapshot::{WholeError, whole};

/// Look at what policies do.
#[derive(Debug, Args)]
pub struct PolicyArgs {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Say who would lose what to policies that are not applied yet
    Test(TestArgs),
}

/// Say who would lose what to policies that are not applied yet.
///
/// The cluster is read once and nothing is written. Every agent is decided twice, with the policies as they are and
/// with those of the files put in, by the same rules as the operator's. A policy of the same name is replaced. One in
/// Audit is tested as if it were enforced. The exit code is 0 whether there are losses or not, unless --fail-on-loss
/// is given.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  agentid policy test -f policy.yaml
  kustomize build policies | agentid policy test -f - --fail-on-loss
  agentid policy test -f policy.yaml -o json | jq '.losses[] | .namespace + \"/\" + .agent'")]
pub struct TestArgs {
    /// A file of AgentPolicies, one or several documents; - for standard input. May be given several times
    #[arg(long = "filename", short, value_name = "FILE", required = true)]
    filename: Vec<PathBuf>,
    /// How to print the answer
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Fail (exit code 1) if anybody would lose anything, or if that can't be told of all agents
    #[arg(long)]
    fail_on_loss: bool,
    /// The operator's configuration file; the defaults when absent
    #[arg(long, value_name = "FILE", env = "AGENTID_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

/// Why there is no answer, or one that was asked to be an error.
#[derive(Debug, Error)]
pub enum PolicyError {
    /// A file can't be read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The configuration can't be used.
    #[error("{path}: {source}")]
    Config {
        /// The file.
        path: String,
        /// Why.
        source: ConfigError,
    },
    /// A document is no policy.
    #[error("{path}: {source}")]
    Document {
        /// The file.
        path: String,
        /// Why.
        source: DocumentError,
    },
    /// No cluster.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The cluster can't be looked at.
    #[error(transparent)]
    Look(#[from] WholeError),
    /// `--fail-on-loss`.
    #[error("{0} agents would lose something")]
    Loss(usize),
    /// `--fail-on-loss`, and not all could be seen.
    #[error("of {0} agents it can't be told whether they would lose something: see the notes")]
    Untold(usize),
    /// Standard output can't be written.
    #[error(transparent)]
    Print(#[from] LookError),
}

impl PolicyArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub async fn run(self) -> Result<(), PolicyError> {
        match self.command {
            PolicyCommand::Test(test) => test.run().await,
        }
    }
}

impl TestArgs {
    async fn run(self) -> Result<(), PolicyError> {
        let config = match &self.config {
            Some(path) => {
                let (path, text) = read(path)?;
                Some(Configuration::from_yaml(&text).map_err(|source| PolicyError::Config { path, source })?)
            }
            None => None,
        };
        let mut policies = Vec::new();
        for path in &self.filename {
            let (path, text) = read(path)?;
            let read = documents::read(&text).map_err(|source| PolicyError::Document { path, source })?;
            policies.extend(read);
        }
        let assumed = config.is_none();
        let clients = connect(&self.connection.options()).await?;
        let seen = whole(&clients.write, config).await?;
        let report = compare(seen, &policies, assumed, Timestamp::now());
        print_objects(self.output, &report, compare::Report::names, compare::Report::text)?;
        verdict(&report.summary, self.fail_on_loss)
    }
}

/// What the command's end says; `strict`: `--fail-on-loss`.
const fn verdict(summary: &Summary, strict: bool) -> Result<(), PolicyError> {
    match (summary.agents_losing, summary.agents_unknown) {
        (0, 0) => Ok(()),
        _ if !strict => Ok(()),
        (0, n) => Err(PolicyError::Untold(n)),
        (n, _) => Err(PolicyError::Loss(n)),
    }
}

/// The name of a file for people, and what is in it; `-` is standard input.
fn read(path: &PathBuf) -> Result<(String, String), PolicyError> {
    let name = path.display().to_string();
    let text = if name == "-" {
        let mut text = String::new();
        io::stdin().lock().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    match text {
        Ok(text) => Ok((name, text)),
        Err(source) => Err(PolicyError::File { path: name, source }),
    }
}

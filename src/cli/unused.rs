//! `agentid unused`: grants, roles and scopes that nobody used, and the narrower grants that would do.
//!
//! Invariants: nothing is written to the cluster; standard output is one YAML stream, in which everything but the
//! narrower grants is a comment; what the record can't tell is never said to be unused.

mod judge;
mod print;
mod source;
#[cfg(test)]
mod tests;

use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use thiserror::Error;

use self::judge::judge;
use self::print::Findings;
use super::connection::Connection;
use super::look::{LookError, Output, print_objects, write};
use super::record::{Record, RecordError};
use super::text::printable;
use super::why::object_name;
use crate::cluster::client::{CallError, ClientError};
use crate::issue::usage::Usage;

/// Name grants, roles and scopes that nobody used, and print narrower grants.
///
/// Use is a token that was asked for at the token service (/token). A role counts as used when a token carried it, and
/// tokens carry all roles of their grant; scopes count when they were asked for, and who asks for none in particular
/// gets all. A grant with a secretKey is listed apart: its token is minted into a Secret whether anybody reads it or
/// not, so its use can't be told.
///
/// Give the record of every replica of agentid serve, as far back as --since; nothing is written to the cluster. What
/// is printed is YAML: the narrower grants, and the findings as comments.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  agentid unused --since 30d --file serve.log -A
  kubectl logs -n agentid-system -l app=agentid-serve --prefix --tail=-1 | agentid unused --since 24h -n support
  agentid unused --since 30d --file serve.log --manifests grants.yaml -o json | jq '.grants[] | select(.verdict == \"Unused\")'")]
pub struct UnusedArgs {
    /// From when on: a time to look back, such as 30d, 12h or 90m, or an instant such as 2026-11-01T00:00:00Z
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = since)]
    since: Since,
    #[command(flatten)]
    record: Record,
    /// Read the grants from this YAML file (- for standard input) in place of the cluster
    #[arg(long, value_name = "FILE|-", conflicts_with_all = ["kubeconfig", "context"])]
    manifests: Option<PathBuf>,
    /// The grants of this namespace; the kubeconfig context's when absent
    #[arg(long, short, value_parser = object_name, conflicts_with = "all_namespaces")]
    namespace: Option<String>,
    /// The grants of all namespaces
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// How to print the answer: YAML with comments, or JSON
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

/// From when on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Since {
    Ago(SignedDuration),
    At(Timestamp),
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum UnusedError {
    /// The record can't be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Of an empty record nothing follows.
    #[error(
        "nothing can be said of what was used: {reach}, none of them since {since}; give the record of every replica of \
         agentid serve (--file, or standard input)"
    )]
    NoRecord {
        /// What was read.
        reach: String,
        /// From when on.
        since: Timestamp,
    },
    /// No cluster.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The grants can't be listed.
    #[error("AgentGrants can't be listed: {0}; you need the verb list, or give them by --manifests")]
    List(#[source] CallError),
    /// The manifests can't be read.
    #[error("{from}: {source}")]
    File {
        /// The file.
        from: String,
        /// Why.
        source: io::Error,
    },
    /// The manifests, or what is made of them, are no YAML of grants.
    #[error("{from}: {problem}")]
    Manifest {
        /// The file, or the grant.
        from: String,
        /// Why, and what helps.
        problem: String,
    },
    /// Both from standard input.
    #[error(
        "the record and the manifests can't both be standard input; name a file with --file or --manifests"
    )]
    OneInput,
    /// Standard output can't be written.
    #[error(transparent)]
    Print(#[from] LookError),
}

impl UnusedArgs {
    /// Reads, judges and prints.
    ///
    /// # Errors
    /// [`UnusedError`].
    pub async fn run(self) -> Result<(), UnusedError> {
        let now = Timestamp::now();
        let since = match self.since {
            Since::At(at) => at,
            Since::Ago(ago) => now.checked_sub(ago).unwrap_or(Timestamp::UNIX_EPOCH),
        };
        if self.manifests.as_ref().is_some_and(|m| m.as_os_str() == "-") && self.record.is_stdin() {
            return Err(UnusedError::OneInput);
        }
        let mut usage = Usage::since(since);
        let reach = self.record.each(|line| {
            usage.take(&line);
            ControlFlow::Continue(())
        })?;
        // A record that ends before, or is of something else, would make everything look unused.
        if reach.newest.is_none_or(|newest| newest < since) {
            return Err(UnusedError::NoRecord { reach: reach.to_string(), since });
        }
        if let Some(oldest) = reach.oldest.filter(|oldest| *oldest > since) {
            eprintln!(
                "warning: the record begins at {oldest:.0}, later than {since:.0}: what was used before that is not known"
            );
        }
        let (grants, skipped) = self.grants().await?;
        for (name, problem) in &skipped {
            eprintln!("warning: AgentGrant {} is left out: {}", printable(name), printable(problem));
        }
        let judged: Vec<_> = grants.iter().map(|g| judge(g, &usage, since)).collect();
        let findings = Findings { since, now, reach: &reach, judged: &judged };
        if self.output == Output::Text {
            return Ok(write(&findings.text()?)?);
        }
        Ok(print_objects(self.output, &findings.json(), |_| findings.names(), |_| String::new())?)
    }
}

/// `30d`, `12h`, `90m`, `45s`, `2w`, or an instant.
fn since(text: &str) -> Result<Since, String> {
    if let Ok(at) = text.parse() {
        return Ok(Since::At(at));
    }
    let wrong = || "write a number with s, m, h, d or w, such as 30d, or an instant of RFC 3339".to_owned();
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 86_400,
        Some('w') => 604_800,
        _ => return Err(wrong()),
    };
    let number = text.get(..text.len() - 1).unwrap_or_default();
    if number.is_empty() || number.len() > 6 || !number.bytes().all(|c| c.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: i64 = number.parse().map_err(|_| wrong())?;
    if number == 0 { Err(wrong()) } else { Ok(Since::Ago(SignedDuration::from_secs(number * unit))) }
}

//! `agentid rotate`: tokens of agents minted anew, now and at a pace.
//!
//! Invariants: it never touches a Secret: it asks the operator, by an annotation on the agent, and watches the Secrets
//! for the answer; no more is asked for than the operator keeps up with; what was asked for stands, whatever becomes of
//! the command.

mod follow;
mod report;
#[cfg(test)]
mod tests;

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use thiserror::Error;

use self::report::{Report, report};
use super::look::{Look, LookError, Output, print_objects};
use super::whom::{Sight, Whom, WhomArgs, WhomError};
use crate::cluster::client::CallError;
use crate::cluster::write::Writer;
use crate::domain::Source;

/// Mint the tokens of agents anew, at a pace.
///
/// Asks the operator to write each agent's Secret with new tokens, signed by the keys that sign now, and follows until
/// all are written: how many of how many, at which rate, and how much longer. Tokens that are out stay good until they
/// expire, so nothing is lost; pods find the new files within the kubelet's minute or two. It is one write for each
/// Secret. Interrupted, it says how to go on where it was. The keys themselves are rotated by `agentid keys rotate`,
/// which mints nothing anew; a key that must go at once by `agentid keys revoke`, which does it by itself.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  agentid rotate triage -n support
  agentid rotate --selector team=support --dry-run
  agentid rotate --blueprint support-bots
  agentid rotate --all --pace 50/s
  agentid rotate --all --since 2026-11-26T17:00:00Z     # go on with the one that was begun then")]
pub struct RotateArgs {
    #[command(flatten)]
    whom: WhomArgs,
    /// So many Secrets at most, in a second (s) or minute (m)
    #[arg(long, value_name = "N/s", default_value = "20/s", value_parser = pace)]
    pace: Pace,
    /// Go on with the rotation that was begun at this instant: who was minted anew for it is left alone
    #[arg(long, value_name = "INSTANT")]
    since: Option<Timestamp>,
    /// Only say whose tokens would be minted anew
    #[arg(long)]
    dry_run: bool,
    /// How to print the answer; all but text come at the end
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
    #[command(flatten)]
    look: Look,
}

/// So many in so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    number: u32,
    per: u32,
}

impl Pace {
    /// The time from one to the next.
    fn pause(self) -> Duration {
        Duration::from_secs(u64::from(self.per)) / self.number
    }

    /// How long nothing may come before it is given up: the next may have been asked for only now.
    fn patience(self) -> Duration {
        follow::PATIENCE.saturating_add(self.pause())
    }

    /// How long so many take.
    fn takes(self, many: usize) -> Duration {
        self.pause().saturating_mul(u32::try_from(many).unwrap_or(u32::MAX))
    }
}

impl std::fmt::Display for Pace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.number, if self.per == 1 { "s" } else { "m" })
    }
}

fn pace(text: &str) -> Result<Pace, String> {
    let (number, unit) = text.split_once('/').unwrap_or((text, "s"));
    let per = match unit {
        "s" => 1,
        "m" => 60,
        _ => return Err("write a number a second or minute, such as 20/s or 300/m".to_owned()),
    };
    match number.parse() {
        Ok(number @ 1..) if number / per <= 1000 => Ok(Pace { number, per }),
        _ => Err("the number must be from 1 to 1000 a second".to_owned()),
    }
}

/// Why it was not done, or not for all.
#[derive(Debug, Error)]
pub enum RotateError {
    /// The cluster can't be looked at.
    #[error(transparent)]
    Look(#[from] LookError),
    /// Whose tokens are meant.
    #[error(transparent)]
    Whom(#[from] WhomError),
    /// Nobody is selected.
    #[error("no AgentIdentity is selected{0}; `agentid tree` shows them all")]
    Nobody(String),
    /// The Secrets can't be listed or watched.
    #[error(
        "Secrets can't be followed: {0}; it takes list and watch on secrets, of which metadata alone is read"
    )]
    Secrets(CallError),
    /// The operator does not answer.
    #[error(
        "{left} of {all} Secrets wait, and none was minted anew for {}s; what was asked for stands and is done when an \
         operator leads: look at its log and at the Lease agentid-operator. Go on with --since {since}",
        .patience.as_secs()
    )]
    NoAnswer {
        /// So many.
        left: usize,
        /// Of so many.
        all: usize,
        /// For so long.
        patience: Duration,
        /// Which rotation.
        since: Timestamp,
    },
    /// Ctrl-C.
    #[error("interrupted: {done} of {all} Secrets were minted anew; go on with --since {since}")]
    Interrupted {
        /// So many.
        done: usize,
        /// Of so many.
        all: usize,
        /// Which rotation.
        since: Timestamp,
    },
    /// Not all could be asked for.
    #[error("{failed} of {all} could not be asked for; the first: {first}; go on with --since {since}")]
    Failed {
        /// So many.
        failed: usize,
        /// Of so many.
        all: usize,
        /// What the API server said of the first.
        first: String,
        /// Which rotation.
        since: Timestamp,
    },
}

impl RotateArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// [`RotateError`].
    pub async fn run(self) -> Result<(), RotateError> {
        let Sight { client, world, unseen, notes, whom } = self.whom.look(&self.look).await?;
        if let Some(u) = unseen.into_iter().find(|u| u.source == Source::Secrets) {
            return Err(RotateError::Secrets(u.error));
        }
        let agents = whom.of(&world);
        if agents.is_empty() {
            return Err(RotateError::Nobody(self.whom.place()));
        }
        let rotation = self.since.unwrap_or_else(begun);
        let mut report = report(&world, &agents, rotation, self.pace, notes);
        if self.dry_run || self.output == Output::Text {
            print_objects(self.output, &report, Report::names, |r| r.text(self.dry_run))?;
        }
        if self.dry_run || report.waiting() == 0 {
            return self.end(&report);
        }
        let namespace = match &whom {
            Whom::One(key) => Some(&*key.namespace),
            _ => self.whom.namespace.as_deref(),
        };
        let followed =
            follow::follow(&Writer::for_people(client.clone()), client, namespace, &mut report).await;
        self.end(&report)?;
        followed
    }

    /// Prints how it stands: for programs at the end alone.
    fn end(&self, report: &Report) -> Result<(), RotateError> {
        match (self.dry_run, self.output) {
            (true, _) => Ok(()),
            (false, Output::Text) => Ok(super::look::write(&report.done())?),
            (false, output) => Ok(print_objects(output, report, Report::names, Report::done)?),
        }
    }
}

/// A name for a rotation that begins now. Milliseconds are enough, and are read and written again as they are.
fn begun() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}

//! `agentid suspend` and `agentid resume`: stop agents, and let them go on.
//!
//! Invariants: whom it hits is said before anything is written, by the same decision as the operator's; nothing is
//! written unasked, nor to another object than the one that was shown (every patch tests the UID).

mod hits;
mod print;
#[cfg(test)]
mod tests;

use clap::Args;
use futures::StreamExt;
use jiff::Timestamp;
use thiserror::Error;

use self::hits::{Action, Outcome, Report, plan};
use super::confirm::{Unconfirmed, confirm};
use super::look::{Look, LookError, Output, print_objects};
use super::whom::{Sight, WhomArgs, WhomError};
use crate::cluster::client::{CallError, Class};
use crate::cluster::write::Writer;
use crate::domain::{Key, Uid};

/// So many patches are under way at once.
const AT_ONCE: usize = 8;
/// Progress is told after each so many.
const STEP: usize = 100;

/// Take the credentials of agents away until they are resumed.
///
/// Says first whom it hits (agents, grants, and how long a copy of their tokens may still be good where only signature
/// and expiry are checked), and asks. It sets spec.suspend of the agents, or of the blueprint, as you: with your rights,
/// under the field manager agentid-cli. Tokens leave the Secrets at once, and the token service sells no more. What is
/// kept in Git is set back by whoever applies it from there: change it there too. To stop agents that are yet to come
/// as well, suspend their blueprint or write an AgentPolicy with suspend.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  agentid suspend triage -n support
  agentid suspend --selector team=support --dry-run
  agentid suspend --blueprint support-bots --yes     # also those that come meanwhile
  agentid suspend --all -n support
  agentid suspend --all --yes -o json | jq '.summary'")]
pub struct SuspendArgs {
    #[command(flatten)]
    switch: SwitchArgs,
}

/// Give agents that are suspended their credentials back.
///
/// Says first whom it brings back, and who stays stopped for another reason (their blueprint, a policy, an end), and
/// asks. Old tokens stay dead: new ones have status entries of their own.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  agentid resume triage -n support
  agentid resume --selector team=support --dry-run
  agentid resume --blueprint support-bots --yes
  agentid resume --all -n support")]
pub struct ResumeArgs {
    #[command(flatten)]
    switch: SwitchArgs,
}

#[derive(Debug, Args)]
struct SwitchArgs {
    #[command(flatten)]
    whom: WhomArgs,
    /// Do it without asking
    #[arg(long, short)]
    yes: bool,
    /// Only say whom it would hit
    #[arg(long)]
    dry_run: bool,
    /// How to print the answer; all but text need --yes or --dry-run
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
    #[command(flatten)]
    look: Look,
}

/// Why it was not done, or not for all.
#[derive(Debug, Error)]
pub enum SuspendError {
    /// The cluster can't be looked at.
    #[error(transparent)]
    Look(#[from] LookError),
    /// Whom it would hit.
    #[error(transparent)]
    Whom(#[from] WhomError),
    /// Nobody is selected.
    #[error("no AgentIdentity is selected{0}; `agentid tree` shows them all")]
    Nobody(String),
    /// Nobody said that it is to be done.
    #[error(transparent)]
    Unconfirmed(#[from] Unconfirmed),
    /// Not all was done.
    #[error(
        "{failed} of {all} objects could not be changed; the first: {first}; what was done stands, the command may be repeated"
    )]
    Failed {
        /// So many.
        failed: usize,
        /// Of so many.
        all: usize,
        /// What the API server said of the first.
        first: String,
    },
}

impl SuspendArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// [`SuspendError`].
    pub async fn run(self) -> Result<(), SuspendError> {
        self.switch.run(Action::Suspend).await
    }
}

impl ResumeArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// [`SuspendError`].
    pub async fn run(self) -> Result<(), SuspendError> {
        self.switch.run(Action::Resume).await
    }
}

impl SwitchArgs {
    async fn run(self, action: Action) -> Result<(), SuspendError> {
        let now = Timestamp::now();
        let Sight { client, mut world, mut notes, whom, .. } = self.whom.look(&self.look).await?;
        let mut report = plan(&mut world, &whom, action, now);
        if report.agents.is_empty() && report.blueprint.is_none() {
            return Err(SuspendError::Nobody(self.whom.place()));
        }
        report.notes.append(&mut notes);
        if self.dry_run {
            return Ok(print_objects(self.output, &report, Report::names, |r| r.text(now))?);
        }
        let steps = report.steps();
        // Whoever reads a document gets one; people read whom it hits before they are asked.
        if self.output == Output::Text {
            print_objects(self.output, &report, Report::names, |r| r.text(now))?;
        }
        if !steps.is_empty() && !self.yes {
            confirm(&print::question(action, &report), self.output)?;
        }
        let failed = carry_out(&Writer::for_people(client), &mut report, &steps).await;
        print_objects(self.output, &report, Report::names, Report::done)?;
        match failed {
            Some((failed, first)) => Err(SuspendError::Failed { failed, all: steps.len(), first }),
            None => Ok(()),
        }
    }
}

/// An object whose `spec.suspend` is to be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Step {
    Agent(Key, Uid),
    Blueprint(String, Uid),
}

/// Sets it on all of them; gives how many could not be changed, and what was said of the first.
async fn carry_out(writer: &Writer, report: &mut Report, steps: &[Step]) -> Option<(usize, String)> {
    let suspend = report.action == Action::Suspend;
    let mut answers = futures::stream::iter(steps.iter().cloned())
        .map(|step| async move {
            let answer = match &step {
                Step::Agent(key, uid) => writer.suspend_agent(key, *uid, suspend).await,
                Step::Blueprint(name, uid) => writer.suspend_blueprint(name, *uid, suspend).await,
            };
            (step, answer)
        })
        .buffer_unordered(AT_ONCE);
    let (mut done, mut failed, mut first) = (0, 0, None);
    while let Some((step, answer)) = answers.next().await {
        let outcome = outcome(answer.err().map(|e: CallError| (e.class(), e.to_string())));
        if let Outcome::Failed(problem) = &outcome {
            failed += 1;
            first.get_or_insert_with(|| format!("{}: {problem}", print::object(&step)));
        }
        report.record(&step, &outcome);
        done += 1;
        if done % STEP == 0 && done < steps.len() {
            eprintln!("{done} of {}", steps.len());
        }
    }
    first.map(|first| (failed, first))
}

fn outcome(error: Option<(Class, String)>) -> Outcome {
    match error {
        None => Outcome::Done,
        Some((Class::NotFound, _)) => Outcome::Gone,
        Some((_, problem)) => Outcome::Failed(problem),
    }
}

//! `agentid suspend` and `agentid resume`: stop agents, and let them go on.
//!
//! Invariants: whom it hits is said before anything is written, by the same decision as the operator's; nothing is
//! written unasked, nor to another object than the one that was shown (every patch tests the UID).

mod hits;
mod print;
#[cfg(test)]
mod tests;

use std::io::{self, BufRead, IsTerminal, Write};

use clap::{ArgGroup, Args};
use futures::StreamExt;
use jiff::Timestamp;
use thiserror::Error;

use self::hits::{Action, Outcome, Report, Whom, plan};
use super::look::{Look, LookError, Output, notes, print};
use crate::api::LabelSelector;
use crate::cluster::client::{CallError, Class};
use crate::cluster::snapshot::{SnapshotError, snapshot};
use crate::cluster::write::Writer;
use crate::domain::{Key, Uid, World};

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
    whom: WhomArgs,
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
    whom: WhomArgs,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("whom").required(true).multiple(false))]
struct WhomArgs {
    /// One AgentIdentity, of the namespace of -n or of the kubeconfig's context
    #[arg(group = "whom")]
    agent: Option<String>,
    /// All agents with these labels, as `kubectl -l` takes them; of all namespaces unless -n names one
    #[arg(long, short = 'l', group = "whom", value_name = "LABELS", value_parser = selector)]
    selector: Option<LabelSelector>,
    /// All agents of an AgentBlueprint, by its own spec.suspend
    #[arg(long, group = "whom", value_name = "NAME", conflicts_with = "namespace")]
    blueprint: Option<String>,
    /// All agents; of all namespaces unless -n names one
    #[arg(long, group = "whom")]
    all: bool,
    /// Only in this namespace
    #[arg(long, short)]
    namespace: Option<String>,
    /// Do it without asking
    #[arg(long, short)]
    yes: bool,
    /// Only say whom it would hit
    #[arg(long)]
    dry_run: bool,
    /// How to print the answer; json needs --yes or --dry-run
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
    #[command(flatten)]
    look: Look,
}

fn selector(text: &str) -> Result<LabelSelector, String> {
    text.parse::<LabelSelector>().map_err(|e| e.to_string())
}

/// Why it was not done, or not for all.
#[derive(Debug, Error)]
pub enum SuspendError {
    /// The cluster can't be looked at.
    #[error(transparent)]
    Look(#[from] LookError),
    /// The agent.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// No such blueprint.
    #[error("AgentBlueprint {0} does not exist; `kubectl get agentblueprints` shows those that do")]
    NoBlueprint(String),
    /// Nobody is selected.
    #[error("no AgentIdentity is selected{0}; `agentid tree` shows them all")]
    Nobody(String),
    /// Nobody was asked.
    #[error(
        "nothing was changed: there is no terminal to ask at; add --yes to do it, or --dry-run to look only"
    )]
    NotAsked,
    /// The answer was no.
    #[error("nothing was changed")]
    Declined,
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
        self.whom.run(Action::Suspend).await
    }
}

impl ResumeArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// [`SuspendError`].
    pub async fn run(self) -> Result<(), SuspendError> {
        self.whom.run(Action::Resume).await
    }
}

impl WhomArgs {
    async fn run(self, action: Action) -> Result<(), SuspendError> {
        let now = Timestamp::now();
        let (client, mut world, mut notes, whom) = self.look().await?;
        if let Whom::Blueprint(name) = &whom
            && world.blueprint(&name.as_str().into()).is_none()
        {
            return Err(SuspendError::NoBlueprint(name.clone()));
        }
        let mut report = plan(&mut world, &whom, action, now);
        if report.agents.is_empty() && report.blueprint.is_none() {
            let place = self.namespace.map(|n| format!(" in namespace {n}")).unwrap_or_default();
            return Err(SuspendError::Nobody(place));
        }
        report.notes.append(&mut notes);
        if self.dry_run {
            return Ok(print(self.output, &report, |r| r.text(now))?);
        }
        let steps = report.steps();
        // Whoever reads JSON gets one document; people read whom it hits before they are asked.
        if self.output == Output::Text {
            print(self.output, &report, |r| r.text(now))?;
        }
        if !steps.is_empty() && !self.yes {
            ask(action, &report, self.output)?;
        }
        let failed = carry_out(&Writer::for_people(client), &mut report, &steps).await;
        match self.output {
            Output::Text => print(self.output, &report, Report::done)?,
            Output::Json => print(self.output, &report, |r| r.text(now))?,
        }
        match failed {
            Some((failed, first)) => Err(SuspendError::Failed { failed, all: steps.len(), first }),
            None => Ok(()),
        }
    }

    /// One agent needs no more than its namespace's rights; all else is of the whole cluster.
    async fn look(&self) -> Result<(kube::Client, World, Vec<String>, Whom), SuspendError> {
        if let Some(name) = &self.agent {
            let config = self.look.configuration()?;
            let assumed = config.is_none();
            let clients = self.look.clients().await?;
            let namespace = self.namespace.as_ref().unwrap_or(&clients.namespace_default);
            let key = Key::new(namespace.as_str(), name.as_str());
            let seen = snapshot(&clients.write, config, &key).await?;
            let notes = notes(&seen.unseen, &seen.skipped, assumed);
            return Ok((clients.write, seen.world, notes, Whom::One(key)));
        }
        let seen = self.look.take().await?;
        let notes = seen.notes();
        let whom = match (&self.blueprint, &self.selector) {
            (Some(name), _) => Whom::Blueprint(name.clone()),
            (None, selector) => {
                Whom::Selected { namespace: self.namespace.clone(), selector: selector.clone() }
            }
        };
        Ok((seen.clients.write, seen.whole.world, notes, whom))
    }
}

/// Asks at the terminal, if there is one.
fn ask(action: Action, report: &Report, output: Output) -> Result<(), SuspendError> {
    if output == Output::Json || !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(SuspendError::NotAsked);
    }
    eprint!("{} [y/N] ", print::question(action, report));
    let _ = io::stderr().flush();
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    let yes = read.is_ok() && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes");
    if yes { Ok(()) } else { Err(SuspendError::Declined) }
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

//! `agentid tree`: which agents there are, what they are made from, what they hold, and until when.
//!
//! Invariant: the answer is [`decide`](fn@crate::domain::decide)'s, of one world that is listed once; nothing is written.

mod build;
mod print;
#[cfg(test)]
mod tests;

use clap::Args;
use jiff::Timestamp;
use thiserror::Error;

pub(in crate::cli) use self::build::state;
use self::build::{Filter, tree};
use super::look::{Look, LookError, Output, print_objects};

/// Show blueprints, their agents, what these hold and until when.
///
/// Every agent stands under its blueprint, or under its namespace where it has none; below it are its Secret and its
/// grants, with the reason of each that is not held (`agentid why` says more of one). The cluster is read once and
/// nothing is written; the answer is made by the same rules as the operator's.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  agentid tree
  agentid tree -n support
  agentid tree --blueprint support-bots
  agentid tree -o json | jq -r '.blueprints[].agents[] | select(.state != \"Ready\") | .namespace + \"/\" + .name'")]
pub struct TreeArgs {
    /// Only the agents of this namespace; all when absent
    #[arg(long, short)]
    namespace: Option<String>,
    /// Only the agents of this AgentBlueprint
    #[arg(long, value_name = "NAME")]
    blueprint: Option<String>,
    /// How to print the answer
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
    #[command(flatten)]
    look: Look,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum TreeError {
    /// The cluster can't be looked at.
    #[error(transparent)]
    Look(#[from] LookError),
    /// No such blueprint.
    #[error(
        "AgentBlueprint {0} does not exist, and no agent names it; `kubectl get agentblueprints` shows those that do"
    )]
    NoBlueprint(String),
    /// No such namespace.
    #[error("namespace {0} does not exist; name another with -n, or leave -n out")]
    NoNamespace(String),
}

impl TreeArgs {
    /// Looks, decides and prints.
    ///
    /// # Errors
    /// [`TreeError`].
    pub async fn run(self) -> Result<(), TreeError> {
        let seen = self.look.take().await?;
        let world = &seen.whole.world;
        if let Some(name) = &self.namespace
            && world.namespace(&name.as_str().into()).is_none()
        {
            return Err(TreeError::NoNamespace(name.clone()));
        }
        if let Some(name) = &self.blueprint {
            let key = name.as_str().into();
            if world.blueprint(&key).is_none() && world.agents_of_blueprint(&key).next().is_none() {
                return Err(TreeError::NoBlueprint(name.clone()));
            }
        }
        let filter = Filter { namespace: self.namespace.as_deref(), blueprint: self.blueprint.as_deref() };
        let now = Timestamp::now();
        let secrets = seen.whole.unseen.iter().all(|u| u.source != crate::domain::Source::Secrets);
        let report = tree(world, &filter, secrets, seen.notes(), now);
        Ok(print_objects(self.output, &report, build::Report::names, |r| r.text(now))?)
    }
}

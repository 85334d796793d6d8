//! `agentid doctor`: what is left behind, in each other's way, or goes around the grants.
//!
//! Invariant: nothing is written; a check that could not be made is said and is no pass.

mod bindings;
mod findings;
mod observe;
mod print;
#[cfg(test)]
mod tests;

use clap::Args;
use jiff::Timestamp;
use thiserror::Error;

use self::findings::{Scope, examine};
use super::look::{Look, LookError, Output, print_objects};
use crate::domain::Key;

/// Look for what is left behind, in conflict, or reaches agents past their grants.
///
/// It checks: Secrets of ours without an agent, and made agents whose blueprint or pod is gone; conflicts over Secret
/// names, secretKeys, audiences and pods; RoleBindings that somebody bound to agents by hand; agents' pods that still
/// mount a default service-account token for the Kubernetes API; and rights that reach agents through groups that
/// everybody is in. Each finding names the object, why it matters and a command that helps. Nothing is written. The exit
/// code is 1 if there is any finding, or if a check could not be made.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  agentid doctor
  agentid doctor -n support                          without what concerns the whole cluster
  agentid doctor -o json | jq -r '.findings[] | .check + \" \" + .object'")]
pub struct DoctorArgs {
    /// Only what is in this namespace, or concerns it alone; the whole cluster when absent
    #[arg(long, short)]
    namespace: Option<String>,
    /// How to print the answer
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
    #[command(flatten)]
    look: Look,
}

/// Why there is no answer, or a bad one.
#[derive(Debug, Error)]
pub enum DoctorError {
    /// The cluster can't be looked at.
    #[error(transparent)]
    Look(#[from] LookError),
    /// No such namespace.
    #[error("namespace {0} does not exist; name another with -n, or leave -n out")]
    NoNamespace(String),
    /// Something was found.
    #[error("{0} findings")]
    Findings(usize),
    /// Nothing was found, but not all was looked at.
    #[error("{0} checks could not be made: see the notes")]
    Unchecked(usize),
}

impl DoctorArgs {
    /// Looks and prints.
    ///
    /// # Errors
    /// [`DoctorError`].
    pub async fn run(self) -> Result<(), DoctorError> {
        let mut seen = self.look.take().await?;
        if let Some(name) = &self.namespace
            && seen.whole.world.namespace(&name.as_str().into()).is_none()
        {
            return Err(DoctorError::NoNamespace(name.clone()));
        }
        let others = observe::observe(&seen, self.namespace.as_deref()).await;
        let scope =
            Scope { namespace: self.namespace.as_deref(), trust_domain: seen.trust_domain.as_deref() };
        let notes = seen.notes();
        // What can't be read was not looked at either.
        let concerns = |key: &Key| key.namespace.is_empty() || scope.has(&key.namespace);
        let left_out = seen.whole.skipped.iter().filter(|s| concerns(&s.key)).count();
        let missed = seen.whole.unseen.len() + left_out;
        let report = examine(&mut seen.whole.world, &others, &scope, notes, Timestamp::now());
        print_objects(self.output, &report, findings::Report::names, findings::Report::text)?;
        match (report.findings.len(), missed + others.missed.len()) {
            (0, 0) => Ok(()),
            (0, n) => Err(DoctorError::Unchecked(n)),
            (n, _) => Err(DoctorError::Findings(n)),
        }
    }
}

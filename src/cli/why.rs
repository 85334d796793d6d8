//! `agentid why`: what an agent holds, and for each thing that it does not, who refuses it and what helps.
//!
//! Invariant: the answer is [`decide`](fn@crate::domain::decide)'s, of a world that is listed once; nothing is written.

mod blame;
mod print;
mod report;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;
use thiserror::Error;

use self::report::Report;
use super::connection::Connection;
use super::look::{AGENT, LookError, Output, configuration, named, print_objects};
use crate::cluster::client::{ClientError, connect};
use crate::cluster::snapshot::{SnapshotError, similar, snapshot};
use crate::domain::{Key, Source, decide};

/// Say what an agent holds, and why it holds no more.
///
/// The cluster is read once and nothing is written. The answer is made by the same rules as the operator's; what
/// the operator has last written is shown beside it. The exit code is 0 if the agent (and the resource, if one is
/// named) was found.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  agentid why triage -n support             everything about the agent
  agentid why triage tickets -n support     only what it may do at the AgentResource tickets
  agentid why triage -o json | jq '.grants[] | select(.state != \"Held\")'")]
pub struct WhyArgs {
    /// The AgentIdentity's name
    #[arg(value_parser = object_name)]
    agent: String,
    /// An AgentResource's name: say only what concerns it
    #[arg(value_parser = object_name)]
    resource: Option<String>,
    /// The agent's namespace; the kubeconfig context's when absent
    #[arg(long, short, value_parser = object_name)]
    namespace: Option<String>,
    /// How to print the answer
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// The operator's configuration file; the defaults when absent, with the issuer that the namespace's
    /// ConfigMap agentid-trust names
    #[arg(long, value_name = "FILE", env = "AGENTID_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum WhyError {
    /// The configuration file can't be read or used, or standard output can't be written.
    #[error(transparent)]
    Look(#[from] LookError),
    /// No cluster.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The agent.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The resource.
    #[error("AgentResource {name} does not exist, and no AgentGrant for the agent names it{hint}")]
    ResourceNotFound {
        /// Its name.
        name: String,
        /// What may be meant.
        hint: String,
    },
    /// The agent could not be listed.
    #[error("AgentIdentity {0} can be read, but AgentIdentities can't be listed: {1}")]
    Unlisted(Key, String),
}

impl WhyArgs {
    /// Looks, decides and prints.
    ///
    /// # Errors
    /// [`WhyError`].
    pub async fn run(self) -> Result<(), WhyError> {
        let config = self.config.as_deref().map(configuration).transpose()?;
        let assumed = config.is_none();
        let clients = connect(&self.connection.options()).await?;
        let namespace = self.namespace.as_ref().unwrap_or(&clients.namespace_default);
        let agent = Key::new(namespace.as_str(), self.agent.as_str());
        let seen = snapshot(&clients.write, config, &agent).await?;
        let now = Timestamp::now();
        let Some(decision) = decide(&seen.world, &agent, now) else {
            let why = seen.unseen.iter().find(|u| u.source == Source::Agents);
            return Err(WhyError::Unlisted(agent, why.map(|u| u.error.to_string()).unwrap_or_default()));
        };
        let report = Report::new(&seen, &decision, self.resource.as_deref(), assumed, now);
        if let Some(name) = &self.resource
            && report.grants.is_empty()
            && seen.world.resource(&name.as_str().into()).is_none()
            && seen.unseen.iter().all(|u| u.source != Source::Resources)
        {
            let close = similar(name, seen.world.resources().map(|r| &*r.meta.key.name));
            let hint = if close.is_empty() {
                "; kubectl get agentresources shows those that do".to_owned()
            } else {
                format!("; did you mean {}?", close.join(", "))
            };
            return Err(WhyError::ResourceNotFound { name: name.clone(), hint });
        }
        Ok(print_objects(self.output, &report, |r| vec![named(AGENT, &r.name)], |r| r.text(now))?)
    }
}

/// A DNS subdomain (RFC 1123), as Kubernetes names objects: it becomes part of a path.
pub(super) fn object_name(text: &str) -> Result<String, String> {
    let good = |part: &str| {
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        edge(part.chars().next())
            && edge(part.chars().last())
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    if text.len() <= 253 && text.split('.').all(good) {
        Ok(text.to_owned())
    } else {
        Err("a name has lower-case letters, digits, '-' and '.', and begins and ends with a letter or digit"
            .to_owned())
    }
}

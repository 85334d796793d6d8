//! One look at the whole cluster, as several commands take it, and how they print.
//!
//! Invariant: it writes nothing; what can't be seen is said beside the answer.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use serde::Serialize;
use thiserror::Error;

use super::colour;
use super::connection::Connection;
use super::text::printable;
use crate::api::{ConfigError, Configuration};
use crate::cluster::client::{ClientError, Clients, connect};
use crate::cluster::feed::Skipped;
use crate::cluster::snapshot::{Unseen, Whole, WholeError, whole};

/// Which cluster, and by which rules.
#[derive(Clone, Debug, Default, Args)]
pub struct Look {
    /// The operator's configuration file; the defaults when absent
    #[arg(long, value_name = "FILE", env = "AGENTID_CONFIG")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub connection: Connection,
}

/// How an answer is printed: every form that any command has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// A JSON document; members are only ever added.
    Json,
    /// The same document as YAML.
    Yaml,
    /// The objects that it is about, one a line, as `kubectl get -o name` names them.
    Name,
}

/// The forms of an answer that is about no objects.
#[must_use]
pub fn documents() -> impl TypedValueParser<Value = Output> {
    PossibleValuesParser::new(["text", "json", "yaml"]).map(|form| match form.as_str() {
        "json" => Output::Json,
        "yaml" => Output::Yaml,
        _ => Output::Text,
    })
}

/// Our kinds, as [`Output::Name`] writes them.
pub const AGENT: &str = "agentidentity.agentid.dev";
/// An AgentBlueprint.
pub const BLUEPRINT: &str = "agentblueprint.agentid.dev";
/// An AgentGrant.
pub const GRANT: &str = "agentgrant.agentid.dev";

/// An object, as [`Output::Name`] writes it.
#[must_use]
pub fn named(kind: &str, name: &str) -> String {
    format!("{kind}/{name}")
}

/// Why the cluster can't be looked at, or the answer not be printed.
#[derive(Debug, Error)]
pub enum LookError {
    /// The configuration can't be read.
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
    /// No cluster.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The cluster can't be looked at.
    #[error(transparent)]
    Whole(#[from] WholeError),
    /// Standard output can't be written.
    #[error("cannot write to standard output: {0}")]
    Print(#[source] io::Error),
}

/// What was seen.
pub struct Seen {
    /// By whom it was asked.
    pub clients: Clients,
    /// The world.
    pub whole: Whole,
    /// The configuration's trust domain, if one was given.
    pub trust_domain: Option<String>,
}

impl Look {
    /// The configuration, if one is given.
    ///
    /// # Errors
    /// [`LookError::File`], [`LookError::Config`].
    pub fn configuration(&self) -> Result<Option<Configuration>, LookError> {
        self.config.as_deref().map(configuration).transpose()
    }

    /// The clients, before anything is asked.
    ///
    /// # Errors
    /// [`LookError::Client`].
    pub async fn clients(&self) -> Result<Clients, LookError> {
        Ok(connect(&self.connection.options()).await?)
    }

    /// Looks once at the whole cluster.
    ///
    /// # Errors
    /// [`LookError`].
    pub async fn take(&self) -> Result<Seen, LookError> {
        let config = self.configuration()?;
        let trust_domain = config.as_ref().map(|c| c.trust_domain.clone());
        let clients = self.clients().await?;
        let whole = whole(&clients.write, config).await?;
        Ok(Seen { clients, whole, trust_domain })
    }
}

impl Seen {
    /// What could not be seen, for people.
    pub fn notes(&self) -> Vec<String> {
        notes(&self.whole.unseen, &self.whole.skipped, self.trust_domain.is_none())
    }
}

/// What could not be seen, for people; `assumed`: no configuration was given.
pub fn notes(unseen: &[Unseen], skipped: &[Skipped], assumed: bool) -> Vec<String> {
    let unseen = unseen.iter().map(|u| format!("{} can't be read: {}", u.source, u.error));
    let skipped = skipped
        .iter()
        .map(|s| format!("{} {} can't be read and is left out: {}", s.source, s.key, s.problem));
    let mut notes: Vec<_> = unseen.chain(skipped).collect();
    if assumed {
        notes.push("without --config the operator's default limits and bound kinds are assumed, and no agentUserDomains".to_owned());
    }
    notes
}

/// Reads a configuration file.
///
/// # Errors
/// [`LookError::File`], [`LookError::Config`].
pub fn configuration(path: &Path) -> Result<Configuration, LookError> {
    let name = path.display().to_string();
    let text =
        std::fs::read_to_string(path).map_err(|source| LookError::File { path: name.clone(), source })?;
    Configuration::from_yaml(&text).map_err(|source| LookError::Config { path: name, source })
}

/// Prints an answer that is about no objects.
///
/// # Errors
/// [`LookError::Print`].
pub fn print<R: Serialize>(
    output: Output,
    report: &R,
    text: impl FnOnce(&R) -> String,
) -> Result<(), LookError> {
    print_objects(output, report, |_| Vec::new(), text)
}

/// Prints an answer that is about objects.
///
/// # Errors
/// [`LookError::Print`].
pub fn print_objects<R: Serialize>(
    output: Output,
    report: &R,
    names: impl FnOnce(&R) -> Vec<String>,
    text: impl FnOnce(&R) -> String,
) -> Result<(), LookError> {
    let text = match output {
        Output::Text if colour::wanted(&io::stdout()) => colour::paint(&text(report)),
        Output::Text => text(report),
        Output::Json => serde_json::to_string_pretty(report).unwrap_or_default() + "\n",
        Output::Yaml => serde_yaml::to_string(report).unwrap_or_default(),
        Output::Name => names(report).iter().map(|name| printable(name) + "\n").collect(),
    };
    write(&text)
}

/// Writes a text to standard output. Whoever reads may have seen enough and gone, as `head` does.
///
/// # Errors
/// [`LookError::Print`].
pub fn write(text: &str) -> Result<(), LookError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(LookError::Print(e)),
        _ => Ok(()),
    }
}

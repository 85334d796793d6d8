//! What the long-running commands share: the configuration file, and logging.

use std::path::Path;

use clap::ValueEnum;
use thiserror::Error;
use tracing_subscriber::EnvFilter;

use crate::api::{ConfigError, Configuration};

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A JSON object a line.
    Json,
    /// For people.
    Pretty,
}

/// Why a configuration file can't be used.
#[derive(Debug, Error)]
pub enum ConfigFileError {
    /// It can't be read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It can't be understood.
    #[error("{path}: {source}")]
    Config {
        /// The file.
        path: String,
        /// Why.
        source: ConfigError,
    },
}

/// Reads a configuration file.
///
/// # Errors
/// [`ConfigFileError`].
pub fn configuration(path: &Path) -> Result<Configuration, ConfigFileError> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigFileError::File { path: shown.clone(), source })?;
    Configuration::from_yaml(&text).map_err(|source| ConfigFileError::Config { path: shown, source })
}

/// Sets logging up. kube logs whole answers on a decode failure, Secrets among them, and every failed connection
/// that we report ourselves: that target is never on.
pub fn init_logs(format: LogFormat) {
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::level_filters::LevelFilter::INFO.into())
        .from_env_lossy();
    let filter = match "kube_client=off".parse() {
        Ok(directive) => filter.add_directive(directive),
        Err(_) => filter,
    };
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second call, in tests, changes nothing.
    let _ = match format {
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
        LogFormat::Pretty => logs.try_init(),
    };
}

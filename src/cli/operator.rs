//! `agentid operator`: the process that keeps credentials.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use thiserror::Error;
use tracing_subscriber::EnvFilter;

use super::connection::Connection;
use crate::api::{ConfigError, Configuration};
use crate::operator::{self, OperatorError};

/// Keep the credentials of every AgentIdentity in its Secret: fresh, healed, and gone with the agent.
///
/// One process leads (by the Lease agentid-operator in --namespace), others stand by. It ends with exit code 0
/// on SIGTERM, having given the lease back, and with 1 when it has lost the lease.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  agentid operator --config configuration.yaml --namespace agentid-system

A configuration needs no more than:
  apiVersion: config.agentid.dev/v1alpha1
  kind: Configuration
  issuer: https://agents.example.com
  trustDomain: agents.example.com")]
pub struct OperatorArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "AGENTID_CONFIG")]
    config: PathBuf,
    /// The namespace of the key Secret and the Lease
    #[arg(long, short, env = "POD_NAMESPACE", default_value = "agentid-system")]
    namespace: String,
    /// This process's name on the Lease; the host name and a random part when absent
    #[arg(long, env = "POD_NAME")]
    identity: Option<String>,
    /// Where /livez, /readyz and /metrics are served
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9440")]
    admin_listen: SocketAddr,
    /// How logs are written, to standard error; what is logged follows RUST_LOG (default: info)
    #[arg(long, value_enum, default_value_t = LogFormat::Json)]
    log_format: LogFormat,
    #[command(flatten)]
    connection: Connection,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A JSON object a line.
    Json,
    /// For people.
    Pretty,
}

/// Why the operator did not start, or ended.
#[derive(Debug, Error)]
pub enum RunError {
    /// The configuration file can't be read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The configuration can't be used.
    #[error("{path}: {source}")]
    Config {
        /// The file.
        path: String,
        /// Why.
        source: ConfigError,
    },
    /// The operator.
    #[error(transparent)]
    Operator(#[from] OperatorError),
}

impl OperatorArgs {
    /// Runs until a signal or the loss of the lease.
    ///
    /// # Errors
    /// [`RunError`].
    pub async fn run(self) -> Result<(), RunError> {
        init_logs(self.log_format);
        let path = self.config.display().to_string();
        let text = std::fs::read_to_string(&self.config)
            .map_err(|source| RunError::File { path: path.clone(), source })?;
        let config = Configuration::from_yaml(&text).map_err(|source| RunError::Config { path, source })?;
        operator::run(operator::Options {
            config,
            client: self.connection.options(),
            namespace: self.namespace,
            identity: self.identity,
            admin_listen: self.admin_listen,
        })
        .await?;
        Ok(())
    }
}

/// Sets logging up. kube logs whole answers on a decode failure, Secrets among them, and every failed connection
/// that we report ourselves: that target is never on.
fn init_logs(format: LogFormat) {
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

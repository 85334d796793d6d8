//! `agentid operator`: the process that keeps credentials.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use thiserror::Error;

use super::connection::Connection;
use super::process::{ConfigFileError, LogFormat, configuration, init_logs};
use crate::operator::{self, OperatorError};

/// Keep the credentials of every AgentIdentity in its Secret: fresh, healed, and gone with the agent.
///
/// One process leads (by the Lease agentid-operator in --namespace), others stand by. It ends with exit code 0
/// on SIGTERM, having given the lease back, and with 1 when it has lost the lease or finds the cluster set back to an
/// older state (a backup of etcd): start it anew then.
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

/// Why the operator did not start, or ended.
#[derive(Debug, Error)]
pub enum RunError {
    /// The configuration file.
    #[error(transparent)]
    Config(#[from] ConfigFileError),
    /// The operator.
    #[error(transparent)]
    Operator(#[from] OperatorError),
}

impl OperatorArgs {
    /// Runs until a signal, or until it must be started anew.
    ///
    /// # Errors
    /// [`RunError`].
    pub async fn run(self) -> Result<(), RunError> {
        init_logs(self.log_format);
        operator::run(operator::Options {
            config: configuration(&self.config)?,
            client: self.connection.options(),
            namespace: self.namespace,
            identity: self.identity,
            admin_listen: self.admin_listen,
        })
        .await?;
        Ok(())
    }
}

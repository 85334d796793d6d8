//! `agentid serve`: the token service.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use thiserror::Error;

use super::connection::Connection;
use super::process::{ConfigFileError, LogFormat, configuration, init_logs};
use crate::serve::{self, ServeError};

/// Serve tokens on demand, introspection, status lists and keys.
///
/// Any number of replicas; none of them leads, and none writes anything. Standard output carries one audit line
/// (JSON) for every token and every refusal, standard error the log. It ends with exit code 0 on SIGTERM, when the
/// requests under way have come to their end, and with 1 when it finds the cluster set back to an older state (a backup of
/// etcd): start it anew then.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  agentid serve --config configuration.yaml --namespace agentid-system --listen 0.0.0.0:8443 \\
      --verify-listen 0.0.0.0:8080 --admin-listen 0.0.0.0:9441")]
pub struct ServeArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "AGENTID_CONFIG")]
    config: PathBuf,
    /// The namespace of the key Secrets and the operator's Lease
    #[arg(long, short, env = "POD_NAMESPACE", default_value = "agentid-system")]
    namespace: String,
    /// Where the service is served, over HTTPS
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8443")]
    listen: SocketAddr,
    /// Where proxies ask for /verify/<resource>, over plain HTTP: not to be reached from outside; nowhere when absent
    #[arg(long, value_name = "ADDRESS")]
    verify_listen: Option<SocketAddr>,
    /// Where /livez, /readyz and /metrics are served
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9441")]
    admin_listen: SocketAddr,
    /// A certificate chain (PEM) in the place of the self-managed one; read again when it changes
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// The certificate's key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// How logs are written, to standard error; what is logged follows RUST_LOG (default: info)
    #[arg(long, value_enum, default_value_t = LogFormat::Json)]
    log_format: LogFormat,
    #[command(flatten)]
    connection: Connection,
}

/// Why the service did not start.
#[derive(Debug, Error)]
pub enum RunError {
    /// The configuration file.
    #[error(transparent)]
    Config(#[from] ConfigFileError),
    /// The service.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

impl ServeArgs {
    /// Runs until a signal.
    ///
    /// # Errors
    /// [`RunError`].
    pub async fn run(self) -> Result<(), RunError> {
        init_logs(self.log_format);
        serve::run(serve::Options {
            config: configuration(&self.config)?,
            client: self.connection.options(),
            namespace: self.namespace,
            listen: self.listen,
            verify_listen: self.verify_listen,
            admin_listen: self.admin_listen,
            certificate: self.tls_certificate.zip(self.tls_key),
        })
        .await?;
        Ok(())
    }
}

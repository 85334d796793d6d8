//! How every command finds its cluster.

use std::path::PathBuf;

use clap::Args;

use crate::cluster::client::ClientOptions;

/// Which cluster.
#[derive(Clone, Debug, Default, Args)]
pub struct Connection {
    /// The kubeconfig file; $KUBECONFIG, the pod's service account or ~/.kube/config when absent
    #[arg(long, value_name = "FILE", help_heading = "Cluster", global = true)]
    pub kubeconfig: Option<PathBuf>,
    /// The kubeconfig's context; the current one when absent
    #[arg(long, value_name = "NAME", help_heading = "Cluster", global = true)]
    pub context: Option<String>,
}

impl Connection {
    /// As the client wants it.
    #[must_use]
    pub fn options(&self) -> ClientOptions {
        ClientOptions { kubeconfig: self.kubeconfig.clone(), context: self.context.clone() }
    }
}

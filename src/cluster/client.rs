//! How this program reaches the API server: three clients of their own, one error with a closed set of
//! classes, and the bound on every single call.
//!
//! Invariants: no call waits for ever ([`timed`], [`timed_within`]); nothing is retried below the caller,
//! who alone knows whether a second try still makes sense; no error carries a response body, a credential
//! or the output of a credential plugin.

mod calls;
mod error;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use http::header::USER_AGENT;
use kube::Client;
use kube::client::ClientBuilder;
use kube::config::{Config, KubeConfigOptions, Kubeconfig, KubeconfigError};

use crate::api::Configuration;

pub use calls::Calls;
pub use error::{CallError, Class};
pub(super) use error::{clip, shape_error};

/// How long a connection may take to be made, TLS included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one call through [`Clients::write`] may take, from queue to answer.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(15);
const IN_CLUSTER: &str = "KUBERNETES_SERVICE_HOST";

/// Where the cluster is and as whom to come.
#[derive(Debug, Clone, Default)]
pub struct ClientOptions {
    /// A kubeconfig file. Without it: `$KUBECONFIG`, then the pod's service account, then `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig; without it the current one. Never the pod's account.
    pub context: Option<String>,
}

/// The clients of one process. They share no connection, so that a burst of writes delays neither a watch
/// nor the lease. All speak HTTP/1.1, one connection for each call or watch that is under way, uncompressed.
#[derive(Clone)]
pub struct Clients {
    /// For lists and watches: no read timeout (the watch has its own idle bound), no hidden retry.
    pub watch: Client,
    /// For writes and single reads; wrap each call in [`timed`].
    pub write: Client,
    /// For the lease alone.
    pub lease: Client,
    /// What they have called.
    pub calls: Calls,
    /// The namespace of the kubeconfig's context or of the pod.
    pub namespace_default: String,
    /// Scheme, host and port of the API server, for messages.
    pub server: String,
    /// The certificates (PEM) that vouch for the API server; `None` if the system's do.
    pub authority: Option<String>,
}

impl Clients {
    /// Fills in what a configuration leaves to the certificates that this process trusts.
    #[must_use]
    pub fn complete(&self, mut config: Configuration) -> Configuration {
        let authority = &mut config.kubernetes.certificate_authority;
        *authority = authority.take().or_else(|| self.authority.clone());
        config
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients").field("server", &self.server).finish_non_exhaustive()
    }
}

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A kubeconfig that can't be read, or lacks what was asked of it.
    #[error("kubeconfig: {0}")]
    Kubeconfig(String),
    /// Neither a kubeconfig nor a pod's service account was found.
    #[error("no cluster: {in_cluster}; kubeconfig: {kubeconfig}")]
    NoCluster {
        /// Why the pod's service account can't be used.
        in_cluster: String,
        /// Why there is no kubeconfig.
        kubeconfig: String,
    },
    /// The credentials or certificates of the configuration can't be used.
    #[error("the cluster's configuration can't be used: {0}")]
    Unusable(CallError),
}

impl ClientError {
    /// The class as a label.
    #[must_use]
    pub const fn class(&self) -> &'static str {
        match self {
            Self::Kubeconfig(_) => "kubeconfig",
            Self::NoCluster { .. } => "no-cluster",
            Self::Unusable(_) => "unusable",
        }
    }
}

/// Reads the configuration and makes the clients. Nothing is sent yet: a server that is down shows at the
/// first call.
///
/// # Errors
/// When there is no usable configuration.
pub async fn connect(options: &ClientOptions) -> Result<Clients, ClientError> {
    let config = configuration(options).await?;
    let calls = Calls::default();
    let client = |connect: Duration, write: Duration| {
        let mut config = config.clone();
        config.connect_timeout = Some(connect);
        config.write_timeout = Some(write);
        config.read_timeout = None;
        config.default_retry = false;
        config
            .headers
            .push((USER_AGENT, HeaderValue::from_static(concat!("agentid/", env!("CARGO_PKG_VERSION")))));
        let builder =
            ClientBuilder::try_from(config).map_err(|e| ClientError::Unusable(CallError::from_kube(e)))?;
        Ok::<_, ClientError>(builder.with_layer(&calls).build())
    };
    Ok(Clients {
        watch: client(CONNECT_TIMEOUT, CALL_TIMEOUT)?,
        write: client(CONNECT_TIMEOUT, CALL_TIMEOUT)?,
        lease: client(CONNECT_TIMEOUT, CONNECT_TIMEOUT)?,
        calls: calls.clone(),
        namespace_default: config.default_namespace.clone(),
        authority: authority(&config),
        server: format!(
            "{}://{}:{}",
            config.cluster_url.scheme_str().unwrap_or("https"),
            config.cluster_url.host().unwrap_or_default(),
            config.cluster_url.port_u16().unwrap_or(443)
        ),
    })
}

/// What vouches for the API server, as PEM.
fn authority(config: &Config) -> Option<String> {
    if let Some(file) = &config.root_cert_file {
        return std::fs::read_to_string(file).ok();
    }
    let one = |der: &Vec<u8>| {
        let text = STANDARD.encode(der);
        let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    };
    let all: String = config.root_cert.as_ref()?.iter().map(one).collect();
    (!all.is_empty()).then_some(all)
}

async fn configuration(options: &ClientOptions) -> Result<Config, ClientError> {
    let of_file = KubeConfigOptions { context: options.context.clone(), ..Default::default() };
    if let Some(path) = &options.kubeconfig {
        let file = Kubeconfig::read_from(path).map_err(|e| kubeconfig_error(&e))?;
        return Config::from_custom_kubeconfig(file, &of_file).await.map_err(|e| kubeconfig_error(&e));
    }
    let said = |name| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    if options.context.is_some() || said("KUBECONFIG") {
        return Config::from_kubeconfig(&of_file).await.map_err(|e| kubeconfig_error(&e));
    }
    // In a pod a broken service account must not silently become someone's kubeconfig in the image.
    let in_cluster = match Config::incluster() {
        Ok(config) => return Ok(config),
        Err(e) => e.to_string(),
    };
    if said(IN_CLUSTER) {
        return Err(ClientError::NoCluster { in_cluster, kubeconfig: "not looked for in a pod".into() });
    }
    Config::from_kubeconfig(&of_file)
        .await
        .map_err(|e| ClientError::NoCluster { in_cluster, kubeconfig: kubeconfig_text(&e) })
}

fn kubeconfig_error(error: &KubeconfigError) -> ClientError {
    ClientError::Kubeconfig(kubeconfig_text(error))
}

/// The YAML parser's messages show the lines around the fault, and those hold tokens and keys.
fn kubeconfig_text(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::Parse(_) => "not valid as a kubeconfig (YAML)".into(),
        other => other.to_string(),
    }
}

/// Bounds a call by [`CALL_TIMEOUT`]. A [`Class::Timeout`] says nothing about whether it had its effect.
///
/// # Errors
/// The call's own failure, classed; or the timeout.
pub async fn timed<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, CallError> {
    timed_within(CALL_TIMEOUT, call).await
}

/// Bounds a call by a time of its own.
///
/// # Errors
/// As [`timed`].
pub async fn timed_within<T>(
    limit: Duration,
    call: impl Future<Output = kube::Result<T>>,
) -> Result<T, CallError> {
    match tokio::time::timeout(limit, call).await {
        Ok(result) => result.map_err(CallError::from_kube),
        Err(_) => Err(CallError::new(Class::Timeout, format!("no answer within {limit:?}"))),
    }
}

/// A number in `0.0..1.0` for spreading things in time. Not for anything secret.
pub(super) fn spread() -> f64 {
    f64::from(RandomState::new().hash_one(0_u8) as u32) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_kubeconfig_is_not_quoted() {
        let parsed = Kubeconfig::from_yaml("users: [{name: u, user: {token: hunter2\n").unwrap_err();
        assert!(matches!(parsed, KubeconfigError::Parse(_)));
        assert!(!kubeconfig_error(&parsed).to_string().contains("hunter2"));
    }

    #[test]
    fn the_spread_stays_in_its_range_and_varies() {
        let many: Vec<f64> = (0..64).map(|_| spread()).collect();
        assert!(many.iter().all(|x| (0.0..1.0).contains(x)));
        assert!(many.iter().any(|x| (x - many[0]).abs() > 0.01));
    }

    #[tokio::test]
    async fn a_call_without_an_answer_ends() {
        let never = std::future::pending::<kube::Result<()>>();
        let error = timed_within(Duration::from_millis(5), never).await.unwrap_err();
        assert_eq!(error.class(), Class::Timeout);
    }
}

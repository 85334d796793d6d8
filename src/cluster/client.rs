//! How this program reaches the API server: three clients of their own, one error with a closed set of
//! classes, and the bound on every single call.
//!
//! Invariants: no call waits for ever ([`timed`], [`timed_within`]); nothing is retried below the caller,
//! who alone knows whether a second try still makes sense; no error carries a response body, a credential
//! or the output of a credential plugin.

use std::collections::BTreeSet;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderValue;
use http::header::USER_AGENT;
use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::core::Status;

/// How long a connection may take to be made, TLS included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one call through [`Clients::write`] may take, from queue to answer.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// The longest part of an API server's message that is kept, in bytes.
const MESSAGE_LIMIT: usize = 512;
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
    /// The namespace of the kubeconfig's context or of the pod.
    pub namespace_default: String,
    /// Scheme, host and port of the API server, for messages.
    pub server: String,
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
    let client = |connect: Duration, write: Duration| {
        let mut config = config.clone();
        config.connect_timeout = Some(connect);
        config.write_timeout = Some(write);
        config.read_timeout = None;
        config.default_retry = false;
        config
            .headers
            .push((USER_AGENT, HeaderValue::from_static(concat!("agentid/", env!("CARGO_PKG_VERSION")))));
        Client::try_from(config).map_err(|e| ClientError::Unusable(CallError::from_kube(e)))
    };
    Ok(Clients {
        watch: client(CONNECT_TIMEOUT, CALL_TIMEOUT)?,
        write: client(CONNECT_TIMEOUT, CALL_TIMEOUT)?,
        lease: client(CONNECT_TIMEOUT, CONNECT_TIMEOUT)?,
        namespace_default: config.default_namespace.clone(),
        server: format!(
            "{}://{}:{}",
            config.cluster_url.scheme_str().unwrap_or("https"),
            config.cluster_url.host().unwrap_or_default(),
            config.cluster_url.port_u16().unwrap_or(443)
        ),
    })
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

/// What kind of failure a call met: the closed set used in metrics, logs and decisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// 404: the object, or for a list the kind itself, is not there.
    NotFound,
    /// 401 or 403, or no credentials could be had.
    Forbidden,
    /// 409 with the reason `AlreadyExists`.
    AlreadyExists,
    /// Any other 409: the object has changed meanwhile.
    Conflict,
    /// 410: the resourceVersion or the list's continuation is too old.
    Expired,
    /// 400, 405, 413, 415, 422: asking again won't help.
    Invalid,
    /// 429.
    Throttled,
    /// No connection, or it broke.
    Unreachable,
    /// No answer in time: here, or at the server (408, 504). The call may have had its effect.
    Timeout,
    /// Anything else the server answered with, or an answer that can't be read.
    Server,
}

impl Class {
    /// The class as a label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not-found",
            Self::Forbidden => "forbidden",
            Self::AlreadyExists => "already-exists",
            Self::Conflict => "conflict",
            Self::Expired => "expired",
            Self::Invalid => "invalid",
            Self::Throttled => "throttled",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Server => "server",
        }
    }

    /// Whether the same call may well succeed a little later.
    #[must_use]
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::Throttled | Self::Unreachable | Self::Timeout | Self::Server)
    }

    pub(super) fn of_status(code: u16, reason: &str) -> Self {
        match code {
            401 | 403 => Self::Forbidden,
            404 => Self::NotFound,
            408 | 504 => Self::Timeout,
            409 if reason == "AlreadyExists" => Self::AlreadyExists,
            409 => Self::Conflict,
            410 => Self::Expired,
            400 | 405 | 406 | 413 | 415 | 422 => Self::Invalid,
            429 => Self::Throttled,
            _ => Self::Server,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{class}: {message}")]
pub struct CallError {
    class: Class,
    message: String,
    retry_after: Option<Duration>,
}

impl CallError {
    pub(super) fn new(class: Class, message: impl AsRef<str>) -> Self {
        Self { class, message: clip(message.as_ref(), MESSAGE_LIMIT).to_owned(), retry_after: None }
    }

    /// The class, for decisions and labels.
    #[must_use]
    pub const fn class(&self) -> Class {
        self.class
    }

    /// One line for people; never a body.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// How long the server asked to be left alone.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    pub(super) fn after(mut self, seconds: Option<u64>) -> Self {
        self.retry_after = seconds.filter(|s| *s > 0).map(Duration::from_secs);
        self
    }

    /// From an answer of the API server, or of whatever stands before it.
    pub(super) fn from_status(status: &Status) -> Self {
        let class = Class::of_status(status.code, &status.reason);
        // kube puts a body that is no Status (a proxy's page) into the message.
        let message = if status.reason == "Failed to parse error data" {
            format!("HTTP {} without a Status", status.code)
        } else {
            one_line(&status.message)
        };
        let seconds = status.details.as_ref().map(|d| u64::from(d.retry_after_seconds));
        Self::new(class, message).after(seconds)
    }

    /// From kube's error, leaving out what may hold content.
    #[must_use]
    pub fn from_kube(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::from_status(&status),
            kube::Error::SerdeError(e) => Self::new(Class::Server, shape_error(&e)),
            // The output of an exec plugin is part of these errors' texts.
            kube::Error::Auth(_) => Self::new(Class::Forbidden, "no credentials could be had"),
            kube::Error::HyperError(e) => Self::new(Class::Unreachable, chain(&e)),
            kube::Error::Service(e) => {
                if e.is::<kube::client::AuthError>() {
                    return Self::new(Class::Forbidden, "no credentials could be had");
                }
                Self::new(Class::Unreachable, chain(e.as_ref()))
            }
            kube::Error::ReadEvents(e) => Self::new(Class::Unreachable, chain(&e)),
            kube::Error::FromUtf8(_) => Self::new(Class::Server, "the answer is not UTF-8"),
            kube::Error::InferKubeconfig(e) => Self::new(Class::Invalid, kubeconfig_text(&e)),
            other => Self::new(Class::Invalid, one_line(&other.to_string())),
        }
    }
}

impl From<kube::Error> for CallError {
    fn from(error: kube::Error) -> Self {
        Self::from_kube(error)
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

/// What serde says of an answer, without what it quotes from it.
pub(super) fn shape_error(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match (text.find('"'), text.rfind('"')) {
        (Some(first), Some(last)) if first < last => format!("{}\"…\"{}", &text[..first], &text[last + 1..]),
        _ => text,
    }
}

/// An error and its causes, each said once.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut seen = BTreeSet::new();
    let mut parts = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next.filter(|_| parts.len() < 8) {
        let text = one_line(&error.to_string());
        if seen.insert(text.clone()) {
            parts.push(text);
        }
        next = error.source();
    }
    parts.join(": ")
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// At most `limit` bytes, cut between characters.
pub(super) fn clip(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

/// A number in `0.0..1.0` for spreading things in time. Not for anything secret.
pub(super) fn spread() -> f64 {
    f64::from(RandomState::new().hash_one(0_u8) as u32) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16, reason: &str, message: &str) -> Status {
        Status { code, reason: reason.into(), message: message.into(), ..Status::failure("", "") }
    }

    #[test]
    fn answers_are_classed() {
        for (code, reason, class) in [
            (401, "Unauthorized", Class::Forbidden),
            (403, "Forbidden", Class::Forbidden),
            (404, "NotFound", Class::NotFound),
            (409, "AlreadyExists", Class::AlreadyExists),
            (409, "Conflict", Class::Conflict),
            (410, "Expired", Class::Expired),
            (422, "Invalid", Class::Invalid),
            (429, "TooManyRequests", Class::Throttled),
            (500, "InternalError", Class::Server),
            (504, "Timeout", Class::Timeout),
        ] {
            assert_eq!(CallError::from_status(&status(code, reason, "m")).class(), class, "{code} {reason}");
        }
    }

    #[test]
    fn a_body_never_becomes_the_message() {
        let page = status(502, "Failed to parse error data", "<html>cookie=hunter2</html>");
        assert_eq!(CallError::from_status(&page).to_string(), "server: HTTP 502 without a Status");
        let quoted = serde_json::from_str::<u8>(r#""hun\"ter2""#).unwrap_err();
        assert!(!shape_error(&quoted).contains("ter2"), "{}", shape_error(&quoted));
        assert!(shape_error(&quoted).contains("expected u8"));
    }

    #[test]
    fn messages_are_cut_between_characters() {
        assert_eq!(clip("aäb", 2), "a");
        assert_eq!(clip("aäb", 3), "aä");
        let long = CallError::new(Class::Server, "ä".repeat(1000));
        assert!(long.message().len() <= MESSAGE_LIMIT);
    }

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

//! `agentid trace`: whose a token is, by its jti and the record, and how it stands now.
//!
//! Invariants: the record says who and what, the cluster says what of it is left; how the token stands is what
//! introspection would say, decided from one look at the cluster; nothing is written.

mod facts;
mod print;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use thiserror::Error;

use self::facts::{Now, PodSeen, Seen};
use super::connection::Connection;
use super::look::{AGENT, LookError, Output, configuration, named, print_objects};
use super::record::{Reach, Record, RecordError};
use super::why::WhyError;
use crate::api::TRUST_NAME;
use crate::cluster::client::{CallError, Class, Clients, connect};
use crate::cluster::snapshot::{SnapshotError, snapshot};
use crate::cluster::write::Writer;
use crate::crypto::JwkSet;
use crate::domain::Key;
use crate::issue::{Action, AuditLine};

/// Say whose a token is, by its jti and the record, and how it stands now.
///
/// The jti is a claim of the token, and stands in the logs of whoever was called with it. The record is what
/// `agentid operator` and `agentid serve` write to standard output, as the cluster's log collection keeps it: lines
/// of other kinds and prefixes do no harm. Then the cluster is read once, and nothing is written. The exit code is 0
/// if the token was found, however it stands.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kubectl logs -n agentid-system -l app=agentid-serve --prefix --tail=-1 | agentid trace 01KB3W6Y5QJ7X2M4N8R0S1T9VZ
  agentid trace 01KB3W6Y5QJ7X2M4N8R0S1T9VZ --file serve.log --file operator.log
  agentid trace 01KB3W6Y5QJ7X2M4N8R0S1T9VZ --file old.log --offline -o json | jq .mint.pod")]
pub struct TraceArgs {
    /// The token's id, its claim jti
    #[arg(value_parser = token_id)]
    jti: String,
    #[command(flatten)]
    record: Record,
    /// Say only what the record says; leave the cluster out
    #[arg(long, conflicts_with_all = ["kubeconfig", "context"])]
    offline: bool,
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

/// Why there is no answer, or half of one.
#[derive(Debug, Error)]
pub enum TraceError {
    /// The record can't be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The record does not know the token.
    #[error(
        "no token of jti {jti} was minted in what was read: {reach}; give the record of that time, of every replica of \
         agentid serve and of agentid operator (--file, or standard input)"
    )]
    NotFound {
        /// The id.
        jti: String,
        /// What was read.
        reach: String,
    },
    /// The configuration or standard output.
    #[error(transparent)]
    Look(#[from] LookError),
    /// The record was told; the cluster does not answer.
    #[error("how the token stands now can't be told: {0} (--offline leaves the cluster out)")]
    Cluster(#[source] WhyError),
}

/// The answer.
#[derive(Debug, Serialize)]
struct Trace {
    jti: String,
    /// The audit line of the mint, as `docs/audit.md` has it.
    mint: AuditLine,
    #[serde(skip_serializing_if = "Option::is_none")]
    now: Option<Now>,
}

impl Trace {
    /// The agent whose token it was.
    fn names(&self) -> Vec<String> {
        self.mint.name.iter().map(|name| named(AGENT, name)).collect()
    }
}

impl TraceArgs {
    /// Reads, looks and prints.
    ///
    /// # Errors
    /// [`TraceError`]; of a cluster that does not answer, after what the record says was printed.
    pub async fn run(self) -> Result<(), TraceError> {
        let config = self.config.as_deref().map(configuration).transpose()?;
        let (found, reach) = find(&self.record, &self.jti)?;
        let Some(mint) = found else {
            return Err(TraceError::NotFound { jti: self.jti, reach: reach.to_string() });
        };
        let looked = if self.offline {
            Ok(None)
        } else {
            let clients = connect(&self.connection.options()).await.map_err(WhyError::from);
            match clients {
                Ok(clients) => look(&clients, config, &mint).await.map(Some),
                Err(error) => Err(error),
            }
        };
        let (now, failed) = match looked {
            Ok(now) => (now, None),
            Err(error) => (None, Some(error)),
        };
        let trace = Trace { jti: self.jti, mint, now };
        print_objects(self.output, &trace, Trace::names, |trace| trace.text(Timestamp::now()))?;
        failed.map_or(Ok(()), |error| Err(TraceError::Cluster(error)))
    }
}

/// The mint of a jti; reading ends with it.
fn find(record: &Record, jti: &str) -> Result<(Option<AuditLine>, Reach), RecordError> {
    let mut found = None;
    let reach = record.each(|line| {
        if line.action == Action::Mint && line.jti.as_deref() == Some(jti) {
            found = Some(line);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    Ok((found, reach))
}

/// Looks at what is left of agent, grant, pod and key, once.
async fn look(
    clients: &Clients,
    config: Option<crate::api::Configuration>,
    mint: &AuditLine,
) -> Result<Now, WhyError> {
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    let agent = Key::new(text(&mint.namespace), text(&mint.name));
    let snapshot = match snapshot(&clients.write, config, &agent).await {
        Ok(snapshot) => Some(snapshot),
        Err(SnapshotError::AgentNotFound { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let writer = Writer::new(clients.write.clone());
    let pod = match &mint.pod {
        None => PodSeen::None,
        Some(name) => pod_seen(writer.look("/api/v1/pods", &agent.sibling(name.as_str())).await),
    };
    let trust = writer.look::<Value>("/api/v1/configmaps", &agent.sibling(TRUST_NAME)).await;
    let published = trust.ok().flatten().and_then(|trust| {
        let keys = JwkSet::parse(trust.pointer("/data/jwks.json")?.as_str()?).ok()?;
        Some(keys.set.find(mint.kid.as_deref()?).is_some())
    });
    Ok(Now::of(mint, &Seen { snapshot: snapshot.as_ref(), pod, published }, Timestamp::now()))
}

fn pod_seen(found: Result<Option<Value>, CallError>) -> PodSeen {
    let text = |v: &Value, at: &str| v.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
    match found {
        Ok(None) => PodSeen::Gone,
        Ok(Some(pod)) => {
            PodSeen::There { uid: text(&pod, "/metadata/uid"), phase: text(&pod, "/status/phase") }
        }
        Err(e) => {
            let whose = if e.class() == Class::Forbidden { " as you" } else { "" };
            PodSeen::Unseen(format!("pods can't be read{whose}: {e}"))
        }
    }
}

fn token_id(text: &str) -> Result<String, String> {
    if text.split('.').count() == 3 && text.starts_with("ey") {
        return Err(
            "that is a token; its id is its claim jti, which `agentid token inspect` shows".to_owned()
        );
    }
    if text.is_empty() || text.len() > 256 || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err("a jti is one word, such as 01KB3W6Y5QJ7X2M4N8R0S1T9VZ".to_owned());
    }
    Ok(text.to_owned())
}

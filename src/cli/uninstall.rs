//! `agentid uninstall`: what agentid leaves in a cluster, and how nothing of it is left.
//!
//! Invariants: nothing is deleted while an operator leads, since it would make anew what it misses; each delete names the
//! UID that was listed; what is not agentid's by type, label or name is left alone; that nothing is left is found out,
//! not assumed.

mod inventory;
mod print;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use clap::Args;
use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Client;
use kube::api::Api;
use serde::Serialize;
use thiserror::Error;

use self::inventory::{Group, Unlisted, inventory};
use super::confirm::{Unconfirmed, confirm};
use super::connection::Connection;
use super::look::{LookError, Output, print_objects};
use super::progress::Progress;
use super::why::object_name;
use crate::cluster::client::{CallError, ClientError, connect, timed};
use crate::cluster::lease::{LEASE_NAME, LeaseConfig};
use crate::cluster::write::Writer;

/// So many deletes are under way at once.
const AT_ONCE: usize = 16;
/// How often one delete is tried, and the pause between two tries.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);
/// How long what is deleted may take to be gone.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the calls of one that takes over may take.
const CALLS: Duration = Duration::from_secs(1);

/// Say what agentid leaves in a cluster, or take all of it away.
///
/// Taking the operator and the token service away (`helm uninstall`, or deleting their Deployments) leaves the kinds,
/// every agent and its credentials, and the signing keys: so an upgrade or a move loses nothing, and tokens in pods go on
/// until they expire. This command says what is there. With --everything it deletes all of that, in every namespace,
/// for good: agents, grants, resources, blueprints and policies; Secrets with credentials, RoleBindings of grants and the
/// ConfigMaps agentid-trust; admission policies; the kinds themselves; and the signing keys, so that no token of agentid's can
/// be verified any more. It refuses while an operator leads. The exit code is 1 if anything is left.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  agentid uninstall                          # say what is there; nothing is deleted
  agentid uninstall --everything --dry-run
  helm uninstall agentid -n agentid-system && agentid uninstall --everything
  agentid uninstall --everything --yes -o json | jq .left")]
pub struct UninstallArgs {
    /// Delete all of it
    #[arg(long)]
    everything: bool,
    /// The operator's namespace
    #[arg(long, short, env = "POD_NAMESPACE", default_value = "agentid-system", value_parser = object_name)]
    namespace: String,
    /// Do it without asking
    #[arg(long, short)]
    yes: bool,
    /// Only say what would be deleted
    #[arg(long)]
    dry_run: bool,
    /// How to print the answer; all but text need --yes or --dry-run with --everything
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

/// The answer. Members are only ever added.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    /// What is there, in the order in which it is deleted.
    found: Vec<Group>,
    /// The operator that leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    leader: Option<String>,
    /// How many objects were deleted.
    deleted: usize,
    /// What is there after all; absent where nothing was to be deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<Vec<Group>>,
    notes: Vec<String>,
}

/// Why it was not done, or not wholly.
#[derive(Debug, Error)]
pub enum UninstallError {
    /// No cluster.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// What is there can't be told.
    #[error(transparent)]
    Unlisted(#[from] Unlisted),
    /// The Lease can't be read.
    #[error(
        "cannot read the Lease {LEASE_NAME} in namespace {0}, so whether an operator leads can't be told: {1}"
    )]
    Lease(String, CallError),
    /// An operator leads.
    #[error(
        "nothing was deleted: the operator {0} leads, and would make anew what it misses: take it away first (helm \
         uninstall, or kubectl delete deployment), then repeat this"
    )]
    Led(String),
    /// Nobody said that it is to be done.
    #[error(transparent)]
    Unconfirmed(#[from] Unconfirmed),
    /// A delete failed.
    #[error("{what} could not be deleted: {source}; what was deleted is gone, the command may be repeated")]
    Delete {
        /// The object.
        what: String,
        /// What the API server said.
        source: CallError,
    },
    /// Something is left.
    #[error("{0} objects are left, such as {1}: look at their finalizers, and repeat this")]
    Left(usize, String),
    /// Standard output can't be written.
    #[error(transparent)]
    Print(#[from] LookError),
}

impl UninstallArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// [`UninstallError`].
    pub async fn run(self) -> Result<(), UninstallError> {
        let clients = connect(&self.connection.options()).await?;
        let client = clients.write;
        let (found, notes) = inventory(&client, &self.namespace).await?;
        let leader = leader(&client, &self.namespace).await?;
        let mut report = Report { found, leader, deleted: 0, left: None, notes };
        let does = self.everything && !self.dry_run;
        if !does || self.output == Output::Text {
            print_objects(self.output, &report, Report::names, |r| r.text(self.everything))?;
        }
        if !does {
            return Ok(());
        }
        if let Some(leader) = report.leader {
            return Err(UninstallError::Led(leader));
        }
        if report.objects() > 0 {
            if !self.yes {
                confirm(&report.question(), self.output)?;
                // Whoever took long to answer may have got an operator meanwhile.
                if let Some(leader) = self::leader(&client, &self.namespace).await? {
                    return Err(UninstallError::Led(leader));
                }
            }
            let writer = Writer::for_people(client.clone());
            for group in &report.found {
                report.deleted += delete(&writer, group).await?;
            }
        }
        let left = until_gone(&client, &self.namespace).await?;
        let first = left.iter().flat_map(Group::said).next();
        let n = left.iter().map(|g| g.objects.len()).sum();
        report.left = Some(left);
        print_objects(self.output, &report, Report::names, Report::done)?;
        first.map_or(Ok(()), |first| Err(UninstallError::Left(n, first)))
    }
}

/// How long the Lease is looked at: a leader renews every two seconds, and where one has just died another has taken
/// over by then.
fn takeover() -> Duration {
    LeaseConfig::default().takeover() + CALLS
}

/// Who leads, if anybody does: one that renews, or may yet take over.
async fn leader(client: &Client, namespace: &str) -> Result<Option<String>, UninstallError> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let read = || async {
        let found = timed(leases.get_opt(LEASE_NAME)).await;
        found.map_err(|e| UninstallError::Lease(namespace.to_owned(), e))
    };
    let holder = |lease: &Lease| {
        let spec = lease.spec.as_ref();
        spec.and_then(|s| s.holder_identity.clone()).filter(|h| !h.is_empty())
    };
    let Some(first) = read().await? else { return Ok(None) };
    if holder(&first).is_none() {
        return Ok(None);
    }
    // By no clock but our own stopwatch: whether the Lease is written while we look.
    let began = Instant::now();
    eprintln!("looking whether an operator leads");
    while began.elapsed() < takeover() {
        tokio::time::sleep(PAUSE).await;
        let Some(now) = read().await? else { return Ok(None) };
        if now.metadata.resource_version != first.metadata.resource_version {
            return Ok(holder(&now));
        }
    }
    Ok(None)
}

/// Deletes all of a group; gives how many.
async fn delete(writer: &Writer, group: &Group) -> Result<usize, UninstallError> {
    let mut progress = Progress::new(group.what, group.objects.len());
    let mut deletes = futures::stream::iter(&group.objects)
        .map(|object| async move {
            let path = group.path_of(object);
            let mut tries = 1;
            loop {
                match writer.delete_at(&path, object.uid).await {
                    Err(e) if e.class().is_transient() && tries < TRIES => {
                        tries += 1;
                        tokio::time::sleep(e.retry_after().unwrap_or(PAUSE)).await;
                    }
                    done => return done.map_err(|source| (group.name_of(object), source)),
                }
            }
        })
        .buffer_unordered(AT_ONCE);
    let mut done = 0;
    while let Some(deleted) = deletes.next().await {
        if let Err((what, source)) = deleted {
            progress.end();
            return Err(UninstallError::Delete { what, source });
        }
        done += 1;
        progress.at(done);
    }
    progress.end();
    Ok(done)
}

/// What is left, once nothing goes any more.
async fn until_gone(client: &Client, namespace: &str) -> Result<Vec<Group>, UninstallError> {
    let began = Instant::now();
    let mut said = usize::MAX;
    loop {
        let (mut left, _) = inventory(client, namespace).await?;
        left.retain(|g| !g.objects.is_empty());
        let n = left.iter().map(|g| g.objects.len()).sum();
        if n == 0 || began.elapsed() >= PATIENCE {
            return Ok(left);
        }
        if n != said {
            eprintln!("{n} objects are still on their way out");
            said = n;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

//! `agentid keys`: what signs, since when and until when; rotation, revocation, and the way back after a loss.
//!
//! Invariant: commands never touch a key. They ask the leader, by an annotation on the key Secret, and wait for
//! its answer.

mod ask;

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Value, json};
use thiserror::Error;

use self::ask::{PATIENCE, Report, ask, follow, signed_by};
use super::connection::Connection;
use super::look::{LookError, Output, documents, print};
use crate::api::format_seconds;
use crate::cluster::client::{CallError, ClientError, connect};
use crate::cluster::keystore::{KeyStore, KeyringError, KeysRequest, Loaded, Operation};
use crate::domain::keyring::{KeyRecord, KeySlot, Purpose, Stage, Times};

/// Look at the signing keys, rotate or revoke them
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  agentid keys status
  agentid keys rotate
  agentid keys revoke 3Jk…Q --yes    # a stolen key: out at once, its tokens minted anew
  agentid keys reset --yes           # the ring is lost for good: new keys, every token minted anew")]
pub struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
    /// The operator's namespace
    #[arg(long, short, global = true, env = "POD_NAMESPACE", default_value = "agentid-system")]
    namespace: String,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Show every key: what it does, since when, and when that changes
    Status {
        /// The form of the output
        #[arg(long, short, value_parser = documents(), default_value = "text")]
        output: Output,
    },
    /// Let the next keys sign as soon as every verifier has had the time to learn of them.
    ///
    /// Nothing is minted anew: tokens of the new keys come with renewals. `agentid rotate` mints them now, at a pace.
    Rotate {
        /// The form of the output
        #[arg(long, short, value_parser = documents(), default_value = "text")]
        output: Output,
    },
    /// Take a key out at once and mint everything that it signed anew
    Revoke {
        /// The key's id, as `agentid keys status` shows it; behind -- in a script, since it may begin with a hyphen
        #[arg(allow_hyphen_values = true)]
        kid: String,
        /// Do it; without this, only say what it would hit
        #[arg(long, short)]
        yes: bool,
        /// Only say what it would hit, which is what is done without --yes
        #[arg(long, conflicts_with = "yes")]
        dry_run: bool,
        /// The form of the output
        #[arg(long, short, value_parser = documents(), default_value = "text")]
        output: Output,
    },
    /// Throw every key away and make new ones: only when the ring is lost or damaged for good
    Reset {
        /// Do it; without this, only say what it would hit
        #[arg(long, short)]
        yes: bool,
        /// Only say what it would hit, which is what is done without --yes
        #[arg(long, conflicts_with = "yes")]
        dry_run: bool,
        /// The form of the output
        #[arg(long, short, value_parser = documents(), default_value = "text")]
        output: Output,
    },
}

/// Why a command about keys did not do what was asked.
#[derive(Debug, Error)]
pub enum KeysError {
    /// No cluster.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A call.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The ring.
    #[error(transparent)]
    Ring(#[from] KeyringError),
    /// Standard output can't be written.
    #[error(transparent)]
    Print(#[from] LookError),
    /// The leader refused.
    #[error("{0}")]
    Refused(String),
    /// No such key.
    #[error("there is no key {0:?}; `agentid keys status` shows the ids")]
    NoSuchKey(String),
    /// The leader did not answer.
    #[error(
        "the leader has not answered within {}s; the request stands and is carried out when one leads: look at the \
         operator's log and at the Lease agentid-operator",
        PATIENCE.as_secs()
    )]
    NoAnswer,
}

impl KeysArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// [`KeysError`].
    pub async fn run(self) -> Result<(), KeysError> {
        let clients = connect(&self.connection.options()).await?;
        let store = KeyStore::new(clients.write.clone(), &self.namespace);
        match self.command {
            KeysCommand::Status { output } => {
                let stored = store.fetch().await?.ok_or(KeyringError::Missing)?;
                let loaded = stored.ring.clone()?;
                let times = stored.times.as_ref();
                let text = |_: &Value| table(&loaded, times, Timestamp::now());
                Ok(print(output, &document(&loaded, times), text)?)
            }
            KeysCommand::Rotate { output } => {
                let mut report = Report::new(Operation::Rotate);
                ask(&store, KeysRequest::new(Operation::Rotate, None, Timestamp::now()), &mut report).await?;
                Ok(print(output, &report, Report::text)?)
            }
            KeysCommand::Revoke { kid, yes, dry_run: _, output } => {
                let loaded = store.load().await?;
                if !loaded.ring.keys.iter().any(|k| k.kid == kid) {
                    return Err(KeysError::NoSuchKey(kid));
                }
                let such = |kids: &str| kids.split(',').any(|k| k == kid);
                let mut report = Report::new(Operation::Revoke);
                let hit = signed_by(&clients.write, such).await?;
                report.key = Some(kid.clone());
                report.secrets = Some(hit);
                if yes {
                    let request = KeysRequest::new(Operation::Revoke, Some(kid.clone()), Timestamp::now());
                    ask(&store, request, &mut report).await?;
                    report.seconds = Some(follow(&clients.write, hit, such).await?);
                }
                Ok(print(output, &report, Report::text)?)
            }
            KeysCommand::Reset { yes, dry_run: _, output } => {
                let mut report = Report::new(Operation::Reset);
                let before = signed_by(&clients.write, |kids| !kids.is_empty()).await?;
                report.secrets = Some(before);
                if yes {
                    let request = KeysRequest::new(Operation::Reset, None, Timestamp::now());
                    ask(&store, request, &mut report).await?;
                    let loaded = store.load().await?;
                    let new: Vec<String> = loaded.ring.keys.iter().map(|k| k.kid.clone()).collect();
                    let old =
                        |kids: &str| !kids.is_empty() && kids.split(',').any(|k| !new.iter().any(|n| n == k));
                    report.seconds = Some(follow(&clients.write, before, old).await?);
                }
                Ok(print(output, &report, Report::text)?)
            }
        }
    }
}

fn table(loaded: &Loaded, times: Option<&Times>, now: Timestamp) -> String {
    let ring = &loaded.ring;
    let mut text = format!(
        "issuer {}, trust domain {}, generation {}\n{:<43}  {:<5}  {:<12}  {:<8}  {}\n",
        ring.issuer, ring.trust_domain, ring.generation, "KEY ID", "ALG", "SIGNS", "STATE", "WHEN"
    );
    for key in &ring.keys {
        let algorithm = format!("{:?}", key.algorithm);
        let state = format!("{:?}", key.state);
        let signs = match key.purpose {
            Purpose::Tokens => "tokens",
            Purpose::StatusLists => "status lists",
        };
        text.push_str(&format!(
            "{:<43}  {algorithm:<5}  {signs:<12}  {state:<8}  {}\n",
            key.kid,
            when(loaded, key, times, now)
        ));
    }
    for revoked in &ring.revoked {
        text.push_str(&format!(
            "{:<43}  {:<5}  {:<12}  {:<8}  since {:.0}\n",
            revoked.kid, "", "", "Revoked", revoked.at
        ));
    }
    text
}

fn when(loaded: &Loaded, key: &KeyRecord, times: Option<&Times>, now: Timestamp) -> String {
    let left = |at: Timestamp| {
        let seconds = u64::try_from(at.duration_since(now).as_secs()).unwrap_or_default();
        format!("{at:.0} (in {})", format_seconds(seconds))
    };
    let ring = &loaded.ring;
    match (key.state, times) {
        (Stage::Active, Some(times)) => match ring.promotes_at(key.slot(), times) {
            Some(at) => format!("signs until {}", left(at)),
            None => "signs until its successor has been published long enough".to_owned(),
        },
        (Stage::Next, Some(times)) => match ring.safe_at(key.slot(), times) {
            Some(at) if at <= now => format!("safe to activate since {at:.0}"),
            Some(at) => format!("safe to activate at {}", left(at)),
            None => "not yet in every namespace".to_owned(),
        },
        (Stage::Retired, Some(times)) => key.retired_at.map_or_else(String::new, |at| {
            format!("published until its last token has died, {}", left(ring.dies_at(at, times)))
        }),
        (_, None) => key.activated_at.map_or_else(String::new, |at| format!("signs since {at:.0}")),
    }
}

fn document(loaded: &Loaded, times: Option<&Times>) -> Value {
    let ring = &loaded.ring;
    let safe: BTreeMap<_, _> =
        KeySlot::ALL.into_iter().filter_map(|slot| Some((slot, ring.safe_at(slot, times?)?))).collect();
    json!({
        "issuer": ring.issuer, "trustDomain": ring.trust_domain, "generation": ring.generation,
        "keys": ring.keys, "revoked": ring.revoked, "safeToActivateAt": safe,
    })
}

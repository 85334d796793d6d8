//! `agentid keys`: what signs, since when and until when; rotation, revocation, and the way back after a loss.
//!
//! Invariant: commands never touch a key. They ask the leader, by an annotation on the key Secret, and wait for
//! its answer.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams, PartialObjectMeta};
use serde_json::{Value, json};
use thiserror::Error;

use super::connection::Connection;
use super::look::{LookError, Output, documents, print};
use crate::api::{SECRET_TYPE, annotation, format_seconds};
use crate::cluster::client::{CallError, ClientError, connect, timed};
use crate::cluster::keystore::{
    KeyStore, KeyringError, KeysAnswer, KeysRequest, Loaded, Operation, Outcome, Stored,
};
use crate::domain::keyring::{KeyRecord, KeySlot, Purpose, Stage, Times};

/// How long the leader may take to answer: it looks every two seconds, and a takeover takes fifteen.
const PATIENCE: Duration = Duration::from_secs(40);
const POLL: Duration = Duration::from_millis(300);

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
    Rotate,
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
    },
    /// Throw every key away and make new ones: only when the ring is lost or damaged for good
    Reset {
        /// Do it; without this, only say what it would hit
        #[arg(long, short)]
        yes: bool,
        /// Only say what it would hit, which is what is done without --yes
        #[arg(long, conflicts_with = "yes")]
        dry_run: bool,
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
            KeysCommand::Rotate => {
                ask(&store, KeysRequest::new(Operation::Rotate, None, Timestamp::now())).await
            }
            KeysCommand::Revoke { kid, yes, dry_run: _ } => {
                let loaded = store.load().await?;
                if !loaded.ring.keys.iter().any(|k| k.kid == kid) {
                    return Err(KeysError::NoSuchKey(kid));
                }
                let hit = signed_by(&clients.write, |kids| kids.split(',').any(|k| k == kid)).await?;
                println!("{kid} signed tokens in {hit} Secrets");
                if !yes {
                    println!(
                        "nothing was done: with --yes it goes out of the key sets at once, verifiers refuse these \
                         tokens as soon as they fetch them, and all are minted anew"
                    );
                    return Ok(());
                }
                let request = KeysRequest::new(Operation::Revoke, Some(kid.clone()), Timestamp::now());
                ask(&store, request).await?;
                follow(&clients.write, hit, |kids| kids.split(',').any(|k| k == kid)).await
            }
            KeysCommand::Reset { yes, dry_run: _ } => {
                let before = signed_by(&clients.write, |kids| !kids.is_empty()).await?;
                println!("{before} Secrets hold tokens");
                if !yes {
                    println!(
                        "nothing was done: with --yes every key is thrown away, new ones are made and published, \
                         and all tokens are minted anew; restore the Secret from a backup instead if there is one"
                    );
                    return Ok(());
                }
                ask(&store, KeysRequest::new(Operation::Reset, None, Timestamp::now())).await?;
                let loaded = store.load().await?;
                let new: Vec<String> = loaded.ring.keys.iter().map(|k| k.kid.clone()).collect();
                follow(&clients.write, before, |kids| {
                    !kids.is_empty() && kids.split(',').any(|k| !new.iter().any(|n| n == k))
                })
                .await
            }
        }
    }
}

/// Asks the leader and waits for its answer.
async fn ask(store: &KeyStore, request: KeysRequest) -> Result<(), KeysError> {
    store.ask(&request).await?;
    eprintln!("asked the leader; waiting for its answer");
    let answered = async {
        loop {
            if let Ok(Some(Stored { answer: Some(answer), .. })) = store.fetch().await
                && answer.id == request.id
            {
                return answer;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    let KeysAnswer { outcome, message, .. } =
        tokio::time::timeout(PATIENCE, answered).await.map_err(|_| KeysError::NoAnswer)?;
    match outcome {
        Outcome::Done => println!("done: {message}"),
        Outcome::Scheduled => println!("scheduled: {message}"),
        Outcome::Refused => return Err(KeysError::Refused(message)),
    }
    Ok(())
}

/// How many Secrets of ours hold tokens of such keys.
async fn signed_by(client: &kube::Client, such: impl Fn(&str) -> bool) -> Result<usize, CallError> {
    let secrets: Api<PartialObjectMeta<Secret>> = Api::all(client.clone());
    let mut params = ListParams::default().fields(&format!("type={SECRET_TYPE}")).limit(500);
    let mut count = 0;
    loop {
        let page = timed(secrets.list(&params)).await?;
        count += page
            .items
            .iter()
            .filter_map(|s| s.metadata.annotations.as_ref()?.get(annotation::KEY_IDS))
            .filter(|kids| such(kids))
            .count();
        match page.metadata.continue_.filter(|c| !c.is_empty()) {
            Some(next) => params.continue_token = Some(next),
            None => return Ok(count),
        }
    }
}

/// Shows how the minting of what a key had signed goes on, until all is done.
async fn follow(client: &kube::Client, all: usize, such: impl Fn(&str) -> bool) -> Result<(), KeysError> {
    let began = std::time::Instant::now();
    let mut last = usize::MAX;
    loop {
        let left = signed_by(client, &such).await?;
        if left == 0 {
            println!("all tokens were minted anew in {:.1}s", began.elapsed().as_secs_f32());
            return Ok(());
        }
        let done = all.saturating_sub(left);
        if left != last {
            #[expect(clippy::cast_precision_loss, reason = "an estimate for people")]
            let pace = done as f32 / began.elapsed().as_secs_f32().max(0.1);
            #[expect(clippy::cast_precision_loss, reason = "an estimate for people")]
            let eta =
                if pace > 0.0 { format!(", about {:.0}s more", left as f32 / pace) } else { String::new() };
            eprintln!("{done} of {all} Secrets minted anew{eta}");
            last = left;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
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

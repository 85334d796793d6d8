//! `agentid publish`: the public documents as files, for a bucket or a web server in front of which the cluster
//! need not be reachable.
//!
//! Invariants: only keys that every namespace's ConfigMap agrees on are written, since whoever may write ConfigMaps in
//! one namespace must not choose the issuer's keys; a file is replaced whole or not at all, and the keys before the
//! metadata that points to them.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api, ListParams};
use serde_json::Value;
use thiserror::Error;

use super::connection::Connection;
use super::text::printable;
use crate::api::{ConfigError, Configuration, MANAGED_BY, TRUST_NAME};
use crate::cluster::client::{CallError, Class, ClientError, connect, timed};
use crate::crypto::{JwkError, JwkSet};
use crate::serve::metadata::{bundle_document, discovery_document};

/// Where the bundle is written, below the directory.
const BUNDLE: &str = "spiffe/bundle";

/// Write the issuer's metadata and keys as files, for a bucket or a web server
///
/// They are read from the ConfigMap agentid-trust, and belong where the issuer's URL leads: the files' paths below
/// the directory are those of the URLs below the issuer. Run it again after every rotation (each `next` key is
/// published for `keys.publishAhead` before it signs), such as from a CronJob.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  agentid publish --output-dir public                      of the namespaces that have agents, which must agree
  agentid publish --output-dir public -n agentid-system    of this namespace alone")]
pub struct PublishArgs {
    /// The directory, which is made if need be
    #[arg(long, value_name = "DIR")]
    output_dir: PathBuf,
    /// Believe the ConfigMap of this namespace alone: one in which nobody but administrators may write ConfigMaps
    #[arg(long, short)]
    namespace: Option<String>,
    /// The operator's configuration file: its issuer must be the ConfigMap's; the defaults when absent
    #[arg(long, value_name = "FILE", env = "AGENTID_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

/// Why nothing, or not everything, was written.
#[derive(Debug, Error)]
pub enum PublishError {
    /// No cluster.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A call.
    #[error("the ConfigMap {TRUST_NAME} can't be read: {0}")]
    Call(#[from] CallError),
    /// No ConfigMap of ours.
    #[error(
        "there is no ConfigMap {TRUST_NAME} of agentid's {place}: the operator writes it into every namespace that has an \
         AgentIdentity; label one for it with kubectl label namespace NAME agentid.dev/trust=true"
    )]
    NotFound {
        /// Where it was looked for.
        place: String,
    },
    /// They disagree.
    #[error(
        "the ConfigMaps {TRUST_NAME} of the namespaces {one} and {other} differ: try again when a rotation has reached both, \
         or name a namespace in which only administrators may write with -n"
    )]
    Differ {
        /// One namespace.
        one: String,
        /// Another.
        other: String,
    },
    /// A member is missing.
    #[error(
        "the ConfigMap {TRUST_NAME} of namespace {namespace} has no {member}: delete it, and the operator writes it anew"
    )]
    Member {
        /// Its namespace.
        namespace: String,
        /// The member of its data.
        member: &'static str,
    },
    /// The keys.
    #[error(
        "jwks.json in the ConfigMap {TRUST_NAME} of namespace {namespace} can't be used ({problem}): delete the ConfigMap, \
         and the operator writes it anew"
    )]
    Keys {
        /// Its namespace.
        namespace: String,
        /// What is wrong.
        problem: String,
    },
    /// Another issuer than configured.
    #[error(
        "the ConfigMap {TRUST_NAME} says the issuer {found:?} and the configuration {configured:?}: is this the right cluster?"
    )]
    Issuer {
        /// The ConfigMap's.
        found: String,
        /// The configuration's.
        configured: String,
    },
    /// The configuration, or the issuer of the ConfigMap.
    #[error("{place}: {source}")]
    Config {
        /// The file or ConfigMap.
        place: String,
        /// Why.
        source: ConfigError,
    },
    /// A file or directory that can't be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// Standard output can't be written.
    #[error("cannot write to standard output: {0}")]
    Print(#[source] io::Error),
}

/// What a ConfigMap says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Published {
    namespace: String,
    pub(super) issuer: String,
    jwks: String,
}

/// A file to be written.
#[derive(Debug, PartialEq, Eq)]
struct Document {
    path: &'static str,
    content_type: &'static str,
    content: String,
}

impl PublishArgs {
    /// Reads the ConfigMap and writes the files.
    ///
    /// # Errors
    /// [`PublishError`].
    pub async fn run(self) -> Result<(), PublishError> {
        let config = self.config.as_ref().map(|path| read_config(path)).transpose()?;
        let clients = connect(&self.connection.options()).await?;
        let found = find(&clients.write, self.namespace.as_deref()).await?;
        let place = match &self.namespace {
            Some(namespace) => format!("in namespace {namespace}"),
            None => "in any namespace".to_owned(),
        };
        let published = agreed(&found, place)?;
        let old = fs::read_to_string(self.output_dir.join(BUNDLE)).ok();
        let documents = documents(&published, config, old.as_deref(), Timestamp::now())?;
        let mut said = String::new();
        for document in &documents {
            let path = self.output_dir.join(document.path);
            replace(&path, document.content.as_bytes())
                .map_err(|source| PublishError::File { path: path.clone(), source })?;
            said.push_str(&format!("{}\t{}\n", path.display(), document.content_type));
        }
        let mut out = io::stdout().lock();
        match out.write_all(said.as_bytes()).and_then(|()| out.flush()) {
            // Whoever reads has seen enough, as `head` does.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.map_err(PublishError::Print),
        }
    }
}

fn read_config(path: &Path) -> Result<Configuration, PublishError> {
    let text =
        fs::read_to_string(path).map_err(|source| PublishError::File { path: path.to_owned(), source })?;
    Configuration::from_yaml(&text)
        .map_err(|source| PublishError::Config { place: path.display().to_string(), source })
}

/// The ConfigMaps of ours.
pub(super) async fn find(client: &Client, namespace: Option<&str>) -> Result<Vec<ConfigMap>, CallError> {
    if let Some(namespace) = namespace {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        return match timed(maps.get(TRUST_NAME)).await {
            Ok(map) => Ok(vec![map]),
            Err(e) if e.class() == Class::NotFound => Ok(Vec::new()),
            Err(e) => Err(e),
        };
    }
    let maps: Api<ConfigMap> = Api::all(client.clone());
    let mut params = ListParams::default()
        .fields(&format!("metadata.name={TRUST_NAME}"))
        .labels(&format!("{}={}", MANAGED_BY.0, MANAGED_BY.1))
        .limit(500);
    let mut found = Vec::new();
    loop {
        let page = timed(maps.list(&params)).await?;
        found.extend(page.items);
        match page.metadata.continue_.filter(|c| !c.is_empty()) {
            Some(next) => params.continue_token = Some(next),
            None => return Ok(found),
        }
    }
}

/// What all ConfigMaps of ours say.
pub(super) fn agreed(found: &[ConfigMap], place: String) -> Result<Published, PublishError> {
    let ours = |map: &&ConfigMap| {
        map.metadata.labels.as_ref().and_then(|l| l.get(MANAGED_BY.0)).map(String::as_str)
            == Some(MANAGED_BY.1)
    };
    let mut agreed: Option<Published> = None;
    for map in found.iter().filter(ours) {
        let namespace = map.metadata.namespace.clone().unwrap_or_default();
        let member = |member: &'static str| {
            let value = map.data.as_ref().and_then(|d| d.get(member)).cloned();
            value.ok_or_else(|| PublishError::Member { namespace: namespace.clone(), member })
        };
        let (issuer, jwks) = (member("issuer")?, member("jwks.json")?);
        match &agreed {
            None => agreed = Some(Published { namespace, issuer, jwks }),
            Some(first) if first.issuer == issuer && first.jwks == jwks => {}
            Some(first) => {
                return Err(PublishError::Differ { one: first.namespace.clone(), other: namespace });
            }
        }
    }
    agreed.ok_or(PublishError::NotFound { place })
}

/// The files, in the order in which they are written. `old` is the bundle that is there.
fn documents(
    published: &Published,
    config: Option<Configuration>,
    old: Option<&str>,
    now: Timestamp,
) -> Result<[Document; 4], PublishError> {
    let Published { namespace, issuer, jwks } = published;
    let refuse = |problem| PublishError::Keys { namespace: namespace.clone(), problem };
    let unfit = |e: &JwkError| refuse(printable(&e.to_string()));
    let parsed = JwkSet::parse(jwks).map_err(|e| unfit(&e))?;
    if let Some(skipped) = parsed.skipped.first() {
        return Err(unfit(&skipped.reason));
    }
    if parsed.set.keys().is_empty() {
        return Err(refuse("it has no keys".to_owned()));
    }
    let config = match config {
        Some(config) if config.issuer == *issuer => config,
        Some(config) => {
            return Err(PublishError::Issuer { found: printable(issuer), configured: config.issuer });
        }
        // Its issuer is held to the same rules.
        None => Configuration::from_yaml(&format!(
            "apiVersion: config.agentid.dev/v1alpha1\nkind: Configuration\nissuer: {}\ntrustDomain: unused\n",
            Value::from(issuer.as_str())
        ))
        .map_err(|source| PublishError::Config {
            place: format!("ConfigMap {TRUST_NAME} of namespace {namespace}"),
            source,
        })?,
    };
    let age = (config.keys.publish_ahead.0 / 2).clamp(5, 3600);
    let metadata = discovery_document(&config, None).to_string();
    let json = "application/json";
    Ok([
        ("jwks", "application/jwk-set+json", parsed.set.to_json()),
        (BUNDLE, json, bundle(&parsed.set, age, old, now)),
        (".well-known/openid-configuration", json, metadata.clone()),
        (".well-known/oauth-authorization-server", json, metadata),
    ]
    .map(|(path, content_type, content)| Document { path, content_type, content }))
}

/// The bundle; its sequence is the time, which only grows, and stays with the keys.
fn bundle(keys: &JwkSet, age: u32, old: Option<&str>, now: Timestamp) -> String {
    let member = |text: &str, name: &str| {
        serde_json::from_str::<Value>(text).ok().and_then(|v| v.get(name).cloned()).unwrap_or_default()
    };
    let sequence = |text: &str| member(text, "spiffe_sequence").as_u64().unwrap_or_default();
    let new = bundle_document(keys, u64::try_from(now.as_second()).unwrap_or_default(), age);
    let Some(old) = old else { return new };
    if member(old, "keys") == member(&new, "keys") {
        return bundle_document(keys, sequence(old), age);
    }
    // Also after a clock that was ahead.
    bundle_document(keys, sequence(&new).max(sequence(old).saturating_add(1)), age)
}

/// Writes a file beside its place and puts it there.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let parent = path.parent().unwrap_or_else(|| Path::new("."));
    fs::create_dir_all(parent)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = parent.join(format!(".{name}.{}.tmp", std::process::id()));
    let written = (|| {
        let mut file = fs::File::create(&beside)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    })();
    if written.is_err() {
        // What is left behind would be published too.
        let _ = fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
mod tests;

//! Where the grants come from: the cluster, or a file of manifests.
//!
//! Invariant: a grant is kept as it was read, so that fields that this version does not know stay in what is printed.

use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::judge::Live;
use super::{UnusedArgs, UnusedError};
use crate::api::API_VERSION;
use crate::cluster::client::connect;
use crate::cluster::snapshot::list;
use crate::cluster::watch::WatchSpec;

/// The longest file of manifests, in bytes.
const LIMIT: u64 = 64 << 20;

/// The grants, and what could not be read with why.
type Grants = (Vec<Live>, Vec<(String, String)>);

impl UnusedArgs {
    /// Reads the grants.
    pub(super) async fn grants(&self) -> Result<Grants, UnusedError> {
        let (values, mut skipped) = match &self.manifests {
            Some(path) => (self.manifests_in(path)?, Vec::new()),
            None => self.live().await?,
        };
        let mut grants = Vec::new();
        for value in values {
            match Live::of(value) {
                Ok(grant) => grants.push(grant),
                Err(problem) => skipped.push(problem),
            }
        }
        grants.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        Ok((grants, skipped))
    }

    async fn live(&self) -> Result<(Vec<Value>, Vec<(String, String)>), UnusedError> {
        let clients = connect(&self.connection.options()).await?;
        let namespace = self.namespace.as_ref().unwrap_or(&clients.namespace_default);
        let path = if self.all_namespaces {
            format!("/apis/{API_VERSION}/agentgrants")
        } else {
            format!("/apis/{API_VERSION}/namespaces/{namespace}/agentgrants")
        };
        let mut found = Vec::new();
        let unreadable = list::<Value>(&clients.watch, WatchSpec::new(path), |grant| found.push(grant))
            .await
            .map_err(UnusedError::List)?;
        let name = |u: &crate::cluster::watch::Unreadable| {
            format!("{}/{}", u.namespace.as_deref().unwrap_or_default(), u.name)
        };
        Ok((found, unreadable.into_iter().map(|u| (name(&u), u.error)).collect()))
    }

    fn manifests_in(&self, path: &Path) -> Result<Vec<Value>, UnusedError> {
        let from = path.display().to_string();
        let failed = |source| UnusedError::File { from: from.clone(), source };
        let mut text = String::new();
        if path.as_os_str() == "-" {
            std::io::stdin().lock().take(LIMIT).read_to_string(&mut text).map_err(failed)?;
        } else {
            let file = std::fs::File::open(path).map_err(failed)?;
            file.take(LIMIT).read_to_string(&mut text).map_err(failed)?;
        }
        self.parsed(&text).map_err(|problem| UnusedError::Manifest { from, problem })
    }

    /// The AgentGrants of a YAML stream, those of a List among them.
    pub(super) fn parsed(&self, text: &str) -> Result<Vec<Value>, String> {
        let documents: Vec<Value> = serde_yaml::from_multiple(text).map_err(|e| e.to_string())?;
        let mut grants = Vec::new();
        for mut document in documents {
            match document.get_mut("items").map(Value::take) {
                Some(Value::Array(items)) => grants.extend(items),
                _ => grants.push(document),
            }
        }
        grants.retain(|g| g["kind"] == "AgentGrant" && g["apiVersion"] == API_VERSION);
        for grant in &mut grants {
            match (grant["metadata"]["namespace"].as_str(), &self.namespace) {
                (None, None) => {
                    let name = grant["metadata"]["name"].as_str().unwrap_or_default();
                    return Err(format!("AgentGrant {name} names no namespace; say which one with -n"));
                }
                (None, Some(namespace)) => grant["metadata"]["namespace"] = namespace.as_str().into(),
                _ => {}
            }
        }
        if let Some(namespace) = &self.namespace {
            grants.retain(|g| g["metadata"]["namespace"] == namespace.as_str());
        }
        if grants.is_empty() { Err(format!("it holds no AgentGrant of {API_VERSION}")) } else { Ok(grants) }
    }
}

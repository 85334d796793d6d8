//! One look at the whole cluster: as much of the world as the decisions about all agents need.

use kube::Client;
use serde_json::Value;
use thiserror::Error;

use super::looker::Looker;
use super::taking::Taking;
use super::{SnapshotError, Unseen, issuer_of};
use crate::api::{API_VERSION, Configuration, SECRET_TYPE, TRUST_NAME};
use crate::cluster::client::{CallError, Class};
use crate::cluster::feed::{Skipped, collection};
use crate::cluster::watch::WatchSpec;
use crate::cluster::wire::{
    WireAgent, WireBlueprint, WireGrant, WireObject, WirePolicy, WireResource, WireSecret, WireWorkload,
};
use crate::cluster::write::Writer;
use crate::domain::{Blueprint, Bound, POD, Source, World, kind_name};

/// The world as all decisions need it.
#[derive(Debug)]
pub struct Whole {
    /// The world.
    pub world: World,
    /// What could not be seen.
    pub unseen: Vec<Unseen>,
    /// Objects that can't be read and are left out.
    pub skipped: Vec<Skipped>,
}

/// Why the cluster can't be looked at.
#[derive(Debug, Error)]
pub enum WholeError {
    /// Our kinds are not installed.
    #[error("{}", SnapshotError::NotInstalled)]
    NotInstalled,
    /// A list without which nothing can be said.
    #[error("cannot list {0}: {1}")]
    Call(Source, CallError),
}

/// Looks once. Without a configuration the defaults are taken, with the issuer of some trust ConfigMap.
///
/// # Errors
/// [`WholeError`] where one of our kinds or the namespaces can't be listed.
pub async fn whole(client: &Client, config: Option<Configuration>) -> Result<Whole, WholeError> {
    let looker = Looker { client, writer: Writer::new(client.clone()), namespace: "" };
    let assumed = config.is_none();
    let config = match config {
        Some(config) => config,
        None => {
            let path = format!("/api/v1/configmaps?fieldSelector=metadata.name%3D{TRUST_NAME}&limit=1");
            let found: Option<Value> = looker.get(&path).await.unwrap_or_default();
            let issuer = found.and_then(|list| issuer_of(list["items"].get(0)?));
            Configuration::new(issuer.as_deref().unwrap_or_default(), "")
        }
    };
    let kinds = config.bound_kinds.clone();
    let pods = config.pod_selector.clone();
    let mut taking =
        Taking { world: World::new(config), unseen: Vec::new(), skipped: Vec::new(), of_blueprint: true };
    let ours = |plural: &str| WatchSpec::new(format!("/apis/{API_VERSION}/{plural}"));
    looker.take::<WireAgent>(&mut taking, Source::Agents, ours("agentidentities")).await;
    looker.take::<WireResource>(&mut taking, Source::Resources, ours("agentresources")).await;
    looker.take::<WireGrant>(&mut taking, Source::Grants, ours("agentgrants")).await;
    looker.take::<WireBlueprint>(&mut taking, Source::Blueprints, ours("agentblueprints")).await;
    looker.take::<WirePolicy>(&mut taking, Source::Policies, ours("agentpolicies")).await;
    let namespaces = WatchSpec::new("/api/v1/namespaces").metadata_only();
    looker.take::<WireObject>(&mut taking, Source::Namespaces, namespaces).await;
    if let Some(u) = taking.unseen.pop() {
        return Err(if u.error.class() == Class::NotFound {
            WholeError::NotInstalled
        } else {
            WholeError::Call(u.source, u.error)
        });
    }
    let secrets = WatchSpec::new("/api/v1/secrets").fields(format!("type={SECRET_TYPE}")).metadata_only();
    looker.take::<WireSecret>(&mut taking, Source::Secrets, secrets).await;
    looker.cluster_roles(&mut taking, assumed).await;
    // It decides nothing.
    taking.listed(&Source::Trust);
    for kind in kinds {
        let source = Source::Bound(kind_name(&kind.api_version, &kind.kind));
        // What nobody is bound to changes nothing, but pods of which blueprints make agents.
        let bound = |b: &Bound| Source::Bound(b.kind.clone()) == source;
        let makes =
            source == Source::Bound(POD.into()) && taking.world.blueprints().any(Blueprint::makes_any);
        if !makes && !taking.world.agents().any(|a| a.bound.as_ref().is_some_and(bound)) {
            continue;
        }
        let path = match collection(client, &kind).await {
            Ok(Some(path)) => path,
            Ok(None) => {
                taking.failed(source, CallError::new(Class::NotFound, "the kind is not served"));
                continue;
            }
            Err(e) => {
                taking.failed(source, e);
                continue;
            }
        };
        match (kind.api_version.as_str(), kind.kind.as_str()) {
            ("v1", "Pod") => {
                looker.take::<WireWorkload>(&mut taking, source, WatchSpec::new(path).labels(&pods)).await;
            }
            ("batch/v1", "Job") => {
                looker.take::<WireWorkload>(&mut taking, source, WatchSpec::new(path)).await;
            }
            _ => looker.take::<WireObject>(&mut taking, source, WatchSpec::new(path).metadata_only()).await,
        }
    }
    let Taking { world, unseen, skipped, .. } = taking;
    Ok(Whole { world, unseen, skipped })
}

//! Watches of the bench's own: when each object was first seen in the state that is waited for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::{Stream, TryStreamExt};
use kube::Client;
use kube::core::WatchEvent;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;

use crate::report::say;

const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
/// Longer than any measurement: a watch that ended within one would miss its end.
const WATCH_SECONDS: u32 = 3600;

/// An agent, as far as it is watched.
#[derive(Clone, Debug, Deserialize)]
pub struct SeenAgent {
    metadata: SeenMeta,
    #[serde(default)]
    status: SeenStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct SeenStatus {
    #[serde(default)]
    conditions: Vec<SeenCondition>,
}

#[derive(Clone, Debug, Deserialize)]
struct SeenCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

/// An agent that goes.
#[derive(Clone, Debug, Deserialize)]
pub struct GoneAgent {
    metadata: SeenMeta,
}

/// A Secret's metadata, as far as it is watched.
#[derive(Clone, Debug, Deserialize)]
pub struct SeenSecret {
    metadata: SeenMeta,
}

/// Whose metadata it is.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SeenMeta {
    name: String,
    namespace: String,
    resource_version: String,
    #[serde(default)]
    annotations: HashMap<String, String>,
}

/// What is watched, and what is waited for.
pub trait Seen: DeserializeOwned + Clone + Send + Sync + 'static {
    const ACCEPT: &'static str;
    const ACCEPT_LIST: &'static str;
    /// Waited for is its end, whatever it says before.
    const ENDS: bool = false;
    fn reached(&self) -> bool;
    fn meta(&self) -> &SeenMeta;
}

impl Seen for SeenAgent {
    const ACCEPT: &'static str = "application/json";
    const ACCEPT_LIST: &'static str = "application/json";

    /// Ready, which says that the Secret is there.
    fn reached(&self) -> bool {
        self.status.conditions.iter().any(|c| c.kind == "Ready" && c.status == "True")
    }

    fn meta(&self) -> &SeenMeta {
        &self.metadata
    }
}

impl Seen for GoneAgent {
    const ACCEPT: &'static str = METADATA;
    const ACCEPT_LIST: &'static str = METADATA_LIST;
    const ENDS: bool = true;

    fn reached(&self) -> bool {
        true
    }

    fn meta(&self) -> &SeenMeta {
        &self.metadata
    }
}

impl Seen for SeenSecret {
    const ACCEPT: &'static str = METADATA;
    const ACCEPT_LIST: &'static str = METADATA_LIST;

    /// Withdrawn: `agent.json` alone is left.
    fn reached(&self) -> bool {
        self.metadata.annotations.get("agentid.dev/tokens").is_some_and(String::is_empty)
    }

    fn meta(&self) -> &SeenMeta {
        &self.metadata
    }
}

/// When each object was first seen in the awaited state, since the watch began.
pub struct Sightings {
    seen: Arc<Mutex<HashMap<String, Instant>>>,
    task: JoinHandle<()>,
}

impl Sightings {
    /// Watches a collection from now on.
    pub async fn of<T: Seen>(client: &Client, collection: &str) -> Self {
        let list = http::Request::get(format!("{collection}?limit=1"))
            .header("accept", T::ACCEPT_LIST)
            .body(Vec::new())
            .unwrap();
        let list: serde_json::Value = client.request(list).await.unwrap();
        let mut from = list["metadata"]["resourceVersion"].as_str().expect("a resourceVersion").to_owned();
        let (client, collection) = (client.clone(), collection.to_owned());
        let seen = Arc::new(Mutex::new(HashMap::new()));
        // The first is under way before this returns.
        let mut events = Box::pin(events::<T>(&client, &collection, &from).await);
        let task = tokio::spawn({
            let seen = seen.clone();
            async move {
                loop {
                    let (object, ended) = match events.try_next().await {
                        Ok(Some(WatchEvent::Added(object) | WatchEvent::Modified(object))) => (object, false),
                        Ok(Some(WatchEvent::Deleted(object))) => (object, true),
                        Ok(Some(WatchEvent::Error(status))) => panic!("the bench's watch: {status:?}"),
                        Ok(Some(WatchEvent::Bookmark(_))) => continue,
                        // The API server ends the watch of who reads too slowly; it is taken up where it was.
                        Ok(None) => {
                            events = Box::pin(self::events::<T>(&client, &collection, &from).await);
                            continue;
                        }
                        Err(e) => panic!("the bench's watch: {e}"),
                    };
                    let SeenMeta { name, namespace, resource_version, .. } = object.meta();
                    from.clone_from(resource_version);
                    if ended == T::ENDS && object.reached() {
                        let key = format!("{namespace}/{name}");
                        seen.lock().unwrap().entry(key).or_insert_with(Instant::now);
                    }
                }
            }
        });
        Self { seen, task }
    }

    /// When an object was seen.
    pub fn at(&self, key: &str) -> Option<Instant> {
        self.seen.lock().unwrap().get(key).copied()
    }

    /// How many have been seen.
    pub fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// Waits until `wanted` objects have been seen; gives when the last was.
    ///
    /// # Panics
    /// When none comes for a minute.
    pub async fn until(&self, what: &str, wanted: usize) -> Instant {
        let (mut count, mut since, mut told) = (0, Instant::now(), Instant::now());
        loop {
            let now = self.count();
            if now >= wanted {
                return self.seen.lock().unwrap().values().copied().max().unwrap_or_else(Instant::now);
            }
            if now > count {
                (count, since) = (now, Instant::now());
            }
            assert!(!self.task.is_finished(), "{what}: the watch broke");
            assert!(since.elapsed() < Duration::from_secs(60), "{what}: stays at {now} of {wanted}");
            if told.elapsed() > Duration::from_secs(10) {
                told = Instant::now();
                say(format_args!("{what}: {now} of {wanted}"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Sightings {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn events<T: Seen>(
    client: &Client,
    collection: &str,
    from: &str,
) -> impl Stream<Item = Result<WatchEvent<T>, kube::Error>> + use<T> {
    let request = http::Request::get(format!(
        "{collection}?watch=true&resourceVersion={from}&timeoutSeconds={WATCH_SECONDS}"
    ))
    .header("accept", T::ACCEPT)
    .body(Vec::new())
    .unwrap();
    client.request_events::<T>(request).await.unwrap()
}

//! The events as writes: each is tried until it is answered, however long the API server is away.
//!
//! Invariants: an answer that was lost is made good by reading, so the model never guesses; events of one object are made
//! one after the other.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kube::Client;
use serde_json::{Value, json};
use tokio::time::{sleep, sleep_until, timeout};

use crate::model::Model;
use crate::schedule::{Deed, Event, Schedule, Thing};
use crate::world::{GROUP, allow, collection, name, object};

/// So many objects are written at once at most.
const LANES: usize = 24;
/// How long one write may take.
const CALL: Duration = Duration::from_secs(20);
/// How long an event may go unanswered: longer than every fault.
const PATIENCE: Duration = Duration::from_secs(240);

/// What became of the events.
#[derive(Default)]
pub struct Made {
    pub by_word: BTreeMap<&'static str, usize>,
    /// Writes that failed and were tried again.
    pub tried_again: usize,
    /// What should have been there and was not, or was and should not have been.
    pub surprises: Vec<String>,
}

impl Made {
    pub fn all(&self) -> usize {
        self.by_word.values().sum()
    }
}

/// Makes the events of a schedule.
pub struct Actor {
    pub client: Client,
    pub model: Arc<Mutex<Model>>,
    pub made: Mutex<Made>,
    /// Set when time is up: no further event is begun.
    pub over: AtomicBool,
}

/// Why a write has no effect that we know of.
enum Miss {
    /// It names what is there already.
    Exists,
    /// It names what is not there.
    NotThere,
    /// Anything else: it may or may not have happened.
    Unclear(String),
}

impl Actor {
    /// Makes all events at their times, or as soon after as the API server lets it; returns when all are answered.
    pub async fn run(self: &Arc<Self>, schedule: &Schedule, began: Instant) {
        let mut lanes: Vec<Vec<Event>> = vec![Vec::new(); LANES];
        for event in &schedule.events {
            lanes[event.lane(LANES)].push(*event);
        }
        let lanes = lanes.into_iter().map(|events| {
            let this = self.clone();
            tokio::spawn(async move {
                for event in events {
                    sleep_until((began + event.at).into()).await;
                    if this.over.load(Ordering::Relaxed) {
                        return;
                    }
                    this.event(&event).await;
                }
            })
        });
        for lane in lanes.collect::<Vec<_>>() {
            lane.await.unwrap();
        }
    }

    async fn event(&self, event: &Event) {
        self.model.lock().unwrap().begin(event);
        let uid = match (event.thing, event.deed) {
            (thing, Deed::Create { gold }) => Some(self.create(thing, &object(thing, gold)).await),
            (thing, Deed::Delete { orphan }) => {
                self.delete(thing, orphan).await;
                None
            }
            (thing @ Thing::Allow { ns, .. }, Deed::Allow(roles)) => {
                let all = self.model.lock().unwrap().allow_of_group(thing, roles);
                self.patch(thing, &json!({"spec": {"allow": allow(ns / GROUP, &all)}})).await;
                None
            }
            (thing, Deed::Suspend(on)) => {
                self.patch(thing, &json!({"spec": {"suspend": on}})).await;
                None
            }
            (thing, Deed::Allow(_)) => unreachable!("{thing:?}"),
        };
        self.model.lock().unwrap().done(event, uid);
        *self.made.lock().unwrap().by_word.entry(event.word()).or_default() += 1;
    }

    /// Deletes a namespace with all that is in it; returns when the API server has said yes.
    pub async fn end_namespace(&self, ns: usize) {
        let deed = Deed::Delete { orphan: false };
        self.event(&Event { at: Duration::ZERO, thing: Thing::Namespace { ns }, deed }).await;
    }

    async fn create(&self, thing: Thing, body: &Value) -> String {
        let path = collection(thing);
        let mut pause = Pause::new(thing);
        loop {
            match self.call(http::Method::POST, &path, Some(body)).await {
                Ok(made) => return uid_of(&made).unwrap(),
                Err(Miss::Exists) => {
                    // Ours, of a try whose answer was lost; or one of that name whose deletion is not complete.
                    match self.call(http::Method::GET, &format!("{path}/{}", name(thing)), None).await {
                        Ok(there) if there["metadata"]["deletionTimestamp"].is_null() => {
                            if !pause.tried {
                                self.surprise(format!("{thing:?} is to be created and is there already"));
                            }
                            return uid_of(&there).unwrap();
                        }
                        _ => pause.wait(self, "its name is taken".to_owned()).await,
                    }
                }
                Err(miss) => {
                    pause.tried = true;
                    pause.wait(self, miss.text()).await;
                }
            }
        }
    }

    async fn delete(&self, thing: Thing, orphan: bool) {
        let uid = self.model.lock().unwrap().agent(thing).map(|m| m.uid.clone());
        let mut options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0,
            "propagationPolicy": if orphan { "Orphan" } else { "Background" }});
        if let Some(uid) = uid {
            options["preconditions"] = json!({"uid": uid});
        }
        self.settle(http::Method::DELETE, thing, &options).await;
    }

    async fn patch(&self, thing: Thing, patch: &Value) {
        let mut patch = patch.clone();
        if let Some(made) = self.model.lock().unwrap().agent(thing) {
            patch["metadata"] = json!({"uid": made.uid});
        }
        self.settle(http::Method::PATCH, thing, &patch).await;
    }

    async fn settle(&self, method: http::Method, thing: Thing, body: &Value) {
        let path = format!("{}/{}", collection(thing), name(thing));
        let mut pause = Pause::new(thing);
        loop {
            match self.call(method.clone(), &path, Some(body)).await {
                Ok(_) => return,
                Err(Miss::NotThere) => {
                    if !pause.tried || method != http::Method::DELETE {
                        self.surprise(format!("{method} {thing:?}: it should be there and is not"));
                    }
                    return;
                }
                Err(miss) => {
                    pause.tried = true;
                    pause.wait(self, miss.text()).await;
                }
            }
        }
    }

    fn surprise(&self, text: String) {
        self.made.lock().unwrap().surprises.push(text);
    }

    async fn call(&self, method: http::Method, path: &str, body: Option<&Value>) -> Result<Value, Miss> {
        let media =
            if method == http::Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let body = body.map(|b| serde_json::to_vec(b).unwrap()).unwrap_or_default();
        let request = http::Request::builder()
            .method(method)
            .uri(format!("{path}?fieldManager=chaos"))
            .header("content-type", media)
            .body(body)
            .unwrap();
        match timeout(CALL, self.client.request::<Value>(request)).await {
            Err(_) => Err(Miss::Unclear("no answer".to_owned())),
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(kube::Error::Api(status))) => {
                // An API server that has just started says 404 of kinds that it does not know yet, and names no object.
                let named = status.details.as_ref().is_some_and(|d| path.ends_with(&format!("/{}", d.name)));
                Err(if status.is_already_exists() {
                    Miss::Exists
                } else if status.is_not_found() && named {
                    Miss::NotThere
                } else {
                    Miss::Unclear(status.message.clone())
                })
            }
            Ok(Err(other)) => Err(Miss::Unclear(other.to_string())),
        }
    }
}

impl Miss {
    fn text(self) -> String {
        match self {
            Self::Exists => "it is there already".to_owned(),
            Self::NotThere => "it is not there".to_owned(),
            Self::Unclear(text) => text,
        }
    }
}

fn uid_of(object: &Value) -> Option<String> {
    object["metadata"]["uid"].as_str().map(str::to_owned)
}

/// Between two tries.
struct Pause {
    thing: Thing,
    since: Instant,
    /// An answer was lost: the write may have happened.
    tried: bool,
}

impl Pause {
    fn new(thing: Thing) -> Self {
        Self { thing, since: Instant::now(), tried: false }
    }

    async fn wait(&self, actor: &Actor, why: String) {
        let Self { thing, since, .. } = self;
        assert!(since.elapsed() < PATIENCE, "{thing:?} can't be written for {PATIENCE:?}: {why}");
        actor.made.lock().unwrap().tried_again += 1;
        sleep(Duration::from_millis(250)).await;
    }
}

//! What every piece of work has at hand.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::ObjectReference;
use tokio::sync::watch;

use super::certkeeper::CertificateView;
use super::keys::KeyView;
use super::metrics::Metrics;
use super::statuses::Refusals;
use crate::api::{API_VERSION, BoundKind, LabelSelector, Reason};
use crate::cluster::client::CallError;
use crate::cluster::events::{EventSink, Notice, Severity};
use crate::cluster::feed::{SharedWorld, collection};
use crate::cluster::write::Writer;
use crate::domain::status::Transition;
use crate::domain::statuslist::HandOut;
use crate::domain::{Key, KindName, Uid};
use crate::issue::Issuer;

/// The loop's tools; cheap to share.
pub struct Context {
    /// The world.
    pub world: Arc<SharedWorld>,
    /// The writes.
    pub writer: Writer,
    /// Who issues.
    pub issuer: Issuer,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// By which pods are seen.
    pub pod_selector: LabelSelector,
    pub(super) indexes: Mutex<HandOut>,
    pub(super) client: kube::Client,
    pub(super) events: EventSink,
    pub(super) keys: watch::Receiver<Arc<KeyView>>,
    pub(super) certificates: watch::Receiver<Arc<CertificateView>>,
    pub(super) collections: Mutex<HashMap<KindName, String>>,
    pub(super) refusals: Mutex<Refusals>,
}

impl Context {
    /// The keys of this moment.
    #[must_use]
    pub fn keys(&self) -> Arc<KeyView> {
        self.keys.borrow().clone()
    }

    /// The open status list.
    pub(super) fn indexes(&self) -> MutexGuard<'_, HandOut> {
        self.indexes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The certificates of this moment.
    #[must_use]
    pub fn certificates(&self) -> Arc<CertificateView> {
        self.certificates.borrow().clone()
    }

    /// Whether work has to wait for the first look at keys and certificates.
    #[must_use]
    pub fn is_loading(&self) -> bool {
        self.keys().loading || self.certificates().loading
    }

    /// The path under which a bound kind is served.
    pub(super) async fn collection(&self, kind: &KindName) -> Result<Option<String>, CallError> {
        let known = |c: &Mutex<HashMap<KindName, String>>| {
            c.lock().unwrap_or_else(PoisonError::into_inner).get(kind).cloned()
        };
        if let Some(path) = known(&self.collections) {
            return Ok(Some(path));
        }
        let (api_version, name) = kind.rsplit_once('/').unwrap_or(("v1", kind));
        let kind_of = BoundKind { api_version: api_version.to_owned(), kind: name.to_owned() };
        let found = collection(&self.client, &kind_of).await?;
        if let Some(path) = &found {
            let mut collections = self.collections.lock().unwrap_or_else(PoisonError::into_inner);
            collections.insert(kind.clone(), path.clone());
        }
        Ok(found)
    }

    /// Tells a transition in an Event on one of our kinds.
    pub(super) fn tell(&self, kind: &'static str, key: &Key, uid: Uid, transition: &Transition) {
        self.note(
            API_VERSION,
            kind,
            key,
            &uid.to_string(),
            transition.good,
            transition.reason,
            &transition.note,
        );
    }

    /// Tells something in an Event on any object.
    #[expect(clippy::too_many_arguments, reason = "an Event has as many parts")]
    pub(super) fn note(
        &self,
        api_version: &str,
        kind: &str,
        key: &Key,
        uid: &str,
        good: bool,
        reason: Reason,
        note: &str,
    ) {
        self.events.tell(&Notice {
            regarding: ObjectReference {
                api_version: Some(api_version.to_owned()),
                kind: Some(kind.to_owned()),
                namespace: (!key.namespace.is_empty()).then(|| key.namespace.to_string()),
                name: Some(key.name.to_string()),
                uid: (!uid.is_empty()).then(|| uid.to_owned()),
                ..ObjectReference::default()
            },
            severity: if good { Severity::Normal } else { Severity::Warning },
            reason: reason.as_str(),
            action: "Reconcile",
            note: note.to_owned(),
        });
    }
}

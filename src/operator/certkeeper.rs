//! The leader's task that owns the certificates of our own TLS: makes authorities and rolls them over, issues what
//! the token service serves, and hands the loop the `ca.crt` to publish.
//!
//! Invariants: at most one process issues (it leads, and every write names the resourceVersion it stands on);
//! whatever is wrong with certificates holds back no credential for longer than [`PATIENCE`].

mod keep;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use self::keep::{Keep, Turned};
use super::context::Context;
use super::trust;
use crate::api::Reason;
use crate::cluster::certstore::{AuthorityStore, CertificatesError, ServingStore};
use crate::domain::Key;
use crate::domain::certificates::{Subject, Times};

/// How often the Secrets' resourceVersions are looked at.
const POLL: Duration = Duration::from_secs(2);
/// How soon a write that met another one is tried again.
const AGAIN: Duration = Duration::from_millis(100);
/// How long the loop waits for certificates at its start: what is published must not change twice then.
const PATIENCE: Duration = Duration::from_secs(5);

/// The certificates as the loop sees them.
#[derive(Debug)]
pub struct CertificateView {
    /// The authorities that are to be published, in PEM; `None` if they were never read.
    pub ca_pem: Option<Arc<str>>,
    /// They have not been looked at yet: no work begins.
    pub loading: bool,
}

impl CertificateView {
    /// Before they were read.
    #[must_use]
    pub const fn loading() -> Self {
        Self { ca_pem: None, loading: true }
    }
}

/// Keeps the certificates while this process leads.
pub(super) fn keep(
    client: &kube::Client,
    namespace: &str,
    cx: Arc<Context>,
    views: watch::Sender<Arc<CertificateView>>,
    stop: CancellationToken,
) -> JoinHandle<()> {
    let config = cx.world.read().config().clone();
    let keep = Keep::new(
        AuthorityStore::new(client.clone(), namespace),
        ServingStore::new(client.clone(), namespace),
        Times::from(&config),
        Subject::of(&config, namespace),
    );
    let namespace = namespace.to_owned();
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = serve(keep, &cx, &namespace, &views) => {}
            () = lose_patience(&views) => {}
        }
    })
}

async fn serve(mut keep: Keep, cx: &Context, namespace: &str, views: &watch::Sender<Arc<CertificateView>>) {
    let mut told = Vec::new();
    loop {
        // What is published is the view of this task's own last turn.
        let shown = cx.certificates().ca_pem.clone();
        let published = shown.filter(|_| trust::is_carried(cx));
        let Turned { ca_pem, problems } = keep.turn(Timestamp::now(), published.as_deref()).await;
        let pause = if problems.iter().any(CertificatesError::is_conflict) { AGAIN } else { POLL };
        tell(cx, namespace, &problems, &mut told, ca_pem.is_none());
        if ca_pem.is_some() || problems.iter().any(|p| !is_of_the_api_server(p)) {
            show(views, ca_pem);
        }
        sleep(pause).await;
    }
}

/// Lets the work begin although nothing is known of certificates.
async fn lose_patience(views: &watch::Sender<Arc<CertificateView>>) {
    sleep(PATIENCE).await;
    if views.borrow().loading {
        tracing::warn!("the certificates can't be looked at: credentials do not wait for them any longer");
        show(views, None);
    }
    std::future::pending().await
}

fn show(views: &watch::Sender<Arc<CertificateView>>, ca_pem: Option<Arc<str>>) {
    views.send_if_modified(|view| {
        let changes = view.loading || view.ca_pem != ca_pem;
        if changes {
            *view = Arc::new(CertificateView { ca_pem, loading: false });
        }
        changes
    });
}

/// Tells each problem once, in the log and in an Event on its Secret.
fn tell(
    cx: &Context,
    namespace: &str,
    problems: &[CertificatesError],
    told: &mut Vec<CertificatesError>,
    blind: bool,
) {
    for problem in problems.iter().filter(|p| !p.is_conflict()) {
        if told.contains(problem) {
            continue;
        }
        if is_of_the_api_server(problem) && !blind {
            tracing::warn!(error = %problem, "the certificates can't be looked after");
            continue;
        }
        tracing::error!(%problem, "the certificates can't be looked after");
        let reason = match problem {
            CertificatesError::Foreign { .. } => Reason::ForeignObject,
            _ => Reason::KeysUnavailable,
        };
        let key = Key::new(namespace, problem.secret());
        cx.note("v1", "Secret", &key, "", false, reason, &problem.to_string());
    }
    problems.clone_into(told);
}

const fn is_of_the_api_server(problem: &CertificatesError) -> bool {
    matches!(problem, CertificatesError::Api { .. })
}

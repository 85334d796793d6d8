//! The operator: one leader, one loop; decide, plan, apply.
//!
//! Invariants: nothing but Events is sent without the lease (the leader's client ends with its claim); who loses it
//! ends, and who sees that the cluster was set back to an older state; a stop lets what is under way come to its end and
//! gives the lease back; nobody stands by or leads who can't.

mod apply;
mod bindings;
mod certkeeper;
mod context;
mod engine;
mod foreign;
mod keykeeper;
mod keys;
mod lists;
mod maker;
mod metrics;
mod ring;
mod statuses;
mod term;
mod trust;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::certkeeper::CertificateView;
use self::keys::KeyView;
use self::metrics::{Metrics, Sights};
use self::term::Term;
use crate::api::{API_VERSION, Configuration, Reason};
use crate::cluster::client::{Calls, ClientError, ClientOptions, connect};
use crate::cluster::events::{EventSink, Notice, Severity};
use crate::cluster::feed::{Report, SharedWorld, Skipped, feed_operator};
use crate::cluster::lease::{
    Claim, LEASE_NAME, Leadership, Lease, LeaseConfig, LeaseError, LeaseHandle, LostReason,
};
use crate::cluster::watch::Rewound;
use crate::domain::{Source, View};
use crate::net::admin::{self, AdminError, Told};

/// How an operator is started.
#[derive(Debug)]
pub struct Options {
    /// The configuration.
    pub config: Configuration,
    /// Which cluster.
    pub client: ClientOptions,
    /// The namespace of the key Secret and the Lease.
    pub namespace: String,
    /// The name on the Lease.
    pub identity: Option<String>,
    /// The admin port.
    pub admin_listen: SocketAddr,
}

/// Why the operator did not start, or ended.
#[derive(Debug, Error)]
pub enum OperatorError {
    /// No cluster.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// No admin port.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The lease's times.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// No status list.
    #[error(transparent)]
    Lists(#[from] lists::ListError),
    /// The lease was lost: another process leads, or the API server could not be reached for too long.
    #[error("the lease {LEASE_NAME} was lost ({0}); ending, so that two never lead")]
    Lost(LostReason),
    /// What is known of the cluster never was.
    #[error(transparent)]
    Rewound(#[from] Rewound),
    /// A part of the leader has ended, by a fault of agentid's own.
    #[error(
        "the leader's {0} has ended by itself (a fault of agentid's own, see the log); ending, so that another process leads"
    )]
    Ended(&'static str),
}

impl OperatorError {
    /// Whether whoever ends with it leads until the lease is given back.
    const fn leads_still(&self) -> bool {
        matches!(self, Self::Ended(_))
    }
}

/// Runs until a signal, until the lease is lost, until a part of it ends, or until the cluster turns out to be set back
/// to an older state.
///
/// # Errors
/// [`OperatorError`].
pub async fn run(options: Options) -> Result<(), OperatorError> {
    let Options { config, client, namespace, identity, admin_listen } = options;
    let clients = connect(&client).await?;
    // Whoever can't be looked at must not lead.
    let listener = admin::bind(admin_listen).await?;
    let config = clients.complete(config);
    let stop = CancellationToken::new();
    tokio::spawn(crate::net::signal::cancel_on_signal(stop.clone()));
    tracing::info!(server = %clients.server, %namespace, issuer = %config.issuer, trust_domain = %config.trust_domain, version = env!("CARGO_PKG_VERSION"), "starting");

    let metrics = Arc::new(Metrics::default());
    let world = SharedWorld::new(config, View::Operator);
    let identity = identity.map_or_else(own_identity, |name| format!("{name}_{}", random_part()));
    let (events, _) =
        EventSink::start(clients.write.clone(), "agentid.dev/operator", &identity, stop.clone());
    let report = report(events.clone(), metrics.clone());
    feed_operator(&clients.watch, &world, &report, &stop);

    let lease = Lease::new(clients.lease.clone(), &namespace, LEASE_NAME, identity, LeaseConfig::default())?;
    let handle = lease.handle();
    let mut leadership = handle.subscribe();
    let (key_sender, keys) = watch::channel(Arc::new(KeyView::loading()));
    let (certificate_sender, _) = watch::channel(Arc::new(CertificateView::loading()));
    let told = Arc::new(Tells {
        world: world.clone(),
        metrics: metrics.clone(),
        keys,
        leadership: leadership.clone(),
        lease: handle.clone(),
        calls: clients.calls.clone(),
    });
    tokio::spawn(admin::serve(listener, told, stop.clone()));
    let release = CancellationToken::new();
    let election = tokio::spawn(lease.run(release.clone()));

    let leads = tokio::select! {
        biased;
        proof = world.until_rewound() => return Err(proof.into()),
        () = stop.cancelled() => None,
        elected = until_leading(&mut leadership) => Some(elected.map_err(OperatorError::Lost)?),
    };
    let ended = match leads {
        Some(claim) => {
            let term = Term {
                client: clients.write.clone(),
                namespace,
                world,
                metrics,
                events,
                lease: handle,
                keys: key_sender,
                certificates: certificate_sender,
            };
            term.run(claim, &stop).await
        }
        None => Ok(()),
    };
    if ended.as_ref().is_err_and(|e| !e.leads_still()) {
        return ended;
    }
    release.cancel();
    let _ = tokio::time::timeout(Duration::from_secs(6), election).await;
    tracing::info!("stopped");
    ended
}

/// Until this process leads; the reason if it never will: the election is over, be it before anybody looked.
async fn until_leading(leadership: &mut watch::Receiver<Leadership>) -> Result<Claim, LostReason> {
    loop {
        match &*leadership.borrow_and_update() {
            Leadership::Leading { claim, .. } => return Ok(claim.clone()),
            Leadership::Lost { reason } => return Err(*reason),
            Leadership::Standby { .. } => {}
        }
        if leadership.changed().await.is_err() {
            return Err(LostReason::Expired);
        }
    }
}

async fn until_lost(leadership: &mut watch::Receiver<Leadership>) -> LostReason {
    loop {
        if let Leadership::Lost { reason } = &*leadership.borrow_and_update() {
            return *reason;
        }
        if leadership.changed().await.is_err() {
            return LostReason::Expired;
        }
    }
}

/// Objects that can't be read are told in the log, a metric and an Event on themselves.
fn report(events: EventSink, metrics: Arc<Metrics>) -> Report {
    Arc::new(move |skipped: Skipped| {
        let Skipped { source, key, uid, problem } = skipped;
        metrics.skipped(&source);
        tracing::warn!(%source, object = %key, %problem, "an object can't be read and is skipped");
        let kind = match source {
            Source::Agents => "AgentIdentity",
            Source::Resources => "AgentResource",
            Source::Grants => "AgentGrant",
            Source::Blueprints => "AgentBlueprint",
            Source::Policies => "AgentPolicy",
            _ => return,
        };
        let note = format!("the object can't be read and is skipped: {problem}; correct it");
        events.tell(&Notice {
            regarding: ObjectReference {
                api_version: Some(API_VERSION.to_owned()),
                kind: Some(kind.to_owned()),
                namespace: (!key.namespace.is_empty()).then(|| key.namespace.to_string()),
                name: Some(key.name.to_string()),
                uid: Some(uid),
                ..ObjectReference::default()
            },
            severity: Severity::Warning,
            reason: Reason::Invalid.as_str(),
            action: "Read",
            note,
        });
    })
}

fn own_identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    format!("{}_{}", if host.is_empty() { "agentid" } else { host }, random_part())
}

/// Two processes of one pod, before and after a restart, must not take each other for themselves.
fn random_part() -> String {
    let mut bytes = [0u8; 8];
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        return format!("{}-{}", std::process::id(), jiff::Timestamp::now().as_nanosecond());
    }
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

struct Tells {
    world: Arc<SharedWorld>,
    metrics: Arc<Metrics>,
    keys: watch::Receiver<Arc<KeyView>>,
    leadership: watch::Receiver<Leadership>,
    lease: LeaseHandle,
    calls: Calls,
}

impl Tells {
    fn leads(&self) -> bool {
        matches!(*self.leadership.borrow(), Leadership::Leading { .. })
    }
}

impl Told for Tells {
    fn ready(&self) -> Result<(), String> {
        let mut missing = String::new();
        {
            let world = self.world.read();
            for source in Source::CORE {
                let state = world.source(&source);
                if !state.synced {
                    missing.push_str(&format!("{source}: {}\n", state.problem()));
                }
            }
        }
        if self.leads()
            && let Some(problem) = &self.keys.borrow().seen.problem
        {
            missing.push_str(&format!("keys: {problem}\n"));
        }
        if missing.is_empty() { Ok(()) } else { Err(missing) }
    }

    fn metrics(&self) -> String {
        let keys = self.leads().then(|| self.keys.borrow().clone());
        let sights = Sights {
            world: &self.world.read(),
            keys: keys.as_deref(),
            lease_transitions: self.lease.transitions(),
            calls: &self.calls,
        };
        self.metrics.text(&sights, jiff::Timestamp::now())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[tokio::test]
    async fn who_has_lost_before_anybody_looked_does_not_stand_by() {
        let standby = Leadership::Standby { holder: None, annotations: BTreeMap::new() };
        let (sender, mut leadership) = watch::channel(standby);
        let waiting = tokio::spawn(async move { until_leading(&mut leadership).await.err() });
        tokio::task::yield_now().await;
        sender.send_replace(Leadership::Lost { reason: LostReason::Expired });
        let lost = tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap();
        assert_eq!(lost, Some(LostReason::Expired));
    }
}

//! The operator: one leader, one loop; decide, plan, apply.
//!
//! Invariants: nothing but Events is sent without the lease (the leader's client ends with its claim); who loses it
//! ends, and who sees that the cluster was set back to an older state; a stop lets what is under way come to its end and gives the lease back.

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
mod trust;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::certkeeper::CertificateView;
use self::context::Context;
use self::engine::Engine;
use self::keys::KeyView;
use self::metrics::{Metrics, Sights};
use crate::api::{API_VERSION, Configuration, LabelSelector, Reason};
use crate::cluster::client::{Calls, ClientError, ClientOptions, connect};
use crate::cluster::events::{EventSink, Notice, Severity};
use crate::cluster::feed::{Report, SharedWorld, Skipped, feed_operator};
use crate::cluster::lease::{
    Claim, LEASE_NAME, Leadership, Lease, LeaseConfig, LeaseError, LeaseHandle, LostReason,
};
use crate::cluster::watch::Rewound;
use crate::cluster::write::Writer;
use crate::domain::{Source, View};
use crate::issue::{Audit, Issuer};
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
}

/// Runs until a signal, until the lease is lost, or until the cluster turns out to be set back to an older state.
///
/// # Errors
/// [`OperatorError`].
pub async fn run(options: Options) -> Result<(), OperatorError> {
    let Options { config, client, namespace, identity, admin_listen } = options;
    let clients = connect(&client).await?;
    let config = clients.complete(config);
    let stop = CancellationToken::new();
    tokio::spawn(crate::net::signal::cancel_on_signal(stop.clone()));
    tracing::info!(server = %clients.server, %namespace, issuer = %config.issuer, trust_domain = %config.trust_domain, version = env!("CARGO_PKG_VERSION"), "starting");

    let metrics = Arc::new(Metrics::default());
    let world = SharedWorld::new(config.clone(), View::Operator);
    let identity = identity.map_or_else(own_identity, |name| format!("{name}_{}", random_part()));
    let (events, _) =
        EventSink::start(clients.write.clone(), "agentid.dev/operator", &identity, stop.clone());
    let report = report(events.clone(), metrics.clone());
    feed_operator(&clients.watch, &world, &report, &stop);

    let lease = Lease::new(clients.lease.clone(), &namespace, LEASE_NAME, identity, LeaseConfig::default())?;
    let handle = lease.handle();
    let mut leadership = handle.subscribe();
    let release = CancellationToken::new();
    let election = tokio::spawn(lease.run(release.clone()));

    let (key_sender, keys) = watch::channel(Arc::new(KeyView::loading()));
    let (certificate_sender, certificates) = watch::channel(Arc::new(CertificateView::loading()));
    let told = Arc::new(Tells {
        world: world.clone(),
        metrics: metrics.clone(),
        keys: keys.clone(),
        leadership: leadership.clone(),
        lease: handle.clone(),
        calls: clients.calls.clone(),
    });
    let listener = admin::bind(admin_listen).await?;
    tokio::spawn(admin::serve(listener, told, stop.clone()));

    let leads = tokio::select! {
        biased;
        proof = world.until_rewound() => return Err(proof.into()),
        () = stop.cancelled() => None,
        claim = until_leading(&mut leadership) => claim,
    };
    if let Some(claim) = leads {
        tracing::info!("leading");
        metrics.leads(true);
        let client = claim.fence(&clients.write);
        let context = Arc::new(Context {
            world: world.clone(),
            writer: Writer::new(client.clone()),
            issuer: Issuer {
                issuer: config.issuer.as_str().into(),
                trust_domain: config.trust_domain.as_str().into(),
                audit: Audit::stdout(),
            },
            metrics: metrics.clone(),
            // Checked when the configuration was read.
            pod_selector: config.pod_selector.parse::<LabelSelector>().unwrap_or_default(),
            client: client.clone(),
            events,
            keys,
            indexes: Mutex::new(lists::open(&handle, config.status_lists.capacity).await?),
            certificates,
            collections: Mutex::new(HashMap::new()),
            refusals: Mutex::default(),
        });
        let work = stop.child_token();
        let keeper = ring::keep(&client, &namespace, context.clone(), key_sender, work.clone());
        let marks = {
            let (context, work) = (context.clone(), work.clone());
            tokio::spawn(async move { work.run_until_cancelled(lists::keep(&context, &handle)).await })
        };
        let certificates =
            certkeeper::keep(&client, &namespace, context.clone(), certificate_sender, work.clone());
        if let Some(proof) = world.rewound() {
            return Err(proof.into());
        }
        let engine = tokio::spawn(Engine::new(context, claim).run(work.clone()));
        let lost = tokio::select! {
            biased;
            proof = world.until_rewound() => Some(proof.into()),
            () = stop.cancelled() => None,
            reason = until_lost(&mut leadership) => Some(OperatorError::Lost(reason)),
        };
        work.cancel();
        if let Some(error) = lost {
            // Nothing under way may be awaited: another may lead already, or what it rests on is not so.
            return Err(error);
        }
        tracing::info!("stopping");
        let ended = async {
            let _ = engine.await;
            let _ = keeper.await;
            let _ = marks.await;
            let _ = certificates.await;
        };
        if tokio::time::timeout(Duration::from_secs(25), ended).await.is_err() {
            tracing::warn!("the loop did not end in time");
        }
    }
    release.cancel();
    let _ = tokio::time::timeout(Duration::from_secs(6), election).await;
    tracing::info!("stopped");
    Ok(())
}

async fn until_leading(leadership: &mut watch::Receiver<Leadership>) -> Option<Claim> {
    loop {
        if let Leadership::Leading { claim, .. } = &*leadership.borrow_and_update() {
            return Some(claim.clone());
        }
        leadership.changed().await.ok()?;
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

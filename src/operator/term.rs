//! One term of leadership: what runs while this process leads, and why it is over.
//!
//! Invariants: a leader of which a part has ended ends as a whole, so that another may lead; no term ends before the
//! record of what was minted in it is written, for a bounded time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::select_all;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::certkeeper::{self, CertificateView};
use super::context::Context;
use super::engine::Engine;
use super::keys::KeyView;
use super::metrics::Metrics;
use super::{OperatorError, lists, ring, until_lost};
use crate::api::LabelSelector;
use crate::cluster::events::EventSink;
use crate::cluster::feed::SharedWorld;
use crate::cluster::lease::{Claim, Leadership, LeaseHandle};
use crate::cluster::write::Writer;
use crate::issue::{Audit, Issuer};

/// How long the end of what is under way is waited for.
const PATIENCE: Duration = Duration::from_secs(25);

/// What a leader works with.
pub(super) struct Term {
    pub(super) client: kube::Client,
    pub(super) namespace: String,
    pub(super) world: Arc<SharedWorld>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) events: EventSink,
    pub(super) lease: LeaseHandle,
    pub(super) keys: watch::Sender<Arc<KeyView>>,
    pub(super) certificates: watch::Sender<Arc<CertificateView>>,
}

impl Term {
    /// Leads until told to stop, or until it may not or can't go on.
    pub(super) async fn run(self, claim: Claim, stop: &CancellationToken) -> Result<(), OperatorError> {
        let audit = Audit::stdout();
        let ended = self.lead(claim, audit.clone(), stop).await;
        audit.flush().await;
        ended
    }

    async fn lead(self, claim: Claim, audit: Audit, stop: &CancellationToken) -> Result<(), OperatorError> {
        let Self { client, namespace, world, metrics, events, lease, keys, certificates } = self;
        tracing::info!("leading");
        metrics.leads(true);
        let mut leadership = lease.subscribe();
        let client = claim.fence(&client);
        let config = world.read().config().clone();
        let context = Arc::new(Context {
            world: world.clone(),
            writer: Writer::new(client.clone()),
            issuer: Issuer {
                issuer: config.issuer.as_str().into(),
                trust_domain: config.trust_domain.as_str().into(),
                audit,
            },
            metrics,
            // Checked when the configuration was read.
            pod_selector: config.pod_selector.parse::<LabelSelector>().unwrap_or_default(),
            client: client.clone(),
            events,
            keys: keys.subscribe(),
            indexes: Mutex::new(lists::open(&lease, config.status_lists.capacity).await?),
            certificates: certificates.subscribe(),
            collections: Mutex::new(HashMap::new()),
            refusals: Mutex::default(),
        });
        let work = stop.child_token();
        let mut parts = Parts::default();
        parts.add(
            "key ring",
            ring::keep(&client, &namespace, context.clone(), lease.clone(), keys, work.clone()),
        );
        let marks = {
            let (context, work) = (context.clone(), work.clone());
            async move {
                work.run_until_cancelled(lists::keep(&context, &lease)).await;
            }
        };
        parts.add("status list's mark", tokio::spawn(marks));
        let kept = certkeeper::keep(&client, &namespace, context.clone(), certificates, work.clone());
        parts.add("certificates", kept);
        if let Some(proof) = world.rewound() {
            return Err(proof.into());
        }
        parts.add("loop", tokio::spawn(Engine::new(context, claim).run(work.clone())));
        let over = until_over(&world, stop, &mut leadership, &mut parts).await;
        work.cancel();
        if over.as_ref().is_err_and(|e| !e.leads_still()) {
            // Nothing under way may be awaited: another may lead already, or what it rests on is not so.
            return over;
        }
        tracing::info!("stopping");
        if tokio::time::timeout(PATIENCE, parts.ended()).await.is_err() {
            tracing::warn!("the loop did not end in time");
        }
        over
    }
}

/// Until this term is over; `Ok` if it is told to stop.
async fn until_over(
    world: &SharedWorld,
    stop: &CancellationToken,
    leadership: &mut watch::Receiver<Leadership>,
    parts: &mut Parts,
) -> Result<(), OperatorError> {
    tokio::select! {
        biased;
        proof = world.until_rewound() => Err(proof.into()),
        () = stop.cancelled() => Ok(()),
        reason = until_lost(leadership) => Err(OperatorError::Lost(reason)),
        part = parts.until_one_ends() => Err(OperatorError::Ended(part)),
    }
}

/// The tasks of a term. None ends before it is told to, but by a fault of agentid's own.
#[derive(Default)]
struct Parts(Vec<(&'static str, JoinHandle<()>)>);

impl Parts {
    fn add(&mut self, name: &'static str, task: JoinHandle<()>) {
        self.0.push((name, task));
    }

    /// Until one ends, which is taken out; says which.
    async fn until_one_ends(&mut self) -> &'static str {
        let (_, first, _) = select_all(self.0.iter_mut().map(|(_, task)| task)).await;
        self.0.swap_remove(first).0
    }

    /// Until all have ended.
    async fn ended(self) {
        for (_, task) in self.0 {
            let _ = task.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::api::Configuration;
    use crate::cluster::lease::LostReason;
    use crate::domain::View;

    const CONFIGURATION: &str = "apiVersion: config.agentid.dev/v1alpha1\nkind: Configuration\n\
        issuer: https://agents.example.com\ntrustDomain: agents.example.com\n";

    /// A part that works until it is told to stop.
    fn good(stop: &CancellationToken) -> JoinHandle<()> {
        let stop = stop.clone();
        tokio::spawn(async move { stop.cancelled().await })
    }

    #[tokio::test]
    async fn a_term_is_over_when_a_part_ends_the_lease_is_lost_or_it_is_told_to_stop() {
        let world = SharedWorld::new(Configuration::from_yaml(CONFIGURATION).unwrap(), View::Operator);
        let standby = Leadership::Standby { holder: None, annotations: BTreeMap::new() };
        let (sender, mut leadership) = watch::channel(standby);
        let stop = CancellationToken::new();

        type Fault = fn() -> JoinHandle<()>;
        let faults: [Fault; 2] = [|| tokio::spawn(async { panic!("poison") }), || tokio::spawn(async {})];
        for fault in faults {
            let mut parts = Parts::default();
            parts.add("key ring", good(&stop));
            parts.add("certificates", fault());
            parts.add("loop", good(&stop));
            let over = until_over(&world, &stop, &mut leadership, &mut parts).await.unwrap_err();
            assert!(matches!(over, OperatorError::Ended("certificates")) && over.leads_still(), "{over}");
            assert_eq!(parts.0.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["key ring", "loop"]);
        }

        let mut parts = Parts::default();
        parts.add("loop", good(&stop));
        sender.send_replace(Leadership::Lost { reason: LostReason::Taken });
        let over = until_over(&world, &stop, &mut leadership, &mut parts).await.unwrap_err();
        assert!(matches!(over, OperatorError::Lost(LostReason::Taken)) && !over.leads_still(), "{over}");

        stop.cancel();
        assert!(until_over(&world, &stop, &mut leadership, &mut parts).await.is_ok());
        tokio::time::timeout(Duration::from_secs(5), parts.ended()).await.unwrap();
    }
}

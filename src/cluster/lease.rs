//! Who leads: one `coordination.k8s.io/v1` Lease, the rules of client-go.
//!
//! Invariants: every write replaces the object at a known resourceVersion, so of two that take the lease
//! one gets a conflict; a leader that can't renew within `renew_deadline` says [`Leadership::Lost`] before
//! anybody else may take over after `duration`; once lost, this elector never leads again (the process
//! ends). Remote times are never compared with a local clock.

mod fence;
mod object;
mod standing;
mod step;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease as Object;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, PostParams};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::client::{CallError, Class, spread, timed_within};
use object::Purpose;
pub use standing::{Claim, Leadership, LeaseHandle, LostReason};
use standing::{Shared, locked};
use step::{Observed, Step, step};

/// The name of the operator's Lease.
pub const LEASE_NAME: &str = "agentid-operator";

/// The times of the election.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseConfig {
    /// How long others wait for a renewal before they take over. Whole seconds, rounded up on the record.
    pub duration: Duration,
    /// How long the leader goes on without a successful renewal.
    pub renew_deadline: Duration,
    /// Time between two tries, to renew as to acquire (the latter lengthened at random by up to a fifth).
    pub retry_period: Duration,
    /// How long one call may take.
    pub call_timeout: Duration,
}

impl Default for LeaseConfig {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
            call_timeout: Duration::from_secs(5),
        }
    }
}

impl LeaseConfig {
    /// The longest pause before a try to acquire.
    fn slowest_retry(&self) -> Duration {
        self.retry_period.mul_f64(1.2)
    }

    /// Within so long after a leader's last renewal another one takes over, the time of its calls apart: who stands by
    /// sees that renewal at one try, waits for `duration`, and acquires at the try that follows.
    #[must_use]
    pub fn takeover(&self) -> Duration {
        self.duration + self.slowest_retry() * 2
    }
}

/// What can be wrong with a lease.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Times under which two could lead, or nobody.
    #[error("lease times must hold duration > renew deadline > 1.2 × retry period > 0")]
    Times,
    /// This process doesn't lead, or no longer.
    #[error("not the leader")]
    NotLeading,
}

/// An election that has not begun. `identity` must be this process's alone (pod name and a random part):
/// who finds its own name on the record takes the lease at once.
pub struct Lease {
    api: Api<Object>,
    name: String,
    identity: String,
    config: LeaseConfig,
    shared: Arc<Shared>,
    observed: Option<Observed>,
    leading: Option<Leading>,
}

struct Leading {
    since: Instant,
    renewed: Instant,
    claim: Claim,
}

impl Lease {
    /// Nothing is sent before [`Self::run`].
    ///
    /// # Errors
    /// When the times don't fit together.
    pub fn new(
        client: Client,
        namespace: &str,
        name: impl Into<String>,
        identity: impl Into<String>,
        config: LeaseConfig,
    ) -> Result<Self, LeaseError> {
        if config.retry_period.is_zero()
            || config.renew_deadline <= config.slowest_retry()
            || config.duration <= config.renew_deadline
        {
            return Err(LeaseError::Times);
        }
        let standby = Leadership::Standby { holder: None, annotations: BTreeMap::new() };
        let shared = Shared {
            state: watch::Sender::new(standby),
            wanted: Mutex::default(),
            written: watch::Sender::new((0, String::new())),
            urgent: Notify::new(),
            transitions: Mutex::default(),
        };
        Ok(Self {
            api: Api::namespaced(client, namespace),
            name: name.into(),
            identity: identity.into(),
            config,
            shared: Arc::new(shared),
            observed: None,
            leading: None,
        })
    }

    /// Access from elsewhere, before and while it runs.
    #[must_use]
    pub fn handle(&self) -> LeaseHandle {
        LeaseHandle { shared: self.shared.clone() }
    }

    /// Stands for election, leads, renews. Returns when leadership was lost, or after `cancel`, having
    /// given the lease back; cancel when nothing is written any more. [`Leadership::Lost`] is said either way.
    pub async fn run(mut self, cancel: CancellationToken) -> LostReason {
        let reason = loop {
            if let Some(reason) = self.round().await {
                break reason;
            }
            if !self.pause(&cancel).await {
                self.release().await;
                break LostReason::Released;
            }
        };
        match reason {
            LostReason::Released => info!(lease = self.name, "lease released"),
            _ => warn!(lease = self.name, %reason, "leadership lost"),
        }
        if let Some(leading) = &self.leading {
            *locked(&leading.claim.until) = Instant::now();
        }
        self.shared.state.send_replace(Leadership::Lost { reason });
        reason
    }

    /// Waits for the next try; false when it is time to go.
    async fn pause(&self, cancel: &CancellationToken) -> bool {
        let (period, urgent) = match &self.leading {
            Some(leading) => {
                let left = self.deadline(leading).saturating_duration_since(Instant::now());
                (self.config.retry_period.min(left), true)
            }
            None => (self.config.retry_period.mul_f64(0.2_f64.mul_add(spread(), 1.0)), false),
        };
        tokio::select! {
            () = cancel.cancelled() => false,
            () = self.shared.urgent.notified(), if urgent => true,
            () = sleep(period) => true,
        }
    }

    fn deadline(&self, leading: &Leading) -> Instant {
        leading.renewed + self.config.renew_deadline
    }

    /// One try: reads if it has to, writes if it may. Says so if leadership is lost.
    async fn round(&mut self) -> Option<LostReason> {
        // A leader writes on what it wrote; only a conflict makes it look again.
        if self.leading.is_none() {
            self.read().await.ok()?;
        }
        // Two turns: as planned, and once more on what a conflict made it read.
        for _ in 0..2 {
            let renewed = self.leading.as_ref().map(|l| l.renewed);
            let purpose =
                match step(self.observed.as_ref(), renewed, Instant::now(), &self.identity, &self.config) {
                    Step::Wait => {
                        self.stand_by();
                        return None;
                    }
                    Step::Taken => return Some(LostReason::Taken),
                    Step::Expired => return Some(LostReason::Expired),
                    Step::Create | Step::Acquire => Purpose::Acquire,
                    Step::Renew => Purpose::Renew,
                };
            match self.write(purpose).await {
                Ok(()) => return None,
                // Somebody was faster, or the record was deleted.
                Err(Class::Conflict | Class::AlreadyExists | Class::NotFound) => self.read().await.ok()?,
                Err(_) => return None,
            }
        }
        None
    }

    async fn read(&mut self) -> Result<(), Class> {
        let found = self.call(self.api.get_opt(&self.name)).await;
        let found = found.inspect_err(|e| self.failed("read", e)).map_err(|e| e.class())?;
        let before = self.observed.take();
        self.observed = found.map(|object| Observed::update(before, object, Instant::now()));
        self.note_transitions();
        Ok(())
    }

    async fn write(&mut self, purpose: Purpose) -> Result<(), Class> {
        let began = Instant::now();
        let (version, next) = {
            let wanted = locked(&self.shared.wanted);
            let before = self.observed.as_ref().map(|o| &o.object);
            let mut next =
                object::next(before, purpose, &self.name, &self.identity, &self.config, Timestamp::now());
            object::annotate(&mut next, &wanted);
            (wanted.version, next)
        };
        let params = PostParams::default();
        let result = if next.metadata.resource_version.is_none() {
            self.call(self.api.create(&params, &next)).await
        } else {
            self.call(self.api.replace(&self.name, &params, &next)).await
        };
        let written = match result {
            Ok(object) => object,
            Err(e) => {
                self.failed("write", &e);
                return Err(e.class());
            }
        };
        let revision = written.metadata.resource_version.clone().unwrap_or_default();
        let before = self.observed.take();
        self.observed = Some(Observed::update(before, written, Instant::now()));
        self.note_transitions();
        if !matches!(purpose, Purpose::Release) {
            self.lead(began);
        }
        self.shared.written.send_replace((version, revision));
        Ok(())
    }

    /// Takes note of a write that began at `began` and succeeded.
    fn lead(&mut self, began: Instant) {
        let until = began + self.config.renew_deadline;
        let leading = self.leading.get_or_insert_with(|| {
            info!(lease = self.name, identity = self.identity, "leading");
            Leading { since: began, renewed: began, claim: Claim { until: Arc::new(Mutex::new(until)) } }
        });
        leading.renewed = began;
        *locked(&leading.claim.until) = until;
        let (since, claim) = (leading.since, leading.claim.clone());
        let now = self.annotations();
        self.shared.state.send_if_modified(|state| {
            if matches!(state, Leadership::Leading { annotations, .. } if *annotations == now) {
                return false;
            }
            *state = Leadership::Leading { since, annotations: now, claim };
            true
        });
    }

    fn stand_by(&self) {
        let holder_now = self.observed.as_ref().and_then(Observed::holder).map(str::to_owned);
        let now = self.annotations();
        self.shared.state.send_if_modified(|state| {
            if matches!(state, Leadership::Standby { holder, annotations } if *holder == holder_now && *annotations == now) {
                return false;
            }
            debug!(lease = self.name, holder = holder_now, "standing by");
            *state = Leadership::Standby { holder: holder_now, annotations: now };
            true
        });
    }

    fn note_transitions(&self) {
        let Some(observed) = &self.observed else { return };
        let transitions = observed.object.spec.as_ref().and_then(|s| s.lease_transitions);
        let transitions = transitions.and_then(|n| u64::try_from(n).ok()).unwrap_or_default();
        *locked(&self.shared.transitions) = Some(transitions);
    }

    fn annotations(&self) -> BTreeMap<String, String> {
        self.observed.as_ref().and_then(|o| o.object.metadata.annotations.clone()).unwrap_or_default()
    }

    /// Gives the lease back, if it is ours, so that the next leader needn't wait.
    async fn release(&mut self) {
        for _ in 0..2 {
            let held = self.observed.as_ref().and_then(Observed::holder) == Some(self.identity.as_str());
            if self.leading.is_none() || !held {
                return;
            }
            match self.write(Purpose::Release).await {
                Err(Class::Conflict) if self.read().await.is_ok() => {}
                _ => return,
            }
        }
    }

    /// A call never outlasts the leadership it serves: what comes too late is of no use.
    async fn call<V>(&self, call: impl Future<Output = kube::Result<V>>) -> Result<V, CallError> {
        let bounded = timed_within(self.config.call_timeout, call);
        let Some(leading) = &self.leading else { return bounded.await };
        tokio::select! {
            result = bounded => result,
            () = sleep_until(self.deadline(leading).into()) =>
                Err(CallError::new(Class::Timeout, "no answer before the renewal deadline")),
        }
    }

    fn failed(&self, what: &str, error: &CallError) {
        let class = error.class();
        if matches!(class, Class::Conflict | Class::AlreadyExists) {
            debug!(lease = self.name, what, %class, "lease changed meanwhile");
        } else {
            warn!(lease = self.name, what, %class, message = error.message(), "lease call failed");
        }
    }
}

impl Drop for Lease {
    /// Whoever waits on an election that was aborted must hear of it.
    fn drop(&mut self) {
        self.shared.state.send_if_modified(|state| {
            let running = !matches!(state, Leadership::Lost { .. });
            if running {
                *state = Leadership::Lost { reason: LostReason::Released };
            }
            running
        });
    }
}

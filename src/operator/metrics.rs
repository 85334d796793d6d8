//! The operator's metrics. Invariant: every label is of a closed set; no object's name is ever a label.

use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::keys::KeyView;
use crate::api::{GrantState, Reason, TokenProfile};
use crate::cluster::client::Calls;
use crate::domain::keyring::Times;
use crate::domain::plan::{Cause, Issue};
use crate::domain::{Renewals, Source, World};
use crate::metrics::{self, ByMode, ByReason, Modes, Reasons, counter, delay, gauge, modes, number, reasons};

/// A renewal is late so long after its time.
const LATE: SignedDuration = SignedDuration::from_secs(60);
/// The values of the label `cause`.
const CAUSES: [&str; 7] = ["new", "changed", "renewal", "healed", "key-gone", "rotation", "withdrawn"];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByCause {
    cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByKind {
    kind: String,
}

impl ByKind {
    fn of(source: &Source) -> Self {
        Self { kind: source.to_string() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByLane {
    lane: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    state: &'static str,
    reason: &'static str,
}

/// The counters and gauges.
#[derive(Debug)]
pub struct Metrics {
    writes: Family<ByCause, Counter>,
    tokens: Modes,
    transitions: Reasons,
    failures: Reasons,
    deletions: Reasons,
    orphans: Counter,
    made: Counter,
    skipped: Family<ByKind, Counter>,
    withdrawals: Histogram,
    lanes: Family<ByLane, Gauge>,
    working: Gauge,
    leader: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let writes = Family::<ByCause, Counter>::default();
        for cause in CAUSES {
            drop(writes.get_or_create(&ByCause { cause }));
        }
        Self {
            writes,
            tokens: modes(),
            transitions: reasons(),
            failures: reasons(),
            deletions: reasons(),
            orphans: Counter::default(),
            made: Counter::default(),
            skipped: Family::default(),
            withdrawals: delay(),
            lanes: Family::default(),
            working: Gauge::default(),
            leader: Gauge::default(),
        }
    }
}

/// What a scrape looks at beside the counters.
pub(super) struct Sights<'a> {
    pub(super) world: &'a World,
    /// Of the leader alone: who stands by does not read the keys.
    pub(super) keys: Option<&'a KeyView>,
    /// None before the Lease was read.
    pub(super) lease_transitions: Option<u64>,
    pub(super) calls: &'a Calls,
}

impl Metrics {
    pub(super) fn written(&self, cause: &Cause, withdrawn: bool) {
        let cause = match cause {
            _ if withdrawn => "withdrawn",
            Cause::New => "new",
            Cause::Changed => "changed",
            Cause::Renewal => "renewal",
            Cause::Healed(_) => "healed",
            Cause::KeyGone => "key-gone",
            Cause::Rotation => "rotation",
        };
        self.writes.get_or_create(&ByCause { cause }).inc();
    }

    pub(super) fn minted(&self, issue: &Issue) {
        for token in &issue.tokens {
            let entitlement = &token.entitlement;
            let mode = match entitlement.profile {
                TokenProfile::Identity => "identity",
                TokenProfile::Access => entitlement.mode.as_str(),
            };
            self.tokens.get_or_create(&ByMode::of(mode)).inc();
        }
    }

    pub(super) fn transition(&self, reason: Reason) {
        self.transitions.get_or_create(&reason.into()).inc();
    }

    pub(super) fn failed(&self, reason: Reason) {
        self.failures.get_or_create(&reason.into()).inc();
    }

    pub(super) fn deleted(&self, reason: Reason) {
        self.deletions.get_or_create(&reason.into()).inc();
    }

    pub(super) fn made(&self) {
        self.made.inc();
    }

    pub(super) fn orphan(&self) {
        self.orphans.inc();
    }

    /// Tokens were taken out of a Secret; `since` is when it became known that they are to be.
    pub(super) fn withdrawn(&self, since: Instant) {
        self.withdrawals.observe(since.elapsed().as_secs_f64());
    }

    pub(super) fn skipped(&self, kind: &Source) {
        self.skipped.get_or_create(&ByKind::of(kind)).inc();
    }

    pub(super) fn depths(&self, (urgent, paced): (usize, usize), working: usize) {
        self.lanes.get_or_create(&ByLane { lane: "urgent" }).set(number(urgent));
        self.lanes.get_or_create(&ByLane { lane: "paced" }).set(number(paced));
        self.working.set(number(working));
    }

    pub(super) fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// Everything in the OpenMetrics text format, with the world's sizes and ages as they are now.
    pub(super) fn text(&self, sights: &Sights<'_>, now: Timestamp) -> String {
        metrics::text("operator", |registry| {
            // Each kind's from the start, bound ones as they are configured.
            for source in sights.world.sources().keys() {
                drop(self.skipped.get_or_create(&ByKind::of(source)));
            }
            self.counts(registry);
            // A 0 that is not the Lease's would look like a reset, and what follows like so many changes.
            if let Some(transitions) = sights.lease_transitions {
                let help = "How often the leadership has changed hands, as the Lease says";
                counter(registry, "lease_transitions", help, transitions);
            }
            renewals(registry, &sights.world.renewals(now, LATE));
            totals(registry, sights.world);
            metrics::world(registry, sights.world, now);
            if let Some(keys) = sights.keys.filter(|k| !k.loading) {
                metrics::keys(registry, keys.ring.as_deref(), &Times::from(sights.world.config()));
            }
            sights.calls.register(registry);
        })
    }

    fn counts(&self, registry: &mut Registry) {
        registry.register("secret_writes", "Writes of credential Secrets", self.writes.clone());
        registry.register("tokens_issued", "Tokens minted for Secrets", self.tokens.clone());
        registry.register(
            "transitions",
            "Conditions that changed, by their new reason",
            self.transitions.clone(),
        );
        registry.register(
            "work_failures",
            "Pieces of work that failed and are tried again",
            self.failures.clone(),
        );
        registry.register(
            "agents_deleted",
            "Agents deleted with what they were bound to",
            self.deletions.clone(),
        );
        registry.register(
            "orphans_deleted",
            "Secrets deleted because their agent was gone",
            self.orphans.clone(),
        );
        registry.register("agents_made", "Agents made from blueprints", self.made.clone());
        registry.register("objects_skipped", "Objects that could not be read", self.skipped.clone());
        registry.register(
            "withdrawal_delay_seconds",
            "From when a withdrawal became due, as the watches told it, until the Secret was written or deleted",
            self.withdrawals.clone(),
        );
        registry.register("queue_depth", "Items that wait", self.lanes.clone());
        registry.register("work_in_progress", "Items being worked on", self.working.clone());
        registry.register("leader", "1 while this process leads", self.leader.clone());
    }
}

fn renewals(registry: &mut Registry, renewals: &Renewals) {
    gauge(registry, "renewals_due", "Secrets whose time to be renewed has come", number(renewals.due));
    gauge(
        registry,
        "renewals_late",
        "Secrets whose time to be renewed came more than a minute ago",
        number(renewals.late),
    );
    gauge(
        registry,
        "credentials_expired",
        "Secrets of which a token has expired and is still there",
        number(renewals.expired),
    );
    if let Some(at) = renewals.first_expiry {
        let help = "When the first token in any Secret expires";
        gauge(registry, "oldest_expiry_timestamp_seconds", help, at.as_second());
    }
    if let Some(at) = renewals.first_due {
        let help = "When the first Secret is to be renewed";
        gauge(registry, "oldest_renewal_timestamp_seconds", help, at.as_second());
    }
}

fn totals(registry: &mut Registry, world: &World) {
    let totals = world.totals();
    let agents = Family::<ByReason, Gauge>::default();
    agents.get_or_create(&Reason::Issued.into()).set(0);
    for (reason, n) in &totals.agents {
        agents.get_or_create(&reason.unwrap_or(Reason::Issued).into()).set(*n);
    }
    registry.register(
        "agents",
        "Agents by how they were decided to stand; Issued: they may have credentials",
        agents,
    );
    let grants = Family::<ByOutcome, Gauge>::default();
    for ((state, reason), n) in &totals.grants {
        let state = match state {
            GrantState::Held => "Held",
            GrantState::Narrowed => "Narrowed",
            GrantState::Refused => "Refused",
        };
        let reason = reason.unwrap_or(Reason::Issued).as_str();
        grants.get_or_create(&ByOutcome { state, reason }).inc_by(*n);
    }
    registry.register("agent_grants", "Pairs of an agent and a grant, by what came of it", grants);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::testing::Cluster;
    use crate::metrics::testing::tells_counters_from_the_start;

    #[test]
    fn what_alerts_count_is_told_from_the_start() {
        let c = Cluster::example();
        let calls = Calls::default();
        let mut sights = Sights { world: &c.world, keys: None, lease_transitions: Some(0), calls: &calls };
        let text = Metrics::default().text(&sights, Timestamp::UNIX_EPOCH);
        tells_counters_from_the_start(&text, |name| !name.starts_with("agentid_serve_"));
        for kind in ["agentpolicies", "clusterroles", "apps/v1/Deployment"] {
            let line = format!("agentid_objects_skipped_total{{kind=\"{kind}\"}} 0");
            assert!(text.contains(&line), "{line} in\n{text}");
        }
        // A 0 before the Lease was read would look like a reset.
        sights.lease_transitions = None;
        let text = Metrics::default().text(&sights, Timestamp::UNIX_EPOCH);
        assert!(!text.contains("agentid_lease_transitions"), "{text}");
    }

    #[test]
    fn says_what_it_counted() {
        let metrics = Metrics::default();
        metrics.written(&Cause::Renewal, false);
        metrics.failed(Reason::KeysUnavailable);
        metrics.withdrawn(Instant::now());
        let mut c = Cluster::example();
        c.settle();
        let sights =
            Sights { world: &c.world, keys: None, lease_transitions: Some(3), calls: &Calls::default() };
        let expiry = c.world.secrets().map(|s| s.expires_at).min().unwrap();
        let text = metrics.text(&sights, expiry + SignedDuration::from_secs(1));
        for line in [
            "agentid_secret_writes_total{cause=\"renewal\"} 1",
            "agentid_secret_writes_total{cause=\"healed\"} 0",
            "agentid_work_failures_total{reason=\"KeysUnavailable\"} 1",
            "agentid_work_failures_total{reason=\"Internal\"} 0",
            "agentid_withdrawal_delay_seconds_count 1",
            "agentid_lease_transitions_total 3",
            "agentid_world_objects{kind=\"secrets\"} 1",
            "agentid_renewals_due 1",
            "agentid_renewals_late 1",
            "agentid_credentials_expired 1",
            &format!("agentid_oldest_expiry_timestamp_seconds {}", expiry.as_second()),
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert!(!text.contains("agentid_keys_available"), "who stands by says nothing of keys:\n{text}");
    }
}

//! The operator's metrics. Invariant: every label is of a closed set; no object's name is ever a label.

use std::fmt::Write;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::api::Reason;
use crate::domain::World;
use crate::domain::plan::Cause;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: ReasonLabel,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ReasonLabel(Reason);

impl EncodeLabelValue for ReasonLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(self.0.as_str())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByCause {
    cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByKind {
    kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByLane {
    lane: &'static str,
}

/// The counters and gauges.
#[derive(Debug, Default)]
pub struct Metrics {
    writes: Family<ByCause, Counter>,
    transitions: Family<ByReason, Counter>,
    failures: Family<ByReason, Counter>,
    deletions: Family<ByReason, Counter>,
    orphans: Counter,
    made: Counter,
    skipped: Family<ByKind, Counter>,
    lanes: Family<ByLane, Gauge>,
    working: Gauge,
    leader: Gauge,
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

    pub(super) fn transition(&self, reason: Reason) {
        self.transitions.get_or_create(&ByReason { reason: ReasonLabel(reason) }).inc();
    }

    pub(super) fn failed(&self, reason: Reason) {
        self.failures.get_or_create(&ByReason { reason: ReasonLabel(reason) }).inc();
    }

    pub(super) fn deleted(&self, reason: Reason) {
        self.deletions.get_or_create(&ByReason { reason: ReasonLabel(reason) }).inc();
    }

    pub(super) fn made(&self) {
        self.made.inc();
    }

    pub(super) fn orphan(&self) {
        self.orphans.inc();
    }

    pub(super) fn skipped(&self, kind: &crate::domain::Source) {
        self.skipped.get_or_create(&ByKind { kind: kind.to_string() }).inc();
    }

    pub(super) fn depths(&self, (urgent, paced): (usize, usize), working: usize) {
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.lanes.get_or_create(&ByLane { lane: "urgent" }).set(number(urgent));
        self.lanes.get_or_create(&ByLane { lane: "paced" }).set(number(paced));
        self.working.set(number(working));
    }

    pub(super) fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// Everything in the OpenMetrics text format, with the world's sizes and ages as they are now.
    #[must_use]
    pub fn text(&self, world: &World, now: jiff::Timestamp) -> String {
        let mut registry = Registry::with_prefix("agentid");
        registry.register("secret_writes", "Writes of credential Secrets", self.writes.clone());
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
        registry.register("queue_depth", "Items that wait", self.lanes.clone());
        registry.register("work_in_progress", "Items being worked on", self.working.clone());
        registry.register("leader", "1 while this process leads", self.leader.clone());
        let objects = Family::<ByKind, Gauge>::default();
        for (kind, n) in world.sizes() {
            objects
                .get_or_create(&ByKind { kind: kind.to_owned() })
                .set(i64::try_from(n).unwrap_or(i64::MAX));
        }
        registry.register("world_objects", "Objects in the picture of the cluster", objects);
        let ages = Family::<ByKind, Gauge>::default();
        for (source, state) in world.sources() {
            let age = state.heard.map_or(-1, |h| now.duration_since(h).as_secs());
            ages.get_or_create(&ByKind { kind: source.to_string() }).set(age);
        }
        registry.register(
            "watch_age_seconds",
            "Since a watch was last heard of; -1 before its first list",
            ages,
        );
        let mut text = String::new();
        if encode(&mut text, &registry).is_err() {
            text.clear();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_it_counted() {
        let metrics = Metrics::default();
        metrics.written(&Cause::Renewal, false);
        metrics.failed(Reason::KeysUnavailable);
        let world = World::new(crate::api::Configuration::new("https://a.example.com", "a.example.com"));
        let text = metrics.text(&world, jiff::Timestamp::UNIX_EPOCH);
        for line in [
            "agentid_secret_writes_total{cause=\"renewal\"} 1",
            "agentid_work_failures_total{reason=\"KeysUnavailable\"} 1",
            "agentid_world_objects{kind=\"secrets\"} 0",
            "agentid_watch_age_seconds{kind=\"apps/v1/Deployment\"} -1",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}

//! The token service's metrics. Invariant: every label is of a closed set; no object's name is ever a label.

use std::sync::Arc;

use jiff::Timestamp;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::api::Reason;
use crate::domain::World;
use crate::net::listen::Stats;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ReasonLabel(Reason);

impl EncodeLabelValue for ReasonLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        use std::fmt::Write;
        encoder.write_str(self.0.as_str())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: ReasonLabel,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByMode {
    mode: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByAnswer {
    answer: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByKind {
    kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByPort {
    port: &'static str,
}

/// The counters.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    issued: Family<ByMode, Counter>,
    refused: Family<ByReason, Counter>,
    introspections: Family<ByAnswer, Counter>,
    verifications: Family<ByAnswer, Counter>,
    /// Of the public port.
    pub(super) public: Arc<Stats>,
    /// Of the port for proxies.
    pub(super) proxies: Arc<Stats>,
}

impl Metrics {
    pub(super) fn issued(&self, mode: &str) {
        let mode = match mode {
            "delegated" => "delegated",
            "agent_user" => "agent_user",
            "identity" => "identity",
            _ => "autonomous",
        };
        self.issued.get_or_create(&ByMode { mode }).inc();
    }

    pub(super) fn refused(&self, reason: Reason) {
        self.refused.get_or_create(&ByReason { reason: ReasonLabel(reason) }).inc();
    }

    pub(super) fn introspected(&self, active: bool) {
        let answer = if active { "active" } else { "inactive" };
        self.introspections.get_or_create(&ByAnswer { answer }).inc();
    }

    pub(super) fn verified(&self, stands: bool) {
        let answer = if stands { "accepted" } else { "refused" };
        self.verifications.get_or_create(&ByAnswer { answer }).inc();
    }

    /// The text for a scraper.
    pub(super) fn text(&self, world: &World, now: Timestamp) -> String {
        let mut registry = Registry::with_prefix("agentid_serve");
        registry.register("tokens_issued", "Tokens minted on demand", self.issued.clone());
        registry.register("refusals", "Requests refused, by reason", self.refused.clone());
        registry.register("introspections", "Introspections answered", self.introspections.clone());
        registry.register("verifications", "Questions of proxies answered", self.verifications.clone());
        let sizes = Family::<ByKind, Gauge>::default();
        for (kind, size) in world.sizes() {
            sizes
                .get_or_create(&ByKind { kind: kind.to_owned() })
                .set(i64::try_from(size).unwrap_or(i64::MAX));
        }
        registry.register("world_objects", "Objects seen, by kind", sizes);
        let ages = Family::<ByKind, Gauge>::default();
        for (source, state) in world.sources() {
            let age = state.heard.map_or(-1, |h| now.duration_since(h).as_secs());
            ages.get_or_create(&ByKind { kind: source.to_string() }).set(age);
        }
        registry.register("world_age_seconds", "Seconds since each watch was heard of; -1 for never", ages);
        self.ports(&mut registry);
        let mut out = String::new();
        // Writing to a String can't fail.
        let _ = encode(&mut out, &registry);
        out
    }

    fn ports(&self, registry: &mut Registry) {
        let ports = [("public", &self.public), ("verify", &self.proxies)];
        let register = |registry: &mut Registry, name, help, read: fn(&Stats) -> u64| {
            let family = Family::<ByPort, Gauge>::default();
            for (port, stats) in ports {
                family.get_or_create(&ByPort { port }).set(i64::try_from(read(stats)).unwrap_or(i64::MAX));
            }
            registry.register(name, help, family);
        };
        register(registry, "connections", "Open connections", |s| s.connections.get());
        register(registry, "requests_in_flight", "Requests under way", |s| s.in_flight.get());
        register(registry, "requests_taken", "Requests taken since the start", |s| s.requests.get());
        register(registry, "requests_shed", "Requests shed for load since the start", |s| s.shed.get());
        register(registry, "connections_refused", "Connections refused since the start", |s| s.refused.get());
        register(registry, "handshake_failures", "TLS handshakes that failed", |s| {
            s.handshake_failures.get()
        });
        register(registry, "timeouts", "Requests that ran out of time", |s| s.timeouts.get());
        register(registry, "panics", "Faults of agentid's own", |s| s.panics.get());
    }
}

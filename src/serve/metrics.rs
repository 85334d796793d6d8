//! The token service's metrics. Invariant: every label is of a closed set; no object's name is ever a label.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::lists::Lists;
use crate::api::Reason;
use crate::cluster::client::Calls;
use crate::crypto::Validity;
use crate::domain::World;
use crate::domain::keyring::{KeyRing, Times};
use crate::metrics::{self, ByMode, Modes, Reasons, gauge, latency, modes, number, reasons};
use crate::net::listen::Stats;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByAnswer {
    answer: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByEndpoint {
    endpoint: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByPort {
    port: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BySide {
    by: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByStatus {
    status: &'static str,
}

/// Whose rate was exceeded.
#[derive(Clone, Copy, Debug)]
pub(super) enum Side {
    Source,
    Agent,
}

/// The counters.
#[derive(Debug)]
pub(super) struct Metrics {
    issued: Modes,
    refused: Reasons,
    limited: Family<BySide, Counter>,
    introspections: Family<ByAnswer, Counter>,
    verifications: Family<ByAnswer, Counter>,
    seconds: Family<ByEndpoint, Histogram>,
    /// Of the public port.
    pub(super) public: Arc<Stats>,
    /// Of the port for proxies.
    pub(super) proxies: Arc<Stats>,
}

impl Default for Metrics {
    fn default() -> Self {
        let limited = Family::<BySide, Counter>::default();
        for by in ["source", "agent"] {
            drop(limited.get_or_create(&BySide { by }));
        }
        Self {
            issued: modes(),
            refused: reasons(),
            limited,
            introspections: answers(["active", "inactive"]),
            verifications: answers(["accepted", "refused"]),
            seconds: Family::new_with_constructor(latency),
            public: Arc::default(),
            proxies: Arc::default(),
        }
    }
}

/// A counter for each answer, each of them there from the start.
fn answers(all: [&'static str; 2]) -> Family<ByAnswer, Counter> {
    let family = Family::<ByAnswer, Counter>::default();
    for answer in all {
        drop(family.get_or_create(&ByAnswer { answer }));
    }
    family
}

/// What a scrape looks at beside the counters.
pub(super) struct Sights<'a> {
    pub(super) world: &'a World,
    pub(super) ring: Option<&'a KeyRing>,
    pub(super) lists: &'a Lists,
    /// When the certificate that is served is valid.
    pub(super) certificate: Option<Validity>,
    pub(super) calls: &'a Calls,
}

impl Metrics {
    pub(super) fn issued(&self, mode: &str) {
        self.issued.get_or_create(&ByMode::of(mode)).inc();
    }

    pub(super) fn refused(&self, reason: Reason) {
        self.refused.get_or_create(&reason.into()).inc();
    }

    pub(super) fn limited(&self, side: Side) {
        let by = match side {
            Side::Source => "source",
            Side::Agent => "agent",
        };
        self.limited.get_or_create(&BySide { by }).inc();
    }

    pub(super) fn introspected(&self, active: bool) {
        let answer = if active { "active" } else { "inactive" };
        self.introspections.get_or_create(&ByAnswer { answer }).inc();
    }

    pub(super) fn verified(&self, stands: bool) {
        let answer = if stands { "accepted" } else { "refused" };
        self.verifications.get_or_create(&ByAnswer { answer }).inc();
    }

    /// A request to an endpoint of this path was answered.
    pub(super) fn took(&self, path: &str, began: Instant) {
        let endpoint = match path {
            "/token" => "token",
            "/introspect" => "introspect",
            "/credentials" => "credentials",
            _ if path.starts_with("/statuslists/") => "statuslist",
            _ if path.starts_with("/verify/") => "verify",
            _ => "other",
        };
        self.seconds.get_or_create(&ByEndpoint { endpoint }).observe(began.elapsed().as_secs_f64());
    }

    /// The text for a scraper.
    pub(super) fn text(&self, sights: &Sights<'_>, now: Timestamp) -> String {
        metrics::text("serve", |registry| {
            self.counts(registry);
            self.ports(registry);
            lists(registry, sights.lists);
            if let Some(Validity { not_before, not_after }) = sights.certificate {
                let help = "From when on the certificate that is served is valid";
                gauge(registry, "serve_certificate_start_timestamp_seconds", help, not_before.as_second());
                let help = "When the certificate that is served expires";
                gauge(registry, "serve_certificate_expiry_timestamp_seconds", help, not_after.as_second());
            }
            metrics::world(registry, sights.world, now);
            metrics::keys(registry, sights.ring, &Times::from(sights.world.config()));
            sights.calls.register(registry);
        })
    }

    fn counts(&self, registry: &mut Registry) {
        registry.register("serve_tokens_issued", "Tokens minted on demand", self.issued.clone());
        registry.register("serve_refusals", "Requests refused, by reason", self.refused.clone());
        registry.register("serve_rate_limited", "Requests beyond a rate", self.limited.clone());
        registry.register("serve_introspections", "Introspections answered", self.introspections.clone());
        registry.register("serve_verifications", "Questions of proxies answered", self.verifications.clone());
        let help = "From a request's head and body to its answer";
        registry.register("serve_request_duration_seconds", help, self.seconds.clone());
    }

    fn ports(&self, registry: &mut Registry) {
        let ports = [("public", &self.public), ("verify", &self.proxies)];
        for (name, help, read) in GAUGES {
            let family = Family::<ByPort, Gauge>::default();
            for (port, stats) in ports {
                family.get_or_create(&ByPort { port }).set(number(read(stats)));
            }
            registry.register(*name, *help, family);
        }
        for (name, help, read) in COUNTERS {
            let family = Family::<ByPort, Counter>::default();
            for (port, stats) in ports {
                family.get_or_create(&ByPort { port }).inc_by(read(stats));
            }
            registry.register(*name, *help, family);
        }
    }
}

/// A number of a port: name, help, and where it is.
type OfPort = (&'static str, &'static str, fn(&Stats) -> u64);

const GAUGES: &[OfPort] = &[
    ("serve_connections", "Open connections", |s| s.connections.get()),
    ("serve_requests_in_flight", "Requests under way", |s| s.in_flight.get()),
];

const COUNTERS: &[OfPort] = &[
    ("serve_requests", "Requests taken", |s| s.requests.get()),
    ("serve_requests_shed", "Requests shed for load", |s| s.shed.get()),
    ("serve_connections_accepted", "Connections served", |s| s.accepted.get()),
    ("serve_connections_refused", "Connections beyond the bound", |s| s.refused.get()),
    ("serve_handshake_failures", "TLS handshakes that failed", |s| s.handshake_failures.get()),
    ("serve_timeouts", "Requests that ran out of time", |s| s.timeouts.get()),
    ("serve_requests_too_large", "Requests answered 413", |s| s.too_large.get()),
    ("serve_panics", "Faults of agentid's own", |s| s.panics.get()),
];

fn lists(registry: &mut Registry, lists: &Lists) {
    let (count, entries, invalid) = lists.sizes();
    gauge(registry, "serve_status_lists", "Status lists that are handed out", number(count));
    let family = Family::<ByStatus, Gauge>::default();
    family.get_or_create(&ByStatus { status: "INVALID" }).set(number(invalid));
    family.get_or_create(&ByStatus { status: "VALID" }).set(number(entries.saturating_sub(invalid)));
    registry.register("serve_status_list_entries", "Entries of the status lists", family);
    if let Some(at) = lists.updated() {
        let help = "When the status lists were last brought up to date";
        gauge(registry, "serve_status_lists_updated_timestamp_seconds", help, at.as_second());
    }
    let help = "From when a change was seen until the status list says INVALID";
    registry.register("serve_revocation_delay_seconds", help, lists.delays());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Configuration;
    use crate::metrics::testing::tells_counters_from_the_start;

    fn text(metrics: &Metrics) -> String {
        let config = Configuration::new("https://a.example.com", "a.example.com");
        let world = World::of(config.clone(), crate::domain::View::Service);
        let sights = Sights {
            world: &world,
            ring: None,
            lists: &Lists::new(&config),
            certificate: Some(Validity {
                not_before: Timestamp::from_second(1_797_408_000).unwrap(),
                not_after: Timestamp::from_second(1_800_000_000).unwrap(),
            }),
            calls: &Calls::default(),
        };
        metrics.text(&sights, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn what_alerts_count_is_told_from_the_start() {
        let text = text(&Metrics::default());
        tells_counters_from_the_start(&text, |name| name.starts_with("agentid_serve_"));
        for line in [
            "agentid_serve_introspections_total{answer=\"inactive\"} 0",
            "agentid_serve_verifications_total{answer=\"refused\"} 0",
            "agentid_serve_rate_limited_total{by=\"source\"} 0",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }

    #[test]
    fn says_what_it_counted() {
        let metrics = Metrics::default();
        metrics.issued("delegated");
        metrics.refused(Reason::Unknown);
        metrics.limited(Side::Agent);
        metrics.introspected(false);
        metrics.verified(true);
        metrics.took("/token", Instant::now());
        metrics.took("/statuslists/00ff", Instant::now());
        let text = text(&metrics);
        for line in [
            "agentid_serve_tokens_issued_total{mode=\"delegated\"} 1",
            "agentid_serve_tokens_issued_total{mode=\"identity\"} 0",
            "agentid_serve_refusals_total{reason=\"Unknown\"} 1",
            "agentid_serve_rate_limited_total{by=\"agent\"} 1",
            "agentid_serve_introspections_total{answer=\"inactive\"} 1",
            "agentid_serve_verifications_total{answer=\"accepted\"} 1",
            "agentid_serve_request_duration_seconds_count{endpoint=\"token\"} 1",
            "agentid_serve_request_duration_seconds_count{endpoint=\"statuslist\"} 1",
            "agentid_serve_requests_total{port=\"verify\"} 0",
            "agentid_serve_certificate_start_timestamp_seconds 1797408000",
            "agentid_serve_certificate_expiry_timestamp_seconds 1800000000",
            "agentid_watch_age_seconds{kind=\"leases\"} -1",
            "agentid_keys_available 0",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}

//! What operator and token service count alike, and the text that a scraper gets.
//!
//! Invariants: every label is of a closed set, and no object's name is ever one; a scrape costs the same whatever the
//! number of agents.

mod process;
#[cfg(test)]
pub mod testing;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::api::{Reason, SigningAlgorithm};
use crate::domain::World;
use crate::domain::keyring::{KeyRing, KeySlot, Stage, Times};

/// A label: a reason of the closed set.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByReason {
    reason: &'static str,
}

/// A counter for each reason.
pub type Reasons = Family<ByReason, Counter>;

impl From<Reason> for ByReason {
    fn from(reason: Reason) -> Self {
        Self { reason: reason.as_str() }
    }
}

/// A counter for each reason, each of them there from the start: a first increase is seen only beside a 0.
#[must_use]
pub fn reasons() -> Reasons {
    let family = Reasons::default();
    for reason in Reason::ALL {
        drop(family.get_or_create(&ByReason::from(*reason)));
    }
    family
}

/// How tokens are told apart: as the record does.
const MODES: [&str; 4] = ["autonomous", "delegated", "agent_user", "identity"];

/// A label: in whose right a token is, or that it is an identity token.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByMode {
    mode: &'static str,
}

/// A counter for each mode.
pub type Modes = Family<ByMode, Counter>;

impl ByMode {
    /// The label for a mode of the record.
    #[must_use]
    pub fn of(mode: &str) -> Self {
        Self { mode: MODES.into_iter().find(|known| *known == mode).unwrap_or(MODES[0]) }
    }
}

/// A counter for each mode, each of them there from the start.
#[must_use]
pub fn modes() -> Modes {
    let family = Modes::default();
    for mode in MODES {
        drop(family.get_or_create(&ByMode { mode }));
    }
    family
}

/// A label: a kind of objects that is watched.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByKind {
    kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BySlot {
    purpose: &'static str,
    algorithm: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByStage {
    purpose: &'static str,
    algorithm: &'static str,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: &'static str,
    component: &'static str,
}

/// A number as gauges have it.
#[must_use]
pub fn number(n: impl TryInto<i64>) -> i64 {
    n.try_into().unwrap_or(i64::MAX)
}

/// Registers a gauge that is read at this moment.
pub fn gauge(registry: &mut Registry, name: &str, help: &str, value: i64) {
    registry.register(name, help, ConstGauge::new(value));
}

/// Registers a counter that is kept elsewhere.
pub fn counter(registry: &mut Registry, name: &str, help: &str, value: u64) {
    registry.register(name, help, ConstCounter::new(value));
}

/// A histogram of seconds from a millisecond to some.
#[must_use]
pub fn latency() -> Histogram {
    Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0])
}

/// A histogram of seconds from milliseconds to minutes: how long a withdrawal takes.
#[must_use]
pub fn delay() -> Histogram {
    Histogram::new([0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0])
}

/// Everything in the OpenMetrics text format: what `fill` registers, under `agentid_`, with what is told of every
/// process.
pub fn text(component: &'static str, fill: impl FnOnce(&mut Registry)) -> String {
    let mut root = Registry::default();
    process::register(&mut root);
    let ours = root.sub_registry_with_prefix("agentid");
    let build = Build { version: env!("CARGO_PKG_VERSION"), component };
    let family = Family::<Build, Gauge>::default();
    family.get_or_create(&build).set(1);
    ours.register("build_info", "1, with the version and what the process is", family);
    fill(ours);
    let mut text = String::new();
    if encode(&mut text, &root).is_err() {
        text.clear();
    }
    text
}

/// Registers the sizes and ages of the picture of the cluster.
pub fn world(registry: &mut Registry, world: &World, now: jiff::Timestamp) {
    let objects = Family::<ByKind, Gauge>::default();
    for (kind, n) in world.sizes() {
        objects.get_or_create(&ByKind { kind: kind.to_owned() }).set(number(n));
    }
    registry.register("world_objects", "Objects in the picture of the cluster", objects);
    let ages = Family::<ByKind, Gauge>::default();
    for (source, state) in world.sources() {
        let age = state.heard.map_or(-1, |h| now.duration_since(h).as_secs());
        ages.get_or_create(&ByKind { kind: source.to_string() }).set(age);
    }
    registry.register("watch_age_seconds", "Since a watch was last heard of; -1 before its first list", ages);
    gauge(
        registry,
        "watch_max_age_seconds",
        "The age from which on a watch is not believed (maxStale)",
        i64::from(world.config().max_stale.0),
    );
}

const fn algorithm(algorithm: SigningAlgorithm) -> &'static str {
    match algorithm {
        SigningAlgorithm::ES256 => "ES256",
        SigningAlgorithm::RS256 => "RS256",
    }
}

fn slot(slot: KeySlot) -> BySlot {
    let purpose = if slot.purpose().is_tokens() { "tokens" } else { "status-lists" };
    BySlot { purpose, algorithm: algorithm(slot.algorithm()) }
}

const fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Next => "Next",
        Stage::Active => "Active",
        Stage::Retired => "Retired",
    }
}

/// Registers whether keys can sign, and how the ring stands; without one only that none can.
pub fn keys(registry: &mut Registry, ring: Option<&KeyRing>, times: &Times) {
    gauge(registry, "keys_available", "1 while keys can sign", i64::from(ring.is_some()));
    let Some(ring) = ring else { return };
    let states = Family::<ByStage, Gauge>::default();
    let due = Family::<BySlot, Gauge>::default();
    for each in KeySlot::ALL {
        let BySlot { purpose, algorithm } = slot(each);
        for state in [Stage::Next, Stage::Active, Stage::Retired] {
            let n = ring.keys.iter().filter(|k| k.slot() == each && k.state == state).count();
            let labels = ByStage { purpose, algorithm, state: stage(state) };
            states.get_or_create(&labels).set(number(n));
        }
        if let Some(at) = ring.signs_until(each, times) {
            due.get_or_create(&slot(each)).set(at.as_second());
        }
    }
    registry.register("keys", "Keys of the ring, by what they sign and where they stand", states);
    registry.register(
        "key_rotation_due_timestamp_seconds",
        "When the signing key has signed for its time, and the next one is to follow",
        due,
    );
    let waiting = ring.keys.iter().filter(|k| k.state == Stage::Next && k.published_at.is_none()).count();
    gauge(
        registry,
        "keys_unpublished",
        "Next keys that are not known to be in every namespace yet",
        number(waiting),
    );
    gauge(registry, "keys_revoked", "Revoked keys whose tokens may be about", number(ring.revoked.len()));
    gauge(registry, "keyring_generation", "The ring's generation", number(ring.generation));
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::api::Configuration;
    use crate::domain::keyring::due;

    #[test]
    fn a_ring_is_counted_and_says_when_it_is_to_rotate() {
        let times = Times { sign_for: 1000, publish_ahead: 100, max_token_lifetime: 60 };
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let ring = KeyRing::empty("https://agents.example.com", "agents.example.com", 0);
        let kids: Vec<_> = (1..9).map(|n| format!("{n:043}")).collect();
        let ring = ring.advance(&due(&ring, &times, now, false), &kids, now).unwrap();
        let text = text("operator", |registry| keys(registry, Some(&ring), &times));
        for line in [
            "agentid_keys_available 1",
            "agentid_keys{purpose=\"tokens\",algorithm=\"RS256\",state=\"Next\"} 1",
            "agentid_keys{purpose=\"status-lists\",algorithm=\"ES256\",state=\"Retired\"} 0",
            "agentid_key_rotation_due_timestamp_seconds{purpose=\"tokens\",algorithm=\"ES256\"} 1800001000",
            "agentid_keys_unpublished 3",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }

    #[test]
    fn the_world_and_the_process_are_told() {
        let config = Configuration::new("https://a.example.com", "a.example.com");
        let empty = World::new(config);
        let text = text("serve", |registry| {
            world(registry, &empty, Timestamp::UNIX_EPOCH);
            keys(registry, None, &Times::from(empty.config()));
        });
        for line in [
            "agentid_world_objects{kind=\"secrets\"} 0",
            "agentid_watch_age_seconds{kind=\"apps/v1/Deployment\"} -1",
            "agentid_watch_max_age_seconds 60",
            "agentid_keys_available 0",
            concat!("agentid_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\",component=\"serve\"} 1"),
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        let value = |name: &str| {
            let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|v| v.parse::<f64>().ok()).unwrap_or_default()
        };
        assert!(value("process_resident_memory_bytes") > 1e6, "{text}");
        assert!(value("process_start_time_seconds") > 1.6e9, "{text}");
        assert!(value("process_open_fds") > 2.0, "{text}");
        assert!(text.contains("process_cpu_seconds_total "), "{text}");
        assert!(!text.contains("agentid_keys{"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}

//! What an elector does next. Pure: the record as it was seen, when it was seen to change, and the local
//! monotonic clock.
//!
//! Invariant: no time written by another machine is ever compared with a clock of this one. A record's
//! times serve only to see that it changed.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease as Object, LeaseSpec};

use super::LeaseConfig;

/// A record, and when this process first saw it as it is.
#[derive(Debug, Clone)]
pub(super) struct Observed {
    pub(super) object: Object,
    since: Instant,
}

impl Observed {
    /// What `seen`, read at `now`, adds to what was known.
    pub(super) fn update(before: Option<Self>, seen: Object, now: Instant) -> Self {
        let since = match before {
            Some(before) if before.object.spec == seen.spec => before.since,
            _ => now,
        };
        Self { object: seen, since }
    }

    /// Who holds it; a released lease is held by nobody.
    pub(super) fn holder(&self) -> Option<&str> {
        self.spec()?.holder_identity.as_deref().filter(|h| !h.is_empty())
    }

    fn spec(&self) -> Option<&LeaseSpec> {
        self.object.spec.as_ref()
    }

    /// When its holder's time is over, should the record not change before.
    fn until(&self, config: &LeaseConfig) -> Instant {
        let written = self.spec().and_then(|s| s.lease_duration_seconds).and_then(|s| u64::try_from(s).ok());
        let duration = written.filter(|s| *s > 0).map_or(config.duration, Duration::from_secs);
        self.since + duration
    }
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// There is no record: create it.
    Create,
    /// The lease is free, was left, or bears our name: take it.
    Acquire,
    /// It is ours: renew it.
    Renew,
    /// Another one holds it.
    Wait,
    /// It was ours and is another's now.
    Taken,
    /// It was ours and could not be renewed in time.
    Expired,
}

/// `renewed` is when the last successful write *began*, if we lead: others count from when they see it,
/// which is later.
pub(super) fn step(
    observed: Option<&Observed>,
    renewed: Option<Instant>,
    now: Instant,
    me: &str,
    config: &LeaseConfig,
) -> Step {
    if let Some(renewed) = renewed {
        let Some(observed) = observed else { return expired_or(renewed, now, config, Step::Create) };
        return match observed.holder() {
            Some(holder) if holder != me => Step::Taken,
            _ => expired_or(renewed, now, config, Step::Renew),
        };
    }
    let Some(observed) = observed else { return Step::Create };
    match observed.holder() {
        Some(holder) if holder != me && now < observed.until(config) => Step::Wait,
        _ => Step::Acquire,
    }
}

fn expired_or(renewed: Instant, now: Instant, config: &LeaseConfig, step: Step) -> Step {
    if now.saturating_duration_since(renewed) >= config.renew_deadline { Step::Expired } else { step }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(holder: &str, seconds: Option<i32>, transitions: i32) -> Object {
        let spec = LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: seconds,
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        };
        Object { spec: Some(spec), ..Object::default() }
    }

    /// Holder and duration of the record (seen at 0), our last renewal, now, what follows; in seconds.
    type Row = (Option<(&'static str, Option<i32>)>, Option<f64>, f64, Step);

    #[test]
    fn what_follows_what() {
        let config = LeaseConfig::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_millis((seconds * 1000.0) as u64);
        let table: &[Row] = &[
            (None, None, 0.0, Step::Create),
            (None, Some(0.0), 1.0, Step::Create),
            (None, Some(0.0), 10.0, Step::Expired),
            (Some(("", Some(1))), None, 0.0, Step::Acquire),
            (Some(("other", Some(15))), None, 0.0, Step::Wait),
            (Some(("other", Some(15))), None, 14.9, Step::Wait),
            (Some(("other", Some(15))), None, 15.0, Step::Acquire),
            // The holder's own duration counts, not ours; without one, ours.
            (Some(("other", Some(60))), None, 59.0, Step::Wait),
            (Some(("other", Some(5))), None, 5.0, Step::Acquire),
            (Some(("other", None)), None, 14.9, Step::Wait),
            (Some(("other", Some(-3))), None, 15.0, Step::Acquire),
            (Some(("me", Some(15))), None, 0.0, Step::Acquire),
            (Some(("me", Some(15))), Some(0.0), 9.9, Step::Renew),
            (Some(("me", Some(15))), Some(0.0), 10.0, Step::Expired),
            (Some(("other", Some(15))), Some(0.0), 1.0, Step::Taken),
            (Some(("other", Some(15))), Some(0.0), 11.0, Step::Taken),
            // Someone emptied our record: it is still ours by time.
            (Some(("", Some(1))), Some(0.0), 1.0, Step::Renew),
        ];
        for (record, renewed, now, expected) in table {
            let observed = record.map(|(h, d)| Observed::update(None, object(h, d, 0), start));
            let got = step(observed.as_ref(), renewed.map(at), at(*now), "me", &config);
            assert_eq!(&got, expected, "{record:?} renewed {renewed:?} at {now}");
        }
    }

    #[test]
    fn only_a_changed_record_counts_anew() {
        let config = LeaseConfig::default();
        let start = Instant::now();
        let later = start + Duration::from_secs(10);
        let first = Observed::update(None, object("other", Some(15), 0), start);
        let mut renamed = object("other", Some(15), 0);
        renamed.metadata.resource_version = Some("2".into());
        let same = Observed::update(Some(first.clone()), renamed, later);
        assert_eq!(same.until(&config), start + config.duration);
        let changed = Observed::update(Some(first), object("other", Some(15), 1), later);
        assert_eq!(changed.until(&config), later + config.duration);
    }
}

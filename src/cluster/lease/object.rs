//! The Lease as it is written. Pure.
//!
//! Invariant: what is written is what was read, with the record's fields changed: others' labels,
//! annotations and owners stay, and the resourceVersion goes along.

use k8s_openapi::api::coordination::v1::Lease as Object;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;

use super::super::keystore::GENERATION_ANNOTATION;
use super::LeaseConfig;
use super::standing::Wanted;

/// Why it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Acquire,
    Renew,
    Release,
}

/// The object that follows `before`; without one, one to be created. `now` is for people and for others to
/// see a change.
pub(super) fn next(
    before: Option<&Object>,
    purpose: Purpose,
    name: &str,
    identity: &str,
    config: &LeaseConfig,
    now: Timestamp,
) -> Object {
    let mut object = before.cloned().unwrap_or_default();
    object.metadata.name = Some(name.to_owned());
    object.metadata.managed_fields = None;
    let spec = object.spec.get_or_insert_default();
    // Rounded up: others wait by the record.
    let whole = config.duration.as_secs() + u64::from(config.duration.subsec_nanos() > 0);
    spec.lease_duration_seconds = Some(i32::try_from(whole).unwrap_or(i32::MAX));
    spec.renew_time = Some(MicroTime(now));
    if purpose == Purpose::Release {
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        spec.acquire_time = Some(MicroTime(now));
        return object;
    }
    if purpose == Purpose::Acquire {
        spec.acquire_time = Some(MicroTime(now));
    }
    if spec.holder_identity.as_deref() != Some(identity) {
        spec.lease_transitions = Some(match (before, spec.lease_transitions) {
            (None, _) => 0,
            (Some(_), n) => n.unwrap_or_default().saturating_add(1),
        });
        spec.holder_identity = Some(identity.to_owned());
    }
    object
}

/// Puts the wanted annotations on it and takes off those that were. The key ring's generation only grows.
pub(super) fn annotate(object: &mut Object, wanted: &Wanted) {
    let annotations = object.metadata.annotations.get_or_insert_default();
    for key in &wanted.removed {
        annotations.remove(key);
    }
    annotations.extend(wanted.annotations.iter().map(|(k, v)| (k.clone(), v.clone())));
    let noted = annotations.get(GENERATION_ANNOTATION).and_then(|n| n.parse().ok()).unwrap_or(0);
    if wanted.generation > noted {
        annotations.insert(GENERATION_ANNOTATION.to_owned(), wanted.generation.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_record_through_its_life() {
        let config = LeaseConfig { duration: std::time::Duration::from_millis(14_001), ..Default::default() };
        let step = |before, purpose, who, second| next(before, purpose, "l", who, &config, at(second));

        let created = step(None, Purpose::Acquire, "a", 1);
        let spec = created.spec.clone().unwrap();
        assert_eq!(spec.holder_identity.as_deref(), Some("a"));
        assert_eq!((spec.lease_transitions, spec.lease_duration_seconds), (Some(0), Some(15)));
        assert!(created.metadata.resource_version.is_none());

        let mut stored = created;
        stored.metadata.resource_version = Some("7".into());
        stored.metadata.labels = Some([("keep".to_owned(), "me".to_owned())].into());
        let renewed = step(Some(&stored), Purpose::Renew, "a", 2);
        let spec = renewed.spec.clone().unwrap();
        assert_eq!(spec.acquire_time, Some(MicroTime(at(1))));
        assert_eq!((spec.renew_time, spec.lease_transitions), (Some(MicroTime(at(2))), Some(0)));
        assert_eq!(renewed.metadata.resource_version.as_deref(), Some("7"));
        assert!(renewed.metadata.labels.is_some());

        let released = step(Some(&renewed), Purpose::Release, "a", 3);
        let spec = released.spec.clone().unwrap();
        assert_eq!((spec.holder_identity.as_deref(), spec.lease_duration_seconds), (Some(""), Some(1)));

        let taken = step(Some(&released), Purpose::Acquire, "b", 4);
        let spec = taken.spec.unwrap();
        assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some("b"), Some(1)));
        assert_eq!(spec.acquire_time, Some(MicroTime(at(4))));
        assert_eq!(spec.lease_duration_seconds, Some(15));
    }

    #[test]
    fn annotations_of_others_stay() {
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        let mut object = Object::default();
        object.metadata.annotations = Some([pair("theirs", "1"), pair("old", "2"), pair("ours", "3")].into());
        let annotations = [pair("ours", "4")].into();
        let wanted = Wanted { annotations, removed: vec!["old".to_owned()], ..Wanted::default() };
        annotate(&mut object, &wanted);
        assert_eq!(object.metadata.annotations, Some([pair("theirs", "1"), pair("ours", "4")].into()));
    }

    #[test]
    fn the_generation_only_grows_and_comes_back_with_a_lease_that_is_made_anew() {
        let noted = |before: Option<&str>, generation| {
            let mut object = Object::default();
            let before = before.map(|b| (GENERATION_ANNOTATION.to_owned(), b.to_owned()));
            object.metadata.annotations = Some(before.into_iter().collect());
            annotate(&mut object, &Wanted { generation, ..Wanted::default() });
            object.metadata.annotations.unwrap().remove(GENERATION_ANNOTATION)
        };
        for (before, generation, after) in [
            (None, 0, None),
            (None, 7, Some("7")),
            (Some("7"), 0, Some("7")),
            (Some("7"), 9, Some("9")),
            (Some("9"), 7, Some("9")),
            (Some("10"), 9, Some("10")),
            (Some("what?"), 9, Some("9")),
            (Some("what?"), 0, Some("what?")),
        ] {
            assert_eq!(noted(before, generation).as_deref(), after, "{before:?} {generation}");
        }
    }
}

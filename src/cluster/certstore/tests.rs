use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::*;
use crate::crypto::Issued;
use crate::domain::certificates::{ServingRecord, Step, Subject};

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn hours(n: i64) -> Timestamp {
    now() + SignedDuration::from_hours(n)
}

/// An active authority and a next one.
fn authorities() -> LoadedAuthorities {
    let generate = |as_active| Step::Generate { as_active, not_after: hours(100) };
    let ids = ["b".repeat(32), "a".repeat(32)];
    let state = Authorities::empty(0).advance(&[generate(true), generate(false)], &ids, now()).unwrap();
    let made = |id: &String| {
        let name = state.find(id).unwrap().common_name();
        (id.clone(), Arc::new(Authority::generate(&name, now(), hours(100)).unwrap()))
    };
    LoadedAuthorities { authorities: ids.iter().map(made).collect(), state }
}

fn metadata() -> Metadata {
    let text = Secret::new(
        json!({"metadata": {"name": "n", "resourceVersion": "7", "labels": {"kept": "yes"}}}).to_string(),
    );
    RawSecret::parse(&text).unwrap().metadata
}

fn json_of(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap()
}

fn text(value: &Value) -> Secret<String> {
    Secret::new(value.to_string())
}

/// The Secret with the authorities, as JSON that a test can spoil.
fn ca_secret(all: &LoadedAuthorities) -> Value {
    json_of(&form(&metadata(), all).unwrap())
}

fn serving_secret(all: &LoadedAuthorities) -> (Value, Issued, ServingRecord) {
    let subject =
        Subject { dns_names: vec!["a.example.com".to_owned()], ip_addresses: vec!["::1".parse().unwrap()] };
    let issued = all.active().unwrap();
    let issued = issued.issue_server(&subject.dns_names, &subject.ip_addresses, now(), hours(1)).unwrap();
    let authority = all.state.active().unwrap().id.clone();
    let record = ServingRecord { authority, subject, issued_at: now(), not_after: hours(1) };
    let content = ServingContent {
        chain_pem: &issued.chain_pem,
        key_pem: &issued.key_pem,
        ca_pem: &all.bundle_pem(),
        record: &record,
    };
    let value = json_of(&serving::form(&metadata(), &content).unwrap());
    (value, issued, record)
}

#[test]
fn what_is_written_is_read() {
    let all = authorities();
    let value = ca_secret(&all);
    assert_eq!(value["type"], CA_SECRET_TYPE);
    assert_eq!(value["metadata"]["labels"]["kept"], "yes", "a write keeps what others put there");
    assert_eq!(value["metadata"]["resourceVersion"], "7", "a write names what it stands on");
    let stored = parse(&text(&value)).unwrap();
    let loaded = stored.loaded.unwrap();
    assert_eq!(loaded.state, all.state);
    assert_eq!(loaded.bundle_pem(), all.bundle_pem());
    let promoted = loaded.state.advance(&[Step::Promote { id: "a".repeat(32) }], &[], now()).unwrap();
    let promoted = LoadedAuthorities { state: promoted, authorities: loaded.authorities.clone() };
    assert_eq!(promoted.bundle_pem(), loaded.bundle_pem(), "a promotion is no reason to publish anew");
    assert_eq!(loaded.bundle_pem().matches("BEGIN CERTIFICATE").count(), 2);

    let (value, issued, record) = serving_secret(&all);
    assert_eq!(value["type"], SERVING_SECRET_TYPE);
    let names: Vec<_> = value["data"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["ca.crt", "tls.crt", "tls.key"]);
    let served = serving::parse(&text(&value)).unwrap().certificate.unwrap();
    assert_eq!((served.chain_pem, served.ca_pem), (issued.chain_pem, all.bundle_pem()));
    assert_eq!(served.key_pem.expose(), issued.key_pem.expose());
    assert_eq!((served.record, served.resource_version.as_str()), (record, "7"));
}

#[test]
fn every_damage_is_said() {
    let all = authorities();
    let good = ca_secret(&all);
    let ids: Vec<_> = all.state.authorities.iter().map(|a| a.id.clone()).collect();
    let file = |id: &str, end: &str| format!("{id}.{end}");
    let says = |change: &dyn Fn(&mut Value), part: &str| {
        let mut value = good.clone();
        change(&mut value);
        let error = parse(&text(&value)).unwrap().loaded.unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("delete it"), "{part:?}: {error}");
    };
    says(&|v| v["data"] = Value::Null, "authorities.json is missing");
    says(&|v| v["data"][STATE_KEY] = STANDARD.encode("{").into(), "authorities.json: EOF");
    says(
        &|v| v["data"][STATE_KEY] = STANDARD.encode(r#"{"generation":1,"authorities":[]}"#).into(),
        "0 Active",
    );
    says(&|v| v["data"][file(&ids[0], "key")] = Value::String("%".to_owned()), "base64");
    says(&|v| v["data"][file(&ids[0], "key")] = good["data"][file(&ids[1], "key")].clone(), "not the one of");
    says(&|v| v["data"][file(&ids[0], "crt")] = good["data"][file(&ids[1], "crt")].clone(), "not the one of");

    let (good, ..) = serving_secret(&all);
    let other = serving_secret(&all).0;
    for (change, part) in [
        (
            (|v, _| v["data"]["tls.crt"] = Value::from("")) as fn(&mut Value, &Value),
            "changed by another hand",
        ),
        (|v, o| v["data"]["tls.key"] = o["data"]["tls.key"].clone(), "changed by another hand"),
        (|v, _| drop(v["data"].as_object_mut().unwrap().remove("ca.crt")), "ca.crt is missing"),
        (|v, _| v["metadata"]["annotations"] = Value::Null, "annotation"),
    ] {
        let mut value = good.clone();
        change(&mut value, &other);
        let error = serving::parse(&text(&value)).unwrap().certificate.unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
        assert_eq!(error.secret(), SERVING_SECRET);
    }
}

#[test]
fn what_is_not_ours_is_told_apart() {
    let all = authorities();
    for (mut value, secret) in [(ca_secret(&all), CA_SECRET), (serving_secret(&all).0, SERVING_SECRET)] {
        value["type"] = "kubernetes.io/tls".into();
        let answers = [parse(&text(&value)).map(drop), serving::parse(&text(&value)).map(drop)];
        let said = answers.into_iter().map(|a| a.unwrap_err()).find(|e| e.secret() == secret).unwrap();
        assert!(matches!(said, CertificatesError::Foreign { .. }), "{said}");
    }
    assert!(parse(&Secret::new("<html>".to_owned())).is_err());
}

#[test]
fn key_material_shows_nowhere() {
    let all = authorities();
    let good = ca_secret(&all);
    let key = all.active().unwrap().key_pem();
    let line = key.expose().lines().nth(1).unwrap()[..30].to_owned();
    let encoded = STANDARD.encode(key.expose())[60..100].to_owned();
    let mut broken = good.clone();
    let id = &all.state.authorities[0].id;
    broken["data"][format!("{id}.crt")] = broken["data"][format!("{id}.key")].clone();
    let mut pasted = good.clone();
    pasted["data"][STATE_KEY] = STANDARD.encode(format!("{{\"generation\":{:?}}}", key.expose())).into();
    for value in [&good, &broken, &pasted] {
        let stored = parse(&text(value)).unwrap();
        let said = stored.loaded.as_ref().err().map(ToString::to_string);
        let shown = format!("{stored:?} {said:?}");
        assert!(!shown.contains(&line) && !shown.contains(&encoded), "{shown}");
    }
    let (value, issued, _) = serving_secret(&all);
    let shown = format!("{:?}", serving::parse(&text(&value)).unwrap());
    assert!(!shown.contains(issued.key_pem.expose().lines().nth(1).unwrap()), "{shown}");
}

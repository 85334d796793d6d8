use jiff::Timestamp;
use serde_json::Value;

use super::*;
use crate::{
    api::Configuration,
    cluster::keystore::{KeysAnswer, KeysRequest, Operation, Outcome},
    domain::keyring::{KeySlot, Step, Times, due},
};

const TIMES: Times = Times { sign_for: 1000, publish_ahead: 300, max_token_lifetime: 600 };

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

/// The Secret of a first ring, as JSON that a test can spoil.
fn secret() -> (KeyRing, Value) {
    let empty = KeyRing::empty("https://agents.example.com", "agents.example.com", 0);
    let steps = due(&empty, &TIMES, now(), false);
    let (mut kids, mut signers) = (Vec::new(), HashMap::new());
    for step in &steps {
        if let Step::Generate { slot, .. } = step {
            let key = SigningKey::generate(crypto_algorithm(slot.algorithm())).unwrap();
            kids.push(key.kid().to_owned());
            signers.insert(key.kid().to_owned(), Arc::new(key));
        }
    }
    let ring = empty.advance(&steps, &kids, now()).unwrap();
    let metadata = serde_json::json!({"name": SECRET_NAME, "uid": "u", "resourceVersion": "7",
        "labels": {"kept": "yes"}, "annotations": {"kept": "too"}});
    let Value::Object(metadata) = metadata else { unreachable!() };
    let content = Content { ring: &ring, signers: &signers, times: TIMES, answer: None };
    let body = body(&Metadata(metadata), &content).unwrap();
    (ring, serde_json::from_slice(&body).unwrap())
}

fn read(value: &Value) -> Stored {
    parse(&Secret::new(value.to_string())).unwrap()
}

fn fault(value: &Value) -> KeyringError {
    read(value).ring.unwrap_err()
}

fn ring_json(value: &Value) -> String {
    let text = value["data"][RING_KEY].as_str().unwrap();
    String::from_utf8(STANDARD.decode(text).unwrap()).unwrap()
}

fn pem_of(ring: &KeyRing, n: usize) -> String {
    format!("{}.pem", ring.keys[n].kid)
}

#[test]
fn what_is_written_is_read() {
    let (ring, value) = secret();
    let stored = read(&value);
    let loaded = stored.ring.unwrap();
    assert_eq!(loaded.ring, ring);
    assert_eq!((loaded.uid.as_str(), loaded.resource_version.as_str()), ("u", "7"));
    assert_eq!((loaded.jwks.keys().len(), loaded.token_jwks.keys().len()), (6, 4));
    assert_eq!(stored.times, Some(TIMES));
    for algorithm in Configuration::ALGORITHMS {
        let signer = loaded.signer(algorithm).unwrap();
        assert_eq!(Some(signer.kid()), ring.signing_kid(algorithm.into()));
        assert_eq!(signer.algorithm(), crypto_algorithm(algorithm));
        assert!(loaded.token_jwks.find(signer.kid()).is_some());
    }
    let signer = loaded.status_signer().unwrap();
    assert_eq!(Some(signer.kid()), ring.signing_kid(KeySlot::StatusListES256));
    assert!(loaded.jwks.find(signer.kid()).is_some());
    assert!(loaded.token_jwks.find(signer.kid()).is_none(), "it may sign no token");
    assert_eq!(value["metadata"]["labels"]["kept"], "yes", "a write keeps what others put there");
    assert_eq!(value["metadata"]["annotations"]["kept"], "too");
    loaded.check(1, "https://agents.example.com", "agents.example.com").unwrap();
    assert_eq!(
        loaded.check(9, "https://agents.example.com", "agents.example.com"),
        Err(KeyringError::RolledBack { found: 1, expected: 9 })
    );
    for (issuer, domain, what) in [
        ("https://other.example.com", "agents.example.com", "issuer"),
        ("https://agents.example.com", "other.example.com", "trustDomain"),
    ] {
        let error = loaded.check(1, issuer, domain).unwrap_err().to_string();
        assert!(error.contains(what) && error.contains("other.example.com"), "{error}");
        assert!(error.contains("agents.example.com") && error.contains("keys reset"), "{error}");
    }
}

#[test]
fn every_damage_is_told_apart() {
    let (ring, good) = secret();
    let spoil = |change: &dyn Fn(&mut Value)| {
        let mut value = good.clone();
        change(&mut value);
        fault(&value)
    };
    let damaged = |change: &dyn Fn(&mut Value), wanted: &str| match spoil(change) {
        KeyringError::Damaged { what } => assert!(what.contains(wanted), "{what}"),
        other => panic!("{other:?}"),
    };
    let set_ring = |v: &mut Value, text: &str| v["data"][RING_KEY] = STANDARD.encode(text).into();
    assert_eq!(spoil(&|v| v["data"] = Value::Null), KeyringError::Missing);
    damaged(&|v| drop(v["data"].as_object_mut().unwrap().remove(RING_KEY)), "ring.json is missing");
    damaged(&|v| v["data"][RING_KEY] = "%".into(), "base64");
    damaged(&|v| v["data"][RING_KEY] = STANDARD.encode([0xff]).into(), "UTF-8");
    damaged(&|v| set_ring(v, "{"), "ring.json: EOF");
    damaged(
        &|v| drop(v["data"].as_object_mut().unwrap().remove(&pem_of(&ring, 0))),
        &format!("{} is missing", pem_of(&ring, 0)),
    );
    damaged(&|v| v["data"][pem_of(&ring, 0)] = STANDARD.encode("x").into(), "not an unencrypted PKCS#8");
    // Keys 0 and 1 are ES256, 2 and 3 RS256, 4 and 5 for status lists.
    damaged(&|v| v["data"][pem_of(&ring, 0)] = good["data"][pem_of(&ring, 1)].clone(), "holds another key");
    damaged(
        &|v| v["data"][pem_of(&ring, 0)] = good["data"][pem_of(&ring, 2)].clone(),
        "not usable for ES256",
    );
    assert_eq!(
        spoil(&|v| set_ring(v, &ring_json(v).replace("\"generation\": 1", "\"generation\": 2"))),
        KeyringError::Edited
    );
    // Laid out anew it is still the same ring.
    let mut tidy = good.clone();
    set_ring(&mut tidy, &ring_json(&good).replace('\n', " "));
    assert!(read(&tidy).ring.is_ok());
    // A ring that breaks the rules is refused also with a digest that fits.
    let mut lawless = ring;
    lawless.keys.remove(0);
    let file = RingFile { digest: digest_of(&lawless).unwrap(), ring: lawless };
    let text = serde_json::to_string(&file).unwrap();
    damaged(&|v| set_ring(v, &text), "0 Active keys of ES256");
}

#[test]
fn a_ring_from_before_status_lists_is_read() {
    let (mut ring, mut value) = secret();
    for key in ring.keys.split_off(4) {
        value["data"].as_object_mut().unwrap().remove(&format!("{}.pem", key.kid));
    }
    let file = RingFile { digest: digest_of(&ring).unwrap(), ring };
    value["data"][RING_KEY] = STANDARD.encode(serde_json::to_string_pretty(&file).unwrap()).into();
    let loaded = read(&value).ring.unwrap();
    assert!(loaded.status_signer().is_none());
    assert_eq!((loaded.jwks.keys().len(), loaded.token_jwks.keys().len()), (4, 4));
    assert!(Configuration::ALGORITHMS.iter().all(|a| loaded.signer(*a).is_some()));
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let (_, mut value) = secret();
    value["type"] = "Opaque".into();
    let error = parse(&Secret::new(value.to_string())).unwrap_err();
    assert_eq!(error, KeyringError::Foreign { found: "Opaque".to_owned() });
    assert!(matches!(parse(&Secret::new("<html>".to_owned())), Err(KeyringError::Damaged { .. })));
}

#[test]
fn key_material_shows_nowhere() {
    let (ring, good) = secret();
    let mut value = good.clone();
    let copy = good["data"].to_string();
    value["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] = copy.into();
    let pem = good["data"][pem_of(&ring, 0)].as_str().unwrap();
    let body: String = pem.chars().skip(60).take(40).collect();
    let decoded = String::from_utf8(STANDARD.decode(pem).unwrap()).unwrap();
    let line: String = decoded.lines().nth(1).unwrap().chars().take(30).collect();
    let mut broken = value.clone();
    broken["data"][pem_of(&ring, 1)] = good["data"][pem_of(&ring, 0)].clone();
    let mut pasted = value.clone();
    pasted["data"][RING_KEY] = STANDARD.encode(format!("{{\"ring\":{decoded:?}}}")).into();
    for stored in [read(&value), read(&broken), read(&pasted)] {
        let shown =
            format!("{stored:?} {}", stored.ring.as_ref().err().map_or(String::new(), |e| e.to_string()));
        assert!(!shown.contains(&body) && !shown.contains(&line), "{shown}");
    }
}

#[test]
fn a_request_is_open_until_it_is_answered() {
    let (ring, mut value) = secret();
    let request = KeysRequest::new(Operation::Revoke, Some(ring.keys[0].kid.clone()), now());
    assert_ne!(request.id, KeysRequest::new(Operation::Rotate, None, now()).id);
    value["metadata"]["annotations"][REQUEST_ANNOTATION] = line(&request).into();
    assert_eq!(read(&value).open_request(), Some(&request));
    let answer = |id: &str| KeysAnswer {
        id: id.to_owned(),
        outcome: Outcome::Done,
        message: "m".to_owned(),
        at: now(),
    };
    value["metadata"]["annotations"][ANSWER_ANNOTATION] = line(&answer("another")).into();
    assert!(read(&value).open_request().is_some());
    value["metadata"]["annotations"][ANSWER_ANNOTATION] = line(&answer(&request.id)).into();
    assert_eq!(read(&value).open_request(), None);
    value["metadata"]["annotations"][REQUEST_ANNOTATION] = "{".into();
    assert!(read(&value).request.is_none(), "what can't be read is no request");
}

use std::sync::Mutex;

use serde_json::json;

use super::*;
use crate::api::Configuration;
use crate::cluster::wire::WireGrant;
use crate::domain::View;

const UID: &str = "00000000-0000-4000-8000-000000000001";

/// A feeder of grants that is never run, and what it reports.
fn feeder() -> (Feeder, Arc<Mutex<Vec<Skipped>>>) {
    let service = tower::service_fn(|_: http::Request<kube::client::Body>| async {
        Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("nobody is asked"))
    });
    let config = Configuration::new("https://agentid.example.com", "example.com");
    let skipped = Arc::new(Mutex::new(Vec::new()));
    let log = skipped.clone();
    let feeder = Feeder {
        client: kube::Client::new(service, "default"),
        world: SharedWorld::new(config, View::Operator),
        report: Arc::new(move |s| log.lock().unwrap().push(s)),
        source: Source::Grants,
        spec: WatchSpec::new(""),
    };
    (feeder, skipped)
}

fn grant(version: u32, agents: &serde_json::Value) -> WireGrant {
    serde_json::from_value(json!({
        "metadata": {"name": "g", "namespace": "ns", "uid": UID, "resourceVersion": version.to_string()},
        "spec": {"agents": agents, "resource": "r", "application": {}},
    }))
    .unwrap()
}

#[tokio::test]
async fn an_object_that_parses_and_can_not_be_understood_is_kept_and_goes_like_any_other() {
    let (feeder, skipped) = feeder();
    let known = |feeder: &Feeder| feeder.world.read().grant(&Key::new("ns", "g")).map(|g| g.meta.version);
    let (good, bad) = (json!({"names": ["a"]}), json!({"names": ["a"], "selector": {}}));
    feeder.take_all([grant(1, &good)]);
    feeder.take_all([grant(2, &bad)]);
    assert_eq!(known(&feeder), Some(1), "what is known of it stands");
    // A list holds it.
    feeder.world.write().begin_list(&Source::Grants);
    feeder.take_all([grant(2, &bad)]);
    feeder.listed("3").await;
    assert_eq!(known(&feeder), Some(1), "it is there, and can't be read");
    let told: Vec<_> = skipped.lock().unwrap().iter().map(|s| (s.key.to_string(), s.uid.clone())).collect();
    assert_eq!(told, vec![("ns/g".to_owned(), UID.to_owned()); 2]);
    assert!(skipped.lock().unwrap()[0].problem.contains("spec.agents"));
    feeder.delete(grant(4, &bad));
    assert_eq!((known(&feeder), skipped.lock().unwrap().len()), (None, 2));
}

#[tokio::test]
async fn one_that_was_made_anew_and_can_not_be_understood_keeps_no_dead_one() {
    let (feeder, skipped) = feeder();
    feeder.take_all([grant(1, &json!({"names": ["a"]}))]);
    let anew = json!({
        "metadata": {"name": "g", "namespace": "ns", "uid": UID.replace('1', "2"), "resourceVersion": "3"},
        "spec": {"agents": {}, "resource": "r", "application": {}},
    });
    feeder.world.write().begin_list(&Source::Grants);
    feeder.take_all([serde_json::from_value::<WireGrant>(anew).unwrap()]);
    feeder.listed("4").await;
    assert!(feeder.world.read().grant(&Key::new("ns", "g")).is_none());
    assert_eq!(skipped.lock().unwrap().len(), 1);
}

use serde_json::json;

use super::report::State;
use super::*;
use crate::domain::Key;
use crate::domain::testing::Cluster;

const AT: &str = "2027-01-15T08:00:00Z";

fn town() -> Cluster {
    let mut c = Cluster::example();
    c.apply("{kind: AgentIdentity, metadata: {name: b, namespace: ns}, spec: {}}");
    c.apply("{kind: AgentIdentity, metadata: {name: stopped, namespace: ns}, spec: {suspend: true}}");
    c.settle();
    c.apply("{kind: AgentIdentity, metadata: {name: b, namespace: ns}, spec: {suspend: true}}");
    c.settle();
    c
}

fn said(c: &Cluster) -> Report {
    let whom = Whom::Selected { namespace: None, selector: None };
    report(&c.world, &whom.of(&c.world), AT.parse().unwrap(), pace("20/s").unwrap(), Vec::new())
}

#[test]
fn paces_are_read() {
    for (text, pause, shown) in
        [("20/s", 50, "20/s"), ("20", 50, "20/s"), ("60/m", 1000, "60/m"), ("1000/s", 1, "1000/s")]
    {
        let pace = pace(text).unwrap();
        assert_eq!((pace.pause().as_millis(), pace.to_string()), (pause, shown.to_owned()), "{text}");
    }
    for text in ["0/s", "-1/s", "20/h", "1001/s", "fast", "", "/s", "1.5/s", "60001000/m"] {
        assert!(pace(text).is_err(), "{text}");
    }
    assert_eq!(pace("20/s").unwrap().takes(1200), Duration::from_secs(60));
}

#[test]
fn patience_is_longer_than_the_time_from_one_to_the_next() {
    let since = AT.parse().unwrap();
    for (text, seconds) in [("20/s", 60), ("2/m", 90), ("1/m", 120)] {
        let pace = pace(text).unwrap();
        let patience = pace.patience();
        assert!(patience >= pace.pause() + follow::PATIENCE, "{text}");
        let said = RotateError::NoAnswer { left: 1, all: 2, patience, since }.to_string();
        assert!(said.contains(&format!("none was minted anew for {seconds}s;")), "{text}: {said}");
    }
}

#[test]
fn who_is_meant_and_who_is_left_out() {
    let mut c = town();
    let report = said(&c);
    assert_eq!(report.waiting(), 1);
    assert_eq!(report.names(), ["secret/a-agentid"]);
    let text = report.text(true);
    for words in [
        "1 Secrets would be minted anew, at 20/s: about 0s\n  ns/a: Secret a-agentid\n",
        "2 agents are left out\n  ns/b: its credentials are withdrawn",
        "ns/stopped: its Secret is not there yet",
    ] {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
    let value = serde_json::to_value(&report).unwrap();
    assert_eq!((&value["rotation"], &value["pace"]), (&json!(AT), &json!("20/s")));
    assert_eq!(value["secrets"][0]["state"], "waiting");

    // Asked for, and not answered while no key can sign.
    c.keys.problem = Some("lost".into());
    c.rotate(&Key::new("ns", "a"), AT);
    c.settle();
    assert_eq!(said(&c).secrets[0].state, State::Asked);
    c.keys.problem = None;
    c.world.mark_all();
    c.settle();
    let report = said(&c);
    assert_eq!((report.secrets[0].state, report.waiting()), (State::Minted, 0));
    assert!(report.text(false).contains("1 were minted anew for it already"));
    assert_eq!(report.done(), "1 Secrets were minted anew\n");
}

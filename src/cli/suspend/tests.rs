use serde_json::{Value, json};

use super::hits::Outcome;
use super::*;
use crate::cli::whom::Whom;
use crate::domain::Source;
use crate::domain::testing::{Cluster, GRANT, RESOURCE};

/// Agents a (a grant, a Secret, an account), b (suspended), c of the blueprint `bots`, and d in another namespace.
fn town() -> Cluster {
    let mut c = Cluster::new();
    c.namespace("ns", &[("team", "a")]);
    c.namespace("other", &[]);
    c.apply(RESOURCE);
    c.apply(GRANT);
    c.apply("{kind: AgentBlueprint, metadata: {name: bots}, spec: {namespaceSelector: {}}}");
    for agent in [
        "{name: a, namespace: ns, labels: {l: x}}, spec: {serviceAccountName: sa, tokenLifetime: 30m}",
        "{name: b, namespace: ns, labels: {l: x}}, spec: {suspend: true}",
        "{name: c, namespace: ns}, spec: {blueprint: bots}",
        "{name: d, namespace: other}, spec: {}",
    ] {
        c.apply(&format!("{{kind: AgentIdentity, metadata: {agent}}}"));
    }
    c.settle();
    c
}

fn said(c: &mut Cluster, whom: &Whom, action: Action) -> (Report, Value, String) {
    let now = c.now;
    let report = plan(&mut c.world, whom, action, now);
    let value = serde_json::to_value(&report).unwrap();
    let text = report.text(now);
    (report, value, text)
}

fn selected(namespace: Option<&str>, selector: Option<&str>) -> Whom {
    Whom::Selected { namespace: namespace.map(str::to_owned), selector: selector.map(|s| s.parse().unwrap()) }
}

#[test]
fn whom_a_suspend_hits() {
    for (whom, agents, steps, changing) in [
        (Whom::One(Key::new("ns", "a")), &["a"][..], 1, 1),
        (Whom::One(Key::new("ns", "b")), &["b"], 0, 0),
        (selected(None, None), &["a", "b", "c", "d"], 3, 3),
        (selected(Some("ns"), None), &["a", "b", "c"], 2, 2),
        (selected(None, Some("l=x")), &["a", "b"], 1, 1),
        (selected(Some("other"), Some("l=x")), &[], 0, 0),
        (Whom::Blueprint("bots".to_owned()), &["c"], 1, 1),
    ] {
        let (report, value, _) = said(&mut town(), &whom, Action::Suspend);
        let names: Vec<_> = report.agents.iter().map(|a| &*a.name).collect();
        assert_eq!((&*names, report.steps().len()), (agents, steps), "{value}");
        assert_eq!(value["summary"]["changing"], json!(changing), "{value}");
        assert!(report.agents.iter().all(|a| a.after == "Suspended"), "{value}");
    }
}

#[test]
fn what_is_lost_and_how_long_copies_live_is_said() {
    let mut c = town();
    let now = c.now;
    let (_, value, text) = said(&mut c, &Whom::One(Key::new("ns", "a")), Action::Suspend);
    assert_eq!(value["summary"]["grants"], 1);
    let until: Timestamp = value["summary"]["tokensUntil"].as_str().unwrap().parse().unwrap();
    assert_eq!(until.duration_since(now).as_secs(), 1800, "the Secret's; those on demand live ten minutes");
    for words in [
        "1 of 1 agents lose their credentials, with 1 held grants\n",
        "ns/a: 1 grants; tokens good until ",
        "in 30m",
    ] {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
    // One that has nothing leaves no copies.
    let (_, value, text) = said(&mut town(), &Whom::One(Key::new("ns", "b")), Action::Suspend);
    assert!(value["summary"].get("tokensUntil").is_none());
    assert!(text.contains("1 have none to lose now\n  ns/b: Suspended"), "{text}");
}

#[test]
fn a_blueprints_own_switch_is_set() {
    let (report, value, text) = said(&mut town(), &Whom::Blueprint("bots".to_owned()), Action::Suspend);
    assert!(matches!(report.steps().as_slice(), [Step::Blueprint(name, _)] if name == "bots"));
    assert_eq!(value["blueprint"], json!({"name": "bots", "unchanged": false}));
    assert!(text.starts_with("AgentBlueprint bots: 1 agents\n"), "{text}");
    assert_eq!(print::question(Action::Suspend, &report), "Suspend AgentBlueprint bots and its 1 agents?");
}

#[test]
fn who_stays_stopped_for_another_reason_is_said() {
    let mut c = town();
    c.apply("{kind: AgentPolicy, metadata: {name: stop}, spec: {suspend: true, match: {agentSelector: {matchLabels: {l: x}}}}}");
    c.apply("{kind: AgentBlueprint, metadata: {name: bots}, spec: {namespaceSelector: {}, suspend: true}}");
    c.settle();
    let (report, value, text) = said(&mut c, &selected(None, None), Action::Resume);
    assert_eq!(report.steps().len(), 1, "of b alone is it the agent's own");
    assert_eq!(value["summary"], json!({"agents": 4, "changing": 0, "grants": 0, "staying": 4}));
    for words in [
        "4 stay as they are",
        "ns/b: Suspended: AgentPolicy stop: spec.suspend is true",
        "ns/c: Suspended: AgentBlueprint bots: spec.suspend is true",
        "other/d: Ready\n",
    ] {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
    c.restart();
    c.delete(&Source::Policies, &Key::new("", "stop"));
    c.settle();
    let (_, value, _) = said(&mut c, &Whom::One(Key::new("ns", "b")), Action::Resume);
    assert_eq!(
        (&value["agents"][0]["before"], &value["agents"][0]["after"]),
        (&json!("Suspended"), &json!("Ready"))
    );
    c.restart();
    let (_, value, _) = said(&mut c, &Whom::Blueprint("bots".to_owned()), Action::Resume);
    assert_eq!(value["summary"]["changing"], 1);
}

#[test]
fn what_came_of_it_is_said() {
    let (mut report, ..) = said(&mut town(), &selected(None, None), Action::Suspend);
    let steps = report.steps();
    let failed = (Class::Forbidden, "may not patch".to_owned());
    let gone = (Class::NotFound, "it is gone".to_owned());
    for (step, error) in steps.iter().zip([None, Some(gone), Some(failed)]) {
        report.record(step, &outcome(error));
    }
    assert_eq!(report.done(), "1 object suspended; 1 were gone meanwhile\n");
    let outcomes: Vec<_> = report.agents.iter().map(|a| a.outcome.clone()).collect();
    assert_eq!(
        (&outcomes[0], &outcomes[1], &outcomes[2]),
        (&Some(Outcome::Done), &None, &Some(Outcome::Gone))
    );
    assert!(matches!(&outcomes[3], Some(Outcome::Failed(m)) if m.contains("may not patch")));
}

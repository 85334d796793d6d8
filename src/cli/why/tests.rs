use clap::Parser;
use serde_json::{Value, json};

use super::report::Report;
use super::*;
use crate::api::Configuration;
use crate::cluster::snapshot::{Snapshot, Unseen};
use crate::cluster::wire::{Wire, WireAgent, WireGrant, WireObject, WirePolicy, WireResource};
use crate::domain::{Lost, Origin, World};

const UID: &str = "7f3d9a2e-0001-4abc-8def-01234567890";

fn meta(namespace: Option<&str>, name: &str, uid: &str) -> Value {
    let mut meta = json!({
        "name": name, "uid": format!("{UID}{uid}"), "resourceVersion": "1", "generation": 1,
        "creationTimestamp": "2026-11-24T00:00:00Z", "labels": {"team": "support"},
    });
    if let Some(namespace) = namespace {
        meta["namespace"] = json!(namespace);
    }
    meta
}

fn take<T: Wire>(world: &mut World, source: &Source, object: Value) {
    let object = serde_json::from_value::<T>(object).unwrap().object(source).unwrap();
    world.take(object, Origin::Watch);
}

fn agent(spec: &Value) -> Value {
    json!({"apiVersion": "agentid.dev/v1alpha1", "kind": "AgentIdentity",
           "metadata": meta(Some("support"), "triage", "1"), "spec": spec})
}

fn grant(name: &str, uid: &str, spec: &Value) -> Value {
    json!({"apiVersion": "agentid.dev/v1alpha1", "kind": "AgentGrant",
           "metadata": meta(Some("support"), name, uid), "spec": spec})
}

fn resource(name: &str, uid: &str, team: &str) -> Value {
    json!({"apiVersion": "agentid.dev/v1alpha1", "kind": "AgentResource", "metadata": meta(None, name, uid), "spec": {
        "audience": format!("https://{name}.example.com"), "roles": [{"name": "reader"}, {"name": "triager"}],
        "allow": [{"namespaceSelector": {"matchLabels": {"team": team}}, "roles": ["reader"]}]}})
}

fn to(resource: &str, agent: &str, roles: &[&str]) -> Value {
    json!({"agents": {"names": [agent]}, "resource": resource, "application": {"roles": roles},
           "secretKey": format!("{resource}.jwt")})
}

/// A world of one agent with three grants: one held, one narrowed, one that the resource does not allow.
fn seen(spec: &Value) -> Snapshot {
    let mut world = World::new(Configuration::new("https://agents.example.com", "agents.example.com"));
    let spec = {
        let mut whole = json!({"sponsors": [{"kind": "User", "name": "ann@example.com"}]});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        whole
    };
    take::<WireObject>(&mut world, &Source::Namespaces, json!({"metadata": meta(None, "support", "2")}));
    take::<WireAgent>(&mut world, &Source::Agents, agent(&spec));
    for (name, uid, team) in [
        ("tickets", "3", "support"),
        ("wiki", "4", "support"),
        ("pay", "5", "finance"),
        ("crm", "6", "support"),
    ] {
        take::<WireResource>(&mut world, &Source::Resources, resource(name, uid, team));
    }
    for (name, uid, spec) in [
        ("a-tickets", "7", to("tickets", "triage", &["reader"])),
        ("b-wiki", "8", to("wiki", "triage", &["reader", "triager"])),
        ("c-pay", "9", to("pay", "triage", &["reader"])),
        ("d-crm", "a", to("crm", "writer", &["reader"])),
    ] {
        take::<WireGrant>(&mut world, &Source::Grants, grant(name, uid, &spec));
    }
    for source in Source::CORE {
        world.end_list(&source, Timestamp::now());
    }
    Snapshot {
        world,
        conditions: Vec::new(),
        agent_id: None,
        unseen: Vec::new(),
        skipped: Vec::new(),
        issuer: Some("https://agents.example.com".into()),
    }
}

fn report(seen: &Snapshot, resource: Option<&str>) -> (Value, String) {
    let now = Timestamp::now();
    let decision = decide(&seen.world, &Key::new("support", "triage"), now).unwrap();
    let report = Report::new(seen, &decision, resource, true, now);
    (serde_json::to_value(&report).unwrap(), report.text(now))
}

#[test]
fn each_grant_says_what_it_gives_or_who_refuses_it() {
    let (value, text) = report(&seen(&json!({})), None);
    assert_eq!(value["standing"], "Allowed");
    let states: Vec<_> =
        value["grants"].as_array().unwrap().iter().map(|g| g["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["Held", "Narrowed", "Refused"]);
    assert_eq!(value["grants"][0]["entitlement"]["audience"], "https://tickets.example.com");
    assert_eq!(value["grants"][0]["entitlement"]["file"], "tickets.jwt");
    assert_eq!(value["grants"][0]["entitlement"]["lifetimeSeconds"], 3600);
    assert_eq!(value["grants"][1]["entitlement"]["roles"], json!(["reader"]));
    let narrowed = &value["grants"][1]["refusal"];
    assert_eq!(
        (&narrowed["reason"], &narrowed["object"], &narrowed["field"]),
        (&json!("RoleNotAllowed"), &json!("AgentResource wiki"), &json!("spec.allow"))
    );
    let refused = &value["grants"][2]["refusal"];
    assert_eq!(refused["reason"], "NamespaceNotAllowed");
    assert_eq!(refused["remedy"], "ask its owner for an entry in spec.allow");
    for wanted in [
        "AgentIdentity support/triage: Allowed",
        "spiffe://agents.example.com/agent/7f3d9a2e-0001-4abc-8def-012345678901",
        "Held AgentResource tickets by AgentGrant a-tickets",
        "Refused AgentResource pay by AgentGrant c-pay",
        "  by        AgentResource pay, spec.allow",
        "triage-agentid: not there",
        "the operator has written no status yet",
        "without --config",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
}

#[test]
fn an_agent_that_may_not_holds_nothing() {
    let (value, text) = report(&seen(&json!({"suspend": true})), None);
    assert_eq!(value["standing"], "Refused");
    assert_eq!(value["refusal"]["reason"], "Suspended");
    assert_eq!(value["refusal"]["field"], "spec.suspend");
    assert_eq!(value["refusal"]["remedy"], "set it to false to resume the agent");
    assert!(value["grants"].as_array().unwrap().iter().all(|g| g["state"] == "Refused"));
    assert_eq!(value["grants"][0]["refusal"]["object"], "AgentIdentity triage");
    assert_eq!(value["grants"][2]["refusal"]["object"], "AgentResource pay", "its own refusal would remain");
    assert!(text.contains("would otherwise be held"), "{text}");
}

#[test]
fn what_is_not_seen_is_said_and_decides_nothing() {
    let mut seen =
        seen(&json!({"boundObjectRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}));
    let source = Source::Bound("apps/v1/Deployment".into());
    seen.world.lost(&source, Lost::NotServed);
    let error = crate::cluster::client::CallError::from_kube(kube::Error::LinesCodecMaxLineLengthExceeded);
    seen.unseen.push(Unseen { source, error, assumed_empty: false });
    let (value, text) = report(&seen, None);
    assert_eq!(value["standing"], "Unknown");
    assert!(value["grants"].as_array().unwrap().iter().take(1).all(|g| g["state"] == "Unknown"));
    assert!(
        text.contains("install its CRD") && text.contains("apps/v1/Deployment can't be read: "),
        "{text}"
    );
}

#[test]
fn a_secret_that_may_not_be_seen_is_not_said_to_be_missing() {
    let mut seen = seen(&json!({}));
    assert_eq!(report(&seen, None).0["secret"]["exists"], false);
    let error = crate::cluster::client::CallError::from_kube(kube::Error::LinesCodecMaxLineLengthExceeded);
    seen.unseen.push(Unseen { source: Source::Secrets, error, assumed_empty: true });
    let (value, text) = report(&seen, None);
    assert_eq!(value["secret"]["exists"], Value::Null);
    assert_eq!(value["standing"], "Allowed");
    assert!(
        text.contains("triage-agentid: not to be seen as you") && text.contains("would not be seen"),
        "{text}"
    );
}

#[test]
fn one_resource_is_told_alone_also_without_a_grant() {
    let (value, _) = report(&seen(&json!({})), Some("wiki"));
    assert_eq!(value["grants"].as_array().unwrap().len(), 1);
    assert_eq!(value["notGranted"], Value::Null);

    let (value, text) = report(&seen(&json!({})), Some("crm"));
    assert_eq!(value["grants"], json!([]));
    assert_eq!(value["notGranted"]["namespaceAllowed"], true);
    assert_eq!(value["notGranted"]["others"], json!(["AgentGrant d-crm names writer"]));
    assert!(text.contains("let one of these AgentGrants speak of this agent"), "{text}");
}

#[test]
fn names_that_are_none_are_refused_before_anything_is_asked() {
    let parse = |arguments: &[&str]| {
        crate::cli::Cli::try_parse_from(["agentid", "why"].iter().chain(arguments)).map_err(|e| e.exit_code())
    };
    assert!(parse(&["triage", "tickets.v2", "-n", "support", "-o", "json"]).is_ok());
    for wrong in
        [vec![], vec!["../x"], vec!["Triage"], vec!["a", "b/c"], vec!["a", "-n", ""], vec!["-"], vec!["a."]]
    {
        assert_eq!(parse(&wrong).err(), Some(2), "{wrong:?}");
    }
}

#[test]
fn a_policy_is_named_as_what_refuses_and_what_would() {
    let policy =
        |name: &str, uid: &str, spec: Value| json!({"metadata": meta(None, name, uid), "spec": spec});
    let mut seen = seen(&json!({}));
    let denies = json!({"deny": [{"resources": ["tickets"], "reason": "not yet"}]});
    take::<WirePolicy>(&mut seen.world, &Source::Policies, policy("security", "b", denies));
    let audit = json!({"enforcement": "Audit", "require": ["BoundObject"]});
    take::<WirePolicy>(&mut seen.world, &Source::Policies, policy("later", "c", audit));
    let (value, text) = report(&seen, None);
    let refusal = &value["grants"][0]["refusal"];
    assert_eq!(
        (&refusal["reason"], &refusal["object"], &refusal["field"]),
        (&json!("PolicyDenied"), &json!("AgentPolicy security"), &json!("spec.deny[0]"))
    );
    assert_eq!(refusal["remedy"], "delete the grant, or ask the policy's keeper");
    assert_eq!(value["audited"][0]["policy"], "later");
    assert_eq!(value["audited"][0]["refusal"]["object"], "AgentPolicy later");
    assert!(text.contains("Audited: AgentPolicy later would take from the agent\n"), "{text}");

    let stop = json!({"suspend": true});
    take::<WirePolicy>(&mut seen.world, &Source::Policies, policy("stop", "d", stop));
    let (value, _) = report(&seen, None);
    assert_eq!(
        (&value["standing"], &value["refusal"]["object"]),
        (&json!("Refused"), &json!("AgentPolicy stop"))
    );
    assert_eq!(value["refusal"]["field"], "spec.suspend");
    assert_eq!(
        value["grants"][0]["refusal"]["object"], "AgentPolicy security",
        "its own refusal would stand"
    );
}

use serde_json::{Value, json};

use super::compare::compare;
use super::documents::{DocumentError, read};
use crate::api::Configuration;
use crate::cluster::snapshot::Whole;
use crate::cluster::wire::{Wire, WireAgent, WireGrant, WireObject, WirePolicy, WireResource};
use crate::domain::{Origin, Source, World};

const TWO: &str = "# made by hand
apiVersion: agentid.dev/v1alpha1
kind: AgentPolicy
metadata: {name: deny}
spec: {enforcement: Audit, deny: [{roles: [writer], reason: forbidden}], suspend: null, require: []}
---
apiVersion: agentid.dev/v1alpha1
kind: AgentPolicy
metadata: {name: sponsors}
spec: {match: {agentSelector: {matchLabels: {tier: \"1\"}}}, require: [Sponsor]}
---
";

#[test]
fn documents_are_read_as_strictly_as_kubectl_does() {
    let names = |text: &str| {
        let all = read(text)?.into_iter().map(|p| p.metadata.name.unwrap_or_default());
        Ok::<_, DocumentError>(all.collect::<Vec<_>>())
    };
    assert_eq!(names(TWO).unwrap(), ["deny", "sponsors"]);
    for (text, words) in [
        ("", "has no document"),
        ("a: [", "is not YAML"),
        ("kind: Secret", "document 1 is of kind Secret"),
        (
            &TWO.replace(
                "v1alpha1\nkind: AgentPolicy\nmetadata: {name: sponsors",
                "v2\nkind: AgentPolicy\nmetadata: {name: s",
            ),
            "document 2 is of kind AgentPolicy, not an AgentPolicy of agentid.dev/v1alpha1",
        ),
        (&TWO.replace("roles: [writer]", "role: [writer]"), "document 1: unknown field spec.deny[0].role"),
        (&TWO.replace("deny: [", "denied: ["), "unknown field spec.denied"),
        (&TWO.replace("roles: [writer], ", ""), "document 1: spec.deny: an entry denies nothing"),
        (&TWO.replace("[Sponsor]", "[Owner]"), "document 2: unknown variant `Owner`"),
        (&TWO.replace("{name: deny}", "{}"), "document 1: metadata.name is missing"),
        (
            &TWO.replace("require: []", "limits: {tokenLifetime: 1d}"),
            "spec.limits.tokenLifetime: \"1d\" is not a duration",
        ),
    ] {
        let said = read(text).unwrap_err().to_string();
        assert!(said.contains(words), "{text}: {said}");
    }
}

fn meta(namespace: Option<&str>, name: &str, uid: u8) -> Value {
    let mut meta = json!({"name": name, "uid": format!("7f3d9a2e-0001-4abc-8def-0123456789{uid:02x}"),
        "resourceVersion": "1", "generation": 1, "creationTimestamp": "2026-11-24T00:00:00Z"});
    if let Some(namespace) = namespace {
        meta["namespace"] = json!(namespace);
    }
    meta
}

fn take<T: Wire>(world: &mut World, source: &Source, object: Value) {
    let object = serde_json::from_value::<T>(object).unwrap().object(source).unwrap();
    world.take(object, Origin::Watch);
}

/// Agents a and b, both with two roles; b is of tier 1. A policy `old` denies the role reader.
fn seen() -> Whole {
    let mut world = World::new(Configuration::new("https://agents.example.com", "agents.example.com"));
    take::<WireObject>(&mut world, &Source::Namespaces, json!({"metadata": meta(None, "ns", 1)}));
    for (name, uid, tier) in [("a", 2, "0"), ("b", 3, "1")] {
        let mut meta = meta(Some("ns"), name, uid);
        meta["labels"] = json!({"tier": tier});
        take::<WireAgent>(&mut world, &Source::Agents, json!({"metadata": meta, "spec": {}}));
    }
    let spec = json!({"audience": "https://r.example.com", "roles": [{"name": "reader"}, {"name": "writer"}],
        "allow": [{"namespaceSelector": {}}]});
    take::<WireResource>(
        &mut world,
        &Source::Resources,
        json!({"metadata": meta(None, "r", 4), "spec": spec}),
    );
    let spec = json!({"agents": {"selector": {}}, "resource": "r", "secretKey": "r.jwt",
        "application": {"roles": ["reader", "writer"]}});
    take::<WireGrant>(
        &mut world,
        &Source::Grants,
        json!({"metadata": meta(Some("ns"), "g", 5), "spec": spec}),
    );
    let spec = json!({"deny": [{"roles": ["reader"]}]});
    take::<WirePolicy>(
        &mut world,
        &Source::Policies,
        json!({"metadata": meta(None, "old", 6), "spec": spec}),
    );
    for source in Source::CORE {
        world.end_list(&source, jiff::Timestamp::now());
    }
    Whole { world, unseen: Vec::new(), skipped: Vec::new() }
}

fn test(yaml: &str) -> (Value, String) {
    let report = compare(seen(), &read(yaml).unwrap(), true, jiff::Timestamp::now());
    (serde_json::to_value(&report).unwrap(), report.text())
}

#[test]
fn who_would_lose_what() {
    let (value, text) = test(TWO);
    let losses = value["losses"].as_array().unwrap();
    let said: Vec<_> = losses
        .iter()
        .map(|l| (l["agent"].as_str().unwrap(), l["grant"].as_str(), l["reason"].as_str().unwrap()))
        .collect();
    // The reader was gone already, so the writer was all that was left.
    assert_eq!(said, [("a", Some("g"), "PolicyDenied"), ("b", None, "RequirementMissing")]);
    assert_eq!(losses[0]["whole"], true);
    let summary = json!({"agents": 2, "agentsLosing": 2, "agentsWithdrawn": 1, "grantsLosing": 1, "grantsShortened": 0,
        "agentsGaining": 0, "agentsUnknown": 0});
    assert_eq!(value["summary"], summary);
    assert_eq!(
        value["policies"][0],
        json!({"name": "deny", "enforcement": "Audit", "replaces": false, "matched": 2})
    );
    assert_eq!(value["policies"][1]["matched"], 1);
    for words in [
        "AgentPolicy deny (Audit): speaks of 2 agents\n",
        "AgentIdentity ns/a\n  loses AgentGrant g on AgentResource r\n    PolicyDenied: AgentPolicy deny: spec.deny[0]",
        "AgentIdentity ns/b\n  loses its whole credential\n    RequirementMissing: AgentPolicy sponsors",
        "\n2 of 2 agents would lose something: 1 their whole credential; 1 grants of others",
        "note: a policy in Audit takes nothing",
    ] {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
}

#[test]
fn the_policy_of_the_name_is_replaced() {
    let old = |spec: &str| {
        format!(
            "apiVersion: agentid.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {{name: old}}\nspec: {{{spec}}}\n"
        )
    };
    let (value, text) = test(&old("deny: [{roles: [\"w*\"]}]"));
    assert_eq!(value["losses"][0]["roles"], json!(["writer"]));
    assert_eq!(
        (&value["losses"][0]["whole"], &value["summary"]["agentsGaining"]),
        (&json!(false), &json!(2))
    );
    assert!(
        text.contains("in place of the one of this name") && text.contains("2 agents would hold more"),
        "{text}"
    );
    assert!(text.contains("loses roles writer of AgentGrant g on AgentResource r\n"), "{text}");
    let (value, _) = test(&old("limits: {tokenLifetime: 30m}"));
    assert_eq!(value["losses"], json!([]));
    assert_eq!(
        (&value["summary"]["grantsShortened"], &value["summary"]["agentsGaining"]),
        (&json!(2), &json!(2))
    );
    let (value, _) = test(&old("limits: {tokenLifetime: 5m}, deny: [{roles: [reader]}]"));
    assert_eq!(value["losses"][0]["file"], "r.jwt");
    assert_eq!(value["losses"][0]["reason"], "LifetimeTooShort");
    let (value, _) = test(&old("match: {namespaceSelector: {matchLabels: {x: y1}}}, suspend: true"));
    assert_eq!((&value["summary"]["agentsLosing"], &value["policies"][0]["matched"]), (&json!(0), &json!(0)));
}

#[test]
fn who_cannot_be_told_is_no_pass_and_can_still_be_stopped() {
    let report = |yaml: &str| {
        let mut seen = seen();
        let spec = json!({"boundObjectRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}});
        // Deployments could not be listed.
        take::<WireAgent>(
            &mut seen.world,
            &Source::Agents,
            json!({"metadata": meta(Some("ns"), "c", 7), "spec": spec}),
        );
        compare(seen, &read(yaml).unwrap(), true, jiff::Timestamp::now())
    };
    let policy = |spec: &str| {
        format!(
            "apiVersion: agentid.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {{name: p}}\nspec: {{{spec}}}\n"
        )
    };
    let harmless = report(&policy("limits: {agentLifetime: 87600h}"));
    assert_eq!((harmless.summary.agents_losing, harmless.summary.agents_unknown), (0, 1));
    let outcome = |report: &super::compare::Report| super::verdict(&report.summary, true);
    assert!(matches!(outcome(&harmless), Err(super::PolicyError::Untold(1))));
    assert!(super::verdict(&harmless.summary, false).is_ok());
    let stopped = report(&policy("suspend: true"));
    assert_eq!(
        stopped.names(),
        ["a", "b", "c"].map(|name| format!("agentidentity.agentid.dev/{name}")),
        "a policy is asked before what an agent is bound to"
    );
    assert_eq!((stopped.summary.agents_withdrawn, stopped.summary.agents_unknown), (3, 0));
    assert!(matches!(outcome(&stopped), Err(super::PolicyError::Loss(3))));
}

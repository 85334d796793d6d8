use serde_json::{Value, json};

use super::findings::{Check, Report};
use super::observe::{Binding, Others};
use super::*;
use crate::domain::testing::{Cluster, GRANT, RESOURCE, uid_of};
use crate::domain::{Key, Source};

/// A namespace with an agent `a` of a Deployment, whose pod `p` mounts as it should.
fn town() -> (Cluster, Others) {
    let mut c = Cluster::new();
    c.namespace("ns", &[("team", "a")]);
    c.namespace("other", &[]);
    c.apply(RESOURCE);
    c.apply(GRANT);
    c.bound("apps/v1/Deployment", &Key::new("ns", "d"), false, true);
    c.apply(
        "{kind: AgentIdentity, metadata: {name: a, namespace: ns}, spec: {boundObjectRef: {apiVersion: apps/v1, kind: \
         Deployment, name: d}}}",
    );
    c.settle();
    let mut others = Others::default();
    others.pods.push(pod("p", "d-5", "/var/run/agentid"));
    let owner = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "controller": true});
    let hop = ("ns".to_owned(), "ReplicaSet".to_owned(), "d-5".to_owned());
    others.hops.insert(hop, serde_json::from_value(owner).unwrap());
    for role in ["system:basic-user", "system:discovery", "system:public-info-viewer"] {
        others.bindings.push(binding("", role, role, &[("Group", "system:authenticated")]));
    }
    for role in ["system:service-account-issuer-discovery", "system:cluster-trust-bundle-discovery"] {
        others.bindings.push(binding("", role, role, &[("Group", "system:serviceaccounts")]));
    }
    (c, others)
}

fn pod(name: &str, set: &str, mount: &str) -> observe::Pod {
    let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": set, "controller": true});
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "ns", "ownerReferences": [owner]},
        "spec": {"serviceAccountName": "sa", "containers": [{}, {"volumeMounts": [{"mountPath": mount}]}]},
        "status": {"phase": "Running"},
    }))
    .unwrap()
}

fn binding(namespace: &str, name: &str, role: &str, subjects: &[(&str, &str)]) -> Binding {
    let subjects: Vec<_> = subjects.iter().map(|(kind, name)| json!({"kind": kind, "name": name})).collect();
    serde_json::from_value(json!({
        "metadata": {"namespace": namespace, "name": name},
        "subjects": subjects, "roleRef": {"kind": "ClusterRole", "name": role},
    }))
    .unwrap()
}

fn looked(c: &mut Cluster, others: &Others, namespace: Option<&str>) -> Report {
    let scope = Scope { namespace, trust_domain: Some("example.com") };
    let now = c.now;
    examine(&mut c.world, others, &scope, Vec::new(), now)
}

#[test]
fn where_all_is_well_nothing_is_found() {
    let (mut c, mut others) = town();
    for namespace in [None, Some("ns")] {
        let report = looked(&mut c, &others, namespace);
        assert_eq!(report.findings, []);
        assert_eq!(report.text(), "nothing found\n");
    }
    others.missed.push("pods can't be listed: no".to_owned());
    assert!(looked(&mut c, &others, None).text().contains("note: pods can't be listed"));
}

#[test]
fn each_kind_of_binding() {
    let (c, _) = town();
    let id = format!("spiffe://example.com/agent/{}", uid_of(&c.agents[&Key::new("ns", "a")].metadata));
    let gone = "spiffe://example.com/agent/00000000-0000-4000-8000-000000000000";
    use Check::{BoundByHand, BroadRights};
    for (namespace, kind, subject, role, all, here) in [
        ("ns", "User", id.as_str(), "edit", Some(BoundByHand), Some(BoundByHand)),
        ("other", "User", &id, "edit", Some(BoundByHand), None),
        ("", "User", &id, "edit", Some(BoundByHand), Some(BoundByHand)),
        ("", "User", gone, "edit", Some(BoundByHand), None),
        ("", "User", "spiffe://example.com/ns/ns/agent/a", "edit", Some(BoundByHand), Some(BoundByHand)),
        ("", "User", "spiffe://example.com/ns/other/agent/a", "edit", Some(BoundByHand), None),
        ("ns", "User", "spiffe://elsewhere.example/agent/1", "edit", None, None),
        ("ns", "User", "ann", "edit", None, None),
        ("ns", "Group", "agentid:agents", "view", Some(BoundByHand), Some(BoundByHand)),
        ("", "Group", "agentid:agents", "view", Some(BoundByHand), None),
        ("", "Group", "system:authenticated", "edit", Some(BroadRights), None),
        ("ns", "Group", "system:authenticated", "edit", Some(BroadRights), Some(BroadRights)),
        ("", "Group", "system:serviceaccounts", "edit", Some(BroadRights), None),
        ("", "Group", "system:serviceaccounts:ns", "edit", Some(BroadRights), Some(BroadRights)),
        ("ns", "Group", "system:serviceaccounts:ns", "edit", Some(BroadRights), Some(BroadRights)),
        ("", "Group", "system:serviceaccounts:other", "edit", None, None),
        ("", "Group", "system:masters", "cluster-admin", None, None),
        ("", "ServiceAccount", "sa", "edit", None, None),
    ] {
        let (mut c, mut others) = town();
        others.bindings.push(binding(namespace, "b", role, &[(kind, subject)]));
        for (scope, wanted) in [(None, all), (Some("ns"), here)] {
            let found: Vec<_> = looked(&mut c, &others, scope).findings.iter().map(|f| f.check).collect();
            assert_eq!(found, Vec::from_iter(wanted), "{namespace:?} {kind} {subject} {scope:?}");
        }
        // What the operator keeps is no finding: users, in a namespace, by a grant. A label alone changes nothing.
        let mut labelled = |label: &str, value: &str| {
            let labels = &mut others.bindings.last_mut().unwrap().metadata.labels;
            labels.insert(label.to_owned(), value.to_owned());
            looked(&mut c, &others, None).findings.iter().map(|f| f.check).collect::<Vec<_>>()
        };
        let row = format!("{namespace:?} {kind} {subject}");
        assert_eq!(labelled("app.kubernetes.io/managed-by", "agentid"), Vec::from_iter(all), "{row}");
        assert_eq!(labelled("agentid.dev/grant", "x"), Vec::from_iter(all), "{row}");
        let kept = all == Some(BoundByHand) && kind == "User" && !namespace.is_empty();
        let uid = "00000000-0000-4000-8000-000000000001";
        assert_eq!(labelled("agentid.dev/grant", uid), Vec::from_iter(all.filter(|_| !kept)), "{row}");
    }
}

#[test]
fn pods_that_mount_the_default_token_are_counted_by_agent() {
    let (mut c, mut others) = town();
    let token = "/var/run/secrets/kubernetes.io/serviceaccount";
    others.pods.extend([pod("q", "d-5", token), pod("r", "d-5", token), pod("stranger", "x-1", token)]);
    let report = looked(&mut c, &others, Some("ns"));
    assert_eq!(report.findings.len(), 1, "{report:?}");
    let value = serde_json::to_value(&report).unwrap();
    let Value::String(message) = &value["findings"][0]["message"] else { panic!("{value}") };
    assert!(message.starts_with("2 of its pods, such as q, mount"), "{message}");
    assert_eq!(
        (&value["findings"][0]["check"], &value["findings"][0]["object"]),
        (&json!("defaultToken"), &json!("AgentIdentity ns/a"))
    );
    assert!(report.text().contains(
        "    $ kubectl patch serviceaccount -n ns sa -p '{\"automountServiceAccountToken\": false}'"
    ));
    others.pods.iter_mut().for_each(|p| p.status.phase = "Succeeded".to_owned());
    assert_eq!(looked(&mut c, &others, None).findings, []);
}

#[test]
fn conflicts_name_both_sides() {
    let (mut c, mut others) = town();
    c.advance(10);
    c.apply("{kind: AgentIdentity, metadata: {name: b, namespace: ns}, spec: {secretName: a-agentid}}");
    c.apply(&GRANT.replace("name: g,", "name: h,"));
    c.apply(&RESOURCE.replace("name: res", "name: rival"));
    for name in ["b0", "b1"] {
        c.apply(&format!(
            "{{kind: AgentBlueprint, metadata: {{name: {name}}}, spec: {{namespaceSelector: {{}}, podSelector: {{}}, \
             identityPer: Pod}}}}"
        ));
        c.advance(10);
    }
    c.put_bound("v1/Pod", &Key::new("ns", "p"), |_| {});
    others.pods.truncate(1);
    c.settle();
    let report = looked(&mut c, &others, None);
    let said: Vec<_> = report.findings.iter().map(|f| (f.check, f.object.as_str())).collect();
    let wanted = ["AgentGrant ns/h", "AgentIdentity ns/b", "AgentResource rival", "Pod ns/p"];
    assert_eq!(said, wanted.map(|o| (Check::Conflict, o)), "{report:?}");
    for (finding, words) in
        report.findings.iter().zip(["res.jwt", "AgentIdentity a", "AgentResource res", "younger b1"])
    {
        assert!(finding.message.contains(words), "{finding:?}");
    }
    let here: Vec<_> = looked(&mut c, &others, Some("other")).findings;
    assert_eq!(here, []);
}

#[test]
fn what_is_left_behind_is_found() {
    let (mut c, others) = town();
    c.apply(
        "{kind: AgentBlueprint, metadata: {name: bots}, spec: {namespaceSelector: {}, podSelector: {}, identityPer: Pod}}",
    );
    c.put_bound("v1/Pod", &Key::new("ns", "m"), |_| {});
    c.settle();
    // The operator is away from here on: the world learns, and nobody acts.
    c.delete(&Source::Blueprints, &Key::new("", "bots"));
    c.delete(&Source::Agents, &Key::new("ns", "a"));
    c.deliver();
    let report = looked(&mut c, &others, Some("ns"));
    let said: Vec<_> = report.findings.iter().map(|f| f.object.as_str()).collect();
    assert_eq!(said, ["AgentIdentity ns/m", "Secret ns/a-agentid"], "{report:?}");
    assert!(
        report.text().starts_with("Left behind\n  AgentIdentity ns/m\n    AgentBlueprint bots, from which"),
        "{}",
        report.text()
    );
}

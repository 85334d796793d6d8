//! What a Secret tells about who changed it.

use super::*;

const UID: &str = "7f3d9a2e-0001-4abc-8def-0123456789ab";

fn secret(edit: impl FnOnce(&mut Value)) -> Credentials {
    let mut value = serde_json::json!({"metadata": {
        "name": "triage-agentid", "namespace": "support", "uid": "00000000-0000-4000-8000-000000000001",
        "resourceVersion": "7", "creationTimestamp": "2026-11-24T00:00:00Z",
        "labels": {"app.kubernetes.io/managed-by": "agentid", "agentid.dev/agent": "triage"},
        "annotations": {
            "agentid.dev/agent-uid": UID, "agentid.dev/plan": "000102030405060708090a0b0c0d0e0f",
            "agentid.dev/tokens": "identity.jwt=000102030405060708090a0b0c0d0e0f",
            "agentid.dev/key-ids": "k1,k2", "agentid.dev/renew-at": "2026-11-24T00:40:00Z",
            "agentid.dev/expires-at": "2026-11-24T01:00:00Z"},
        "ownerReferences": [{"apiVersion": "agentid.dev/v1alpha1", "kind": "AgentIdentity", "name": "triage", "uid": UID}],
        "managedFields": [{"manager": "agentid", "operation": "Update", "fieldsV1": {
            "f:data": {".": {}, "f:agent.json": {}, "f:identity.jwt": {}}, "f:type": {},
            "f:metadata": {
                "f:annotations": {".": {}, "f:agentid.dev/renew-at": {}},
                "f:labels": {".": {}, "f:agentid.dev/agent": {}, "f:app.kubernetes.io/managed-by": {}},
                "f:ownerReferences": {".": {}, "k:{\"uid\":\"u\"}": {}}}}}]
    }});
    edit(&mut value);
    serde_json::from_value::<WireSecret>(value).unwrap().credentials().unwrap()
}

/// Takes fields from us, as the API server does for whoever changes their values.
fn other(fields: Value) -> impl FnOnce(&mut Value) {
    fn take(mine: &mut Value, theirs: &Value) {
        for (key, inner) in theirs.as_object().unwrap() {
            let Some(left) = mine.as_object_mut().unwrap().get_mut(key) else { continue };
            if left.as_object().unwrap().is_empty() {
                mine.as_object_mut().unwrap().remove(key);
            } else {
                take(left, inner);
            }
        }
    }
    move |v| {
        take(&mut v["metadata"]["managedFields"][0]["fieldsV1"], &fields);
        beside(fields)(v);
    }
}

/// Says the same as we do.
fn beside(fields: Value) -> impl FnOnce(&mut Value) {
    move |v| {
        let entry = serde_json::json!({"manager": "kubectl-edit", "operation": "Update", "fieldsV1": fields});
        v["metadata"]["managedFields"].as_array_mut().unwrap().push(entry);
    }
}

#[test]
fn a_manager_beside_us_changes_nothing() {
    let same = serde_json::json!({
        "f:data": {".": {}, "f:identity.jwt": {}},
        "f:metadata": {
            "f:annotations": {".": {}, "f:agentid.dev/renew-at": {}},
            "f:labels": {"f:agentid.dev/agent": {}},
            "f:ownerReferences": {".": {}, "k:{\"uid\":\"u\"}": {}},
        },
    });
    assert_eq!(secret(beside(same.clone())).drift, None);
    assert_eq!(secret(other(same)).drift.map(|d| d.what), Some(Changed::Data));
}

#[test]
fn reads_what_a_restart_needs() {
    let s = secret(|_| {});
    assert_eq!(s.drift, None);
    assert_eq!(s.agent, Some(UID.parse().unwrap()));
    assert_eq!(s.kids.len(), 2);
    assert_eq!(s.tokens.len(), 1);
    assert_eq!(s.renew_at.to_string(), "2026-11-24T00:40:00Z");
}

#[test]
fn tells_who_changed_what() {
    for (fields, what) in [
        (serde_json::json!({"f:data": {"f:identity.jwt": {}}}), Some(Changed::Data)),
        (serde_json::json!({"f:data": {"f:extra": {}}}), Some(Changed::Data)),
        (serde_json::json!({"f:immutable": {}}), Some(Changed::Immutable)),
        (serde_json::json!({"f:metadata": {"f:labels": {"f:agentid.dev/agent": {}}}}), Some(Changed::Labels)),
        (serde_json::json!({"f:metadata": {"f:labels": {"f:team": {}}}}), None),
        (
            serde_json::json!({"f:metadata": {"f:annotations": {"f:agentid.dev/renew-at": {}}}}),
            Some(Changed::Annotations),
        ),
        (serde_json::json!({"f:metadata": {"f:annotations": {"f:note": {}}}}), None),
        (serde_json::json!({"f:metadata": {"f:ownerReferences": {}}}), Some(Changed::Owners)),
    ] {
        let drift = secret(other(fields.clone())).drift;
        assert_eq!(drift.as_ref().map(|d| d.what), what, "{fields}");
        assert!(drift.is_none_or(|d| &*d.by == "kubectl-edit"));
    }
}

#[test]
fn tells_what_is_missing() {
    let without = |pointer: &'static str, key: &'static str| {
        secret(move |v| {
            v.pointer_mut(pointer).unwrap().as_object_mut().unwrap().remove(key);
        })
        .drift
        .map(|d| d.what)
    };
    assert_eq!(without("/metadata/labels", "agentid.dev/agent"), Some(Changed::Labels));
    for name in ["plan", "tokens", "key-ids", "renew-at", "expires-at"] {
        let taken = secret(|v| {
            let annotations = v["metadata"]["annotations"].as_object_mut().unwrap();
            annotations.remove(&format!("agentid.dev/{name}")).unwrap();
        });
        assert_eq!(taken.drift.map(|d| d.what), Some(Changed::Annotations), "{name}");
    }
    assert_eq!(without("/metadata", "ownerReferences"), Some(Changed::Owners));
    assert_eq!(without("/metadata", "managedFields"), Some(Changed::Data));
    assert_eq!(
        without("/metadata/managedFields/0/fieldsV1/f:data", "f:identity.jwt"),
        Some(Changed::Data),
        "a key that was taken out"
    );
    let extra = secret(|v| {
        let owner = serde_json::json!({"kind": "ConfigMap", "uid": UID, "name": "x", "apiVersion": "v1"});
        v["metadata"]["ownerReferences"].as_array_mut().unwrap().push(owner);
    });
    assert_eq!(extra.drift.map(|d| d.what), Some(Changed::Owners));
}

#[test]
fn one_that_we_did_not_write_has_no_agent() {
    let s = secret(|v| v["metadata"]["annotations"] = serde_json::json!({}));
    assert_eq!((s.agent, s.drift), (None, None));
}

//! Somebody changes our Secret: it is healed, and whoever did it is named.

use agentid::api::AgentIdentity;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::common::eventually;
use crate::kit::*;

/// An agent with a grant, Ready, and its Secret.
async fn setup(t: &Test) -> Secret {
    t.apply(&[resource("tickets"), grant("tickets", "selector: {}", "tickets", ""), agent("a", "")].concat())
        .await;
    t.ready("a").await;
    t.has_files("a-agentid", FILES, SOON).await;
    // It is the last that is written.
    t.grant_says("tickets", "True", "Issued", &["held by 1"]).await;
    t.secret("a-agentid").await.unwrap()
}

const FILES: &[&str] = &["agent.json", "identity.jwt", "tickets.jwt"];

/// Waits until the Secret is as it should be again: other than the changed one, of good tokens, of our
/// labels and our one owner.
async fn healed(t: &Test, changed: &Secret) -> Secret {
    let uid = t.agent("a").await.unwrap().metadata.uid.unwrap();
    let secret = eventually("the Secret is healed", SOON, || async {
        let secret = t.secret("a-agentid").await.ok_or("there is none")?;
        let names: Vec<_> = secret.data.iter().flatten().map(|(k, _)| k.as_str()).collect();
        let owners = secret.metadata.owner_references.clone().unwrap_or_default();
        let labels = secret.metadata.labels.clone().unwrap_or_default();
        let good = secret.metadata.resource_version != changed.metadata.resource_version
            && names == FILES
            && owners.len() == 1
            && owners[0].uid == uid
            && labels.get("agentid.dev/agent").is_some_and(|l| l == "a")
            && labels.get("app.kubernetes.io/managed-by").is_some_and(|l| l == "agentid")
            && secret.immutable != Some(true);
        if good { Ok(secret) } else { Err(format!("{names:?} {:?}", secret.metadata)) }
    })
    .await;
    t.verified("a-agentid").await;
    secret
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_change_is_healed() {
    let t = Test::new("drift").await;
    let first = setup(&t).await;
    // It exists: the garbage collector would take a reference to nobody off before we do.
    let uid = t.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: x}}").await.metadata.uid;
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": uid});
    let ours = serde_json::to_value(&first.metadata.owner_references.as_ref().unwrap()[0]).unwrap();
    for (patch, field) in [
        (json!({"data": {"tickets.jwt": "Zm9yZ2Vk"}}), "data"),
        (json!({"data": {"agent.json": "e30="}}), "data"),
        (json!({"data": {"tickets.jwt": null}}), "data"),
        (json!({"data": {"extra.jwt": "Zm9yZ2Vk"}}), "data"),
        (json!({"metadata": {"labels": {"agentid.dev/agent": "b"}}}), "metadata.labels"),
        (json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": null}}}), "metadata.labels"),
        (
            json!({"metadata": {"annotations": {"agentid.dev/renew-at": "2999-01-01T00:00:00Z"}}}),
            "metadata.annotations",
        ),
        (json!({"metadata": {"annotations": {"agentid.dev/key-ids": ""}}}), "metadata.annotations"),
        (json!({"metadata": {"ownerReferences": [ours, owner]}}), "metadata.ownerReferences"),
        (json!({"metadata": {"ownerReferences": null}}), "metadata.ownerReferences"),
        (json!({"immutable": true}), "immutable"),
    ] {
        let changed: Secret = t.merge("a-agentid", patch.clone()).await;
        let secret = healed(&t, &changed).await;
        eprintln!("healed: {patch}");
        t.event("a", "Normal Issued", &["Secret a-agentid", &format!("{field} was changed by ")]).await;
        let renew = &secret.metadata.annotations.as_ref().unwrap()["agentid.dev/renew-at"];
        assert!(**renew < *in_seconds(3600), "{patch}: {renew}");
    }
    t.event("a", "Normal Issued", &["data was changed by somebody and has been written anew"]).await;
}

/// An annotation that is taken off leaves no trace of who did it.
#[tokio::test(flavor = "multi_thread")]
async fn annotations_taken_off_are_healed() {
    let t = Test::new("annotations").await;
    setup(&t).await;
    for name in ["plan", "tokens", "key-ids", "renew-at", "expires-at"] {
        let name = format!("agentid.dev/{name}");
        let changed: Secret =
            t.merge("a-agentid", json!({"metadata": {"annotations": {&*name: null}}})).await;
        let secret = healed(&t, &changed).await;
        assert!(!secret.metadata.annotations.unwrap()[&name].is_empty(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_secret_is_made_anew() {
    let t = Test::new("deleted").await;
    let first = setup(&t).await;
    t.api::<Secret>().delete("a-agentid", &DeleteParams::default()).await.unwrap();
    let second = healed(&t, &first).await;
    assert_ne!(first.metadata.uid, second.metadata.uid);
}

/// What others write beside ours is theirs.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_ours_is_left_alone() {
    let t = Test::new("theirs").await;
    setup(&t).await;
    let before = mark();
    let theirs = json!({"metadata": {"labels": {"team": "x"}, "annotations": {"note": "y"}}});
    let changed: Secret = t.merge("a-agentid", theirs).await;
    tokio::time::sleep(PAUSE).await;
    let now = t.secret("a-agentid").await.unwrap();
    assert_eq!(now.metadata.resource_version, changed.metadata.resource_version);
    assert_eq!(t.writes(before), Vec::<String>::new());

    // Nor does a change of what the agent holds touch it.
    t.apply(&grant("more", "selector: {}", "tickets", "")).await;
    t.has_files("a-agentid", &["agent.json", "identity.jwt", "more.jwt", "tickets.jwt"], SOON).await;
    let now = t.secret("a-agentid").await.unwrap().metadata;
    assert_eq!(now.labels.unwrap()["team"], "x");
    assert_eq!(now.annotations.unwrap()["note"], "y");
}

/// Another applier that says the same as we do becomes an owner of our fields for good: that is no drift to
/// fight over with write after write.
#[tokio::test(flavor = "multi_thread")]
async fn an_applier_of_the_same_values_causes_no_fight() {
    let t = Test::new("coowner").await;
    let secret = setup(&t).await;
    let same = json!({"apiVersion": "v1", "kind": "Secret", "type": "agentid.dev/credentials",
        "metadata": {"name": "a-agentid", "labels": {"agentid.dev/agent": "a"},
            "annotations": {"agentid.dev/agent-uid": secret.metadata.annotations.as_ref().unwrap()["agentid.dev/agent-uid"]}}});
    let params = PatchParams::apply("gitops").force();
    t.api::<Secret>().patch("a-agentid", &params, &Patch::Apply(&same)).await.unwrap();
    tokio::time::sleep(PAUSE).await;
    let before = mark();
    tokio::time::sleep(PAUSE * 2).await;
    let writes = t.writes(before);
    assert_eq!(writes, Vec::<String>::new());
    t.verified("a-agentid").await;
}

fn copy_of(secret: &Secret, namespace: &str, name: &str) -> Secret {
    let mut copy = secret.clone();
    let metadata = &mut copy.metadata;
    metadata.namespace = Some(namespace.to_owned());
    metadata.name = Some(name.to_owned());
    (metadata.uid, metadata.resource_version, metadata.managed_fields) = (None, None, None);
    copy
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_are_deleted_and_the_original_is_unharmed() {
    let t = Test::new("copies").await;
    let other = Test::new("copies-to").await;
    let secret = setup(&t).await;
    other
        .api::<Secret>()
        .create(&PostParams::default(), &copy_of(&secret, &other.name, "a-agentid"))
        .await
        .unwrap();
    t.api::<Secret>().create(&PostParams::default(), &copy_of(&secret, &t.name, "copy")).await.unwrap();
    // Without its owner the garbage collector would not see it either.
    let mut bare = copy_of(&secret, &other.name, "bare");
    bare.metadata.owner_references = None;
    other.api::<Secret>().create(&PostParams::default(), &bare).await.unwrap();
    other.no_secret("a-agentid").await;
    other.no_secret("bare").await;
    t.no_secret("copy").await;
    tokio::time::sleep(PAUSE).await;
    let now = t.secret("a-agentid").await.unwrap();
    assert_eq!(now.metadata.resource_version, secret.metadata.resource_version);
    assert_eq!(t.agent("a").await.unwrap().status.unwrap().conditions[0].status, "True");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_of_an_orphaning_delete_goes() {
    let t = Test::new("orphaned").await;
    setup(&t).await;
    let agent = t.agent("a").await.unwrap();
    t.orphan::<AgentIdentity>("a").await;
    t.no_secret("a-agentid").await;
    t.no_agent(&agent).await;
    // The garbage collector's own work is done by now: nothing came back.
    tokio::time::sleep(PAUSE).await;
    assert!(t.secret("a-agentid").await.is_none());
}

/// A data key of a withdrawn Secret is drift as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawn_secret_is_healed_too() {
    let t = Test::new("withdrawn").await;
    let good = files(&setup(&t).await);
    t.merge::<AgentIdentity>("a", json!({"spec": {"suspend": true}})).await;
    t.withdrawn("a-agentid", "Suspended").await;
    let put = |file: &str| {
        let token = k8s_openapi::ByteString(good[file].clone().into_bytes());
        json!({"data": {file: serde_json::to_value(token).unwrap()}})
    };
    let patch: Value = put("tickets.jwt");
    t.merge::<Secret>("a-agentid", patch).await;
    t.withdrawn("a-agentid", "Suspended").await;
    t.event("a", "Normal Issued", &["data was changed by somebody"]).await;
}

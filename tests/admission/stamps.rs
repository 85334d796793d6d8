//! Who made it, who changed it, who answers for it.

use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::common::{Namespace, api_of};
use crate::{AGENT, ALL, aid, annotation, control_plane, one, person, user};

#[tokio::test(flavor = "multi_thread")]
async fn a_person_who_names_no_sponsor_is_it() {
    let (cp, _turn) = control_plane().await;
    let ns = Namespace::new(cp, "sponsor").await;
    let ann = person(cp, "ann@example.com").await;
    let sponsors = |o: &kube::api::DynamicObject| o.data["spec"]["sponsors"].clone();
    let hers = json!([{"kind": "User", "name": "ann@example.com"}]);

    assert_eq!(sponsors(&ann.creates(&ns, &aid("none", "{}")).await), hers);
    assert_eq!(sponsors(&ann.creates(&ns, &aid("empty", "{sponsors: []}")).await), hers);
    let team = "{sponsors: [{kind: Group, name: support}]}";
    assert_eq!(
        sponsors(&ann.creates(&ns, &aid("team", team)).await),
        json!([{"kind": "Group", "name": "support"}])
    );
    // Who is removed later stays removed: an agent may be left without.
    let left = ann.changes(&ns, &aid("none", "{}"), json!({"spec": {"sponsors": null}})).await;
    assert_eq!(sponsors(&left), Value::Null);

    let account = "system:serviceaccount:ci:deployer";
    for (name, groups, made) in [
        (account, ["system:serviceaccounts", ALL], "robot"),
        ("system:node:n1", ["system:nodes", ALL], "node"),
        // The schema would refuse the name as a sponsor's.
        (&"x".repeat(257), ["people", ALL], "long"),
    ] {
        let object = user(cp, name, &groups).await.creates(&ns, &aid(made, "{}")).await;
        assert_eq!(sponsors(&object), Value::Null, "{name}");
        assert_eq!(annotation(&object, "author"), name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn author_and_last_editor_can_not_be_forged() {
    let (cp, _turn) = control_plane().await;
    let ns = Namespace::new(cp, "author").await;
    let (ann, bob) = (person(cp, "ann").await, person(cp, "bob").await);
    let forged = json!({"metadata": {"annotations": {
        "agentid.dev/author": "eve", "agentid.dev/edited-by": "eve", "note": "kept"}}});

    let with_forged = aid("a", "{}").replace(
        "name: a}",
        "name: a, annotations: {agentid.dev/author: eve, agentid.dev/edited-by: eve, other: stays}}",
    );
    let made = ann.creates(&ns, &with_forged).await;
    assert_eq!((annotation(&made, "author"), annotation(&made, "edited-by")), ("ann".into(), String::new()));
    assert_eq!(made.metadata.annotations.unwrap()["other"], "stays");

    // Of metadata alone: what is forged is not taken, the rest is.
    let held = bob.changes(&ns, &aid("a", "{}"), forged.clone()).await;
    assert_eq!((annotation(&held, "author"), annotation(&held, "edited-by")), ("ann".into(), String::new()));
    assert_eq!(held.metadata.annotations.unwrap()["note"], "kept");

    let edited = bob.changes(&ns, &aid("a", "{}"), json!({"spec": {"displayName": "A"}})).await;
    assert_eq!(
        (annotation(&edited, "author"), annotation(&edited, "edited-by")),
        ("ann".into(), "bob".into())
    );
    let labelled = ann.changes(&ns, &aid("a", "{}"), json!({"metadata": {"labels": {"l": "v"}}})).await;
    assert_eq!(annotation(&labelled, "edited-by"), "bob");
    // Taken off, they come back.
    let bare = ann.changes(&ns, &aid("a", "{}"), json!({"metadata": {"annotations": null}})).await;
    assert_eq!((annotation(&bare, "author"), annotation(&bare, "edited-by")), ("ann".into(), "bob".into()));
    // `kubectl replace`: the whole object, without what it doesn't know.
    let mut whole = one(&ns.name, &aid("a", "{displayName: B}"));
    whole.metadata.resource_version = bare.metadata.resource_version;
    let api = api_of(ann.client.clone(), &whole);
    let replaced = api.replace("a", &PostParams::default(), &whole).await.unwrap();
    assert_eq!(
        (annotation(&replaced, "author"), annotation(&replaced, "edited-by")),
        ("ann".into(), "ann".into())
    );
    // The status is its writer's business.
    let status =
        json!({"status": {"agentId": AGENT}, "metadata": {"annotations": {"agentid.dev/author": "eve"}}});
    let agents: Api<agentid::api::AgentIdentity> = Api::namespaced(bob.client.clone(), &ns.name);
    agents.patch_status("a", &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    let now = agents.get("a").await.unwrap();
    assert_eq!(now.metadata.annotations.unwrap()["agentid.dev/author"], "ann");
    assert_eq!(now.status.unwrap().agent_id.as_deref(), Some(AGENT));
}

/// Whatever stands in the metadata that is sent.
#[tokio::test(flavor = "multi_thread")]
async fn odd_metadata_is_stamped_too() {
    let (cp, _turn) = control_plane().await;
    let ns = Namespace::new(cp, "odd").await;
    let ann = person(cp, "ann").await;
    let forged = "annotations: {agentid.dev/author: eve, agentid.dev/edited-by: eve}";
    for (name, metadata) in [
        ("nulls", "annotations: null".to_owned()),
        ("empty", "annotations: {}".to_owned()),
        // It can't be had by saying so that an object is on its way out: the API server takes that off.
        ("leaving", format!("deletionTimestamp: \"2030-01-01T00:00:00Z\", {forged}")),
    ] {
        let yaml = aid(name, "{sponsors: null}").replace("name: ", &format!("{metadata}, name: "));
        let object: Value = serde_yaml::from_str(&yaml).unwrap();
        let path = format!("/apis/agentid.dev/v1alpha1/namespaces/{}/agentidentities", ns.name);
        let request = http::Request::post(path).header("content-type", "application/json");
        let request = request.body(serde_json::to_vec(&object).unwrap()).unwrap();
        let made: kube::api::DynamicObject = ann.client.request(request).await.unwrap();
        assert_eq!(
            (annotation(&made, "author"), annotation(&made, "edited-by")),
            ("ann".into(), String::new())
        );
        assert_eq!(made.data["spec"]["sponsors"], json!([{"kind": "User", "name": "ann"}]), "{name}");
        assert!(made.metadata.deletion_timestamp.is_none());
    }
    let now = "2030-01-01T00:00:00Z";
    let patch = json!({"metadata": {"deletionTimestamp": now, "annotations": {"agentid.dev/author": "eve"}}});
    // The API server refuses it or takes it off.
    let answer = ann.try_merge(&ns.name, &aid("nulls", "{}"), &patch, false).await;
    assert!(answer.map_or(true, |o| annotation(&o, "author") == "ann"));
    assert_eq!(ns.agent("nulls").await.unwrap().metadata.annotations.unwrap()["agentid.dev/author"], "ann");
}

/// Server-side apply by the same robot, again and again: what the API server wrote is not taken off or fought over.
#[tokio::test(flavor = "multi_thread")]
async fn applying_again_changes_nothing() {
    let (cp, _turn) = control_plane().await;
    let ns = Namespace::new(cp, "reapply").await;
    let ann = person(cp, "ann").await;
    let object = one(&ns.name, &aid("a", "{displayName: A}"));
    let api = api_of(ann.client.clone(), &object);
    let params = PatchParams::apply("gitops");
    let first = api.patch("a", &params, &Patch::Apply(&object)).await.unwrap();
    assert_eq!(annotation(&first, "author"), "ann");
    let robot = user(cp, "system:serviceaccount:ci:gitops", &[ALL]).await;
    let again = api_of(robot.client, &object).patch("a", &params, &Patch::Apply(&object)).await.unwrap();
    assert_eq!(again.metadata.resource_version, first.metadata.resource_version, "{again:?}");
    assert_eq!(again.data["spec"]["sponsors"], json!([{"kind": "User", "name": "ann"}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_ours_is_stamped() {
    let (cp, _turn) = control_plane().await;
    let ns = Namespace::new(cp, "kinds").await;
    let ann = person(cp, "ann").await;
    for (kind, spec) in [
        ("AgentIdentity", "{}"),
        ("AgentResource", "{audience: 'https://$NS.example.com'}"),
        ("AgentGrant", "{agents: {selector: {}}, resource: r, application: {}}"),
        ("AgentBlueprint", "{namespaceSelector: {matchLabels: {none: such}}}"),
        ("AgentPolicy", "{suspend: false}"),
    ] {
        let yaml = format!(
            "{{apiVersion: agentid.dev/v1alpha1, kind: {kind}, metadata: {{name: $NS, labels: {{agentid.dev/test-namespace: $NS}}}}, spec: {spec}}}"
        );
        assert_eq!(annotation(&ann.creates(&ns, &yaml).await, "author"), "ann", "{kind}");
    }
}

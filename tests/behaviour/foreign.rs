//! Somebody else's Secret under the name of ours: never changed, reported, waited for.

use k8s_openapi::api::core::v1::Secret;

use crate::kit::*;

async fn refused_until_it_goes(prefix: &str, foreign: &str, parts: &[&str]) {
    let t = Test::new(prefix).await;
    t.apply(foreign).await;
    let theirs = t.secret("a-agentid").await.unwrap();
    t.apply(&agent("a", "")).await;
    let mut wanted = vec!["spec.secretName", "a-agentid", "$NS", "delete or rename it"];
    wanted.extend(parts);
    t.refused("a", "ForeignObject", &wanted).await;
    t.event("a", "Warning ForeignObject", &["a-agentid"]).await;
    tokio::time::sleep(PAUSE).await;
    assert_eq!(t.secret("a-agentid").await.unwrap(), theirs, "a foreign Secret was changed");

    t.delete("{apiVersion: v1, kind: Secret, metadata: {name: a-agentid}}").await;
    t.has_files("a-agentid", &["agent.json", "identity.jwt"], LATER).await;
    t.ready("a").await;
    t.verified("a-agentid").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opaque_secret_is_refused_and_taken_up_when_it_goes() {
    let foreign = "{apiVersion: v1, kind: Secret, metadata: {name: a-agentid}, stringData: {key: theirs}}";
    refused_until_it_goes("opaque", foreign, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hand_made_secret_of_our_type_is_refused() {
    let foreign = "{apiVersion: v1, kind: Secret, metadata: {name: a-agentid}, type: agentid.dev/credentials, \
         stringData: {identity.jwt: forged}}";
    refused_until_it_goes("handmade", foreign, &["type agentid.dev/credentials"]).await;
}

/// A foreign Secret with no agent waiting for its name is nobody's business.
#[tokio::test(flavor = "multi_thread")]
async fn a_hand_made_secret_without_an_agent_stays() {
    let t = Test::new("stranger").await;
    t.apply("{apiVersion: v1, kind: Secret, metadata: {name: s}, type: agentid.dev/credentials}").await;
    tokio::time::sleep(PAUSE).await;
    assert!(t.secret("s").await.is_some());
}

/// Deleted and replaced by somebody's own in one moment: theirs is left alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_takes_the_place_of_ours_is_left_alone() {
    let t = Test::new("usurped").await;
    t.apply(&agent("a", "")).await;
    t.ready("a").await;
    // Made first, so that the name is free for as short as can be.
    let theirs: Secret =
        serde_json::from_value(serde_json::json!({"metadata": {"name": "a-agentid"}})).unwrap();
    let api = t.api::<Secret>();
    let mut won = None;
    for _ in 0..20 {
        api.delete("a-agentid", &kube::api::DeleteParams::default()).await.unwrap();
        if let Ok(made) = api.create(&kube::api::PostParams::default(), &theirs).await {
            won = Some(made);
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    }
    let theirs = won.expect("the operator was faster twenty times");
    t.refused("a", "ForeignObject", &["a-agentid"]).await;
    tokio::time::sleep(PAUSE).await;
    assert_eq!(t.secret("a-agentid").await.unwrap(), theirs);
}

//! An agent's own switches, and its end.

use agentid::api::AgentIdentity;
use k8s_openapi::api::core::v1::Secret;
use serde_json::json;

use crate::common::eventually;
use crate::kit::*;

const HELD: &[&str] = &["agent.json", "g.jwt", "identity.jwt"];

#[tokio::test(flavor = "multi_thread")]
async fn suspend_withdraws_and_resume_gives_back() {
    let t = Test::new("suspend").await;
    t.apply(&[resource("r"), grant("g", "selector: {}", "r", ""), agent("a", "")].concat()).await;
    t.has_files("a-agentid", HELD, SOON).await;
    let secret = t.secret("a-agentid").await.unwrap();
    t.merge::<AgentIdentity>("a", json!({"spec": {"suspend": true}})).await;
    t.refused("a", "Suspended", &["spec.suspend is true", "set it to false"]).await;
    t.withdrawn("a-agentid", "Suspended").await;
    t.condition("a", "GrantsHeld", "False", "Suspended", &["0 of 1"]).await;
    t.grant_is("a", "g", "Refused", "Suspended").await;
    t.grant_says("g", "False", "Suspended", &["AgentIdentity a"]).await;
    let now = t.secret("a-agentid").await.unwrap();
    assert_eq!(now.metadata.uid, secret.metadata.uid, "pods mount it: it stays");
    assert_eq!(now.metadata.annotations.unwrap()["agentid.dev/renew-at"], "");

    t.merge::<AgentIdentity>("a", json!({"spec": {"suspend": false}})).await;
    t.has_files("a-agentid", HELD, SOON).await;
    t.ready("a").await;
    t.verified("a-agentid").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_begins_suspended_gets_nothing() {
    let t = Test::new("suspended").await;
    t.apply(&agent("a", "suspend: true")).await;
    t.refused("a", "Suspended", &[]).await;
    tokio::time::sleep(PAUSE).await;
    assert!(t.secret("a-agentid").await.is_none());
    t.apply(&agent("a", "suspend: false")).await;
    t.ready("a").await;
    t.verified("a-agentid").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_agent_takes_its_secret_along() {
    let t = Test::new("gone").await;
    t.apply(&agent("a", "")).await;
    let first = t.ready("a").await;
    let secret = t.secret("a-agentid").await.unwrap();
    t.delete(&agent("a", "")).await;
    t.no_secret("a-agentid").await;
    assert!(t.agent("a").await.is_none());

    // One that takes the name at once is another agent.
    t.apply(&agent("a", "")).await;
    t.ready("a").await;
    t.delete(&agent("a", "")).await;
    t.apply(&agent("a", "")).await;
    let last = eventually("the new agent's own Secret", SOON, || async {
        let uid = t.agent("a").await.and_then(|a| a.metadata.uid).ok_or("no agent")?;
        let secret = t.secret("a-agentid").await.ok_or("no Secret")?;
        let owner = secret.metadata.owner_references.clone().unwrap_or_default();
        if owner.len() == 1 && owner[0].uid == uid { Ok(secret) } else { Err("not its own") }
    })
    .await;
    assert_ne!(last.metadata.uid, secret.metadata.uid);
    let tokens = t.verified("a-agentid").await;
    let id = tokens["identity.jwt"].claims["sub"].as_str().unwrap();
    assert!(!id.ends_with(&first.metadata.uid.unwrap()), "an agent id was reassigned");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_lifetime_that_changes_is_followed() {
    let t = Test::new("lifetime").await;
    t.apply(&agent("a", "tokenLifetime: 24h")).await;
    t.ready("a").await;
    let lifetime = async || {
        let token = t.verified("a-agentid").await.remove("identity.jwt").unwrap();
        token.claims["exp"].as_i64().unwrap() - token.claims["iat"].as_i64().unwrap()
    };
    assert_eq!(lifetime().await, 86_400);
    let old = t.secret("a-agentid").await.unwrap();
    t.apply(&agent("a", "tokenLifetime: 10m")).await;
    eventually("a shorter token", SOON, || async {
        t.secret("a-agentid")
            .await
            .filter(|s: &Secret| s.metadata.resource_version != old.metadata.resource_version)
    })
    .await;
    assert_eq!(lifetime().await, 600);
}

/// A namespace goes with all that is in it, and nothing holds it up.
#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_goes_without_waiting_for_us() {
    let t = Test::new("going").await;
    t.apply(&(agent("a", "") + &agent("b", ""))).await;
    t.ready("a").await;
    t.ready("b").await;
    let namespaces: kube::Api<k8s_openapi::api::core::v1::Namespace> = kube::Api::all(t.client.clone());
    namespaces.delete(&t.name, &kube::api::DeleteParams::default()).await.unwrap();
    eventually("the namespace is gone", LATER, || async {
        namespaces.get_opt(&t.name).await.unwrap().map_or(Ok(()), |n| Err(format!("{:?}", n.status)))
    })
    .await;
}

//! What time alone changes: a grant's and an agent's own.

use std::time::Duration;

use agentid::api::AgentIdentity;
use serde_json::json;

use crate::kit::*;

const NONE: &[&str] = &["agent.json", "identity.jwt"];
const HELD: &[&str] = &["agent.json", "g.jwt", "identity.jwt"];

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_begins_and_ends_to_the_second() {
    let t = Test::new("grant-time").await;
    t.apply(&(resource("r") + &agent("a", ""))).await;
    t.ready("a").await;
    let (start, end) = (now() + 5, now() + 14);
    let times = format!(", notBefore: \"{}\", expiresAt: \"{}\"", in_seconds(5), in_seconds(14));
    t.apply(&grant("g", "names: [a]", "r", &times)).await;
    t.grant_is("a", "g", "Refused", "NotYetValid").await;
    t.condition("a", "GrantsHeld", "False", "NotYetValid", &["spec.notBefore", "not held before"]).await;
    t.has_files("a-agentid", HELD, SOON).await;
    assert!(now() >= start, "held before notBefore");
    let token = &t.verified("a-agentid").await["g.jwt"];
    let exp = token.claims["exp"].as_i64().unwrap();
    assert!((end - 1..=end + 1).contains(&exp), "the token outlives the grant: {exp}, {end}");
    let left = u64::try_from(end - now()).unwrap_or(0);
    t.has_files("a-agentid", NONE, Duration::from_secs(left + 5)).await;
    assert!(now() >= end - 1, "withdrawn before expiresAt");
    t.grant_is("a", "g", "Refused", "Expired").await;
    t.condition("a", "GrantsHeld", "False", "Expired", &["spec.expiresAt", "is past", "set a later time"])
        .await;
    t.grant_says("g", "False", "Expired", &["AgentIdentity a"]).await;

    t.apply(&grant("g", "names: [a]", "r", &format!(", expiresAt: \"{}\"", in_seconds(3600)))).await;
    t.has_files("a-agentid", HELD, SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_expires_comes_back_and_is_deleted_in_the_end() {
    let t = Test::new("agent-time").await;
    let until = |seconds| format!("expiresAt: \"{}\"", in_seconds(seconds));
    t.apply(&[resource("r"), grant("g", "selector: {}", "r", ""), agent("a", &until(6))].concat()).await;
    t.has_files("a-agentid", HELD, SOON).await;
    let end = now() + 6;
    for (file, token) in t.verified("a-agentid").await {
        assert!(token.claims["exp"].as_i64().unwrap() <= end, "{file} outlives its agent");
    }
    t.refused("a", "Expired", &["spec.expiresAt", "is past", "set a later time"]).await;
    t.withdrawn("a-agentid", "Expired").await;
    t.condition("a", "GrantsHeld", "False", "Expired", &["0 of 1"]).await;

    t.apply(&agent("a", &until(3600))).await;
    t.has_files("a-agentid", HELD, SOON).await;
    t.ready("a").await;

    t.apply(&agent("a", &(until(3) + ", ttlSecondsAfterExpired: 4"))).await;
    let agent = t.agent("a").await.unwrap();
    let end = now() + 3;
    t.refused("a", "Expired", &[]).await;
    assert!(t.secret("a-agentid").await.is_some());
    t.no_agent(&agent).await;
    t.no_secret("a-agentid").await;
    assert!(now() >= end + 3, "deleted before its time");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_expired_at_creation_gets_nothing() {
    let t = Test::new("expired").await;
    t.apply(&agent("a", "expiresAt: \"2020-01-01T00:00:00Z\"")).await;
    t.apply(&agent("b", "expiresAt: \"2020-01-01T00:00:00Z\", ttlSecondsAfterExpired: 1")).await;
    t.refused("a", "Expired", &["spec.expiresAt", "2020-01-01T00:00:00Z"]).await;
    tokio::time::sleep(PAUSE).await;
    assert!(t.secret("a-agentid").await.is_none());
    assert!(t.agent("a").await.is_some(), "without ttlSecondsAfterExpired it stays");
    assert!(t.agent("b").await.is_none(), "ttlSecondsAfterExpired is over");
    assert!(t.secret("b-agentid").await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expiry_that_is_taken_off_is_no_expiry() {
    let t = Test::new("no-expiry").await;
    t.apply(&agent("a", &format!("expiresAt: \"{}\", ttlSecondsAfterExpired: 0", in_seconds(6)))).await;
    t.ready("a").await;
    t.merge::<AgentIdentity>("a", json!({"spec": {"expiresAt": null, "ttlSecondsAfterExpired": null}})).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    t.ready("a").await;
    let token = &t.verified("a-agentid").await["identity.jwt"];
    assert_eq!(token.claims["exp"].as_i64().unwrap() - token.claims["iat"].as_i64().unwrap(), 3600);
}

//! Two that want the same: the older wins, the loser says with whom, and takes over.

use crate::kit::*;

#[tokio::test(flavor = "multi_thread")]
async fn two_agents_of_one_secret_name() {
    let t = Test::new("two-agents").await;
    t.apply(&agent("older", "secretName: shared")).await;
    t.ready("older").await;
    next_second().await;
    t.apply(&agent("newer", "secretName: shared")).await;
    t.refused("newer", "Conflict", &["spec.secretName", "shared", "AgentIdentity older", "another one"])
        .await;
    let sub = |t: &std::collections::BTreeMap<String, agentid::crypto::Verified>| {
        t["identity.jwt"].claims["agentid.dev"]["name"].clone()
    };
    assert_eq!(sub(&t.verified("shared").await), "older");
    t.delete(&agent("older", "")).await;
    t.ready("newer").await;
    assert_eq!(sub(&t.verified("shared").await), "newer");
    let owners = t.secret("shared").await.unwrap().metadata.owner_references.unwrap();
    assert_eq!(owners.len(), 1);
    assert_eq!(owners[0].name, "newer");
}

/// A default name counts like one that is written down.
#[tokio::test(flavor = "multi_thread")]
async fn a_default_name_is_taken_too() {
    let t = Test::new("default-name").await;
    t.apply(&agent("b", "secretName: a-agentid")).await;
    t.ready("b").await;
    next_second().await;
    t.apply(&agent("a", "")).await;
    t.refused("a", "Conflict", &["a-agentid", "AgentIdentity b"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_resources_of_one_audience() {
    let t = Test::new("two-resources").await;
    let same = |name: &str| resource(name).replace(&format!("https://{name}."), "https://same.");
    t.apply(&same("older")).await;
    next_second().await;
    t.apply(&[same("newer"), grant("g", "selector: {}", "newer", ""), agent("a", "")].concat()).await;
    let parts = [
        "AgentResource newer-$NS",
        "spec.audience",
        "https://same.$NS.example.com",
        "AgentResource older-$NS",
        "delete one",
    ];
    t.resource_says("newer-$NS", "False", "Conflict", &parts).await;
    t.resource_says("older-$NS", "True", "Issued", &[]).await;
    t.grant_is("a", "g", "Refused", "Conflict").await;
    t.condition("a", "GrantsHeld", "False", "Conflict", &parts).await;
    t.ready("a").await;
    t.delete(&same("older")).await;
    t.grant_is("a", "g", "Held", "").await;
    t.has_files("a-agentid", &["agent.json", "g.jwt", "identity.jwt"], SOON).await;
    t.resource_says("newer-$NS", "True", "Issued", &[]).await;
    t.verified("a-agentid").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_grants_of_one_file() {
    let t = Test::new("two-grants").await;
    let of = |name: &str, role: &str| {
        grant_of(name, "names: [a]", "r", &format!("application: {{roles: [{role}]}}, secretKey: same.jwt"))
    };
    t.apply(&[resource("r"), agent("a", ""), of("older", "reader")].concat()).await;
    t.grant_is("a", "older", "Held", "").await;
    next_second().await;
    t.apply(&of("newer", "writer")).await;
    t.grant_is("a", "newer", "Refused", "Conflict").await;
    let parts = ["spec.secretKey", "same.jwt", "AgentGrant older", "choose another key"];
    t.grant_says("newer", "False", "Conflict", &parts).await;
    t.condition("a", "GrantsHeld", "False", "Conflict", &parts).await;
    let files = t.has_files("a-agentid", &["agent.json", "identity.jwt", "same.jwt"], SOON).await;
    says(&files["agent.json"], &["Conflict", "AgentGrant older"]);
    assert_eq!(t.verified("a-agentid").await["same.jwt"].claims["roles"][0], "reader");
    t.delete(&of("older", "reader")).await;
    t.grant_is("a", "newer", "Held", "").await;
    assert_eq!(t.verified("a-agentid").await["same.jwt"].claims["roles"][0], "writer");
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_issuer_is_no_audience() {
    let t = Test::new("issuer").await;
    let own = resource("own").replace("https://own.$NS.example.com", "https://agents.example.com/$NS");
    t.apply(&[own, grant("g", "selector: {}", "own", ""), agent("a", "")].concat()).await;
    let parts = ["AgentResource own-$NS", "spec.audience", "https://agents.example.com/$NS", "own URI"];
    t.resource_says("own-$NS", "False", "Invalid", &parts).await;
    t.grant_is("a", "g", "Refused", "Invalid").await;
    t.condition("a", "GrantsHeld", "False", "Invalid", &parts).await;
    t.has_files("a-agentid", &["agent.json", "identity.jwt"], SOON).await;
}

//! Tokens of agents' users in their Secrets.

use agentid::domain::agent_user::agent_user_id;
use serde_json::{Value, json};

use crate::kit::*;

const MODES: &str =
    "[{namespaceSelector: {matchLabels: {\"kubernetes.io/metadata.name\": $NS}}, modes: [AgentUser]}]";

/// An agent with a user, of the test's namespace's name.
fn with_user(name: &str, username: &str) -> String {
    agent(name, &format!("description: x, user: {{username: {username}}}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_token_is_delivered_and_goes_with_the_user_alone() {
    let t = Test::new("agent-user").await;
    let username = format!("{}@agents.example.com", t.name);
    t.apply(&resource("tickets")).await;
    t.apply(&resource_with("mail", MODES, "")).await;
    t.apply(&grant("tickets", "names: [triage]", "tickets", "")).await;
    t.apply(&grant_of("mail", "names: [triage]", "mail", "agentUser: {scopes: [read]}, secretKey: mail.jwt"))
        .await;
    t.apply(&with_user("triage", &username)).await;
    let agent_is = t.ready("triage").await;
    let uid = agent_is.metadata.uid.unwrap();
    let id = agent_is.status.unwrap().agent_id.unwrap();
    let all = ["agent.json", "identity.jwt", "mail.jwt", "tickets.jwt"];
    let files = t.has_files("triage-agentid", &all, SOON).await;
    let held = t.grant_is("triage", "mail", "Held", "").await;
    assert_eq!(held.scopes, ["read"]);
    let sub = agent_user_id(uid.parse().unwrap(), &username);
    t.condition("triage", "UserAccepted", "True", "Issued", &[&username, &sub]).await;

    let document: Value = serde_json::from_str(&files["agent.json"]).unwrap();
    let of = |file: &str| document["files"].as_array().unwrap().iter().find(|f| f["file"] == file).cloned();
    assert_eq!(of("mail.jwt").unwrap()["username"], json!(username));
    assert_eq!(of("tickets.jwt").unwrap().get("username"), None);
    let tokens = t.verified("triage-agentid").await;
    let claims = &tokens["mail.jwt"].claims;
    assert_eq!((&claims["sub"], &claims["preferred_username"]), (&json!(sub), &json!(username)));
    assert_eq!(claims["act"]["sub"], json!(id));
    assert_eq!(tokens["tickets.jwt"].claims["sub"], json!(id));

    // A younger one with the same name in capitals is refused that, and nothing else.
    next_second().await;
    t.apply(&grant_of(
        "mail2",
        "names: [second]",
        "mail",
        "agentUser: {scopes: [read]}, secretKey: mail.jwt",
    ))
    .await;
    t.apply(&with_user("second", &username.to_uppercase())).await;
    t.ready("second").await;
    let older = t.fill("older AgentIdentity $NS/triage");
    t.grant_is("second", "mail2", "Refused", "Conflict").await;
    t.condition("second", "UserAccepted", "False", "Conflict", &["spec.user.username", &older]).await;
    t.grant_says("mail2", "False", "Conflict", &[&older]).await;
    t.has_files("second-agentid", &["agent.json", "identity.jwt"], SOON).await;

    t.apply(&agent("triage", "description: x")).await;
    t.has_files("triage-agentid", &["agent.json", "identity.jwt", "tickets.jwt"], SOON).await;
    t.grant_is("triage", "mail", "Refused", "Invalid").await;
    t.ready("triage").await;
    let status = t.agent("triage").await.unwrap().status.unwrap();
    assert!(status.conditions.iter().all(|c| c.type_ != "UserAccepted"), "{:?}", status.conditions);
    let freed = t.has_files("second-agentid", &["agent.json", "identity.jwt", "mail.jwt"], SOON).await;
    assert!(freed["agent.json"].contains(&username.to_uppercase()));
}

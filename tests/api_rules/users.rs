//! The agent user of an AgentIdentity, as the API server takes it.

use super::agent;
use super::common::{ControlPlane, Namespace};

fn user(username: &str) -> String {
    agent(&format!("user: {{username: {username:?}}}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn users_that_are_accepted() {
    let ns = Namespace::new(ControlPlane::shared(), "users-ok").await;
    for name in ["triage@agents.example.com", "T.r_i-9@Agents.Example.com", "a@b"] {
        ns.expect_accepted(&user(name)).await;
    }
    let whole = "user: {username: triage@agents.example.com, displayName: \"Triage \u{fc}ber alles\", email: \
                 triage+in@mail.example.com, manager: ann@example.com}";
    ns.expect_accepted(&agent(whole)).await;
    ns.expect_accepted(&agent("user: null")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_that_are_refused() {
    let ns = Namespace::new(ControlPlane::shared(), "users-bad").await;
    let wanted =
        ["spec.user.username", "ASCII letters", "agentUserDomains", "such as triage@agents.example.com"];
    for name in [
        // Cyrillic, Greek, full-width and a Kelvin sign: none of them looks different from ASCII.
        "tri\u{430}ge@agents.example.com",
        "triage@\u{430}gents.example.com",
        "\u{3bf}ps@agents.example.com",
        "\u{ff41}nn@agents.example.com",
        "\u{212a}ai@agents.example.com",
        "triage",
        "triage@",
        "@agents.example.com",
        "a b@agents.example.com",
        "a+b@agents.example.com",
        "a@b@agents.example.com",
        ".a@agents.example.com",
        "a@agents..example.com",
        "a@-agents.example.com",
        "triage@agents.example.com\n",
    ] {
        ns.expect_rejected(&user(name), &wanted).await;
    }
    let local = format!("{}@agents.example.com", "x".repeat(65));
    ns.expect_rejected(&user(&local), &wanted).await;
    let long = format!("a@{}", ["x".repeat(63).as_str(); 4].join("."));
    ns.expect_rejected(&user(&long), &["spec.user.username", "may not be more than 254"]).await;
    let with = |more: &str| agent(&format!("user: {{username: triage@agents.example.com, {more}}}"));
    for (spec, wanted) in [
        (agent("user: {}"), &["spec.user.username", "Required"][..]),
        (with("email: nobody"), &["spec.user.email", "one mail address"]),
        (with("email: \"\u{430}@b.example\""), &["spec.user.email", "one mail address"]),
        (with("displayName: \"a\\nb\""), &["spec.user.displayName", "one line"]),
        (with("manager: \" ann\""), &["spec.user.manager", "one line"]),
        (with("password: x"), &["unknown field \"spec.user.password\""]),
    ] {
        ns.expect_rejected(&spec, wanted).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_username_stays_while_there_is_a_user() {
    let ns = Namespace::new(ControlPlane::shared(), "users-change").await;
    ns.apply(&agent("suspend: true")).await;
    ns.apply(&user("triage@agents.example.com")).await;
    let wanted = ["spec.user.username", "immutable while user is set", "remove user"];
    ns.expect_change_rejected(&user("other@agents.example.com"), &wanted).await;
    ns.expect_change_rejected(&user("Triage@agents.example.com"), &wanted).await;
    ns.apply(&agent("user: {username: triage@agents.example.com, email: triage@agents.example.com}")).await;
    ns.apply(&agent("suspend: true")).await;
    ns.apply(&user("other@agents.example.com")).await;
}

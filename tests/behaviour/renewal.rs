//! Renewal: in time, one write, all files together.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;

use crate::common::eventually;
use crate::kit::*;

/// The shortest file sets the rhythm of its Secret: two thirds of 62 s here.
#[tokio::test(flavor = "multi_thread")]
async fn all_files_renew_together_by_one_write() {
    let t = Test::new("renewal").await;
    t.apply(
        &[
            resource_with("short", THIS_NAMESPACE, ", maxTokenLifetime: 62s"),
            resource("long"),
            grant("short", "selector: {}", "short", ""),
            grant("long", "selector: {}", "long", ""),
        ]
        .concat(),
    )
    .await;
    t.grant_says("long", "False", "AgentNotFound", &[]).await;
    t.apply(&agent("a", "")).await;
    let wanted = ["agent.json", "identity.jwt", "long.jwt", "short.jwt"];
    t.has_files("a-agentid", &wanted, SOON).await;
    t.ready("a").await;
    t.grant_says("long", "True", "Issued", &[]).await;
    t.grant_says("short", "True", "Issued", &[]).await;
    tokio::time::sleep(PAUSE).await;

    let before = mark();
    let status = t.agent("a").await.unwrap().status;
    let first = t.secret("a-agentid").await.unwrap();
    let second = renewed(&t, &first).await;
    let third = renewed(&t, &second).await;
    let step = issued(&third) - issued(&second);
    assert!((40..=44).contains(&step), "renewed after {step} s, two thirds of 62 s wanted");
    tokio::time::sleep(PAUSE).await;
    assert_eq!(t.writes(before), ["patch secrets", "patch secrets"]);
    assert_eq!(t.agent("a").await.unwrap().status, status);
    t.verified("a-agentid").await;
}

/// Waits for the next write; checks that it renewed every file before one had expired.
async fn renewed(t: &Test, old: &Secret) -> Secret {
    let new = eventually("the renewal", Duration::from_secs(62), || async {
        t.secret("a-agentid").await.filter(|s| s.metadata.resource_version != old.metadata.resource_version)
    })
    .await;
    let (before, after) = (files(old), files(&new));
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    for (file, content) in &after {
        assert_ne!(content, &before[file], "{file} is as it was");
    }
    let tokens = t.verified("a-agentid").await;
    let times: BTreeMap<_, _> = tokens.iter().map(|(f, token)| (f, token.claims["iat"].clone())).collect();
    assert!(times.values().all(|i| i == times.values().next().unwrap()), "{times:?}");
    let due: jiff::Timestamp = annotation(old, "agentid.dev/renew-at").parse().unwrap();
    let late = issued(&new) - due.as_second();
    assert!((0..=3).contains(&late), "renewed {late} s after {due}");
    new
}

fn annotation<'a>(secret: &'a Secret, name: &str) -> &'a str {
    &secret.metadata.annotations.as_ref().unwrap()[name]
}

/// When a Secret's tokens were made: what renews lives 62 s.
fn issued(secret: &Secret) -> i64 {
    let expires: jiff::Timestamp = annotation(secret, "agentid.dev/expires-at").parse().unwrap();
    expires.as_second() - 62
}

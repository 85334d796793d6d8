//! What people see: Events on transitions alone, and the columns of `kubectl get`.

use agentid::api::AgentIdentity;
use serde_json::json;

use crate::common::{ControlPlane, eventually};
use crate::kit::*;

#[tokio::test(flavor = "multi_thread")]
async fn events_tell_transitions_alone() {
    let t = Test::new("events").await;
    t.apply(&(resource("r") + &grant("g", "names: [a]", "r", ""))).await;
    t.apply(&agent("a", "")).await;
    t.ready("a").await;
    t.grant_is("a", "g", "Held", "").await;
    tokio::time::sleep(PAUSE).await;
    assert_eq!(t.events("a").await, Vec::<String>::new(), "a first success is no news");

    t.merge::<AgentIdentity>("a", json!({"spec": {"suspend": true}})).await;
    t.refused("a", "Suspended", &[]).await;
    settled(&t, 2).await;
    let mut told = t.events("a").await;
    told.sort_unstable();
    assert_eq!(
        told,
        [
            "Warning Suspended 0 of 1 grants are held: see Ready",
            "Warning Suspended spec.suspend is true; set it to false to resume the agent",
        ]
    );
    t.merge::<AgentIdentity>("a", json!({"spec": {"suspend": false}})).await;
    t.ready("a").await;
    settled(&t, 4).await;
    let told = t.events("a").await;
    assert_eq!(told.iter().filter(|e| e.starts_with("Normal Issued")).count(), 2, "{told:?}");

    // A change that moves no condition is no news either.
    t.merge::<AgentIdentity>("a", json!({"spec": {"description": "x"}})).await;
    t.apply(&grant("h", "names: [a]", "r", "")).await;
    t.grant_is("a", "h", "Held", "").await;
    settled(&t, 4).await;
}

/// Waits for so many Events about the agent, and that no more come.
async fn settled(t: &Test, wanted: usize) {
    eventually(format!("{wanted} Events"), SOON, || async {
        let events = t.events("a").await;
        if events.len() == wanted { Ok(()) } else { Err(format!("{events:#?}")) }
    })
    .await;
    tokio::time::sleep(PAUSE).await;
    let events = t.events("a").await;
    assert_eq!(events.len(), wanted, "{events:#?}");
}

/// The cells of the one row of `kubectl get`, by column.
fn columns(t: &Test, args: &[&str]) -> Vec<(String, String)> {
    let all = [&["--namespace", &t.name, "get", "--output", "wide"], args].concat();
    let text = ControlPlane::shared().kubectl(all);
    let lines: Vec<_> = text.lines().collect();
    let [head, row] = lines[..] else { panic!("{text}") };
    let starts: Vec<_> = head
        .split_whitespace()
        .scan(0, |from, word| {
            let at = *from + head[*from..].find(word)?;
            *from = at + word.len();
            Some((at, word))
        })
        .collect();
    let cell = |i: usize, at: usize| {
        let end = starts.get(i + 1).map_or(row.len(), |(next, _)| (*next).min(row.len()));
        row.get(at..end).unwrap_or_default().trim().to_owned()
    };
    starts.iter().enumerate().map(|(i, (at, word))| ((*word).to_owned(), cell(i, *at))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_columns_say_how_it_stands() {
    let t = Test::new("columns").await;
    let expires = format!("expiresAt: \"{}\"", in_seconds(7200));
    t.apply(
        &[
            resource("r"),
            grant("g", "names: [a]", "r", ""),
            grant("h", "names: [a]", "absent", ""),
            deployment("d"),
            agent(
                "a",
                &format!(
                    "sponsors: [{{kind: User, name: ann@example.com}}], {expires}, \
                 boundObjectRef: {{apiVersion: apps/v1, kind: Deployment, name: d}}"
                ),
            ),
        ]
        .concat(),
    )
    .await;
    t.ready("a").await;
    t.grant_says("g", "True", "Issued", &[]).await;
    t.grant_says("h", "False", "ResourceNotFound", &[]).await;
    t.resource_says("r-$NS", "True", "Issued", &[]).await;
    let get = |args: &[&str]| columns(&t, args);
    let has = |row: &[(String, String)], wanted: &[(&str, &str)]| {
        for (column, value) in wanted {
            let found = row.iter().find(|(c, _)| c == column).unwrap_or_else(|| panic!("{column}: {row:?}"));
            assert_eq!(found.1, *value, "{column}: {row:?}");
        }
    };
    let id = t.agent("a").await.unwrap().status.unwrap().agent_id.unwrap();
    has(
        &get(&["aid"]),
        &[
            ("NAME", "a"),
            ("READY", "True"),
            ("SECRET", "a-agentid"),
            ("GRANTS", "1/2"),
            ("SPONSOR", "ann@example.com"),
            ("BOUND-TO", "d"),
            ("AGENT-ID", &id),
            ("REASON", "Issued"),
        ],
    );
    has(
        &get(&["agr", "g"]),
        &[
            ("READY", "True"),
            ("RESOURCE", &t.fill("r-$NS")),
            ("HELD", "1"),
            ("REFUSED", "0"),
            ("FILE", "g.jwt"),
        ],
    );
    has(
        &get(&["agr", "h"]),
        &[("READY", "False"), ("HELD", "0"), ("REFUSED", "1"), ("REASON", "ResourceNotFound")],
    );
    eventually("the resource's holders are counted", SOON, || async {
        let row = get(&["ares", &t.fill("r-$NS")]);
        row.iter().any(|(c, v)| c == "HOLDERS" && v == "1").then_some(()).ok_or(row)
    })
    .await;
    has(
        &get(&["ares", &t.fill("r-$NS")]),
        &[("ACCEPTED", "True"), ("AUDIENCE", &t.fill("https://r.$NS.example.com")), ("REASON", "Issued")],
    );
}

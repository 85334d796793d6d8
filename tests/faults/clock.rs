//! The operator's clock is five minutes ahead: everybody is served, nothing is written over and over, and the
//! right clock finds nothing to put right. (Five minutes behind, it would not believe the control plane's
//! certificate, which is younger; the tables of decide and the key ring's histories have both directions.)

use std::path::PathBuf;
use std::time::Duration;

use agentid::crypto::{Expect, JwkSet, Typ, verify};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;

use crate::common::{Namespace, Operator, audit};
use crate::{agent, files, ready, setup, turn};

/// The Debian package libfaketime.
fn libfaketime() -> Option<PathBuf> {
    let dirs = std::fs::read_dir("/usr/lib").ok()?;
    dirs.filter_map(Result::ok).map(|d| d.path().join("faketime/libfaketime.so.1")).find(|p| p.exists())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_five_minutes_ahead_harms_nobody() {
    let Some(library) = libfaketime() else {
        eprintln!("\n!!! SKIPPED: a clock that is off needs libfaketime: apt-get install libfaketime\n");
        return;
    };
    let turn = turn().await;
    let cp = &turn.control_plane;
    let offset = 300i64;
    let system = "agentid-clock";
    let mut wrong = setup(system, "");
    wrong.environment.push(("LD_PRELOAD".to_owned(), library.to_string_lossy().into_owned()));
    wrong.environment.push(("FAKETIME".to_owned(), format!("{offset:+}s")));
    let operator = Operator::start(cp, wrong).await;
    let ns = Namespace::new(cp, "clock").await;
    let mark = audit::mark(cp);
    ns.apply(&agent("a")).await;
    ready(&ns, "a").await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let ours = |e: &audit::Entry| e.is_in(&ns.name) && e.user_agent.starts_with("agentid/");
    let writes = audit::count(cp, mark, |e| {
        ours(e)
            && e.object_ref.as_ref().is_some_and(|o| matches!(&*o.resource, "secrets" | "agentidentities"))
    });
    assert_eq!(writes, 2, "the Secret and the status, once");

    // The clock is really off, and whoever allows for as much takes the token.
    let token = files(&ns, "a-agentid").await.unwrap()["identity.jwt"].clone();
    let issued = agentid::crypto::inspect(&token).unwrap().claims["iat"].as_i64().unwrap();
    let now = jiff::Timestamp::now().as_second();
    assert!((now + offset - issued).abs() < 60, "issued at {issued}, now {now}");
    let maps: Api<ConfigMap> = Api::namespaced(ns.client.clone(), &ns.name);
    let keys =
        JwkSet::parse(&maps.get("agentid-trust").await.unwrap().data.unwrap()["jwks.json"]).unwrap().set;
    let issuer = "https://agents.example.com";
    let expect = Expect { issuer, audience: issuer, typ: Typ::Identity, leeway: 300, now };
    verify(&token, &keys, &expect).unwrap();
    operator.stop();

    // The right clock leaves what is still good as it is, and serves the next one.
    let mark = audit::mark(cp);
    let operator = Operator::start(cp, setup(system, "")).await;
    ns.apply(&agent("b")).await;
    ready(&ns, "b").await;
    assert_eq!(files(&ns, "a-agentid").await.unwrap()["identity.jwt"], token);
    let again = audit::since(cp, mark, |e| {
        ours(e) && e.object_ref.as_ref().is_some_and(|o| o.name.starts_with('a') && o.resource == "secrets")
    });
    assert!(again.is_empty(), "{again:?}");
    operator.stop();
}

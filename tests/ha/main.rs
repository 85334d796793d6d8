//! Operators under load, of which one leads: the leader is killed, held still, cut off, stopped. Never do two write, by
//! the API server's own log; the token service issues throughout; nothing is lost and nothing is left.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod proxy;
mod scene;
#[path = "../common/serve.rs"]
mod service;
mod terms;

use std::time::{Duration, Instant};

use jiff::Timestamp;

use common::audit;
use scene::{Member, Scene};
use terms::Terms;

/// The Lease's duration, the longest pause of a standby between two looks at it, and something for a busy machine.
const TAKEOVER: f64 = 30.0;
/// After the last renewal a leader that can't renew goes, and something for a busy machine.
const DEADLINE: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
async fn one_leads_whatever_happens() {
    let (scene, first) = Scene::new().await;
    let mark = audit::mark(&scene.cp);
    let probe = scene.probe().await;
    let churn = scene.churn();
    let mut terms = Terms::new(mark, &first.name);
    // The first has no fault before it: it is killed at work, not as soon as it may be.
    scene.ready("churn-9").await;

    let second = scene.member("killed-its-leader").await;
    let began = Timestamp::now();
    first.operator.kill9();
    after(&scene, &mut terms, "kill -9", began, &second, TAKEOVER).await;

    let third = scene.member("froze-its-leader").await;
    let began = Timestamp::now();
    second.operator.pause();
    after(&scene, &mut terms, "SIGSTOP", began, &third, TAKEOVER).await;
    second.operator.resume();
    assert_eq!(second.operator.wait().code(), Some(1), "who wakes without the lease ends");

    let fourth = scene.member("cut-its-leader").await;
    let began = Timestamp::now();
    third.proxy.stall();
    ends_by_itself(third).await;
    after(&scene, &mut terms, "a network that drops everything", began, &fourth, TAKEOVER).await;

    let fifth = scene.member("reset-its-leader").await;
    let began = Timestamp::now();
    fourth.proxy.reset();
    ends_by_itself(fourth).await;
    after(&scene, &mut terms, "a network that resets everything", began, &fifth, TAKEOVER).await;

    let sixth = scene.member("outlived-late-writes").await;
    late_writes(&scene, &mut terms, fifth, &sixth).await;

    let seventh = scene.member("stopped-its-leader").await;
    let began = Timestamp::now();
    assert_eq!(sixth.operator.stop().code(), Some(0));
    after(&scene, &mut terms, "SIGTERM", began, &seventh, 10.0).await;

    let count = churn.stop().await;
    scene.settled().await;
    let (tokens, failures) = probe.stop().await;
    println!("{count} agents came and went; {tokens} tokens were sold, {} were not", failures.len());
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(tokens > 1000, "{tokens} tokens");
    terms.check(&scene.cp);
    assert_eq!(seventh.operator.stop().code(), Some(0));
    scene.stop();
}

/// Waits until another has taken over, and tells how long that took: until its first write, and until an agent is served
/// that came after the fault.
async fn after(scene: &Scene, terms: &mut Terms, what: &str, began: Timestamp, next: &Member, within: f64) {
    let agent = format!("after-{}", next.name);
    scene.agent(&agent, "churn").await.unwrap();
    scene.led_by(&next.name, 60).await;
    scene.ready(&agent).await;
    let served = Timestamp::now().duration_since(began).as_secs_f64();
    terms.begin(&next.name);
    let led = terms.first_write(&scene.cp, &next.name).duration_since(began).as_secs_f64();
    println!(
        "takeover after {what}: {led:.1} s until the first write, {served:.1} s until a new agent is Ready"
    );
    assert!(led < within, "{what}: {led} s");
}

/// A leader that can't reach the API server goes before another may come.
async fn ends_by_itself(leader: Member) {
    let began = Instant::now();
    let name = leader.name;
    let status = tokio::task::spawn_blocking(move || leader.operator.wait()).await.unwrap();
    let took = began.elapsed();
    println!("{name}, cut off, ended after {:.1} s", took.as_secs_f64());
    assert_eq!(status.code(), Some(1), "{name}");
    assert!(took < DEADLINE, "{name}: {took:?}");
}

/// What the leader sends reaches the API server only when another has led for a while: held up in the network, and the
/// sender held still, so that it can't take it back.
async fn late_writes(scene: &Scene, terms: &mut Terms, leader: Member, next: &Member) {
    // Connections that are open and idle: nothing can be sent over one that is still to be made.
    for i in 0..30 {
        scene.agent(&format!("burst-{i}"), "churn").await.unwrap();
    }
    scene.ready("burst-29").await;
    let began = Timestamp::now();
    leader.proxy.stall();
    // New work for every connection, which the next leader will have done long before this arrives.
    for i in 0..10 {
        scene.agent(&format!("late-{i}"), "churn").await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
    leader.operator.pause();
    after(scene, terms, "late writes", began, next, TAKEOVER).await;
    scene.ready("late-9").await;
    // Renewals that were due while nobody led.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let held = leader.proxy.held();
    leader.proxy.forward();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let late = terms.late(&scene.cp, &leader.name, &next.name);
    println!("late writes: {held} bytes were held up; {late}");
    assert!(late.refused.contains_key("patch 409"), "nothing was late: {late}");
    leader.operator.resume();
    assert_eq!(leader.operator.wait().code(), Some(1));
}

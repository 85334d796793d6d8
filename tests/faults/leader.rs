//! One leads, the others stand by; who loses the lease ends; a stop gives it back.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;

use crate::common::{ControlPlane, Namespace, Operator, Setup, audit, eventually};
use crate::{agent, ready, setup, turn};

async fn holder(cp: &ControlPlane, namespace: &str) -> Option<String> {
    let leases: Api<Lease> = Api::namespaced(cp.client().await, namespace);
    leases.get("agentid-operator").await.ok()?.spec?.holder_identity.filter(|h| !h.is_empty())
}

fn named(name: &str) -> Setup {
    let mut setup = setup("agentid-leader", "");
    setup.environment.push(("POD_NAME".to_owned(), name.to_owned()));
    setup
}

async fn led_by(cp: &ControlPlane, name: &str, within: u64) {
    eventually(format!("{name} leads"), Duration::from_secs(within), || async {
        match holder(cp, "agentid-leader").await {
            Some(h) if h.starts_with(name) => Ok(()),
            other => Err(other),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_one_leader_and_it_is_followed() {
    let turn = turn().await;
    let cp = &turn.control_plane;
    let first = Operator::start(cp, named("first")).await;
    led_by(cp, "first", 5).await;
    let second = Operator::spawn(cp, &named("second"));
    let ns = Namespace::new(cp, "leader").await;
    let mark = audit::mark(cp);
    for i in 0..20 {
        ns.apply(&agent(&format!("a{i}"))).await;
    }
    ready(&ns, "a19").await;
    let doubled = audit::count(cp, mark, |e| e.is_in(&ns.name) && e.verb == "create" && e.is_of("secrets"));
    assert_eq!(doubled, 20, "one process writes");
    led_by(cp, "first", 5).await;

    // A stop gives the lease back: the other leads at once.
    let began = Instant::now();
    assert_eq!(first.stop().code(), Some(0));
    led_by(cp, "second", 10).await;
    println!("takeover after a stop: {:.1} s", began.elapsed().as_secs_f32());
    ns.apply(&agent("later")).await;
    ready(&ns, "later").await;

    // A kill is noticed when the lease has run out.
    let third = Operator::spawn(cp, &named("third"));
    tokio::time::sleep(Duration::from_secs(3)).await;
    let began = Instant::now();
    second.kill9();
    led_by(cp, "third", 40).await;
    println!("takeover after a kill: {:.1} s", began.elapsed().as_secs_f32());
    ns.apply(&agent("latest")).await;
    ready(&ns, "latest").await;

    // Held still past its lease and woken, it ends without a write.
    let fourth = Operator::spawn(cp, &named("fourth"));
    tokio::time::sleep(Duration::from_secs(3)).await;
    third.pause();
    led_by(cp, "fourth", 40).await;
    ns.apply(&agent("frozen")).await;
    ready(&ns, "frozen").await;
    third.resume();
    assert_eq!(third.wait().code(), Some(1), "who has lost the lease ends");
    fourth.stop();
}

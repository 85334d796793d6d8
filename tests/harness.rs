//! The tests' own tools, where a fault in them would hide faults in the product.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::time::{Duration, Instant};

use common::{ControlPlane, Namespace, Process, audit, eventually, target_dir, unique};

fn process(script: &str) -> Process {
    let dir = target_dir().join("test-logs");
    std::fs::create_dir_all(&dir).unwrap();
    let words = ["sh", "-c", script].map(str::to_owned);
    Process::spawn(dir.join(format!("process-{}.log", unique())), &words, &[])
}

fn exists(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn a_process_ends_with_whoever_holds_it() {
    let (running, paused) = (process("exec sleep 600"), process("exec sleep 600"));
    paused.signal("STOP");
    let pids = [running.pid, paused.pid];
    assert!(pids.into_iter().all(exists));
    let began = Instant::now();
    drop((running, paused));
    assert!(!pids.into_iter().any(exists));
    assert!(began.elapsed() < Duration::from_secs(5), "by SIGTERM, not at the end of patience");
}

#[test]
fn a_process_that_ends_tells_how() {
    let ended = process("echo said; exit 7");
    let log = ended.log.clone();
    assert_eq!(ended.wait().code(), Some(7));
    assert_eq!(std::fs::read_to_string(log).unwrap(), "said\n");
    let killed = process("exec sleep 600");
    killed.signal("KILL");
    assert_eq!(killed.wait().code(), Some(128 + 9));
}

#[tokio::test]
async fn waiting_tells_what_it_saw() {
    let mut looks = 0;
    let found = eventually("the third look", Duration::from_secs(5), || {
        looks += 1;
        std::future::ready((looks == 3).then_some(looks))
    });
    assert_eq!(found.await, 3);

    let waiting = tokio::spawn(async {
        eventually("a pig that flies", Duration::from_millis(120), || async {
            Err::<(), _>("a walking pig")
        })
        .await;
    });
    let panic = waiting.await.unwrap_err().into_panic();
    let said = panic.downcast_ref::<String>().unwrap();
    for part in ["a pig that flies", "a walking pig", "120ms", "harness.rs"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_counts_writes() {
    let control_plane = ControlPlane::shared();
    if control_plane.audit_log.is_none() {
        eprintln!("skipped: the cluster of AGENTID_TEST_CONTEXT shows no audit log");
        return;
    }
    let ns = Namespace::new(control_plane, "audit").await;
    let mark = audit::mark(control_plane);
    let secret = "{apiVersion: v1, kind: Secret, metadata: {name: s}, stringData: {k: v}}";
    ns.apply(secret).await;
    ns.try_apply(&secret.replace("name: s", "name: S")).await.unwrap_err();
    assert!(ns.secret("s").await.is_some(), "a read, which is not counted");
    ns.delete(secret).await;
    let secrets = audit::since(control_plane, mark, |e| e.is_of("secrets") && e.is_in(&ns.name));
    let seen: Vec<_> = secrets.iter().map(|e| (e.verb.as_str(), e.succeeded())).collect();
    assert_eq!(seen, [("patch", true), ("patch", false), ("delete", true)]);
}

/// A control plane of the test's own can be broken, and does not outlive it.
#[tokio::test(flavor = "multi_thread")]
async fn a_private_control_plane_can_be_stopped() {
    let control_plane = ControlPlane::private("harness");
    let state = control_plane.kubeconfig.parent().unwrap().to_owned();
    let ns = Namespace::new(&control_plane, "fault").await;
    let agent = "{apiVersion: agentid.dev/v1alpha1, kind: AgentIdentity, metadata: {name: a}, spec: {}}";
    ns.apply(agent).await;
    control_plane.stop_apiserver();
    assert!(ns.try_apply(agent).await.is_err());
    control_plane.start_apiserver();
    assert!(ns.agent("a").await.is_some(), "its data is still there");
    drop(ns);
    drop(control_plane);
    assert!(!state.exists(), "{} is left", state.display());
}

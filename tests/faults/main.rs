//! What happens when things break: the operator is killed, stopped, held still; the API server goes away; the
//! key ring is lost, damaged, rolled back. On a control plane of its own, one test after another.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod certificates;
mod churn;
mod clock;
#[path = "../common/mod.rs"]
mod common;
mod drills;
mod keys;
mod restart;
mod restore;
mod ring;
mod serve;
#[path = "../common/serve.rs"]
mod service;
mod uninstall;

use std::sync::Arc;
use std::time::Duration;

use agentid::api::SECRET_TYPE;
use common::{ControlPlane, Namespace, Setup, eventually};
use tokio::sync::{Mutex, MutexGuard};

/// The control plane that these tests break. It goes with the last test that holds it, or with the process.
static BROKEN: Mutex<Option<Arc<ControlPlane>>> = Mutex::const_new(None);

/// The control plane, for one test at a time.
struct Turn {
    control_plane: Arc<ControlPlane>,
    _turn: MutexGuard<'static, Option<Arc<ControlPlane>>>,
}

async fn turn() -> Turn {
    let mut turn = BROKEN.lock().await;
    if turn.is_none() {
        let started = tokio::task::spawn_blocking(|| ControlPlane::private("faults")).await.unwrap();
        *turn = Some(Arc::new(started));
    } else if let Some(control_plane) = &*turn {
        // An operator makes no ring of its own while tokens live that another signed: who had the turn before has left some.
        let credentials = format!("type={SECRET_TYPE}");
        control_plane.kubectl(["delete", "secrets", "-A", "--field-selector", &credentials]);
    }
    Turn { control_plane: turn.clone().unwrap(), _turn: turn }
}

/// An operator in a namespace of its own: each test has a key ring of its own.
fn setup(namespace: &str, more: &str) -> Setup {
    let setup = Setup::default();
    Setup { namespace: namespace.to_owned(), configuration: setup.configuration.clone() + more, ..setup }
}

fn agent(name: &str) -> String {
    format!(
        "{{apiVersion: agentid.dev/v1alpha1, kind: AgentIdentity, metadata: {{name: {name}}}, spec: {{}}}}"
    )
}

async fn ready(ns: &Namespace, name: &str) {
    eventually(format!("{name} is Ready"), Duration::from_secs(60), || async {
        match ns.agent(name).await.and_then(|a| a.status) {
            Some(s) if common::condition(&s.conditions, "Ready").is_some_and(|c| c.status == "True") => {
                Ok(())
            }
            other => Err(other),
        }
    })
    .await;
}

/// The reason and the message of an agent's condition Ready, once it has this reason.
async fn refused(ns: &Namespace, name: &str, reason: &str) -> String {
    eventually(format!("{name} says {reason}"), Duration::from_secs(60), || async {
        let status = ns.agent(name).await.and_then(|a| a.status).ok_or("no status")?;
        let ready = common::condition(&status.conditions, "Ready").ok_or("no Ready")?;
        if ready.reason == reason { Ok(ready.message.clone()) } else { Err(format!("{ready:?}")) }
    })
    .await
}

/// The files of an agent's Secret.
async fn files(ns: &Namespace, secret: &str) -> Option<std::collections::BTreeMap<String, String>> {
    let data = ns.secret(secret).await?.data?;
    Some(data.into_iter().map(|(k, v)| (k, String::from_utf8(v.0).unwrap())).collect())
}

//! 500 creates and 500 deletes: undisturbed, with the operator killed in the middle, and with the API server
//! away for 30 s. Nothing is lost, nothing is left, and nothing much is written twice.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use agentid::api::AgentIdentity;
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};

use crate::common::{ControlPlane, Namespace, Operator, Setup, audit, eventually};
use crate::{setup, turn};

const EACH: usize = 500;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    OperatorKilled,
    ApiServerGone,
}

#[tokio::test(flavor = "multi_thread")]
async fn creates_and_deletes_survive_kills() {
    let turn = turn().await;
    let cp = &turn.control_plane;
    let setup = Setup { patience: Duration::from_secs(90), ..setup("agentid-churn", "") };
    let mut operator = Some(Operator::start(cp, setup.clone()).await);
    let mut writes = Vec::new();
    for fault in [Fault::None, Fault::OperatorKilled, Fault::ApiServerGone] {
        writes.push(run(cp, &setup, &mut operator, fault).await);
        println!("{fault:?}: {} writes to Secrets and AgentIdentities", writes.last().unwrap());
    }
    for disturbed in &writes[1..] {
        let ratio = *disturbed as f64 / writes[0] as f64;
        assert!((0.9..=1.1).contains(&ratio), "{writes:?}: within 10 % of the undisturbed run's");
    }
    operator.unwrap().stop();
}

/// Gives the number of successful writes that others than the test made.
async fn run(cp: &ControlPlane, setup: &Setup, operator: &mut Option<Operator>, fault: Fault) -> usize {
    let ns = Namespace::new(cp, "churn").await;
    let agents: Api<AgentIdentity> = Api::namespaced(ns.client.clone(), &ns.name);
    let secrets: Api<Secret> = Api::namespaced(ns.client.clone(), &ns.name);
    let names = |prefix: &str| (0..EACH).map(|i| format!("{prefix}-{i}")).collect::<Vec<_>>();
    stream::iter(names("old")).for_each_concurrent(8, |n| create(&agents, n)).await;
    settled(&agents, &secrets, &names("old")).await;

    let mark = audit::mark(cp);
    let done = AtomicUsize::new(0);
    let work = async {
        let creates = stream::iter(names("new")).for_each_concurrent(4, |n| async {
            create(&agents, n).await;
            done.fetch_add(1, Ordering::Relaxed);
        });
        let deletes = stream::iter(names("old")).for_each_concurrent(4, |n| async {
            delete(&agents, n).await;
            done.fetch_add(1, Ordering::Relaxed);
        });
        tokio::join!(creates, deletes);
    };
    let disturb = async {
        while done.load(Ordering::Relaxed) < EACH {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        match fault {
            Fault::None => {}
            Fault::OperatorKilled => {
                operator.take().unwrap().kill9();
                *operator = Some(Operator::start(cp, setup.clone()).await);
            }
            Fault::ApiServerGone => {
                tokio::task::block_in_place(|| cp.kill_apiserver());
                tokio::time::sleep(Duration::from_secs(30)).await;
                tokio::task::block_in_place(|| cp.start_apiserver());
                // It has lost the lease meanwhile, and ends as it should; a Deployment would start it again.
                tokio::time::sleep(Duration::from_secs(3)).await;
                if !operator.as_ref().unwrap().runs() {
                    assert_eq!(operator.take().unwrap().wait().code(), Some(1));
                    *operator = Some(Operator::start(cp, setup.clone()).await);
                }
            }
        }
    };
    tokio::join!(work, disturb);
    settled(&agents, &secrets, &names("new")).await;
    // Late writes would come now.
    tokio::time::sleep(Duration::from_secs(2)).await;
    settled(&agents, &secrets, &names("new")).await;
    audit::count(cp, mark, |e| {
        e.is_in(&ns.name)
            && e.succeeded()
            // Whom the garbage collector reached first while no operator ran, it has deleted in our place.
            && ["agentid/", "kube-controller-manager/"].iter().any(|who| e.user_agent.starts_with(who))
            && e.object_ref.as_ref().is_some_and(|o| matches!(&*o.resource, "secrets" | "agentidentities"))
    })
}

/// Creates an agent, however long the API server is away.
async fn create(agents: &Api<AgentIdentity>, name: String) {
    let agent = AgentIdentity::new(&name, Default::default());
    while let Err(e) = agents.create(&PostParams::default(), &agent).await {
        if matches!(&e, kube::Error::Api(s) if s.is_already_exists()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn delete(agents: &Api<AgentIdentity>, name: String) {
    while let Err(e) = agents.delete(&name, &DeleteParams::default()).await {
        if matches!(&e, kube::Error::Api(s) if s.is_not_found()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Exactly these agents are there, all Ready, each with its Secret, and no other Secret of ours.
async fn settled(agents: &Api<AgentIdentity>, secrets: &Api<Secret>, names: &[String]) {
    let names: BTreeSet<_> = names.iter().cloned().collect();
    eventually("every agent has its Secret, and no Secret is without", Duration::from_secs(120), || async {
        let all = agents.list(&ListParams::default()).await.map_err(|e| e.to_string())?;
        let ready: BTreeSet<_> = all
            .items
            .iter()
            .filter(|a| {
                a.status.as_ref().is_some_and(|s| {
                    crate::common::condition(&s.conditions, "Ready").is_some_and(|c| c.status == "True")
                })
            })
            .filter_map(|a| a.metadata.name.clone())
            .collect();
        let ours = ListParams::default().fields("type=agentid.dev/credentials");
        let held: BTreeSet<_> = secrets
            .list_metadata(&ours)
            .await
            .map_err(|e| e.to_string())?
            .items
            .into_iter()
            .filter_map(|s| s.metadata.name?.strip_suffix("-agentid").map(str::to_owned))
            .collect();
        if all.items.len() == names.len() && ready == names && held == names {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        Err(format!(
            "{} agents, {} Ready, {} Secrets of {}",
            all.items.len(),
            ready.len(),
            held.len(),
            names.len()
        ))
    })
    .await;
}

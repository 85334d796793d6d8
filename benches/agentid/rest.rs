//! What a thousand agents at rest cost: memory of both processes, and the writes of a rolling upgrade.

use std::time::Duration;

use agentid::api::AgentIdentity;
use kube::Api;
use kube::api::ListParams;

use crate::bed::{Bed, metric, quiet, resident};
use crate::common::audit::{self, Entry};
use crate::common::{Operator, Setup, condition, eventually};
use crate::create::names;
use crate::report::{Report, say};
use crate::serve::Scene;
use crate::service::free_port;

const AGENTS: usize = 1000;
/// Before memory is read, and after the upgrade until its writes are counted.
const CALM: Duration = Duration::from_secs(15);
const FIGURES: [&str; 3] = ["memory_at_rest_operator", "memory_at_rest_serve", "upgrade_writes"];

/// `memory_at_rest_operator`, `memory_at_rest_serve`, `upgrade_writes`.
pub async fn rest(bed: &Bed, report: &mut Report) {
    if !report.wants(&FIGURES) {
        return;
    }
    let cp = bed.control_plane();
    let scene = Scene::new(bed, "").await;
    let setup = Setup {
        namespace: scene.town.namespace.clone(),
        configuration: scene.town.configuration.clone(),
        // As it is shipped: the log that users have.
        environment: vec![("RUST_LOG".to_owned(), "info".to_owned())],
        ..Setup::default()
    };
    let empty = memory(&scene.operator, scene.service.pid()).await;
    say(format_args!("at rest without agents: {}", told(empty)));

    let namespace = bed.namespace("bench-rest").await;
    bed.create_agents(&namespace.name, names("rest", AGENTS)).await;
    all_ready(bed, &namespace.name).await;
    quiet(&scene.operator).await;
    // Started anew: what making them took is not at rest.
    let operator = bed.standby(setup.clone()).await;
    scene.operator.stop();
    scene.service.stop();
    leads(&[&operator]).await;
    let service = scene.town.serve(cp).await;
    let full = memory(&operator, service.pid()).await;
    let of = format!("freshly started with {AGENTS} agents ({}), without: {}", told(full), told(empty));
    report.add(FIGURES[0], full.0, of.clone());
    report.add(FIGURES[1], full.1, of);

    if report.wants(&["upgrade_writes"]) {
        // As a Deployment of two replicas is rolled: one comes, and when it is ready one of the old ones goes.
        let second = bed.standby(setup.clone()).await;
        let other = scene.town.serve_at(cp, &format!("127.0.0.1:{}", free_port())).await;
        quiet(&operator).await;
        tokio::time::sleep(CALM).await;
        let mark = audit::mark(cp);
        let (mut operators, mut services) = (Vec::new(), Vec::new());
        for old in [operator, second] {
            operators.push(bed.standby(setup.clone()).await);
            assert_eq!(old.stop().code(), Some(0));
        }
        for old in [service, other] {
            services.push(scene.town.serve_at(cp, &format!("127.0.0.1:{}", free_port())).await);
            assert_eq!(old.stop().code(), Some(0));
        }
        let leader = leads(&operators.iter().collect::<Vec<_>>()).await;
        quiet(&operators[leader]).await;
        tokio::time::sleep(CALM).await;
        let all = audit::since(cp, mark, |e| e.user_agent.starts_with("agentid/"));
        let (credentials, others): (Vec<_>, Vec<_>) = all.into_iter().partition(is_credentials);
        let others = others.iter().filter(|e| !e.is_of("leases")).count();
        let of = format!(
            "to Secrets and AgentIdentities, of {AGENTS} at rest: two operators and two token services replaced one by one, counted {} s beyond rest; {others} other writes beside the Lease's",
            CALM.as_secs()
        );
        report.add("upgrade_writes", f64::from(u32::try_from(credentials.len()).unwrap()), of);
        for operator in operators {
            operator.stop();
        }
        for service in services {
            service.stop();
        }
    } else {
        operator.stop();
        service.stop();
    }
    bed.clear(&namespace.name).await;
}

/// Waits until every agent of a namespace is Ready. Nothing is timed, so no watch is held.
async fn all_ready(bed: &Bed, namespace: &str) {
    let agents = Api::<AgentIdentity>::namespaced(bed.client.clone(), namespace);
    eventually("every agent is Ready", Duration::from_secs(600), || async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let all = agents.list(&ListParams::default()).await.map_err(|e| e.to_string())?.items;
        let is = |a: &&AgentIdentity| {
            let conditions = a.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
            condition(conditions, "Ready").is_some_and(|c| c.status == "True")
        };
        let ready = all.iter().filter(is).count();
        if ready == AGENTS { Ok(()) } else { Err(format!("{ready} of {AGENTS}")) }
    })
    .await;
}

fn is_credentials(entry: &Entry) -> bool {
    entry.object_ref.as_ref().is_some_and(|o| matches!(&*o.resource, "secrets" | "agentidentities"))
}

/// Waits until one of them leads and has looked at every agent; gives which.
async fn leads(operators: &[&Operator]) -> usize {
    eventually("one leads and has looked at every agent", Duration::from_secs(120), || async {
        for (i, operator) in operators.iter().enumerate() {
            let log = std::fs::read_to_string(operator.log()).map_err(|e| e.to_string())?;
            let leads = metric(&operator.metrics().await, "agentid_leader") > 0.5;
            if leads && log.contains("looked at once") {
                return Ok(i);
            }
        }
        Err("none".to_owned())
    })
    .await
}

/// Resident bytes of an operator and a token service, when there has been nothing to do for a while.
async fn memory(operator: &Operator, service: u32) -> (f64, f64) {
    quiet(operator).await;
    tokio::time::sleep(CALM).await;
    (resident(operator.pid()), resident(service))
}

fn told((operator, service): (f64, f64)) -> String {
    format!("operator {:.1} MB, token service {:.1} MB", operator / 1e6, service / 1e6)
}

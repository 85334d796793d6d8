//! How long after an agent's end its tokens are still said to stand.

use std::time::{Duration, Instant};

use agentid::api::AgentIdentity;
use futures::{StreamExt, stream};
use hyper::body::Bytes;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::DeleteParams;

use crate::bed::{Bed, agents_of};
use crate::client::{Poster, form};
use crate::common::{Namespace, eventually};
use crate::create::names;
use crate::report::{Report, percentile, say};
use crate::serve::{JWT_BEARER, Scene};
use crate::watch::{SeenAgent, Sightings};

const AGENTS: usize = 500;
const PER_SECOND: u32 = 50;
const POLL: Duration = Duration::from_millis(5);

const RIGHTS: &str = r"
{apiVersion: v1, kind: ServiceAccount, metadata: {name: asker}}
---
apiVersion: agentid.dev/v1alpha1
kind: AgentResource
metadata: {name: $NS}
spec:
  audience: https://$NS.example.com
  roles: [{name: triager}]
  allow: [{namespaceSelector: {matchLabels: {agentid.dev/test: 'true'}}, roles: [triager]}]
  introspectors: [{namespace: $NS, serviceAccountName: asker}]
---
apiVersion: agentid.dev/v1alpha1
kind: AgentGrant
metadata: {name: tickets}
spec:
  agents: {selector: {}}
  resource: $NS
  application: {roles: [triager]}
  secretKey: tickets.jwt
";

/// `revoke_p99`.
pub async fn revoke(bed: &Bed, report: &mut Report) {
    if !report.wants(&["revoke_p99"]) {
        return;
    }
    let scene = Scene::new(bed, "").await;
    let namespace = Namespace::for_pods(bed.control_plane(), "bench-revoke").await;
    namespace.apply(RIGHTS).await;
    let watch = Sightings::of::<SeenAgent>(&bed.client, &agents_of(&namespace.name)).await;
    bed.create_agents(&namespace.name, names("end", AGENTS)).await;
    watch.until("revoke_p99: agents Ready", AGENTS).await;

    let poster = Poster::new(&scene.service);
    let asker = scene.account_token(&namespace, "asker", None).await;
    let questions = questions(bed, &namespace, &poster, &asker).await;
    say(format_args!("revoke_p99: {AGENTS} agents are deleted, {PER_SECOND}/s"));
    let mut tick = tokio::time::interval(Duration::from_secs(1) / PER_SECOND);
    let ends = stream::FuturesUnordered::new();
    for (name, question) in questions {
        tick.tick().await;
        let agents: Api<AgentIdentity> = Api::namespaced(bed.client.clone(), &namespace.name);
        let poster = poster.clone();
        ends.push(tokio::spawn(async move {
            agents.delete(&name, &DeleteParams::default()).await.unwrap();
            let deleted = Instant::now();
            loop {
                let (status, answer) = poster.json("/introspect", question.clone()).await;
                assert_eq!(status, 200, "{answer}");
                if answer["active"] == false {
                    return deleted.elapsed().as_secs_f64();
                }
                assert!(deleted.elapsed() < Duration::from_secs(60), "{name} still stands");
                tokio::time::sleep(POLL).await;
            }
        }));
    }
    let mut times: Vec<f64> = ends.map(|ended| ended.unwrap()).collect().await;
    drop(poster);
    scene.stop();
    bed.clear(&namespace.name).await;
    let of = format!(
        "{AGENTS} agents at {PER_SECOND}/s, from the answer to DELETE until an introspection says inactive, asked every {} ms; median {:.4}, most {:.4}",
        POLL.as_millis(),
        percentile(&mut times, 0.5),
        percentile(&mut times, 1.0),
    );
    report.add("revoke_p99", percentile(&mut times, 0.99), of);
}

/// What is asked about every agent's token; each is seen to stand first.
async fn questions(bed: &Bed, namespace: &Namespace, poster: &Poster, asker: &str) -> Vec<(String, Bytes)> {
    let secrets: &Api<Secret> = &Api::namespaced(bed.client.clone(), &namespace.name);
    stream::iter(names("end", AGENTS))
        .map(|name| async move {
            let secret = secrets.get(&format!("{name}-agentid")).await.unwrap();
            let token = String::from_utf8(secret.data.unwrap()["tickets.jwt"].0.clone()).unwrap();
            let question = form(&[
                ("client_assertion_type", JWT_BEARER),
                ("client_assertion", asker),
                ("token", &token),
            ]);
            eventually("the token stands", Duration::from_secs(60), || async {
                let (status, answer) = poster.json("/introspect", question.clone()).await;
                if answer["active"] == true { Ok(()) } else { Err(format!("{status} {answer}")) }
            })
            .await;
            (name, question)
        })
        .buffered(16)
        .collect()
        .await
}

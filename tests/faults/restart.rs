//! What happened while the operator was down is put right when it is back, and what is still good stays as it is.

use std::time::Duration;

use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PropagationPolicy};
use serde_json::json;

use crate::common::{Namespace, Operator, audit, eventually};
use crate::{agent, files, ready, refused, setup, turn};

fn resource(roles: &str) -> String {
    format!(
        "{{apiVersion: agentid.dev/v1alpha1, kind: AgentResource, metadata: {{name: $NS}}, spec: {{\
          audience: \"https://$NS.example.com\", roles: [{{name: a}}, {{name: b}}], \
          allow: [{{namespaceSelector: {{}}, roles: {roles}}}]}}}}"
    )
}

fn grant(name: &str, agent: &str) -> String {
    format!(
        "{{apiVersion: agentid.dev/v1alpha1, kind: AgentGrant, metadata: {{name: {name}}}, spec: {{\
          agents: {{names: [{agent}]}}, resource: $NS, application: {{roles: [a, b]}}, secretKey: {name}.jwt}}}}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_rewrites_nothing_that_is_still_good() {
    let turn = turn().await;
    let cp = &turn.control_plane;
    let operator = Operator::start(cp, setup("agentid-restart", "")).await;
    let ns = Namespace::new(cp, "restart").await;
    ns.apply(&resource("[a]")).await;
    for i in 0..50 {
        ns.apply(&agent(&format!("a{i}"))).await;
    }
    ns.apply(&grant("g", "a0")).await;
    ns.apply(
        "{apiVersion: agentid.dev/v1alpha1, kind: AgentIdentity, metadata: {name: idle}, spec: {suspend: true}}",
    )
    .await;
    ready(&ns, "a49").await;
    refused(&ns, "idle", "Suspended").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(operator.stop().code(), Some(0));

    let mark = audit::mark(cp);
    let operator = Operator::start(cp, setup("agentid-restart", "")).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    let writes = audit::since(cp, mark, |e| e.user_agent.starts_with("agentid/") && !e.is_of("leases"));
    assert!(writes.is_empty(), "{writes:?}");
    operator.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_meanwhile_is_put_right() {
    let turn = turn().await;
    let cp = &turn.control_plane;
    let operator = Operator::start(cp, setup("agentid-meanwhile", "")).await;
    let ns = Namespace::for_pods(cp, "meanwhile").await;
    ns.apply(&resource("[a, b]")).await;
    for name in ["edited", "unlabelled", "lost", "orphaned", "ungranted", "narrowed"] {
        ns.apply(&agent(name)).await;
    }
    ns.apply(&grant("gone", "ungranted")).await;
    ns.apply(&grant("less", "narrowed")).await;
    ns.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: p, labels: {agentid.dev/agent: bound}}, \
         spec: {containers: [{name: c, image: example.com/c}]}}",
    )
    .await;
    ns.apply(
        "{apiVersion: agentid.dev/v1alpha1, kind: AgentIdentity, metadata: {name: bound}, \
         spec: {boundObjectRef: {apiVersion: v1, kind: Pod, name: p}}}",
    )
    .await;
    for name in ["edited", "unlabelled", "lost", "orphaned", "ungranted", "narrowed", "bound"] {
        ready(&ns, name).await;
    }
    eventually("both grants are delivered", Duration::from_secs(20), || async {
        let a = files(&ns, "ungranted-agentid").await?.contains_key("gone.jwt");
        (a && files(&ns, "narrowed-agentid").await?.contains_key("less.jwt")).then_some(())
    })
    .await;
    operator.kill9();

    let secrets: Api<k8s_openapi::api::core::v1::Secret> = Api::namespaced(ns.client.clone(), &ns.name);
    let agents: Api<agentid::api::AgentIdentity> = Api::namespaced(ns.client.clone(), &ns.name);
    let params = PatchParams { field_manager: Some("somebody".to_owned()), ..Default::default() };
    let edit = Patch::Merge(json!({"data": {"identity.jwt": "Zm9yZ2Vk"}}));
    secrets.patch("edited-agentid", &params, &edit).await.unwrap();
    let unlabel = Patch::Merge(json!({"metadata": {"labels": {"agentid.dev/agent": null}}}));
    secrets.patch("unlabelled-agentid", &params, &unlabel).await.unwrap();
    secrets.delete("lost-agentid", &DeleteParams::default()).await.unwrap();
    let orphan =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() };
    agents.delete("orphaned", &orphan).await.unwrap();
    ns.delete(&grant("gone", "ungranted")).await;
    ns.apply(&resource("[a]")).await;
    ns.delete("{apiVersion: v1, kind: Pod, metadata: {name: p}}").await;

    let operator = Operator::start(cp, setup("agentid-meanwhile", "")).await;
    eventually("all is put right", Duration::from_secs(60), || async {
        let edited = files(&ns, "edited-agentid").await.ok_or("edited: no Secret")?;
        if edited["identity.jwt"] == "forged" {
            return Err("edited: still forged");
        }
        let label = ns.secret("unlabelled-agentid").await.and_then(|s| s.metadata.labels);
        if label.is_none_or(|l| !l.contains_key("agentid.dev/agent")) {
            return Err("unlabelled: still");
        }
        files(&ns, "lost-agentid").await.ok_or("lost: no Secret")?;
        if ns.secret("orphaned-agentid").await.is_some() {
            return Err("orphaned: the Secret is still there");
        }
        if files(&ns, "ungranted-agentid").await.ok_or("no Secret")?.contains_key("gone.jwt") {
            return Err("ungranted: still has the file");
        }
        let narrowed = files(&ns, "narrowed-agentid").await.ok_or("no Secret")?;
        let claims = agentid::crypto::inspect(&narrowed["less.jwt"]).map_err(|_| "no token")?.claims;
        if claims["roles"] != json!(["a"]) {
            return Err("narrowed: still has both roles");
        }
        if ns.agent("bound").await.is_some() || ns.secret("bound-agentid").await.is_some() {
            return Err("bound: still there");
        }
        Ok(())
    })
    .await;
    operator.stop();
}

//! The admission policies on a real API server, as the users that they tell apart: each rule lets something pass and
//! refuses something, and none is in the way of whoever cleans up. On a control plane of its own, since they hold
//! for a whole cluster. Every user has all rights unless the test says otherwise, so that only admission refuses.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod agents;
mod bindings;
#[path = "../common/mod.rs"]
mod common;
mod inject;
mod operator;
mod passing;
mod resume;
mod stamps;
mod working;

use std::process::Command;
use std::time::Duration;

use common::{ControlPlane, Namespace, api_of, eventually, message, parse};
use kube::Client;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::sync::{OnceCell, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The operator, as the policies are told.
const OPERATOR: &str = "system:serviceaccount:agentid-system:agentid-operator";
/// An agent's user name.
const AGENT: &str = "spiffe://agents.example.com/agent/0b5f4b3e-6f0e-4c64-9a51-0f4f1f0e7a11";
/// Who is in it may do everything.
const ALL: &str = "fence-all";

/// Who holds it for writing runs an operator, which tidies up behind the other tests.
static TURN: RwLock<()> = RwLock::const_new(());

/// The control plane with the policies, on which no operator runs while this is held.
async fn control_plane() -> (&'static ControlPlane, RwLockReadGuard<'static, ()>) {
    let turn = TURN.read().await;
    (fenced().await, turn)
}

/// The same, for one test alone.
async fn alone() -> (&'static ControlPlane, RwLockWriteGuard<'static, ()>) {
    let turn = TURN.write().await;
    (fenced().await, turn)
}

/// It ends with the process.
async fn fenced() -> &'static ControlPlane {
    static FENCED: OnceCell<ControlPlane> = OnceCell::const_new();
    FENCED
        .get_or_init(|| async {
            let cp = tokio::task::spawn_blocking(|| {
                let cp = ControlPlane::private("admission");
                cp.kubectl_with_input(&["apply", "-f", "-"], SETUP.as_bytes());
                cp.kubectl_with_input(&["apply", "--server-side", "-f", "-"], &policies());
                cp
            });
            let cp = cp.await.unwrap();
            active(&cp).await;
            cp
        })
        .await
}

const SETUP: &str = "{apiVersion: v1, kind: Namespace, metadata: {name: agentid-system}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: probe}}
---
{apiVersion: agentid.dev/v1alpha1, kind: AgentPolicy, metadata: {name: probe}, spec: {suspend: true, match: {blueprints: [probe]}}}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: fence-all},
 roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin},
 subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: fence-all}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: fence-edit},
 rules: [{apiGroups: [agentid.dev], resources: ['*'], verbs: [get, list, create, update, patch, delete]}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: fence-edit},
 roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: fence-edit},
 subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: fence-edit}]}
";

/// What `agentid admission` prints.
fn policies() -> Vec<u8> {
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/configuration.yaml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_agentid"));
    command.args(["admission", "--config", config, "--image", "example.com/agentid"]);
    let output = command.env_remove("POD_NAMESPACE").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A policy is in force some time after it is applied, and nothing says so: each is probed.
async fn active(cp: &ControlPlane) {
    let (ann, agent, operator) = (
        person(cp, "ann").await,
        agent(cp).await,
        user(cp, OPERATOR, &["system:serviceaccounts", ALL]).await,
    );
    let editor = user(cp, "ed", &["fence-edit"]).await;
    let probe = |client: &User, yaml: &str| {
        let (client, yaml) = (client.clone(), yaml.to_owned());
        async move { client.try_create("probe", &yaml, true).await.map_err(|e| message(&e).to_owned()) }
    };
    let refused = |answer: Result<DynamicObject, String>, by: &str| match answer {
        Err(text) if text.contains(&format!("'{by}'")) => Ok(()),
        other => Err(format!("{by}: {other:?}")),
    };
    eventually("all policies are in force", Duration::from_secs(60), || async {
        refused(
            probe(&agent, "{apiVersion: v1, kind: Secret, metadata: {name: p}}").await,
            "agentid-agents",
        )?;
        refused(
            probe(&operator, "{apiVersion: v1, kind: Secret, metadata: {name: p}}").await,
            "agentid-operator",
        )?;
        refused(probe(&ann, &binding("RoleBinding", "p", "", &[("User", AGENT)])).await, "agentid-bindings")?;
        let resumed = json!({"spec": {"suspend": false}});
        let kind = "{apiVersion: agentid.dev/v1alpha1, kind: AgentPolicy, metadata: {name: probe}}";
        refused(
            editor.try_merge("probe", kind, &resumed, true).await.map_err(|e| message(&e).to_owned()),
            "agentid-resume",
        )?;
        let made = probe(&ann, &aid("p", "{}")).await?;
        if made.data["spec"]["sponsors"].is_null() || annotation(&made, "author").is_empty() {
            return Err(format!("{made:?}"));
        }
        for mode in ["true", "sidecar"] {
            let pod = probe(&ann, &inject::pod(mode, "")).await?;
            if pod.data["spec"]["volumes"].to_string().contains("\"agentid\"") {
                continue;
            }
            return Err(format!("{pod:?}"));
        }
        Ok(())
    })
    .await;
}

/// Somebody who asks the API server.
#[derive(Clone)]
struct User {
    client: Client,
}

async fn user(cp: &ControlPlane, name: &str, groups: &[&str]) -> User {
    let mut config = cp.config().await;
    config.default_retry = false;
    config.auth_info.impersonate = Some(name.to_owned());
    let groups = groups.iter().chain(&["system:authenticated"]).map(|g| (*g).to_owned());
    config.auth_info.impersonate_groups = Some(groups.collect());
    User { client: Client::try_from(config).unwrap() }
}

/// A person who may do everything.
async fn person(cp: &ControlPlane, name: &str) -> User {
    user(cp, name, &[ALL]).await
}

/// An agent to which somebody gave all rights.
async fn agent(cp: &ControlPlane) -> User {
    user(cp, AGENT, &["agentid:agents", ALL]).await
}

impl User {
    async fn try_create(
        &self,
        namespace: &str,
        yaml: &str,
        dry_run: bool,
    ) -> Result<DynamicObject, kube::Error> {
        let object = one(namespace, yaml);
        let params = PostParams { dry_run, ..PostParams::default() };
        api_of(self.client.clone(), &object).create(&params, &object).await
    }

    async fn try_merge(
        &self,
        namespace: &str,
        yaml: &str,
        patch: &Value,
        dry_run: bool,
    ) -> Result<DynamicObject, kube::Error> {
        let object = one(namespace, yaml);
        let params = PatchParams { dry_run, ..PatchParams::default() };
        let name = object.metadata.name.clone().unwrap();
        api_of(self.client.clone(), &object).patch(&name, &params, &Patch::Merge(patch)).await
    }

    /// Creates it.
    #[track_caller]
    fn creates(&self, ns: &Namespace, yaml: &str) -> impl Future<Output = DynamicObject> {
        let caller = std::panic::Location::caller();
        let (user, namespace, yaml) = (self.clone(), ns.name.clone(), yaml.replace("$NS", &ns.name));
        async move {
            let made = user.try_create(&namespace, &yaml, false).await;
            made.unwrap_or_else(|e| panic!("{caller}: {e}\n{yaml}"))
        }
    }

    /// May not create it, and is told all this.
    #[track_caller]
    fn cannot_create(&self, ns: &Namespace, yaml: &str, wanted: &[&str]) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        let (user, namespace, yaml) = (self.clone(), ns.name.clone(), yaml.replace("$NS", &ns.name));
        async move { check(caller, &yaml, user.try_create(&namespace, &yaml, true).await, wanted) }
    }

    /// Changes what the YAML names.
    #[track_caller]
    fn changes(&self, ns: &Namespace, yaml: &str, patch: Value) -> impl Future<Output = DynamicObject> {
        let caller = std::panic::Location::caller();
        let (user, namespace, yaml) = (self.clone(), ns.name.clone(), yaml.replace("$NS", &ns.name));
        async move {
            let made = user.try_merge(&namespace, &yaml, &patch, false).await;
            made.unwrap_or_else(|e| panic!("{caller}: {e}\n{yaml} {patch}"))
        }
    }

    /// May not change it, and is told all this.
    #[track_caller]
    fn cannot_change(
        &self,
        ns: &Namespace,
        yaml: &str,
        patch: Value,
        wanted: &[&str],
    ) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        let (user, namespace, yaml) = (self.clone(), ns.name.clone(), yaml.replace("$NS", &ns.name));
        async move { check(caller, &yaml, user.try_merge(&namespace, &yaml, &patch, true).await, wanted) }
    }
}

fn check(
    caller: &std::panic::Location<'_>,
    yaml: &str,
    answer: Result<DynamicObject, kube::Error>,
    wanted: &[&str],
) {
    let Err(error) = answer else {
        panic!("{caller}: accepted, but should be refused with {wanted:?}:\n{yaml}")
    };
    for part in wanted {
        assert!(
            message(&error).contains(part),
            "{caller}: {part:?} is not said of\n{yaml}\nbut: {}",
            message(&error)
        );
    }
}

/// One object, in this namespace unless it names another.
fn one(namespace: &str, yaml: &str) -> DynamicObject {
    let mut object = parse(yaml).remove(0);
    if common::resource_of(&object).1 {
        object.metadata.namespace.get_or_insert_with(|| namespace.to_owned());
    }
    object
}

fn aid(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: agentid.dev/v1alpha1, kind: AgentIdentity, metadata: {{name: {name}}}, spec: {spec}}}"
    )
}

fn secret(name: &str, type_: &str) -> String {
    format!("{{apiVersion: v1, kind: Secret, metadata: {{name: {name}}}, type: {type_}}}")
}

fn binding(kind: &str, name: &str, labels: &str, subjects: &[(&str, &str)]) -> String {
    let subject = |(kind, name): &(&str, &str)| {
        format!("{{apiGroup: rbac.authorization.k8s.io, kind: {kind}, name: \"{name}\"}}")
    };
    let subjects: Vec<_> = subjects.iter().map(subject).collect();
    format!(
        "{{apiVersion: rbac.authorization.k8s.io/v1, kind: {kind}, metadata: {{name: {name}, labels: {{{labels}}}}}, \
         roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}}, subjects: [{}]}}",
        subjects.join(", ")
    )
}

/// The annotation `agentid.dev/<name>`; empty where there is none.
fn annotation(object: &DynamicObject, name: &str) -> String {
    let all = object.metadata.annotations.as_ref();
    all.and_then(|a| a.get(&format!("agentid.dev/{name}"))).cloned().unwrap_or_default()
}

//! The shared operator, and what the tests look at: conditions, files, tokens, events, writes.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::time::Duration;

use agentid::api::{AgentIdentity, GrantStatus};
use agentid::crypto::{Expect, JwkSet, Typ, Verified, verify};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use serde_json::Value;

pub use crate::yaml::*;

use crate::common::{
    ControlPlane, Namespace, Operator, Setup, audit, condition, eventually, parse, resource_of,
};

pub const ISSUER: &str = "https://agents.example.com";
/// For what takes the operator one look at the world.
pub const SOON: Duration = Duration::from_secs(15);
/// For what waits for the garbage collector, a repeated look, or seconds that a test chose.
pub const LATER: Duration = Duration::from_secs(60);
/// Long enough for a write that must not come.
pub const PAUSE: Duration = Duration::from_millis(2500);

/// The shortest lifetime in a Secret is a little above the shortest that a resource may name, so that a
/// test can see both a renewal and a lifetime that is too short.
const CONFIGURATION: &str = "apiVersion: config.agentid.dev/v1alpha1
kind: Configuration
issuer: https://agents.example.com
trustDomain: agents.example.com
limits: {tokenLifetime: 1h, minTokenLifetime: 61s}
agentUserDomains: [agents.example.com]
kubernetes: {bindableRoles: [behave-reader, behave-widened, behave-gathered, behave-many, behave-exec]}
boundKinds:
- {apiVersion: v1, kind: Pod}
- {apiVersion: batch/v1, kind: Job}
- {apiVersion: batch/v1, kind: CronJob}
- {apiVersion: apps/v1, kind: Deployment}
- {apiVersion: apps/v1, kind: StatefulSet}
- {apiVersion: apps/v1, kind: DaemonSet}
- {apiVersion: example.com/v1, kind: Sandbox}
";

/// The operator of this binary.
async fn operator() -> &'static Operator {
    static OPERATOR: tokio::sync::OnceCell<Operator> = tokio::sync::OnceCell::const_new();
    let start = || async {
        let setup = Setup { configuration: CONFIGURATION.to_owned(), ..Setup::default() };
        Operator::start(ControlPlane::shared(), setup).await
    };
    OPERATOR.get_or_init(start).await
}

/// A namespace that the operator serves.
pub struct Test(Namespace);

impl Deref for Test {
    type Target = Namespace;
    fn deref(&self) -> &Namespace {
        &self.0
    }
}

/// The seconds since the epoch.
pub fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// Objects that are to differ in age need different seconds.
pub async fn next_second() {
    tokio::time::sleep(Duration::from_millis(1100)).await;
}

/// All parts are said.
#[track_caller]
pub fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not said in: {text}");
    }
}

impl Test {
    pub async fn new(prefix: &str) -> Self {
        operator().await;
        Self(Namespace::new(ControlPlane::shared(), prefix).await)
    }

    pub async fn for_pods(prefix: &str) -> Self {
        operator().await;
        Self(Namespace::for_pods(ControlPlane::shared(), prefix).await)
    }

    /// A namespace of a control plane of the test's own, which has no operator yet.
    pub async fn on(control_plane: &ControlPlane, prefix: &str) -> Self {
        Self(Namespace::new(control_plane, prefix).await)
    }

    /// The texts with `$NS` filled in.
    pub fn fill(&self, text: &str) -> String {
        text.replace("$NS", &self.name)
    }

    pub fn api<K: kube::Resource<Scope = NamespaceResourceScope>>(&self) -> Api<K>
    where
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Waits until a condition of an agent has this status and reason, and its message all these parts.
    pub async fn condition(
        &self,
        agent: &str,
        type_: &str,
        status: &str,
        reason: &str,
        parts: &[&str],
    ) -> Condition {
        let what = format!("AgentIdentity {agent}: {type_} is {status}, {reason}");
        let parts: Vec<_> = parts.iter().map(|p| self.fill(p)).collect();
        eventually(what, LATER, || async {
            let agent = self.agent(agent).await.ok_or("there is none")?;
            let conditions = agent.status.unwrap_or_default().conditions;
            match condition(&conditions, type_) {
                Some(c)
                    if c.status == status
                        && c.reason == reason
                        && parts.iter().all(|p| c.message.contains(p)) =>
                {
                    Ok(c.clone())
                }
                _ => Err(format!("{conditions:?}; wanted in the message: {parts:?}")),
            }
        })
        .await
    }

    /// Waits until an agent is Ready.
    pub async fn ready(&self, name: &str) -> AgentIdentity {
        self.condition(name, "Ready", "True", "Issued", &[]).await;
        self.agent(name).await.unwrap()
    }

    /// Waits until an agent is not Ready for this reason.
    pub async fn refused(&self, name: &str, reason: &str, parts: &[&str]) -> Condition {
        self.condition(name, "Ready", "False", reason, parts).await
    }

    /// Waits until what came of a grant for an agent is as wanted: state, reason (empty: none).
    pub async fn grant_is(&self, agent: &str, grant: &str, state: &str, reason: &str) -> GrantStatus {
        eventually(format!("agent {agent}: grant {grant} is {state} {reason}"), LATER, || async {
            let status = self.agent(agent).await.and_then(|a| a.status).ok_or("no status")?;
            let found = status.grants.iter().find(|g| g.name == grant);
            match found {
                Some(g)
                    if format!("{:?}", g.state) == state && g.reason.as_deref().unwrap_or("") == reason =>
                {
                    Ok(g.clone())
                }
                _ => Err(format!("{status:?}")),
            }
        })
        .await
    }

    /// Waits until a grant's own condition says this.
    pub async fn grant_says(&self, name: &str, status: &str, reason: &str, parts: &[&str]) {
        let parts: Vec<_> = parts.iter().map(|p| self.fill(p)).collect();
        eventually(format!("AgentGrant {name}: Ready is {status}, {reason}"), LATER, || async {
            let found = self.grant(name).await.and_then(|g| g.status).ok_or("no status")?;
            match condition(&found.conditions, "Ready") {
                Some(c)
                    if c.status == status
                        && c.reason == reason
                        && parts.iter().all(|p| c.message.contains(p)) =>
                {
                    Ok(())
                }
                _ => Err(format!("{found:?}; wanted in the message: {parts:?}")),
            }
        })
        .await;
    }

    /// Waits until a resource's condition Accepted says this.
    pub async fn resource_says(&self, name: &str, status: &str, reason: &str, parts: &[&str]) {
        let parts: Vec<_> = parts.iter().map(|p| self.fill(p)).collect();
        eventually(format!("AgentResource {name}: Accepted is {status}, {reason}"), LATER, || async {
            let found = self.resource(name).await.and_then(|r| r.status).ok_or("no status")?;
            match condition(&found.conditions, "Accepted") {
                Some(c)
                    if c.status == status
                        && c.reason == reason
                        && parts.iter().all(|p| c.message.contains(p)) =>
                {
                    Ok(())
                }
                _ => Err(format!("{found:?}; wanted in the message: {parts:?}")),
            }
        })
        .await;
    }

    /// The files of a Secret, as a pod would see them.
    pub async fn files(&self, secret: &str) -> BTreeMap<String, String> {
        self.secret(secret).await.map(|s| files(&s)).unwrap_or_default()
    }

    /// Waits until a Secret has exactly these files.
    pub async fn has_files(
        &self,
        secret: &str,
        wanted: &[&str],
        within: Duration,
    ) -> BTreeMap<String, String> {
        eventually(format!("Secret {secret} has {wanted:?}"), within, || async {
            let files = self.files(secret).await;
            let names: Vec<_> = files.keys().map(String::as_str).collect();
            if names == wanted { Ok(files) } else { Err(format!("{names:?}")) }
        })
        .await
    }

    /// Waits until a Secret has the agent's document alone, and this stands in it.
    pub async fn withdrawn(&self, secret: &str, reason: &str) {
        let files = self.has_files(secret, &["agent.json"], LATER).await;
        let document: Value = serde_json::from_str(&files["agent.json"]).unwrap();
        assert_eq!(document["withdrawn"]["reason"], reason, "{document}");
        assert_eq!(document["files"], Value::Array(Vec::new()), "{document}");
    }

    /// Waits until there is no Secret of that name.
    pub async fn no_secret(&self, name: &str) {
        eventually(format!("Secret {name} is gone"), SOON, || async {
            self.secret(name).await.map_or(Ok(()), |s| Err(format!("{:?}", s.metadata)))
        })
        .await;
    }

    /// Waits until there is no agent of that UID.
    pub async fn no_agent(&self, agent: &AgentIdentity) {
        let name = agent.metadata.name.as_deref().unwrap();
        eventually(format!("AgentIdentity {name} is gone"), LATER, || async {
            let found = self.agent(name).await.filter(|a| a.metadata.uid == agent.metadata.uid);
            found.map_or(Ok(()), |a| Err(format!("{:?}", a.metadata)))
        })
        .await;
    }

    /// The published keys, as a pod of the namespace gets them.
    pub async fn keys(&self) -> JwkSet {
        let trust = self.api::<ConfigMap>().get("agentid-trust").await.unwrap();
        let data = trust.data.unwrap();
        assert_eq!(data["issuer"], ISSUER);
        let parsed = JwkSet::parse(&data["jwks.json"]).unwrap();
        assert!(parsed.skipped.is_empty(), "{:?}", parsed.skipped);
        parsed.set
    }

    /// Verifies every token of a Secret for the audience that its document names, and that each file is in
    /// the document; gives what the tokens say.
    pub async fn verified(&self, secret: &str) -> BTreeMap<String, Verified> {
        let keys = self.keys().await;
        let files = self.files(secret).await;
        let document: Value = serde_json::from_str(&files["agent.json"]).unwrap();
        let mut all = BTreeMap::new();
        for entry in document["files"].as_array().unwrap() {
            let file = entry["file"].as_str().unwrap();
            let typ = if entry["profile"] == "Access" { Typ::Access } else { Typ::Identity };
            let expect = Expect {
                issuer: ISSUER,
                audience: entry["audience"].as_str().unwrap(),
                typ,
                leeway: 2,
                now: now(),
            };
            let token = verify(&files[file], &keys, &expect).unwrap_or_else(|e| panic!("{file}: {e}"));
            all.insert(file.to_owned(), token);
        }
        let tokens: Vec<_> = files.keys().filter(|f| *f != "agent.json").collect();
        assert_eq!(tokens, all.keys().collect::<Vec<_>>(), "files and agent.json differ");
        all
    }

    /// What Events say about an object, as `type reason note`.
    pub async fn events(&self, name: &str) -> Vec<String> {
        let about = ListParams::default().fields(&format!("involvedObject.name={name}"));
        let events = self.api::<Event>().list(&about).await.unwrap().items;
        let part = |t: Option<String>| t.unwrap_or_default();
        events
            .into_iter()
            .filter(|e| e.reporting_component.as_deref() == Some("agentid.dev/operator"))
            .map(|e| format!("{} {} {}", part(e.type_), part(e.reason), part(e.message)))
            .collect()
    }

    /// Waits for an Event about an object that starts so and says all this.
    pub async fn event(&self, name: &str, start: &str, parts: &[&str]) {
        let parts: Vec<_> = parts.iter().map(|p| self.fill(p)).collect();
        eventually(format!("an Event about {name}: {start} … {parts:?}"), SOON, || async {
            let events = self.events(name).await;
            let told = |e: &&String| e.starts_with(start) && parts.iter().all(|p| e.contains(p));
            events.iter().find(told).map(|_| ()).ok_or_else(|| events.clone())
        })
        .await;
    }

    /// Changes an object by a merge patch, as somebody else.
    pub async fn merge<K>(&self, name: &str, patch: Value) -> K
    where
        K: kube::Resource<Scope = NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
        K::DynamicType: Default,
    {
        let params = PatchParams { field_manager: Some("somebody".to_owned()), ..PatchParams::default() };
        self.api::<K>().patch(name, &params, &Patch::Merge(patch)).await.unwrap()
    }

    /// Changes an object's status by a merge patch, as its controller would.
    pub async fn merge_status(&self, yaml: &str, status: Value) {
        let object = parse(yaml).remove(0);
        let name = object.metadata.name.clone().unwrap();
        let api: Api<kube::api::DynamicObject> =
            Api::namespaced_with(self.client.clone(), &self.name, &resource_of(&object).0);
        api.patch_status(
            &name,
            &PatchParams::default(),
            &Patch::Merge(serde_json::json!({"status": status})),
        )
        .await
        .unwrap();
    }

    /// Deletes an object and leaves its dependants.
    pub async fn orphan<K>(&self, name: &str)
    where
        K: kube::Resource<Scope = NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
        K::DynamicType: Default,
    {
        let params = DeleteParams {
            propagation_policy: Some(kube::api::PropagationPolicy::Orphan),
            ..DeleteParams::default()
        };
        self.api::<K>().delete(name, &params).await.unwrap();
    }

    /// The operator's writes in this namespace since then, Events and the trust ConfigMap apart, as
    /// `verb resource[/subresource]`.
    pub fn writes(&self, since: audit::Mark) -> Vec<String> {
        let mine =
            |e: &audit::Entry| e.is_in(&self.name) && e.succeeded() && e.user_agent.starts_with("agentid/");
        audit::since(ControlPlane::shared(), since, mine)
            .into_iter()
            .filter_map(|e| {
                let object = e.object_ref?;
                let of = match object.subresource.as_str() {
                    "" => object.resource,
                    sub => format!("{}/{sub}", object.resource),
                };
                Some(format!("{} {of}", e.verb))
            })
            .filter(|w| !w.ends_with("events") && !w.ends_with("configmaps"))
            .collect()
    }
}

/// The audit log's end now.
pub fn mark() -> audit::Mark {
    audit::mark(ControlPlane::shared())
}

/// The files of a Secret.
pub fn files(secret: &Secret) -> BTreeMap<String, String> {
    let data = secret.data.clone().unwrap_or_default();
    data.into_iter().map(|(k, v)| (k, String::from_utf8(v.0).unwrap())).collect()
}

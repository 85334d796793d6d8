//! The main story, in which both processes do all that they are for: agents of every kind of life, grants on services and
//! on the cluster, blueprints, policies, tokens on demand, rotation, refusals, and the end of it all.

use std::process::Command;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleBinding};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use agentid::net::fetch::{FetchOptions, Guard, Roots, post_form};

use crate::common::{ControlPlane, Namespace, api_of, condition, eventually, parse};
use crate::helm::NAMESPACE;
use crate::service::Town;

const LATER: Duration = Duration::from_secs(60);
const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const DISCOVERY: &str = "system:service-account-issuer-discovery";

const ACCOUNTS: &str = "
{apiVersion: v1, kind: ServiceAccount, metadata: {name: runner}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: human}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: run}
rules: [{apiGroups: [agentid.dev], resources: [agentidentities], verbs: [run]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: run}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: run}
subjects: [{kind: ServiceAccount, name: human, namespace: $NS}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: chart-pod-reader}
rules: [{apiGroups: [\"\"], resources: [pods], verbs: [get, list]}]
";

/// The kinds beside Pod that agents may be bound to, with a spec that runs nothing.
const BOUND: &[(&str, &str, &str)] = &[
    ("batch/v1", "Job", "{suspend: true, template: TEMPLATE}"),
    (
        "batch/v1",
        "CronJob",
        "{suspend: true, schedule: '0 0 1 1 *', jobTemplate: {spec: {template: TEMPLATE}}}",
    ),
    ("apps/v1", "Deployment", "{replicas: 0, selector: {matchLabels: {app: bound}}, template: TEMPLATE}"),
    (
        "apps/v1",
        "StatefulSet",
        "{replicas: 0, serviceName: x, selector: {matchLabels: {app: bound}}, template: TEMPLATE}",
    ),
    ("apps/v1", "DaemonSet", "{selector: {matchLabels: {app: bound}}, template: TEMPLATE}"),
];

/// An object of one of these kinds, named like its kind.
fn workload((api_version, kind, spec): &(&str, &str, &str)) -> String {
    // Which restart policy a kind takes differs.
    let once = if kind.ends_with("Job") { "restartPolicy: Never, " } else { "" };
    let template = format!(
        "{{metadata: {{labels: {{app: bound}}}}, spec: {{{once}containers: [{{name: c, image: none}}]}}}}"
    );
    let (name, spec) = (kind.to_lowercase(), spec.replace("TEMPLATE", &template));
    format!("{{apiVersion: {api_version}, kind: {kind}, metadata: {{name: {name}}}, spec: {spec}}}")
}

/// `wiki` allows nobody, so that a grant on it is refused.
const OBJECTS: &str = "
apiVersion: agentid.dev/v1alpha1
kind: AgentResource
metadata: {name: tickets-$NS}
spec:
  audience: https://tickets.$NS.example.com
  roles: [{name: triager}, {name: reader}]
  allow: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: $NS}}}]
---
{apiVersion: agentid.dev/v1alpha1, kind: AgentResource, metadata: {name: wiki-$NS}, spec: {audience: 'https://wiki.$NS.example.com', roles: [{name: reader}]}}
---
apiVersion: agentid.dev/v1alpha1
kind: AgentResource
metadata: {name: cluster-$NS}
spec:
  audience: https://kubernetes.$NS.example.com
  kubernetes: {}
  roles: [{name: chart-pod-reader}]
  allow: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: $NS}}}]
---
apiVersion: agentid.dev/v1alpha1
kind: AgentBlueprint
metadata: {name: bots-$NS}
spec:
  namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: $NS}}
  podSelector: {matchLabels: {app: bot}}
  identityPer: Pod
  grants: [{name: tickets, resource: tickets-$NS, application: {roles: [reader]}}]
---
{apiVersion: agentid.dev/v1alpha1, kind: AgentPolicy, metadata: {name: watched-$NS}, spec: {enforcement: Audit, match: {blueprints: [bots-*]}, deny: [{roles: [reader]}]}}
---
{apiVersion: agentid.dev/v1alpha1, kind: AgentIdentity, metadata: {name: triage}, spec: {serviceAccountName: runner}}
---
{apiVersion: agentid.dev/v1alpha1, kind: AgentIdentity, metadata: {name: second}, spec: {}}
---
{apiVersion: agentid.dev/v1alpha1, kind: AgentIdentity, metadata: {name: of-pod}, spec: {boundObjectRef: {apiVersion: v1, kind: Pod, name: worker}}}
---
{apiVersion: agentid.dev/v1alpha1, kind: AgentIdentity, metadata: {name: of-nobody}, spec: {boundObjectRef: {apiVersion: v1, kind: Pod, name: absent}}}
---
{apiVersion: agentid.dev/v1alpha1, kind: AgentGrant, metadata: {name: tickets}, spec: {agents: {names: [triage]}, resource: tickets-$NS, application: {roles: [triager]}, secretKey: tickets.jwt}}
---
{apiVersion: agentid.dev/v1alpha1, kind: AgentGrant, metadata: {name: wiki}, spec: {agents: {names: [triage]}, resource: wiki-$NS, application: {roles: [reader]}}}
---
{apiVersion: agentid.dev/v1alpha1, kind: AgentGrant, metadata: {name: cluster}, spec: {agents: {names: [triage]}, resource: cluster-$NS, application: {roles: [chart-pod-reader]}}}
";

/// The stage: a namespace with objects and pods of the story.
pub struct Story<'a> {
    control_plane: &'a ControlPlane,
    town: &'a Town,
    ns: Namespace,
}

impl<'a> Story<'a> {
    /// Writes all objects, as their owners would.
    pub async fn begin(control_plane: &'a ControlPlane, town: &'a Town) -> Self {
        let ns = Namespace::for_pods(control_plane, "chart").await;
        let story = Self { control_plane, town, ns };
        story.ns.apply(ACCOUNTS).await;
        story.pod("worker", "labels: {agentid.dev/agent: of-pod}").await;
        story.ns.apply(OBJECTS).await;
        // One of two owners stays: else the garbage collector might come before the operator has asked for what is gone.
        let stays = story.api::<ServiceAccount>().get("runner").await.unwrap().metadata.uid.unwrap();
        for bound in BOUND {
            let uid = story.ns.apply(&workload(bound)).await.metadata.uid.unwrap();
            let (api_version, kind, name) = (bound.0, bound.1, bound.1.to_lowercase());
            let agent = format!(
                "{{apiVersion: agentid.dev/v1alpha1, kind: AgentIdentity, metadata: {{name: of-{name}, ownerReferences: \
                 [{{apiVersion: v1, kind: ServiceAccount, name: runner, uid: {stays}}}]}}, spec: {{boundObjectRef: \
                 {{apiVersion: {api_version}, kind: {kind}, name: {name}, uid: {uid}}}}}}}"
            );
            story.ns.apply(&agent).await;
        }
        story.pod("bot", "labels: {agentid.dev/agent: '', app: bot}").await;
        story.pod("buyer", "labels: {agentid.dev/agent: triage}").await;
        story
    }

    async fn pod(&self, name: &str, metadata: &str) {
        let yaml = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, {metadata}}}, spec: {{serviceAccountName: runner, \
             containers: [{{name: c, image: none}}]}}}}"
        );
        self.ns.apply(&yaml).await;
    }

    fn api<K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>>(&self) -> Api<K>
    where
        K::DynamicType: Default,
    {
        Api::namespaced(self.ns.client.clone(), &self.ns.name)
    }

    async fn is_ready(&self, name: &str) {
        eventually(format!("{name} is Ready"), LATER, || async {
            let status = self.ns.agent(name).await.and_then(|a| a.status).ok_or("no status")?;
            match condition(&status.conditions, "Ready") {
                Some(c) if c.status == "True" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    /// Waits for what the operator makes of them.
    pub async fn is_told(&self) {
        for name in ["triage", "second", "of-pod", "bot"] {
            self.is_ready(name).await;
        }
        for (_, kind, _) in BOUND {
            self.is_ready(&format!("of-{}", kind.to_lowercase())).await;
        }
        eventually("an agent waits for its pod", LATER, || async {
            let status = self.ns.agent("of-nobody").await.and_then(|a| a.status).ok_or("no status")?;
            match condition(&status.conditions, "Ready") {
                Some(c) if c.reason == "BoundObjectNotFound" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        let data = self.ns.secret("triage-agentid").await.and_then(|s| s.data).unwrap();
        assert!(data.contains_key("tickets.jwt"), "{:?}", data.keys());
        let owners = self.ns.agent("of-pod").await.unwrap().metadata.owner_references.unwrap();
        assert_eq!(owners[0].kind, "Pod");
        eventually("the refusal is told", LATER, || async {
            let status = self.ns.grant("wiki").await.and_then(|g| g.status).ok_or("no status")?;
            if status.refused == Some(1) { Ok(()) } else { Err(format!("{status:?}")) }
        })
        .await;
        eventually("the policy says whom it hits", LATER, || async {
            let status = self.ns.policy("watched-$NS").await.and_then(|p| p.status);
            status.filter(|s| !s.conditions.is_empty()).ok_or("no status")
        })
        .await;
        self.bound(1).await;
    }

    /// Our RoleBindings, once they have so many subjects.
    async fn bound(&self, wanted: usize) -> Vec<RoleBinding> {
        let ours = ListParams::default().labels("app.kubernetes.io/managed-by=agentid");
        eventually(format!("RoleBindings have {wanted} subjects"), LATER, || async {
            let found = self.api::<RoleBinding>().list(&ours).await.map_err(|e| e.to_string())?.items;
            let subjects = found.iter().flat_map(|b| b.subjects.iter().flatten()).count();
            if subjects == wanted && found.is_empty() == (wanted == 0) {
                Ok(found)
            } else {
                Err(format!("{subjects}"))
            }
        })
        .await
    }

    /// A service account's token for the issuer, of a pod or of nobody's.
    async fn account_token(&self, account: &str, pod: Option<&str>) -> String {
        let mut request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: vec![self.town.issuer.clone()],
                ..TokenRequestSpec::default()
            },
            ..TokenRequest::default()
        };
        if let Some(name) = pod {
            request.spec.bound_object_ref = Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: Some(name.to_owned()),
                uid: self.api::<Pod>().get(name).await.unwrap().metadata.uid,
            });
        }
        let accounts = self.api::<ServiceAccount>();
        accounts
            .create_token_request(account, &PostParams::default(), &request)
            .await
            .unwrap()
            .status
            .unwrap()
            .token
    }

    /// Asks the token service, by the CA as it is now: that, too, is made anew while the story goes on.
    async fn post(&self, form: &[(&str, &str)]) -> Result<(u16, Value), String> {
        let ca = self.town.ca(self.control_plane).await;
        let options =
            FetchOptions { roots: Roots::Pem(ca), guard: Guard::Anywhere, ..FetchOptions::default() };
        let url = format!("{}/token", self.town.issuer);
        let answer = post_form(&url, form, &options).await.map_err(|e| e.to_string())?;
        Ok((answer.status.as_u16(), serde_json::from_str(&answer.body).map_err(|e| e.to_string())?))
    }

    /// Asks for a token until it is sold: its roles.
    async fn buys(&self, what: &str, form: &[(&str, &str)]) -> Vec<String> {
        let audience = format!("https://tickets.{}.example.com", self.ns.name);
        let mut form = form.to_vec();
        form.push(("resource", &audience));
        let token = eventually(format!("{what} buys a token"), LATER, || async {
            let (status, body) = self.post(&form).await?;
            body["access_token"].as_str().map(str::to_owned).ok_or_else(|| format!("{status} {body}"))
        })
        .await;
        let claims = agentid::crypto::inspect(&token).unwrap().claims;
        claims["roles"].as_array().unwrap().iter().map(|r| r.as_str().unwrap().to_owned()).collect()
    }

    /// The pod that its blueprint made an agent; the pod of agent `triage`, who holds this role, and a person on a laptop.
    pub async fn everybody_buys(&self, role: &str) {
        for (pod, role) in [("bot", "reader"), ("buyer", role)] {
            let token = self.account_token("runner", Some(pod)).await;
            let form = [
                ("grant_type", "client_credentials"),
                ("client_assertion_type", ASSERTION),
                ("client_assertion", token.as_str()),
            ];
            assert_eq!(self.buys(pod, &form).await, [role]);
        }
        let (token, id) = (self.account_token("human", None).await, format!("{}/triage", self.ns.name));
        let form = [("grant_type", JWT_BEARER), ("assertion", token.as_str()), ("client_id", id.as_str())];
        assert_eq!(self.buys("a person", &form).await, [role]);
    }

    /// Changes and heals.
    pub async fn goes_on(&self) {
        // A second agent on the cluster: the RoleBinding is patched.
        let both = json!({"spec": {"agents": {"names": ["triage", "second"]}}});
        self.merge("agentgrants", "cluster", &both).await;
        let bindings = self.bound(2).await;
        // Another right: the Secret is written anew.
        let roles = json!({"spec": {"application": {"roles": ["reader"]}}});
        let before = self.ns.secret("triage-agentid").await.unwrap().metadata.resource_version;
        self.merge("agentgrants", "tickets", &roles).await;
        eventually("the Secret is written anew", LATER, || async {
            let now = self.ns.secret("triage-agentid").await.and_then(|s| s.metadata.resource_version);
            if now == before { Err("unchanged") } else { Ok(()) }
        })
        .await;
        // A RoleBinding that has lost its labels is told by its owner and healed.
        let name = bindings[0].metadata.name.clone().unwrap();
        let stripped = json!({"metadata": {"labels": null}});
        let bindings = self.api::<RoleBinding>();
        bindings.patch(&name, &PatchParams::default(), &Patch::Merge(&stripped)).await.unwrap();
        self.bound(2).await;
        // The published keys are healed.
        let maps = self.api::<ConfigMap>();
        let edited = json!({"data": {"issuer": "https://evil.example.com"}});
        maps.patch("agentid-trust", &PatchParams::default(), &Patch::Merge(&edited)).await.unwrap();
        eventually("agentid-trust is healed", LATER, || async {
            let data = maps.get("agentid-trust").await.map_err(|e| e.to_string())?.data.unwrap_or_default();
            if data["issuer"] == self.town.issuer { Ok(()) } else { Err(data["issuer"].clone()) }
        })
        .await;
    }

    async fn merge(&self, plural: &str, name: &str, patch: &Value) {
        let path = format!("/apis/agentid.dev/v1alpha1/namespaces/{}/{plural}/{name}", self.ns.name);
        let request = http::Request::patch(path)
            .header("content-type", "application/merge-patch+json")
            .body(patch.to_string().into_bytes());
        self.ns.client.request::<Value>(request.unwrap()).await.unwrap();
    }

    /// Nothing is left.
    pub async fn ends(&self) {
        let nobody = json!({"spec": {"agents": {"names": ["nobody"]}}});
        self.merge("agentgrants", "cluster", &nobody).await;
        self.bound(0).await;
        // Agents end with the very objects that they are bound to.
        for bound in BOUND {
            // In the background, or a Job would be deleted in two steps: then its end is seen, not asked for.
            let mut object = parse(&workload(bound)).remove(0);
            object.metadata.namespace = Some(self.ns.name.clone());
            let name = object.metadata.name.clone().unwrap();
            let api = api_of(self.ns.client.clone(), &object);
            api.delete(&name, &DeleteParams::background()).await.unwrap();
            let agent = format!("of-{}", bound.1.to_lowercase());
            eventually(format!("{agent} is gone"), LATER, || async {
                let left = self.ns.agent(&agent).await;
                if left.is_none() { Ok(()) } else { Err(format!("{left:?}")) }
            })
            .await;
        }
        for pod in ["worker", "bot"] {
            let now = DeleteParams::default().grace_period(0);
            self.api::<Pod>().delete(pod, &now).await.unwrap();
        }
        eventually("the pods' agents are gone", LATER, || async {
            let left = (self.ns.agent("of-pod").await, self.ns.agent("bot").await);
            if left == (None, None) { Ok(()) } else { Err(format!("{left:?}")) }
        })
        .await;
        let agents = self.api::<agentid::api::AgentIdentity>();
        agents.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
        eventually("all that agents had is gone", LATER, || async {
            let secrets = self.api::<Secret>();
            let secrets = secrets.list(&ListParams::default()).await.map_err(|e| e.to_string())?.items.len();
            let trust = self.api::<ConfigMap>().get_opt("agentid-trust").await.map_err(|e| e.to_string())?;
            if secrets == 0 && trust.is_none() {
                Ok(())
            } else {
                Err(format!("{secrets} Secrets, {trust:?}"))
            }
        })
        .await;
    }

    /// An agent that stays when all others have gone.
    pub async fn leaves_one(&self) {
        self.ns.apply("{apiVersion: agentid.dev/v1alpha1, kind: AgentIdentity, metadata: {name: lasting}, spec: {}}").await;
        self.has_left_one().await;
    }

    /// It is there, and its Secret.
    pub async fn has_left_one(&self) {
        self.is_ready("lasting").await;
        assert!(self.ns.secret("lasting-agentid").await.is_some());
    }

    /// The next keys sign from now on: the ring is written.
    pub async fn rotates(&self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_agentid"));
        command.args(["keys", "rotate", "--namespace", NAMESPACE]);
        command.env("KUBECONFIG", &self.control_plane.kubeconfig);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// The certificate, and the CA after half of its life.
    pub async fn certificates_are_made_anew(&self) {
        let secrets: Api<Secret> = Api::namespaced(self.ns.client.clone(), NAMESPACE);
        for name in ["agentid-serving", "agentid-ca"] {
            eventually(format!("{name} is written anew"), LATER, || async {
                let secret = secrets.get(name).await.map_err(|e| e.to_string())?.metadata;
                // Since it was made: only the creation is in the first of these.
                let made = secret.creation_timestamp.map(|t| t.0);
                let written =
                    secret.managed_fields.into_iter().flatten().filter_map(|f| f.time).map(|t| t.0).max();
                if written > made { Ok(()) } else { Err(format!("made {made:?}, written {written:?}")) }
            })
            .await;
        }
    }

    /// Takes the right to read the cluster's published keys away from all service accounts, or gives it back.
    pub async fn publishes_keys(&self, published: bool) {
        let bindings: Api<ClusterRoleBinding> = Api::all(self.ns.client.clone());
        if published {
            let binding = json!({
                "metadata": {"name": DISCOVERY},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": DISCOVERY},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:serviceaccounts"}],
            });
            bindings.create(&PostParams::default(), &serde_json::from_value(binding).unwrap()).await.unwrap();
        } else {
            bindings.delete(DISCOVERY, &DeleteParams::default()).await.unwrap();
        }
        let mut command = Command::new(&self.control_plane.kubectl);
        command.arg("--kubeconfig").arg(&self.control_plane.kubeconfig);
        command.args([
            "auth",
            "can-i",
            "get",
            "/openid/v1/jwks",
            "--as=x",
            "--as-group=system:serviceaccounts",
        ]);
        eventually("the right is there, or gone", LATER, || {
            let allowed = command.output().unwrap().status.success();
            async move { if allowed == published { Ok(()) } else { Err(allowed) } }
        })
        .await;
    }
}

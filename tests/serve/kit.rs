//! One operator, one user issuer and one token service for all tests of this binary, and what a test does with them.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::time::Duration;

use agentid::api::{AgentGrant, AgentIdentity, AgentResource};
use agentid::crypto::{Expect, Typ, Verified, inspect, verify};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::common::{ControlPlane, Namespace, Operator, eventually};
use crate::service::{Idp, Service, Town, free_port};

pub const SOON: Duration = Duration::from_secs(20);
pub const JWT_BEARER_ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
pub const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
pub const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
pub const AGENT_USER: &str = "https://agentid.dev/grant-type/agent-user";
pub const ACCESS: &str = "urn:ietf:params:oauth:token-type:access_token";
pub const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
pub const AUD: &str = "https://$NS.tickets.example.com";

/// Of the user issuer's entry: an audience that stands for the agents of a blueprint.
const FOR_BLUEPRINT: &str =
    "  blueprintAudiences: [{audience: https://portal.example.com, blueprint: serve-portal}]\n";

/// What all tests share.
pub struct Stage {
    pub town: Town,
    pub service: Service,
    pub idp: Idp,
    /// Where a second API server may be, as agents' `kubeconfig` says.
    pub kube_port: u16,
    pub operator: Operator,
    _keep: tokio::runtime::Runtime,
}

pub async fn stage() -> &'static Stage {
    static STAGE: OnceCell<Stage> = OnceCell::const_new();
    STAGE
        .get_or_init(|| async {
            // The user issuer outlives the runtime of whichever test comes first.
            let keep =
                tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            let idp = keep.spawn(Idp::start()).await.unwrap();
            let kube_port = free_port();
            let more = format!(
                "statusLists: {{ttl: 2s, lifetime: 1m}}\nkubernetes: {{bindableRoles: [serve-pod-reader], server: \
                 \"https://127.0.0.1:{kube_port}\"}}\nagentUserDomains: [agents.example.com]\nuserIssuers:\n{}",
                idp.entry("corp:", FOR_BLUEPRINT)
            );
            let town = Town::new("agentid-serve", &more);
            let control_plane = ControlPlane::shared();
            forget(control_plane, &town.namespace).await;
            let operator = town.operator(control_plane).await;
            let service = town.serve(control_plane).await;
            Stage { town, service, idp, kube_port, operator, _keep: keep }
        })
        .await
}

/// A ring of an earlier run is of another issuer.
async fn forget(control_plane: &ControlPlane, namespace: &str) {
    let secrets: Api<k8s_openapi::api::core::v1::Secret> =
        Api::namespaced(control_plane.client().await, namespace);
    for name in ["agentid-signing-keys", "agentid-serving"] {
        let _ = secrets.delete(name, &DeleteParams::default()).await;
    }
}

/// A namespace with an agent `a` of service account `runner`, a resource `$NS` and a grant `tickets`.
pub struct Test {
    ns: Namespace,
    pub stage: &'static Stage,
}

impl Deref for Test {
    type Target = Namespace;
    fn deref(&self) -> &Namespace {
        &self.ns
    }
}

pub const AGENT: &str = "
apiVersion: agentid.dev/v1alpha1
kind: AgentIdentity
metadata: {name: a}
spec: {serviceAccountName: runner}
";
pub const RESOURCE: &str = "
apiVersion: agentid.dev/v1alpha1
kind: AgentResource
metadata: {name: $NS}
spec:
  audience: https://$NS.tickets.example.com
  roles: [{name: triager}]
  scopes: [{name: tickets.read}, {name: tickets.write}]
  allow: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: $NS}}, modes: [Application, Delegation, AgentUser]}]
  introspectors: [{namespace: $NS, serviceAccountName: asker}]
";
pub const GRANT: &str = "
apiVersion: agentid.dev/v1alpha1
kind: AgentGrant
metadata: {name: tickets}
spec:
  agents: {names: [a]}
  resource: $NS
  application: {roles: [triager], scopes: [tickets.read]}
  secretKey: tickets.jwt
";

impl Test {
    /// An empty namespace.
    pub async fn bare(prefix: &str) -> Self {
        let stage = stage().await;
        Self { ns: Namespace::for_pods(ControlPlane::shared(), prefix).await, stage }
    }

    /// With agent, resource, grant, service accounts and a pod `p`.
    pub async fn new(prefix: &str) -> Self {
        let test = Self::bare(prefix).await;
        for name in ["runner", "asker", "stranger"] {
            test.account(name).await;
        }
        test.apply(RESOURCE).await;
        test.apply(AGENT).await;
        test.apply(GRANT).await;
        test.pod("p", "runner").await;
        test.ready("a").await;
        test
    }

    pub fn fill(&self, text: &str) -> String {
        text.replace("$NS", &self.name)
    }

    pub fn aud(&self) -> String {
        self.fill(AUD)
    }

    pub fn service(&self) -> &Service {
        &self.stage.service
    }

    pub async fn account(&self, name: &str) {
        self.apply(&format!("{{apiVersion: v1, kind: ServiceAccount, metadata: {{name: {name}}}}}")).await;
    }

    /// A pod that runs, as the kubelet would say it.
    pub async fn pod(&self, name: &str, account: &str) -> Pod {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.name);
        let pod = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"agentid.dev/agent": ""}},
            "spec": {"serviceAccountName": account, "containers": [{"name": "c", "image": "none"}]},
        }));
        pods.create(&PostParams::default(), &pod.unwrap()).await.unwrap()
    }

    /// Ends a pod at once.
    pub async fn end_pod(&self, name: &str) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.name);
        let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        pods.delete(name, &now).await.unwrap();
    }

    /// A pod's token for an audience; without a pod one that is bound to nothing.
    pub async fn sa_token_for(&self, account: &str, pod: Option<&str>, audience: &str) -> String {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.name);
        let bound_object_ref = match pod {
            None => None,
            Some(name) => Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: Some(name.to_owned()),
                uid: pods.get(name).await.unwrap().metadata.uid,
            }),
        };
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: vec![audience.to_owned()],
                bound_object_ref,
                expiration_seconds: Some(3600),
            },
            ..TokenRequest::default()
        };
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &self.name);
        let answer = accounts.create_token_request(account, &PostParams::default(), &request).await.unwrap();
        answer.status.unwrap().token
    }

    /// The projected token of pod `p`.
    pub async fn sa_token(&self) -> String {
        self.sa_token_for("runner", Some("p"), &self.stage.town.issuer).await
    }

    pub async fn ready(&self, name: &str) -> AgentIdentity {
        eventually(format!("agent {name} is ready"), Duration::from_secs(60), || async {
            let agent = self.agent(name).await.ok_or("none")?;
            let status = agent.status.clone().ok_or("no status")?;
            let ready = status.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
            if ready { Ok(agent) } else { Err(format!("{:?}", status.conditions)) }
        })
        .await
    }

    pub async fn agent_id(&self, name: &str) -> String {
        self.ready(name).await.status.unwrap().agent_id.unwrap()
    }

    /// Asks `/token` by client credentials; waits out what is only pending.
    pub async fn ask(&self, token: &str, more: &[(&str, &str)]) -> (u16, Value) {
        let mut form = vec![
            ("grant_type", "client_credentials"),
            ("client_assertion_type", JWT_BEARER_ASSERTION),
            ("client_assertion", token),
        ];
        form.extend(more);
        self.settled("/token", &form).await
    }

    /// POSTs until the answer is not 503: what a new object needs to become known.
    pub async fn settled(&self, path: &str, form: &[(&str, &str)]) -> (u16, Value) {
        eventually(format!("an answer of {path}"), SOON, || async {
            let (status, headers, body) = self.service().post(path, form).await;
            if status == 503 {
                assert!(headers.contains_key("retry-after"), "503 without Retry-After: {body}");
                return Err(format!("{status} {body}"));
            }
            Ok((status, body))
        })
        .await
    }

    /// An access token of agent `a`; waits until pod and grant are known.
    pub async fn token(&self, more: &[(&str, &str)]) -> String {
        let (sa, aud) = (self.sa_token().await, self.aud());
        let mut form = vec![("resource", aud.as_str())];
        form.extend(more);
        eventually("a token", SOON, || async {
            let (status, body) = self.ask(&sa, &form).await;
            match body["access_token"].as_str() {
                Some(token) if status == 200 => Ok(token.to_owned()),
                _ => Err(format!("{status} {body}")),
            }
        })
        .await
    }

    /// A delegation grant of an agent on a resource.
    pub async fn delegate(&self, name: &str, agent: &str, resource: &str, issuer: &str, subject: &str) {
        self.apply(&format!(
            "{{apiVersion: agentid.dev/v1alpha1, kind: AgentGrant, metadata: {{name: {name}}}, spec: {{agents: {{names: \
             [{agent}]}}, resource: {resource}, delegation: {{issuer: '{issuer}', subjects: ['{subject}'], scopes: \
             [tickets.read, tickets.write]}}}}}}"
        ))
        .await;
    }

    /// Agent `a` may act for ann at the resource.
    pub async fn delegate_ann(&self) {
        self.delegate("for-ann", "a", "$NS", &self.stage.idp.issuer, "ann").await;
    }

    /// A token of ann's for an agent, for five minutes and both scopes.
    pub fn ann(&self, agent_id: &str) -> String {
        self.stage.idp.token("ann", agent_id, 300, json!({"scope": "tickets.read tickets.write"}))
    }

    /// Exchanges a token as the agent of pod `p` or another pod.
    pub async fn exchange_as(
        &self,
        (account, pod): (&str, &str),
        subject: &str,
        more: &[(&str, &str)],
    ) -> (u16, Value) {
        let own = self.sa_token_for(account, Some(pod), &self.stage.town.issuer).await;
        let mut form = vec![
            ("grant_type", EXCHANGE),
            ("subject_token", subject),
            ("subject_token_type", ACCESS),
            ("client_assertion_type", JWT_BEARER_ASSERTION),
            ("client_assertion", own.as_str()),
        ];
        form.extend(more);
        self.settled("/token", &form).await
    }

    /// Exchanges as agent `a` for its resource.
    pub async fn exchange(&self, subject: &str, more: &[(&str, &str)]) -> (u16, Value) {
        let aud = self.aud();
        let mut form = vec![("resource", aud.as_str())];
        form.extend(more);
        self.exchange_as(("runner", "p"), subject, &form).await
    }

    /// A delegated token of an agent; waits until pod and grants are known.
    pub async fn delegated_as(&self, who: (&str, &str), subject: &str, more: &[(&str, &str)]) -> String {
        eventually("a delegated token", SOON, || async {
            let (status, body) = self.exchange_as(who, subject, more).await;
            match body["access_token"].as_str() {
                Some(token) if status == 200 => Ok(token.to_owned()),
                _ => Err(format!("{status} {body}")),
            }
        })
        .await
    }

    /// A delegated token of agent `a` for its resource.
    pub async fn delegated(&self, subject: &str, more: &[(&str, &str)]) -> String {
        let aud = self.aud();
        let mut form = vec![("resource", aud.as_str())];
        form.extend(more);
        self.delegated_as(("runner", "p"), subject, &form).await
    }

    pub async fn verified(&self, token: &str, audience: &str, typ: Typ) -> Verified {
        let keys = self.service().keys().await;
        let now = jiff::Timestamp::now().as_second();
        let expect = Expect { issuer: &self.stage.town.issuer, audience, typ, leeway: 2, now };
        verify(token, &keys, &expect).unwrap_or_else(|e| panic!("{e}: {:?}", inspect(token)))
    }

    /// What `/introspect` says to a service account (bound to no pod).
    pub async fn introspect(&self, account: &str, token: &str) -> Value {
        let credential = self.sa_token_for(account, None, &self.stage.town.issuer).await;
        let form = [
            ("client_assertion_type", JWT_BEARER_ASSERTION),
            ("client_assertion", credential.as_str()),
            ("token", token),
        ];
        let (status, body) = self.settled("/introspect", &form).await;
        assert_eq!(status, 200, "{body}");
        body
    }

    /// Waits until an introspection says so.
    pub async fn is_active(&self, token: &str, wanted: bool) {
        eventually(format!("active: {wanted}"), SOON, || async {
            let answer = self.introspect("asker", token).await;
            if answer["active"] == wanted { Ok(()) } else { Err(answer) }
        })
        .await;
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    pub async fn suspend(&self, name: &str, suspend: bool) {
        let patch = json!({"spec": {"suspend": suspend}});
        self.api::<AgentIdentity>().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    pub async fn delete_grant(&self, name: &str) {
        self.api::<AgentGrant>().delete(name, &DeleteParams::default()).await.unwrap();
    }

    pub async fn delete_agent(&self, name: &str) {
        self.api::<AgentIdentity>().delete(name, &DeleteParams::default()).await.unwrap();
    }

    pub async fn resource_merge(&self, patch: Value) {
        let resources: Api<AgentResource> = Api::all(self.client.clone());
        resources.patch(&self.name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// The audit lines about this namespace's agents. They are gathered and written by a thread of its own: a moment
    /// after the answer.
    pub fn audit(&self) -> Vec<agentid::issue::AuditLine> {
        std::thread::sleep(Duration::from_millis(250));
        let log = self.service().log_text();
        log.lines()
            .filter_map(agentid::issue::AuditLine::read)
            .filter(|l| {
                l.namespace.as_deref() == Some(self.name.as_str())
                    || l.service_account.as_deref().is_some_and(|a| a.starts_with(&self.name))
            })
            .collect()
    }
}

/// A token's claims, unverified.
pub fn claims(token: &str) -> BTreeMap<String, Value> {
    inspect(token).unwrap().claims.into_iter().collect()
}

/// Holds an answer to be this refusal.
#[track_caller]
pub fn refused((status, body): &(u16, Value), wanted: u16, error: &str) {
    assert_eq!((*status, body["error"].as_str()), (wanted, Some(error)), "{body}");
    assert!(body["error_description"].as_str().is_some_and(|d| !d.is_empty()), "{body}");
}

//! Agents that a blueprint makes, at the token service: each pod buys what it inherits, and nothing once it is over.

use agentid::crypto::Typ;
use serde_json::{Value, json};

use crate::checks::verify;
use crate::common::eventually;
use crate::kit::*;

/// A blueprint whose agents are the test's pods, one each; `more` is the rest of its spec.
fn each_pod(name: &str, more: &str) -> String {
    format!(
        "{{apiVersion: agentid.dev/v1alpha1, kind: AgentBlueprint, metadata: {{name: {name}}}, spec: {{namespaceSelector: \
         {{matchLabels: {{\"kubernetes.io/metadata.name\": $NS}}}}, podSelector: {{}}, identityPer: Pod, {more}}}}}"
    )
}

const INHERITS: &str =
    "grants: [{name: tickets, resource: $NS, application: {roles: [triager], scopes: [tickets.read]}}]";

/// With service accounts, a resource and a pod `p`; no agent is written.
async fn town(prefix: &str) -> Test {
    let t = Test::bare(prefix).await;
    for name in ["runner", "asker"] {
        t.account(name).await;
    }
    t.apply(RESOURCE).await;
    t.pod("p", "runner").await;
    t
}

/// Waits for a refusal, and gives its description.
async fn refused_with(t: &Test, token: &str, wanted: u16, error: &str, word: &str) {
    let aud = t.aud();
    eventually(format!("{wanted} {error}: {word}"), SOON, || async {
        let (status, body) = t.ask(token, &[("resource", &aud)]).await;
        let said = body["error_description"].as_str().unwrap_or_default();
        let meant = status == wanted && body["error"] == error && said.contains(word);
        if meant { Ok(()) } else { Err(format!("{status} {body}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pods_own_token_buys_what_its_blueprint_grants_and_nothing_else() {
    let t = town("bp").await;
    t.apply(&each_pod("bots-$NS", INHERITS)).await;
    let token = t.token(&[]).await;
    let agent = t.ready("p").await;
    assert!(t.secret("p-agentid").await.is_none(), "a pod can't mount a name that it can't know");
    let claims = t.verified(&token, &t.aud(), Typ::Access).await.claims;
    let blueprint = t.fill("bots-$NS");
    assert_eq!(claims["agentid.dev"]["blueprint"], json!(blueprint));
    assert_eq!(claims["sub"], json!(agent.status.unwrap().agent_id));
    assert_eq!((&claims["roles"], &claims["scope"]), (&json!(["triager"]), &json!("tickets.read")));
    let own = t.sa_token().await;
    let aud = t.aud();
    let write = [("resource", aud.as_str()), ("scope", "tickets.write")];
    refused(&t.ask(&own, &write).await, 400, "invalid_scope");
    let named = [("resource", aud.as_str()), ("grant", &*format!("{blueprint}/tickets"))];
    assert_eq!(t.ask(&own, &named).await.0, 200);

    let (code, headers) = verify(&t, &t.fill("/verify/$NS"), Some(&format!("Bearer {token}"))).await;
    assert_eq!((code, headers.get("x-agent-blueprint")), (200, Some(&blueprint)), "{headers:?}");
    let told = t.introspect("asker", &token).await;
    assert_eq!(told["active"], true, "{told}");
    let jti = claims["jti"].as_str().unwrap();
    let line = t.audit().into_iter().find(|l| l.jti.as_deref() == Some(jti)).expect("an audit line");
    assert_eq!(line.blueprint.as_deref(), Some(&*blueprint));
    assert_eq!((line.pod.as_deref(), line.grant), (Some("p"), Some(format!("{blueprint}/tickets"))));

    t.end_pod("p").await;
    t.is_active(&token, false).await;
    eventually("the agent is gone", SOON, || async {
        t.agent("p").await.map_or(Ok(()), |a| Err(format!("{:?}", a.metadata)))
    })
    .await;
    refused_with(&t, &own, 401, "invalid_client", "gone").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn suspend_of_a_blueprint_stops_its_agents_here_too() {
    let t = town("bp-suspend").await;
    t.apply(&each_pod("bots-$NS", INHERITS)).await;
    let token = t.token(&[]).await;
    t.is_active(&token, true).await;
    t.apply(&each_pod("bots-$NS", &format!("{INHERITS}, suspend: true"))).await;
    refused_with(&t, &t.sa_token().await, 401, "invalid_client", "Suspended: AgentBlueprint").await;
    t.is_active(&token, false).await;
    t.apply(&each_pod("bots-$NS", INHERITS)).await;
    let again = t.token(&[]).await;
    t.is_active(&again, true).await;
    t.is_active(&token, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_agent_is_still_being_made_comes_again() {
    let t = town("bp-made").await;
    // Nobody can make an agent in this namespace for now.
    let fence = "
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: $NS-no-agents}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [agentid.dev], apiVersions: ['*'], operations: [CREATE], resources: [agentidentities]}]
  validations: [{expression: 'false', message: not today}]
";
    let binding = "
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: $NS-no-agents}
spec:
  policyName: $NS-no-agents
  validationActions: [Deny]
  matchResources: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: $NS}}}
";
    t.apply(fence).await;
    t.apply(binding).await;
    eventually("the fence is up", SOON, || async {
        match t.try_apply(AGENT).await {
            Err(_) => Ok(()),
            Ok(_) => {
                t.delete_agent("a").await;
                Err("an agent could be made")
            }
        }
    })
    .await;
    t.apply(&each_pod("bots-$NS", INHERITS)).await;
    let (own, aud) = (t.sa_token().await, t.aud());
    let form = [
        ("grant_type", "client_credentials"),
        ("client_assertion_type", JWT_BEARER_ASSERTION),
        ("client_assertion", own.as_str()),
        ("resource", aud.as_str()),
    ];
    eventually("503, for now", SOON, || async {
        let (status, headers, body) = t.service().post("/token", &form).await;
        let said = body["error_description"].as_str().unwrap_or_default();
        let later = status == 503 && headers.contains_key("retry-after") && said.contains("being made");
        if later { Ok(()) } else { Err(format!("{status} {body}")) }
    })
    .await;
    t.delete(binding).await;
    t.delete(fence).await;
    t.token(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audience_that_stands_for_a_blueprint_is_of_its_agents_alone() {
    let t = town("bp-portal").await;
    let inherits = format!(
        "grants: [{{name: ann, resource: $NS, delegation: {{issuer: '{}', subjects: [ann], scopes: [tickets.read]}}}}]",
        t.stage.idp.issuer
    );
    // The name is the configuration's.
    t.apply(&each_pod("serve-portal", &inherits)).await;
    let portal = |more: Value| t.stage.idp.token("ann", "https://portal.example.com", 300, more);
    let token = t.delegated(&portal(json!({"scope": "tickets.read"})), &[]).await;
    let claims = t.verified(&token, &t.aud(), Typ::Access).await.claims;
    assert_eq!((&claims["sub"], &claims["act"]["sub"]), (&json!("corp:ann"), &json!(t.agent_id("p").await)));
    assert_eq!(claims["agentid.dev"]["blueprint"], "serve-portal");
    // Another audience of the same issuer, and an agent of no blueprint.
    let elsewhere =
        t.stage.idp.token("ann", "https://other.example.com", 300, json!({"scope": "tickets.read"}));
    refused(&t.exchange(&elsewhere, &[]).await, 400, "invalid_request");
    let other = Test::new("bp-no-portal").await;
    other.delegate_ann().await;
    other.delegated(&other.ann(&other.agent_id("a").await), &[]).await;
    let answer = other.exchange(&portal(json!({"scope": "tickets.read"})), &[]).await;
    refused(&answer, 400, "invalid_request");
    assert!(answer.1["error_description"].as_str().unwrap().contains("blueprint"), "{}", answer.1);
}

//! What policies take, at the token service: by the same decision.

use crate::common::eventually;
use crate::kit::*;

fn policy(spec: &str) -> String {
    format!(
        "{{apiVersion: agentid.dev/v1alpha1, kind: AgentPolicy, metadata: {{name: $NS}}, spec: {{match: \
         {{namespaceSelector: {{matchLabels: {{\"kubernetes.io/metadata.name\": $NS}}}}}}, {spec}}}}}"
    )
}

/// Waits for a refusal, and gives its description.
async fn refused(t: &Test, form: &[(&str, &str)], status: u16, error: &str, word: &str) {
    let token = t.sa_token().await;
    eventually(format!("{status} {error}: {word}"), SOON, || async {
        let (got, body) = t.ask(&token, form).await;
        let said = body["error_description"].as_str().unwrap_or_default();
        let meant = got == status && body["error"] == error && said.contains(word);
        if meant { Ok(()) } else { Err(format!("{got} {body}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_felt_at_the_token_service() {
    let t = Test::new("policy").await;
    t.apply(&GRANT.replace("[tickets.read]", "[tickets.read, tickets.write]")).await;
    let aud = t.aud();
    let write = [("resource", aud.as_str()), ("scope", "tickets.write")];
    let old = t.token(&[("scope", "tickets.write")]).await;
    t.is_active(&old, true).await;

    t.apply(&policy("deny: [{scopes: [\"*.write\"]}]")).await;
    refused(&t, &write, 400, "invalid_scope", "tickets.write is not held").await;
    t.is_active(&old, false).await;
    let left = t.token(&[("scope", "tickets.read")]).await;

    t.apply(&policy("deny: [{resources: [\"*\"]}]")).await;
    refused(&t, &[("resource", &aud)], 400, "invalid_target", "PolicyDenied: AgentPolicy").await;
    t.is_active(&left, false).await;

    t.apply(&policy("suspend: true")).await;
    refused(&t, &[("resource", &aud)], 401, "invalid_client", "spec.suspend is true for every agent").await;

    t.apply(&policy("enforcement: Audit, suspend: true")).await;
    let again = t.token(&[("scope", "tickets.write")]).await;
    t.is_active(&again, true).await;
    t.is_active(&old, false).await;
}

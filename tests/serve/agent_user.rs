//! Tokens of an agent's own user: what they say, whose they are, and what becomes of them.

use agentid::crypto::Typ;
use agentid::domain::agent_user::agent_user_id;
use serde_json::{Value, json};

use crate::chain::{pass_on, town};
use crate::checks::{status_of, verify};
use crate::common::eventually;
use crate::kit::*;

/// A grant of the agents' users on the resource.
const USER_GRANT: &str = "
apiVersion: agentid.dev/v1alpha1
kind: AgentGrant
metadata: {name: as-user}
spec:
  agents: {selector: {}}
  resource: $NS
  agentUser: {scopes: [tickets.read, tickets.write]}
  secretKey: user.jwt
";

fn agent(name: &str, account: &str, username: &str) -> String {
    format!(
        "{{apiVersion: agentid.dev/v1alpha1, kind: AgentIdentity, metadata: {{name: {name}}}, spec: {{serviceAccountName: \
         {account}, user: {{username: {username}}}}}}}"
    )
}

impl Test {
    /// With a user of the agent `a`, named after the namespace.
    async fn with_user(prefix: &str) -> (Self, String) {
        let t = Self::new(prefix).await;
        let username = format!("{}@agents.example.com", t.name);
        t.apply(USER_GRANT).await;
        t.apply(&agent("a", "runner", &username)).await;
        (t, username)
    }

    /// Asks for a token of the user of a pod's agent.
    async fn ask_as_user(&self, (account, pod): (&str, &str), more: &[(&str, &str)]) -> (u16, Value) {
        let own = self.sa_token_for(account, Some(pod), &self.stage.town.issuer).await;
        let aud = self.aud();
        let mut form = vec![
            ("grant_type", AGENT_USER),
            ("client_assertion_type", JWT_BEARER_ASSERTION),
            ("client_assertion", own.as_str()),
            ("resource", aud.as_str()),
        ];
        form.extend(more);
        self.settled("/token", &form).await
    }

    /// A token of the user of agent `a`; waits until the user is known.
    async fn user_token(&self, more: &[(&str, &str)]) -> String {
        eventually("a token of the agent's user", SOON, || async {
            let (status, body) = self.ask_as_user(("runner", "p"), more).await;
            match body["access_token"].as_str() {
                Some(token) if status == 200 => Ok(token.to_owned()),
                _ => Err(format!("{status} {body}")),
            }
        })
        .await
    }

    /// Waits until a pod's agent is refused a token of its user, and why.
    async fn refused_as_user(&self, who: (&str, &str), words: &[&str]) {
        eventually(format!("a refusal: {words:?}"), SOON, || async {
            let (status, body) = self.ask_as_user(who, &[]).await;
            let said = body["error_description"].as_str().unwrap_or_default();
            let meant =
                status == 400 && body["error"] == "invalid_target" && words.iter().all(|w| said.contains(w));
            if meant { Ok(()) } else { Err(format!("{status} {body}")) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_says_user_and_agent_and_dies_with_the_user_while_the_agents_own_stays() {
    let (t, username) = Test::with_user("agent-user").await;
    let own = t.token(&[]).await;
    let token = t.user_token(&[("scope", "tickets.read")]).await;
    let mut c: Value = serde_json::to_value(t.verified(&token, &t.aud(), Typ::Access).await.claims).unwrap();
    let id = t.agent_id("a").await;
    let uid = t.agent("a").await.unwrap().metadata.uid.unwrap();
    let sub = agent_user_id(uid.parse().unwrap(), &username);
    let grant: kube::Api<agentid::api::AgentGrant> = t.api();
    let grant = grant.get("as-user").await.unwrap().metadata.uid.unwrap();
    let members = c.as_object_mut().unwrap();
    let times = ["iat", "exp"].map(|m| members.remove(m).unwrap().as_i64().unwrap());
    assert!(times[1] > times[0] && times[1] - times[0] <= 600, "{times:?}");
    let jti = members.remove("jti").unwrap();
    let status = members.remove("status").unwrap();
    assert!(status["status_list"]["uri"].as_str().unwrap().starts_with(&t.stage.town.issuer), "{status}");
    assert_eq!(
        c,
        json!({
            "iss": t.stage.town.issuer, "sub": sub, "preferred_username": username, "aud": t.aud(), "client_id": id,
            "scope": "tickets.read", "sub_profile": "user ai_agent", "client_profile": "ai_agent",
            "act": {"iss": t.stage.town.issuer, "sub": id, "sub_profile": "ai_agent"},
            "agentid.dev": {"mode": "agent_user", "namespace": t.name, "name": "a", "uid": uid, "grant": grant},
        })
    );

    let told = t.introspect("asker", &token).await;
    assert_eq!((&told["active"], &told["sub"]), (&json!(true), &json!(sub)), "{told}");
    assert_eq!(
        (&told["username"], &told["preferred_username"]),
        (&json!(username), &json!(username)),
        "{told}"
    );
    assert_eq!((&told["sub_profile"], &told["act"]["sub"]), (&json!("user ai_agent"), &json!(id)), "{told}");

    let bearer = format!("Bearer {token}");
    let (code, headers) = verify(&t, &t.fill("/verify/$NS"), Some(&bearer)).await;
    assert_eq!(code, 200, "{headers:?}");
    let header = |name: &str| headers[name].clone();
    assert_eq!(header("x-agent-id"), id);
    assert_eq!(header("x-agent-subject"), sub);
    assert_eq!(header("x-agent-username"), username);
    assert_eq!(header("x-agent-mode"), "agent_user");
    assert_eq!(header("x-agent-actor"), id);

    let lines = t.audit();
    let line = lines.iter().find(|l| l.jti.as_deref() == jti.as_str()).expect("an audit line");
    assert_eq!(
        (line.mode.as_deref(), line.on_behalf_of.as_deref()),
        (Some("agent_user"), Some(username.as_str()))
    );
    assert_eq!((line.grant.as_deref(), line.pod.as_deref()), (Some("as-user"), Some("p")));

    // A request in the agent's own right gets nothing of its user's.
    let sa = t.sa_token().await;
    let aud = t.aud();
    refused(&t.ask(&sa, &[("resource", aud.as_str()), ("grant", "as-user")]).await, 400, "invalid_target");
    refused(
        &t.ask(&sa, &[("resource", aud.as_str()), ("scope", "tickets.write")]).await,
        400,
        "invalid_scope",
    );

    // Removed alone, the user takes its tokens along and leaves the agent as it is.
    t.apply(AGENT).await;
    t.is_active(&token, false).await;
    eventually("the bit turns", SOON, || async {
        let status = status_of(&t, &token, None).await;
        if status == Some(1) { Ok(()) } else { Err(status) }
    })
    .await;
    t.refused_as_user(("runner", "p"), &["Invalid", "has no user", "set its spec.user"]).await;
    assert_eq!(t.introspect("asker", &own).await["active"], true);
    assert_eq!(status_of(&t, &own, None).await, Some(0));
    t.token(&[]).await;

    // The same name again is the same user; what was revoked stays so.
    t.apply(&agent("a", "runner", &username)).await;
    let again = t.user_token(&[]).await;
    assert_eq!(claims(&again)["sub"], json!(sub));
    assert_eq!(claims(&again)["scope"], "tickets.read tickets.write");
    assert_eq!(t.introspect("asker", &token).await["active"], false);
    t.suspend("a", true).await;
    t.is_active(&again, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_agents_with_one_name_the_older_has_it() {
    let (t, username) = Test::with_user("agent-user-two").await;
    t.user_token(&[]).await;
    // Kubernetes counts ages in seconds.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    t.account("second").await;
    t.apply(&agent("b", "second", &username.to_uppercase())).await;
    t.pod("q", "second").await;
    t.ready("b").await;
    let older = format!("older AgentIdentity {}/a", t.name);
    t.refused_as_user(("second", "q"), &["Conflict", "spec.user.username", &older]).await;
    t.user_token(&[]).await;

    t.apply(AGENT).await;
    let freed = eventually("the freed name", SOON, || async {
        let (status, body) = t.ask_as_user(("second", "q"), &[]).await;
        body["access_token"].as_str().map(str::to_owned).ok_or_else(|| format!("{status} {body}"))
    })
    .await;
    assert_eq!(claims(&freed)["preferred_username"], json!(username.to_uppercase()));
}

#[tokio::test(flavor = "multi_thread")]
async fn outside_the_domains_and_without_the_mode_there_is_no_user() {
    let (t, username) = Test::with_user("agent-user-no").await;
    let token = t.user_token(&[]).await;
    t.apply(AGENT).await;
    t.apply(&agent("a", "runner", &username.replace("agents.", "people."))).await;
    t.refused_as_user(("runner", "p"), &["Invalid", "not among agentUserDomains"]).await;
    // What nobody noticed would leave the token as good as it was: the operator has taken its index back.
    eventually("the operator has refused the user's grant", SOON, || async {
        let status = t.agent("a").await.and_then(|a| a.status).ok_or("no status")?;
        let held = status.grants.iter().any(|g| g.name == "as-user" && format!("{:?}", g.state) == "Held");
        if held { Err(format!("{status:?}")) } else { Ok(()) }
    })
    .await;
    t.apply(AGENT).await;
    t.apply(&agent("a", "runner", &username)).await;
    t.user_token(&[]).await;
    t.is_active(&token, false).await;
    let selector = json!({"matchLabels": {"kubernetes.io/metadata.name": t.name}});
    t.resource_merge(json!({"spec": {"allow": [{"namespaceSelector": selector}]}})).await;
    t.refused_as_user(("runner", "p"), &["ModeNotAllowed", "AgentUser"]).await;
    t.token(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_as_the_user_is_passed_on_as_the_users_and_ends_with_it() {
    let t = town("agent-user-chain").await;
    let username = format!("{}@agents.example.com", t.name);
    let uid = t.agent("a").await.unwrap().metadata.uid.unwrap();
    let sub = agent_user_id(uid.parse().unwrap(), &username);
    t.apply(&USER_GRANT.replace("as-user", "call-b-as-user").replace("resource: $NS", "resource: $NS-b"))
        .await;
    t.delegate("pass-on-user", "b", "$NS", &t.stage.town.issuer, &sub).await;
    t.apply(&agent("a", "runner", &username)).await;
    let own = t.sa_token().await;
    let aud = t.fill("https://$NS.b.example.com");
    let called = eventually("a token of the user's for b", SOON, || async {
        let form = [
            ("grant_type", AGENT_USER),
            ("client_assertion_type", JWT_BEARER_ASSERTION),
            ("client_assertion", own.as_str()),
            ("resource", aud.as_str()),
        ];
        let (status, body) = t.settled("/token", &form).await;
        body["access_token"].as_str().map(str::to_owned).ok_or_else(|| format!("{status} {body}"))
    })
    .await;
    let token = pass_on(&t, &called).await;
    let c = claims(&token);
    assert_eq!((&c["sub"], &c["preferred_username"]), (&json!(sub), &json!(username)));
    assert_eq!(c["sub_profile"], "user ai_agent");
    assert_eq!(c["act"]["sub"], json!(t.agent_id("b").await));
    assert_eq!(c["act"]["act"]["sub"], json!(t.agent_id("a").await));
    assert_eq!(c["agentid.dev"]["mode"], "delegated");
    assert_eq!(t.introspect("asker", &token).await["active"], true);
    t.apply(AGENT).await;
    t.is_active(&token, false).await;
}

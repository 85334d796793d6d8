//! How others check: status lists, `/verify`, identity tokens, files, metadata; and what revocation they feel.

use agentid::crypto::{Typ, verify_status_list};
use serde_json::{Value, json};

use crate::common::eventually;
use crate::kit::*;

/// Where a token stands in its list, as a verifier that fetches the list now sees it.
pub async fn status_of(t: &Test, token: &str, list: Option<&str>) -> Option<u8> {
    let entry = claims(token)["status"]["status_list"].clone();
    let (uri, index) = (entry["uri"].as_str().unwrap(), entry["idx"].as_u64().unwrap());
    let path = uri.strip_prefix(&t.stage.town.issuer).unwrap();
    let fetched = match list {
        Some(list) => list.to_owned(),
        None => t.service().get(path).await.unwrap().body,
    };
    let now = jiff::Timestamp::now().as_second();
    let list = verify_status_list(&fetched, &t.service().keys().await, uri, now, 5).unwrap();
    assert!(list.ttl.is_some_and(|ttl| ttl == 2));
    list.list.status(index)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_bit_turns_and_a_newborn_reads_valid() {
    let t = Test::new("lists").await;
    let token = t.token(&[]).await;
    assert_eq!(status_of(&t, &token, None).await, Some(0));
    let uri = claims(&token)["status"]["status_list"]["uri"].as_str().unwrap().to_owned();
    let path = uri.strip_prefix(&t.stage.town.issuer).unwrap().to_owned();
    // The token in the Secret is of the same answer.
    let secret = t.secret("a-agentid").await.unwrap().data.unwrap();
    let filed = String::from_utf8(secret["tickets.jwt"].0.clone()).unwrap();
    assert_eq!(claims(&filed)["status"], claims(&token)["status"]);

    // A verifier has cached the list before the agent is born.
    let cached = t.service().get(&path).await.unwrap().body;
    t.apply(&AGENT.replace("name: a", "name: newborn").replace("runner", "another")).await;
    t.apply(&GRANT.replace("name: tickets", "name: newborns").replace("[a]", "[newborn]")).await;
    t.ready("newborn").await;
    let newborn = eventually("its Secret", SOON, || async {
        let data = t.secret("newborn-agentid").await?.data?;
        String::from_utf8(data.get("tickets.jwt")?.0.clone()).ok()
    })
    .await;
    assert_eq!(claims(&newborn)["status"]["status_list"]["uri"], json!(uri));
    assert_eq!(status_of(&t, &newborn, Some(&cached)).await, Some(0));

    t.suspend("a", true).await;
    eventually("the bit turns", SOON, || async {
        let status = status_of(&t, &token, None).await;
        if status == Some(1) { Ok(()) } else { Err(status) }
    })
    .await;
    t.is_active(&token, false).await;
    let (status, body) = t.ask(&t.sa_token().await, &[]).await;
    assert_eq!((status, body["error"].as_str()), (401, Some("invalid_client")), "{body}");
    // A resume has an index of its own: the old token stays dead.
    t.suspend("a", false).await;
    t.ready("a").await;
    let again = t.token(&[]).await;
    assert_ne!(claims(&again)["status"], claims(&token)["status"]);
    t.is_active(&again, true).await;
    assert_eq!(t.introspect("asker", &token).await["active"], false);
    assert_eq!(status_of(&t, &token, None).await, Some(1));

    let aggregation: Value =
        serde_json::from_str(&t.service().get("/statuslists").await.unwrap().body).unwrap();
    assert!(aggregation["status_lists"].as_array().unwrap().contains(&json!(uri)), "{aggregation}");
    assert!(t.service().get(&format!("{path}?time=1")).await.unwrap_err().contains("501"));
    assert!(
        t.service().get("/statuslists/00000000000000000000000000000000").await.unwrap_err().contains("404")
    );
}

/// A plain HTTP request to the port for proxies: the status and the headers.
pub async fn verify(
    t: &Test,
    path: &str,
    authorization: Option<&str>,
) -> (u16, std::collections::BTreeMap<String, String>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(&t.service().proxies).await.unwrap();
    let header = authorization.map(|a| format!("Authorization: {a}\r\n")).unwrap_or_default();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: verify\r\nX-Agent-Name: forged\r\n{header}Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let mut lines = answer.split("\r\n\r\n").next().unwrap().lines();
    let code = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers =
        lines.filter_map(|l| l.split_once(": ")).map(|(n, v)| (n.to_lowercase(), v.to_owned())).collect();
    (code, headers)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_is_told_who_calls() {
    let t = Test::new("proxy").await;
    let token = t.token(&[]).await;
    let path = t.fill("/verify/$NS");
    let bearer = format!("Bearer {token}");
    let (code, headers) = verify(&t, &format!("{path}/original/path?x=1"), Some(&bearer)).await;
    assert_eq!(code, 200, "{headers:?}");
    for name in agentid::serve::AGENT_HEADERS {
        assert!(headers.contains_key(name), "{name} is not set: a client's own would get through");
    }
    assert_eq!(headers["x-agent-id"], t.agent_id("a").await);
    assert_eq!((&*headers["x-agent-namespace"], &*headers["x-agent-name"]), (&*t.name, "a"));
    assert_eq!((&*headers["x-agent-scope"], &*headers["x-agent-roles"]), ("tickets.read", "triager"));
    assert_eq!(verify(&t, &format!("{path}?scope=tickets.read&role=triager"), Some(&bearer)).await.0, 200);

    let (code, headers) = verify(&t, &path, None).await;
    assert_eq!(code, 401);
    assert!(!headers["www-authenticate"].contains("error"), "{headers:?}");
    let (code, headers) = verify(&t, &path, Some("Bearer x.y.z")).await;
    assert_eq!(code, 401);
    assert!(headers["www-authenticate"].contains("error=\"invalid_token\""), "{headers:?}");
    let (code, headers) = verify(&t, &format!("{path}?scope=tickets.write"), Some(&bearer)).await;
    assert_eq!(code, 403);
    assert!(
        headers["www-authenticate"].contains("error=\"insufficient_scope\", scope=\"tickets.write\""),
        "{headers:?}"
    );
    assert_eq!(verify(&t, "/verify/nothing-of-that-name", Some(&bearer)).await.0, 404);

    // A user whose name no header can carry is told apart from every other.
    t.delegate("for-zoe", "a", "$NS", &t.stage.idp.issuer, "Zoë").await;
    let zoe =
        t.stage.idp.token("Zoë", &t.agent_id("a").await, 300, json!({"scope": "tickets.read tickets.write"}));
    let delegated = t.delegated(&zoe, &[]).await;
    let (code, headers) = verify(&t, &path, Some(&format!("Bearer {delegated}"))).await;
    assert_eq!((code, &*headers["x-agent-subject"]), (200, "corp:Zo%C3%AB"));

    t.resource_merge(json!({"spec": {"allow": []}})).await;
    eventually("the allowance is taken back", SOON, || async {
        let (code, headers) = verify(&t, &path, Some(&bearer)).await;
        if code == 401 { Ok(()) } else { Err((code, headers)) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_token_is_exchanged_for_the_pods_own() {
    let t = Test::new("identity").await;
    t.apply(
        "apiVersion: agentid.dev/v1alpha1\nkind: AgentResource\nmetadata: {name: $NS-vault}\nspec:\n  audience: $NS-vault\n  tokenProfile: Identity\n  allow: [{namespaceSelector: {}}]\n---\n\
         apiVersion: agentid.dev/v1alpha1\nkind: AgentGrant\nmetadata: {name: vault}\nspec: {agents: {names: [a]}, resource: $NS-vault, application: {}}\n",
    )
    .await;
    let (sa, audience) = (t.sa_token().await, t.fill("$NS-vault"));
    let form = [
        ("grant_type", EXCHANGE),
        ("subject_token", sa.as_str()),
        ("subject_token_type", JWT),
        ("requested_token_type", JWT),
        ("audience", audience.as_str()),
    ];
    let token = eventually("an identity token", SOON, || async {
        let (status, body) = t.settled("/token", &form).await;
        if status != 200 {
            return Err(format!("{status} {body}"));
        }
        assert_eq!((&body["token_type"], &body["issued_token_type"]), (&json!("N_A"), &json!(JWT)));
        assert!(body["expires_in"].as_i64().unwrap() <= 300);
        Ok(body["access_token"].as_str().unwrap().to_owned())
    })
    .await;
    let verified = t.verified(&token, &audience, Typ::Identity).await;
    assert_eq!(verified.claims["sub"], json!(t.agent_id("a").await));
    let (status, body) = t.ask(&sa, &[("audience", &audience)]).await;
    assert_eq!((status, body["error"].as_str()), (400, Some("invalid_target")), "{body}");
    // Neither kind stands in for the other.
    let (code, _) = verify(&t, &t.fill("/verify/$NS"), Some(&format!("Bearer {token}"))).await;
    assert_eq!(code, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_gets_the_secrets_files_and_loses_them_with_its_life() {
    let t = Test::new("files").await;
    let sa = t.sa_token().await;
    let form = [("client_assertion_type", JWT_BEARER_ASSERTION), ("client_assertion", sa.as_str())];
    let files = eventually("the files", SOON, || async {
        let (status, body) = t.settled("/credentials", &form).await;
        if status == 200 { Ok(body) } else { Err(format!("{status} {body}")) }
    })
    .await;
    let names: Vec<_> = files["files"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["agent.json", "ca.crt", "identity.jwt", "issuer", "jwks.json", "tickets.jwt"]);
    let token = files["files"]["tickets.jwt"].as_str().unwrap();
    t.verified(token, &t.aud(), Typ::Access).await;
    let jti = claims(token)["jti"].clone();
    assert!(
        t.audit()
            .iter()
            .any(|l| l.jti.as_deref() == jti.as_str() && l.endpoint.as_deref() == Some("/credentials"))
    );

    t.end_pod("p").await;
    eventually("the pod is gone", SOON, || async {
        let (status, body) = t.settled("/credentials", &form).await;
        if (status, body["error"].as_str()) == (401, Some("invalid_client")) { Ok(()) } else { Err(body) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_human_runs_an_agent_only_with_the_verb() {
    let t = Test::new("laptop").await;
    t.account("human").await;
    let human = t.sa_token_for("human", None, &t.stage.town.issuer).await;
    let (client_id, aud) = (t.fill("$NS/a"), t.aud());
    let form = [
        ("grant_type", JWT_BEARER),
        ("assertion", human.as_str()),
        ("client_id", client_id.as_str()),
        ("resource", aud.as_str()),
    ];
    let (status, body) = t.settled("/token", &form).await;
    assert_eq!((status, body["error"].as_str()), (400, Some("unauthorized_client")), "{body}");
    t.apply(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: run}\nrules: [{apiGroups: [agentid.dev], resources: [agentidentities], resourceNames: [a], verbs: [run]}]\n---\n\
         apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: run}\nroleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: run}\nsubjects: [{kind: ServiceAccount, name: human, namespace: $NS}, {kind: User, name: 'corp:ann', apiGroup: rbac.authorization.k8s.io}]\n",
    )
    .await;
    let token = eventually("the verb is there", SOON, || async {
        let (status, body) = t.settled("/token", &form).await;
        body["access_token"].as_str().map(str::to_owned).ok_or_else(|| format!("{status} {body}"))
    })
    .await;
    let claims = t.verified(&token, &aud, Typ::Access).await.claims;
    assert_eq!(claims["sub"], json!(t.agent_id("a").await));
    assert!(!claims.contains_key("act"), "the token is the agent's own");
    let line = t.audit().into_iter().find(|l| l.jti.as_deref() == claims["jti"].as_str()).unwrap();
    assert_eq!(line.on_behalf_of, Some(t.fill("system:serviceaccount:$NS:human")));
    // Also with a token of a user issuer; but not with one for somebody else.
    for (audience, wanted) in [(t.stage.town.issuer.clone(), 200), (aud.clone(), 400)] {
        let ann = t.stage.idp.token("ann", &audience, 60, json!({}));
        let mut form = form;
        form[1].1 = &ann;
        let (status, body) = t.settled("/token", &form).await;
        assert_eq!(status, wanted, "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_and_a_second_replica_say_the_same() {
    let t = Test::new("replicas").await;
    let discovery = t.service().get("/.well-known/openid-configuration").await.unwrap();
    let other = t.service().get("/.well-known/oauth-authorization-server").await.unwrap();
    assert_eq!(discovery.body, other.body);
    let document: Value = serde_json::from_str(&discovery.body).unwrap();
    assert_eq!(document["issuer"], json!(t.stage.town.issuer));
    for name in ["token_endpoint", "jwks_uri", "introspection_endpoint", "authorization_endpoint"] {
        assert!(document[name].as_str().unwrap().starts_with(&t.stage.town.issuer), "{name}");
    }
    assert!(t.service().get("/authorize?client_id=x").await.unwrap_err().contains("400"));
    let (status, _, body) = t.service().post("/revoke", &[("token", "x")]).await;
    assert_eq!((status, body["error"].as_str()), (400, Some("unsupported_token_type")));
    let bundle: Value = serde_json::from_str(&t.service().get("/spiffe/bundle").await.unwrap().body).unwrap();
    assert!(bundle["keys"].as_array().unwrap().iter().all(|k| k["use"] == "jwt-svid"), "{bundle}");

    // Another replica, beside the first: the same keys, and what one mints the other knows.
    let token = t.token(&[]).await;
    let listen = format!("127.0.0.1:{}", crate::service::free_port());
    let replica = t.stage.town.serve_at(crate::common::ControlPlane::shared(), &listen).await;
    let asker = t.sa_token_for("asker", None, &t.stage.town.issuer).await;
    let at_replica = agentid::net::fetch::post_form(
        &format!("https://{listen}/introspect"),
        &[("client_assertion_type", JWT_BEARER_ASSERTION), ("client_assertion", &asker), ("token", &token)],
        &agentid::net::fetch::FetchOptions {
            roots: agentid::net::fetch::Roots::Pem(replica.ca.clone()),
            guard: agentid::net::fetch::Guard::Anywhere,
            ..Default::default()
        },
    )
    .await
    .unwrap();
    let body: Value = serde_json::from_str(&at_replica.body).unwrap();
    assert_eq!(body["active"], true, "{body}");
    assert_eq!(replica.stop().code(), Some(0));
}

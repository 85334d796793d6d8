//! From YAML to a verified credential.

use agentid::crypto::{Expect, Typ, verify};
use serde_json::{Value, json};

use crate::common::{eventually, parse};
use crate::kit::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_has_what_a_pod_needs() {
    let t = Test::new("secret").await;
    t.apply(&resource("tickets")).await;
    t.apply(&grant_of(
        "tickets",
        "names: [triage]",
        "tickets",
        "application: {roles: [reader, writer], scopes: [read]}, secretKey: tickets.jwt",
    ))
    .await;
    let agent = t.apply(&agent("triage", "sponsors: [{kind: User, name: ann@example.com}]")).await;
    let uid = agent.metadata.uid.clone().unwrap();
    let id = format!("spiffe://agents.example.com/agent/{uid}");
    let before = now();
    let status = t.ready("triage").await.status.unwrap();
    assert_eq!(status.agent_id.as_deref(), Some(&*id));
    assert_eq!(status.secret_name.as_deref(), Some("triage-agentid"));
    assert_eq!(status.grants_held.as_deref(), Some("1/1"));
    assert_eq!(status.observed_generation, Some(1));
    let held = t.grant_is("triage", "tickets", "Held", "").await;
    assert_eq!((held.roles, held.scopes), (vec!["reader".into(), "writer".into()], vec!["read".into()]));

    let secret = t.secret("triage-agentid").await.unwrap();
    assert_eq!(secret.type_.as_deref(), Some("agentid.dev/credentials"));
    assert_eq!(secret.immutable, None);
    let labels = secret.metadata.labels.clone().unwrap();
    assert_eq!(labels["app.kubernetes.io/managed-by"], "agentid");
    assert_eq!(labels["agentid.dev/agent"], "triage");
    let owners = secret.metadata.owner_references.clone().unwrap();
    assert_eq!(owners.len(), 1, "{owners:?}");
    assert_eq!((owners[0].kind.as_str(), &owners[0].uid), ("AgentIdentity", &uid));
    let annotations = secret.metadata.annotations.clone().unwrap();
    assert_eq!(annotations["agentid.dev/agent-uid"], uid);
    for name in ["plan", "tokens", "key-ids", "renew-at", "expires-at"] {
        assert!(!annotations[&format!("agentid.dev/{name}")].is_empty(), "{name}: {annotations:?}");
    }

    let files = files(&secret);
    assert_eq!(files.keys().collect::<Vec<_>>(), ["agent.json", "identity.jwt", "tickets.jwt"]);
    let document: Value = serde_json::from_str(&files["agent.json"]).unwrap();
    for (field, wanted) in [
        ("version", "v1"),
        ("agentId", &id),
        ("namespace", &t.name),
        ("name", "triage"),
        ("uid", &uid),
        ("issuer", ISSUER),
        ("trustDomain", "agents.example.com"),
    ] {
        assert_eq!(document[field], wanted, "{field}: {document}");
    }
    assert_eq!(document["missing"], json!([]));
    let ticket = document["files"].as_array().unwrap().iter().find(|f| f["file"] == "tickets.jwt").unwrap();
    assert_eq!(ticket["grant"], "tickets");
    assert_eq!(ticket["resource"], t.fill("tickets-$NS"));
    assert_eq!(ticket["roles"], json!(["reader", "writer"]));
    assert_eq!(ticket["scopes"], json!(["read"]));

    let tokens = t.verified("triage-agentid").await;
    let access = &tokens["tickets.jwt"].claims;
    assert_eq!(access["sub"], id.as_str());
    assert_eq!(access["client_id"], id.as_str());
    assert_eq!(access["roles"], json!(["reader", "writer"]));
    assert_eq!(access["scope"], "read");
    assert_eq!(access["agentid.dev"]["name"], "triage");
    assert_eq!(access["agentid.dev"]["namespace"], t.name.as_str());
    assert_eq!(tokens["identity.jwt"].claims["aud"], ISSUER);
    assert_ne!(access["jti"], tokens["identity.jwt"].claims["jti"]);
    for (file, token) in &tokens {
        let (iat, exp) = (token.claims["iat"].as_i64().unwrap(), token.claims["exp"].as_i64().unwrap());
        assert_eq!(exp - iat, 3600, "{file}");
        assert!(
            (before - 5..=now()).contains(&iat),
            "{file}: iat {iat}, made between {before} and {}",
            now()
        );
    }

    // Neither another party nor another use of the same key takes the token.
    let keys = t.keys().await;
    let expect = |audience, typ, now| Expect { issuer: ISSUER, audience, typ, leeway: 2, now };
    let token = &files["tickets.jwt"];
    let audience = t.fill("https://tickets.$NS.example.com");
    for (wrong, check) in [
        (expect("https://other.example.com", Typ::Access, now()), "aud"),
        (expect(&audience, Typ::Identity, now()), "typ"),
        (expect(&audience, Typ::Access, now() + 3610), "exp"),
        (Expect { issuer: "https://evil.example.com", ..expect(&audience, Typ::Access, now()) }, "iss"),
    ] {
        assert_eq!(verify(token, &keys, &wrong).unwrap_err().check(), check);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_profile_algorithm_and_subject_verifies() {
    let t = Test::new("profiles").await;
    let identity = |name: &str, more: &str| {
        format!(
            "---\napiVersion: agentid.dev/v1alpha1\nkind: AgentResource\nmetadata: {{name: {name}-$NS}}\nspec: {{audience: \
             \"{name}.$NS\", tokenProfile: Identity, allow: {THIS_NAMESPACE}{more}}}\n"
        )
    };
    let plain = |name: &str| {
        grant_of(name, "selector: {}", name, &format!("application: {{}}, secretKey: {name}.jwt"))
    };
    t.apply(
        &[
            resource_with("rsa", THIS_NAMESPACE, ", signingAlgorithm: RS256, maxTokenLifetime: 20m"),
            resource_with("ec", THIS_NAMESPACE, ", signingAlgorithm: ES256"),
            identity("vault", ", signingAlgorithm: RS256, subject: Name"),
            identity("sts", ", subject: Id"),
            grant("rsa", "selector: {}", "rsa", ""),
            grant("ec", "selector: {}", "ec", ""),
            plain("vault"),
            plain("sts"),
            agent("a", "tokenLifetime: 30m"),
        ]
        .concat(),
    )
    .await;
    let wanted = ["agent.json", "ec.jwt", "identity.jwt", "rsa.jwt", "sts.jwt", "vault.jwt"];
    t.ready("a").await;
    t.has_files("a-agentid", &wanted, SOON).await;
    let tokens = t.verified("a-agentid").await;
    let uid = t.agent("a").await.unwrap().metadata.uid.unwrap();
    let id = format!("spiffe://agents.example.com/agent/{uid}");
    let by_name = format!("spiffe://agents.example.com/ns/{}/agent/a", t.name);
    for (file, algorithm, subject, lifetime) in [
        ("identity.jwt", "ES256", &id, 1800),
        ("ec.jwt", "ES256", &id, 1800),
        ("rsa.jwt", "RS256", &id, 1200),
        ("sts.jwt", "ES256", &id, 1800),
        ("vault.jwt", "RS256", &by_name, 1800),
    ] {
        let token = &tokens[file];
        assert_eq!(token.algorithm.to_string(), algorithm, "{file}");
        assert_eq!(token.claims["sub"], subject.as_str(), "{file}");
        let (iat, exp) = (token.claims["iat"].as_i64().unwrap(), token.claims["exp"].as_i64().unwrap());
        assert_eq!(exp - iat, lifetime, "{file}");
    }
    assert!(!tokens["sts.jwt"].claims.contains_key("roles"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_agent_costs_two_writes_and_an_unchanged_one_none() {
    let t = Test::new("writes").await;
    t.apply(&(resource("tickets") + &grant("tickets", "selector: {}", "tickets", ""))).await;
    t.grant_says("tickets", "False", "AgentNotFound", &["spec.agents"]).await;
    let before = mark();
    t.apply(&agent("a", "")).await;
    t.ready("a").await;
    // The grant's count follows within 2 s.
    t.grant_says("tickets", "True", "Issued", &["held by 1"]).await;
    tokio::time::sleep(PAUSE).await;
    let of_agents =
        |writes: Vec<String>| writes.into_iter().filter(|w| !w.contains("agentgrants")).collect::<Vec<_>>();
    assert_eq!(of_agents(t.writes(before)), ["create secrets", "patch agentidentities/status"]);

    let before = mark();
    t.merge::<agentid::api::AgentIdentity>("a", json!({"metadata": {"labels": {"team": "x"}}})).await;
    t.merge::<agentid::api::AgentGrant>("tickets", json!({"metadata": {"annotations": {"note": "x"}}})).await;
    tokio::time::sleep(PAUSE).await;
    assert_eq!(t.writes(before), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owned_agent_costs_three_writes() {
    let t = Test::for_pods("owned").await;
    t.apply(&pod("p", "agentid.dev/agent: a")).await;
    let before = mark();
    t.apply(&agent("a", "boundObjectRef: {apiVersion: v1, kind: Pod, name: p}")).await;
    t.ready("a").await;
    tokio::time::sleep(PAUSE).await;
    let mut writes = t.writes(before);
    writes.sort_unstable();
    assert_eq!(writes, ["create secrets", "patch agentidentities", "patch agentidentities/status"]);
}

/// The longest names that the kinds take.
#[tokio::test(flavor = "multi_thread")]
async fn long_names_work() {
    let t = Test::new("long").await;
    let name = "a".repeat(63);
    let (resource_name, grant_name) = ("r".repeat(240 - t.name.len()), "g".repeat(249));
    t.apply(
        &[
            agent(&name, ""),
            resource(&resource_name).replace(&format!("https://{resource_name}"), "https://r"),
            grant(&grant_name, &format!("names: [{name}]"), &resource_name, ""),
        ]
        .concat(),
    )
    .await;
    t.ready(&name).await;
    let file = format!("{grant_name}.jwt");
    t.has_files(&format!("{name}-agentid"), &["agent.json", &file, "identity.jwt"], SOON).await;
    t.verified(&format!("{name}-agentid")).await;
}

/// What the README shows: in a namespace of the test's own instead of `support`.
#[tokio::test(flavor = "multi_thread")]
async fn the_examples_work() {
    let t = Test::for_pods("examples").await;
    let example = |name: &str| {
        let path = format!("{}/examples/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        text.replace("metadata.name: support", "metadata.name: $NS")
            .replace("resource: tickets", "resource: tickets-$NS")
            .replace("//tickets.example", "//tickets.$NS.example")
    };
    let tickets = example("tickets").replace("name: tickets\n", "name: tickets-$NS\n");
    assert_eq!(parse(&tickets)[0].metadata.name.as_deref(), Some("tickets-$NS"));
    t.apply(&tickets).await;
    t.apply(&example("triage")).await;
    t.refused("triage", "BoundObjectNotFound", &["apps/v1/Deployment triage"]).await;
    t.apply(&example("deployment")).await;
    t.apply(&example("pod")).await;
    for name in ["triage", "errand"] {
        t.ready(name).await;
        let secret = format!("{name}-agentid");
        t.has_files(&secret, &["agent.json", "identity.jwt", "tickets.jwt"], SOON).await;
        t.verified(&secret).await;
    }
    let pod_yaml = example("pod");
    let is_pod = |o: &kube::api::DynamicObject| o.types.as_ref().is_some_and(|t| t.kind == "Pod");
    let pod = parse(&pod_yaml).into_iter().find(is_pod).unwrap();
    let errand = t.agent("errand").await.unwrap();
    t.delete(&serde_json::to_string(&pod).unwrap()).await;
    t.no_agent(&errand).await;
    t.no_secret("errand-agentid").await;
    eventually("triage is as it was", SOON, || async { t.secret("triage-agentid").await }).await;
}

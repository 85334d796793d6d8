//! What the record answers: whose a token is, what nobody uses, and what a token's status list says of it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use agentid::api::AgentGrant;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::common::{ControlPlane, eventually, target_dir, unique};
use crate::kit::*;

fn agentid(words: &[&str]) -> Output {
    tokio::task::block_in_place(|| Command::new(env!("CARGO_BIN_EXE_agentid")).args(words).output().unwrap())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A command that asks the cluster, by what the token service wrote.
fn of_record(t: &Test, words: &[&str]) -> (String, String, Option<i32>) {
    let log = t.service().log().to_string_lossy().into_owned();
    let kubeconfig = ControlPlane::shared().kubeconfig.to_string_lossy().into_owned();
    let words = [words, &["--file", &log, "--kubeconfig", &kubeconfig]].concat();
    let done = agentid(&words);
    (text(&done.stdout), text(&done.stderr), done.status.code())
}

fn traced(t: &Test, jti: &str) -> Value {
    let (said, wrong, code) = of_record(t, &["trace", jti, "-o", "json"]);
    assert_eq!(code, Some(0), "{wrong}");
    serde_json::from_str(&said).unwrap()
}

/// Waits until a trace says how the token stands.
async fn stands(t: &Test, jti: &str, wanted: &str) -> Value {
    eventually(format!("the token is {wanted}"), SOON, || async {
        let found = traced(t, jti);
        if found["now"]["stands"] == wanted { Ok(found) } else { Err(found) }
    })
    .await
}

fn jti(token: &str) -> String {
    claims(token)["jti"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_traced_to_its_pod_and_dies_with_it() {
    let t = Test::new("trace").await;
    t.account("bound").await;
    let pod = t.pod("q", "bound").await;
    t.apply(
        "
apiVersion: agentid.dev/v1alpha1
kind: AgentIdentity
metadata: {name: b}
spec: {serviceAccountName: bound, boundObjectRef: {apiVersion: v1, kind: Pod, name: q}}
---
apiVersion: agentid.dev/v1alpha1
kind: AgentGrant
metadata: {name: of-b}
spec: {agents: {names: [b]}, resource: $NS, application: {roles: [triager], scopes: [tickets.read, tickets.write]}}
",
    )
    .await;
    let id = t.agent_id("b").await;
    let (sa, aud) = (t.sa_token_for("bound", Some("q"), &t.stage.town.issuer).await, t.aud());
    let token = eventually("a token", SOON, || async {
        let (_, body) = t.ask(&sa, &[("resource", aud.as_str()), ("scope", "tickets.read")]).await;
        body["access_token"].as_str().map(str::to_owned).ok_or(body)
    })
    .await;
    let jti = jti(&token);
    let entry = claims(&token)["status"]["status_list"].clone();

    let found = stands(&t, &jti, "Accepted").await;
    let mint = &found["mint"];
    let pod_uid = pod.metadata.uid.unwrap();
    for (member, wanted) in [
        ("agent_id", json!(id)),
        ("namespace", json!(t.name)),
        ("name", json!("b")),
        ("grant", json!("of-b")),
        ("resource", json!(t.name)),
        ("audience", json!(aud)),
        ("roles", json!(["triager"])),
        ("scopes", json!(["tickets.read"])),
        ("pod", json!("q")),
        ("pod_uid", json!(pod_uid)),
        ("service_account", json!(format!("{}/bound", t.name))),
        ("status_index", entry["idx"].clone()),
        ("endpoint", json!("/token")),
    ] {
        assert_eq!(mint[member], wanted, "{member}: {found}");
    }
    assert!(entry["uri"].as_str().unwrap().ends_with(mint["status_list"].as_str().unwrap()), "{found}");
    for (member, state) in [("agent", "present"), ("grant", "present"), ("pod", "present")] {
        assert_eq!(found["now"][member]["state"], state, "{found}");
    }
    let (said, _, _) = of_record(&t, &["trace", &jti]);
    for wanted in [
        format!("  agent     {}/b\n", t.name),
        format!("  pod       {}/q (UID {pod_uid})\n", t.name),
        "\nAccepted now.\n".to_owned(),
    ] {
        assert!(said.contains(&wanted), "{wanted}: {said}");
    }
    assert!(!said.contains(token.rsplit('.').next().unwrap()), "a token in the answer");

    // The agent's grant goes: the token with it, and the trace says by what.
    let other = t.token(&[("scope", "tickets.read")]).await;
    let other = self::jti(&other);
    assert_eq!(stands(&t, &other, "Accepted").await["now"]["agent"]["state"], "present");
    t.delete_grant("tickets").await;
    let found = stands(&t, &other, "Refused").await;
    assert_eq!(found["now"]["message"], format!("AgentGrant {}/tickets is gone", t.name), "{found}");

    // The pod goes, and the agent that is bound to it.
    t.end_pod("q").await;
    let found = stands(&t, &jti, "Refused").await;
    assert_eq!(found["now"]["pod"]["state"], "absent", "{found}");
    let found = eventually("the agent is gone", SOON, || async {
        let found = traced(&t, &jti);
        if found["now"]["agent"]["state"] == "absent" { Ok(found) } else { Err(found) }
    })
    .await;
    assert_eq!(
        (&found["now"]["stands"], &found["now"]["reason"]),
        (&json!("Refused"), &json!("AgentNotFound"))
    );
    let (said, _, code) = of_record(&t, &["trace", &jti]);
    assert_eq!(code, Some(0));
    assert!(said.contains(&format!("Pod {}/q is gone", t.name)) && said.contains("Refused now."), "{said}");

    // What was never minted, and half a jti.
    for none in ["01KAAAAAAAAAAAAAAAAAAAAAAA", &jti[..20]] {
        let (said, wrong, code) = of_record(&t, &["trace", none]);
        assert_eq!((said.as_str(), code), ("", Some(1)));
        assert!(
            wrong.contains(none) && wrong.contains("audit lines among") && wrong.contains("--file"),
            "{wrong}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_that_nobody_uses_are_named_and_narrowed() {
    let t = Test::new("unused").await;
    let grant = |name: &str| {
        format!(
            "{{apiVersion: agentid.dev/v1alpha1, kind: AgentGrant, metadata: {{name: {name}, labels: {{l: v}}}}, spec: \
             {{agents: {{names: [a]}}, resource: $NS, application: {{roles: [triager], scopes: [tickets.read, \
             tickets.write]}}}}}}"
        )
    };
    for name in ["part", "second"] {
        t.apply(&grant(name)).await;
    }
    // The record reaches back beyond the time that is asked for, and the grants are older than it.
    t.token(&[("grant", "second")]).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let since = Timestamp::now().to_string();
    t.token(&[("grant", "part"), ("scope", "tickets.read")]).await;
    t.apply(&grant("young")).await;

    let words = ["unused", "--since", &since, "-n", &t.name];
    let (said, wrong, code) = of_record(&t, &[&words[..], &["-o", "json"]].concat());
    assert_eq!(code, Some(0), "{wrong}");
    let found: Value = serde_json::from_str(&said).unwrap();
    let verdicts: Vec<_> = found["grants"]
        .as_array()
        .unwrap()
        .iter()
        .map(|g| (g["name"].as_str().unwrap(), g["verdict"].as_str().unwrap()))
        .collect();
    assert_eq!(
        verdicts,
        [("part", "Narrower"), ("second", "Unused"), ("tickets", "Delivered"), ("young", "TooYoung")]
    );
    assert_eq!(found["grants"][0]["unusedScopes"], json!(["tickets.write"]));

    let (said, wrong, _) = of_record(&t, &words);
    assert!(!wrong.contains("warning"), "{wrong}");
    assert!(said.contains(&format!("kubectl delete agentgrants.agentid.dev -n {} second", t.name)), "{said}");
    assert!(said.contains("--field-manager=test"), "{said}");
    // What is printed is accepted as it is, and narrows.
    t.expect_change_accepted(&said).await;
    t.apply(&said).await;
    let now = t.api::<AgentGrant>().get("part").await.unwrap();
    let application = now.spec.application.unwrap();
    assert_eq!(
        (application.roles, application.scopes),
        (vec!["triager".to_owned()], vec!["tickets.read".to_owned()])
    );
    assert_eq!(now.metadata.labels.unwrap()["l"], "v");
    let second = t.api::<AgentGrant>().get("second").await.unwrap();
    assert_eq!(second.spec.application.unwrap().scopes.len(), 2, "nothing was done to it");

    // A record that does not reach back so far says so; one that says nothing decides nothing.
    let (_, wrong, _) = of_record(&t, &["unused", "--since", "999d", "-n", &t.name]);
    assert!(wrong.contains("warning: the record begins at"), "{wrong}");
    let (said, wrong, code) = of_record(&t, &["unused", "--since", "2099-01-01T00:00:00Z", "-n", &t.name]);
    assert_eq!((said.as_str(), code), ("", Some(1)), "{wrong}");
    assert!(wrong.contains("nothing can be said"), "{wrong}");
}

struct Files(PathBuf);

impl Files {
    fn new() -> Self {
        let path = target_dir().join("test-logs").join(format!("record-{}", unique()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, content: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path.to_string_lossy().into_owned()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(Path::new(&self.0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_verified_with_its_status() {
    let t = Test::new("status").await;
    let files = Files::new();
    let token = t.token(&[("scope", "tickets.read")]).await;
    let (ca, file) = (files.write("ca.crt", &t.service().ca), files.write("t.jwt", &token));
    let jwks = format!("{}/jwks", t.stage.town.issuer);
    let aud = t.aud();
    let verify = |audience: &str, file: &str, more: &[&str]| {
        let words = [
            &["token", "verify", "--jwks", &jwks, "--ca", &ca, "--issuer", &t.stage.town.issuer],
            &["--audience", audience, file][..],
            more,
        ];
        let done = agentid(&words.concat());
        (text(&done.stdout), text(&done.stderr), done.status.code())
    };
    let (said, wrong, code) = verify(&aud, &file, &["--status"]);
    assert_eq!(code, Some(0), "{said}{wrong}");
    assert!(
        said.contains("ok       status") && said.contains("VALID") && said.contains("Verified: "),
        "{said}"
    );

    t.delete_grant("tickets").await;
    let (said, wrong) = eventually("the status turns", SOON, || async {
        let (said, wrong, code) = verify(&aud, &file, &["--status"]);
        if code == Some(1) { Ok((said, wrong)) } else { Err(said) }
    })
    .await;
    assert!(said.contains("FAILED   status") && said.ends_with("Refused.\n"), "{said}");
    assert!(wrong.contains("the token was withdrawn: entry"), "{wrong}");
    let (said, _, _) = verify(&aud, &file, &["--status", "-o", "json"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&said["verified"], &said["failed"]), (&json!(false), &json!("status")));
    // Without the list nothing shows: that is what it is for.
    assert_eq!(verify(&aud, &file, &[]).2, Some(0));

    // The identity token of a Secret has no status.
    let secrets = t.api::<k8s_openapi::api::core::v1::Secret>();
    let secret = secrets.get("a-agentid").await.unwrap().data.unwrap();
    let identity = files.write("identity.jwt", &text(&secret["identity.jwt"].0));
    let (_, wrong, code) = verify(&t.stage.town.issuer, &identity, &["--status"]);
    assert_eq!(code, Some(1), "{wrong}");
    assert!(wrong.contains("has no claim status"), "{wrong}");
}

//! The key ring: rotation without a gap, revocation, and what is said when it is lost, damaged or rolled back.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use agentid::api::{Configuration, SigningAlgorithm};
use agentid::cluster::keystore::{KeyStore, LeaseNote};
use agentid::cluster::keywatch::{KeyState, KeyWatcher};
use agentid::crypto::{Expect, JwkSet, Typ, verify};
use agentid::domain::keyring::KeyRing;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::common::eventually;
use crate::common::{ControlPlane, Namespace, Operator, http_get};
use crate::{agent, files, ready, refused, setup, turn};

const SECONDS: &str = "keys: {signFor: 25s, publishAhead: 3s}\n\
    limits: {tokenLifetime: 15s, minTokenLifetime: 5s, maxTokenLifetime: 1m}\n";

pub async fn jwks(ns: &Namespace) -> JwkSet {
    let maps: Api<ConfigMap> = Api::namespaced(ns.client.clone(), &ns.name);
    let data = maps.get("agentid-trust").await.unwrap().data.unwrap();
    JwkSet::parse(&data["jwks.json"]).unwrap().set
}

fn holds(token: &str, keys: &JwkSet) -> Result<(), String> {
    let issuer = "https://agents.example.com";
    let now = jiff::Timestamp::now().as_second();
    let expect = Expect { issuer, audience: issuer, typ: Typ::Identity, leeway: 2, now };
    verify(token, keys, &expect).map(drop).map_err(|e| e.to_string())
}

/// Runs `agentid keys …` against a control plane; gives its exit code and what it printed.
pub fn keys(cp: &ControlPlane, namespace: &str, args: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_agentid"))
        .args(["keys", "--namespace", namespace, "--kubeconfig"])
        .arg(&cp.kubeconfig)
        .args(args)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat();
    (output.status.code().unwrap_or(-1), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn rotations_strand_no_live_token_and_a_revoked_key_is_gone() {
    let turn = turn().await;
    let cp = &turn.control_plane;
    let operator = Operator::start(cp, setup("agentid-rotation", SECONDS)).await;
    let ns = Arc::new(Namespace::new(cp, "rotation").await);
    for i in 0..10 {
        ns.apply(&agent(&format!("a{i}"))).await;
    }
    for i in 0..10 {
        ready(&ns, &format!("a{i}")).await;
    }

    // Every token that ever lay in the Secret verifies as long as it lives, while keys come and go.
    let revoking = Arc::new(AtomicBool::new(false));
    let watching = tokio::spawn({
        let (ns, revoking) = (ns.clone(), revoking.clone());
        async move {
            let mut seen: BTreeMap<String, i64> = BTreeMap::new();
            let mut kids = std::collections::BTreeSet::new();
            while !revoking.load(Ordering::Relaxed) {
                let keys = jwks(&ns).await;
                let token = files(&ns, "a0-agentid").await.unwrap()["identity.jwt"].clone();
                let inspected = agentid::crypto::inspect(&token).unwrap();
                kids.insert(inspected.header["kid"].as_str().unwrap().to_owned());
                seen.insert(token, inspected.claims["exp"].as_i64().unwrap());
                let now = jiff::Timestamp::now().as_second();
                for token in seen.iter().filter(|(_, exp)| **exp > now + 1).map(|(t, _)| t) {
                    // The Secret may be newer than the keys that were read before it: read them again then.
                    if holds(token, &keys).is_err() {
                        assert_eq!(holds(token, &jwks(&ns).await), Ok(()), "a live token was stranded");
                    }
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            kids
        }
    });
    let (code, said) = keys(cp, "agentid-rotation", &["rotate"]);
    assert_eq!(code, 0, "{said}");
    tokio::time::sleep(Duration::from_secs(40)).await;
    revoking.store(true, Ordering::Relaxed);
    let kids = watching.await.unwrap();
    assert!(kids.len() >= 2, "no rotation flowed in: {kids:?}");

    // A scheduled one flows in with renewals; a revoked key is out at once.
    let token = files(&ns, "a0-agentid").await.unwrap()["identity.jwt"].clone();
    let kid = agentid::crypto::inspect(&token).unwrap().header["kid"].as_str().unwrap().to_owned();
    let (code, said) = keys(cp, "agentid-rotation", &["revoke", "--", &kid]);
    assert!(code == 0 && said.contains("nothing was done"), "{said}");
    let (code, said) = keys(cp, "agentid-rotation", &["revoke", "--yes", "--", &kid]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("minted anew in"), "{said}");
    let set = jwks(&ns).await;
    assert!(set.find(&kid).is_none(), "a revoked key is still published");
    assert!(holds(&token, &set).is_err());
    for i in 0..10 {
        let token = files(&ns, &format!("a{i}-agentid")).await.unwrap()["identity.jwt"].clone();
        assert_eq!(holds(&token, &set), Ok(()));
    }
    let (code, said) = keys(cp, "agentid-rotation", &["status"]);
    assert!(code == 0 && said.contains("Revoked") && said.contains("Next"), "{said}");
    for state in ["Active", "Next"] {
        let line = |l: &&str| l.contains("status lists") && l.contains(state);
        assert_eq!(said.lines().filter(line).count(), 1, "{state}: {said}");
    }
    operator.stop();
}

/// Restores an object as a backup tool does: under a new UID.
pub async fn restore(secrets: &Api<Secret>, backup: &Secret) {
    let mut copy = backup.clone();
    copy.metadata.resource_version = None;
    copy.metadata.uid = None;
    copy.metadata.managed_fields = None;
    copy.metadata.creation_timestamp = None;
    let name = copy.metadata.name.clone().unwrap();
    let _ = secrets.delete(&name, &DeleteParams::default()).await;
    secrets.create(&PostParams::default(), &copy).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_or_damaged_ring_stops_signing_and_says_so() {
    let turn = turn().await;
    let cp = &turn.control_plane;
    let system = "agentid-ring";
    let operator = Operator::start(cp, setup(system, "")).await;
    let ns = Namespace::new(cp, "ring").await;
    let client = cp.client().await;
    let secrets: Api<Secret> = Api::namespaced(client, system);
    ns.apply(
        "{apiVersion: agentid.dev/v1alpha1, kind: AgentResource, metadata: {name: $NS}, \
         spec: {audience: \"https://$NS.example.com\", roles: [{name: a}], allow: [{namespaceSelector: {}}]}}",
    )
    .await;
    ns.apply(&agent("before")).await;
    ns.apply(
        "{apiVersion: agentid.dev/v1alpha1, kind: AgentGrant, metadata: {name: g}, spec: {agents: {names: \
         [before]}, resource: $NS, application: {roles: [a]}, secretKey: g.jwt}}",
    )
    .await;
    ready(&ns, "before").await;
    eventually("the grant is delivered", Duration::from_secs(20), || async {
        files(&ns, "before-agentid").await.filter(|f| f.contains_key("g.jwt"))
    })
    .await;
    let kept = files(&ns, "before-agentid").await.unwrap();
    let older = secrets.get("agentid-signing-keys").await.unwrap();
    let (code, said) = keys(cp, system, &["rotate"]);
    assert!(code == 0 && said.contains("scheduled"), "{said}");
    let good = secrets.get("agentid-signing-keys").await.unwrap();

    let not_ready = |part: &'static str| {
        let operator = &operator;
        async move {
            eventually(format!("/readyz says {part:?}"), Duration::from_secs(20), || async {
                let (code, body) = http_get(&operator.admin, "/readyz").await.map_err(|e| e.to_string())?;
                if code == 503 && body.contains(part) { Ok(()) } else { Err(format!("{code} {body}")) }
            })
            .await;
        }
    };
    let params = PatchParams::default();

    // Missing.
    secrets.delete("agentid-signing-keys", &DeleteParams::default()).await.unwrap();
    not_ready("restore").await;
    ns.apply(&agent("missing")).await;
    let said = refused(&ns, "missing", "KeysUnavailable").await;
    assert!(said.contains("restore") && said.contains("agentid keys reset"), "{said}");
    assert!(secrets.get_opt("agentid-signing-keys").await.unwrap().is_none(), "a silent new ring");
    assert_eq!(files(&ns, "before-agentid").await.unwrap(), kept, "what is still good stays");
    // A right that is taken back is taken back all the same, without a key.
    ns.delete("{apiVersion: agentid.dev/v1alpha1, kind: AgentGrant, metadata: {name: g}}").await;
    eventually("the file is taken out", Duration::from_secs(20), || async {
        let files = files(&ns, "before-agentid").await?;
        (!files.contains_key("g.jwt") && files["identity.jwt"] == kept["identity.jwt"]).then_some(())
    })
    .await;
    restore(&secrets, &good).await;
    ready(&ns, "missing").await;

    // Edited by hand.
    let mut ring: serde_json::Value = serde_json::from_slice(
        &secrets.get("agentid-signing-keys").await.unwrap().data.unwrap()["ring.json"].0,
    )
    .unwrap();
    ring["issuer"] = json!("https://evil.example.com");
    let edited = k8s_openapi::ByteString(serde_json::to_vec(&ring).unwrap());
    let patch = Patch::Merge(json!({"data": {"ring.json": edited}}));
    secrets.patch("agentid-signing-keys", &params, &patch).await.unwrap();
    not_ready("keys").await;
    ns.apply(&agent("edited")).await;
    refused(&ns, "edited", "KeysUnavailable").await;
    restore(&secrets, &good).await;
    ready(&ns, "edited").await;

    // Damaged.
    let patch = Patch::Merge(json!({"data": {"ring.json": k8s_openapi::ByteString(b"{".to_vec())}}));
    secrets.patch("agentid-signing-keys", &params, &patch).await.unwrap();
    not_ready("keys").await;

    // Rolled back to an older generation.
    restore(&secrets, &older).await;
    not_ready("generation").await;
    ns.apply(&agent("rolled")).await;
    let said = refused(&ns, "rolled", "KeysUnavailable").await;
    assert!(said.contains("generation") || said.contains("older"), "{said}");

    // The way out when there is no backup.
    let (code, said) = keys(cp, system, &["reset"]);
    assert!(code == 0 && said.contains("nothing was done"), "{said}");
    let (code, said) = keys(cp, system, &["reset", "--yes"]);
    assert_eq!(code, 0, "{said}");
    ready(&ns, "rolled").await;
    let token = eventually("the tokens are minted anew", Duration::from_secs(30), || async {
        files(&ns, "before-agentid")
            .await
            .map(|f| f["identity.jwt"].clone())
            .filter(|t| *t != kept["identity.jwt"])
    })
    .await;
    assert_eq!(holds(&token, &jwks(&ns).await), Ok(()));
    operator.stop();

    // Another issuer over live tokens is refused, not taken.
    let mut other = setup(system, "");
    other.configuration = other.configuration.replace("agents.example.com", "other.example.com");
    let operator = Operator::spawn(cp, &other);
    eventually("/readyz names the issuer", Duration::from_secs(60), || async {
        let (code, body) = http_get(&operator.admin, "/readyz").await.map_err(|e| e.to_string())?;
        if code == 503 && body.contains("issuer") && body.contains("keys") { Ok(()) } else { Err(body) }
    })
    .await;
    assert_eq!(files(&ns, "before-agentid").await.unwrap()["identity.jwt"], token);
    operator.stop();
}

/// The ring as it stands, less the keys of status lists, as a version from before them wrote it.
fn without_status_lists(mut secret: Secret) -> (Secret, KeyRing) {
    let data = secret.data.as_mut().unwrap();
    let file: serde_json::Value = serde_json::from_slice(&data["ring.json"].0).unwrap();
    let mut ring: KeyRing = serde_json::from_value(file["ring"].clone()).unwrap();
    let (kept, gone): (Vec<_>, Vec<_>) = ring.keys.into_iter().partition(|k| k.purpose.is_tokens());
    assert_eq!((kept.len(), gone.len()), (4, 2));
    ring.keys = kept;
    for key in gone {
        data.remove(&format!("{}.pem", key.kid)).unwrap();
    }
    let written = serde_json::to_string(&ring).unwrap();
    assert!(!written.contains("purpose"), "{written}");
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, written.as_bytes());
    let digest: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    let file = format!("{{\"digest\":\"sha256:{digest}\",\"ring\":{written}}}");
    data.insert("ring.json".to_owned(), k8s_openapi::ByteString(file.into_bytes()));
    (secret, ring)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_from_before_status_lists_is_taken_over() {
    let turn = turn().await;
    let cp = &turn.control_plane;
    let system = "agentid-upgrade";
    let operator = Operator::start(cp, setup(system, "")).await;
    let ns = Namespace::new(cp, "upgrade").await;
    ns.apply(&agent("a")).await;
    ready(&ns, "a").await;
    let before = files(&ns, "a-agentid").await.unwrap();
    operator.stop();
    let secrets: Api<Secret> = Api::namespaced(cp.client().await, system);
    let (old, ring) = without_status_lists(secrets.get("agentid-signing-keys").await.unwrap());
    restore(&secrets, &old).await;
    let store = KeyStore::new(cp.client().await, system);
    let loaded = store.load().await.unwrap();
    assert!(loaded.status_signer().is_none() && loaded.signer(SigningAlgorithm::ES256).is_some());

    let operator = Operator::start(cp, setup(system, "")).await;
    let loaded = eventually("the ring has keys for status lists", Duration::from_secs(20), || async {
        let loaded = store.load().await.unwrap();
        if loaded.status_signer().is_some() { Ok(loaded) } else { Err("none") }
    })
    .await;
    assert_eq!(loaded.ring.keys[..4], ring.keys[..], "the keys of tokens are left alone");
    eventually("the new keys are published", Duration::from_secs(20), || async {
        let published = jwks(&ns).await.keys().len();
        if published == 6 { Ok(()) } else { Err(published) }
    })
    .await;
    assert_eq!(files(&ns, "a-agentid").await.unwrap(), before, "nothing is minted anew");
    operator.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_lead_follows_the_ring() {
    let turn = turn().await;
    let cp = &turn.control_plane;
    let system = "agentid-follow";
    let operator = Operator::start(cp, setup(system, SECONDS)).await;
    let client = cp.client().await;
    let config = Configuration::from_yaml(&setup(system, SECONDS).configuration).unwrap();
    let note = LeaseNote::new(client.clone(), system, "agentid-operator");
    let watcher = KeyWatcher::new(KeyStore::new(client.clone(), system), note, &config);
    let (state, seen) = tokio::sync::watch::channel(KeyState::Loading);
    let stop = tokio_util::sync::CancellationToken::new();
    let following = tokio::spawn({
        let stop = stop.clone();
        async move { watcher.run(&state, &stop).await }
    });
    let becomes = |what: &'static str, such: fn(&KeyState) -> bool| {
        let seen = seen.clone();
        async move {
            eventually(what, Duration::from_secs(20), || async {
                let now = seen.borrow().clone();
                if such(&now) { Ok(now) } else { Err(format!("{now:?}")) }
            })
            .await
        }
    };
    becomes("the ring is read", |s| matches!(s, KeyState::Ready(l) if l.status_signer().is_some())).await;

    let secrets: Api<Secret> = Api::namespaced(client, system);
    let older = secrets.get("agentid-signing-keys").await.unwrap();
    let (code, said) = keys(cp, system, &["rotate"]);
    assert_eq!(code, 0, "{said}");
    eventually("it follows the leader", Duration::from_secs(20), || async {
        let store = KeyStore::new(secrets.clone().into_client(), system);
        let leads = store.load().await.unwrap().ring.clone();
        match &*seen.borrow() {
            KeyState::Ready(l) if l.ring == leads && l.ring.generation > 1 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    operator.stop();

    let good = secrets.get("agentid-signing-keys").await.unwrap();
    restore(&secrets, &older).await;
    let unavailable = |part: &'static str| {
        let seen = seen.clone();
        async move {
            eventually(format!("it says {part:?}"), Duration::from_secs(20), || async {
                match &*seen.borrow() {
                    KeyState::Unavailable { message } if message.contains(part) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await;
        }
    };
    unavailable("an old copy").await;
    secrets.delete("agentid-signing-keys", &DeleteParams::default()).await.unwrap();
    unavailable("is missing").await;
    restore(&secrets, &good).await;
    becomes("the good ring is back", |s| matches!(s, KeyState::Ready(_))).await;
    stop.cancel();
    following.await.unwrap();
    assert!(matches!(*seen.borrow(), KeyState::Loading), "who follows no more signs no more");
}

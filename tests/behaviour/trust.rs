//! The ConfigMap agentid-trust: in each namespace with agents or with the label.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::common::eventually;
use crate::kit::*;

const NAME: &str = "agentid-trust";

async fn found(t: &Test) -> Option<ConfigMap> {
    t.api::<ConfigMap>().get_opt(NAME).await.unwrap()
}

async fn published(t: &Test) -> ConfigMap {
    eventually("agentid-trust with the keys", SOON, || async {
        found(t).await.filter(|c| c.data.iter().flatten().any(|(k, _)| k == "jwks.json"))
    })
    .await
}

async fn gone(t: &Test) {
    eventually("agentid-trust is gone", SOON, || async {
        found(t).await.map_or(Ok(()), |c| Err(format!("{:?}", c.metadata)))
    })
    .await;
}

async fn label(t: &Test, value: Value) {
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(t.client.clone());
    let patch = json!({"metadata": {"labels": {"agentid.dev/trust": value}}});
    namespaces.patch(&t.name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_healed_and_goes_with_the_last_agent() {
    let t = Test::new("trust").await;
    t.apply(&(agent("a", "") + &agent("b", ""))).await;
    t.ready("a").await;
    t.ready("b").await;
    let first = published(&t).await;
    assert_eq!(first.metadata.labels.as_ref().unwrap()["app.kubernetes.io/managed-by"], "agentid");
    let keys = t.keys().await;
    for algorithm in ["ES256", "RS256"] {
        assert!(keys.keys().iter().any(|k| k.algorithm().to_string() == algorithm), "no {algorithm} key");
    }
    let authorities = &first.data.as_ref().unwrap()["ca.crt"];
    assert!(authorities.starts_with("-----BEGIN CERTIFICATE-----") && !authorities.contains("PRIVATE"));
    for patch in [
        json!({"data": {"jwks.json": "{\"keys\": []}"}}),
        json!({"data": {"issuer": null}}),
        json!({"data": {"ca.crt": null}}),
        json!({"data": {"more": "x"}}),
        json!({"binaryData": {"more": "eA=="}}),
        json!({"immutable": true}),
    ] {
        t.merge::<ConfigMap>(NAME, patch.clone()).await;
        eventually(format!("healed: {patch}"), SOON, || async {
            let now = found(&t).await.ok_or("there is none")?;
            let good = now.data == first.data && now.binary_data.is_none() && now.immutable != Some(true);
            if good { Ok(()) } else { Err(format!("{now:?}")) }
        })
        .await;
    }
    t.delete("{apiVersion: v1, kind: ConfigMap, metadata: {name: agentid-trust}}").await;
    published(&t).await;

    t.delete(&agent("a", "")).await;
    tokio::time::sleep(PAUSE).await;
    assert!(found(&t).await.is_some(), "another agent is still there");
    t.delete(&agent("b", "")).await;
    gone(&t).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_asks_for_it() {
    let t = Test::new("trust-label").await;
    tokio::time::sleep(PAUSE).await;
    assert!(found(&t).await.is_none());
    label(&t, json!("true")).await;
    published(&t).await;
    t.keys().await;
    label(&t, Value::Null).await;
    gone(&t).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_one_is_reported_and_left_alone() {
    let t = Test::new("trust-foreign").await;
    t.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: agentid-trust}, data: {issuer: theirs}}")
        .await;
    let theirs = found(&t).await;
    t.apply(&agent("a", "")).await;
    t.ready("a").await;
    t.event(NAME, "Warning ForeignObject", &["agentid-trust", "not agentid's", "delete or rename it"]).await;
    tokio::time::sleep(PAUSE).await;
    assert_eq!(found(&t).await, theirs);
    t.delete("{apiVersion: v1, kind: ConfigMap, metadata: {name: agentid-trust}}").await;
    published(&t).await;
    t.verified("a-agentid").await;
}

//! What agents may have bought on demand is in no Secret: the key ring is not given up unasked for all that. The note of
//! its generation outlives the Lease that bears it.

use std::time::Duration;

use agentid::cluster::keystore::{GENERATION_ANNOTATION, KeyStore};
use agentid::domain::keyring::KeyRing;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::DeleteParams;

use crate::common::{Namespace, Operator, eventually, http_get};
use crate::keys::restore;
use crate::{refused, setup, turn};

const SOON: Duration = Duration::from_secs(60);
const KEYS: &str = "agentid-signing-keys";

/// Waits until `/readyz` says something; what it says then.
async fn says(operator: &Operator, code: u16, part: &str) -> String {
    eventually(format!("/readyz says {code} {part:?}"), SOON, || async {
        let (now, body) = http_get(&operator.admin, "/readyz").await.map_err(|e| e.to_string())?;
        if now == code && body.contains(part) { Ok(body) } else { Err(format!("{now} {body}")) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_of_agents_without_tokens_in_secrets_is_not_given_up_unasked() {
    let turn = turn().await;
    let cp = &turn.control_plane;
    let system = "agentid-bought";
    let good = setup(system, "");
    let operator = Operator::start(cp, good.clone()).await;
    let ns = Namespace::new(cp, "bought").await;
    // It has no file with a token, as one that buys has none.
    ns.apply(
        "{apiVersion: agentid.dev/v1alpha1, kind: AgentIdentity, metadata: {name: idle}, spec: {suspend: true}}",
    )
    .await;
    refused(&ns, "idle", "Suspended").await;
    let client = cp.client().await;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), system);
    let store = KeyStore::new(client.clone(), system);
    assert_eq!(operator.stop().code(), Some(0));
    let ring = store.load().await.unwrap().ring.clone();
    let backup = secrets.get(KEYS).await.unwrap();

    // A slip of the pen.
    let mut slip = good.clone();
    slip.configuration = slip.configuration.replace("agents.example.com", "agnets.example.com");
    let operator = Operator::spawn(cp, &slip);
    let said = says(&operator, 503, "issuer").await;
    assert!(said.contains("no new ring is made unasked"), "{said}");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(store.load().await.unwrap().ring, ring);
    assert_eq!(operator.stop().code(), Some(0));

    // Lost while nobody looked.
    secrets.delete(KEYS, &DeleteParams::default()).await.unwrap();
    let operator = Operator::spawn(cp, &good);
    let said = says(&operator, 503, "missing").await;
    assert!(said.contains("a new ring is made after"), "{said}");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(secrets.get_opt(KEYS).await.unwrap().is_none(), "a silent new ring");
    restore(&secrets, &backup).await;
    says(&operator, 200, "").await;
    // It goes on from there: what is published everywhere by now is noted in it.
    let kids = |ring: &KeyRing| ring.published_kids().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(kids(&store.load().await.unwrap().ring), kids(&ring));

    // The Lease is deleted under the leader, who makes it anew with the note.
    let leases: Api<Lease> = Api::namespaced(client, system);
    let before = leases.get("agentid-operator").await.unwrap();
    leases.delete("agentid-operator", &DeleteParams::default()).await.unwrap();
    eventually("the note is on the new Lease", SOON, || async {
        let lease = leases.get("agentid-operator").await.map_err(|e| e.to_string())?;
        assert_ne!(lease.metadata.uid, before.metadata.uid);
        let noted = lease.metadata.annotations.unwrap_or_default().remove(GENERATION_ANNOTATION);
        let generation = store.load().await.map_err(|e| e.to_string())?.ring.generation;
        if noted == Some(generation.to_string()) { Ok(()) } else { Err(format!("{noted:?}")) }
    })
    .await;
    assert_eq!(operator.stop().code(), Some(0));
}

//! The certificates of agentid's own TLS: what is served is always trusted by what is published, whatever is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use agentid::cluster::certstore::ServingStore;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use serde_json::json;

use crate::common::{Namespace, Operator, audit, eventually};
use crate::{agent, ready, setup, turn};

const SOON: Duration = Duration::from_secs(20);

/// The text files of a Secret, empty where there is none.
async fn texts(secrets: &Api<Secret>, name: &str) -> BTreeMap<String, String> {
    let data = secrets.get_opt(name).await.unwrap().and_then(|s| s.data).unwrap_or_default();
    data.into_iter().map(|(k, v)| (k, String::from_utf8(v.0).unwrap())).collect()
}

async fn trust(ns: &Namespace) -> BTreeMap<String, String> {
    let maps: Api<ConfigMap> = Api::namespaced(ns.client.clone(), &ns.name);
    maps.get("agentid-trust").await.unwrap().data.unwrap()
}

/// Whether a client that trusts this bundle takes this chain for this name.
fn accepted(chain: &str, bundle: &str, name: &str) -> Result<(), String> {
    let said = |e: &dyn std::fmt::Debug| format!("{name}: {e:?}");
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(certificate.unwrap()).map_err(|e| said(&e))?;
    }
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>().map_err(|e| said(&e))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|e| said(&e))?;
    let (first, rest) = chain.split_first().ok_or("an empty chain")?;
    let server = ServerName::try_from(name.to_owned()).unwrap();
    verifier.verify_server_cert(first, rest, &server, &[], UnixTime::now()).map(drop).map_err(|e| said(&e))
}

/// Waits until what is served is another certificate than `before`, and is trusted in the namespace.
async fn served_anew(secrets: &Api<Secret>, ns: &Namespace, before: &str) -> BTreeMap<String, String> {
    eventually("another certificate is served, and trusted", SOON, || async {
        let now = texts(secrets, "agentid-serving").await;
        let chain = now.get("tls.crt").filter(|c| *c != before).ok_or("the one of before")?;
        accepted(chain, &trust(ns).await["ca.crt"], "agents.example.com")?;
        Ok::<_, String>(now)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_lost_is_made_anew_and_what_is_foreign_is_left_alone() {
    let turn = turn().await;
    let cp = &turn.control_plane;
    let system = "agentid-tls";
    let more = "serving: {dnsNames: [more.example.com], ipAddresses: [192.0.2.7]}\n";
    let ns = Namespace::new(cp, "tls").await;
    ns.apply(&agent("a")).await;
    let mark = audit::mark(cp);
    let operator = Operator::start(cp, setup(system, more)).await;
    ready(&ns, "a").await;
    let secrets: Api<Secret> = Api::namespaced(ns.client.clone(), system);

    let first = texts(&secrets, "agentid-serving").await;
    let published = trust(&ns).await;
    for name in ["agents.example.com", "agentid.agentid-tls.svc", "more.example.com", "192.0.2.7"] {
        assert_eq!(accepted(&first["tls.crt"], &published["ca.crt"], name), Ok(()));
    }
    assert!(accepted(&first["tls.crt"], &published["ca.crt"], "other.example.com").is_err());
    assert_eq!(first["ca.crt"], published["ca.crt"]);
    assert!(!published["ca.crt"].contains("PRIVATE KEY"));
    let writes = audit::since(cp, mark, |e| {
        e.is_in(&ns.name) && e.is_of("configmaps") && e.user_agent.starts_with("agentid/") && e.succeeded()
    });
    assert_eq!(writes.len(), 1, "the keys and the authorities are published at once: {writes:?}");

    // The serving certificate is lost, or changed by hand.
    let delete = DeleteParams::default();
    secrets.delete("agentid-serving", &delete).await.unwrap();
    let second = served_anew(&secrets, &ns, &first["tls.crt"]).await;
    assert_eq!(trust(&ns).await, published, "the authority stays");
    let patch = json!({"data": {"tls.crt": ByteString(first["tls.crt"].clone().into_bytes())}});
    secrets.patch("agentid-serving", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    let third = eventually("the edited one is issued anew", SOON, || async {
        let now = texts(&secrets, "agentid-serving").await;
        (![&first, &second].iter().any(|old| old["tls.crt"] == now["tls.crt"])).then_some(now)
    })
    .await;
    accepted(&third["tls.crt"], &published["ca.crt"], "agents.example.com").unwrap();

    // The authority is lost.
    secrets.delete("agentid-ca", &delete).await.unwrap();
    let fourth = served_anew(&secrets, &ns, &third["tls.crt"]).await;
    assert_ne!(trust(&ns).await["ca.crt"], published["ca.crt"]);
    assert_eq!(trust(&ns).await["jwks.json"], published["jwks.json"], "the keys have no part in it");

    // A foreign Secret under the name of ours.
    operator.stop();
    secrets.delete("agentid-serving", &delete).await.unwrap();
    let theirs: Secret = serde_json::from_value(json!({
        "metadata": {"name": "agentid-serving"}, "type": "Opaque", "stringData": {"theirs": "yes"},
    }))
    .unwrap();
    secrets.create(&PostParams::default(), &theirs).await.unwrap();
    let operator = Operator::start(cp, setup(system, more)).await;
    event(&ns, system, "agentid-serving", "ForeignObject").await;
    ns.apply(&agent("b")).await;
    ready(&ns, "b").await;
    assert_eq!(texts(&secrets, "agentid-serving").await, BTreeMap::from([("theirs".into(), "yes".into())]));
    assert!(ServingStore::new(ns.client.clone(), system).fetch().await.is_err());
    assert_eq!(trust(&ns).await["ca.crt"], fourth["ca.crt"]);
    secrets.delete("agentid-serving", &delete).await.unwrap();
    served_anew(&secrets, &ns, &fourth["tls.crt"]).await;
    operator.stop();

    // A damaged authority holds nothing back, and what is served stays trusted.
    let patch = json!({"data": {"authorities.json": ByteString(b"{".to_vec())}});
    secrets.patch("agentid-ca", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    let operator = Operator::start(cp, setup(system, more)).await;
    ns.apply(&agent("c")).await;
    ready(&ns, "c").await;
    event(&ns, system, "agentid-ca", "KeysUnavailable").await;
    let served = ServingStore::new(ns.client.clone(), system).fetch().await.unwrap().unwrap();
    assert_eq!(trust(&ns).await["ca.crt"], served.ca_pem);
    assert_eq!(accepted(&served.chain_pem, &served.ca_pem, "agents.example.com"), Ok(()));
    secrets.delete("agentid-ca", &delete).await.unwrap();
    served_anew(&secrets, &ns, &served.chain_pem).await;
    operator.stop();
}

/// Waits for an Event of this reason on a Secret of the operator's namespace.
async fn event(ns: &Namespace, system: &str, secret: &str, reason: &str) {
    let events: Api<Event> = Api::all(ns.client.clone());
    eventually(format!("an Event {reason} on {secret}"), SOON, || async {
        let found = events.list(&ListParams::default()).await.unwrap().items;
        found
            .into_iter()
            .filter(|e| {
                let regarding = e.regarding.clone().unwrap_or_default();
                regarding.name.as_deref() == Some(secret) && regarding.namespace.as_deref() == Some(system)
            })
            .find(|e| e.reason.as_deref() == Some(reason))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollover_never_leaves_what_is_served_untrusted() {
    let turn = turn().await;
    let cp = &turn.control_plane;
    let system = "agentid-rollover";
    let more = "keys: {signFor: 1h, publishAhead: 3s}\n\
        serving: {certificates: {authority: 24s, serving: 10s}}\n";
    let operator = Operator::start(cp, setup(system, more)).await;
    let ns = Namespace::new(cp, "rollover").await;
    ns.apply(&agent("a")).await;
    ready(&ns, "a").await;
    let store = ServingStore::new(ns.client.clone(), system);
    let (mut authorities, mut certificates) = (BTreeSet::new(), BTreeSet::new());
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_secs(45) {
        let served = store.fetch().await.unwrap().unwrap();
        let published = trust(&ns).await;
        assert_eq!(
            accepted(&served.chain_pem, &published["ca.crt"], "agents.example.com"),
            Ok(()),
            "after {:?}, with {} authorities published: {:?}",
            began.elapsed(),
            published["ca.crt"].matches("BEGIN").count(),
            served.record,
        );
        authorities.insert(served.record.authority);
        certificates.insert(served.chain_pem);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(authorities.len() >= 3, "{authorities:?}");
    assert!(certificates.len() >= 5, "only {} certificates in 45 s", certificates.len());
    operator.stop();
}

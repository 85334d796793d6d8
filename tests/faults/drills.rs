//! The drills of docs/operations.md, run as they stand there.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use agentid::crypto::{JwkSet, inspect};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use kube::api::DeleteParams;

use crate::common::{ControlPlane, Namespace, Operator, eventually, target_dir};
use crate::{agent, files, ready, setup, turn};

/// The lines of a drill: the code that follows its mark.
fn drill(name: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    let page = std::fs::read_to_string(page).unwrap();
    let mark = format!("<!-- drill: {name} -->\n```sh\n");
    let (_, rest) = page.split_once(&mark).unwrap_or_else(|| panic!("docs/operations.md lacks {mark}"));
    rest.split_once("```").unwrap().0.to_owned()
}

/// Runs one as a person would, with `agentid` and `kubectl` to hand; gives what it printed.
pub fn run(cp: &ControlPlane, namespace: &str, name: &str) -> String {
    let dir = target_dir().join("drills");
    std::fs::create_dir_all(&dir).unwrap();
    let programs = [Path::new(env!("CARGO_BIN_EXE_agentid")), &cp.kubectl].map(|p| p.parent().unwrap());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path =
        std::env::join_paths(programs.into_iter().map(Path::to_owned).chain(std::env::split_paths(&path)));
    let output = Command::new("timeout")
        .args(["180", "bash", "-euo", "pipefail", "-c", &drill(name)])
        .env("PATH", path.unwrap())
        .env("KUBECONFIG", &cp.kubeconfig)
        .env("NAMESPACE", namespace)
        .current_dir(dir)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat();
    assert!(output.status.success(), "{name}: {}\n{said}", output.status);
    said
}

/// The key that signed a token.
pub fn kid(token: &str) -> String {
    inspect(token).unwrap().header["kid"].as_str().unwrap().to_owned()
}

async fn token(ns: &Namespace, agent: &str) -> String {
    files(ns, &format!("{agent}-agentid")).await.unwrap()["identity.jwt"].clone()
}

async fn published(ns: &Namespace) -> JwkSet {
    let maps: Api<ConfigMap> = Api::namespaced(ns.client.clone(), &ns.name);
    JwkSet::parse(&maps.get("agentid-trust").await.unwrap().data.unwrap()["jwks.json"]).unwrap().set
}

#[tokio::test(flavor = "multi_thread")]
async fn the_drills_do_what_the_page_says() {
    let turn = turn().await;
    let cp = &turn.control_plane;
    let system = "agentid-drill";
    let operator = Operator::start(cp, setup(system, "keys: {publishAhead: 3s}\n")).await;
    let ns = Namespace::new(cp, "drill").await;
    ns.apply(&agent("before")).await;
    ready(&ns, "before").await;
    let first = token(&ns, "before").await;

    // A rotation: another key signs, the old one is still published, nothing is minted anew.
    let said = run(cp, system, "rotation");
    assert!(said.contains("Retired") && said.contains("\"keys\""), "{said}");
    ns.apply(&agent("rotated")).await;
    ready(&ns, "rotated").await;
    let second = token(&ns, "rotated").await;
    assert_ne!(kid(&first), kid(&second));
    assert_eq!(token(&ns, "before").await, first);
    assert!(published(&ns).await.find(&kid(&first)).is_some());

    // Backup, loss, restore: the same keys sign again.
    run(cp, system, "backup");
    let secrets: Api<Secret> = Api::namespaced(cp.client().await, system);
    secrets.delete("agentid-signing-keys", &DeleteParams::default()).await.unwrap();
    eventually("the loss is noticed", Duration::from_secs(30), || async {
        let metrics = operator.metrics().await;
        if metrics.contains("\nagentid_keys_available 0\n") { Ok(()) } else { Err("keys are available") }
    })
    .await;
    let said = run(cp, system, "restore");
    assert!(said.contains(&kid(&second)), "{said}");
    ns.apply(&agent("restored")).await;
    ready(&ns, "restored").await;
    assert_eq!(kid(&token(&ns, "restored").await), kid(&second));
    assert_eq!(token(&ns, "before").await, first, "nothing is minted anew");

    // A stolen key: none of them is published any more, and every Secret has a token of a new one.
    let said = run(cp, system, "stolen-key");
    assert!(said.contains("nothing was done") && said.contains("Revoked"), "{said}");
    let keys = published(&ns).await;
    for old in [&first, &second] {
        assert!(keys.find(&kid(old)).is_none(), "{} is still published", kid(old));
    }
    for name in ["before", "rotated", "restored"] {
        assert!(keys.find(&kid(&token(&ns, name).await)).is_some(), "{name} was not minted anew");
    }
    operator.stop();
}

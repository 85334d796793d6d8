//! Pods that ask for their credentials get them.

use kube::api::PostParams;
use serde_json::{Value, json};

use crate::common::{Namespace, api_of};
use crate::{control_plane, one, person};

/// A pod that asks; `more` is put into its spec.
pub fn pod(mode: &str, more: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: p, labels: {{agentid.dev/inject: \"{mode}\", agentid.dev/agent: triage}}}}, \
         spec: {{automountServiceAccountToken: false, containers: [{{name: c, image: i}}]{more}}}}}"
    )
}

fn mounts(container: &Value) -> Vec<(String, String, bool)> {
    let of = |m: &Value| {
        let text = |k: &str| m[k].as_str().unwrap_or_default().to_owned();
        (text("name"), text("mountPath"), m["readOnly"] == true)
    };
    container["volumeMounts"].as_array().into_iter().flatten().map(of).collect()
}

fn ours() -> (String, String, bool) {
    ("agentid".to_owned(), "/var/run/agentid".to_owned(), true)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_is_mounted_in_all_containers() {
    let (cp, _turn) = control_plane().await;
    let ns = Namespace::for_pods(cp, "inject").await;
    let ann = person(cp, "ann").await;
    let bare = ann.creates(&ns, &pod("true", "")).await.data;
    assert_eq!(mounts(&bare["spec"]["containers"][0]), [ours()]);
    let sources = &bare["spec"]["volumes"][0]["projected"]["sources"];
    assert_eq!(bare["spec"]["volumes"].as_array().unwrap().len(), 1);
    assert_eq!(
        *sources,
        json!([
            {"secret": {"name": "triage-agentid"}},
            {"configMap": {"name": "agentid-trust", "optional": true}},
            {"serviceAccountToken": {"audience": "https://agents.example.com", "expirationSeconds": 3600, "path": "token"}},
        ])
    );

    let more = ", initContainers: [{name: i, image: i}, {name: j, image: i, volumeMounts: [{name: v, mountPath: /v}]}], volumes: [{name: v, emptyDir: {}}]";
    let full = pod("true", more)
        .replace("name: p,", "name: q, annotations: {agentid.dev/secret-name: other},")
        .replace("containers: [{name: c, image: i}]", "containers: [{name: c, image: i, volumeMounts: [{name: v, mountPath: /v}]}, {name: d, image: i}]")
        .replace("automountServiceAccountToken: false, ", "");
    let full = ann.creates(&ns, &full).await.data;
    for list in ["containers", "initContainers"] {
        for container in full["spec"][list].as_array().unwrap() {
            assert!(mounts(container).contains(&ours()), "{container}");
        }
    }
    let volumes = full["spec"]["volumes"].as_array().unwrap();
    let volume = volumes.iter().find(|v| v["name"] == "agentid").unwrap();
    assert_eq!(volume["projected"]["sources"][0]["secret"]["name"], "other");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_has_it_or_asks_for_nothing_is_left_alone() {
    let (cp, _turn) = control_plane().await;
    let ns = Namespace::for_pods(cp, "inject-not").await;
    let ann = person(cp, "ann").await;
    let own = ", volumes: [{name: agentid, secret: {secretName: mine}}]";
    let elsewhere = ", volumes: [{name: v, emptyDir: {}}]";
    for (name, mode, more, replace) in [
        ("a", "true", own, ""),
        ("b", "sidecar", own, ""),
        ("c", "true", elsewhere, ", volumeMounts: [{name: v, mountPath: /var/run/agentid}]"),
        ("d", "sidecar", elsewhere, ", volumeMounts: [{name: v, mountPath: /var/run/agentid}]"),
        ("e", "false", elsewhere, ""),
    ] {
        let yaml = pod(mode, more)
            .replace("name: p,", &format!("name: {name},"))
            .replace("image: i}", &format!("image: i{replace}}}"));
        let made = ann.creates(&ns, &yaml).await.data;
        assert_eq!(made["spec"]["volumes"].as_array().unwrap().len(), 1, "{made}");
        assert_eq!(made["spec"]["containers"].as_array().unwrap().len(), 1);
        assert_eq!(made["spec"]["initContainers"], Value::Null);
        assert_eq!(mounts(&made["spec"]["containers"][0]).len(), usize::from(!replace.is_empty()));
    }
    // Without a name nothing can be mounted: the pod is made, and whoever makes it is warned.
    let nameless = pod("true", "").replace(", agentid.dev/agent: triage", "");
    let args = ["create", "-n", &ns.name, "--as", "ann", "--as-group", "fence-all", "-f", "-"];
    let (_, warned) = cp.kubectl_with_input(&args, nameless.as_bytes());
    for part in ["pod p", "agentid.dev/inject=true", "agentid.dev/secret-name"] {
        assert!(warned.contains(part), "{part}: {warned}");
    }
    let (_, silent) =
        cp.kubectl_with_input(&args, pod("true", "").replace("name: p,", "name: q,").as_bytes());
    assert!(!silent.contains("no credentials"), "{silent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sidecar_starts_first_and_keeps_the_files_in_memory() {
    let (cp, _turn) = control_plane().await;
    let ns = Namespace::for_pods(cp, "inject-sidecar").await;
    // As strict as a namespace can be.
    let label = format!("namespace/{}", ns.name);
    cp.kubectl(["label", &label, "pod-security.kubernetes.io/warn=restricted"]);
    let ann = person(cp, "ann").await;
    let strict = "securityContext: {allowPrivilegeEscalation: false, runAsNonRoot: true, capabilities: {drop: [ALL]}, seccompProfile: {type: RuntimeDefault}}";
    let yaml = pod("sidecar", ", initContainers: [{name: i, image: i}]")
        .replace("image: i}", &format!("image: i, {strict}}}"));
    let args =
        ["create", "-n", &ns.name, "--dry-run=server", "--as", "ann", "--as-group", "fence-all", "-f", "-"];
    let (_, warned) = cp.kubectl_with_input(&args, yaml.as_bytes());
    assert!(!warned.contains("Warning"), "{warned}");

    let made = ann.creates(&ns, &yaml).await.data;
    let spec = &made["spec"];
    let first = &spec["initContainers"][0];
    assert_eq!((&first["name"], &first["restartPolicy"]), (&json!("agentid"), &json!("Always")));
    assert_eq!(first["args"][0], "sidecar");
    assert!(first["args"].to_string().contains("https://agents.example.com"));
    // What the image has: nothing else is in it.
    assert_eq!(first["startupProbe"]["exec"]["command"][0], "agentid");
    assert!(mounts(first).contains(&("agentid".to_owned(), "/var/run/agentid".to_owned(), false)), "{first}");
    assert_eq!(mounts(&spec["initContainers"][1]), [ours()]);
    assert_eq!(mounts(&spec["containers"][0]), [ours()]);
    assert_eq!(spec["volumes"][0]["emptyDir"]["medium"], "Memory");
    assert_eq!(spec["volumes"][1]["name"], "agentid-token");
    assert_eq!(spec["volumes"].as_array().unwrap().len(), 2);

    // A pod that was written down and is made anew is not given a second volume or sidecar.
    let mut again = one(&ns.name, &pod("sidecar", "").replace("name: p,", "name: r,"));
    again.data["spec"] = spec.clone();
    let pods = api_of(ann.client.clone(), &again);
    let again = pods.create(&PostParams::default(), &again).await.unwrap().data;
    for list in ["volumes", "initContainers"] {
        assert_eq!(again["spec"][list].as_array().unwrap().len(), 2, "{again}");
    }
    assert_eq!(mounts(&again["spec"]["containers"][0]), [ours()]);

    let alone = ann.creates(&ns, &pod("sidecar", "").replace("name: p,", "name: q,")).await.data;
    assert_eq!(alone["spec"]["initContainers"].as_array().unwrap().len(), 1);
    assert_eq!(alone["spec"]["volumes"].as_array().unwrap().len(), 2);
}

//! What runs in the pods: the examples as they are, with the image and the words that they leave open.

use std::path::Path;

use serde_json::{Value, json};

use crate::common::parse;

/// The programs of examples/, and what tells of a pod's files.
pub const IMAGE: &str = "localhost/agentid-examples:1";
const ISSUER: &str = "https://agentid.agentid-system.svc";
const AUDIENCE: &str = "https://tickets.example.com";
const SERVICE: &str = "http://tickets.tickets.svc:8080/tickets";
const FILES: &str = "/var/run/agentid";

/// The objects of a file of examples/, in the namespace of the agents, for this issuer.
fn example(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
    let yaml = std::fs::read_to_string(path).unwrap().replace("https://agents.example.com", ISSUER);
    let mut objects: Vec<Value> = parse(&yaml).iter().map(|o| serde_json::to_value(o).unwrap()).collect();
    for object in objects.iter_mut().filter(|o| o["kind"] != "AgentResource") {
        object["metadata"]["namespace"] = "support".into();
    }
    objects
}

fn namespace(name: &str, labels: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

fn container(name: &str, words: &[&str]) -> Value {
    json!({
        "name": name, "image": IMAGE, "args": words,
        "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "runAsNonRoot": true,
                            "runAsUser": 65532, "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}},
    })
}

/// One that calls with the delivered token, and one that says what becomes of the files.
fn callers() -> [Value; 2] {
    let file = format!("{FILES}/tickets.jwt");
    [
        container("agent", &["/app/client.py", "--file", &file, "--service", SERVICE, "--every", "1"]),
        container("watch", &["/app/watch.py", FILES]),
    ]
}

/// The two namespaces, the service with its resource, and its address.
pub fn town() -> Vec<Value> {
    let listens = json!([{"name": "http", "port": 8080, "targetPort": 8080}]);
    let ca = format!("{FILES}/ca.crt");
    let words = [
        "/app/service.py",
        "--issuer",
        ISSUER,
        "--audience",
        AUDIENCE,
        "--ca",
        &ca,
        "--listen",
        "0.0.0.0:8080",
    ];
    let mut service = container("service", &words);
    service["readinessProbe"] = json!({"tcpSocket": {"port": 8080}, "periodSeconds": 1});
    service["volumeMounts"] = json!([{"name": "trust", "mountPath": FILES, "readOnly": true}]);
    let mut objects = vec![
        namespace("support", &json!({"team": "support"})),
        // Whoever verifies needs the keys, in a namespace without agents too.
        namespace("tickets", &json!({"agentid.dev/trust": "true"})),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "tickets", "namespace": "tickets"},
               "spec": {"selector": {"app": "tickets"}, "ports": listens}}),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "tickets", "namespace": "tickets"},
            "spec": {"selector": {"matchLabels": {"app": "tickets"}}, "template": {
                "metadata": {"labels": {"app": "tickets"}},
                "spec": {"automountServiceAccountToken": false, "containers": [service],
                         "volumes": [{"name": "trust", "configMap": {"name": "agentid-trust"}}]},
            }},
        }),
    ];
    objects.extend(example("tickets.yaml"));
    objects
}

/// The agents with their pods: triage and errand of the examples, and one with the sidecar.
pub fn agents() -> Vec<Value> {
    let [caller, watch] = callers();
    let mounted = |mut container: Value, like: &Value| {
        container["volumeMounts"] = like["volumeMounts"].clone();
        container
    };
    let mut objects = [example("triage.yaml"), example("deployment.yaml"), example("pod.yaml")].concat();
    for object in &mut objects {
        match (object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap()) {
            ("Deployment", _) => {
                object["spec"]["replicas"] = 1.into();
                let spec = &mut object["spec"]["template"]["spec"];
                let own = mounted(caller.clone(), &spec["containers"][0]);
                spec["containers"] = json!([own]);
            }
            ("Pod", _) => {
                let ca = format!("{FILES}/ca.crt");
                let token = format!("{FILES}/token");
                // As the example's own head says it: by its pod's token it buys another, and calls once a second.
                let words = [
                    "/app/client.py",
                    "--issuer",
                    ISSUER,
                    "--ca",
                    &ca,
                    "--token-file",
                    &token,
                    "--resource",
                    AUDIENCE,
                    "--service",
                    SERVICE,
                    "--every",
                    "1",
                ];
                let first = object["spec"]["containers"][0].clone();
                object["spec"]["containers"] =
                    json!([mounted(container("agent", &words), &first), mounted(watch.clone(), &first)]);
            }
            // It has the configuration's default: short, so that its files are renewed while we look.
            ("AgentIdentity", "errand") => {
                drop(object["spec"].as_object_mut().unwrap().remove("tokenLifetime"))
            }
            // Its delivered token is used, and must live until the kubelet has brought the next.
            ("AgentIdentity", "triage") => object["spec"]["tokenLifetime"] = "30m".into(),
            _ => {}
        }
    }
    objects.extend(parse(HELPER).iter().map(|o| serde_json::to_value(o).unwrap()));
    objects.push(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "helper", "namespace": "support",
                     "labels": {"agentid.dev/agent": "helper", "agentid.dev/inject": "sidecar"}},
        "spec": {"serviceAccountName": "helper", "automountServiceAccountToken": false, "containers": [caller, watch]},
    }));
    objects
}

const HELPER: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: helper, namespace: support}
---
apiVersion: agentid.dev/v1alpha1
kind: AgentIdentity
metadata: {name: helper, namespace: support}
spec: {serviceAccountName: helper}
---
apiVersion: agentid.dev/v1alpha1
kind: AgentGrant
metadata: {name: helper, namespace: support}
spec:
  agents: {names: [helper]}
  resource: tickets
  application: {scopes: [tickets.read]}
  secretKey: tickets.jwt
";

/// An agent that outlives agentid's installation.
pub fn stays() -> Value {
    json!({"apiVersion": "agentid.dev/v1alpha1", "kind": "AgentIdentity",
           "metadata": {"name": "stays", "namespace": "support"}, "spec": {}})
}

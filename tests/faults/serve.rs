//! The token service while its neighbours are away: it issues without a leader and without an API server, until what it
//! knows is older than `maxStale`; then it fails closed, and comes back by itself. What it may not see it does not call gone.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::common::{ControlPlane, Namespace, eventually, http_get, target_dir, unique};
use crate::service::{RUNNER, Service, Town};
use crate::turn;

const SOON: Duration = Duration::from_secs(60);
const OBJECTS: &str = "
apiVersion: agentid.dev/v1alpha1
kind: AgentIdentity
metadata: {name: a}
spec: {serviceAccountName: runner}
---
apiVersion: agentid.dev/v1alpha1
kind: AgentGrant
metadata: {name: g}
spec: {agents: {names: [a]}, resource: $NS, application: {scopes: [read]}}
";

/// A token for the issuer of a pod and its service account.
pub fn pods_token(cp: &ControlPlane, namespace: &str, issuer: &str, account: &str, pod: &str) -> String {
    let done = Command::new(&cp.kubectl)
        .arg("--kubeconfig")
        .arg(&cp.kubeconfig)
        .args(["-n", namespace, "create", "token", account, "--audience", issuer])
        .args(["--bound-object-kind", "Pod", "--bound-object-name", pod])
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

const ASSERTION: (&str, &str) =
    ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");

/// Buys a token with a pod's.
pub async fn ask(service: &Service, token: &str) -> (u16, http::HeaderMap, Value) {
    let form = [("grant_type", "client_credentials"), ASSERTION, ("client_assertion", token)];
    service.post("/token", &form).await
}

/// What a pod learns of a token.
pub async fn introspect(service: &Service, assertion: &str, token: &str) -> (u16, Value) {
    let form = [ASSERTION, ("client_assertion", assertion), ("token", token)];
    let (status, _, body) = service.post("/introspect", &form).await;
    (status, body)
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_on_alone_until_it_knows_too_little() {
    let turn = turn().await;
    let cp = &turn.control_plane;
    let town = Town::new("agentid-alone", "maxStale: 10s\n");
    let operator = town.operator(cp).await;
    let service = town.serve(cp).await;
    let ns = Namespace::for_pods(cp, "alone").await;
    ns.apply(RUNNER).await;
    ns.apply(OBJECTS).await;
    let sa = pods_token(cp, &ns.name, &town.issuer, "runner", "p");
    let token = eventually("a token", SOON, || async {
        let (status, _, body) = ask(&service, &sa).await;
        body["access_token"].as_str().map(str::to_owned).ok_or_else(|| format!("{status} {body}"))
    })
    .await;
    let (status, body) = introspect(&service, &sa, &token).await;
    assert_eq!((status, &body["active"]), (200, &Value::Bool(true)), "{body}");
    let claims = agentid::crypto::inspect(&token).unwrap().claims;
    let list = claims["status"]["status_list"]["uri"].as_str().unwrap();
    let list = list.strip_prefix(&town.issuer).unwrap().to_owned();
    service.get(&list).await.unwrap();

    // No leader: nothing changes.
    assert_eq!(operator.stop().code(), Some(0));
    assert_eq!(ask(&service, &sa).await.0, 200);

    // No API server: at first nothing changes either.
    tokio::task::block_in_place(|| cp.kill_apiserver());
    let (status, _, body) = ask(&service, &sa).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(introspect(&service, &sa, &token).await.0, 200);
    eventually("it fails closed", SOON, || async {
        let (status, headers, body) = ask(&service, &sa).await;
        if status == 503 && headers.contains_key("retry-after") {
            Ok(())
        } else {
            Err(format!("{status} {body}"))
        }
    })
    .await;
    assert_eq!(introspect(&service, &sa, &token).await.0, 503, "an old truth is none");
    assert!(service.get(&list).await.unwrap_err().contains("503"));
    // The keys are no secret and no truth about agents: it stays where they can be asked for, and says what it lacks.
    service.get("/jwks").await.unwrap();
    let (code, body) = http_get(&service.admin, "/readyz").await.unwrap();
    assert_eq!(code, 200, "{body}");
    assert!(body.starts_with("ok\n") && body.contains(": nothing was heard"), "{body}");

    tokio::task::block_in_place(|| cp.start_apiserver());
    eventually("it comes back by itself", SOON, || async {
        let (status, _, body) = ask(&service, &sa).await;
        if status == 200 { Ok(()) } else { Err(format!("{status} {body}")) }
    })
    .await;
    assert_eq!(service.stop().code(), Some(0));
}

const BLIND: &str = "agentid-blind";

/// What the token service needs, and as much of the core kinds.
fn rules(core: &str) -> String {
    format!(
        "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: {BLIND}}}
rules:
- {{apiGroups: [agentid.dev, apps, batch, rbac.authorization.k8s.io, coordination.k8s.io], resources: ['*'], verbs: [list, watch, get]}}
- {{apiGroups: [''], resources: [{core}], verbs: [list, watch, get]}}
- {{apiGroups: [authentication.k8s.io, authorization.k8s.io], resources: ['*'], verbs: [create]}}
- {{nonResourceURLs: ['*'], verbs: [get]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: {BLIND}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {BLIND}}}
subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: {BLIND}}}]
"
    )
}

/// One round of the sidecar: its exit code.
fn sidecar(service: &Service, token: &str) -> Option<i32> {
    let directory = target_dir().join("test-logs").join(format!("sidecar-{}", unique()));
    std::fs::create_dir_all(&directory).unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (token, ca) = (file("token", token), file("ca.crt", &service.ca));
    let done = Command::new(env!("CARGO_BIN_EXE_agentid"))
        .args(["sidecar", "--once", "--server", &service.issuer, "--token-file"])
        .arg(token)
        .arg("--ca")
        .arg(ca)
        .arg("--directory")
        .arg(directory.join("files"))
        .output()
        .unwrap();
    done.status.code()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_it_may_not_see_is_not_gone() {
    let turn = turn().await;
    let cp = &turn.control_plane;
    let mut town = Town::new("agentid-blind", "");
    let operator = town.operator(cp).await;
    let ns = Namespace::for_pods(cp, "blind").await;
    ns.apply(RUNNER).await;
    ns.apply(OBJECTS).await;
    let sa = pods_token(cp, &ns.name, &town.issuer, "runner", "p");
    let issued = std::time::Instant::now();
    ns.apply(&rules("namespaces, serviceaccounts, secrets")).await;
    town.kubeconfig = Some(cp.kubeconfig_as(BLIND, &["system:authenticated"]));
    let listen = town.issuer.trim_start_matches("https://");
    let service = town.spawn_at(cp, listen, town.ca(cp).await, "info,agentid=debug");
    eventually("it waits for pods alone", SOON, || async {
        let (code, body) = http_get(&service.admin, "/readyz").await.map_err(|e| e.to_string())?;
        let lines: Vec<_> = body.lines().collect();
        let pods = |line: &str| line.starts_with("v1/Pod: agentid may not list");
        let alone = matches!(lines[..], [first, lists] if pods(first) && lists.starts_with("status lists: "));
        if code == 503 && alone { Ok(()) } else { Err(format!("{code} {body}")) }
    })
    .await;
    // Older than what would be put down to a watch that is a little behind.
    tokio::time::sleep(Duration::from_secs(11).saturating_sub(issued.elapsed())).await;
    let (status, headers, body) = ask(&service, &sa).await;
    assert_eq!((status, headers.contains_key("retry-after")), (503, true), "{body}");
    assert!(body["error_description"].as_str().is_some_and(|d| d.contains("v1/Pod")), "{body}");
    let (status, body) = introspect(&service, &sa, "x.y.z").await;
    assert_eq!(status, 503, "{body}");
    assert_eq!(sidecar(&service, &sa), Some(4), "to come again, not refused");

    ns.apply(&rules("namespaces, serviceaccounts, secrets, pods")).await;
    eventually("it sees", SOON, || async {
        let (code, body) = http_get(&service.admin, "/readyz").await.map_err(|e| e.to_string())?;
        let (status, _, answer) = ask(&service, &sa).await;
        if (code, status) == (200, 200) { Ok(()) } else { Err(format!("{code} {body} {status} {answer}")) }
    })
    .await;
    assert_eq!(sidecar(&service, &sa), Some(0));
    assert_eq!(service.stop().code(), Some(0));
    operator.stop();
}

//! The ClusterRoles for people give what the page on the installation says, through the built-in roles that they are
//! aggregated to.

use std::process::Command;
use std::time::Duration;

use crate::common::{ControlPlane, eventually};

const BINDINGS: &str = "
{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: chart-view, namespace: default},
 roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view},
 subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: viewers}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: chart-edit, namespace: default},
 roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edit},
 subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: editors}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: chart-admin, namespace: default},
 roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: admin},
 subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: admins}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: chart-security},
 roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: agentid-security},
 subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: security}]}
";

/// Of each: what is done to what, and who may (of viewers, editors, admins, security).
const RIGHTS: &[(&str, &str, &[&str])] = &[
    ("list", "agentidentities", &["viewers", "editors", "admins", "security"]),
    ("watch", "agentgrants", &["viewers", "editors", "admins", "security"]),
    ("create", "agentidentities", &["editors", "admins", "security"]),
    ("delete", "agentgrants", &["editors", "admins"]),
    ("update", "agentresources", &["security"]),
    ("create", "agentblueprints", &["security"]),
    ("delete", "agentpolicies", &["security"]),
    ("resume", "agentidentities", &["security"]),
    ("resume", "agentpolicies", &["security"]),
    ("run", "agentidentities", &[]),
    ("patch", "agentidentities/status", &[]),
    ("update", "agentgrants/status", &[]),
    ("update", "agentresources/status", &[]),
];

fn may(control_plane: &ControlPlane, group: &str, verb: &str, resource: &str) -> bool {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let mut command = Command::new(&control_plane.kubectl);
    command.arg("--kubeconfig").arg(&control_plane.kubeconfig).args(["auth", "can-i", verb]);
    command.arg(format!("{resource}.agentid.dev")).args([
        "--namespace=default",
        "--as=ann",
        "--as-group",
        group,
    ]);
    if !subresource.is_empty() {
        command.args(["--subresource", subresource]);
    }
    let output = command.output().unwrap();
    match String::from_utf8_lossy(&output.stdout).trim() {
        "yes" => true,
        "no" => false,
        other => panic!("{other} {}", String::from_utf8_lossy(&output.stderr)),
    }
}

/// Asks the API server who may do what.
pub async fn check(control_plane: &ControlPlane) {
    control_plane.kubectl_with_input(&["apply", "-f", "-"], BINDINGS.as_bytes());
    eventually("the roles are aggregated", Duration::from_secs(60), || async {
        if may(control_plane, "admins", "create", "agentidentities") { Ok(()) } else { Err("no") }
    })
    .await;
    for (verb, resource, who) in RIGHTS {
        for group in ["viewers", "editors", "admins", "security"] {
            let wanted = who.contains(&group);
            assert_eq!(may(control_plane, group, verb, resource), wanted, "{group}: {verb} {resource}");
        }
    }
}

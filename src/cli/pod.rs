//! What a pod needs to find its credentials: the volume with the Secret, or the sidecar with its volumes.
//!
//! Invariant: what `agentid mount` prints and what the admission policies mount is one.

use serde_json::{Value, json};

use crate::api::TRUST_NAME;

/// Where the files are.
pub(super) const DIRECTORY: &str = "/var/run/agentid";
/// Where the sidecar finds what it proves itself with.
const PROOF: &str = "/var/run/secrets/agentid";
/// The volume, and the sidecar's container.
pub(super) const VOLUME: &str = "agentid";
/// The volume of the sidecar's proof.
pub(super) const PROOF_VOLUME: &str = "agentid-token";

/// The mount of the files in a container.
pub(super) fn mount() -> Value {
    json!({"name": VOLUME, "mountPath": DIRECTORY, "readOnly": true})
}

/// The source of the published keys.
pub(super) fn trust() -> Value {
    json!({"configMap": {"name": TRUST_NAME}})
}

/// The source of the pod's service-account token, by which the token service knows it.
pub(super) fn token(issuer: &str) -> Value {
    json!({"serviceAccountToken": {"path": "token", "audience": issuer, "expirationSeconds": 3600}})
}

/// The volume with a Secret: the whole, without `items`, so that a token that is withdrawn leaves the running pod.
pub(super) fn secret_volume(issuer: &str, secret: &str) -> Value {
    json!({"name": VOLUME, "projected": {"sources": [{"secret": {"name": secret}}, trust(), token(issuer)]}})
}

/// The sidecar's container, to be the first of the init containers.
pub(super) fn sidecar(issuer: &str, image: &str) -> Value {
    json!({
        "name": VOLUME,
        "image": image,
        "restartPolicy": "Always",
        // The files are in a volume of this pod alone, and its containers may run as any user.
        "args": ["sidecar", "--server", issuer, "--ca", format!("{PROOF}/ca.crt"),
                 "--token-file", format!("{PROOF}/token"), "--directory", DIRECTORY, "--mode", "0444"],
        "startupProbe": {"exec": {"command": ["agentid", "sidecar-ready", "--directory", DIRECTORY]},
                         "periodSeconds": 1, "failureThreshold": 300},
        "resources": {"requests": {"cpu": "5m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
        "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                            "runAsNonRoot": true, "runAsUser": 65532, "capabilities": {"drop": ["ALL"]},
                            "seccompProfile": {"type": "RuntimeDefault"}},
        "volumeMounts": [{"name": PROOF_VOLUME, "mountPath": PROOF, "readOnly": true},
                         {"name": VOLUME, "mountPath": DIRECTORY}],
    })
}

/// The sidecar's volumes: that of the files, and that of its proof.
pub(super) fn sidecar_volumes(issuer: &str) -> [Value; 2] {
    let ca = json!({"configMap": {"name": TRUST_NAME, "items": [{"key": "ca.crt", "path": "ca.crt"}]}});
    [
        json!({"name": VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}),
        json!({"name": PROOF_VOLUME, "projected": {"sources": [token(issuer), ca]}}),
    ]
}

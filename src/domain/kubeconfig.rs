//! The `kubeconfig` beside the token of a grant on this cluster.
//!
//! Invariant: it holds no secret; the token's file is named relative to it, so that it works wherever both are mounted.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::{Digest, Hasher};
use crate::api::Kubernetes;

/// What a `kubeconfig` says for an agent of a namespace. Without certificates those of the system vouch for the server.
#[must_use]
pub(super) fn kubeconfig(cluster: &Kubernetes, namespace: &str, token_file: &str) -> Arc<str> {
    let mut server = json!({"server": cluster.server()});
    if let Some(pem) = &cluster.certificate_authority {
        server["certificate-authority-data"] = STANDARD.encode(pem).into();
    }
    let document = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "cluster", "cluster": server}],
        "users": [{"name": "agent", "user": {"tokenFile": token_file}}],
        "contexts": [{"name": "agent", "context": {"cluster": "cluster", "user": "agent", "namespace": namespace}}],
        "current-context": "agent",
    });
    // JSON is YAML. A document of strings always serialises.
    serde_json::to_string_pretty(&document).unwrap_or_default().into()
}

/// What stands for it in a Secret's list of files.
#[must_use]
pub(super) fn digest(kubeconfig: &str) -> Digest {
    let mut hasher = Hasher::new("kubeconfig v1");
    hasher.part(kubeconfig.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_token_beside_it() {
        let mut cluster = Kubernetes::default();
        let of = |c: &Kubernetes| -> serde_json::Value {
            serde_json::from_str(&kubeconfig(c, "support", "cluster.jwt")).unwrap()
        };
        let plain = of(&cluster);
        assert_eq!(plain["users"][0]["user"], json!({"tokenFile": "cluster.jwt"}));
        assert_eq!(plain["clusters"][0]["cluster"], json!({"server": "https://kubernetes.default.svc"}));
        assert_eq!(plain["contexts"][0]["context"]["namespace"], "support");
        cluster.server = Some("https://10.0.0.1:6443".to_owned());
        cluster.certificate_authority = Some("PEM".to_owned());
        let full = of(&cluster);
        assert_eq!(full["clusters"][0]["cluster"]["certificate-authority-data"], "UEVN");
        let texts = [&plain, &full].map(|v| digest(&v.to_string()));
        assert_ne!(texts[0], texts[1]);
    }
}

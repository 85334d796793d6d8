//! The part of the configuration that speaks of this cluster: which ClusterRoles may be granted, and how agents reach
//! the API server.
//!
//! Invariant: nothing is bindable unless it is named here; the built-in guardrails stand beside and can't be named away.

use serde::{Deserialize, Serialize};

use super::ConfigError;

/// What agents may hold on this cluster, and how they reach it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Kubernetes {
    /// The ClusterRoles that grants may give: none when absent. The operator needs the verb `bind` on each.
    pub bindable_roles: Vec<String>,
    /// The API server's URL in the `kubeconfig` of agents: `https://kubernetes.default.svc` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// The certificates (PEM) that vouch for the API server, in the `kubeconfig` of agents; those that the operator
    /// itself trusts when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_authority: Option<String>,
}

impl Kubernetes {
    /// Whether grants may give a ClusterRole.
    #[must_use]
    pub fn may_bind(&self, role: &str) -> bool {
        self.bindable_roles.iter().any(|r| r == role)
    }

    /// The API server's URL in the `kubeconfig` of agents.
    #[must_use]
    pub fn server(&self) -> &str {
        self.server.as_deref().unwrap_or("https://kubernetes.default.svc")
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let refuse = |field, problem: String| Err(ConfigError::Value { field, problem });
        for role in &self.bindable_roles {
            if role.is_empty()
                || role.len() > 128
                || role.contains(['/', '%', '*'])
                || !role.bytes().all(|b| b.is_ascii_graphic())
            {
                let problem = format!("{role:?} is no ClusterRole's name: write each name in full");
                return refuse("kubernetes.bindableRoles", problem);
            }
            if role.starts_with("system:") {
                let problem = format!("{role:?}: no agent ever holds a system: role; leave it out");
                return refuse("kubernetes.bindableRoles", problem);
            }
        }
        let server = self.server();
        let host = server.strip_prefix("https://").unwrap_or_default();
        if host.is_empty()
            || host.starts_with('/')
            || server.len() > 512
            || server.contains(['?', '#', '@', '"', '\\'])
            || !server.bytes().all(|b| b.is_ascii_graphic())
        {
            let problem = format!("{server:?} must be an https URL without query, fragment or user");
            return refuse("kubernetes.server", problem);
        }
        let pem = self.certificate_authority.as_deref();
        if pem.is_some_and(|p| !p.contains("-----BEGIN CERTIFICATE-----")) {
            return refuse(
                "kubernetes.certificateAuthority",
                "has no certificate: write it as PEM".to_owned(),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::api::Configuration;

    #[test]
    fn refuses_with_the_field() {
        const GOOD: &str = "apiVersion: config.agentid.dev/v1alpha1\nkind: Configuration\nissuer: https://a.example.com\ntrustDomain: a.example.com\n";
        for (part, wanted) in [
            ("bindableRoles: [view, \"ns:reader\"], server: \"https://10.0.0.1:6443\"", None),
            ("bindableRoles: [\"system:node\"]", Some("kubernetes.bindableRoles")),
            ("bindableRoles: [\"*\"]", Some("kubernetes.bindableRoles")),
            ("bindableRoles: [\"\"]", Some("kubernetes.bindableRoles")),
            ("server: http://x", Some("kubernetes.server")),
            ("server: https://u@x", Some("kubernetes.server")),
            ("certificateAuthority: x", Some("kubernetes.certificateAuthority")),
            ("guardrails: off", Some("guardrails")),
        ] {
            let read = Configuration::from_yaml(&format!("{GOOD}kubernetes: {{{part}}}\n"));
            match (read, wanted) {
                (Ok(_), None) => {}
                (Err(e), Some(wanted)) => assert!(e.to_string().contains(wanted), "{part}: {e}"),
                (other, _) => panic!("{part}: {other:?}"),
            }
        }
    }
}

//! The kinds of the group `agentid.dev`, version `v1alpha1`, and the configuration file. A leaf: uses no
//! other room.
//!
//! Invariant: what the API server accepts is bounded. Every list, map and string has a limit, and every rule
//! that needs no second object stands in the schema, so no webhook is ever needed.
#![allow(clippy::duplicated_attributes, reason = "every printer column has a name, a type and a path")]

mod agent_blueprint;
mod agent_grant;
mod agent_identity;
mod agent_policy;
mod agent_resource;
pub mod annotation;
mod configuration;
mod duration;
mod kubernetes;
mod protected;
mod reason;
mod rules;
mod selector;
mod selector_text;
mod serving;

pub use agent_blueprint::{
    AgentBlueprint, AgentBlueprintSpec, AgentBlueprintStatus, BlueprintDefaults, IdentityPer, InheritedGrant,
};
pub use agent_grant::{
    AgentGrant, AgentGrantSpec, AgentGrantStatus, AgentSelection, Application, Delegation, UserRights,
};
pub use agent_identity::{
    AgentIdentity, AgentIdentitySpec, AgentIdentityStatus, AgentUser, BoundObjectRef, GrantState,
    GrantStatus, Sponsor, SponsorKind, StatusIndex,
};
pub use agent_policy::{
    AgentPolicy, AgentPolicySpec, AgentPolicyStatus, Denial, Enforcement, PolicyLimits, PolicyMatch,
    Requirement as PolicyRequirement,
};
pub use agent_resource::{
    AgentRef, AgentResource, AgentResourceSpec, AgentResourceStatus, Allowance, Introspector, Mode, Offer,
    SigningAlgorithm, SubjectForm, ThisCluster, TokenProfile,
};
pub use configuration::{BoundKind, ConfigError, Configuration, KeyTimes, Limits, Seconds};
pub use duration::{DurationError, format_seconds, parse_seconds};
pub use kubernetes::Kubernetes;
pub use protected::{PROTECTED, Protected};
pub use reason::Reason;
pub(crate) use rules::ONE_LINE;
pub use selector::{BoundedValue, LabelSelector, Requirement, SelectorOperator};
pub use selector_text::SelectorError;
pub use serving::{
    CertificateTimes, RateLimit, RateLimits, Serving, StatusLists, UserIssuer, UserIssuerSource,
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// The API group of the custom resources.
pub const GROUP: &str = "agentid.dev";
/// Group and version of the custom resources.
pub const API_VERSION: &str = "agentid.dev/v1alpha1";
/// The `type` of every Secret that holds an agent's credentials, and of no other Secret.
pub const SECRET_TYPE: &str = "agentid.dev/credentials";
/// The label by which pods are seen; its value may name the agent.
pub const AGENT_LABEL: &str = "agentid.dev/agent";
/// The label by which an agent that was made from a blueprint is known; its value is the blueprint's UID.
pub const MADE_LABEL: &str = "agentid.dev/made-by";
/// The label that says, on a made agent, what it was made for: `Pod` or `Workload`.
pub const PER_LABEL: &str = "agentid.dev/identity-per";
/// The label that says who manages an object, and its value on ours.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "agentid");
/// The label of our RoleBindings: the UID of the grant that they stand for.
pub const GRANT_LABEL: &str = "agentid.dev/grant";
/// The group that every agent is in for the API server, by `agentid kube-auth-config`.
pub const AGENTS_GROUP: &str = "agentid:agents";
/// The file (and Secret key) by which `kubectl` comes to the API server as the agent.
pub const KUBECONFIG_KEY: &str = "kubeconfig";
/// The label by which a namespace without agents asks for the trust ConfigMap.
pub const TRUST_LABEL: &str = "agentid.dev/trust";
/// The label by which a pod asks for its credentials: `true` for the Secret as a volume, `sidecar` for the sidecar.
pub const INJECT_LABEL: &str = "agentid.dev/inject";
/// The annotation by which a pod that asks for its Secret says which, where it isn't `<agent>-agentid`.
pub const SECRET_NAME_ANNOTATION: &str = "agentid.dev/secret-name";
/// The annotation by which an agent asks for tokens that are minted anew: an instant of RFC 3339, once for each value.
pub const ROTATE_ANNOTATION: &str = "agentid.dev/rotate-requested";
/// The annotation that says who created an object of ours, where the admission policies are installed.
pub const AUTHOR_ANNOTATION: &str = "agentid.dev/author";
/// The annotation that says who last changed an object's spec, where the admission policies are installed.
pub const EDITED_BY_ANNOTATION: &str = "agentid.dev/edited-by";
/// The verb on an AgentIdentity, AgentBlueprint or AgentPolicy without which nobody ends its suspension, where the
/// admission policies are installed.
pub const RESUME_VERB: &str = "resume";
/// The name of the ConfigMap that carries the published keys in every namespace with agents.
pub const TRUST_NAME: &str = "agentid-trust";
/// The file (and Secret key) of the identity token.
pub const IDENTITY_KEY: &str = "identity.jwt";
/// The file (and Secret key) that says who the agent is, what it holds and why something is missing.
pub const DOCUMENT_KEY: &str = "agent.json";

/// Every CustomResourceDefinition of this version, in the order in which they are printed and applied.
///
/// # Errors
/// None in a version whose tests pass: the finished schemas are still definitions.
pub fn crds() -> Result<Vec<CustomResourceDefinition>, serde_json::Error> {
    [AgentIdentity::crd(), AgentResource::crd(), AgentGrant::crd(), AgentBlueprint::crd(), AgentPolicy::crd()]
        .into_iter()
        .map(|crd| {
            let mut value = serde_json::to_value(crd)?;
            rules::finish(&mut value);
            serde_json::from_value(value)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// Calls `look` with the path and the schema of every node below a schema.
    fn walk(path: &str, schema: &Value, look: &mut impl FnMut(&str, &Value)) {
        look(path, schema);
        for (name, child) in schema["properties"].as_object().into_iter().flatten() {
            walk(&format!("{path}.{name}"), child, look);
        }
        for key in ["items", "additionalProperties"] {
            if schema[key].is_object() {
                walk(&format!("{path}[]"), &schema[key], look);
            }
        }
    }

    #[test]
    fn everything_that_users_write_is_bounded() {
        let mut seen = 0;
        for crd in crds().unwrap() {
            let version = serde_json::to_value(&crd.spec.versions[0]).unwrap();
            assert!(version["subresources"]["status"].is_object(), "{}", crd.spec.names.kind);
            let root = &version["schema"]["openAPIV3Schema"];
            walk(&crd.spec.names.kind, root, &mut |path, node| {
                seen += 1;
                let has = |key: &str| !node[key].is_null();
                let format = node["format"].as_str().unwrap_or_default();
                assert!(!format.starts_with("uint"), "{path}: the API server warns of format {format}");
                assert!(!has("nullable"), "{path}: nullable");
                match node["type"].as_str() {
                    Some("array") => assert!(has("maxItems"), "{path}: no maxItems"),
                    Some("object") if has("additionalProperties") => {
                        assert!(has("maxProperties"), "{path}: no maxProperties");
                    }
                    // The texts of conditions are the API's own type, which bounds none.
                    Some("string") if !path.contains(".conditions[].") && path.matches('.').count() > 1 => {
                        assert!(
                            ["maxLength", "enum", "format"].into_iter().any(has),
                            "{path}: neither maxLength nor enum nor format"
                        );
                    }
                    Some("integer") if path.contains(".spec.") => {
                        assert!(has("minimum") && has("maximum"), "{path}: no minimum or maximum");
                    }
                    _ => {}
                }
            });
        }
        assert!(seen > 100, "only {seen} nodes were looked at");
    }
}

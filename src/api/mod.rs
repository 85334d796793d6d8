//! The kinds of the group `agentid.dev`, version `v1alpha1`, and the configuration file. A leaf: uses no
//! other room.
//!
//! Invariant: what the API server accepts is bounded. Every list, map and string has a limit, and every rule
//! that needs no second object stands in the schema, so no webhook is ever needed.

mod agent_grant;
mod agent_identity;
mod agent_resource;
mod configuration;
mod duration;
mod reason;
mod selector;

pub use agent_grant::{AgentGrant, AgentGrantSpec, AgentGrantStatus, AgentSelection, Application};
pub use agent_identity::{
    AgentIdentity, AgentIdentitySpec, AgentIdentityStatus, BoundObjectRef, GrantState, GrantStatus, Sponsor,
    SponsorKind,
};
pub use agent_resource::{
    AgentResource, AgentResourceSpec, AgentResourceStatus, Allowance, Mode, Offer, SigningAlgorithm,
    SubjectForm, TokenProfile,
};
pub use configuration::{BoundKind, ConfigError, Configuration, KeyTimes, Limits, Seconds};
pub use duration::{DurationError, format_seconds, parse_seconds};
pub use reason::Reason;
pub use selector::{BoundedValue, LabelSelector, Requirement, SelectorOperator};

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
/// The label by which a namespace without agents asks for the trust ConfigMap.
pub const TRUST_LABEL: &str = "agentid.dev/trust";
/// The name of the ConfigMap that carries the published keys in every namespace with agents.
pub const TRUST_NAME: &str = "agentid-trust";
/// The file (and Secret key) of the identity token.
pub const IDENTITY_KEY: &str = "identity.jwt";
/// The file (and Secret key) that says who the agent is, what it holds and why something is missing.
pub const DOCUMENT_KEY: &str = "agent.json";

/// Every CustomResourceDefinition of this version, in the order in which they are printed and applied.
#[must_use]
pub fn crds() -> Vec<CustomResourceDefinition> {
    let mut all = vec![AgentIdentity::crd(), AgentResource::crd(), AgentGrant::crd()];
    for crd in &mut all {
        strip_formats(crd);
    }
    all
}

/// The API server knows no `uint32`, and warns of it; bounds say the same.
fn strip_formats(crd: &mut CustomResourceDefinition) {
    fn walk(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Object(map) => {
                if map.get("format").and_then(|f| f.as_str()).is_some_and(|f| f.starts_with("uint")) {
                    map.remove("format");
                }
                map.values_mut().for_each(walk);
            }
            serde_json::Value::Array(items) => items.iter_mut().for_each(walk),
            _ => {}
        }
    }
    if let Ok(mut value) = serde_json::to_value(&*crd) {
        walk(&mut value);
        if let Ok(stripped) = serde_json::from_value(value) {
            *crd = stripped;
        }
    }
}

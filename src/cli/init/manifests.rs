//! The manifests themselves.

use serde_json::{Value, json};

use super::rules::configuration;
use super::{InitError, Plan};
use crate::api::{API_VERSION, Configuration};
use crate::cli::generated::yaml;

/// One file.
pub(super) struct Manifest {
    pub(super) file: &'static str,
    /// What it is, for people.
    pub(super) what: String,
    pub(super) text: String,
    /// It is an object of a cluster.
    pub(super) applies: bool,
}

/// All of them, in the order in which they are applied.
pub(super) fn manifests(plan: &Plan) -> Result<Vec<Manifest>, InitError> {
    let object = |file, what: String, header: &str, value: Value| {
        Ok::<_, InitError>(Manifest { file, what, text: yaml(header, &[value])?, applies: true })
    };
    let Plan { namespace, agent, resource: service, .. } = plan;
    let mut all = vec![
        object(
            "resource.yaml",
            format!("AgentResource {service}, for the platform team: what is granted, and from where"),
            "# A service that agents may be granted rights on. Nothing is grantable by default: `allow` says from where, and what.\n",
            resource(plan),
        )?,
        object(
            "agent.yaml",
            format!("AgentIdentity {namespace}/{agent}, for the agent's team"),
            "# The agent. Its credentials are in the Secret of its status; `agentid mount` prints the volume for its pods.\n",
            identity(plan),
        )?,
        object(
            "grant.yaml",
            format!("AgentGrant {namespace}/{agent}-{service}, for the agent's team"),
            "# What the agent may do at the service. `agentid why` says what it holds, and who refuses the rest.\n",
            grant(plan),
        )?,
    ];
    if let Some((issuer, domain)) = &plan.issuer {
        let text = configuration(issuer, domain);
        Configuration::from_yaml(&text)?;
        all.push(Manifest {
            file: "configuration.yaml",
            what: "agentid's configuration file (--config); no object of the cluster".to_owned(),
            text: format!(
                "# The configuration of agentid operator and agentid serve: docs/configuration.md.\n{text}"
            ),
            applies: false,
        });
    }
    Ok(all)
}

fn names(list: &[String]) -> Value {
    list.iter().map(|name| json!({"name": name})).collect()
}

fn resource(plan: &Plan) -> Value {
    let mut spec = json!({
        "audience": plan.audience,
        "allow": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": plan.namespace}}}],
    });
    for (field, list) in [("roles", &plan.roles), ("scopes", &plan.scopes)] {
        if !list.is_empty() {
            spec[field] = names(list);
            spec["allow"][0][field] = json!(list);
        }
    }
    json!({"apiVersion": API_VERSION, "kind": "AgentResource", "metadata": {"name": plan.resource}, "spec": spec})
}

fn identity(plan: &Plan) -> Value {
    let mut spec = json!({});
    if !plan.sponsors.is_empty() {
        spec["sponsors"] = plan.sponsors.iter().map(|s| json!({"kind": s.kind, "name": s.name})).collect();
    }
    if let Some(w) = &plan.workload {
        spec["boundObjectRef"] = json!({"apiVersion": w.api_version, "kind": w.kind, "name": w.name});
    }
    if let Some(account) = &plan.service_account {
        spec["serviceAccountName"] = json!(account);
    }
    json!({
        "apiVersion": API_VERSION, "kind": "AgentIdentity",
        "metadata": {"name": plan.agent, "namespace": plan.namespace}, "spec": spec,
    })
}

fn grant(plan: &Plan) -> Value {
    let mut application = json!({});
    for (field, list) in [("roles", &plan.roles), ("scopes", &plan.scopes)] {
        if !list.is_empty() {
            application[field] = json!(list);
        }
    }
    json!({
        "apiVersion": API_VERSION, "kind": "AgentGrant",
        "metadata": {"name": format!("{}-{}", plan.agent, plan.resource), "namespace": plan.namespace},
        "spec": {
            "agents": {"names": [plan.agent]}, "resource": plan.resource, "application": application,
            "secretKey": format!("{}.jwt", plan.resource),
        },
    })
}

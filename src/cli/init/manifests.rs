//! The manifests themselves.

use serde_json::{Value, json};

use super::rules::{Workload, configuration};
use super::{InitError, Labels, Plan, Whom};
use crate::api::{AGENT_LABEL, API_VERSION, Configuration, IdentityPer};
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
    let Plan { namespace, resource: service, .. } = plan;
    let mut all = vec![object(
        "resource.yaml",
        format!("AgentResource {service}, for the platform team: what is granted, and from where"),
        "# A service that agents may be granted rights on. Nothing is grantable by default: `allow` says from where, and what.\n",
        resource(plan),
    )?];
    match &plan.whom {
        Whom::Agent { name, workload, service_account } => all.extend([
            object(
                "agent.yaml",
                format!("AgentIdentity {namespace}/{name}, for the agent's team"),
                "# The agent. Its credentials are in the Secret of its status; `agentid mount` prints the volume for its pods.\n",
                identity(plan, name, workload.as_ref(), service_account.as_deref()),
            )?,
            object(
                "grant.yaml",
                format!("AgentGrant {namespace}/{name}-{service}, for the agent's team"),
                "# What the agent may do at the service. `agentid why` says what it holds, and who refuses the rest.\n",
                grant(plan, name),
            )?,
        ]),
        Whom::Pods { blueprint, labels, per } => all.push(object(
            "blueprint.yaml",
            format!("AgentBlueprint {blueprint}, for the platform team: which pods of {namespace} become agents"),
            &format!("# Pods with these labels, and with the label {AGENT_LABEL} (its value is free), become agents by themselves.\n"),
            template(plan, blueprint, labels, *per),
        )?),
    }
    if plan.policy {
        all.push(object(
            "policy.yaml",
            format!("AgentPolicy {namespace}, for the security team: what agents of {namespace} must have"),
            "# Audit says in the statuses what would be taken away, and takes nothing; Enforce, the default, takes it.\n",
            policy(namespace),
        )?);
    }
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

/// Only this namespace.
fn only(namespace: &str) -> Value {
    json!({"matchLabels": {"kubernetes.io/metadata.name": namespace}})
}

fn sponsors(plan: &Plan) -> Value {
    plan.sponsors.iter().map(|s| json!({"kind": s.kind, "name": s.name})).collect()
}

fn names(list: &[String]) -> Value {
    list.iter().map(|name| json!({"name": name})).collect()
}

fn resource(plan: &Plan) -> Value {
    let mut spec = json!({
        "audience": plan.audience,
        "allow": [{"namespaceSelector": only(&plan.namespace)}],
    });
    for (field, list) in [("roles", &plan.roles), ("scopes", &plan.scopes)] {
        if !list.is_empty() {
            spec[field] = names(list);
            spec["allow"][0][field] = json!(list);
        }
    }
    json!({"apiVersion": API_VERSION, "kind": "AgentResource", "metadata": {"name": plan.resource}, "spec": spec})
}

fn identity(plan: &Plan, name: &str, workload: Option<&Workload>, account: Option<&str>) -> Value {
    let mut spec = json!({});
    if !plan.sponsors.is_empty() {
        spec["sponsors"] = sponsors(plan);
    }
    if let Some(w) = workload {
        spec["boundObjectRef"] = json!({"apiVersion": w.api_version, "kind": w.kind, "name": w.name});
    }
    if let Some(account) = account {
        spec["serviceAccountName"] = json!(account);
    }
    json!({
        "apiVersion": API_VERSION, "kind": "AgentIdentity",
        "metadata": {"name": name, "namespace": plan.namespace}, "spec": spec,
    })
}

/// What is held at the service.
fn application(plan: &Plan) -> Value {
    let mut application = json!({});
    for (field, list) in [("roles", &plan.roles), ("scopes", &plan.scopes)] {
        if !list.is_empty() {
            application[field] = json!(list);
        }
    }
    application
}

/// Where the token is; `identity.jwt` is the agent's own.
fn file(resource: &str) -> String {
    if resource == "identity" { "identity-access.jwt".to_owned() } else { format!("{resource}.jwt") }
}

fn grant(plan: &Plan, agent: &str) -> Value {
    json!({
        "apiVersion": API_VERSION, "kind": "AgentGrant",
        "metadata": {"name": format!("{agent}-{}", plan.resource), "namespace": plan.namespace},
        "spec": {
            "agents": {"names": [agent]}, "resource": plan.resource, "application": application(plan),
            "secretKey": file(&plan.resource),
        },
    })
}

fn template(plan: &Plan, name: &str, labels: &Labels, per: IdentityPer) -> Value {
    let mut grant = json!({"name": inherited(&plan.resource), "resource": plan.resource, "application": application(plan)});
    // A pod's agent has no Secret: its tokens are got on demand, or as files by the sidecar.
    if per == IdentityPer::Workload {
        grant["secretKey"] = json!(file(&plan.resource));
    }
    let mut spec = json!({
        "namespaceSelector": only(&plan.namespace), "podSelector": {"matchLabels": labels},
        "identityPer": per.as_str(), "grants": [grant],
    });
    if !plan.sponsors.is_empty() {
        spec["sponsors"] = sponsors(plan);
    }
    json!({"apiVersion": API_VERSION, "kind": "AgentBlueprint", "metadata": {"name": name}, "spec": spec})
}

/// An inherited grant's name: the resource's, as far as it may be so long.
fn inherited(resource: &str) -> &str {
    resource.get(..63).map_or(resource, |start| start.trim_end_matches(['-', '.']))
}

fn policy(namespace: &str) -> Value {
    json!({
        "apiVersion": API_VERSION, "kind": "AgentPolicy", "metadata": {"name": namespace},
        "spec": {
            "enforcement": "Audit", "match": {"namespaceSelector": only(namespace)},
            "require": ["Sponsor"], "limits": {"tokenLifetime": "1h"},
        },
    })
}

//! `agent.json`: who the agent is, which files it has and what each is for, and why something is missing. A
//! stable interface, described in docs/agent-json.md: members are only ever added.

use jiff::Timestamp;
use serde::Serialize;

use super::{Filed, Issuer};
use crate::api::{KUBECONFIG_KEY, SigningAlgorithm, TokenProfile};
use crate::domain::plan::Issue;
use crate::domain::status::agent_id;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    version: &'static str,
    agent_id: String,
    namespace: &'a str,
    name: &'a str,
    uid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    blueprint: Option<&'a str>,
    issuer: &'a str,
    trust_domain: &'a str,
    files: Vec<File<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kubeconfig: Option<&'static str>,
    missing: Vec<Missing<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    withdrawn: Option<Why<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct File<'a> {
    file: &'a str,
    profile: TokenProfile,
    audience: &'a str,
    algorithm: SigningAlgorithm,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grant: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'a str>,
    roles: Vec<&'a str>,
    scopes: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_at: Option<Timestamp>,
    expires_at: Timestamp,
}

#[derive(Serialize)]
struct Missing<'a> {
    grant: &'a str,
    resource: &'a str,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    why: Option<Why<'a>>,
}

#[derive(Serialize)]
struct Why<'a> {
    reason: &'static str,
    message: &'a str,
}

/// Writes `agent.json`.
///
/// `kubeconfig`: whether there is one beside the tokens.
pub(super) fn document(issuer: &Issuer, issue: &Issue, filed: &[Filed<'_>], kubeconfig: bool) -> String {
    let why = |r: &crate::domain::Refusal| (r.reason.as_str(), r.message.clone());
    let missing: Vec<_> =
        issue.missing.iter().map(|m| (&*m.grant, &*m.resource, m.refusal.as_ref().map(why))).collect();
    let document = Document {
        version: "v1",
        agent_id: agent_id(&issuer.trust_domain, issue.uid),
        namespace: &issue.agent.namespace,
        name: &issue.agent.name,
        uid: issue.uid.to_string(),
        blueprint: issue.blueprint.as_deref(),
        issuer: &issuer.issuer,
        trust_domain: &issuer.trust_domain,
        files: filed
            .iter()
            .map(|f| File {
                file: &f.spec.file,
                profile: f.spec.entitlement.profile,
                audience: &f.spec.entitlement.audience,
                algorithm: f.spec.entitlement.algorithm,
                resource: f.spec.resource.as_deref(),
                grant: f.spec.grant.as_deref(),
                username: f.spec.entitlement.username.as_deref(),
                roles: f.spec.entitlement.roles.iter().map(|r| &**r).collect(),
                scopes: f.spec.entitlement.scopes.iter().map(|s| &**s).collect(),
                issued_at: (f.issued_at != Timestamp::UNIX_EPOCH).then_some(f.issued_at),
                expires_at: f.expires_at,
            })
            .collect(),
        kubeconfig: kubeconfig.then_some(KUBECONFIG_KEY),
        missing: missing
            .iter()
            .map(|(grant, resource, why)| Missing {
                grant,
                resource,
                why: why.as_ref().map(|(reason, message)| Why { reason, message }),
            })
            .collect(),
        withdrawn: issue.refusal.as_ref().map(|r| Why { reason: r.reason.as_str(), message: &r.message }),
    };
    // A document of strings and numbers always serialises.
    serde_json::to_string_pretty(&document).unwrap_or_default()
}

//! The claims of the token kinds (RFC 9068 §2.2; JWT-SVID §3).

use jiff::Timestamp;
use serde::Serialize;

use super::Issuer;
use crate::api::SubjectForm;
use crate::domain::Entitlement;
use crate::domain::plan::Issue;
use crate::domain::status::agent_id;

/// The profile of a subject or client that is an AI agent (draft-mora-oauth-entity-profiles).
const AI_AGENT: &str = "ai_agent";

/// The private claim `agentid.dev`: for people and audit, never to be parsed for authorization.
#[derive(Debug, Serialize)]
pub struct AgentClaim<'a> {
    /// `autonomous`: the agent's own rights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<&'static str>,
    /// The agent's namespace.
    pub namespace: &'a str,
    /// The agent's name.
    pub name: &'a str,
    /// The agent's UID.
    pub uid: String,
}

/// The claims of an access token in the agent's own right (`typ: at+jwt`, RFC 9068 §2.2). There is no `act`:
/// nobody delegates.
#[derive(Debug, Serialize)]
pub struct AccessClaims<'a> {
    iss: &'a str,
    sub: String,
    aud: &'a str,
    client_id: String,
    iat: i64,
    exp: i64,
    jti: &'a str,
    #[serde(skip_serializing_if = "String::is_empty")]
    scope: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    roles: Vec<&'a str>,
    sub_profile: &'static str,
    client_profile: &'static str,
    #[serde(rename = "agentid.dev")]
    agent: AgentClaim<'a>,
}

impl<'a> AccessClaims<'a> {
    pub(super) fn new(
        issuer: &'a Issuer,
        issue: &'a Issue,
        entitlement: &'a Entitlement,
        jti: &'a str,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Self {
        let id = agent_id(&issuer.trust_domain, issue.uid);
        Self {
            iss: &issuer.issuer,
            sub: id.clone(),
            aud: &entitlement.audience,
            client_id: id,
            iat: now.as_second(),
            exp: expires_at.as_second(),
            jti,
            scope: entitlement.scopes.join(" "),
            roles: entitlement.roles.iter().map(|r| &**r).collect(),
            sub_profile: AI_AGENT,
            client_profile: AI_AGENT,
            agent: agent_claim(issue, Some("autonomous")),
        }
    }
}

/// The claims of an identity token (`typ: JWT`, shaped like a JWT-SVID).
#[derive(Debug, Serialize)]
pub struct IdentityClaims<'a> {
    iss: &'a str,
    sub: String,
    aud: &'a str,
    iat: i64,
    exp: i64,
    jti: &'a str,
    sub_profile: &'static str,
    #[serde(rename = "agentid.dev")]
    agent: AgentClaim<'a>,
}

impl<'a> IdentityClaims<'a> {
    pub(super) fn new(
        issuer: &'a Issuer,
        issue: &'a Issue,
        entitlement: &'a Entitlement,
        jti: &'a str,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Self {
        Self {
            iss: &issuer.issuer,
            sub: subject(issuer, issue, entitlement.subject),
            aud: &entitlement.audience,
            iat: now.as_second(),
            exp: expires_at.as_second(),
            jti,
            sub_profile: AI_AGENT,
            agent: agent_claim(issue, None),
        }
    }
}

fn subject(issuer: &Issuer, issue: &Issue, form: SubjectForm) -> String {
    match form {
        SubjectForm::Id => agent_id(&issuer.trust_domain, issue.uid),
        SubjectForm::Name => format!(
            "spiffe://{}/ns/{}/agent/{}",
            issuer.trust_domain, issue.agent.namespace, issue.agent.name
        ),
    }
}

fn agent_claim<'a>(issue: &'a Issue, mode: Option<&'static str>) -> AgentClaim<'a> {
    AgentClaim {
        mode,
        namespace: &issue.agent.namespace,
        name: &issue.agent.name,
        uid: issue.uid.to_string(),
    }
}

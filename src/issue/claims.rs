//! The claims of the token kinds (RFC 9068 §2.2; JWT-SVID §3; RFC 8693 §4; Token Status List §6).

use std::borrow::Cow;

use jiff::Timestamp;
use serde::Serialize;

use super::Issuer;
use super::demand::{Actor, Chain, UserSubject};
use crate::api::{Mode, SubjectForm};
use crate::domain::agent_user::agent_user_id;
use crate::domain::status::agent_id;
use crate::domain::{Entitlement, Key, StatusRef, Uid};

/// The profile of a subject or client that is an AI agent (draft-mora-oauth-entity-profiles).
const AI_AGENT: &str = "ai_agent";
/// The profile of an agent's user: `user` alone would hide the agent from who reads the subject alone.
const AGENT_USER: &str = "user ai_agent";

/// Whom a token is about.
pub(super) struct About<'a> {
    pub(super) agent: &'a Key,
    pub(super) uid: Uid,
    pub(super) blueprint: Option<&'a str>,
    pub(super) grant: Option<Uid>,
    pub(super) status: Option<StatusRef>,
    pub(super) jti: &'a str,
    pub(super) now: Timestamp,
    pub(super) expires_at: Timestamp,
}

/// The private claim `agentid.dev`: for people, audit and agentid itself, never to be parsed for authorization.
#[derive(Debug, Serialize)]
pub struct AgentClaim<'a> {
    /// `autonomous`: the agent's own rights; `delegated`: a user's; `agent_user`: its own user's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<&'static str>,
    /// The agent's namespace.
    pub namespace: &'a str,
    /// The agent's name.
    pub name: &'a str,
    /// The agent's UID.
    pub uid: String,
    /// The agent's blueprint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blueprint: Option<&'a str>,
    /// The grant's UID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant: Option<String>,
    /// The status entries of the tokens that this one was got with: it is inactive once one of them is INVALID.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<StatusListRef>,
}

/// The claim `status` (Token Status List §6.2).
#[derive(Debug, Serialize)]
struct Status {
    status_list: StatusListRef,
}

/// An entry of a status list.
#[derive(Debug, Serialize)]
pub struct StatusListRef {
    idx: u32,
    uri: String,
}

impl StatusListRef {
    fn new(issuer: &Issuer, at: StatusRef) -> Self {
        Self { idx: at.index, uri: at.uri(&issuer.issuer) }
    }
}

/// `act` (RFC 8693 §4.1), with the profile of an agent.
#[derive(Debug, Serialize)]
struct Act<'a> {
    iss: &'a str,
    sub: Cow<'a, str>,
    sub_profile: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    act: Option<Box<Self>>,
}

impl<'a> Act<'a> {
    /// The outermost actor first.
    fn of(actors: &'a [Actor]) -> Option<Box<Self>> {
        let (first, before) = actors.split_first()?;
        Some(Box::new(Act {
            iss: &first.issuer,
            sub: Cow::Borrowed(&first.subject),
            sub_profile: AI_AGENT,
            act: Self::of(before),
        }))
    }
}

/// `sub_id` of the format `iss_sub` (RFC 9493 §3.2.4).
#[derive(Debug, Serialize)]
struct SubjectId<'a> {
    format: &'static str,
    iss: &'a str,
    sub: &'a str,
}

/// The claims of an access token (`typ: at+jwt`, RFC 9068 §2.2). In the agent's own right there is no `act`:
/// nobody delegates.
#[derive(Debug, Serialize)]
pub struct AccessClaims<'a> {
    iss: &'a str,
    sub: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub_id: Option<SubjectId<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    preferred_username: Option<&'a str>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    act: Option<Box<Act<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_time: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    acr: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    amr: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(rename = "agentid.dev")]
    agent: AgentClaim<'a>,
}

impl<'a> AccessClaims<'a> {
    /// With nobody's token: in the agent's own right, or as its user where the entitlement says so.
    pub(super) fn new(issuer: &'a Issuer, about: &About<'a>, entitlement: &'a Entitlement) -> Self {
        let own = Self::own(issuer, about, entitlement);
        let Some(username) = &entitlement.username else { return own };
        let agent = Act {
            iss: &issuer.issuer,
            sub: Cow::Owned(own.client_id.clone()),
            sub_profile: AI_AGENT,
            act: None,
        };
        Self {
            sub: agent_user_id(about.uid, username),
            preferred_username: Some(username),
            sub_profile: AGENT_USER,
            act: Some(Box::new(agent)),
            agent: agent_claim(about, Some(Mode::AgentUser.as_str()), Vec::new()),
            ..own
        }
    }

    /// In the agent's own right.
    fn own(issuer: &'a Issuer, about: &About<'a>, entitlement: &'a Entitlement) -> Self {
        let id = agent_id(&issuer.trust_domain, about.uid);
        Self {
            iss: &issuer.issuer,
            sub: id.clone(),
            sub_id: None,
            preferred_username: None,
            aud: &entitlement.audience,
            client_id: id,
            iat: about.now.as_second(),
            exp: about.expires_at.as_second(),
            jti: about.jti,
            scope: entitlement.scopes.join(" "),
            roles: entitlement.roles.iter().map(|r| &**r).collect(),
            sub_profile: AI_AGENT,
            client_profile: AI_AGENT,
            act: None,
            auth_time: None,
            acr: None,
            amr: None,
            status: about.status.map(|at| Status { status_list: StatusListRef::new(issuer, at) }),
            agent: agent_claim(about, Some(Mode::Application.as_str()), Vec::new()),
        }
    }

    /// In somebody else's name: of a user, or of an agent (or its user) that called this one.
    pub(super) fn delegated(
        issuer: &'a Issuer,
        about: &About<'a>,
        entitlement: &'a Entitlement,
        chain: &'a Chain,
    ) -> Self {
        let own = Self::own(issuer, about, entitlement);
        let parents = chain.parents.iter().map(|at| StatusListRef::new(issuer, *at)).collect();
        let UserSubject { principal, issuer: iss, subject, is_agent, username, auth_time, acr, amr } =
            &chain.subject;
        Self {
            sub: principal.clone(),
            sub_id: (!is_agent).then_some(SubjectId { format: "iss_sub", iss, sub: subject }),
            preferred_username: username.as_deref(),
            sub_profile: match (is_agent, username) {
                (false, _) => "user",
                (true, None) => AI_AGENT,
                (true, Some(_)) => AGENT_USER,
            },
            act: Act::of(&chain.actors),
            auth_time: *auth_time,
            acr: acr.as_deref(),
            amr: amr.as_deref(),
            agent: agent_claim(about, Some(Mode::Delegation.as_str()), parents),
            ..own
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
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(rename = "agentid.dev")]
    agent: AgentClaim<'a>,
}

impl<'a> IdentityClaims<'a> {
    pub(super) fn new(issuer: &'a Issuer, about: &About<'a>, entitlement: &'a Entitlement) -> Self {
        Self {
            iss: &issuer.issuer,
            sub: subject(issuer, about, entitlement.subject),
            aud: &entitlement.audience,
            iat: about.now.as_second(),
            exp: about.expires_at.as_second(),
            jti: about.jti,
            sub_profile: AI_AGENT,
            status: about.status.map(|at| Status { status_list: StatusListRef::new(issuer, at) }),
            agent: agent_claim(about, None, Vec::new()),
        }
    }
}

fn subject(issuer: &Issuer, about: &About<'_>, form: SubjectForm) -> String {
    match form {
        SubjectForm::Id => agent_id(&issuer.trust_domain, about.uid),
        SubjectForm::Name => format!(
            "spiffe://{}/ns/{}/agent/{}",
            issuer.trust_domain, about.agent.namespace, about.agent.name
        ),
    }
}

fn agent_claim<'a>(
    about: &About<'a>,
    mode: Option<&'static str>,
    chain: Vec<StatusListRef>,
) -> AgentClaim<'a> {
    AgentClaim {
        mode,
        namespace: &about.agent.namespace,
        name: &about.agent.name,
        uid: about.uid.to_string(),
        blueprint: about.blueprint,
        grant: about.grant.map(|g| g.to_string()),
        chain,
    }
}

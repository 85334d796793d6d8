//! What an agent's Secret is to hold: which tokens in which files, and what is missing.
//!
//! Invariant: what is refused has no token; the digest is of what the files are to say, never of the rotation.

use std::sync::Arc;

use jiff::Timestamp;

use crate::api::{IDENTITY_KEY, KUBECONFIG_KEY, Mode, SigningAlgorithm, SubjectForm, TokenProfile};
use crate::domain::kubeconfig::{digest as kubeconfig_digest, kubeconfig};
use crate::domain::statuslist::{Indexes, StatusRef};
use crate::domain::{Agent, Decision, Digest, Entitlement, Hasher, Key, Refusal, Uid, World};

/// A token to be minted into a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSpec {
    /// The file (the Secret's key).
    pub file: Arc<str>,
    /// The grant that it comes from; `None` for the identity token.
    pub grant: Option<Arc<str>>,
    /// That grant's UID.
    pub grant_uid: Option<Uid>,
    /// The resource that it is for; `None` for the identity token.
    pub resource: Option<Arc<str>>,
    /// What it says.
    pub entitlement: Entitlement,
    /// Where it stands in a status list; `None` for the identity token, which nobody else takes.
    pub status: Option<StatusRef>,
}

/// Something that an agent has no file of, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The grant.
    pub grant: Arc<str>,
    /// The resource.
    pub resource: Arc<str>,
    /// Why; `None` if it is held, on demand only.
    pub refusal: Option<Refusal>,
}

/// What an agent's Secret is to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// The agent.
    pub agent: Key,
    /// Its UID.
    pub uid: Uid,
    /// Its blueprint.
    pub blueprint: Option<Arc<str>>,
    /// Its Secret's name.
    pub secret: Arc<str>,
    /// The tokens; none if the credential is withdrawn.
    pub tokens: Vec<TokenSpec>,
    /// The `kubeconfig` beside the first token for this cluster.
    pub kubeconfig: Option<Arc<str>>,
    /// What is narrowed or missing, and why.
    pub missing: Vec<Missing>,
    /// Why the credential is withdrawn.
    pub refusal: Option<Refusal>,
    /// The lifetime of the shortest-lived token in seconds: all renew by it.
    pub lifetime: u32,
    /// The rotation that was last asked for: what is minted now is minted for it. No part of the digest.
    pub rotation: Option<Timestamp>,
    /// Digest of all of the above.
    pub plan: Digest,
}

impl Issue {
    /// Every file but `agent.json`, with a digest of what it says.
    #[must_use]
    pub fn files(&self) -> Vec<(&str, Digest)> {
        let tokens = self.tokens.iter().map(|t| (&*t.file, t.entitlement.digest()));
        tokens.chain(self.kubeconfig.iter().map(|k| (KUBECONFIG_KEY, kubeconfig_digest(k)))).collect()
    }
}

/// What an agent may have in files now, with the indexes that are recorded.
///
/// # Errors
/// The grant whose index is not recorded yet.
pub fn on_demand(world: &World, agent: &Agent, decision: &Decision) -> Result<Issue, Arc<str>> {
    let mut of = Vec::new();
    for grant in &decision.grants {
        let Some(held) = grant.held.as_ref().filter(|_| grant.file.is_some()) else { continue };
        let at = agent.status.index_of(grant.uid, grant.resource_uid, held);
        of.push((grant.uid, at.ok_or_else(|| grant.grant.clone())?));
    }
    Ok(issue(world, agent, decision, &Indexes::recorded(of), None))
}

/// What an agent's Secret is to hold.
pub(super) fn issue(
    world: &World,
    agent: &Agent,
    decision: &Decision,
    indexes: &Indexes,
    refusal: Option<&Refusal>,
) -> Issue {
    let (mut tokens, mut missing) = (Vec::new(), Vec::new());
    if refusal.is_none() {
        tokens.push(TokenSpec {
            file: IDENTITY_KEY.into(),
            grant: None,
            grant_uid: None,
            resource: None,
            entitlement: Entitlement {
                audience: world.config().issuer.as_str().into(),
                profile: TokenProfile::Identity,
                subject: SubjectForm::Id,
                algorithm: SigningAlgorithm::ES256,
                mode: Mode::Application,
                users: None,
                username: None,
                kubernetes: false,
                roles: Vec::new(),
                scopes: Vec::new(),
                lifetime: decision.lifetime,
                not_after: decision.not_after,
            },
            status: None,
        });
    }
    for grant in &decision.grants {
        if let (Some(entitlement), Some(file), None) = (&grant.held, &grant.file, refusal) {
            tokens.push(TokenSpec {
                file: file.clone(),
                grant: Some(grant.grant.clone()),
                grant_uid: Some(grant.uid),
                resource: Some(grant.resource.clone()),
                entitlement: entitlement.clone(),
                status: indexes.get(grant.uid),
            });
            if grant.refusal.is_none() {
                continue;
            }
        }
        missing.push(Missing {
            grant: grant.grant.clone(),
            resource: grant.resource.clone(),
            refusal: refusal.cloned().or_else(|| grant.refusal.clone()),
        });
    }
    let lifetime = tokens.iter().map(|t| t.entitlement.lifetime).min().unwrap_or(decision.lifetime);
    let mut h = Hasher::new("plan v1");
    h.part(decision.agent.to_string().as_bytes()).part(&decision.uid.0.to_be_bytes());
    h.part(world.config().trust_domain.as_bytes());
    for token in &tokens {
        h.part(token.file.as_bytes()).part(&token.entitlement.digest().0);
        h.parts(token.grant.iter().chain(&token.resource).map(|t| &**t).collect::<Vec<_>>().into_iter());
        if let Some(at) = token.status {
            h.part(&at.list.0.to_be_bytes()).part(&at.index.to_be_bytes());
        }
    }
    let kubeconfig = tokens
        .iter()
        .find(|t| t.entitlement.kubernetes)
        .map(|t| kubeconfig(&world.config().kubernetes, &decision.agent.namespace, &t.file));
    if let Some(kubeconfig) = &kubeconfig {
        h.part(kubeconfig.as_bytes());
    }
    for m in &missing {
        let (reason, message) =
            m.refusal.as_ref().map_or(("", ""), |r| (r.reason.as_str(), r.message.as_str()));
        h.parts([&*m.grant, &*m.resource, reason, message].into_iter());
    }
    if let Some(refusal) = refusal {
        h.parts([refusal.reason.as_str(), &refusal.message].into_iter());
    }
    Issue {
        agent: decision.agent.clone(),
        uid: decision.uid,
        blueprint: agent.blueprint.clone(),
        secret: agent.secret_name.clone(),
        tokens,
        kubeconfig,
        missing,
        refusal: refusal.cloned(),
        lifetime,
        rotation: agent.rotation,
        plan: h.finish(),
    }
}

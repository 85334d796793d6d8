//! The only place where a decision becomes a token.
//!
//! Invariant: a token says what its [`Entitlement`] says and nothing more; it dies with the earliest of the
//! entitlement's lifetime and end. Every mint leaves one audit line, which never carries the token.

pub mod audit;
mod claims;
mod demand;
mod document;
mod jti;
pub mod usage;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use thiserror::Error;

pub use self::audit::{Action, Audit, AuditLine};
use self::claims::About;
pub use self::claims::{AccessClaims, AgentClaim, IdentityClaims, StatusListRef};
pub use self::demand::{Actor, Chain, Demand, MintedToken, UserSubject};
use crate::api::{DOCUMENT_KEY, KUBECONFIG_KEY, Reason, SigningAlgorithm, TokenProfile, annotation};
use crate::crypto::SigningKey;
use crate::domain::plan::{Issue, TokenSpec};
use crate::domain::status::agent_id;
use crate::domain::{Credentials, Digest, Entitlement, schedule};

/// Who signs.
pub trait Signers {
    /// The active key of an algorithm.
    fn signer(&self, algorithm: SigningAlgorithm) -> Option<&SigningKey>;
}

/// Why nothing was minted.
#[derive(Debug, Error)]
pub enum MintError {
    /// The ring has no active key of the algorithm.
    #[error("no active {0:?} key")]
    NoKey(SigningAlgorithm),
    /// The key refused.
    #[error("{file}: {source}")]
    Sign {
        /// The file that was being made.
        file: String,
        /// Why.
        source: crate::crypto::SignError,
    },
    /// The system gave no random bytes.
    #[error("no random bytes for a jti")]
    Random,
}

impl MintError {
    /// The reason, of the closed set.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::NoKey(_) => Reason::KeysUnavailable,
            Self::Sign { .. } | Self::Random => Reason::Internal,
        }
    }
}

/// What a Secret is written with.
pub struct Contents {
    /// The data, not yet base64.
    pub data: BTreeMap<String, String>,
    /// The annotations.
    pub annotations: BTreeMap<String, String>,
    /// When it is to be renewed.
    pub renew_at: Option<Timestamp>,
    /// When the first of its tokens expires.
    pub expires_at: Option<Timestamp>,
}

impl std::fmt::Debug for Contents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contents")
            .field("files", &self.data.keys().collect::<Vec<_>>())
            .field("annotations", &self.annotations)
            .finish_non_exhaustive()
    }
}

/// Who issues.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// The `iss`.
    pub issuer: Arc<str>,
    /// The SPIFFE trust domain.
    pub trust_domain: Arc<str>,
    /// Where every mint is recorded.
    pub audit: Audit,
}

/// A token as it lies in a file.
#[derive(Debug)]
pub(crate) struct Filed<'a> {
    pub(crate) spec: &'a TokenSpec,
    pub(crate) issued_at: Timestamp,
    pub(crate) expires_at: Timestamp,
}

impl Issuer {
    /// Mints what a Secret is to hold: every token, `agent.json` and the annotations.
    ///
    /// # Errors
    /// [`MintError`] where no key can sign; then nothing is to be written.
    pub fn mint(&self, issue: &Issue, signers: &impl Signers, now: Timestamp) -> Result<Contents, MintError> {
        let mut line = AuditLine::new(Action::Mint, Reason::Issued, now);
        line.endpoint = Some("secret".to_owned());
        self.mint_for(issue, signers, now, &line)
    }

    /// As [`Self::mint`], for somebody: `asked` says who and where, and becomes the audit lines.
    ///
    /// # Errors
    /// [`MintError`].
    pub fn mint_for(
        &self,
        issue: &Issue,
        signers: &impl Signers,
        now: Timestamp,
        asked: &AuditLine,
    ) -> Result<Contents, MintError> {
        let now = whole_second(now);
        let (mut data, mut filed, mut kids) = (BTreeMap::new(), Vec::new(), Vec::new());
        for spec in &issue.tokens {
            let entitlement = &spec.entitlement;
            let signer =
                signers.signer(entitlement.algorithm).ok_or(MintError::NoKey(entitlement.algorithm))?;
            let expires_at = expiry(entitlement, now);
            let jti = jti::new(now).ok_or(MintError::Random)?;
            let about = About {
                agent: &issue.agent,
                uid: issue.uid,
                blueprint: issue.blueprint.as_deref(),
                grant: spec.grant_uid,
                status: spec.status,
                jti: &jti,
                now,
                expires_at,
            };
            let token = self
                .sign(&about, entitlement, signer)
                .map_err(|source| MintError::Sign { file: spec.file.to_string(), source })?;
            self.record(issue, spec, &jti, signer.kid(), expires_at, asked);
            if !kids.iter().any(|k| k == signer.kid()) {
                kids.push(signer.kid().to_owned());
            }
            data.insert(spec.file.to_string(), token);
            filed.push(Filed { spec, issued_at: now, expires_at });
        }
        let expires_at = filed.iter().map(|f| f.expires_at).min();
        let renew_at = expires_at.map(|e| schedule::renew_at(issue.uid, now, issue.lifetime).min(e));
        data.insert(
            DOCUMENT_KEY.to_owned(),
            document::document(self, issue, &filed, issue.kubeconfig.is_some()),
        );
        if let Some(kubeconfig) = &issue.kubeconfig {
            data.insert(KUBECONFIG_KEY.to_owned(), kubeconfig.to_string());
        }
        kids.sort_unstable();
        let tokens: Vec<_> = issue.files().iter().map(|(f, d)| format!("{f}={d}")).collect();
        Ok(Contents {
            data,
            annotations: annotations(issue, issue.plan, &tokens, &kids, renew_at, expires_at, issue.rotation),
            renew_at,
            expires_at,
        })
    }

    /// What a Secret is written with when files must go and no key can sign: the rest stays as it is.
    #[must_use]
    pub fn strip(&self, issue: &Issue, seen: &Credentials, undue: &[Box<str>]) -> Contents {
        let left: Vec<_> = seen.tokens.iter().filter(|(f, _)| !undue.contains(f)).collect();
        let specs: Vec<_> =
            issue.tokens.iter().filter(|t| left.iter().any(|(f, _)| **f == *t.file)).collect();
        let filed: Vec<_> = specs
            .iter()
            .map(|spec| Filed { spec, issued_at: Timestamp::UNIX_EPOCH, expires_at: seen.expires_at })
            .collect();
        let kubeconfig = left.iter().any(|(f, _)| **f == *KUBECONFIG_KEY);
        let tokens: Vec<_> = left.iter().map(|(f, d)| format!("{f}={d}")).collect();
        let kids: Vec<_> = seen.kids.iter().map(ToString::to_string).collect();
        let some = |t: Timestamp| (!left.is_empty()).then_some(t);
        Contents {
            data: BTreeMap::from([(
                DOCUMENT_KEY.to_owned(),
                document::document(self, issue, &filed, kubeconfig),
            )]),
            annotations: annotations(
                issue,
                Digest::default(),
                &tokens,
                &kids,
                some(seen.renew_at),
                some(seen.expires_at),
                // Nothing was minted now.
                seen.rotated,
            ),
            renew_at: some(seen.renew_at),
            expires_at: some(seen.expires_at),
        }
    }

    fn sign(
        &self,
        about: &About<'_>,
        entitlement: &Entitlement,
        signer: &SigningKey,
    ) -> Result<String, crate::crypto::SignError> {
        match entitlement.profile {
            TokenProfile::Access => signer.sign("at+jwt", &AccessClaims::new(self, about, entitlement)),
            TokenProfile::Identity => signer.sign("JWT", &IdentityClaims::new(self, about, entitlement)),
        }
    }

    fn record(
        &self,
        issue: &Issue,
        spec: &TokenSpec,
        jti: &str,
        kid: &str,
        expires_at: Timestamp,
        asked: &AuditLine,
    ) {
        let mut line = AuditLine {
            action: Action::Mint,
            reason: Reason::Issued.as_str().to_owned(),
            agent_id: Some(agent_id(&self.trust_domain, issue.uid)),
            namespace: Some(issue.agent.namespace.to_string()),
            name: Some(issue.agent.name.to_string()),
            blueprint: issue.blueprint.as_deref().map(str::to_owned),
            grant: spec.grant.as_deref().map(str::to_owned),
            resource: spec.resource.as_deref().map(str::to_owned),
            jti: Some(jti.to_owned()),
            kid: Some(kid.to_owned()),
            expires_at: Some(expires_at),
            ..asked.clone()
        };
        line.says(&spec.entitlement);
        if let Some(at) = spec.status {
            line.at(at);
        }
        self.audit.record(line);
    }
}

fn annotations(
    issue: &Issue,
    plan: Digest,
    tokens: &[String],
    kids: &[String],
    renew_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
    rotated: Option<Timestamp>,
) -> BTreeMap<String, String> {
    let time = |t: Option<Timestamp>| t.map(|t| t.to_string()).unwrap_or_default();
    let of_all = [
        (annotation::AGENT_UID, issue.uid.to_string()),
        (annotation::PLAN, plan.to_string()),
        (annotation::TOKENS, tokens.join(",")),
        (annotation::KEY_IDS, kids.join(",")),
        (annotation::RENEW_AT, time(renew_at)),
        (annotation::EXPIRES_AT, time(expires_at)),
    ];
    let rotated = rotated.map(|at| (annotation::ROTATED, at.to_string()));
    of_all.into_iter().chain(rotated).map(|(k, v)| (k.to_owned(), v)).collect()
}

/// When a token for an entitlement dies, if it is minted now.
fn expiry(entitlement: &Entitlement, now: Timestamp) -> Timestamp {
    let end = now + SignedDuration::from_secs(i64::from(entitlement.lifetime));
    entitlement.not_after.map_or(end, |limit| whole_second(limit).min(end))
}

/// NumericDate counts whole seconds (RFC 7519 §2).
fn whole_second(t: Timestamp) -> Timestamp {
    Timestamp::from_second(t.as_second()).unwrap_or(t)
}

#[cfg(test)]
mod tests;

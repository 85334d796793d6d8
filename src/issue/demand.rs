//! One token on demand.
//!
//! Invariant: it says at most what its [`Entitlement`] says, which the caller has narrowed to what was asked for;
//! it bears a recorded index; it never outlives the token that it was got with.

use std::fmt;

use jiff::{SignedDuration, Timestamp};

use super::claims::{About, AccessClaims, IdentityClaims};
use super::{Issuer, MintError, Signers, jti, whole_second};
use crate::api::TokenProfile;
use crate::domain::{Entitlement, Key, StatusRef, Uid};

/// In whose name an agent acts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserSubject {
    /// The `sub` of the new token: a user's subject prefix and `sub`, or an agent's id.
    pub principal: String,
    /// The issuer of the token that was handed over first.
    pub issuer: String,
    /// The `sub` of that token.
    pub subject: String,
    /// An agent began the chain, by itself or as its user, not somebody's token.
    pub is_agent: bool,
    /// The name of the agent user that began the chain.
    pub username: Option<String>,
    /// `auth_time` of the user's token.
    pub auth_time: Option<i64>,
    /// `acr` of the user's token.
    pub acr: Option<String>,
    /// `amr` of the user's token.
    pub amr: Option<Vec<String>>,
}

/// One who acts (RFC 8693 §4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The `iss`.
    pub issuer: String,
    /// The `sub`.
    pub subject: String,
}

/// In whose name, and through whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// In whose name.
    pub subject: UserSubject,
    /// Who acts: this agent first, then those that called before it.
    pub actors: Vec<Actor>,
    /// The status entries of our own tokens that were handed over, the newest first.
    pub parents: Vec<StatusRef>,
}

/// A token to be minted.
#[derive(Clone, Debug)]
pub struct Demand<'a> {
    /// The agent.
    pub agent: &'a Key,
    /// Its UID.
    pub uid: Uid,
    /// Its blueprint.
    pub blueprint: Option<&'a str>,
    /// The grant.
    pub grant: Uid,
    /// What it says, narrowed to what was asked for.
    pub entitlement: &'a Entitlement,
    /// Where it stands in a status list.
    pub status: StatusRef,
    /// In whose name; `None`: the agent's own.
    pub chain: Option<&'a Chain>,
    /// No later than this, beside the entitlement's end.
    pub not_after: Option<Timestamp>,
}

/// A token that was minted.
pub struct MintedToken {
    /// The compact JWS.
    pub token: String,
    /// Its id.
    pub jti: String,
    /// The key that signed it.
    pub kid: String,
    /// When it expires.
    pub expires_at: Timestamp,
}

impl fmt::Debug for MintedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MintedToken").field("jti", &self.jti).field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl Issuer {
    /// Mints one token.
    ///
    /// # Errors
    /// [`MintError`].
    pub fn demand(
        &self,
        demand: &Demand<'_>,
        signers: &impl Signers,
        now: Timestamp,
    ) -> Result<MintedToken, MintError> {
        let now = whole_second(now);
        let entitlement = demand.entitlement;
        let signer = signers.signer(entitlement.algorithm).ok_or(MintError::NoKey(entitlement.algorithm))?;
        let end = now + SignedDuration::from_secs(i64::from(entitlement.lifetime));
        let limits = [entitlement.not_after, demand.not_after].into_iter().flatten();
        let expires_at = limits.map(whole_second).fold(end, Timestamp::min);
        let jti = jti::new(now).ok_or(MintError::Random)?;
        let about = About {
            agent: demand.agent,
            uid: demand.uid,
            blueprint: demand.blueprint,
            grant: Some(demand.grant),
            status: Some(demand.status),
            jti: &jti,
            now,
            expires_at,
        };
        let signed = match (entitlement.profile, demand.chain) {
            (TokenProfile::Identity, _) => {
                signer.sign("JWT", &IdentityClaims::new(self, &about, entitlement))
            }
            (TokenProfile::Access, None) => {
                signer.sign("at+jwt", &AccessClaims::new(self, &about, entitlement))
            }
            (TokenProfile::Access, Some(chain)) => {
                signer.sign("at+jwt", &AccessClaims::delegated(self, &about, entitlement, chain))
            }
        };
        let token = signed.map_err(|source| MintError::Sign { file: "on demand".to_owned(), source })?;
        Ok(MintedToken { token, kid: signer.kid().to_owned(), jti, expires_at })
    }
}

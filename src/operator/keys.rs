//! The keys as the loop sees them: who signs, what is published, and what is wrong.

use std::collections::HashMap;
use std::sync::Arc;

use crate::api::SigningAlgorithm;
use crate::crypto::{JwkSet, SigningKey};
use crate::domain::keyring::KeyRing;
use crate::domain::plan::KeysSeen;
use crate::issue::Signers;

/// One picture of the key ring.
#[derive(Debug)]
pub struct KeyView {
    /// What plans need.
    pub seen: KeysSeen,
    /// The keys that sign tokens.
    pub active: HashMap<SigningAlgorithm, Arc<SigningKey>>,
    /// The key that signs status lists; `None` where no key may sign.
    #[expect(dead_code, reason = "the status lists' publisher is its reader")]
    pub status: Option<Arc<SigningKey>>,
    /// The published keys as a JWK set; `None` if the ring was never read.
    pub jwks: Option<Arc<str>>,
    /// Of these, the keys that sign tokens: by them alone are tokens of ours verified.
    pub token_jwks: Option<Arc<JwkSet>>,
    /// The ring, without any key; `None` where no key may sign.
    pub ring: Option<Arc<KeyRing>>,
    /// The ring's generation.
    pub generation: u64,
    /// The ring has not been looked at yet: no work begins.
    pub loading: bool,
}

impl KeyView {
    /// No ring, and why; what an earlier view published stays published.
    #[must_use]
    pub fn unavailable(problem: &str, before: &Self) -> Self {
        Self {
            seen: KeysSeen { good: before.seen.good.clone(), problem: Some(problem.into()) },
            active: HashMap::new(),
            status: None,
            jwks: before.jwks.clone(),
            token_jwks: before.token_jwks.clone(),
            ring: None,
            generation: before.generation,
            loading: false,
        }
    }

    /// Before the ring was read.
    #[must_use]
    pub fn loading() -> Self {
        Self {
            seen: KeysSeen { problem: Some("the key ring is being read".into()), ..KeysSeen::default() },
            active: HashMap::new(),
            status: None,
            jwks: None,
            token_jwks: None,
            ring: None,
            generation: 0,
            loading: true,
        }
    }
}

impl Signers for KeyView {
    fn signer(&self, algorithm: SigningAlgorithm) -> Option<&SigningKey> {
        self.active.get(&algorithm).map(|k| &**k)
    }
}

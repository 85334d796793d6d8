//! The keys of issuers other than us. Invariant: a key verifies only with the algorithms that its type, its curve
//! and its `alg` leave it, decided when the set is read and not by what a token says (RFC 8725 §3.1).

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, EcdsaVerificationAlgorithm,
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters,
    RsaPublicKeyComponents,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};
use std::fmt;

use crate::crypto::{
    JwkError, SkippedKey,
    jwk::{RSA_MODULUS_BYTES, public_kty, set_members, text},
    strict_json::quoted,
};

/// More keys than any issuer publishes.
const MAX_KEYS: usize = 128;

/// The signature algorithms that others may use (RFC 7518 §3.1): HMAC and `none` are not representable, EdDSA is
/// not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ForeignAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RS256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    RS384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    RS512,
    /// RSASSA-PSS with SHA-256.
    PS256,
    /// RSASSA-PSS with SHA-384.
    PS384,
    /// RSASSA-PSS with SHA-512.
    PS512,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// ECDSA on P-384 with SHA-384.
    ES384,
    /// ECDSA on P-521 with SHA-512.
    ES512,
}

enum Kind {
    Rsa(&'static RsaParameters),
    Ec { algorithm: &'static EcdsaVerificationAlgorithm, curve: &'static str, coordinate_bytes: usize },
}

impl ForeignAlgorithm {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::ES512,
    ];

    /// The JOSE name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::ES512 => "ES512",
        }
    }

    /// The algorithm of a JOSE name, compared byte for byte.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }

    const fn kind(self) -> Kind {
        match self {
            Self::RS256 => Kind::Rsa(&RSA_PKCS1_2048_8192_SHA256),
            Self::RS384 => Kind::Rsa(&RSA_PKCS1_2048_8192_SHA384),
            Self::RS512 => Kind::Rsa(&RSA_PKCS1_2048_8192_SHA512),
            Self::PS256 => Kind::Rsa(&RSA_PSS_2048_8192_SHA256),
            Self::PS384 => Kind::Rsa(&RSA_PSS_2048_8192_SHA384),
            Self::PS512 => Kind::Rsa(&RSA_PSS_2048_8192_SHA512),
            Self::ES256 => {
                Kind::Ec { algorithm: &ECDSA_P256_SHA256_FIXED, curve: "P-256", coordinate_bytes: 32 }
            }
            Self::ES384 => {
                Kind::Ec { algorithm: &ECDSA_P384_SHA384_FIXED, curve: "P-384", coordinate_bytes: 48 }
            }
            Self::ES512 => {
                Kind::Ec { algorithm: &ECDSA_P521_SHA512_FIXED, curve: "P-521", coordinate_bytes: 66 }
            }
        }
    }
}

impl fmt::Display for ForeignAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A public key of another issuer, ready for each algorithm that it may be used with.
#[derive(Clone)]
pub struct ForeignKey {
    kid: Option<String>,
    verifiers: Vec<(ForeignAlgorithm, ParsedPublicKey)>,
}

impl ForeignKey {
    /// The key's id, if it has one.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The algorithms that this key may be used with: one, unless it is an RSA key whose issuer does not say.
    pub fn algorithms(&self) -> impl Iterator<Item = ForeignAlgorithm> {
        self.verifiers.iter().map(|(algorithm, _)| *algorithm)
    }

    pub(super) fn verifier(&self, algorithm: ForeignAlgorithm) -> Option<&ParsedPublicKey> {
        self.verifiers.iter().find(|(of, _)| *of == algorithm).map(|(_, key)| key)
    }

    fn from_members(members: &Map<String, Value>) -> Result<Self, JwkError> {
        let kty = public_kty(members)?;
        let unsupported = |member, value: &str| JwkError::Unsupported { member, value: quoted(value) };
        match text(members, "use")? {
            Some(other) if other != "sig" => return Err(unsupported("use", other)),
            _ => {}
        }
        match members.get("key_ops") {
            Some(Value::Array(operations)) if !operations.iter().any(|op| op == "verify") => {
                return Err(unsupported("key_ops", "without verify"));
            }
            _ => {}
        }
        let alg = text(members, "alg")?;
        let pinned = match alg {
            None => None,
            Some(name) => Some(ForeignAlgorithm::from_name(name).ok_or_else(|| unsupported("alg", name))?),
        };
        let verifiers = match kty {
            "RSA" => rsa(members, pinned)?,
            "EC" => ec(members)?,
            other => return Err(unsupported("kty", other)),
        };
        match pinned {
            Some(pinned) if verifiers.iter().all(|(of, _)| *of != pinned) => {
                Err(unsupported("alg", pinned.as_str()))
            }
            _ => Ok(Self { kid: text(members, "kid")?.map(str::to_owned), verifiers }),
        }
    }
}

fn bytes(members: &Map<String, Value>, member: &'static str) -> Result<Vec<u8>, JwkError> {
    let value = text(members, member)?.ok_or(JwkError::Value { member, problem: "missing" })?;
    URL_SAFE_NO_PAD
        .decode(value)
        .map_err(|_| JwkError::Value { member, problem: "not canonical base64url without padding" })
}

fn rsa(
    members: &Map<String, Value>,
    pinned: Option<ForeignAlgorithm>,
) -> Result<Vec<(ForeignAlgorithm, ParsedPublicKey)>, JwkError> {
    let components = RsaPublicKeyComponents { n: bytes(members, "n")?, e: bytes(members, "e")? };
    if components.n.first() == Some(&0) || !RSA_MODULUS_BYTES.contains(&components.n.len()) {
        return Err(JwkError::Value { member: "n", problem: "not of 2048 to 8192 bits" });
    }
    let mut verifiers = Vec::new();
    for algorithm in ForeignAlgorithm::ALL.into_iter().filter(|of| pinned.is_none_or(|pinned| *of == pinned))
    {
        if let Kind::Rsa(parameters) = algorithm.kind() {
            let key = components.to_parsed_public_key(parameters);
            let key = key.map_err(|_| JwkError::Value { member: "n", problem: "no RSA key with this e" })?;
            verifiers.push((algorithm, key));
        }
    }
    Ok(verifiers)
}

fn ec(members: &Map<String, Value>) -> Result<Vec<(ForeignAlgorithm, ParsedPublicKey)>, JwkError> {
    let crv = text(members, "crv")?.unwrap_or("");
    for of in ForeignAlgorithm::ALL {
        match of.kind() {
            Kind::Ec { algorithm, curve, coordinate_bytes } if curve == crv => {
                let mut point = vec![4];
                for member in ["x", "y"] {
                    let coordinate = bytes(members, member)?;
                    if coordinate.len() != coordinate_bytes {
                        return Err(JwkError::Value { member, problem: "not as long as its curve demands" });
                    }
                    point.extend(coordinate);
                }
                let key = ParsedPublicKey::new(algorithm, point).map_err(|_| JwkError::Value {
                    member: "x",
                    problem: "not with y a point of the curve",
                })?;
                return Ok(vec![(of, key)]);
            }
            _ => {}
        }
    }
    Err(JwkError::Unsupported { member: "crv", value: quoted(crv) })
}

impl fmt::Debug for ForeignKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let algorithms: Vec<_> = self.algorithms().collect();
        f.debug_struct("ForeignKey").field("kid", &self.kid).field("algorithms", &algorithms).finish()
    }
}

/// The keys of one issuer, in the order in which it publishes them; no two have one `kid`. Two are equal that were read
/// from the same text.
#[derive(Debug, Clone, Default)]
pub struct ForeignKeys {
    keys: Vec<ForeignKey>,
    skipped: Vec<SkippedKey>,
    /// The SHA-256 of that text.
    text: Box<[u8]>,
}

impl PartialEq for ForeignKeys {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl ForeignKeys {
    /// Reads a JWK set (RFC 7517 §5). Keys of no use here are left out, see [`Self::skipped`]; a key without `kid`
    /// is kept.
    ///
    /// # Errors
    /// [`JwkError::Malformed`] for anything but an object with an array `keys` of at most 128;
    /// [`JwkError::Private`] or [`JwkError::Symmetric`] if any key discloses a secret, for then nothing in the set is
    /// to be trusted.
    pub fn parse(json: &str) -> Result<Self, JwkError> {
        let entries = set_members(json)?;
        if entries.len() > MAX_KEYS {
            return Err(JwkError::Malformed(format!("{} keys, more than {MAX_KEYS}", entries.len())));
        }
        let mut set = Self { text: digest(&SHA256, json.as_bytes()).as_ref().into(), ..Self::default() };
        for (index, entry) in entries.iter().enumerate() {
            let parsed = match entry {
                Value::Object(members) => ForeignKey::from_members(members),
                _ => Err(JwkError::Malformed("not an object".to_owned())),
            };
            let reason = match parsed {
                Err(secret @ (JwkError::Private(_) | JwkError::Symmetric)) => return Err(secret),
                Err(reason) => reason,
                Ok(key) if key.kid().is_some_and(|kid| set.find(kid).is_some()) => JwkError::DuplicateKid,
                Ok(key) => {
                    set.keys.push(key);
                    continue;
                }
            };
            let kid = entry.get("kid").and_then(Value::as_str).map(str::to_owned);
            set.skipped.push(SkippedKey { index, kid, reason });
        }
        Ok(set)
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> &[ForeignKey] {
        &self.keys
    }

    /// The keys that were left out.
    #[must_use]
    pub fn skipped(&self) -> &[SkippedKey] {
        &self.skipped
    }

    /// The key with this id. The id is compared as a whole, never interpreted.
    #[must_use]
    pub fn find(&self, kid: &str) -> Option<&ForeignKey> {
        self.keys.iter().find(|key| key.kid() == Some(kid))
    }
}

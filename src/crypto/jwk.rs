//! Public keys as JWK and JWK sets (RFC 7517). Invariants: a [`Jwk`] holds a well-formed public key for exactly one
//! algorithm and no private member, so whatever is serialised here may be published; a [`JwkSet`] is ordered by
//! `kid` and names each key once.

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::DecodingKey;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};
use thiserror::Error;

use super::{
    Algorithm,
    strict_json::{self, Unique, quoted},
};

/// The private and symmetric members of RFC 7518 §6.2.2, §6.3.2, §6.4.1 and RFC 9964 §3 (`priv`).
const PRIVATE_MEMBERS: [&str; 9] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"];
/// What a published key is for (RFC 7517 §4.2).
const SIGNATURE_USE: &str = "sig";
const P256_COORDINATE_BYTES: usize = 32;
pub(super) const RSA_MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// A JWK or JWK set that cannot be used. Never shows a private member's value.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub enum JwkError {
    /// Private material where only a public key belongs.
    #[error("the JWK holds the private member {0:?}: this key must be treated as disclosed")]
    Private(&'static str),
    /// A shared secret where only a public key belongs.
    #[error("the JWK is a symmetric key (kty \"oct\"): it is a secret, not a public key")]
    Symmetric,
    /// Not JSON, or not of the form of RFC 7517.
    #[error("not a JWK: {0}")]
    Malformed(String),
    /// A key type, curve, algorithm or use that signs no token here.
    #[error("the JWK's {member} is {value}, which is not used here")]
    Unsupported {
        /// The member that rules the key out.
        member: &'static str,
        /// Its value, quoted and shortened.
        value: String,
    },
    /// A public value that is not canonical base64url or not of the right size.
    #[error("the JWK's {member} is {problem}")]
    Value {
        /// The member at fault.
        member: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// In a set: no token could name this key.
    #[error("the JWK has no kid")]
    NoKid,
    /// In a set: an earlier key has this `kid`.
    #[error("an earlier JWK has the same kid")]
    DuplicateKid,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Public {
    P256 { x: String, y: String },
    Rsa { n: String, e: String },
}

/// A public signature key: P-256 for ES256 or RSA (2048 to 8192 bits) for RS256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwk {
    public: Public,
    kid: Option<String>,
}

impl Jwk {
    /// From an uncompressed point (SEC 1 §2.3.3). Without `kid`.
    pub(super) fn from_p256_point(point: &[u8]) -> Result<Self, JwkError> {
        match point.split_first() {
            Some((4, xy)) if xy.len() == 2 * P256_COORDINATE_BYTES => {
                let (x, y) = xy.split_at(P256_COORDINATE_BYTES);
                let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
                Ok(Self { public: Public::P256 { x, y }, kid: None })
            }
            _ => Err(JwkError::Value { member: "x", problem: "not from an uncompressed P-256 point" }),
        }
    }

    /// From modulus and exponent, big-endian. Without `kid`.
    pub(super) fn from_rsa_components(n: &[u8], e: &[u8]) -> Result<Self, JwkError> {
        let public = Public::Rsa { n: URL_SAFE_NO_PAD.encode(n), e: URL_SAFE_NO_PAD.encode(e) };
        Self { public, kid: None }.checked()
    }

    pub(super) fn with_kid(mut self, kid: &str) -> Self {
        self.kid = Some(kid.to_owned());
        self
    }

    /// The key's id, if it has one; for our own keys the thumbprint.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The one algorithm that this key verifies.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        match self.public {
            Public::P256 { .. } => Algorithm::ES256,
            Public::Rsa { .. } => Algorithm::RS256,
        }
    }

    /// The SHA-256 thumbprint of RFC 7638 §3, base64url.
    #[must_use]
    pub fn thumbprint(&self) -> String {
        // The required members in lexicographic order, without spaces; base64url values need no escaping.
        let required = match &self.public {
            Public::P256 { x, y } => format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#),
            Public::Rsa { n, e } => format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#),
        };
        URL_SAFE_NO_PAD.encode(digest(&SHA256, required.as_bytes()))
    }

    /// Reads one key. Members that are not known are ignored, as RFC 7517 §4 demands.
    ///
    /// # Errors
    /// [`JwkError`] for a key that is private, symmetric, malformed or of no use here.
    pub fn parse(json: &str) -> Result<Self, JwkError> {
        let members =
            strict_json::object(json.as_bytes()).map_err(|error| JwkError::Malformed(error.to_string()))?;
        Self::from_members(&members)
    }

    fn from_members(members: &Map<String, Value>) -> Result<Self, JwkError> {
        let kty = public_kty(members)?;
        let value = |member| {
            text(members, member)?.map(str::to_owned).ok_or(JwkError::Value { member, problem: "missing" })
        };
        let unsupported = |member, value| Err(JwkError::Unsupported { member, value: quoted(value) });
        let public = match kty {
            "EC" => match text(members, "crv")? {
                Some("P-256") => Public::P256 { x: value("x")?, y: value("y")? },
                other => return unsupported("crv", other.unwrap_or("")),
            },
            "RSA" => Public::Rsa { n: value("n")?, e: value("e")? },
            other => return unsupported("kty", other),
        };
        let key = Self { public, kid: text(members, "kid")?.map(str::to_owned) }.checked()?;
        // An absent alg leaves no choice: each key type has one algorithm here.
        match text(members, "alg")? {
            Some(alg) if alg != key.algorithm().as_str() => return unsupported("alg", alg),
            _ => {}
        }
        match text(members, "use")? {
            Some(other) if other != SIGNATURE_USE => unsupported("use", other),
            _ => Ok(key),
        }
    }

    fn checked(self) -> Result<Self, JwkError> {
        let decode = |member, value: &str| {
            URL_SAFE_NO_PAD
                .decode(value)
                .map_err(|_| JwkError::Value { member, problem: "not canonical base64url without padding" })
        };
        match &self.public {
            Public::P256 { x, y } => {
                for (member, value) in [("x", x), ("y", y)] {
                    if decode(member, value)?.len() != P256_COORDINATE_BYTES {
                        return Err(JwkError::Value { member, problem: "not 32 bytes long" });
                    }
                }
            }
            Public::Rsa { n, e } => {
                if decode("e", e)?.is_empty() {
                    return Err(JwkError::Value { member: "e", problem: "empty" });
                }
                let n = decode("n", n)?;
                if n.first() == Some(&0) || !RSA_MODULUS_BYTES.contains(&n.len()) {
                    return Err(JwkError::Value { member: "n", problem: "not of 2048 to 8192 bits" });
                }
            }
        }
        Ok(self)
    }

    /// The key as the verifier takes it.
    pub(super) fn decoding_key(&self) -> Result<DecodingKey, jsonwebtoken::errors::Error> {
        match &self.public {
            Public::P256 { x, y } => DecodingKey::from_ec_components(x, y),
            Public::Rsa { n, e } => DecodingKey::from_rsa_components(n, e),
        }
    }

    fn to_value(&self, usage: &str) -> Value {
        let mut members = match &self.public {
            Public::P256 { x, y } => vec![("kty", "EC"), ("crv", "P-256"), ("x", x), ("y", y)],
            Public::Rsa { n, e } => vec![("kty", "RSA"), ("n", n), ("e", e)],
        };
        members.extend(self.kid().map(|kid| ("kid", kid)));
        members.extend([("alg", self.algorithm().as_str()), ("use", usage)]);
        members
            .into_iter()
            .map(|(name, value)| (name.to_owned(), Value::from(value)))
            .collect::<Map<_, _>>()
            .into()
    }
}

/// The key type of a key that discloses no secret.
pub(super) fn public_kty(members: &Map<String, Value>) -> Result<&str, JwkError> {
    let kty = text(members, "kty")?.ok_or(JwkError::Value { member: "kty", problem: "missing" })?;
    if kty == "oct" {
        return Err(JwkError::Symmetric);
    }
    match PRIVATE_MEMBERS.into_iter().find(|name| members.contains_key(*name)) {
        Some(name) => Err(JwkError::Private(name)),
        None => Ok(kty),
    }
}

/// The keys of a document of RFC 7517 §5, not yet looked at.
pub(super) fn set_members(json: &str) -> Result<Vec<Value>, JwkError> {
    let mut document =
        strict_json::object(json.as_bytes()).map_err(|error| JwkError::Malformed(error.to_string()))?;
    match document.remove("keys") {
        Some(Value::Array(entries)) => Ok(entries),
        _ => Err(JwkError::Malformed("a JWK set is an object with an array \"keys\"".to_owned())),
    }
}

/// A string member, if it is there.
pub(super) fn text<'a>(
    members: &'a Map<String, Value>,
    member: &'static str,
) -> Result<Option<&'a str>, JwkError> {
    match members.get(member) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(JwkError::Value { member, problem: "not a string" }),
    }
}

impl Serialize for Jwk {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_value(SIGNATURE_USE).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Jwk {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Unique::deserialize(deserializer)? {
            Unique(Value::Object(members)) => Self::from_members(&members).map_err(de::Error::custom),
            Unique(_) => Err(de::Error::custom(JwkError::Malformed("not an object".to_owned()))),
        }
    }
}

/// A set of public keys, ordered by `kid`, each `kid` once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct JwkSet {
    keys: Vec<Jwk>,
}

/// What came of reading a set: the keys of use here, and why the others are not.
#[derive(Debug)]
pub struct ParsedSet {
    /// The usable keys.
    pub set: JwkSet,
    /// The keys left out, in the order of the document.
    pub skipped: Vec<SkippedKey>,
}

/// A key of a set that was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedKey {
    /// Its place in the document's `keys`, from 0.
    pub index: usize,
    /// Its `kid`, if it has one; text of unknown origin.
    pub kid: Option<String>,
    /// Why.
    pub reason: JwkError,
}

impl JwkSet {
    /// Reads a set (RFC 7517 §5). Keys of no use here are skipped, since a verifier must not fail on them.
    ///
    /// # Errors
    /// [`JwkError::Malformed`] for anything but an object with an array `keys`; [`JwkError::Private`] or
    /// [`JwkError::Symmetric`] if any key discloses a secret, for then nothing in the set is to be trusted.
    pub fn parse(json: &str) -> Result<ParsedSet, JwkError> {
        let entries = set_members(json)?;
        let (mut keys, mut skipped) = (Vec::<Jwk>::new(), Vec::new());
        for (index, entry) in entries.iter().enumerate() {
            let parsed = match entry {
                Value::Object(members) => Jwk::from_members(members),
                _ => Err(JwkError::Malformed("not an object".to_owned())),
            };
            let reason = match parsed {
                Err(secret @ (JwkError::Private(_) | JwkError::Symmetric)) => return Err(secret),
                Err(reason) => reason,
                Ok(key) if key.kid.is_none() => JwkError::NoKid,
                Ok(key) if keys.iter().any(|earlier| earlier.kid == key.kid) => JwkError::DuplicateKid,
                Ok(key) => {
                    keys.push(key);
                    continue;
                }
            };
            let kid = entry.get("kid").and_then(Value::as_str).map(str::to_owned);
            skipped.push(SkippedKey { index, kid, reason });
        }
        Ok(ParsedSet { set: keys.into_iter().collect(), skipped })
    }

    /// The keys, ordered by `kid`.
    #[must_use]
    pub fn keys(&self) -> &[Jwk] {
        &self.keys
    }

    /// The key with this id. The id is compared as a whole, never interpreted.
    #[must_use]
    pub fn find(&self, kid: &str) -> Option<&Jwk> {
        self.keys.iter().find(|key| key.kid() == Some(kid))
    }

    /// The document to publish: the same bytes for the same keys.
    #[must_use]
    pub fn to_json(&self) -> String {
        Value::from(Map::from_iter([self.to_member(SIGNATURE_USE)])).to_string()
    }

    /// The same keys as a SPIFFE bundle for JWT-SVID (SPIFFE Trust Domain and Bundle §4): a document of its own,
    /// since there a key with another `use` is ignored, and elsewhere one with this `use`.
    ///
    /// `sequence` grows whenever the keys change; `refresh_hint` says after how many seconds to look again.
    #[must_use]
    pub fn to_spiffe_bundle(&self, sequence: u64, refresh_hint: u32) -> String {
        Value::from(Map::from_iter([
            self.to_member("jwt-svid"),
            ("spiffe_sequence".to_owned(), sequence.into()),
            ("spiffe_refresh_hint".to_owned(), refresh_hint.into()),
        ]))
        .to_string()
    }

    fn to_member(&self, usage: &str) -> (String, Value) {
        let keys = self.keys.iter().map(|key| key.to_value(usage)).collect::<Vec<_>>();
        ("keys".to_owned(), keys.into())
    }
}

impl FromIterator<Jwk> for JwkSet {
    /// Of two keys with one `kid` the first is kept.
    fn from_iter<I: IntoIterator<Item = Jwk>>(keys: I) -> Self {
        let mut keys: Vec<Jwk> = keys.into_iter().collect();
        keys.sort_by(|a, b| a.kid.cmp(&b.kid));
        keys.dedup_by(|later, earlier| later.kid == earlier.kid);
        Self { keys }
    }
}

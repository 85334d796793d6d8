//! Private signing keys and compact JWS (RFC 7515 §3.1). Invariants: a key signs with one algorithm; the header of
//! what it signs is exactly `typ`, `alg`, `kid`, as JWT-SVID and Kubernetes' external signer demand; the private
//! key never appears in Debug.

use std::{fmt, str::FromStr};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rand::SystemRandom,
    rsa::KeySize,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

use super::{Jwk, Secret, Typ};

const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";

/// The signature algorithms in use (RFC 7518 §3.1). HMAC and `none` are not representable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// RSASSA-PKCS1-v1_5 with SHA-256, at least 2048 bits.
    RS256,
}

/// The name of an algorithm that is not in use here.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{} is not a signature algorithm in use here: ES256 or RS256", super::strict_json::quoted(.0))]
pub struct UnknownAlgorithm(pub String);

impl Algorithm {
    /// The JOSE name: `ES256`, `RS256`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ES256 => "ES256",
            Self::RS256 => "RS256",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(name: &str) -> Result<Self, UnknownAlgorithm> {
        match name {
            "ES256" => Ok(Self::ES256),
            "RS256" => Ok(Self::RS256),
            _ => Err(UnknownAlgorithm(name.to_owned())),
        }
    }
}

/// A key that could not be made, read or written. Never says anything about the key's content.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum KeyError {
    /// The provider could not make a key.
    #[error("could not generate a key for {0}")]
    Generate(Algorithm),
    /// Not one PEM block `PRIVATE KEY` (RFC 7468 §10).
    #[error("not an unencrypted PKCS#8 key in PEM: expected one block from {PEM_BEGIN} to {PEM_END}")]
    Pem,
    /// PKCS#8 that is damaged or holds another kind of key.
    #[error("the PKCS#8 key is not usable for {0}: ES256 needs P-256, RS256 RSA of at least 2048 bits")]
    Unusable(Algorithm),
    /// The provider could not write the key as PKCS#8.
    #[error("could not encode the {0} key as PKCS#8")]
    Encode(Algorithm),
}

/// A token that could not be signed.
#[derive(Debug, Error)]
pub enum SignError {
    /// The claims could not be written as JSON.
    #[error("the claims cannot be written as JSON: {0}")]
    Claims(#[from] serde_json::Error),
    /// The claims are not a JSON object (RFC 7519 §2, "JWT Claims Set").
    #[error("the claims are not a JSON object")]
    NotAnObject,
    /// The provider refused to sign.
    #[error("the {0} signature failed")]
    Signature(Algorithm),
}

enum Pair {
    Es256(EcdsaKeyPair),
    Rs256(RsaKeyPair),
}

/// A private key with its public JWK. Signing takes `&self` and no lock.
pub struct SigningKey {
    pair: Pair,
    public: Jwk,
    kid: String,
    access_header: String,
    identity_header: String,
}

impl SigningKey {
    /// Makes a new key: P-256 or RSA of 2048 bits.
    ///
    /// # Errors
    /// [`KeyError::Generate`] if the provider fails.
    pub fn generate(algorithm: Algorithm) -> Result<Self, KeyError> {
        let failed = |_| KeyError::Generate(algorithm);
        Self::new(match algorithm {
            Algorithm::ES256 => {
                Pair::Es256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(failed)?)
            }
            Algorithm::RS256 => Pair::Rs256(RsaKeyPair::generate(KeySize::Rsa2048).map_err(failed)?),
        })
    }

    /// Reads an unencrypted PKCS#8 key in PEM.
    ///
    /// # Errors
    /// [`KeyError::Pem`] for another armor, [`KeyError::Unusable`] for a key of another kind.
    pub fn from_pkcs8_pem(algorithm: Algorithm, pem: &str) -> Result<Self, KeyError> {
        let body = pem
            .trim()
            .strip_prefix(PEM_BEGIN)
            .and_then(|rest| rest.strip_suffix(PEM_END))
            .ok_or(KeyError::Pem)?;
        let mut base64 = Zeroizing::new(String::with_capacity(body.len()));
        base64.extend(body.split_ascii_whitespace());
        let der = Zeroizing::new(STANDARD.decode(base64.as_bytes()).map_err(|_| KeyError::Pem)?);
        let unusable = |_| KeyError::Unusable(algorithm);
        Self::new(match algorithm {
            Algorithm::ES256 => Pair::Es256(
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).map_err(unusable)?,
            ),
            Algorithm::RS256 => Pair::Rs256(RsaKeyPair::from_pkcs8(&der).map_err(unusable)?),
        })
    }

    /// Writes the key as PKCS#8 v1 in PEM (RFC 7468 §10): readable by [`Self::from_pkcs8_pem`] and OpenSSL.
    ///
    /// # Errors
    /// [`KeyError::Encode`] if the provider fails.
    pub fn to_pkcs8_pem(&self) -> Result<Secret<String>, KeyError> {
        let failed = |_| KeyError::Encode(self.algorithm());
        Ok(match &self.pair {
            Pair::Es256(pair) => armor(pair.to_pkcs8v1().map_err(failed)?.as_ref()),
            Pair::Rs256(pair) => armor(AsDer::<Pkcs8V1Der<'_>>::as_der(pair).map_err(failed)?.as_ref()),
        })
    }

    /// The one algorithm that this key signs with.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        match self.pair {
            Pair::Es256(_) => Algorithm::ES256,
            Pair::Rs256(_) => Algorithm::RS256,
        }
    }

    /// The key id: base64url of the SHA-256 thumbprint of the public JWK (RFC 7638).
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The public half, fit to be published.
    #[must_use]
    pub fn public_jwk(&self) -> Jwk {
        self.public.clone()
    }

    /// Signs claims: a compact JWS with the header `{"typ": typ, "alg": …, "kid": …}`.
    ///
    /// # Errors
    /// [`SignError`] for claims that are not a JSON object, or if the provider fails.
    pub fn sign(&self, typ: &str, claims: &impl Serialize) -> Result<String, SignError> {
        // Room for what is usual, so that it does not grow by and by.
        const USUAL_CLAIMS: usize = 1024;
        const LONGEST_USUAL_SIGNATURE: usize = 342;
        let mut payload = Vec::with_capacity(USUAL_CLAIMS);
        serde_json::to_writer(&mut payload, claims)?;
        if payload.first() != Some(&b'{') {
            return Err(SignError::NotAnObject);
        }
        let other_header;
        let header = match typ {
            _ if typ == Typ::Access.as_str() => &self.access_header,
            _ if typ == Typ::Identity.as_str() => &self.identity_header,
            _ => {
                other_header = header(typ, self.algorithm(), &self.kid);
                &other_header
            }
        };
        let capacity = header.len() + payload.len().div_ceil(3) * 4 + LONGEST_USUAL_SIGNATURE + 2;
        let mut token = String::with_capacity(capacity);
        token.push_str(header);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(&payload, &mut token);
        let failed = |_| SignError::Signature(self.algorithm());
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Es256(pair) => {
                let signature = pair.sign(&random, token.as_bytes()).map_err(failed)?;
                token.push('.');
                URL_SAFE_NO_PAD.encode_string(signature, &mut token);
            }
            Pair::Rs256(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, token.as_bytes(), &mut signature).map_err(failed)?;
                token.push('.');
                URL_SAFE_NO_PAD.encode_string(signature, &mut token);
            }
        }
        Ok(token)
    }

    fn new(pair: Pair) -> Result<Self, KeyError> {
        let (algorithm, public) = match &pair {
            Pair::Es256(pair) => (Algorithm::ES256, Jwk::from_p256_point(pair.public_key().as_ref())),
            Pair::Rs256(pair) => {
                let public = pair.public_key();
                let modulus = public.modulus().big_endian_without_leading_zero();
                let exponent = public.exponent().big_endian_without_leading_zero();
                (Algorithm::RS256, Jwk::from_rsa_components(modulus, exponent))
            }
        };
        let public = public.map_err(|_| KeyError::Unusable(algorithm))?;
        let kid = public.thumbprint();
        Ok(Self {
            access_header: header(Typ::Access.as_str(), algorithm, &kid),
            identity_header: header(Typ::Identity.as_str(), algorithm, &kid),
            pair,
            public: public.with_kid(&kid),
            kid,
        })
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("algorithm", &self.algorithm())
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}

/// The JOSE header, base64url. `kid` is base64url and needs no escaping; `typ` may.
fn header(typ: &str, algorithm: Algorithm, kid: &str) -> String {
    let typ = serde_json::Value::from(typ);
    URL_SAFE_NO_PAD.encode(format!(r#"{{"typ":{typ},"alg":"{algorithm}","kid":"{kid}"}}"#))
}

fn armor(der: &[u8]) -> Secret<String> {
    const LINE: usize = 64;
    let base64 = Zeroizing::new(STANDARD.encode(der));
    // Sized up front: a reallocation would leave a copy of the key behind.
    let lines = base64.len().div_ceil(LINE);
    let mut pem = String::with_capacity(PEM_BEGIN.len() + PEM_END.len() + base64.len() + lines + 2);
    pem.push_str(PEM_BEGIN);
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(LINE));
        pem.push('\n');
        pem.push_str(line);
        rest = tail;
    }
    pem.push('\n');
    pem.push_str(PEM_END);
    pem.push('\n');
    Secret::new(pem)
}

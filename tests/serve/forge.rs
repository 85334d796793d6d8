//! Tokens that are signed well and are wrong all the same: any header and any claims, under a key that is trusted.

use agentid::crypto::{Algorithm, SigningKey, inspect};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// A token taken apart, to be changed in one thing and signed anew.
#[derive(Clone, Debug)]
pub struct Draft {
    pub header: Value,
    pub claims: Value,
}

impl Draft {
    pub fn of(token: &str) -> Self {
        let read = inspect(token).unwrap();
        Self { header: json!(read.header), claims: json!(read.claims) }
    }

    /// With members of the header replaced; null takes one away.
    pub fn head(&self, changes: Value) -> Self {
        Self { header: changed(&self.header, changes), claims: self.claims.clone() }
    }

    /// With claims replaced; null takes one away.
    pub fn say(&self, changes: Value) -> Self {
        Self { header: self.header.clone(), claims: changed(&self.claims, changes) }
    }

    /// What is signed.
    fn text(&self) -> String {
        unsigned(&self.header.to_string(), &self.claims.to_string())
    }

    pub fn sign(&self, key: &SigningKey) -> String {
        seal(&self.text(), key)
    }

    /// Authenticated by HMAC with this secret.
    pub fn hmac(&self, secret: &[u8]) -> String {
        let text = self.text();
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), text.as_bytes());
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(tag))
    }

    /// Without a signature.
    pub fn bare(&self) -> String {
        format!("{}.", self.text())
    }
}

fn changed(object: &Value, changes: Value) -> Value {
    let mut object = object.as_object().unwrap().clone();
    let Value::Object(changes) = changes else { panic!("{changes} is no object") };
    object.extend(changes);
    object.retain(|_, value| !value.is_null());
    Value::Object(object)
}

/// Header and claims as they are spelt, before the signature.
pub fn unsigned(header: &str, claims: &str) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
}

/// Signs whatever it is.
pub fn seal(text: &str, key: &SigningKey) -> String {
    let der = der_of(key);
    let random = SystemRandom::new();
    let signature: Vec<u8> = match key.algorithm() {
        Algorithm::ES256 => {
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).unwrap();
            pair.sign(&random, text.as_bytes()).unwrap().as_ref().to_vec()
        }
        Algorithm::RS256 => {
            let pair = RsaKeyPair::from_pkcs8(&der).unwrap();
            let mut signature = vec![0; pair.public_modulus_len()];
            pair.sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature).unwrap();
            signature
        }
    };
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn der_of(key: &SigningKey) -> Vec<u8> {
    let pem = key.to_pkcs8_pem().unwrap();
    let body: String = pem.expose().lines().filter(|l| !l.starts_with("-----")).collect();
    STANDARD.decode(body).unwrap()
}

/// The public half as everybody may have it, in DER and in PEM.
pub fn public(key: &SigningKey) -> (Vec<u8>, String) {
    let der = der_of(key);
    let der: PublicKeyX509Der<'_> = match key.algorithm() {
        Algorithm::ES256 => {
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).unwrap();
            AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap()
        }
        Algorithm::RS256 => {
            let pair = RsaKeyPair::from_pkcs8(&der).unwrap();
            AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap()
        }
    };
    let der = der.as_ref().to_vec();
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(&der));
    (der, pem)
}

/// An actor with 50 behind it.
pub fn fifty_actors() -> Value {
    (0..50).fold(
        json!({"iss": "https://x.example", "sub": "x"}),
        |act, _| json!({"iss": "https://x.example", "sub": "x", "act": act}),
    )
}

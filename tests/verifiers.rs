//! Our tokens before verifiers that are not of our making: what they must accept, and what they must refuse.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "common/verifiers.rs"]
mod verifiers;

use agentid::api::{SigningAlgorithm, SubjectForm, TokenProfile};
use agentid::crypto::{Algorithm, JwkSet, SigningKey};
use agentid::domain::plan::{Issue, TokenSpec};
use agentid::domain::{Digest, Entitlement, Key, Uid};
use agentid::issue::{Issuer, Signers};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use verifiers::{Kind, refuse_all, verify_all};

const ISSUER: &str = "https://agents.example.com";
const AUDIENCE: &str = "https://tickets.example.com";

struct Pair {
    es256: SigningKey,
    rs256: SigningKey,
}

impl Pair {
    fn generate() -> Self {
        Self {
            es256: SigningKey::generate(Algorithm::ES256).unwrap(),
            rs256: SigningKey::generate(Algorithm::RS256).unwrap(),
        }
    }

    fn jwks(&self) -> String {
        [&self.es256, &self.rs256].into_iter().map(SigningKey::public_jwk).collect::<JwkSet>().to_json()
    }

    fn mint(&self, profile: TokenProfile, algorithm: SigningAlgorithm, now: Timestamp) -> String {
        let entitlement = Entitlement {
            mode: agentid::api::Mode::Application,
            users: None,
            username: None,
            kubernetes: false,
            audience: AUDIENCE.into(),
            profile,
            subject: SubjectForm::Id,
            algorithm,
            roles: vec!["triager".into()],
            scopes: vec!["tickets.read".into()],
            lifetime: 600,
            not_after: None,
        };
        let file = "tickets.jwt";
        let issue = Issue {
            blueprint: None,
            agent: Key::new("support", "triage"),
            uid: Uid(0x7f3d_9a2e_0001_4abc_8def_0123_4567_89ab),
            secret: "triage-agentid".into(),
            tokens: vec![TokenSpec {
                file: file.into(),
                grant: Some("tickets".into()),
                grant_uid: None,
                resource: Some("tickets".into()),
                entitlement,
                status: None,
            }],
            kubeconfig: None,
            missing: Vec::new(),
            refusal: None,
            lifetime: 600,
            rotation: None,
            plan: Digest::default(),
        };
        let issuer = Issuer {
            issuer: ISSUER.into(),
            trust_domain: "agents.example.com".into(),
            audit: agentid::issue::Audit::to(drop),
        };
        issuer.mint(&issue, self, now).unwrap().data.remove(file).unwrap()
    }
}

impl Signers for Pair {
    fn signer(&self, algorithm: SigningAlgorithm) -> Option<&SigningKey> {
        Some(match algorithm {
            SigningAlgorithm::ES256 => &self.es256,
            SigningAlgorithm::RS256 => &self.rs256,
        })
    }
}

const PROFILES: [(TokenProfile, Kind); 2] =
    [(TokenProfile::Access, Kind::Access), (TokenProfile::Identity, Kind::Identity)];
const ALGORITHMS: [SigningAlgorithm; 2] = [SigningAlgorithm::ES256, SigningAlgorithm::RS256];

fn parts(token: &str) -> [&str; 3] {
    token.split('.').collect::<Vec<_>>().try_into().unwrap()
}

/// A token with one part changed as JSON.
fn edited(token: &str, part: usize, edit: impl FnOnce(&mut Value)) -> String {
    let mut parts = parts(token).map(str::to_owned);
    let mut json: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(&parts[part]).unwrap()).unwrap();
    edit(&mut json);
    parts[part] = URL_SAFE_NO_PAD.encode(json.to_string());
    parts.join(".")
}

fn with_other_signature(token: &str) -> String {
    let [header, claims, signature] = parts(token);
    let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    bytes[20] ^= 1;
    format!("{header}.{claims}.{}", URL_SAFE_NO_PAD.encode(bytes))
}

fn unsigned(token: &str) -> String {
    let none = edited(token, 0, |header| {
        header["alg"] = json!("none");
        header.as_object_mut().unwrap().remove("kid");
    });
    let [header, claims, _] = parts(&none);
    format!("{header}.{claims}.")
}

#[test]
fn our_tokens_are_accepted_and_tampered_ones_refused() {
    let (ours, others, now) = (Pair::generate(), Pair::generate(), Timestamp::now());
    let jwks = ours.jwks();
    for (profile, kind) in PROFILES {
        for algorithm in ALGORITHMS {
            let case = format!("{profile:?} {algorithm:?}");
            let token = ours.mint(profile, algorithm, now);
            verify_all(&jwks, ISSUER, AUDIENCE, kind, &token).unwrap_or_else(|e| panic!("{case}: {e}"));

            // The key of another pair under the name of ours, so that it is found and does not fit.
            let mut impostor: Value = serde_json::from_str(&others.jwks()).unwrap();
            let real: Value = serde_json::from_str(&jwks).unwrap();
            for key in impostor["keys"].as_array_mut().unwrap() {
                let same = real["keys"].as_array().unwrap().iter().find(|k| k["alg"] == key["alg"]);
                key["kid"] = same.unwrap()["kid"].clone();
            }
            let expired = ours.mint(profile, algorithm, now - SignedDuration::from_secs(900));
            let rights = edited(&token, 1, |claims| claims["roles"] = json!(["admin"]));
            let later = edited(&expired, 1, |claims| claims["exp"] = json!(now.as_second() + 600));
            for (what, jwks, issuer, audience, token) in [
                ("tampered claims", &jwks, ISSUER, AUDIENCE, &rights),
                ("a later expiry", &jwks, ISSUER, AUDIENCE, &later),
                ("tampered signature", &jwks, ISSUER, AUDIENCE, &with_other_signature(&token)),
                ("another audience", &jwks, ISSUER, "https://wiki.example.com", &token),
                ("another issuer", &jwks, "https://agents.example.org", AUDIENCE, &token),
                ("expired", &jwks, ISSUER, AUDIENCE, &expired),
                ("an unknown key", &others.jwks(), ISSUER, AUDIENCE, &token),
                ("a wrong key", &impostor.to_string(), ISSUER, AUDIENCE, &token),
                ("alg none", &jwks, ISSUER, AUDIENCE, &unsigned(&token)),
            ] {
                refuse_all(jwks, issuer, audience, kind, token)
                    .unwrap_or_else(|e| panic!("{case}, {what}: {e}"));
            }
        }
    }
}

/// go-oidc does not look at `typ`: there only the audience keeps the kinds apart, which the design relies on.
#[test]
fn the_python_verifier_keeps_the_kinds_apart() {
    let ours = Pair::generate();
    let [python, _] = verifiers::verifiers().unwrap();
    for (profile, wrong) in [(TokenProfile::Access, Kind::Identity), (TokenProfile::Identity, Kind::Access)] {
        let token = ours.mint(profile, SigningAlgorithm::ES256, Timestamp::now());
        let answer = python.ask(&ours.jwks(), ISSUER, AUDIENCE, wrong, &token).unwrap();
        assert!(answer.as_ref().is_err_and(|r| r.contains("typ")), "{profile:?}: {answer:?}");
    }
}

#[test]
fn a_refusal_names_what_is_wrong() {
    let ours = Pair::generate();
    let token = ours.mint(TokenProfile::Access, SigningAlgorithm::ES256, Timestamp::now());
    let refusals =
        refuse_all(&ours.jwks(), ISSUER, "https://wiki.example.com", Kind::Access, &token).unwrap();
    assert!(refusals.iter().all(|r| r.contains("aud")), "{refusals:?}");
}

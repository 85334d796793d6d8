use proptest::prelude::*;

use super::*;
use crate::api::{Mode, SubjectForm};
use crate::crypto::{Algorithm, Expect, JwkSet, Typ, verify};
use crate::domain::plan::Missing;
use crate::domain::{Key, ListId, Refusal, StatusRef, Uid};

struct Pair([SigningKey; 2]);

impl Signers for Pair {
    fn signer(&self, algorithm: SigningAlgorithm) -> Option<&SigningKey> {
        Some(match algorithm {
            SigningAlgorithm::ES256 => &self.0[0],
            SigningAlgorithm::RS256 => &self.0[1],
        })
    }
}

struct Nobody;

impl Signers for Nobody {
    fn signer(&self, _: SigningAlgorithm) -> Option<&SigningKey> {
        None
    }
}

fn keys() -> &'static Pair {
    static KEYS: std::sync::OnceLock<Pair> = std::sync::OnceLock::new();
    KEYS.get_or_init(|| {
        Pair([
            SigningKey::generate(Algorithm::ES256).unwrap(),
            SigningKey::generate(Algorithm::RS256).unwrap(),
        ])
    })
}

fn jwks() -> JwkSet {
    keys().0.iter().map(SigningKey::public_jwk).collect()
}

fn issuer() -> Issuer {
    Issuer {
        issuer: "https://agents.example.com".into(),
        trust_domain: "agents.example.com".into(),
        audit: Audit::to(drop),
    }
}

fn entitlement(audience: &str) -> Entitlement {
    Entitlement {
        mode: Mode::Application,
        users: None,
        username: None,
        kubernetes: false,
        audience: audience.into(),
        profile: TokenProfile::Access,
        subject: SubjectForm::Id,
        algorithm: SigningAlgorithm::ES256,
        roles: vec!["triager".into()],
        scopes: vec!["tickets.read".into(), "tickets.write".into()],
        lifetime: 3600,
        not_after: None,
    }
}

fn spec(file: &str, entitlement: Entitlement) -> TokenSpec {
    let status = Some(StatusRef { list: ListId(7), index: 3 });
    TokenSpec {
        file: file.into(),
        grant: Some("g".into()),
        grant_uid: None,
        resource: Some("r".into()),
        entitlement,
        status,
    }
}

fn issue(tokens: Vec<TokenSpec>) -> Issue {
    Issue {
        blueprint: None,
        agent: Key::new("support", "triage"),
        uid: Uid(0x7f3d_9a2e_0001_4abc_8def_0123_4567_89ab),
        secret: "triage-agentid".into(),
        lifetime: tokens.iter().map(|t| t.entitlement.lifetime).min().unwrap_or(3600),
        rotation: None,
        tokens,
        kubeconfig: None,
        missing: vec![Missing {
            grant: "wiki".into(),
            resource: "wiki".into(),
            refusal: Some(Refusal::new(Reason::NamespaceNotAllowed, "ask its owner")),
        }],
        refusal: None,
        plan: Digest([7; 16]),
    }
}

const NOW: i64 = 1_795_400_000;

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

#[test]
fn an_access_token_says_what_its_profile_demands_and_no_more() {
    let issue = issue(vec![spec("tickets.jwt", entitlement("https://tickets.example.com"))]);
    let contents = issuer().mint(&issue, keys(), now()).unwrap();
    let expect = Expect {
        issuer: "https://agents.example.com",
        audience: "https://tickets.example.com",
        typ: Typ::Access,
        leeway: 0,
        now: NOW,
    };
    let verified = verify(&contents.data["tickets.jwt"], &jwks(), &expect).unwrap();
    let mut claims = serde_json::to_value(&verified.claims).unwrap();
    let jti = claims.as_object_mut().unwrap().remove("jti").unwrap();
    assert_eq!(jti.as_str().unwrap().len(), 26);
    let id = "spiffe://agents.example.com/agent/7f3d9a2e-0001-4abc-8def-0123456789ab";
    assert_eq!(
        claims,
        serde_json::json!({
            "iss": "https://agents.example.com", "sub": id, "client_id": id, "aud": "https://tickets.example.com",
            "iat": NOW, "exp": NOW + 3600, "scope": "tickets.read tickets.write", "roles": ["triager"],
            "status": {"status_list": {
                "idx": 3, "uri": "https://agents.example.com/statuslists/00000000000000000000000000000007",
            }},
            "sub_profile": "ai_agent", "client_profile": "ai_agent",
            "agentid.dev": {"mode": "autonomous", "namespace": "support", "name": "triage",
                            "uid": "7f3d9a2e-0001-4abc-8def-0123456789ab"},
        })
    );
}

#[test]
fn a_token_of_an_agent_user_names_user_and_agent_and_claims_no_human_proof() {
    let username = "triage@agents.example.com";
    let e = Entitlement {
        mode: Mode::AgentUser,
        username: Some(username.into()),
        roles: Vec::new(),
        scopes: vec!["mail.read".into()],
        ..entitlement("https://mail.example.com")
    };
    let lines = Arc::new(std::sync::Mutex::new(Vec::new()));
    let kept = lines.clone();
    let issuer = Issuer { audit: Audit::to(move |line| kept.lock().unwrap().push(line)), ..issuer() };
    let contents = issuer.mint(&issue(vec![spec("mail.jwt", e)]), keys(), now()).unwrap();
    let expect = Expect {
        issuer: "https://agents.example.com",
        audience: "https://mail.example.com",
        typ: Typ::Access,
        leeway: 0,
        now: NOW,
    };
    let verified = verify(&contents.data["mail.jwt"], &jwks(), &expect).unwrap();
    let mut claims = serde_json::to_value(&verified.claims).unwrap();
    let uid = "7f3d9a2e-0001-4abc-8def-0123456789ab";
    let id = format!("spiffe://agents.example.com/agent/{uid}");
    let sub = crate::domain::agent_user::agent_user_id(uid.parse().unwrap(), username);
    claims.as_object_mut().unwrap().remove("jti").unwrap();
    assert_eq!(
        claims,
        serde_json::json!({
            "iss": "https://agents.example.com", "sub": sub, "preferred_username": username,
            "aud": "https://mail.example.com", "client_id": id, "iat": NOW, "exp": NOW + 3600, "scope": "mail.read",
            "sub_profile": "user ai_agent", "client_profile": "ai_agent",
            "act": {"iss": "https://agents.example.com", "sub": id, "sub_profile": "ai_agent"},
            "status": {"status_list": {
                "idx": 3, "uri": "https://agents.example.com/statuslists/00000000000000000000000000000007",
            }},
            "agentid.dev": {"mode": "agent_user", "namespace": "support", "name": "triage", "uid": uid},
        })
    );
    let line = lines.lock().unwrap().remove(0);
    assert_eq!((line.mode.as_deref(), line.on_behalf_of.as_deref()), (Some("agent_user"), Some(username)));
    let document: serde_json::Value = serde_json::from_str(&contents.data[DOCUMENT_KEY]).unwrap();
    assert_eq!(document["files"][0]["username"], username);
}

#[test]
fn an_identity_token_is_shaped_like_a_jwt_svid() {
    for (subject, algorithm, sub) in [
        (
            SubjectForm::Id,
            SigningAlgorithm::ES256,
            "spiffe://agents.example.com/agent/7f3d9a2e-0001-4abc-8def-0123456789ab",
        ),
        (SubjectForm::Name, SigningAlgorithm::RS256, "spiffe://agents.example.com/ns/support/agent/triage"),
    ] {
        let e = Entitlement {
            profile: TokenProfile::Identity,
            subject,
            algorithm,
            roles: Vec::new(),
            scopes: Vec::new(),
            ..entitlement("vault")
        };
        let contents = issuer().mint(&issue(vec![spec("vault.jwt", e)]), keys(), now()).unwrap();
        let expect = Expect {
            issuer: "https://agents.example.com",
            audience: "vault",
            typ: Typ::Identity,
            leeway: 0,
            now: NOW,
        };
        let verified = verify(&contents.data["vault.jwt"], &jwks(), &expect).unwrap();
        assert_eq!(verified.claims["sub"], sub);
        for absent in ["act", "client_id", "scope", "roles", "client_profile"] {
            assert!(!verified.claims.contains_key(absent), "{absent}");
        }
    }
}

#[test]
fn annotations_carry_what_a_restart_needs() {
    let e = entitlement("https://tickets.example.com");
    let digest = e.digest();
    let contents = issuer().mint(&issue(vec![spec("tickets.jwt", e)]), keys(), now()).unwrap();
    let annotations = &contents.annotations;
    assert_eq!(annotations[annotation::AGENT_UID], "7f3d9a2e-0001-4abc-8def-0123456789ab");
    assert_eq!(annotations[annotation::TOKENS], format!("tickets.jwt={digest}"));
    assert_eq!(annotations[annotation::KEY_IDS], keys().0[0].kid());
    assert_eq!(contents.expires_at, Timestamp::from_second(NOW + 3600).ok());
    assert!(contents.renew_at < contents.expires_at);
    assert!(!format!("{contents:?}").contains("eyJ"), "a token in Debug");
}

#[test]
fn the_document_names_files_and_what_is_missing() {
    let contents = issuer()
        .mint(&issue(vec![spec("tickets.jwt", entitlement("https://t.example"))]), keys(), now())
        .unwrap();
    let document: serde_json::Value = serde_json::from_str(&contents.data[DOCUMENT_KEY]).unwrap();
    assert_eq!(document["files"][0]["file"], "tickets.jwt");
    assert_eq!(document["files"][0]["expiresAt"], Timestamp::from_second(NOW + 3600).unwrap().to_string());
    assert_eq!(document["missing"][0]["reason"], "NamespaceNotAllowed");
    assert!(document.get("withdrawn").is_none());
    assert!(!contents.data[DOCUMENT_KEY].contains("eyJ"), "a token in the document");
}

#[test]
fn a_withdrawn_credential_holds_the_document_alone() {
    let mut withdrawn = issue(Vec::new());
    withdrawn.refusal = Some(Refusal::new(Reason::Suspended, "spec.suspend is true"));
    let contents = issuer().mint(&withdrawn, &Nobody, now()).unwrap();
    assert_eq!(contents.data.keys().collect::<Vec<_>>(), [DOCUMENT_KEY]);
    let document: serde_json::Value = serde_json::from_str(&contents.data[DOCUMENT_KEY]).unwrap();
    assert_eq!(document["withdrawn"]["reason"], "Suspended");
    assert_eq!(contents.annotations[annotation::RENEW_AT], "");
}

#[test]
fn without_a_key_nothing_is_minted() {
    let issue = issue(vec![spec("t.jwt", entitlement("https://t.example"))]);
    assert_eq!(issuer().mint(&issue, &Nobody, now()).unwrap_err().reason(), Reason::KeysUnavailable);
}

#[test]
fn stripping_takes_files_and_leaves_the_rest_as_it_is() {
    let kept = spec("a.jwt", entitlement("https://a.example"));
    let issue = issue(vec![kept.clone()]);
    let seen = Credentials {
        meta: crate::domain::Meta {
            key: Key::new("support", "triage-agentid"),
            uid: Uid(1),
            version: 1,
            created: now(),
            deleting: false,
        },
        agent: Some(issue.uid),
        plan: Digest([1; 16]),
        tokens: Box::new([("a.jwt".into(), kept.entitlement.digest()), ("b.jwt".into(), Digest([2; 16]))]),
        kids: Box::new(["k".into()]),
        renew_at: now(),
        expires_at: now(),
        rotated: None,
        drift: None,
    };
    let contents = issuer().strip(&issue, &seen, &["b.jwt".into()]);
    assert_eq!(contents.data.keys().collect::<Vec<_>>(), [DOCUMENT_KEY], "no token is written");
    assert_eq!(contents.annotations[annotation::TOKENS], format!("a.jwt={}", kept.entitlement.digest()));
    assert_eq!(contents.annotations[annotation::KEY_IDS], "k");
    assert_ne!(
        contents.annotations[annotation::PLAN],
        issue.plan.to_string(),
        "it is not what the plan wants"
    );
}

proptest! {
    #[test]
    fn no_token_outlives_its_entitlement(life in 1u32..86_400, left in 0i64..200_000, at in 0i64..1000) {
        let limit = Timestamp::from_second(NOW + left).unwrap();
        let e = Entitlement { lifetime: life, not_after: Some(limit), ..entitlement("https://t.example") };
        let when = now() + SignedDuration::from_millis(at);
        let contents = issuer().mint(&issue(vec![spec("t.jwt", e)]), keys(), when).unwrap();
        let claims = crate::crypto::inspect(&contents.data["t.jwt"]).unwrap().claims;
        let (iat, exp) = (claims["iat"].as_i64().unwrap(), claims["exp"].as_i64().unwrap());
        prop_assert!(exp <= NOW + left && exp <= iat + i64::from(life));
        prop_assert!(contents.renew_at <= contents.expires_at);
    }
}

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const NOW: i64 = 1_795_400_000;
const LEEWAY: i64 = 5;
const EXPECT: Expect<'_> = Expect {
    issuer: "https://agents.example.com",
    audience: "https://tickets.example.com",
    typ: Typ::Access,
    leeway: 5,
    now: NOW,
};
const EXPECT_IDENTITY: Expect<'_> = Expect { typ: Typ::Identity, ..EXPECT };

fn claims() -> Value {
    json!({
        "iss": EXPECT.issuer, "aud": EXPECT.audience, "sub": "spiffe://agents.example.com/agent/1",
        "client_id": "spiffe://agents.example.com/agent/1", "iat": NOW, "exp": NOW + 600, "jti": "01K",
    })
}

/// The claims with some put over them; null removes one.
fn claims_with(changes: &Value) -> Value {
    let mut claims = claims();
    let members = claims.as_object_mut().unwrap();
    members.extend(changes.as_object().unwrap().clone());
    members.retain(|_, value| !value.is_null());
    claims
}

fn sign(claims: &Value) -> String {
    ES256.sign("at+jwt", claims).unwrap()
}

/// A token with the header and claims as spelt, and a signature of that by ES256 that is truly valid.
fn sign_raw(header: &str, claims: &str) -> String {
    use aws_lc_rs::{rand::SystemRandom, signature as sig};
    let pem = ES256.to_pkcs8_pem().unwrap();
    let body: String = pem.expose().lines().filter(|line| !line.starts_with('-')).collect();
    let der = base64::engine::general_purpose::STANDARD.decode(body).unwrap();
    let pair = sig::EcdsaKeyPair::from_pkcs8(&sig::ECDSA_P256_SHA256_FIXED_SIGNING, &der).unwrap();
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn header_with(changes: &Value) -> String {
    let mut header = json!({"typ": "at+jwt", "alg": "ES256", "kid": ES256.kid()});
    let members = header.as_object_mut().unwrap();
    members.extend(changes.as_object().unwrap().clone());
    members.retain(|_, value| !value.is_null());
    header.to_string()
}

#[track_caller]
fn refused(token: &str, check: &str) -> VerifyError {
    let error = verify(token, &key_set(), &EXPECT).unwrap_err();
    assert_eq!(error.check(), check, "{error}");
    assert!(CHECKS.contains(&check));
    error
}

#[test]
fn a_token_round_trips_with_exactly_three_header_members() {
    for key in both() {
        let token = key.sign("at+jwt", &claims()).unwrap();
        let verified = verify(&token, &key_set(), &EXPECT).unwrap();
        assert_eq!((verified.algorithm, verified.kid.as_str()), (key.algorithm(), key.kid()));
        assert_eq!(Value::from(verified.claims), claims());
        let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
        let expected = format!(r#"{{"typ":"at+jwt","alg":"{}","kid":"{}"}}"#, key.algorithm(), key.kid());
        assert_eq!(String::from_utf8(header).unwrap(), expected);
    }
}

#[test]
fn jsonwebtoken_accepts_our_tokens() {
    install_provider();
    for (key, algorithm) in
        [(&ES256, jsonwebtoken::Algorithm::ES256), (&RS256, jsonwebtoken::Algorithm::RS256)]
    {
        let json = serde_json::to_string(&key.public_jwk()).unwrap();
        let jwk: jsonwebtoken::jwk::Jwk = serde_json::from_str(&json).unwrap();
        let mut validation = jsonwebtoken::Validation::new(algorithm);
        validation.set_audience(&[EXPECT.audience]);
        validation.validate_exp = false;
        let decoding_key = jsonwebtoken::DecodingKey::from_jwk(&jwk).unwrap();
        let token = key.sign("JWT", &claims()).unwrap();
        let decoded = jsonwebtoken::decode::<Value>(&token, &decoding_key, &validation).unwrap();
        assert_eq!(decoded.claims, claims());
    }
}

#[test]
fn another_typ_is_escaped_into_the_header() {
    let token = ES256.sign("odd\"typ+jwt", &claims()).unwrap();
    assert_eq!(inspect(&token).unwrap().header["typ"], "odd\"typ+jwt");
}

#[test]
fn only_objects_are_signed() {
    for claims in [json!([1]), json!("x"), json!(null)] {
        assert!(matches!(ES256.sign("JWT", &claims), Err(SignError::NotAnObject)), "{claims}");
    }
}

#[test]
fn typ_is_compared_as_a_media_type_and_kinds_exclude_each_other() {
    for typ in ["at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt"] {
        let token = ES256.sign(typ, &claims()).unwrap();
        assert!(verify(&token, &key_set(), &EXPECT).is_ok(), "{typ}");
        assert_eq!(verify(&token, &key_set(), &EXPECT_IDENTITY).unwrap_err().check(), "typ");
    }
    for typ in ["JWT", "jwt", "application/jwt"] {
        let token = ES256.sign(typ, &claims()).unwrap();
        assert!(verify(&token, &key_set(), &EXPECT_IDENTITY).is_ok(), "{typ}");
        refused(&token, "typ");
    }
    for typ in ["", "application/", "application/application/at+jwt", "oauth-id-jag+jwt", "éapplication"] {
        refused(&ES256.sign(typ, &claims()).unwrap(), "typ");
    }
    for typ in [json!(null), json!(1), json!(["at+jwt"])] {
        refused(&sign_raw(&header_with(&json!({ "typ": typ })), &claims().to_string()), "typ");
    }
}

#[test]
fn changed_parts_are_refused() {
    for key in both() {
        let token = key.sign("at+jwt", &claims()).unwrap();
        let other = key.sign("at+jwt", &claims_with(&json!({"sub": "other"}))).unwrap();
        let [header, payload, signature] = token.split('.').collect::<Vec<_>>()[..] else {
            panic!("three parts")
        };
        let [_, other_payload, other_signature] = other.split('.').collect::<Vec<_>>()[..] else {
            panic!("three parts")
        };
        refused(&format!("{header}.{other_payload}.{signature}"), "signature");
        refused(&format!("{header}.{payload}.{other_signature}"), "signature");
        refused(&format!("{header}.{payload}."), "signature");
        let spaced = URL_SAFE_NO_PAD.decode(header).unwrap();
        let spaced = URL_SAFE_NO_PAD.encode([&spaced[..], b" "].concat());
        refused(&format!("{spaced}.{payload}.{signature}"), "signature");
        for broken in [
            format!("{header}.{payload}"),
            format!("{token}.x"),
            format!("{token}="),
            format!(" {token}"),
            String::new(),
        ] {
            refused(&broken, "format");
        }
        refused(&format!("..{signature}"), "json");
    }
}

#[test]
fn foreign_algorithms_and_keys_are_refused() {
    for alg in
        [json!("none"), json!("None"), json!("HS256"), json!("PS256"), json!(""), json!(null), json!(1)]
    {
        refused(&sign_raw(&header_with(&json!({ "alg": alg })), &claims().to_string()), "alg");
    }
    let error = refused(&sign_raw(&header_with(&json!({"alg": "RS256"})), &claims().to_string()), "key-alg");
    assert_eq!(error, VerifyError::KeyAlg { header: Algorithm::RS256, key: Algorithm::ES256 });
    refused(&sign_raw(&header_with(&json!({"kid": RS256.kid()})), &claims().to_string()), "key-alg");
    for kid in [json!("x"), json!("../../etc/passwd"), json!("' OR 1=1 --"), json!(null), json!(1), json!("")]
    {
        refused(&sign_raw(&header_with(&json!({ "kid": kid })), &claims().to_string()), "kid");
    }
    // A key that the header brings along is never used.
    let stranger = SigningKey::generate(Algorithm::ES256).unwrap();
    refused(&stranger.sign("at+jwt", &claims()).unwrap(), "kid");
    let header = header_with(&json!({"kid": stranger.kid(), "jwk": ES256.public_jwk()}));
    refused(&sign_raw(&header, &claims().to_string()), "kid");
    // Our kid on a stranger's signature.
    let forged = stranger.sign("at+jwt", &claims()).unwrap();
    let (_, rest) = forged.split_once('.').unwrap();
    let header = URL_SAFE_NO_PAD.encode(header_with(&json!({})));
    refused(&format!("{header}.{rest}"), "signature");
}

#[test]
fn critical_extensions_are_refused() {
    for crit in [json!(["b64"]), json!([]), json!(false)] {
        refused(&sign_raw(&header_with(&json!({ "crit": crit })), &claims().to_string()), "crit");
    }
}

#[test]
fn duplicate_members_are_refused_although_signed() {
    let claims = claims().to_string();
    assert!(verify(&sign_raw(&header_with(&json!({})), &claims), &key_set(), &EXPECT).is_ok());
    refused(&sign_raw(&header_with(&json!({})).replacen('{', r#"{"alg":"ES256","#, 1), &claims), "json");
    for duplicate in [r#"{"sub":"admin","#, r#"{"x":{"a":1,"a":2},"#, r#"{"\u0073ub":"admin","#] {
        refused(&sign_raw(&header_with(&json!({})), &claims.replacen('{', duplicate, 1)), "json");
    }
    refused(&sign_raw(&header_with(&json!({})), "[]"), "json");
    refused(&sign_raw("{", &claims), "json");
}

#[test]
fn oversize_tokens_are_refused_unread() {
    let token = sign(&claims_with(&json!({"x": "x".repeat(MAX_TOKEN_BYTES)})));
    let size = FormError::Size { bytes: token.len(), limit: MAX_TOKEN_BYTES };
    assert_eq!(refused(&token, "size"), VerifyError::Form(size));
    assert!(verify(&sign(&claims_with(&json!({"x": "x".repeat(8000)}))), &key_set(), &EXPECT).is_ok());
    refused(&"x".repeat(MAX_TOKEN_BYTES), "format");
    assert_eq!(inspect(&token).unwrap_err().check(), "size");
}

#[test]
fn times_are_checked_with_leeway_to_the_second() {
    for (changes, check) in [
        (json!({"exp": NOW - LEEWAY + 1}), None),
        (json!({"exp": NOW - LEEWAY}), Some("exp")),
        (json!({"nbf": NOW + LEEWAY}), None),
        (json!({"nbf": NOW + LEEWAY + 1}), Some("nbf")),
        (json!({"iat": NOW + LEEWAY}), None),
        (json!({"iat": NOW + LEEWAY + 1}), Some("iat")),
        (json!({"exp": i64::MAX, "iat": i64::MIN}), None),
        (json!({"exp": i64::MIN}), Some("exp")),
    ] {
        let token = sign(&claims_with(&changes));
        match check {
            None => assert!(verify(&token, &key_set(), &EXPECT).is_ok(), "{changes}"),
            Some(check) => drop(refused(&token, check)),
        }
    }
    for now in [i64::MIN, i64::MAX] {
        let error = verify(&sign(&claims()), &key_set(), &Expect { now, ..EXPECT }).unwrap_err();
        assert_eq!(error.check(), if now > 0 { "exp" } else { "iat" });
    }
    for bad in [json!("1795400600"), json!(1.5e9), json!(u64::MAX), json!([NOW])] {
        for claim in ["exp", "iat", "nbf"] {
            refused(&sign(&claims_with(&json!({ claim: bad }))), "claims");
        }
    }
}

#[test]
fn issuer_and_audience_are_exact() {
    for iss in [json!("https://agents.example.com/"), json!("https://AGENTS.example.com")] {
        refused(&sign(&claims_with(&json!({ "iss": iss }))), "iss");
    }
    assert!(verify(&sign(&claims_with(&json!({"aud": [EXPECT.audience]}))), &key_set(), &EXPECT).is_ok());
    for aud in [
        json!("https://tickets.example.com/"),
        json!([EXPECT.audience, "https://other.example.com"]),
        json!([EXPECT.audience, EXPECT.audience]),
        json!([]),
        json!([[EXPECT.audience]]),
        json!({"a": EXPECT.audience}),
        json!(7),
    ] {
        refused(&sign(&claims_with(&json!({ "aud": aud }))), "aud");
    }
}

#[test]
fn any_one_audience_is_accepted_where_none_is_known_beforehand() {
    let Expect { issuer, typ, leeway, now, .. } = EXPECT;
    let any = ExpectAny { issuer, typ, leeway, now };
    let check = |token: &str| verify_any_audience(token, &key_set(), &any);
    for aud in [json!("https://other.example.com"), json!(["https://other.example.com"])] {
        let verified = check(&sign(&claims_with(&json!({ "aud": aud })))).unwrap();
        assert_eq!(
            (verified.audience.as_str(), &verified.claims["aud"]),
            ("https://other.example.com", &aud)
        );
    }
    for aud in [json!(["a", "b"]), json!([]), json!([""]), json!(7), json!([["a"]]), json!({"a": 1})] {
        let error = check(&sign(&claims_with(&json!({ "aud": aud })))).unwrap_err();
        assert_eq!(error.check(), "aud", "{error}");
        assert!(error.to_string().ends_with("expected one audience"), "{error}");
    }
    // Nothing else is waived.
    for (changes, failed) in [
        (json!({"iss": "https://other.example.com"}), "iss"),
        (json!({"aud": null}), "claims"),
        (json!({"exp": NOW - LEEWAY}), "exp"),
        (json!({"iat": NOW + LEEWAY + 1}), "iat"),
    ] {
        assert_eq!(check(&sign(&claims_with(&changes))).unwrap_err().check(), failed);
    }
    assert_eq!(check(&ES256.sign("JWT", &claims()).unwrap()).unwrap_err().check(), "typ");
    let stranger = SigningKey::generate(Algorithm::ES256).unwrap();
    assert_eq!(check(&stranger.sign("at+jwt", &claims()).unwrap()).unwrap_err().check(), "kid");
}

#[test]
fn a_delegated_token_with_a_status_is_accepted() {
    let actor =
        |inner: Value| json!({"iss": EXPECT.issuer, "sub": "a", "sub_profile": "ai_agent", "act": inner});
    let delegated = claims_with(&json!({
        "sub": "corp:00u1a2b3",
        "sub_id": {"format": "iss_sub", "iss": "https://idp.example.com", "sub": "00u1a2b3"},
        "act": actor(actor(actor(actor(json!({"sub": "first"}))))),
        "status": {"status_list": {"idx": 90210, "uri": "https://agents.example.com/statuslists/1"}},
    }));
    let verified = verify(&sign(&delegated), &key_set(), &EXPECT).unwrap();
    assert_eq!(Value::from(verified.claims), delegated);
}

#[test]
fn every_required_claim_is_required() {
    for claim in ["iss", "exp", "aud", "sub", "client_id", "iat", "jti"] {
        refused(&sign(&claims_with(&json!({ claim: null }))), "claims");
        refused(&sign(&claims_with(&json!({ claim: "" }))), "claims");
        let token = ES256.sign("JWT", &claims_with(&json!({ claim: null }))).unwrap();
        let identity = verify(&token, &key_set(), &EXPECT_IDENTITY);
        assert_eq!(identity.is_ok(), claim == "client_id", "{claim}");
    }
    for claim in ["iss", "sub", "client_id", "jti"] {
        refused(&sign(&claims_with(&json!({ claim: 7 }))), "claims");
    }
}

#[test]
fn inspection_shows_a_forged_token_and_verification_refuses_it() {
    let forged = format!(
        "{}.{}.",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#),
        URL_SAFE_NO_PAD.encode(r#"{"sub":"admin"}"#)
    );
    let inspected = inspect(&forged).unwrap();
    assert_eq!((&inspected.header["alg"], &inspected.claims["sub"]), (&json!("none"), &json!("admin")));
    assert!(verify(&forged, &key_set(), &EXPECT).is_err());
}

#[test]
fn messages_bound_and_escape_what_the_token_says() {
    let kid = format!("\u{1b}[2J\n{}", "k".repeat(5000));
    let error = refused(&sign_raw(&header_with(&json!({ "kid": kid })), &claims().to_string()), "kid");
    let message = error.to_string();
    assert!(message.len() < 200 && !message.contains(['\n', '\u{1b}']), "{message}");
}

#[test]
fn debug_of_results_holds_no_usable_token() {
    let token = sign(&claims());
    let signature = token.rsplit('.').next().unwrap();
    let shown = format!("{:?} {:?}", inspect(&token), verify(&token, &key_set(), &EXPECT));
    assert!(!shown.contains(signature));
}

proptest! {
    #[test]
    fn any_single_byte_change_is_refused(rsa: bool, at: prop::sample::Index, byte in 0u8..128) {
        let key = both()[usize::from(rsa)];
        let mut bytes = key.sign("at+jwt", &claims()).unwrap().into_bytes();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != byte);
        bytes[at] = byte;
        let changed = String::from_utf8(bytes).unwrap();
        prop_assert!(verify(&changed, &key_set(), &EXPECT).is_err(), "{changed}");
    }

    #[test]
    fn no_text_makes_the_verifier_panic(text in "[ -~]{0,40}(\\.[ -~]{0,40}){0,3}") {
        prop_assert!(verify(&text, &key_set(), &EXPECT).is_err());
    }
}

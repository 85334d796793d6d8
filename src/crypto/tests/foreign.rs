mod rfc7515;
mod sets;

use std::sync::LazyLock;

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{self as sig, EcdsaKeyPair, KeyPair, RsaKeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

const NOW: i64 = 1_795_400_000;
const LEEWAY: i64 = 5;
const ANY_TYP: &[Option<&str>] = &[None, Some("JWT"), Some("at+jwt")];
const EXPECT: ForeignExpect<'_> =
    ForeignExpect { issuer: "https://idp.example.com", typ: ANY_TYP, leeway: 5, now: NOW };

static RSA: LazyLock<RsaKeyPair> = LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
static P256: LazyLock<EcdsaKeyPair> = LazyLock::new(|| ec(&sig::ECDSA_P256_SHA256_FIXED_SIGNING));
static P384: LazyLock<EcdsaKeyPair> = LazyLock::new(|| ec(&sig::ECDSA_P384_SHA384_FIXED_SIGNING));
static P521: LazyLock<EcdsaKeyPair> = LazyLock::new(|| ec(&sig::ECDSA_P521_SHA512_FIXED_SIGNING));

fn ec(algorithm: &'static sig::EcdsaSigningAlgorithm) -> EcdsaKeyPair {
    EcdsaKeyPair::generate(algorithm).unwrap()
}

fn signature(algorithm: ForeignAlgorithm, message: &str) -> Vec<u8> {
    use ForeignAlgorithm::*;
    let encoding: &'static dyn sig::RsaEncoding = match algorithm {
        RS256 => &sig::RSA_PKCS1_SHA256,
        RS384 => &sig::RSA_PKCS1_SHA384,
        RS512 => &sig::RSA_PKCS1_SHA512,
        PS256 => &sig::RSA_PSS_SHA256,
        PS384 => &sig::RSA_PSS_SHA384,
        PS512 => &sig::RSA_PSS_SHA512,
        ES256 | ES384 | ES512 => {
            let pair = [&P256, &P384, &P521][algorithm as usize - ES256 as usize];
            return pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap().as_ref().to_vec();
        }
    };
    let mut signature = vec![0; RSA.public_modulus_len()];
    RSA.sign(encoding, &SystemRandom::new(), message.as_bytes(), &mut signature).unwrap();
    signature
}

/// The public key that goes with an algorithm: `rsa`, `ES256`, …
fn jwk(algorithm: ForeignAlgorithm) -> Value {
    use ForeignAlgorithm::*;
    let pair = match algorithm {
        ES256 => &P256,
        ES384 => &P384,
        ES512 => &P521,
        _ => {
            let encode = |bytes| URL_SAFE_NO_PAD.encode(bytes);
            let key = RSA.public_key();
            let n = encode(key.modulus().big_endian_without_leading_zero());
            let e = encode(key.exponent().big_endian_without_leading_zero());
            return json!({"kty": "RSA", "kid": "rsa", "use": "sig", "n": n, "e": e});
        }
    };
    let (x, y) = pair.public_key().as_ref()[1..].split_at((pair.public_key().as_ref().len() - 1) / 2);
    let crv = ["P-256", "P-384", "P-521"][algorithm as usize - ES256 as usize];
    json!({"kty": "EC", "kid": algorithm.as_str(), "crv": crv,
           "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)})
}

fn kid(algorithm: ForeignAlgorithm) -> &'static str {
    if algorithm < ForeignAlgorithm::ES256 { "rsa" } else { algorithm.as_str() }
}

fn parse(keys: &[Value]) -> ForeignKeys {
    ForeignKeys::parse(&json!({ "keys": keys }).to_string()).unwrap()
}

/// One key of each kind, none of which says its algorithm.
fn all_keys() -> ForeignKeys {
    use ForeignAlgorithm::*;
    parse(&[RS256, ES256, ES384, ES512].map(jwk))
}

fn with(base: &Value, changes: &Value) -> Value {
    let mut object = base.as_object().unwrap().clone();
    object.extend(changes.as_object().unwrap().clone());
    object.retain(|_, value| !value.is_null());
    object.into()
}

fn claims_with(changes: &Value) -> String {
    let claims = json!({
        "iss": EXPECT.issuer, "aud": ["https://agents.example.com"], "sub": "ann",
        "iat": NOW, "nbf": NOW, "exp": NOW + 600,
    });
    with(&claims, changes).to_string()
}

/// Header and claims as spelt, truly signed by what `algorithm` says, whatever the header says.
fn sign_raw(algorithm: ForeignAlgorithm, header: &str, claims: &str) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = signature(algorithm, &signed);
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn header(algorithm: ForeignAlgorithm, changes: &Value) -> String {
    with(&json!({"alg": algorithm.as_str(), "kid": kid(algorithm)}), changes).to_string()
}

fn sign(algorithm: ForeignAlgorithm, changes: &Value) -> String {
    sign_raw(algorithm, &header(algorithm, &json!({})), &claims_with(changes))
}

fn es256(header_changes: &Value, claim_changes: &Value) -> String {
    let header = header(ForeignAlgorithm::ES256, header_changes);
    sign_raw(ForeignAlgorithm::ES256, &header, &claims_with(claim_changes))
}

fn check(token: &str) -> Result<Map<String, Value>, ForeignError> {
    verify_foreign(token, &all_keys(), &EXPECT)
}

#[track_caller]
fn refused(token: &str, check_name: &str) -> ForeignError {
    refused_by(&all_keys(), token, check_name)
}

#[track_caller]
fn refused_by(keys: &ForeignKeys, token: &str, check_name: &str) -> ForeignError {
    let error = verify_foreign(token, keys, &EXPECT).unwrap_err();
    assert_eq!(error.check(), check_name, "{error}");
    assert!(CHECKS.contains(&check_name));
    assert_eq!(error.is_unknown_key() || matches!(error, ForeignError::NoKid { .. }), check_name == "kid");
    error
}

#[test]
fn each_algorithm_is_accepted_and_no_other_in_its_place() {
    for algorithm in ForeignAlgorithm::ALL {
        let token = sign(algorithm, &json!({}));
        assert_eq!(check(&token).unwrap()["sub"], "ann", "{algorithm}");
        assert_eq!(ForeignAlgorithm::from_name(algorithm.as_str()), Some(algorithm));
        for other in ForeignAlgorithm::ALL.into_iter().filter(|other| *other != algorithm) {
            // The right signature under another name.
            let header = header(other, &json!({"kid": kid(algorithm)}));
            let renamed = sign_raw(algorithm, &header, &claims_with(&json!({})));
            refused(&renamed, if kid(other) == kid(algorithm) { "signature" } else { "key-alg" });
        }
    }
}

#[test]
fn a_tampered_signature_is_refused_for_each_algorithm() {
    for algorithm in ForeignAlgorithm::ALL {
        let token = sign(algorithm, &json!({}));
        let other = sign(algorithm, &json!({"sub": "admin"}));
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let (other_signed, _) = other.rsplit_once('.').unwrap();
        refused(&format!("{other_signed}.{signature}"), "signature");
        refused(&format!("{signed}."), "signature");
        let zeros = URL_SAFE_NO_PAD.encode(vec![0; URL_SAFE_NO_PAD.decode(signature).unwrap().len()]);
        refused(&format!("{signed}.{zeros}"), "signature");
    }
}

#[test]
fn none_hmac_and_eddsa_are_refused() {
    for alg in
        [json!("none"), json!("None"), json!("HS384"), json!("EdDSA"), json!("Ed25519"), json!(""), json!(1)]
    {
        refused(&es256(&json!({ "alg": alg }), &json!({})), "alg");
    }
    refused(&es256(&json!({"alg": null}), &json!({})), "alg");
    let unsigned = format!(
        "{}.{}.",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#),
        URL_SAFE_NO_PAD.encode(claims_with(&json!({})))
    );
    refused(&unsigned, "alg");
    // HMAC with the public key, as every reader of the set has it, for the secret.
    let secret = jwk(ForeignAlgorithm::RS256)["n"].as_str().unwrap().to_owned();
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes());
    let header = json!({"alg": "HS256", "kid": "rsa"}).to_string();
    let signed =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims_with(&json!({}))));
    let tag = URL_SAFE_NO_PAD.encode(aws_lc_rs::hmac::sign(&key, signed.as_bytes()));
    refused(&format!("{signed}.{tag}"), "alg");
}

#[test]
fn kid_is_a_name_and_nothing_else() {
    for kid in ["../../../../dev/null", "' OR 1=1 --", "rsa\0", "RSA", "", "http://evil.example.com/k"] {
        assert!(refused(&es256(&json!({ "kid": kid }), &json!({})), "kid").is_unknown_key(), "{kid}");
    }
    for kid in [json!(1), json!(["ES256"]), json!({"ES256": 1})] {
        refused(&es256(&json!({ "kid": kid }), &json!({})), "kid");
    }
    // Keys and places of keys that the header brings along.
    let jwk = jwk(ForeignAlgorithm::ES256);
    let brought =
        json!({"kid": "new", "jwk": jwk, "jku": "https://evil.example.com", "x5u": "x", "x5c": ["x"]});
    refused(&es256(&brought, &json!({})), "kid");
    assert!(check(&es256(&with(&brought, &json!({"kid": "ES256"})), &json!({}))).is_ok());
}

#[test]
fn a_token_without_kid_needs_exactly_one_fitting_key() {
    use ForeignAlgorithm::*;
    let token = es256(&json!({"kid": null}), &json!({}));
    assert!(check(&token).is_ok());
    let second = with(&jwk(ES256), &json!({"kid": "second"}));
    let none = parse(&[jwk(RS256), jwk(ES384)]);
    let two = parse(&[jwk(ES256), jwk(RS256), second]);
    let anonymous = parse(&[with(&jwk(ES256), &json!({"kid": null}))]);
    assert!(refused_by(&none, &token, "kid").is_unknown_key());
    assert_eq!(refused_by(&two, &token, "kid"), ForeignError::NoKid { fitting: 2 });
    assert!(!ForeignError::NoKid { fitting: 2 }.is_unknown_key());
    assert!(verify_foreign(&token, &anonymous, &EXPECT).is_ok());
    refused_by(&anonymous, &es256(&json!({}), &json!({})), "kid");
}

#[test]
fn typ_must_be_one_that_is_accepted() {
    for typ in [json!(null), json!("JWT"), json!("jwt"), json!("application/jwt"), json!("AT+JWT")] {
        assert!(check(&es256(&json!({ "typ": typ }), &json!({}))).is_ok(), "{typ}");
    }
    for typ in [json!(""), json!("secevent+jwt"), json!("dpop+jwt"), json!(1), json!(["JWT"])] {
        refused(&es256(&json!({ "typ": typ }), &json!({})), "typ");
    }
    for (accepted, untyped) in [(&[None][..], true), (&[Some("at+jwt")], false), (&[], false)] {
        let expect = ForeignExpect { typ: accepted, ..EXPECT };
        let verified = verify_foreign(&es256(&json!({}), &json!({})), &all_keys(), &expect);
        assert_eq!(verified.is_ok(), untyped);
        let typed = verify_foreign(&es256(&json!({"typ": "JWT"}), &json!({})), &all_keys(), &expect);
        assert_eq!(typed.unwrap_err().check(), "typ");
    }
}

#[test]
fn critical_extensions_duplicates_and_depth_are_refused() {
    refused(&es256(&json!({"crit": ["b64"], "b64": false}), &json!({})), "crit");
    let (header, claims) = (header(ForeignAlgorithm::ES256, &json!({})), claims_with(&json!({})));
    let sign = |header: &str, claims: &str| sign_raw(ForeignAlgorithm::ES256, header, claims);
    refused(&sign(&header.replacen('{', r#"{"alg":"ES256","#, 1), &claims), "json");
    for duplicate in [r#"{"sub":"admin","#, r#"{"x":[{"a":1,"a":2}],"#, r#"{"\u0073ub":"admin","#] {
        refused(&sign(&header, &claims.replacen('{', duplicate, 1)), "json");
    }
    let act = |depth: usize| {
        let nested = (0..depth).fold(json!("a"), |inner, _| json!({ "act": inner }));
        sign(&header, &claims_with(&json!({ "act": nested })))
    };
    assert!(check(&act(31)).is_ok());
    for depth in [32, 50, 500] {
        let error = refused(&act(depth), "json");
        assert!(error.to_string().contains("nested more than 32 levels deep"), "{error}");
        assert_eq!(peek(&act(depth)).unwrap_err(), error);
    }
}

#[test]
fn size_and_form_are_bounded() {
    let long = es256(&json!({}), &json!({"x": "x".repeat(MAX_TOKEN_BYTES)}));
    refused(&long, "size");
    assert_eq!(peek(&long).unwrap_err().check(), "size");
    assert!(check(&es256(&json!({}), &json!({"x": "x".repeat(8000)}))).is_ok());
    let token = es256(&json!({}), &json!({}));
    for broken in [
        String::new(),
        "..".to_owned() + "x",
        format!("{token}="),
        format!("{token}.x"),
        format!("{token}\n"),
        format!("Bearer {token}"),
        token.replacen('.', "+.", 1),
        "\u{0}".repeat(100),
    ] {
        assert!(["format", "json"].contains(&check(&broken).unwrap_err().check()), "{broken}");
        assert!(peek(&broken).is_err());
    }
}

#[test]
fn times_are_checked_with_leeway_and_fractions_to_the_safe_side() {
    for (changes, check_name) in [
        (json!({"exp": NOW - LEEWAY + 1}), None),
        (json!({"exp": NOW - LEEWAY}), Some("exp")),
        (json!({"exp": (NOW - LEEWAY) as f64 + 0.9}), Some("exp")),
        (json!({"nbf": NOW + LEEWAY}), None),
        (json!({"nbf": NOW + LEEWAY + 1}), Some("nbf")),
        (json!({"nbf": (NOW + LEEWAY) as f64 + 0.1}), Some("nbf")),
        (json!({"iat": (NOW + LEEWAY) as f64 - 0.5}), None),
        (json!({"iat": NOW + LEEWAY + 1}), Some("iat")),
        (json!({"iat": null, "nbf": null}), None),
        (json!({"exp": null}), Some("claims")),
        (json!({"exp": i64::MAX, "iat": i64::MIN, "nbf": i64::MIN}), None),
        (json!({"exp": u64::MAX}), Some("claims")),
        (json!({"exp": 1e300}), Some("claims")),
        (json!({"exp": "1795400600"}), Some("claims")),
        (json!({"iat": [NOW]}), Some("claims")),
        (json!({"nbf": true}), Some("claims")),
    ] {
        let token = es256(&json!({}), &changes);
        match check_name {
            None => assert!(check(&token).is_ok(), "{changes}: {:?}", check(&token)),
            Some(check_name) => drop(refused(&token, check_name)),
        }
    }
    // By one second, without leeway.
    let token = es256(&json!({}), &json!({"exp": NOW}));
    let exact = |now| verify_foreign(&token, &all_keys(), &ForeignExpect { leeway: 0, now, ..EXPECT });
    assert_eq!(exact(NOW).unwrap_err(), ForeignError::Exp { exp: NOW, now: NOW });
    let early = ForeignError::Nbf { nbf: NOW, now: NOW - 1 };
    assert_eq!(exact(NOW - 1).unwrap_err(), early);
    for now in [i64::MIN, i64::MAX] {
        assert!(exact(now).is_err());
    }
}

#[test]
fn the_issuer_is_exact() {
    for iss in
        [json!("https://idp.example.com/"), json!("https://IDP.example.com"), json!(["x"]), json!(null)]
    {
        refused(&es256(&json!({}), &json!({ "iss": iss })), "iss");
    }
}

#[test]
fn audiences_are_one_form() {
    let of = |aud: Value| with(&json!({}), &json!({ "aud": aud })).as_object().unwrap().clone();
    assert_eq!(audiences(&of(json!("a"))).unwrap(), ["a"]);
    assert_eq!(audiences(&of(json!(["a", "b"]))).unwrap(), ["a", "b"]);
    for aud in
        [json!(null), json!([]), json!(""), json!([""]), json!(7), json!([["a"]]), json!(["a", 1]), json!({})]
    {
        assert_eq!(audiences(&of(aud.clone())).unwrap_err().check(), "claims", "{aud}");
    }
}

#[test]
fn errors_and_debug_hold_no_token() {
    let control = format!("\u{1b}[2J\n{}", "k".repeat(5000));
    for token in [
        es256(&json!({"kid": control}), &json!({})),
        es256(&json!({"typ": control}), &json!({})),
        es256(&json!({"alg": control}), &json!({})),
        es256(&json!({}), &json!({"iss": control})),
        es256(&json!({}), &json!({"exp": NOW - 100})),
    ] {
        let error = check(&token).unwrap_err();
        let message = format!("{error} {error:?}");
        assert!(message.len() < 500 && !message.contains(['\n', '\u{1b}']), "{message}");
        for part in token.split('.') {
            assert!(!message.contains(part) && !message.contains(&part[..part.len().min(24)]));
        }
    }
    let shown = format!("{:?}", all_keys());
    assert!(shown.contains("ES384") && shown.len() < 600, "{shown}");
}

#[test]
fn peek_shows_what_nobody_checked() {
    let token = es256(&json!({"kid": "other"}), &json!({"iss": "https://evil.example.com"}));
    let peeked = peek(&token).unwrap();
    assert_eq!(peeked.claims["iss"], "https://evil.example.com");
    assert_eq!(peeked.header["kid"], "other");
}

proptest! {
    #[test]
    fn any_single_byte_change_is_refused(
        algorithm in prop::sample::select(&ForeignAlgorithm::ALL[..]),
        at: prop::sample::Index,
        byte in 0u8..128,
    ) {
        let mut bytes = sign(algorithm, &json!({})).into_bytes();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != byte);
        bytes[at] = byte;
        let changed = String::from_utf8(bytes).unwrap();
        prop_assert!(check(&changed).is_err(), "{changed}");
    }

    #[test]
    fn no_text_makes_it_panic(text in "[ -~]{0,40}(\\.[ -~]{0,40}){0,3}") {
        prop_assert!(check(&text).is_err());
        let _ = peek(&text);
        let _ = ForeignKeys::parse(&text);
    }
}

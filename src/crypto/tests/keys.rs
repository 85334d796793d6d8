use std::{collections::BTreeSet, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::*;

/// RFC 7638 §3.1.
const RFC_7638_KEY: &str = r#"{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}"#;
const RFC_7638_THUMBPRINT: &str = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs";

/// A public key as JSON, with members put over it.
fn edited(key: &SigningKey, members: &Value) -> Value {
    let mut jwk = serde_json::to_value(key.public_jwk()).unwrap();
    jwk.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    jwk
}

#[test]
fn thumbprint_is_that_of_rfc_7638() {
    let key = Jwk::parse(RFC_7638_KEY).unwrap();
    assert_eq!(key.thumbprint(), RFC_7638_THUMBPRINT);
    assert_eq!((key.kid(), key.algorithm()), (Some("2011-04-29"), Algorithm::RS256));
}

#[test]
fn thumbprint_agrees_with_jsonwebtoken_for_both_key_types() {
    install_provider();
    for key in both() {
        let json = serde_json::to_string(&key.public_jwk()).unwrap();
        let other: jsonwebtoken::jwk::Jwk = serde_json::from_str(&json).unwrap();
        let thumbprint = other.thumbprint(jsonwebtoken::jwk::ThumbprintHash::SHA256).unwrap();
        assert_eq!(key.kid(), thumbprint);
    }
}

#[test]
fn algorithm_names_round_trip() {
    for algorithm in [Algorithm::ES256, Algorithm::RS256] {
        assert_eq!(Algorithm::from_str(&algorithm.to_string()), Ok(algorithm));
        assert_eq!(serde_json::to_value(algorithm).unwrap(), json!(algorithm.as_str()));
    }
    for other in ["none", "HS256", "es256", "PS256", ""] {
        assert!(Algorithm::from_str(other).is_err(), "{other}");
    }
}

#[test]
fn a_key_survives_pem() {
    for key in both() {
        let pem = key.to_pkcs8_pem().unwrap();
        assert!(pem.expose().lines().all(|line| line.len() <= 64));
        let again = SigningKey::from_pkcs8_pem(key.algorithm(), pem.expose()).unwrap();
        assert_eq!((again.kid(), again.public_jwk()), (key.kid(), key.public_jwk()));
        assert_eq!(again.to_pkcs8_pem().unwrap().expose(), pem.expose());
    }
}

#[test]
fn pem_of_another_kind_is_refused() {
    for (key, other) in [(&ES256, Algorithm::RS256), (&RS256, Algorithm::ES256)] {
        let pem = key.to_pkcs8_pem().unwrap();
        assert_eq!(SigningKey::from_pkcs8_pem(other, pem.expose()).unwrap_err(), KeyError::Unusable(other));
    }
    let pem = ES256.to_pkcs8_pem().unwrap();
    for broken in [
        String::new(),
        pem.expose().replace(" PRIVATE", " EC PRIVATE"),
        pem.expose().replace("-----END", "!-----END"),
        format!("{}{}", pem.expose(), pem.expose()),
    ] {
        assert_eq!(SigningKey::from_pkcs8_pem(Algorithm::ES256, &broken).unwrap_err(), KeyError::Pem);
    }
}

#[test]
fn a_published_key_has_exactly_the_public_members() {
    let expected: [&[&str]; 2] =
        [&["alg", "crv", "kid", "kty", "use", "x", "y"], &["alg", "e", "kid", "kty", "n", "use"]];
    for (key, expected) in both().into_iter().zip(expected) {
        let jwk = serde_json::to_value(key.public_jwk()).unwrap();
        let members: BTreeSet<&str> = jwk.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(members, expected.iter().copied().collect());
        assert_eq!((&jwk["kid"], &jwk["use"]), (&json!(key.kid()), &json!("sig")));
        assert_eq!(serde_json::from_value::<Jwk>(jwk).unwrap(), key.public_jwk());
    }
}

#[test]
fn debug_shows_no_key_material() {
    for key in both() {
        let pem = key.to_pkcs8_pem().unwrap();
        let body: String = pem.expose().lines().filter(|line| !line.starts_with('-')).collect();
        let der = STANDARD.decode(&body).unwrap();
        let shown =
            format!("{key:?} {key:#?} {pem:?} {:?}", SigningKey::from_pkcs8_pem(key.algorithm(), "x"));
        // Any run of the DER, in the two ways in which bytes and text come out of a derived Debug.
        for window in der.windows(8) {
            assert!(!shown.contains(format!("{window:?}").trim_matches(['[', ']'])));
        }
        for window in body.as_bytes().windows(12) {
            assert!(!shown.contains(std::str::from_utf8(window).unwrap()));
        }
        assert!(shown.contains(key.kid()));
    }
}

#[test]
fn errors_about_private_keys_do_not_show_them() {
    let error = Jwk::parse(&edited(&ES256, &json!({"d": "c2VjcmV0LXZhbHVl"})).to_string()).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("c2VjcmV0"));
}

#[test]
fn unknown_members_are_ignored_and_private_ones_refused() {
    let key = edited(&ES256, &json!({"x5t": "abc", "ext": true}));
    assert_eq!(Jwk::parse(&key.to_string()).unwrap(), ES256.public_jwk());
    for member in ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"] {
        for key in both() {
            let private = edited(key, &json!({ member: "AQAB" })).to_string();
            assert_eq!(Jwk::parse(&private), Err(JwkError::Private(member)));
            assert_eq!(
                JwkSet::parse(&format!(r#"{{"keys":[{private}]}}"#)).unwrap_err(),
                JwkError::Private(member)
            );
            assert!(serde_json::from_str::<Jwk>(&private).is_err());
        }
    }
    assert_eq!(Jwk::parse(r#"{"kty":"oct","k":"AQAB"}"#), Err(JwkError::Symmetric));
    assert_eq!(JwkSet::parse(r#"{"keys":[{"kty":"oct","k":"AQAB"}]}"#).unwrap_err(), JwkError::Symmetric);
}

#[test]
fn malformed_public_values_are_refused() {
    for (key, member, value) in [
        (&ES256, "x", "AQAB"),
        (&ES256, "y", "AQAB="),
        (&RS256, "n", "AQAB"),
        (&RS256, "e", ""),
        (&RS256, "e", "!"),
    ] {
        let error = Jwk::parse(&edited(key, &json!({ member: value })).to_string()).unwrap_err();
        assert!(matches!(error, JwkError::Value { member: at, .. } if at == member), "{error}");
    }
    for (key, member, value) in [
        (&ES256, "alg", "RS256"),
        (&RS256, "alg", "PS256"),
        (&ES256, "crv", "P-384"),
        (&RS256, "use", "enc"),
        (&RS256, "kty", "OKP"),
    ] {
        let error = Jwk::parse(&edited(key, &json!({ member: value })).to_string()).unwrap_err();
        assert!(matches!(error, JwkError::Unsupported { member: at, .. } if at == member), "{error}");
    }
    let key = serde_json::to_string(&ES256.public_jwk()).unwrap();
    assert!(matches!(Jwk::parse(&key.replacen('{', r#"{"kty":"RSA","#, 1)), Err(JwkError::Malformed(_))));
}

#[test]
fn a_set_is_ordered_and_found_by_kid() {
    let set = key_set();
    let reversed: JwkSet = [&*RS256, &*ES256].map(SigningKey::public_jwk).into_iter().collect();
    assert_eq!(set.to_json(), reversed.to_json());
    assert_eq!(set.to_json(), serde_json::to_string(&set).unwrap());
    assert!(set.keys().is_sorted_by_key(Jwk::kid));
    for key in both() {
        assert_eq!(set.find(key.kid()), Some(&key.public_jwk()));
    }
    assert_eq!(set.find(""), None);
    let parsed = JwkSet::parse(&set.to_json()).unwrap();
    assert_eq!((parsed.set, parsed.skipped), (set, vec![]));
}

#[test]
fn a_spiffe_bundle_has_the_same_keys_for_another_use() {
    let set = key_set();
    let bundle: Value = serde_json::from_str(&set.to_spiffe_bundle(u64::MAX, 300)).unwrap();
    let members: BTreeSet<&str> = bundle.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members, BTreeSet::from(["keys", "spiffe_refresh_hint", "spiffe_sequence"]));
    assert_eq!((&bundle["spiffe_sequence"], &bundle["spiffe_refresh_hint"]), (&json!(u64::MAX), &json!(300)));
    let published: Value = serde_json::from_str(&set.to_json()).unwrap();
    for (in_bundle, in_set) in
        bundle["keys"].as_array().unwrap().iter().zip(published["keys"].as_array().unwrap())
    {
        assert_eq!((&in_bundle["use"], &in_set["use"]), (&json!("jwt-svid"), &json!("sig")));
        let mut same = in_bundle.clone();
        same["use"] = json!("sig");
        assert_eq!(&same, in_set);
    }
    assert_eq!(bundle["keys"].as_array().unwrap().len(), 2);
    assert_eq!(set.to_spiffe_bundle(1, 2), set.to_spiffe_bundle(1, 2));
    let empty = JwkSet::default().to_spiffe_bundle(0, 1);
    assert_eq!(serde_json::from_str::<Value>(&empty).unwrap()["keys"], json!([]));
}

#[test]
fn a_set_lists_the_keys_that_it_skips() {
    let mut no_kid = edited(&ES256, &json!({}));
    no_kid.as_object_mut().unwrap().remove("kid");
    let document = json!({ "keys": [
        { "kty": "OKP", "crv": "Ed25519", "x": "AA", "kid": "ed" },
        ES256.public_jwk(),
        edited(&RS256, &json!({"alg": "RS512", "kid": "512"})),
        no_kid,
        edited(&RS256, &json!({"kid": ES256.kid()})),
        7,
        RS256.public_jwk(),
    ]});
    let parsed = JwkSet::parse(&document.to_string()).unwrap();
    assert_eq!(parsed.set, key_set());
    let skipped: Vec<_> = parsed.skipped.iter().map(|key| (key.index, key.kid.as_deref())).collect();
    let expected = [(0, Some("ed")), (2, Some("512")), (3, None), (4, Some(ES256.kid())), (5, None)];
    assert_eq!(skipped, expected);
    assert_eq!(parsed.skipped[2].reason, JwkError::NoKid);
    assert_eq!(parsed.skipped[3].reason, JwkError::DuplicateKid);
    for broken in ["{}", "[]", r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#] {
        assert!(matches!(JwkSet::parse(broken), Err(JwkError::Malformed(_))), "{broken}");
    }
}

#[test]
fn keys_are_shared_between_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<SigningKey>();
    shared::<JwkSet>();
    shared::<Secret<Vec<u8>>>();
}

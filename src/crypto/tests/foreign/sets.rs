use super::*;

#[test]
fn the_alg_of_a_key_pins_it() {
    use ForeignAlgorithm::*;
    let open = parse(&[jwk(RS256)]);
    assert_eq!(open.keys()[0].algorithms().collect::<Vec<_>>(), [RS256, RS384, RS512, PS256, PS384, PS512]);
    for pinned in [RS256, PS256, PS512] {
        let keys = parse(&[with(&jwk(pinned), &json!({"alg": pinned.as_str()}))]);
        for algorithm in [RS256, RS384, PS256, PS512] {
            let token = sign(algorithm, &json!({}));
            if algorithm == pinned {
                assert!(verify_foreign(&token, &keys, &EXPECT).is_ok());
            } else {
                refused_by(&keys, &token, "key-alg");
            }
        }
    }
    let keys = parse(&[jwk(ES384)]);
    assert_eq!(keys.keys()[0].algorithms().collect::<Vec<_>>(), [ES384]);
}

#[test]
fn a_set_keeps_the_usable_keys_and_says_why_not_the_others() {
    use ForeignAlgorithm::*;
    let long = |bytes: usize| URL_SAFE_NO_PAD.encode([&[1][..], &vec![1; bytes - 1]].concat());
    let off_curve = with(&jwk(ES256), &json!({"kid": "off", "y": jwk(ES256)["x"]}));
    let cases = [
        (json!(7), "an object"),
        (json!({"kty": "OKP", "crv": "Ed25519", "x": "AA"}), "kty"),
        (with(&jwk(ES256), &json!({"crv": "secp256k1"})), "crv"),
        (with(&jwk(ES256), &json!({"alg": "ES384"})), "alg"),
        (with(&jwk(ES256), &json!({"alg": "RS256"})), "alg"),
        (with(&jwk(RS256), &json!({"alg": "RSA-OAEP"})), "alg"),
        (with(&jwk(RS256), &json!({"alg": "HS256"})), "alg"),
        (with(&jwk(RS256), &json!({"use": "enc"})), "use"),
        (with(&jwk(RS256), &json!({"key_ops": ["encrypt"]})), "key_ops"),
        (with(&jwk(RS256), &json!({"n": long(255)})), "n"),
        (with(&jwk(RS256), &json!({"n": long(1025)})), "n"),
        (with(&jwk(RS256), &json!({"e": "AA"})), "n"),
        (with(&jwk(RS256), &json!({"e": "AQAB="})), "e"),
        (with(&jwk(ES512), &json!({"x": jwk(ES256)["x"]})), "x"),
        (off_curve, "x"),
        (with(&jwk(ES256), &json!({"kid": 5})), "kid"),
        (with(&jwk(ES256), &json!({"kid": "rsa"})), "kid"),
    ];
    let entries: Vec<_> =
        std::iter::once(jwk(RS256)).chain(cases.iter().map(|(key, _)| key.clone())).collect();
    let keys = parse(&entries);
    assert_eq!(keys.keys().len(), 1, "{keys:?}");
    assert_eq!(keys.skipped().len(), cases.len());
    for (skipped, (key, word)) in keys.skipped().iter().zip(&cases) {
        assert!(skipped.reason.to_string().contains(word), "{key}: {}", skipped.reason);
    }
    assert!(keys.find("rsa").is_some() && keys.find("off").is_none());
    let usable = with(&jwk(RS256), &json!({"key_ops": ["verify"], "alg": "PS384", "x5t": "x"}));
    assert_eq!(parse(&[usable]).skipped(), []);
}

#[test]
fn a_set_that_discloses_a_secret_or_is_none_is_refused() {
    let parse = |document: Value| ForeignKeys::parse(&document.to_string()).unwrap_err();
    let rsa = jwk(ForeignAlgorithm::RS256);
    for member in ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"] {
        let private = with(&rsa, &json!({ member: "AQAB" }));
        assert_eq!(parse(json!({ "keys": [rsa, private] })), JwkError::Private(member));
    }
    assert_eq!(parse(json!({"keys": [{"kty": "oct", "k": "AQAB"}]})), JwkError::Symmetric);
    let many = vec![json!({"kty": "OKP"}); 129];
    for broken in [json!({}), json!([]), json!({"keys": {}}), json!({ "keys": many })] {
        assert!(matches!(parse(broken), JwkError::Malformed(_)));
    }
    assert!(matches!(ForeignKeys::parse(r#"{"keys":[],"keys":[]}"#), Err(JwkError::Malformed(_))));
}

use super::*;

const NOW: i64 = 1_795_400_000;
const LEEWAY: u32 = 5;
const URI: &str = "https://agents.example.com/statuslists/1";

fn list() -> StatusList {
    StatusList { bits: 1, lst: bits_of(&[3, 5], 16).encode().unwrap(), aggregation_uri: None }
}

fn ours() -> StatusListClaims {
    StatusListClaims { sub: URI.to_owned(), iat: NOW, exp: NOW + 300, ttl: 30, status_list: list() }
}

fn check(token: &str) -> Result<StatusListToken, StatusListError> {
    verify_status_list(token, &key_set(), URI, NOW, LEEWAY)
}

/// Our claims with some put over them; null removes one.
fn sign_with(changes: &Value) -> String {
    let mut claims = serde_json::to_value(ours()).unwrap();
    let members = claims.as_object_mut().unwrap();
    members.extend(changes.as_object().unwrap().clone());
    members.retain(|_, value| !value.is_null());
    ES256.sign(STATUS_LIST_TYP, &claims).unwrap()
}

#[test]
fn a_list_of_ours_is_signed_and_verified() {
    for key in both() {
        let token = ours().sign(key).unwrap();
        let verified = check(&token).unwrap();
        assert_eq!((verified.algorithm, verified.kid.as_str()), (key.algorithm(), key.kid()));
        assert_eq!((verified.iat, verified.exp, verified.ttl), (NOW, Some(NOW + 300), Some(30)));
        let status: Vec<_> = (0..17).map(|index| verified.list.status(index)).collect();
        assert_eq!(status[..7], [0, 0, 0, 1, 0, 1, 0].map(Some));
        assert_eq!(status[16], None);
        assert_eq!(inspect(&token).unwrap().header["typ"], "statuslist+jwt");
    }
    let claims = inspect(&ours().sign(&ES256).unwrap()).unwrap().claims;
    let members: Vec<_> = claims["status_list"].as_object().unwrap().keys().collect();
    assert_eq!(members, ["bits", "lst"]);
    let aggregated =
        StatusList { aggregation_uri: Some("https://agents.example.com/statuslists".to_owned()), ..list() };
    let claims = StatusListClaims { status_list: aggregated, ..ours() };
    let token = claims.sign(&ES256).unwrap();
    assert!(check(&token).is_ok());
    assert!(inspect(&token).unwrap().claims["status_list"]["aggregation_uri"].is_string());
}

#[test]
fn the_largest_list_fits_and_a_longer_token_is_not_read() {
    // An eighth of it, since making it takes long.
    let bits = noise(MAX_STATUS_ENTRIES / 8);
    let status_list = StatusList { lst: bits.encode().unwrap(), ..list() };
    let token = StatusListClaims { status_list, ..ours() }.sign(&ES256).unwrap();
    assert!(token.len() * 8 < MAX_STATUS_LIST_TOKEN_BYTES);
    assert_eq!(check(&token).unwrap().list.as_bytes(), bits.as_bytes());
    let long = "x".repeat(MAX_STATUS_LIST_TOKEN_BYTES + 1);
    let Err(StatusListError::Token(error)) = check(&long) else { panic!("read") };
    assert_eq!(error.check(), "size");
}

#[test]
fn another_kind_of_token_is_none_and_a_list_is_no_other_kind() {
    let claims = serde_json::to_value(ours()).unwrap();
    for typ in ["at+jwt", "JWT", "statuslist+cwt", ""] {
        let error = check(&ES256.sign(typ, &claims).unwrap()).unwrap_err();
        assert!(matches!(error, StatusListError::Token(VerifyError::Typ { .. })), "{typ}: {error}");
    }
    assert!(check(&ES256.sign("application/statuslist+jwt", &claims).unwrap()).is_ok());
    for typ in [Typ::Access, Typ::Identity] {
        let expect = Expect { issuer: "x", audience: "x", typ, leeway: LEEWAY, now: NOW };
        let error = verify(&ours().sign(&ES256).unwrap(), &key_set(), &expect).unwrap_err();
        assert_eq!(error.check(), "typ");
    }
}

#[test]
fn a_forged_list_is_refused() {
    let stranger = SigningKey::generate(Algorithm::ES256).unwrap();
    let error = check(&ours().sign(&stranger).unwrap()).unwrap_err();
    assert!(matches!(error, StatusListError::Token(VerifyError::Kid(_))), "{error}");
    let (token, other) = (sign_with(&json!({})), sign_with(&json!({"iat": NOW - 1})));
    let (signed, _) = token.rsplit_once('.').unwrap();
    let (_, signature) = other.rsplit_once('.').unwrap();
    assert_eq!(check(&format!("{signed}.{signature}")), Err(VerifyError::Signature.into()));
}

#[test]
fn a_list_is_held_to_its_address_and_times() {
    let late = NOW - i64::from(LEEWAY);
    let early = NOW + i64::from(LEEWAY);
    for changes in [
        json!({}),
        json!({"exp": null}),
        json!({"ttl": null}),
        json!({"exp": late + 1}),
        json!({"iat": early}),
        json!({"ttl": 1}),
        json!({"iss": "https://other.example.com", "x": [1]}),
    ] {
        assert!(check(&sign_with(&changes)).is_ok(), "{changes}");
    }
    for (changes, word) in [
        (json!({"sub": "https://agents.example.com/statuslists/2"}), "sub is"),
        (json!({"sub": null}), "sub is missing"),
        (json!({"sub": [URI]}), "sub is"),
        (json!({"iat": null}), "iat"),
        (json!({"iat": early + 1}), "issued in the future"),
        (json!({"iat": "1"}), "iat"),
        (json!({"exp": late}), "expired"),
        (json!({"exp": 1.5}), "exp"),
        (json!({"ttl": 0}), "ttl"),
        (json!({"ttl": -1}), "ttl"),
        (json!({"ttl": "30"}), "ttl"),
        (json!({"ttl": 1.5}), "ttl"),
        (json!({"status_list": null}), "status_list"),
        (json!({"status_list": []}), "status_list"),
        (json!({"status_list": {"lst": "eNrbuRgAAhcBXQ"}}), "status_list.bits"),
        (json!({"status_list": {"bits": "1", "lst": "eNrbuRgAAhcBXQ"}}), "status_list.bits"),
        (json!({"status_list": {"bits": 3, "lst": "eNrbuRgAAhcBXQ"}}), "bits is 3"),
        (json!({"status_list": {"bits": 257, "lst": "eNrbuRgAAhcBXQ"}}), "bits is 257"),
        (json!({"status_list": {"bits": 1}}), "status_list.lst"),
        (json!({"status_list": {"bits": 1, "lst": "eNrbuRgAAhcB"}}), "ZLIB"),
    ] {
        let error = check(&sign_with(&changes)).unwrap_err();
        assert!(error.to_string().contains(word), "{changes}: {error}");
    }
}

#[test]
fn debug_of_a_list_is_short() {
    let status_list = StatusList { lst: bits_of(&SET, 1 << 20).encode().unwrap(), ..list() };
    let token = StatusListClaims { status_list, ..ours() }.sign(&ES256).unwrap();
    assert!(format!("{:?}", check(&token).unwrap()).len() < 400);
}

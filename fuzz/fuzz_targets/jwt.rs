//! Tokens as they arrive: any text, and any claims under a good signature.
#![no_main]

use std::sync::LazyLock;

use agentid::crypto::{
    Algorithm, Expect, ExpectAny, ForeignExpect, ForeignKeys, JwkSet, SigningKey, StatusRef, Typ, audiences,
    inspect, peek, verify, verify_any_audience, verify_foreign, verify_status_list,
};
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;

/// The public keys of RFC 7515 A.2 and A.3; seeds hold the tokens that they verify.
const RFC_7515: &str = r#"{"keys":[
  {"kty":"RSA","e":"AQAB","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"},
  {"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}
]}"#;
const NOW: i64 = 1_300_819_000;
const ISSUER: &str = "joe";
const FOREIGN: ForeignExpect<'_> =
    ForeignExpect { issuer: ISSUER, typ: &[None, Some("JWT"), Some("at+jwt")], leeway: 5, now: NOW };

struct Fixed {
    foreign: ForeignKeys,
    signer: SigningKey,
    ours: JwkSet,
    ours_as_foreign: ForeignKeys,
}

static FIXED: LazyLock<Fixed> = LazyLock::new(|| {
    let signer = SigningKey::generate(Algorithm::ES256).expect("a key");
    let ours = JwkSet::from_iter([signer.public_jwk()]);
    let ours_as_foreign = ForeignKeys::parse(&ours.to_json()).expect("our own set");
    let foreign = ForeignKeys::parse(RFC_7515).expect("the keys of RFC 7515");
    assert_eq!(foreign.keys().len(), 2);
    Fixed { foreign, signer, ours, ours_as_foreign }
});

fuzz_target!(|data: &[u8]| {
    let fixed = &*FIXED;
    if let Ok(text) = str::from_utf8(data) {
        let seen = peek(text);
        assert_eq!(seen.as_ref().ok(), inspect(text).ok().as_ref());
        if let Ok(claims) = verify_foreign(text, &fixed.foreign, &FOREIGN) {
            assert_eq!(seen.ok().map(|seen| seen.claims), Some(claims));
        }
        for typ in [Typ::Access, Typ::Identity] {
            let expect = Expect { issuer: ISSUER, audience: "a", typ, leeway: 5, now: NOW };
            assert!(verify(text, &fixed.ours, &expect).is_err(), "nobody but us signs");
        }
        let _ = verify_status_list(text, &fixed.ours, "https://a/1", NOW, 5);
        let _ = ForeignKeys::parse(text);
        let _ = JwkSet::parse(text);
    }
    // Past the signature.
    let Ok(claims) = serde_json::from_slice::<&RawValue>(data) else { return };
    for typ in ["at+jwt", "JWT", "statuslist+jwt"] {
        let Ok(token) = fixed.signer.sign(typ, &claims) else { return };
        let _ = verify_status_list(&token, &fixed.ours, "https://a/1", NOW, 5);
        if let Ok(claims) = verify_foreign(&token, &fixed.ours_as_foreign, &FOREIGN) {
            assert_eq!(claims["iss"], ISSUER);
            let _ = audiences(&claims);
            let _ = StatusRef::from_claims(&claims);
        }
        for typ in [Typ::Access, Typ::Identity] {
            let any = ExpectAny { issuer: ISSUER, typ, leeway: 5, now: NOW };
            if let Ok(verified) = verify_any_audience(&token, &fixed.ours, &any) {
                let audience = verified.audience.as_str();
                let expect = Expect { issuer: ISSUER, audience, typ, leeway: 5, now: NOW };
                assert_eq!(verify(&token, &fixed.ours, &expect).as_ref(), Ok(&verified));
                assert_eq!(audiences(&verified.claims), Ok(vec![audience]));
            }
        }
    }
});

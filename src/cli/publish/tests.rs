//! From ConfigMaps to files.

use std::collections::BTreeMap;

use super::*;
use crate::crypto::{Algorithm, SigningKey};

const ISSUER: &str = "https://agents.example.com";

fn jwks() -> String {
    let key = SigningKey::generate(Algorithm::ES256).unwrap();
    std::iter::once(key.public_jwk()).collect::<JwkSet>().to_json()
}

fn map(namespace: &str, jwks: &str, ours: bool) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.namespace = Some(namespace.to_owned());
    map.metadata.labels = ours.then(|| BTreeMap::from([(MANAGED_BY.0.into(), MANAGED_BY.1.into())]));
    let data = [("issuer", ISSUER), ("jwks.json", jwks)];
    map.data = Some(data.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    map
}

fn published(jwks: &str) -> Published {
    agreed(&[map("a", jwks, true)], String::new()).unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

#[test]
fn only_what_all_agree_on_is_published() {
    let (good, other) = (jwks(), jwks());
    let says = |maps: &[ConfigMap]| agreed(maps, "in any namespace".to_owned()).map_err(|e| e.to_string());
    let agree = [map("a", &good, true), map("b", &good, true), map("c", &other, false)];
    assert_eq!(says(&agree).unwrap().jwks, good);
    let error = says(&[map("a", &good, true), map("b", &other, true)]).unwrap_err();
    assert!(error.contains("a and b differ") && error.contains("-n"), "{error}");
    for none in [&[][..], &[map("a", &good, false)]] {
        let error = says(none).unwrap_err();
        assert!(error.contains("in any namespace") && error.contains("agentid.dev/trust=true"), "{error}");
    }
    let mut torn = map("a", &good, true);
    torn.data.as_mut().unwrap().remove("issuer");
    assert!(says(&[torn]).unwrap_err().contains("has no issuer"));
}

#[test]
fn keys_that_cannot_be_used_are_not_published() {
    let good = jwks();
    let private = good.replace("\"kty\"", "\"d\":\"AAAA\",\"kty\"");
    let unknown = good.replace("\"P-256\"", "\"P-999\"");
    for (bad, why) in
        [("{}", "not a JWK"), ("{\"keys\":[]}", "no keys"), (&private, "private"), (&unknown, "crv")]
    {
        let error = documents(&published(bad), None, None, at(1)).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains("delete the ConfigMap"), "{bad}: {error}");
    }
    let config = Configuration::new("https://other.example.com", "x");
    let error = documents(&published(&good), Some(config), None, at(1)).unwrap_err().to_string();
    assert!(error.contains("right cluster"), "{error}");
    let odd = Published { issuer: "http://x\"\nkind: y".to_owned(), ..published(&good) };
    assert!(documents(&odd, None, None, at(1)).unwrap_err().to_string().contains("issuer"));
}

#[test]
fn the_sequence_grows_with_the_keys_alone() {
    let (one, other) = (published(&jwks()), published(&jwks()));
    let bundle = |published, old: Option<&str>, now| {
        let [_, bundle, ..] = documents(published, None, old, at(now)).unwrap();
        let value: Value = serde_json::from_str(&bundle.content).unwrap();
        (bundle.content, value["spiffe_sequence"].as_u64().unwrap())
    };
    let (text, first) = bundle(&one, None, 1000);
    assert_eq!(first, 1000);
    assert_eq!(bundle(&one, Some(&text), 2000), (text.clone(), 1000));
    assert_eq!(bundle(&other, Some(&text), 2000).1, 2000);
    assert_eq!(bundle(&other, Some(&text), 5).1, 1001);
    assert_eq!(bundle(&one, Some("torn"), 7).1, 7);
}

#[test]
fn files_lie_as_the_urls_say_and_are_replaced_whole() {
    let dir = std::env::temp_dir().join(format!("agentid-publish-{}", std::process::id()));
    let documents = documents(&published(&jwks()), None, None, at(1)).unwrap();
    for round in ["old", "new"] {
        for document in &documents {
            let content = if round == "old" { "old" } else { &document.content };
            replace(&dir.join(document.path), content.as_bytes()).unwrap();
        }
    }
    let read = |path: &str| fs::read_to_string(dir.join(path)).unwrap();
    let metadata: Value = serde_json::from_str(&read(".well-known/openid-configuration")).unwrap();
    assert_eq!(metadata["issuer"], ISSUER);
    let keys = metadata["jwks_uri"].as_str().unwrap().strip_prefix(ISSUER).unwrap().trim_start_matches('/');
    assert!(JwkSet::parse(&read(keys)).unwrap().skipped.is_empty());
    let left: Vec<_> = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
    // A directory is in the way: nothing is left beside it.
    fs::create_dir_all(dir.join("way/file")).unwrap();
    replace(&dir.join("way"), b"x").unwrap_err();
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 4);
    fs::remove_dir_all(&dir).unwrap();
}

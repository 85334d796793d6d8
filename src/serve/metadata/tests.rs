//! What the documents say, and how they are kept.

use std::collections::HashMap;

use http_body_util::BodyExt;
use jiff::SignedDuration;

use super::*;
use crate::crypto::{Algorithm, SigningKey};
use crate::domain::keyring::{KeyRecord, KeyRing, Purpose, Stage};
use crate::domain::statuslist::{HandOut, Mark};
use crate::domain::testing::{Cluster, RESOURCE};
use crate::domain::{Source, View};

const ISSUER: &str = "https://agentid.example.com";

fn config() -> Configuration {
    Configuration::new(ISSUER, "example.com")
}

fn none() -> HeaderMap {
    HeaderMap::new()
}

async fn body(response: Response) -> Value {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&bytes).unwrap()
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |v| v.to_str().unwrap())
}

fn request(path: &str, query: Option<&str>) -> Request {
    Request {
        method: Method::GET,
        path: path.to_owned(),
        query: query.map(str::to_owned),
        headers: none(),
        body: hyper::body::Bytes::new(),
        peer: "127.0.0.1:1".parse().unwrap(),
    }
}

/// One active key for tokens and one for status lists; the next token key was published at this instant.
fn ring(published_at: Option<Timestamp>, signs_since: Timestamp) -> Loaded {
    let mut ring = KeyRing::empty(ISSUER, "example.com", 7);
    let mut signers = HashMap::new();
    for (purpose, state) in [
        (Purpose::Tokens, Stage::Active),
        (Purpose::Tokens, Stage::Next),
        (Purpose::StatusLists, Stage::Active),
    ] {
        let key = std::sync::Arc::new(SigningKey::generate(Algorithm::ES256).unwrap());
        ring.keys.push(KeyRecord {
            kid: key.kid().to_owned(),
            algorithm: crate::api::SigningAlgorithm::ES256,
            purpose,
            state,
            created_at: signs_since,
            published_at: published_at.filter(|_| state == Stage::Next),
            activated_at: (state == Stage::Active).then_some(signs_since),
            retired_at: None,
        });
        signers.insert(key.kid().to_owned(), key);
    }
    let of = |such: &dyn Fn(&KeyRecord) -> bool| -> JwkSet {
        ring.keys.iter().filter(|k| such(k)).map(|k| signers[&k.kid].public_jwk()).collect()
    };
    let (jwks, token_jwks) = (of(&|_| true), of(&|k| k.purpose == Purpose::Tokens));
    Loaded { ring, resource_version: "1".to_owned(), uid: "u".to_owned(), signers, jwks, token_jwks }
}

#[test]
fn the_metadata_is_where_clients_look() {
    for (issuer, path, there) in [
        (ISSUER, "/.well-known/openid-configuration", true),
        (ISSUER, "/.well-known/oauth-authorization-server", true),
        (ISSUER, "/.well-known/openid-configuration/", false),
        (ISSUER, "/.well-known/openid-configuration/x", false),
        (ISSUER, "/x/.well-known/openid-configuration", false),
        ("https://h:8443/a/b", "/.well-known/openid-configuration", true),
        ("https://h:8443/a/b", "/.well-known/oauth-authorization-server/a/b", true),
        ("https://h:8443/a/b", "/.well-known/openid-configuration/a/b", true),
        ("https://h:8443/a/b", "/a/b/.well-known/openid-configuration", true),
        ("https://h:8443/a/b", "/a/.well-known/openid-configuration", false),
        ("https://h:8443/a/b", "/jwks", false),
    ] {
        assert_eq!(is_discovery_path(issuer, path), there, "{issuer} {path}");
    }
}

#[tokio::test]
async fn the_metadata_names_what_is_offered() {
    let mut c = Cluster::example();
    c.apply(&RESOURCE.replace("name: res", "name: twin").replace("x.read", "stolen"));
    c.settle();
    let response = discovery(&config(), &c.world, &none());
    assert_eq!(header(&response, "content-type"), "application/json");
    let said = body(response).await;
    assert_eq!(said["issuer"], ISSUER);
    assert_eq!(said["authorization_endpoint"], format!("{ISSUER}/authorize"));
    assert_eq!(said["scopes_supported"], json!(["x.read", "x.write"]), "not those of a refused resource");
    assert!(said.get("code_challenge_methods_supported").is_none());
    assert!(discovery_document(&config(), None).get("scopes_supported").is_none());
    c.delete(&Source::Resources, &Key::new("", "res"));
    c.settle();
    let said = body(discovery(&config(), &c.world, &none())).await;
    assert_eq!(said["scopes_supported"], json!(["stolen", "x.write"]), "now it holds the audience");
}

#[tokio::test]
async fn key_sets_are_kept_for_less_than_a_key_waits() {
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let ago = |s| now - SignedDuration::from_secs(s);
    let day = 24 * 3600;
    let mut config = config();
    assert_eq!(keys_age(&ring(None, now), &config, now), 3600);
    // It signs in 100 seconds; and should have begun.
    assert_eq!(keys_age(&ring(Some(ago(day)), ago(30 * day - 100)), &config, now), 100);
    assert_eq!(keys_age(&ring(Some(ago(day)), ago(31 * day)), &config, now), 5);
    config.keys.publish_ahead = crate::api::Seconds(60);
    assert_eq!(keys_age(&ring(None, now), &config, now), 30);

    let keys = ring(None, now);
    let first = jwks(&keys, &config, &none(), now);
    assert_eq!(header(&first, "content-type"), "application/jwk-set+json");
    assert_eq!(header(&first, "cache-control"), "public, max-age=30");
    let etag = header(&first, "etag").to_owned();
    assert_eq!(body(first).await["keys"].as_array().unwrap().len(), 3);
    for (sent, known) in
        [(etag.clone(), true), (format!("\"x\", W/{etag}"), true), ("\"x\"".to_owned(), false)]
    {
        let headers = HeaderMap::from_iter([(header::IF_NONE_MATCH, sent.parse().unwrap())]);
        let response = jwks(&keys, &config, &headers, now);
        assert_eq!(response.status() == StatusCode::NOT_MODIFIED, known, "{sent}");
        assert_eq!(header(&response, "etag"), etag);
        assert_eq!(header(&response, "content-type").is_empty(), known);
    }

    let bundle = body(spiffe_bundle(&keys, &config, &none(), now)).await;
    assert_eq!((&bundle["spiffe_sequence"], &bundle["spiffe_refresh_hint"]), (&json!(7), &json!(30)));
    let kids = bundle["keys"].as_array().unwrap();
    assert!(kids.len() == 2 && kids.iter().all(|k| k["use"] == "jwt-svid"), "not the status lists' key");
}

#[tokio::test]
async fn endpoints_that_do_nothing_say_why() {
    let response = authorize();
    assert_eq!(response.status(), 400);
    assert_eq!(body(response).await["error"], "unsupported_response_type");
    let form = |text: &[u8]| Form::parse(text).unwrap();
    let response = revoke(&form(b"token=x"));
    assert_eq!(response.status(), 400);
    let said = body(response).await;
    assert_eq!(said["error"], "unsupported_token_type");
    assert!(said["error_description"].as_str().unwrap().contains("AgentGrant"));
    assert_eq!(body(revoke(&form(b"x=y"))).await["error"], "invalid_request");
    assert!(read_only(&Method::HEAD).is_none());
    let response = read_only(&Method::POST).unwrap();
    assert_eq!((response.status().as_u16(), header(&response, "allow")), (405, "GET, HEAD"));
}

#[tokio::test]
async fn status_lists_are_handed_out_while_the_world_is_fresh() {
    let mut c = Cluster::example();
    c.hand_out = HandOut::open(ListId(1), 64);
    c.settle();
    c.world.take_mark(Some(Mark { list: ListId(1), mark: 1, version: 0 }));
    let (config, keys, lists) = (config(), ring(None, c.now), Lists::new(&config()));
    let shared = SharedWorld::new(config.clone(), View::Operator);
    let now = c.now;
    *shared.write() = c.world;
    let name = ListId(1).to_string();
    let ask = async |name: &str, query: Option<&str>, headers: HeaderMap, now| {
        let request = Request { headers, ..request("/statuslists/x", query) };
        status_list(&lists, &shared, &keys, &config, name, &request, now).await
    };
    let early = ask(&name, None, none(), now).await;
    assert_eq!((early.status().as_u16(), header(&early, "retry-after")), (503, "1"));
    assert_eq!(aggregation(&lists, &shared.read(), &config, &none(), now).status(), 503);
    lists.take_in(&mut shared.write(), now);

    let found = ask(&name, None, none(), now).await;
    assert_eq!(found.status(), 200);
    assert_eq!(header(&found, "content-type"), "application/statuslist+jwt");
    assert_eq!(header(&found, "cache-control"), "public, max-age=30");
    assert_eq!(header(&found, "access-control-allow-origin"), "*");
    let known = HeaderMap::from_iter([(header::IF_NONE_MATCH, found.headers()["etag"].clone())]);
    assert_eq!(ask(&name, None, known, now).await.status(), 304);
    assert_eq!(ask(&name, Some("time=1"), none(), now).await.status(), 501);
    assert_eq!(ask(&name, Some("x=time"), none(), now).await.status(), 200);
    for other in ["x", &name[1..], &ListId(2).to_string()] {
        assert_eq!(ask(other, None, none(), now).await.status(), 404, "{other}");
    }
    let all = aggregation(&lists, &shared.read(), &config, &none(), now);
    let all = body(all).await;
    assert_eq!(all, json!({"status_lists": [format!("{ISSUER}/statuslists/{name}")]}));

    let late = now + SignedDuration::from_secs(61);
    let stale = ask(&name, None, none(), late).await;
    assert_eq!((stale.status().as_u16(), header(&stale, "retry-after")), (503, "5"));
    assert_eq!(header(&stale, "cache-control"), "no-store");
}

#[tokio::test]
async fn agents_that_take_calls_have_metadata() {
    let mut c = Cluster::example();
    c.settle();
    let agent = protected_agent("/.well-known/oauth-protected-resource/ns/a").unwrap();
    for bad in ["/.well-known/oauth-protected-resource/ns", "/.well-known/oauth-protected-resource/ns/a/b"] {
        assert_eq!(protected_agent(bad), None);
    }
    assert_eq!(protected_resource(&config(), &c.world, &agent, &none()).status(), 404);
    c.apply(&RESOURCE.replace("spec:", "spec:\n  agent: {namespace: ns, name: a}"));
    c.settle();
    let said = body(protected_resource(&config(), &c.world, &agent, &none())).await;
    assert_eq!(said["resource"], "https://res.example.com");
    assert_eq!(said["authorization_servers"], json!([ISSUER]));
    c.delete(&Source::Agents, &agent);
    c.settle();
    assert_eq!(protected_resource(&config(), &c.world, &agent, &none()).status(), 404);
}

#[tokio::test]
async fn the_description_is_whole() {
    let document = body(openapi(&none())).await;
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().unwrap();
    for endpoint in ["token_endpoint", "jwks_uri", "introspection_endpoint", "revocation_endpoint"] {
        let metadata = discovery_document(&config(), None);
        let path = metadata[endpoint].as_str().unwrap().strip_prefix(ISSUER).unwrap().to_owned();
        assert!(paths.contains_key(&path), "{path}");
    }
    let mut references = Vec::new();
    collect(&document, &mut references);
    assert!(references.len() > 100);
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

fn collect<'a>(value: &'a Value, references: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => {
            references.extend(members.get("$ref").and_then(Value::as_str));
            members.values().for_each(|v| collect(v, references));
        }
        Value::Array(items) => items.iter().for_each(|v| collect(v, references)),
        _ => {}
    }
}

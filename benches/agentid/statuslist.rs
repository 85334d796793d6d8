//! A status list of a million entries: how long it is, and how soon it says what has changed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agentid::api::{AgentGrant, AgentIdentity, AgentResource, Configuration, SigningAlgorithm};
use agentid::cluster::keystore::Loaded;
use agentid::crypto::{Algorithm, SigningKey};
use agentid::domain::keyring::{KeyRecord, KeyRing, Purpose, Stage};
use agentid::domain::statuslist::Recorded;
use agentid::domain::{
    Agent, Grant, Key, ListId, Meta, Namespace, Object, Origin, Resource, StatusRef, Uid, View, World, decide,
};
use agentid::serve::lists::{Lists, Served};
use jiff::Timestamp;
use serde_json::json;

use crate::report::{Report, percentile, say};

const ISSUER: &str = "https://agents.example.com";
const LIST: ListId = ListId(7);
const NAMESPACES: u32 = 100;
const PER_NAMESPACE: u32 = 1000;
const AGENTS: u32 = NAMESPACES * PER_NAMESPACE;
const GRANTS: u32 = 10;
const ENTRIES: u32 = AGENTS * GRANTS;
/// Agents that are suspended before it is measured, in hundredths.
const SUSPENDED: u32 = 30;
const CHANGES: usize = 100;
const ROUNDS: usize = 9;
/// Longer than the pause that is kept between two encodings.
const PAUSE: Duration = Duration::from_millis(100);

/// `statuslist_bytes`, `statuslist_ms`.
pub async fn a_million(report: &mut Report) {
    say(format_args!("statuslist: {AGENTS} agents with {GRANTS} recorded indexes each"));
    let now = Timestamp::now();
    let mut config = Configuration::new(ISSUER, "agents.example.com");
    config.status_lists.capacity = 1 << 20;
    let (lists, keys) = (Lists::new(&config), ring(now));
    let mut world = world(config, now);
    lists.take_in(&mut world, now);
    let served = token(&lists, &keys, now).await;
    let (_, entries, mut set) = lists.sizes();
    assert_eq!(entries, ENTRIES as usize, "every entry is on the list");
    #[allow(clippy::cast_precision_loss)] // of counts
    let (bytes, share) = (served.jws.len() as f64, 100.0 * set as f64 / entries as f64);
    report.add("statuslist_bytes", bytes, format!("{entries} entries, {share:.1} % set, as it is served"));

    let mut left = (0..AGENTS).map(agent_key).filter(|k| world.agent(k).is_some_and(|a| !a.suspend));
    let mut changes: Vec<Vec<Key>> =
        (0..ROUNDS).map(|_| left.by_ref().step_by(71).take(CHANGES).collect()).collect();
    let (mut times, mut taken, mut version) = (Vec::new(), Vec::new(), 10_000_000);
    while let Some(keys_changed) = changes.pop() {
        tokio::time::sleep(PAUSE).await;
        for key in &keys_changed {
            let mut agent = world.agent(key).unwrap().clone();
            version += 1;
            (agent.suspend, agent.meta.version) = (true, version);
            world.take(Object::Agent(Box::new(agent)), Origin::Watch);
        }
        let began = Instant::now();
        lists.take_in(&mut world, now);
        taken.push(1000.0 * began.elapsed().as_secs_f64());
        let changed = token(&lists, &keys, now).await;
        times.push(1000.0 * began.elapsed().as_secs_f64());
        assert!(changed.version > served.version);
        set += CHANGES * GRANTS as usize;
        assert_eq!(lists.sizes().2, set, "every entry of the suspended agents is set");
    }
    let of = format!(
        "{CHANGES} agents suspended, {} entries: taken in ({:.1} ms), encoded and signed; median of {ROUNDS}, {:.1} to {:.1}",
        CHANGES * GRANTS as usize,
        percentile(&mut taken, 0.5),
        percentile(&mut times, 0.0),
        percentile(&mut times, 1.0),
    );
    report.add("statuslist_ms", percentile(&mut times, 0.5), of);
}

async fn token(lists: &Lists, keys: &Loaded, now: Timestamp) -> Arc<Served> {
    lists.token(LIST, keys, ISSUER, now).await.unwrap()
}

fn agent_key(i: u32) -> Key {
    Key::new(format!("ns-{:03}", i / PER_NAMESPACE), format!("agent-{:04}", i % PER_NAMESPACE))
}

/// A number without order, of a number.
fn spread(i: u32) -> u128 {
    u128::from(i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).rotate_left(61)
}

/// What a token service sees of that many agents, of which some are suspended.
fn world(config: Configuration, now: Timestamp) -> World {
    let mut world = World::of(config, View::Service);
    let sources = world.core();
    sources.iter().for_each(|source| world.begin_list(source));
    let meta = |name: String, uid: u128| json!({"name": name, "namespace": "ns", "uid": Uid(uid).to_string(), "resourceVersion": "1", "creationTimestamp": "2027-01-01T00:00:00Z"});
    let resource: AgentResource = serde_json::from_value(json!({
        "apiVersion": "agentid.dev/v1alpha1", "kind": "AgentResource", "metadata": meta("res".to_owned(), 1),
        "spec": {
            "audience": "https://tickets.example.com", "roles": [{"name": "triager"}],
            "allow": [{"namespaceSelector": {"matchLabels": {"team": "a"}}}],
        },
    }))
    .unwrap();
    let mut resource = Resource::try_from(&resource).unwrap();
    resource.meta.key = Key::new("", "res");
    world.take(Object::Resource(Box::new(resource.clone())), Origin::Watch);
    let grants: Vec<Grant> = (0..GRANTS)
        .map(|g| {
            let grant: AgentGrant = serde_json::from_value(json!({
                "apiVersion": "agentid.dev/v1alpha1", "kind": "AgentGrant",
                "metadata": meta(format!("grant-{g}"), 2),
                "spec": {
                    "agents": {"selector": {}}, "resource": "res", "application": {"roles": ["triager"]},
                    "secretKey": format!("grant-{g}.jwt"),
                },
            }))
            .unwrap();
            Grant::try_from(&grant).unwrap()
        })
        .collect();
    let agent: AgentIdentity = serde_json::from_value(json!({
        "apiVersion": "agentid.dev/v1alpha1", "kind": "AgentIdentity", "metadata": meta("a".to_owned(), 3), "spec": {},
    }))
    .unwrap();
    let template = Agent::try_from(&agent).unwrap();

    for n in 0..NAMESPACES {
        let name: Arc<str> = agent_key(n * PER_NAMESPACE).namespace;
        let of = Meta {
            key: Key::new("", name.clone()),
            uid: Uid(spread(3_000_000 + n)),
            ..template.meta.clone()
        };
        let namespace = Namespace { meta: of, labels: [("team", "a")].into_iter().collect() };
        world.take(Object::Namespace(Box::new(namespace)), Origin::Watch);
        for (g, grant) in (0..GRANTS).zip(&grants) {
            let mut grant = grant.clone();
            grant.meta.key = Key::new(name.clone(), grant.meta.key.name.clone());
            grant.meta.uid = grant_uid(n, g);
            world.take(Object::Grant(Box::new(grant)), Origin::Watch);
        }
    }
    for i in 0..AGENTS {
        let mut agent = template.clone();
        agent.meta.key = agent_key(i);
        agent.meta.uid = Uid(spread(i));
        agent.secret_name = format!("{}-agentid", agent.meta.key.name).into();
        world.take(Object::Agent(Box::new(agent)), Origin::Watch);
    }
    sources.iter().for_each(|source| world.end_list(source, now));

    // All grants are of one resource, so that all are recorded with one digest.
    let decision = decide(&world, &agent_key(0), now).unwrap();
    let held = decision.grants[0].held.clone().unwrap_or_else(|| panic!("{decision:?}"));
    for i in 0..AGENTS {
        let mut agent = world.agent(&agent_key(i)).unwrap().clone();
        agent.meta.version += 1;
        agent.suspend = spread(i) % 100 < u128::from(SUSPENDED);
        agent.status.grants = (0..GRANTS)
            .map(|g| Recorded {
                grant: grant_uid(i / PER_NAMESPACE, g),
                resource: resource.meta.uid,
                roles: held.roles.clone().into(),
                scopes: held.scopes.clone().into(),
                rest: held.rest(),
                at: StatusRef { list: LIST, index: index(i * GRANTS + g) },
                unbound: false,
            })
            .collect();
        world.take(Object::Agent(Box::new(agent)), Origin::Watch);
    }
    world
}

/// Scatters an agent's entries (the factor is prime to their number): in order they would make long runs, which
/// compress better than entries do that were handed out over time.
fn index(entry: u32) -> u32 {
    u32::try_from(u64::from(entry) * 618_033 % u64::from(ENTRIES)).unwrap()
}

fn grant_uid(namespace: u32, grant: u32) -> Uid {
    Uid(spread(2_000_000 + namespace * GRANTS + grant))
}

/// A ring whose key signs status lists.
fn ring(now: Timestamp) -> Loaded {
    let signer = Arc::new(SigningKey::generate(Algorithm::ES256).unwrap());
    let mut ring = KeyRing::empty(ISSUER, "agents.example.com", 1);
    ring.keys.push(KeyRecord {
        kid: signer.kid().to_owned(),
        algorithm: SigningAlgorithm::ES256,
        purpose: Purpose::StatusLists,
        state: Stage::Active,
        created_at: now,
        published_at: None,
        activated_at: Some(now),
        retired_at: None,
    });
    Loaded {
        ring,
        resource_version: "1".to_owned(),
        uid: "u".to_owned(),
        jwks: std::iter::once(signer.public_jwk()).collect(),
        token_jwks: std::iter::empty().collect(),
        signers: HashMap::from([(signer.kid().to_owned(), signer)]),
    }
}

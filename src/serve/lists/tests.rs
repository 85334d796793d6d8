//! The lists through an agent's life, against what `entry` says of every index.

use std::collections::HashMap;

use jiff::SignedDuration;

use super::*;
use crate::crypto::{Algorithm, JwkSet, SigningKey, verify_status_list};
use crate::domain::Source;
use crate::domain::keyring::{KeyRecord, KeyRing, Purpose, Stage};
use crate::domain::statuslist::{HandOut, Mark};
use crate::domain::testing::{Cluster, GRANT};

const ISSUER: &str = "https://agentid.example.com";
const CAPACITY: u32 = 64;
const AGENT: &str = "{kind: AgentIdentity, metadata: {name: a, namespace: ns}, spec: {}}";

fn key() -> Key {
    Key::new("ns", "a")
}

fn config() -> Configuration {
    let mut config = Configuration::new(ISSUER, "example.com");
    config.status_lists.capacity = CAPACITY;
    config
}

fn recorded(c: &Cluster) -> StatusRef {
    c.world.agent(&key()).unwrap().status.grants[0].at
}

/// What the leader notes on its Lease, as the watch hands it over.
fn note(c: &mut Cluster) {
    let mark = c.hand_out.mark(c.now);
    c.world.take_mark(Some(mark));
}

/// The hops are listed too, as a token service does.
fn example() -> Cluster {
    let mut c = Cluster::example();
    for hop in c.world.hops() {
        c.world.end_list(&Source::Bound(hop), c.now);
    }
    c
}

fn settled() -> (Cluster, Lists) {
    let mut c = example();
    c.hand_out = HandOut::open(ListId(1), CAPACITY);
    c.settle();
    note(&mut c);
    let lists = Lists::new(&config());
    lists.take_in(&mut c.world, c.now);
    agree(&lists, &c);
    (c, lists)
}

/// Every index of every list reads what `entry` says of it.
fn agree(lists: &Lists, c: &Cluster) {
    let mut seen = 0;
    for (list, highest) in c.world.lists() {
        let open = c.world.open_list().is_some_and(|o| o.list == list);
        let end = if open { CAPACITY } else { (highest + 1).next_multiple_of(8) };
        for index in 0..end {
            let at = StatusRef { list, index };
            assert_eq!(lists.reads(at), Some(entry(&c.world, at, c.now)), "{at:?}");
            seen += 1;
        }
        assert_eq!(lists.reads(StatusRef { list, index: end }), None);
    }
    assert!(seen >= CAPACITY);
}

/// The watches hand a change over; then the leader works on it, and its writes arrive.
fn change(c: &mut Cluster, lists: &Lists) {
    c.deliver();
    lists.take_in(&mut c.world, c.now);
    agree(lists, c);
    c.world.mark_all();
    c.settle();
    // What became dirty is gone: only entries that changed tell.
    lists.take_in(&mut c.world, c.now);
    agree(lists, c);
    note(c);
    lists.take_in(&mut c.world, c.now);
    agree(lists, c);
}

#[test]
fn the_lists_say_what_decide_says() {
    let (mut c, lists) = settled();
    let first = recorded(&c);
    assert_eq!(lists.reads(first), Some(Entry::Valid));
    for yaml in [
        GRANT.replace("[reader]", "[reader, writer]"),
        GRANT.to_owned(),
        AGENT.replace("spec: {}", "spec: {suspend: true}"),
        AGENT.to_owned(),
        AGENT.replace("name: a", "name: b"),
        GRANT.replace("name: g,", "name: h,").replace("[a]", "[b]"),
        GRANT.replace("[x.read]", "[]"),
    ] {
        c.apply(&yaml);
        change(&mut c, &lists);
    }
    assert_eq!(lists.reads(first), Some(Entry::Invalid), "a narrower answer killed it");
    let last = recorded(&c);
    assert_ne!(last, first);
    for (source, name) in [
        (Source::Grants, Key::new("ns", "h")),
        (Source::Agents, key()),
        (Source::Resources, Key::new("", "res")),
    ] {
        assert!(c.delete(&source, &name));
        change(&mut c, &lists);
    }
    assert_eq!(lists.reads(last), Some(Entry::Invalid));
    let newborn = StatusRef { list: last.list, index: CAPACITY - 1 };
    assert_eq!(lists.reads(newborn), Some(Entry::Valid));
}

#[test]
fn time_alone_changes_an_entry() {
    let (mut c, lists) = settled();
    let end = c.now + SignedDuration::from_secs(100);
    c.apply(&GRANT.replace("resource: res", &format!("resource: res\n  expiresAt: {end}")));
    change(&mut c, &lists);
    let at = recorded(&c);
    c.advance(99);
    lists.take_in(&mut c.world, c.now);
    assert_eq!(lists.reads(at), Some(Entry::Valid));
    c.advance(1);
    assert!(lists.wait(c.now).is_zero());
    lists.take_in(&mut c.world, c.now);
    assert_eq!(lists.reads(at), Some(Entry::Invalid));
}

#[test]
fn the_first_look_waits_for_what_would_tell() {
    let (mut c, lists) = settled();
    let bound = Source::Bound("apps/v1/Deployment".into());
    let new = Lists::new(&config());
    assert!(new.may_look(&c.world, c.now));
    let world = || World::of(c.world.config().clone(), crate::domain::View::Operator);
    let mut started = world();
    for source in started.sources().into_keys().filter(|s| *s != bound) {
        started.end_list(&source, c.now);
    }
    assert!(is_fresh(&started, c.now) && !new.may_look(&started, c.now), "its entries would read VALID");
    assert!(lists.may_look(&started, c.now), "what was said stays");
    started.lost(&bound, crate::domain::Lost::NotServed);
    assert!(new.may_look(&started, c.now));
    c.advance(1_000);
    assert!(!lists.may_look(&started, c.now), "too old");
}

#[test]
fn what_cannot_be_told_stays() {
    let (mut c, lists) = settled();
    let at = recorded(&c);
    c.lose(&Source::Grants);
    c.advance(1_000);
    assert!(!is_fresh(&c.world, c.now));
    c.apply(&AGENT.replace("spec: {}", "spec: {suspend: true}"));
    c.deliver();
    lists.take_in(&mut c.world, c.now);
    assert_eq!(entry(&c.world, at, c.now), Entry::Unknown);
    assert_eq!(lists.reads(at), Some(Entry::Valid));
    c.find(&Source::Grants);
    c.world.mark_all();
    lists.take_in(&mut c.world, c.now);
    assert_eq!(lists.reads(at), Some(Entry::Invalid));
    c.lose(&Source::Grants);
    c.advance(1_000);
    c.world.mark_all();
    lists.take_in(&mut c.world, c.now);
    assert_eq!(entry(&c.world, at, c.now), Entry::Unknown);
    assert_eq!(lists.reads(at), Some(Entry::Invalid));

    // Nothing was ever said of it: who could not be told is not harmed.
    let young = Lists::new(&config());
    young.take_in(&mut c.world, c.now);
    assert_eq!(young.reads(at), Some(Entry::Valid));
}

#[test]
fn another_leader_closes_the_list() {
    let (mut c, lists) = settled();
    let at = recorded(&c);
    let newborn = StatusRef { index: at.index + 1, ..at };
    assert_eq!(lists.reads(newborn), Some(Entry::Valid));
    c.world.take_mark(Some(Mark { list: ListId(77), mark: 0, version: 0 }));
    lists.take_in(&mut c.world, c.now);
    agree(&lists, &c);
    assert_eq!((lists.reads(at), lists.reads(newborn)), (Some(Entry::Valid), Some(Entry::Invalid)));
    assert_eq!(lists.names(), [at.list, ListId(77)]);

    // Nothing of it is recorded any more: it says so for as long as a token of it may live.
    c.delete(&Source::Agents, &key());
    c.deliver();
    lists.take_in(&mut c.world, c.now);
    assert_eq!(lists.reads(at), Some(Entry::Invalid));
    c.advance(24 * 3600);
    lists.take_in(&mut c.world, c.now);
    assert_eq!(lists.names(), [at.list, ListId(77)]);
    c.advance(1);
    lists.take_in(&mut c.world, c.now);
    assert_eq!(lists.names(), [ListId(77)]);
}

/// A ring whose key signs status lists.
fn ring() -> Loaded {
    let signer = Arc::new(SigningKey::generate(Algorithm::ES256).unwrap());
    let mut ring = KeyRing::empty(ISSUER, "example.com", 1);
    let at = Timestamp::UNIX_EPOCH;
    ring.keys.push(KeyRecord {
        kid: signer.kid().to_owned(),
        algorithm: crate::api::SigningAlgorithm::ES256,
        purpose: Purpose::StatusLists,
        state: Stage::Active,
        created_at: at,
        published_at: None,
        activated_at: Some(at),
        retired_at: None,
    });
    let jwks: JwkSet = std::iter::once(signer.public_jwk()).collect();
    Loaded {
        ring,
        resource_version: "1".to_owned(),
        uid: "u".to_owned(),
        signers: HashMap::from([(signer.kid().to_owned(), signer)]),
        jwks,
        token_jwks: std::iter::empty().collect(),
    }
}

/// What a verifier reads at an entry.
fn verified(served: &Served, keys: &Loaded, at: StatusRef) -> Option<u8> {
    let text = std::str::from_utf8(&served.jws).unwrap();
    let token = verify_status_list(text, &keys.jwks, &at.uri(ISSUER), served.made.as_second(), 0).unwrap();
    assert_eq!((token.list.bits(), token.ttl), (1, Some(30)));
    assert_eq!(token.exp, Some(served.made.as_second() + 300));
    token.list.status(at.index.into())
}

#[tokio::test]
async fn a_list_is_signed_once_until_something_changes() {
    let (mut c, lists) = settled();
    let (at, keys) = (recorded(&c), ring());
    let first = lists.token(at.list, &keys, ISSUER, c.now).await.unwrap();
    assert_eq!(verified(&first, &keys, at), Some(0));
    let again = lists.token(at.list, &keys, ISSUER, c.now + SignedDuration::from_secs(29)).await.unwrap();
    assert!(Arc::ptr_eq(&first, &again));
    let old = lists.token(at.list, &keys, ISSUER, c.now + SignedDuration::from_secs(30)).await.unwrap();
    assert!(!Arc::ptr_eq(&first, &old) && old.version == first.version && old.etag != first.etag);

    c.apply(&AGENT.replace("spec: {}", "spec: {suspend: true}"));
    c.deliver();
    lists.take_in(&mut c.world, c.now);
    let (one, other) =
        tokio::join!(lists.token(at.list, &keys, ISSUER, c.now), lists.token(at.list, &keys, ISSUER, c.now));
    let (one, other) = (one.unwrap(), other.unwrap());
    assert!(Arc::ptr_eq(&one, &other), "made once for both");
    assert_eq!(verified(&one, &keys, at), Some(1));

    let keys = ring();
    let signed = lists.token(at.list, &keys, ISSUER, c.now).await.unwrap();
    assert_eq!(verified(&signed, &keys, at), Some(1), "by the key of now");
}

#[tokio::test]
async fn no_list_is_made_up() {
    let (c, lists) = settled();
    let (list, mut keys) = (recorded(&c).list, ring());
    let refused = |found: Result<Arc<Served>, NoList>| found.unwrap_err().to_string();
    assert!(refused(lists.token(ListId(9), &keys, ISSUER, c.now).await).contains("no such"));
    let fresh = Lists::new(&config());
    assert!(refused(fresh.token(list, &keys, ISSUER, c.now).await).contains("not made yet"));
    keys.ring.keys.clear();
    assert!(refused(lists.token(list, &keys, ISSUER, c.now).await).contains("no key"));
}

#[tokio::test]
async fn a_million_entries_take_a_hundred_changes() {
    let (list, keys) = (ListId(5), ring());
    let lists = Lists::new(&config());
    {
        let mut inner = lists.inner();
        for index in 0..1_000_000 {
            inner.table.take(StatusRef { list, index }, Entry::Valid);
        }
        inner.ready = true;
    }
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let before = lists.token(list, &keys, ISSUER, now).await.unwrap();
    let changed: Vec<u32> = (0..100).map(|i| i * 9_973).collect();
    for index in &changed {
        lists.inner().table.take(StatusRef { list, index: *index }, Entry::Invalid);
    }
    let after = lists.token(list, &keys, ISSUER, now).await.unwrap();
    assert_eq!(after.version, before.version + 100);
    let text = std::str::from_utf8(&after.jws).unwrap();
    let uri = StatusRef { list, index: 0 }.uri(ISSUER);
    let read = verify_status_list(text, &keys.jwks, &uri, now.as_second(), 0).unwrap().list;
    assert_eq!(read.len(), 1_000_000);
    let set: Vec<u32> = (0..1_000_000u32).filter(|i| read.status(u64::from(*i)) == Some(1)).collect();
    assert_eq!(set, changed);
}

#[tokio::test]
async fn the_loop_follows_a_shared_world() {
    let mut c = example();
    c.settle();
    note(&mut c);
    let at = recorded(&c);
    // The loop reads the clock: the sources must be heard of by it.
    let now = Timestamp::now();
    for source in c.sources() {
        c.world.heard(&source, now);
    }
    let shared = SharedWorld::new(config(), crate::domain::View::Operator);
    *shared.write() = c.world;
    let lists = Arc::new(Lists::new(&config()));
    let stop = CancellationToken::new();
    let running = {
        let (lists, shared, stop) = (lists.clone(), shared.clone(), stop.clone());
        tokio::spawn(async move { lists.run(shared, stop).await })
    };
    let reads = async |wanted| {
        while lists.reads(at) != Some(wanted) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let patience = Duration::from_secs(10);
    tokio::time::timeout(patience, reads(Entry::Valid)).await.unwrap();
    let uid = shared.read().agent(&key()).unwrap().meta.uid;
    shared.write().remove(&Source::Agents, &key(), uid, 0);
    shared.tell();
    tokio::time::timeout(patience, reads(Entry::Invalid)).await.unwrap();
    stop.cancel();
    tokio::time::timeout(patience, running).await.unwrap().unwrap();
}

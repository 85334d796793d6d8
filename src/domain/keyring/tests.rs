use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use KeySlot::{StatusListES256 as STATUS, TokenES256 as ES256, TokenRS256 as RS256};

const TIMES: Times = Times { sign_for: 1000, publish_ahead: 300, max_token_lifetime: 600 };

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn kid(n: usize) -> String {
    format!("{n:043}")
}

/// A ring with the key ids that its driver hands out.
struct Driver {
    ring: KeyRing,
    made: usize,
    times: Times,
}

impl Driver {
    fn new() -> Self {
        let ring = KeyRing::empty("https://agents.example.com", "agents.example.com", 0);
        let mut driver = Self { ring, made: 0, times: TIMES };
        driver.step(0, false);
        driver
    }

    fn advance(&mut self, steps: &[Step], now: i64) {
        let kids: Vec<_> = steps
            .iter()
            .filter(|s| matches!(s, Step::Generate { .. }))
            .map(|_| {
                self.made += 1;
                kid(self.made)
            })
            .collect();
        self.ring = self.ring.advance(steps, &kids, at(now)).unwrap();
    }

    fn step(&mut self, now: i64, published: bool) -> Vec<Step> {
        let steps = due(&self.ring, &self.times, at(now), published);
        if !steps.is_empty() {
            self.advance(&steps, now);
        }
        steps
    }

    fn ask(&mut self, request: &Request, now: i64) -> Result<(), RequestFault> {
        let steps = ask(&self.ring, request, &self.times, at(now), false)?;
        self.advance(&steps, now);
        Ok(())
    }

    fn kid(&self, slot: KeySlot, state: Stage) -> String {
        self.ring.find(slot, state).unwrap().kid.clone()
    }
}

#[test]
fn the_first_ring_signs_at_once_and_has_next_keys() {
    let driver = Driver::new();
    assert_eq!(driver.ring.generation, 1);
    assert_eq!(driver.ring.published_kids().count(), 6);
    for slot in KeySlot::ALL {
        let active = driver.ring.active(slot).unwrap();
        assert_eq!((active.purpose, active.algorithm), (slot.purpose(), slot.algorithm()));
        assert!(driver.ring.next(slot).unwrap().published_at.is_none());
    }
    assert!(due(&driver.ring, &TIMES, at(0), false).is_empty());
}

#[test]
fn a_next_key_waits_for_its_publication_then_for_its_time() {
    let mut driver = Driver::new();
    let (active, next) = (driver.kid(ES256, Stage::Active), driver.kid(ES256, Stage::Next));
    // Long past its time, the active key goes on signing: the next one is not out.
    assert!(driver.step(5000, false).is_empty());
    assert_eq!(driver.ring.next_wake(&TIMES, at(5000)), None);
    driver.step(5000, true);
    assert_eq!(driver.ring.next(ES256).unwrap().published_at, Some(at(5000)));
    assert_eq!(driver.ring.next_wake(&TIMES, at(5000)), Some(at(5300)));
    assert!(driver.step(5299, true).is_empty());
    driver.step(5300, true);
    assert_eq!(driver.kid(ES256, Stage::Active), next);
    assert_eq!(driver.kid(ES256, Stage::Retired), active);
    assert_ne!(driver.kid(ES256, Stage::Next), next);
    // The retired key stays until its last token has died.
    let dies = 5300 + 600 + i64::from(RETENTION_SECONDS);
    assert!(driver.step(dies - 1, false).is_empty());
    assert_eq!(driver.step(dies, false), [active, kid(3), kid(5)].map(|kid| Step::Drop { kid }));
}

#[test]
fn a_forced_rotation_is_done_or_remembered() {
    let mut driver = Driver::new();
    let next = driver.kid(ES256, Stage::Next);
    driver.ask(&Request::Rotate, 10).unwrap();
    assert_eq!(driver.ring.promotes_at(ES256, &TIMES), None, "it is not out yet");
    driver.step(20, true);
    assert_eq!(driver.ring.promotes_at(ES256, &TIMES), Some(at(320)));
    assert_eq!(driver.ring.next_wake(&TIMES, at(20)), Some(at(320)));
    driver.step(320, true);
    assert_eq!(driver.kid(ES256, Stage::Active), next);
    assert!(driver.ring.rotate.is_empty());
    // Now the next one is new again; once it is out for long enough, a request is carried out at once.
    driver.step(330, true);
    driver.ask(&Request::Rotate, 700).unwrap();
    assert_ne!(driver.kid(ES256, Stage::Active), next);
    assert!(driver.ring.rotate.is_empty());
}

#[test]
fn a_revoked_key_is_out_at_once() {
    let mut driver = Driver::new();
    let (active, next) = (driver.kid(RS256, Stage::Active), driver.kid(RS256, Stage::Next));
    driver.ask(&Request::Revoke { kid: active.clone() }, 10).unwrap();
    assert!(driver.ring.published_kids().all(|k| k != active));
    assert!(driver.ring.is_revoked(&active));
    assert_eq!(driver.kid(RS256, Stage::Active), next, "the next key signs, whatever its age");
    assert_eq!(
        driver.ask(&Request::Revoke { kid: active.clone() }, 11),
        Err(RequestFault::AlreadyRevoked { kid: active.clone(), at: at(10) })
    );
    assert_eq!(
        driver.ask(&Request::Revoke { kid: "nobody".to_owned() }, 11),
        Err(RequestFault::UnknownKey("nobody".to_owned()))
    );
    // A revoked next key is replaced, and what signs is not touched.
    let (signs, waits) = (driver.kid(RS256, Stage::Active), driver.kid(RS256, Stage::Next));
    driver.ask(&Request::Revoke { kid: waits.clone() }, 12).unwrap();
    assert_eq!(driver.kid(RS256, Stage::Active), signs);
    assert_ne!(driver.kid(RS256, Stage::Next), waits);
    // Remembered for as long as its tokens could live.
    let dies = 10 + 600 + i64::from(RETENTION_SECONDS);
    assert_eq!(driver.step(dies, false), [Step::Forget { kid: active }]);
}

#[test]
fn an_active_key_without_a_next_one_is_replaced_by_a_new_one() {
    let mut driver = Driver::new();
    driver.ring.keys.retain(|k| k.state == Stage::Active);
    let active = driver.kid(ES256, Stage::Active);
    driver.ask(&Request::Revoke { kid: active.clone() }, 1).unwrap();
    assert_ne!(driver.kid(ES256, Stage::Active), active);
    assert_eq!(driver.ring.keys.len(), 6);
}

#[test]
fn a_lowered_limit_does_not_shorten_tokens_that_are_out() {
    let mut driver = Driver::new();
    driver.times.max_token_lifetime = 6000;
    assert_eq!(driver.step(1, false), [Step::Lengthen { longest_token: 6000 }]);
    driver.times.max_token_lifetime = 60;
    assert!(driver.step(2, false).is_empty());
    assert_eq!(driver.ring.dies_at(at(0), &driver.times), at(6000 + i64::from(RETENTION_SECONDS)));
}

#[test]
fn keys_of_a_lost_ring_count_as_revoked() {
    let mut ring = Driver::new().ring;
    ring.disown([kid(90), kid(90), kid(1), "../x".to_owned()], at(5));
    assert_eq!(ring.revoked, [RevokedKey { kid: kid(90), at: at(5) }]);
    ring.validate().unwrap();
}

#[test]
fn what_may_not_sign_is_refused() {
    let good = Driver::new().ring;
    let spoil = |change: fn(&mut KeyRing)| {
        let mut ring = good.clone();
        change(&mut ring);
        ring.validate().unwrap_err()
    };
    good.validate().unwrap();
    assert_eq!(spoil(|r| r.generation = 0), RingFault::Nameless("generation"));
    assert_eq!(spoil(|r| r.issuer.clear()), RingFault::Nameless("issuer"));
    assert_eq!(spoil(|r| r.keys[0].kid = "../x".to_owned()), RingFault::Kid("../x".to_owned()));
    assert_eq!(spoil(|r| r.keys[0].kid = r.keys[1].kid.clone()), RingFault::Twice(kid(2)));
    assert!(matches!(spoil(|r| r.keys[0].algorithm = RS256.algorithm()), RingFault::Count { .. }));
    assert!(matches!(spoil(|r| r.keys.clear()), RingFault::Count { count: 0, .. }));
    assert!(matches!(spoil(|r| r.keys[0].purpose = Purpose::StatusLists), RingFault::Count { count: 0, .. }));
    assert_eq!(spoil(|r| r.keys[4].algorithm = RS256.algorithm()), RingFault::Algorithm(kid(5)));
    assert!(matches!(spoil(|r| drop(r.keys.remove(4))), RingFault::Count { slot: STATUS, count: 0, .. }));
    assert_eq!(spoil(|r| r.keys[0].activated_at = None), RingFault::Times(kid(1)));
    assert_eq!(spoil(|r| r.keys[1].activated_at = Some(at(1))), RingFault::Times(kid(2)));
    assert_eq!(spoil(|r| r.keys[1].published_at = Some(at(-1))), RingFault::Times(kid(2)));
    assert_eq!(good.advance(&[Step::Rotate], &[], at(0)).unwrap().generation, 2);
    let promote = [Step::Promote { kid: kid(1) }];
    assert_eq!(good.advance(&promote, &[], at(0)), Err(RingFault::Step(kid(1))), "it is active");
}

#[test]
fn the_form_on_disk() {
    let mut driver = Driver::new();
    let active = driver.kid(ES256, Stage::Active);
    driver.ask(&Request::Revoke { kid: active }, 10).unwrap();
    let text = serde_json::to_string(&driver.ring).unwrap();
    assert!(text.contains(r#""createdAt":"2027-01-15T08:00:00Z""#), "{text}");
    assert!(text.contains(r#""state":"Active""#), "{text}");
    assert_eq!(serde_json::from_str::<KeyRing>(&text).unwrap(), driver.ring);
    assert!(serde_json::from_str::<KeyRing>(&text.replace("\"keys\"", "\"x\":1,\"keys\"")).is_err());
}

/// The ring as a version without status lists wrote it.
fn old_ring() -> KeyRing {
    let mut ring = Driver::new().ring;
    ring.keys.retain(|k| k.purpose == Purpose::Tokens);
    ring.rotate = vec![ES256, RS256];
    ring
}

#[test]
fn a_ring_from_before_status_lists_gets_their_keys() {
    let mut driver = Driver::new();
    driver.ring = old_ring();
    driver.ring.rotate.clear();
    driver.ring.validate().unwrap();
    let before = driver.ring.clone();
    assert_eq!(driver.ring.signing_kid(STATUS), None);
    let steps = driver.step(5, false);
    let generate = |as_active| Step::Generate { slot: STATUS, as_active };
    assert_eq!(steps, [generate(true), generate(false)]);
    assert_eq!(driver.ring.keys[..4], before.keys[..], "the keys of tokens are left alone");
    assert!(driver.ring.signing_kid(STATUS).is_some() && driver.ring.next(STATUS).is_some());
    assert!(driver.step(5, false).is_empty());
}

#[test]
fn the_form_on_disk_is_the_one_of_before_status_lists() {
    let text = r#"{"generation":1,"issuer":"https://agents.example.com","trustDomain":"agents.example.com","longestToken":600,"rotate":["ES256","RS256"],"keys":[{"kid":"0000000000000000000000000000000000000000001","algorithm":"ES256","state":"Active","createdAt":"2027-01-15T08:00:00Z","activatedAt":"2027-01-15T08:00:00Z"},{"kid":"0000000000000000000000000000000000000000002","algorithm":"ES256","state":"Next","createdAt":"2027-01-15T08:00:00Z"},{"kid":"0000000000000000000000000000000000000000003","algorithm":"RS256","state":"Active","createdAt":"2027-01-15T08:00:00Z","activatedAt":"2027-01-15T08:00:00Z"},{"kid":"0000000000000000000000000000000000000000004","algorithm":"RS256","state":"Next","createdAt":"2027-01-15T08:00:00Z"}]}"#;
    let ring: KeyRing = serde_json::from_str(text).unwrap();
    assert_eq!(ring, old_ring());
    // The digest over a ring is made of its written form: written anew it may not differ in a letter.
    assert_eq!(serde_json::to_string(&ring).unwrap(), text);
    let text = serde_json::to_string(&Driver::new().ring).unwrap();
    assert_eq!(text.matches(r#""purpose":"StatusLists""#).count(), 2, "{text}");
}

#[test]
fn what_a_key_signs_is_remembered_by_the_longest() {
    let mut config = Configuration::new("https://agents.example.com", "agents.example.com");
    config.limits.max_token_lifetime = crate::api::Seconds(600);
    config.status_lists.lifetime = crate::api::Seconds(86_400);
    assert_eq!(Times::from(&config).max_token_lifetime, 86_400);
}

#[derive(Clone, Debug)]
enum Act {
    Pass(i64),
    /// Every trust ConfigMap now carries the ring of this moment.
    Publish,
    Keep,
    /// Works the steps out, makes the keys, and the write is lost.
    LoseWrite,
    Rotate,
    Revoke(usize),
    /// The leader's clock, or the next leader's, is off by this much.
    Clock(i64),
    Lifetime(u32),
}

fn act(wander: i64) -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (1..400i64).prop_map(Act::Pass),
        4 => Just(Act::Publish),
        6 => Just(Act::Keep),
        1 => Just(Act::LoseWrite),
        1 => Just(Act::Rotate),
        1 => (0..18usize).prop_map(Act::Revoke),
        1 => (0..=wander).prop_map(Act::Clock),
        1 => (60..900u32).prop_map(Act::Lifetime),
    ]
}

/// One life of a ring. `wander` bounds, in seconds, by how much clocks disagree over time.
fn live(acts: &[Act], wander: i64) {
    let mut driver = Driver::new();
    let (mut now, mut clock, mut carried) = (0i64, 0i64, 0u64);
    // Tokens as (key, true second of death); when each next key was truly out everywhere.
    let mut tokens: Vec<(String, i64)> = Vec::new();
    let mut out: HashMap<String, i64> = HashMap::new();
    let mut excused: Vec<String> = driver.ring.published_kids().map(str::to_owned).collect();
    excused.retain(|k| KeySlot::ALL.iter().all(|s| driver.ring.next(*s).is_none_or(|n| n.kid != *k)));
    let mut revoked: Vec<String> = Vec::new();
    let mut used_for: HashMap<String, KeySlot> = HashMap::new();
    for act in acts {
        let before = driver.ring.clone();
        match act {
            Act::Pass(seconds) => now += seconds,
            Act::Publish => {
                carried = driver.ring.generation;
                for kid in driver.ring.published_kids() {
                    out.entry(kid.to_owned()).or_insert(now);
                }
            }
            Act::Keep => {
                let published = carried == driver.ring.generation;
                driver.step(now + clock, published);
                let again = due(&driver.ring, &driver.times, at(now + clock), false);
                assert!(again.is_empty(), "{again:?}");
            }
            Act::LoseWrite => {
                driver.step(now + clock, false);
                driver.ring = before.clone();
            }
            Act::Rotate => driver.ask(&Request::Rotate, now + clock).unwrap(),
            Act::Revoke(n) => {
                let kid = driver.ring.published_kids().nth(*n).map(str::to_owned);
                if let Some(kid) = kid {
                    driver.ask(&Request::Revoke { kid: kid.clone() }, now + clock).unwrap();
                    revoked.push(kid);
                    // What took its place had no choice.
                    excused.extend(KeySlot::ALL.map(|s| driver.kid(s, Stage::Active)));
                }
            }
            Act::Clock(off) => clock = *off,
            Act::Lifetime(seconds) => {
                driver.times.max_token_lifetime = *seconds;
                driver.step(now + clock, false);
            }
        }
        let ring = &driver.ring;
        ring.validate().unwrap();
        assert!(ring.generation >= before.generation);
        assert!(*ring == before || ring.generation == before.generation + 1);
        for slot in KeySlot::ALL {
            let signer = ring.signing_kid(slot).unwrap().to_owned();
            assert_eq!(
                *used_for.entry(signer.clone()).or_insert(slot),
                slot,
                "{signer} signs for another slot"
            );
            if !excused.contains(&signer) {
                let since = out.get(&signer).copied().expect("it signs and was never out");
                assert!(now - since + wander >= i64::from(TIMES.publish_ahead), "{signer} signs too early");
                excused.push(signer.clone());
            }
            tokens.push((signer, now + clock + i64::from(driver.times.max_token_lifetime)));
        }
        tokens.retain(|(_, dies)| *dies >= now);
        for (kid, dies) in &tokens {
            assert!(
                ring.published_kids().any(|k| k == kid) || revoked.contains(kid),
                "{kid} is stranded: its token lives until {dies}, now {now}"
            );
            if revoked.contains(kid) {
                assert!(ring.is_revoked(kid), "{kid} is forgotten while its tokens live");
            }
        }
    }
}

/// However long it was neglected, a ring whose keys are published rotates on.
fn goes_on(acts: &[Act]) {
    let mut driver = Driver::new();
    let mut now = 0;
    for act in acts {
        match act {
            Act::Pass(seconds) => now += seconds,
            Act::Clock(off) => {
                driver.step(now + off, true);
            }
            _ => {
                driver.step(now, true);
            }
        }
    }
    let signers = KeySlot::ALL.map(|slot| driver.kid(slot, Stage::Active));
    for _ in 0..4 {
        now += 1000;
        driver.step(now, true);
    }
    for (slot, signer) in KeySlot::ALL.into_iter().zip(signers) {
        assert_ne!(driver.kid(slot, Stage::Active), signer);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_interleaving_strands_a_token(acts in prop::collection::vec(act(0), 1..200)) {
        live(&acts, 0);
    }

    #[test]
    fn nor_do_clocks_that_are_five_minutes_off(acts in prop::collection::vec(act(300), 1..200)) {
        live(&acts, 300);
    }

    #[test]
    fn no_interleaving_stops_the_rotation(acts in prop::collection::vec(act(300), 1..60)) {
        goes_on(&acts);
    }
}

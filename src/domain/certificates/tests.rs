use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::api::Seconds;

const TIMES: Times = Times { authority: 1000, serving: 300, publish_ahead: 50 };

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn id(n: usize) -> String {
    format!("{n:032x}")
}

fn subject(name: &str) -> Subject {
    Subject { dns_names: vec![name.to_owned()], ip_addresses: Vec::new() }
}

/// Authorities with what they signed and what is served.
struct Driver {
    all: Authorities,
    made: usize,
    serving: Option<ServingRecord>,
    wanted: Subject,
    /// Every certificate ever issued, as (authority, expiry).
    issued: Vec<(String, Timestamp)>,
}

impl Driver {
    fn new() -> Self {
        let mut driver = Self {
            all: Authorities::empty(0),
            made: 0,
            serving: None,
            wanted: subject("a.example.com"),
            issued: Vec::new(),
        };
        driver.keep(0, false);
        driver
    }

    fn advance(&mut self, steps: &[Step], now: i64) {
        let ids: Vec<_> = steps
            .iter()
            .filter(|s| matches!(s, Step::Generate { .. }))
            .map(|_| {
                self.made += 1;
                id(self.made)
            })
            .collect();
        self.all = self.all.advance(steps, &ids, at(now)).unwrap();
    }

    /// The steps of one batch, taken.
    fn step(&mut self, now: i64, published: bool) -> Vec<Step> {
        let steps = due(&self.all, self.serving.as_ref(), &TIMES, at(now), published);
        if !steps.is_empty() {
            self.advance(&steps, now);
        }
        steps
    }

    fn sign(&mut self, now: i64) -> Option<ServingRecord> {
        let signing = self.all.signing(self.serving.as_ref(), &self.wanted, &TIMES, at(now))?;
        self.advance(&[signing.step()], now);
        self.issued.push((signing.authority.clone(), signing.not_after));
        Some(ServingRecord {
            authority: signing.authority,
            subject: self.wanted.clone(),
            issued_at: at(now),
            not_after: signing.not_after,
        })
    }

    /// A whole turn: every step that is due, then the certificate.
    fn keep(&mut self, now: i64, published: bool) {
        let carried = self.all.generation;
        for _ in 0..4 {
            if self.step(now, published && self.all.generation == carried).is_empty() {
                break;
            }
        }
        let left = due(&self.all, self.serving.as_ref(), &TIMES, at(now), false);
        assert!(left.is_empty(), "{left:?}");
        if let Some(new) = self.sign(now) {
            self.serving = Some(new);
        }
        let again = self.all.signing(self.serving.as_ref(), &self.wanted, &TIMES, at(now));
        assert_eq!(again, None);
    }

    fn states(&self) -> Vec<(&str, Stage)> {
        self.all.authorities.iter().map(|a| (a.id.as_str(), a.state)).collect()
    }

    fn serves(&self) -> (&str, i64) {
        let serving = self.serving.as_ref().unwrap();
        (&serving.authority, serving.not_after.duration_since(at(0)).as_secs())
    }
}

#[test]
fn an_authority_comes_serves_and_goes() {
    let (one, two, three) = (id(1), id(2), id(3));
    let mut driver = Driver::new();
    assert_eq!(driver.states(), [(one.as_str(), Stage::Active)]);
    assert_eq!(driver.serves(), (one.as_str(), 300));
    // Two thirds of the certificate's life.
    driver.keep(199, true);
    assert_eq!(driver.serves(), (one.as_str(), 300));
    driver.keep(200, true);
    assert_eq!(driver.serves(), (one.as_str(), 500));
    // Half of the authority's life.
    driver.keep(499, true);
    assert_eq!(driver.states().len(), 1);
    driver.keep(500, true);
    assert_eq!(driver.states(), [(one.as_str(), Stage::Active), (two.as_str(), Stage::Next)]);
    // Three quarters pass and it is not known to be out.
    driver.keep(760, false);
    assert_eq!(driver.states(), [(one.as_str(), Stage::Active), (two.as_str(), Stage::Next)]);
    assert_eq!(driver.serves(), (one.as_str(), 1000), "no certificate outlives its authority");
    assert_eq!(driver.all.promotes_at(&TIMES), None);
    driver.keep(770, true);
    assert_eq!(driver.all.promotes_at(&TIMES), Some(at(820)));
    driver.keep(819, true);
    assert_eq!(driver.all.active().unwrap().id, one);
    driver.keep(820, true);
    assert_eq!(driver.states(), [(one.as_str(), Stage::Retired), (two.as_str(), Stage::Active)]);
    // Its certificate is served for two thirds of its life, and it stays until the last one has expired.
    assert_eq!(driver.serves(), (one.as_str(), 1000));
    driver.keep(920, true);
    assert_eq!(driver.serves(), (two.as_str(), 1220));
    driver.keep(1299, false);
    assert_eq!(driver.states().len(), 3);
    driver.keep(1300, false);
    assert_eq!(driver.states(), [(two.as_str(), Stage::Active), (three.as_str(), Stage::Next)]);
}

#[test]
fn a_certificate_is_issued_anew_for_every_reason() {
    let mut driver = Driver::new();
    let issues = |driver: &Driver, now: i64| {
        driver.all.signing(driver.serving.as_ref(), &driver.wanted, &TIMES, at(now)).is_some()
    };
    assert!(!issues(&driver, 1));
    driver.wanted.ip_addresses.push("192.0.2.1".parse().unwrap());
    assert!(issues(&driver, 1), "another address");
    driver.wanted = subject("b.example.com");
    assert!(issues(&driver, 1), "another name");
    driver.wanted = subject("a.example.com");
    let good = driver.serving.clone();
    driver.serving = None;
    assert!(issues(&driver, 1), "none");
    driver.serving = good.clone().map(|s| ServingRecord { authority: id(77), ..s });
    assert!(issues(&driver, 1), "of an authority that is gone");
    driver.serving = good.clone().map(|s| ServingRecord { issued_at: at(400), not_after: at(700), ..s });
    assert!(issues(&driver, 1), "of a clock far ahead: it is not valid yet");
    driver.serving = good;
    assert!(!issues(&driver, 1));
}

#[test]
fn one_that_is_bound_by_its_authority_is_not_issued_again_and_again() {
    let mut driver = Driver::new();
    driver.keep(850, false);
    assert_eq!(driver.serves().1, 1000);
    for now in 851..1000 {
        let before = driver.all.generation;
        driver.keep(now, false);
        assert_eq!(driver.all.generation, before, "at {now}");
    }
    // It has expired, and the next one was never known to be out: nothing else can sign.
    driver.keep(1000, false);
    assert_eq!(driver.serves(), (id(2).as_str(), 1300));
    assert_eq!(driver.all.active().unwrap().published_at, None);
}

#[test]
fn a_long_sleep_ends_with_a_new_authority() {
    let mut driver = Driver::new();
    driver.keep(600, true);
    driver.keep(5000, false);
    // The first one stays until what it signed is no longer served.
    driver.keep(5001, false);
    assert_eq!(driver.states(), [(id(3).as_str(), Stage::Active)], "the others are dead");
    assert_eq!(driver.serves(), (id(3).as_str(), 5300));
}

#[test]
fn what_may_not_be_used_is_refused() {
    let mut driver = Driver::new();
    driver.keep(500, false);
    let good = driver.all;
    let spoil = |change: fn(&mut Authorities)| {
        let mut all = good.clone();
        change(&mut all);
        all.validate().unwrap_err()
    };
    assert_eq!(spoil(|a| a.generation = 0), AuthoritiesFault::Generation);
    assert_eq!(spoil(|a| a.authorities[0].id = "../x".to_owned()), AuthoritiesFault::Id("../x".to_owned()));
    assert_eq!(spoil(|a| a.authorities[1].id = id(1)), AuthoritiesFault::Twice(id(1)));
    assert!(matches!(spoil(|a| a.authorities.clear()), AuthoritiesFault::Count { count: 0, .. }));
    assert!(matches!(
        spoil(|a| a.authorities[1].state = Stage::Active),
        AuthoritiesFault::Count { state: Stage::Active, count: 2 }
    ));
    for change in [
        (|a| a.authorities[0].activated_at = None) as fn(&mut Authorities),
        |a| a.authorities[0].activated_at = Some(at(-1)),
        |a| a.authorities[0].last_expiry = Some(at(1001)),
        |a| a.authorities[0].not_after = at(0),
    ] {
        assert_eq!(spoil(change), AuthoritiesFault::Times(id(1)));
    }
    let step = |step: Step| good.advance(&[step], &[], at(500)).unwrap_err();
    assert_eq!(step(Step::Drop { id: id(1) }), AuthoritiesFault::Step(id(1)), "it signs");
    assert_eq!(step(Step::Promote { id: id(1) }), AuthoritiesFault::Step(id(1)));
    assert_eq!(step(Step::Sign { id: id(2), not_after: at(1) }), AuthoritiesFault::Step(id(2)));
    let generate = Step::Generate { as_active: true, not_after: at(9) };
    assert_eq!(step(generate), AuthoritiesFault::NoNewAuthority);
}

#[test]
fn the_form_on_disk() {
    let mut driver = Driver::new();
    driver.keep(500, true);
    let text = serde_json::to_string(&driver.all).unwrap();
    assert!(text.contains(r#""state":"Active","createdAt":"2027-01-15T08:00:00Z""#), "{text}");
    assert_eq!(serde_json::from_str::<Authorities>(&text).unwrap(), driver.all);
    assert!(
        serde_json::from_str::<Authorities>(&text.replace("\"generation\"", "\"x\":1,\"generation\""))
            .is_err()
    );
    let mut config = Configuration::new("https://agents.example.com", "agents.example.com");
    config.serving.certificates.authority = Seconds(77);
    config.serving.dns_names = vec!["more.example.com".to_owned()];
    assert_eq!(Times::from(&config).authority, 77);
    let wanted = ["agents.example.com", "agentid.sys.svc", "more.example.com"];
    assert_eq!(Subject::of(&config, "sys").dns_names, wanted);
}

#[derive(Clone, Debug)]
enum Act {
    Pass(i64),
    /// Every trust ConfigMap now carries the authorities of this moment.
    Publish,
    Keep,
    /// Notes the certificate and fails to write it.
    LoseCertificate,
    /// Takes the steps, and the write is lost.
    LoseWrite,
    /// Somebody deletes what is served.
    Delete,
    Rename(u8),
    /// The next leader's clock is off by this much.
    Clock(i64),
}

fn act(wander: i64) -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (1..150i64).prop_map(Act::Pass),
        4 => Just(Act::Publish),
        8 => Just(Act::Keep),
        1 => Just(Act::LoseCertificate),
        1 => Just(Act::LoseWrite),
        1 => Just(Act::Delete),
        1 => (0..3u8).prop_map(Act::Rename),
        1 => (0..=wander).prop_map(Act::Clock),
    ]
}

fn live(acts: &[Act], wander: i64) {
    let mut driver = Driver::new();
    let (mut now, mut clock, mut carried) = (0i64, 0i64, 0u64);
    // When each authority was truly out everywhere.
    let mut out: HashMap<String, i64> = HashMap::new();
    for act in acts {
        let before = driver.all.clone();
        let seen = now + clock;
        match act {
            Act::Pass(seconds) => now += seconds,
            Act::Publish => {
                carried = driver.all.generation;
                for authority in &driver.all.authorities {
                    out.entry(authority.id.clone()).or_insert(now);
                }
            }
            Act::Keep => {
                driver.keep(seen, carried == driver.all.generation);
                let serving = driver.serving.as_ref().unwrap();
                assert!(serving.not_after > at(seen), "what is served has expired");
                assert_eq!(serving.subject, driver.wanted);
            }
            Act::LoseCertificate => drop(driver.sign(seen)),
            Act::LoseWrite => {
                driver.step(seen, false);
                driver.all = before.clone();
            }
            Act::Delete => driver.serving = None,
            Act::Rename(n) => driver.wanted = subject(&format!("{n}.example.com")),
            Act::Clock(off) => clock = *off,
        }
        let all = &driver.all;
        all.validate().unwrap();
        assert!(all.generation >= before.generation);
        for (authority, expiry) in &driver.issued {
            if *expiry > at(seen) {
                let record = all.find(authority).expect("published as long as what it signed lives");
                assert!(*expiry <= record.not_after, "it outlives its authority");
            }
        }
        if let Some(serving) = &driver.serving {
            assert!(all.find(&serving.authority).is_some(), "what is served has no authority");
        }
        let (was, is) = (before.active().unwrap(), all.active().unwrap());
        if was.id != is.id && was.not_after > at(seen) {
            let since = out.get(&is.id).expect("it signs and was never out");
            assert!(now - since + wander >= i64::from(TIMES.publish_ahead), "{} signs too early", is.id);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_interleaving_strands_a_certificate(acts in prop::collection::vec(act(0), 1..200)) {
        live(&acts, 0);
    }

    #[test]
    fn nor_do_clocks_that_are_off(acts in prop::collection::vec(act(40), 1..200)) {
        live(&acts, 40);
    }

    #[test]
    fn a_tended_installation_rolls_over_for_ever(pause in 1..40i64) {
        let mut driver = Driver::new();
        let (mut now, mut rolled) = (0, 0);
        let (mut signs, mut carried) = (id(1), driver.all.generation);
        while now < 10_000 {
            driver.keep(now, carried == driver.all.generation);
            carried = driver.all.generation;
            prop_assert!(driver.all.authorities.len() <= 4);
            let active = driver.all.active().unwrap();
            if active.id != signs {
                prop_assert!(active.published_at.is_some(), "it had time enough");
                rolled += 1;
                signs = active.id.clone();
            }
            now += pause;
        }
        prop_assert!(rolled >= 10, "only {rolled} authorities in ten lives");
    }
}

//! The steps of the authorities: which are due, how they are taken, and when a certificate is to be issued.
//!
//! Invariant: every stamp of an authority is at or after the stamp before it, so a clock that was set back
//! neither shortens a wait nor makes a step happen twice.

use jiff::Timestamp;

use super::{
    Authorities, AuthoritiesFault, AuthorityRecord, ServingRecord, Stage, Subject, Times, after, part,
};

/// By how many seconds clocks may be off: a certificate may seem to be issued in the future by as much, and an
/// authority stays by as much longer than what it signed.
const CLOCKS_DIFFER: i64 = 300;

/// One step of the authorities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A new authority; the caller makes it and gives its id.
    Generate {
        /// It signs at once: nothing else may. An active one, which can only have expired, retires.
        as_active: bool,
        /// When its certificate expires.
        not_after: Timestamp,
    },
    /// Every trust ConfigMap carries this next authority.
    MarkPublished {
        /// The next authority.
        id: String,
    },
    /// The next authority starts to sign; the active one retires.
    Promote {
        /// The next authority.
        id: String,
    },
    /// The active authority is about to issue a certificate.
    Sign {
        /// The active authority.
        id: String,
        /// When the certificate expires.
        not_after: Timestamp,
    },
    /// The last certificate of a retired authority has expired, or a next one has without ever having signed.
    Drop {
        /// The authority.
        id: String,
    },
}

/// A certificate to be issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signing {
    /// The id of the active authority.
    pub authority: String,
    /// When the certificate is to expire, in whole seconds.
    pub not_after: Timestamp,
}

impl Signing {
    /// The step to be written before the certificate is issued.
    #[must_use]
    pub fn step(&self) -> Step {
        Step::Sign { id: self.authority.clone(), not_after: self.not_after }
    }
}

/// The steps that are due at `now`. `serving` is what is served, as far as it is known to be ours; `published`
/// says that every trust ConfigMap carries these very authorities. After a few batches there is none left.
#[must_use]
pub fn due(
    all: &Authorities,
    serving: Option<&ServingRecord>,
    times: &Times,
    now: Timestamp,
    published: bool,
) -> Vec<Step> {
    let lives = |a: &&AuthorityRecord| a.not_after > now;
    let generate = |as_active| Step::Generate {
        as_active,
        not_after: whole_second(after(now, i64::from(times.authority))),
    };
    let mut steps = Vec::new();
    match (all.active().filter(lives), all.next().filter(lives)) {
        // Nothing else can sign: the next one does, known to be out or not.
        (None, Some(next)) => steps.push(Step::Promote { id: next.id.clone() }),
        (None, None) => steps.push(generate(true)),
        (Some(active), None) => {
            if active.part(1, 2) <= now {
                steps.push(generate(false));
            }
        }
        (Some(_), Some(next)) if next.published_at.is_none() => {
            if published {
                steps.push(Step::MarkPublished { id: next.id.clone() });
            }
        }
        (Some(_), Some(next)) => {
            if all.promotes_at(times).is_some_and(|at| at <= now) {
                steps.push(Step::Promote { id: next.id.clone() });
            }
        }
    }
    let dead = |a: &&AuthorityRecord| match a.state {
        Stage::Next => !lives(a),
        Stage::Active => false,
        Stage::Retired => {
            let over = a.last_expiry.is_none_or(|last| after(last, CLOCKS_DIFFER) <= now);
            over && serving.is_none_or(|s| s.authority != a.id)
        }
    };
    let dropped = all.authorities.iter().filter(dead).map(|a| Step::Drop { id: a.id.clone() });
    // A dead next one goes before another is made.
    steps.splice(0..0, dropped);
    steps
}

impl Authorities {
    /// When the next authority starts to sign; absent as long as it is not known to be out everywhere. An
    /// active one that expires is replaced at once.
    #[must_use]
    pub fn promotes_at(&self, times: &Times) -> Option<Timestamp> {
        let safe = after(self.next()?.published_at?, i64::from(times.publish_ahead));
        self.active().map(|a| a.part(3, 4).max(safe))
    }

    /// The certificate to be issued at `now` to take the place of `serving`, if it is to be replaced: because two
    /// thirds of its life have passed, it is for others than `wanted`, its authority is not one of these, or
    /// there is none.
    #[must_use]
    pub fn signing(
        &self,
        serving: Option<&ServingRecord>,
        wanted: &Subject,
        times: &Times,
        now: Timestamp,
    ) -> Option<Signing> {
        let active = self.active()?;
        let good = serving.is_some_and(|s| {
            let signed = self.find(&s.authority).is_some_and(|a| a.state != Stage::Next);
            // A new one would live no longer.
            let last = s.authority == active.id && s.not_after >= active.not_after;
            let fresh = now < part(s.issued_at, s.not_after, 2, 3) || last;
            let begun = s.issued_at <= after(now, CLOCKS_DIFFER);
            s.subject == *wanted && signed && fresh && begun && s.not_after > now
        });
        let not_after = whole_second(after(now, i64::from(times.serving)).min(active.not_after));
        (!good && not_after > now).then(|| Signing { authority: active.id.clone(), not_after })
    }

    /// The authorities after a batch of steps, one generation on. `new_ids` are the ids of those made for the
    /// [`Step::Generate`]s, in their order.
    ///
    /// # Errors
    /// [`AuthoritiesFault`] for a step that does not fit, and for a batch whose end may not be used.
    pub fn advance(
        &self,
        steps: &[Step],
        new_ids: &[String],
        now: Timestamp,
    ) -> Result<Self, AuthoritiesFault> {
        let mut all = self.clone();
        let mut fresh = new_ids.iter();
        for step in steps {
            all.take(step, now, &mut fresh)?;
        }
        all.generation += 1;
        all.validate()?;
        Ok(all)
    }

    fn take<'i>(
        &mut self,
        step: &Step,
        now: Timestamp,
        fresh: &mut impl Iterator<Item = &'i String>,
    ) -> Result<(), AuthoritiesFault> {
        match step {
            Step::Generate { as_active, not_after } => {
                let id = fresh.next().ok_or(AuthoritiesFault::NoNewAuthority)?.clone();
                if *as_active {
                    self.retire(now);
                }
                self.authorities.push(AuthorityRecord {
                    id,
                    state: if *as_active { Stage::Active } else { Stage::Next },
                    created_at: now,
                    not_after: *not_after,
                    published_at: None,
                    activated_at: as_active.then_some(now),
                    retired_at: None,
                    last_expiry: None,
                });
            }
            Step::MarkPublished { id } => {
                let next = self.held(id, Stage::Next)?;
                next.published_at = Some(now.max(next.created_at));
            }
            Step::Promote { id } => {
                self.held(id, Stage::Next)?;
                self.retire(now);
                let next = self.held(id, Stage::Next)?;
                next.state = Stage::Active;
                next.activated_at = Some(now.max(next.published_at.unwrap_or(next.created_at)));
            }
            Step::Sign { id, not_after } => {
                let active = self.held(id, Stage::Active)?;
                active.last_expiry = active.last_expiry.max(Some(*not_after));
            }
            Step::Drop { id } => {
                if self.find(id).is_none_or(|a| a.state == Stage::Active) {
                    return Err(AuthoritiesFault::Step(id.clone()));
                }
                self.authorities.retain(|a| a.id != *id);
            }
        }
        Ok(())
    }

    fn retire(&mut self, now: Timestamp) {
        for old in self.authorities.iter_mut().filter(|a| a.state == Stage::Active) {
            old.state = Stage::Retired;
            old.retired_at = old.activated_at.map(|at| at.max(now));
        }
    }

    fn held(&mut self, id: &str, state: Stage) -> Result<&mut AuthorityRecord, AuthoritiesFault> {
        let found = self.authorities.iter_mut().find(|a| a.id == id && a.state == state);
        found.ok_or_else(|| AuthoritiesFault::Step(id.chars().take(32).collect()))
    }
}

/// Certificates know no fractions of a second (RFC 5280 §4.1.2.5).
fn whole_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

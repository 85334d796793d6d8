//! The steps of the ring: which are due, what a person may ask for, and how they are taken.
//!
//! Invariant: every stamp of a key is at or after the stamp before it, so a clock that was set back neither
//! shortens a wait nor makes a step happen twice.

use jiff::Timestamp;
use thiserror::Error;

use super::{KeyRecord, KeyRing, KeySlot, RevokedKey, RingFault, Stage, Times, validate::is_kid};

/// One step of the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A new key; the caller makes it and gives its id.
    Generate {
        /// What it signs for.
        slot: KeySlot,
        /// It signs at once: nobody can have cached a key set that lacks it, or nothing else may sign.
        as_active: bool,
    },
    /// Every trust ConfigMap carries these next keys.
    MarkPublished {
        /// The next keys.
        kids: Vec<String>,
    },
    /// A next key starts to sign; the active one of its slot, if there is one, retires.
    Promote {
        /// The next key.
        kid: String,
    },
    /// The last token of a retired key has died.
    Drop {
        /// The retired key.
        kid: String,
    },
    /// A key is out at once, whatever its state.
    Revoke {
        /// The key.
        kid: String,
    },
    /// The last token of a revoked key would have died.
    Forget {
        /// The revoked key.
        kid: String,
    },
    /// Every slot is to rotate as soon as it is safe.
    Rotate,
    /// Tokens may now live this long.
    Lengthen {
        /// Seconds.
        longest_token: u32,
    },
}

/// What a person asks of the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Rotate every slot as soon as its next key has been out long enough.
    Rotate,
    /// Take this key out at once.
    Revoke {
        /// The key.
        kid: String,
    },
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RequestFault {
    /// No such key in the ring.
    #[error("no key {0} in the ring: `agentid keys status` lists them")]
    UnknownKey(String),
    /// It was revoked before.
    #[error("the key {kid} was revoked at {at:.0} already")]
    AlreadyRevoked {
        /// The key.
        kid: String,
        /// When.
        at: Timestamp,
    },
}

/// The steps that are due at `now`. `published` says that every trust ConfigMap carries the key set of this
/// very ring. Empty for a ring that has just advanced by them.
#[must_use]
pub fn due(ring: &KeyRing, times: &Times, now: Timestamp, published: bool) -> Vec<Step> {
    let mut steps = Vec::new();
    if times.max_token_lifetime > ring.longest_token {
        steps.push(Step::Lengthen { longest_token: times.max_token_lifetime });
    }
    let mut out = Vec::new();
    for slot in KeySlot::ALL {
        let ahead = Step::Generate { slot, as_active: false };
        match (ring.active(slot), ring.next(slot)) {
            // Its active key was revoked: the next one signs now, however new it is.
            (None, Some(next)) => steps.extend([Step::Promote { kid: next.kid.clone() }, ahead]),
            (None, None) => steps.extend([Step::Generate { slot, as_active: true }, ahead]),
            (Some(_), None) => steps.push(ahead),
            (Some(_), Some(next)) if next.published_at.is_none() => {
                if published {
                    out.push(next.kid.clone());
                }
            }
            (Some(_), Some(next)) => {
                if ring.promotes_at(slot, times).is_some_and(|at| at <= now) {
                    steps.extend([Step::Promote { kid: next.kid.clone() }, ahead]);
                }
            }
        }
    }
    if !out.is_empty() {
        steps.push(Step::MarkPublished { kids: out });
    }
    let dead = |at: Option<Timestamp>| at.is_some_and(|at| ring.dies_at(at, times) <= now);
    steps.extend(ring.keys.iter().filter(|k| dead(k.retired_at)).map(|k| Step::Drop { kid: k.kid.clone() }));
    steps.extend(
        ring.revoked.iter().filter(|r| dead(Some(r.at))).map(|r| Step::Forget { kid: r.kid.clone() }),
    );
    steps
}

/// The steps that carry out a request, with whatever else is due then.
///
/// # Errors
/// [`RequestFault`] where there is no such key to revoke.
pub fn ask(
    ring: &KeyRing,
    request: &Request,
    times: &Times,
    now: Timestamp,
    published: bool,
) -> Result<Vec<Step>, RequestFault> {
    let first = match request {
        Request::Rotate => Step::Rotate,
        Request::Revoke { kid } => {
            if let Some(revoked) = ring.revoked.iter().find(|r| r.kid == *kid) {
                return Err(RequestFault::AlreadyRevoked { kid: kid.clone(), at: revoked.at });
            }
            if !ring.keys.iter().any(|k| k.kid == *kid) {
                return Err(RequestFault::UnknownKey(kid.chars().take(64).collect()));
            }
            Step::Revoke { kid: kid.clone() }
        }
    };
    let mut then = ring.clone();
    let mut steps = Vec::new();
    if then.take(&first, now, &mut std::iter::empty()).is_ok() {
        steps = due(&then, times, now, published);
    }
    steps.insert(0, first);
    Ok(steps)
}

impl KeyRing {
    /// The ring after a batch of steps, one generation on. `new_kids` are the ids of the keys made for the
    /// [`Step::Generate`]s, in their order.
    ///
    /// # Errors
    /// [`RingFault`] for a step that does not fit this ring, and for a batch whose end is no valid ring.
    pub fn advance(&self, steps: &[Step], new_kids: &[String], now: Timestamp) -> Result<Self, RingFault> {
        let mut ring = self.clone();
        let mut fresh = new_kids.iter();
        for step in steps {
            ring.take(step, now, &mut fresh)?;
        }
        ring.generation += 1;
        ring.validate()?;
        Ok(ring)
    }

    /// Remembers keys that no ring holds any more as revoked, so that what they signed is minted again. What
    /// is no key id is left out.
    pub fn disown(&mut self, kids: impl IntoIterator<Item = String>, now: Timestamp) {
        for kid in kids {
            if is_kid(&kid) && !self.is_revoked(&kid) && self.published_kids().all(|k| k != kid) {
                self.revoked.push(RevokedKey { kid, at: now });
            }
        }
    }

    fn take<'k>(
        &mut self,
        step: &Step,
        now: Timestamp,
        fresh: &mut impl Iterator<Item = &'k String>,
    ) -> Result<(), RingFault> {
        match step {
            Step::Generate { slot, as_active } => {
                let kid = fresh.next().ok_or(RingFault::NoNewKey)?.clone();
                self.keys.push(KeyRecord {
                    kid,
                    algorithm: slot.algorithm(),
                    purpose: slot.purpose(),
                    state: if *as_active { Stage::Active } else { Stage::Next },
                    created_at: now,
                    published_at: None,
                    activated_at: as_active.then_some(now),
                    retired_at: None,
                });
            }
            Step::MarkPublished { kids } => {
                for kid in kids {
                    let key = self.held(kid, Stage::Next)?;
                    key.published_at = Some(now.max(key.created_at));
                }
            }
            Step::Promote { kid } => {
                let key = self.held(kid, Stage::Next)?;
                key.state = Stage::Active;
                let (slot, before) = (key.slot(), key.published_at.unwrap_or(key.created_at));
                key.activated_at = Some(now.max(before));
                for old in &mut self.keys {
                    if old.slot() == slot && old.state == Stage::Active && old.kid != *kid {
                        old.state = Stage::Retired;
                        old.retired_at = old.activated_at.map(|at| at.max(now));
                    }
                }
                self.rotate.retain(|s| *s != slot);
            }
            Step::Drop { kid } => {
                self.held(kid, Stage::Retired)?;
                self.keys.retain(|k| k.kid != *kid);
            }
            Step::Revoke { kid } => {
                let at = self.keys.iter().position(|k| k.kid == *kid);
                let key = self.keys.remove(at.ok_or_else(|| RingFault::Step(kid.clone()))?);
                // Its tokens may carry later times than a clock that was set back.
                let last = key.retired_at.or(key.activated_at).map_or(now, |at| at.max(now));
                self.revoked.push(RevokedKey { kid: key.kid, at: last });
            }
            Step::Forget { kid } => self.revoked.retain(|r| r.kid != *kid),
            Step::Rotate => self.rotate = KeySlot::ALL.to_vec(),
            Step::Lengthen { longest_token } => self.longest_token = self.longest_token.max(*longest_token),
        }
        Ok(())
    }

    fn held(&mut self, kid: &str, state: Stage) -> Result<&mut KeyRecord, RingFault> {
        let found = self.keys.iter_mut().find(|k| k.kid == kid && k.state == state);
        found.ok_or_else(|| RingFault::Step(kid.chars().take(64).collect()))
    }
}

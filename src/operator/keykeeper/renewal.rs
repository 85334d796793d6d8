//! When a new ring may take the place of one that can't be used, without a person's asking for it. Pure.
//!
//! Invariant: not while a token may live that the old ring signed, as far as Secrets and the Lease tell. Those in Secrets are
//! seen; those that were bought on demand are not, and whoever sells them may go on with a ring that is still there.

use std::fmt;

use jiff::{SignedDuration, Timestamp};

use super::LiveTokens;
use crate::cluster::keystore::KeyringError;

/// A verifier's leeway on `exp`.
const LEEWAY: SignedDuration = SignedDuration::from_secs(60);
/// How long a ring that this process has used must be gone: a token that it signed last may still be on its way here,
/// and a backup tool deletes before it restores.
const GRACE: SignedDuration = SignedDuration::from_secs(30);

/// What is known of a ring that can't be used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loss {
    /// When this process last had a good one.
    pub(super) used: Option<Timestamp>,
    /// When it was first seen that it can't be used.
    pub(super) seen: Timestamp,
    /// Whether there was one: a generation is noted.
    pub(super) noted: bool,
    /// The longest lifetime of a token that is bought on demand.
    pub(super) on_demand: SignedDuration,
}

/// When a new ring is made unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renewal {
    /// It can't be told yet.
    Unknown,
    /// Never.
    Never,
    /// From then on.
    From(Timestamp),
}

impl Renewal {
    pub(super) fn of(fault: &KeyringError, living: &LiveTokens, loss: &Loss) -> Self {
        let LiveTokens::Known { kids, latest_expiry, agents } = living else { return Self::Unknown };
        // A ring that is there and speaks for another issuer may be in use: a slip of the pen must not end it.
        let in_use = *agents && !matches!(fault, KeyringError::Missing);
        if in_use || *latest_expiry == Some(Timestamp::MAX) || (latest_expiry.is_none() && !kids.is_empty()) {
            return Self::Never;
        }
        let bought = (*agents && loss.noted).then_some((loss.seen, loss.on_demand + LEEWAY));
        let ends = [latest_expiry.map(|at| (at, LEEWAY)), loss.used.map(|at| (at, GRACE)), bought];
        let ends =
            ends.into_iter().flatten().map(|(at, more)| at.checked_add(more).unwrap_or(Timestamp::MAX));
        Self::From(ends.max().unwrap_or(Timestamp::MIN))
    }

    /// Whether the time has come.
    pub(super) fn is_due(self, now: Timestamp) -> bool {
        matches!(self, Self::From(at) if at < now)
    }
}

impl fmt::Display for Renewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("which tokens live is not known yet"),
            Self::Never => f.write_str("tokens may live: no new ring is made unasked"),
            Self::From(at) if *at == Timestamp::MIN => f.write_str("no token lives: a new ring is made now"),
            Self::From(at) => write!(f, "a new ring is made after {at:.0}, when no token lives any more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    /// The last expiry of what is in Secrets, and whether there are agents.
    fn known(expiry: Option<i64>, agents: bool) -> LiveTokens {
        let kids = expiry.map(|_| "k".to_owned()).into_iter().collect::<BTreeSet<_>>();
        LiveTokens::Known { kids, latest_expiry: expiry.map(at), agents }
    }

    fn readdressed() -> KeyringError {
        KeyringError::Readdressed { what: "issuer", ring: "a".to_owned(), configured: "b".to_owned() }
    }

    #[test]
    fn no_silent_new_ring_while_a_token_may_live() {
        let loss = |used: Option<i64>, noted| Loss {
            used: used.map(at),
            seen: at(10),
            noted,
            on_demand: SignedDuration::from_secs(600),
        };
        let (never, now) = (Renewal::Never, Renewal::From(Timestamp::MIN));
        let from = |second| Renewal::From(at(second));
        let rows = [
            ("a new installation does not wait", known(None, false), loss(None, false), now, now),
            ("nor one with agents that wait for it", known(None, true), loss(None, false), now, never),
            ("a token in a Secret", known(Some(5), true), loss(None, false), from(65), never),
            ("its agent is gone", known(Some(5), false), loss(None, true), from(65), from(65)),
            ("one that may not be seen yet", known(None, false), loss(Some(8), true), from(38), from(38)),
            ("agents may have bought", known(None, true), loss(Some(8), true), from(670), never),
            ("after a restart as well", known(None, true), loss(None, true), from(670), never),
            ("the longest counts", known(Some(900), true), loss(Some(8), true), from(960), never),
            ("nobody could buy", known(None, false), loss(None, true), now, now),
        ];
        for (what, living, loss, missing, other) in rows {
            assert_eq!(Renewal::of(&KeyringError::Missing, &living, &loss), missing, "{what}");
            assert_eq!(Renewal::of(&readdressed(), &living, &loss), other, "{what}, of another issuer");
        }
        let of = |living| Renewal::of(&KeyringError::Missing, &living, &loss(None, true));
        assert_eq!(of(LiveTokens::Unknown), Renewal::Unknown);
        let endless =
            LiveTokens::Known { kids: BTreeSet::new(), latest_expiry: Some(Timestamp::MAX), agents: false };
        assert_eq!(of(endless), never, "a token without a known end");
        let kids = BTreeSet::from(["k".to_owned()]);
        assert_eq!(of(LiveTokens::Known { kids, latest_expiry: None, agents: false }), never, "likewise");
        assert!(!Renewal::Unknown.is_due(at(0)) && !never.is_due(at(0)) && now.is_due(at(0)));
        assert!(!from(5).is_due(at(5)) && from(5).is_due(at(6)));
    }
}

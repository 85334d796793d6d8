//! When the Secrets are to be renewed and when they expire, counted by the second.
//!
//! Invariant: what is asked costs the number of seconds in which something is overdue, not the number of Secrets.

use std::collections::BTreeMap;
use std::ops::RangeToInclusive;

use jiff::{SignedDuration, Timestamp};

use super::World;
use crate::domain::Credentials;

/// How the renewals stand. Secrets without tokens are not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Renewals {
    /// Secrets whose time to be renewed has come.
    pub due: u64,
    /// Of these, those whose time came longer ago than was asked for.
    pub late: u64,
    /// Secrets of which a token has expired.
    pub expired: u64,
    /// When the first Secret is, or was, to be renewed.
    pub first_due: Option<Timestamp>,
    /// When the first token in any Secret expires, or has.
    pub first_expiry: Option<Timestamp>,
}

/// How many Secrets are to be renewed, and how many expire, in each second.
#[derive(Debug, Default)]
pub(super) struct Instants {
    renew: BTreeMap<i64, u64>,
    expire: BTreeMap<i64, u64>,
}

impl Instants {
    /// Counts a Secret in, or out.
    pub(super) fn count(&mut self, secret: &Credentials, there: bool) {
        if secret.tokens.is_empty() {
            return;
        }
        let instants = [(&mut self.renew, secret.renew_at), (&mut self.expire, secret.expires_at)];
        for (counts, at) in instants {
            let at = at.as_second();
            let n = counts.entry(at).or_default();
            *n = if there { *n + 1 } else { n.saturating_sub(1) };
            if *n == 0 {
                counts.remove(&at);
            }
        }
    }
}

impl World {
    /// How the renewals stand; `late` says from when on one is late.
    #[must_use]
    pub fn renewals(&self, now: Timestamp, late: SignedDuration) -> Renewals {
        let Instants { renew, expire } = &self.instants;
        let second = now.as_second();
        let sum = |counts: &BTreeMap<i64, u64>, until: RangeToInclusive<i64>| {
            counts.range(until).map(|(_, n)| n).sum()
        };
        Renewals {
            due: sum(renew, ..=second),
            late: sum(renew, ..=second.saturating_sub(late.as_secs()).saturating_sub(1)),
            expired: sum(expire, ..=second),
            first_due: first(renew),
            first_expiry: first(expire),
        }
    }
}

fn first(counts: &BTreeMap<i64, u64>) -> Option<Timestamp> {
    counts.first_key_value().and_then(|(at, _)| Timestamp::from_second(*at).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::testing::Cluster;

    #[test]
    fn renewals_are_counted_as_secrets_come_change_and_go() {
        let mut c = Cluster::example();
        c.settle();
        let late = SignedDuration::from_secs(60);
        let first = c.world.secrets().next().unwrap().clone();
        let count = c.world.secrets().count() as u64;
        let at = |s: i64| first.renew_at + SignedDuration::from_secs(s);
        let fresh = c.world.renewals(at(-1), late);
        assert_eq!((fresh.due, fresh.late, fresh.expired), (0, 0, 0));
        assert_eq!(fresh.first_due.map(Timestamp::as_second), Some(first.renew_at.as_second()));
        assert_eq!(fresh.first_expiry.map(Timestamp::as_second), Some(first.expires_at.as_second()));
        assert_eq!(c.world.renewals(at(1), late).due, count);
        assert_eq!(c.world.renewals(at(30), late).late, 0);
        assert_eq!(c.world.renewals(at(62), late).late, count);
        let after = first.expires_at + SignedDuration::from_secs(1);
        assert_eq!(c.world.renewals(after, late).expired, count);
        // Withdrawn: no token is left that could expire.
        c.apply("{kind: AgentIdentity, metadata: {name: a, namespace: ns}, spec: {suspend: true}}");
        c.settle();
        assert_eq!(c.world.renewals(after, late), Renewals::default());
    }
}

//! A token that was taken, and how it should stand by the model.
//!
//! Invariant: a token from which something may have been taken away without anybody noticing is none that must stand.

use std::time::{Duration, Instant};

use agentid::crypto::StatusRef;

use crate::model::{Model, Which};
use crate::schedule::Thing;
use crate::world::{name, namespace};

/// Before that, a token may have been of an answer that had just been taken back.
const SURE: Duration = Duration::from_secs(90);

/// A token of an agent.
#[derive(Clone)]
pub struct Taken {
    pub thing: Thing,
    pub which: Which,
    /// Of the thing that we made.
    pub made: String,
    /// Of the agent.
    pub agent: String,
    pub grant: String,
    pub roles: u8,
    pub status: StatusRef,
    pub iat: i64,
    pub exp: i64,
    /// Its index stood in the agent's status when it was taken.
    pub recorded: bool,
    pub taken: Instant,
    pub token: String,
}

/// How a token should stand, by the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It says what is held.
    Stands,
    /// Its agent or grant is gone, or it says more than is held.
    Revoked,
}

impl Taken {
    pub fn verdict(&self, model: &Model) -> Verdict {
        let ns = Model::namespace_of(self.thing);
        let stands = model.agent(self.thing).filter(|m| m.uid == self.made).is_some_and(|made| {
            let grant = match self.which {
                Which::Own(g) => model.grant(ns, g) == Some(&self.grant),
                Which::Inherited => true,
            };
            let due = model.dues(self.thing, made).into_iter().find(|d| d.which == self.which);
            grant && !model.is_suspended(self.thing, made) && due.is_some_and(|d| self.roles & !d.roles == 0)
        });
        if stands { Verdict::Stands } else { Verdict::Revoked }
    }

    /// Since when its verdict has been the same for sure; `None` while a write is under way.
    pub fn settled_since(&self, model: &Model) -> Option<Instant> {
        model.settled_since(self.thing, self.which)
    }

    /// It stands, and nothing was taken away since well before it was taken: it must never have been revoked.
    pub fn must_stand(&self, model: &Model, now: i64) -> bool {
        let untouched = model
            .narrowed_since(self.thing, self.which)
            .is_none_or(|at| at.checked_add(SURE).is_some_and(|sure| sure < self.taken));
        // One that a clock ahead of ours has dated is not good yet.
        self.recorded
            && untouched
            && self.iat <= now
            && self.exp > now + 5
            && self.verdict(model) == Verdict::Stands
    }

    /// Who it is about, for people.
    pub fn told(&self) -> String {
        format!(
            "token of {}/{} (agent {}), {:?}, entry {} of {}",
            namespace(Model::namespace_of(self.thing)),
            name(self.thing),
            self.agent,
            self.which,
            self.status.index,
            self.status.uri.rsplit('/').next().unwrap_or_default()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::{Deed, Event};

    const AGENT: Thing = Thing::Agent { ns: 0, n: 1 };
    const GRANT: Thing = Thing::Grant { ns: 0, g: 0 };

    fn model(deeds: &[(Thing, Deed)]) -> Model {
        let mut model = Model::new(1, vec![(GRANT, "grant".to_owned())]);
        let made = (AGENT, Deed::Create { gold: true });
        for (thing, deed) in std::iter::once(&made).chain(deeds) {
            let event = Event { at: Duration::ZERO, thing: *thing, deed: *deed };
            model.begin(&event);
            let uid = if *thing == AGENT { "agent" } else { "another" };
            model.done(&event, matches!(deed, Deed::Create { .. }).then(|| uid.to_owned()));
        }
        model
    }

    fn taken() -> Taken {
        Taken {
            thing: AGENT,
            which: Which::Own(0),
            made: "agent".to_owned(),
            agent: "agent".to_owned(),
            grant: "grant".to_owned(),
            roles: 0b011,
            status: StatusRef { uri: String::new(), index: 0 },
            iat: 0,
            exp: 1000,
            recorded: true,
            taken: Instant::now(),
            token: String::new(),
        }
    }

    #[test]
    fn a_token_stands_while_it_says_no_more_than_is_held() {
        let (suspend, delete) = (Deed::Suspend(true), Deed::Delete { orphan: false });
        let again = [(AGENT, suspend), (AGENT, Deed::Suspend(false))];
        let anew = [(GRANT, delete), (GRANT, Deed::Create { gold: false })];
        let (allow, deny) = (Thing::Allow { ns: 0, r: 0 }, Thing::Deny { ns: 0 });
        assert_eq!(taken().verdict(&model(&[])), Verdict::Stands);
        assert!(taken().must_stand(&model(&[]), 10));
        assert!(!taken().must_stand(&model(&[]), 996), "it expires while it is asked about");
        for revoked in [
            &[(AGENT, suspend)][..],
            &[(AGENT, delete)],
            &[(GRANT, delete)],
            &anew,
            &[(allow, Deed::Allow(0b001))],
            &[(deny, Deed::Create { gold: false })],
            &[(Thing::Namespace { ns: 0 }, delete)],
        ] {
            assert_eq!(taken().verdict(&model(revoked)), Verdict::Revoked, "{revoked:?}");
        }
        let interrupted = model(&again);
        assert_eq!(taken().verdict(&interrupted), Verdict::Stands);
        assert!(!taken().must_stand(&interrupted, 10), "nobody knows whether it was noticed");
        assert_eq!(taken().verdict(&model(&[(allow, Deed::Allow(0b011))])), Verdict::Stands);
    }
}

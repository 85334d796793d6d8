//! What the admin port tells of the token service.
//!
//! Invariant: a replica is ready once it has seen everything that it answers from, and stays so: what grows too old is
//! each answer's own matter, and no reason to publish no keys.

use std::fmt::Write as _;
use std::sync::Arc;

use jiff::Timestamp;

use super::metrics::Sights;
use super::state::State;
use crate::domain::World;
use crate::net::admin::Told;
use crate::net::tls::Tls;

pub(super) struct Tells(pub(super) Arc<State>);

impl Told for Tells {
    fn ready(&self) -> Result<(), String> {
        let mut missing = unseen(&self.0.world.read());
        if let Err(fault) = self.0.ring() {
            let _ = writeln!(missing, "keys: {}", fault.description);
        }
        if !self.0.lists.is_ready() {
            missing.push_str("status lists: not every entry was looked at yet\n");
        }
        if missing.is_empty() { Ok(()) } else { Err(missing) }
    }

    fn remarks(&self) -> String {
        stale(&self.0.world.read(), Timestamp::now())
    }

    fn metrics(&self) -> String {
        let state = &self.0;
        let ring = state.ring().ok();
        let sights = Sights {
            world: &state.world.read(),
            ring: ring.as_ref().map(|r| &r.0.ring),
            lists: &state.lists,
            certificate: state.tls.get().and_then(Tls::validity),
            calls: &state.calls,
        };
        state.metrics.text(&sights, Timestamp::now())
    }
}

/// What has to be seen once, and was not yet, a line each.
fn unseen(world: &World) -> String {
    let mut missing = String::new();
    for source in world.awaited() {
        let _ = writeln!(missing, "{source}: {}", world.source(&source).problem());
    }
    missing
}

/// What was seen and is too old now, a line each.
fn stale(world: &World, now: Timestamp) -> String {
    let mut remarks = String::new();
    for (source, state) in world.sources() {
        if !world.is_fresh(&source, now) {
            let _ = writeln!(remarks, "{source}: {}", state.problem());
        }
    }
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Configuration;
    use crate::domain::{Lost, POD, Source, View};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_replica_waits_for_what_it_answers_from_and_for_nothing_that_may_never_come() {
        let mut world = World::of(Configuration::new("https://i.example", "example.com"), View::Service);
        let bound = |kind: &str| Source::Bound(kind.into());
        let sources: Vec<_> = world.sources().into_keys().collect();
        for source in sources {
            let line = format!("{source}: the first list is not complete yet");
            assert!(unseen(&world).lines().any(|l| l == line), "{source}");
            if ![bound(POD), bound("apps/v1/ReplicaSet"), bound("apps/v1/StatefulSet")].contains(&source) {
                world.end_list(&source, at(0));
            }
        }
        let waits = |world: &World| {
            unseen(world).lines().map(|l| l.split(": ").next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(waits(&world), ["apps/v1/ReplicaSet", "apps/v1/StatefulSet", "v1/Pod"]);
        for kind in [POD, "apps/v1/ReplicaSet", "apps/v1/StatefulSet"] {
            world.lost(&bound(kind), Lost::Forbidden);
        }
        assert_eq!(waits(&world), ["apps/v1/ReplicaSet", "v1/Pod"]);
        assert!(unseen(&world).contains("may not list and watch"));
        world.end_list(&bound(POD), at(0));
        world.end_list(&bound("apps/v1/ReplicaSet"), at(0));
        assert_eq!(waits(&world), [""; 0]);
        assert!(stale(&world, at(0)).starts_with("apps/v1/StatefulSet: agentid may not"));
        // Too old is told, and takes nobody out.
        assert_eq!(waits(&world), [""; 0]);
        assert!(stale(&world, at(61)).contains("v1/Pod: nothing was heard"));
    }
}

//! What may happen, in any order.

use proptest::prelude::*;

/// What somebody does, or what happens.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Agent {
        ns: u8,
        name: u8,
        bound: u8,
        secret: u8,
        label: bool,
        suspend: bool,
        life: u8,
        expires: u8,
        of: u8,
        user: u8,
    },
    Blueprint {
        name: u8,
        whom: u8,
        per_pod: bool,
        says: u8,
        suspend: bool,
    },
    Pod {
        ns: u8,
        name: u8,
        bot: bool,
        controlled: bool,
        finished: bool,
    },
    Grant {
        ns: u8,
        name: u8,
        agents: u8,
        resource: u8,
        rights: u8,
        times: u8,
        file: u8,
    },
    Resource {
        name: u8,
        audience: u8,
        offer: u8,
        allow: u8,
        life: u8,
    },
    Policy {
        name: u8,
        whom: u8,
        says: u8,
        audit: bool,
    },
    Namespace {
        ns: u8,
        team: bool,
    },
    Bound {
        pod: bool,
        ns: u8,
        name: u8,
        finished: bool,
        selected: bool,
    },
    Delete {
        what: u8,
        ns: u8,
        name: u8,
    },
    Drift {
        nth: u8,
        what: u8,
    },
    Copy {
        nth: u8,
        ns: u8,
        name: u8,
    },
    Foreign {
        ns: u8,
        name: u8,
        there: bool,
    },
    Rotate {
        ns: u8,
        name: u8,
        ago: i16,
    },
    Cluster {
        offer: u8,
        allow: u8,
    },
    Role {
        name: u8,
        what: u8,
    },
    Bindable {
        name: u8,
        bindable: bool,
    },
    Tamper {
        nth: u8,
        what: u8,
    },
    Advance(u16),
    Lose(u8),
    Find,
    KeyGone,
    KeysDown(bool),
    Relist(u8),
    Restart,
    Dies(u8),
}

/// Any of them, the frequent more often.
pub(super) fn op() -> impl Strategy<Value = Op> {
    let (ns, name) = (0..2u8, 0..3u8);
    let policies = (name.clone(), 0..6u8, 0..13u8, prop::bool::weighted(0.25));
    prop_oneof![
        6 => (ns.clone(), 0..4u8, 0..7u8, 0..4u8, any::<bool>(), prop::bool::weighted(0.2), (0..3u8, 0..6u8, 0..4u8, 0..6u8))
            .prop_map(|(ns, name, bound, secret, label, suspend, (life, expires, of, user))| Op::Agent {
                ns, name, bound, secret, label, suspend, life, expires, of, user
            }),
        4 => (0..2u8, 0..4u8, any::<bool>(), 0..5u8, prop::bool::weighted(0.2))
            .prop_map(|(name, whom, per_pod, says, suspend)| Op::Blueprint { name, whom, per_pod, says, suspend }),
        4 => (ns.clone(), 0..2u8, prop::bool::weighted(0.8), any::<bool>(), prop::bool::weighted(0.1))
            .prop_map(|(ns, name, bot, controlled, finished)| Op::Pod { ns, name, bot, controlled, finished }),
        6 => (ns.clone(), name.clone(), 0..5u8, 0..4u8, 0..11u8, 0..5u8, 0..3u8)
            .prop_map(|(ns, name, agents, resource, rights, times, file)| Op::Grant {
                ns, name, agents, resource, rights, times, file
            }),
        4 => (name.clone(), 0..2u8, 0..4u8, 0..8u8, 0..3u8)
            .prop_map(|(name, audience, offer, allow, life)| Op::Resource { name, audience, offer, allow, life }),
        4 => policies.prop_map(|(name, whom, says, audit)| Op::Policy { name, whom, says, audit }),
        2 => (ns.clone(), any::<bool>()).prop_map(|(ns, team)| Op::Namespace { ns, team }),
        4 => (any::<bool>(), ns.clone(), 0..2u8, prop::bool::weighted(0.2), prop::bool::weighted(0.8))
            .prop_map(|(pod, ns, name, finished, selected)| Op::Bound { pod, ns, name, finished, selected }),
        4 => (0..10u8, ns.clone(), name.clone()).prop_map(|(what, ns, name)| Op::Delete { what, ns, name }),
        2 => (any::<u8>(), 0..5u8).prop_map(|(nth, what)| Op::Drift { nth, what }),
        1 => (any::<u8>(), ns.clone(), name.clone()).prop_map(|(nth, ns, name)| Op::Copy { nth, ns, name }),
        1 => (ns.clone(), name.clone(), any::<bool>()).prop_map(|(ns, name, there)| Op::Foreign { ns, name, there }),
        3 => (0..3u8, 0..4u8).prop_map(|(offer, allow)| Op::Cluster { offer, allow }),
        4 => (0..2u8, 0..4u8).prop_map(|(name, what)| Op::Role { name, what }),
        2 => (0..2u8, any::<bool>()).prop_map(|(name, bindable)| Op::Bindable { name, bindable }),
        1 => (any::<u8>(), 0..3u8).prop_map(|(nth, what)| Op::Tamper { nth, what }),
        2 => (ns, name, -300..300i16).prop_map(|(ns, name, ago)| Op::Rotate { ns, name, ago }),
        3 => (0..5_000u16).prop_map(Op::Advance),
        2 => any::<u8>().prop_map(Op::Lose),
        2 => Just(Op::Find),
        1 => Just(Op::KeyGone),
        1 => any::<bool>().prop_map(Op::KeysDown),
        1 => any::<u8>().prop_map(Op::Relist),
        1 => Just(Op::Restart),
        2 => (0..4u8).prop_map(Op::Dies),
    ]
}

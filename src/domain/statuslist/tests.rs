//! Indexes through an agent's life, and what their entries read.

use super::*;
use crate::domain::testing::{Cluster, GRANT, RESOURCE};
use crate::domain::{Agent, Key, Object, Origin, RecordedBy, Source, View, World};

fn key() -> Key {
    Key::new("ns", "a")
}

fn recorded(c: &Cluster) -> Option<StatusRef> {
    c.world.agent(&key())?.status.grants.first().map(|r| r.at)
}

/// What the leader notes on its Lease, as the watch hands it over.
fn note(c: &mut Cluster) {
    let mark = c.hand_out.mark(c.now);
    c.world.take_mark(Some(mark));
}

fn reads(c: &Cluster, at: StatusRef) -> Entry {
    entry(&c.world, at, c.now)
}

fn settled() -> Cluster {
    let mut c = Cluster::example();
    c.settle();
    note(&mut c);
    c
}

#[test]
fn names_are_read_back() {
    let at = StatusRef { list: ListId(0xab), index: 7 };
    let issuer = "https://i.example";
    assert_eq!(at.uri(issuer), format!("https://i.example/statuslists/{:032x}", 0xab));
    assert_eq!(StatusRef::of_uri(issuer, &at.uri(issuer), 7), Some(at));
    for uri in ["https://j.example/statuslists/1", "https://i.example/statuslists/", "https://i.example/x"] {
        assert_eq!(StatusRef::of_uri(issuer, uri, 7), None, "{uri}");
    }
    assert!("AB".repeat(16).parse::<ListId>().is_err());
    let index = StatusIndex::from(at);
    assert_eq!(StatusRef::try_from(&index), Ok(at));
}

#[test]
fn one_index_for_one_answer() {
    let mut c = settled();
    let first = recorded(&c).unwrap();
    assert_eq!(reads(&c, first), Entry::Valid);
    // A renewal, and a restart with the list of before, hand out nothing.
    c.advance(3_000);
    c.settle();
    assert_eq!(recorded(&c), Some(first));
    c.restart();
    c.settle();
    assert_eq!(recorded(&c), Some(first));

    // Wider: the same index, recorded before a token says more.
    c.apply(&GRANT.replace("[reader]", "[reader, writer]"));
    c.settle();
    assert_eq!(recorded(&c), Some(first));
    assert_eq!(c.world.agent(&key()).unwrap().status.grants[0].roles.len(), 2);

    // Narrower: another one, and the first is dead for ever.
    c.apply(GRANT);
    c.settle();
    note(&mut c);
    let second = recorded(&c).unwrap();
    assert_ne!(second, first);
    assert_eq!((reads(&c, first), reads(&c, second)), (Entry::Invalid, Entry::Valid));

    // A suspension, felt before anything is written; a resume has an index of its own.
    c.apply("{kind: AgentIdentity, metadata: {name: a, namespace: ns}, spec: {suspend: true}}");
    c.deliver();
    assert_eq!(reads(&c, second), Entry::Invalid);
    c.settle();
    assert_eq!(recorded(&c), None);
    c.apply("{kind: AgentIdentity, metadata: {name: a, namespace: ns}, spec: {}}");
    c.settle();
    note(&mut c);
    let third = recorded(&c).unwrap();
    assert!(third != second && third != first);
    assert_eq!(
        [first, second, third].map(|at| reads(&c, at)),
        [Entry::Invalid, Entry::Invalid, Entry::Valid]
    );
}

#[test]
fn newborns_read_valid_and_the_gone_do_not() {
    let mut c = settled();
    let at = recorded(&c).unwrap();
    let newborn = StatusRef { index: at.index + 1, ..at };
    assert_eq!(reads(&c, newborn), Entry::Valid, "nobody bears it yet, or a newborn does");
    let other = StatusRef { list: ListId(99), index: 0 };
    assert_eq!(reads(&c, other), Entry::Invalid, "a list that is not open");

    // Recorded above the mark and gone again: never VALID any more.
    c.apply("{kind: AgentIdentity, metadata: {name: b, namespace: ns, labels: {l: b}}, spec: {}}");
    c.apply(&GRANT.replace("name: g,", "name: h,").replace("[a]", "[b]"));
    c.settle();
    let b = Key::new("ns", "b");
    let young = c.world.agent(&b).unwrap().status.grants[0].at;
    assert!(c.world.open_list().unwrap().mark <= young.index);
    assert_eq!(reads(&c, young), Entry::Valid);
    c.delete(&Source::Agents, &b);
    c.settle();
    assert_eq!(reads(&c, young), Entry::Invalid);
    note(&mut c);
    assert_eq!(reads(&c, young), Entry::Invalid);
}

#[test]
fn what_went_before_its_list_had_a_mark_is_never_valid_again() {
    let c = settled();
    let at = recorded(&c).unwrap();
    let agent = Agent::try_from(&c.agents[&key()]).unwrap();
    let with_agent = |view| {
        let mut world = World::of(c.world.config().clone(), view);
        world.take(Object::Agent(Box::new(agent.clone())), Origin::Watch);
        world
    };
    let gone = |world: &mut World| world.remove(&Source::Agents, &agent.meta.key, agent.meta.uid, 0);
    let mark = |list, mark| Some(Mark { list, mark, version: 0 });
    // Before any mark, and before the first of the list that follows the open one.
    for before in [None, mark(ListId(99), 0)] {
        let mut world = with_agent(View::Service);
        world.take_mark(before);
        gone(&mut world);
        // A mark of the list that is open until then changes nothing.
        if before.is_some() {
            world.take_mark(mark(ListId(99), 1));
        }
        world.take_mark(mark(at.list, at.index));
        assert_eq!(world.recorded_by(at), RecordedBy::NoLonger, "{before:?}");
        assert_eq!(entry(&world, at, c.now), Entry::Invalid, "{before:?}");
        assert_eq!(world.recorded_in(at.list).count(), 0);
        // Below the mark it needn't be kept.
        world.take_mark(mark(at.list, at.index + 1));
        assert_eq!(world.recorded_by(at), RecordedBy::Nobody);
        assert_eq!(entry(&world, at, c.now), Entry::Invalid);
    }
    // Where no mark ever comes nothing is kept.
    let mut world = with_agent(View::Operator);
    gone(&mut world);
    assert_eq!(world.recorded_by(at), RecordedBy::Nobody);
}

#[test]
fn a_mark_is_believed_once_the_watch_has_come_so_far() {
    let mut c = settled();
    let open = c.world.open_list().unwrap();
    let far = Mark { list: open.list, mark: open.mark + 5, version: 1_000_000 };
    c.world.take_mark(Some(far));
    assert_eq!(c.world.open_list(), Some(open));
    c.world.reached(&Source::Agents, 1_000_000);
    assert_eq!(c.world.open_list().unwrap().mark, far.mark);
}

#[test]
fn twice_recorded_is_nobodys() {
    let mut c = settled();
    let at = recorded(&c).unwrap();
    c.apply("{kind: AgentIdentity, metadata: {name: b, namespace: ns}, spec: {}}");
    c.settle();
    // Somebody writes into a status what is another's.
    let b = Key::new("ns", "b");
    let mut forged = c.agents[&key()].status.clone().unwrap();
    forged.agent_id = c.agents[&b].status.as_ref().unwrap().agent_id.clone();
    let mut agent = c.agents[&b].clone();
    agent.status = Some(forged);
    agent.metadata.resource_version = Some("900000".into());
    let object = Agent::try_from(&agent).unwrap();
    c.world.take(Object::Agent(Box::new(object)), Origin::Watch);
    assert_eq!(reads(&c, at), Entry::Invalid);
}

#[test]
fn a_status_of_another_agent_records_nothing() {
    let c = settled();
    let mut restored = c.agents[&key()].clone();
    restored.metadata.uid = Some("7f3d9a2e-0001-4abc-8def-0123456789ab".into());
    let seen = Agent::try_from(&restored).unwrap();
    assert!(seen.status.grants.is_empty());
}

#[test]
fn the_mark_waits_for_what_is_not_recorded_and_not_for_ever() {
    let mut c = Cluster::example();
    c.deliver();
    let agent = c.world.agent(&key()).unwrap().clone();
    let decision = c.decide("ns", "a");
    let indexes = c.hand_out.assign(&c.world, &agent, &decision, c.now).unwrap();
    let again = c.hand_out.assign(&c.world, &agent, &decision, c.now).unwrap();
    assert_eq!(indexes, again, "the same answer, the same index");
    assert_eq!(c.hand_out.mark(c.now).mark, 0);
    assert_eq!(c.hand_out.mark(c.now + jiff::SignedDuration::from_secs(10)).mark, 1);
    let at = indexes.get(decision.grants[0].uid).unwrap();
    c.hand_out.recorded(agent.meta.uid, [(decision.grants[0].uid, at)], 42);
    assert_eq!(c.hand_out.mark(c.now), Mark { list: at.list, mark: 1, version: 42 });
}

#[test]
fn a_full_list_is_followed_once_it_is_settled() {
    let mut c = Cluster::example();
    c.hand_out = HandOut::open(ListId(1), 1);
    c.settle();
    assert!(c.hand_out.is_spent(c.now));
    c.apply(&RESOURCE.replace("x.read", "x.more"));
    c.deliver();
    let agent = c.world.agent(&key()).unwrap().clone();
    let decision = c.decide("ns", "a");
    assert_eq!(c.hand_out.assign(&c.world, &agent, &decision, c.now), Err(Full));
    c.hand_out.reopen(ListId(2));
    let indexes = c.hand_out.assign(&c.world, &agent, &decision, c.now).unwrap();
    assert_eq!(indexes.get(decision.grants[0].uid), Some(StatusRef { list: ListId(2), index: 0 }));
}

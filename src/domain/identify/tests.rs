//! Which agent a pod is, as a table.

use super::*;
use crate::domain::{Controller, Meta, Object, Origin, ServiceAccount, Source, View};

const NOW: i64 = 1_000_000;

struct Town(World, u64);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn uid(n: u128) -> Uid {
    Uid(0x7f3d_9a2e_0001_4abc_8def_0000_0000_0000 + n)
}

impl Town {
    fn new() -> Self {
        let config = crate::api::Configuration::new("https://i.example", "example.com");
        let mut town = Self(World::of(config, View::Service), 0);
        let sources: Vec<_> = town.0.sources().into_keys().collect();
        sources.iter().for_each(|s| town.0.end_list(s, at(NOW)));
        let meta = town.meta("runner", 500);
        town.0.take(Object::Account(Box::new(ServiceAccount { meta })), Origin::Watch);
        town
    }

    fn meta(&mut self, name: &str, n: u128) -> Meta {
        self.1 += 1;
        Meta {
            key: Key::new("ns", name),
            uid: uid(n),
            version: self.1,
            created: Timestamp::UNIX_EPOCH,
            deleting: false,
        }
    }

    fn object(&mut self, kind: &str, name: &str, n: u128, controller: Option<(&str, &str, u128)>) {
        let object = BoundObject {
            controller: controller.map(|(kind, name, n)| Controller {
                kind: kind.into(),
                name: name.into(),
                uid: uid(n),
            }),
            account: (kind == "v1/Pod").then(|| "runner".into()),
            ..BoundObject::new(self.meta(name, n))
        };
        self.0.take(Object::Bound(kind.into(), Box::new(object)), Origin::Watch);
    }

    fn label(&mut self, value: &str) {
        let mut pod = self.0.bound_object(&"v1/Pod".into(), &Key::new("ns", "p")).unwrap().clone();
        pod.agent = Some(value.into());
        pod.meta.version += 1_000;
        self.0.remove(&Source::Bound("v1/Pod".into()), &pod.meta.key, pod.meta.uid, 0);
        self.0.take(Object::Bound("v1/Pod".into(), Box::new(pod)), Origin::Watch);
    }

    fn agent(&mut self, name: &str, n: u128, bound: Option<(&str, &str)>) {
        let meta = self.meta(name, n);
        let bound = bound.map_or_else(String::new, |(kind, name)| {
            let (api, kind) = kind.rsplit_once('/').unwrap();
            format!(", boundObjectRef: {{apiVersion: {api}, kind: {kind}, name: {name}}}")
        });
        let yaml = format!(
            "{{apiVersion: agentid.dev/v1alpha1, kind: AgentIdentity, metadata: {{name: {name}, namespace: ns, uid: {}, \
             resourceVersion: \"{}\"}}, spec: {{serviceAccountName: runner{bound}}}}}",
            meta.uid, meta.version
        );
        let object: crate::api::AgentIdentity = serde_yaml::from_str(&yaml).unwrap();
        self.0.take(Object::Agent(Box::new(Agent::try_from(&object).unwrap())), Origin::Watch);
    }

    /// A watch has last been heard of so many seconds ago.
    fn heard(&mut self, kind: &str, seconds: i64) {
        self.0.heard(&Source::Bound(kind.into()), at(NOW - seconds));
    }

    fn gone(&mut self, kind: &str, name: &str, n: u128) {
        self.0.remove(&Source::Bound(kind.into()), &Key::new("ns", name), uid(n), 0);
    }

    fn who(&self, caller: &Caller, named: Option<&str>) -> Result<String, String> {
        let named = named.map(|n| ClientId::read("example.com", n).unwrap());
        agent_of_pod(&self.0, caller, named.as_ref(), at(NOW))
            .map(|a| a.meta.key.name.to_string())
            .map_err(|r| r.message)
    }

    /// Why nobody asks.
    fn why(&self, caller: &Caller) -> Reason {
        agent_of_pod(&self.0, caller, None, at(NOW)).unwrap_err().reason
    }
}

fn caller() -> Caller {
    let account = Key::new("ns", "runner");
    Caller { account, account_uid: uid(500), pod: Some(("p".into(), uid(1))), issued_at: Some(at(NOW - 600)) }
}

/// A pod `p` of a Deployment `d`.
fn town() -> Town {
    let mut town = Town::new();
    town.object("v1/Pod", "p", 1, Some(("apps/v1/ReplicaSet", "d-1", 2)));
    town.object("apps/v1/ReplicaSet", "d-1", 2, Some(("apps/v1/Deployment", "d", 3)));
    town.object("apps/v1/Deployment", "d", 3, None);
    town
}

#[test]
fn the_most_specific_agent_wins() {
    let mut t = town();
    assert!(t.who(&caller(), None).unwrap_err().contains("is no agent"));
    t.agent("any", 10, None);
    assert_eq!(t.who(&caller(), None), Ok("any".into()));
    t.agent("work", 11, Some(("apps/v1/Deployment", "d")));
    assert_eq!(t.who(&caller(), None), Ok("work".into()));
    t.agent("pod", 12, Some(("v1/Pod", "p")));
    assert_eq!(t.who(&caller(), None), Ok("pod".into()));
    t.agent("other", 13, Some(("apps/v1/Deployment", "x")));
    for (named, wanted) in [
        ("ns/any".to_owned(), Ok("any".to_owned())),
        (format!("spiffe://example.com/agent/{}", uid(11)), Ok("work".to_owned())),
        ("ns/other".to_owned(), Err(())),
        ("elsewhere/any".to_owned(), Err(())),
    ] {
        assert_eq!(t.who(&caller(), Some(&named)).map_err(drop), wanted, "{named}");
    }
}

#[test]
fn a_tie_is_nobody_until_the_label_names_one() {
    let mut t = town();
    t.agent("a", 10, None);
    t.agent("b", 11, None);
    assert!(t.who(&caller(), None).unwrap_err().contains("may be a or b"));
    t.label("true");
    assert!(t.who(&caller(), None).is_err());
    t.label("b");
    assert_eq!(t.who(&caller(), None), Ok("b".into()));
}

#[test]
fn only_a_live_pod_of_a_live_account_is_an_agent() {
    let mut t = town();
    t.agent("a", 10, None);
    let unbound = Caller { pod: None, ..caller() };
    assert!(t.who(&unbound, None).unwrap_err().contains("not bound to a pod"));
    let old_account = Caller { account_uid: uid(501), ..caller() };
    assert!(t.who(&old_account, None).unwrap_err().contains("does not exist any more"));
    let old_pod = Caller { pod: Some(("p".into(), uid(9))), ..caller() };
    assert!(t.who(&old_pod, None).unwrap_err().contains("is gone"));
    t.0.remove(&Source::Bound("v1/Pod".into()), &Key::new("ns", "p"), uid(1), 0);
    assert!(t.who(&caller(), None).unwrap_err().contains("is gone"));
}

#[test]
fn what_a_token_of_this_moment_names_may_not_have_been_seen_yet() {
    let mut t = town();
    t.agent("a", 10, None);
    let issued = |at| move |caller: Caller| Caller { issued_at: at, ..caller };
    let new_pod = Caller { pod: Some(("p".into(), uid(9))), ..caller() };
    let first_pod = Caller { pod: Some(("q".into(), uid(9))), ..caller() };
    let new_account = Caller { account_uid: uid(501), ..caller() };
    for (issued_at, wanted) in [
        (Some(at(NOW + 5)), Reason::CallerPending),
        (Some(at(NOW)), Reason::CallerPending),
        (Some(at(NOW - 9)), Reason::CallerPending),
        (Some(at(NOW - 10)), Reason::CredentialRejected),
        (None, Reason::CredentialRejected),
    ] {
        for caller in [&new_pod, &first_pod, &new_account] {
            assert_eq!(t.why(&issued(issued_at)(caller.clone())), wanted, "{caller:?} of {issued_at:?}");
        }
    }
    // What is seen is judged at once.
    let today = issued(Some(at(NOW)));
    assert_eq!(t.who(&today(caller()), None), Ok("a".into()));
    assert_eq!(t.why(&today(Caller { pod: None, ..caller() })), Reason::CredentialRejected);
    let mut pod = t.0.bound_object(&"v1/Pod".into(), &Key::new("ns", "p")).unwrap().clone();
    pod.meta.version += 1_000;
    t.0.note_unselected(&"v1/Pod".into(), pod);
    assert_eq!(t.why(&today(caller())), Reason::CredentialRejected);
}

const RS: &str = "apps/v1/ReplicaSet";

#[test]
fn a_pod_is_neither_gone_nor_there_while_its_watch_says_nothing() {
    let mut t = town();
    t.agent("a", 10, None);
    t.agent("pod", 11, Some(("v1/Pod", "p")));
    let old_pod = Caller { pod: Some(("p".into(), uid(9))), ..caller() };
    t.heard("v1/Pod", 61);
    assert_eq!((t.why(&caller()), t.why(&old_pod)), (Reason::Unknown, Reason::Unknown));
    t.heard("v1/Pod", 60);
    assert_eq!(t.who(&caller(), None), Ok("pod".into()));
    assert_eq!(t.why(&old_pod), Reason::CredentialRejected);
    // Without a pod none is looked for.
    t.heard("v1/Pod", 61);
    assert_eq!(t.why(&Caller { pod: None, ..caller() }), Reason::CredentialRejected);
    // Before the first list.
    let config = crate::api::Configuration::new("https://i.example", "example.com");
    let mut new = Town(World::of(config, View::Service), 0);
    let meta = new.meta("runner", 500);
    new.0.take(Object::Account(Box::new(ServiceAccount { meta })), Origin::Watch);
    new.heard("v1/Pod", 0);
    assert_eq!(new.why(&caller()), Reason::Unknown);
}

#[test]
fn who_may_stand_behind_an_unseen_controller_is_waited_for() {
    for (lost, wanted) in [(false, Reason::CallerPending), (true, Reason::Unknown)] {
        let mut t = town();
        t.agent("any", 10, None);
        t.agent("work", 11, Some(("apps/v1/Deployment", "d")));
        t.agent("set", 12, Some((RS, "other")));
        assert_eq!(t.who(&caller(), None), Ok("work".into()));
        if lost {
            t.heard(RS, 61)
        } else {
            t.gone(RS, "d-1", 2)
        }
        let why = |t: &Town, named: &str| {
            agent_of_pod(&t.0, &caller(), ClientId::read("example.com", named).as_ref(), at(NOW))
                .map(|a| a.meta.key.name.to_string())
                .map_err(|r| r.reason)
        };
        assert_eq!(t.why(&caller()), wanted, "not the agent of the account alone");
        assert_eq!(why(&t, "ns/work"), Err(wanted));
        // Whoever is named and can be told is it, and whom nothing could make it is not.
        assert_eq!(why(&t, "ns/any"), Ok("any".into()));
        assert_eq!(why(&t, "ns/nobody"), Err(Reason::CredentialRejected));
        assert_eq!(why(&t, "elsewhere/work"), Err(Reason::CredentialRejected));
        t.label("true");
        assert_eq!(t.why(&caller()), wanted);
        t.label("any");
        assert_eq!(t.who(&caller(), None), Ok("any".into()));
        t.agent("near", 13, Some((RS, "d-1")));
        t.label("true");
        assert_eq!(t.who(&caller(), None), Ok("near".into()), "what stands behind is further");
        t.label("work");
        assert_eq!(t.why(&caller()), wanted, "whom the label names stands before the nearest");
    }
    // One of a kind that is not watched is the end of the line.
    let mut t = Town::new();
    t.object("v1/Pod", "p", 1, Some(("x.example/v1/Thing", "t", 2)));
    t.agent("any", 10, None);
    assert_eq!(t.who(&caller(), None), Ok("any".into()));
}

#[test]
fn client_ids_are_read_strictly() {
    for bad in ["", "x", "spiffe://example.com/agent/", "spiffe://other/agent/x", "a/b/c", "A/b", "a/../b"] {
        assert_eq!(ClientId::read("example.com", bad), None, "{bad}");
    }
}

use super::*;
use crate::api::{Configuration, Reason};
use crate::domain::testing::Cluster;
use crate::domain::{Lane, Standing, Work};

const CLUSTER: &str = "
kind: AgentResource
metadata: {name: cluster}
spec:
  audience: https://kubernetes.example.com
  kubernetes: {}
  roles: [{name: pod-reader}, {name: wide}, {name: absent}, {name: unbindable}, {name: 'system:node'}]
  allow: [{namespaceSelector: {}}]
";
pub(super) const READS: &str = "[{apiGroups: [''], resources: [pods], verbs: [get, list]}]";
const EXECS: &str = "[{apiGroups: [''], resources: [pods/exec], verbs: [create]}]";

pub(super) fn grant(roles: &str) -> String {
    format!(
        "{{kind: AgentGrant, metadata: {{name: k, namespace: ns}}, spec: {{agents: {{selector: {{}}}}, \
         resource: cluster, application: {{roles: [{roles}]}}}}}}"
    )
}

/// With a namespace `ns`, an agent `a`, and the grant `k` of the ClusterRole pod-reader.
pub(super) fn cluster() -> Cluster {
    cluster_at(None)
}

fn cluster_at(server: Option<&str>) -> Cluster {
    let mut config = Configuration::new("https://agentid.example.com", "example.com");
    config.kubernetes.server = server.map(str::to_owned);
    config.kubernetes.bindable_roles = ["pod-reader", "wide", "absent"].map(str::to_owned).into();
    let mut c = Cluster::configured(config);
    c.namespace("ns", &[]);
    c.cluster_role("pod-reader", READS);
    c.cluster_role("wide", EXECS);
    c.cluster_role("unbindable", READS);
    c.apply(CLUSTER);
    c.apply("{kind: AgentIdentity, metadata: {name: a, namespace: ns}, spec: {}}");
    c.apply(&grant("pod-reader"));
    c.settle();
    c
}

pub(super) fn bound(c: &Cluster) -> Vec<String> {
    c.bound_roles().into_iter().map(|(ns, role, agent)| format!("{ns} {role} {agent}")).collect()
}

fn reason(c: &Cluster) -> Option<Reason> {
    c.decide("ns", "a").grants[0].refusal.as_ref().map(|r| r.reason)
}

#[test]
fn a_held_role_is_bound_and_the_plan_is_empty_then() {
    let mut c = cluster();
    assert_eq!(bound(&c), ["ns pod-reader a"]);
    let writes = c.writes;
    for source in c.sources() {
        c.relist(&source);
    }
    c.settle();
    assert_eq!(c.writes.bindings, writes.bindings);
    c.restart();
    c.settle();
    assert_eq!(c.writes.bindings, writes.bindings, "a restart writes nothing that is right");
}

#[test]
fn each_role_that_may_not_be_is_refused_with_its_reason() {
    use crate::api::Reason::*;
    for (role, wanted, says) in [
        ("wide", GuardrailDenied, "guardrail exec"),
        ("'system:node'", GuardrailDenied, "guardrail system"),
        ("absent", RoleNotOffered, "does not exist"),
        ("unbindable", RoleNotAllowed, "kubernetes.bindableRoles"),
        ("other", RoleNotOffered, "it offers"),
    ] {
        let mut c = cluster();
        c.apply(&grant(role));
        c.settle();
        let refusal = c.decide("ns", "a").grants[0].refusal.clone().unwrap();
        assert_eq!(refusal.reason, wanted, "{role}");
        assert!(refusal.message.contains(says), "{}", refusal.message);
        assert_eq!(bound(&c), Vec::<String>::new(), "{role}");
        // The rest of a grant is held.
        c.apply(&grant(&format!("pod-reader, {role}")));
        c.settle();
        assert_eq!(bound(&c), ["ns pod-reader a"], "{role}");
        assert_eq!(reason(&c), Some(wanted), "{role}");
    }
}

#[test]
fn a_grant_without_roles_only_authenticates() {
    let mut c = cluster();
    c.apply(&grant(""));
    c.settle();
    let held = c.decide("ns", "a").grants[0].held.clone().unwrap();
    assert!(held.kubernetes && held.roles.is_empty());
    assert_eq!(held.profile, crate::api::TokenProfile::Identity);
    assert!(c.bindings.is_empty());
}

#[test]
fn a_delivered_grant_brings_a_kubeconfig_whose_change_is_one() {
    let issue = |server| {
        let mut c = cluster_at(server);
        c.apply(
            &grant("pod-reader").replace("resource: cluster", "resource: cluster, secretKey: cluster.jwt"),
        );
        c.settle();
        let agent = c.world.agent(&Key::new("ns", "a")).unwrap();
        crate::domain::plan::on_demand(&c.world, agent, &c.decide("ns", "a")).unwrap()
    };
    let (one, other) = (issue(None), issue(Some("https://10.0.0.1:6443")));
    let names = |i: &crate::domain::plan::Issue| -> Vec<String> {
        i.files().into_iter().map(|(name, _)| name.to_owned()).collect()
    };
    assert_eq!(names(&one), ["identity.jwt", "cluster.jwt", "kubeconfig"]);
    assert!(one.kubeconfig.as_ref().unwrap().contains("\"tokenFile\": \"cluster.jwt\""));
    assert_eq!(one.tokens, other.tokens);
    assert_ne!(one.files(), other.files());
    assert_ne!(one.plan, other.plan, "the Secret is written anew");
}

#[test]
fn a_role_that_is_widened_or_gone_is_withdrawn_and_comes_back() {
    let mut c = cluster();
    c.cluster_role("pod-reader", EXECS);
    c.settle();
    assert!(c.bindings.is_empty());
    assert_eq!(reason(&c), Some(Reason::GuardrailDenied));
    c.cluster_role("pod-reader", READS);
    c.settle();
    assert_eq!(bound(&c), ["ns pod-reader a"]);
    c.delete(&Source::ClusterRoles, &Key::new("", "pod-reader"));
    c.settle();
    assert!(c.bindings.is_empty());
}

#[test]
fn a_widened_role_goes_through_the_urgent_lane() {
    let mut c = cluster();
    for i in 0..100 {
        c.apply(&format!("{{kind: AgentIdentity, metadata: {{name: m{i}, namespace: ns}}, spec: {{}}}}"));
    }
    c.settle();
    let lanes = |c: &mut Cluster, rules: &str| {
        c.cluster_role("pod-reader", rules);
        c.deliver();
        let dirty = c.world.take_dirty();
        let agents = dirty.into_iter().filter(|(w, _)| matches!(w, Work::Agent(_)));
        agents.map(|(_, lane)| lane).collect::<Vec<_>>()
    };
    assert_eq!(lanes(&mut c, EXECS), vec![Lane::Urgent; 101]);
    assert_eq!(lanes(&mut c, READS), vec![Lane::Paced; 101]);
}

#[test]
fn nothing_is_left_behind() {
    type End = (&'static str, fn(&mut Cluster));
    let ends: &[End] = &[
        ("agent", |c| assert!(c.delete(&Source::Agents, &Key::new("ns", "a")))),
        ("grant", |c| assert!(c.delete(&Source::Grants, &Key::new("ns", "k")))),
        ("resource", |c| assert!(c.delete(&Source::Resources, &Key::new("", "cluster")))),
        ("suspended", |c| {
            c.apply("{kind: AgentIdentity, metadata: {name: a, namespace: ns}, spec: {suspend: true}}");
        }),
        ("policy", |c| {
            c.apply("{kind: AgentPolicy, metadata: {name: p}, spec: {deny: [{roles: ['pod-*']}]}}");
        }),
    ];
    for down in [false, true] {
        for (name, end) in ends {
            let mut c = cluster();
            assert_eq!(c.bindings.len(), 1);
            end(&mut c);
            if down {
                c.restart();
            }
            c.settle();
            c.advance(10);
            c.settle();
            assert!(c.bindings.is_empty(), "{name}, down: {down}: {:?}", bound(&c));
        }
    }
}

#[test]
fn more_than_two_hundred_holders_are_several_bindings_that_stay_apart() {
    let mut c = cluster();
    for i in 0..449 {
        c.apply(&format!("{{kind: AgentIdentity, metadata: {{name: m{i}, namespace: ns}}, spec: {{}}}}"));
    }
    c.settle();
    let sizes = |c: &Cluster| {
        let mut sizes: Vec<_> = c.bindings.values().map(|b| b.subjects.len()).collect();
        sizes.sort_unstable();
        sizes
    };
    assert_eq!(sizes(&c), [50, 200, 200]);
    let writes = c.writes.bindings;
    c.delete(&Source::Agents, &Key::new("ns", "m7"));
    c.settle();
    assert_eq!(sizes(&c).iter().sum::<usize>(), 449);
    assert_eq!(c.writes.bindings - writes, 1, "the others' RoleBindings are not written");
    c.delete(&Source::Grants, &Key::new("ns", "k"));
    c.settle();
    assert!(c.bindings.is_empty());
}

#[test]
fn what_others_change_is_healed() {
    let mut c = cluster();
    let key = c.bindings.keys().next().unwrap().clone();
    for change in [
        (|b: &mut Binding| b.digest = Digest::default()) as fn(&mut Binding),
        |b| b.subjects = Box::default(),
        |b| b.owner = None,
    ] {
        let before = c.writes.bindings;
        c.change_binding(&key, |b| {
            change(b);
            b.digest = Digest::default();
        });
        c.settle();
        assert_eq!(bound(&c), ["ns pod-reader a"]);
        assert_eq!(c.writes.bindings, before + 1);
    }
    c.delete(&Source::Bindings, &key);
    c.settle();
    assert_eq!(bound(&c), ["ns pod-reader a"], "deleted by others");
    // One that gives something else under our labels.
    c.change_binding(&key, |b| b.role = None);
    c.settle();
    assert_eq!(bound(&c), ["ns pod-reader a"]);
    // A leftover of a grant that is no more.
    c.change_binding(&key, |b| b.grant = Uid(7));
    c.settle();
    assert_eq!(bound(&c), ["ns pod-reader a"]);
}

#[test]
fn what_a_finalizer_holds_names_nobody_who_is_to_lose_it() {
    for (what, ends) in [
        (
            "agent",
            (|c| {
                c.apply("{kind: AgentIdentity, metadata: {name: a, namespace: ns}, spec: {suspend: true}}");
            }) as fn(&mut Cluster),
        ),
        ("grant", |c| assert!(c.delete(&Source::Grants, &Key::new("ns", "k")))),
    ] {
        let mut c = cluster();
        c.apply("{kind: AgentIdentity, metadata: {name: b, namespace: ns}, spec: {}}");
        c.settle();
        let key = c.bindings.keys().next().unwrap().clone();
        c.change_binding(&key, |b| b.meta.deleting = true);
        c.settle();
        // Who holds the right has another one, and this one takes nothing from anybody.
        assert_eq!(bound(&c), ["ns pod-reader a", "ns pod-reader b"]);
        assert_eq!((c.bindings.len(), c.bindings[&key].subjects.len()), (2, 2));
        ends(&mut c);
        c.settle();
        let left = c.bindings[&key].subjects.len();
        assert_eq!((c.bindings.len(), left), if what == "agent" { (2, 1) } else { (1, 0) }, "{what}");
        let writes = c.writes.bindings;
        c.restart();
        c.settle();
        assert_eq!(c.writes.bindings, writes, "{what}: the plan is empty");
        c.delete(&Source::Bindings, &key);
        c.settle();
        assert_eq!(bound(&c).len(), left, "{what}");
    }
}

#[test]
fn who_loses_a_right_does_not_wait_for_who_gains_one() {
    let mut c = cluster();
    c.apply("{kind: AgentIdentity, metadata: {name: b, namespace: ns}, spec: {suspend: true}}");
    c.settle();
    let writes = c.writes.bindings;
    // In the same moment a loses the right and b gains it.
    c.apply("{kind: AgentIdentity, metadata: {name: a, namespace: ns}, spec: {suspend: true}}");
    c.apply("{kind: AgentIdentity, metadata: {name: b, namespace: ns}, spec: {}}");
    c.deliver();
    for agent in ["a", "b"] {
        let decision = c.decide("ns", agent);
        c.world.record_bindings(&decision);
    }
    let unit = Unit { namespace: "ns".into(), grant: c.bindings.values().next().unwrap().grant };
    let steps = plan(&c.world, &unit, c.now).steps;
    let [BindingStep::Take(taking), BindingStep::Update(uid, wanted)] = &steps[..] else {
        panic!("{steps:?}")
    };
    assert_eq!((taking.uid, taking.left.len(), taking.leaving), (*uid, 0, false));
    assert_eq!(wanted.subjects.len(), 1);
    c.settle();
    assert_eq!(bound(&c), ["ns pod-reader b"]);
    assert_eq!(c.writes.bindings - writes, 2);
    // Who only gains or only loses is one write.
    for suspend in [false, true] {
        let writes = c.writes.bindings;
        c.apply(&format!(
            "{{kind: AgentIdentity, metadata: {{name: a, namespace: ns}}, spec: {{suspend: {suspend}}}}}"
        ));
        c.settle();
        assert_eq!(c.writes.bindings - writes, 1);
    }
}

#[test]
fn unknown_is_not_absent() {
    let mut c = cluster();
    c.apply("{kind: AgentIdentity, metadata: {name: b, namespace: ns}, spec: {}}");
    c.apply(
        "{kind: AgentGrant, metadata: {name: only-b, namespace: ns}, spec: {agents: {names: [b]}, resource: cluster}}",
    );
    c.settle();
    c.lose(&Source::ClusterRoles);
    c.restart();
    c.settle();
    assert_eq!(bound(&c), ["ns pod-reader a", "ns pod-reader b"], "nothing is withdrawn");
    assert!(matches!(c.decide("ns", "a").standing, Standing::Unknown(_)));
    // What needs no ClusterRole goes on.
    c.delete(&Source::Grants, &Key::new("ns", "k"));
    c.settle();
    assert_eq!(c.decide("ns", "b").standing, Standing::Allowed);
    assert!(c.bindings.is_empty(), "a grant that is gone needs no ClusterRole to be told");
    c.apply(&grant("pod-reader"));
    c.settle();
    assert!(c.bindings.is_empty());
    c.find(&Source::ClusterRoles);
    c.settle();
    assert_eq!(bound(&c), ["ns pod-reader a", "ns pod-reader b"]);
}

#[test]
fn inherited_grants_go_with_their_blueprint() {
    let mut c = cluster();
    c.delete(&Source::Grants, &Key::new("ns", "k"));
    let blueprint = c.apply(
        "{kind: AgentBlueprint, metadata: {name: bp}, spec: {namespaceSelector: {}, grants: [{name: k, resource: cluster, \
         application: {roles: [pod-reader]}}]}}",
    );
    c.apply("{kind: AgentIdentity, metadata: {name: b, namespace: ns}, spec: {blueprint: bp}}");
    c.settle();
    assert_eq!(bound(&c), ["ns pod-reader b"]);
    assert_eq!(c.bindings.values().next().unwrap().owner, Some(blueprint));
    c.delete(&Source::Blueprints, &Key::new("", "bp"));
    c.restart();
    c.settle();
    c.advance(10);
    c.settle();
    assert!(c.bindings.is_empty());
}

#[test]
fn names_are_bounded_and_tell_grants_apart() {
    let long = "x".repeat(300);
    let name = binding_name(&long, Uid(1), "system:a/b%c", 17);
    assert!(name.len() < 253 && !name.contains(['/', '%']), "{name}");
    assert_ne!(binding_name("g", Uid(1), "r", 0), binding_name("g", Uid(2), "r", 0));
    assert_ne!(binding_name("g", Uid(1), "r-s", 0), binding_name("g-r", Uid(1), "s", 0));
}

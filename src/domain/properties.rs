//! Whatever happens in whatever order: what holds always.

mod blueprints;
mod cluster;
mod ops;
mod policies;

use std::collections::BTreeSet;

use proptest::prelude::*;

use self::ops::{Op, op};
use super::plan::{AgentStep, SecretStep};
use super::statuslist::Entry;
use super::testing::{Cluster, uid_of};
use super::*;
use crate::api::IDENTITY_KEY;

fn after(c: &Cluster, seconds: i64) -> String {
    (c.now + jiff::SignedDuration::from_secs(seconds)).to_string()
}

fn nth_secret(c: &Cluster, nth: u8) -> Option<Key> {
    let n = c.secrets.len();
    (n > 0).then(|| c.secrets.keys().nth(usize::from(nth) % n).cloned()).flatten()
}

fn perform(c: &mut Cluster, op: &Op) {
    match *op {
        Op::Agent { ns, name, bound, secret, label, suspend, life, expires, of, user } => {
            c.namespace(&format!("n{ns}"), &[]);
            let pod = c.bound.get(&(POD.into(), Key::new(format!("n{ns}"), "o0"))).map(|o| o.meta.uid);
            let bound = match (bound, pod) {
                (1, _) => "boundObjectRef: {apiVersion: v1, kind: Pod, name: o0}".to_owned(),
                (2, _) => "boundObjectRef: {apiVersion: v1, kind: Pod, name: o1}".to_owned(),
                (3, _) => "boundObjectRef: {apiVersion: apps/v1, kind: Deployment, name: o0}".to_owned(),
                (4, Some(uid)) => {
                    format!("boundObjectRef: {{apiVersion: v1, kind: Pod, name: o0, uid: {uid}}}")
                }
                (5, _) => "boundObjectRef: {apiVersion: v1, kind: Secret, name: o0}".to_owned(),
                _ => "displayName: free".to_owned(),
            };
            let secret = if secret == 0 { "secretName: shared" } else { "description: own" };
            let life = ["10m", "1h", "3h"][usize::from(life)];
            let expires = match expires {
                0 => format!("expiresAt: {}", after(c, 700)),
                1 => format!("expiresAt: {}, ttlSecondsAfterExpired: 100", after(c, 400)),
                2 => format!("expiresAt: {}", after(c, -5)),
                3 => "sponsors: [{kind: User, name: ann}]".to_owned(),
                _ => "sponsors: []".to_owned(),
            };
            let user = [
                "",
                ", user: {username: a@agents.example.com}",
                ", user: {username: A@Agents.example.com, email: a@b.example}",
                ", user: {username: b@agents.example.com}",
                ", user: {username: a@elsewhere.example.com}",
                ", user: null",
            ][usize::from(user)];
            let of = ["", ", blueprint: b0", ", blueprint: b1", ""][usize::from(of)];
            // One that is in the way of what blueprints make.
            let name = if name == 3 { "o0".to_owned() } else { format!("a{name}") };
            let key = Key::new(format!("n{ns}"), name.as_str());
            if c.agents.get(&key).and_then(|a| a.metadata.owner_references.as_ref()).is_some() && name == "o0"
            {
                return; // It was made: nobody writes over it.
            }
            c.apply(&format!(
                "{{kind: AgentIdentity, metadata: {{name: {name}, namespace: n{ns}, labels: {{l: \"{label}\"}}}}, \
                 spec: {{{bound}, {secret}, suspend: {suspend}, tokenLifetime: {life}, {expires}{of}{user}}}}}"
            ));
        }
        Op::Grant { ns, name, agents, resource, rights, times, file } => {
            let agents = [
                "{names: [a0]}",
                "{names: [a1, a2]}",
                "{selector: {}}",
                "{selector: {matchLabels: {l: \"true\"}}}",
                "{names: [a0, a1, a2, a9]}",
            ][usize::from(agents)];
            let rights = [
                "application: {}",
                "application: {roles: [r0]}",
                "application: {roles: [r0, r1]}",
                "application: {scopes: [s0]}",
                "application: {roles: [r1, r9]}",
                "application: {roles: [r9]}",
                "application: {roles: [r0], scopes: [s0, s1]}",
                "application: {scopes: [s9], roles: [r1]}",
                "agentUser: {}",
                "agentUser: {scopes: [s0]}",
                "agentUser: {scopes: [s0, s1, s9]}",
            ][usize::from(rights)];
            let times = match times {
                0 => format!("expiresAt: {}", after(c, 800)),
                1 => format!("notBefore: {}", after(c, 500)),
                _ => "notBefore: 2020-01-01T00:00:00Z".to_owned(),
            };
            let file = ["", ", secretKey: x.jwt", ", secretKey: y.jwt"][usize::from(file)];
            c.apply(&format!(
                "{{kind: AgentGrant, metadata: {{name: g{name}, namespace: n{ns}}}, \
                 spec: {{agents: {agents}, resource: r{resource}, {rights}, {times}{file}}}}}"
            ));
        }
        Op::Resource { name, audience, offer, allow, life } => {
            let offer = [
                "roles: [{name: r0}, {name: r1}], scopes: [{name: s0}, {name: s1}]",
                "roles: [{name: r0}]",
                "scopes: [{name: s0}]",
                "roles: [{name: r0}, {name: r1}, {name: r9}]",
            ][usize::from(offer)];
            let allow = [
                "[{namespaceSelector: {}}]",
                "[{namespaceSelector: {matchLabels: {team: a}}}]",
                "[{namespaceSelector: {}, roles: [r0]}, {namespaceSelector: {matchLabels: {team: a}}, scopes: [s0]}]",
                "[]",
                "[{namespaceSelector: {}, roles: [r1]}, {namespaceSelector: {}, roles: [r0], scopes: []}]",
                "[{namespaceSelector: {}, roles: [r0, r1]}]",
                "[{namespaceSelector: {}, modes: [Application, AgentUser]}]",
                "[{namespaceSelector: {}, roles: [r0]}, {namespaceSelector: {matchLabels: {team: a}}, modes: [AgentUser]}]",
            ][usize::from(allow)];
            let life = ["5m", "15m", "24h"][usize::from(life)];
            c.apply(&format!(
                "{{kind: AgentResource, metadata: {{name: r{name}}}, \
                 spec: {{audience: \"https://{audience}.example.com\", {offer}, allow: {allow}, maxTokenLifetime: {life}}}}}"
            ));
        }
        Op::Namespace { ns, team } => {
            c.namespace(&format!("n{ns}"), if team { &[("team", "a")] } else { &[] })
        }
        Op::Bound { pod, ns, name, finished, selected } => {
            let kind = if pod { POD } else { "apps/v1/Deployment" };
            c.bound(kind, &Key::new(format!("n{ns}"), format!("o{name}")), finished && pod, selected || !pod);
        }
        Op::Delete { what, ns, name } => delete(c, what, &format!("n{ns}"), name),
        Op::Drift { nth, what } => {
            let Some(key) = nth_secret(c, nth) else { return };
            let whats =
                [Changed::Data, Changed::Immutable, Changed::Labels, Changed::Annotations, Changed::Owners];
            c.drift(&key, whats[usize::from(what)]);
        }
        Op::Copy { nth, ns, name } => {
            let to = Key::new(format!("n{ns}"), format!("a{name}-agentid"));
            if let Some(key) = nth_secret(c, nth) {
                c.copy_secret(&key, &to);
            }
        }
        Op::Policy { name, whom, says, audit } => policies::policy(c, name, whom, says, audit),
        Op::Blueprint { name, whom, per_pod, says, suspend } => {
            blueprints::blueprint(c, name, whom, per_pod, says, suspend);
        }
        Op::Pod { ns, name, bot, controlled, finished } => {
            blueprints::pod(c, ns, name, bot, controlled, finished);
        }
        Op::Foreign { ns, name, there } => {
            let key = Key::new(format!("n{ns}"), format!("a{name}-agentid"));
            if !there {
                c.foreign.remove(&key);
            } else if !c.secrets.contains_key(&key) {
                c.foreign.insert(key);
            }
        }
        // An instant of the past or of the future, and now and then none at all.
        Op::Rotate { ns, name, ago } => {
            let at = if ago == 0 { "soon".to_owned() } else { after(c, -i64::from(ago)) };
            c.rotate(&Key::new(format!("n{ns}"), format!("a{name}")), &at);
        }
        Op::Cluster { offer, allow } => cluster::resource(c, offer, allow),
        Op::Role { name, what } => cluster::role(c, name, what),
        Op::Bindable { name, bindable } => cluster::bindable(c, name, bindable),
        Op::Tamper { nth, what } => cluster::tamper(c, nth, what),
        Op::Advance(seconds) => c.advance(i64::from(seconds)),
        Op::Lose(n) => {
            let sources = c.sources();
            c.lose(&sources[usize::from(n) % sources.len()]);
        }
        Op::Find => {
            for source in c.lost.clone() {
                c.find(&source);
            }
        }
        Op::KeyGone => {
            c.kid = format!("k{}", c.now.as_second()).into();
            c.keys.good = std::iter::once(c.kid.clone()).collect();
            c.world.mark_all();
        }
        Op::KeysDown(down) => {
            c.keys.problem = down.then(|| "the key ring is damaged".into());
            c.world.mark_all();
        }
        Op::Relist(n) => {
            let sources = c.sources();
            let source = &sources[usize::from(n) % sources.len()];
            if !c.lost.contains(source) {
                c.relist(source);
            }
        }
        Op::Restart => c.restart(),
        Op::Dies(writes) => c.dies_after = Some(u32::from(writes)),
    }
}

fn delete(c: &mut Cluster, what: u8, ns: &str, name: u8) {
    let key = |prefix: &str| Key::new(ns, format!("{prefix}{name}"));
    match what {
        0 => c.delete(&Source::Agents, &key("a")),
        1 => c.delete(&Source::Grants, &key("g")),
        2 => c.delete(&Source::Resources, &Key::new("", format!("r{name}"))),
        3 => c.delete(&Source::Bound(POD.into()), &key("o")),
        4 => c.delete(&Source::Bound("apps/v1/Deployment".into()), &key("o")),
        8 => c.delete(&Source::Blueprints, &Key::new("", format!("b{name}"))),
        9 => c.delete(&Source::Agents, &key("o")),
        7 => c.delete(&Source::Policies, &Key::new("", format!("p{name}"))),
        5 => c.delete(&Source::Secrets, &Key::new(ns, format!("a{name}-agentid"))),
        _ => {
            for key in c.agents.keys().filter(|k| &*k.namespace == ns).cloned().collect::<Vec<_>>() {
                c.delete(&Source::Agents, &key);
            }
            // The namespace controller takes what we would not.
            for key in c.bindings.keys().filter(|k| &*k.namespace == ns).cloned().collect::<Vec<_>>() {
                c.delete(&Source::Bindings, &key);
            }
            c.delete(&Source::Namespaces, &Key::new("", ns))
        }
    };
}

/// The Secrets and their versions.
fn secrets(c: &Cluster) -> BTreeSet<(Key, u64)> {
    c.secrets.iter().map(|(k, s)| (k.clone(), s.seen.meta.version)).collect()
}

/// Time enough for every second look, and the work that comes of it.
fn settle(c: &mut Cluster) {
    for _ in 0..3 {
        c.settle();
        c.advance(21);
    }
    c.settle();
}

/// What an agent holds has an index of its own that reads VALID; what it does not hold has none.
fn check_entries(c: &Cluster, key: &Key, decision: &Decision) {
    let agent = c.world.agent(key).unwrap();
    let allowed = matches!(decision.standing, Standing::Allowed);
    for grant in &decision.grants {
        let recorded = agent.status.recorded(grant.uid);
        assert_eq!(recorded.is_some(), allowed && grant.held.is_some(), "{key}: {grant:?}");
        if let (Some(recorded), Some(held)) = (recorded, &grant.held) {
            assert!(recorded.covers(held), "{key}: {recorded:?} {held:?}");
            assert_eq!(statuslist::entry(&c.world, recorded.at, c.now), Entry::Valid, "{key}: {recorded:?}");
        }
    }
}

fn check_known(c: &mut Cluster) {
    for key in &c.agents.keys().cloned().collect::<Vec<_>>() {
        let (decision, indexes, plan) = c.plan_of(key).unwrap();
        assert_eq!(plan.secret, SecretStep::Keep, "{key}");
        assert!(matches!(plan.agent, AgentStep::Keep | AgentStep::Look), "{key}: {:?}", plan.agent);
        let change = status::agent_status(&c.world, &decision, &indexes, &plan.credential, c.now);
        assert_eq!(change, None, "{key}");
        check_entries(c, key, &decision);
    }
    for (key, secret) in &c.secrets {
        let agent = c.agents.values().find(|a| Some(uid_of(&a.metadata)) == secret.seen.agent);
        assert!(agent.is_some(), "Secret {key} without an agent");
    }
    for (key, agent) in &c.agents {
        let name = agent.spec.secret_name.clone().unwrap_or_else(|| format!("{}-agentid", key.name));
        let secret = c.secrets.get(&key.sibling(name));
        let secret = secret.filter(|s| s.seen.agent == Some(uid_of(&agent.metadata)));
        let without = blueprints::without_secret(agent);
        assert!(!without || secret.is_none(), "{key} was made for a pod and has a Secret");
        let allowed = c.oracle_enabled(agent) && c.oracle_bound(agent) && !without;
        let wanted = if allowed { c.oracle_files(agent) } else { Default::default() };
        let signing = c.keys.problem.is_none();
        for token in secret.iter().flat_map(|s| &s.tokens).filter(|t| &*t.file != IDENTITY_KEY) {
            let held = wanted.get(&*token.file).unwrap_or_else(|| panic!("{key}: {token:?} is not held"));
            let roles = token.entitlement.roles.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
            let scopes = token.entitlement.scopes.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
            assert_eq!((&roles, &scopes), (&held.roles, &held.scopes), "{key}");
            assert!(held.until.is_none_or(|u| token.exp <= u), "{key}");
            let name = agent.spec.user.as_ref().map(|u| u.username.as_str());
            let spoken = token.entitlement.username.as_deref();
            let as_user = token.entitlement.mode == crate::api::Mode::AgentUser;
            assert_eq!(spoken, name.filter(|_| as_user), "{key}: {token:?}");
            assert!(!signing || token.exp > c.now, "{key}: {token:?} is dead");
        }
        let mut files: BTreeSet<_> = wanted.keys().map(String::as_str).collect();
        if allowed {
            files.insert(IDENTITY_KEY);
        }
        let there: BTreeSet<_> = secret.iter().flat_map(|s| &s.tokens).map(|t| &*t.file).collect();
        assert!(there.is_subset(&files), "{key}: {there:?} of {files:?}");
        if signing {
            let asked = Agent::try_from(agent).unwrap().rotation;
            let answered = secret.and_then(|s| s.seen.rotated);
            assert!(!allowed || asked.is_none() || answered == asked, "{key}: {asked:?} {answered:?}");
            assert_eq!(there, files, "{key}");
            assert!(!allowed || secret.is_some(), "{key} without its Secret");
        }
    }
    blueprints::check(c);
    // Without keys a foreign Secret is not found.
    if c.keys.problem.is_none() {
        cluster::check(c);
    }
    let counts = c.recount();
    for key in c.grants.keys() {
        let tally = c.world.grant_tally(key);
        let counted = counts.get(key).copied().unwrap_or_default();
        assert_eq!((tally.held, tally.refused), counted, "{key}");
    }
    let counts = c.recount_policies();
    for key in c.policies.keys() {
        let tally = c.world.policy_tally(&key.name);
        let counted = counts.get(&key.name).copied().unwrap_or_default();
        assert_eq!((c.world.matched(&key.name), tally.agents, tally.grants), counted, "{key}");
    }
    let with_agents: BTreeSet<_> = c.agents.keys().map(|k| k.namespace.clone()).collect();
    let with_agents: BTreeSet<_> =
        with_agents.into_iter().filter(|n| c.namespaces.contains_key(&Key::new("", n.clone()))).collect();
    let with_trust: BTreeSet<_> = c.trust.keys().map(|k| k.namespace.clone()).collect();
    assert_eq!(with_agents, with_trust);
    assert_eq!(c.world.indexes(), c.world.rebuilt().indexes());
}

/// Where much is there already: what is seldom met by chance alone.
fn furnish(c: &mut Cluster) {
    c.namespace("n0", &[("team", "a")]);
    for op in [
        Op::Cluster { offer: 0, allow: 0 },
        Op::Role { name: 0, what: 2 },
        Op::Role { name: 1, what: 2 },
        Op::Resource { name: 0, audience: 0, offer: 0, allow: 0, life: 2 },
        Op::Grant { ns: 0, name: 0, agents: 2, resource: 0, rights: 2, times: 2, file: 1 },
        Op::Grant { ns: 0, name: 1, agents: 2, resource: 3, rights: 2, times: 2, file: 0 },
    ] {
        perform(c, &op);
    }
}

fn run(furnished: bool, ops: &[Op]) {
    let mut config = crate::api::Configuration::new("https://agentid.example.com", "example.com");
    config.agent_user_domains = vec!["agents.example.com".to_owned()];
    config.kubernetes.bindable_roles = ["r0", "r1"].map(str::to_owned).into();
    let mut c = Cluster::configured(config);
    if furnished {
        furnish(&mut c);
    }
    for op in ops {
        let unknown = Source::CORE.iter().any(|s| *s != Source::Trust && !c.world.is_fresh(s, c.now));
        let before = secrets(&c);
        let by_hand = matches!(op, Op::Drift { .. } | Op::Copy { .. } | Op::Delete { what: 5, .. });
        perform(&mut c, op);
        settle(&mut c);
        let still = Source::CORE.iter().any(|s| *s != Source::Trust && !c.world.is_fresh(s, c.now));
        if unknown && still && !by_hand {
            assert_eq!(before, secrets(&c), "what is unknown is left as it is: {op:?}");
        }
        if c.is_known() {
            check_known(&mut c);
        }
        // Without keys nothing is tried, so a foreign Secret is not found anew.
        if c.is_known() && c.keys.problem.is_none() {
            let writes = c.writes;
            c.restart();
            c.settle();
            assert_eq!(c.writes, writes, "a restart writes nothing");
            check_known(&mut c);
        }
    }
    for source in c.lost.clone() {
        c.find(&source);
    }
    c.keys.problem = None;
    c.world.mark_all();
    settle(&mut c);
    check_known(&mut c);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 4000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens(furnished in any::<bool>(), ops in prop::collection::vec(op(), 1..30)) {
        run(furnished, &ops);
    }
}

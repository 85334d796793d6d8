//! The product of all that meets in a decision: form of the grant × verdict of a policy × state of the agent × allowance
//! of the resource (a service, or the cluster with its guardrails), each grant written or inherited, each policy enforced or
//! audited, against what it must be, said simply.

use super::*;
use crate::api::Configuration;
use crate::domain::Source;
use crate::domain::testing::{Cluster, RESOURCE};

struct Form {
    grant: &'static str,
    mode: Mode,
    asked: &'static [&'static str],
    /// On the cluster, where `writer` is more than any agent may be bound to.
    cluster: bool,
}

const fn form(grant: &'static str, mode: Mode, asked: &'static [&'static str]) -> Form {
    Form { grant, mode, asked, cluster: false }
}

const fn on_cluster(grant: &'static str, asked: &'static [&'static str]) -> Form {
    Form { grant, mode: Mode::Application, asked, cluster: true }
}

const FORMS: &[Form] = &[
    form("application: {roles: [reader]}", Mode::Application, &["reader"]),
    form("application: {scopes: [x.read]}", Mode::Application, &["x.read"]),
    form(
        "application: {roles: [reader, writer], scopes: [x.read]}",
        Mode::Application,
        &["reader", "writer", "x.read"],
    ),
    form("application: {}", Mode::Application, &[]),
    form(
        "delegation: {issuer: \"https://agentid.example.com\", scopes: [x.read]}",
        Mode::Delegation,
        &["x.read"],
    ),
    form("agentUser: {scopes: [x.read]}", Mode::AgentUser, &["x.read"]),
    on_cluster("application: {roles: [reader]}", &["reader"]),
    on_cluster("application: {roles: [reader, writer]}", &["reader", "writer"]),
];

/// What a policy takes: of the agent, of grants in these modes all, and of the rest these names.
struct Verdict {
    policy: &'static str,
    agent: Option<Reason>,
    whole: &'static [Mode],
    names: &'static [&'static str],
}

const ALL: &[Mode] = &[Mode::Application, Mode::Delegation, Mode::AgentUser];

const fn of_agents(policy: &'static str, reason: Reason) -> Verdict {
    Verdict { policy, agent: Some(reason), whole: &[], names: &[] }
}

const fn of_grants(policy: &'static str, whole: &'static [Mode]) -> Verdict {
    Verdict { policy, agent: None, whole, names: &[] }
}

const fn of_names(policy: &'static str, names: &'static [&'static str]) -> Verdict {
    Verdict { policy, agent: None, whole: &[], names }
}

const VERDICTS: &[Verdict] = &[
    of_grants("suspend: false", &[]),
    of_grants("match: {resources: [nil]}, deny: [{resources: [\"*\"]}]", &[]),
    of_grants("match: {namespaceSelector: {matchLabels: {team: b}}}, suspend: true", &[]),
    of_agents("suspend: true", Reason::Suspended),
    of_agents("require: [Sponsor]", Reason::RequirementMissing),
    of_agents("limits: {agentLifetime: 1m}", Reason::Expired),
    of_grants("limits: {grantLifetime: 1m}", ALL),
    of_grants("match: {resources: [\"r?s\"]}, suspend: true", ALL),
    of_grants("deny: [{resources: [\"*\"]}]", ALL),
    of_grants("deny: [{modes: [Application]}]", &[Mode::Application]),
    of_grants("deny: [{modes: [Delegation], resources: [res]}]", &[Mode::Delegation]),
    of_grants("deny: [{modes: [AgentUser, Delegation]}]", &[Mode::AgentUser, Mode::Delegation]),
    of_names("deny: [{roles: [writer]}]", &["writer"]),
    of_names("deny: [{roles: [\"*\"]}]", &["reader", "writer"]),
    of_names("deny: [{scopes: [\"x.*\"]}]", &["x.read"]),
    of_names("deny: [{roles: [\"*\"], scopes: [\"*\"]}]", &["reader", "writer", "x.read"]),
];

/// What an agent is, and what refuses it before or after the policies are asked.
struct State {
    agent: &'static str,
    blueprint: &'static str,
    before: Option<Reason>,
    after: Option<Reason>,
}

const SELECTS: &str = "namespaceSelector: {}";

const fn state(agent: &'static str, blueprint: &'static str, before: Option<Reason>) -> State {
    State { agent, blueprint, before, after: None }
}

const STATES: &[State] = &[
    state("", SELECTS, None),
    state("suspend: true", SELECTS, Some(Reason::Suspended)),
    state("expiresAt: 2027-01-15T07:00:00Z", SELECTS, Some(Reason::Expired)),
    state("", "namespaceSelector: {}, suspend: true", Some(Reason::Suspended)),
    state("", "namespaceSelector: {}, defaults: {lifetime: 1m}", Some(Reason::Expired)),
    state("", "namespaceSelector: {matchLabels: {team: b}}", Some(Reason::NamespaceNotSelected)),
    State {
        agent: "boundObjectRef: {apiVersion: v1, kind: Pod, name: p}",
        blueprint: SELECTS,
        before: None,
        after: Some(Reason::BoundObjectNotFound),
    },
    // Deployments can't be seen.
    State {
        agent: "boundObjectRef: {apiVersion: apps/v1, kind: Deployment, name: d}",
        blueprint: SELECTS,
        before: None,
        after: Some(Reason::Unknown),
    },
];

const CLUSTER: &str = "
kind: AgentResource
metadata: {name: res}
spec:
  audience: https://res.example.com
  kubernetes: {}
  roles: [{name: reader}, {name: writer}]
  allow: [{namespaceSelector: {matchLabels: {team: a}}}]
";

/// What a resource allows the agent's namespace; `None`: nothing at all.
const ALLOWANCES: &[(&str, Option<&[&str]>)] = &[
    (
        "[{namespaceSelector: {}, modes: [Application, Delegation, AgentUser]}]",
        Some(&["reader", "writer", "x.read"]),
    ),
    (
        "[{namespaceSelector: {}, roles: [writer], scopes: [x.read], modes: [Application, Delegation, AgentUser]}]",
        Some(&["writer", "x.read"]),
    ),
    ("[{namespaceSelector: {matchLabels: {team: b}}}]", None),
];

/// One pairing.
struct Row {
    form: &'static Form,
    verdict: &'static Verdict,
    state: &'static State,
    allow: &'static str,
    allowed: Option<&'static [&'static str]>,
    inherited: bool,
    audit: bool,
}

impl Row {
    fn name(&self) -> String {
        let Self { form, verdict, state, allow, inherited, audit, .. } = self;
        let (agent, blueprint) = (state.agent, state.blueprint);
        format!(
            "{} | {} | {agent} | {blueprint} | {allow} | inherited: {inherited} | audit: {audit}",
            form.grant, verdict.policy
        )
    }

    fn decision(&self) -> Decision {
        let mut config = Configuration::new("https://agentid.example.com", "example.com");
        config.agent_user_domains = vec!["agents.example.com".to_owned()];
        config.kubernetes.bindable_roles = ["reader", "writer"].map(str::to_owned).into();
        let mut c = Cluster::configured(config);
        c.namespace("ns", &[("team", "a")]);
        c.cluster_role("reader", "[{apiGroups: [\"\"], resources: [pods], verbs: [get]}]");
        c.cluster_role("writer", "[{apiGroups: [\"\"], resources: [secrets], verbs: [\"*\"]}]");
        c.lose(&Source::Bound("apps/v1/Deployment".into()));
        let (form, state) = (self.form.grant, self.state);
        let grants = if self.inherited {
            format!(", grants: [{{name: g, resource: res, {form}}}]")
        } else {
            c.apply(&format!(
                "{{kind: AgentGrant, metadata: {{name: g, namespace: ns}}, spec: {{agents: {{names: [a]}}, resource: res, {form}}}}}"
            ));
            String::new()
        };
        c.apply(&format!(
            "{{kind: AgentBlueprint, metadata: {{name: b}}, spec: {{{}{grants}}}}}",
            state.blueprint
        ));
        let comma = if state.agent.is_empty() { "" } else { ", " };
        c.apply(&format!(
            "{{kind: AgentIdentity, metadata: {{name: a, namespace: ns}}, spec: {{blueprint: b, user: {{username: \
             a@agents.example.com}}{comma}{}}}}}",
            state.agent
        ));
        let resource = if self.form.cluster { CLUSTER } else { RESOURCE };
        c.apply(&resource.replace("[{namespaceSelector: {matchLabels: {team: a}}}]", self.allow));
        let enforcement = if self.audit { "enforcement: Audit, " } else { "" };
        c.apply(&format!(
            "{{kind: AgentPolicy, metadata: {{name: p}}, spec: {{{enforcement}{}}}}}",
            self.verdict.policy
        ));
        c.deliver();
        c.advance(120);
        c.decide("ns", "a")
    }

    /// The agent: what is refused first.
    fn agent(&self) -> Option<Reason> {
        let by_policy = || self.verdict.agent.filter(|_| !self.audit);
        self.state.before.or_else(by_policy).or(self.state.after)
    }

    /// What the resource leaves of what is asked for; `None`: nothing is held.
    fn open(&self) -> Option<Vec<&'static str>> {
        let allowed = self.allowed?;
        let guarded = |n: &str| self.form.cluster && n == "writer";
        let open = self.form.asked.iter().filter(|n| allowed.contains(n) && !guarded(n));
        let open: Vec<_> = open.copied().collect();
        (self.form.asked.is_empty() || !open.is_empty()).then_some(open)
    }

    /// What the policy leaves of that, or would.
    fn left(&self) -> Option<Vec<&'static str>> {
        let open = self.open()?;
        let left: Vec<_> = open.iter().filter(|n| !self.verdict.names.contains(n)).copied().collect();
        let whole = self.verdict.whole.contains(&self.form.mode);
        (!whole && (open.is_empty() || !left.is_empty())).then_some(left)
    }

    /// How often the policy takes something, and would.
    fn objections(&self) -> (usize, usize) {
        let touched = usize::from(self.left() != self.open());
        let agent = self.verdict.agent.map_or(0, |_| 1);
        // Of whom it can't be told, what policies take is counted as of the others.
        let after = self.state.after.filter(|r| *r != Reason::Unknown);
        match (self.state.before.or(after), self.audit) {
            // Nobody loses to a policy what something else has taken.
            _ if self.state.before.is_some() => (0, 0),
            (Some(_), false) => (agent, 0),
            (Some(_), true) => (0, 0),
            // An agent that is refused as a whole holds no grants to lose.
            (None, false) if agent > 0 => (agent, 0),
            (None, false) => (touched, 0),
            (None, true) => (0, agent + touched),
        }
    }

    fn check(&self) {
        let (row, d) = (self.name(), self.decision());
        let refused = match &d.standing {
            Standing::Refused(r) => Some(r.reason),
            Standing::Unknown(r) => Some(r.reason).filter(|r| *r == Reason::Unknown),
            Standing::Allowed => None,
            other => panic!("{row}: {other:?}"),
        };
        assert_eq!(refused, self.agent(), "{row}");
        let [grant] = &d.grants[..] else { panic!("{row}: {:?}", d.grants) };
        let held = grant.held.as_ref();
        let names = held.map(|h| h.roles.iter().chain(&h.scopes).map(|n| &**n).collect::<Vec<_>>());
        let wanted = if self.audit { self.open() } else { self.left() };
        assert_eq!(names, wanted, "{row}");
        assert!(held.is_none_or(|h| h.mode == self.form.mode), "{row}");
        let user = held.and_then(|h| h.username.as_deref());
        let speaks_as =
            (held.is_some() && self.form.mode == Mode::AgentUser).then_some("a@agents.example.com");
        assert_eq!(user, speaks_as, "{row}");
        assert_eq!((d.denied.len(), d.audited.len()), self.objections(), "{row}");
        let reason = grant.refusal.as_ref().map(|r| r.reason);
        if self.left() != self.open() && !self.audit {
            let by_policy =
                matches!(reason, Some(Reason::PolicyDenied | Reason::Suspended | Reason::Expired));
            assert!(by_policy, "{row}: {reason:?}");
        } else {
            assert_ne!(reason, Some(Reason::PolicyDenied), "{row}");
        }
    }
}

#[test]
fn every_pairing_is_decided_as_it_must_be() {
    let mut rows = 0;
    for form in FORMS {
        for verdict in VERDICTS {
            for state in STATES {
                for &(allow, allowed) in ALLOWANCES {
                    for (inherited, audit) in [(false, false), (false, true), (true, false), (true, true)] {
                        Row { form, verdict, state, allow, allowed, inherited, audit }.check();
                        rows += 1;
                    }
                }
            }
        }
    }
    assert_eq!(rows, 8 * 16 * 8 * 3 * 4);
}

use serde_json::{Value, json};

use super::*;
use crate::api::Reason;
use crate::domain::Refusal;
use crate::domain::testing::{Cluster, GRANT, RESOURCE};
use crate::domain::{Key, Source};

/// Blueprint `bots` with a made agent `p` and a written one `hand`; an agent `a` without one, and one that is suspended.
fn town() -> Cluster {
    let mut c = Cluster::new();
    c.namespace("ns", &[("team", "a")]);
    c.namespace("other", &[]);
    c.apply(RESOURCE);
    c.apply(GRANT);
    c.apply(
        "{kind: AgentBlueprint, metadata: {name: bots}, spec: {namespaceSelector: {}, podSelector: {matchLabels: {app: bot}}, \
         identityPer: Pod, grants: [{name: t, resource: res, application: {scopes: [x.read, x.none]}}]}}",
    );
    c.apply("{kind: AgentBlueprint, metadata: {name: empty}, spec: {namespaceSelector: {}, suspend: true}}");
    c.apply("{kind: AgentIdentity, metadata: {name: a, namespace: ns}, spec: {}}");
    c.apply("{kind: AgentIdentity, metadata: {name: hand, namespace: ns}, spec: {blueprint: bots}}");
    c.apply("{kind: AgentIdentity, metadata: {name: lost, namespace: other}, spec: {blueprint: none}}");
    c.apply("{kind: AgentIdentity, metadata: {name: idle, namespace: other}, spec: {suspend: true}}");
    c.put_bound("v1/Pod", &Key::new("ns", "p"), |p| p.labels = std::iter::once(("app", "bot")).collect());
    c.settle();
    c
}

fn look(c: &Cluster, namespace: Option<&str>, blueprint: Option<&str>) -> (Value, String) {
    let report = tree(&c.world, &Filter { namespace, blueprint }, true, vec!["a note".to_owned()], c.now);
    (serde_json::to_value(&report).unwrap(), report.text(c.now))
}

#[test]
fn every_agent_stands_under_what_it_is_of() {
    let (value, text) = look(&town(), None, None);
    let names: Vec<_> =
        value["blueprints"].as_array().unwrap().iter().map(|b| b["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["bots", "empty", "none"]);
    assert_eq!(
        value["summary"],
        json!({"agents": 5, "ready": 3, "suspended": 1, "refused": 1, "unknown": 0, "ending": 0})
    );
    let made = &value["blueprints"][0]["agents"][1];
    assert_eq!((&made["name"], &made["made"], &made["state"]), (&json!("p"), &json!(true), &json!("Ready")));
    assert!(made.get("secret").is_none(), "{made}");
    let grant = &made["grants"][0];
    assert_eq!(
        (&grant["grant"], &grant["state"], &grant["scopes"]),
        (&json!("bots/t"), &json!("Narrowed"), &json!(["x.read"]))
    );
    assert!(grant.get("file").is_none(), "{grant}");
    let own = &value["namespaces"][0]["agents"][0];
    assert_eq!((&own["secret"]["name"], &own["secret"]["exists"]), (&json!("a-agentid"), &json!(true)));
    assert!(own["secret"]["renewAt"].is_string() && own["secret"]["expiresAt"].is_string(), "{own}");
    assert_eq!(own["grants"][0]["file"], "res.jwt");
    for words in [
        "AgentBlueprint bots, one agent per Pod\n  ns/hand (written): Ready\n    Secret hand-agentid: renewed 2027-",
        "  ns/p (made for v1/Pod p): Ready\n    no Secret: tokens on demand\n    bots/t on res: Narrowed, scopes x.read, on demand, ScopeNotOffered: ",
        "AgentBlueprint empty, of written agents, suspended\n  no agents\n",
        "AgentBlueprint none, which does not exist\n  other/lost (written): Refused, BlueprintNotFound: ",
        "Namespace ns, agents without a blueprint\n  ns/a (written): Ready\n    Secret a-agentid: renewed ",
        "    g on res: Held, roles reader, scopes x.read, file res.jwt\n",
        "  other/idle (written): Suspended, Suspended: spec.suspend is true",
        "5 agents: 3 ready, 1 suspended, 1 refused\nnote: a note\n",
    ] {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
}

#[test]
fn filters_leave_the_rest_out() {
    let c = town();
    let (value, _) = look(&c, Some("other"), None);
    assert_eq!(value["blueprints"].as_array().unwrap().len(), 1);
    assert_eq!(value["summary"]["agents"], 2);
    let (value, text) = look(&c, None, Some("bots"));
    assert_eq!((&value["summary"]["agents"], &value["namespaces"]), (&json!(2), &json!([])));
    assert!(text.starts_with("AgentBlueprint bots") && !text.contains("empty"), "{text}");
    assert_eq!(look(&c, Some("other"), Some("bots")).0["blueprints"], json!([]));
    assert_eq!(look(&c, None, Some("nobody")).0["blueprints"], json!([]));
}

#[test]
fn a_right_that_could_not_be_bound_is_not_called_held() {
    let mut config = crate::api::Configuration::new("https://agentid.example.com", "example.com");
    config.kubernetes.bindable_roles = ["reader", "lister"].map(str::to_owned).into();
    let mut c = Cluster::configured(config);
    c.namespace("ns", &[("team", "a")]);
    for role in ["reader", "lister"] {
        c.cluster_role(role, "[{apiGroups: [\"\"], resources: [pods], verbs: [get]}]");
    }
    c.unbindable.insert("reader".to_owned(), Refusal::new(Reason::Internal, "reader can't be bound"));
    c.apply(
        "{kind: AgentResource, metadata: {name: res}, spec: {audience: \"https://k.example.com\", kubernetes: {}, roles: \
         [{name: reader}, {name: lister}], allow: [{namespaceSelector: {}}]}}",
    );
    c.apply("{kind: AgentIdentity, metadata: {name: a, namespace: ns}, spec: {}}");
    let grant = GRANT.replace("roles: [reader], scopes: [x.read]", "roles: [reader]");
    c.apply(&grant);
    // Of two grants, one is in force; and one that is refused for another reason hides nothing.
    let other = |name: &str, right: &str| {
        grant
            .replace("name: g,", &format!("name: {name},"))
            .replace("roles: [reader]", right)
            .replace("res.jwt", name)
    };
    c.apply(&other("a0", "roles: [nil]"));
    c.apply(&other("h", "roles: [lister]"));
    c.settle();
    let text = look(&c, Some("ns"), None).1;
    assert!(
        text.contains("g on res: Narrowed, roles reader, file res.jwt, Internal: a role on the"),
        "{text}"
    );
    c.unbindable.clear();
    c.settle();
    let text = look(&c, Some("ns"), None).1;
    assert!(text.contains("g on res: Held, roles reader, file res.jwt\n"), "{text}");
}

#[test]
fn what_cannot_be_told_is_unknown() {
    let mut c = town();
    c.lose(&Source::Policies);
    c.restart();
    let (value, text) = look(&c, Some("ns"), None);
    assert_eq!(value["summary"]["unknown"], 3, "{value}");
    assert!(text.contains("g on res: Unknown"), "{text}");
    let report = tree(&c.world, &Filter { namespace: None, blueprint: None }, false, Vec::new(), c.now);
    assert!(report.text(c.now).contains("Secret a-agentid: can't be seen"));
}

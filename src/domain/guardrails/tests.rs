use proptest::prelude::*;

use super::*;
use crate::api::{PROTECTED, Protected};
use crate::domain::testing::rules;

fn first(yaml: &str) -> Option<&'static str> {
    Violations::of("x", &rules(yaml)).first().map(|g| g.name)
}

/// One rule, `groups|resources|verbs`, each a comma-separated list.
fn rule(text: &str) -> String {
    let parts: Vec<_> = text.split('|').collect();
    let list = |s: &str| s.split(',').map(|x| format!("\"{x}\"")).collect::<Vec<_>>().join(", ");
    format!(
        "[{{apiGroups: [{}], resources: [{}], verbs: [{}]}}]",
        list(parts[0]),
        list(parts[1]),
        list(parts[2])
    )
}

/// Each forbidden capability in its literal, wildcard and subresource forms, with the guardrail that refuses it.
const FORBIDDEN: &[(&str, &str)] = &[
    ("|secrets|get", "secrets"),
    ("|secrets|list", "secrets"),
    ("|secrets|watch", "secrets"),
    ("|configmaps,secrets|patch", "secrets"),
    ("*|secrets|get", "secrets"),
    ("|*|get", "secrets"),
    ("*|*|list", "secrets"),
    ("*|*|*", "secrets"),
    ("|secrets|*", "secrets"),
    ("apps,|secrets|get", "secrets"),
    ("|secrets/*|get", "secrets"),
    ("*|*/*|get", "secrets"),
    ("|pods|create", "workloads"),
    ("|pods|update", "workloads"),
    ("|pods|patch", "workloads"),
    ("|pods|*", "workloads"),
    ("|pods/binding|create", "workloads"),
    ("|replicationcontrollers|create", "workloads"),
    ("|podtemplates|patch", "workloads"),
    ("apps|deployments|create", "workloads"),
    ("apps|statefulsets|update", "workloads"),
    ("apps|daemonsets|patch", "workloads"),
    ("apps|replicasets|get,create", "workloads"),
    ("apps|*|patch", "workloads"),
    ("*|deployments|create", "workloads"),
    ("batch|jobs|create", "workloads"),
    ("batch|cronjobs|update", "workloads"),
    ("batch|*|*", "workloads"),
    ("|pods/exec|create", "exec"),
    ("|pods/exec|get", "exec"),
    ("|pods/attach|create", "exec"),
    ("|pods/portforward|create", "exec"),
    ("|pods/proxy|get", "exec"),
    ("|services/proxy|get", "exec"),
    ("|pods/ephemeralcontainers|patch", "exec"),
    ("|*/exec|create", "exec"),
    ("*|*/portforward|*", "exec"),
    ("|serviceaccounts/token|create", "tokens"),
    ("|*/token|create", "tokens"),
    ("*|serviceaccounts/token|*", "tokens"),
    ("rbac.authorization.k8s.io|rolebindings|create", "rbac"),
    ("rbac.authorization.k8s.io|clusterrolebindings|patch", "rbac"),
    ("rbac.authorization.k8s.io|roles|delete", "rbac"),
    ("rbac.authorization.k8s.io|clusterroles|bind", "rbac"),
    ("rbac.authorization.k8s.io|clusterroles|escalate", "rbac"),
    ("rbac.authorization.k8s.io|*|*", "rbac"),
    ("*|roles|update", "rbac"),
    ("|users|impersonate", "impersonate"),
    ("|groups|impersonate", "impersonate"),
    ("|serviceaccounts|impersonate", "impersonate"),
    ("|serviceaccounts|*", "impersonate"),
    ("authentication.k8s.io|uids|impersonate", "impersonate"),
    ("authentication.k8s.io|userextras/scopes|impersonate", "impersonate"),
    ("authentication.k8s.io|userextras/scopes|*", "impersonate"),
    ("authentication.k8s.io|*|*", "impersonate"),
    ("authentication.k8s.io|users|impersonate:user-info", "impersonate"),
    ("|pods|impersonate-on:user-info:list", "impersonate"),
    ("admissionregistration.k8s.io|validatingwebhookconfigurations|update", "admission"),
    ("admissionregistration.k8s.io|*|create", "admission"),
    ("apiextensions.k8s.io|customresourcedefinitions|patch", "admission"),
    ("apiregistration.k8s.io|apiservices|create", "admission"),
    ("agentid.dev|agentgrants|create", "agentid"),
    ("agentid.dev|agentidentities/status|patch", "agentid"),
    ("agentid.dev|agentidentities|run", "agentid"),
    ("agentid.dev|*|*", "agentid"),
    ("*|agentpolicies|delete", "agentid"),
    ("|namespaces|create", "namespaces"),
    ("|namespaces|patch", "namespaces"),
    ("|namespaces|delete", "namespaces"),
    ("|namespaces/finalize|update", "namespaces"),
    ("|nodes|patch", "nodes"),
    ("|nodes/proxy|get", "nodes"),
    ("|nodes/*|get", "nodes"),
    ("|nodes/status|patch", "nodes"),
    ("certificates.k8s.io|certificatesigningrequests/approval|update", "certificates"),
    ("certificates.k8s.io|signers|approve", "certificates"),
    ("certificates.k8s.io|signers|sign", "certificates"),
    ("certificates.k8s.io|certificatesigningrequests/status|patch", "certificates"),
];

#[test]
fn each_forbidden_capability_is_refused() {
    for (text, wanted) in FORBIDDEN {
        let found = Violations::of("x", &rules(&rule(text)));
        let names: Vec<_> = found.iter().map(|g| g.name).collect();
        assert!(names.contains(wanted), "{text}: {names:?}, not {wanted}");
    }
    assert_eq!(first("[{nonResourceURLs: ['*'], verbs: [get]}]"), Some("nonResourceURLs"));
    assert_eq!(first("[{nonResourceURLs: [/metrics, /logs/*], verbs: [get]}]"), Some("nonResourceURLs"));
    assert_eq!(Violations::of("system:node", &[]).first().map(|g| g.name), Some("system"));
    let all: std::collections::BTreeSet<_> = FORBIDDEN.iter().map(|(_, name)| *name).collect();
    for guardrail in ALL {
        let apart = ["system", "nonResourceURLs"].contains(&guardrail.name);
        assert!(apart || all.contains(guardrail.name), "{} has no example", guardrail.name);
    }
}

/// What the guardrails refuse to bind and the admission policies don't look at.
///
/// They are two lists because they answer two questions. A guardrail judges a role before agentid binds it, by verbs and
/// wildcards, and can be strict: another role can be named. An admission policy judges one request of an agent to which
/// somebody bound a role by hand, or of the operator, and names what it keeps. What stands here is kept by roles
/// alone, as the page on security says; whoever adds to one of the lists has to say here what becomes of the other.
const LEFT_TO_ROLES: &[(&str, &str)] = &[
    ("", "pods/binding"),
    ("", "bindings"),
    ("", "podtemplates"),
    ("apps", "controllerrevisions"),
    ("extensions", "deployments"),
    ("extensions", "daemonsets"),
    ("extensions", "replicasets"),
    ("", "pods/proxy"),
    ("", "services/proxy"),
    ("apiextensions.k8s.io", "*"),
    ("apiregistration.k8s.io", "*"),
    ("", "namespaces/status"),
    ("", "namespaces/finalize"),
    ("", "nodes/status"),
    ("certificates.k8s.io", "certificatesigningrequests/approval"),
    ("certificates.k8s.io", "certificatesigningrequests/status"),
    ("certificates.k8s.io", "podcertificaterequests/status"),
    ("certificates.k8s.io", "clustertrustbundles"),
    ("certificates.k8s.io", "signers"),
];

#[test]
fn what_admission_keeps_agents_from_no_role_may_allow_and_the_reverse() {
    for p in PROTECTED {
        for resource in p.resources {
            let resource = if *resource == "*" { "anything" } else { resource };
            for verb in ["create", "update", "patch"] {
                let text = format!("{}|{resource}|{verb}", p.group);
                assert!(first(&rule(&text)).is_some(), "no guardrail refuses {text}");
            }
        }
    }
    let is_protected = |group: &str, resource: &str| {
        let all = |p: &Protected| p.resources == ["*"] && (resource == "*" || !resource.contains('/'));
        PROTECTED.iter().any(|p| p.group == group && (all(p) || p.resources.contains(&resource)))
    };
    // A verb that is no write of an object, such as `bind`, is the roles' alone.
    let writes = |f: &&Forbidden| f.group != "*" && !matches!(f.verbs, Verbs::These(["impersonate"]));
    let forbidden = ALL.iter().flat_map(|g| g.forbids).filter(writes);
    let of_each = forbidden.flat_map(|f| f.resources.iter().map(|r| (f.group, *r)));
    let left: Vec<_> = of_each.filter(|(group, resource)| !is_protected(group, resource)).collect();
    assert_eq!(left, LEFT_TO_ROLES);
}

#[test]
fn names_of_objects_save_nothing() {
    let named = "[{apiGroups: [''], resources: [secrets], resourceNames: [one], verbs: [get]}]";
    assert_eq!(first(named), Some("secrets"));
}

#[test]
fn ordinary_roles_are_accepted() {
    for text in [
        "|pods|get,list,watch",
        "|pods/log|get",
        "|pods|delete",
        "|pods/eviction|create",
        "|configmaps|*",
        "|services,endpoints|get,list,create,update,patch,delete",
        "|events|create",
        "|serviceaccounts|get,list,create",
        "|namespaces,nodes|get,list,watch",
        "apps|deployments,statefulsets|get,list,watch,delete",
        "apps|deployments/scale|get,patch",
        "batch|jobs|delete",
        "networking.k8s.io|ingresses|*",
        "rbac.authorization.k8s.io|roles,rolebindings|get,list,watch",
        "admissionregistration.k8s.io|*|list",
        "agentid.dev|agentgrants,agentidentities|get,list,watch",
        "certificates.k8s.io|certificatesigningrequests|create,get",
        "metrics.k8s.io|*|get,list",
        "example.com|secrets|get",
        "example.com|*|*",
    ] {
        assert_eq!(first(&rule(text)), None, "{text}");
    }
    assert_eq!(first("[{nonResourceURLs: [/metrics, /healthz], verbs: [get]}]"), None);
    assert_eq!(first("[]"), None);
    assert_eq!(first("[{apiGroups: [''], resources: [secrets], verbs: []}]"), None);
}

proptest! {
    /// A role that contains any forbidden rule is denied, whatever else it has.
    #[test]
    fn no_other_rule_saves_a_forbidden_one(
        which in 0..FORBIDDEN.len(),
        others in prop::collection::vec(
            (
                prop::sample::subsequence(vec!["", "apps", "batch", "example.com", "*"], 1..3),
                prop::sample::subsequence(vec!["pods", "secrets", "configmaps", "deployments/scale", "*"], 1..3),
                prop::sample::subsequence(vec!["get", "list", "create", "delete", "bind", "*"], 1..4),
            ),
            0..6,
        ),
        at in 0..6usize,
        names in prop::option::of("[a-z]{1,5}"),
    ) {
        let (text, guardrail) = FORBIDDEN[which];
        let mut all: Vec<PolicyRule> = others
            .into_iter()
            .map(|(g, r, v)| rules(&rule(&format!("{}|{}|{}", g.join(","), r.join(","), v.join(",")))).remove(0))
            .collect();
        let mut forbidden = rules(&rule(text)).remove(0);
        forbidden.resource_names = names.map(|n| vec![n]);
        let before = Violations::of("x", &all);
        all.insert(at.min(all.len()), forbidden);
        let after = Violations::of("x", &all);
        prop_assert!(after.iter().any(|g| g.name == guardrail), "{text}");
        prop_assert!(!before.exceeds(after), "a rule more made the role better");
    }
}

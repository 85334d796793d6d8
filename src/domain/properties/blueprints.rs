//! Blueprints and the pods that they select: what is done to them, and what must have come of it.

use std::collections::BTreeSet;

use super::super::testing::{Cluster, uid_of};
use super::super::*;
use crate::api::{AgentBlueprint, AgentIdentity, IdentityPer, MADE_LABEL, PER_LABEL, Reason};

const DEPLOYMENT: &str = "apps/v1/Deployment";

/// Creates or edits a blueprint.
pub(super) fn blueprint(c: &mut Cluster, name: u8, whom: u8, per_pod: bool, says: u8, suspend: bool) {
    let (namespaces, pods) = [
        ("{}", "podSelector: {matchLabels: {app: bot}}"),
        ("{}", "podSelector: {}"),
        ("{matchLabels: {team: a}}", "podSelector: {matchLabels: {app: bot}}"),
        ("{}", "description: by hand alone"),
    ][usize::from(whom)];
    // Only what makes agents says of what.
    let per = match (pods.starts_with("podSelector"), per_pod) {
        (true, true) => "identityPer: Pod, ",
        (true, false) => "identityPer: Workload, ",
        (false, _) => "",
    };
    let says = [
        "sponsors: [{kind: User, name: ann}]",
        "grants: [{name: t, resource: r0, application: {roles: [r0]}, secretKey: x.jwt}]",
        "grants: [{name: t, resource: r1, application: {scopes: [s0, s9]}}, {name: u, resource: r0, application: {}, \
         secretKey: z.jwt}], defaults: {tokenLifetime: 30m}",
        "defaults: {lifetime: 40m}",
        "grants: [{name: k, resource: r3, application: {roles: [r0, r1]}}]",
    ][usize::from(says)];
    c.apply(&format!(
        "{{kind: AgentBlueprint, metadata: {{name: b{name}}}, spec: {{namespaceSelector: {namespaces}, {pods}, \
         {per}suspend: {suspend}, {says}}}}}"
    ));
}

/// Creates a pod, or labels or ends it. What controls it is said once and for all.
pub(super) fn pod(c: &mut Cluster, ns: u8, name: u8, bot: bool, controlled: bool, finished: bool) {
    let key = Key::new(format!("n{ns}"), format!("o{name}"));
    let deployment = c.bound.get(&(DEPLOYMENT.into(), key.sibling("o0"))).map(|d| d.meta.uid);
    let old = c.bound.get(&(POD.into(), key.clone()));
    let controller = match old {
        Some(old) => old.controller.clone(),
        None => deployment.filter(|_| controlled).map(|uid| Controller {
            kind: DEPLOYMENT.into(),
            name: "o0".into(),
            uid,
        }),
    };
    let over = old.is_some_and(|old| old.finished);
    c.put_bound(POD, &key, |pod| {
        pod.unselected = false;
        pod.finished = finished || over;
        pod.labels = if bot { std::iter::once(("app", "bot")).collect() } else { Labels::default() };
        pod.account = Some("default".into());
        pod.controller = controller;
    });
}

fn label<'a>(agent: &'a AgentIdentity, name: &str) -> Option<&'a str> {
    agent.metadata.labels.as_ref()?.get(name).map(String::as_str)
}

/// Whether an agent has no Secret: it was made for a pod of its own.
pub(super) fn without_secret(agent: &AgentIdentity) -> bool {
    label(agent, MADE_LABEL).is_some() && label(agent, PER_LABEL) == Some("Pod")
}

/// The blueprint that rules a pod, by the objects alone.
fn ruler<'c>(c: &'c Cluster, pod: &BoundObject) -> Option<&'c AgentBlueprint> {
    let namespace = c.namespaces.get(&Key::new("", pod.meta.key.namespace.clone()))?;
    let selects = |b: &&AgentBlueprint| {
        b.spec.namespace_selector.matches(|k| namespace.labels.get(k))
            && b.spec.pod_selector.as_ref().is_some_and(|s| s.matches(|k| pod.labels.get(k)))
    };
    let age =
        |b: &&AgentBlueprint| (b.metadata.creation_timestamp.as_ref().map(|t| t.0), uid_of(&b.metadata));
    c.blueprints.values().filter(selects).min_by_key(age)
}

/// The object that a pod's agent is made for; `None` while what controls the pod is not there.
fn object_of<'c>(
    c: &'c Cluster,
    pod: &'c BoundObject,
    per: IdentityPer,
) -> Option<(&'static str, &'c BoundObject)> {
    match (&pod.controller, per) {
        (None, _) | (_, IdentityPer::Pod) => Some((POD, pod)),
        (Some(controller), IdentityPer::Workload) => {
            let at = (controller.kind.clone(), pod.meta.key.sibling(controller.name.clone()));
            let object = c.bound.get(&at).filter(|o| o.meta.uid == controller.uid)?;
            Some((DEPLOYMENT, object))
        }
    }
}

/// Every selected pod that lives has its agent, what was made outlives neither what it was made for nor its blueprint,
/// and the counts are right.
pub(super) fn check(c: &Cluster) {
    for ((kind, key), pod) in c.bound.iter().filter(|((kind, _), _)| &**kind == POD) {
        if pod.finished || pod.unselected {
            continue;
        }
        let Some(blueprint) = ruler(c, pod) else { continue };
        let per = blueprint.spec.identity_per.unwrap_or_default();
        let Some((of, object)) = object_of(c, pod, per) else { continue };
        let bound_to = |a: &&AgentIdentity| {
            a.metadata.namespace.as_deref() == Some(&*key.namespace)
                && a.spec.bound_object_ref.as_ref().is_some_and(|b| {
                    kind_name(&b.api_version, &b.kind) == of.into()
                        && *b.name == *object.meta.key.name
                        && b.uid.as_ref().is_none_or(|u| *u == object.meta.uid.to_string())
                })
        };
        let agents: Vec<_> = c.agents.values().filter(bound_to).collect();
        // Somebody wrote an agent of the name, or one was made for another object that bears it.
        let taken = c.agents.get(&object.meta.key).is_some_and(|a| !bound_to(&a));
        assert!(taken || !agents.is_empty(), "{kind} {key} of {per:?} has no agent: {:?}", c.agents.keys());
        let made = agents.iter().filter(|a| label(a, MADE_LABEL).is_some()).count();
        assert!(made <= 1, "{made} agents were made for {of} {}", object.meta.key);
    }
    let mut counts = std::collections::BTreeMap::<&str, [i64; 4]>::new();
    for (key, agent) in &c.agents {
        let made_by = label(agent, MADE_LABEL);
        if let Some(uid) = made_by {
            let blueprint = c.blueprints.values().find(|b| b.metadata.uid.as_deref() == Some(uid));
            assert!(blueprint.is_some(), "{key} outlives its blueprint");
            let bound = agent.spec.bound_object_ref.as_ref().unwrap();
            let at = (kind_name(&bound.api_version, &bound.kind), key.sibling(bound.name.as_str()));
            let object = c.bound.get(&at);
            let object = object.filter(|o| bound.uid.as_ref().is_none_or(|u| *u == o.meta.uid.to_string()));
            assert!(object.is_some_and(|o| !o.finished), "{key} outlives {bound:?}");
        }
        let Some(name) = agent.spec.blueprint.as_deref() else { continue };
        let tally = counts.entry(name).or_default();
        tally[0] += i64::from(made_by.is_some());
        match decide(&c.world, key, c.now).unwrap().standing {
            Standing::Allowed => tally[1] += 1,
            Standing::Refused(r) if r.reason == Reason::Suspended => tally[3] += 1,
            _ => tally[2] += 1,
        }
    }
    for name in c.blueprints.keys().map(|k| k.name.clone()).collect::<BTreeSet<_>>() {
        let tally = c.world.blueprint_tally(&name);
        let seen = [tally.made, tally.ready, tally.refused, tally.suspended];
        assert_eq!(seen, counts.get(&*name).copied().unwrap_or_default(), "AgentBlueprint {name}");
    }
}

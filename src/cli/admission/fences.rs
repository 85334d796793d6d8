//! What is refused: to the operator, to others who would bind agents, to agents, and to who ends a suspension.
//!
//! Invariant: each rule speaks of users that no controller of Kubernetes is, or of a change that none makes, and is
//! silent where the object or its namespace is on its way out.

use serde_json::Value;

use super::Settings;
use super::object::{Body, Failure, Policy, leaving, rule, text};
use crate::api::{AGENTS_GROUP, GROUP, MANAGED_BY, PROTECTED, RESUME_VERB, SECRET_TYPE};
use crate::cluster::certstore::{CA_SECRET, SERVING_SECRET};
use crate::cluster::keystore::SECRET_NAME;

const RBAC: &str = "rbac.authorization.k8s.io";
const DENY: &[&str] = &["Deny"];
/// The object, for a message: `secrets default/a`.
const OBJECT: &str = "(request.?resource.resource.orValue('') + (request.?subResource.orValue('') == '' ? '' : '/' + request.subResource) \
    + ' ' + (request.?namespace.orValue('') == '' ? '' : request.namespace + '/') \
    + (request.?name.orValue('') == '' ? '(unnamed)' : request.name))";

/// The API server asks no policy about admission policies and webhooks themselves, lest a cluster be locked: there
/// only roles decide.
const BEYOND_ADMISSION: &str = "admissionregistration.k8s.io";

/// Every rule of [`PROTECTED`] that a policy can hold.
fn protected() -> Vec<Value> {
    let held = PROTECTED.iter().filter(|p| p.group != BEYOND_ADMISSION);
    held.map(|p| rule(p.group, &["CREATE", "UPDATE", "CONNECT"], p.resources)).collect()
}

/// That a subject `s` is an agent's user name.
fn is_agent(settings: &Settings) -> String {
    match &settings.trust_domain {
        Some(domain) => format!("s.name.startsWith({})", text(&format!("spiffe://{domain}/agent/"))),
        None => "s.name.matches('^spiffe://[^/]+/agent/')".to_owned(),
    }
}

/// What the operator may write, whatever its roles say.
fn operator(settings: &Settings) -> Policy {
    let of = |group: &str| format!("request.resource.group == {}", text(group));
    let own: Vec<_> = [SECRET_NAME, CA_SECRET, SERVING_SECRET].iter().map(|n| text(n)).collect();
    let (own, namespace) = (own.join(", "), text(&settings.namespace));
    let labelled = |object: &str| {
        format!("{object}.metadata.?labels[?{}].orValue('') == {}", text(MANAGED_BY.0), text(MANAGED_BY.1))
    };
    // Of ours, one that has lost its labels is told by whom it goes with, so that it can be healed.
    let owned = format!(
        "oldObject.metadata.?ownerReferences.orValue([]).exists(o, o.apiVersion.startsWith({}) && o.kind in \
         ['AgentGrant', 'AgentBlueprint'])",
        text(&format!("{GROUP}/"))
    );
    let secret = format!("({} && request.resource.resource == 'secrets')", of(""));
    let binding = format!("({} && request.resource.resource == 'rolebindings')", of(RBAC));
    Policy {
        name: "agentid-operator",
        description: "Of all that agents may not write, agentid's operator writes agents' Secrets, its own, \
                      RoleBindings of its own for agents, and its own kinds."
            .to_owned(),
        failure: Failure::Fail,
        rules: protected(),
        selector: None,
        conditions: vec![(
            "by-the-operator",
            format!("request.userInfo.username == {}", text(&settings.operator())),
        )],
        variables: vec![leaving()],
        body: Body::Validate {
            checks: vec![
                (
                    format!("variables.leaving || {} || {secret} || {binding}", of(GROUP)),
                    format!(
                        "{OBJECT} + ': agentid\\'s operator has no business with it: take the right out of its roles'"
                    ),
                ),
                (
                    format!(
                        "variables.leaving || !{secret} || object.?type.orValue('') == {} || \
                         (request.namespace == {namespace} && object.metadata.?name.orValue('') in [{own}])",
                        text(SECRET_TYPE)
                    ),
                    format!(
                        "{OBJECT} + ': type is ' + object.?type.orValue('Opaque') + ', and agentid\\'s operator writes \
                         only Secrets of type {SECRET_TYPE} and its own ({}) in the namespace {}'",
                        own.replace('\'', ""),
                        settings.namespace
                    ),
                ),
                (
                    format!(
                        "variables.leaving || !{binding} || ({} && (oldObject == null || {} || {owned}) && \
                         object.?subjects.orValue([]).all(s, s.kind == 'User' && {}))",
                        labelled("object"),
                        labelled("oldObject"),
                        is_agent(settings)
                    ),
                    format!(
                        "{OBJECT} + ': agentid\\'s operator writes only RoleBindings with the label {}={} whose \
                         subjects are agents'",
                        MANAGED_BY.0, MANAGED_BY.1
                    ),
                ),
            ],
            actions: DENY,
        },
    }
}

/// Nobody else binds roles to agents.
fn bindings(settings: &Settings) -> Policy {
    Policy {
        name: "agentid-bindings",
        description: "Nobody but agentid's operator binds roles to agents, by user name or by group."
            .to_owned(),
        failure: Failure::Fail,
        rules: vec![rule(RBAC, &["CREATE", "UPDATE"], &["rolebindings", "clusterrolebindings"])],
        selector: None,
        conditions: vec![(
            "by-another-than-the-operator",
            format!("request.userInfo.username != {}", text(&settings.operator())),
        )],
        variables: vec![
            ("before", "oldObject == null ? [] : oldObject.?subjects.orValue([])".to_owned()),
            (
                "agents",
                format!(
                    "object.?subjects.orValue([]).filter(s, ((s.kind == 'User' && {}) || \
                     (s.kind == 'Group' && s.name.startsWith('agentid:'))) && \
                     !variables.before.exists(b, b.kind == s.kind && b.name == s.name))",
                    is_agent(settings)
                ),
            ),
        ],
        body: Body::Validate {
            checks: vec![(
                // What is on its way out still binds; and nobody who cleans up adds a subject.
                "size(variables.agents) == 0".to_owned(),
                format!(
                    "{OBJECT} + ': subjects: ' + variables.agents[0].kind + ' ' + variables.agents[0].name + ' is \
                     agents\\', whom agentid alone binds: write an AgentGrant on an AgentResource with kubernetes: {{}} instead'"
                ),
            )],
            actions: DENY,
        },
    }
}

/// What agents never write.
fn agents() -> Policy {
    Policy {
        name: "agentid-agents",
        description: "Agents, as users of the Kubernetes API, write nothing by which they could become more than they are."
            .to_owned(),
        failure: Failure::Fail,
        rules: protected(),
        selector: None,
        conditions: vec![(
            "by-an-agent",
            format!("{} in request.userInfo.?groups.orValue([])", text(AGENTS_GROUP)),
        )],
        variables: vec![leaving()],
        body: Body::Validate {
            checks: vec![(
                // Roles and bindings that are on their way out still give rights.
                format!("variables.leaving && request.resource.group != {}", text(RBAC)),
                format!(
                    "{OBJECT} + ': no agent may write it, whatever its roles say: ' + request.userInfo.username + \
                     ' is an agent; let a person or another service account do it'"
                ),
            )],
            actions: DENY,
        },
    }
}

/// Ending a suspension needs a verb of its own.
fn resume() -> Policy {
    let suspended = |object: &str| {
        format!(
            "{object}.?spec.suspend.orValue(false) && {object}.?spec.enforcement.orValue('Enforce') != 'Audit'"
        )
    };
    let matches = |object: &str| format!("{object}.?spec[?'match'].orValue({{}})");
    Policy {
        name: "agentid-resume",
        description: format!("Who ends a suspension needs the verb {RESUME_VERB} on the object."),
        failure: Failure::Fail,
        rules: vec![rule(GROUP, &["UPDATE"], &["agentidentities", "agentblueprints", "agentpolicies"])],
        selector: None,
        conditions: vec![
            ("was-suspended", suspended("oldObject")),
            (
                // Another `match` lets go of some whom the policy held.
                "may-be-resumed",
                format!("!({}) || {} != {}", suspended("object"), matches("object"), matches("oldObject")),
            ),
        ],
        variables: vec![leaving()],
        body: Body::Validate {
            checks: vec![(
                format!(
                    "variables.leaving || authorizer.group('{GROUP}').resource(request.resource.resource)\
                     .namespace(request.?namespace.orValue('')).name(request.name).check('{RESUME_VERB}').allowed()"
                ),
                format!(
                    "{OBJECT} + ': spec.suspend: it is suspended, and to end or narrow that needs the verb {RESUME_VERB} \
                     on ' + request.resource.resource + '.{GROUP}: let somebody do it who has it'"
                ),
            )],
            actions: DENY,
        },
    }
}

/// All of them, each a file.
pub(super) fn policies(settings: &Settings) -> Vec<[Value; 2]> {
    [operator(settings), bindings(settings), agents(), resume()].map(Policy::objects).into()
}

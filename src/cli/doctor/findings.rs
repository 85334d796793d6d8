//! What is found, from what was seen.
//!
//! Invariant: pure; each finding names the object, why it matters, and a command that helps.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::bindings::bindings;
use super::observe::{Others, Pod};
use crate::api::Reason;
use crate::cli::look::named;
use crate::domain::maker::make;
use crate::domain::{Agent, Key, POD, Standing, Uid, World, decide, kind_name};

/// Where kubelets mount the token that the API server adds to pods by itself.
const DEFAULT_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// What is looked at.
pub(super) struct Scope<'a> {
    pub(super) namespace: Option<&'a str>,
    /// Any agent's id is taken for one of ours when absent.
    pub(super) trust_domain: Option<&'a str>,
}

impl Scope<'_> {
    pub(super) fn has(&self, namespace: &str) -> bool {
        self.namespace.is_none_or(|n| n == namespace)
    }
}

/// The answer. Members are only ever added.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) findings: Vec<Finding>,
    pub(super) notes: Vec<String>,
}

impl Report {
    /// The objects of the findings, each once.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.findings.iter().filter_map(|f| as_kubectl(&f.object)).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// `Kind namespace/name` as kubectl names it.
fn as_kubectl(object: &str) -> Option<String> {
    let (kind, key) = object.split_once(' ')?;
    let group = match kind {
        _ if kind.starts_with("Agent") => ".agentid.dev",
        "RoleBinding" | "ClusterRoleBinding" => ".rbac.authorization.k8s.io",
        _ => "",
    };
    let name = key.rsplit_once('/').map_or(key, |(_, name)| name);
    Some(named(&format!("{}{group}", kind.to_ascii_lowercase()), name))
}

/// Something that is found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Finding {
    pub(super) check: Check,
    /// Kind and name, such as `Secret support/triage-agentid`.
    pub(super) object: String,
    /// What it is and why it matters.
    pub(super) message: String,
    /// A command that helps.
    pub(super) remedy: String,
}

/// The checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Check {
    Orphan,
    Conflict,
    BoundByHand,
    DefaultToken,
    BroadRights,
}

/// Makes all checks.
pub(super) fn examine(
    world: &mut World,
    others: &Others,
    scope: &Scope<'_>,
    mut notes: Vec<String>,
    now: Timestamp,
) -> Report {
    let mut findings = orphans(world, scope, now);
    findings.extend(conflicts(world, others, scope, now));
    findings.extend(bindings(world, others, scope));
    findings.extend(default_tokens(world, others, scope));
    findings.sort_unstable();
    notes.extend(others.missed.iter().cloned());
    Report { findings, notes }
}

fn orphans(world: &World, scope: &Scope<'_>, now: Timestamp) -> Vec<Finding> {
    let secrets = world.secrets().filter(|s| scope.has(&s.meta.key.namespace) && world.is_orphan(s));
    let mut found: Vec<_> = secrets
        .map(|s| {
            let Key { namespace, name } = &s.meta.key;
            Finding {
                check: Check::Orphan,
                object: format!("Secret {namespace}/{name}"),
                message: "holds an agent's credentials, and there is no such agent: its tokens are good until they expire. \
                          The operator deletes such Secrets within seconds; one that stays says that none leads"
                    .to_owned(),
                remedy: format!("kubectl delete secret -n {namespace} {name}"),
            }
        })
        .collect();
    for agent in world.agents().filter(|a| scope.has(&a.meta.key.namespace)) {
        let Key { namespace, name } = &agent.meta.key;
        let why = match decide(world, &agent.meta.key, now).map(|d| d.standing) {
            Some(Standing::Unmade(r)) => r.message,
            Some(Standing::Orphaned { message, .. }) => message,
            _ => continue,
        };
        found.push(Finding {
            check: Check::Orphan,
            object: format!("AgentIdentity {namespace}/{name}"),
            message: format!(
                "{why}. The operator deletes such agents within seconds; one that stays says that none leads"
            ),
            remedy: format!("kubectl delete agentidentity -n {namespace} {name}"),
        });
    }
    found
}

fn conflicts(world: &mut World, others: &Others, scope: &Scope<'_>, now: Timestamp) -> Vec<Finding> {
    let finding = |object: String, message: String, remedy: String| Finding {
        check: Check::Conflict,
        object,
        message,
        remedy,
    };
    let mut found = Vec::new();
    for agent in world.agents().filter(|a| scope.has(&a.meta.key.namespace)) {
        let Some(decision) = decide(world, &agent.meta.key, now) else { continue };
        let Key { namespace, name } = &agent.meta.key;
        let why = format!("agentid why {name} -n {namespace}");
        if let Standing::Refused(r) = &decision.standing
            && r.reason == Reason::Conflict
        {
            let message = format!("has no credentials: {}", r.message);
            found.push(finding(format!("AgentIdentity {namespace}/{name}"), message, why.clone()));
            continue;
        }
        for grant in &decision.grants {
            let Some(r) = grant.refusal.as_ref().filter(|r| r.reason == Reason::Conflict) else { continue };
            // A resource's conflict is told of the resource.
            if grant.held.is_none()
                && world.resource(&grant.resource).is_some_and(|r| !rules(world, &r.audience, r.meta.uid))
            {
                continue;
            }
            let message = format!("gives AgentIdentity {name} less than it says: {}", r.message);
            found.push(finding(format!("AgentGrant {namespace}/{}", grant.grant), message, why.clone()));
        }
    }
    if scope.namespace.is_none() {
        for resource in world.resources().filter(|r| !rules(world, &r.audience, r.meta.uid)) {
            let name = &resource.meta.key.name;
            let older = world.audience_holder(&resource.audience).map(|r| r.meta.key.name.to_string());
            let message = format!(
                "has the audience {} of the older AgentResource {}: none of its grants is served",
                resource.audience,
                older.unwrap_or_default()
            );
            found.push(finding(
                format!("AgentResource {name}"),
                message,
                format!("kubectl delete agentresource {name}    # audience is immutable: create it anew with another"),
            ));
        }
    }
    for pod in others.pods.iter().filter(|p| scope.has(&p.metadata.namespace)) {
        let key = Key::new(pod.metadata.namespace.as_str(), pod.metadata.name.as_str());
        let Some(contest) = make(world, &key).1 else { continue };
        let message = match (contest.others.first(), &contest.taken) {
            (Some(other), _) => format!(
                "is selected by AgentBlueprint {}, which rules, and by the younger {other}, which is passed over",
                contest.rules
            ),
            (None, taken) => format!(
                "has no agent of its own: AgentIdentity {} bears the name of the one that AgentBlueprint {} would make",
                taken.as_deref().unwrap_or_default(),
                contest.rules
            ),
        };
        let remedy = match &contest.taken {
            Some(agent) => format!(
                "kubectl delete agentidentity -n {} {agent}    # or give it another name",
                key.namespace
            ),
            None => format!(
                "kubectl edit agentblueprint {}    # narrow spec.podSelector of one of the two",
                contest.rules
            ),
        };
        found.push(finding(format!("Pod {key}"), message, remedy));
    }
    found
}

fn rules(world: &World, audience: &std::sync::Arc<str>, uid: Uid) -> bool {
    world.audience_holder(audience).is_some_and(|r| r.meta.uid == uid)
}

fn default_tokens(world: &World, others: &Others, scope: &Scope<'_>) -> Vec<Finding> {
    let mut agents = BTreeMap::<&str, Vec<&Agent>>::new();
    for agent in world.agents().filter(|a| scope.has(&a.meta.key.namespace)) {
        agents.entry(&agent.meta.key.namespace).or_default().push(agent);
    }
    // One finding an agent, however many its pods are.
    let mut mounting = BTreeMap::<&Key, (&Pod, usize)>::new();
    for pod in others.pods.iter().filter(|p| mounts_default(p)) {
        let line = line_of(others, pod);
        let candidates = agents.get(pod.metadata.namespace.as_str()).into_iter().flatten();
        for agent in candidates.filter(|a| is_agent(a, pod, &line)) {
            mounting.entry(&agent.meta.key).or_insert((pod, 0)).1 += 1;
        }
    }
    mounting
        .into_iter()
        .map(|(key, (pod, pods))| {
            let account = &pod.spec.service_account_name;
            Finding {
                check: Check::DefaultToken,
                object: format!("AgentIdentity {key}"),
                message: format!(
                    "{pods} of its pods, such as {}, mount the default token of service account {account} for the Kubernetes \
                     API: the agent has that account's rights beside its grants, and neither suspend nor a policy takes \
                     them away. Set automountServiceAccountToken: false on the account or the pods",
                    pod.metadata.name
                ),
                remedy: format!(
                    "kubectl patch serviceaccount -n {} {account} -p '{{\"automountServiceAccountToken\": false}}'    # then \
                     restart its pods",
                    key.namespace
                ),
            }
        })
        .collect()
}

fn mounts_default(pod: &Pod) -> bool {
    let containers = pod.spec.containers.iter().chain(&pod.spec.init_containers);
    let over = matches!(pod.status.phase.as_str(), "Succeeded" | "Failed");
    !over
        && containers
            .flat_map(|c| &c.volume_mounts)
            .any(|m| m.mount_path.trim_end_matches('/') == DEFAULT_TOKEN)
}

/// The pod and what controls it, as kind and name.
fn line_of(others: &Others, pod: &Pod) -> Vec<(crate::domain::KindName, String)> {
    let mut line = vec![(POD.into(), pod.metadata.name.clone())];
    let mut next = pod.metadata.controller();
    while let Some(owner) = next
        && line.len() < 5
    {
        line.push((kind_name(&owner.api_version, &owner.kind), owner.name.clone()));
        next = others.hops.get(&(pod.metadata.namespace.clone(), owner.kind.clone(), owner.name.clone()));
    }
    line
}

/// Whether a pod is an agent's: it runs for what the agent is bound to, or as the account of one that is bound to nothing.
fn is_agent(agent: &Agent, pod: &Pod, line: &[(crate::domain::KindName, String)]) -> bool {
    match &agent.bound {
        Some(bound) => line.iter().any(|(kind, name)| *kind == bound.kind && **name == *bound.name),
        None => agent.service_account.as_deref() == Some(&pod.spec.service_account_name),
    }
}

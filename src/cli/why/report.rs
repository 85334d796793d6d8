//! The answer as it is printed.
//!
//! Invariant: JSON members are only ever added; both forms say the same.

use jiff::Timestamp;
use serde::Serialize;

use super::blame::{Blame, of_agent, of_grant};
use crate::api::{DOCUMENT_KEY, GrantState, SigningAlgorithm, TokenProfile};
use crate::cluster::client::Class;
use crate::cluster::snapshot::Snapshot;
use crate::domain::status::agent_id;
use crate::domain::{Decision, GrantDecision, Selection, Source, Standing, World};

/// The answer about one agent.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) agent_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) issuer: Option<String>,
    /// Allowed, Refused, Unknown, Orphaned, Ended or Deleting.
    pub(super) standing: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refusal: Option<Blame>,
    pub(super) secret: SecretReport,
    pub(super) conditions: Vec<ConditionReport>,
    pub(super) grants: Vec<GrantReport>,
    /// What policies in Audit would take away.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) audited: Vec<AuditReport>,
    /// Only if a resource was asked for that no grant gives the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) not_granted: Option<NotGranted>,
    /// When the answer may change by time alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) until: Option<Timestamp>,
    pub(super) notes: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SecretReport {
    /// Empty where the agent has none: it was made for one pod, whose own token buys what it needs.
    pub(super) name: String,
    /// Absent where Secrets could not be seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exists: Option<bool>,
    pub(super) files: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) renew_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expires_at: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConditionReport {
    pub(super) r#type: String,
    pub(super) status: String,
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) since: Timestamp,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GrantReport {
    pub(super) grant: String,
    pub(super) resource: String,
    /// Held, Narrowed, Refused; or Unknown while the agent's standing is.
    pub(super) state: &'static str,
    /// What is held, or would be if the agent were allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) entitlement: Option<EntitlementReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refusal: Option<Blame>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EntitlementReport {
    pub(super) audience: String,
    pub(super) profile: TokenProfile,
    /// The agent user that it speaks as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) username: Option<String>,
    pub(super) algorithm: SigningAlgorithm,
    pub(super) roles: Vec<String>,
    pub(super) scopes: Vec<String>,
    pub(super) lifetime_seconds: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) not_after: Option<Timestamp>,
    /// The file in the Secret; absent where tokens are not delivered in one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<String>,
}

/// What a policy in Audit would take away.
#[derive(Debug, Serialize)]
pub(super) struct AuditReport {
    pub(super) policy: String,
    /// Absent: the agent as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) grant: Option<String>,
    pub(super) refusal: Blame,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NotGranted {
    pub(super) resource: String,
    /// Whether an entry of the resource's `spec.allow` selects the namespace.
    pub(super) namespace_allowed: bool,
    /// AgentGrants of the namespace on the resource that speak of other agents, each with whom it selects.
    pub(super) others: Vec<String>,
    pub(super) remedy: String,
}

impl Report {
    pub(super) fn new(
        seen: &Snapshot,
        decision: &Decision,
        resource: Option<&str>,
        assumed: bool,
        now: Timestamp,
    ) -> Self {
        let world = &seen.world;
        let agent = &decision.agent;
        let (standing, refusal) = standing(decision);
        let grants: Vec<_> = decision
            .grants
            .iter()
            .filter(|g| resource.is_none_or(|r| *r == *g.resource))
            .map(|g| grant(g, &decision.standing, refusal.as_ref()))
            .collect();
        let trust_domain = &world.config().trust_domain;
        let mut report = Self {
            namespace: agent.namespace.to_string(),
            name: agent.name.to_string(),
            uid: decision.uid.to_string(),
            agent_id: seen
                .agent_id
                .clone()
                .or_else(|| (!trust_domain.is_empty()).then(|| agent_id(trust_domain, decision.uid))),
            issuer: seen.issuer.clone(),
            standing,
            refusal,
            secret: secret(seen, decision),
            conditions: seen
                .conditions
                .iter()
                .map(|c| ConditionReport {
                    r#type: c.type_.clone(),
                    status: c.status.clone(),
                    reason: c.reason.clone(),
                    message: c.message.clone(),
                    since: c.last_transition_time.0,
                })
                .collect(),
            not_granted: resource.filter(|_| grants.is_empty()).and_then(|r| not_granted(world, decision, r)),
            audited: decision
                .audited
                .iter()
                .filter(|o| o.grant.as_ref().is_none_or(|name| grants.iter().any(|g| *g.grant == **name)))
                .map(|o| AuditReport {
                    policy: o.policy.to_string(),
                    grant: o.grant.as_ref().map(ToString::to_string),
                    refusal: of_agent(&o.refusal, &agent.name),
                })
                .collect(),
            grants,
            until: decision.until.filter(|u| u.duration_since(now).as_secs() > 60),
            notes: Vec::new(),
        };
        report.notes = notes(seen, decision, &report, assumed);
        report
    }
}

fn standing(decision: &Decision) -> (&'static str, Option<Blame>) {
    let name = &decision.agent.name;
    let plain = |message: &str, field: Option<&str>, reason| {
        Some(Blame {
            reason,
            message: message.to_owned(),
            object: format!("AgentIdentity {name}"),
            field: field.map(str::to_owned),
            remedy: None,
        })
    };
    match &decision.standing {
        Standing::Allowed => ("Allowed", None),
        Standing::Refused(r) => ("Refused", Some(of_agent(r, name))),
        Standing::Unknown(r) => ("Unknown", Some(of_agent(r, name))),
        Standing::Orphaned { message, .. } => (
            "Orphaned",
            plain(
                &format!("{message}; the operator deletes the agent"),
                Some("spec.boundObjectRef"),
                "BoundObjectNotFound",
            ),
        ),
        Standing::Ended => (
            "Ended",
            plain(
                "it has expired and ttlSecondsAfterExpired has passed; the operator deletes the agent",
                Some("spec.ttlSecondsAfterExpired"),
                "Expired",
            ),
        ),
        Standing::Unmade(r) => (
            "Ended",
            plain(&format!("{}; the operator deletes the agent", r.message), None, r.reason.as_str()),
        ),
        Standing::Deleting => {
            ("Deleting", plain("the agent or its namespace is being deleted", None, "Expired"))
        }
    }
}

fn grant(g: &GrantDecision, standing: &Standing, agent: Option<&Blame>) -> GrantReport {
    let own = g.refusal.as_ref().map(|r| of_grant(r, &g.grant, &g.resource));
    let (state, refusal) = match standing {
        Standing::Allowed => {
            let state = match g.state() {
                GrantState::Held => "Held",
                GrantState::Narrowed => "Narrowed",
                GrantState::Refused => "Refused",
            };
            (state, own)
        }
        Standing::Unknown(_) => ("Unknown", own.or_else(|| agent.cloned())),
        // Its own refusal would stand also if the agent's were lifted.
        _ => ("Refused", own.or_else(|| agent.cloned())),
    };
    let texts = |names: &[std::sync::Arc<str>]| names.iter().map(ToString::to_string).collect();
    GrantReport {
        grant: g.grant.to_string(),
        resource: g.resource.to_string(),
        state,
        entitlement: g.held.as_ref().map(|e| EntitlementReport {
            audience: e.audience.to_string(),
            profile: e.profile,
            username: e.username.as_ref().map(ToString::to_string),
            algorithm: e.algorithm,
            roles: texts(&e.roles),
            scopes: texts(&e.scopes),
            lifetime_seconds: e.lifetime,
            not_after: e.not_after,
            file: g.file.as_ref().map(ToString::to_string),
        }),
        refusal,
    }
}

fn secret(seen: &Snapshot, decision: &Decision) -> SecretReport {
    let world = &seen.world;
    let visible = seen.unseen.iter().all(|u| u.source != Source::Secrets);
    let agent = world.agent(&decision.agent).filter(|a| a.has_secret());
    let name = agent.map(|a| a.secret_name.clone()).unwrap_or_default();
    let found = world.secret(&decision.agent.sibling(name.clone())).filter(|s| s.agent == Some(decision.uid));
    let time = |t: Timestamp| (t != Timestamp::MAX).then_some(t);
    SecretReport {
        name: name.to_string(),
        exists: visible.then_some(found.is_some()),
        files: found
            .map(|s| s.tokens.iter().map(|(f, _)| f.to_string()).chain([DOCUMENT_KEY.to_owned()]).collect())
            .unwrap_or_default(),
        renew_at: found.and_then(|s| time(s.renew_at)),
        expires_at: found.and_then(|s| time(s.expires_at)),
    }
}

fn not_granted(world: &World, decision: &Decision, resource: &str) -> Option<NotGranted> {
    let found = world.resource(&resource.into())?;
    let namespace = &decision.agent.namespace;
    let labels = world.namespace(namespace).map(|n| &n.labels);
    let namespace_allowed =
        found.allow.iter().any(|a| labels.is_some_and(|l| l.matched_by(&a.namespace_selector)));
    let others: Vec<_> = world
        .grants()
        .filter(|g| &*g.resource == resource && g.meta.key.namespace == *namespace)
        .map(|g| {
            let whom = match &g.selection {
                Selection::Names(names) => format!("names {}", names.join(", ")),
                Selection::Selector(_) => "selects by labels that this agent does not have".to_owned(),
            };
            format!("AgentGrant {} {whom}", g.meta.key.name)
        })
        .collect();
    let grant = if others.is_empty() {
        format!("create an AgentGrant in namespace {namespace} with spec.resource: {resource}")
    } else {
        "let one of these AgentGrants speak of this agent (spec.agents)".to_owned()
    };
    let allow =
        if namespace_allowed { "" } else { ", and ask the resource's owner for an entry in spec.allow" };
    Some(NotGranted {
        resource: resource.to_owned(),
        namespace_allowed,
        others,
        remedy: format!("{grant}{allow}"),
    })
}

fn notes(seen: &Snapshot, decision: &Decision, report: &Report, assumed: bool) -> Vec<String> {
    let mut notes = Vec::new();
    for u in &seen.unseen {
        let then = match (u.assumed_empty, &u.source) {
            (true, Source::Secrets) => "; so a Secret in the way of the agent's would not be seen",
            (true, _) => "; no grant depends on it",
            (false, _) => "",
        };
        let whose = if u.error.class() == Class::Forbidden { " as you" } else { "" };
        notes.push(format!("{} can't be read{whose}: {}{then}", u.source, u.error));
    }
    for s in &seen.skipped {
        notes.push(format!("{} {} can't be read and is left out: {}", s.source, s.key, s.problem));
    }
    let ready = seen.conditions.iter().find(|c| c.type_ == "Ready");
    match (&decision.standing, ready) {
        (_, None) => notes.push("the operator has written no status yet: is it running?".to_owned()),
        (Standing::Allowed, Some(c)) if c.status != "True" => notes.push(format!(
            "the agent may have credentials, but the operator says {}: it is at work, or held up by what its status \
             names",
            c.reason
        )),
        (Standing::Refused(_), Some(c)) if c.status == "True" => {
            notes.push("the operator's status does not say so yet: it is at work, or not running".to_owned());
        }
        _ => {}
    }
    if assumed {
        let issuer =
            report.issuer.as_deref().unwrap_or("unknown: there is no ConfigMap agentid-trust to read");
        notes.push(format!(
            "without --config the operator's default limits, bound kinds and agentUserDomains are assumed (issuer: {issuer})"
        ));
    }
    notes
}

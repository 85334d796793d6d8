//! The chain of checks on one grant: what was asked ∩ what the resource offers ∩ what it allows the namespace, less what
//! policies deny.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;

use super::delivery::{Delivery, Entitled};
use super::policy::Policies;
use super::user::user_of;
use super::{Clock, Entitlement, GrantDecision, Objection, Refusal, kubernetes};
use crate::api::{Mode, Reason, TokenProfile};
use crate::domain::{Agent, Grant, Resource, World};

/// How long the agent's tokens live, until when at most, and the time.
pub(super) struct Lives {
    pub lifetime: u32,
    pub end: Option<Timestamp>,
    pub clock: Clock,
}

/// What came of each grant, what policies take from them, and what those in Audit would.
pub(super) fn grants(
    world: &World,
    agent: &Agent,
    policies: &Policies<'_>,
    lives: &mut Lives,
) -> (Vec<GrantDecision>, Vec<Objection>, Vec<Objection>) {
    let (mut denied, mut audited) = (Vec::new(), Vec::new());
    let grants = world.grants_of(agent);
    // Seen through the clock: when a rival or the grant itself expires, the answer changes.
    let live = |g: &Grant, clock: &mut Clock| {
        !g.meta.deleting && policies.end_of_grant(g).is_none_or(|end| !clock.has_come(end))
    };
    let decisions = grants
        .iter()
        .filter(|g| !g.meta.deleting)
        .map(|grant| {
            let resource = world.resource(&grant.resource).filter(|r| !r.meta.deleting);
            // `grants` is sorted by age, so whoever stands before this one is older.
            let rival = grant.secret_key.as_ref().and_then(|key| {
                grants
                    .iter()
                    .take_while(|g| g.meta.uid != grant.meta.uid)
                    .find(|g| g.secret_key.as_ref() == Some(key) && live(g, &mut lives.clock))
            });
            let outcome = match rival {
                Some(rival) if live(grant, &mut lives.clock) => Err(Refusal::new(
                    Reason::Conflict,
                    format!(
                        "spec.secretKey: {:?} belongs to the older AgentGrant {}; choose another key",
                        grant.secret_key.as_deref().unwrap_or_default(),
                        rival.meta.key.name
                    ),
                )),
                _ => entitle(world, agent, grant, resource, lives),
            };
            let delivery = Delivery { grant, minimum: world.config().limits.min_token_lifetime.0 };
            let outcome = outcome.and_then(|entitled| {
                let (left, objections) = delivery.take(&policies.enforced, entitled, &mut lives.clock);
                denied.extend(objections);
                left
            });
            let (held, file, refusal) = match outcome {
                Err(refusal) => (None, None, Some(refusal)),
                Ok(((entitlement, narrowed), capped)) => {
                    audited.extend(policies.audit.iter().filter_map(|p| {
                        let refusal = delivery.would_take(p, &entitlement, &mut lives.clock)?;
                        Some(Objection::new(p, Some(grant), refusal))
                    }));
                    let short = delivery.short(&entitlement, capped);
                    let file = if short.is_none() { grant.secret_key.clone() } else { None };
                    (Some(entitlement), file, narrowed.or(short))
                }
            };
            GrantDecision {
                grant: grant.meta.key.name.clone(),
                uid: grant.meta.uid,
                resource: grant.resource.clone(),
                resource_uid: resource.map(|r| r.meta.uid),
                held,
                file,
                refusal,
            }
        })
        .collect();
    (decisions, denied, audited)
}

fn entitle(
    world: &World,
    agent: &Agent,
    grant: &Grant,
    resource: Option<&Resource>,
    lives: &mut Lives,
) -> Result<Entitled, Refusal> {
    let Lives { lifetime, end: agents_end, clock } = lives;
    if let Some(problem) = &grant.invalid {
        return Err(Refusal::new(Reason::Invalid, format!("{problem}; correct the field")));
    }
    if let Some(end) = grant.expires_at
        && clock.has_come(end)
    {
        return Err(Refusal::new(
            Reason::Expired,
            format!("spec.expiresAt: {end} is past; set a later time to renew the grant"),
        ));
    }
    if let Some(start) = grant.not_before
        && !clock.has_come(start)
    {
        return Err(Refusal::new(Reason::NotYetValid, format!("spec.notBefore: not held before {start}")));
    }
    let resource = resource.ok_or_else(|| {
        Refusal::new(
            Reason::ResourceNotFound,
            format!(
                "spec.resource: AgentResource {} does not exist; create it or name another",
                grant.resource
            ),
        )
    })?;
    if let Some(refusal) = resource_refusal(world, resource) {
        return Err(refusal);
    }
    if let Some(refusal) = delegation_refusal(world, grant, resource) {
        return Err(refusal);
    }
    let username = user_of(world, agent, grant, resource)?;
    let allowance = allowance(world, agent, grant, resource)?;
    let (roles, role_refusal) = narrow(&grant.roles, &resource.roles, &allowance.roles, &ROLES, grant, agent);
    let (scopes, scope_refusal) =
        narrow(&grant.scopes, &resource.scopes, &allowance.scopes, &SCOPES, grant, agent);
    let (roles, kubernetes_refusal) =
        if resource.kubernetes { kubernetes::narrow(world, resource, roles, clock)? } else { (roles, None) };
    let refusal = role_refusal.or(scope_refusal).or(kubernetes_refusal);
    let asked = !grant.roles.is_empty() || !grant.scopes.is_empty();
    match refusal {
        Some(refusal) if asked && roles.is_empty() && scopes.is_empty() => return Err(refusal),
        _ => {}
    }
    let limit = resource.max_token_lifetime.unwrap_or(u32::MAX);
    let entitlement = Entitlement {
        audience: resource.audience.clone(),
        profile: resource.profile,
        subject: resource.subject,
        algorithm: resource.algorithm,
        mode: grant.mode,
        users: grant.users.clone(),
        username,
        kubernetes: resource.kubernetes,
        roles,
        scopes,
        lifetime: limit.min(*lifetime),
        not_after: [grant.expires_at, *agents_end].into_iter().flatten().min(),
    };
    Ok((entitlement, refusal))
}

/// Why a delegation can't be: whose users, and for which tokens.
fn delegation_refusal(world: &World, grant: &Grant, resource: &Resource) -> Option<Refusal> {
    let users = grant.users.as_ref()?;
    let config = world.config();
    if *users.issuer != *config.issuer && config.user_issuer(&users.issuer).is_none() {
        return Some(Refusal::new(
            Reason::IssuerNotTrusted,
            format!(
                "spec.delegation.issuer: {:?} is not among userIssuers in agentid's configuration; name a trusted \
                 issuer, or have it added",
                users.issuer
            ),
        ));
    }
    (resource.profile == TokenProfile::Identity).then(|| {
        Refusal::new(
            Reason::ModeNotAllowed,
            format!(
                "spec.delegation: AgentResource {} takes identity tokens, which never speak for a user; use \
                 application",
                grant.resource
            ),
        )
    })
}

/// Why no token is made for a resource at all.
#[must_use]
pub fn resource_refusal(world: &World, resource: &Resource) -> Option<Refusal> {
    if let Some(problem) = &resource.invalid {
        return Some(Refusal::new(
            Reason::Invalid,
            format!("AgentResource {}: {problem}; correct the field", resource.meta.key.name),
        ));
    }
    if world.config().is_own_audience(&resource.audience) {
        return Some(Refusal::new(
            Reason::Invalid,
            format!(
                "AgentResource {}: spec.audience {:?} is agentid's own issuer or endpoint; choose the resource's own \
                 URI",
                resource.meta.key.name, resource.audience
            ),
        ));
    }
    let holder = world.audience_holder(&resource.audience)?;
    (holder.meta.uid != resource.meta.uid).then(|| {
        Refusal::new(
            Reason::Conflict,
            format!(
                "AgentResource {}: spec.audience {:?} belongs to the older AgentResource {}; delete one of them",
                resource.meta.key.name, resource.audience, holder.meta.key.name
            ),
        )
    })
}

/// What a resource allows a namespace: the union of the entries that select it.
struct Allowed<'a> {
    roles: Allow<'a>,
    scopes: Allow<'a>,
}

enum Allow<'a> {
    All,
    These(BTreeSet<&'a str>),
}

impl Allow<'_> {
    fn allows(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::These(names) => names.contains(name),
        }
    }
}

fn allowance<'a>(
    world: &World,
    agent: &Agent,
    grant: &Grant,
    resource: &'a Resource,
) -> Result<Allowed<'a>, Refusal> {
    let namespace = &agent.meta.key.namespace;
    let labels = world.namespace(namespace).map(|n| &n.labels);
    let selecting: Vec<_> = resource
        .allow
        .iter()
        .filter(|a| labels.is_some_and(|l| l.matched_by(&a.namespace_selector)))
        .collect();
    if selecting.is_empty() {
        return Err(Refusal::new(
            Reason::NamespaceNotAllowed,
            format!(
                "spec.resource: AgentResource {} does not allow namespace {namespace}; ask its owner for an entry in \
                 spec.allow",
                grant.resource
            ),
        ));
    }
    let in_mode: Vec<_> = selecting
        .into_iter()
        .filter(|a| a.modes.as_deref().map_or(grant.mode == Mode::Application, |m| m.contains(&grant.mode)))
        .collect();
    if in_mode.is_empty() {
        return Err(Refusal::new(
            Reason::ModeNotAllowed,
            format!(
                "spec.{}: AgentResource {} does not allow namespace {namespace} the mode {:?}; ask its owner",
                grant.mode.form(),
                grant.resource,
                grant.mode
            ),
        ));
    }
    let mut allowed = Allowed { roles: Allow::These(BTreeSet::new()), scopes: Allow::These(BTreeSet::new()) };
    for entry in in_mode {
        // Both absent: all that is offered. One absent: none of that one.
        let all = entry.roles.is_none() && entry.scopes.is_none();
        for (allow, names) in [(&mut allowed.roles, &entry.roles), (&mut allowed.scopes, &entry.scopes)] {
            match allow {
                _ if all => *allow = Allow::All,
                Allow::All => {}
                Allow::These(set) => set.extend(names.iter().flatten().map(String::as_str)),
            }
        }
    }
    Ok(allowed)
}

struct Words {
    field: &'static str,
    one: &'static str,
    not_offered: Reason,
    not_allowed: Reason,
}

const ROLES: Words = Words {
    field: "roles",
    one: "role",
    not_offered: Reason::RoleNotOffered,
    not_allowed: Reason::RoleNotAllowed,
};
const SCOPES: Words = Words {
    field: "scopes",
    one: "scope",
    not_offered: Reason::ScopeNotOffered,
    not_allowed: Reason::ScopeNotAllowed,
};

fn narrow(
    asked: &[Arc<str>],
    offered: &[Arc<str>],
    allowed: &Allow<'_>,
    words: &Words,
    grant: &Grant,
    agent: &Agent,
) -> (Vec<Arc<str>>, Option<Refusal>) {
    let (mut held, mut refusal) = (Vec::new(), None);
    for name in asked {
        let (field, one) = (format!("spec.{}.{}", grant.mode.form(), words.field), words.one);
        if !offered.contains(name) {
            refusal.get_or_insert_with(|| {
                Refusal::new(
                    words.not_offered,
                    format!(
                        "{field}: {one} {name:?} is not offered by AgentResource {} (it offers {}); remove it",
                        grant.resource,
                        list(offered)
                    ),
                )
            });
        } else if !allowed.allows(name) {
            refusal.get_or_insert_with(|| {
                Refusal::new(
                    words.not_allowed,
                    format!(
                        "{field}: {one} {name:?} of AgentResource {} is not allowed to namespace {}; remove it, or \
                         ask the resource's owner to add it in spec.allow",
                        grant.resource, agent.meta.key.namespace
                    ),
                )
            });
        } else if !held.contains(name) {
            held.push(name.clone());
        }
    }
    (held, refusal)
}

fn list(names: &[Arc<str>]) -> String {
    match names {
        [] => "none".to_owned(),
        _ if names.len() > 10 => format!("{}, … {} in all", names[..10].join(", "), names.len()),
        _ => names.join(", "),
    }
}

//! Who refuses: the object and the field that a refusal stands on, and what helps.
//!
//! Invariant: every reason that `decide` gives names an object.

use serde::Serialize;

use crate::api::Reason;
use crate::domain::Refusal;

/// A refusal with the object and the field that it stands on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Blame {
    /// The reason, of the closed set.
    pub(super) reason: &'static str,
    /// What is refused and what helps, in one sentence.
    pub(super) message: String,
    /// The object that refuses, such as `AgentResource tickets`.
    pub(super) object: String,
    /// The field of that object; `None` if it is no field's doing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) field: Option<String>,
    /// What helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remedy: Option<String>,
}

/// Of an agent's own refusal.
pub(super) fn of_agent(refusal: &Refusal, agent: &str) -> Blame {
    blame(refusal, policy(refusal).unwrap_or_else(|| format!("AgentIdentity {agent}")), None)
}

/// The policy that refuses, if one does: its messages begin with it.
fn policy(refusal: &Refusal) -> Option<String> {
    let name = refusal.message.strip_prefix("AgentPolicy ")?.split_once(": ")?.0;
    Some(format!("AgentPolicy {name}"))
}

/// Of a grant's refusal.
pub(super) fn of_grant(refusal: &Refusal, grant: &str, resource: &str) -> Blame {
    if let Some(policy) = policy(refusal) {
        return blame(refusal, policy, None);
    }
    let resource = format!("AgentResource {resource}");
    // What the resource's owner decides is the resource's doing, whatever field of the grant asked for it.
    let theirs = match refusal.reason {
        Reason::NamespaceNotAllowed
        | Reason::ModeNotAllowed
        | Reason::RoleNotAllowed
        | Reason::ScopeNotAllowed => Some("spec.allow"),
        Reason::RoleNotOffered => Some("spec.roles"),
        Reason::ScopeNotOffered => Some("spec.scopes"),
        Reason::LifetimeTooShort => Some("spec.maxTokenLifetime"),
        _ => None,
    };
    match theirs {
        Some(field) => blame(refusal, resource, Some(field)),
        None if refusal.message.starts_with(&format!("{resource}: ")) => blame(refusal, resource, None),
        None => blame(refusal, format!("AgentGrant {grant}"), None),
    }
}

fn blame(refusal: &Refusal, object: String, field: Option<&str>) -> Blame {
    // Messages name the field first, `spec.x: …` or `spec.x is …`, if need be behind the object.
    let said = refusal
        .message
        .split_whitespace()
        .find(|word| word.starts_with("spec."))
        .map(|word| word.trim_end_matches([':', ',', ';']));
    Blame {
        reason: refusal.reason.as_str(),
        message: refusal.message.clone(),
        object,
        field: field.or(said).map(str::to_owned),
        // Messages end with what helps, behind a semicolon; a condition that cannot be told has none.
        remedy: refusal.message.rsplit_once("; ").map(|(_, remedy)| remedy.to_owned()),
    }
}

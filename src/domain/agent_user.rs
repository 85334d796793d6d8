//! The names of agent users: which are names at all, when two are one, in which domains they lie, and the id behind
//! each.
//!
//! Invariants: names that differ in case alone are one name; an id is of one agent and one name, for ever.

use std::sync::Arc;

use super::{Hasher, Uid};

/// What stands before the id of an agent user, where users of issuers have their subject prefix.
pub const AGENT_USER_PREFIX: &str = "agent-user:";

/// The form in which names are compared. They are ASCII, so case is all that may differ in what looks the same.
#[must_use]
pub fn folded(username: &str) -> Arc<str> {
    username.to_ascii_lowercase().into()
}

/// Whether a text is a name: a local part and a DNS domain, in ASCII. The schema says so too; but what was stored
/// under another schema must not bring a letter that only looks like another.
#[must_use]
pub fn is_username(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else { return false };
    let edges = |part: &str| {
        let bytes = part.as_bytes();
        bytes.first().is_some_and(u8::is_ascii_alphanumeric)
            && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
    };
    let of = |part: &str, more: &[u8]| part.bytes().all(|c| c.is_ascii_alphanumeric() || more.contains(&c));
    let label = |l: &str| l.len() <= 63 && edges(l) && of(l, b"-");
    text.len() <= 254
        && local.len() <= 64
        && edges(local)
        && of(local, b"._-")
        && domain.split('.').all(label)
}

/// Whether a name lies in one of these domains, which are in lower case. A domain's subdomains are others.
#[must_use]
pub fn lies_in(username: &str, domains: &[String]) -> bool {
    username.split_once('@').is_some_and(|(_, of)| domains.iter().any(|d| d.eq_ignore_ascii_case(of)))
}

/// The id of an agent's user, as the `sub` of its tokens: opaque, never another's (RFC 9562 §5.8). An agent that is
/// given another name has another user.
#[must_use]
pub fn agent_user_id(agent: Uid, username: &str) -> String {
    let mut hasher = Hasher::new("agent user");
    hasher.part(&agent.0.to_be_bytes()).part(folded(username).as_bytes());
    format!("{AGENT_USER_PREFIX}{}", Uid::derived(hasher.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ascii_with_a_local_part_and_a_domain() {
        let long = |n: usize| format!("{}@a.example", "x".repeat(n));
        for (name, good) in [
            ("triage@agents.example.com", true),
            ("T.r_i-age9@Agents.Example.com", true),
            ("a@b", true),
            (long(64).as_str(), true),
            (long(65).as_str(), false),
            // A Cyrillic letter that looks like an a, a Kelvin sign that lower-cases to k, a full-width letter.
            ("tri\u{430}ge@agents.example.com", false),
            ("\u{212a}ai@agents.example.com", false),
            ("\u{ff41}nn@agents.example.com", false),
            ("triage@\u{430}gents.example.com", false),
            ("triage", false),
            ("@agents.example.com", false),
            ("triage@", false),
            ("a@b@c", false),
            (".a@b", false),
            ("a.@b", false),
            ("a b@c", false),
            ("a+b@c", false),
            ("a@b..c", false),
            ("a@-b", false),
            ("a@b_c", false),
            ("a@b.", false),
            ("", false),
        ] {
            assert_eq!(is_username(name), good, "{name:?}");
        }
    }

    #[test]
    fn domains_are_whole_and_without_case() {
        let domains = ["agents.example.com".to_owned(), "b.example".to_owned()];
        for (name, within) in [
            ("triage@agents.example.com", true),
            ("triage@AGENTS.example.com", true),
            ("triage@b.example", true),
            ("triage@example.com", false),
            ("triage@x.agents.example.com", false),
            ("triage@xagents.example.com", false),
            ("agents.example.com", false),
        ] {
            assert_eq!(lies_in(name, &domains), within, "{name}");
        }
        assert!(!lies_in("triage@agents.example.com", &[]));
    }

    #[test]
    fn an_id_is_of_one_agent_and_one_name() {
        let id = agent_user_id(Uid(1), "triage@a.example");
        assert_eq!(id, agent_user_id(Uid(1), "Triage@A.example"));
        assert_ne!(id, agent_user_id(Uid(2), "triage@a.example"));
        assert_ne!(id, agent_user_id(Uid(1), "triag@ea.example"));
        assert!(id.strip_prefix("agent-user:").is_some_and(|u| u.parse::<Uid>().is_ok()), "{id}");
    }
}

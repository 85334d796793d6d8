//! What the record says of the use of grants. Pure.
//!
//! Invariant: only a token that somebody asked for counts as use. What is minted into a Secret, or for a sidecar's
//! files, is minted whether anybody reads it or not, and says nothing.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{Action, AuditLine};

/// How a grant was used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// How many tokens were asked for. A line that was collected twice counts twice.
    pub tokens: u64,
    /// When last.
    pub last: Option<Timestamp>,
    /// The names of the agents that asked.
    pub agents: BTreeSet<String>,
    /// The roles that the tokens carried.
    pub roles: BTreeSet<String>,
    /// The scopes that the tokens carried.
    pub scopes: BTreeSet<String>,
}

/// Use by grant, of a time.
#[derive(Clone, Debug)]
pub struct Usage {
    since: Timestamp,
    /// By namespace and name.
    grants: BTreeMap<(String, String), Used>,
}

impl Usage {
    /// Nothing yet; what was done before `since` will not count.
    #[must_use]
    pub const fn since(since: Timestamp) -> Self {
        Self { since, grants: BTreeMap::new() }
    }

    /// Takes a line in, in whatever order.
    pub fn take(&mut self, line: &AuditLine) {
        let delivered = matches!(line.endpoint.as_deref(), Some("secret" | "/credentials"));
        let old = line.time.is_none_or(|t| t < self.since);
        if line.action != Action::Mint || delivered || old {
            return;
        }
        let (Some(namespace), Some(grant)) = (&line.namespace, &line.grant) else { return };
        let used = self.grants.entry((namespace.clone(), grant.clone())).or_default();
        used.tokens += 1;
        used.last = used.last.max(line.time);
        used.agents.extend(line.name.clone());
        used.roles.extend(line.roles.iter().cloned());
        used.scopes.extend(line.scopes.iter().cloned());
    }

    /// How a grant was used; `None`: not at all.
    #[must_use]
    pub fn of(&self, namespace: &str, grant: &str) -> Option<&Used> {
        self.grants.get(&(namespace.to_owned(), grant.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Reason;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn line(endpoint: &str, grant: &str, second: i64, scopes: &[&str]) -> AuditLine {
        AuditLine {
            namespace: Some("ns".to_owned()),
            name: Some("a".to_owned()),
            grant: Some(grant.to_owned()),
            endpoint: Some(endpoint.to_owned()),
            roles: vec!["reader".to_owned()],
            scopes: scopes.iter().map(ToString::to_string).collect(),
            ..AuditLine::new(Action::Mint, Reason::Issued, at(second))
        }
    }

    #[test]
    fn only_what_was_asked_for_in_time_is_use() {
        let mut usage = Usage::since(at(0));
        let refused = AuditLine { action: Action::Refuse, ..line("/token", "refused", 5, &["x"]) };
        let nobody = AuditLine { grant: None, ..line("/token", "g", 5, &["never"]) };
        for line in [
            line("/token", "g", 9, &["b"]),
            line("/token", "g", 3, &["a"]),
            line("/token", "g", -1, &["old"]),
            line("/token", "old", -1, &["old"]),
            line("secret", "s", 5, &["x"]),
            line("/credentials", "s", 5, &["x"]),
            refused,
            nobody,
        ] {
            usage.take(&line);
        }
        let g = usage.of("ns", "g").unwrap();
        assert_eq!((g.tokens, g.last), (2, Some(at(9))));
        assert_eq!(g.scopes, BTreeSet::from(["a".to_owned(), "b".to_owned()]));
        assert_eq!(g.agents, BTreeSet::from(["a".to_owned()]));
        for (namespace, grant) in
            [("ns", "old"), ("ns", "s"), ("ns", "refused"), ("other", "g"), ("ns", "gg")]
        {
            assert_eq!(usage.of(namespace, grant), None, "{namespace}/{grant}");
        }
    }
}

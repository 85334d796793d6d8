//! What no agent may ever hold on this cluster, whatever anybody grants: a chain of named checks on a ClusterRole's
//! actual rules.
//!
//! Invariants: a rule counts by what it can do in any scope, so `resourceNames` save nothing; adding rules never makes a
//! role acceptable; no configuration switches a check off.

use k8s_openapi::api::rbac::v1::PolicyRule;

/// A check: what it is called, and what the role can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guardrail {
    /// Its name.
    pub name: &'static str,
    /// What a role that it refuses does, for people.
    pub what: &'static str,
    forbids: &'static [Forbidden],
}

/// Verbs on resources of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Forbidden {
    /// `*`: of every group.
    group: &'static str,
    /// `*`: every resource, subresources too.
    resources: &'static [&'static str],
    verbs: Verbs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verbs {
    Any,
    /// All but reading.
    Writes,
    These(&'static [&'static str]),
    /// Written out, with `*` meaning nothing.
    Spelled(&'static [&'static str]),
}

const MAKE: Verbs = Verbs::These(&["create", "update", "patch"]);

const fn on(group: &'static str, resources: &'static [&'static str], verbs: Verbs) -> Forbidden {
    Forbidden { group, resources, verbs }
}

/// The checks, in the order in which they are told.
pub const ALL: &[Guardrail] = &[
    Guardrail { name: "system", what: "is a role of the system's own", forbids: &[] },
    Guardrail {
        name: "secrets",
        // A patch or deletion answers with what was in it, and one of a certain type becomes a token.
        what: "can read or write Secrets",
        forbids: &[on("", &["secrets"], Verbs::Any)],
    },
    Guardrail {
        name: "workloads",
        what: "can create or change pods or workloads",
        forbids: &[
            on("", &["pods", "pods/binding", "bindings", "replicationcontrollers", "podtemplates"], MAKE),
            on(
                "apps",
                &["deployments", "statefulsets", "daemonsets", "replicasets", "controllerrevisions"],
                MAKE,
            ),
            on("extensions", &["deployments", "daemonsets", "replicasets"], MAKE),
            on("batch", &["jobs", "cronjobs"], MAKE),
        ],
    },
    Guardrail {
        name: "exec",
        what: "can exec into, attach to or forward ports of pods",
        forbids: &[on(
            "",
            &[
                "pods/exec",
                "pods/attach",
                "pods/portforward",
                "pods/proxy",
                "pods/ephemeralcontainers",
                "services/proxy",
            ],
            Verbs::Any,
        )],
    },
    Guardrail {
        name: "tokens",
        what: "can mint service-account tokens",
        forbids: &[on("", &["serviceaccounts/token"], Verbs::Any)],
    },
    Guardrail {
        name: "rbac",
        what: "can write RBAC, bind or escalate",
        forbids: &[
            on("rbac.authorization.k8s.io", &["*"], Verbs::Writes),
            on("*", &["*"], Verbs::Spelled(&["bind", "escalate"])),
        ],
    },
    Guardrail {
        name: "impersonate",
        what: "can impersonate others",
        forbids: &[
            on("", &["users", "groups", "serviceaccounts"], Verbs::These(&["impersonate"])),
            on(
                "authentication.k8s.io",
                &["users", "groups", "serviceaccounts", "uids", "userextras/x", "userextras", "nodes"],
                Verbs::These(&["impersonate"]),
            ),
            on("*", &["*"], Verbs::Spelled(&["impersonate"])),
        ],
    },
    Guardrail {
        name: "admission",
        what: "can write admission rules or how the API is served",
        forbids: &[
            on("admissionregistration.k8s.io", &["*"], Verbs::Writes),
            on("apiextensions.k8s.io", &["*"], Verbs::Writes),
            on("apiregistration.k8s.io", &["*"], Verbs::Writes),
        ],
    },
    Guardrail {
        name: "agentid",
        what: "can write agentid's own kinds",
        forbids: &[on(crate::api::GROUP, &["*"], Verbs::Writes)],
    },
    Guardrail {
        name: "namespaces",
        what: "can change namespaces",
        forbids: &[on("", &["namespaces", "namespaces/status", "namespaces/finalize"], Verbs::Writes)],
    },
    Guardrail {
        name: "nodes",
        what: "can change nodes or reach them through the API server",
        forbids: &[on("", &["nodes", "nodes/status"], Verbs::Writes), on("", &["nodes/proxy"], Verbs::Any)],
    },
    Guardrail {
        name: "certificates",
        what: "can approve or sign certificates",
        forbids: &[
            on(
                "certificates.k8s.io",
                &[
                    "certificatesigningrequests/approval",
                    "certificatesigningrequests/status",
                    "podcertificaterequests/status",
                    "clustertrustbundles",
                    "signers",
                ],
                Verbs::Writes,
            ),
            on("*", &["*"], Verbs::Spelled(&["approve", "sign", "attest"])),
        ],
    },
    Guardrail { name: "nonResourceURLs", what: "can reach non-resource URLs by a wildcard", forbids: &[] },
];

const SYSTEM: u16 = 1;
const URLS: u16 = 1 << (ALL.len() - 1);

/// The guardrails that a ClusterRole violates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Violations(u16);

impl Violations {
    /// Those of a name alone.
    #[must_use]
    pub fn of_name(name: &str) -> Self {
        Self(if name.starts_with("system:") { SYSTEM } else { 0 })
    }

    /// Those of a ClusterRole.
    #[must_use]
    pub fn of(name: &str, rules: &[PolicyRule]) -> Self {
        let mut all = Self::of_name(name).0;
        for rule in rules {
            for (i, guardrail) in ALL.iter().enumerate() {
                if guardrail.forbids.iter().any(|f| f.matches(rule)) {
                    all |= 1 << i;
                }
            }
            if rule.non_resource_urls.iter().flatten().any(|u| u.contains('*')) {
                all |= URLS;
            }
        }
        Self(all)
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The first, in the order in which they are told.
    #[must_use]
    pub fn first(self) -> Option<&'static Guardrail> {
        self.iter().next()
    }

    /// All of them.
    pub fn iter(self) -> impl Iterator<Item = &'static Guardrail> {
        ALL.iter().enumerate().filter(move |(i, _)| self.0 & (1 << i) != 0).map(|(_, g)| g)
    }

    /// Whether there is one here that is not there.
    #[must_use]
    pub const fn exceeds(self, other: Self) -> bool {
        self.0 & !other.0 != 0
    }
}

impl Forbidden {
    fn matches(&self, rule: &PolicyRule) -> bool {
        let groups = rule.api_groups.iter().flatten();
        let resources = rule.resources.iter().flatten();
        self.verbs.matches(&rule.verbs)
            && groups.into_iter().any(|g| self.group == "*" || g == "*" || g == self.group)
            && resources.into_iter().any(|r| self.resources.iter().any(|f| names(r, f)))
    }
}

impl Verbs {
    fn matches(self, verbs: &[String]) -> bool {
        let reads = |v: &str| matches!(v, "get" | "list" | "watch");
        verbs.iter().any(|v| match self {
            Self::Any => true,
            Self::Writes => !reads(v),
            Self::These(these) => v == "*" || these.contains(&v.as_str()),
            // Constrained impersonation spells `impersonate:…`.
            Self::Spelled(these) => {
                let stem = v.split([':', '-']).next().unwrap_or_default();
                these.contains(&v.as_str()) || these.contains(&stem)
            }
        })
    }
}

/// Whether a resource of a rule names a forbidden one. A wildcard that RBAC itself would not honour, such as `pods/*`,
/// is taken for what its author meant.
fn names(asked: &str, forbidden: &str) -> bool {
    if asked == "*" || forbidden == "*" || asked == forbidden {
        return true;
    }
    let split = |r: &'_ str| r.split_once('/').map(|(a, b)| (a.to_owned(), b.to_owned()));
    match (split(asked), split(forbidden)) {
        (Some((base, sub)), Some((of, wanted))) => {
            (base == "*" || base == of) && (sub == "*" || sub == wanted || of == "userextras")
        }
        (Some((base, sub)), None) => sub == "*" && (base == "*" || base == forbidden),
        _ => false,
    }
}

#[cfg(test)]
mod tests;

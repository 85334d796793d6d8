//! What no agent may write in the cluster, whoever gave it the right: one list for the admission policies, for
//! the pages and for whoever judges roles.
//!
//! Invariant: whoever could write one of these could become more than it is: read a credential, run a program as
//! somebody else, or change what it may do.

/// Resources of one API group that agents may not write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protected {
    /// The group; empty for the core group.
    pub group: &'static str,
    /// The resources, `<resource>/<subresource>` among them; `*` is all of the group, without subresources.
    pub resources: &'static [&'static str],
    /// What could be done by it.
    pub why: &'static str,
}

/// All of them.
pub const PROTECTED: &[Protected] = &[
    Protected { group: "", resources: &["secrets"], why: "read and forge credentials" },
    Protected { group: "", resources: &["serviceaccounts/token"], why: "be a service account" },
    Protected {
        group: "",
        resources: &["pods", "pods/ephemeralcontainers", "replicationcontrollers"],
        why: "run programs",
    },
    Protected {
        group: "",
        resources: &["pods/exec", "pods/attach", "pods/portforward"],
        why: "be another pod",
    },
    Protected { group: "", resources: &["nodes", "nodes/proxy"], why: "be every pod of a node" },
    Protected { group: "", resources: &["namespaces"], why: "move a namespace into what `allow` selects" },
    Protected {
        group: "apps",
        resources: &["deployments", "statefulsets", "daemonsets", "replicasets"],
        why: "run programs",
    },
    Protected { group: "batch", resources: &["jobs", "cronjobs"], why: "run programs" },
    Protected { group: "rbac.authorization.k8s.io", resources: &["*"], why: "change what it may do" },
    Protected { group: "admissionregistration.k8s.io", resources: &["*"], why: "change what is admitted" },
    Protected { group: super::GROUP, resources: &["*"], why: "grant, suspend and resume" },
];

//! What the API server's own authorization holds: ClusterRoles, and the RoleBindings that we write.

use std::sync::Arc;

use super::Meta;
use crate::domain::guardrails::Violations;
use crate::domain::{Digest, Uid};

/// A ClusterRole, trimmed to what no agent may hold of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterRole {
    /// Its metadata; the namespace of the key is empty.
    pub meta: Meta,
    /// The guardrails that its rules violate.
    pub violations: Violations,
}

/// A RoleBinding that bears our labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Its metadata.
    pub meta: Meta,
    /// The UID of the grant that it says it stands for.
    pub grant: Uid,
    /// The ClusterRole that it gives; `None` if it gives something else.
    pub role: Option<Arc<str>>,
    /// The agents among its subjects.
    pub subjects: Box<[Uid]>,
    /// Digest of its subjects as they are written; zero if one of them is no agent.
    pub digest: Digest,
    /// Its one ownerReference's UID; `None` if it has none or several.
    pub owner: Option<Uid>,
}

impl Binding {
    /// The grant of one whose label names none: no object has this UID.
    pub const OF_NONE: Uid = Uid(0);
}

//! The closed set of reasons. The same word is the condition's reason, the event's, the metric's label and
//! the audit line's: whoever reads one finds the others.

use std::fmt;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Why something is, or is not, held. A closed set (design §1).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason, in the order of the design.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The reason as it stands in conditions, events, metric labels and audit lines.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

reasons! {
    /// The credential is there and fresh.
    Issued,
    /// The agent is suspended by its spec, or it or a grant by a policy.
    Suspended,
    /// Its time is over: the agent's or the grant's `expiresAt`, or a policy's limit.
    Expired,
    /// The grant's `notBefore` is still to come.
    NotYetValid,
    /// The bound object does not exist.
    BoundObjectNotFound,
    /// The bound pod has succeeded or failed, or the bound Job has finished.
    BoundObjectFinished,
    /// An object of the bound name exists, but it is another one (another UID).
    BoundObjectReplaced,
    /// The bound pod exists but does not carry the label by which pods are seen.
    BoundObjectNotSelected,
    /// The kind of the bound object is not among those that may be bound.
    BoundKindNotAllowed,
    /// A grant names an agent that does not exist.
    AgentNotFound,
    /// A grant names a resource that does not exist.
    ResourceNotFound,
    /// The resource does not allow the grant's namespace.
    NamespaceNotAllowed,
    /// The resource does not allow this mode to the namespace.
    ModeNotAllowed,
    /// The resource does not offer the role.
    RoleNotOffered,
    /// The resource offers the role, but not to this namespace.
    RoleNotAllowed,
    /// The resource does not offer the scope.
    ScopeNotOffered,
    /// The resource offers the scope, but not to this namespace.
    ScopeNotAllowed,
    /// The lifetime is too short for a Secret: on demand only.
    LifetimeTooShort,
    /// An older object has the name, key or audience.
    Conflict,
    /// An object of that name exists and is not ours.
    ForeignObject,
    /// The named blueprint does not exist.
    BlueprintNotFound,
    /// The blueprint does not select the namespace.
    NamespaceNotSelected,
    /// A policy denies it.
    PolicyDenied,
    /// Something that a policy requires is missing.
    RequirementMissing,
    /// A built-in guardrail denies it.
    GuardrailDenied,
    /// The user issuer is not trusted.
    IssuerNotTrusted,
    /// The grant does not allow this subject.
    SubjectNotAllowed,
    /// The presented credential was not accepted.
    CredentialRejected,
    /// The status index is not recorded yet.
    IndexPending,
    /// Who asks has not been seen yet, or its agent is being made.
    CallerPending,
    /// No signing key can be used.
    KeysUnavailable,
    /// What is needed to decide cannot be seen now: nothing is minted, nothing withdrawn.
    Unknown,
    /// The object contradicts itself or the configuration.
    Invalid,
    /// A fault of ours or of the API server.
    Internal,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Reason {
    type Err = ();

    fn from_str(s: &str) -> Result<Self, ()> {
        Self::ALL.iter().copied().find(|r| r.as_str() == s).ok_or(())
    }
}

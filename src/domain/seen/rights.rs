//! What rights come from: AgentResources, AgentGrants and Namespaces, as they were seen.

use std::sync::Arc;

use jiff::Timestamp;

use super::{Labels, Meta, SeenStatus, Unfit, meta_of, unfit};
use crate::api::{
    AgentGrant, AgentResource, Allowance, IDENTITY_KEY, LabelSelector, Mode, SigningAlgorithm, SubjectForm,
    TokenProfile, parse_seconds,
};
use crate::domain::{Agent, Key};

/// An AgentResource.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// Its metadata.
    pub meta: Meta,
    /// `metadata.generation`.
    pub generation: i64,
    /// The `aud` of its tokens.
    pub audience: Arc<str>,
    /// Its token kind.
    pub profile: TokenProfile,
    /// Its subject form.
    pub subject: SubjectForm,
    /// Its signature algorithm.
    pub algorithm: SigningAlgorithm,
    /// `maxTokenLifetime` in seconds.
    pub max_token_lifetime: Option<u32>,
    /// Names of the roles offered.
    pub roles: Box<[Arc<str>]>,
    /// Names of the scopes offered.
    pub scopes: Box<[Arc<str>]>,
    /// From where it may be granted.
    pub allow: Box<[Allowance]>,
    /// The service accounts that may ask about its tokens.
    pub introspectors: Box<[Key]>,
    /// The agent that it is.
    pub agent: Option<Key>,
    /// It is this cluster: its roles are ClusterRoles.
    pub kubernetes: bool,
    /// What in its spec can't be understood.
    pub invalid: Option<Box<str>>,
    /// Its status.
    pub status: SeenStatus,
}

impl Resource {
    /// Whether two sights of a resource say the same, whatever their versions, generations and statuses.
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        let Self {
            meta,
            generation: _,
            audience,
            profile,
            subject,
            algorithm,
            max_token_lifetime,
            roles,
            scopes,
            allow,
            introspectors,
            agent,
            kubernetes,
            invalid,
            status: _,
        } = self;
        meta.same_but_version(&other.meta)
            && *kubernetes == other.kubernetes
            && *audience == other.audience
            && *profile == other.profile
            && *subject == other.subject
            && *algorithm == other.algorithm
            && *max_token_lifetime == other.max_token_lifetime
            && *roles == other.roles
            && *scopes == other.scopes
            && *allow == other.allow
            && *introspectors == other.introspectors
            && *agent == other.agent
            && *invalid == other.invalid
    }
}

impl TryFrom<&AgentResource> for Resource {
    type Error = Unfit;

    fn try_from(object: &AgentResource) -> Result<Self, Unfit> {
        let spec = &object.spec;
        let kubernetes = spec.kubernetes.is_some();
        let mut invalid = None;
        let max_token_lifetime = spec.max_token_lifetime.as_deref().and_then(|t| {
            parse_seconds(t).map_err(|e| invalid = Some(format!("spec.maxTokenLifetime: {e}").into())).ok()
        });
        Ok(Self {
            meta: meta_of(&object.metadata)?,
            generation: object.metadata.generation.unwrap_or_default(),
            audience: spec.audience.as_str().into(),
            // Whatever was stored under another schema: the API server knows agents by their id alone.
            profile: if kubernetes { TokenProfile::Identity } else { spec.token_profile.unwrap_or_default() },
            subject: if kubernetes { SubjectForm::Id } else { spec.subject.unwrap_or_default() },
            kubernetes,
            algorithm: spec.signing_algorithm.unwrap_or_default(),
            max_token_lifetime,
            roles: spec.roles.iter().map(|o| o.name.as_str().into()).collect(),
            scopes: spec.scopes.iter().filter(|_| !kubernetes).map(|o| o.name.as_str().into()).collect(),
            allow: spec.allow.clone().into(),
            introspectors: spec
                .introspectors
                .iter()
                .map(|i| Key::new(i.namespace.as_str(), i.service_account_name.as_str()))
                .collect(),
            agent: spec.agent.as_ref().map(|a| Key::new(a.namespace.as_str(), a.name.as_str())),
            invalid,
            status: object.status.as_ref().map(SeenStatus::from).unwrap_or_default(),
        })
    }
}

/// Which agents a grant speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// These.
    Names(Box<[Arc<str>]>),
    /// All of the namespace with such labels.
    Selector(Box<LabelSelector>),
}

/// Whose rights a delegation passes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Users {
    /// Their issuer.
    pub issuer: Arc<str>,
    /// Their `sub`s; `None`: any of that issuer's.
    pub subjects: Option<Box<[Arc<str>]>>,
}

impl Users {
    /// Whether a user is among them.
    #[must_use]
    pub fn include(&self, issuer: &str, subject: &str) -> bool {
        *self.issuer == *issuer
            && self.subjects.as_ref().is_none_or(|all| all.iter().any(|s| **s == *subject))
    }
}

/// An AgentGrant.
#[derive(Clone, Debug, PartialEq)]
pub struct Grant {
    /// Its metadata.
    pub meta: Meta,
    /// `metadata.generation`.
    pub generation: i64,
    /// Which agents.
    pub selection: Selection,
    /// The AgentResource's name.
    pub resource: Arc<str>,
    /// In whose right.
    pub mode: Mode,
    /// Of a delegation: whose rights.
    pub users: Option<Users>,
    /// Roles asked for.
    pub roles: Box<[Arc<str>]>,
    /// Scopes asked for.
    pub scopes: Box<[Arc<str>]>,
    /// `notBefore`.
    pub not_before: Option<Timestamp>,
    /// `expiresAt`.
    pub expires_at: Option<Timestamp>,
    /// `secretKey`.
    pub secret_key: Option<Arc<str>>,
    /// What in its spec can't be understood.
    pub invalid: Option<Box<str>>,
    /// Its status.
    pub status: SeenStatus,
}

impl Grant {
    /// Whether two sights of a grant say the same, whatever their versions, generations and statuses.
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        let Self {
            meta,
            generation: _,
            selection,
            resource,
            mode,
            users,
            roles,
            scopes,
            not_before,
            expires_at,
            secret_key,
            invalid,
            status: _,
        } = self;
        meta.same_but_version(&other.meta)
            && *selection == other.selection
            && *resource == other.resource
            && *mode == other.mode
            && *users == other.users
            && *roles == other.roles
            && *scopes == other.scopes
            && *not_before == other.not_before
            && *expires_at == other.expires_at
            && *secret_key == other.secret_key
            && *invalid == other.invalid
    }

    /// Whether it speaks of an agent of its namespace.
    #[must_use]
    pub fn selects(&self, agent: &Agent) -> bool {
        match &self.selection {
            Selection::Names(names) => names.contains(&agent.meta.key.name),
            Selection::Selector(selector) => agent.labels.matched_by(selector),
        }
    }
}

impl TryFrom<&AgentGrant> for Grant {
    type Error = Unfit;

    fn try_from(object: &AgentGrant) -> Result<Self, Unfit> {
        let spec = &object.spec;
        let selection = match (&spec.agents.names, &spec.agents.selector) {
            (Some(names), None) => Selection::Names(names.iter().map(|n| n.as_str().into()).collect()),
            (None, Some(selector)) => Selection::Selector(Box::new(selector.clone())),
            _ => return Err(unfit("spec.agents", "exactly one of names and selector must be set")),
        };
        let texts = |list: &[String]| list.iter().map(|t| Arc::from(t.as_str())).collect();
        let forms = (&spec.application, &spec.delegation, &spec.agent_user);
        let (mode, roles, scopes, users, mut invalid) = match forms {
            (Some(a), None, None) => (Mode::Application, texts(&a.roles), texts(&a.scopes), None, None),
            (None, None, Some(u)) => (Mode::AgentUser, Box::default(), texts(&u.scopes), None, None),
            (None, Some(d), None) => {
                let users =
                    Users { issuer: d.issuer.as_str().into(), subjects: d.subjects.as_deref().map(texts) };
                let late = spec.secret_key.is_some().then(|| {
                    "spec.secretKey: a delegated token is never delivered in a Secret; leave it out".into()
                });
                (Mode::Delegation, Box::default(), texts(&d.scopes), Some(users), late)
            }
            _ => {
                let unknown = Some("spec: has no form that this version knows".into());
                (Mode::Application, Box::default(), Box::default(), None, unknown)
            }
        };
        // The schema says so too; but whatever was stored under another schema must not take the place of the
        // identity token, or leave the volume.
        if let Some(key) = &spec.secret_key
            && (key == IDENTITY_KEY || key.contains(['/', '\\']) || !key.ends_with(".jwt"))
        {
            invalid =
                Some(format!("spec.secretKey: {key:?} must end in .jwt and not be {IDENTITY_KEY}").into());
        }
        Ok(Self {
            meta: meta_of(&object.metadata)?,
            generation: object.metadata.generation.unwrap_or_default(),
            selection,
            resource: spec.resource.as_str().into(),
            mode,
            users,
            roles,
            scopes,
            not_before: spec.not_before.as_ref().map(|t| t.0),
            expires_at: spec.expires_at.as_ref().map(|t| t.0),
            secret_key: spec.secret_key.as_deref().map(Arc::from),
            invalid,
            status: object.status.as_ref().map(SeenStatus::from).unwrap_or_default(),
        })
    }
}

/// A Namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its metadata; the namespace of the key is empty.
    pub meta: Meta,
    /// Its labels, by which resources allow it.
    pub labels: Labels,
}

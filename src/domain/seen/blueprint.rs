//! AgentBlueprints, as they were seen.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Grant, Labels, Meta, SeenStatus, Unfit, meta_of};
use crate::api::{
    AgentBlueprint, AgentGrant, AgentGrantSpec, AgentSelection, IdentityPer, InheritedGrant, LabelSelector,
    parse_seconds,
};
use crate::domain::{Hasher, Uid};

/// An AgentBlueprint.
#[derive(Clone, Debug, PartialEq)]
pub struct Blueprint {
    /// Its metadata.
    pub meta: Meta,
    /// `metadata.generation`.
    pub generation: i64,
    /// Somebody answers for its agents.
    pub sponsored: bool,
    /// In which namespaces there may be such agents.
    pub namespace_selector: LabelSelector,
    /// Which pods become agents.
    pub pod_selector: Option<LabelSelector>,
    /// What a pod's agent is.
    pub per: IdentityPer,
    /// `defaults.tokenLifetime` in seconds.
    pub token_lifetime: Option<u32>,
    /// `defaults.lifetime` in seconds.
    pub lifetime: Option<u32>,
    /// What its agents inherit, named `<blueprint>/<grant>`, in the order in which it is written.
    pub grants: Box<[Grant]>,
    /// `suspend`.
    pub suspend: bool,
    /// What in its spec can't be understood.
    pub invalid: Option<Box<str>>,
    /// Its status.
    pub status: SeenStatus,
}

impl Blueprint {
    /// Whether it makes agents of pods with such labels, in a namespace that it selects.
    #[must_use]
    pub fn makes(&self, pod: &Labels) -> bool {
        self.makes_any() && self.pod_selector.as_ref().is_some_and(|s| pod.matched_by(s))
    }

    /// Whether it makes agents at all.
    #[must_use]
    pub fn makes_any(&self) -> bool {
        self.pod_selector.is_some() && !self.meta.deleting && self.invalid.is_none()
    }

    /// Whether two sights of a blueprint say the same, whatever their versions, generations and statuses.
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        let Self {
            meta,
            generation: _,
            sponsored,
            namespace_selector,
            pod_selector,
            per,
            token_lifetime,
            lifetime,
            grants,
            suspend,
            invalid,
            status: _,
        } = self;
        meta.same_but_version(&other.meta)
            && *sponsored == other.sponsored
            && *namespace_selector == other.namespace_selector
            && *pod_selector == other.pod_selector
            && *per == other.per
            && *token_lifetime == other.token_lifetime
            && *lifetime == other.lifetime
            && *grants == other.grants
            && *suspend == other.suspend
            && *invalid == other.invalid
    }
}

/// The UID of an inherited grant: always the same for the same name in the same blueprint (RFC 9562 §5.8).
fn inherited_uid(blueprint: Uid, name: &str) -> Uid {
    let mut hasher = Hasher::new("inherited grant");
    hasher.part(&blueprint.0.to_be_bytes()).part(name.as_bytes());
    Uid::derived(hasher.finish())
}

fn inherited(meta: &Meta, of: &AgentBlueprint, grant: &InheritedGrant) -> Result<Grant, Unfit> {
    let InheritedGrant {
        name,
        resource,
        application,
        delegation,
        agent_user,
        not_before,
        expires_at,
        secret_key,
    } = grant;
    (&AgentGrant {
        metadata: ObjectMeta {
            name: Some(format!("{}/{name}", meta.key.name)),
            uid: Some(inherited_uid(meta.uid, name).to_string()),
            creation_timestamp: of.metadata.creation_timestamp.clone(),
            ..ObjectMeta::default()
        },
        spec: AgentGrantSpec {
            agents: AgentSelection { names: None, selector: Some(LabelSelector::default()) },
            resource: resource.clone(),
            application: application.clone(),
            delegation: delegation.clone(),
            agent_user: agent_user.clone(),
            not_before: not_before.clone(),
            expires_at: expires_at.clone(),
            secret_key: secret_key.clone(),
        },
        status: None,
    })
        .try_into()
}

impl TryFrom<&AgentBlueprint> for Blueprint {
    type Error = Unfit;

    fn try_from(object: &AgentBlueprint) -> Result<Self, Unfit> {
        let meta = meta_of(&object.metadata)?;
        let spec = &object.spec;
        let mut invalid = None;
        let mut seconds = |field: &str, text: Option<&String>| {
            let text = text?;
            parse_seconds(text).map_err(|e| invalid = Some(format!("spec.defaults.{field}: {e}").into())).ok()
        };
        let defaults = spec.defaults.as_ref();
        Ok(Self {
            generation: object.metadata.generation.unwrap_or_default(),
            sponsored: !spec.sponsors.is_empty(),
            namespace_selector: spec.namespace_selector.clone(),
            pod_selector: spec.pod_selector.clone(),
            per: spec.identity_per.unwrap_or_default(),
            token_lifetime: seconds("tokenLifetime", defaults.and_then(|d| d.token_lifetime.as_ref())),
            lifetime: seconds("lifetime", defaults.and_then(|d| d.lifetime.as_ref())),
            grants: spec.grants.iter().map(|g| inherited(&meta, object, g)).collect::<Result<_, _>>()?,
            suspend: spec.suspend.unwrap_or_default(),
            invalid,
            status: object.status.as_ref().map(SeenStatus::from).unwrap_or_default(),
            meta,
        })
    }
}

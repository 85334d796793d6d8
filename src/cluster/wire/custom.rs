//! Objects of our own kinds on the wire.
//!
//! Invariant: of their metadata no more is read than decisions need; managedFields and foreign annotations are not.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use serde::Deserialize;

use super::Wire;
use crate::api::{
    AgentBlueprint, AgentBlueprintSpec, AgentBlueprintStatus, AgentGrant, AgentGrantSpec, AgentGrantStatus,
    AgentIdentity, AgentIdentitySpec, AgentIdentityStatus, AgentPolicy, AgentPolicySpec, AgentPolicyStatus,
    AgentResource, AgentResourceSpec, AgentResourceStatus, ROTATE_ANNOTATION,
};
use crate::domain::{Object, Source, Unfit};

/// One of our kinds, without the managedFields that make up half of it on the wire.
#[derive(Debug, Deserialize)]
pub struct WireCustom<S, T> {
    metadata: CustomMeta,
    spec: S,
    status: Option<T>,
}

/// An AgentIdentity on the wire.
pub type WireAgent = WireCustom<AgentIdentitySpec, AgentIdentityStatus>;
/// An AgentResource on the wire.
pub type WireResource = WireCustom<AgentResourceSpec, AgentResourceStatus>;
/// An AgentBlueprint on the wire.
pub type WireBlueprint = WireCustom<AgentBlueprintSpec, AgentBlueprintStatus>;
/// An AgentGrant on the wire.
pub type WireGrant = WireCustom<AgentGrantSpec, AgentGrantStatus>;
/// An AgentPolicy on the wire.
pub type WirePolicy = WireCustom<AgentPolicySpec, AgentPolicyStatus>;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CustomMeta {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    generation: Option<i64>,
    labels: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
    #[serde(default)]
    annotations: CustomAnnotations,
}

/// The one that is read: the others may be large.
#[derive(Debug, Default, Deserialize)]
struct CustomAnnotations {
    #[serde(rename = "agentid.dev/rotate-requested")]
    rotate: Option<String>,
}

impl CustomMeta {
    fn which(&self) -> [&str; 3] {
        [&self.namespace, &self.name, &self.uid].map(|part| part.as_deref().unwrap_or_default())
    }
}

impl From<CustomMeta> for ObjectMeta {
    fn from(meta: CustomMeta) -> Self {
        Self {
            name: meta.name,
            namespace: meta.namespace,
            uid: meta.uid,
            resource_version: meta.resource_version,
            creation_timestamp: meta.creation_timestamp,
            deletion_timestamp: meta.deletion_timestamp,
            generation: meta.generation,
            labels: meta.labels,
            owner_references: meta.owner_references,
            annotations: meta.annotations.rotate.map(|r| [(ROTATE_ANNOTATION.to_owned(), r)].into()),
            ..Self::default()
        }
    }
}

impl Wire for WireAgent {
    fn which(&self) -> [&str; 3] {
        self.metadata.which()
    }

    fn object(self, _: &Source) -> Result<Object, Unfit> {
        let object = AgentIdentity { metadata: self.metadata.into(), spec: self.spec, status: self.status };
        (&object).try_into().map(|a| Object::Agent(Box::new(a)))
    }
}

impl Wire for WireResource {
    fn which(&self) -> [&str; 3] {
        self.metadata.which()
    }

    fn object(self, _: &Source) -> Result<Object, Unfit> {
        let object = AgentResource { metadata: self.metadata.into(), spec: self.spec, status: self.status };
        (&object).try_into().map(|r| Object::Resource(Box::new(r)))
    }
}

impl Wire for WireBlueprint {
    fn which(&self) -> [&str; 3] {
        self.metadata.which()
    }

    fn object(self, _: &Source) -> Result<Object, Unfit> {
        let object = AgentBlueprint { metadata: self.metadata.into(), spec: self.spec, status: self.status };
        (&object).try_into().map(|b| Object::Blueprint(Box::new(b)))
    }
}

impl Wire for WireGrant {
    fn which(&self) -> [&str; 3] {
        self.metadata.which()
    }

    fn object(self, _: &Source) -> Result<Object, Unfit> {
        let object = AgentGrant { metadata: self.metadata.into(), spec: self.spec, status: self.status };
        (&object).try_into().map(|g| Object::Grant(Box::new(g)))
    }
}

impl Wire for WirePolicy {
    fn which(&self) -> [&str; 3] {
        self.metadata.which()
    }

    fn object(self, _: &Source) -> Result<Object, Unfit> {
        let object = AgentPolicy { metadata: self.metadata.into(), spec: self.spec, status: self.status };
        (&object).try_into().map(|p| Object::Policy(Box::new(p)))
    }
}

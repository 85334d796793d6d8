//! Objects on the wire, read as far as decisions need them, and what they say of themselves.
//!
//! Invariant: Secret data is never read; who else wrote a Secret of ours is told from its managedFields, which
//! are dropped at once.

mod rbac;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::{
    AGENT_LABEL, AgentBlueprint, AgentBlueprintSpec, AgentBlueprintStatus, AgentGrant, AgentGrantSpec,
    AgentGrantStatus, AgentIdentity, AgentIdentitySpec, AgentIdentityStatus, AgentPolicy, AgentPolicySpec,
    AgentPolicyStatus, AgentResource, AgentResourceSpec, AgentResourceStatus, DOCUMENT_KEY, MANAGED_BY,
    ROTATE_ANNOTATION, annotation,
};
use crate::domain::statuslist::Mark;
use crate::domain::{
    BoundObject, Changed, Controller, Credentials, Digest, Drift, Hasher, Key, Labels, Meta, Namespace,
    Object, POD, ServiceAccount, Source, Trust, Uid, Unfit, kind_name,
};

pub use self::rbac::{WireBinding, WireClusterRole};

/// The field manager of every write of ours.
pub const FIELD_MANAGER: &str = "agentid";

/// An object of a watch.
pub trait Wire: DeserializeOwned + Send + 'static {
    /// What the world takes in.
    ///
    /// # Errors
    /// [`Unfit`] for an object that can't be understood; it harms itself alone.
    fn object(self, source: &Source) -> Result<Object, Unfit>;
}

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
    fn object(self, _: &Source) -> Result<Object, Unfit> {
        let object = AgentIdentity { metadata: self.metadata.into(), spec: self.spec, status: self.status };
        (&object).try_into().map(|a| Object::Agent(Box::new(a)))
    }
}

impl Wire for WireResource {
    fn object(self, _: &Source) -> Result<Object, Unfit> {
        let object = AgentResource { metadata: self.metadata.into(), spec: self.spec, status: self.status };
        (&object).try_into().map(|r| Object::Resource(Box::new(r)))
    }
}

impl Wire for WireBlueprint {
    fn object(self, _: &Source) -> Result<Object, Unfit> {
        let object = AgentBlueprint { metadata: self.metadata.into(), spec: self.spec, status: self.status };
        (&object).try_into().map(|b| Object::Blueprint(Box::new(b)))
    }
}

impl Wire for WireGrant {
    fn object(self, _: &Source) -> Result<Object, Unfit> {
        let object = AgentGrant { metadata: self.metadata.into(), spec: self.spec, status: self.status };
        (&object).try_into().map(|g| Object::Grant(Box::new(g)))
    }
}

impl Wire for WirePolicy {
    fn object(self, _: &Source) -> Result<Object, Unfit> {
        let object = AgentPolicy { metadata: self.metadata.into(), spec: self.spec, status: self.status };
        (&object).try_into().map(|p| Object::Policy(Box::new(p)))
    }
}

/// Metadata as far as it is read.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WireMeta {
    name: String,
    #[serde(default)]
    namespace: String,
    uid: String,
    #[serde(default)]
    resource_version: String,
    creation_timestamp: Option<Timestamp>,
    deletion_timestamp: Option<Timestamp>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    owner_references: Vec<Owner>,
}

impl WireMeta {
    /// What controls the object.
    fn controller(&self) -> Option<Controller> {
        let owner = self.owner_references.iter().find(|o| o.controller)?;
        Some(Controller {
            kind: kind_name(&owner.api_version, &owner.kind),
            name: owner.name.as_str().into(),
            uid: owner.uid.parse().ok()?,
        })
    }

    fn meta(&self) -> Result<Meta, Unfit> {
        Ok(Meta {
            key: Key::new(self.namespace.as_str(), self.name.as_str()),
            uid: self.uid.parse().map_err(|e: crate::domain::UidError| Unfit {
                field: "metadata.uid",
                problem: e.to_string(),
            })?,
            version: self.resource_version.parse().unwrap_or_default(),
            created: self.creation_timestamp.unwrap_or(Timestamp::UNIX_EPOCH),
            deleting: self.deletion_timestamp.is_some(),
        })
    }
}

/// An object of which only metadata is watched: a namespace, or one of a bound kind.
#[derive(Debug, Deserialize)]
pub struct WireObject {
    metadata: WireMeta,
}

impl Wire for WireObject {
    fn object(self, source: &Source) -> Result<Object, Unfit> {
        let meta = self.metadata.meta()?;
        Ok(match source {
            Source::Bound(kind) => {
                let controller = self.metadata.controller();
                Object::Bound(kind.clone(), Box::new(BoundObject { controller, ..BoundObject::new(meta) }))
            }
            Source::ServiceAccounts => Object::Account(Box::new(ServiceAccount { meta })),
            Source::Lease => {
                let said = self.metadata.annotations.get(STATUS_LIST_ANNOTATION);
                Object::Lease(Box::new((meta, said.and_then(|text| read_mark(text)))))
            }
            _ => {
                let labels = self.metadata.labels.into_iter().collect();
                Object::Namespace(Box::new(Namespace { meta, labels }))
            }
        })
    }
}

/// A pod or Job: whole on the wire, trimmed to whether it has finished.
#[derive(Debug, Deserialize)]
pub struct WireWorkload {
    metadata: WireMeta,
    #[serde(default)]
    spec: WorkloadSpec,
    #[serde(default)]
    status: WorkloadStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WorkloadSpec {
    service_account_name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct WorkloadStatus {
    phase: Option<String>,
    #[serde(default)]
    conditions: Vec<WorkloadCondition>,
}

#[derive(Debug, Deserialize)]
struct WorkloadCondition {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    status: String,
}

impl WireWorkload {
    /// A pod that succeeded or failed, or a Job that completed or failed.
    fn is_finished(&self) -> bool {
        matches!(self.status.phase.as_deref(), Some("Succeeded" | "Failed"))
            || self
                .status
                .conditions
                .iter()
                .any(|c| c.status == "True" && matches!(c.kind.as_str(), "Complete" | "Failed"))
    }

    /// The labels, for a selector.
    #[must_use]
    pub const fn labels(&self) -> &BTreeMap<String, String> {
        &self.metadata.labels
    }
}

impl Wire for WireWorkload {
    fn object(self, source: &Source) -> Result<Object, Unfit> {
        let Source::Bound(kind) = source else {
            return Err(Unfit { field: "kind", problem: format!("{source} is no bound kind") });
        };
        let object = BoundObject {
            finished: self.is_finished(),
            controller: self.metadata.controller(),
            account: self.spec.service_account_name.as_deref().map(Arc::from),
            // Of Jobs nobody asks for them.
            labels: if &**kind == POD {
                self.metadata.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect()
            } else {
                Labels::default()
            },
            agent: self.metadata.labels.get(AGENT_LABEL).filter(|v| !v.is_empty()).map(|v| v.as_str().into()),
            ..BoundObject::new(self.metadata.meta()?)
        };
        Ok(Object::Bound(kind.clone(), Box::new(object)))
    }
}

/// A Secret of our type, as metadata.
#[derive(Debug, Deserialize)]
pub struct WireSecret {
    metadata: SecretMeta,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SecretMeta {
    #[serde(flatten)]
    meta: WireMeta,
    #[serde(default)]
    managed_fields: Vec<Managed>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Owner {
    #[serde(default)]
    api_version: String,
    kind: String,
    #[serde(default)]
    name: String,
    uid: String,
    #[serde(default)]
    controller: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Managed {
    #[serde(default)]
    manager: String,
    #[serde(default, rename = "fieldsV1")]
    fields: Value,
}

impl Wire for WireSecret {
    fn object(self, _: &Source) -> Result<Object, Unfit> {
        self.credentials().map(|c| Object::Secret(Box::new(c)))
    }
}

impl WireSecret {
    /// What it says of itself.
    ///
    /// # Errors
    /// [`Unfit`] without a UID.
    pub fn credentials(self) -> Result<Credentials, Unfit> {
        let meta = self.metadata.meta.meta()?;
        let text = |name| self.metadata.meta.annotations.get(name).map(String::as_str);
        let time = |name| text(name).and_then(|t| t.parse().ok()).unwrap_or(Timestamp::MAX);
        let agent: Option<Uid> = text(annotation::AGENT_UID).and_then(|u| u.parse().ok());
        let list = |name| text(name).unwrap_or_default().split(',').filter(|t| !t.is_empty());
        let tokens: Box<[(Box<str>, Digest)]> = list(annotation::TOKENS)
            .filter_map(|t| t.split_once('='))
            .map(|(file, digest)| (file.into(), digest.parse().unwrap_or_default()))
            .collect();
        let drift = agent.and_then(|uid| self.drift(uid, &tokens));
        Ok(Credentials {
            agent,
            plan: text(annotation::PLAN).and_then(|p| p.parse().ok()).unwrap_or_default(),
            kids: list(annotation::KEY_IDS).map(Arc::from).collect(),
            renew_at: time(annotation::RENEW_AT),
            expires_at: time(annotation::EXPIRES_AT),
            rotated: text(annotation::ROTATED).and_then(|at| at.parse().ok()),
            drift,
            tokens,
            meta,
        })
    }

    /// How it differs from what we wrote. A field that another manager has beside us still has our value:
    /// whoever changes a value takes the field from us.
    fn drift(&self, agent: Uid, tokens: &[(Box<str>, Digest)]) -> Option<Drift> {
        let SecretMeta { meta, managed_fields } = &self.metadata;
        let WireMeta { annotations, owner_references, .. } = meta;
        let (mine, others): (Vec<_>, Vec<_>) =
            managed_fields.iter().partition(|m| m.manager == FIELD_MANAGER);
        let changed = |by: &str, what| Some(Drift { by: by.into(), what });
        for other in &others {
            // What is no longer ours of a map: of those of its keys that are ours to write.
            let takes = |map: &str, ours: fn(&str) -> bool| {
                other.fields.pointer(map).is_some_and(|fields| match fields.as_object() {
                    Some(keys) if !keys.is_empty() => keys.keys().any(|key| {
                        key != "."
                            && ours(key.strip_prefix("f:").unwrap_or(key))
                            && !mine.iter().any(|m| m.fields.pointer(map).is_some_and(|f| !f[key].is_null()))
                    }),
                    // As a whole.
                    _ => true,
                })
            };
            // `immutable: false` is what we leave unsaid, but saying `true` cannot be told from it here.
            if !other.fields["f:immutable"].is_null() {
                return changed(&other.manager, Changed::Immutable);
            }
            if takes("/f:data", |_| true) {
                return changed(&other.manager, Changed::Data);
            }
            if takes("/f:metadata/f:ownerReferences", |_| true) {
                return changed(&other.manager, Changed::Owners);
            }
            if takes("/f:metadata/f:annotations", |k| k.starts_with("agentid.dev/")) {
                return changed(&other.manager, Changed::Annotations);
            }
            if takes("/f:metadata/f:labels", |k| k == AGENT_LABEL || k == MANAGED_BY.0) {
                return changed(&other.manager, Changed::Labels);
            }
        }
        let somebody = others.last().map_or("unknown", |m| m.manager.as_str());
        let owned = owner_references.len() == 1
            && owner_references.iter().any(|o| o.kind == "AgentIdentity" && o.uid.parse() == Ok(agent));
        if !owned {
            return changed(somebody, Changed::Owners);
        }
        if meta.labels.get(MANAGED_BY.0).map(String::as_str) != Some(MANAGED_BY.1)
            || !meta.labels.contains_key(AGENT_LABEL)
        {
            return changed(somebody, Changed::Labels);
        }
        // Without one of them a Secret would never renew, or outlive its key.
        let needed = [
            annotation::PLAN,
            annotation::TOKENS,
            annotation::KEY_IDS,
            annotation::RENEW_AT,
            annotation::EXPIRES_AT,
        ];
        if needed.iter().any(|name| !annotations.contains_key(*name)) {
            return changed(somebody, Changed::Annotations);
        }
        let mut files: Vec<&str> = mine
            .iter()
            .filter_map(|m| m.fields["f:data"].as_object())
            .flat_map(|m| m.keys())
            .filter_map(|k| k.strip_prefix("f:"))
            .collect();
        files.sort_unstable();
        files.dedup();
        let mut wanted: Vec<&str> = tokens.iter().map(|(f, _)| &**f).chain([DOCUMENT_KEY]).collect();
        wanted.sort_unstable();
        if files == wanted { None } else { changed(somebody, Changed::Data) }
    }
}

/// The annotation of the leader's Lease that says how far the open status list has come: a [`Mark`].
pub const STATUS_LIST_ANNOTATION: &str = "agentid.dev/status-list";

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireMark {
    list: String,
    mark: u32,
    resource_version: String,
}

/// A mark as the annotation says it.
#[must_use]
pub fn write_mark(mark: &Mark) -> String {
    let wire =
        WireMark { list: mark.list.to_string(), mark: mark.mark, resource_version: mark.version.to_string() };
    // Two texts and a number always serialise.
    serde_json::to_string(&wire).unwrap_or_default()
}

fn read_mark(text: &str) -> Option<Mark> {
    let wire: WireMark = serde_json::from_str(text).ok()?;
    Some(Mark {
        list: wire.list.parse().ok()?,
        mark: wire.mark,
        version: wire.resource_version.parse().ok()?,
    })
}

/// A trust ConfigMap, whole.
#[derive(Debug, Deserialize)]
pub struct WireTrust {
    metadata: WireMeta,
    #[serde(default)]
    data: BTreeMap<String, String>,
    #[serde(default, rename = "binaryData")]
    binary_data: BTreeMap<String, String>,
    #[serde(default)]
    immutable: bool,
}

/// Digest of a trust ConfigMap's data.
#[must_use]
pub fn trust_digest(data: &BTreeMap<String, String>) -> Digest {
    let mut h = Hasher::new("trust v1");
    for (key, value) in data {
        h.part(key.as_bytes()).part(value.as_bytes());
    }
    h.finish()
}

impl Wire for WireTrust {
    fn object(self, _: &Source) -> Result<Object, Unfit> {
        let ours = self.metadata.labels.get(MANAGED_BY.0).map(String::as_str) == Some(MANAGED_BY.1);
        // Whatever else it holds makes it differ from what is wanted.
        let digest = if self.binary_data.is_empty() && !self.immutable {
            trust_digest(&self.data)
        } else {
            Digest::default()
        };
        Ok(Object::Trust(Box::new(Trust { meta: self.metadata.meta()?, ours, digest })))
    }
}

#[cfg(test)]
mod tests;

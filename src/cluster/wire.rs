//! Objects on the wire, read as far as decisions need them, and what they say of themselves.
//!
//! Invariant: Secret data is never read; who else wrote a Secret of ours is told from its managedFields, which
//! are dropped at once.

mod bound;
mod custom;
mod mark;
mod rbac;
mod secret;
mod trust;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::domain::{Controller, Key, Meta, Object, Source, Unfit, kind_name};

pub use self::bound::{WireObject, WireWorkload};
pub use self::custom::{WireAgent, WireBlueprint, WireCustom, WireGrant, WirePolicy, WireResource};
pub use self::mark::{STATUS_LIST_ANNOTATION, write_mark};
pub use self::rbac::{WireBinding, WireClusterRole};
pub use self::secret::WireSecret;
pub use self::trust::{WireTrust, trust_digest};

/// The field manager of every write of ours.
pub const FIELD_MANAGER: &str = "agentid";

/// An object of a watch.
pub trait Wire: DeserializeOwned + Send + 'static {
    /// Namespace, name and UID: which it is, also where it can't be understood.
    fn which(&self) -> [&str; 3];

    /// What the world takes in.
    ///
    /// # Errors
    /// [`Unfit`] for an object that can't be understood; it harms itself alone.
    fn object(self, source: &Source) -> Result<Object, Unfit>;
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
    fn which(&self) -> [&str; 3] {
        [&self.namespace, &self.name, &self.uid]
    }

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

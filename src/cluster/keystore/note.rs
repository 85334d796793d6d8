//! The generation of the key ring, noted on the leader's Lease: it lives apart from the Secret, so a Secret
//! that was restored from an old backup is told from the one that signed last.
//!
//! Invariant: the note only grows.

use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::super::client::{CallError, Class, timed};

/// The annotation of the Lease.
pub const GENERATION_ANNOTATION: &str = "agentid.dev/keyring-generation";

/// The note on one Lease.
#[derive(Clone)]
pub struct LeaseNote {
    api: Api<Lease>,
    name: String,
}

impl std::fmt::Debug for LeaseNote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeaseNote").field("name", &self.name).finish_non_exhaustive()
    }
}

impl LeaseNote {
    /// The note on the Lease of this name.
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), name: name.to_owned() }
    }

    /// The generation noted, 0 where there is none; an unreadable note is an error, not 0.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn read(&self) -> Result<u64, CallError> {
        Ok(self.get().await?.1)
    }

    async fn get(&self) -> Result<(Option<String>, u64), CallError> {
        let Some(lease) = timed(self.api.get_metadata_opt(&self.name)).await? else { return Ok((None, 0)) };
        let noted = lease.metadata.annotations.unwrap_or_default().remove(GENERATION_ANNOTATION);
        let noted = match noted {
            None => 0,
            Some(text) => text.parse().map_err(|_| {
                let message =
                    format!("the annotation {GENERATION_ANNOTATION} of the Lease {} is no number", self.name);
                CallError::new(Class::Invalid, message)
            })?,
        };
        Ok((lease.metadata.resource_version, noted))
    }

    /// Notes a generation, unless a higher one is noted.
    ///
    /// # Errors
    /// [`CallError`]; [`Class::NotFound`] where there is no Lease, [`Class::Conflict`] where it was written
    /// meanwhile (try again).
    pub async fn raise(&self, generation: u64) -> Result<(), CallError> {
        let (version, noted) = self.get().await?;
        let Some(version) = version else {
            return Err(CallError::new(Class::NotFound, format!("no Lease {}", self.name)));
        };
        if noted >= generation {
            return Ok(());
        }
        let patch = json!({"metadata": {
            "resourceVersion": version,
            "annotations": {GENERATION_ANNOTATION: generation.to_string()},
        }});
        let params = PatchParams { field_manager: Some("agentid".to_owned()), ..PatchParams::default() };
        timed(self.api.patch_metadata(&self.name, &params, &Patch::Merge(&patch))).await.map(drop)
    }
}

//! Secrets of our type on the wire: what they say of themselves, and who else wrote them.
//!
//! Invariant: Secret data is never read; what others wrote is told from managedFields, which are dropped at once.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::{FIELD_MANAGER, Wire, WireMeta};
use crate::api::{AGENT_LABEL, DOCUMENT_KEY, MANAGED_BY, annotation};
use crate::domain::{Changed, Credentials, Digest, Drift, Object, Source, Uid, Unfit};

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
struct Managed {
    #[serde(default)]
    manager: String,
    #[serde(default, rename = "fieldsV1")]
    fields: Value,
}

impl Wire for WireSecret {
    fn which(&self) -> [&str; 3] {
        self.metadata.meta.which()
    }

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

#[cfg(test)]
mod tests;

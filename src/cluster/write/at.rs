//! Which object a write means, and what of it must not have changed.

use serde_json::{Value, json};

use super::add;
use crate::domain::{Meta, Uid};

/// What a write stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// The object, and no other of its name.
    pub uid: Uid,
    /// Its resourceVersion, for what must not be late.
    pub(super) version: Option<u64>,
}

impl At {
    /// The object as it was seen, and not as anybody has changed it since: for what gives, and for what can't be
    /// undone. A write that comes late is a `Conflict`.
    #[must_use]
    pub fn seen(meta: &Meta) -> Self {
        Self { uid: meta.uid, version: (meta.version > 0).then_some(meta.version) }
    }

    /// The object, whatever has become of it: for what takes, so that nobody holds a withdrawal off by editing.
    #[must_use]
    pub const fn any(uid: Uid) -> Self {
        Self { uid, version: None }
    }

    /// The operations with which a JSON Patch begins. A resourceVersion that is set, and not tested, is compared by the
    /// API server itself: it answers 409, and not 422 as for what it can't accept.
    pub(super) fn ops(self) -> Vec<Value> {
        let uid = json!({"op": "test", "path": "/metadata/uid", "value": self.uid.to_string()});
        let version = self.version.map(|v| add("/metadata/resourceVersion", json!(v.to_string())));
        [uid].into_iter().chain(version).collect()
    }

    /// The preconditions of a delete.
    pub(super) fn preconditions(self) -> Value {
        let mut all = json!({"uid": self.uid.to_string()});
        if let Some(version) = self.version {
            all["resourceVersion"] = json!(version.to_string());
        }
        all
    }
}

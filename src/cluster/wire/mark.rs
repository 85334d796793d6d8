//! How far the open status list has come, on the leader's Lease.
//!
//! Invariant: what was written is read as the same; what can't be read is no mark.

use serde::{Deserialize, Serialize};

use crate::domain::statuslist::Mark;

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

pub(super) fn read_mark(text: &str) -> Option<Mark> {
    let wire: WireMark = serde_json::from_str(text).ok()?;
    Some(Mark {
        list: wire.list.parse().ok()?,
        mark: wire.mark,
        version: wire.resource_version.parse().ok()?,
    })
}

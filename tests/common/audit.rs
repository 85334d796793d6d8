//! The API server's audit log: which writes were made, by whom, and with what result.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};

use serde::Deserialize;

use super::ControlPlane;

/// A finished write.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// `create`, `update`, `patch`, `delete` or `deletecollection`.
    pub verb: String,
    /// Path and query.
    #[serde(default, rename = "requestURI")]
    pub request_uri: String,
    /// Who.
    pub user: User,
    /// The client program, such as `agentid/0.1.0`.
    #[serde(default)]
    pub user_agent: String,
    /// Of what; absent for requests that are about no object.
    pub object_ref: Option<Object>,
    /// With what result.
    pub response_status: Option<Response>,
}

/// Who wrote.
#[derive(Clone, Debug, Deserialize)]
pub struct User {
    /// The name, such as `system:serviceaccount:agentid-system:agentid`.
    pub username: String,
}

/// What was written.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Object {
    /// Empty for the core group.
    #[serde(default)]
    pub api_group: String,
    /// The plural, such as `secrets`.
    #[serde(default)]
    pub resource: String,
    /// Such as `status`; empty for the object itself.
    #[serde(default)]
    pub subresource: String,
    /// Empty for objects of the cluster.
    #[serde(default)]
    pub namespace: String,
    /// Empty where the server made it up.
    #[serde(default)]
    pub name: String,
}

/// The result.
#[derive(Clone, Debug, Deserialize)]
pub struct Response {
    /// The HTTP status.
    pub code: u16,
}

impl Entry {
    /// Whether it succeeded.
    pub fn succeeded(&self) -> bool {
        self.response_status.as_ref().is_some_and(|r| (200..300).contains(&r.code))
    }

    /// Whether it is about `resource` (or `resource/subresource`).
    pub fn is_of(&self, resource: &str) -> bool {
        self.object_ref.as_ref().is_some_and(|o| match resource.split_once('/') {
            Some((resource, subresource)) => o.resource == resource && o.subresource == subresource,
            None => o.resource == resource && o.subresource.is_empty(),
        })
    }

    /// Whether it is in this namespace.
    pub fn is_in(&self, namespace: &str) -> bool {
        self.object_ref.as_ref().is_some_and(|o| o.namespace == namespace)
    }
}

/// A place in the audit log.
#[derive(Clone, Copy, Debug)]
pub struct Mark(u64);

/// The log's end now. A request that was answered before is before it: the server writes first.
///
/// # Panics
/// Without an audit log: on a cluster that the tests did not start.
pub fn mark(control_plane: &ControlPlane) -> Mark {
    Mark(open(control_plane).metadata().unwrap().len())
}

/// The writes since then that the filter lets pass.
pub fn since(control_plane: &ControlPlane, mark: Mark, filter: impl Fn(&Entry) -> bool) -> Vec<Entry> {
    let mut log = open(control_plane);
    log.seek(SeekFrom::Start(mark.0)).unwrap();
    let lines = BufReader::new(log).split(b'\n').map(|line| serde_json::from_slice(&line.unwrap()));
    // The last line may be half written.
    lines.map_while(Result::ok).filter(|entry: &Entry| filter(entry)).collect()
}

/// How many writes since then the filter lets pass.
pub fn count(control_plane: &ControlPlane, mark: Mark, filter: impl Fn(&Entry) -> bool) -> usize {
    since(control_plane, mark, filter).len()
}

fn open(control_plane: &ControlPlane) -> File {
    let path = control_plane.audit_log.as_ref().expect("no audit log on this cluster");
    File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

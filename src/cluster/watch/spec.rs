//! What to watch.
//!
//! Invariant: only what a server can select is a selector: nothing is dropped after it has come.

/// What to watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchSpec {
    /// `/apis/agentid.dev/v1alpha1/agentidentities`, `/api/v1/namespaces/team-a/secrets`, …
    pub path: String,
    /// As in a list's `fieldSelector`.
    pub field_selector: Option<String>,
    /// As in a list's `labelSelector`.
    pub label_selector: Option<String>,
    /// Whether to ask for `metadata` alone (PartialObjectMetadata).
    pub metadata_only: bool,
    /// Objects per page of a list.
    pub page_size: u32,
    /// After how many seconds the server ends a watch, at most; shortened at random by up to an eighth, so
    /// that many sources don't ask again in step.
    pub timeout_seconds: u32,
}

impl WatchSpec {
    /// Everything under `path`: whole objects, pages of 500, watches of 25 s.
    #[must_use]
    pub fn new(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            field_selector: None,
            label_selector: None,
            metadata_only: false,
            page_size: 500,
            timeout_seconds: 25,
        }
    }

    /// Only objects whose fields match.
    #[must_use]
    pub fn fields(mut self, selector: impl Into<String>) -> Self {
        self.field_selector = Some(selector.into());
        self
    }

    /// Only objects whose labels match. An object that ceases to match arrives as
    /// [`Signal::Delete`](super::Signal::Delete).
    #[must_use]
    pub fn labels(mut self, selector: impl Into<String>) -> Self {
        self.label_selector = Some(selector.into());
        self
    }

    /// `metadata` alone.
    #[must_use]
    pub const fn metadata_only(mut self) -> Self {
        self.metadata_only = true;
        self
    }
}

//! The names under which a Secret's annotations carry what a restart needs, so that the hot path never reads
//! Secret data.

/// The UID of the agent that the Secret was written for.
pub const AGENT_UID: &str = "agentid.dev/agent-uid";
/// Digest of the plan.
pub const PLAN: &str = "agentid.dev/plan";
/// `file=digest`, comma-separated: the tokens and what each says.
pub const TOKENS: &str = "agentid.dev/tokens";
/// Ids of the keys that signed, comma-separated.
pub const KEY_IDS: &str = "agentid.dev/key-ids";
/// When it is to be renewed (RFC 3339); empty where nothing renews.
pub const RENEW_AT: &str = "agentid.dev/renew-at";
/// When the first token expires (RFC 3339); empty where there is none.
pub const EXPIRES_AT: &str = "agentid.dev/expires-at";
/// The rotation that its tokens were minted for or after: what [`ROTATE_ANNOTATION`](super::ROTATE_ANNOTATION) said on the agent
/// then. Absent where none was asked for.
pub const ROTATED: &str = "agentid.dev/rotated";

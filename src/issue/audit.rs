//! The record: one JSON line for every mint and every refusal, on standard output (logs go to standard error).
//!
//! Invariant: a line never carries a token, an assertion or a key; what came from outside is shortened.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::api::{Reason, TokenProfile};
use crate::domain::{Entitlement, StatusRef};

/// The `kind` of every line: by it audit lines are told from other output.
pub const AUDIT_KIND: &str = "agentid.dev/audit";
/// How every line of ours begins.
const OPENING: &str = r#"{"kind":"agentid.dev/audit""#;
/// Where log shippers put the line that they carry.
const WRAPPERS: [&str; 3] = ["log", "message", "msg"];
/// Lines that may wait for a slow reader; then those who mint wait too, since no mint goes unrecorded.
const QUEUE: usize = 8192;
/// How long lines are gathered before they are written together.
const GATHER: Duration = Duration::from_millis(2);
/// Lines that are recorded and not written yet.
static WAITING: AtomicUsize = AtomicUsize::new(0);
/// The longest text from outside, in characters.
const LONGEST: usize = 512;

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// A token was minted.
    #[default]
    Mint,
    /// One was asked for and refused.
    Refuse,
}

/// One line. Members are only ever added; absent ones do not apply.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuditLine {
    /// [`AUDIT_KIND`].
    pub kind: String,
    /// When (RFC 3339).
    pub time: Option<Timestamp>,
    /// What was done.
    pub action: Action,
    /// Of the closed set of reasons.
    pub reason: String,
    /// Always `ai_agent`.
    pub actor_type: String,
    /// The agent's id; absent where the caller is nobody that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    /// The agent's namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The agent's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The agent's blueprint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blueprint: Option<String>,
    /// The pod that asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// That pod's UID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// The service account that asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
    /// In whose name: the user (issuer's prefix and subject), the agent's own user (its name) or, on a laptop, the human
    /// that ran the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<String>,
    /// `autonomous`, `delegated`, `agent_user`, or `identity`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// The AgentResource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// The `aud`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// The AgentGrant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant: Option<String>,
    /// The roles.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// The scopes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// The token's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// The key that signed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// When it expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// The status list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_list: Option<String>,
    /// The index in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_index: Option<u32>,
    /// Where it was asked for: `secret` or an endpoint's path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The address that asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The OAuth error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl AuditLine {
    /// A line of this moment.
    #[must_use]
    pub fn new(action: Action, reason: Reason, now: Timestamp) -> Self {
        Self {
            kind: AUDIT_KIND.to_owned(),
            time: Some(now),
            action,
            reason: reason.as_str().to_owned(),
            actor_type: "ai_agent".to_owned(),
            ..Self::default()
        }
    }

    /// With the entry of a status list.
    pub fn at(&mut self, at: StatusRef) {
        self.status_list = Some(at.list.to_string());
        self.status_index = Some(at.index);
    }

    /// With what a token says.
    pub fn says(&mut self, entitlement: &Entitlement) {
        let texts = |names: &[Arc<str>]| names.iter().map(ToString::to_string).collect();
        self.mode = Some(match (entitlement.profile, entitlement.mode) {
            (TokenProfile::Identity, _) => "identity".to_owned(),
            (TokenProfile::Access, mode) => mode.as_str().to_owned(),
        });
        self.audience = Some(entitlement.audience.to_string());
        self.roles = texts(&entitlement.roles);
        self.scopes = texts(&entitlement.scopes);
        if let Some(username) = &entitlement.username {
            self.on_behalf_of = Some(username.to_string());
        }
    }

    /// The line, with its end.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8(self.bytes()).unwrap_or_default()
    }

    fn bytes(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(1024);
        // A struct of texts and numbers always serialises.
        let _ = serde_json::to_writer(&mut text, self);
        text.push(b'\n');
        text
    }

    /// Reads a line; `None` for whatever is none. A log shipper may have put something before it (with braces, too),
    /// or the whole line into a member of an object of its own.
    #[must_use]
    pub fn read(line: &str) -> Option<Self> {
        // Most lines of a stream are others', and are not parsed.
        if !line.contains(AUDIT_KIND) {
            return None;
        }
        let first = line.get(line.find('{')?..)?;
        Self::whole(first)
            .or_else(|| Self::whole(line.get(line.find(OPENING)?..)?))
            .or_else(|| Self::wrapped(first))
    }

    fn whole(text: &str) -> Option<Self> {
        let line: Self = serde_json::from_str(text).ok()?;
        (line.kind == AUDIT_KIND).then_some(line)
    }

    /// As Docker's json-file and most shippers wrap lines. Of a text that merely contains a line nothing is taken: it
    /// is somebody's message.
    fn wrapped(text: &str) -> Option<Self> {
        let outer: Map<String, Value> = serde_json::from_str(text).ok()?;
        WRAPPERS.iter().find_map(|member| match outer.get(*member)? {
            Value::String(inner) if inner.starts_with(OPENING) => Self::whole(inner),
            inner @ Value::Object(_) => Self::deserialize(inner).ok().filter(|line| line.kind == AUDIT_KIND),
            _ => None,
        })
    }
}

/// Text from outside, shortened.
#[must_use]
pub fn shortened(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

/// Where lines go.
#[derive(Clone)]
pub struct Audit(Arc<dyn Fn(AuditLine) + Send + Sync>);

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Audit")
    }
}

impl Audit {
    /// To standard output, by a thread of its own.
    #[must_use]
    pub fn stdout() -> Self {
        static LINES: OnceLock<SyncSender<Vec<u8>>> = OnceLock::new();
        let lines = LINES.get_or_init(|| {
            let (sender, lines) = sync_channel::<Vec<u8>>(QUEUE);
            std::thread::spawn(move || {
                let mut text = Vec::with_capacity(64 << 10);
                while let Ok(line) = lines.recv() {
                    text.extend_from_slice(&line);
                    let mut count = 1;
                    // Who records while this thread sleeps needs not wake it.
                    std::thread::sleep(GATHER);
                    while count < QUEUE
                        && let Ok(more) = lines.try_recv()
                    {
                        text.extend_from_slice(&more);
                        count += 1;
                    }
                    let mut out = std::io::stdout().lock();
                    // Nobody reads any more: the log says so once, and minting goes on.
                    if out.write_all(&text).and_then(|()| out.flush()).is_err() {
                        tracing::error!("audit lines can't be written to standard output");
                        break;
                    }
                    text.clear();
                    WAITING.fetch_sub(count, Ordering::AcqRel);
                }
            });
            sender
        });
        Self(Arc::new(|line| {
            WAITING.fetch_add(1, Ordering::AcqRel);
            if lines.send(line.bytes()).is_err() {
                WAITING.fetch_sub(1, Ordering::AcqRel);
            }
        }))
    }

    /// To a function.
    #[must_use]
    pub fn to(sink: impl Fn(AuditLine) + Send + Sync + 'static) -> Self {
        Self(Arc::new(sink))
    }

    /// Waits until what was recorded is written, for a bounded time: at the end of a process.
    pub async fn flush(&self) {
        for _ in 0..100 {
            if WAITING.load(Ordering::Acquire) == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Records a line.
    pub fn record(&self, line: AuditLine) {
        (self.0)(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_back_from_a_stream_of_others() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let mut line = AuditLine::new(Action::Refuse, Reason::ScopeNotAllowed, now);
        line.at(StatusRef { list: crate::domain::ListId(5), index: 9 });
        line.scopes = vec!["a".to_owned()];
        let text = line.text();
        assert!(text.ends_with("}\n") && text.lines().count() == 1);
        assert!(!text.contains("null"), "{text}");
        // As a log shipper may write it.
        let text = text.trim();
        assert!(text.starts_with(OPENING), "{text}");
        let wrapped = |member: &str, value: Value| serde_json::json!({"a": 1, member: value}).to_string();
        for carried in [
            text.to_owned(),
            format!("2027-01-01T00:00:00Z stdout F {text}\r\n"),
            format!("[pod/agentid-serve-x/agentid] {text}"),
            format!("{{app=\"agentid\"}} {text}"),
            wrapped("log", Value::String(format!("{text}\n"))),
            wrapped("message", serde_json::from_str(text).unwrap()),
        ] {
            assert_eq!(AuditLine::read(&carried), Some(line.clone()), "{carried}");
        }
        for other in [
            String::new(),
            "{}".to_owned(),
            "{\"kind\":\"x\"}".to_owned(),
            "not json, agentid.dev/audit".to_owned(),
            "{\"kind\":\"agentid.dev/audit\"".to_owned(),
            // Cut short, and what others quote.
            text[..text.len() - 1].to_owned(),
            wrapped("log", Value::String(format!("he said: {text}"))),
            wrapped("other", Value::String(text.to_owned())),
            format!("WARN refused: {text:?}"),
        ] {
            assert_eq!(AuditLine::read(&other), None, "{other}");
        }
    }
}

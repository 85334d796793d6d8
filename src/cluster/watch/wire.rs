//! How lists and watches look on the wire: the request's address, a page, an event. Pure.
//!
//! Invariant: an object that doesn't parse never costs its neighbours anything.

use std::fmt::Write as _;

use kube::core::Status;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::{Signal, Unreadable, WatchSpec};
use crate::cluster::client::{CallError, Class, shape_error};

const LIST_METADATA: &str =
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
const WATCH_METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";

/// Path and query of one page.
pub(super) fn list_uri(spec: &WatchSpec, token: Option<&str>) -> String {
    let mut query = Query::of(spec);
    query.add("limit", &spec.page_size.to_string());
    if let Some(token) = token {
        query.add("continue", token);
    }
    query.0
}

/// Path and query of a watch from `revision` on, for `seconds`.
pub(super) fn watch_uri(spec: &WatchSpec, revision: &str, seconds: u32) -> String {
    let mut query = Query::of(spec);
    query.add("watch", "true");
    query.add("allowWatchBookmarks", "true");
    query.add("resourceVersion", revision);
    query.add("timeoutSeconds", &seconds.to_string());
    query.0
}

/// The `Accept` header. A kind that can't be shown as metadata is taken whole: `T` reads what it needs.
pub(super) const fn accept(spec: &WatchSpec, watch: bool) -> &'static str {
    match (spec.metadata_only, watch) {
        (false, _) => "application/json",
        (true, false) => LIST_METADATA,
        (true, true) => WATCH_METADATA,
    }
}

struct Query(String);

impl Query {
    fn of(spec: &WatchSpec) -> Self {
        let mut query = Self(spec.path.clone());
        for (name, value) in
            [("fieldSelector", &spec.field_selector), ("labelSelector", &spec.label_selector)]
        {
            if let Some(value) = value {
                query.add(name, value);
            }
        }
        query
    }

    fn add(&mut self, name: &str, value: &str) {
        self.0.push(if self.0.contains('?') { '&' } else { '?' });
        self.0.push_str(name);
        self.0.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    self.0.push(byte.into())
                }
                // Writing to a String can't fail.
                _ => drop(write!(self.0, "%{byte:02X}")),
            }
        }
    }
}

/// One page of a list.
pub(super) struct Page<T> {
    pub(super) items: Vec<T>,
    pub(super) unreadable: Vec<Unreadable>,
    pub(super) revision: String,
    pub(super) token: Option<String>,
}

#[derive(Deserialize)]
struct RawList<'a> {
    #[serde(default)]
    metadata: RawListMeta,
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct RawListMeta {
    #[serde(default)]
    resource_version: String,
    #[serde(default, rename = "continue")]
    token: String,
}

pub(super) fn read_page<T: DeserializeOwned>(body: &[u8]) -> Result<Page<T>, CallError> {
    let list: RawList<'_> = serde_json::from_slice(body).map_err(|e| foreign(&e))?;
    let RawListMeta { resource_version: revision, token } = list.metadata;
    if revision.is_empty() {
        return Err(CallError::new(Class::Server, "a list without a resourceVersion"));
    }
    let raw = list.items.unwrap_or_default();
    let mut page = Page {
        items: Vec::with_capacity(raw.len()),
        unreadable: Vec::new(),
        revision,
        token: Some(token).filter(|t| !t.is_empty()),
    };
    for item in raw {
        match read(item, false) {
            Ok(item) => page.items.push(item),
            Err(unreadable) => page.unreadable.push(unreadable),
        }
    }
    Ok(page)
}

/// What a line of a watch says.
#[derive(Debug)]
pub(super) enum Line<T> {
    /// An object, and the revision to go on from.
    Object(Signal<T>, Option<String>),
    /// Nothing new up to this revision.
    Bookmark(Option<String>),
    /// The watch is over.
    Error(CallError),
}

#[derive(Deserialize)]
struct RawEvent<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow)]
    object: &'a RawValue,
}

pub(super) fn read_line<T: DeserializeOwned>(line: &[u8]) -> Result<Line<T>, CallError> {
    let event: RawEvent<'_> = serde_json::from_slice(line).map_err(|e| foreign(&e))?;
    let revision = || head(event.object).resource_version.filter(|r| !r.is_empty());
    let signal = match event.kind.as_str() {
        "ADDED" | "MODIFIED" => read(event.object, false).map(Signal::Apply),
        "DELETED" => read(event.object, true).map(Signal::Delete),
        "BOOKMARK" => return Ok(Line::Bookmark(revision())),
        "ERROR" => {
            let status = serde_json::from_str::<Status>(event.object.get()).map_err(|e| foreign(&e))?;
            return Ok(Line::Error(CallError::from_status(&status)));
        }
        _ => return Err(CallError::new(Class::Server, "a watch event of an unknown type")),
    };
    Ok(Line::Object(signal.unwrap_or_else(Signal::Unreadable), revision()))
}

fn foreign(error: &serde_json::Error) -> CallError {
    CallError::new(Class::Server, format!("not what a list or watch answers: {}", shape_error(error)))
}

fn read<T: DeserializeOwned>(raw: &RawValue, deleted: bool) -> Result<T, Unreadable> {
    serde_json::from_str(raw.get()).map_err(|e| {
        let head = head(raw);
        Unreadable {
            namespace: head.namespace,
            name: head.name.unwrap_or_default(),
            uid: head.uid.unwrap_or_default(),
            deleted,
            error: format!("{}: {}", field(raw.get(), &e), shape_error(&e)),
        }
    })
}

/// The path of the field at which reading ended, such as `spec.suspend`: the parser tells but its column.
fn field(json: &str, error: &serde_json::Error) -> String {
    enum Level {
        Object(String),
        Array(usize),
    }
    let lines = json.split_inclusive('\n').take(error.line().saturating_sub(1));
    let end = lines.map(str::len).sum::<usize>() + error.column();
    let (mut levels, mut text, mut in_text, mut escaped) = (Vec::new(), String::new(), false, false);
    for c in json.bytes().take(end) {
        match c {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => {
                in_text = !in_text;
                if in_text {
                    text.clear();
                }
            }
            _ if in_text => text.push(char::from(c)),
            b'{' => levels.push(Level::Object(String::new())),
            b'[' => levels.push(Level::Array(0)),
            b'}' | b']' => {
                levels.pop();
            }
            b':' => {
                if let Some(Level::Object(key)) = levels.last_mut() {
                    key.clone_from(&text);
                }
            }
            b',' => {
                if let Some(Level::Array(index)) = levels.last_mut() {
                    *index += 1;
                }
            }
            _ => {}
        }
    }
    let mut path = String::new();
    for level in &levels {
        match level {
            Level::Object(key) if path.is_empty() => path.push_str(key),
            Level::Object(key) => path.push_str(&format!(".{key}")),
            Level::Array(index) => path.push_str(&format!("[{index}]")),
        }
    }
    path
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Head {
    namespace: Option<String>,
    name: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
}

/// The part of the metadata that the API server itself vouches for.
fn head(raw: &RawValue) -> Head {
    #[derive(Deserialize)]
    struct Object {
        metadata: Head,
    }
    serde_json::from_str::<Object>(raw.get()).map(|o| o.metadata).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize, Debug, PartialEq)]
    struct Thing {
        n: u32,
    }

    fn spec() -> WatchSpec {
        WatchSpec::new("/apis/agentid.dev/v1alpha1/agentidentities")
    }

    #[test]
    fn addresses() {
        let spec = spec().fields("status.phase!=Failed").labels("a in (b,c)");
        let base = "/apis/agentid.dev/v1alpha1/agentidentities?fieldSelector=status.phase%21%3DFailed\
                    &labelSelector=a%20in%20%28b%2Cc%29";
        assert_eq!(list_uri(&spec, None), format!("{base}&limit=500"));
        assert_eq!(list_uri(&spec, Some("a+/=")), format!("{base}&limit=500&continue=a%2B%2F%3D"));
        assert_eq!(
            watch_uri(&spec, "7", 24),
            format!("{base}&watch=true&allowWatchBookmarks=true&resourceVersion=7&timeoutSeconds=24")
        );
    }

    #[test]
    fn metadata_is_asked_for_by_its_two_names() {
        assert_eq!(accept(&spec(), false), "application/json");
        assert!(accept(&spec().metadata_only(), false).contains("as=PartialObjectMetadataList;"));
        assert!(accept(&spec().metadata_only(), true).contains("as=PartialObjectMetadata;"));
    }

    #[test]
    fn what_can_not_be_read_is_named() {
        #[derive(Deserialize, Debug)]
        struct Outer {
            #[serde(rename = "spec")]
            _spec: Vec<Thing>,
        }
        for (json, path) in [
            (r#"{"a\":{": "x,[", "spec": [{"n": 1}, {"n": "2"}], "z": 1}"#, "spec[1].n"),
            ("{\"a\": {},\n \"spec\": [{\"n\": 1},\n {}]}", "spec[1]"),
            (r#"{"spec": true}"#, "spec"),
        ] {
            assert_eq!(field(json, &serde_json::from_str::<Outer>(json).unwrap_err()), path, "{json}");
        }
    }

    #[test]
    fn a_page_keeps_what_it_can_read() {
        let body = br#"{"metadata":{"resourceVersion":"9","continue":"next"},"items":[
            {"n":1},{"n":"hunter2","metadata":{"namespace":"x","name":"y","uid":"z"}},{"n":3}]}"#;
        let page = read_page::<Thing>(body).unwrap();
        assert_eq!(page.items, [Thing { n: 1 }, Thing { n: 3 }]);
        assert_eq!((page.revision.as_str(), page.token.as_deref()), ("9", Some("next")));
        let bad = &page.unreadable[0];
        assert_eq!(
            (bad.namespace.as_deref(), bad.name.as_str(), bad.uid.as_str(), bad.deleted),
            (Some("x"), "y", "z", false)
        );
        assert!(bad.error.contains("expected u32") && !bad.error.contains("hunter2"), "{}", bad.error);
    }

    #[test]
    fn an_empty_list_and_foreign_answers() {
        let page = read_page::<Thing>(br#"{"metadata":{"resourceVersion":"9"},"items":null}"#).unwrap();
        assert!(page.items.is_empty() && page.token.is_none());
        assert!(read_page::<Thing>(br#"{"metadata":{},"items":[]}"#).is_err());
        assert!(read_page::<Thing>(b"<html>").is_err());
    }

    #[test]
    fn lines() {
        let read = |text: &str| read_line::<Thing>(text.as_bytes());
        assert!(matches!(
            read(r#"{"type":"ADDED","object":{"n":1,"metadata":{"resourceVersion":"4"}}}"#),
            Ok(Line::Object(Signal::Apply(Thing { n: 1 }), Some(r))) if r == "4"
        ));
        assert!(matches!(
            read(r#"{"type":"DELETED","object":{"n":1}}"#),
            Ok(Line::Object(Signal::Delete(_), None))
        ));
        assert!(matches!(
            read(r#"{"type":"DELETED","object":{"metadata":{"name":"y","resourceVersion":"5"}}}"#),
            Ok(Line::Object(Signal::Unreadable(u), Some(r))) if u.deleted && u.name == "y" && r == "5"
        ));
        assert!(matches!(
            read(r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"6"}}}"#),
            Ok(Line::Bookmark(Some(r))) if r == "6"
        ));
        assert!(matches!(
            read(r#"{"type":"ERROR","object":{"code":410,"reason":"Expired","message":"too old"}}"#),
            Ok(Line::Error(e)) if e.class() == Class::Expired
        ));
        assert!(read(r#"{"type":"NEWS","object":{}}"#).is_err());
        assert!(read("{").is_err());
    }
}

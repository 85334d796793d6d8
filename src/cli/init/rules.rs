//! What may be typed: the rules of the schemas, before anything is sent.
//!
//! Invariant: what passes here passes the schema. The schema alone decides in the end.

use http::Uri;

use super::Labels;
use crate::cli::why::object_name;

/// What an agent lives and dies with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Workload {
    pub(super) api_version: &'static str,
    pub(super) kind: &'static str,
    pub(super) name: String,
}

/// Who answers for an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sponsor {
    pub(super) kind: &'static str,
    pub(super) name: String,
}

/// The kinds that agents may be bound to by default.
const KINDS: [(&str, &str); 6] = [
    ("apps/v1", "Deployment"),
    ("apps/v1", "StatefulSet"),
    ("apps/v1", "DaemonSet"),
    ("batch/v1", "Job"),
    ("batch/v1", "CronJob"),
    ("v1", "Pod"),
];

/// The name of an agent or a namespace.
pub(super) fn agent_name(text: &str) -> Result<String, String> {
    let name = object_name(text)?;
    if name.len() <= 63 { Ok(name) } else { Err("a name has at most 63 characters".to_owned()) }
}

/// The name of a service: with an agent's before it, it is a grant's.
pub(super) fn service(text: &str) -> Result<String, String> {
    let name = object_name(text)?;
    if name.len() <= 180 { Ok(name) } else { Err("a service's name has at most 180 characters".to_owned()) }
}

/// `Kind/name`.
pub(super) fn workload(text: &str) -> Result<Workload, String> {
    let wrong = || {
        let kinds: Vec<_> = KINDS.iter().map(|(_, kind)| *kind).collect();
        format!("write a kind and a name, such as Deployment/triage; the kinds are {}", kinds.join(", "))
    };
    let (kind, name) = text.split_once('/').ok_or_else(wrong)?;
    let found = KINDS.iter().find(|(_, k)| k.eq_ignore_ascii_case(kind)).ok_or_else(wrong)?;
    Ok(Workload { api_version: found.0, kind: found.1, name: object_name(name)? })
}

/// `name`, `User:name` or `Group:name`.
pub(super) fn sponsor(text: &str) -> Result<Sponsor, String> {
    let (kind, name) = match text.split_once(':') {
        Some(("User", name)) => ("User", name),
        Some(("Group", name)) => ("Group", name),
        _ => ("User", text),
    };
    let one_line = !name.is_empty() && name.trim() == name && !name.chars().any(char::is_control);
    if !one_line || name.chars().count() > 256 {
        return Err("a sponsor is one line of at most 256 characters, such as ann@example.com".to_owned());
    }
    Ok(Sponsor { kind, name: name.to_owned() })
}

/// `label=value`, one or more.
pub(super) fn labels(text: &str) -> Result<Labels, String> {
    text.split(',').map(|term| label(term.trim())).collect()
}

fn label(term: &str) -> Result<(String, String), String> {
    let ends = |s: &str| {
        let end = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        end(s.bytes().next()) && end(s.bytes().last())
    };
    let name = |s: &str| {
        s.len() <= 63 && ends(s) && s.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c))
    };
    let key = |s: &str| match s.split_once('/') {
        Some((prefix, rest)) => object_name(prefix).is_ok() && name(rest),
        None => name(s),
    };
    match term.split_once('=') {
        Some((k, v)) if key(k) && (v.is_empty() || name(v)) => Ok((k.to_owned(), v.to_owned())),
        _ => Err("write labels with their values, such as app=bot,tier=back".to_owned()),
    }
}

/// A role or a scope (RFC 6749 §3.3).
pub(super) fn right(text: &str) -> Result<String, String> {
    let good = |c: u8| c.is_ascii_graphic() && c != b'"' && c != b'\\';
    if !text.is_empty() && text.len() <= 128 && text.bytes().all(good) {
        Ok(text.to_owned())
    } else {
        Err("a role or scope is printable ASCII without space, '\"' and '\\', such as tickets.read"
            .to_owned())
    }
}

/// The audience of access tokens: an absolute URI without fragment (RFC 8707 §2).
pub(super) fn audience(text: &str) -> Result<String, String> {
    let wrong =
        Err("an audience is an absolute URI, such as https://tickets.example.com or urn:example:tickets"
            .to_owned());
    let plain = text.bytes().all(|c| c.is_ascii_graphic() && c != b'#');
    if text.is_empty() || text.len() > 512 || !plain {
        return wrong;
    }
    if let Some((namespace, rest)) = text.strip_prefix("urn:").and_then(|urn| urn.split_once(':')) {
        let mut letters = namespace.bytes();
        let first = letters.next().is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        let good = letters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-');
        return if first && good && namespace.len() <= 32 && !rest.is_empty() {
            Ok(text.to_owned())
        } else {
            wrong
        };
    }
    let (scheme, _) = text.split_once("://").unwrap_or_default();
    let lower = !scheme.is_empty() && !scheme.bytes().any(|c| c.is_ascii_uppercase());
    let uri: Option<Uri> = text.parse().ok();
    let authority = uri.as_ref().and_then(Uri::authority).map(http::uri::Authority::as_str);
    let host = |a: &str| {
        let plain = |c: u8| c.is_ascii_alphanumeric() || b"._~-".contains(&c);
        let name = a.rsplit_once(':').map_or(a, |(host, _)| host);
        !a.contains('@') && (a.starts_with('[') || !name.is_empty() && name.bytes().all(plain))
    };
    if lower && authority.is_some_and(host) { Ok(text.to_owned()) } else { wrong }
}

/// agentid's own issuer: the configuration file's rule is held against it once more.
pub(super) fn issuer(text: &str) -> Result<String, String> {
    crate::api::Configuration::from_yaml(&configuration(text, &host(text)))
        .map(|_| text.to_owned())
        .map_err(|e| e.to_string())
}

/// A SPIFFE trust domain.
pub(super) fn trust_domain(text: &str) -> Result<String, String> {
    crate::api::Configuration::from_yaml(&configuration("https://agents.example.com", text))
        .map(|_| text.to_owned())
        .map_err(|e| e.to_string())
}

/// The host of a URL.
pub(super) fn host(url: &str) -> String {
    let uri: Option<Uri> = url.parse().ok();
    uri.and_then(|u| u.host().map(str::to_owned)).unwrap_or_default()
}

/// The least that a configuration file says.
pub(super) fn configuration(issuer: &str, trust_domain: &str) -> String {
    let text = |t: &str| serde_json::Value::from(t).to_string();
    format!(
        "apiVersion: config.agentid.dev/v1alpha1\nkind: Configuration\nissuer: {}\ntrustDomain: {}\n",
        text(issuer),
        text(trust_domain)
    )
}

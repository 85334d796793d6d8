//! `/verify/<resource>` for proxies, on a port of its own: nginx auth_request, Envoy ext_authz over HTTP, Traefik
//! forwardAuth.
//!
//! Invariants: 200 only for a token that stands for this very resource; every `X-Agent-*` header is set on it, so
//! that none of a client's own gets through, and two values that differ never look alike; refusals carry the challenge of
//! RFC 6750 §3.

use std::fmt::Write as _;

use http::{HeaderName, HeaderValue, StatusCode, header};
use jiff::Timestamp;
use serde_json::Value;

use super::fault::Fault;
use super::ours::{self, Ours};
use super::state::State;
use crate::api::Reason;
use crate::domain::presented::stands;
use crate::net::listen::{Request, Response, empty, text};

/// The headers of a verified request.
pub const AGENT_HEADERS: [&str; 12] = [
    "x-agent-id",
    "x-agent-namespace",
    "x-agent-name",
    "x-agent-blueprint",
    "x-agent-subject",
    "x-agent-username",
    "x-agent-issuer",
    "x-agent-mode",
    "x-agent-actor",
    "x-agent-scope",
    "x-agent-roles",
    "x-agent-jti",
];

/// What a proxy is answered.
enum Verdict {
    Stands(Box<Ours>, [String; 3]),
    /// No token was sent.
    Anonymous,
    Invalid(Reason, String),
    Insufficient(String),
}

/// Answers a proxy's question: `/verify/<resource>[/...]?scope=a+b&role=c`.
pub(super) fn answer(state: &State, request: &Request, now: Timestamp) -> Response {
    let rest = request.path.strip_prefix("/verify/").unwrap_or_default();
    let resource = rest.split('/').next().unwrap_or_default();
    match verdict(state, request, resource, now) {
        Ok((verdict, audience)) => {
            state.metrics.verified(matches!(verdict, Verdict::Stands(..)));
            respond(state, verdict, &audience)
        }
        Err(Some(fault)) => {
            state.metrics.refused(fault.reason);
            fault.response()
        }
        Err(None) => text(StatusCode::NOT_FOUND, "no such AgentResource\n"),
    }
}

fn verdict(
    state: &State,
    request: &Request,
    resource: &str,
    now: Timestamp,
) -> Result<(Verdict, String), Option<Fault>> {
    let ring = state.ring().map_err(Some)?;
    let world = state.fresh_world(now).map_err(Some)?;
    let resource = world.resource(&resource.into()).filter(|r| !r.meta.deleting).ok_or(None)?;
    let audience = resource.audience.to_string();
    let says = |verdict| Ok((verdict, audience.clone()));
    let mut sent = request.headers.get_all(header::AUTHORIZATION).iter();
    let token = match (sent.next().map(|v| v.to_str().unwrap_or_default()), sent.next()) {
        (None, _) => return says(Verdict::Anonymous),
        (Some(one), None) => one,
        (Some(_), Some(_)) => return says(Verdict::Invalid(Reason::Invalid, "two credentials".to_owned())),
    };
    let bearer = token.get(..7).is_some_and(|s| s.eq_ignore_ascii_case("bearer "));
    let Some(token) = token.get(7..).filter(|_| bearer) else { return says(Verdict::Anonymous) };
    let token = match ours::verify(&ring, &state.config, token.trim(), now) {
        Ok(token) => token,
        Err(e) => return says(Verdict::Invalid(Reason::CredentialRejected, e.to_string())),
    };
    if token.presented.audience != audience {
        return says(Verdict::Invalid(Reason::CredentialRejected, "it is for another resource".to_owned()));
    }
    let agent = match stands(&world, &token.presented, now) {
        Ok(agent) => agent,
        Err(r) if r.reason == Reason::Unknown => return Err(Some(Fault::unknown(&r.message))),
        Err(r) => return says(Verdict::Invalid(r.reason, r.message)),
    };
    let query = request.query.as_deref().unwrap_or_default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let held = match &*name {
            "scope" => &token.presented.scopes,
            "role" => &token.presented.roles,
            _ => continue,
        };
        if let Some(missing) = value.split(' ').find(|v| !v.is_empty() && !held.iter().any(|h| h == v)) {
            return says(Verdict::Insufficient(missing.to_owned()));
        }
    }
    let id = crate::domain::status::agent_id(&state.config.trust_domain, agent.meta.uid);
    let names = [id, agent.meta.key.namespace.to_string(), agent.meta.key.name.to_string()];
    says(Verdict::Stands(Box::new(token), names))
}

fn respond(state: &State, verdict: Verdict, audience: &str) -> Response {
    let challenge = |status, parts: &str| {
        let mut response = empty(status);
        let value = format!("Bearer realm=\"{}\"{parts}", quotable(audience));
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
        }
        response
    };
    match verdict {
        Verdict::Stands(token, names) => {
            let mut response = empty(StatusCode::OK);
            for (name, value) in AGENT_HEADERS.into_iter().zip(values(&token, names, &state.config.issuer)) {
                let Ok(value) = HeaderValue::from_str(&value) else {
                    return empty(StatusCode::INTERNAL_SERVER_ERROR);
                };
                response.headers_mut().insert(HeaderName::from_static(name), value);
            }
            response
        }
        // No error member where no credentials were sent (RFC 6750 §3.1).
        Verdict::Anonymous => challenge(StatusCode::UNAUTHORIZED, ""),
        Verdict::Invalid(reason, why) => {
            state.metrics.refused(reason);
            let why = quotable(&why);
            challenge(
                StatusCode::UNAUTHORIZED,
                &format!(", error=\"invalid_token\", error_description=\"{reason}: {why}\""),
            )
        }
        Verdict::Insufficient(missing) => challenge(
            StatusCode::FORBIDDEN,
            &format!(", error=\"insufficient_scope\", scope=\"{}\"", quotable(&missing)),
        ),
    }
}

fn values(token: &Ours, [id, namespace, name]: [String; 3], issuer: &str) -> [String; 12] {
    let claim =
        |name: &str| token.claims.get(name).and_then(Value::as_str).map(str::to_owned).unwrap_or_default();
    let own = |name: &str| {
        let own = token.claims.get("agentid.dev").and_then(|o| o.get(name));
        own.and_then(Value::as_str).map(str::to_owned).unwrap_or_default()
    };
    [
        id,
        namespace,
        name,
        own("blueprint"),
        claim("sub"),
        claim("preferred_username"),
        issuer.to_owned(),
        own("mode"),
        token.actors.first().map(|a| a.subject.clone()).unwrap_or_default(),
        token.presented.scopes.join(" "),
        token.presented.roles.join(" "),
        claim("jti"),
    ]
    .map(|value| written(&value))
}

/// A value as a header can carry it, percent-encoded (RFC 3986 §2.1): whatever is no visible ASCII, the percent sign itself,
/// and a space at either end, which the way of a header takes off.
fn written(value: &str) -> String {
    let last = value.len().saturating_sub(1);
    let mut text = String::with_capacity(value.len());
    for (at, byte) in value.bytes().enumerate() {
        match byte {
            b' ' if at != 0 && at != last => text.push(' '),
            b'!'..=b'~' if byte != b'%' => text.push(char::from(byte)),
            _ => {
                // Cannot fail: it is a String.
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    text
}

fn quotable(text: &str) -> String {
    text.chars()
        .take(200)
        .map(|c| if c == ' ' || (c.is_ascii_graphic() && c != '"' && c != '\\') { c } else { '?' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_differ_are_written_differently_and_can_be_read_back() {
        for (value, wanted) in [
            ("", ""),
            ("corp:ann@example.com", "corp:ann@example.com"),
            ("tickets.read tickets.write", "tickets.read tickets.write"),
            ("corp:Zoë", "corp:Zo%C3%AB"),
            ("corp:李", "corp:%E6%9D%8E"),
            ("corp:%E6%9D%8E", "corp:%25E6%259D%258E"),
            (" ann", "%20ann"),
            ("ann  ", "ann %20"),
            (" ", "%20"),
            ("a\r\nx: y\u{7f}", "a%0D%0Ax: y%7F"),
        ] {
            assert_eq!(written(value), wanted);
            assert!(HeaderValue::from_str(wanted).is_ok());
            let read = form_urlencoded::parse(format!("v={}", wanted.replace('+', "%2B")).as_bytes())
                .next()
                .unwrap()
                .1
                .into_owned();
            assert_eq!(read, value);
        }
    }
}

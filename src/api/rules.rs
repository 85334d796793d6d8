//! The rules of the schemas: patterns with a remedy for people, and the CEL rules that several kinds share.
//!
//! Invariant: a refused value is answered once, with its field and what to write instead. That is why a
//! pattern reaches the API server as a CEL rule: a schema's own `pattern` would answer with the regular
//! expression alone.

use kube::core::{Message, Reason, Rule};
use serde_json::{Value, json};

/// The name of an object: a DNS subdomain (RFC 1123 §2.1).
pub(super) const OBJECT_NAME: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// A scope-token (RFC 6749 §3.3).
pub(super) const SCOPE_TOKEN: &str = r"^[!#-\[\]-~]+$";
/// What an `aud` may consist of.
pub(super) const AUDIENCE: &str = "^[!\"$-~]+$";
/// The `iss` of an issuer: an https URL without user, query and fragment (RFC 8414 §2).
pub(super) const ISSUER: &str = r"^https://([A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[!-~]*)?$";
/// The name of an agent user: letters that look alike are kept out by taking ASCII alone.
pub(super) const USERNAME: &str = r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?@[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$";
/// A mail address, as far as its form matters here.
pub(super) const EMAIL: &str = "^[!-?A-~]+@[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$";
/// A Secret's key that is a token's file.
pub(super) const TOKEN_FILE: &str = r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9_-])?\.jwt$";
/// Group and version of a kind.
pub(super) const GROUP_VERSION: &str = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?v[a-z0-9]+$";
/// A kind's name.
pub(super) const KIND: &str = "^[A-Z][A-Za-z0-9]*$";
/// An object's UID, as the API server makes them.
pub(super) const UID: &str = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$";
/// A label's key.
pub(super) const LABEL_KEY: &str =
    r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$";
/// A label's value. It has no remedy: as a rule on every value of every selector it would be beyond the API
/// server's cost budget, so it stays a plain pattern.
pub(super) const LABEL_VALUE: &str = "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$";
/// A glob of names, roles or scopes.
pub(super) const GLOB: &str = "^[!-~]+$";
/// Text of one line.
pub(crate) const ONE_LINE: &str = r"^[^\pC\pZ]([^\pC]*[^\pC\pZ])?$";

/// What to write, for each pattern.
const REMEDIES: &[(&str, &str)] = &[
    (OBJECT_NAME, "must be an object's name: lower-case letters, digits, '-' and '.', such as tickets"),
    (
        SCOPE_TOKEN,
        "must be printable ASCII without space, '\"' and '\\' (RFC 6749 section 3.3), such as tickets.read",
    ),
    (
        AUDIENCE,
        "audience must be printable ASCII without space and fragment (RFC 8707 section 2), such as https://tickets.example.com",
    ),
    (ISSUER, "issuer must be an https URL without user, such as https://idp.example.com"),
    (
        USERNAME,
        "username must be a local part of ASCII letters, digits, '.', '_' and '-' and a domain among agentUserDomains of agentid's configuration, such as triage@agents.example.com",
    ),
    (EMAIL, "email must be one mail address in ASCII, such as triage@agents.example.com"),
    (
        TOKEN_FILE,
        "secretKey must be a file name of letters, digits, '-', '_' and '.' that ends in .jwt, such as tickets.jwt",
    ),
    (GROUP_VERSION, "apiVersion must be a group and a version, such as apps/v1, or v1 for the core group"),
    (KIND, "kind must be a kind's name, such as Deployment"),
    (UID, "uid must be the object's metadata.uid, such as 0b5f4b3e-6f0e-4c64-9a51-0f4f1f0e7a11"),
    (LABEL_KEY, "must be a label's key, such as kubernetes.io/metadata.name"),
    (GLOB, "must be a glob of printable ASCII without space, such as tickets, *.admin or team-?"),
    (ONE_LINE, "must be one line of printable text, without spaces around it"),
];

/// A field of a spec that may not be set later, changed or unset.
pub(super) fn immutable(field: &str, kind: &str) -> Rule {
    Rule::new(format!(
        "has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})"
    ))
    .message(Message::Message(format!("{field} is immutable: create another {kind} instead")))
    .field_path(format!(".{field}"))
    .reason(Reason::FieldValueForbidden)
}

/// A duration between two bounds. Its digits are so few that no value overflows, and its form and bounds
/// are one rule, so that a wrong value is answered once.
pub(super) fn lifetime(field: &str, min: &str, max: &str) -> Rule {
    Rule::new(format!(
        "self.matches('^([0-9]{{1,5}}(s|m|h)){{1,3}}$') && duration(self) >= duration('{min}') && duration(self) <= duration('{max}')"
    ))
    .message(Message::Message(format!(
        "{field} must be a duration from {min} to {max}, written with s, m and h, such as 1h30m"
    )))
}

/// A time that every reader of ours understands (`9999-12-31T23:59:59Z`, for one, is beyond some).
pub(super) fn time(field: &str) -> Rule {
    Rule::new("self >= timestamp('2000-01-01T00:00:00Z') && self < timestamp('9000-01-01T00:00:00Z')").message(
        Message::Message(format!(
            "{field} must be a time from the year 2000 to 8999, such as 2030-12-31T23:59:59Z; leave it out for never"
        )),
    )
}

/// The keys of a map of labels: a schema can't bound the keys of a map.
pub(super) fn label_keys() -> Rule {
    Rule::new(format!("self.all(k, size(k) <= 317 && k.matches(r'{LABEL_KEY}'))"))
        .message("matchLabels must have labels' keys, such as kubernetes.io/metadata.name")
}

/// Brings a schema into the form that the API server gets: patterns as CEL rules with a remedy; no
/// `nullable` (an explicit null is then the same as an absent field); no `format: uint*`, which it warns of, or
/// `int32`, with which it says twice that a number is too big.
pub(super) fn finish(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            map.values_mut().for_each(finish);
            if map
                .get("format")
                .and_then(Value::as_str)
                .is_some_and(|f| f.starts_with("uint") || f == "int32")
            {
                map.remove("format");
            }
            if map.get("nullable") == Some(&Value::Bool(true)) {
                map.remove("nullable");
                if let Some(Value::Array(values)) = map.get_mut("enum") {
                    values.retain(|v| !v.is_null());
                }
            }
            let known = |p: &Value| REMEDIES.iter().find(|(pattern, _)| p.as_str() == Some(*pattern));
            if let Some((pattern, remedy)) = map.get("pattern").and_then(known) {
                map.remove("pattern");
                // None of the patterns lets the empty text pass: it is refused once, with the remedy.
                map.remove("minLength");
                let rules = map.entry("x-kubernetes-validations").or_insert_with(|| json!([]));
                if let Value::Array(rules) = rules {
                    rules.push(json!({"rule": format!("self.matches(r'{pattern}')"), "message": remedy}));
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(finish),
        _ => {}
    }
}

//! The compact form of a signed token (RFC 7515 §7.1), before anybody has checked its signature. Invariants: one
//! spelling per token, for padding and stray bits are refused; header and claims are objects with unique members;
//! no error holds the token.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};
use thiserror::Error;

use super::strict_json::{self, quoted};

/// Text that is not a token.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FormError {
    /// Too long to be read.
    #[error("the token has {bytes} bytes, more than {limit}")]
    Size {
        /// Its length.
        bytes: usize,
        /// The longest that is read.
        limit: usize,
    },
    /// Not a compact JWS.
    #[error("not a compact JWS: three parts of canonical base64url without padding, joined by dots")]
    Format,
    /// Header or claims are not an object with unique members.
    #[error("the {part} is not a JSON object with unique members: {problem}")]
    Json {
        /// `header` or `claims`.
        part: &'static str,
        /// What the parser found.
        problem: String,
    },
}

impl FormError {
    /// The name of the check that failed: `size`, `format` or `json`, in this order.
    #[must_use]
    pub const fn check(&self) -> &'static str {
        match self {
            Self::Size { .. } => "size",
            Self::Format => "format",
            Self::Json { .. } => "json",
        }
    }
}

/// What a token says about itself. **Untrusted**: nobody has checked the signature; for display, or to find out
/// whose keys to check it with.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspected {
    /// The header as it stands in the token.
    pub header: Map<String, Value>,
    /// The claims as they stand in the token.
    pub claims: Map<String, Value>,
}

/// A token taken apart.
pub(super) struct Parts<'a> {
    pub(super) untrusted: Inspected,
    /// What the signature is of: header and claims as spelt.
    pub(super) signed: &'a str,
    /// The signature, base64url.
    pub(super) signature: &'a str,
    pub(super) signature_bytes: Vec<u8>,
}

/// Takes a token apart that has at most `limit` bytes.
pub(super) fn split(token: &str, limit: usize) -> Result<Parts<'_>, FormError> {
    if token.len() > limit {
        return Err(FormError::Size { bytes: token.len(), limit });
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(FormError::Format)?;
    let (header, claims) = signed.split_once('.').ok_or(FormError::Format)?;
    // The engine refuses padding, the dot of a fourth part and non-zero trailing bits.
    let decode = |part| URL_SAFE_NO_PAD.decode(part).map_err(|_| FormError::Format);
    let (header, claims, signature_bytes) = (decode(header)?, decode(claims)?, decode(signature)?);
    let object = |part, json: &[u8]| {
        strict_json::object(json).map_err(|error| FormError::Json { part, problem: error.to_string() })
    };
    let untrusted = Inspected { header: object("header", &header)?, claims: object("claims", &claims)? };
    Ok(Parts { untrusted, signed, signature, signature_bytes })
}

/// Whether two media types are the same: without regard to case, `application/` being optional (RFC 7515 §4.1.9).
pub(super) fn same_media_type(a: &str, b: &str) -> bool {
    fn bare(typ: &str) -> &str {
        const PREFIX: &str = "application/";
        match typ.split_at_checked(PREFIX.len()) {
            Some((prefix, rest)) if prefix.eq_ignore_ascii_case(PREFIX) => rest,
            _ => typ,
        }
    }
    bare(a).eq_ignore_ascii_case(bare(b))
}

/// A value of unknown origin for a message: escaped, shortened.
pub(super) fn shown(value: Option<&Value>) -> String {
    match value {
        None => "missing".to_owned(),
        Some(Value::String(text)) => quoted(text),
        Some(other) => quoted(&other.to_string()),
    }
}

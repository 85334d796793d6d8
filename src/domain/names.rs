//! How objects are named: by namespace and name, and by UID.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Namespace and name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

impl Key {
    /// A key of its parts.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// Another object of the same namespace.
    pub fn sibling(&self, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: self.namespace.clone(), name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A Kubernetes UID, which is a UUID (RFC 9562): 16 bytes instead of a string of 36.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(pub u128);

/// Not a UUID in its lower-case hyphenated form.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a UID")]
pub struct UidError(String);

impl Uid {
    /// A UID that is made of a digest, and always the same for the same one (RFC 9562 §5.8).
    #[must_use]
    pub const fn derived(from: super::Digest) -> Self {
        let mut bytes = from.0;
        bytes[6] = bytes[6] & 0x0f | 0x80;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Self(u128::from_be_bytes(bytes))
    }
}

impl FromStr for Uid {
    type Err = UidError;

    fn from_str(text: &str) -> Result<Self, UidError> {
        let refuse = || UidError(text.chars().take(64).collect());
        let hyphens = [8, 13, 18, 23];
        if text.len() != 36 || !hyphens.iter().all(|&i| text.as_bytes()[i] == b'-') {
            return Err(refuse());
        }
        let mut value = 0u128;
        for (i, c) in text.bytes().enumerate() {
            if !hyphens.contains(&i) {
                let digit = (c as char).to_digit(16).ok_or_else(refuse)?;
                value = value << 4 | u128::from(digit);
            }
        }
        Ok(Self(value))
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // By hand: each token says several, and the formatter of u128 is slow.
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let (mut text, mut left) = ([b'-'; 36], self.0);
        for at in (0..36).rev().filter(|at| !matches!(at, 8 | 13 | 18 | 23)) {
            text[at] = HEX[(left & 0xf) as usize];
            left >>= 4;
        }
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_are_read_and_written() {
        let text = "7f3d9a2e-0001-4abc-8def-0123456789ab";
        assert_eq!(text.parse::<Uid>().unwrap().to_string(), text);
        for bad in ["", "7f3d9a2e00014abc8def0123456789ab", "7f3d9a2e-0001-4abc-8def-0123456789ag", "é"] {
            assert!(bad.parse::<Uid>().is_err(), "{bad}");
        }
        assert!("7f3d9a2e-0001-4abc-8def-0123456789a\u{e9}".parse::<Uid>().is_err());
    }
}

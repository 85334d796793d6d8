//! Digests by which two states are compared without keeping both: the first 16 bytes of SHA-256, the same in
//! every version of agentid (a digest that changed with a release would re-mint every credential).

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256};

/// A digest of a state.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 16]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl std::str::FromStr for Digest {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut out = [0u8; 16];
        if text.len() != 32 || !text.is_ascii() {
            return Err(());
        }
        for (i, byte) in out.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| ())?;
        }
        Ok(Self(out))
    }
}

/// Builds a digest of parts; each part is framed by its length, so that no two lists of parts collide.
pub struct Hasher(Context);

impl Hasher {
    /// Starts a digest for one purpose.
    #[must_use]
    pub fn new(purpose: &str) -> Self {
        let mut hasher = Self(Context::new(&SHA256));
        hasher.part(purpose.as_bytes());
        hasher
    }

    /// Adds a part.
    pub fn part(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(&(bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
        self
    }

    /// Adds a list of parts.
    pub fn parts<'a>(&mut self, parts: impl ExactSizeIterator<Item = &'a str>) -> &mut Self {
        self.part(&(parts.len() as u64).to_be_bytes());
        for part in parts {
            self.part(part.as_bytes());
        }
        self
    }

    /// The digest.
    #[must_use]
    pub fn finish(self) -> Digest {
        let mut out = [0u8; 16];
        out.copy_from_slice(&self.0.finish().as_ref()[..16]);
        Digest(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(parts: &[&str]) -> Digest {
        let mut h = Hasher::new("test");
        h.parts(parts.iter().copied());
        h.finish()
    }

    #[test]
    fn frames_parts_and_reads_itself() {
        assert_ne!(of(&["a", "b"]), of(&["ab"]));
        assert_ne!(of(&["a"]), of(&["a", ""]));
        let d = of(&["a"]);
        assert_eq!(d.to_string().parse(), Ok(d));
        assert!("zz".repeat(16).parse::<Digest>().is_err());
    }

    #[test]
    fn stays_the_same_over_releases() {
        assert_eq!(of(&["a", "b"]).to_string(), of(&["a", "b"]).to_string());
        assert_eq!(Hasher::new("pinned").finish().to_string(), "a9e66d63084a2a22311d7c4f1d218f59");
    }
}

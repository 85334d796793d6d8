//! Status lists (draft-ietf-oauth-status-list §4): an array of small numbers, one for each token that refers to it,
//! of which 0 says that the token is valid. Invariants: the same bits are always encoded as the same text; what
//! is decoded is bounded and whole (a list cut short could hide a revocation); an index beyond the end has no
//! status.
//!
//! We write lists of one bit; with more, an outsider would learn more.

mod token;

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use thiserror::Error;

pub use self::token::{
    MAX_STATUS_LIST_TOKEN_BYTES, STATUS_LIST_TYP, StatusList, StatusListClaims, StatusListToken, StatusRef,
    verify_status_list,
};
use super::VerifyError;

/// The most entries that a list of ours has.
pub const MAX_STATUS_ENTRIES: usize = 1 << 24;

/// Up to so many set bits, the highest level of compression is worth its time.
///
/// §4.1 recommends it. Of a million entries it makes lists of which 0.1 % are set 15 % shorter than the default
/// level, in 5 ms; but at 5 % it takes 90 ms in place of 6 for 4 %, and from 10 % on it makes them longer.
const SPARSE: usize = 4096;

/// The bits of an entry, of which a byte holds a whole number (§4.1).
const WIDTHS: [u8; 4] = [1, 2, 4, 8];

/// A status list, or a token that carries or refers to one, that cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum StatusListError {
    /// An index that no list of ours has.
    #[error("the index {0} is not below {MAX_STATUS_ENTRIES}")]
    Index(usize),
    /// The provider could not compress.
    #[error("the status list could not be compressed")]
    Compress,
    /// A width that the format does not have.
    #[error("bits is {0}, expected 1, 2, 4 or 8")]
    Bits(u64),
    /// Not base64url.
    #[error("lst is not canonical base64url without padding")]
    Base64,
    /// Damaged, or cut short.
    #[error("lst is not a whole ZLIB stream")]
    Zlib,
    /// More than the stream.
    #[error("lst has {0} bytes after its ZLIB stream")]
    Trailing(usize),
    /// Longer than the reader allows; it was not read to the end.
    #[error("lst decompresses to more than {0} bytes")]
    TooLong(usize),
    /// The token that carries the list is refused.
    #[error(transparent)]
    Token(#[from] VerifyError),
    /// The list of another address.
    #[error("sub is {found}, expected {expected:?}")]
    Sub {
        /// What the token says.
        found: String,
        /// The address that was asked.
        expected: String,
    },
    /// A claim about the list, or about the place in one, that is absent or malformed.
    #[error("the claim {claim} is {problem}")]
    Claim {
        /// The claim at fault.
        claim: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// One bit for each token: set says that the token is no longer valid. Index 0 is the lowest bit of byte 0.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct StatusBits {
    bytes: Vec<u8>,
}

impl StatusBits {
    /// An array of at least `len` bits, none of them set: their number is divisible by 8 (§4.1) and at most
    /// [`MAX_STATUS_ENTRIES`].
    #[must_use]
    pub fn new(len: usize) -> Self {
        Self { bytes: vec![0; len.min(MAX_STATUS_ENTRIES).div_ceil(8)] }
    }

    /// Sets or clears a bit. The array grows where it must; the bits in between are not set.
    ///
    /// # Errors
    /// [`StatusListError::Index`] from [`MAX_STATUS_ENTRIES`] on.
    pub fn set(&mut self, index: usize, value: bool) -> Result<(), StatusListError> {
        if index >= MAX_STATUS_ENTRIES {
            return Err(StatusListError::Index(index));
        }
        if index >= self.len() {
            self.bytes.resize(index / 8 + 1, 0);
        }
        let mask = 1 << (index % 8);
        match self.bytes.get_mut(index / 8) {
            Some(byte) if value => *byte |= mask,
            Some(byte) => *byte &= !mask,
            None => return Err(StatusListError::Index(index)),
        }
        Ok(())
    }

    /// A bit; `None` beyond the end.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<bool> {
        self.bytes.get(index / 8).map(|byte| byte >> (index % 8) & 1 == 1)
    }

    /// How many bits there are, set or not.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes.len() * 8
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// How many bits are set.
    #[must_use]
    pub fn count_set(&self) -> usize {
        self.bytes.iter().map(|byte| byte.count_ones() as usize).sum()
    }

    /// The bits, eight a byte.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Encodes the bits as `lst` (§4.2): base64url, without padding, of ZLIB.
    ///
    /// # Errors
    /// [`StatusListError::Compress`] if the provider fails.
    pub fn encode(&self) -> Result<String, StatusListError> {
        /// What a stream has beside its blocks, and each stored block of 16 KiB.
        const FRAME: usize = 64;
        let input = self.as_bytes();
        let level = if self.count_set() <= SPARSE { Compression::best() } else { Compression::default() };
        let mut stream = Compress::new(level, true);
        // Enough for what cannot be compressed, so that one turn does.
        let mut output = Vec::with_capacity(input.len() + input.len() / 1024 + FRAME);
        loop {
            let rest = usize::try_from(stream.total_in()).ok().and_then(|taken| input.get(taken..));
            let rest = rest.ok_or(StatusListError::Compress)?;
            match stream.compress_vec(rest, &mut output, FlushCompress::Finish) {
                Ok(Status::StreamEnd) => return Ok(URL_SAFE_NO_PAD.encode(output)),
                Ok(Status::Ok | Status::BufError) => output.reserve(input.len() / 8 + FRAME),
                Err(_) => return Err(StatusListError::Compress),
            }
        }
    }
}

impl fmt::Debug for StatusBits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatusBits").field("len", &self.len()).field("set", &self.count_set()).finish()
    }
}

/// A list as another may write it.
#[derive(Clone, PartialEq, Eq)]
pub struct DecodedList {
    bits: u8,
    bytes: Vec<u8>,
}

impl DecodedList {
    /// Decodes `lst` with entries of 1, 2, 4 or 8 `bits`. Reads no more than `max_bytes` out of the compressed stream.
    ///
    /// # Errors
    /// [`StatusListError`] for another width, and for anything but one whole stream of at most `max_bytes`.
    pub fn decode(lst: &str, bits: u8, max_bytes: usize) -> Result<Self, StatusListError> {
        /// How much the output grows at a time, at least.
        const STEP: usize = 4096;
        if !WIDTHS.contains(&bits) {
            return Err(StatusListError::Bits(bits.into()));
        }
        let input = URL_SAFE_NO_PAD.decode(lst).map_err(|_| StatusListError::Base64)?;
        let mut stream = Decompress::new(true);
        let mut bytes = Vec::new();
        loop {
            let rest = usize::try_from(stream.total_in()).ok().and_then(|taken| input.get(taken..));
            let rest = rest.ok_or(StatusListError::Zlib)?;
            if bytes.len() == bytes.capacity() {
                // One byte more than is allowed, so that a list too long shows.
                let more = bytes.len().max(STEP).min((max_bytes - bytes.len()).saturating_add(1));
                bytes.reserve_exact(more);
            }
            let before = (stream.total_in(), bytes.len());
            let status = stream.decompress_vec(rest, &mut bytes, FlushDecompress::None);
            if bytes.len() > max_bytes {
                return Err(StatusListError::TooLong(max_bytes));
            }
            match status {
                Ok(Status::StreamEnd) => break,
                Ok(_) if (stream.total_in(), bytes.len()) != before => {}
                Ok(_) | Err(_) => return Err(StatusListError::Zlib),
            }
        }
        let taken = usize::try_from(stream.total_in()).map_err(|_| StatusListError::Zlib)?;
        match input.len().saturating_sub(taken) {
            0 => Ok(Self { bits, bytes }),
            more => Err(StatusListError::Trailing(more)),
        }
    }

    /// The status at an index: 0 valid, 1 invalid, 2 suspended, others as §7 says. `None` beyond the end: the token
    /// must then be refused (§8.3).
    #[must_use]
    pub fn status(&self, index: u64) -> Option<u8> {
        let per_byte = u64::from(8 / self.bits);
        let byte = self.bytes.get(usize::try_from(index / per_byte).ok()?)?;
        // At most 7: the remainder is below 8 / bits.
        let shift = u8::try_from(index % per_byte).ok()? * self.bits;
        Some(byte >> shift & (0xff >> (8 - self.bits)))
    }

    /// The bits of an entry: 1, 2, 4 or 8.
    #[must_use]
    pub const fn bits(&self) -> u8 {
        self.bits
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len().saturating_mul(usize::from(8 / self.bits))
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The entries as they are packed.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for DecodedList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecodedList").field("bits", &self.bits).field("len", &self.len()).finish()
    }
}

//! Token ids: 48 bits of time and 80 random bits in Crockford's base32, so that ids sort by time in a log.

use jiff::Timestamp;

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// A new token id of 26 characters; `None` if the system gives no random bytes.
pub(super) fn new(now: Timestamp) -> Option<String> {
    let mut random = [0u8; 10];
    aws_lc_rs::rand::fill(&mut random).ok()?;
    let time = u128::try_from(now.as_millisecond()).ok()? & 0xffff_ffff_ffff;
    let value = random.iter().fold(time, |v, b| v << 8 | u128::from(*b));
    Some((0..26).rev().map(|i| ALPHABET[(value >> (5 * i) & 31) as usize] as char).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_sort_by_time() {
        let at = |s| new(Timestamp::from_second(s).unwrap()).unwrap();
        let (a, b, c) = (at(1_800_000_000), at(1_800_000_000), at(1_800_000_001));
        assert_eq!(a.len(), 26);
        assert_ne!(a, b);
        assert_eq!(a[..10], b[..10]);
        assert!(a < c && b < c);
    }
}

//! Chance from a seed: the same seed, the same throws, on every machine.

use aws_lc_rs::digest;

/// SplitMix64 (Steele, Lea, Flood 2014): every 64-bit state is a good one.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// A stream of its own for each purpose, so that one more throw here moves nothing there.
    pub fn new(seed: u64, purpose: &str) -> Self {
        let text = format!("{seed} {purpose}");
        let hash = digest::digest(&digest::SHA256, text.as_bytes());
        Self(u64::from_le_bytes(hash.as_ref()[..8].try_into().unwrap()))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`, which is small: the bias of a remainder does not matter here.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// From `low` up to and without `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low)
    }

    /// True so many times in a hundred.
    pub fn percent(&mut self, share: u64) -> bool {
        self.next() % 100 < share
    }

    /// The place of one of the weights.
    pub fn weighted(&mut self, weights: &[u64]) -> usize {
        let mut left = self.next() % weights.iter().sum::<u64>();
        weights
            .iter()
            .position(|w| {
                let here = left < *w;
                left = left.saturating_sub(*w);
                here
            })
            .unwrap()
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

//! How long to wait before the next try. Invariant: no pause is longer than the last, and no two sources try in step.

use std::time::Duration;

use crate::cluster::client::spread;

const BACKOFF_FIRST: Duration = Duration::from_millis(500);
const BACKOFF_LAST: Duration = Duration::from_secs(15);

/// Doubling pauses with a spread of a quarter either way.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    tries: u32,
}

impl Backoff {
    pub(super) fn next(&mut self) -> Duration {
        let plain = BACKOFF_FIRST.saturating_mul(1 << self.tries.min(8)).min(BACKOFF_LAST);
        self.tries = self.tries.saturating_add(1);
        plain.mul_f64(0.75 + 0.5 * spread()).min(BACKOFF_LAST)
    }

    pub(super) const fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_bound() {
        let mut backoff = Backoff::default();
        let pauses: Vec<f64> = (0..12).map(|_| backoff.next().as_secs_f64()).collect();
        assert!((0.375..=0.625).contains(&pauses[0]), "{pauses:?}");
        assert!((1.5..=2.5).contains(&pauses[2]), "{pauses:?}");
        assert!(pauses[11] > 11.0 && pauses.iter().all(|p| *p <= 15.0), "{pauses:?}");
        backoff.reset();
        assert!(backoff.next().as_secs_f64() < 1.0);
    }
}

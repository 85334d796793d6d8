//! When credentials are renewed.
//!
//! Invariant: a renewal falls between a sixth and five sixths of a lifetime after the last one, and in the
//! long run at two thirds; the instants are a grid drawn from the agent's UID, so that the load is flat from
//! the first period on and stays flat over restarts.

use jiff::{SignedDuration, Timestamp};

use super::Uid;

/// When a credential that was minted at `minted` and lives `lifetime` seconds is renewed.
///
/// The grid has a step of two thirds of the lifetime and an offset drawn from the UID; the first point at
/// least a quarter of a step away is taken, so an agent that was minted off the grid joins it.
#[must_use]
pub fn renew_at(uid: Uid, minted: Timestamp, lifetime: u32) -> Timestamp {
    let step = (i64::from(lifetime) * 2000 / 3).max(1);
    let phase = i64::try_from(mix(uid) % u64::try_from(step).unwrap_or(1)).unwrap_or(0);
    let earliest = minted.as_millisecond() + step / 4;
    let next = earliest + (phase - earliest).rem_euclid(step);
    Timestamp::from_millisecond(next).unwrap_or(minted)
}

/// The pause before try number `attempt` (from 1) of an agent whose work failed: 0.5 s doubling to 60 s, moved
/// by up to a quarter by the UID so that agents that failed together don't return together.
#[must_use]
pub fn backoff(uid: Uid, attempt: u32) -> SignedDuration {
    let base = 500u64.saturating_mul(1 << attempt.clamp(1, 8).saturating_sub(1)).min(60_000);
    let jitter = mix(uid).rotate_left(attempt) % (base / 4 + 1);
    SignedDuration::from_millis(i64::try_from(base + jitter).unwrap_or(60_000))
}

/// Spreads a UID over 64 bits (the finaliser of SplitMix64): version and variant bits of a UUID are constant.
fn mix(uid: Uid) -> u64 {
    let mut z = (uid.0 >> 64) as u64 ^ uid.0 as u64;
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn renewals_stay_within_bounds_and_join_the_grid(uid: u128, at in 0i64..4_000_000_000, life in 10u32..86_400) {
            let minted = Timestamp::from_second(at).unwrap();
            let first = renew_at(Uid(uid), minted, life);
            let wait = first.duration_since(minted).as_millis();
            let life_ms = i128::from(life) * 1000;
            prop_assert!(wait >= life_ms / 6 - 1 && wait <= life_ms * 5 / 6 + 1, "{wait} of {life_ms}");
            let second = renew_at(Uid(uid), first, life);
            prop_assert!((second.duration_since(first).as_millis() - life_ms * 2 / 3).abs() <= 1);
            // A renewal that comes a little late still meets the next point.
            let late = first + SignedDuration::from_millis(i64::from(life) * 100);
            prop_assert_eq!(renew_at(Uid(uid), late, life), second);
        }

        #[test]
        fn backoff_grows_and_is_bounded(uid: u128) {
            prop_assert!(backoff(Uid(uid), 1).as_millis() >= 500);
            prop_assert!(backoff(Uid(uid), 30).as_millis() <= 80_000);
            prop_assert!(backoff(Uid(uid), 8) > backoff(Uid(uid), 4));
        }
    }

    #[test]
    fn agents_made_together_renew_apart() {
        let minted = Timestamp::from_second(1_800_000_000).unwrap();
        let mut buckets = [0u32; 10];
        for i in 0..10_000u128 {
            // As UUIDs of version 4 are: random but for fixed bits.
            let uid = Uid(i.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
            let wait = renew_at(uid, minted, 3600).duration_since(minted).as_secs() - 600;
            buckets[usize::try_from(wait * 10 / 2401).unwrap().min(9)] += 1;
        }
        assert!(buckets.iter().all(|&n| n > 800 && n < 1200), "{buckets:?}");
    }
}

//! Rates by key: so much at once, so much a second (GCRA), whoever the key stands for.
//!
//! Invariant: at most `max_keys` keys take memory. Whoever comes while all are in use shares one rate with all
//! others that come then: an attacker with many addresses can slow strangers down, but not those already known.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::ShrinkableKeyedStateStore;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{Quota, RateLimiter};

/// Forgetting looks at every key: not more often than this.
const FORGET_EVERY: Duration = Duration::from_secs(1);

/// The rate is exceeded: after this long, one more is taken. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryAfter(pub Duration);

impl RetryAfter {
    /// As the `Retry-After` header says it (RFC 9110 §10.2.3): whole seconds, at least 1.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        let whole = self.0.as_secs() + (self.0.subsec_nanos() > 0) as u64;
        if whole == 0 { 1 } else { whole }
    }
}

/// Rates by key.
pub struct Limiter<K: Hash + Eq + Clone, C: Clock = DefaultClock> {
    limiter: RateLimiter<K, Store<K>, C, NoOpMiddleware<C::Instant>>,
    max_keys: usize,
    forgotten: Mutex<C::Instant>,
}

impl<K: Hash + Eq + Clone> Limiter<K> {
    /// Takes `per_second` a second and `burst` at once from each key, and remembers at most `max_keys` of them. A
    /// rate of 0 is taken for 1.
    #[must_use]
    pub fn new(per_second: u32, burst: u32, max_keys: usize) -> Self {
        Self::with_clock(per_second, burst, max_keys, DefaultClock::default())
    }
}

impl<K: Hash + Eq + Clone, C: Clock> Limiter<K, C> {
    fn with_clock(per_second: u32, burst: u32, max_keys: usize, clock: C) -> Self {
        let positive = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(positive(per_second)).allow_burst(positive(burst));
        let forgotten = Mutex::new(clock.now());
        Self { limiter: RateLimiter::new(quota, Store::new(max_keys), clock), max_keys, forgotten }
    }

    /// Takes one more of a key.
    ///
    /// # Errors
    /// [`RetryAfter`] if that is one too many.
    pub fn check(&self, key: &K) -> Result<(), RetryAfter> {
        if self.limiter.len() >= self.max_keys {
            self.forget();
        }
        self.limiter.check_key(key).map_err(|not_until| {
            let wait = not_until.wait_time_from(self.limiter.clock().now());
            RetryAfter(wait.max(Duration::from_nanos(1)))
        })
    }

    /// How many keys are remembered.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.limiter.len()
    }

    /// Forgets the keys that stand as if they had never come.
    fn forget(&self) {
        let now = self.limiter.clock().now();
        {
            let mut forgotten = self.forgotten.lock().unwrap_or_else(PoisonError::into_inner);
            if now.duration_since(*forgotten) < Nanos::from(FORGET_EVERY) {
                return;
            }
            *forgotten = now;
        }
        self.limiter.retain_recent();
    }
}

impl<K: Hash + Eq + Clone, C: Clock> fmt::Debug for Limiter<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter").field("keys", &self.keys()).field("max_keys", &self.max_keys).finish()
    }
}

/// What each key has used up, and what the others have together.
struct Store<K> {
    max_keys: usize,
    known: Mutex<HashMap<K, InMemoryState, RandomState>>,
    others: InMemoryState,
}

impl<K: Hash + Eq + Clone> Store<K> {
    fn new(max_keys: usize) -> Self {
        Self { max_keys, known: Mutex::default(), others: InMemoryState::default() }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<K, InMemoryState>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq + Clone> StateStore for Store<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut known = self.known();
        if let Some(state) = known.get(key) {
            return state.measure_and_replace(&NotKeyed::NonKey, f);
        }
        if known.len() < self.max_keys {
            let state = InMemoryState::default();
            let result = state.measure_and_replace(&NotKeyed::NonKey, f);
            known.insert(key.clone(), state);
            return result;
        }
        drop(known);
        self.others.measure_and_replace(&NotKeyed::NonKey, f)
    }
}

impl<K: Hash + Eq + Clone> ShrinkableKeyedStateStore<K> for Store<K> {
    fn retain_recent(&self, drop_below: Nanos) {
        self.known().retain(|_, state| {
            // Refusing the replacement is how a state is read.
            let read = |used: Option<Nanos>| Err::<((), Nanos), _>(used);
            let used = state.measure_and_replace(&NotKeyed::NonKey, read).err().flatten();
            used.is_some_and(|used| used > drop_below)
        });
    }

    fn shrink_to_fit(&self) {
        self.known().shrink_to_fit();
    }

    fn len(&self) -> usize {
        self.known().len()
    }

    fn is_empty(&self) -> bool {
        self.known().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    fn limiter(max_keys: usize) -> (Limiter<u32, FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        (Limiter::with_clock(2, 3, max_keys, clock.clone()), clock)
    }

    #[test]
    fn a_burst_then_a_rate_by_key() {
        let (limiter, clock) = limiter(10);
        for _ in 0..3 {
            assert_eq!(limiter.check(&1), Ok(()));
        }
        assert_eq!(limiter.check(&1), Err(RetryAfter(Duration::from_millis(500))));
        assert_eq!(limiter.check(&2), Ok(()), "another key has its own");
        clock.advance(Duration::from_millis(499));
        assert_eq!(limiter.check(&1).unwrap_err().0, Duration::from_millis(1));
        clock.advance(Duration::from_millis(1));
        assert_eq!(limiter.check(&1), Ok(()));
        assert!(limiter.check(&1).is_err());
    }

    #[test]
    fn strangers_share_what_is_left_and_the_known_are_spared() {
        let (limiter, _) = limiter(2);
        limiter.check(&1).unwrap();
        limiter.check(&2).unwrap();
        for stranger in 3..6 {
            assert_eq!(limiter.check(&stranger), Ok(()));
        }
        assert!(limiter.check(&6).is_err(), "three strangers have used up what strangers have");
        assert_eq!(limiter.keys(), 2);
        assert_eq!((limiter.check(&1), limiter.check(&2)), (Ok(()), Ok(())));
    }

    #[test]
    fn those_who_are_gone_are_forgotten_when_there_is_no_room() {
        let (limiter, clock) = limiter(100);
        for key in 0..100 {
            limiter.check(&key).unwrap();
        }
        clock.advance(Duration::from_millis(1100));
        for _ in 0..3 {
            limiter.check(&0).unwrap();
        }
        limiter.check(&1000).unwrap();
        assert_eq!(limiter.keys(), 2, "0 is busy, 1000 is new");
        assert!(limiter.check(&0).is_err(), "who is busy is not forgotten");
        for key in 2000..3000 {
            let _ = limiter.check(&key);
        }
        assert_eq!(limiter.keys(), 100);
    }

    #[test]
    fn retry_after_is_in_whole_seconds() {
        for (millis, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2)] {
            assert_eq!(RetryAfter(Duration::from_millis(millis)).seconds(), seconds);
        }
        assert!(Limiter::new(0, 0, 0).check(&1).is_ok(), "one at a time is the least");
    }
}

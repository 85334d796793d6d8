//! The tokens whose signature was verified lately: pods send the same one until the kubelet gives them another.
//!
//! Invariants: what is known of a token is known by the keys that it was verified with, and forgotten with them (not when
//! the same ones were read again, which anybody can bring about); it is kept by the token's digest, never with the token; a token is known from the moment at which it was verified
//! until its end; at most twice [`MOST`] are.

use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;

use super::ServiceAccountToken;

/// How many tokens a generation holds, at about 300 bytes each.
const MOST: usize = 8192;

/// A token's digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Print([u8; 32]);

impl Print {
    pub(super) fn of(token: &str) -> Self {
        let mut print = [0; 32];
        // SHA-256 gives just so many.
        for (to, from) in print.iter_mut().zip(digest(&SHA256, token.as_bytes()).as_ref()) {
            *to = *from;
        }
        Self(print)
    }
}

#[derive(Clone)]
struct Entry {
    token: ServiceAccountToken,
    verified: Timestamp,
}

/// Two generations: the elder goes when the younger is full, but for what was asked for meanwhile.
struct Generations<K> {
    keys: Option<Arc<K>>,
    young: HashMap<Print, Entry>,
    old: HashMap<Print, Entry>,
}

impl<K: PartialEq> Generations<K> {
    /// Whether what is known was verified with these keys.
    fn is_by(&mut self, keys: &Arc<K>) -> bool {
        match &self.keys {
            Some(known) if Arc::ptr_eq(known, keys) => true,
            Some(known) if **known == **keys => {
                // The next look needn't compare them.
                self.keys = Some(keys.clone());
                true
            }
            _ => false,
        }
    }

    fn insert(&mut self, print: Print, entry: Entry) {
        if self.young.len() >= MOST {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(print, entry);
    }
}

/// What was verified lately.
pub(super) struct Known<K>(Mutex<Generations<K>>);

impl<K: PartialEq> Known<K> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Generations { keys: None, young: HashMap::new(), old: HashMap::new() }))
    }

    fn lock(&self) -> MutexGuard<'_, Generations<K>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anything is known of a token, by whatever keys.
    pub(super) fn holds(&self, print: &Print) -> bool {
        let known = self.lock();
        known.young.contains_key(print) || known.old.contains_key(print)
    }

    /// What a token says that was verified with these keys and stands now. A clock that was set back to before it
    /// was verified makes it unknown.
    pub(super) fn get(&self, print: &Print, keys: &Arc<K>, now: Timestamp) -> Option<ServiceAccountToken> {
        let mut known = self.lock();
        if !known.is_by(keys) {
            return None;
        }
        if let Some(entry) = known.old.remove(print) {
            known.insert(*print, entry);
        }
        let entry = known.young.get(print)?;
        let stands = entry.verified <= now && now.as_second() < entry.token.expires_at.as_second();
        stands.then(|| entry.token.clone())
    }

    /// Remembers a token that was verified with these keys.
    pub(super) fn insert(&self, print: Print, keys: &Arc<K>, token: ServiceAccountToken, now: Timestamp) {
        let mut known = self.lock();
        if !known.is_by(keys) {
            *known = Generations { keys: Some(keys.clone()), young: HashMap::new(), old: HashMap::new() };
        }
        known.insert(print, Entry { token, verified: now });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Key, Uid};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn token() -> ServiceAccountToken {
        ServiceAccountToken {
            account: Key::new("ns", "runner"),
            account_uid: Uid(1),
            pod: None,
            issued_at: None,
            expires_at: at(200),
            jti: None,
        }
    }

    #[test]
    fn a_token_is_known_from_its_verification_to_its_end() {
        let (known, keys, print) = (Known::new(), Arc::new(()), Print::of("a"));
        assert_eq!(known.get(&print, &keys, at(100)), None);
        known.insert(print, &keys, token(), at(100));
        assert!(known.holds(&print) && !known.holds(&Print::of("b")));
        assert_eq!(known.get(&print, &keys, at(100)), Some(token()));
        assert_eq!(known.get(&print, &keys, at(199)), Some(token()));
        assert_eq!(known.get(&print, &keys, at(200)), None, "it has expired");
        assert_eq!(known.get(&print, &keys, at(99)), None, "the clock was set back");
        assert_eq!(known.get(&Print::of("b"), &keys, at(100)), None);
    }

    #[test]
    fn other_keys_know_nothing() {
        let (known, print) = (Known::new(), Print::of("a"));
        let (old, again, new) = (Arc::new(1), Arc::new(1), Arc::new(2));
        known.insert(print, &old, token(), at(100));
        assert_eq!(known.get(&print, &new, at(100)), None);
        assert_eq!(known.get(&print, &again, at(100)), Some(token()), "the same, read again");
        known.insert(Print::of("a2"), &old, token(), at(100));
        assert_eq!(known.get(&print, &again, at(100)), Some(token()));
        known.insert(Print::of("b"), &new, token(), at(100));
        assert_eq!(known.get(&print, &old, at(100)), None, "what the old keys verified has gone");
        assert_eq!(known.get(&Print::of("b"), &new, at(100)), Some(token()));
    }

    #[test]
    fn a_flood_drives_out_only_what_nobody_asks_for() {
        let (known, keys) = (Known::new(), Arc::new(()));
        let (used, unused) = (Print::of("used"), Print::of("unused"));
        known.insert(used, &keys, token(), at(100));
        known.insert(unused, &keys, token(), at(100));
        for i in 0..3 * MOST {
            known.insert(Print::of(&i.to_string()), &keys, token(), at(100));
            if i % 1000 == 0 {
                assert!(known.get(&used, &keys, at(100)).is_some());
            }
        }
        assert!(known.get(&unused, &keys, at(100)).is_none());
        let all = known.lock();
        assert!(all.young.len() <= MOST && all.old.len() <= MOST);
    }
}

//! What the leader answers to those who asked something of the keys.

use jiff::Timestamp;

use crate::{
    api::format_seconds,
    cluster::keystore::{KeysAnswer, KeysRequest, Outcome},
    domain::keyring::{KeyRing, KeySlot, Times},
};

pub(super) fn answer(request: &KeysRequest, outcome: Outcome, message: String, now: Timestamp) -> KeysAnswer {
    KeysAnswer { id: request.id.clone(), outcome, message, at: now }
}

pub(super) fn reset(request: &KeysRequest, ring: &KeyRing, now: Timestamp) -> KeysAnswer {
    let message = format!("new keys sign and are published; every token is minted anew; {}", signing(ring));
    answer(request, Outcome::Done, message, now)
}

/// `ring` is the one after the request was taken in.
pub(super) fn rotate(request: &KeysRequest, ring: &KeyRing, times: &Times, now: Timestamp) -> KeysAnswer {
    if ring.rotate.is_empty() {
        return answer(request, Outcome::Done, signing(ring), now);
    }
    let mut parts = Vec::new();
    for slot in KeySlot::ALL {
        let Some(next) = ring.next(slot) else { continue };
        let kid = &next.kid;
        parts.push(match ring.promotes_at(slot, times) {
            _ if !ring.rotate.contains(&slot) => {
                format!("{slot}: {} signs now", ring.signing_kid(slot).unwrap_or_default())
            }
            Some(at) => format!("{slot}: {kid} signs from {at:.0}"),
            None => {
                let ahead = format_seconds(u64::from(times.publish_ahead));
                format!("{slot}: {kid} signs once it has been in every namespace for {ahead}")
            }
        });
    }
    answer(request, Outcome::Scheduled, parts.join("; "), now)
}

/// `before` and `ring` are the rings before and after the key was taken out.
pub(super) fn revoke(
    request: &KeysRequest,
    before: &KeyRing,
    ring: &KeyRing,
    kid: &str,
    now: Timestamp,
) -> KeysAnswer {
    let was = before
        .keys
        .iter()
        .find(|k| k.kid == kid)
        .map_or_else(String::new, |k| format!(" ({}, {:?})", k.slot(), k.state));
    let message =
        format!("{kid}{was} is no longer published and what it signed is minted anew; {}", signing(ring));
    answer(request, Outcome::Done, message, now)
}

fn signing(ring: &KeyRing) -> String {
    let each = KeySlot::ALL.map(|s| format!("{s}: {} signs now", ring.signing_kid(s).unwrap_or_default()));
    each.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cluster::keystore::Operation,
        domain::keyring::{Request, ask, due},
    };

    #[test]
    fn a_rotation_says_when() {
        let at = |s: i64| Timestamp::from_second(1_800_000_000 + s).unwrap();
        let kid = |n: usize| format!("{n:043}");
        let times = Times { sign_for: 1000, publish_ahead: 3600, max_token_lifetime: 60 };
        let empty = KeyRing::empty("https://agents.example.com", "agents.example.com", 0);
        let kids: Vec<_> = (1..9).map(kid).collect();
        let ring = empty.advance(&due(&empty, &times, at(0), false), &kids, at(0)).unwrap();
        let request = KeysRequest::new(Operation::Rotate, None, at(0));
        let asked = |ring: &KeyRing, now| {
            let steps = ask(ring, &Request::Rotate, &times, at(now), false).unwrap();
            let ring = ring.advance(&steps, &[kid(50), kid(51), kid(52)], at(now)).unwrap();
            rotate(&request, &ring, &times, at(now))
        };
        let early = asked(&ring, 1);
        assert_eq!(early.outcome, Outcome::Scheduled);
        assert!(early.message.contains("every namespace for 1h"), "{}", early.message);
        let out = ring.advance(&due(&ring, &times, at(0), true), &[], at(0)).unwrap();
        let soon = asked(&out, 1);
        assert_eq!(soon.outcome, Outcome::Scheduled);
        assert!(soon.message.contains("signs from 2027-01-15T09:00:00Z"), "{}", soon.message);
        let done = asked(&out, 3600);
        assert_eq!(done.outcome, Outcome::Done);
        assert!(done.message.contains(&format!("ES256: {} signs now", kid(2))), "{}", done.message);
        assert!(done.message.contains(&format!("status lists: {} signs now", kid(6))), "{}", done.message);
        assert_eq!(done.id, request.id);
    }
}

//! All tokens at the end, when the world is at rest: each is asked about at both replicas, by introspection and by list.
//!
//! Invariant: what could not be asked is a finding, never passed over.

use std::collections::{BTreeMap, BTreeSet};

use agentid::crypto::{JwkSet, StatusListToken, verify_status_list};
use agentid::net::fetch::{FetchError, fetch};
use futures::{StreamExt, stream};

use crate::model::Model;
use crate::taken::{Taken, Verdict};
use crate::tokens::Thief;
use crate::world::{name, namespace};

/// What the end says of all that was taken.
#[derive(Default)]
pub struct Verdicts {
    pub tokens: usize,
    pub revoked: usize,
    pub standing: usize,
    /// Revoked, and still active or VALID somewhere.
    pub valid_after_revoke: Vec<String>,
    /// Never revoked, and inactive or INVALID somewhere.
    pub revoked_for_nothing: Vec<String>,
    /// Introspection and list say different things, or could not be had.
    pub contradictions: Vec<String>,
}

impl Thief {
    /// Asks both replicas about every token, by introspection and by list. The world is at rest.
    pub async fn judge(&self) -> Verdicts {
        let mut verdicts = Verdicts::default();
        let all = self.taken.lock().unwrap().clone();
        for replica in 0..2 {
            let lists = self.lists(replica, &all).await;
            let answers: Vec<_> = stream::iter(&all)
                .map(|taken| async move { (taken, self.introspect(taken, replica).await) })
                .buffered(8)
                .collect()
                .await;
            let now = jiff::Timestamp::now().as_second();
            let model = self.model.lock().unwrap();
            for (taken, answer) in answers {
                let told = format!("{} at replica {replica}", taken.told());
                let entry = match lists.get(&taken.status.uri) {
                    // An entry beyond its end is refused by whoever looks (Token Status List §8.3).
                    Some(Some(list)) => list.list.status(taken.status.index).or(Some(1)),
                    // Nobody who looks takes a token of a list that is not there for valid.
                    Some(None) => Some(1),
                    None => None,
                };
                let (Some((200, active)), Some(entry)) = (answer, entry) else {
                    verdicts.contradictions.push(format!("{told}: {answer:?}, entry {entry:?}"));
                    continue;
                };
                let verdict = taken.verdict(&model);
                match verdict {
                    Verdict::Revoked => verdicts.revoked += 1,
                    Verdict::Stands => verdicts.standing += 1,
                }
                if verdict == Verdict::Revoked && (active || entry == 0) {
                    verdicts.valid_after_revoke.push(format!("{told}: active {active}, entry {entry}"));
                } else if taken.must_stand(&model, now) && (!active || entry != 0) {
                    verdicts.revoked_for_nothing.push(format!("{told}: active {active}, entry {entry}"));
                } else if active && entry != 0
                    || (!active && entry == 0 && taken.iat <= now && taken.exp > now + 15)
                {
                    verdicts.contradictions.push(format!("{told}: active {active}, entry {entry}"));
                }
            }
        }
        verdicts.tokens = all.len();
        verdicts
    }

    /// The lists that these tokens are in, verified; nothing for one that the replica says there is none of.
    async fn lists(&self, replica: usize, all: &[Taken]) -> BTreeMap<String, Option<StatusListToken>> {
        let keys = fetch(&self.url(replica, "/jwks"), &self.options()).await;
        let Ok(keys) = keys.map(|k| JwkSet::parse(&k.body).unwrap().set) else { return BTreeMap::new() };
        let uris: BTreeSet<_> = all.iter().map(|t| t.status.uri.clone()).collect();
        let mut lists = BTreeMap::new();
        for uri in uris {
            let path = uri.strip_prefix(self.crew.issuer()).unwrap();
            let now = jiff::Timestamp::now().as_second();
            match fetch(&self.url(replica, path), &self.options()).await {
                Ok(answer) => {
                    if let Ok(list) = verify_status_list(answer.body.trim_end(), &keys, &uri, now, 5) {
                        lists.insert(uri, Some(list));
                    }
                }
                Err(FetchError::Status { status, .. }) if status.as_u16() == 404 => {
                    lists.insert(uri, None);
                }
                Err(_) => {}
            }
        }
        lists
    }

    /// Agents that are another than a token of the same, living object says: one was lost and made anew.
    pub fn replaced(&self, agents: &BTreeMap<(String, String), String>) -> Vec<String> {
        let model = self.model.lock().unwrap();
        let all = self.taken.lock().unwrap();
        let lives = all.iter().filter(|t| model.agent(t.thing).is_some_and(|m| m.uid == t.made));
        let other = lives.filter_map(|t| {
            let key = (namespace(Model::namespace_of(t.thing)), name(t.thing));
            let now = agents.get(&key)?;
            (*now != t.agent).then(|| format!("{}/{}: agent {} became {now}", key.0, key.1, t.agent))
        });
        other.collect::<BTreeSet<_>>().into_iter().collect()
    }
}

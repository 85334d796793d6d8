//! The work on Secrets, as the operator does it on the API server for tests.
//!
//! Invariant: a write meets the very Secret that was planned for, or none; each is counted and answered.

use super::apply::Done;
use super::*;
use crate::domain::plan::{Issue, SecretStep};
use crate::domain::schedule;

impl Cluster {
    pub(super) fn write_secret(&mut self, step: SecretStep) -> Done {
        match step {
            SecretStep::Keep => Ok(()),
            SecretStep::Create(issue) => self.create(&issue),
            SecretStep::Update(uid, issue, _) => {
                let key = issue.agent.sibling(issue.secret.clone());
                self.alive()?;
                let Some(old) = self.secrets.get(&key).filter(|s| s.seen.meta.uid == uid) else {
                    return Err(Undone::Refused);
                };
                let immutable = old.seen.drift.as_ref().is_some_and(|d| d.what == Changed::Immutable);
                assert!(!immutable, "an immutable Secret can't be written");
                let meta = old.seen.meta.clone();
                self.store(meta, &issue);
                Ok(())
            }
            SecretStep::Recreate(uid, issue, _) => {
                let key = issue.agent.sibling(issue.secret.clone());
                self.delete_secret(&key, uid)?;
                self.create(&issue)
            }
            SecretStep::Strip(uid, issue, files) => {
                let key = issue.agent.sibling(issue.secret.clone());
                self.alive()?;
                let version = self.next_version();
                let Some(stored) = self.secrets.get_mut(&key).filter(|s| s.seen.meta.uid == uid) else {
                    return Err(Undone::Refused);
                };
                stored.seen.meta.version = version;
                stored.seen.plan = Digest::default();
                let kept = stored.seen.tokens.iter().filter(|(f, _)| !files.contains(f)).cloned();
                stored.seen.tokens = kept.collect();
                stored.tokens.retain(|t| !files.iter().any(|f| **f == *t.file));
                self.answer_secret(&key);
                Ok(())
            }
            SecretStep::Delete(uid) => {
                let key = self.secrets.iter().find(|(_, s)| s.seen.meta.uid == uid).map(|(k, _)| k.clone());
                key.map_or(Ok(()), |key| self.delete_secret(&key, uid))
            }
        }
    }

    fn delete_secret(&mut self, key: &Key, uid: Uid) -> Done {
        self.alive()?;
        if self.secrets.get(key).is_some_and(|s| s.seen.meta.uid == uid) {
            self.delete(&Source::Secrets, key);
            self.writes.secrets += 1;
        }
        self.world.remove(&Source::Secrets, key, uid, 0);
        Ok(())
    }

    fn create(&mut self, issue: &Issue) -> Done {
        self.alive()?;
        let key = issue.agent.sibling(issue.secret.clone());
        if self.foreign.contains(&key) {
            let foreign = Foreign { what: "a Secret of type Opaque".into(), checked: self.now };
            self.world.note_foreign(&key, Some(foreign));
            return Err(Undone::Foreign);
        }
        if self.secrets.contains_key(&key) {
            return Err(Undone::Refused);
        }
        let meta = self.new_meta(&key);
        self.store(meta, issue);
        Ok(())
    }

    fn store(&mut self, mut meta: Meta, issue: &Issue) {
        let key = meta.key.clone();
        meta.version = self.next_version();
        let now = self.now;
        let tokens: Vec<_> = issue
            .tokens
            .iter()
            .map(|t| {
                let end = now + SignedDuration::from_secs(i64::from(t.entitlement.lifetime));
                let exp = t.entitlement.not_after.map_or(end, |n| n.min(end));
                Minted { file: t.file.clone(), entitlement: t.entitlement.clone(), iat: now, exp }
            })
            .collect();
        let withdrawn = tokens.is_empty();
        let seen = Credentials {
            meta,
            agent: Some(issue.uid),
            plan: issue.plan,
            tokens: tokens.iter().map(|t| ((*t.file).into(), t.entitlement.digest())).collect(),
            kids: if withdrawn { Box::default() } else { [self.kid.clone()].into() },
            renew_at: if withdrawn {
                Timestamp::MAX
            } else {
                schedule::renew_at(issue.uid, now, issue.lifetime)
            },
            expires_at: tokens.iter().map(|t| t.exp).min().unwrap_or(Timestamp::MAX),
            rotated: issue.rotation,
            drift: None,
        };
        if self.is_known() {
            self.check_minted(&issue.agent, &tokens);
        }
        self.secrets.insert(key.clone(), Stored { seen, tokens });
        self.answer_secret(&key);
    }

    fn answer_secret(&mut self, key: &Key) {
        self.writes.secrets += 1;
        let object = Object::Secret(Box::new(self.secrets[key].seen.clone()));
        self.world.take(object.clone(), Origin::Answer);
        self.put(Source::Secrets, object);
    }

    pub(super) fn work_on_orphan(&mut self, key: &Key) -> Done {
        let Some(secret) = self.world.secret(key) else { return Ok(()) };
        if !self.world.is_orphan(secret) {
            return Ok(());
        }
        if Source::CORE.iter().any(|s| !self.world.is_fresh(s, self.now)) {
            return Err(Undone::Refused);
        }
        let uid = secret.meta.uid;
        self.delete_secret(key, uid)
    }
}

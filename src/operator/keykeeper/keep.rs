//! One turn of the keeper: look, carry out a request, check, take the steps that are due, note the generation.
//!
//! Invariant: the ring is written first and noted on the Lease after, so a note never runs ahead of a ring.

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;

use super::renewal::{Loss, Renewal};
use super::{KeyKeeper, LiveTokens, answer};
use crate::{
    api::SigningAlgorithm,
    cluster::{
        client::Class,
        keystore::{
            Content, KeyringError, KeysAnswer, KeysRequest, Loaded, Operation, Outcome, Stored,
            crypto_algorithm,
        },
    },
    crypto::SigningKey,
    domain::keyring::{KeyRing, Request, Step, Times, ask, due},
};

type Signers = HashMap<String, Arc<SigningKey>>;
/// Makes the answer to a request from the ring that carried it out.
type Answering<'a> = &'a (dyn Fn(&KeyRing) -> KeysAnswer + Sync);

/// Counts the tokens that live at this moment.
type Counting<'a> = &'a (dyn Fn(Timestamp) -> LiveTokens + Send + Sync);

/// More batches than any ring can need at one moment.
const BATCHES: usize = 4;

/// The keeper with what it has read.
pub(super) struct Keep {
    keeper: KeyKeeper,
    /// The Secret, as far as it is there.
    stored: Option<Stored>,
    /// Whether `stored` is what the API server last said.
    current: bool,
    /// The generation on the Lease; absent until it was read.
    noted: Option<u64>,
    /// The highest generation seen anywhere.
    highest: u64,
    /// When a ring was last good in this process.
    used: Option<Timestamp>,
    /// Since when none is, as far as this process has seen.
    lost: Option<Timestamp>,
}

impl Keep {
    pub(super) const fn new(keeper: KeyKeeper) -> Self {
        Self { keeper, stored: None, current: false, noted: None, highest: 0, used: None, lost: None }
    }

    pub(super) const fn times(&self) -> &Times {
        &self.keeper.times
    }

    /// One turn. `None` while there is no ring and it is not known whether there may be a new one.
    pub(super) async fn turn(
        &mut self,
        now: Timestamp,
        published: u64,
        live: Counting<'_>,
    ) -> Result<Option<Arc<Loaded>>, KeyringError> {
        self.look().await?;
        let request = self.stored.as_ref().and_then(Stored::open_request).cloned();
        if let Some(request) = request {
            self.carry_out(&request, now, published, live).await?;
        }
        let mut loaded = match self.usable() {
            Ok(loaded) => loaded,
            Err(fault @ (KeyringError::Missing | KeyringError::Readdressed { .. })) => {
                let living = live(now);
                if self.used.is_none() && self.stored.is_none() && living == LiveTokens::Unknown {
                    return Ok(None);
                }
                if !self.renewal(&fault, &living, now).is_due(now) {
                    return Err(fault);
                }
                self.renew(now, Vec::new(), None).await?
            }
            Err(fault) => return Err(fault),
        };
        for _ in 0..BATCHES {
            let steps = due(&loaded.ring, self.times(), now, published >= loaded.ring.generation);
            if steps.is_empty() {
                break;
            }
            loaded = self.commit(&loaded.ring, &loaded.signers, &steps, now, None).await?;
        }
        (self.used, self.lost) = (Some(now), None);
        self.note(loaded.ring.generation).await;
        Ok(Some(loaded))
    }

    /// When a new ring may take the place of one that is lost, unasked.
    pub(super) fn renewal(&mut self, fault: &KeyringError, living: &LiveTokens, now: Timestamp) -> Renewal {
        let loss = Loss {
            used: self.used,
            seen: *self.lost.get_or_insert(now),
            noted: self.highest > 0,
            on_demand: self.keeper.on_demand,
        };
        Renewal::of(fault, living, &loss)
    }

    /// Reads the Secret if it is not the one that was read last, and the Lease once.
    async fn look(&mut self) -> Result<(), KeyringError> {
        if self.noted.is_none() {
            let noted = self.keeper.note.read().await?;
            self.noted = Some(noted);
            self.highest = self.highest.max(noted);
        }
        if self.current {
            let version = self.keeper.store.resource_version().await?;
            if version.as_deref() == self.stored.as_ref().map(|s| s.metadata.resource_version()) {
                return Ok(());
            }
        }
        let fetched = self.keeper.store.fetch().await;
        self.current = fetched.is_ok();
        match fetched {
            Ok(stored) => self.stored = stored,
            Err(KeyringError::Api(e)) => return Err(e.into()),
            Err(e) => {
                self.stored = None;
                return Err(e);
            }
        }
        Ok(())
    }

    /// The ring, if it may sign.
    fn usable(&mut self) -> Result<Arc<Loaded>, KeyringError> {
        let stored = self.stored.as_ref().ok_or(KeyringError::Missing)?;
        let loaded = stored.ring.clone()?;
        loaded.check(self.highest, &self.keeper.issuer, &self.keeper.trust_domain)?;
        self.highest = loaded.ring.generation;
        Ok(loaded)
    }

    async fn carry_out(
        &mut self,
        request: &KeysRequest,
        now: Timestamp,
        published: u64,
        live: Counting<'_>,
    ) -> Result<(), KeyringError> {
        tracing::info!(id = %request.id, op = ?request.op, kid = request.kid, "a request to the key ring");
        let times = *self.times();
        let asked = match (request.op, &request.kid) {
            (Operation::Reset, _) => {
                let mut kids = self.kids();
                if let LiveTokens::Known { kids: living, .. } = live(now) {
                    kids.extend(living);
                }
                let answering = |ring: &KeyRing| answer::reset(request, ring, now);
                return self.renew(now, kids, Some(&answering)).await.map(drop);
            }
            (Operation::Rotate, _) => Request::Rotate,
            (Operation::Revoke, Some(kid)) => Request::Revoke { kid: kid.clone() },
            (Operation::Revoke, None) => return self.refuse(request, now, "it names no key").await,
        };
        let loaded = match self.usable() {
            Ok(loaded) => loaded,
            Err(fault) => return self.refuse(request, now, &fault.to_string()).await,
        };
        let carried = published >= loaded.ring.generation;
        match ask(&loaded.ring, &asked, &times, now, carried) {
            Err(fault) => self.refuse(request, now, &fault.to_string()).await,
            Ok(steps) => {
                let answering = |ring: &KeyRing| match &asked {
                    Request::Rotate => answer::rotate(request, ring, &times, now),
                    Request::Revoke { kid } => answer::revoke(request, &loaded.ring, ring, kid, now),
                };
                self.commit(&loaded.ring, &loaded.signers, &steps, now, Some(&answering)).await.map(drop)
            }
        }
    }

    async fn refuse(&mut self, request: &KeysRequest, now: Timestamp, why: &str) -> Result<(), KeyringError> {
        let Some(stored) = &self.stored else { return Err(KeyringError::Missing) };
        let answer = answer::answer(request, Outcome::Refused, why.to_owned(), now);
        let written = self.keeper.store.answer(&stored.metadata, &answer).await;
        self.wrote(written)
    }

    /// The ids of the keys of the ring as far as it can be read.
    fn kids(&self) -> Vec<String> {
        let Some(Ok(loaded)) = self.stored.as_ref().map(|s| &s.ring) else { return Vec::new() };
        let revoked = loaded.ring.revoked.iter().map(|r| r.kid.as_str());
        loaded.ring.published_kids().chain(revoked).map(str::to_owned).collect()
    }

    /// A ring of new keys in the place of whatever there is; `disowned` are keys whose tokens may live.
    async fn renew(
        &mut self,
        now: Timestamp,
        disowned: Vec<String>,
        answering: Option<Answering<'_>>,
    ) -> Result<Arc<Loaded>, KeyringError> {
        let found = match self.stored.as_ref().map(|s| &s.ring) {
            Some(Ok(loaded)) => loaded.ring.generation,
            _ => 0,
        };
        let mut ring =
            KeyRing::empty(&self.keeper.issuer, &self.keeper.trust_domain, self.highest.max(found));
        ring.disown(disowned, now);
        let steps = due(&ring, self.times(), now, false);
        self.commit(&ring, &HashMap::new(), &steps, now, answering).await
    }

    /// Makes the keys that the steps ask for and writes the ring after them.
    async fn commit(
        &mut self,
        ring: &KeyRing,
        signers: &Signers,
        steps: &[Step],
        now: Timestamp,
        answering: Option<Answering<'_>>,
    ) -> Result<Arc<Loaded>, KeyringError> {
        let (mut signers, mut kids) = (signers.clone(), Vec::new());
        for step in steps {
            if let Step::Generate { slot, .. } = step {
                let key = generate(slot.algorithm()).await?;
                kids.push(key.kid().to_owned());
                signers.insert(key.kid().to_owned(), Arc::new(key));
            }
        }
        let next =
            ring.advance(steps, &kids, now).map_err(|e| KeyringError::Damaged { what: e.to_string() })?;
        let answer = answering.map(|make| make(&next));
        let times = *self.times();
        let content = Content { ring: &next, signers: &signers, times, answer: answer.as_ref() };
        let written = match &self.stored {
            Some(stored) => self.keeper.store.write(&stored.metadata, &content).await,
            None => self.keeper.store.create(&content).await,
        };
        self.wrote(written)?;
        tracing::info!(generation = next.generation, ?steps, new = ?kids, "the key ring has advanced");
        let loaded = self.usable()?;
        self.note(next.generation).await;
        Ok(loaded)
    }

    /// After a write that failed nobody knows what stands: look again.
    fn wrote(&mut self, written: Result<Stored, KeyringError>) -> Result<(), KeyringError> {
        self.current = written.is_ok();
        self.stored = Some(written?);
        Ok(())
    }

    /// Notes the generation on the Lease, if it is not there. A failure is made good in the next turn; till
    /// then only this process knows the highest generation.
    async fn note(&mut self, generation: u64) {
        const TRIES: usize = 3;
        if self.noted.is_some_and(|noted| noted >= generation) {
            return;
        }
        for left in (0..TRIES).rev() {
            match self.keeper.note.raise(generation).await {
                Ok(()) => {
                    self.noted = Some(generation);
                    return;
                }
                Err(e) if e.class() == Class::Conflict && left > 0 => {}
                Err(e) => {
                    tracing::warn!(error = %e, generation, "the key ring's generation is not noted yet");
                    return;
                }
            }
        }
    }
}

/// RSA keys take a while.
async fn generate(algorithm: SigningAlgorithm) -> Result<SigningKey, KeyringError> {
    let made = tokio::task::spawn_blocking(move || SigningKey::generate(crypto_algorithm(algorithm))).await;
    match made {
        Ok(made) => made.map_err(|e| KeyringError::Generate(e.to_string())),
        Err(e) => Err(KeyringError::Generate(e.to_string())),
    }
}

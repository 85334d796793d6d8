//! One turn of the keeper: look, take the steps that are due, issue what is to be served.
//!
//! Invariant: the authorities are written first and what they sign after, so an authority is never dropped while
//! something that it signed may be about.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::cluster::certstore::{
    AuthorityStore, CA_SECRET, CertificatesError, LoadedAuthorities, ServingContent, ServingStore,
    StoredAuthorities, StoredServing,
};
use crate::crypto::{Authority, X509Error};
use crate::domain::certificates::{Authorities, AuthorityRecord, ServingRecord, Step, Subject, Times, due};

/// More batches than can be due at one moment.
const BATCHES: usize = 4;
/// How long the serving certificate is left alone after it could not be written: every try notes a new one.
const AFTER_FAILURE: SignedDuration = SignedDuration::from_secs(30);

/// What came of a turn.
pub(super) struct Turned {
    /// The authorities to be published, as far as anything is known of them.
    pub(super) ca_pem: Option<Arc<str>>,
    /// What went wrong.
    pub(super) problems: Vec<CertificatesError>,
}

/// The keeper with what it has read.
pub(super) struct Keep {
    authorities: AuthorityStore,
    serving: ServingStore,
    times: Times,
    subject: Subject,
    /// The authorities' Secret, as far as it is there, and whether this is what the API server last said.
    ca: (Option<StoredAuthorities>, bool),
    /// The serving certificate's Secret, likewise.
    served: (Option<StoredServing>, bool),
    /// The highest generation seen.
    highest: u64,
    /// The last bundle that was good.
    ca_pem: Option<Arc<str>>,
    /// Until when no certificate is issued.
    rests_until: Option<Timestamp>,
}

impl Keep {
    pub(super) const fn new(
        authorities: AuthorityStore,
        serving: ServingStore,
        times: Times,
        subject: Subject,
    ) -> Self {
        Self {
            authorities,
            serving,
            times,
            subject,
            ca: (None, false),
            served: (None, false),
            highest: 0,
            ca_pem: None,
            rests_until: None,
        }
    }

    /// One turn. `published` is the bundle that every trust ConfigMap carries, if all carry the same.
    pub(super) async fn turn(&mut self, now: Timestamp, published: Option<&str>) -> Turned {
        let mut problems = Vec::new();
        let seen = self.look_at_serving().await;
        match self.keep_authorities(now, published).await {
            Ok(all) => {
                self.ca_pem = Some(all.bundle_pem().into());
                let kept = match seen {
                    Ok(()) => self.keep_serving(&all, now).await,
                    Err(e) => Err(e),
                };
                problems.extend(kept.err());
            }
            Err(e) => problems.extend([e].into_iter().chain(seen.err())),
        }
        if self.ca_pem.is_none() {
            // What is served was signed by one of these.
            self.ca_pem = self.certificate().map(|c| c.ca_pem.as_str().into());
        }
        Turned { ca_pem: self.ca_pem.clone(), problems }
    }

    fn certificate(&self) -> Option<&crate::cluster::certstore::ServingCertificate> {
        self.served.0.as_ref()?.certificate.as_ref().ok()
    }

    fn record(&self) -> Option<&ServingRecord> {
        self.certificate().map(|c| &c.record)
    }

    async fn keep_authorities(
        &mut self,
        now: Timestamp,
        published: Option<&str>,
    ) -> Result<Arc<LoadedAuthorities>, CertificatesError> {
        self.look_at_authorities().await?;
        let mut all = match &self.ca.0 {
            Some(stored) => stored.loaded.clone()?,
            // Lost or never made: nobody's trust can be preserved, so nothing is waited for.
            None => {
                let none = LoadedAuthorities {
                    state: Authorities::empty(self.highest),
                    authorities: std::collections::HashMap::new(),
                };
                Arc::new(none)
            }
        };
        for _ in 0..BATCHES {
            let carried = published.is_some_and(|p| p == all.bundle_pem());
            let steps = due(&all.state, self.record(), &self.times, now, carried);
            if steps.is_empty() {
                break;
            }
            all = self.commit(&all, &steps, now).await?;
        }
        self.highest = self.highest.max(all.state.generation);
        Ok(all)
    }

    async fn keep_serving(
        &mut self,
        all: &Arc<LoadedAuthorities>,
        now: Timestamp,
    ) -> Result<(), CertificatesError> {
        if self.rests_until.is_some_and(|until| now < until) {
            return Ok(());
        }
        let written = match all.state.signing(self.record(), &self.subject, &self.times, now) {
            Some(signing) => {
                let all = self.commit(all, &[signing.step()], now).await?;
                let Some(authority) = all.active() else { return Ok(()) };
                let Subject { dns_names, ip_addresses } = &self.subject;
                let issued = authority
                    .issue_server(dns_names, ip_addresses, now, signing.not_after)
                    .map_err(|e| make(&e))?;
                let record = ServingRecord {
                    authority: signing.authority,
                    subject: self.subject.clone(),
                    issued_at: now,
                    not_after: signing.not_after,
                };
                tracing::info!(?record, "a serving certificate is issued");
                let ca_pem = all.bundle_pem();
                let (chain_pem, key_pem) = (issued.chain_pem.as_str(), &issued.key_pem);
                self.write(&ServingContent { chain_pem, key_pem, ca_pem: &ca_pem, record: &record }).await
            }
            None => {
                let ca_pem = all.bundle_pem();
                let Some(old) = self.certificate().filter(|c| c.ca_pem != ca_pem).cloned() else {
                    return Ok(());
                };
                let (chain_pem, key_pem) = (old.chain_pem.as_str(), &old.key_pem);
                self.write(&ServingContent { chain_pem, key_pem, ca_pem: &ca_pem, record: &old.record }).await
            }
        };
        self.rests_until = match &written {
            Err(e) if !e.is_conflict() => Some(now + AFTER_FAILURE),
            _ => None,
        };
        written
    }

    async fn write(&mut self, content: &ServingContent<'_>) -> Result<(), CertificatesError> {
        let over = self.served.0.as_ref().map(|s| &s.metadata);
        let written = self.serving.write(over, content).await;
        // After a write that failed nobody knows what stands: look again.
        self.served.1 = written.is_ok();
        self.served.0 = Some(written?);
        Ok(())
    }

    /// Makes the authorities that the steps ask for and writes all after them.
    async fn commit(
        &mut self,
        all: &LoadedAuthorities,
        steps: &[Step],
        now: Timestamp,
    ) -> Result<Arc<LoadedAuthorities>, CertificatesError> {
        let mut ids = Vec::new();
        for step in steps {
            if matches!(step, Step::Generate { .. }) {
                ids.push(new_id()?);
            }
        }
        let state = all
            .state
            .advance(steps, &ids, now)
            .map_err(|e| CertificatesError::Damaged { secret: CA_SECRET, what: e.to_string() })?;
        let mut authorities = all.authorities.clone();
        authorities.retain(|id, _| state.find(id).is_some());
        for record in ids.iter().filter_map(|id| state.find(id)) {
            authorities.insert(record.id.clone(), Arc::new(generate(record)?));
        }
        let over = self.ca.0.as_ref().map(|s| &s.metadata);
        let written = self.authorities.write(over, &LoadedAuthorities { state, authorities }).await;
        self.ca.1 = written.is_ok();
        let stored = written?;
        let loaded = stored.loaded.clone();
        self.ca.0 = Some(stored);
        let loaded = loaded?;
        tracing::info!(generation = loaded.state.generation, ?steps, new = ?ids, "the certificate authorities have advanced");
        Ok(loaded)
    }

    /// Reads the authorities' Secret if it is not the one that was read last.
    async fn look_at_authorities(&mut self) -> Result<(), CertificatesError> {
        if self.ca.1 {
            let version = self.authorities.resource_version().await?;
            if version.as_deref() == self.ca.0.as_ref().map(|s| s.metadata.resource_version()) {
                return Ok(());
            }
        }
        let fetched = self.authorities.fetch().await;
        self.ca.1 = fetched.is_ok();
        self.ca.0 = fetched?;
        Ok(())
    }

    /// Reads the serving certificate's Secret if it is not the one that was read last. What another hand
    /// changed, but is of our type, is issued anew.
    async fn look_at_serving(&mut self) -> Result<(), CertificatesError> {
        if self.served.1 {
            let version = self.serving.resource_version().await?;
            if version.as_deref() == self.served.0.as_ref().map(|s| s.metadata.resource_version()) {
                return Ok(());
            }
        }
        let fetched = self.serving.stored().await;
        self.served.1 = fetched.is_ok();
        let stored = fetched?;
        if let Some(Err(fault)) = stored.as_ref().map(|s| &s.certificate) {
            tracing::warn!(%fault, "the serving certificate is issued anew");
        }
        self.served.0 = stored;
        Ok(())
    }
}

fn generate(record: &AuthorityRecord) -> Result<Authority, CertificatesError> {
    Authority::generate(&record.common_name(), record.created_at, record.not_after).map_err(|e| make(&e))
}

fn make(error: &X509Error) -> CertificatesError {
    CertificatesError::Make(error.to_string())
}

/// 128 random bits in hexadecimal digits.
fn new_id() -> Result<String, CertificatesError> {
    let mut bytes = [0u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| CertificatesError::Make("no randomness".to_owned()))?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

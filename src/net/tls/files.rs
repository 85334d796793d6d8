//! A pair in files that something else writes: cert-manager, the kubelet, a person.
//!
//! Invariant: a pair that is broken or half written changes nothing, and is warned of once.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Print, Tls, TlsError, print};
use crate::crypto::Secret;

const EVERY: Duration = Duration::from_secs(2);
/// The longest file that is read, in bytes.
const LIMIT: u64 = 1 << 20;

impl Tls {
    /// Looks every 2 s whether the files have changed, and serves what is in them from then on; until told to stop.
    pub async fn watch_files(&self, cert_chain: PathBuf, key: PathBuf, stop: CancellationToken) {
        let mut watch = Watch::new(cert_chain, key);
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            watch.look(self);
        }
    }
}

/// What a file was when it was last read.
type Stamp = (u64, u64, u64, i64, i64, i64, i64);

/// What can't be used.
#[derive(PartialEq, Eq)]
enum Broken {
    Unreadable,
    Unusable(Print),
}

pub(super) struct Watch {
    cert_chain: PathBuf,
    key: PathBuf,
    /// The stamps of the files as they were read, if what they held could be used.
    seen: Option<(Stamp, Stamp)>,
    /// What could not be used at the last look, and whether that was said. It is said at the second look, since
    /// two files can't be written in one instant.
    broken: Option<(Broken, bool)>,
}

impl Watch {
    pub(super) const fn new(cert_chain: PathBuf, key: PathBuf) -> Self {
        Self { cert_chain, key, seen: None, broken: None }
    }

    /// Serves what is in the files, if that is new and can be used.
    pub(super) fn look(&mut self, tls: &Tls) {
        // Before the files are read: what changes meanwhile is read again.
        let stamps = stamp(&self.cert_chain).and_then(|c| Ok((c, stamp(&self.key)?))).ok();
        if stamps.is_some() && stamps == self.seen {
            return;
        }
        self.seen = None;
        let (problem, broken) = match read(&self.cert_chain, &self.key) {
            Err(e) => (e, Broken::Unreadable),
            Ok((cert_chain, key)) => match tls.renew(&cert_chain, key.expose()) {
                Ok(renewed) => {
                    if renewed {
                        tracing::info!(certificate = %self.cert_chain.display(), "serving a new certificate");
                    }
                    (self.seen, self.broken) = (stamps, None);
                    return;
                }
                Err(e) => (e, Broken::Unusable(print(&cert_chain, key.expose()))),
            },
        };
        let again = matches!(&self.broken, Some((before, _)) if *before == broken);
        let said = again && matches!(self.broken, Some((_, true)));
        if again && !said {
            tracing::warn!(certificate = %self.cert_chain.display(), key = %self.key.display(), %problem,
                "the new certificate can't be used; the old one is still served");
        }
        self.broken = Some((broken, again));
    }
}

#[cfg(test)]
impl Watch {
    pub(super) const fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    pub(super) const fn has_warned(&self) -> bool {
        matches!(self.broken, Some((_, true)))
    }
}

fn stamp(path: &Path) -> io::Result<Stamp> {
    let m: Metadata = std::fs::metadata(path)?;
    Ok((m.dev(), m.ino(), m.size(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()))
}

/// The certificate chain and the key, as PEM.
pub(super) fn read(cert_chain: &Path, key: &Path) -> Result<(String, Secret<String>), TlsError> {
    let failed = |path: &Path, source| TlsError::File { path: path.display().to_string(), source };
    let cert_chain = text(cert_chain).map_err(|e| failed(cert_chain, e))?;
    let key = text(key).map_err(|e| failed(key, e))?;
    Ok((cert_chain.expose().clone(), key))
}

fn text(path: &Path) -> io::Result<Secret<String>> {
    let file = File::open(path)?;
    let longest = LIMIT.min(file.metadata()?.len());
    // With room for all of it, so that no copy of a key is left behind by growing.
    let mut text = Vec::with_capacity(usize::try_from(longest).unwrap_or_default() + 1);
    let read = file.take(LIMIT + 1).read_to_end(&mut text);
    let text = Secret::new(text);
    read?;
    if text.expose().len() as u64 > LIMIT {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "longer than 1 MiB"));
    }
    match std::str::from_utf8(text.expose()) {
        Ok(text) => Ok(Secret::new(text.to_owned())),
        Err(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "not PEM")),
    }
}

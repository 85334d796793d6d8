//! The TLS side of a listener: a certificate and its key, replaceable while connections are served.
//!
//! Invariants: only a pair that belongs together is ever served, and what can't be used leaves the last good pair
//! in place; nothing of a key is in an error, a log line or a Debug print; TLS 1.2 and 1.3, no client certificates.

mod files;

#[cfg(test)]
pub(super) mod tests;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::digest::{SHA256, digest};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use thiserror::Error;

use crate::crypto::{Validity, validity};

/// Why a certificate and a key can't be served.
#[derive(Debug, Error)]
pub enum TlsError {
    /// No certificate, or one that can't be read.
    #[error("the certificate: {0}")]
    Certificate(&'static str),
    /// No private key, or one that can't be used. Never says anything of the key.
    #[error("the private key: {0}")]
    Key(&'static str),
    /// The key is not the one of the first certificate.
    #[error("the private key does not belong to the certificate")]
    Mismatch,
    /// A file that can't be read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

/// What connections are answered with. Clones share it: a pair replaced in one is replaced in all.
#[derive(Clone)]
pub struct Tls(Arc<RwLock<Loaded>>);

struct Loaded {
    config: Arc<ServerConfig>,
    print: Print,
    validity: Option<Validity>,
}

/// A fingerprint of a certificate and its key, to see whether anything changed without keeping the key.
type Print = [u8; 32];

impl Tls {
    /// Serves a certificate chain (PEM, the server's own certificate first) with its private key (PEM: PKCS #8,
    /// PKCS #1 or SEC 1; not encrypted).
    ///
    /// # Errors
    /// [`TlsError`] unless the pair can be used and belongs together.
    pub fn new(cert_chain_pem: &str, key_pem: &str) -> Result<Self, TlsError> {
        let config = config(cert_chain_pem, key_pem)?;
        let (print, validity) = (print(cert_chain_pem, key_pem), validity(cert_chain_pem));
        Ok(Self(Arc::new(RwLock::new(Loaded { config, print, validity }))))
    }

    /// The same, from files of at most 1 MiB.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn from_files(cert_chain: &Path, key: &Path) -> Result<Self, TlsError> {
        let (cert_chain, key) = files::read(cert_chain, key)?;
        Self::new(&cert_chain, key.expose())
    }

    /// Serves another pair from the next connection on; sessions begun with the old one can't be resumed. The pair
    /// in use stays when the new one can't be used.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn replace(&self, cert_chain_pem: &str, key_pem: &str) -> Result<(), TlsError> {
        self.renew(cert_chain_pem, key_pem).map(drop)
    }

    /// Whether the pair was another one than the pair in use.
    fn renew(&self, cert_chain_pem: &str, key_pem: &str) -> Result<bool, TlsError> {
        let print = print(cert_chain_pem, key_pem);
        if self.0.read().unwrap_or_else(PoisonError::into_inner).print == print {
            return Ok(false);
        }
        let config = config(cert_chain_pem, key_pem)?;
        let validity = validity(cert_chain_pem);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Loaded { config, print, validity };
        Ok(true)
    }

    /// When the server's own certificate is valid, if it can be told.
    #[must_use]
    pub fn validity(&self) -> Option<Validity> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).validity
    }

    /// What a new connection is answered with.
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).config.clone()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

fn print(cert_chain_pem: &str, key_pem: &str) -> Print {
    // The digests and not the texts are joined, so that nothing can wander from one into the other.
    let joined = [digest(&SHA256, cert_chain_pem.as_bytes()), digest(&SHA256, key_pem.as_bytes())]
        .iter()
        .flat_map(|d| d.as_ref().iter().copied())
        .collect::<Vec<u8>>();
    let mut print = Print::default();
    for (to, from) in print.iter_mut().zip(digest(&SHA256, &joined).as_ref()) {
        *to = *from;
    }
    print
}

/// The errors of the PEM reader may quote what they read: none is passed on.
fn config(cert_chain_pem: &str, key_pem: &str) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = CertificateDer::pem_slice_iter(cert_chain_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| TlsError::Certificate("not PEM"))?;
    if chain.is_empty() {
        return Err(TlsError::Certificate("no certificate (PEM) in it"));
    }
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|e| match e {
        rustls::pki_types::pem::Error::NoItemsFound => {
            TlsError::Key("no unencrypted private key (PEM) in it")
        }
        _ => TlsError::Key("not PEM"),
    })?;
    let builder =
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|_| TlsError::Key("no TLS version is compiled in"))?
            .with_no_client_auth();
    let mut config = builder.with_single_cert(chain, key).map_err(|e| match e {
        rustls::Error::InconsistentKeys(_) => TlsError::Mismatch,
        rustls::Error::InvalidCertificate(_) => TlsError::Certificate("not an X.509 certificate"),
        _ => TlsError::Key("neither an RSA, an ECDSA nor an Ed25519 key that can be used"),
    })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

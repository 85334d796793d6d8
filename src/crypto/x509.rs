//! Certificates for our own TLS (RFC 5280): authorities that sign, and what they sign for servers. All keys are
//! ECDSA on P-256.
//!
//! Invariants: an authority's key is the one in its certificate; what it issues is verified against that
//! certificate before anybody gets it; private keys leave only wrapped in a [`Secret`].

mod validity;

use std::{fmt, net::IpAddr, time::Duration};

use aws_lc_rs::rand;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use rustls::{
    RootCertStore,
    client::verify_server_cert_signed_by_trust_anchor,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, UnixTime, pem::PemObject},
    server::ParsedCertificate,
};
use thiserror::Error;

use super::Secret;

pub use validity::{Validity, validity};

/// By how much a certificate is valid before it is made: clocks may be off by as much.
pub const BACKDATED: SignedDuration = SignedDuration::from_mins(5);

/// The subject of server certificates; verifiers look at the names alone.
const SERVER_SUBJECT: &str = "agentid";

/// A certificate or its key could not be made or read. Never says anything about a key's content.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum X509Error {
    /// Not one PEM block `CERTIFICATE` (RFC 7468 §5) that a verifier takes as a trust anchor.
    #[error("not a certificate in PEM that can be trusted")]
    Certificate,
    /// Not an unencrypted PKCS#8 key on P-256 in PEM.
    #[error("not an unencrypted PKCS#8 key on P-256 in PEM")]
    Key,
    /// The certificate bears another name, or another key's public half.
    #[error("the certificate is not the one of {0:?} with this key")]
    Mismatch(String),
    /// A name that can't stand in a certificate.
    #[error("{0:?} can't be a name in a certificate")]
    Name(String),
    /// A server certificate without any name or address.
    #[error("a server certificate needs a name or an address")]
    Nameless,
    /// The provider failed.
    #[error("the certificate can't be made: {0}")]
    Make(&'static str),
    /// What was issued does not hold against the authority's own certificate.
    #[error("the issued certificate does not verify against its authority's")]
    Unverified,
}

/// A certificate authority with its key.
pub struct Authority {
    certificate_pem: String,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate for a server, with its key.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The chain in PEM, the server's own certificate first. The authority is not part of it (RFC 8446 §4.4.2:
    /// a trust anchor may be left out).
    pub chain_pem: String,
    /// The key as PKCS#8 in PEM.
    pub key_pem: Secret<String>,
}

impl Authority {
    /// Makes an authority that signs itself: the certificate of `common_name` is valid from [`BACKDATED`] before
    /// `from`, until `until`.
    ///
    /// # Errors
    /// [`X509Error::Make`] if the provider fails.
    pub fn generate(common_name: &str, from: Timestamp, until: Timestamp) -> Result<Self, X509Error> {
        let key = new_key()?;
        let mut params = authority_params(common_name);
        valid(&mut params, from, until)?;
        let certificate = params.self_signed(&key).map_err(|_| X509Error::Make("signing failed"))?;
        Ok(Self {
            certificate_pem: certificate.pem(),
            certificate: certificate.der().clone(),
            issuer: Issuer::new(params, key),
        })
    }

    /// Reads an authority that [`Authority::generate`] made.
    ///
    /// # Errors
    /// [`X509Error::Certificate`], [`X509Error::Key`]; [`X509Error::Mismatch`] where the two don't belong together
    /// or the certificate is not that of `common_name`.
    pub fn from_pem(common_name: &str, certificate: &str, key: &str) -> Result<Self, X509Error> {
        let der =
            CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|_| X509Error::Certificate)?;
        RootCertStore::empty().add(der.clone()).map_err(|_| X509Error::Certificate)?;
        let key = KeyPair::from_pkcs8_pem_and_sign_algo(key, &PKCS_ECDSA_P256_SHA256)
            .map_err(|_| X509Error::Key)?;
        // The subject is a UTF8String and the public key a BIT STRING: both stand in the DER as they are.
        if !holds(&der, common_name.as_bytes()) || !holds(&der, &key.subject_public_key_info()) {
            return Err(X509Error::Mismatch(common_name.to_owned()));
        }
        Ok(Self {
            certificate_pem: certificate.to_owned(),
            certificate: der,
            issuer: Issuer::new(authority_params(common_name), key),
        })
    }

    /// The certificate in PEM, for those who are to trust it.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The key as PKCS#8 in PEM.
    #[must_use]
    pub fn key_pem(&self) -> Secret<String> {
        Secret::new(self.issuer.key().serialize_pem())
    }

    /// Issues a certificate with a new key to a server of these DNS names (a leading `*.` label is allowed) and
    /// addresses, valid from [`BACKDATED`] before `from`, until `until`.
    ///
    /// # Errors
    /// [`X509Error::Name`], [`X509Error::Nameless`]; [`X509Error::Make`] if the provider fails;
    /// [`X509Error::Unverified`] for what no verifier would take, such as a validity that is over.
    pub fn issue_server(
        &self,
        dns_names: &[String],
        ip_addresses: &[IpAddr],
        from: Timestamp,
        until: Timestamp,
    ) -> Result<Issued, X509Error> {
        let mut params = CertificateParams::default();
        for name in dns_names {
            let text = name.as_str().try_into().map_err(|_| X509Error::Name(name.clone()))?;
            params.subject_alt_names.push(SanType::DnsName(text));
        }
        params.subject_alt_names.extend(ip_addresses.iter().copied().map(SanType::IpAddress));
        if params.subject_alt_names.is_empty() {
            return Err(X509Error::Nameless);
        }
        params.distinguished_name = subject(SERVER_SUBJECT);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        valid(&mut params, from, until)?;
        let key = new_key()?;
        let certificate =
            params.signed_by(&key, &self.issuer).map_err(|_| X509Error::Make("signing failed"))?;
        self.verify(certificate.der(), from)?;
        Ok(Issued { chain_pem: certificate.pem(), key_pem: Secret::new(key.serialize_pem()) })
    }

    fn verify(&self, certificate: &CertificateDer<'_>, now: Timestamp) -> Result<(), X509Error> {
        let unverified = |_| X509Error::Unverified;
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).map_err(unverified)?;
        let parsed = ParsedCertificate::try_from(certificate).map_err(unverified)?;
        let now = UnixTime::since_unix_epoch(since_epoch(now));
        let algorithms = default_provider().signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &[], now, algorithms).map_err(unverified)
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("certificate", &self.certificate_pem).finish_non_exhaustive()
    }
}

fn authority_params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn subject(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// Sets the validity and a random serial number of 16 octets, positive (RFC 5280 §4.1.2.2).
fn valid(params: &mut CertificateParams, from: Timestamp, until: Timestamp) -> Result<(), X509Error> {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_epoch(from - BACKDATED);
    params.not_after = epoch + since_epoch(until);
    let mut serial = [0; 16];
    rand::fill(&mut serial).map_err(|_| X509Error::Make("no randomness"))?;
    serial[0] = (serial[0] & 0x7f) | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(())
}

/// Whole seconds, 0 before 1970.
fn since_epoch(at: Timestamp) -> Duration {
    Duration::from_secs(u64::try_from(at.as_second()).unwrap_or_default())
}

fn new_key() -> Result<KeyPair, X509Error> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|_| X509Error::Make("no key"))
}

fn holds(der: &CertificateDer<'_>, part: &[u8]) -> bool {
    !part.is_empty() && der.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests;

//! From when until when a certificate is valid: the one field that is read of certificates which are not of our making.
//!
//! Invariant: what is no certificate says nothing; it decides nothing either, it is only told.

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use rustls::pki_types::{CertificateDer, pem::PemObject};

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// When a certificate is valid (RFC 5280 §4.1.2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// From when on.
    pub not_before: Timestamp,
    /// Until when.
    pub not_after: Timestamp,
}

/// When the first certificate of a chain in PEM is valid.
#[must_use]
pub fn validity(chain_pem: &str) -> Option<Validity> {
    let der = CertificateDer::from_pem_slice(chain_pem.as_bytes()).ok()?;
    let (certificate, _) = inside(&der, SEQUENCE)?;
    let (mut fields, _) = inside(certificate, SEQUENCE)?;
    if let Some((_, rest)) = inside(fields, VERSION) {
        fields = rest;
    }
    // The serial number, the signature's algorithm, the issuer.
    for _ in 0..3 {
        fields = value(fields)?.2;
    }
    let (validity, _) = inside(fields, SEQUENCE)?;
    let (not_before, rest) = time(validity)?;
    let (not_after, _) = time(rest)?;
    Some(Validity { not_before, not_after })
}

/// The instant that comes first, and what follows it.
fn time(der: &[u8]) -> Option<(Timestamp, &[u8])> {
    let (tag, text, rest) = value(der)?;
    let text = std::str::from_utf8(text).ok()?;
    let full = match (tag, text.get(..2)?) {
        // RFC 5280 §4.1.2.5.1: two digits of a year from 1950 to 2049.
        (UTC_TIME, year) if year < "50" => format!("20{text}"),
        (UTC_TIME, _) => format!("19{text}"),
        (GENERALIZED_TIME, _) => text.to_owned(),
        _ => return None,
    };
    let at = DateTime::strptime("%Y%m%d%H%M%S", full.strip_suffix('Z')?).ok()?;
    Some((TimeZone::UTC.to_timestamp(at).ok()?, rest))
}

/// The content of a value of this tag, and what follows it.
fn inside(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = value(der)?;
    (found == tag).then_some((content, rest))
}

/// The first value: its tag, its content, and what follows (X.690 §8.1, definite lengths).
fn value(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let [tag, length, rest @ ..] = der else { return None };
    let (length, rest) = match *length {
        short @ 0..=0x7f => (usize::from(short), rest),
        long @ 0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            (bytes.iter().fold(0, |n, b| n << 8 | usize::from(*b)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::crypto::{Authority, BACKDATED};

    #[test]
    fn a_certificate_says_when_it_is_valid() {
        let now = Timestamp::now();
        let seconds = |pem: &str| {
            let Validity { not_before, not_after } = validity(pem).unwrap();
            (not_before.as_second(), not_after.as_second())
        };
        let from = (now - BACKDATED).as_second();
        // Before 2050 a UTCTime, from then on a GeneralizedTime.
        for until in [now + SignedDuration::from_hours(24), "2061-02-03T04:05:06Z".parse().unwrap()] {
            let authority = Authority::generate("a", now, until).unwrap();
            assert_eq!(seconds(authority.certificate_pem()), (from, until.as_second()));
            let server = now + SignedDuration::from_hours(1);
            let issued = authority.issue_server(&["a.example.com".to_owned()], &[], now, server).unwrap();
            assert_eq!(seconds(&issued.chain_pem), (from, server.as_second()));
        }
    }

    #[test]
    fn what_is_no_certificate_says_nothing() {
        assert_eq!(validity(""), None);
        let pem =
            |base64: &str| format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n");
        for base64 in ["MA==", "MAA=", "MAIwAA==", "MIT/////", "MIA=", "AAAA"] {
            assert_eq!(validity(&pem(base64)), None, "{base64}");
        }
    }
}

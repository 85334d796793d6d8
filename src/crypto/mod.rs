//! Keys, JWS, JWK sets, status lists. A leaf: uses no other room, reads no clock, does no I/O.
//!
//! One crypto provider, `aws-lc-rs`: it signs here, verifies through `jsonwebtoken` and speaks TLS through `rustls`.
//! Invariants: private key material leaves only through [`SigningKey::to_pkcs8_pem`], wrapped in a [`Secret`];
//! a key of ours is used with exactly one algorithm (RFC 8725 §3.1); a token is trusted only once [`verify()`] (ours) or
//! [`verify_foreign`] (others') returned it.

mod compact;
mod foreign;
mod jwk;
mod key;
mod secret;
mod status_list;
mod strict_json;
mod verify;
mod x509;

#[cfg(test)]
mod tests;

pub use compact::{FormError, Inspected};
pub use foreign::{
    ForeignAlgorithm, ForeignError, ForeignExpect, ForeignKey, ForeignKeys, audiences, peek, verify_foreign,
};
pub use jwk::{Jwk, JwkError, JwkSet, ParsedSet, SkippedKey};
pub use key::{Algorithm, KeyError, SignError, SigningKey, UnknownAlgorithm};
pub use secret::Secret;
pub use status_list::{
    DecodedList, MAX_STATUS_ENTRIES, MAX_STATUS_LIST_TOKEN_BYTES, STATUS_LIST_TYP, StatusBits, StatusList,
    StatusListClaims, StatusListError, StatusListToken, StatusRef, verify_status_list,
};
pub use verify::{
    CHECKS, Expect, ExpectAny, MAX_TOKEN_BYTES, Typ, Verified, VerifyError, inspect, verify,
    verify_any_audience,
};
pub use x509::{Authority, BACKDATED, Issued, Validity, X509Error, validity};

/// Makes `aws-lc-rs` the process-wide provider of `rustls` and `jsonwebtoken`.
///
/// Call it first in `main`; further calls, from any thread, return once the first has finished.
pub fn install_provider() {
    static INSTALLED: std::sync::Once = std::sync::Once::new();
    INSTALLED.call_once(|| {
        // Both refuse only when a default stands already. aws-lc-rs is the only provider compiled in, so a
        // default that stands is this one.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
    });
}

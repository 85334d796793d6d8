//! Tests of the room as its users see it.

mod foreign;
mod keys;
mod status_list;
mod tokens;

use std::sync::LazyLock;

use super::*;

/// One key of each algorithm for all tests: making an RSA key takes long.
pub(super) static ES256: LazyLock<SigningKey> =
    LazyLock::new(|| SigningKey::generate(Algorithm::ES256).unwrap());
pub(super) static RS256: LazyLock<SigningKey> =
    LazyLock::new(|| SigningKey::generate(Algorithm::RS256).unwrap());

pub(super) fn both() -> [&'static SigningKey; 2] {
    [&ES256, &RS256]
}

pub(super) fn key_set() -> JwkSet {
    both().map(SigningKey::public_jwk).into_iter().collect()
}

#[test]
fn the_provider_can_be_installed_from_many_threads() {
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                install_provider();
                assert!(rustls::crypto::CryptoProvider::get_default().is_some());
            });
        }
    });
    install_provider();
}

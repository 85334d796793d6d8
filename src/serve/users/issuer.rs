//! Where a user issuer's keys are (OpenID Connect Discovery 1.0 §4).
//!
//! Invariant: the discovery document must name the configured issuer (§4.3), whoever serves it.

use std::time::Duration;

use serde::Deserialize;

use crate::api::UserIssuerSource;
use crate::crypto::ForeignKeys;
use crate::net::fetch::{FetchOptions, Guard, Roots, fetch};
use crate::serve::keysets::Source;

/// How long keys are fresh, whatever the issuer says.
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(3600);
/// If it says nothing.
const USUAL: Duration = Duration::from_secs(600);
/// How long one fetch may take; there are two.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest document, in bytes: 128 keys of RSA-4096 with their certificates.
const LIMIT: usize = 512 << 10;

/// An issuer's published keys.
pub(super) struct Published {
    url: String,
    discovery_url: String,
    options: FetchOptions,
}

impl Published {
    pub(super) fn new(source: &UserIssuerSource) -> Self {
        let usual = || format!("{}/.well-known/openid-configuration", source.url.trim_end_matches('/'));
        let options = FetchOptions {
            roots: source.certificate_authority.clone().map_or(Roots::System, Roots::Pem),
            guard: Guard::Public { allowed: source.allowed_networks.clone() },
            accept: "application/json, application/jwk-set+json",
            limit: LIMIT,
            timeout: TIMEOUT,
        };
        Self {
            url: source.url.clone(),
            discovery_url: source.discovery_url.clone().unwrap_or_else(usual),
            options,
        }
    }
}

impl Source for Published {
    type Keys = ForeignKeys;

    fn name(&self) -> &str {
        &self.url
    }

    async fn read(&self) -> Result<(ForeignKeys, Duration), String> {
        #[derive(Deserialize)]
        struct Document {
            issuer: String,
            jwks_uri: String,
        }
        let fetched = fetch(&self.discovery_url, &self.options).await.map_err(|e| e.to_string())?;
        // serde's messages quote what they stumble over: the error is dropped.
        let document: Document = serde_json::from_str(&fetched.body).map_err(|_| {
            format!("{}: not a discovery document with issuer and jwks_uri", self.discovery_url)
        })?;
        if document.issuer != self.url {
            return Err(format!("{}: the document is of another issuer", self.discovery_url));
        }
        let fetched = fetch(&document.jwks_uri, &self.options).await.map_err(|e| e.to_string())?;
        let keys = ForeignKeys::parse(&fetched.body).map_err(|e| format!("the keys of {}: {e}", self.url))?;
        Ok((keys, fetched.max_age().unwrap_or(USUAL).clamp(SHORTEST, LONGEST)))
    }
}

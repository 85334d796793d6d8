//! Who signs the service-account tokens of this cluster: the issuer and its keys, as the API server publishes them.
//!
//! Invariant: both come from the API server itself, over its own connection; the `jwks_uri` of the discovery
//! document, which leads anywhere, is not followed.

use std::fmt;
use std::sync::Arc;

use http::Request;
use kube::Client;
use serde::Deserialize;

use super::client::{CallError, Class, timed};
use crate::crypto::ForeignKeys;

const DOCUMENT: &str = "/.well-known/openid-configuration";
const KEYS: &str = "/openid/v1/jwks";

/// The cluster's own issuer of service-account tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterKeys {
    /// The `iss` of its tokens. A cluster that changes it accepts the old one's tokens for a while; here they are
    /// another issuer's.
    pub issuer: Arc<str>,
    /// Its public keys.
    pub keys: ForeignKeys,
}

/// Reads [`ClusterKeys`]. Every service account may (`system:service-account-issuer-discovery`).
#[derive(Clone)]
pub struct Discovery(Client);

impl fmt::Debug for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Discovery")
    }
}

impl Discovery {
    /// Reads through this client.
    #[must_use]
    pub const fn new(client: Client) -> Self {
        Self(client)
    }

    /// The issuer and its keys as they are now: two calls.
    ///
    /// # Errors
    /// A failed call, or [`Class::Server`] for documents that can't be used.
    pub async fn read(&self) -> Result<ClusterKeys, CallError> {
        let issuer = issuer(&self.text(DOCUMENT).await?)?;
        let keys = ForeignKeys::parse(&self.text(KEYS).await?)
            .map_err(|e| CallError::new(Class::Server, format!("{KEYS}: {e}")))?;
        Ok(ClusterKeys { issuer, keys })
    }

    async fn text(&self, path: &str) -> Result<String, CallError> {
        let request = Request::get(path).body(Vec::new());
        let request = request.map_err(|_| CallError::new(Class::Invalid, "the path can't be asked for"))?;
        timed(self.0.request_text(request)).await
    }
}

fn issuer(document: &str) -> Result<Arc<str>, CallError> {
    #[derive(Deserialize)]
    struct Document {
        issuer: String,
    }
    match serde_json::from_str::<Document>(document) {
        Ok(Document { issuer }) if !issuer.is_empty() => Ok(issuer.into()),
        _ => Err(CallError::new(Class::Server, format!("{DOCUMENT} names no issuer"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_issuer_is_read_or_its_lack_said() {
        let document = r#"{"issuer":"https://kubernetes.default.svc","jwks_uri":"https://10.0.0.1/keys"}"#;
        assert_eq!(&*issuer(document).unwrap(), "https://kubernetes.default.svc");
        for bad in ["", "[]", "{}", r#"{"issuer":""}"#, r#"{"issuer":1}"#, r#"{"issuer":"a","issuer":"b"}"#] {
            assert_eq!(issuer(bad).unwrap_err().class(), Class::Server, "{bad}");
        }
    }
}

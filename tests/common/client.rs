//! A client of the token service that keeps its connections, unlike [`crate::service::Service::post`].
//!
//! Use with `#[path = "../common/client.rs"] mod client;` beside `mod service;`.
#![allow(dead_code, reason = "each crate uses its part")]

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;

use crate::service::Service;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Posts forms to one service.
#[derive(Clone)]
pub struct Poster {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    issuer: String,
}

impl Poster {
    /// A client that trusts the service's CA.
    pub fn new(service: &Service) -> Self {
        agentid::crypto::install_provider();
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(service.ca.as_bytes()) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let https = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_only()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new()).build(https);
        Self { client, issuer: service.issuer.clone() }
    }

    /// POSTs a form that is already encoded: the whole answer.
    ///
    /// # Errors
    /// Where the connection breaks: the service may end one that was kept just as it is used again.
    pub async fn answer(&self, path: &str, form: Bytes) -> Result<http::Response<Bytes>, BoxError> {
        let request = http::Request::post(format!("{}{path}", self.issuer))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Full::new(form))
            .unwrap();
        let (head, body) = self.client.request(request).await?.into_parts();
        Ok(http::Response::from_parts(head, body.collect().await?.to_bytes()))
    }

    /// As [`Self::answer`]: the status and the body.
    ///
    /// # Panics
    /// Where the connection breaks.
    pub async fn post(&self, path: &str, form: Bytes) -> (u16, Bytes) {
        let answer = self.answer(path, form).await.unwrap();
        (answer.status().as_u16(), answer.into_body())
    }

    /// As [`Self::post`], the body as JSON.
    pub async fn json(&self, path: &str, form: Bytes) -> (u16, Value) {
        let (status, body) = self.post(path, form).await;
        (status, serde_json::from_slice(&body).unwrap())
    }
}

/// Encodes a form.
pub fn form(fields: &[(&str, &str)]) -> Bytes {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish().into()
}

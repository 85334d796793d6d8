//! A client of the token service that keeps its connections, unlike the harness's.

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

    /// POSTs a form that is already encoded: the status and the body.
    pub async fn post(&self, path: &str, form: Bytes) -> (u16, Bytes) {
        let request = http::Request::post(format!("{}{path}", self.issuer))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Full::new(form))
            .unwrap();
        let answer = self.client.request(request).await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.into_body().collect().await.unwrap().to_bytes())
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

//! Requests as no decent client sends them, and what a refusal must look like.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::service::Service;

pub const FORM: &str = "application/x-www-form-urlencoded";

/// An answer as it came.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    fn read(text: &str) -> Option<Self> {
        let (head, body) = text.split_once("\r\n\r\n")?;
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(':')?;
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).ok()?,
                HeaderValue::from_str(value.trim()).ok()?,
            );
        }
        Some(Self { status, headers, text: body.to_owned() })
    }

    /// That a refusal is one of OAuth's, with all that must be said beside it.
    pub fn is_refused(&self, name: &str, status: u16, code: &str) {
        assert_eq!((self.status, self.json()["error"].as_str()), (status, Some(code)), "{name}: {self:?}");
        assert_eq!(self.header("cache-control"), "no-store", "{name}: {self:?}");
        assert!(self.header("content-type").starts_with("application/json"), "{name}: {self:?}");
        let description = self.json()["error_description"].as_str().unwrap_or_default().to_owned();
        let telling = |c: char| (' '..='~').contains(&c) && c != '"' && c != '\\';
        assert!(!description.is_empty() && description.chars().all(telling), "{name}: {self:?}");
        match status {
            405 => assert_eq!(self.header("allow"), "POST", "{name}: {self:?}"),
            429 | 503 => assert!(self.header("retry-after").parse::<u64>().unwrap() > 0, "{name}: {self:?}"),
            _ => {}
        }
    }
}

/// A connection to the service.
pub async fn connection(service: &Service) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    for cert in CertificateDer::pem_slice_iter(service.ca.as_bytes()) {
        roots.add(cert.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(host(service)).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

pub fn host(service: &Service) -> &str {
    service.issuer.trim_start_matches("https://")
}

/// Reads to the end of the connection, however it ends.
pub async fn rest(stream: &mut TlsStream<TcpStream>) -> Option<Answer> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 16384];
    loop {
        match tokio::time::timeout(Duration::from_secs(30), stream.read(&mut buffer)).await {
            Ok(Ok(n)) if n > 0 => bytes.extend_from_slice(&buffer[..n]),
            Ok(_) => break,
            Err(_) => panic!("the connection is held open: {}", String::from_utf8_lossy(&bytes)),
        }
    }
    Answer::read(&String::from_utf8_lossy(&bytes))
}

/// Sends a request as it is told.
pub async fn send(
    service: &Service,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut stream = connection(service).await;
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", host(service));
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
    // Who is refused early may find the connection closed.
    let _ = stream.write_all(body.as_bytes()).await;
    let _ = stream.flush().await;
    rest(&mut stream).await.unwrap_or_else(|| panic!("no answer to {method} {path}"))
}

/// POSTs a form, in which names may be repeated.
pub async fn post(service: &Service, path: &str, headers: &[(&str, &str)], form: &[(&str, &str)]) -> Answer {
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let mut all = vec![("content-type", FORM)];
    all.extend(headers);
    send(service, "POST", path, &all, &body).await
}

/// That a text holds nothing of the payloads or signatures of credentials, not even 20 characters.
pub fn tells_nothing(what: &str, text: &str, credentials: &[&str]) {
    const LENGTH: usize = 20;
    let parts = credentials.iter().flat_map(|c| c.split('.').skip(1));
    let secret: HashSet<&[u8]> = parts.flat_map(|p| p.as_bytes().windows(LENGTH)).collect();
    for line in text.lines() {
        let found = line.as_bytes().windows(LENGTH).find(|w| secret.contains(w));
        assert!(found.is_none(), "{what} holds part of a credential: {line}");
    }
}

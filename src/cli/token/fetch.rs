//! A JWK set from a file or a URL.
//!
//! Invariants: at most 1 MiB is read, within 10 s; no redirect is followed; no key comes over a connection that
//! somebody else could have written to (https, or http to this very machine).

use std::io;
use std::path::Path;
use std::time::Duration;

use http::{Request, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;

use super::super::text::printable;

/// The longest document that is read, in bytes.
const LIMIT: usize = 1 << 20;
/// How long a fetch may take in all.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why a JWK set can't be had.
#[derive(Debug, Error)]
pub enum FetchError {
    /// A file that can't be read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// An address that is not fetched.
    #[error("{url}: {problem}")]
    Url {
        /// The URL.
        url: String,
        /// Why not, and what to do.
        problem: &'static str,
    },
    /// Certificates that can't be used.
    #[error("{path}: {problem}")]
    Certificates {
        /// The file, or `the system's certificates`.
        path: String,
        /// Why.
        problem: String,
    },
    /// No answer, or none that can be used.
    #[error("{url}: {problem}")]
    Answer {
        /// The URL.
        url: String,
        /// Why.
        problem: String,
    },
}

/// Reads a document from a file or, where it begins with `http:` or `https:`, from a URL.
pub(super) async fn document(from: &str, ca: Option<&Path>) -> Result<String, FetchError> {
    if !is_url(from) {
        return file(from);
    }
    let refused = |problem| FetchError::Url { url: printable(from), problem };
    let uri = address(from).map_err(refused)?;
    if ca.is_some() && uri.scheme_str() == Some("http") {
        return Err(refused("--ca has no meaning without https"));
    }
    match tokio::time::timeout(TIMEOUT, get(&uri, ca)).await {
        Ok(answer) => answer,
        Err(_) => Err(FetchError::Answer {
            url: uri.to_string(),
            problem: format!("no whole answer within {} s", TIMEOUT.as_secs()),
        }),
    }
}

fn is_url(from: &str) -> bool {
    let scheme = |s: &str| from.get(..s.len()).is_some_and(|head| head.eq_ignore_ascii_case(s));
    scheme("http://") || scheme("https://")
}

fn file(path: &str) -> Result<String, FetchError> {
    use std::io::Read;
    let failed = |source| FetchError::File { path: printable(path), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(LIMIT as u64 + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() > LIMIT {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidData, "longer than 1 MiB")));
    }
    Ok(text)
}

/// The address, if it may be fetched.
pub(super) fn address(url: &str) -> Result<Uri, &'static str> {
    let uri: Uri = url.parse().map_err(|_| "not a URL")?;
    let authority = uri.authority().ok_or("a URL without a host")?;
    if authority.as_str().contains('@') {
        return Err("a URL with a user name or password is not fetched");
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let local = host.eq_ignore_ascii_case("localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match uri.scheme_str() {
        Some("https") => Ok(uri),
        Some("http") if local => Ok(uri),
        _ => {
            Err("keys over http could be anybody's: use https (http is taken from loopback only), or a file")
        }
    }
}

async fn get(uri: &Uri, ca: Option<&Path>) -> Result<String, FetchError> {
    let failed = |problem: String| FetchError::Answer { url: uri.to_string(), problem: printable(&problem) };
    let builder = HttpsConnectorBuilder::new();
    let connector = match (ca, uri.scheme_str()) {
        (Some(path), _) => builder.with_tls_config(trusting(path)?),
        (None, Some("http")) => builder.with_tls_config(config(RootCertStore::empty())),
        (None, _) => builder.with_native_roots().map_err(|e| FetchError::Certificates {
            path: "the system's certificates".to_owned(),
            problem: format!("{e}; name some with --ca"),
        })?,
    };
    let client: Client<_, Empty<Bytes>> =
        Client::builder(TokioExecutor::new()).build(connector.https_or_http().enable_http1().build());
    let request = Request::get(uri)
        .header(http::header::ACCEPT, "application/jwk-set+json, application/json")
        .header(http::header::USER_AGENT, concat!("agentid/", env!("CARGO_PKG_VERSION")))
        .body(Empty::new())
        .map_err(|e| failed(e.to_string()))?;
    let answer = client.request(request).await.map_err(|e| failed(causes(&e)))?;
    let status = answer.status();
    if status.is_redirection() {
        return Err(failed(format!("{status}: redirects are not followed; give the final address")));
    }
    if !status.is_success() {
        return Err(failed(status.to_string()));
    }
    let body = Limited::new(answer.into_body(), LIMIT).collect().await.map_err(|e| {
        let too_long = e.is::<http_body_util::LengthLimitError>();
        failed(if too_long { "longer than 1 MiB".to_owned() } else { causes(e.as_ref()) })
    })?;
    String::from_utf8(body.to_bytes().into()).map_err(|_| failed("not UTF-8".to_owned()))
}

fn trusting(path: &Path) -> Result<ClientConfig, FetchError> {
    let failed = |problem: String| FetchError::Certificates { path: path.display().to_string(), problem };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| failed(e.to_string()))? {
        let certificate = certificate.map_err(|e| failed(e.to_string()))?;
        roots.add(certificate).map_err(|e| failed(e.to_string()))?;
    }
    if roots.is_empty() {
        return Err(failed("no certificate (PEM) in it".to_owned()));
    }
    Ok(config(roots))
}

fn config(roots: RootCertStore) -> ClientConfig {
    crate::crypto::install_provider();
    ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()
}

/// An error and its causes, each said once.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}

//! From a URL to a connection.
//!
//! Invariant: a name is resolved once; every address that it resolves to is checked, and the connection goes to one
//! of those. What the name resolves to a moment later (DNS rebinding) is of no consequence.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::Uri;
use hyper_rustls::ConfigBuilderExt;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::{FetchError, FetchOptions, Roots, causes, printable};

/// A connection, in the clear or secured.
pub(super) type Stream = Either<TcpStream, TlsStream<TcpStream>>;

/// As many addresses of one name are tried.
const ADDRESSES: usize = 8;

/// What a URL names as its server.
pub(super) enum Host {
    Address(IpAddr),
    Name(String),
}

impl Host {
    pub(super) fn of(uri: &Uri) -> Result<Self, &'static str> {
        let host = uri.host().unwrap_or_default();
        let literal = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        match literal.unwrap_or(host).parse() {
            Ok(address) => Ok(Self::Address(address)),
            Err(_) if literal.is_some() || host.is_empty() => Err("a URL without a host that can be reached"),
            Err(_) => Ok(Self::Name(host.to_owned())),
        }
    }

    /// Whether it says of itself that it is this machine.
    pub(super) fn claims_loopback(&self) -> bool {
        match self {
            Self::Address(address) => address.to_canonical().is_loopback(),
            Self::Name(name) => name.eq_ignore_ascii_case("localhost"),
        }
    }

    /// The addresses of the server.
    async fn resolve(&self, port: u16) -> io::Result<Vec<SocketAddr>> {
        match self {
            Self::Address(address) => Ok(vec![SocketAddr::new(*address, port)]),
            Self::Name(name) => {
                let mut found = Vec::new();
                for address in tokio::net::lookup_host((name.as_str(), port)).await? {
                    if !found.contains(&address) {
                        found.push(address);
                    }
                }
                if found.is_empty() {
                    return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
                }
                Ok(found)
            }
        }
    }

    fn server_name(&self) -> Result<ServerName<'static>, &'static str> {
        match self {
            Self::Address(address) => Ok(ServerName::IpAddress((*address).into())),
            Self::Name(name) => ServerName::try_from(name.trim_end_matches('.').to_owned())
                .map_err(|_| "the host is no DNS name"),
        }
    }
}

/// A connection to the server of a URL, if it is where it may be.
pub(super) async fn connect(uri: &Uri, url: &str, options: &FetchOptions) -> Result<Stream, FetchError> {
    let failed = |problem: String| FetchError::Answer { url: url.to_owned(), problem: printable(&problem) };
    let refused = |problem| FetchError::Url { url: url.to_owned(), problem };
    let secure = uri.scheme_str() == Some("https");
    let host = Host::of(uri).map_err(refused)?;
    // Before the network is touched: what is wrong here is wrong always.
    let tls = if secure {
        let name = host.server_name().map_err(refused)?;
        Some((TlsConnector::from(Arc::new(config(&options.roots).await?)), name))
    } else {
        None
    };
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let addresses = host.resolve(port).await.map_err(|e| failed(causes(&e)))?;
    // One bad address spoils the name: whoever controls it mixes public and private ones.
    if let Some(bad) = addresses.iter().find(|a| options.guard.refuses(a.ip(), secure)) {
        if !secure {
            return Err(refused("the host is another one than this: http is taken from loopback only"));
        }
        return Err(FetchError::Guarded { url: url.to_owned(), address: bad.ip() });
    }
    let stream = tcp(&addresses, options).await.map_err(|e| failed(causes(&e)))?;
    match tls {
        None => Ok(Stream::Left(stream)),
        Some((connector, name)) => {
            connector.connect(name, stream).await.map(Stream::Right).map_err(|e| failed(causes(&e)))
        }
    }
}

/// A connection to the first address that answers, each within its share of the time.
async fn tcp(addresses: &[SocketAddr], options: &FetchOptions) -> io::Result<TcpStream> {
    let tried = addresses.len().clamp(1, ADDRESSES);
    let share = options.timeout / u32::try_from(tried).unwrap_or(1);
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses.iter().take(tried) {
        match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(e)) => last = io::Error::new(e.kind(), format!("{address}: {e}")),
            Err(_) => {
                last = io::Error::new(io::ErrorKind::TimedOut, format!("{address}: no connection in time"))
            }
        }
    }
    Err(last)
}

async fn config(roots: &Roots) -> Result<ClientConfig, FetchError> {
    crate::crypto::install_provider();
    let mut config = match roots {
        Roots::Pem(pem) => {
            let unusable = |problem: String| FetchError::Certificates(printable(&problem));
            let mut store = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let certificate = certificate.map_err(|_| unusable("not PEM".to_owned()))?;
                store.add(certificate).map_err(|e| unusable(e.to_string()))?;
            }
            if store.is_empty() {
                return Err(unusable("no certificate (PEM) in it".to_owned()));
            }
            ClientConfig::builder().with_root_certificates(store).with_no_client_auth()
        }
        Roots::System => {
            // Hundreds of files, on some systems.
            let loaded = tokio::task::spawn_blocking(|| ClientConfig::builder().with_native_roots());
            let unusable = |e: &dyn std::fmt::Display| FetchError::Certificates(printable(&e.to_string()));
            let loaded = loaded.await.map_err(|e| unusable(&e))?;
            loaded.map_err(|e| unusable(&e))?.with_no_client_auth()
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

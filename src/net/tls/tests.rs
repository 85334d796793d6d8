use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::net::listen::{self, Bounds, Handler, Request, Response};

/// A CA of a test.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for localhost and 127.0.0.1, and its key, as PEM.
    pub(crate) fn certificate(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

/// A connection that trusts one CA.
pub(crate) async fn connect(address: SocketAddr, ca: &Authority) -> std::io::Result<TlsStream<TcpStream>> {
    crate::crypto::install_provider();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.pem().as_bytes()).unwrap()).unwrap();
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

struct Ok200;

impl Handler for Ok200 {
    async fn handle(&self, _: Request) -> Response {
        listen::empty(StatusCode::OK)
    }
}

async fn serve(tls: &Tls) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (handler, stop) = (Arc::new(Ok200), CancellationToken::new());
    let served = listen::serve(listener, Some(tls.clone()), Bounds::default(), handler, Arc::default(), stop);
    tokio::spawn(served);
    address
}

/// The certificate that a server shows.
async fn shown(address: SocketAddr, ca: &Authority) -> CertificateDer<'static> {
    let stream = connect(address, ca).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

#[tokio::test]
async fn another_pair_is_served_from_the_next_connection_on() {
    let ca = Authority::new();
    let (first, first_key) = ca.certificate();
    let (second, second_key) = ca.certificate();
    let tls = Tls::new(&first, &first_key).unwrap();
    let address = serve(&tls).await;
    assert_eq!(shown(address, &ca).await, der(&first));
    assert!(matches!(tls.replace(&second, &first_key), Err(TlsError::Mismatch)));
    assert_eq!(shown(address, &ca).await, der(&first), "a pair that does not belong together is not served");
    tls.replace(&second, &second_key).unwrap();
    assert_eq!(shown(address, &ca).await, der(&second));
}

#[test]
fn what_cannot_be_served_is_refused_without_quoting_it() {
    let (certificate, key) = Authority::new().certificate();
    let one_line = key.replace('\n', "");
    let (half, _) = key.split_at(key.len() / 2);
    for (certificate, key, wanted) in [
        ("", key.as_str(), "no certificate"),
        (&key, &key, "no certificate"),
        (&certificate[..200], &key, "not PEM"),
        (&certificate, "", "no unencrypted private key"),
        (&certificate, &certificate, "no unencrypted private key"),
        (&certificate, half, "not PEM"),
        (&certificate, &one_line, "private key"),
        (&certificate, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "neither"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &key, "certificate"),
    ] {
        let error = Tls::new(certificate, key).unwrap_err();
        let said = format!("{error} {error:?}");
        assert!(error.to_string().contains(wanted), "{wanted}: {error}");
        assert!(!said.contains("BEGIN") && !said.contains(&one_line[30..60]), "{said}");
    }
    let said = format!("{:?}", Tls::new(&certificate, &key).unwrap());
    assert_eq!(said, "Tls");
}

/// A directory of a test's own.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("agentid-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn files_are_followed_and_broken_ones_change_nothing() {
    let (ca, dir) = (Authority::new(), Dir::new("tls-files"));
    let (first, first_key) = ca.certificate();
    let (second, second_key) = ca.certificate();
    let (cert_path, key_path) = (dir.write("tls.crt", &first), dir.write("tls.key", &first_key));
    let tls = Tls::from_files(&cert_path, &key_path).unwrap();
    let address = serve(&tls).await;
    let mut watch = files::Watch::new(cert_path.clone(), key_path.clone());
    watch.look(&tls);
    assert!(!watch.is_broken());
    dir.write("tls.crt", &second);
    watch.look(&tls);
    assert!(watch.is_broken() && !watch.has_warned(), "half written, and that may end");
    assert_eq!(shown(address, &ca).await, der(&first));
    watch.look(&tls);
    assert!(watch.has_warned());
    dir.write("tls.key", "");
    watch.look(&tls);
    assert!(watch.is_broken());
    std::fs::remove_file(&key_path).unwrap();
    watch.look(&tls);
    assert!(watch.is_broken());
    assert_eq!(shown(address, &ca).await, der(&first));
    dir.write("tls.key", &second_key);
    watch.look(&tls);
    assert!(!watch.is_broken());
    assert_eq!(shown(address, &ca).await, der(&second));
    assert!(matches!(Tls::from_files(&dir.0.join("none"), &key_path), Err(TlsError::File { .. })));
}

#[tokio::test]
async fn files_are_looked_at_until_the_stop() {
    let (ca, dir) = (Authority::new(), Dir::new("tls-watch"));
    let (first, first_key) = ca.certificate();
    let (second, second_key) = ca.certificate();
    let (cert_path, key_path) = (dir.write("tls.crt", &first), dir.write("tls.key", &first_key));
    let tls = Tls::from_files(&cert_path, &key_path).unwrap();
    let (stop, watched) = (CancellationToken::new(), tls.clone());
    let token = stop.clone();
    let watching = tokio::spawn(async move { watched.watch_files(cert_path, key_path, token).await });
    dir.write("tls.key", &second_key);
    dir.write("tls.crt", &second);
    let address = serve(&tls).await;
    let changed = async {
        while shown(address, &ca).await != der(&second) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), changed).await.expect("the new certificate");
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(10), watching).await.expect("the end").unwrap();
}

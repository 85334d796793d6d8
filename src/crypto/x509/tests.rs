use std::sync::Arc;

use rustls::{
    ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection,
    pki_types::{PrivateKeyDer, ServerName},
};

use super::*;

fn now() -> Timestamp {
    Timestamp::now()
}

fn later(hours: i64) -> Timestamp {
    now() + SignedDuration::from_hours(hours)
}

fn authority(name: &str) -> Authority {
    Authority::generate(name, now(), later(24)).unwrap()
}

fn names() -> Vec<String> {
    ["agents.example.com", "agentid.agentid-system.svc", "*.wild.example.com"].map(str::to_owned).into()
}

fn issue(by: &Authority) -> Issued {
    by.issue_server(
        &names(),
        &["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()],
        now(),
        later(1),
    )
    .unwrap()
}

/// A handshake in memory between a server with this certificate and a client that trusts this bundle.
fn handshake(issued: &Issued, bundle: &str, name: &str) -> Result<(), rustls::Error> {
    let provider = Arc::new(default_provider());
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(issued.chain_pem.as_bytes()).collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.expose().as_bytes()).unwrap();
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = Connection::from(ClientConnection::new(Arc::new(client), name).unwrap());
    let mut server = Connection::from(ServerConnection::new(Arc::new(server)).unwrap());
    while client.is_handshaking() || server.is_handshaking() {
        carry(&mut client, &mut server)?;
        carry(&mut server, &mut client)?;
    }
    Ok(())
}

fn carry(from: &mut Connection, to: &mut Connection) -> Result<(), rustls::Error> {
    let mut wire = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut wire).unwrap();
    }
    let mut rest = wire.as_slice();
    while !rest.is_empty() {
        to.read_tls(&mut rest).unwrap();
        to.process_new_packets()?;
    }
    Ok(())
}

#[test]
fn a_client_takes_the_names_and_refuses_others() {
    let ca = authority("agentid CA 1");
    let issued = issue(&ca);
    for name in
        ["agents.example.com", "agentid.agentid-system.svc", "a.wild.example.com", "192.0.2.7", "2001:db8::7"]
    {
        assert_eq!(handshake(&issued, ca.certificate_pem(), name), Ok(()), "{name}");
    }
    for name in ["other.example.com", "example.com", "a.b.wild.example.com", "192.0.2.8"] {
        let refused = handshake(&issued, ca.certificate_pem(), name).unwrap_err().to_string();
        assert!(refused.contains("not valid for"), "{name}: {refused}");
    }
}

#[test]
fn a_bundle_of_both_takes_the_next_authoritys_certificate() {
    let (old, next) = (authority("agentid CA 1"), authority("agentid CA 2"));
    let both = format!("{}{}", old.certificate_pem(), next.certificate_pem());
    let issued = issue(&next);
    assert_eq!(handshake(&issued, &both, "agents.example.com"), Ok(()));
    assert_eq!(handshake(&issue(&old), &both, "agents.example.com"), Ok(()));
    let refused = handshake(&issued, old.certificate_pem(), "agents.example.com").unwrap_err();
    assert!(refused.to_string().contains("UnknownIssuer"), "{refused}");
}

#[test]
fn what_is_written_is_read_and_issues_on() {
    let ca = authority("agentid CA 1");
    let again = Authority::from_pem("agentid CA 1", ca.certificate_pem(), ca.key_pem().expose()).unwrap();
    assert_eq!(again.certificate_pem(), ca.certificate_pem());
    assert_eq!(handshake(&issue(&again), ca.certificate_pem(), "agents.example.com"), Ok(()));
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let (one, two) = (authority("agentid CA 1"), authority("agentid CA 2"));
    let read =
        |name: &str, certificate: &str, key: &str| Authority::from_pem(name, certificate, key).unwrap_err();
    let (key, mismatch) = (one.key_pem(), |name: &str| X509Error::Mismatch(name.to_owned()));
    assert_eq!(read("agentid CA 1", two.certificate_pem(), key.expose()), mismatch("agentid CA 1"));
    assert_eq!(read("agentid CA 2", one.certificate_pem(), key.expose()), mismatch("agentid CA 2"));
    assert_eq!(read("agentid CA 2", two.certificate_pem(), key.expose()), mismatch("agentid CA 2"));
    assert_eq!(read("agentid CA 1", "x", key.expose()), X509Error::Certificate);
    assert_eq!(read("agentid CA 1", one.certificate_pem(), one.certificate_pem()), X509Error::Key);
    let dead = one.issue_server(&names(), &[], now(), later(-1)).unwrap_err();
    assert_eq!(dead, X509Error::Unverified, "it is over before it begins");
    assert_eq!(one.issue_server(&[], &[], now(), later(1)).unwrap_err(), X509Error::Nameless);
    let name = "bücher.example".to_owned();
    assert_eq!(
        one.issue_server(std::slice::from_ref(&name), &[], now(), later(1)).unwrap_err(),
        X509Error::Name(name)
    );
}

#[test]
fn validity_is_backdated_and_ends_on_the_second() {
    let ca = authority("agentid CA 1");
    let from = Timestamp::from_second(1_800_000_000).unwrap();
    let until = from + SignedDuration::from_hours(1);
    let issued = ca.issue_server(&names(), &[], from, until).unwrap();
    let der = CertificateDer::from_pem_slice(issued.chain_pem.as_bytes()).unwrap();
    let valid_at = |second: i64| ca.verify(&der, from + SignedDuration::from_secs(second));
    for (second, good) in [(-301, false), (-300, true), (0, true), (3600, true), (3601, false)] {
        assert_eq!(valid_at(second).is_ok(), good, "{second}");
    }
}

#[test]
fn serials_and_keys_are_new_each_time_and_keys_show_nowhere() {
    let ca = authority("agentid CA 1");
    let (a, b) = (issue(&ca), issue(&ca));
    assert_ne!(a.chain_pem, b.chain_pem);
    assert_ne!(a.key_pem.expose(), b.key_pem.expose());
    let key = ca.key_pem();
    let secret = key.expose().lines().nth(1).unwrap().to_owned();
    let shown = format!("{ca:?} {a:?}");
    assert!(shown.contains("BEGIN CERTIFICATE") && !shown.contains(&secret), "{shown}");
    assert!(!shown.contains(a.key_pem.expose().lines().nth(1).unwrap()), "{shown}");
}

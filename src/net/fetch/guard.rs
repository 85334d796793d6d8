//! Where a fetch may go.
//!
//! Invariant: what is not known to be a public address is refused. The tables are IANA's registries of special
//! addresses (RFC 6890), so that a URL in somebody's configuration reaches neither the cluster nor a cloud's
//! metadata.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Where a fetch may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// To any address over https, and over http to loopback. For URLs that whoever runs the process typed.
    Anywhere,
    /// Over https to public addresses, and to those in `allowed`.
    Public {
        /// Networks that may be reached though they are not public.
        allowed: Vec<IpNet>,
    },
}

impl Guard {
    /// Whether a connection to this address is refused. `secure` is whether it would be https.
    pub(super) fn refuses(&self, address: IpAddr, secure: bool) -> bool {
        match self {
            Self::Anywhere => !secure && !address.to_canonical().is_loopback(),
            Self::Public { allowed } => !secure || is_refused(address, allowed),
        }
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(head: [u16; 3], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(head[0], head[1], head[2], 0, 0, 0, 0, 0), prefix)
}

const NOT_PUBLIC_V4: [Ipv4Net; 15] = [
    v4(0, 0, 0, 0, 8),       // this network; unspecified (RFC 791 §3.2)
    v4(10, 0, 0, 0, 8),      // private (RFC 1918)
    v4(100, 64, 0, 0, 10),   // shared by carriers (RFC 6598)
    v4(127, 0, 0, 0, 8),     // loopback (RFC 1122 §3.2.1.3)
    v4(169, 254, 0, 0, 16),  // link-local, clouds' metadata (RFC 3927)
    v4(172, 16, 0, 0, 12),   // private (RFC 1918)
    v4(192, 0, 0, 0, 24),    // protocol assignments (RFC 6890 §2.1)
    v4(192, 0, 2, 0, 24),    // documentation (RFC 5737)
    v4(192, 88, 99, 0, 24),  // 6to4 relays (RFC 7526)
    v4(192, 168, 0, 0, 16),  // private (RFC 1918)
    v4(198, 18, 0, 0, 15),   // benchmarks (RFC 2544)
    v4(198, 51, 100, 0, 24), // documentation (RFC 5737)
    v4(203, 0, 113, 0, 24),  // documentation (RFC 5737)
    v4(224, 0, 0, 0, 4),     // multicast (RFC 5771)
    v4(240, 0, 0, 0, 4),     // reserved (RFC 1112 §4), broadcast (RFC 919)
];

/// The only block of which addresses are given out as global unicast (RFC 4291 §2.4, IANA).
const GLOBAL_V6: Ipv6Net = v6([0x2000, 0, 0], 3);

const NOT_PUBLIC_V6: [Ipv6Net; 3] = [
    v6([0x2001, 0, 0], 23), // protocol assignments, among them Teredo (RFC 2928, RFC 4380)
    v6([0x2001, 0xdb8, 0], 32), // documentation (RFC 3849)
    v6([0x3fff, 0, 0], 20), // documentation (RFC 9637)
];

const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0], 96);
const SIX_TO_FOUR: Ipv6Net = v6([0x2002, 0, 0], 16);

/// Whether an address is neither public nor in one of the allowed networks. An IPv6 address that leads to an IPv4
/// one (RFC 4291 §2.5.5, RFC 6052, RFC 3056) is judged as that one, too.
#[must_use]
pub fn is_refused(ip: IpAddr, allowed: &[IpNet]) -> bool {
    if allowed.iter().any(|net| net.contains(&ip)) {
        return false;
    }
    match ip {
        IpAddr::V4(ip) => NOT_PUBLIC_V4.iter().any(|net| net.contains(&ip)),
        IpAddr::V6(ip) => match embedded(ip) {
            Some(v4) => is_refused(IpAddr::V4(v4), allowed),
            None => !GLOBAL_V6.contains(&ip) || NOT_PUBLIC_V6.iter().any(|net| net.contains(&ip)),
        },
    }
}

/// The IPv4 address to which an IPv6 one leads.
fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let [.., a, b, c, d] = ip.octets();
    let low = Ipv4Addr::new(a, b, c, d);
    if let Some(mapped) = ip.to_ipv4_mapped() {
        return Some(mapped);
    }
    if NAT64.contains(&ip) {
        return Some(low);
    }
    if SIX_TO_FOUR.contains(&ip) {
        let [_, _, a, b, c, d, ..] = ip.octets();
        return Some(Ipv4Addr::new(a, b, c, d));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(ip: &str, allowed: &[&str]) -> bool {
        let allowed: Vec<IpNet> = allowed.iter().map(|net| net.parse().unwrap()).collect();
        is_refused(ip.parse().unwrap(), &allowed)
    }

    #[test]
    fn only_public_addresses_are_reached() {
        for ip in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "169.254.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.0.170",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::10.0.0.1",
            "::8.8.8.8",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:10.1.2.3",
            "::ffff:0:127.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1.1.1.1",
            "100::1",
            "2001::1",
            "2001:0:4136:e378::1",
            "2001:2::1",
            "2001:10::1",
            "2001:20::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "2002:a9fe:a9fe::1",
            "2002:c0a8:101::",
            "3fff::1",
            "3fff:fff:ffff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fdff::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "ff0e::1",
        ] {
            assert!(refused(ip, &[]), "{ip}");
        }
        for ip in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "128.0.0.1",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.1",
            "192.167.255.255",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2606:4700:4700::1111",
            "2a00:1450:4001::1",
        ] {
            assert!(!refused(ip, &[]), "{ip}");
        }
    }

    #[test]
    fn what_is_allowed_is_reached_and_nothing_beside_it() {
        assert!(!refused("10.1.2.3", &["10.1.0.0/16"]));
        assert!(refused("10.2.2.3", &["10.1.0.0/16", "fd00::/8"]));
        assert!(!refused("::ffff:10.1.2.3", &["10.1.0.0/16"]), "however it is written");
        assert!(!refused("64:ff9b::10.1.2.3", &["10.1.0.0/16"]));
        assert!(!refused("2002:a01:203::1", &["2002::/16"]));
        assert!(!refused("fd00::1", &["fd00::/8"]));
        assert!(refused("127.0.0.1", &["::/0"]), "IPv6 networks hold no IPv4 address");
    }

    #[test]
    fn http_goes_to_loopback_at_most() {
        let ip = |ip: &str| ip.parse().unwrap();
        assert!(!Guard::Anywhere.refuses(ip("127.0.0.1"), false));
        assert!(!Guard::Anywhere.refuses(ip("::1"), false));
        assert!(Guard::Anywhere.refuses(ip("8.8.8.8"), false));
        assert!(!Guard::Anywhere.refuses(ip("10.0.0.1"), true));
        let public = Guard::Public { allowed: vec!["127.0.0.0/8".parse().unwrap()] };
        assert!(public.refuses(ip("127.0.0.1"), false));
        assert!(!public.refuses(ip("127.0.0.1"), true));
    }
}

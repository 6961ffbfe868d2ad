//! Which worker URLs are taken and which addresses are dialled: judged by the resolved address at the moment of the
//! connection, so that no spelling and no rebinding name gets past (FIELD f5).

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::sync::Arc;

use http::Uri;
use http::uri::Authority;

use crate::base::setting::Expected;
use crate::base::setting::Setting;

/// Why a URL is not a worker's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUrl {
    /// Not a URL.
    #[error("expected a URL such as `http://host:8000`")]
    Syntax,
    /// A scheme we do not speak.
    #[error("the scheme must be `http` or `https`")]
    Scheme,
    /// `user:password@`: credentials belong in `api_key`.
    #[error("a worker URL must not contain credentials: use `api_key`")]
    UserInfo,
    /// A port that is none.
    #[error("the port must be a number from 1 to 65535")]
    Port,
    /// A query: workers have a base path only.
    #[error("a worker URL must not have a query")]
    Query,
}

/// Where a worker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Whether TLS is spoken.
    pub is_tls: bool,
    /// Host in small letters, without brackets.
    pub host: String,
    /// Port, the scheme's default filled in.
    pub port: u16,
    /// `host:port` as sent in the `host` header; the scheme's default port is left out.
    pub authority: Authority,
    /// Path in front of every call, without a closing slash.
    pub base_path: String,
}

impl Origin {
    /// Reads a worker URL; a missing scheme means `http`.
    pub fn parse(url: &str) -> Result<Self, InvalidUrl> {
        let url = url.trim();
        // `unix:/run/x.sock` is no host of that name.
        if !url.contains("://") && url.split('/').next().is_some_and(|it| it.ends_with(':')) {
            return Err(InvalidUrl::Scheme);
        }
        let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let uri: Uri = url.parse().map_err(|_malformed| InvalidUrl::Syntax)?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(InvalidUrl::Scheme),
        };
        let authority = uri.authority().ok_or(InvalidUrl::Syntax)?;
        if authority.as_str().contains('@') {
            return Err(InvalidUrl::UserInfo);
        }
        if uri.query().is_some() || url.contains('#') {
            return Err(InvalidUrl::Query);
        }
        let host = host(authority)?;
        let usual = if is_tls { 443 } else { 80 };
        let port = port(authority)?.unwrap_or(usual);
        let mut place = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        if port != usual {
            place = format!("{place}:{port}");
        }
        let authority = place.parse().map_err(|_malformed| InvalidUrl::Syntax)?;
        Ok(Self { is_tls, host, port, authority, base_path: uri.path().trim_end_matches('/').to_owned() })
    }

    /// Whether it names the machine that looks at it.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let address = self.host.parse::<IpAddr>().map(|it| it.to_canonical().is_loopback());
        address.unwrap_or_else(|_name| self.host == "localhost" || self.host.ends_with(".localhost"))
    }

    /// The URL in its one canonical form.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}{}", if self.is_tls { "https" } else { "http" }, self.authority, self.base_path)
    }
}

/// The host in the one spelling that we use.
fn host(authority: &Authority) -> Result<String, InvalidUrl> {
    let host = authority.host().to_ascii_lowercase();
    match host.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
        Some(address) => Ok(address.parse::<Ipv6Addr>().map_err(|_malformed| InvalidUrl::Syntax)?.to_string()),
        None if host.is_empty() => Err(InvalidUrl::Syntax),
        None => Ok(host),
    }
}

/// The port, if one is written. The library takes a number that is no port for none at all.
fn port(authority: &Authority) -> Result<Option<u16>, InvalidUrl> {
    match authority.as_str().strip_prefix(authority.host()).unwrap_or_default() {
        "" | ":" => Ok(None),
        written => {
            let digits = written.trim_start_matches(':');
            let port = digits.parse().ok().filter(|port| *port > 0 && !digits.starts_with('+'));
            port.map(Some).ok_or(InvalidUrl::Port)
        }
    }
}

/// A worker URL as it may be shown: without what stands where credentials would.
#[must_use]
pub fn without_credentials(url: &str) -> String {
    match url.rsplit_once('@') {
        None => url.to_owned(),
        Some((before, place)) => {
            let scheme = ["http://", "https://"].into_iter().find(|it| before.starts_with(it)).unwrap_or_default();
            format!("{scheme}***@{place}")
        }
    }
}

/// A network: an address and how many of its leading bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    bits: u8,
}

impl Cidr {
    /// Whether `address` is inside.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(it)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                net.to_bits() & mask == it.to_bits() & mask
            }
            (IpAddr::V6(net), IpAddr::V6(it)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                net.to_bits() & mask == it.to_bits() & mask
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl Setting for Cidr {
    const KIND: &'static str = "network";

    fn parse(text: &str) -> Result<Self, Expected> {
        let expected = || -> Expected { "expected a network such as `10.0.0.0/8` or `fd12::/16`".into() };
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_malformed| expected())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), |it| it.parse::<u8>().map_err(|_malformed| expected()))?;
        if bits <= most { Ok(Self { address, bits }) } else { Err(expected()) }
    }

    fn render(&self) -> String {
        format!("{}/{}", self.address, self.bits)
    }
}

/// Which addresses workers may have.
#[derive(Clone, Debug, Default)]
pub struct AddressRules(Arc<[Cidr]>);

impl AddressRules {
    /// Inside one of `networks`; with none, anywhere that is not refused always.
    #[must_use]
    pub fn new(networks: &[Cidr]) -> Self {
        Self(networks.into())
    }

    /// Whether a worker may have this address.
    #[must_use]
    pub fn allow(&self, address: IpAddr) -> bool {
        is_allowed(address) && (self.0.is_empty() || self.0.iter().any(|it| it.contains(address)))
    }
}

/// Where clouds keep credentials of the machine outside of the link-local networks: Alibaba, Azure, Oracle.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(192, 0, 0, 192)];

/// The same over IPv6: Amazon's, for machines and for pods, Google's, Scaleway's.
const METADATA_V6: [Ipv6Addr; 4] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
];

/// Whether any worker may have this address: not link-local (most metadata services live there), a metadata service elsewhere,
/// unspecified or multicast. No allow-list opens these.
fn is_allowed(address: IpAddr) -> bool {
    match address.to_canonical() {
        // All of 0.0.0.0/8 means "this host", not 0.0.0.0 alone.
        IpAddr::V4(v4) => {
            let is_special = v4.is_link_local() || v4.octets()[0] == 0 || v4.is_multicast() || v4.is_broadcast();
            !is_special && !METADATA_V4.contains(&v4)
        }
        // `::a.b.c.d` is not unwrapped by `to_canonical` but reaches the same host on some systems.
        IpAddr::V6(v6) => {
            let is_old_compatible = v6.to_bits() >> 32 == 0 && v6 != Ipv6Addr::LOCALHOST;
            !(v6.is_unicast_link_local() || v6.is_multicast() || METADATA_V6.contains(&v6) || is_old_compatible)
                && translated(v6).is_none_or(|v4| is_allowed(v4.into()))
        }
    }
}

/// The IPv4 address that a network between turns this one into: NAT64 (RFC 6052, RFC 8215), 6to4 (RFC 3056) or SIIT (RFC 2765).
fn translated(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let (high, low) = match (a, b, c, d, e, f) {
        (0x64, 0xff9b, 0, 0, 0, 0) | (0x64, 0xff9b, 1, ..) | (0, 0, 0, 0, 0xffff, 0) => (g, h),
        (0x2002, ..) => (b, c),
        _ => return None,
    };
    Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_f5_metadata_and_link_local_addresses_are_never_dialled_however_spelled() {
        for bad in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "fe80::1",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "fd00:ec2::254",
            "::169.254.169.254",
            "0.1.2.3",
            "255.255.255.255",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::169.254.169.254",
            "64:ff9b::0.0.0.0",
            "64:ff9b::224.0.0.1",
            "2002:a9fe:a9fe::1",
            "2002:a9fe:1:2:3:4:5:6",
            "::ffff:0:169.254.169.254",
            "100.100.100.200",
            "::ffff:100.100.100.200",
            "64:ff9b::100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "fd00:ec2::23",
            "fd20:ce::254",
            "fd00:42::42",
            "169.254.170.2",
        ] {
            assert!(!is_allowed(bad.parse().expect("an address")), "{bad}");
        }
        for good in [
            "100.100.100.201",
            "fd00:ec2::7",
            "::ffff:0:10.0.0.1",
            "127.0.0.1",
            "10.0.0.7",
            "::1",
            "8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
            "2001:db8::1",
        ] {
            assert!(is_allowed(good.parse().expect("an address")), "{good}");
        }
    }

    #[test]
    fn an_allow_list_narrows_and_never_widens() {
        let networks = ["10.0.0.0/8", "fd12::/16", "0.0.0.0/0"].map(|it| Cidr::parse(it).expect("a network"));
        let rules = AddressRules::new(&networks[..2]);
        for (address, allowed) in [
            ("10.9.8.7", true),
            ("::ffff:10.9.8.7", true),
            ("11.0.0.1", false),
            ("fd12:3::4", true),
            ("fd13::4", false),
        ] {
            assert_eq!(rules.allow(address.parse().expect("an address")), allowed, "{address}");
        }
        assert!(!AddressRules::new(&networks).allow("169.254.169.254".parse().expect("an address")));
        assert!(AddressRules::new(&networks).allow("127.0.0.1".parse().expect("an address")));
        for bad in ["10.0.0.0/33", "ten", "10.0.0.0/-1", "::/129", ""] {
            assert!(Cidr::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn urls_are_read_or_refused_with_a_reason() {
        let origin = Origin::parse("http://gpu1:8000/v/").expect("valid");
        assert_eq!((origin.url().as_str(), origin.port), ("http://gpu1:8000/v", 8000));
        assert_eq!(Origin::parse("gpu1:8000").expect("valid").url(), "http://gpu1:8000");
        assert_eq!(Origin::parse("http://[::1]:80").expect("valid").host, "::1");
        assert_eq!(Origin::parse("http://u:p@h").expect_err("refused"), InvalidUrl::UserInfo);
        assert_eq!(Origin::parse("ftp://h/x").expect_err("refused"), InvalidUrl::Scheme);
        assert_eq!(Origin::parse("http://h/?x=1").expect_err("refused"), InvalidUrl::Query);
        for port in ["80000", "65536", "0", "80a", "-1", "+80", "99999999999999999999"] {
            let error = Origin::parse(&format!("http://gpu1:{port}")).expect_err(port);
            assert!(matches!(error, InvalidUrl::Port | InvalidUrl::Syntax), "{port}: {error}");
        }
        assert_eq!(Origin::parse("http://gpu1:80000").expect_err("refused"), InvalidUrl::Port);
        assert_eq!(Origin::parse("http://[nonsense]").expect_err("refused"), InvalidUrl::Syntax);
        for other in ["unix:/run/x.sock", "file:/etc/passwd", "file:", "gopher://h/_x"] {
            assert_eq!(Origin::parse(other).expect_err("refused"), InvalidUrl::Scheme, "{other}");
        }
        assert!(Origin::parse("unix:///run/x.sock").is_err() && Origin::parse("file:///etc/passwd").is_err());
    }

    #[test]
    fn every_spelling_of_a_place_is_one_worker() {
        for (one, spellings) in [
            ("http://h", &["h", "h:80", "http://h:80", "http://H:080/", "HTTP://h:", " http://h "][..]),
            ("https://h/v", &["https://h:443/v/", "https://H/v"]),
            ("http://h:443", &["h:443"]),
            ("https://h:80", &["https://h:80/"]),
            ("http://[::1]", &["http://[::1]:80", "http://[0:0:0:0:0:0:0:1]"]),
            ("http://[fd12::a]:8000", &["http://[FD12::000A]:8000/"]),
        ] {
            let origin = Origin::parse(one).expect("valid");
            assert_eq!(origin.url(), one);
            for spelling in spellings {
                assert_eq!(Origin::parse(spelling), Ok(origin.clone()), "{spelling}");
            }
        }
    }

    #[test]
    fn what_is_shown_of_a_url_has_no_credentials_however_malformed_it_is() {
        for (url, shown) in [
            ("http://h:8000/v", "http://h:8000/v"),
            ("http://u:p@h:8000/v", "http://***@h:8000/v"),
            ("u:p@h", "***@h"),
            ("http://u:p/a@b c@h", "http://***@h"),
            ("u:p://x@h", "***@h"),
        ] {
            assert_eq!(without_credentials(url), shown);
        }
    }
}

//! Which worker URLs are taken and which addresses are dialled: judged by the resolved address at the moment of the
//! connection, so that no spelling and no rebinding name gets past (FIELD f5).

use std::net::IpAddr;
use std::net::Ipv6Addr;

use http::Uri;
use http::uri::Authority;

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
    /// A query: workers have a base path only.
    #[error("a worker URL must not have a query")]
    Query,
}

/// Where a worker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Whether TLS is spoken.
    pub is_tls: bool,
    /// Host as written, without brackets.
    pub host: String,
    /// Port, the scheme's default filled in.
    pub port: u16,
    /// `host:port` as sent in the `host` header.
    pub authority: Authority,
    /// Path in front of every call, without a closing slash.
    pub base_path: String,
}

impl Origin {
    /// Reads a worker URL; a missing scheme means `http`.
    pub fn parse(url: &str) -> Result<Self, InvalidUrl> {
        let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let uri: Uri = url.trim().parse().map_err(|_| InvalidUrl::Syntax)?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(InvalidUrl::Scheme),
        };
        let authority = uri.authority().ok_or(InvalidUrl::Syntax)?.clone();
        if authority.as_str().contains('@') {
            return Err(InvalidUrl::UserInfo);
        }
        if uri.query().is_some() || url.contains('#') {
            return Err(InvalidUrl::Query);
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(InvalidUrl::Syntax);
        }
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        Ok(Self { is_tls, host, port, authority, base_path: uri.path().trim_end_matches('/').to_owned() })
    }

    /// The URL in its one canonical form.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}{}", if self.is_tls { "https" } else { "http" }, self.authority, self.base_path)
    }
}

/// Whether a worker may have this address: not link-local (metadata services live there), unspecified or multicast.
#[must_use]
pub fn is_allowed(address: IpAddr) -> bool {
    /// The metadata service of one large cloud over IPv6.
    const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    match address.to_canonical() {
        IpAddr::V4(v4) => !(v4.is_link_local() || v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast()),
        IpAddr::V6(v6) => {
            !(v6.is_unicast_link_local() || v6.is_unspecified() || v6.is_multicast() || v6 == METADATA_V6)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_f5_metadata_and_link_local_addresses_are_never_dialled_however_spelled() {
        for bad in
            ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "0.0.0.0", "::", "224.0.0.1", "fd00:ec2::254"]
        {
            assert!(!is_allowed(bad.parse().expect("an address")), "{bad}");
        }
        for good in ["127.0.0.1", "10.0.0.7", "::1", "8.8.8.8"] {
            assert!(is_allowed(good.parse().expect("an address")), "{good}");
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
    }
}

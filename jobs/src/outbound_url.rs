//! Which URLs a caller may hand to a provider to fetch.
//!
//! GeWe downloads media from the URL in a message, and a self-hosted GeWe stands in our own network, so a
//! URL is a way to make a machine inside ask other machines inside. This module reads the URL as the
//! strictest of its readers would and refuses whatever does not clearly name a public host.
//! It resolves no names: a public name that points to a private address is for the egress rules of the host
//! on which GeWe runs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// The longest URL that is accepted, in bytes.
pub const MAX_LENGTH: usize = 2048;

/// Name endings that belong to private networks, whatever a resolver makes of them.
const PRIVATE_SUFFIXES: [&str; 8] =
    ["localhost", "local", "internal", "localdomain", "lan", "intranet", "home.arpa", "private"];

/// What the install permits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UrlPolicy {
    /// Accepts hosts in private networks. For tests and development only; off by default.
    pub allow_private: bool,
}

/// Why a URL was refused. The text tells the caller what to change.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// Longer than [`MAX_LENGTH`].
    #[error("a URL may have at most 2048 bytes; use a shorter one")]
    TooLong,
    /// Not a URL, or one that two parsers may read differently.
    #[error("this is not a well-formed URL; write it as https://host/path without spaces or backslashes")]
    Malformed,
    /// A scheme other than http and https.
    #[error("only http:// and https:// URLs can be fetched")]
    Scheme,
    /// `user:password@host`.
    #[error("a URL must not carry a user name or password; use a signed or public link")]
    Credentials,
    /// Loopback, private, link-local, metadata, multicast or reserved.
    #[error("the URL points into a private network; use an address that is reachable from the internet")]
    PrivateHost,
}

impl Problem {
    /// Returns the stable code for API answers.
    pub fn code(self) -> &'static str {
        match self {
            Self::TooLong => "url_too_long",
            Self::Malformed => "url_malformed",
            Self::Scheme => "url_scheme",
            Self::Credentials => "url_credentials",
            Self::PrivateHost => "url_private_host",
        }
    }
}

/// Checks one URL and returns it as it was understood.
pub fn check(text: &str, policy: &UrlPolicy) -> Result<Url, Problem> {
    if text.len() > MAX_LENGTH {
        return Err(Problem::TooLong);
    }
    // The parser forgives these: it drops tabs and newlines, trims blanks and turns `\` into `/`. GeWe's may
    // not, and then the host that was checked is not the host that is asked.
    if text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') {
        return Err(Problem::Malformed);
    }
    let (scheme, rest) = text.split_once("://").ok_or(Problem::Malformed)?;
    if !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return Err(Problem::Scheme);
    }
    // `http:///host` is likewise repaired by one parser and a different host to another.
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() {
        return Err(Problem::Malformed);
    }
    if authority.contains('@') {
        return Err(Problem::Credentials);
    }
    let url = Url::parse(text).map_err(|_| Problem::Malformed)?;
    let private = match url.host().ok_or(Problem::Malformed)? {
        Host::Ipv4(ip) => is_private_v4(ip),
        Host::Ipv6(ip) => is_private_v6(ip),
        Host::Domain(name) => is_private_name(name),
    };
    if private && !policy.allow_private { Err(Problem::PrivateHost) } else { Ok(url) }
}

fn is_private_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    // A single label is found through the search domain of whoever resolves it, and an empty one (`127.0.0.1..`) is
    // dropped by some readers and not by others.
    if !name.contains('.') || name.split('.').any(str::is_empty) {
        return true;
    }
    // The URL parser reads every name that ends in a number as an address, but only without the dot at the end.
    if let Ok(ip) = name.parse::<IpAddr>() {
        return is_private(ip);
    }
    PRIVATE_SUFFIXES.iter().any(|suffix| name.strip_suffix(suffix).is_some_and(|head| head.ends_with('.')))
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_private_v4(ip),
        IpAddr::V6(ip) => is_private_v6(ip),
    }
}

fn is_private_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    match a {
        0 | 10 | 127 => true,
        // Carrier NAT, where Alibaba Cloud keeps its metadata service (100.100.100.200).
        100 => (64..128).contains(&b),
        169 => b == 254,
        172 => (16..32).contains(&b),
        192 => b == 168 || (b == 0 && c == 0),
        198 => b == 18 || b == 19,
        // Multicast, reserved, broadcast.
        224.. => true,
        _ => false,
    }
}

fn is_private_v6(ip: Ipv6Addr) -> bool {
    let s = ip.segments();
    let v4_of = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match s {
        // Unspecified, loopback, and IPv4 in its compatible, mapped and translated forms.
        [0, 0, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0, 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => {
            is_private_v4(v4_of(s[6], s[7]))
        }
        // NAT64 and 6to4 carry the IPv4 address that is reached in the end.
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => is_private_v4(v4_of(s[6], s[7])),
        [0x2002, ..] => is_private_v4(v4_of(s[1], s[2])),
        // NAT64 of a local network, and Teredo, which nothing public uses.
        [0x64, 0xff9b, 1, ..] | [0x2001, 0, ..] => true,
        // Unique local (with the metadata address of AWS), link-local, site-local, multicast.
        [first, ..] => matches!(first & 0xffc0, 0xfe80 | 0xfec0) || matches!(first >> 8, 0xfc | 0xfd | 0xff),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> Option<Problem> {
        check(text, &UrlPolicy::default()).err()
    }

    #[test]
    fn public_hosts_are_accepted() {
        for text in [
            "https://cdn.example.com/a.jpg",
            "HTTP://cdn.example.com:8080/图片.jpg?sign=a%2Fb@c#x",
            "http://8.8.8.8/",
            "http://172.15.0.1/",
            "http://172.32.0.1/",
            "http://100.63.0.1/",
            "http://100.128.0.1/",
            "http://[2606:4700:4700::1111]/",
            "http://[::ffff:8.8.8.8]/",
            "http://例子.测试/",
            "https://internal.example.com/",
            "https://mylocal.example/",
        ] {
            assert_eq!(problem(text), None, "{text}");
        }
    }

    #[test]
    fn private_hosts_are_refused_in_every_notation() {
        for text in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0x7f.1/",
            "http://0177.0.0.1/",
            "http://%31%32%37.0.0.1/",
            "http://①②⑦.0.0.1/",
            "http://127.0.0.1./",
            "http://0/",
            "http://10.1.2.3/",
            "http://172.16.0.1/",
            "http://172.31.255.255/",
            "http://192.168.0.1:8080/",
            "http://169.254.169.254/latest/meta-data",
            "http://100.100.100.200/",
            "http://192.0.0.192/",
            "http://198.18.0.1/",
            "http://224.0.0.1/",
            "http://255.255.255.255/",
            "http://[::]/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:a9fe:a9fe]/",
            "http://[::127.0.0.1]/",
            "http://[::ffff:0:127.0.0.1]/",
            "http://[64:ff9b::10.0.0.1]/",
            "http://[64:ff9b:1::1]/",
            "http://[2002:7f00:1::]/",
            "http://[2001::1]/",
            "http://[fe80::1]/",
            "http://[fec0::1]/",
            "http://[fc00::1]/",
            "http://[fd00:ec2::254]/",
            "http://[ff02::1]/",
            "http://localhost/",
            "http://LOCALHOST:80/",
            "http://localhost./",
            "http://a.localhost../",
            "http://127.0.0.1../",
            "http://127.1../",
            "http://a.localhost/",
            "http://printer.local/",
            "http://metadata.google.internal/",
            "http://metadata.google.internal./",
            "http://nas.home.arpa/",
            "http://postgres/",
            "http://redis:6379/",
        ] {
            assert_eq!(problem(text), Some(Problem::PrivateHost), "{text}");
        }
    }

    #[test]
    fn every_private_notation_is_accepted_when_the_policy_allows_it() {
        let policy = UrlPolicy { allow_private: true };
        assert!(check("http://127.0.0.1:9000/a.jpg", &policy).is_ok());
        assert!(check("http://minio:9000/a.jpg", &policy).is_ok());
        assert_eq!(check("http://u:p@127.0.0.1/", &policy), Err(Problem::Credentials));
    }

    #[test]
    fn other_schemes_credentials_and_doubtful_texts_are_refused() {
        let check = |text: &str, expected| assert_eq!(problem(text), Some(expected), "{text}");
        check("ftp://example.com/a", Problem::Scheme);
        check("file:///etc/passwd", Problem::Scheme);
        check("gopher://example.com", Problem::Scheme);
        check("javascript:alert(1)", Problem::Malformed);
        check("example.com/a.jpg", Problem::Malformed);
        check("http:/example.com", Problem::Malformed);
        check("http:///example.com", Problem::Malformed);
        check("", Problem::Malformed);
        check("http://", Problem::Malformed);
        check(" http://example.com/", Problem::Malformed);
        check("http://exam\tple.com/", Problem::Malformed);
        check("http://example.com/a b", Problem::Malformed);
        check("http://example.com\\@127.0.0.1/", Problem::Malformed);
        check("http://example.com/\0", Problem::Malformed);
        check("http://user:pass@example.com/", Problem::Credentials);
        check("http://user@example.com/", Problem::Credentials);
        check("http://@example.com/", Problem::Credentials);
        check(&format!("http://example.com/{}", "a".repeat(2048)), Problem::TooLong);
    }
}

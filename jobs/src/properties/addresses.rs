//! No notation of a private address is taken for a public one.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use crate::outbound_url::{Problem, UrlPolicy, check};

/// Networks that are not the internet, by the registry of IANA, and on purpose not as `outbound_url` says it.
const CLOSED: [(&str, u32); 11] = [
    ("0.0.0.0", 8),
    ("10.0.0.0", 8),
    ("100.64.0.0", 10),
    ("127.0.0.0", 8),
    ("169.254.0.0", 16),
    ("172.16.0.0", 12),
    ("192.0.0.0", 24),
    ("192.168.0.0", 16),
    ("198.18.0.0", 15),
    ("224.0.0.0", 4),
    ("240.0.0.0", 4),
];

fn first_of(network: &str) -> u32 {
    u32::from(network.parse::<Ipv4Addr>().expect("a network"))
}

fn is_closed(ip: u32) -> bool {
    CLOSED.iter().any(|(network, bits)| (ip ^ first_of(network)) >> (32 - bits) == 0)
}

/// Addresses inside the closed networks, at their edges, and anywhere.
fn ipv4() -> impl Strategy<Value = u32> {
    let inside = (prop::sample::select(&CLOSED[..]), any::<u32>())
        .prop_map(|((network, bits), low)| first_of(network) | (low & (u32::MAX >> bits)));
    let edge = (prop::sample::select(&CLOSED[..]), any::<bool>(), -1..=1_i64).prop_map(
        |((network, bits), end, off)| {
            let edge = if end { first_of(network) | (u32::MAX >> bits) } else { first_of(network) };
            u32::try_from((i64::from(edge) + off).clamp(0, i64::from(u32::MAX))).expect("32 bits")
        },
    );
    prop_oneof![3 => inside, 2 => edge, 3 => any::<u32>()]
}

/// A number as C reads it.
fn number(n: u32, base: u8) -> String {
    match base {
        0 => format!("{n}"),
        1 => format!("0x{n:x}"),
        2 => format!("0X{n:08X}"),
        _ => format!("0{n:o}"),
    }
}

/// The address in one of the ways in which somebody reads it: whole, in two to four parts, each in some base.
fn notation(ip: u32, parts: usize, bases: [u8; 4]) -> String {
    let bytes = ip.to_be_bytes().map(u32::from);
    let mut texts: Vec<String> = (0..parts - 1).map(|i| number(bytes[i], bases[i])).collect();
    let rest = ip & (u32::MAX.checked_shr(8 * (parts as u32 - 1)).unwrap_or(0));
    texts.push(number(rest, bases[3]));
    texts.join(".")
}

/// The same to a parser that folds characters, as browsers do.
fn disguise(host: &str, how: u8) -> String {
    match how {
        0 => host.to_owned(),
        1 => format!("{host}."),
        // Wide digits and an ideographic full stop.
        2 => host
            .chars()
            .map(|c| match c {
                '.' => '。',
                '0'..='9' => {
                    char::from_u32(u32::from(c) - u32::from('0') + u32::from('０')).expect("a digit")
                }
                other => other,
            })
            .collect(),
        3 => host.bytes().map(|b| format!("%{b:02x}")).collect(),
        _ => host.chars().flat_map(|c| [c, '\u{ad}']).collect(),
    }
}

fn judge(url: &str) -> Result<(), Problem> {
    check(url, &UrlPolicy::default()).map(drop)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn an_address_inside_is_refused_in_every_notation(
        ip in ipv4(), parts in 1..=4_usize, bases in any::<[u8; 4]>(), how in 0..5_u8, port in any::<u16>(),
        secure in any::<bool>(),
    ) {
        let host = disguise(&notation(ip, parts, bases.map(|base| base % 4)), how);
        let scheme = if secure { "HTTPS" } else { "http" };
        let url = format!("{scheme}://{host}:{port}/图片.jpg");
        if is_closed(ip) {
            prop_assert!(judge(&url).is_err(), "{url} is {}", Ipv4Addr::from(ip));
        } else if how == 0 {
            prop_assert_eq!(judge(&url), Ok(()), "{} is {}", url, Ipv4Addr::from(ip));
        }
    }

    #[test]
    fn an_address_inside_is_refused_inside_of_ipv6_too(ip in ipv4(), form in 0..6_u8, low in any::<u64>()) {
        let (high, mid) = (ip >> 16, ip & 0xffff);
        let six = match form {
            0 => format!("::ffff:{}", Ipv4Addr::from(ip)),
            1 => format!("::ffff:{high:x}:{mid:x}"),
            2 => format!("::{}", Ipv4Addr::from(ip)),
            3 => format!("64:ff9b::{}", Ipv4Addr::from(ip)),
            4 => format!("2002:{high:x}:{mid:x}::{:x}", low & 0xffff),
            _ => format!("0:0:0:0:ffff:0:{high:x}:{mid:x}"),
        };
        prop_assert!(six.parse::<Ipv6Addr>().is_ok(), "{six}");
        let judged = judge(&format!("http://[{six}]/a"));
        prop_assert_eq!(judged.is_err(), is_closed(ip), "{} carries {}", six, Ipv4Addr::from(ip));
    }

    #[test]
    fn a_closed_network_of_ipv6_is_refused(
        network in prop::sample::select(vec![("fc00::", 7), ("fe80::", 10), ("fec0::", 10), ("ff00::", 8), ("64:ff9b:1::", 48), ("2001::", 32)]),
        low in any::<u128>(),
    ) {
        let (first, bits) = network;
        let first = u128::from(first.parse::<Ipv6Addr>().expect("a network"));
        let ip = Ipv6Addr::from(first | (low & (u128::MAX >> bits)));
        prop_assert_eq!(judge(&format!("http://[{ip}]:8080/")), Err(Problem::PrivateHost), "{}", ip);
    }

    #[test]
    fn a_name_inside_is_refused_in_every_spelling(
        head in "[a-z][a-z0-9-]{0,10}[a-z0-9]",
        tail in prop::sample::select(vec!["localhost", "local", "internal", "lan", "intranet", "home.arpa", "localdomain"]),
        capitals in any::<bool>(), dot in any::<bool>(),
    ) {
        let name = format!("{head}.{tail}{}", if dot { "." } else { "" });
        let name = if capitals { name.to_uppercase() } else { name };
        prop_assert!(judge(&format!("http://{name}/")).is_err(), "{name}");
        let single = format!("http://{head}/");
        prop_assert!(judge(&single).is_err(), "{single}");
    }

    #[test]
    fn any_text_is_judged(text in prop_oneof![".{0,80}", "https?://.{0,60}", "https?://[0-9a-fx.:@\\[\\]]{0,40}/"]) {
        if let Ok(url) = check(&text, &UrlPolicy::default()) {
            prop_assert!(matches!(url.scheme(), "http" | "https"));
            prop_assert!(url.username().is_empty() && url.password().is_none());
        }
    }
}

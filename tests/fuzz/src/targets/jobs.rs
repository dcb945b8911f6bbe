//! What travels with a job: args, messages, deliveries, addresses, traces.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use entropy_jobs::job::Job;
use entropy_jobs::kinds::{
    ai_reply, check_calendars, check_material, check_online, check_risk, check_silence, cost_tally,
    download_media, each_account, expire_keys, handle_callback, index_messages, prune_history, prune_media,
    reap_workers, roll_up_costs, send_message, settle_runs, sop_enroll, sop_step, sop_write, sync_contacts,
    sync_labels,
};
use entropy_jobs::message::{MAX_TEXT_CHARS, MAX_XML_BYTES, Message};
use entropy_jobs::outbound_url::{MAX_LENGTH, UrlPolicy, check};
use entropy_jobs::process::telemetry::trace_id_of;
use entropy_jobs::registry;
use entropy_workers::broker::Delivery;
use serde_json::Value;

use super::{assert_is_a_short_line, head_and_rest};

/// `kind version` in the first line, then the stored args.
pub fn job_args(bytes: &[u8]) {
    let (head, rest) = head_and_rest(bytes);
    let Ok(args) = serde_json::from_slice::<Value>(rest) else { return };
    let (kind, version) = head.split_once(' ').unwrap_or((head, "1"));
    let version = version.trim().parse().unwrap_or(1);
    match kind {
        "send_message" => read::<send_message::SendMessage>(version, &args),
        "ai_reply" => read::<ai_reply::AiReply>(version, &args),
        "check_calendars" => read::<check_calendars::CheckCalendars>(version, &args),
        "check_material" => read::<check_material::CheckMaterial>(version, &args),
        "check_online" => read::<check_online::CheckOnline>(version, &args),
        "check_risk" => read::<check_risk::CheckRisk>(version, &args),
        "check_silence" => read::<check_silence::CheckSilence>(version, &args),
        "cost_tally" => read::<cost_tally::CostTally>(version, &args),
        "download_media" => read::<download_media::DownloadMedia>(version, &args),
        "each_account" => read::<each_account::EachAccount>(version, &args),
        "expire_keys" => read::<expire_keys::ExpireKeys>(version, &args),
        "handle_callback" => read::<handle_callback::HandleCallback>(version, &args),
        "index_messages" => read::<index_messages::IndexMessages>(version, &args),
        "prune_history" => read::<prune_history::PruneHistory>(version, &args),
        "prune_media" => read::<prune_media::PruneMedia>(version, &args),
        "reap_workers" => read::<reap_workers::ReapWorkers>(version, &args),
        "roll_up_costs" => read::<roll_up_costs::RollUpCosts>(version, &args),
        "settle_runs" => read::<settle_runs::SettleRuns>(version, &args),
        "sop_enroll" => read::<sop_enroll::SopEnroll>(version, &args),
        "sop_step" => read::<sop_step::SopStep>(version, &args),
        "sop_write" => read::<sop_write::SopWrite>(version, &args),
        "sync_contacts" => read::<sync_contacts::SyncContacts>(version, &args),
        "sync_labels" => read::<sync_labels::SyncLabels>(version, &args),
        _ => {}
    }
}

/// How many kinds [`job_args`] knows; a test compares it with the registry.
pub const KINDS: usize = 23;

fn read<K: Job>(version: i16, args: &Value) {
    match registry::read::<K>(version, args.clone()) {
        Ok(job) => {
            let (lane, order) = (job.lane(), job.order_key());
            let written = serde_json::to_value(&job).expect("args are plain data");
            let again =
                registry::read::<K>(K::ARGS_VERSION, written.clone()).expect("what was written is read");
            assert_eq!(serde_json::to_value(&again).expect("args are plain data"), written);
            assert_eq!(
                (again.lane(), again.order_key()),
                (lane, order),
                "its place is that of what was asked"
            );
        }
        Err(failure) => {
            assert_eq!(failure.code, "args_unreadable");
            // It becomes the job's error, and args hold what customers are told.
            assert_is_a_short_line(&failure.message, 300);
            no_text_of(args, &failure.message);
        }
    }
}

/// Panics if `message` repeats a text of `value`, unless it is so short that it may be in there by chance.
fn no_text_of(value: &Value, message: &str) {
    match value {
        Value::String(text) if text.chars().count() >= 12 => {
            // Our own sentences are ASCII, and the fuzzer learns them; what is beyond it came from the caller.
            assert!(text.is_ascii() || !message.contains(text.as_str()), "{message}");
        }
        Value::Array(items) => items.iter().for_each(|item| no_text_of(item, message)),
        Value::Object(fields) => fields.values().for_each(|field| no_text_of(field, message)),
        _ => {}
    }
}

/// The body of a Redis message.
pub fn delivery(bytes: &[u8]) {
    let Ok(delivery) = serde_json::from_slice::<Delivery>(bytes) else { return };
    let written = serde_json::to_vec(&delivery).expect("a delivery is plain data");
    assert_eq!(serde_json::from_slice::<Delivery>(&written).ok(), Some(delivery));
}

/// A message as callers write it.
pub fn message(bytes: &[u8]) {
    let Ok(message) = serde_json::from_slice::<Message>(bytes) else { return };
    let written = serde_json::to_value(&message).expect("a message is plain data");
    let again: Message = serde_json::from_value(written.clone()).expect("what was written is read");
    assert!(again == message, "{message:?} is another when it is read again");
    let printed = format!("{message:?}");
    assert!(printed.len() <= 120, "{printed}");
    let problems = message.validate(&UrlPolicy::default());
    assert_eq!(problems, again.validate(&UrlPolicy::default()));
    // Each of up to fifty people who are mentioned, and a few fields.
    assert!(problems.len() <= 64, "{} problems", problems.len());
    for problem in &problems {
        assert_is_a_short_line(&problem.message, 200);
        assert!(problem.path.is_ascii() && problem.path.len() <= 40, "{}", problem.path);
        no_text_of(&written, &problem.message);
    }
    if !problems.is_empty() {
        return;
    }
    match &message {
        Message::Text(text) => {
            assert!((1..=MAX_TEXT_CHARS).contains(&text.text.chars().count()));
            assert!(!text.text.contains('\0'), "Postgres would refuse it");
        }
        Message::AppMessage(document) => assert!(document.xml.len() <= MAX_XML_BYTES),
        Message::Image(image) => assert!(check(&image.url, &UrlPolicy::default()).is_ok()),
        _ => {}
    }
}

/// A URL that the provider is to fetch.
pub fn outbound_url(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match check(text, &UrlPolicy::default()) {
        Ok(url) => {
            assert!(text.len() <= MAX_LENGTH);
            assert!(matches!(url.scheme(), "http" | "https"), "{url}");
            assert!(url.username().is_empty() && url.password().is_none(), "{url}");
            let host = url.host_str().expect("a host");
            assert!(is_public(host), "{text} leads to {host}");
            let understood = url.as_str();
            if understood.len() <= MAX_LENGTH {
                let again = check(understood, &UrlPolicy::default());
                assert_eq!(again.as_ref().map(|url| url.as_str()), Ok(understood), "{text}");
            }
        }
        Err(problem) => assert_is_a_short_line(&problem.to_string(), 200),
    }
}

/// Tells whether a host as it stands in a parsed URL is on the open internet; from the registries of addresses, and on
/// purpose not as `outbound_url` says it.
pub fn is_public(host: &str) -> bool {
    let name = host.trim_end_matches('.').to_lowercase();
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&name);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return match ip {
            IpAddr::V4(ip) => is_public_v4(ip),
            IpAddr::V6(ip) => is_public_v6(ip),
        };
    }
    let Some((_, last)) = name.rsplit_once('.') else { return false };
    // `127.1`, `0x7f.1`: an address to whoever reads it as C does.
    let digits = last.strip_prefix("0x").unwrap_or(last);
    let number = digits.bytes().all(|b| b.is_ascii_digit())
        || (last.starts_with("0x") && digits.bytes().all(|b| b.is_ascii_hexdigit()));
    !number && !["localhost", "local", "internal", "lan", "localdomain"].contains(&last)
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let within = |network: [u8; 4], bits: u32| {
        let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
        u32::from(ip) & mask == u32::from(Ipv4Addr::from(network)) & mask
    };
    let closed = [
        ([0, 0, 0, 0], 8),
        ([10, 0, 0, 0], 8),
        ([100, 64, 0, 0], 10),
        ([127, 0, 0, 0], 8),
        ([169, 254, 0, 0], 16),
        ([172, 16, 0, 0], 12),
        ([192, 0, 0, 0], 24),
        ([192, 168, 0, 0], 16),
        ([198, 18, 0, 0], 15),
        ([224, 0, 0, 0], 4),
        ([240, 0, 0, 0], 4),
    ];
    !closed.iter().any(|(network, bits)| within(*network, *bits))
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let low = Ipv4Addr::from(u32::try_from(u128::from(ip) & 0xffff_ffff).unwrap_or_default());
    let within = |network: &str, bits: u32| {
        let network: Ipv6Addr = network.parse().expect("a network");
        let mask = u128::MAX << (128 - bits);
        u128::from(ip) & mask == u128::from(network) & mask
    };
    if within("::", 96) || within("::ffff:0:0", 96) || within("::ffff:0:0:0", 96) || within("64:ff9b::", 96) {
        return is_public_v4(low);
    }
    if within("2002::", 16) {
        let [_, high, middle, ..] = ip.segments();
        return is_public_v4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(middle)));
    }
    let closed =
        [("64:ff9b:1::", 48), ("2001::", 32), ("fc00::", 7), ("fe80::", 10), ("fec0::", 10), ("ff00::", 8)];
    !closed.iter().any(|(network, bits)| within(network, *bits))
}

/// A `traceparent` header.
pub fn traceparent(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Some(id) = trace_id_of(text) else { return };
    assert_eq!(id.len(), 32);
    assert!(id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{id}");
    assert!(id.bytes().any(|b| b != b'0'));
    assert!(text.contains(&id));
    assert_eq!(trace_id_of(&format!("00-{id}-00f067aa0ba902b7-01")), Some(id));
}

//! The page on which a person plays the customer: pick an account and a contact, chat, send bursts.
//!
//! The page itself is constant but for the nonce of its script, and shows what `/_sandbox/phone` tells
//! by setting texts, so nothing that anybody wrote is ever read as HTML. It shows no token.

use std::collections::{BTreeMap, BTreeSet};

use poem::http::header;
use poem::web::{Data, Json, Query};
use poem::{Response, handler};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Sandbox;
use crate::accounts::AccountState;
use crate::customer::Author;
use crate::ledger::Entry;
use crate::sandbox::State;

/// How many messages of the phone are looked through, and how many lines of a chat are shown.
const LOOKED_AT: usize = 2_000;
const SHOWN: usize = 100;

/// How much of one message is shown, in characters.
const SHOWN_TEXT: usize = 2_000;

const PAGE: &str = include_str!("../assets/phone.html");

/// Answers with the page, whose script only runs with the nonce of this very answer.
#[handler]
pub(crate) fn page() -> Response {
    let nonce = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    Response::builder()
        .content_type("text/html; charset=utf-8")
        .header(header::CONTENT_SECURITY_POLICY, policy)
        .header(header::CACHE_CONTROL, "no-store")
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .body(PAGE.replace("{nonce}", &nonce))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Chosen {
    app_id: Option<String>,
    peer: Option<String>,
}

/// Tells what the page shows: the accounts, the contacts of one, the chat with one of them.
#[handler]
pub(crate) fn view(Data(sandbox): Data<&Sandbox>, Query(chosen): Query<Chosen>) -> Json<Value> {
    let state = sandbox.state();
    let latest = state.ledger.latest(LOOKED_AT);
    let latest: Vec<&Entry> = latest.iter().map(AsRef::as_ref).collect();
    let accounts = accounts(&state, &latest);
    let app_id = chosen.app_id.filter(|app_id| !app_id.is_empty());
    let app_id = app_id.or_else(|| accounts.keys().next().cloned()).unwrap_or_default();
    let contacts = contacts(&state, &latest, &app_id);
    let peer = chosen.peer.filter(|peer| !peer.is_empty());
    let peer = peer.or_else(|| contacts.first().map(|(peer, _)| peer.clone())).unwrap_or_default();
    let shown = |(wxid, at): &(String, i64)| json!({ "wxid": wxid, "name": state.name_of(&app_id, wxid), "last_at_ms": at });
    Json(json!({
        "accounts": accounts.values().collect::<Vec<_>>(),
        "app_id": app_id,
        "contacts": contacts.iter().map(shown).collect::<Vec<_>>(),
        "peer": peer,
        "lines": lines(&state, &latest, &app_id, &peer),
        "received": state.ledger.delivered(),
        "callback": !state.callbacks.is_empty(),
        "pending": state.customer.attempts.pending,
        "failed": failed(&state),
    }))
}

/// Every account that was heard of, by device.
fn accounts(state: &State, latest: &[&Entry]) -> BTreeMap<String, Value> {
    let mut known: BTreeSet<&str> = state.accounts.states().map(|(app_id, _)| app_id).collect();
    known.extend(latest.iter().map(|entry| entry.app_id.as_str()));
    known.extend(state.customer.lines.iter().map(|line| line.app_id.as_str()));
    let shown = |app_id: &str| {
        let wxid = state.accounts.wxid(app_id);
        let online = state.accounts.state(app_id) != AccountState::Offline;
        json!({ "app_id": app_id, "name": state.name_of(app_id, &wxid), "wxid": wxid, "online": online })
    };
    known.into_iter().map(|app_id| (app_id.to_owned(), shown(app_id))).collect()
}

/// Everybody whom an account has talked to or knows, the latest first, with the time in milliseconds.
fn contacts(state: &State, latest: &[&Entry], app_id: &str) -> Vec<(String, i64)> {
    let mut times: BTreeMap<&str, i64> = BTreeMap::new();
    let book = state.books.get(app_id);
    for wxid in book.into_iter().flat_map(|book| book.everybody()) {
        times.insert(wxid, 0);
    }
    for line in state.customer.lines.iter().filter(|line| line.app_id == app_id) {
        let time = times.entry(&line.peer).or_default();
        *time = (*time).max(line.at.timestamp_millis());
    }
    for entry in latest.iter().filter(|entry| entry.app_id == app_id) {
        let time = times.entry(&entry.to_wxid).or_default();
        *time = (*time).max(entry.at.0.timestamp_millis());
    }
    let mut contacts: Vec<_> = times.into_iter().map(|(wxid, at)| (wxid.to_owned(), at)).collect();
    contacts.sort_by_key(|(_, at)| std::cmp::Reverse(*at));
    contacts.truncate(SHOWN);
    contacts
}

/// The last lines of a chat, oldest first.
fn lines(state: &State, latest: &[&Entry], app_id: &str, peer: &str) -> Vec<Value> {
    let cut = |text: &str| text.chars().take(SHOWN_TEXT).collect::<String>();
    let mut lines = Vec::new();
    for line in state.customer.lines.iter().filter(|line| line.app_id == app_id && line.peer == peer) {
        let side = if line.author == Author::Owner { "owner" } else { "customer" };
        lines.push((
            line.at.timestamp_micros(),
            json!({
                "id": line.new_msg_id, "side": side, "sender": state.name_of(app_id, &line.sender),
                "text": cut(&line.text), "recalled": line.recalled, "at_ms": line.at.timestamp_millis()
            }),
        ));
    }
    for entry in latest.iter().filter(|entry| entry.app_id == app_id && entry.to_wxid == peer) {
        lines.push((
            entry.at.0.timestamp_micros(),
            json!({
                "id": entry.new_msg_id.to_string(), "side": "account", "sender": "", "text": cut(&summary(entry)),
                "recalled": false, "at_ms": entry.at.0.timestamp_millis()
            }),
        ));
    }
    lines.sort_by_key(|(at, _)| *at);
    let first = lines.len().saturating_sub(SHOWN);
    lines.into_iter().skip(first).map(|(_, line)| line).collect()
}

/// How many callbacks were not taken.
fn failed(state: &State) -> u64 {
    let outcomes = &state.customer.attempts.outcomes;
    outcomes.iter().filter(|(outcome, _)| !outcome.starts_with('2')).map(|(_, count)| count).sum()
}

/// Puts a message into one line, as a chat list would.
fn summary(entry: &Entry) -> String {
    let field = |name: &str| entry.body.get(name).and_then(Value::as_str).unwrap_or_default();
    match entry.kind {
        "text" => field("content").to_owned(),
        "image" => format!("[图片 Image] {}", field("imgUrl")),
        "file" => format!("[文件 File] {}", field("fileName")),
        "voice" => format!("[语音 Voice] {}", field("voiceUrl")),
        "video" => format!("[视频 Video] {}", field("videoUrl")),
        "link" => format!("[链接 Link] {} {}", field("title"), field("linkUrl")),
        "name_card" => format!("[名片 Name card] {}", field("nickName")),
        "emoji" => format!("[表情 Emoji] {}", field("emojiMd5")),
        "app_message" => format!("[应用消息 App message] {}", field("appmsg")),
        "mini_program" => format!("[小程序 Mini program] {}", field("title")),
        other => format!("[{other}]"),
    }
}

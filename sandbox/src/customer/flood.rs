//! Callbacks by the thousand: many accounts, many customers, every event once to three times, in any order.
//!
//! What is delivered follows from the seed. Deliveries that fail are made again, so that a test can
//! count on every event having arrived once the flood has ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use poem::http::StatusCode;
use poem::web::{Data, Json, Query};
use poem::{Body, IntoResponse, Response, handler};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::control::address;
use super::events::{Event, Message, What};
use super::requests::{Fields, How};
use super::{Format, Parcel, delivery, shown};
use crate::Sandbox;
use crate::control::{BadRequest, read_large};
use crate::sandbox::State;

/// The most messages of one flood.
const MAX_MESSAGES: usize = 200_000;

/// How many deliveries may be under way.
const UNDER_WAY: usize = 256;

/// A flood as it is asked for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewFlood {
    accounts: Vec<Account>,
    /// How many messages, over all accounts.
    messages: usize,
    /// How many people write to each account; 10 if absent.
    #[serde(default)]
    contacts_per_account: Option<usize>,
    /// Each is delivered at least and at most so often.
    #[serde(default)]
    copies: Option<(u32, u32)>,
    #[serde(default)]
    shuffle: bool,
    /// Deliveries per second; absent: as fast as they go.
    #[serde(default)]
    rate_per_s: Option<f64>,
    /// Drawn if absent.
    #[serde(default)]
    seed: Option<u64>,
    /// Absent: half of the messages classic, half flat, and copies of one message in either.
    #[serde(default)]
    format: Option<Format>,
    /// How often a delivery that failed is made again; 20 if absent.
    #[serde(default)]
    retries: Option<u32>,
    /// In front of every text.
    #[serde(default)]
    prefix: Option<String>,
    #[serde(default)]
    url: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Account {
    app_id: String,
    wxid: String,
}

/// One message of a flood.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Planned {
    app_id: String,
    from: String,
    text: String,
    new_msg_id: String,
    copies: u32,
}

/// How far a flood has come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// 0: none.
    seed: u64,
    messages: Vec<Planned>,
    planned: usize,
    done: usize,
    accepted: usize,
    /// Microseconds of each last attempt that was answered.
    times: Vec<u32>,
    started_at: Option<String>,
    finished_at: Option<String>,
}

/// Starts a flood; answers 202 with its seed.
#[handler]
pub(super) async fn start(Data(sandbox): Data<&Sandbox>, body: Body) -> poem::Result<Response> {
    let new: NewFlood = read_large(body).await?;
    let (low, high) = new.copies.unwrap_or((1, 1));
    let contacts = new.contacts_per_account.unwrap_or(10);
    if new.accounts.is_empty() || !(1..=MAX_MESSAGES).contains(&new.messages) {
        return Err(
            BadRequest(format!("accounts and between 1 and {MAX_MESSAGES} messages are needed")).into()
        );
    }
    if low == 0 || high < low || high > 10 || contacts == 0 {
        return Err(BadRequest(
            "copies must be [least, most] up to 10, contacts_per_account at least 1".into(),
        )
        .into());
    }
    let rate = new.rate_per_s;
    if rate.is_some_and(|rate| !(rate > 0.0 && rate <= 100_000.0)) {
        return Err(BadRequest("rate_per_s must be between 0 and 100000".into()).into());
    }
    let seed = new.seed.unwrap_or_else(|| fastrand::u64(..));
    let (parcels, era) = {
        let mut state = sandbox.state();
        if state.customer.flood.started_at.is_some() && state.customer.flood.finished_at.is_none() {
            return Err(BadRequest("a flood is under way".into()).into());
        }
        let (messages, parcels) = plan(&mut state, &new, seed, (low, high), contacts).map_err(BadRequest)?;
        state.customer.flood = Progress {
            seed,
            messages,
            planned: parcels.len(),
            started_at: Some(shown(Utc::now())),
            ..Progress::default()
        };
        state.customer.attempts.pending += parcels.len() as u64;
        (parcels, state.customer.era)
    };
    let answer = json!({ "seed": seed, "messages": new.messages, "deliveries": parcels.len() });
    let task = sandbox.clone();
    sandbox.spawn(async move { run(&task, parcels, rate, era).await });
    Ok(Json(answer).with_status(StatusCode::ACCEPTED).into_response())
}

/// Works out all messages and the order of their deliveries.
fn plan(
    state: &mut State,
    new: &NewFlood,
    seed: u64,
    copies: (u32, u32),
    contacts: usize,
) -> Result<(Vec<Planned>, Vec<Parcel>), String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let how = How { url: new.url.clone(), ..How::default() };
    let prefix = new.prefix.as_deref().unwrap_or("您好，请问");
    let mut messages = Vec::with_capacity(new.messages);
    let mut parcels = Vec::new();
    let mut addresses = Vec::new();
    for account in &new.accounts {
        state.accounts.set_wxid(&account.app_id, &account.wxid);
        addresses.push(address(state, &account.app_id, &how)?);
    }
    for number in 0..new.messages {
        let index = random.usize(..new.accounts.len());
        let (Some(account), Some(address)) = (new.accounts.get(index), addresses.get(index)) else {
            continue;
        };
        let from = format!("wxid_flood_{index:03}_{:04}", random.usize(..contacts));
        let text = format!("{prefix}第 {number} 个问题怎么办？");
        let (msg_id, new_msg_id) = state.ledger.new_ids();
        let fields = Fields { sender: from.clone(), text: text.clone(), ..Fields::default() };
        let event = Event {
            app_id: account.app_id.clone(),
            wxid: account.wxid.clone(),
            at: Utc::now(),
            msg_id,
            new_msg_id: new_msg_id.to_string(),
            sequence: state.customer.next_sequence(),
            what: What::Message(Message { fields, ..Message::default() }),
        };
        let count = random.u32(copies.0..=copies.1);
        for copy in 1..=count {
            let format = new.format.unwrap_or(if random.bool() { Format::Classic } else { Format::Flat });
            let body: Arc<str> = event.body(format).to_string().into();
            let parcel = address.parcel(&account.app_id, &event.name(format), Some(&event.new_msg_id), body);
            let retries = new.retries.unwrap_or(20).min(1000);
            parcels.push(Parcel { copy, retries, ..parcel });
        }
        let app_id = account.app_id.clone();
        messages.push(Planned { app_id, from, text, new_msg_id: new_msg_id.to_string(), copies: count });
    }
    if new.shuffle {
        random.shuffle(&mut parcels);
    }
    Ok((messages, parcels))
}

/// Delivers everything at the rate that was asked for.
async fn run(sandbox: &Sandbox, parcels: Vec<Parcel>, rate: Option<f64>, era: u64) {
    let began = Instant::now();
    let slots = Arc::new(Semaphore::new(UNDER_WAY));
    let mut tasks = JoinSet::new();
    for (index, parcel) in parcels.into_iter().enumerate() {
        if let Some(rate) = rate {
            let due = Duration::from_secs_f64(index as f64 / rate);
            tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
        }
        let Ok(slot) = slots.clone().acquire_owned().await else { break };
        let sandbox = sandbox.clone();
        tasks.spawn(async move {
            let ended = delivery::deliver(&sandbox, &parcel, era).await;
            drop(slot);
            let Some((status, took)) = ended else { return };
            let mut state = sandbox.state();
            if state.customer.era != era {
                return;
            }
            let flood = &mut state.customer.flood;
            flood.done += 1;
            if status.is_some_and(|status| (200..300).contains(&status)) {
                flood.accepted += 1;
                flood.times.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    let mut state = sandbox.state();
    if state.customer.era == era {
        state.customer.flood.finished_at = Some(shown(Utc::now()));
    }
}

/// Tells how far the flood has come: times are of the attempts that were accepted.
#[handler]
pub(super) fn show(Data(sandbox): Data<&Sandbox>) -> Json<Value> {
    let state = sandbox.state();
    let flood = &state.customer.flood;
    let mut times = flood.times.clone();
    times.sort_unstable();
    let at = |share: f64| {
        let index = (times.len() as f64 * share) as usize;
        times.get(index.min(times.len().saturating_sub(1))).map(|micros| f64::from(*micros) / 1000.0)
    };
    let progress = match (&flood.started_at, &flood.finished_at) {
        (None, _) => "none",
        (_, None) => "running",
        _ => "finished",
    };
    Json(json!({
        "state": progress, "seed": flood.seed, "messages": flood.messages.len(), "deliveries": flood.planned,
        "done": flood.done, "accepted": flood.accepted, "failed": flood.done - flood.accepted,
        "ms": { "p50": at(0.5), "p99": at(0.99), "max": at(1.0) },
        "outcomes": state.customer.attempts.outcomes,
        "started_at": flood.started_at, "finished_at": flood.finished_at
    }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    offset: Option<usize>,
    limit: Option<usize>,
}

/// Lists the messages of the flood.
#[handler]
pub(super) fn list(Data(sandbox): Data<&Sandbox>, Query(query): Query<ListQuery>) -> Json<Value> {
    let state = sandbox.state();
    let messages = &state.customer.flood.messages;
    let limit = query.limit.unwrap_or(10_000).min(MAX_MESSAGES);
    let items: Vec<_> = messages.iter().skip(query.offset.unwrap_or(0)).take(limit).collect();
    Json(json!({ "items": items, "total": messages.len() }))
}

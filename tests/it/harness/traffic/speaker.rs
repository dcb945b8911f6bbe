//! Who asks for messages: one after another in each conversation.

use std::time::{Duration, Instant};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::asker::{Answer, Asker};
use super::{Sender, TrafficShape};
use crate::harness::client::{Account, send};
use crate::harness::history::Message;

/// How many speak for one account, each with conversations of its own.
pub(super) const PARTS: usize = 2;

/// A message that was asked for, as the caller knows it.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) message: Message,
    pub(super) class: u8,
    /// None: it was refused because its deadline had passed before it could be asked for.
    pub(super) job: Option<Uuid>,
    pub(super) scheduled_us: Option<i64>,
    pub(super) expires_us: Option<i64>,
    /// When the API had answered that it is cancelled.
    pub(super) cancelled_us: Option<i64>,
}

/// What an AI run cost, as the caller told it.
#[derive(Debug, Clone)]
pub(super) struct Tally {
    pub(super) organization: Uuid,
    pub(super) request_id: String,
    pub(super) jobs: Vec<Uuid>,
}

/// Speaks for some conversations of one account.
#[derive(Debug)]
pub(super) struct Speaker {
    name: String,
    sender: Sender,
    conversations: Vec<(String, u8)>,
    rate_per_s: f64,
    asker: Asker,
    random: fastrand::Rng,
    said: usize,
    asked: Vec<Asked>,
    breaches: Vec<String>,
}

const PRIORITIES: [&str; 3] = ["interactive", "reply", "campaign"];

impl Speaker {
    pub(super) fn new(
        name: String,
        sender: Sender,
        number: usize,
        part: usize,
        shape: TrafficShape,
        asker: Asker,
        random: fastrand::Rng,
    ) -> Speaker {
        // One priority for each conversation, all three side by side.
        let conversation = |n: usize| (format!("wxid_customer{number}c{n}"), (n / PARTS % 3) as u8);
        let conversations = (0..shape.conversations.max(PARTS)).filter(|n| n % PARTS == part);
        Speaker {
            conversations: conversations.map(conversation).collect(),
            rate_per_s: sender.rate_per_s / PARTS as f64,
            name,
            sender,
            asker,
            random,
            said: 0,
            asked: Vec::new(),
            breaches: Vec::new(),
        }
    }

    /// Speaks until it is time to stop, and returns what was asked for and what was answered wrongly.
    pub(super) async fn run(mut self, until: Instant) -> (Vec<Asked>, Vec<String>) {
        let mut next = Instant::now();
        loop {
            let before = self.asked.len();
            self.say_something().await;
            let said = (self.asked.len() - before).max(1) as f64;
            let pause = said / self.rate_per_s * (0.5 + self.random.f64());
            // What could not be said during an outage is not made up for: it would be a burst, not traffic.
            next = (next + Duration::from_secs_f64(pause)).max(Instant::now());
            tokio::time::sleep_until(next.min(until).into()).await;
            if next >= until {
                return (self.asked, self.breaches);
            }
        }
    }

    async fn say_something(&mut self) {
        let (to_wxid, class) = self.random.choice(&self.conversations).expect("a conversation").clone();
        match self.random.u8(..100) {
            0..40 => {
                self.say(to_wxid, class, None, None).await;
            }
            40..55 => self.say_many().await,
            55..67 => {
                // Some of them too short to be met, some even to be asked for.
                let expires_at = Some(soon(&mut self.random, 5..1500));
                self.say(to_wxid, class, None, expires_at).await;
            }
            67..84 => self.say_later(to_wxid, class).await,
            84.. => {
                if let Some(job) = self.say(to_wxid, class, None, None).await {
                    tokio::time::sleep(Duration::from_millis(self.random.u64(..200))).await;
                    self.call_off(job).await;
                }
            }
        }
    }

    /// Asks for a message that is due in a while: it is sent, expires just after, or is called off around that time.
    async fn say_later(&mut self, to_wxid: String, class: u8) {
        // Scheduled messages take their place when their time comes, so each has a conversation of its own.
        let to_wxid = format!("{to_wxid}s{}x{}", self.name.replace('-', "x"), self.said);
        let ahead_ms = self.random.u64(100..4000);
        let due_at = soon(&mut self.random, ahead_ms..ahead_ms + 1);
        match self.random.u8(..3) {
            0 => {
                self.say(to_wxid, class, Some(due_at), None).await;
            }
            1 => {
                let expires_at = due_at + TimeDelta::milliseconds(self.random.i64(1..60));
                self.say(to_wxid, class, Some(due_at), Some(expires_at)).await;
            }
            _ => {
                let job = self.say(to_wxid, class, Some(due_at), None).await;
                let wait_ms = self.random.u64(..(ahead_ms + 100).min(1000));
                tokio::time::sleep(Duration::from_millis(wait_ms)).await;
                if let Some(job) = job {
                    self.call_off(job).await;
                }
            }
        }
    }

    /// Returns a new message, its deadline made sure of.
    fn message(&mut self, to_wxid: String) -> Message {
        self.said += 1;
        let text = format!("您好，张先生！第 {}-{} 条：新品已到店，欢迎选购。", self.name, self.said);
        Message { app_id: self.sender.account.app_id.clone(), to_wxid, text }
    }

    /// A message of an account that has soon sent all it may must not wait for ever.
    fn deadline(&mut self) -> Option<DateTime<Utc>> {
        self.sender.must_expire.then(|| soon(&mut self.random, 10_000..20_000))
    }

    /// Asks for one message and returns its job.
    async fn say(
        &mut self,
        to_wxid: String,
        class: u8,
        scheduled_at: Option<DateTime<Utc>>,
        expires_at: Option<DateTime<Utc>>,
    ) -> Option<Uuid> {
        let expires_at = expires_at.or_else(|| self.deadline());
        let message = self.message(to_wxid);
        let mut body =
            send(self.sender.account.id, &message.to_wxid, &message.text, PRIORITIES[usize::from(class)]);
        for (field, at) in [("scheduled_at", scheduled_at), ("expires_at", expires_at)] {
            if let Some(at) = at {
                body[field] = json!(shown(at));
            }
        }
        if self.random.u8(..8) == 0 {
            body["on_unknown"] = json!("drop");
        }
        let key = format!("{}-{}", message.app_id, message.text);
        let reply = self.post("/jobs/send-message", &key, &body).await.reply;
        let job = match reply.status {
            200 | 202 => Some(id_of(&reply.body["id"])),
            // Only of one that has a deadline; there was no answer before it passed.
            422 if expires_at.is_some() && reply.text.contains("in_the_past") => None,
            status => {
                let breach = format!("{} answered {status} {}", reply.asked, reply.text);
                self.breaches.push(breach);
                None
            }
        };
        let micros = |at: Option<DateTime<Utc>>| at.map(|at| at.timestamp_micros());
        let (scheduled_us, expires_us) = (micros(scheduled_at), micros(expires_at));
        self.asked.push(Asked { message, class, job, scheduled_us, expires_us, cancelled_us: None });
        if let Some(job) = job
            && self.random.u8(..20) == 0
        {
            let again = self.post("/jobs/send-message", &key, &body).await.reply;
            if again.status != 200 || id_of(&again.body["id"]) != job {
                self.breaches
                    .push(format!("asked again for {job}, answered {} {}", again.status, again.text));
            }
        }
        job
    }

    async fn post(&mut self, path: &str, key: &str, body: &Value) -> Answer {
        // A header holds no Chinese.
        let key = format!("{:032x}", fnv(key));
        self.asker
            .ask(|client| client.request(Method::POST, path).header("Idempotency-Key", &key).json(body))
            .await
    }

    /// Asks for several messages of several conversations at once.
    async fn say_many(&mut self) {
        let mut messages = Vec::new();
        let expires_at = self.deadline();
        for _ in 0..self.random.usize(2..=12) {
            let (to_wxid, class) = self.random.choice(&self.conversations).expect("a conversation").clone();
            messages.push((self.message(to_wxid), class));
        }
        let item = |(message, class): &(Message, u8)| {
            let account = self.sender.account.id;
            let mut args = send(account, &message.to_wxid, &message.text, PRIORITIES[usize::from(*class)]);
            if let Some(at) = expires_at {
                args["expires_at"] = json!(shown(at));
            }
            let key = format!("{:032x}", fnv(&format!("{}-{}", message.app_id, message.text)));
            json!({ "kind": "send_message", "idempotency_key": key, "args": args })
        };
        let body = json!({ "jobs": messages.iter().map(item).collect::<Vec<_>>() });
        let reply =
            self.asker.ask(|client| client.request(Method::POST, "/jobs/batch").json(&body)).await.reply;
        let answers = reply.body["items"].as_array().cloned().unwrap_or_default();
        if reply.status != 202 || answers.len() != messages.len() {
            self.breaches.push(format!("{} answered {} {}", reply.asked, reply.status, reply.text));
        }
        let expires_us = expires_at.map(|at| at.timestamp_micros());
        for (n, (message, class)) in messages.into_iter().enumerate() {
            let answer = answers.get(n).cloned().unwrap_or_default();
            let job = answer["id"].as_str().map(|_| id_of(&answer["id"]));
            // Asked again after its deadline, an item that was stored before is refused. The record knows it.
            if job.is_none() && !(expires_at.is_some() && answer.to_string().contains("in_the_past")) {
                self.breaches.push(format!("an item of a batch was answered with {answer}"));
            }
            self.asked.push(Asked {
                message,
                class,
                job,
                scheduled_us: None,
                expires_us,
                cancelled_us: None,
            });
        }
    }

    /// Calls a job off and notes whether the API said that it is cancelled.
    async fn call_off(&mut self, job: Uuid) {
        let reply =
            self.asker.ask(|client| client.request(Method::POST, &format!("/jobs/{job}/cancel"))).await.reply;
        let code = reply.body["code"].as_str().unwrap_or_default().to_owned();
        let cancelled_us = match (reply.status, code.as_str()) {
            (200, _) => Some(reply.at_us),
            (202, _) | (409, "too_late") => None,
            // It may be that the answer was lost that said it is cancelled.
            (409, "already_ended") => {
                let path = format!("/jobs/{job}");
                let shown = self.asker.ask(|client| client.request(Method::GET, &path)).await.reply;
                (shown.body["state"] == "cancelled").then_some(shown.at_us)
            }
            (status, _) => {
                self.breaches.push(format!("{} answered {status} {}", reply.asked, reply.text));
                None
            }
        };
        if let Some(asked) = self.asked.iter_mut().rev().find(|asked| asked.job == Some(job)) {
            asked.cancelled_us = cancelled_us;
        }
    }
}

/// Tells what AI runs cost, some of them twice.
pub(super) async fn tell_costs(
    name: String,
    accounts: Vec<Account>,
    rate_per_s: f64,
    mut asker: Asker,
    mut random: fastrand::Rng,
    until: Instant,
) -> Vec<Tally> {
    let mut tallies = Vec::new();
    if accounts.is_empty() {
        return tallies;
    }
    let mut next = Instant::now();
    while next < until {
        let request_id = format!("{}-{name}-{}", accounts[0].app_id, tallies.len());
        let body = json!({
            "request_id": request_id,
            "account_id": accounts[random.usize(..accounts.len())].id,
            "model": "deepseek-chat",
            "input_tokens": random.u32(1..4000),
            "output_tokens": random.u32(1..1000),
        });
        // The same run told under two keys is two jobs and one line.
        let keys = if random.u8(..10) == 0 { vec!["一", "二"] } else { vec!["一"] };
        let mut jobs = Vec::new();
        for key in keys {
            let key = format!("{:032x}", fnv(&format!("{request_id}{key}")));
            let answer = asker
                .ask(|client| {
                    let request = client.request(Method::POST, "/jobs/cost-tally");
                    request.header("Idempotency-Key", &key).json(&body)
                })
                .await;
            let reply = answer.reply;
            assert!([200, 202].contains(&reply.status), "{} answered {}", reply.asked, reply.text);
            jobs.push(id_of(&reply.body["id"]));
        }
        tallies.push(Tally { organization: asker.organization(), request_id, jobs });
        let pause = (0.5 + random.f64()) / rate_per_s;
        next = (next + Duration::from_secs_f64(pause)).max(Instant::now());
        tokio::time::sleep_until(next.min(until).into()).await;
    }
    tallies
}

/// A moment so many milliseconds ahead, as exact as the database keeps it.
fn soon(random: &mut fastrand::Rng, ahead_ms: std::ops::Range<u64>) -> DateTime<Utc> {
    let ahead_ms = i64::try_from(random.u64(ahead_ms)).expect("soon");
    let micros = Utc::now().timestamp_micros() + ahead_ms * 1000;
    DateTime::from_timestamp_micros(micros).expect("a time")
}

fn shown(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// A short name for a long text (FNV-1a).
fn fnv(text: &str) -> u128 {
    text.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash: u128, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    })
}

fn id_of(value: &Value) -> Uuid {
    value.as_str().and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("not an id: {value}"))
}

//! Messages of several accounts and conversations, enqueued over HTTP, and what became of them.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use super::client::{Account, send};
use super::history::{self, Arrival, Ask, Fault, Limits, Message, Outcome, Rules};
use super::{Client, Platform, eventually, secs};

/// What to send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Accounts that send.
    pub(crate) accounts: usize,
    /// Conversations of each account.
    pub(crate) conversations: usize,
    /// Messages of each account.
    pub(crate) messages: usize,
    /// Limit of each account.
    pub(crate) per_minute: i32,
    /// Gap of each account.
    pub(crate) min_gap_ms: i32,
    /// A pause between two requests, so that enqueueing lasts.
    pub(crate) pause: Duration,
}

impl Shape {
    /// 500 messages over 5 accounts.
    pub(crate) const FULL: Shape = Shape {
        accounts: 5,
        conversations: 6,
        messages: 100,
        per_minute: 600,
        min_gap_ms: 40,
        pause: Duration::ZERO,
    };
}

/// Accounts with work to do.
#[derive(Debug)]
pub(crate) struct Load {
    client: Client,
    shape: Shape,
    accounts: Vec<Account>,
    /// Everything that was asked for, in the order of each conversation.
    pub(crate) asked: Vec<Message>,
    /// The job of each message.
    pub(crate) jobs: HashMap<Uuid, Message>,
}

/// What is enqueued by one request.
struct Request {
    messages: Vec<(Message, &'static str)>,
    key: String,
}

impl Load {
    /// Makes an organisation with its accounts.
    pub(crate) async fn prepare(platform: &Platform, shape: Shape) -> Load {
        let client = platform.register().await;
        let mut accounts = Vec::new();
        for _ in 0..shape.accounts {
            accounts.push(client.account(shape.per_minute, shape.min_gap_ms).await);
        }
        Load { client, shape, accounts, asked: Vec::new(), jobs: HashMap::new() }
    }

    /// Returns whoever enqueues.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Enqueues everything, the accounts side by side, one by one and in batches by turns.
    ///
    /// A request that is not answered is made again with its idempotency key: the API may be killed meanwhile.
    pub(crate) async fn enqueue(&mut self) {
        let one_account = |n: usize| {
            let (client, account) = (self.client.clone(), self.accounts[n].clone());
            let shape = self.shape;
            async move {
                let mut done = Vec::new();
                for request in requests(&account, n, shape) {
                    let ids = enqueue_one(&client, &account, &request).await;
                    done.extend(
                        ids.into_iter().zip(request.messages.into_iter().map(|(message, _)| message)),
                    );
                    tokio::time::sleep(shape.pause).await;
                }
                done
            }
        };
        for done in futures::future::join_all((0..self.accounts.len()).map(one_account)).await {
            for (id, message) in done {
                self.asked.push(message.clone());
                let before = self.jobs.insert(id, message);
                assert!(before.is_none(), "two messages became one job: {before:?}");
            }
        }
        assert_eq!(self.asked.len(), self.shape.accounts * self.shape.messages);
    }

    /// Returns how many messages are to be sent in all.
    pub(crate) fn total(&self) -> u64 {
        (self.shape.accounts * self.shape.messages) as u64
    }

    /// Returns every fault in what the phone received; `unknown` are the jobs whose outcome nobody knows.
    pub(crate) fn faults(&self, arrived: &[Arrival], unknown: &HashSet<Uuid>) -> Vec<Fault> {
        let limits = Limits {
            per_minute: usize::try_from(self.shape.per_minute).expect("a limit"),
            per_day: None,
            recipients_per_minute: None,
            min_gap: Duration::from_millis(self.shape.min_gap_ms.unsigned_abs().into()),
        };
        let accounts = self.accounts.iter().map(|account| (account.app_id.clone(), limits)).collect();
        let unknown: HashSet<&Message> = unknown.iter().map(|job| &self.jobs[job]).collect();
        let ask = |message: &Message| {
            let outcome = if unknown.contains(message) { Outcome::Unknown } else { Outcome::Sent };
            Ask { outcome, ..Ask::new(message.clone()) }
        };
        let asked: Vec<Ask> = self.asked.iter().map(ask).collect();
        history::faults(&asked, arrived, &Rules { accounts, ..Rules::default() })
    }

    /// Panics unless the phone received every message once, in order, within the limits, and every job says so.
    ///
    /// Messages of unknown outcome may be missing, but not repeated; they must be listed as such. Returns how many
    /// there are.
    pub(crate) async fn assert_kept(&self, platform: &Platform) -> usize {
        let open = self.client.all("/sends?state=unknown").await;
        let open: HashSet<Uuid> = open.iter().map(|send| id_of(&send["job_id"])).collect();
        let faults = self.faults(&platform.ledger().await, &open);
        assert!(faults.is_empty(), "{} faults: {:#?}", faults.len(), &faults[..faults.len().min(10)]);

        let jobs = self.client.all("/jobs?kind=send_message").await;
        assert_eq!(jobs.len(), self.jobs.len(), "every job is listed once");
        for job in &jobs {
            // A send of unknown outcome is open until a person speaks; a job that says "unknown" must be among them.
            let expected =
                if open.contains(&id_of(&job["id"])) { ("dead", "unknown") } else { ("completed", "sent") };
            let found =
                (job["state"].as_str().unwrap_or("?"), job["result"]["send_status"].as_str().unwrap_or("?"));
            assert_eq!(found, expected, "{job:#}");
        }
        platform.assert_sound().await;
        open.len()
    }
}

/// Waits until the phone has received `n` messages.
pub(crate) async fn received(platform: &Platform, n: u64, timeout: Duration) {
    eventually(&format!("the phone has received {n} messages"), timeout, async || {
        let received = platform.sandbox.received().await;
        if received >= n { Ok(()) } else { Err(format!("it has {received}")) }
    })
    .await;
}

/// The requests of one account: its conversations in turn, each conversation in one priority.
fn requests(account: &Account, number: usize, shape: Shape) -> Vec<Request> {
    let messages: Vec<_> = (0..shape.messages)
        .map(|n| {
            let conversation = n % shape.conversations;
            let priority = ["interactive", "reply", "campaign"][conversation % 3];
            let message = Message {
                app_id: account.app_id.clone(),
                to_wxid: format!("wxid_customer{number}{conversation}"),
                text: format!("您好，张先生！这是第 {} 条消息：新品已到店。", n + 1),
            };
            (message, priority)
        })
        .collect();
    let mut rest = messages.as_slice();
    let mut requests = Vec::new();
    while !rest.is_empty() {
        // One by one, then a batch of seven, and so on.
        let size = if requests.len() % 3 == 2 { 7.min(rest.len()) } else { 1 };
        let (now, later) = rest.split_at(size);
        requests.push(Request { messages: now.to_vec(), key: format!("{}-{}", account.app_id, rest.len()) });
        rest = later;
    }
    requests
}

/// Enqueues one request, for as long as it takes, and returns its jobs.
async fn enqueue_one(client: &Client, account: &Account, request: &Request) -> Vec<Uuid> {
    let (path, key, body) = match request.messages.as_slice() {
        [(message, priority)] => {
            let body = send(account.id, &message.to_wxid, &message.text, priority);
            ("/jobs/send-message", Some(request.key.as_str()), body)
        }
        many => {
            let item = |(n, (message, priority)): (usize, &(Message, &str))| {
                json!({
                    "kind": "send_message",
                    "idempotency_key": format!("{}-{n}", request.key),
                    "args": send(account.id, &message.to_wxid, &message.text, priority),
                })
            };
            ("/jobs/batch", None, json!({ "jobs": many.iter().enumerate().map(item).collect::<Vec<_>>() }))
        }
    };
    let answer = eventually("the API has taken a request", secs(60), async || {
        let mut post = client.request(reqwest::Method::POST, path).json(&body);
        if let Some(key) = key {
            post = post.header("Idempotency-Key", key);
        }
        match client.try_send(post).await {
            Ok(reply) if reply.status == 202 || reply.status == 200 => Ok(reply.body),
            Ok(reply) if reply.status >= 500 => Err(format!("{} {}", reply.status, reply.text)),
            Ok(reply) => panic!("{path} answered {} {}", reply.status, reply.text),
            Err(error) => Err(format!("{error:?}")),
        }
    })
    .await;
    match &answer["items"] {
        Value::Array(items) => items.iter().map(|item| id_of(&item["id"])).collect(),
        _ => vec![id_of(&answer["id"])],
    }
}

fn id_of(value: &Value) -> Uuid {
    value.as_str().and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("not an id: {value}"))
}

//! Everything that callers do, mixed, against processes that may die at any moment; and what became of it.
//!
//! [`Traffic::run`] asks until it is answered: a request whose answer is lost is made again with its `Idempotency-Key`,
//! at the next address. [`Traffic::check`] reads the record and the sandbox's ledger when all is over and judges both by
//! [`super::history`]. What is done is drawn from the seed; how much of it fits into the time is not.

mod asker;
mod record;
mod report;
mod speaker;
mod switches;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, FutureExt, join_all};
use serde_json::json;

use asker::{Asker, Counts};
pub(crate) use record::{Evidence, JobRow};
pub(crate) use report::Report;
use speaker::{Asked, Speaker, Tally};
use switches::Switched;

use super::client::Account;
use super::history::{IN_FLIGHT, Limits, Pause, TokenLimit};
use super::{Client, Platform};

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TrafficShape {
    /// Accounts that send, with different limits.
    pub(crate) accounts: usize,
    /// Conversations of each account.
    pub(crate) conversations: usize,
    /// Messages a second over all accounts. No account is asked for more than half of what it may send in a minute, so that
    /// nothing piles up.
    pub(crate) rate_per_s: f64,
    /// Calls in any hour of the one token that some accounts share. What is above expires.
    pub(crate) token_per_hour: usize,
    /// How late the provider may take a message on purpose.
    pub(crate) slow_provider: Duration,
}

impl Default for TrafficShape {
    fn default() -> TrafficShape {
        TrafficShape {
            accounts: 8,
            conversations: 6,
            rate_per_s: 20.0,
            token_per_hour: 400,
            slow_provider: Duration::ZERO,
        }
    }
}

/// An account and what it may do.
#[derive(Debug, Clone)]
struct Sender {
    account: Account,
    organization: usize,
    limits: Limits,
    /// It is asked for more than it may send in the long run: each of its messages has a deadline, or it would wait.
    must_expire: bool,
    /// Messages a second that are asked of it.
    rate_per_s: f64,
}

/// Callers with accounts of their own.
#[derive(Debug)]
pub(crate) struct Traffic {
    seed: u64,
    shape: TrafficShape,
    organizations: Vec<Client>,
    senders: Vec<Sender>,
    token: TokenLimit,
    asked: Vec<Asked>,
    tallies: Vec<Tally>,
    switched: Switched,
    counts: Arc<Counts>,
    /// What the API answered that it must not.
    breaches: Vec<String>,
    runs: u64,
}

/// Limits by turns: messages a minute, gap in milliseconds, and what is limited besides.
const PROFILES: [(i32, i32, Besides); 8] = [
    (600, 0, Besides::Nothing),
    (300, 50, Besides::Token),
    (120, 200, Besides::Nothing),
    (240, 20, Besides::Recipients(20)),
    (600, 40, Besides::Nothing),
    (180, 100, Besides::Token),
    (300, 0, Besides::Day(120)),
    (30, 0, Besides::Nothing),
];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Besides {
    Nothing,
    Token,
    Recipients(i32),
    Day(i32),
}

impl Traffic {
    /// Makes two organisations and their accounts.
    pub(crate) async fn prepare(platform: &Platform, seed: u64, shape: TrafficShape) -> Traffic {
        let organizations = vec![platform.register().await, platform.register().await];
        let token = format!("gewe-token-of-{:016x}", fastrand::u64(..));
        let allowed: i32 = (0..shape.accounts).map(|n| PROFILES[n % PROFILES.len()].0).sum();
        let mut senders = Vec::new();
        for n in 0..shape.accounts {
            let (per_minute, min_gap_ms, besides) = PROFILES[n % PROFILES.len()];
            let mut limits = json!({
                "messages_per_minute": per_minute,
                "min_gap_ms": min_gap_ms,
                "messages_per_day": 100_000,
                "recipients_per_minute": 600,
            });
            let mut fields = json!({});
            match besides {
                Besides::Nothing => {}
                Besides::Token => {
                    fields["gewe_token_id"] = json!(token);
                    limits["api_calls_per_hour"] = json!(shape.token_per_hour);
                }
                Besides::Recipients(most) => limits["recipients_per_minute"] = json!(most),
                Besides::Day(most) => limits["messages_per_day"] = json!(most),
            }
            fields["limits"] = limits;
            let organization = n % organizations.len();
            let number = |n: i32| usize::try_from(n).expect("a limit");
            let share = f64::from(per_minute) / f64::from(allowed);
            senders.push(Sender {
                account: organizations[organization].account_with(fields).await,
                organization,
                limits: Limits {
                    per_minute: number(per_minute),
                    per_day: if let Besides::Day(most) = besides { Some(number(most)) } else { None },
                    recipients_per_minute: if let Besides::Recipients(most) = besides {
                        Some(number(most))
                    } else {
                        None
                    },
                    min_gap: Duration::from_millis(min_gap_ms.unsigned_abs().into()),
                },
                must_expire: besides != Besides::Nothing,
                rate_per_s: (shape.rate_per_s * share).min(f64::from(per_minute) / 60.0 / 2.0),
            });
        }
        let uses_token = |n: usize| PROFILES[n % PROFILES.len()].2 == Besides::Token;
        let app_ids =
            senders.iter().enumerate().filter(|(n, _)| uses_token(*n)).map(|(_, s)| s.account.app_id.clone());
        Traffic {
            seed,
            shape,
            token: TokenLimit { app_ids: app_ids.collect(), per_hour: shape.token_per_hour },
            organizations,
            senders,
            asked: Vec::new(),
            tallies: Vec::new(),
            switched: Switched::default(),
            counts: Arc::default(),
            breaches: Vec::new(),
            runs: 0,
        }
    }

    /// Goes on for so long, at these addresses of the API, until the last request is answered and nothing is paused.
    ///
    /// May be called again: conversations go on where they were.
    pub(crate) async fn run(&mut self, bases: &[String], for_: Duration) {
        self.runs += 1;
        let until = Instant::now() + for_;
        let mut random = fastrand::Rng::with_seed(self.seed.wrapping_add(self.runs));
        let askers: Vec<Asker> = self
            .organizations
            .iter()
            .map(|client| Asker::new(client.clone(), bases.to_vec(), Arc::clone(&self.counts)))
            .collect();
        let mut speakers = Vec::new();
        let mut tellers: Vec<BoxFuture<'_, Vec<Tally>>> = Vec::new();
        let mut switchers: Vec<BoxFuture<'_, Switched>> = Vec::new();
        for (number, sender) in self.senders.iter().enumerate() {
            for part in 0..speaker::PARTS {
                let name = format!("{}-{number}-{part}", self.runs);
                let random = random.fork();
                let asker = askers[sender.organization].beginning_at(number + part);
                let speaker = Speaker::new(name, sender.clone(), number, part, self.shape, asker, random);
                speakers.push(speaker.run(until).boxed());
            }
        }
        for (number, asker) in askers.iter().enumerate() {
            let own = |sender: &&Sender| sender.organization == number;
            let accounts: Vec<Account> = self.senders.iter().filter(own).map(|s| s.account.clone()).collect();
            let rate_per_s = self.shape.rate_per_s / 20.0 / self.organizations.len() as f64;
            let name = format!("{}-{number}", self.runs);
            tellers.push(
                speaker::tell_costs(name, accounts.clone(), rate_per_s, asker.clone(), random.fork(), until)
                    .boxed(),
            );
            switchers.push(
                switches::accounts(accounts.clone(), asker.clone(), random.fork(), until, for_).boxed(),
            );
            switchers.push(switches::queue(accounts, asker.clone(), random.fork(), until).boxed());
        }
        let (spoken, told, switched) =
            futures::join!(join_all(speakers), join_all(tellers), join_all(switchers));
        for (asked, breaches) in spoken {
            self.asked.extend(asked);
            self.breaches.extend(breaches);
        }
        self.tallies.extend(told.into_iter().flatten());
        for switched in switched {
            self.switched.merge(switched);
        }
        self.resume_all(bases).await;
    }

    /// Resumes every account and every queue, also what a provider's answer has stopped.
    pub(crate) async fn resume_all(&self, bases: &[String]) {
        for (number, client) in self.organizations.iter().enumerate() {
            let mut asker = Asker::new(client.clone(), bases.to_vec(), Arc::clone(&self.counts));
            for sender in self.senders.iter().filter(|sender| sender.organization == number) {
                let path = format!("/wechat-accounts/{}/resume", sender.account.id);
                asker.switch(&path).await;
            }
            for queue in ["send", "cost"] {
                asker.switch(&format!("/queues/{queue}/resume")).await;
            }
        }
    }

    /// Reads what became of everything. Call it when all is idle.
    pub(crate) async fn evidence(&self, platform: &Platform) -> Evidence {
        record::read(self, platform).await
    }

    /// Reads what became of everything and judges it; also panics if the record contradicts itself. Call it when all is
    /// idle.
    pub(crate) async fn check(&self, platform: &Platform) -> Report {
        let report = self.evidence(platform).await.judge();
        platform.assert_sound().await;
        report
    }

    /// Everything that the checker needs to know of the accounts.
    fn rules(&self) -> super::history::Rules {
        let accounts: HashMap<String, Limits> =
            self.senders.iter().map(|sender| (sender.account.app_id.clone(), sender.limits)).collect();
        let pauses: Vec<Pause> = self.switched.pauses.clone();
        let tokens = if self.token.app_ids.is_empty() { Vec::new() } else { vec![self.token.clone()] };
        super::history::Rules { accounts, tokens, pauses, allowance: IN_FLIGHT + self.shape.slow_provider }
    }
}

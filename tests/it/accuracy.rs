//! How exactly the limiter works: never above a limit, and hardly below it while messages wait.
//!
//! A limit of *n* a minute gives an account *n* slots. A message takes a slot, and the slot may be taken again 60 s
//! later. Every account starts with more messages than it can send, so each slot should be taken again as soon as it is
//! open, and how late that happens is all that is lost: the share of the allowed rate that is used is
//! 60 s / (60 s + mean lateness). A slot that stands open at the end counts with its lateness so far. Whole minutes
//! would say the same, but of six messages a minute a single one that crosses the edge is 17 %.
//!
//! All times are those of the receiver, the sandbox's ledger. The long form wants a release build: its 269 messages a
//! second are more than a debug build can carry on two cores, and then the shares show the machine and not the limiter.
//! (With 358 a second they show it with a release build, too: 90 % of both cores are then busy.)

use std::collections::HashMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

use diesel::sql_query;
use diesel::sql_types::{BigInt, Text};
use diesel_async::{AsyncConnection, RunQueryDsl, SimpleAsyncConnection};
use entropy_jobs::conversation::Origin;
use entropy_jobs::enqueue::{NewJob, new_job};
use entropy_jobs::kinds::send_message::SendMessage;
use entropy_jobs::lifecycle::OnUnknown;
use entropy_schema::record;
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::book::unhurried;
use crate::harness::platform::Builder;
use crate::harness::{Client, Platform, chaos, history, secs};

const MINUTE_US: i64 = 60_000_000;

/// Least share of the allowed rate that is to be used, also while workers are killed.
const USED: f64 = 0.97;

/// The same in the short form, which sees each slot come round only once, on a machine that may have other work to do.
const USED_IN_SHORT: f64 = 0.90;

/// How often a worker is killed in the form with kills.
const KILL_EVERY: Duration = secs(5);

/// How long a lane rests at most after its worker was killed: until its heartbeat counts as silent (2.5 s), until a rescuer
/// looks (1 s) that has had its session for long enough (5 s; of the other three workers at least two have), and a bit for
/// the machine. The slot of the lost call itself counts from six seconds after its beginning.
const REST: Duration = secs(7);

/// Whom the accounts wrote to in the minute before.
const BEFORE: &str = "wxid_before";

const KILLS: &str = "a worker killed every 5 s";

/// So many accounts of one limit.
#[derive(Debug, Clone, Copy)]
struct Group {
    per_minute: i32,
    accounts: usize,
}

/// 1,000 accounts that may send 269 messages a second between them: many small ones, few large ones.
const LONG: [Group; 7] = groups([520, 300, 130, 36, 8, 4, 2]);

/// 58 accounts, 38 messages a second.
const SHORT: [Group; 7] = groups([24, 14, 8, 6, 4, 1, 1]);

/// 21 accounts, 22 messages a second.
const SHORT_WITH_KILLS: [Group; 7] = groups([8, 5, 3, 2, 1, 1, 1]);

const fn groups(accounts: [usize; 7]) -> [Group; 7] {
    let per_minute = [6, 12, 30, 60, 120, 300, 600];
    let mut groups = [Group { per_minute: 0, accounts: 0 }; 7];
    let mut n = 0;
    while n < 7 {
        groups[n] = Group { per_minute: per_minute[n], accounts: accounts[n] };
        n += 1;
    }
    groups
}

#[tokio::test]
async fn a_waiting_backlog_uses_its_limit_and_never_more() {
    let seconds = chaos::seconds(70);
    if chaos::long() {
        let calm = builder().alone().start().await;
        let calm = Field::prepare(calm, &LONG, seconds).await.measure(seconds, None).await;
        let calm = calm.report("no kills", seconds);
        let killed = Field::prepare(builder().alone().start().await, &LONG, seconds).await;
        let killed = killed.measure(seconds, Some(KILL_EVERY)).await.report(KILLS, seconds);
        calm.assert_exact(USED);
        killed.assert_explained(USED);
        killed.assert_exact(USED);
        return;
    }
    // Side by side: a minute has to pass in either.
    let mut first = builder().alone().start().await;
    let second = builder().in_the_place_of(&mut first).start().await;
    let (calm, killed) = futures::join!(
        Field::prepare(first, &SHORT, seconds),
        Field::prepare(second, &SHORT_WITH_KILLS, seconds)
    );
    let (calm, killed) =
        futures::join!(calm.measure(seconds, None), killed.measure(seconds, Some(KILL_EVERY)));
    let (calm, killed) = (calm.report("no kills", seconds), killed.report(KILLS, seconds));
    calm.assert_exact(USED_IN_SHORT);
    killed.assert_explained(USED_IN_SHORT);
}

fn builder() -> Builder {
    Platform::with().workers(4).env("MAX_API_CALLS_PER_HOUR", "1000000")
}

/// Accounts with more to send than they can.
struct Field {
    platform: Platform,
    limits: HashMap<String, i32>,
}

impl Field {
    /// Makes the accounts and enqueues everything while the queue is paused.
    async fn prepare(platform: Platform, groups: &[Group], seconds: u64) -> Field {
        let client = platform.register().await;
        let wanted = groups.iter().flat_map(|group| (0..group.accounts).map(|_| group.per_minute));
        let made: Vec<(String, Uuid, i32)> =
            stream::iter(wanted).map(|limit| account(&client, limit)).buffer_unordered(8).collect().await;
        client.post("/queues/send/pause", Value::Null).await.expect(200);
        // Each slot once at the beginning and once a minute, and some more, so that the backlog lasts to the end.
        let minutes = seconds.div_ceil(60) + 1;
        let jobs: Vec<NewJob> = made
            .iter()
            .flat_map(|(_, id, limit)| {
                let count = u64::try_from(*limit).expect("a limit") * minutes;
                (0..count).map(|n| message(&client, *id, n))
            })
            .collect();
        for jobs in jobs.chunks(1000) {
            let mut conn = platform.db.conn().await.expect("a connection");
            conn.transaction(async |conn| record::enqueue::enqueue(conn, jobs).await)
                .await
                .expect("enqueued");
        }
        let limits = made.into_iter().map(|(app_id, _, limit)| (app_id, limit)).collect();
        Field { platform, limits }
    }

    /// Lets the accounts begin.
    ///
    /// In the long form each has been at its limit for a minute: its slots come open one after the other. An account whose slots
    /// are all open sends a minute's messages as fast as its lane can, some 40 a second, and must then be as fast again a minute
    /// later: that shows the machine, and what is lost by it is lost once. The short form begins like that, since it has no
    /// minute to spare, and each account at a moment of its own.
    async fn begin(&self) {
        let before = format!(
            "INSERT INTO sends (id, organization_id, account_id, token_key, job_id, attempt, to_wxid, message_kind, state, \
                 started_at, finished_at, window_at) \
             SELECT gen_random_uuid(), a.organization_id, a.id, a.token_key, gen_random_uuid(), 1, '{BEFORE}', 'text', 'sent', \
                 t.at, t.at, t.at \
             FROM (SELECT id, organization_id, token_key, messages_per_minute AS most, random() AS phase \
                     FROM wechat_accounts) a \
                 CROSS JOIN LATERAL generate_series(0, a.most - 1) n \
                 CROSS JOIN LATERAL (SELECT now() - interval '60 seconds' * (1 - (n + a.phase) / a.most) AS at) t"
        );
        let spread_ms = if chaos::long() { 0 } else { 8_000 };
        let begin = format!(
            "WITH resumed AS (DELETE FROM queue_pauses) UPDATE lanes SET runnable_at = clock_timestamp() + \
             random() * {spread_ms} * interval '1 millisecond'"
        );
        let mut conn = self.platform.db.conn().await.expect("a connection");
        if chaos::long() {
            conn.batch_execute(&before).await.expect("the minute before");
        }
        conn.batch_execute(&begin).await.expect("the accounts begin");
    }

    /// Lets everything go for so long, and reads what arrived when.
    async fn measure(mut self, seconds: u64, kill_every: Option<Duration>) -> Measured {
        self.begin().await;
        let began = Instant::now();
        let end = began + secs(seconds);
        let mut kills = 0;
        while Instant::now() < end {
            match kill_every {
                None => tokio::time::sleep_until(end.into()).await,
                Some(pause) => {
                    tokio::time::sleep_until((Instant::now() + pause).min(end).into()).await;
                    if Instant::now() < end {
                        self.platform.replace_worker(kills % 4);
                        kills += 1;
                    }
                }
            }
        }
        let end_us = chrono::Utc::now().timestamp_micros();
        let left = self.platform.number("SELECT count(*) AS n FROM pending").await;
        assert!(left > 0, "the backlog did not last, so the shares mean nothing");
        for worker in &mut self.platform.workers {
            worker.kill();
        }
        let mut hits = self.hits().await;
        let mut arrived: HashMap<String, Vec<i64>> = HashMap::new();
        let mut seq = 0;
        loop {
            let page = self.platform.sandbox.after(seq).await;
            seq += page.len() as u64;
            if page.is_empty() {
                break;
            }
            for arrival in page {
                arrived.entry(arrival.message.app_id).or_default().push(arrival.at_us);
            }
        }
        let forget = format!("DELETE FROM sends WHERE to_wxid = '{BEFORE}'");
        self.platform.db.conn().await.expect("a connection").batch_execute(&forget).await.expect("forgotten");
        self.platform.assert_sound().await;
        let accounts = self.limits.iter().map(|(app_id, limit)| {
            let times = arrived.remove(app_id).unwrap_or_default();
            let account = Account::of(usize::try_from(*limit).expect("a limit"), &times, end_us);
            Account { hits: hits.remove(app_id).unwrap_or(0), ..account }
        });
        Measured { accounts: accounts.collect(), kills }
    }

    /// Counts for each account the attempts that died with their worker, also those that nobody has noticed yet.
    ///
    /// A message whose arrival was already on record when its worker died is completed by the rescuer: that attempt is
    /// known by its length, since no death is known sooner than after one and a half seconds.
    async fn hits(&self) -> HashMap<String, usize> {
        let mut conn = self.platform.db.conn().await.expect("a connection");
        let hits: Vec<Hits> = sql_query(
            "SELECT a.gewe_app_id AS app_id, count(*) AS n FROM ( \
                 SELECT job_id FROM attempts \
                     WHERE outcome = 'lost' OR finished_at - started_at > interval '1400 milliseconds' \
                 UNION ALL \
                 SELECT job_id FROM leases JOIN workers ON workers.id = leases.worker_id \
                     WHERE heartbeat_at < clock_timestamp() - interval '2 seconds' \
             ) l JOIN jobs j ON j.id = l.job_id JOIN wechat_accounts a ON a.id = j.account_id GROUP BY 1",
        )
        .load(&mut conn)
        .await
        .expect("the lost attempts");
        hits.into_iter().map(|hits| (hits.app_id, usize::try_from(hits.n).expect("a count"))).collect()
    }
}

#[derive(diesel::QueryableByName)]
struct Hits {
    #[diesel(sql_type = Text)]
    app_id: String,
    #[diesel(sql_type = BigInt)]
    n: i64,
}

/// Adds an account with a GeWe token of its own, so that only its messages per minute hold it back.
async fn account(client: &Client, per_minute: i32) -> (String, Uuid, i32) {
    let name = format!("{:016x}", fastrand::u64(..));
    let body = json!({
        "wxid": format!("wxid_{name}"),
        "nickname": "小李",
        "gewe_app_id": format!("wx_{name}"),
        "gewe_token_id": format!("token-{name}"),
        "limits": {
            "messages_per_minute": per_minute,
            "min_gap_ms": 0,
            "messages_per_day": 100_000,
            "recipients_per_minute": 600,
            "api_calls_per_hour": 1_000_000,
        },
    });
    let answer = client.post("/wechat-accounts", body).await.expect(201);
    (format!("wx_{name}"), answer["id"].as_str().and_then(|id| id.parse().ok()).expect("an id"), per_minute)
}

fn message(client: &Client, account: Uuid, n: u64) -> NewJob {
    let args = SendMessage {
        account_id: account,
        to_wxid: format!("wxid_customer{}", n % 5),
        message: serde_json::from_value(json!({ "kind": "text", "text": format!("您好！第 {n} 条。") }))
            .expect("a message"),
        on_unknown: OnUnknown::Hold,
        origin: Origin::Person,
        reply: None,
        confirms_opt_out: false,
        campaign: None,
    };
    new_job(&args, unhurried(client.organization))
}

/// What one account made of its limit.
#[derive(Debug, Clone, PartialEq)]
struct Account {
    per_minute: usize,
    received: usize,
    /// The most messages in any rolling minute.
    worst: usize,
    /// How late each slot was taken again, in microseconds; of one that stands open, so far.
    late_us: Vec<i64>,
    /// Attempts that died with their worker.
    hits: usize,
}

impl Account {
    /// `times` are those of arrival, growing; `end_us` is when the look at them ended.
    fn of(per_minute: usize, times: &[i64], end_us: i64) -> Account {
        let late = times.iter().enumerate().filter(|(_, at)| **at + MINUTE_US < end_us).map(|(n, at)| {
            let again = times.get(n + per_minute).copied().unwrap_or(end_us);
            // Two calls may overtake each other on their way by less than the limit can see.
            (again - (at + MINUTE_US)).max(0)
        });
        let (received, worst) = (times.len(), history::worst(times, secs(60)));
        Account { per_minute, received, worst, late_us: late.collect(), hits: 0 }
    }

    /// The share of the allowed rate that was used. None: no slot has come round yet.
    fn used(&self) -> Option<f64> {
        used(&self.late_us)
    }
}

/// 60 s / (60 s + mean lateness).
fn used(late_us: &[i64]) -> Option<f64> {
    if late_us.is_empty() {
        return None;
    }
    let mean = late_us.iter().map(|late| *late as f64).sum::<f64>() / late_us.len() as f64;
    Some(MINUTE_US as f64 / (MINUTE_US as f64 + mean))
}

/// What all accounts made of their limits.
struct Measured {
    accounts: Vec<Account>,
    kills: usize,
}

impl Measured {
    /// Prints the table: a line per limit.
    fn report(self, form: &str, seconds: u64) -> Measured {
        let received: usize = self.accounts.iter().map(|account| account.received).sum();
        let mut text = format!(
            "limiter, {form}: {} accounts, 4 workers, {seconds} s, {received} messages ({:.0}/s), {} \
             kills\n{:>9} {:>8} {:>8} {:>7} {:>9} {:>9} {:>11} {:>11} {:>11} {:>6} {:>9}\n",
            self.accounts.len(),
            received as f64 / seconds as f64,
            self.kills,
            "limit/min",
            "accounts",
            "slots",
            "worst",
            "used min",
            "used mean",
            "late p50 ms",
            "late p99 ms",
            "late max ms",
            "lost",
            "not hit",
        );
        for per_minute in self.limits() {
            let group: Vec<&Account> = self.group(per_minute).collect();
            let mut late: Vec<i64> =
                group.iter().flat_map(|account| account.late_us.iter().copied()).collect();
            late.sort_unstable();
            // `min` of a number and of what is none is the number.
            let least = group.iter().filter_map(|account| account.used()).fold(f64::NAN, f64::min);
            let worst = group.iter().map(|account| account.worst).max().unwrap_or(0);
            let at = |share: f64| {
                let place = (late.len() as f64 * share) as usize;
                late.get(place.min(late.len().saturating_sub(1))).map_or(0.0, |late| *late as f64 / 1000.0)
            };
            let hits: usize = group.iter().map(|account| account.hits).sum();
            let spared: Vec<i64> = group
                .iter()
                .filter(|account| account.hits == 0)
                .flat_map(|account| account.late_us.clone())
                .collect();
            let _ = writeln!(
                text,
                "{per_minute:>9} {:>8} {:>8} {worst:>7} {:>8.2}% {:>8.2}% {:>11.1} {:>11.1} {:>11.1} {hits:>6} {:>8.2}%",
                group.len(),
                late.len(),
                least * 100.0,
                used(&late).unwrap_or(f64::NAN) * 100.0,
                at(0.5),
                at(0.99),
                at(1.0),
                used(&spared).unwrap_or(f64::NAN) * 100.0,
            );
        }
        chaos::report(&text);
        self
    }

    fn limits(&self) -> Vec<usize> {
        let mut limits: Vec<usize> = self.accounts.iter().map(|account| account.per_minute).collect();
        limits.sort_unstable();
        limits.dedup();
        limits
    }

    fn group(&self, per_minute: usize) -> impl Iterator<Item = &Account> {
        self.accounts.iter().filter(move |account| account.per_minute == per_minute)
    }

    /// Panics unless no account was ever above its limit.
    fn assert_kept(&self) {
        let above: Vec<String> = self
            .accounts
            .iter()
            .filter(|account| account.worst > account.per_minute)
            .map(|account| format!("{} in a minute of at most {}", account.worst, account.per_minute))
            .collect();
        assert!(above.is_empty(), "{above:?}");
    }

    /// Panics unless every limit was kept, and no more is unused than the kills explain.
    ///
    /// A lane whose message was in the hands of a killed worker rests until that worker counts as dead. In that time all
    /// of its slots may come round, so one hit costs at most one rest of each slot: a whole minute's burst that was about
    /// to begin. Beside that `share` is used, as without kills.
    fn assert_explained(&self, share: f64) {
        self.assert_kept();
        let without_kills = MINUTE_US as f64 * (1.0 / share - 1.0);
        for per_minute in self.limits() {
            let late: i64 = self.group(per_minute).flat_map(|account| &account.late_us).sum();
            let slots: usize = self.group(per_minute).map(|account| account.late_us.len()).sum();
            let hits: usize = self.group(per_minute).map(|account| account.hits).sum();
            let explained =
                without_kills * slots as f64 + REST.as_micros() as f64 * (hits * per_minute) as f64;
            assert!(
                late as f64 <= explained,
                "{per_minute} a minute: {slots} slots were {:.0} s late, and {hits} lost attempts explain {:.0} s",
                late as f64 / 1e6,
                explained / 1e6,
            );
        }
    }

    /// Panics unless every limit was kept, and used to at least that share.
    fn assert_exact(&self, share: f64) {
        self.assert_kept();
        for per_minute in self.limits() {
            let late: Vec<i64> =
                self.group(per_minute).flat_map(|account| account.late_us.iter().copied()).collect();
            let used = used(&late).unwrap_or_else(|| panic!("{per_minute} a minute: no slot came round"));
            assert!(used >= share, "{per_minute} a minute: {:.2} % were used", used * 100.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    #[test]
    fn a_message_too_early_is_above_the_limit() {
        let mut times: Vec<i64> = (0..12).map(|n| n / 6 * MINUTE_US + n % 6 * SECOND).collect();
        let kept =
            |times: &[i64]| Measured { accounts: vec![Account::of(6, times, 2 * MINUTE_US)], kills: 0 };
        kept(&times).assert_exact(1.0);
        times[6] -= 1;
        let broken = kept(&times);
        assert!(std::panic::catch_unwind(|| broken.assert_kept()).is_err());
    }

    #[test]
    fn slots_that_are_taken_late_are_not_used() {
        // Two slots, each taken again three seconds late.
        let times = [0, SECOND, 63 * SECOND, 64 * SECOND];
        let account = Account::of(2, &times, 65 * SECOND);
        assert_eq!(account.late_us, [3 * SECOND, 3 * SECOND]);
        let share = account.used().expect("two slots came round");
        assert!((share - 60.0 / 63.0).abs() < 1e-9, "{share}");
        let measured = Measured { accounts: vec![account], kills: 0 };
        assert!(std::panic::catch_unwind(|| measured.assert_exact(USED)).is_err());
    }

    #[test]
    fn a_rest_counts_only_if_a_kill_explains_it() {
        let times: Vec<i64> = (0..4).map(|n| n % 2 * SECOND + n / 2 * (MINUTE_US + 5 * SECOND)).collect();
        let account = Account::of(2, &times, 67 * SECOND);
        let hit = Measured { accounts: vec![Account { hits: 1, ..account.clone() }], kills: 1 };
        hit.assert_explained(USED);
        let spared = Measured { accounts: vec![account], kills: 1 };
        assert!(std::panic::catch_unwind(|| spared.assert_explained(USED)).is_err());
    }

    #[test]
    fn a_slot_that_stands_open_is_late_until_the_end() {
        let account = Account::of(1, &[0], 100 * SECOND);
        assert_eq!(account.late_us, [40 * SECOND]);
        assert_eq!(Account::of(1, &[0], 59 * SECOND).used(), None);
    }

    #[test]
    fn the_long_form_is_a_thousand_accounts_that_two_cores_can_serve() {
        let accounts: usize = LONG.iter().map(|group| group.accounts).sum();
        let per_minute: i32 = LONG.iter().map(|group| group.per_minute * group.accounts as i32).sum();
        assert_eq!((accounts, per_minute / 60), (1000, 269));
    }
}

//! One round: accounts with a mix of failures each, their messages, an operator, and all that is known afterwards.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use diesel::sql_query;
use diesel::sql_types::{Nullable, Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::messages::{KINDS, fetches_media, message};
use super::modes::card;
use super::truth::{self, Call, Send, Told};
use crate::harness::{Client, Platform, eventually, secs};

/// How many calls one deck of failures lasts: each mode meets a tenth.
const DECK: usize = 10;

/// Time between two messages of an account.
const MIN_GAP_MS: i32 = 20;

/// How all tokens of these accounts begin, so that they are found wherever they should not be.
const TOKEN: &str = "planted-gewe-token-";

/// What to do when nobody can know whether a message was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    /// A person decides.
    Hold,
    /// It is not worth a question.
    Drop,
    /// Better twice than not at all.
    Resend,
}

impl Policy {
    fn name(self) -> &'static str {
        match self {
            Policy::Hold => "hold",
            Policy::Drop => "drop",
            Policy::Resend => "resend",
        }
    }
}

/// What one account is to go through.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// The failures, each of which meets a tenth of the calls of each kind.
    pub(super) modes: &'static [&'static str],
    /// Another one, which lasts longer than a call may.
    pub(super) slow: Option<&'static str>,
    /// What its messages ask for, by turns.
    pub(super) policies: Vec<Policy>,
    /// How many people it writes to.
    pub(super) conversations: usize,
    /// The kinds that it sends.
    pub(super) kinds: Vec<&'static str>,
    /// How many messages it sends in all.
    pub(super) messages: usize,
    /// Its limit.
    pub(super) per_minute: i32,
}

impl Part {
    /// A deck of every kind.
    pub(super) fn of(modes: &'static [&'static str], policies: Vec<Policy>) -> Part {
        Part {
            modes,
            slow: None,
            policies,
            conversations: 7,
            kinds: KINDS.to_vec(),
            messages: KINDS.len() * DECK,
            per_minute: 600,
        }
    }

    /// Whether its limit is below what it is asked for.
    fn is_limited(&self) -> bool {
        usize::try_from(self.per_minute).is_ok_and(|limit| limit < self.messages)
    }
}

/// An account with its part.
#[derive(Debug)]
struct Player {
    id: Uuid,
    app_id: String,
    part: Part,
}

/// Accounts that are ready to play their parts.
#[derive(Debug)]
pub(super) struct Cast {
    client: Client,
    players: Vec<Player>,
}

impl Cast {
    /// Makes an organisation, an account with a token of its own for each part, and plans its failures.
    pub(super) async fn hire(platform: &Platform, parts: Vec<Part>, seed: u64) -> Cast {
        let client = platform.register().await;
        let mut players = Vec::new();
        for (n, part) in (0_u64..).zip(parts) {
            let account = client
                .account_with(json!({
                    // Its own, so that a refused token holds no other account.
                    "gewe_token_id": format!("{TOKEN}{:016x}", fastrand::u64(..)),
                    "limits": {
                        "messages_per_minute": part.per_minute,
                        "min_gap_ms": MIN_GAP_MS,
                        "messages_per_day": 100_000,
                        "recipients_per_minute": 600,
                    },
                }))
                .await;
            let slow_media = part.slow.map(|_| fetches_media(part.kinds[0]));
            let cards: Vec<Value> =
                part.modes.iter().copied().chain(part.slow).map(|mode| card(mode, slow_media)).collect();
            let mix = json!({"app_id": account.app_id, "seed": seed.rotate_left(8) ^ n, "of": DECK, "modes": cards});
            platform.sandbox.mix(mix).await;
            players.push(Player { id: account.id, app_id: account.app_id, part });
        }
        Cast { client, players }
    }

    /// Enqueues all messages of one account in order, each under a trace of its own, and returns those.
    async fn speak(&self, player: &Player) -> Vec<Line> {
        let part = &player.part;
        let mut lines = Vec::new();
        for n in 0..part.messages {
            let kind = part.kinds[n % part.kinds.len()];
            let to_wxid = format!("wxid_customer{}", n % part.conversations);
            let policy = part.policies[n / part.kinds.len() % part.policies.len()];
            let trace_id = format!("{:032x}", fastrand::u128(1..));
            let body = json!({
                "account_id": player.id,
                "to_wxid": to_wxid,
                "message": message(kind, n),
                "priority": "campaign",
                "on_unknown": policy.name(),
            });
            let post = self
                .client
                .request(Method::POST, "/jobs/send-message")
                .header("traceparent", format!("00-{trace_id}-00f067aa0ba902b7-01"))
                .json(&body);
            self.client.send(post).await.expect(202);
            lines.push(Line { trace_id, app_id: player.app_id.clone(), to_wxid, kind, policy });
        }
        lines
    }

    /// Lifts every hold as soon as its attempt is over, as an operator who is always awake would.
    async fn operate(&self, platform: &Platform) -> usize {
        let held = format!(
            "SELECT a.id::text AS id FROM wechat_accounts a JOIN lanes l ON l.id = a.id \
             WHERE a.organization_id = '{}' AND a.deleted_at IS NULL AND l.busy_job_id IS NULL AND \
             (a.status <> 'ONLINE' OR l.paused_at IS NOT NULL \
              OR l.wait_code IN ('account_offline', 'gewe_token_rejected', 'lane_paused', 'account_not_ready'))",
            self.client.organization
        );
        let mut lifted = 0;
        let mut conn = platform.db.conn().await.expect("a connection");
        let accounts: Vec<Held> = sql_query(held).load(&mut conn).await.expect("accounts on hold");
        drop(conn);
        for account in accounts {
            self.client
                .post(&format!("/wechat-accounts/{}/resume", account.id), Value::Null)
                .await
                .expect(200);
            lifted += 1;
        }
        lifted
    }

    /// Returns how many jobs of accounts with room to send have not ended.
    async fn waiting(&self, platform: &Platform) -> i64 {
        let free: Vec<String> = self
            .players
            .iter()
            .filter(|player| !player.part.is_limited())
            .map(|player| format!("'{}'", player.id))
            .collect();
        let waiting = format!(
            "SELECT count(*) AS n FROM jobs WHERE final_state IS NULL AND account_id IN ({})",
            free.join(",")
        );
        platform.number(&waiting).await
    }
}

/// A message that was asked for.
#[derive(Debug)]
struct Line {
    trace_id: String,
    app_id: String,
    to_wxid: String,
    kind: &'static str,
    policy: Policy,
}

#[derive(diesel::QueryableByName)]
struct Held {
    #[diesel(sql_type = Text)]
    id: String,
}

#[derive(diesel::QueryableByName)]
struct JobRow {
    #[diesel(sql_type = Text)]
    trace_id: String,
    #[diesel(sql_type = Text)]
    state: String,
    #[diesel(sql_type = Nullable<Text>)]
    send_status: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    new_msg_id: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    error: Option<String>,
}

#[derive(diesel::QueryableByName)]
struct SendRow {
    #[diesel(sql_type = Text)]
    trace_id: String,
    #[diesel(sql_type = Text)]
    state: String,
    #[diesel(sql_type = Nullable<Text>)]
    code: Option<String>,
}

const JOBS: &str = "SELECT trace_id, coalesce(final_state, 'live') AS state, result ->> 'send_status' AS send_status, \
    result ->> 'new_msg_id' AS new_msg_id, error ->> 'code' AS error FROM jobs WHERE organization_id = $1";

const SENDS: &str = "SELECT j.trace_id, s.state, s.error_code AS code FROM sends s JOIN jobs j ON j.id = s.job_id \
    WHERE s.organization_id = $1 ORDER BY s.started_at";

/// A round that is over.
#[derive(Debug)]
pub(super) struct Scene {
    cast: Cast,
    lines: Vec<Line>,
    /// What there is about each job, in the order of the lines.
    pub(super) told: Vec<Told>,
}

impl Scene {
    /// Plays all parts at once, and returns when nothing is left to do.
    pub(super) async fn play(platform: &Platform, cast: Cast, patience: Duration) -> Scene {
        let speaking = futures::future::join_all(cast.players.iter().map(|player| cast.speak(player)));
        let (lines, ()) = futures::join!(speaking, async {
            cast.operate(platform).await;
        });
        let lines: Vec<Line> = lines.into_iter().flatten().collect();
        eventually("every account has said what it had to say", patience, async || {
            let lifted = cast.operate(platform).await;
            match cast.waiting(platform).await {
                0 => Ok(()),
                waiting => Err(format!("{waiting} jobs wait; {lifted} holds lifted")),
            }
        })
        .await;
        // What an account below its needs has not sent by now is called off with it.
        for player in cast.players.iter().filter(|player| player.part.is_limited()) {
            assert_eq!(cast.client.delete(&format!("/wechat-accounts/{}", player.id)).await.status, 204);
        }
        platform.idle(secs(30)).await;
        eventually("the sandbox has finished every call", secs(90), async || {
            platform.sandbox.calls().await.iter().all(|call| call["outcome"] != "pending")
        })
        .await;
        let told = tell(platform, &cast, &lines).await;
        Scene { cast, lines, told }
    }

    /// Returns everything that is wrong.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> = self.told.iter().flat_map(truth::faults).collect();
        let mut conversations: BTreeMap<(&str, &str), Vec<&Told>> = BTreeMap::new();
        for (line, told) in self.lines.iter().zip(&self.told) {
            conversations.entry((&line.app_id, &line.to_wxid)).or_default().push(told);
        }
        faults.extend(conversations.values().flat_map(|jobs| truth::out_of_order(jobs)));
        for player in &self.cast.players {
            let spoken = self.lines.iter().zip(&self.told).filter(|(line, _)| line.app_id == player.app_id);
            let calls: Vec<&Call> = spoken.flat_map(|(_, told)| &told.calls).collect();
            let per_minute = usize::try_from(player.part.per_minute).expect("a limit");
            faults.extend(truth::over_limit(&player.app_id, &calls, per_minute, MIN_GAP_MS.into()));
            if player.part.is_limited() && calls.len() < per_minute {
                faults.push(format!("{} has made only {} calls", player.app_id, calls.len()));
            }
        }
        faults
    }

    /// Panics unless every failure of every mix has met every kind that its accounts send.
    pub(super) fn assert_every_mode_met_every_kind(&self) {
        let met: BTreeSet<(&str, &str)> = self
            .told
            .iter()
            .flat_map(|job| job.calls.iter().filter_map(|call| Some((call.mode.as_deref()?, job.kind))))
            .collect();
        for Part { modes, slow, kinds, messages, .. } in self.cast.players.iter().map(|player| &player.part) {
            if *messages < kinds.len() * DECK {
                continue;
            }
            for mode in modes.iter().copied().chain(*slow) {
                for kind in kinds {
                    assert!(met.contains(&(mode, kind)), "no {kind} has met {mode}");
                }
            }
        }
    }

    /// Panics if a token, which some answers repeat, was stored or logged.
    pub(super) async fn assert_no_secret_is_kept(&self, platform: &Platform) {
        for table in ["jobs", "attempts", "sends", "audit_log", "job_endings", "wechat_accounts"] {
            let kept =
                format!("SELECT count(*) AS n FROM {table} AS t WHERE position('{TOKEN}' IN t::text) > 0");
            assert_eq!(platform.number(&kept).await, 0, "{table} holds a token");
        }
        for (name, log) in platform.logs() {
            if let Some(line) = log.lines().find(|line| line.contains(TOKEN)) {
                panic!("{name} shows a token: {line}");
            }
        }
    }
}

/// Gathers what the record and the sandbox say of each line.
async fn tell(platform: &Platform, cast: &Cast, lines: &[Line]) -> Vec<Told> {
    let organization = cast.client.organization;
    let mut conn = platform.db.conn().await.expect("a connection");
    let rows: Vec<JobRow> =
        sql_query(JOBS).bind::<SqlUuid, _>(organization).load(&mut conn).await.expect("the jobs");
    let mut jobs: HashMap<String, JobRow> = rows.into_iter().map(|job| (job.trace_id.clone(), job)).collect();
    let rows: Vec<SendRow> =
        sql_query(SENDS).bind::<SqlUuid, _>(organization).load(&mut conn).await.expect("the sends");
    let mut sends: HashMap<String, Vec<Send>> = HashMap::new();
    for SendRow { trace_id, state, code } in rows {
        sends.entry(trace_id).or_default().push(Send { state, code });
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut calls: HashMap<String, Vec<Call>> = HashMap::new();
    for call in platform.sandbox.calls().await {
        // A call anywhere else than to a route of messages would be one too many, and is counted as such.
        calls.entry(text(&call["trace_id"])).or_default().push(Call {
            mode: call["failure"].as_str().map(str::to_owned),
            outcome: text(&call["outcome"]),
            at_us: call["received_at_us"].as_i64().expect("a time"),
        });
    }
    let mut delivered: HashMap<String, Vec<(String, i64)>> = HashMap::new();
    for entry in platform.sandbox.entries().await {
        let arrival = (text(&entry["new_msg_id"]), entry["received_at_us"].as_i64().expect("a time"));
        delivered.entry(text(&entry["trace_id"])).or_default().push(arrival);
    }
    let parts: HashMap<&str, &Part> =
        cast.players.iter().map(|player| (player.app_id.as_str(), &player.part)).collect();
    let told = |line: &Line| {
        let job = jobs.remove(&line.trace_id).unwrap_or_else(|| panic!("no job of {line:?}"));
        let part = parts[line.app_id.as_str()];
        Told {
            name: format!("{} to {} under {}", line.kind, line.to_wxid, line.trace_id),
            kind: line.kind,
            policy: line.policy,
            slow: part.slow.is_some(),
            state: job.state,
            send_status: job.send_status,
            new_msg_id: job.new_msg_id,
            error: job.error,
            sends: sends.remove(&line.trace_id).unwrap_or_default(),
            calls: calls.remove(&line.trace_id).unwrap_or_default(),
            delivered: delivered.remove(&line.trace_id).unwrap_or_default(),
        }
    };
    let told = lines.iter().map(told).collect();
    assert!(calls.is_empty() && delivered.is_empty(), "nobody asked for these: {calls:?} {delivered:?}");
    told
}

/// Returns the most memory that a process has ever had, or 0 where the system does not tell.
pub(super) fn peak_memory_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or(0)
}

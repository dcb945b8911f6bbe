//! What the record says became of everything that was asked for.

use std::collections::{HashMap, HashSet};

use diesel::sql_query;
use diesel::sql_types::{BigInt, Nullable, SmallInt, Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use entropy_schema::Db;
use uuid::Uuid;

use super::report::{Report, Said};
use super::speaker::{Asked, Tally};
use super::{Switched, Traffic};
use crate::harness::Platform;
use crate::harness::history::{self, Arrival, Ask, Message, Outcome, Rules};

/// Rows of one page.
const PAGE: i64 = 5000;

/// A job as it stands.
#[derive(Debug, Clone, diesel::QueryableByName)]
pub(crate) struct JobRow {
    /// The job.
    #[diesel(sql_type = SqlUuid)]
    pub(crate) id: Uuid,
    /// Its kind.
    #[diesel(sql_type = Text)]
    pub(crate) kind: String,
    /// Its priority.
    #[diesel(sql_type = SmallInt)]
    pub(crate) class: i16,
    /// How it ended, if it has.
    #[diesel(sql_type = Nullable<Text>)]
    pub(crate) final_state: Option<String>,
    /// What it says of its send.
    #[diesel(sql_type = Nullable<Text>)]
    pub(crate) send_status: Option<String>,
    /// Code of its error.
    #[diesel(sql_type = Nullable<Text>)]
    pub(crate) error_code: Option<String>,
    /// The device that sends.
    #[diesel(sql_type = Nullable<Text>)]
    pub(crate) app_id: Option<String>,
    /// The recipient.
    #[diesel(sql_type = Nullable<Text>)]
    pub(crate) to_wxid: Option<String>,
    /// What is said.
    #[diesel(sql_type = Nullable<Text>)]
    pub(crate) text: Option<String>,
}

/// A send as it stands.
#[derive(Debug, Clone, diesel::QueryableByName)]
pub(crate) struct SendRow {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    /// Its job.
    #[diesel(sql_type = SqlUuid)]
    pub(crate) job_id: Uuid,
    /// `sending`, `sent`, `failed` or `unknown`.
    #[diesel(sql_type = Text)]
    pub(crate) state: String,
    /// When its gate let it pass.
    #[diesel(sql_type = BigInt)]
    pub(crate) gate_us: i64,
}

/// A line of the ledger of costs.
#[derive(Debug, Clone, diesel::QueryableByName)]
pub(crate) struct CostRow {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    /// The run.
    #[diesel(sql_type = Text)]
    pub(crate) request_id: String,
}

/// All that there is to judge. Its parts may be doctored, to see that it is noticed.
#[derive(Debug, Clone)]
pub(crate) struct Evidence {
    /// What GeWe said yes to, in the order of arrival.
    pub(crate) arrived: Vec<Arrival>,
    /// Every call that was to send something, also those that failed; without their texts.
    pub(crate) calls: Vec<Arrival>,
    /// Every job of the organisations.
    pub(crate) jobs: Vec<JobRow>,
    /// Every send of the organisations.
    pub(crate) sends: Vec<SendRow>,
    /// Every line of the organisations' ledger of costs.
    pub(crate) costs: Vec<CostRow>,
    /// What must hold.
    pub(crate) rules: Rules,
    asked: Vec<Asked>,
    tallies: Vec<Tally>,
    breaches: Vec<String>,
    said: Said,
}

const JOBS: &str = "\
SELECT j.id, j.kind, j.class, j.final_state, j.result ->> 'send_status' AS send_status, j.error ->> 'code' AS error_code,
    a.gewe_app_id AS app_id, j.args ->> 'to_wxid' AS to_wxid, j.args -> 'message' ->> 'text' AS text
FROM jobs j LEFT JOIN wechat_accounts a ON a.id = j.account_id
WHERE j.organization_id = $1 AND j.id > $2 ORDER BY j.id LIMIT $3";

const SENDS: &str = "\
SELECT id, job_id, state, (EXTRACT(EPOCH FROM started_at) * 1000000)::bigint AS gate_us
FROM sends WHERE organization_id = $1 AND id > $2 ORDER BY id LIMIT $3";

const COSTS: &str = "\
SELECT id, request_id FROM cost_ledgers WHERE organization_id = $1 AND id > $2 ORDER BY id LIMIT $3";

/// Reads a table page by page.
macro_rules! pages {
    ($db:expr, $statement:expr, $organization:expr, $row:ty) => {{
        let mut conn = $db.conn().await.expect("a connection");
        let mut rows: Vec<$row> = Vec::new();
        loop {
            let after = rows.last().map_or(Uuid::nil(), |row| row.id);
            let page: Vec<$row> = sql_query($statement)
                .bind::<SqlUuid, _>($organization)
                .bind::<SqlUuid, _>(after)
                .bind::<BigInt, _>(PAGE)
                .load(&mut conn)
                .await
                .expect("the record can be read");
            if page.is_empty() {
                break rows;
            }
            rows.extend(page);
        }
    }};
}

/// Reads everything that concerns this traffic.
pub(super) async fn read(traffic: &Traffic, platform: &Platform) -> Evidence {
    let db: &Db = &platform.db;
    let (mut jobs, mut sends, mut costs) = (Vec::new(), Vec::new(), Vec::new());
    for client in &traffic.organizations {
        let organization = client.organization;
        jobs.extend(pages!(db, JOBS, organization, JobRow));
        sends.extend(pages!(db, SENDS, organization, SendRow));
        costs.extend(pages!(db, COSTS, organization, CostRow));
    }
    let rules = traffic.rules();
    let (mut arrived, dropped) = platform.sandbox.accepted().await;
    // Others may use the same platform.
    arrived.retain(|arrival| rules.accounts.contains_key(&arrival.message.app_id));
    let mut calls = platform.sandbox.sending_calls().await;
    calls.retain(|call| rules.accounts.contains_key(&call.message.app_id));
    let Switched { accounts, queues, uncertain, .. } = traffic.switched;
    Evidence {
        arrived,
        calls,
        jobs,
        sends,
        costs,
        rules,
        asked: traffic.asked.clone(),
        tallies: traffic.tallies.clone(),
        breaches: traffic.breaches.clone(),
        said: Said {
            seed: traffic.seed,
            answers: traffic.counts.answers(),
            repeated: traffic.counts.repeated(),
            account_pauses: accounts,
            queue_pauses: queues,
            uncertain_pauses: uncertain,
            dropped,
        },
    }
}

impl Evidence {
    /// Judges it.
    pub(crate) fn judge(&self) -> Report {
        let mut report = Report::new(self.said, self.breaches.clone());
        let asked = self.asks(&mut report);
        self.tallied(&mut report);
        report.faults = history::faults(&asked, &self.arrived, &self.rules);
        // Where every call arrived this would only say it twice.
        if self.calls.len() != self.arrived.len() {
            report.faults.extend(history::over_limits(&self.calls, &self.rules));
        }
        report.arrived = self.arrived.len();
        report.calls = self.calls.len();
        report
    }

    /// Puts together what was asked for and what the record says of it, and counts.
    fn asks(&self, report: &mut Report) -> Vec<Ask> {
        let jobs: HashMap<Uuid, &JobRow> = self.jobs.iter().map(|job| (job.id, job)).collect();
        let mut by_message: HashMap<Message, Vec<Uuid>> = HashMap::new();
        for job in &self.jobs {
            if let Some(message) = job.message() {
                by_message.entry(message).or_default().push(job.id);
            }
        }
        let mut sends: HashMap<Uuid, Vec<&SendRow>> = HashMap::new();
        for send in &self.sends {
            sends.entry(send.job_id).or_default().push(send);
        }
        let mut asks = Vec::new();
        for asked in &self.asked {
            let made = by_message.remove(&asked.message).unwrap_or_default();
            let job = match (asked.job, made.as_slice()) {
                // Refused because it came too late, and no job was made: it must not arrive.
                (None, []) => {
                    report.refused += 1;
                    continue;
                }
                // Given up by the caller after it was stored: it may go on as any other.
                (None, [only]) => *only,
                (Some(answered), [only]) if answered == *only => answered,
                (answered, made) => {
                    report.breaches.push(format!("{asked:?} was answered with {answered:?} and is {made:?}"));
                    continue;
                }
            };
            let none = Vec::new();
            let ask = ask_of(asked, jobs[&job], sends.get(&job).unwrap_or(&none), report);
            asks.push(ask);
        }
        for (message, made) in by_message {
            report.breaches.push(format!("nobody asked for {message:?}, which is {made:?}"));
        }
        asks
    }

    /// Every run is entered once, whatever was told twice.
    fn tallied(&self, report: &mut Report) {
        let mut lines: HashMap<&str, usize> = HashMap::new();
        for line in &self.costs {
            *lines.entry(&line.request_id).or_default() += 1;
        }
        let mut known: HashSet<Uuid> = HashSet::new();
        let jobs: HashMap<Uuid, &JobRow> =
            self.jobs.iter().filter(|job| job.kind == "cost_tally").map(|job| (job.id, job)).collect();
        for tally in &self.tallies {
            report.tallies += 1;
            let entered = lines.remove(tally.request_id.as_str()).unwrap_or(0);
            if entered != 1 {
                report.breaches.push(format!("the run {} was entered {entered} times", tally.request_id));
            }
            for id in &tally.jobs {
                let state = jobs.get(id).and_then(|job| job.final_state.as_deref());
                if !known.insert(*id) || state != Some("completed") {
                    report.breaches.push(format!("the tally {id} of {} is {state:?}", tally.request_id));
                }
            }
        }
        report.breaches.extend(lines.into_keys().map(|id| format!("nobody told of the run {id}")));
        let stray = jobs.keys().filter(|id| !known.contains(*id));
        report.breaches.extend(stray.map(|id| format!("nobody asked for the tally {id}")));
    }
}

impl JobRow {
    fn message(&self) -> Option<Message> {
        let (app_id, to_wxid, text) = (self.app_id.clone()?, self.to_wxid.clone()?, self.text.clone()?);
        Some(Message { app_id, to_wxid, text })
    }
}

fn ask_of(asked: &Asked, job: &JobRow, sends: &[&SendRow], report: &mut Report) -> Ask {
    report.asked += 1;
    let any = |state: &str| sends.iter().any(|send| send.state == state);
    let outcome = if any("sent") {
        Outcome::Sent
    } else if any("unknown") || any("sending") {
        Outcome::Unknown
    } else if job.final_state.is_none() {
        Outcome::Sent
    } else {
        Outcome::NotSent
    };
    match (outcome, job.final_state.as_deref(), job.send_status.as_deref()) {
        (Outcome::Sent, Some("completed"), Some("sent")) => report.sent += 1,
        (Outcome::Unknown, Some("completed" | "dead"), Some("unknown")) => {
            report.unknown.push(format!("{} {}", job.id, asked.message.text));
        }
        (Outcome::NotSent, Some("cancelled"), _) if job.error_code.as_deref() == Some("expired") => {
            report.expired += 1;
        }
        (Outcome::NotSent, Some("cancelled"), _) => report.cancelled += 1,
        (Outcome::NotSent, Some("dead"), _) => report.dead += 1,
        (_, None, _) => report.breaches.push(format!("{} has not ended", job.id)),
        (_, state, status) => report.breaches.push(format!(
            "{} is {state:?} and says {status:?}; its sends are {:?}",
            job.id,
            sends.iter().map(|send| send.state.as_str()).collect::<Vec<_>>()
        )),
    }
    if i16::from(asked.class) != job.class {
        report.breaches.push(format!("{} has another priority than was asked for", job.id));
    }
    Ask {
        message: asked.message.clone(),
        class: asked.class,
        not_before_us: asked.scheduled_us,
        expires_us: asked.expires_us,
        cancelled_us: asked.cancelled_us,
        outcome,
        gates_us: sends.iter().map(|send| send.gate_us).collect(),
    }
}

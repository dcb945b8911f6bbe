//! What is under way when a process dies: jobs of one delivery semantics, and what must have become of them.

use std::collections::HashMap;
use std::time::Duration;

use diesel::sql_query;
use diesel::sql_types::{BigInt, Nullable, Text, Uuid as SqlUuid};
use diesel_async::{AsyncConnection, RunQueryDsl, SimpleAsyncConnection};
use entropy_jobs::class::Class;
use entropy_jobs::enqueue::{Enqueued, Options, new_job};
use entropy_jobs::lifecycle::Delivery;
use entropy_schema::{Db, record};
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use super::audience::Audience;
use super::campaign::Campaign;
use super::dialogue::Dialogue;
use super::kind::{self, Effect};
use super::writing::Writing;
use crate::harness::client::Account;
use crate::harness::load::{Load, Shape};
use crate::harness::{Client, Platform, eventually, secs};

/// Jobs of each case. The process dies under one of the first.
pub(super) const JOBS: usize = 8;

/// Messages of three conversations of one account: its lane runs one at a time, so one at most is under way. The gap
/// keeps the next one away for a moment after each.
pub(super) const SHAPE: Shape = Shape {
    accounts: 1,
    conversations: 3,
    messages: JOBS,
    per_minute: 600,
    min_gap_ms: 500,
    pause: Duration::ZERO,
};

/// Jobs of one delivery semantics.
pub(super) enum Traffic {
    /// `once_or_ask`: messages.
    Messages(Box<Load>),
    /// `at_least_once`: lines of the ledger.
    Tallies(Tallies),
    /// `at_most_once`: effects of the tests' own kind.
    Effects(Effects),
    /// Events, which are `at_least_once`, and the answers to them.
    Dialogue(Box<Dialogue>),
    /// Steps of a campaign, which are `at_least_once`, and their messages.
    Campaign(Box<Campaign>),
    /// The run of a plan, which is `at_least_once`.
    Audience(Box<Audience>),
    /// Texts that a model writes, which is `at_least_once`.
    Writing(Box<Writing>),
}

impl Traffic {
    /// Prepares it; the API must be there.
    pub(super) async fn prepare(platform: &Platform, delivery: Delivery) -> Traffic {
        match delivery {
            Delivery::OnceOrAsk => Traffic::Messages(Box::new(Load::prepare(platform, SHAPE).await)),
            Delivery::AtLeastOnce => Traffic::Tallies(Tallies::prepare(platform).await),
            Delivery::AtMostOnce => Traffic::Effects(Effects::prepare(platform).await),
        }
    }

    /// The same for customers whom the model answers.
    pub(super) async fn prepare_dialogue(platform: &Platform, customers: usize) -> Traffic {
        Traffic::Dialogue(Box::new(Dialogue::prepare(platform, customers).await))
    }

    /// The same for people on their way through a plan.
    pub(super) async fn prepare_campaign(platform: &Platform) -> Traffic {
        Traffic::Campaign(Box::new(Campaign::prepare(platform).await))
    }

    /// The same for those whom a plan takes in by itself.
    pub(super) async fn prepare_audience(platform: &Platform) -> Traffic {
        Traffic::Audience(Box::new(Audience::prepare(platform).await))
    }

    /// The same for people whose texts a model writes.
    pub(super) async fn prepare_writing(platform: &Platform) -> Traffic {
        Traffic::Writing(Box::new(Writing::prepare(platform).await))
    }

    /// Enqueues all of it, for as long as it takes. The API may die meanwhile.
    pub(super) async fn enqueue(&mut self) {
        match self {
            Traffic::Messages(load) => load.enqueue().await,
            Traffic::Tallies(tallies) => tallies.enqueue().await,
            Traffic::Effects(effects) => effects.enqueue().await,
            Traffic::Dialogue(dialogue) => dialogue.enqueue().await,
            Traffic::Campaign(campaign) => campaign.enqueue().await,
            Traffic::Audience(audience) => audience.enqueue().await,
            Traffic::Writing(writing) => writing.enqueue().await,
        }
    }

    /// Panics unless everything was carried out as its semantics promise. Returns how many jobs ended open.
    pub(super) async fn assert_kept(&self, platform: &Platform) -> usize {
        match self {
            Traffic::Messages(load) => load.assert_kept(platform).await,
            Traffic::Tallies(tallies) => {
                tallies.assert_kept(platform).await;
                0
            }
            Traffic::Effects(effects) => effects.assert_kept(platform).await,
            Traffic::Dialogue(dialogue) => dialogue.assert_kept(platform).await,
            Traffic::Campaign(campaign) => campaign.assert_kept(platform).await,
            Traffic::Audience(audience) => {
                audience.assert_kept(platform).await;
                0
            }
            Traffic::Writing(writing) => writing.assert_kept(platform).await,
        }
    }
}

/// Runs of a model, each to be entered into the ledger once.
pub(super) struct Tallies {
    client: Client,
    account: Account,
}

impl Tallies {
    async fn prepare(platform: &Platform) -> Tallies {
        let client = platform.register().await;
        let account = client.account(600, 0).await;
        Tallies { client, account }
    }

    async fn enqueue(&self) {
        for run in 0..JOBS {
            let request = request_id(run);
            let body = json!({
                "request_id": request,
                "account_id": self.account.id,
                "model": "通义千问",
                "input_tokens": 1000 + run,
                "output_tokens": 100,
            });
            eventually("the API has taken a tally", secs(60), async || {
                let post = self.client.request(Method::POST, "/jobs/cost-tally").json(&body);
                match self.client.try_send(post.header("Idempotency-Key", &request)).await {
                    Ok(reply) if reply.status == 202 || reply.status == 200 => Ok(()),
                    Ok(reply) if reply.status >= 500 => Err(reply.text),
                    Ok(reply) => panic!("a tally was answered with {} {}", reply.status, reply.text),
                    Err(error) => Err(format!("{error:?}")),
                }
            })
            .await;
            // One delivery after the other, so that the relay comes by several times.
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
    }

    async fn assert_kept(&self, platform: &Platform) {
        let lines = self.client.all("/cost-ledgers").await;
        let mut entered: Vec<(&str, i64)> = lines
            .iter()
            .map(|line| {
                (line["request_id"].as_str().unwrap_or("?"), line["input_tokens"].as_i64().unwrap_or(0))
            })
            .collect();
        entered.sort_unstable();
        let asked: Vec<(String, i64)> =
            (1000..).take(JOBS).enumerate().map(|(n, t)| (request_id(n), t)).collect();
        let asked: Vec<(&str, i64)> = asked.iter().map(|(id, tokens)| (id.as_str(), *tokens)).collect();
        assert_eq!(entered, asked, "every run has one line in the ledger");

        let jobs = self.client.all("/jobs?kind=cost_tally").await;
        assert_eq!(jobs.len(), JOBS, "every request is one job: {jobs:#?}");
        assert!(jobs.iter().all(|job| job["state"] == "completed"), "{jobs:#?}");
        platform.assert_sound().await;
    }
}

fn request_id(run: usize) -> String {
    format!("run-{run}")
}

/// Work that must not be done again.
pub(super) struct Effects {
    db: Db,
    organization: Uuid,
    lane: Uuid,
    /// In the order in which they were asked for.
    jobs: Vec<(Uuid, String)>,
}

/// A job and what it has done.
#[derive(Debug, diesel::QueryableByName)]
struct Ended {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Nullable<Text>)]
    final_state: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    code: Option<String>,
    #[diesel(sql_type = BigInt)]
    effects: i64,
    #[diesel(sql_type = BigInt)]
    first: i64,
}

impl Effects {
    async fn prepare(platform: &Platform) -> Effects {
        let client = platform.register().await;
        let lane = client.account(600, 0).await.id;
        let mut conn = platform.db.conn().await.expect("a connection");
        conn.batch_execute(kind::TABLE).await.expect("the table of effects");
        Effects { db: platform.db.clone(), organization: client.organization, lane, jobs: Vec::new() }
    }

    async fn enqueue(&mut self) {
        let prepare = |n: usize| {
            let options = Options {
                organization_id: self.organization,
                class: Class::Reply,
                scheduled_at: None,
                expires_at: None,
                idempotency: None,
                trace_id: entropy_jobs::process::telemetry::new_trace_id(),
                created_by: None,
            };
            new_job(&Effect { lane: self.lane, conversation: format!("客户{}", n % 2) }, options)
        };
        let jobs: Vec<_> = (0..JOBS).map(prepare).collect();
        let mut conn = self.db.conn().await.expect("a connection");
        let enqueued = conn.transaction(async |conn| record::enqueue::enqueue(conn, &jobs).await).await;
        let created: Vec<Enqueued> = jobs.iter().map(|job| Enqueued::Created(job.id)).collect();
        assert_eq!(enqueued.expect("enqueued"), created);
        self.jobs = jobs.into_iter().map(|job| (job.id, job.order_key.unwrap_or_default())).collect();
    }

    async fn assert_kept(&self, platform: &Platform) -> usize {
        let mut conn = self.db.conn().await.expect("a connection");
        let ended: Vec<Ended> = sql_query(
            "SELECT j.id, j.final_state, j.error ->> 'code' AS code, count(e.seq) AS effects, \
             COALESCE(min(e.seq), 0) AS first \
             FROM jobs j LEFT JOIN effects e ON e.job_id = j.id WHERE j.kind = 'crash_matrix_effect' GROUP BY j.id",
        )
        .load(&mut conn)
        .await
        .expect("the jobs and their effects");
        drop(conn);
        platform.assert_sound().await;
        judge(&self.jobs, &ended).unwrap_or_else(|fault| panic!("{fault}"))
    }
}

/// Returns how many jobs are dead, or what must not be. `asked` is in the order of each conversation.
fn judge(asked: &[(Uuid, String)], ended: &[Ended]) -> Result<usize, String> {
    let of: HashMap<Uuid, &Ended> = ended.iter().map(|job| (job.id, job)).collect();
    if ended.len() != asked.len() {
        return Err(format!("{} were asked for, there are {}", asked.len(), ended.len()));
    }
    let mut dead = 0;
    let mut last: HashMap<&str, i64> = HashMap::new();
    for (id, conversation) in asked {
        let job = of.get(id).ok_or_else(|| format!("{id} is lost"))?;
        match (job.final_state.as_deref(), job.code.as_deref(), job.effects) {
            (Some("completed"), None, 1) => {}
            (Some("dead"), Some("process_lost"), 0 | 1) => dead += 1,
            _ => return Err(format!("it has not ended as it should: {job:?}")),
        }
        if job.effects > 0 && last.insert(conversation, job.first).is_some_and(|before| before > job.first) {
            return Err(format!("{conversation}: {id} came before one that was asked for earlier"));
        }
    }
    Ok(dead)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two jobs of one conversation and one of another, all completed in their order.
    fn good() -> (Vec<(Uuid, String)>, Vec<Ended>) {
        let asked: Vec<(Uuid, String)> = ["客户甲", "客户乙", "客户甲"]
            .map(|conversation| (Uuid::now_v7(), conversation.to_owned()))
            .into();
        let completed = |(first, (id, _)): (i64, &(Uuid, String))| Ended {
            id: *id,
            final_state: Some("completed".into()),
            code: None,
            effects: 1,
            first,
        };
        let ended = (1..).zip(&asked).map(completed).collect();
        (asked, ended)
    }

    fn die(job: &mut Ended) {
        (job.final_state, job.code) = (Some("dead".into()), Some("process_lost".into()));
    }

    #[test]
    fn work_that_was_done_once_or_given_up_is_as_promised() {
        let (asked, mut ended) = good();
        assert_eq!(judge(&asked, &ended), Ok(0));
        die(&mut ended[1]);
        assert_eq!(judge(&asked, &ended), Ok(1), "it had done its work");
        (ended[1].effects, ended[1].first) = (0, 0);
        assert_eq!(judge(&asked, &ended), Ok(1), "it had not");
    }

    #[test]
    fn work_that_was_repeated_lost_or_done_out_of_order_is_not() {
        let broken: [fn(&mut Vec<Ended>); 7] = [
            |ended| ended[0].effects = 2,
            |ended| ended[0].effects = 0,
            |ended| ended[0].final_state = None,
            |ended| ended[0].first = 9,
            |ended| drop(ended.pop()),
            |ended| (ended[0].final_state, ended[0].code) = (Some("dead".into()), Some("timeout".into())),
            |ended| {
                die(&mut ended[0]);
                ended[0].effects = 2;
            },
        ];
        for (n, break_it) in broken.into_iter().enumerate() {
            let (asked, mut ended) = good();
            break_it(&mut ended);
            assert!(judge(&asked, &ended).is_err(), "history {n} passes: {ended:?}");
        }
    }
}

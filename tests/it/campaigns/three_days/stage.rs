//! The platform with a clock that stands where the test puts it.
//!
//! Everything that comes from outside comes over HTTP: what the team does over the API, what customers write as callbacks of the
//! sandbox, what is sent to the sandbox's GeWe. Only the worker is not a process: the test runs its jobs itself, so that a moment
//! is over when nothing is left to do in it, and months pass in seconds.

use std::sync::Arc;

use chrono::{DateTime, FixedOffset};
use diesel::sql_query;
use diesel::sql_types::{Nullable, Text};
use diesel_async::{AsyncConnection, RunQueryDsl, SimpleAsyncConnection};
use entropy_jobs::campaign::dispatch;
use entropy_jobs::job::JobError;
use entropy_jobs::kinds;
use entropy_jobs::process::config::Ceilings;
use entropy_jobs::registry::Registry;
use entropy_jobs::secret::Secret;
use entropy_jobs::services::{Context, Services};
use entropy_schema::record::claim::{self, Claimed};
use entropy_schema::record::dispatch::{self as record, Dispatched};
use entropy_schema::record::finish::{self, Becomes, Finish};
use entropy_schema::{Db, Profile};
use entropy_workers::adapters::gewe::{GeweClient, Timeouts};
use entropy_workers::guard::Guard;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::harness::book::{self, end_of};
use crate::harness::client::Account;
use crate::harness::platform::{CALLBACK_SECRET, GEWE_TOKEN};
use crate::harness::{Client, Platform, eventually, secs, services};

/// Queues of what campaigns lead to.
const QUEUES: [&str; 4] = ["sop", "sop_write", "callback", "ai"];

/// What one of the phones has received.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Heard {
    /// The clock of campaigns, in Shanghai: `11-23 09:30`.
    pub(super) at: String,
    /// Whose phone.
    pub(super) wxid: String,
    /// The text, or the title of what was sent.
    pub(super) words: String,
}

#[derive(diesel::QueryableByName)]
struct Word {
    #[diesel(sql_type = Nullable<Text>)]
    word: Option<String>,
}

pub(super) struct Stage {
    pub(super) platform: Platform,
    pub(super) admin: Client,
    db: Db,
    services: Arc<Services>,
    registry: Registry,
    now: DateTime<FixedOffset>,
    heard: Vec<Heard>,
}

impl Stage {
    /// An API and a sandbox; a clock that stands at a moment.
    pub(super) async fn set(at: &str) -> Stage {
        let platform = Platform::with().workers(0).start().await;
        let admin = platform.register().await;
        let db = Db::new(platform.database.url(), 8, Profile::Worker).expect("a pool");
        let address = format!("{}/gewe/v2/api", platform.sandbox.base());
        let alone = services::alone(&db);
        let services = Services {
            sender: Arc::new(GeweClient::new(&address, Timeouts::default()).expect("a client")),
            guard: Arc::new(Guard::new(600)),
            default_token: Some((Secret::new(GEWE_TOKEN), "install".into())),
            ceilings: Ceilings { messages_per_minute: 600, api_calls_per_hour: 100_000 },
            ..alone
        };
        let now = DateTime::parse_from_rfc3339(at).expect("a time");
        let registry = kinds::registry();
        let mut stage =
            Stage { platform, admin, db, services: Arc::new(services), registry, now, heard: Vec::new() };
        stage.clock(now).await;
        stage
    }

    /// Puts the clock to a moment, where it stands still.
    pub(super) async fn clock(&mut self, at: DateTime<FixedOffset>) {
        assert!(at >= self.now, "the clock does not go back: {at} after {}", self.now);
        self.now = at;
        self.run(&format!(
            "CREATE OR REPLACE FUNCTION campaign_now() RETURNS timestamptz LANGUAGE sql VOLATILE
             AS 'SELECT ''{}''::timestamptz'",
            at.to_rfc3339()
        ))
        .await;
    }

    /// Runs statements for their effect.
    pub(super) async fn run(&self, statements: &str) {
        let mut conn = self.db.conn().await.expect("a connection");
        conn.batch_execute(statements).await.unwrap_or_else(|error| panic!("{statements}: {error}"));
    }

    /// Returns what a statement selects as `word`.
    pub(super) async fn words(&self, statement: &str) -> Vec<String> {
        let mut conn = self.db.conn().await.expect("a connection");
        let rows: Vec<Word> = sql_query(statement).load(&mut conn).await.expect("words");
        rows.into_iter().filter_map(|row| row.word).collect()
    }

    /// When an enrollment is due next, at the latest; none: nobody waits for a time.
    pub(super) async fn next_due(&self) -> Option<DateTime<FixedOffset>> {
        let next = "SELECT to_char(min(due_at) AT TIME ZONE 'Asia/Shanghai', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"+08:00\"') AS word \
            FROM sop_enrollments";
        let next = self.words(next).await;
        next.into_iter().next().map(|text| DateTime::parse_from_rfc3339(&text).expect("a time"))
    }

    /// Lets everything happen that can happen at this moment of the clock, and notes what the phones receive.
    pub(super) async fn settles(&mut self) {
        eventually("nothing is left to do at this moment", secs(30), async || {
            while self.jobs().await > 0 {}
            let left = "SELECT count(*) AS n FROM pending p JOIN jobs j ON j.id = p.job_id \
                WHERE j.kind IN ('send_message', 'sop_step', 'handle_callback')";
            match self.number(left).await {
                0 => Ok(()),
                left => Err(format!("{left} jobs wait")),
            }
        })
        .await;
        let at = self.now.format("%m-%d %H:%M").to_string();
        let entries = self.platform.sandbox.entries().await;
        for entry in &entries[self.heard.len()..] {
            let body = &entry["body"];
            let words = ["content", "fileName", "title", "displayName"];
            let words = words.iter().find_map(|field| body[*field].as_str()).unwrap_or_default();
            let wxid = entry["to_wxid"].as_str().unwrap_or_default();
            self.heard.push(Heard { at: at.clone(), wxid: wxid.to_owned(), words: words.to_owned() });
        }
    }

    /// What the phones have received, and when.
    pub(super) fn heard(&self) -> &[Heard] {
        &self.heard
    }

    /// A customer writes to an account; the callback has been applied when this returns.
    pub(super) async fn writes(&mut self, account: &Account, wxid: &str, text: &str) {
        let callbacks = format!("{}/callbacks/gewe/{CALLBACK_SECRET}", self.platform.base(0));
        let message = json!({
            "app_id": account.app_id, "wxid": account.app_id.replace("wx_", "wxid_"), "from": wxid, "burst": [text],
            "url": callbacks, "retries": 20, "retry_ms": 100,
        });
        let before = self.number("SELECT count(*) AS n FROM callback_events").await;
        self.platform.sandbox.customer_writes(&message).await;
        eventually("the callback is stored", secs(20), async || {
            self.number("SELECT count(*) AS n FROM callback_events").await == before + 1
        })
        .await;
        self.settles().await;
    }

    async fn number(&self, statement: &str) -> i64 {
        book::number(&self.db, statement).await
    }

    /// Hands out what is due and runs it. Returns how many jobs that were.
    async fn jobs(&self) -> usize {
        dispatch::pass(&self.db).await.expect("a pass");
        let mut conn = self.db.conn().await.expect("a connection");
        record::promote(&mut conn, 500).await.expect("promoted");
        let mut picks = record::pick_lanes(&mut conn, 200, 3000).await.expect("picked from lanes");
        let idle = std::mem::take(&mut picks.idle);
        conn.transaction(async |conn| record::settle_idle_lanes(conn, &idle).await).await.expect("settled");
        let mut jobs = picks.dispatched;
        for queue in QUEUES {
            jobs.extend(record::pick_plain(&mut conn, queue, 500, 3000).await.expect("picked"));
        }
        drop(conn);
        for job in &jobs {
            self.attempt(job).await;
        }
        jobs.len()
    }

    async fn attempt(&self, delivery: &Dispatched) {
        let worker = Uuid::now_v7();
        let mut conn = self.db.conn().await.expect("a connection");
        let wanted = [(delivery.job_id, delivery.attempt)];
        let claimed = claim::claim(&mut conn, &wanted, worker, 60_000).await.expect("claimed").remove(0);
        drop(conn);
        let end = self.end(&claimed, worker).await;
        let mut conn = self.db.conn().await.expect("a connection");
        let ended = finish::finish(&mut conn, &[end]).await.expect("recorded");
        assert_eq!(ended.len(), 1, "{}", claimed.kind);
    }

    async fn end(&self, claimed: &Claimed, worker: Uuid) -> Finish {
        let end = end_of(claimed, worker);
        let concerns_campaigns = matches!(claimed.kind.as_str(), "send_message" | "handle_callback")
            || claimed.kind.starts_with("sop_");
        if !concerns_campaigns {
            return end;
        }
        let context = Context {
            services: self.services.clone(),
            job_id: claimed.job_id,
            attempt: claimed.attempt,
            worker_id: worker,
            organization_id: claimed.organization_id,
            created_by: None,
            trace_id: claimed.trace_id.clone(),
            stop: CancellationToken::new(),
        };
        let (version, args) = (claimed.args_version, claimed.args.clone());
        let over = |state, error| Finish {
            outcome: Some(state),
            becomes: Becomes::Final(state),
            error,
            ..end_of(claimed, worker)
        };
        match self.registry.run(&claimed.kind, version, args, context).await {
            Ok(done) => Finish { result: done.result, lane_wait: None, ..end },
            Err(JobError::Cancel(failure)) => over("cancelled", Some(failure.to_json())),
            Err(JobError::Discard(failure)) => over("dead", Some(failure.to_json())),
            Err(other) => panic!("{}: {other:?}", claimed.kind),
        }
    }

    /// Makes a material whose first revision is approved.
    pub(super) async fn material(&self, key: &str, content: Value) {
        let body = json!({ "key": key, "kind": content["kind"], "name": key, "content": content });
        let made = self.admin.post("/materials", body).await.expect(201);
        let path = format!("/materials/{}/approve", made["id"].as_str().expect("an id"));
        self.admin.post(&path, json!({ "revision": 1 })).await.expect(200);
    }

    /// Writes a plan, has it approved, and starts it.
    pub(super) async fn plan(&self, config: &Value, tag: &str) -> Uuid {
        let admin = &self.admin;
        let plan = json!({ "name": "新线索三日跟进", "target_type": "tag", "target_ids": [tag], "workflow_config": config });
        let made = admin.post("/sop-tasks", plan).await.expect(201);
        let id: Uuid = made["id"].as_str().and_then(|id| id.parse().ok()).expect("an id");
        let submitted = admin.post(&format!("/sop-tasks/{id}/submit"), Value::Null).await.expect(200);
        let approval = json!({ "sha256": submitted["review"]["sha256"] });
        admin.post(&format!("/sop-tasks/{id}/approve"), approval).await.expect(200);
        let started = admin.post(&format!("/sop-tasks/{id}/start"), Value::Null).await.expect(200);
        assert_eq!(started["status"], "RUNNING");
        id
    }
}

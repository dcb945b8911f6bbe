//! An account, customers, a plan that runs, and a clock that stands where the test puts it.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use diesel_async::AsyncConnection;
use entropy_jobs::campaign::dispatch;
use entropy_jobs::campaign::enroll::{Cause, Enrolled, enroll};
use entropy_jobs::conversation::apply::apply;
use entropy_jobs::incoming::{Event, Message, What};
use entropy_jobs::job::{Job, JobError};
use entropy_jobs::kinds::send_message::SendMessage;
use entropy_jobs::kinds::sop_enroll::SopEnroll;
use entropy_jobs::kinds::sop_step::SopStep;
use entropy_jobs::kinds::sop_write::SopWrite;
use entropy_jobs::process::config::Ceilings;
use entropy_jobs::secret::Secret;
use entropy_jobs::services::{Context, Services};
use entropy_schema::record::claim::Claimed;
use entropy_schema::record::dispatch::{self as record, Dispatched};
use entropy_schema::record::finish::{Becomes, Finish};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::harness::Book;
use crate::harness::book::end_of;
use crate::harness::phone::Phone;
use crate::harness::services;

/// A book with an account, and everything that an attempt needs.
pub(super) struct Scene {
    pub(super) book: Book,
    pub(super) account: Uuid,
    phone: Arc<Phone>,
    services: Arc<Services>,
}

impl Scene {
    /// An account that has been logged in for long, on Monday 2026-11-23 at ten in Shanghai.
    pub(super) async fn set() -> Scene {
        Scene::set_with(|_| {}).await
    }

    /// The same with other services.
    pub(super) async fn set_with(change: impl FnOnce(&mut Services)) -> Scene {
        let book = Book::open().await;
        let phone = Arc::new(Phone::default());
        let mut services = Services {
            sender: phone.clone(),
            guard: phone.clone(),
            default_token: Some((Secret::new("token"), "install".into())),
            ceilings: Ceilings { messages_per_minute: 600, api_calls_per_hour: 100_000 },
            ..services::alone(&book.db)
        };
        change(&mut services);
        let mut scene = Scene { book, account: Uuid::nil(), phone, services: Arc::new(services) };
        scene.clock("2026-11-23T10:00:00+08:00").await;
        scene.account = scene.another_account().await;
        scene
    }

    /// One more account of the organisation.
    pub(super) async fn another_account(&self) -> Uuid {
        let (id, user, organization) = (Uuid::now_v7(), Uuid::now_v7(), self.book.organization);
        self.book
            .run(&format!(
                "INSERT INTO users (id, organization_id, username, hashed_password, role)
                 VALUES ('{user}', '{organization}', 'u-{user}', '-', 'agent');
                 INSERT INTO lanes (id, organization_id, kind) VALUES ('{id}', '{organization}', 'account');
                 INSERT INTO wechat_accounts (id, organization_id, user_id, wxid, gewe_app_id, messages_per_minute, min_gap_ms,
                     messages_per_day, recipients_per_minute, api_calls_per_hour, status, warm_since, adviser_name)
                 VALUES ('{id}', '{organization}', '{user}', 'own-{id}', 'wx-{id}', 600, 0, 100000, 600, 100000, 'ONLINE',
                     '2026-01-01', '小李')"
            ))
            .await;
        id
    }

    /// Puts the clock of campaigns to a moment, where it stands still.
    pub(super) async fn clock(&self, at: &str) {
        let at: DateTime<Utc> = DateTime::parse_from_rfc3339(at).expect("a time").to_utc();
        self.book
            .run(&format!(
                "CREATE OR REPLACE FUNCTION campaign_now() RETURNS timestamptz LANGUAGE sql VOLATILE
                 AS 'SELECT ''{}''::timestamptz'",
                at.to_rfc3339()
            ))
            .await;
    }

    /// Where the clock of campaigns stands.
    pub(super) async fn now(&self) -> DateTime<Utc> {
        entropy_jobs::campaign::clock::now(&mut *self.book.conn().await).await.expect("a time")
    }

    /// A friend of the account.
    pub(super) async fn friend(&self, wxid: &str) -> Uuid {
        self.friend_of(self.account, wxid).await
    }

    /// A friend of an account.
    pub(super) async fn friend_of(&self, account: Uuid, wxid: &str) -> Uuid {
        let (id, organization) = (Uuid::now_v7(), self.book.organization);
        self.book
            .run(&format!(
                "INSERT INTO contacts (id, organization_id, account_id, wxid, kind, nickname, remark, added_at)
                 VALUES ('{id}', '{organization}', '{account}', '{wxid}', 'friend', '小王', '王女士', now())"
            ))
            .await;
        id
    }

    /// A plan of these steps that runs.
    pub(super) async fn plan(&self, steps: Value) -> Uuid {
        self.plan_with(json!({ "steps": steps })).await
    }

    /// A plan that runs, with what is given in the place of what is usual.
    pub(super) async fn plan_with(&self, given: Value) -> Uuid {
        let mut config = json!({
            "schema_version": 1,
            "trigger": { "type": "manual" },
            "audience": { "kind": "friend", "consent": { "required": false } },
            "send_window": { "days": "any", "ranges": [{ "from": "09:00", "to": "21:00" }] },
            "caps": { "per_contact_per_day": 5, "per_contact_per_week": 10, "per_account_per_day": 500,
                "max_unanswered": 5 },
            "stop": [{ "on": "reply", "do": "exit", "outcome": "客户已回复" }],
            "entry": "first",
        });
        let fields = config.as_object_mut().expect("an object");
        fields.extend(given.as_object().expect("an object").clone());
        let (id, organization) = (Uuid::now_v7(), self.book.organization);
        let config = config.to_string().replace('\'', "''");
        self.book
            .run(&format!(
                "INSERT INTO sop_tasks (id, organization_id, user_id, name, target_type, workflow_config, status, version)
                 VALUES ('{id}', '{organization}', '{id}', '测试计划', 'friend', '{config}', 'RUNNING', 1);
                 INSERT INTO sop_versions (sop_id, version, organization_id, config, sha256, state, created_by)
                 VALUES ('{id}', 1, '{organization}', '{config}', sha256('x'), 'approved', '{id}');
                 INSERT INTO organization_settings (organization_id, contact_per_day, contact_per_week, account_per_day,
                     new_contacts_per_day, max_unanswered)
                 VALUES ('{organization}', 5, 10, 500, 100, 5) ON CONFLICT DO NOTHING"
            ))
            .await;
        id
    }

    /// Brings contacts into a plan.
    pub(super) async fn enroll(&self, plan: Uuid, contacts: &[Uuid]) -> Enrolled {
        let organization = self.book.organization;
        let plans = &self.services.plans;
        let mut conn = self.book.conn().await;
        conn.transaction(async |conn| {
            enroll(conn, plans, organization, plan, contacts, Cause::manual(plan)).await
        })
        .await
        .expect("an answer")
        .expect("the plan runs")
    }

    /// What an attempt has.
    pub(super) fn context(&self, job: Uuid, attempt: i16, worker: Uuid) -> Context {
        Context {
            services: self.services.clone(),
            job_id: job,
            attempt,
            worker_id: worker,
            organization_id: self.book.organization,
            created_by: None,
            trace_id: "0123456789abcdef0123456789abcdef".into(),
            stop: CancellationToken::new(),
        }
    }

    /// Applies an event as the job of a callback does.
    pub(super) async fn happens(&self, what: What) {
        let account = self.account;
        let event = Event {
            app_id: format!("wx-{account}"),
            wxid: None,
            type_name: "AddMsg".into(),
            key: "m:1".into(),
            what,
        };
        let context = self.context(Uuid::now_v7(), 1, Uuid::now_v7());
        apply(&context, account, Uuid::now_v7(), &event).await.expect("applied");
    }

    /// Somebody writes to the account.
    pub(super) async fn writes(&self, wxid: &str, text: &str) {
        let message = Message {
            peer_wxid: wxid.into(),
            sender_wxid: wxid.into(),
            from_me: false,
            kind: "text",
            text: text.into(),
            content: None,
            mentions_me: false,
            mentions_all: false,
            sender_name: Some("小王".into()),
            new_msg_id: format!("73{:017}", fastrand::u64(..100_000_000_000_000_000)),
            msg_id: None,
            sent_at: Utc::now(),
            media: None,
        };
        self.happens(What::Message(message)).await;
    }

    /// Hands out what is due, and returns the jobs of the queues that may run.
    pub(super) async fn hand_out(&self) -> Vec<Dispatched> {
        dispatch::pass(&self.book.db).await.expect("a pass");
        let mut jobs = self.book.dispatch().await;
        for queue in ["sop", "sop_write"] {
            let plain = record::pick_plain(&mut *self.book.conn().await, queue, 500, 3000).await;
            jobs.extend(plain.expect("picked"));
        }
        jobs
    }

    /// Lets everything happen that can happen at this moment of the clock.
    pub(super) async fn settles(&self) {
        for _ in 0..200 {
            let jobs = self.hand_out().await;
            if jobs.is_empty() {
                return;
            }
            for job in jobs {
                self.run(job).await;
            }
        }
        panic!("it never comes to rest: {:?}", self.standing().await);
    }

    /// Runs a job that was handed out.
    pub(super) async fn run(&self, delivery: Dispatched) {
        let worker = Uuid::now_v7();
        let claimed = self.book.claim(&[delivery], worker).await.remove(0);
        let end = self.attempt(&claimed, worker).await;
        assert!(self.book.finish(end).await);
    }

    /// Ends a job that was handed out as one that is dead: processes have died under it.
    pub(super) async fn dies(&self, delivery: Dispatched) {
        let worker = Uuid::now_v7();
        let claimed = self.book.claim(&[delivery], worker).await.remove(0);
        let error = json!({ "code": "quarantined", "message": "two processes have died under it" });
        let end = Finish {
            outcome: Some("dead"),
            becomes: Becomes::Final("dead"),
            error: Some(error),
            ..end_of(&claimed, worker)
        };
        assert!(self.book.finish(end).await);
    }

    /// Carries out an attempt, and returns its end.
    pub(super) async fn attempt(&self, claimed: &Claimed, worker: Uuid) -> Finish {
        let context = self.context(claimed.job_id, claimed.attempt, worker);
        let ended = match claimed.kind.as_str() {
            "sop_enroll" => {
                let job: SopEnroll = serde_json::from_value(claimed.args.clone()).expect("args");
                job.run(&context).await
            }
            "sop_step" => {
                let job: SopStep = serde_json::from_value(claimed.args.clone()).expect("args");
                job.run(&context).await
            }
            "sop_write" => {
                let job: SopWrite = serde_json::from_value(claimed.args.clone()).expect("args");
                job.run(&context).await
            }
            "send_message" => {
                let job: SendMessage = serde_json::from_value(claimed.args.clone()).expect("args");
                job.run(&context).await
            }
            // Turns wait for an AI that nobody has set up.
            _ => return end_of(claimed, worker),
        };
        let end = end_of(claimed, worker);
        let over =
            |state, error| Finish { outcome: Some(state), becomes: Becomes::Final(state), error, ..end };
        match ended {
            Ok(done) => Finish { result: done.result, ..over("completed", None) },
            Err(JobError::Cancel(failure)) => over("cancelled", Some(failure.to_json())),
            Err(JobError::Discard(failure)) => over("dead", Some(failure.to_json())),
            Err(other) => panic!("{}: {other:?}", claimed.kind),
        }
    }

    /// What the phone has been told to say, as recipient and words.
    pub(super) fn said(&self) -> Vec<(String, String)> {
        self.phone.received()
    }

    /// Only the words.
    pub(super) fn words(&self) -> Vec<String> {
        self.said().into_iter().map(|(_, words)| words).collect()
    }

    /// Makes the phone refuse what it is told to say, or take it again.
    pub(super) fn refuses(&self, refuses: bool) {
        self.phone.refuse(refuses);
    }

    /// All enrollments, oldest first, as `state step due reason/wait outcome`, times in Shanghai.
    pub(super) async fn standing(&self) -> Vec<String> {
        self.lines(
            "SELECT concat_ws(' ', state, step_id, to_char(due_at AT TIME ZONE 'Asia/Shanghai', 'MM-DD HH24:MI'),
                 COALESCE(reason, wait_code), outcome) AS word FROM sop_enrollments ORDER BY id",
        )
        .await
    }

    /// All steps by enrollment and name, as `step state reason`.
    pub(super) async fn steps(&self) -> Vec<String> {
        self.lines(
            "SELECT concat_ws(' ', step_id, state, reason) AS word FROM sop_steps
             ORDER BY enrollment_id, step_id",
        )
        .await
    }

    /// The lines that a statement selects as `word`.
    pub(super) async fn lines(&self, statement: &str) -> Vec<String> {
        self.book.words(statement).await
    }
}

/// A step that sends a text.
pub(super) fn send(id: &str, text: &str, next: Value) -> Value {
    json!({ "id": id, "type": "send", "message": { "kind": "text", "text": text }, "next": next })
}

/// A step that ends.
pub(super) fn end(id: &str, outcome: &str) -> Value {
    json!({ "id": id, "type": "end", "outcome": outcome })
}

//! Accounts, people who are written to, a plan, and who moves the clock and writes back.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use diesel::sql_query;
use diesel::sql_types::{Array, Bool, Nullable, Timestamptz, Uuid as SqlUuid};
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};
use entropy_jobs::campaign::clock;
use entropy_jobs::campaign::dry_run::{self, Played, Question};
use entropy_jobs::campaign::plan::Plans;
use entropy_jobs::process::config::Ceilings;
use entropy_jobs::sop::spread::order;
use entropy_schema::campaigns::plans;
use entropy_schema::{Db, PooledConn, Profile};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Size;
use super::figures::{Course, Step, Way};
use crate::campaigns::scene::{end, send};
use crate::harness::client::Account;
use crate::harness::platform::CALLBACK_SECRET;
use crate::harness::{Client, Platform, Sandbox};

/// What is said, a text for each step.
pub(super) const TEXTS: [&str; 3] =
    ["秋季班开始报名了。", "给您留了一个试听名额。", "本周六上午可以来看看。"];

/// A Monday before the National Day, before the hours.
const BEGINS: &str = "2026-09-28T08:00:00+08:00";

/// The first workday on which the new account is new no more.
pub(super) const WARM: &str = "2026-10-08";

const TAG: &str = "秋季班";

/// How many of a thousand answer the first message. It is in their ids, by which the rehearsal draws them.
const ANSWERING: u16 = 50;

/// How far the clock jumps beyond the next due time: what is due within that goes together.
const TOGETHER: TimeDelta = TimeDelta::seconds(20);

/// How often is looked whether the clock may jump.
const LOOK: Duration = Duration::from_millis(100);

/// How often somebody of an unruly account writes.
const UNRULY: Duration = Duration::from_millis(700);

/// After how long somebody writes again to whom nobody reacted: their callback's worker may have died twice.
const AGAIN: Duration = Duration::from_secs(20);

/// Queues of what campaigns lead to.
const QUEUES: &str = "'{sop,sop_write,send,callback}'";

/// Somebody who is written to.
pub(super) struct Person {
    pub(super) account: usize,
    wxid: String,
    /// Has written before.
    known: bool,
    answers: bool,
}

pub(super) struct Stage {
    db: Db,
    admin: Client,
    sandbox: Sandbox,
    callbacks: String,
    pub(super) accounts: Vec<Account>,
    pub(super) people: BTreeMap<Uuid, Person>,
    unruly: usize,
    plan: Uuid,
}

#[derive(diesel::QueryableByName)]
struct Look {
    #[diesel(sql_type = Timestamptz)]
    now: DateTime<Utc>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    next: Option<DateTime<Utc>>,
    #[diesel(sql_type = Bool)]
    busy: bool,
}

#[derive(diesel::QueryableByName)]
struct Id {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
}

impl Stage {
    /// Everything that a campaign needs, on a Monday morning.
    pub(super) async fn set(platform: &Platform, size: &Size) -> Stage {
        let admin = platform.register().await;
        let mut accounts = Vec::new();
        for _ in 0..size.accounts {
            accounts.push(admin.account(600, 0).await);
        }
        let mut stage = Stage {
            db: Db::new(platform.database.url(), 4, Profile::Worker).expect("a pool"),
            sandbox: platform.sandbox.clone(),
            callbacks: format!("{}/callbacks/gewe/{CALLBACK_SECRET}", platform.base(0)),
            people: people(size),
            unruly: size.unruly,
            plan: Uuid::nil(),
            accounts,
            admin,
        };
        stage.forward(DateTime::parse_from_rfc3339(BEGINS).expect("a time").to_utc()).await;
        let organization = stage.admin.organization;
        let (account, strangers) = (size.per_account, size.strangers);
        // All are old but one, which is the slowest as well.
        stage
            .run(&format!(
                "INSERT INTO organization_settings (organization_id, contact_per_day, contact_per_week, account_per_day,
                     new_contacts_per_day, max_unanswered)
                 VALUES ('{organization}', 2, 5, {account}, {strangers}, 5)
                 ON CONFLICT (organization_id) DO UPDATE SET account_per_day = {account}, new_contacts_per_day = {strangers},
                     max_unanswered = 5;
                 UPDATE wechat_accounts SET warm_since = '2026-01-01', api_calls_per_hour = 100000;
                 UPDATE wechat_accounts SET warm_since = '{BEGINS}', messages_per_minute = 300 WHERE id = '{}'",
                stage.accounts[0].id
            ))
            .await;
        stage.write_down_people().await;
        stage.plan = stage.approved(&config(size)).await;
        stage
    }

    async fn write_down_people(&self) {
        let organization = self.admin.organization;
        let people: Vec<(&Uuid, &Person)> = self.people.iter().collect();
        for page in people.chunks(1000) {
            let row = |(id, person): &(&Uuid, &Person)| {
                let account = self.accounts[person.account].id;
                format!("('{id}'::uuid, '{account}'::uuid, '{}', {})", person.wxid, person.known)
            };
            let rows = page.iter().map(row).collect::<Vec<String>>().join(",");
            self.run(&format!(
                "WITH who (id, account_id, wxid, known) AS (VALUES {rows}), written AS (
                     INSERT INTO contacts (id, organization_id, account_id, wxid, kind, nickname, remark, added_at, tags)
                     SELECT id, '{organization}', account_id, wxid, 'friend', '小雨', '', '2026-09-01', '{{{TAG}}}' FROM who), chats AS MATERIALIZED (
                     SELECT gen_random_uuid() AS chat, id, account_id, wxid FROM who WHERE known), row AS (
                     INSERT INTO lanes (id, organization_id, kind) SELECT chat, '{organization}', 'conversation' FROM chats)
                 INSERT INTO conversations (id, organization_id, account_id, contact_id, peer_wxid, kind, last_message_at,
                     last_inbound_at)
                 SELECT chat, '{organization}', account_id, id, wxid, 'friend', '2026-09-02', '2026-09-02' FROM chats"
            ))
            .await;
        }
        self.run("ANALYZE contacts, conversations").await;
    }

    /// Writes a plan and has it approved.
    async fn approved(&self, config: &Value) -> Uuid {
        let plan =
            json!({ "name": "秋季班", "target_type": "tag", "target_ids": [TAG], "workflow_config": config });
        let made = self.admin.post("/sop-tasks", plan).await.expect(201);
        let id: Uuid = made["id"].as_str().and_then(|id| id.parse().ok()).expect("an id");
        let submitted = self.admin.post(&format!("/sop-tasks/{id}/submit"), Value::Null).await.expect(200);
        let approval = json!({ "sha256": submitted["review"]["sha256"] });
        self.admin.post(&format!("/sop-tasks/{id}/approve"), approval).await.expect(200);
        id
    }

    /// Plays the plan as it is about to run. Returns also how long that took.
    pub(super) async fn rehearse(&self) -> (Played, Duration) {
        let begun = Instant::now();
        let mut conn = self.conn().await;
        let row = plans::get(&mut conn, self.admin.organization, self.plan).await.expect("an answer");
        let text = Plans::default().of(&mut conn, self.plan, 1).await.expect("an answer").expect("a version");
        let question = Question {
            contacts: None,
            starts_at: None,
            answering: ANSWERING,
            ceilings: Ceilings { messages_per_minute: 600, api_calls_per_hour: 100_000 },
            links: None,
        };
        let gathered = dry_run::gather(&mut conn, &row.expect("a plan"), text, question).await;
        let played = gathered.expect("an answer").expect("not too many").play();
        (played, begun.elapsed())
    }

    /// Starts the plan.
    pub(super) async fn start(&self) {
        let path = format!("/sop-tasks/{}/start", self.plan);
        assert_eq!(self.admin.post(&path, Value::Null).await.expect(200)["status"], "RUNNING");
    }

    /// Moves the clock and lets people write until everybody is at an end. Returns how many have written.
    pub(super) async fn drive(&self, patience: Duration) -> usize {
        let answering: Vec<Uuid> =
            self.people.iter().filter(|(_, person)| person.answers).map(|(id, _)| *id).collect();
        let mut written: HashMap<Uuid, Instant> = HashMap::new();
        let mut opted_out: BTreeSet<usize> = BTreeSet::new();
        let (begun, mut unruly) = (Instant::now(), Instant::now());
        loop {
            let waiting = self.ought_to_answer(&answering).await;
            for id in &waiting {
                if written.get(id).is_none_or(|at| at.elapsed() > AGAIN) {
                    self.writes(*id, &mut opted_out).await;
                    written.insert(*id, Instant::now());
                }
            }
            let look = self.look().await;
            if look.busy && unruly.elapsed() > UNRULY {
                unruly = Instant::now();
                if let Some(id) = self.somebody_unruly().await.filter(|id| !written.contains_key(id)) {
                    self.writes(id, &mut opted_out).await;
                    written.insert(id, Instant::now());
                }
            }
            match look.next {
                _ if look.busy || !waiting.is_empty() => {}
                None => return written.len(),
                Some(next) if next > look.now => self.forward(next + TOGETHER).await,
                Some(_) => {}
            }
            assert!(begun.elapsed() < patience, "it is not over at {}, next {:?}", look.now, look.next);
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn look(&self) -> Look {
        sql_query(format!(
            "SELECT campaign_now() AS now,
                 (SELECT due_at FROM sop_enrollments WHERE due_at IS NOT NULL ORDER BY due_at LIMIT 1) AS next,
                 EXISTS (SELECT FROM pending WHERE queue = ANY({QUEUES})) OR EXISTS (SELECT FROM leases WHERE queue = ANY({QUEUES}))
                     OR EXISTS (SELECT FROM sop_runs WHERE finished_at IS NULL) AS busy"
        ))
        .get_result(&mut *self.conn().await)
        .await
        .expect("a look")
    }

    /// Those who answer the first message, have it, and whose answer is not known yet.
    async fn ought_to_answer(&self, answering: &[Uuid]) -> Vec<Uuid> {
        let found: Vec<Id> = sql_query(
            "SELECT e.contact_id AS id FROM sop_enrollments e WHERE e.contact_id = ANY($1) AND e.finished_at IS NULL
               AND EXISTS (SELECT FROM sop_steps s WHERE s.contact_id = e.contact_id AND s.sent_at IS NOT NULL
                   AND s.state IN ('sent', 'unknown'))",
        )
        .bind::<Array<SqlUuid>, _>(answering)
        .load(&mut *self.conn().await)
        .await
        .expect("those who ought to answer");
        found.into_iter().map(|row| row.id).collect()
    }

    /// Somebody of the unruly accounts, for whom a message is on its way.
    async fn somebody_unruly(&self) -> Option<Uuid> {
        let from = self.accounts.len() - self.unruly;
        let accounts: Vec<Uuid> = self.accounts[from..].iter().map(|account| account.id).collect();
        let found: Vec<Id> = sql_query(
            "SELECT s.contact_id AS id FROM sop_steps s WHERE s.account_id = ANY($1) AND s.state IN ('due', 'sending')
             ORDER BY s.state DESC, random() LIMIT 1",
        )
        .bind::<Array<SqlUuid>, _>(accounts)
        .load(&mut *self.conn().await)
        .await
        .expect("somebody");
        found.into_iter().next().map(|row| row.id)
    }

    /// Somebody writes to the account that has written to them. One of each account wants no more messages: of more, the platform
    /// would take it for a sign that the account is at risk.
    async fn writes(&self, id: Uuid, opted_out: &mut BTreeSet<usize>) {
        let person = &self.people[&id];
        let account = &self.accounts[person.account];
        let text = if opted_out.insert(person.account) { "退订" } else { "在吗" };
        let message = json!({
            "app_id": account.app_id, "wxid": account.app_id.replace("wx_", "wxid_"), "from": person.wxid, "burst": [text],
            "url": self.callbacks, "retries": 20, "retry_ms": 100,
        });
        self.sandbox.customer_writes(&message).await;
    }

    /// Puts the clock to a moment, from where it goes on.
    async fn forward(&self, to: DateTime<Utc>) {
        self.run(&format!(
            "DO $$ BEGIN EXECUTE format('CREATE OR REPLACE FUNCTION campaign_now() RETURNS timestamptz LANGUAGE sql VOLATILE
                 AS $now$SELECT clock_timestamp() + %L::interval$now$', '{}'::timestamptz - clock_timestamp()); END $$",
            to.to_rfc3339()
        ))
        .await;
    }

    /// What time it is.
    pub(super) async fn now(&self) -> DateTime<Utc> {
        clock::now(&mut *self.conn().await).await.expect("a time")
    }

    /// What has become of everybody.
    pub(super) async fn course(&self) -> Course {
        let mut conn = self.conn().await;
        let steps: Vec<Step> = sql_query(
            "SELECT s.account_id, s.contact_id, k.wxid, s.state, s.text, s.sent_at
             FROM sop_steps s JOIN contacts k ON k.id = s.contact_id WHERE s.kind = 'send'",
        )
        .load(&mut conn)
        .await
        .expect("the steps");
        let ways: Vec<Way> =
            sql_query("SELECT contact_id, reason, replied_at, finished_at FROM sop_enrollments")
                .load(&mut conn)
                .await
                .expect("the enrollments");
        Course { steps, ways }
    }

    /// Whether somebody had never written before.
    pub(super) fn is_stranger(&self, contact: Uuid) -> bool {
        !self.people[&contact].known
    }

    /// The accounts whose part was rehearsed, none of whose people write as they like.
    pub(super) fn is_ruly(&self, account: Uuid) -> bool {
        self.accounts[..self.accounts.len() - self.unruly].iter().any(|other| other.id == account)
    }

    async fn conn(&self) -> PooledConn {
        self.db.conn().await.expect("a connection")
    }

    async fn run(&self, statements: &str) {
        let mut conn = self.conn().await;
        conn.batch_execute(statements).await.unwrap_or_else(|error| panic!("{statements}: {error}"));
    }
}

/// Everybody. Every other one has written before, and of these some answer.
fn people(size: &Size) -> BTreeMap<Uuid, Person> {
    let person = |number: usize| {
        let others = size.accounts - 1;
        let (account, nth) = match number.checked_sub(size.of_new) {
            None => (0, number),
            Some(number) => (1 + number % others, number / others),
        };
        let is_ruly = account < size.accounts - size.unruly;
        let (known, answers) = (nth % 2 == 0, is_ruly && nth % 20 == 0);
        let drawn = |id: &Uuid| (order(*id) % 1000 < u64::from(ANSWERING)) == answers;
        let id = std::iter::repeat_with(Uuid::now_v7).find(drawn).expect("an id");
        (id, Person { account, wxid: format!("wxid_autumn_{number}"), known, answers })
    };
    (0..size.people).map(person).collect()
}

/// Two or three messages over workdays, each on another day.
fn config(size: &Size) -> Value {
    let [first, second, third] = TEXTS;
    let until = json!({ "from": "start", "day_offset": 2, "at": "15:00", "count": "workday" });
    let mut steps = vec![
        send("first", first, json!("rest")),
        // The second is due on the same day, which the contact's cap does not allow.
        json!({ "id": "rest", "type": "wait", "for": "PT1H", "next": "second" }),
    ];
    if size.messages > 2 {
        steps.push(send("second", second, json!("days")));
        steps.push(json!({ "id": "days", "type": "wait", "until": until, "next": "third" }));
        steps.push(send("third", third, json!("over")));
    } else {
        steps.push(send("second", second, json!("over")));
    }
    steps.push(end("over", "已完成"));
    json!({
        "schema_version": 1,
        "timezone": "Asia/Shanghai",
        "trigger": { "type": "manual" },
        "audience": { "kind": "friend", "consent": { "required": false }, "max_size": 20_000 },
        "send_window": { "days": "workday", "ranges": [{ "from": "10:00", "to": "12:00" }, { "from": "14:00", "to": "18:00" }] },
        "caps": { "per_contact_per_day": 1, "per_contact_per_week": 5, "per_account_per_day": size.per_account,
            "max_unanswered": 5 },
        "stop": [{ "on": "reply", "do": "exit", "outcome": "客户已回复" }],
        "entry": "first",
        "steps": steps,
    })
}

//! People on their way through a small plan while a process dies: each hears each message once and in order, and comes to its end.
//!
//! Two messages with an hour between them. One of the people answers the first, and must not hear the second.

use std::time::Duration;

use diesel_async::SimpleAsyncConnection;
use entropy_schema::Db;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::client::{Account, Client};
use crate::harness::platform::CALLBACK_SECRET;
use crate::harness::{Platform, Sandbox, book, eventually, secs};

/// People of each case. The last one answers.
pub(super) const PEOPLE: usize = 3;

/// How long one stretch of their way may take: a lease, and the look at a send whose end nobody has told.
const STRETCH: Duration = secs(120);

const FIRST: &str = "您好，周六有一堂公开课。";
const SECOND: &str = "公开课还有两个名额。";

/// A plan that runs, and the people who are brought into it.
pub(super) struct Campaign {
    client: Client,
    account: Account,
    sandbox: Sandbox,
    db: Db,
    callbacks: String,
    plan: Uuid,
    contacts: Vec<String>,
}

fn wxid(n: usize) -> String {
    format!("wxid_lead_{n}")
}

impl Campaign {
    pub(super) async fn prepare(platform: &Platform) -> Campaign {
        let client = platform.register().await;
        let account = client.account(600, 0).await;
        let items: Vec<Value> =
            (0..PEOPLE).map(|n| json!({ "wxid": wxid(n), "nickname": format!("小雨{n}") })).collect();
        let body = json!({ "account_id": account.id, "items": items });
        let done = client.post("/contacts/import", body).await.expect(200);
        assert_eq!(done["errors"], json!([]));
        let known = client.all("/contacts").await;
        let contacts =
            known.iter().map(|contact| contact["id"].as_str().expect("an id").to_owned()).collect();
        let callbacks = format!("{}/callbacks/gewe/{CALLBACK_SECRET}", platform.base(0));
        let (sandbox, db) = (platform.sandbox.again(), platform.db.clone());
        let campaign = Campaign { client, account, sandbox, db, callbacks, plan: Uuid::now_v7(), contacts };
        campaign.clock("2026-12-01T10:00:00+08:00").await;
        campaign.start().await;
        campaign
    }

    /// Writes the plan as one that was approved.
    async fn start(&self) {
        let (plan, organization) = (self.plan, self.client.organization);
        let send = |id: &str, text: &str, next: &str| json!({ "id": id, "type": "send", "message": { "kind": "text", "text": text }, "next": next });
        let config = json!({
            "schema_version": 1,
            "trigger": { "type": "manual" },
            "audience": { "kind": "friend", "consent": { "required": false } },
            "send_window": { "days": "any", "ranges": [{ "from": "09:00", "to": "21:00" }] },
            "caps": { "per_contact_per_day": 2, "per_account_per_day": 150, "max_unanswered": 3 },
            "stop": [{ "on": "reply", "do": "exit", "outcome": "客户已回复" }],
            "entry": "first",
            "steps": [
                send("first", FIRST, "rest"),
                { "id": "rest", "type": "wait", "for": "PT1H", "next": "second" },
                send("second", SECOND, "over"),
                { "id": "over", "type": "end", "outcome": "已完成" },
            ],
        });
        let statements = format!(
            "INSERT INTO sop_tasks (id, organization_id, user_id, name, target_type, workflow_config, status, version)
             VALUES ('{plan}', '{organization}', '{plan}', '公开课', 'friend', '{config}', 'RUNNING', 1);
             INSERT INTO sop_versions (sop_id, version, organization_id, config, sha256, state, created_by)
             VALUES ('{plan}', 1, '{organization}', '{config}', sha256('x'), 'approved', '{plan}')"
        );
        let mut conn = self.db.conn().await.expect("a connection");
        conn.batch_execute(&statements).await.expect("a plan");
    }

    /// Puts the clock of campaigns to a moment, from which it goes on.
    async fn clock(&self, at: &str) {
        let statement = format!(
            "DO $$ BEGIN EXECUTE format('CREATE OR REPLACE FUNCTION campaign_now() RETURNS timestamptz LANGUAGE sql VOLATILE
                 AS $now$SELECT clock_timestamp() + %L::interval$now$', '{at}'::timestamptz - clock_timestamp()); END $$"
        );
        let mut conn = self.db.conn().await.expect("a connection");
        conn.batch_execute(&statement).await.expect("the clock is set");
    }

    /// Brings them in, however often that has to be asked for; lets one answer; lets the hour pass.
    pub(super) async fn enqueue(&self) {
        let path = format!("/sop-tasks/{}/enrollments", self.plan);
        for (n, contact) in (1..).zip(&self.contacts) {
            let body = json!({ "contact_ids": [contact] });
            eventually("the API has taken somebody", secs(60), async || {
                let post = self.client.request(Method::POST, &path).json(&body);
                match self.client.try_send(post).await {
                    Ok(reply) if reply.status == 202 => Ok(()),
                    Ok(reply) if reply.status >= 500 => Err(reply.text),
                    Ok(reply) => panic!("enrolling was answered with {} {}", reply.status, reply.text),
                    Err(error) => Err(format!("{error:?}")),
                }
            })
            .await;
            // One after the other: what dies under one of them has nobody else's message in its hands.
            self.reach("state = 'waiting' AND step_id = 'rest'", n).await;
        }
        let answer = json!({
            "app_id": self.account.app_id, "wxid": self.account.app_id.replace("wx_", "wxid_"), "from": wxid(PEOPLE - 1),
            "burst": ["好的，谢谢"], "url": self.callbacks, "retries": 100, "retry_ms": 200,
        });
        self.sandbox.customer_writes(&answer).await;
        self.reach("state = 'exited' AND reason = 'replied'", 1).await;
        self.clock("2026-12-01T11:30:00+08:00").await;
        self.reach("state = 'completed' AND outcome = '已完成'", PEOPLE - 1).await;
    }

    /// Waits until so many stand like this.
    async fn reach(&self, standing: &str, wanted: usize) {
        let there = format!("SELECT count(*) AS n FROM sop_enrollments WHERE {standing}");
        let wanted = i64::try_from(wanted).expect("a count");
        eventually(&format!("{wanted} are {standing}"), STRETCH, async || match self.number(&there).await {
            there if there == wanted => Ok(()),
            there => Err(format!("{there} are")),
        })
        .await;
    }

    /// Panics unless everybody heard what they should, once and in order, but for what nobody can know. Returns how many sends
    /// that are.
    pub(super) async fn assert_kept(&self, platform: &Platform) -> usize {
        let all = "SELECT count(*) AS n FROM sop_enrollments";
        assert_eq!(self.number(all).await, PEOPLE as i64, "nobody is in it twice");
        let unknown = "SELECT count(*) AS n FROM sends WHERE state = 'unknown'";
        let noted = "SELECT count(*) AS n FROM sop_steps WHERE state = 'unknown'";
        let unknown = self.number(unknown).await;
        assert_eq!(self.number(noted).await, unknown, "a step says what its send says");
        let received = self.sandbox.entries_of(&self.account.app_id).await;
        let mut missing = 0;
        for n in 0..PEOPLE {
            let mine = received.iter().filter(|entry| entry["to_wxid"] == wxid(n).as_str());
            let heard: Vec<&str> = mine.filter_map(|entry| entry["body"]["content"].as_str()).collect();
            let asked: &[&str] = if n + 1 == PEOPLE { &[FIRST] } else { &[FIRST, SECOND] };
            // What was heard is what was asked for, in its order, with nothing twice and perhaps something left out.
            let mut rest = asked.iter();
            assert!(heard.iter().all(|text| rest.any(|asked| asked == text)), "{n} heard {heard:?}");
            missing += asked.len() - heard.len();
        }
        let unknown = usize::try_from(unknown).expect("a count");
        assert!(missing <= unknown, "{missing} messages are missing, {unknown} are unknown: {received:?}");
        let sent = "SELECT COALESCE(sum(sent), 0)::bigint AS n FROM sop_enrollments";
        let sends = "SELECT count(*) AS n FROM sends WHERE state = 'sent'";
        assert_eq!(
            self.number(sent).await,
            self.number(sends).await,
            "an enrollment counts its messages once"
        );
        platform.assert_sound().await;
        unknown
    }

    async fn number(&self, statement: &str) -> i64 {
        book::number(&self.db, statement).await
    }
}

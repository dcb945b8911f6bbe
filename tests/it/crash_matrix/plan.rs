//! A plan that runs, the people whom it may concern, and a clock that goes on from where a test puts it.

use std::time::Duration;

use diesel_async::SimpleAsyncConnection;
use entropy_schema::Db;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::client::{Account, Client};
use crate::harness::{Platform, Sandbox, book, eventually, secs};

/// People of each case.
pub(super) const PEOPLE: usize = 3;

/// What people say of them, by which plans may find them.
pub(super) const TAG: &str = "老客户";

/// How long one stretch of their way may take: a lease, and the look at a send or a call of the model whose end nobody has told.
const STRETCH: Duration = secs(120);

/// A plan, and its people.
pub(super) struct Plan {
    pub(super) client: Client,
    pub(super) account: Account,
    pub(super) sandbox: Sandbox,
    pub(super) id: Uuid,
    db: Db,
    contacts: Vec<String>,
}

/// The name of one of them in WeChat.
pub(super) fn wxid(n: usize) -> String {
    format!("wxid_lead_{n}")
}

/// A step that sends a text.
pub(super) fn send(id: &str, text: &str, next: &str) -> Value {
    json!({ "id": id, "type": "send", "message": { "kind": "text", "text": text }, "next": next })
}

impl Plan {
    /// An account with its people, on a Tuesday at ten; the plan is not there yet.
    pub(super) async fn prepare(platform: &Platform) -> Plan {
        let client = platform.register().await;
        let account = client.account(600, 0).await;
        let person = |n| json!({ "wxid": wxid(n), "nickname": format!("小雨{n}"), "tags": [TAG] });
        let items: Vec<Value> = (0..PEOPLE).map(person).collect();
        let body = json!({ "account_id": account.id, "items": items });
        let done = client.post("/contacts/import", body).await.expect(200);
        assert_eq!(done["errors"], json!([]));
        let known = client.all("/contacts").await;
        let contacts =
            known.iter().map(|contact| contact["id"].as_str().expect("an id").to_owned()).collect();
        let (sandbox, db) = (platform.sandbox.again(), platform.db.clone());
        let plan = Plan { client, account, sandbox, id: Uuid::now_v7(), db, contacts };
        plan.clock("2026-12-01T10:00:00+08:00").await;
        plan
    }

    /// Writes the plan as one that was approved and runs. What `given` says takes the place of what is usual.
    pub(super) async fn start(&self, steps: Value, given: Value) {
        let (plan, organization) = (self.id, self.client.organization);
        let mut config = json!({
            "schema_version": 1,
            "trigger": { "type": "manual" },
            "timezone": "Asia/Shanghai",
            "audience": { "kind": "friend", "consent": { "required": false } },
            "send_window": { "days": "any", "ranges": [{ "from": "09:00", "to": "21:00" }] },
            "caps": { "per_contact_per_day": 2, "per_account_per_day": 150, "max_unanswered": 3 },
            "stop": [{ "on": "reply", "do": "exit", "outcome": "客户已回复" }],
            "entry": "first",
            "steps": steps,
        });
        let fields = config.as_object_mut().expect("an object");
        fields.extend(given.as_object().expect("an object").clone());
        self.run(&format!(
            "INSERT INTO sop_tasks (id, organization_id, user_id, name, target_type, workflow_config, status, version)
             VALUES ('{plan}', '{organization}', '{plan}', '公开课', 'friend', '{config}', 'RUNNING', 1);
             INSERT INTO sop_versions (sop_id, version, organization_id, config, sha256, state, created_by)
             VALUES ('{plan}', 1, '{organization}', '{config}', sha256('x'), 'approved', '{plan}')"
        ))
        .await;
    }

    /// Puts the clock of campaigns to a moment, from which it goes on.
    pub(super) async fn clock(&self, at: &str) {
        self.run(&format!(
            "DO $$ BEGIN EXECUTE format('CREATE OR REPLACE FUNCTION campaign_now() RETURNS timestamptz LANGUAGE sql VOLATILE
                 AS $now$SELECT clock_timestamp() + %L::interval$now$', '{at}'::timestamptz - clock_timestamp()); END $$"
        ))
        .await;
    }

    /// Brings them in one after the other, however often that has to be asked for, and waits after each until one more stands as
    /// it says. So what dies under one of them has nobody else's message in its hands.
    pub(super) async fn bring_in(&self, standing: &str) {
        let path = format!("/sop-tasks/{}/enrollments", self.id);
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
            self.reach(standing, n).await;
        }
    }

    /// Waits until so many stand like this.
    pub(super) async fn reach(&self, standing: &str, wanted: usize) {
        let there = format!("SELECT count(*) AS n FROM sop_enrollments WHERE {standing}");
        let wanted = i64::try_from(wanted).expect("a count");
        eventually(&format!("{wanted} are {standing}"), STRETCH, async || match self.number(&there).await {
            there if there == wanted => Ok(()),
            there => Err(format!("{there} are")),
        })
        .await;
    }

    /// What each of them has heard, in order.
    pub(super) async fn heard(&self) -> Vec<Vec<String>> {
        let received = self.sandbox.entries_of(&self.account.app_id).await;
        let of = |n| {
            let mine = received.iter().filter(|entry| entry["to_wxid"] == wxid(n).as_str());
            mine.filter_map(|entry| entry["body"]["content"].as_str().map(str::to_owned)).collect()
        };
        (0..PEOPLE).map(of).collect()
    }

    /// Panics unless nobody is in the plan twice, each message is counted once, and the record does not contradict itself.
    pub(super) async fn assert_sound(&self, platform: &Platform) {
        let all = "SELECT count(*) AS n FROM sop_enrollments";
        assert_eq!(self.number(all).await, PEOPLE as i64, "nobody is in it twice");
        let sent = "SELECT COALESCE(sum(sent), 0)::bigint AS n FROM sop_enrollments";
        let sends = "SELECT count(*) AS n FROM sends WHERE state = 'sent'";
        let (sent, sends) = (self.number(sent).await, self.number(sends).await);
        assert_eq!(sent, sends, "an enrollment counts its messages once");
        platform.assert_sound().await;
    }

    pub(super) async fn run(&self, statements: &str) {
        let mut conn = self.db.conn().await.expect("a connection");
        conn.batch_execute(statements).await.expect("it is written");
    }

    pub(super) async fn number(&self, statement: &str) -> i64 {
        book::number(&self.db, statement).await
    }
}

//! A campaign over the whole platform, as processes, while workers die.

use diesel_async::SimpleAsyncConnection;
use serde_json::{Value, json};
use uuid::Uuid;

use super::scene::{end, send};
use crate::harness::client::Account;
use crate::harness::{Client, Platform, eventually, secs};

/// Puts the clock of campaigns ahead, so that it is this time of a day in Shanghai now, and goes on from there.
pub(super) async fn clock(platform: &Platform, at: &str) {
    let statement = format!(
        "DO $$ BEGIN EXECUTE format('CREATE OR REPLACE FUNCTION campaign_now() RETURNS timestamptz LANGUAGE sql VOLATILE
             AS $now$SELECT clock_timestamp() + %L::interval$now$', '{at}'::timestamptz - clock_timestamp()); END $$"
    );
    let mut conn = platform.db.conn().await.expect("a connection");
    conn.batch_execute(&statement).await.expect("the clock is set");
}

async fn plan(platform: &Platform, admin: &Client, consent: &str) -> Uuid {
    let config = json!({
        "schema_version": 1,
        "trigger": { "type": "manual" },
        "audience": { "kind": "friend", "consent": { "required": true, "purpose": consent } },
        "send_window": { "days": "workday", "ranges": [{ "from": "09:00", "to": "21:00" }] },
        "caps": { "per_contact_per_day": 2, "per_account_per_day": 150, "max_unanswered": 3 },
        "stop": [{ "on": "reply", "do": "exit", "outcome": "客户已回复" }],
        "entry": "first",
        "steps": [
            send("first", "您好", json!("rest")),
            { "id": "rest", "type": "wait", "for": "PT1H", "next": "second" },
            send("second", "再见", json!("over")),
            end("over", "已完成"),
        ],
    });
    let (id, organization) = (Uuid::now_v7(), admin.organization);
    let mut conn = platform.db.conn().await.expect("a connection");
    conn.batch_execute(&format!(
        "INSERT INTO sop_tasks (id, organization_id, user_id, name, target_type, workflow_config, status, version)
         VALUES ('{id}', '{organization}', '{id}', '测试计划', 'friend', '{config}', 'RUNNING', 1);
         INSERT INTO sop_versions (sop_id, version, organization_id, config, sha256, state, created_by)
         VALUES ('{id}', 1, '{organization}', '{config}', sha256('x'), 'approved', '{id}')"
    ))
    .await
    .expect("a plan");
    id
}

/// Contacts with consents, as a team brings them along.
pub(super) async fn contacts(admin: &Client, account: &Account, prefix: &str, count: usize) -> Vec<Uuid> {
    let consent =
        json!([{ "purpose": "活动通知", "basis": "到店登记表", "given_at": "2026-01-05T10:00:00+08:00" }]);
    let items: Vec<Value> = (0..count)
        .map(|n| json!({ "wxid": format!("wxid_{prefix}{n}"), "nickname": "小王", "consents": consent }))
        .collect();
    let done =
        admin.post("/contacts/import", json!({ "account_id": account.id, "items": items })).await.expect(200);
    assert_eq!((&done["created"], &done["errors"]), (&json!(count), &json!([])));
    let known = admin.all(&format!("/contacts?account_id={}", account.id)).await;
    known.iter().map(|contact| contact["id"].as_str().expect("an id").parse().expect("an id")).collect()
}

async fn states(admin: &Client, plan: Uuid) -> Vec<String> {
    let rows = admin.all(&format!("/sop-tasks/{plan}/enrollments")).await;
    rows.iter().map(|row| format!("{} {}", row["state"].as_str().unwrap_or("?"), row["step_id"])).collect()
}

/// Waits until all sixteen stand like this.
async fn everybody(platform: &Platform, admin: &Client, plan: Uuid, state: &str) {
    eventually("everybody is there", secs(90), async || {
        let states = states(admin, plan).await;
        let there = states.iter().filter(|line| line.starts_with(state)).count();
        if there == 16 { Ok(()) } else { Err(format!("{states:?} {:?}", platform.dir())) }
    })
    .await;
}

#[tokio::test]
async fn a_campaign_reaches_everybody_once_whatever_dies_meanwhile() {
    let mut platform = Platform::with().workers(2).start().await;
    clock(&platform, "2026-12-01T10:00:00+08:00").await;
    let admin = platform.register().await;
    let accounts = [admin.account(600, 0).await, admin.account(600, 0).await];
    let plan = plan(&platform, &admin, "活动通知").await;
    let mut people = Vec::new();
    for (account, prefix) in accounts.iter().zip(["a", "b"]) {
        people.extend(contacts(&admin, account, prefix, 8).await);
    }
    let path = format!("/sop-tasks/{plan}/enrollments");
    let taken = admin.post(&path, json!({ "contact_ids": people })).await.expect(202);
    assert_eq!(taken["enrolled"].as_array().map(Vec::len), Some(16), "{taken}");
    let again = admin.post(&path, json!({ "contact_ids": people })).await.expect(202);
    assert_eq!(again["refused"].as_array().map(Vec::len), Some(16), "{again}");
    platform.replace_worker(0);
    everybody(&platform, &admin, plan, "waiting \"rest\"").await;
    clock(&platform, "2026-12-01T11:30:00+08:00").await;
    platform.replace_worker(1);
    everybody(&platform, &admin, plan, "completed").await;
    let mut arrived: Vec<String> =
        platform.ledger().await.into_iter().map(|arrival| format!("{:?}", arrival.message)).collect();
    let all = arrived.len();
    arrived.sort();
    arrived.dedup();
    assert_eq!(arrived.len(), all, "nobody hears the same twice");
    let unknown = "SELECT count(*) AS n FROM sop_steps WHERE state = 'unknown'";
    let unknown = usize::try_from(platform.number(unknown).await).unwrap_or_default();
    assert!(all + unknown >= 32 && all <= 32, "{all} arrived, {unknown} unknown");
    let one = admin.get(&path).await.expect(200)["items"][0]["id"].clone();
    let shown = admin.get(&format!("{path}/{}", one.as_str().expect("an id"))).await.expect(200);
    assert_eq!(shown["steps"].as_array().map(Vec::len), Some(4), "{shown}");
    let over = admin.post("/jobs/sop-step", json!({ "enrollment_id": one })).await;
    assert_eq!(over.status, 409, "{}", over.text);
}

#[tokio::test]
async fn who_takes_a_consent_back_or_is_taken_out_hears_nothing_more() {
    let platform = Platform::start().await;
    clock(&platform, "2026-12-01T10:00:00+08:00").await;
    let admin = platform.register().await;
    let account = admin.account(600, 0).await;
    let plan = plan(&platform, &admin, "活动通知").await;
    let people = contacts(&admin, &account, "c", 3).await;
    let path = format!("/sop-tasks/{plan}/enrollments");
    let taken = admin.post(&path, json!({ "contact_ids": people })).await.expect(202);
    let enrolled = taken["enrolled"].as_array().expect("a list").clone();
    eventually("all wait", secs(30), async || {
        let states = states(&admin, plan).await;
        let wait = states.iter().all(|line| line == "waiting \"rest\"");
        if wait { Ok(()) } else { Err(format!("{states:?}")) }
    })
    .await;
    let [first, second, third] = &people[..] else { panic!("three people") };
    let bare = admin.put(&format!("/contacts/{first}"), json!({ "consents": [] })).await.expect(200);
    assert!(bare["consents"][0]["withdrawn_at"].is_string(), "{bare}");
    admin.put(&format!("/contacts/{second}"), json!({ "suppressed": true })).await.expect(200);
    let of_third = enrolled.iter().find(|one| one["contact_id"] == json!(third)).expect("enrolled");
    let removed = format!("{path}/{}", of_third["enrollment_id"].as_str().expect("an id"));
    let gone = admin.delete(&removed).await.expect(200);
    assert_eq!((&gone["state"], &gone["reason"]), (&json!("exited"), &json!("canceled")));
    admin.delete(&removed).await.expect(200);
    clock(&platform, "2026-12-01T11:30:00+08:00").await;
    eventually("all are out", secs(30), async || {
        let rows = admin.all(&path).await;
        let mut reasons: Vec<&str> = rows.iter().filter_map(|row| row["reason"].as_str()).collect();
        reasons.sort_unstable();
        let out = reasons == ["canceled", "consent_missing", "contact_suppressed"];
        if out { Ok(()) } else { Err(format!("{rows:?}")) }
    })
    .await;
    assert_eq!(platform.ledger().await.len(), 3);
    let other = platform.register().await;
    assert_eq!(other.get(&path).await.status, 404);
    assert_eq!(other.delete(&removed).await.status, 404);
    let step = json!({ "enrollment_id": of_third["enrollment_id"] });
    assert_eq!(other.post("/jobs/sop-step", step).await.status, 404);
}

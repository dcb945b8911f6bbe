//! Texts of campaigns that wait for a person: they are listed, and one person decides about each, once, while it still waits.

use chrono::{Timelike, Utc};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{assert_problem, id, items, person};
use crate::harness::client::{Account, Client};
use crate::harness::{Here, eventually, secs};

/// What the plan says. It holds a word that people are to look at.
const TEXT: &str = "独家课程，周六开课。";

/// An organisation with a plan whose texts wait for a person.
struct Desk {
    here: Here,
    admin: Client,
    account: Account,
    plan: String,
}

/// A zone in which it is about noon: campaigns may write at any hour of the day on which the test runs.
fn noon() -> String {
    match 12 - i64::from(Utc::now().hour()) {
        east @ 1.. => format!("Etc/GMT-{east}"),
        west => format!("Etc/GMT+{}", -west),
    }
}

impl Desk {
    /// Brings so many people in, and waits until each has a text that waits.
    async fn open(people: usize) -> Desk {
        let here = Here::open().await;
        let admin = here.register().await;
        let account = admin.account(600, 0).await;
        admin.post("/sensitive-words", json!({ "word": "独家", "action": "review" })).await.expect(201);
        let people_of =
            |n| json!({ "wxid": format!("wxid_{n}_{}", account.id.simple()), "nickname": "小王" });
        let contacts: Vec<Value> = (0..people).map(people_of).collect();
        let import = json!({ "account_id": account.id, "items": contacts });
        admin.post("/contacts/import", import).await.expect(200);
        let known = admin.all("/contacts").await;
        let ids: Vec<&Value> = known.iter().map(|contact| &contact["id"]).collect();
        let plan = json!({
            "name": "课程邀约", "target_type": "friend", "target_ids": ids,
            "workflow_config": {
                "schema_version": 1, "timezone": noon(),
                "trigger": { "type": "manual" },
                "audience": { "kind": "friend", "consent": { "required": false } },
                "send_window": { "days": "any", "ranges": [{ "from": "09:00", "to": "20:00" }] },
                "caps": { "per_contact_per_day": 1, "per_account_per_day": 100, "max_unanswered": 2 },
                "stop": [{ "on": "reply", "do": "exit" }],
                "entry": "invite",
                "steps": [
                    { "id": "invite", "type": "send", "message": { "kind": "text", "text": TEXT }, "next": "over" },
                    { "id": "over", "type": "end", "outcome": "已完成" },
                ],
            },
        });
        let made = admin.post("/sop-tasks", plan).await.expect(201);
        let plan = format!("/sop-tasks/{}", id(&made["id"]));
        let submitted = admin.post(&format!("{plan}/submit"), Value::Null).await.expect(200);
        let sha256 = json!({ "sha256": submitted["review"]["sha256"] });
        admin.post(&format!("{plan}/approve"), sha256).await.expect(200);
        admin.post(&format!("{plan}/start"), Value::Null).await.expect(200);
        let desk = Desk { here, admin, account, plan };
        eventually("every text waits", secs(20), async || {
            let waiting = desk.waiting().await;
            if waiting.len() == people { Ok(()) } else { Err(format!("{waiting:?}")) }
        })
        .await;
        desk
    }

    async fn waiting(&self) -> Vec<Value> {
        self.admin.all("/sop-reviews").await
    }

    /// What the customers of these enrollments get, waited for.
    async fn received(&self, count: usize) -> Vec<String> {
        eventually("the texts arrive", secs(20), async || {
            let entries = self.here.received_from(&self.account).await;
            let content = |entry: &Value| entry["body"]["content"].as_str().map(str::to_owned);
            let mut texts: Vec<String> = entries.iter().filter_map(content).collect();
            texts.sort();
            if texts.len() >= count { Ok(texts) } else { Err(format!("{entries:?}")) }
        })
        .await
    }

    /// How the step of an enrollment stands, and why, once it is over.
    async fn ended(&self, text: &Value) -> String {
        let path = format!("{}/enrollments/{}", self.plan, id(&text["enrollment_id"]));
        eventually("the step is over", secs(20), async || {
            let shown = self.admin.get(&path).await.expect(200);
            let steps = shown["steps"].as_array().cloned().unwrap_or_default();
            let step = steps.into_iter().find(|step| step["step_id"] == "invite").unwrap_or_default();
            let word = |field: &str| step[field].as_str().unwrap_or("-").to_owned();
            match step["finished_at"].is_string() {
                true => Ok(format!("{} {}", word("state"), word("reason"))),
                false => Err(shown.to_string()),
            }
        })
        .await
    }
}

fn path(text: &Value, decision: &str) -> String {
    format!("/sop-reviews/{}/invite/{decision}", id(&text["enrollment_id"]))
}

#[tokio::test]
async fn a_text_is_sent_as_it_is_or_as_it_was_changed_or_not_at_all() {
    let desk = Desk::open(3).await;
    let agent = person(&desk.admin, "agent").await;
    let waiting = agent.all_by("/sop-reviews", 1).await;
    let [first, second, third] = &waiting[..] else { panic!("{waiting:?}") };
    assert_eq!(desk.waiting().await, waiting, "page by page or at once");
    assert!(id(&first["enrollment_id"]) > id(&second["enrollment_id"]), "the latest first");
    for text in &waiting {
        assert_eq!((&text["text"], &text["kind"]), (&json!(TEXT), &json!("send")));
        assert_eq!((&text["state"], &text["reason"]), (&json!("held_for_review"), &json!("sensitive_words")));
        assert_eq!((id(&text["account_id"]), &text["decided_by"]), (desk.account.id, &Value::Null));
        assert!(text["review_until"].is_string());
    }
    let of_plan = format!("/sop-reviews?sop_id={}", id(&first["sop_id"]));
    assert_eq!(items(&agent.get(&of_plan).await.expect(200)).len(), 3);
    let of_another = format!("/sop-reviews?sop_id={}", Uuid::now_v7());
    assert_eq!(items(&agent.get(&of_another).await.expect(200)).len(), 0);

    let approved = agent.send(agent.request(Method::POST, &path(first, "approve"))).await.expect(200);
    assert_eq!(
        (&approved["state"], &approved["reason"], &approved["decided_by"]),
        (&json!("planned"), &json!("approved"), &json!(agent.user))
    );
    let text = json!({ "text": "  王姐，周六的独家课程还有位置。 " });
    let edited = agent.post(&path(second, "edit"), text).await.expect(200);
    assert_eq!(
        (&edited["state"], &edited["text"]),
        (&json!("planned"), &json!("王姐，周六的独家课程还有位置。"))
    );
    let rejected = agent.post(&path(third, "reject"), json!({ "reason": "语气不合适" })).await.expect(200);
    assert_eq!((&rejected["state"], &rejected["reason"]), (&json!("skipped"), &json!("rejected")));
    assert_eq!(desk.waiting().await, Vec::<Value>::new());
    for text in &waiting {
        for (decision, body) in
            [("approve", Value::Null), ("edit", json!({ "text": "好" })), ("reject", json!({}))]
        {
            assert_problem(agent.post(&path(text, decision), body).await, 409, "review_moved_on", "");
        }
    }
    assert_eq!(desk.received(2).await, [TEXT, "王姐，周六的独家课程还有位置。"]);
    assert_eq!(desk.ended(first).await, "sent -");
    assert_eq!(desk.ended(second).await, "sent -");
    assert_eq!(desk.ended(third).await, "skipped rejected");

    let log = desk.admin.get("/audit-log?limit=200").await;
    for action in ["approve", "edit", "reject"] {
        let action = format!("sop_review.{action}");
        let lines = items(&log.body).iter().filter(|line| line["action"] == action.as_str());
        let told: Vec<&Value> = lines.map(|line| &line["after"]["step_id"]).collect();
        assert_eq!(told, ["invite"], "{action}");
    }
    assert!(log.text.contains("语气不合适") && !log.text.contains("周六"), "no message in {}", log.text);
}

#[tokio::test]
async fn of_two_people_who_decide_about_a_text_at_once_one_does() {
    let desk = Desk::open(4).await;
    let agent = person(&desk.admin, "agent").await.at(desk.here.base(1));
    let mut approved = 0;
    for text in desk.waiting().await {
        let [approve, edit, reject] = ["approve", "edit", "reject"].map(|decision| path(&text, decision));
        let replies = tokio::join!(
            desk.admin.post(&approve, Value::Null),
            agent.post(&edit, json!({ "text": "换一句" })),
            agent.post(&reject, json!({})),
        );
        let replies = [replies.0, replies.1, replies.2];
        approved += replies[..2].iter().filter(|reply| reply.status == 200).count();
        assert_eq!(replies.iter().filter(|reply| reply.status == 200).count(), 1, "{replies:?}");
        for reply in replies.into_iter().filter(|reply| reply.status != 200) {
            assert_problem(reply, 409, "review_moved_on", "");
        }
        let state = desk.ended(&text).await;
        assert!(["sent -", "skipped rejected"].contains(&state.as_str()), "{state}");
    }
    assert_eq!(desk.received(approved).await.len(), approved, "each was said once");
}

#[tokio::test]
async fn nobody_decides_too_late_or_about_what_is_not_theirs() {
    let desk = Desk::open(2).await;
    let waiting = desk.waiting().await;
    let [late, open] = &waiting[..] else { panic!("{waiting:?}") };
    let decisions = [("approve", Value::Null), ("edit", json!({ "text": "好" })), ("reject", json!({}))];
    let stranger = desk.here.register().await;
    assert_eq!(stranger.all("/sop-reviews").await, Vec::<Value>::new());
    assert_eq!(stranger.all(&format!("/sop-reviews?sop_id={}", id(&open["sop_id"]))).await.len(), 0);
    for (decision, body) in &decisions {
        let theirs = stranger.post(&path(open, decision), body.clone()).await;
        assert_problem(theirs, 404, "review_not_found", "");
        let enrollment = id(&open["enrollment_id"]);
        for (enrollment, step) in [
            (enrollment, "over"),
            (enrollment, "%00"),
            (enrollment, "%E9%82%80%E7%BA%A6"),
            (Uuid::now_v7(), "invite"),
        ] {
            let nowhere = format!("/sop-reviews/{enrollment}/{step}/{decision}");
            assert_problem(desk.admin.post(&nowhere, body.clone()).await, 404, "review_not_found", "");
        }
    }

    let enrollment = id(&late["enrollment_id"]);
    desk.here
        .run(&format!(
            "UPDATE sop_steps SET review_until = campaign_now() - interval '1 second' WHERE enrollment_id = '{enrollment}'"
        ))
        .await;
    assert_eq!(desk.waiting().await, std::slice::from_ref(open), "its time has passed");
    for (decision, body) in &decisions {
        assert_problem(desk.admin.post(&path(late, decision), body.clone()).await, 409, "review_expired", "");
    }
    desk.admin.post(&format!("{}/stop", desk.plan), Value::Null).await.expect(200);
    assert_eq!(desk.waiting().await, Vec::<Value>::new(), "the campaign is over");
    for (decision, body) in &decisions {
        assert_problem(
            desk.admin.post(&path(open, decision), body.clone()).await,
            409,
            "review_moved_on",
            "",
        );
    }
    assert_eq!(desk.ended(open).await, "canceled canceled");
    assert_eq!(desk.here.received_from(&desk.account).await, Vec::<Value>::new());
}

#[tokio::test]
async fn what_a_person_has_a_campaign_say_instead_is_checked_too() {
    let desk = Desk::open(2).await;
    let words = "/sensitive-words";
    desk.admin.post(words, json!({ "word": "稳赚", "action": "block" })).await.expect(201);
    desk.admin.post(words, json!({ "word": "微信", "action": "mask" })).await.expect(201);
    let waiting = desk.waiting().await;
    let [blocked, open] = &waiting[..] else { panic!("{waiting:?}") };
    let edit = |body: Value| {
        let (client, path) = (desk.admin.clone(), path(open, "edit"));
        async move { client.post(&path, body).await }
    };
    for text in ["", " \n ", "\u{200b}", "好\u{7}", "一定稳\u{200b}赚", "Ｗ稳 赚", &"字".repeat(2001)]
    {
        assert_problem(edit(json!({ "text": text })).await, 422, "validation_failed", "text");
    }
    assert_problem(edit(json!({})).await, 400, "invalid_request", "text");
    assert_problem(edit(json!({ "text": 7 })).await, 400, "invalid_request", "text");
    assert_problem(edit(json!({ "text": "好", "to": "wxid_x" })).await, 400, "invalid_request", "to");
    let reject = |reason: &str| json!({ "reason": reason });
    let (reason, at) = ("字".repeat(201), path(open, "reject"));
    assert_problem(desk.admin.post(&at, reject(&reason)).await, 422, "validation_failed", "reason");
    assert_problem(desk.admin.post(&at, reject("语\u{7}气")).await, 422, "validation_failed", "reason");
    assert_eq!(desk.waiting().await.len(), 2, "nothing is decided by that");

    // The organisation has come to mind a word of the plan itself.
    desk.admin.post(words, json!({ "word": "周六开课", "action": "block" })).await.expect(201);
    let refused = desk.admin.post(&path(blocked, "approve"), Value::Null).await;
    assert_problem(refused, 422, "validation_failed", "text");
    let sent = edit(json!({ "text": format!("加我微 信{}", "字".repeat(1990)) })).await.expect(200);
    let said = format!("加我＊＊＊{}", "字".repeat(1990));
    assert_eq!(sent["text"], said.as_str());
    assert_eq!(desk.received(1).await, [said]);
    desk.admin.post(&path(blocked, "reject"), Value::Null).await.expect(200);
    assert_eq!(desk.ended(blocked).await, "skipped rejected");
}

//! Drafts: a person decides, once, and only while the conversation still waits for it.

use diesel_async::SimpleAsyncConnection;
use entropy_schema::drafts::{self, NewDraft};
use entropy_schema::lanes;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{assert_problem, id, ids, items, person, unique};
use crate::harness::client::{Account, Client};
use crate::harness::{Here, eventually, secs};

/// Somebody whose account is answered by the AI, each answer after a look.
struct Desk {
    here: Here,
    admin: Client,
    account: Account,
}

/// A draft that waits.
struct Waiting {
    id: Uuid,
    conversation: Uuid,
    turn: Uuid,
    peer: String,
}

impl Waiting {
    fn path(&self, decision: &str) -> String {
        format!("/drafts/{}/{decision}", self.id)
    }
}

impl Desk {
    async fn open() -> Desk {
        let here = Here::open().await;
        let admin = here.register().await;
        let account = admin.account(600, 0).await;
        let workflow = json!({"alias": "客服", "api_key": "fastgpt-abc"});
        admin.post("/ai-workflows", workflow).await.expect(201);
        let desk = Desk { here, admin, account };
        desk.switch(true).await;
        desk
    }

    async fn switch(&self, enabled: bool) {
        let path = format!("/wechat-accounts/{}/ai", self.account.id);
        let chosen = json!({"enabled": enabled, "workflow": "客服", "review": "human", "disclosure": ""});
        self.admin.put(&path, chosen).await.expect(200);
    }

    /// Writes what a run of the model leaves behind when its answer is to be looked at.
    async fn draft(&self, parts: &[&str], minutes: i32) -> Waiting {
        let (id, conversation, turn) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
        let (organization, account, peer) = (self.admin.organization, self.account.id, unique("wxid_"));
        let mut conn = self.here.conn().await;
        lanes::create(&mut conn, conversation, organization, "conversation").await.expect("a lane");
        conn.batch_execute(&format!(
            "INSERT INTO contacts (id, organization_id, account_id, wxid, kind, nickname) \
                 VALUES ('{conversation}', '{organization}', '{account}', '{peer}', 'friend', '王女士'); \
             INSERT INTO conversations (id, organization_id, account_id, contact_id, peer_wxid, kind) \
                 VALUES ('{conversation}', '{organization}', '{account}', '{conversation}', '{peer}', 'friend'); \
             INSERT INTO turns (id, organization_id, account_id, conversation_id, sender_wxid, state, epoch, job_id, \
                     opened_at, last_message_at, flush_at) \
                 VALUES ('{turn}', '{organization}', '{account}', '{conversation}', '{peer}', 'review', 0, '{turn}', \
                     now(), now(), now())"
        ))
        .await
        .expect("written");
        let parts: Vec<String> = parts.iter().map(|part| (*part).to_owned()).collect();
        let draft = NewDraft {
            id,
            organization_id: organization,
            account_id: account,
            conversation_id: conversation,
            turn_id: turn,
            run: 1,
            epoch: 0,
            parts: &parts,
            reason: "asked",
            word_ids: &[],
            minutes,
        };
        drafts::create(&mut conn, &draft).await.expect("written");
        Waiting { id, conversation, turn, peer }
    }

    async fn change(&self, statement: &str) {
        self.here.conn().await.batch_execute(statement).await.expect("changed");
    }

    /// Waits for what the customer gets, in order.
    async fn received(&self, draft: &Waiting, count: usize) -> Vec<String> {
        eventually("the answer arrives", secs(20), async || {
            let entries = self.here.received_from(&self.account).await;
            let texts: Vec<String> = entries
                .iter()
                .filter(|entry| entry["to_wxid"] == draft.peer.as_str())
                .filter_map(|entry| entry["body"]["content"].as_str().map(str::to_owned))
                .collect();
            if texts.len() >= count { Ok(texts) } else { Err(format!("{entries:?}")) }
        })
        .await
    }

    async fn turn_state(&self, draft: &Waiting, state: &str) -> bool {
        let count =
            format!("SELECT count(*) AS n FROM turns WHERE id = '{}' AND state = '{state}'", draft.turn);
        self.here.number(&count).await == 1
    }

    async fn jobs(&self) -> i64 {
        super::count_jobs(&self.here, &self.admin).await
    }
}

#[tokio::test]
async fn an_approved_draft_is_sent_as_it_is_or_as_it_was_changed() {
    let desk = Desk::open().await;
    let agent = person(&desk.admin, "agent").await;
    let plain = desk.draft(&["您好，这款有现货。"], 60).await;
    let changed = desk.draft(&["保证您满意。"], 60).await;
    let listed =
        agent.get(&format!("/drafts?state=waiting&account_id={}", desk.account.id)).await.expect(200);
    assert_eq!(ids(&listed), [changed.id, plain.id]);
    assert_eq!(items(&listed)[1]["parts"], json!(["您好，这款有现货。"]));
    let of_chat = format!("/drafts?conversation_id={}", plain.conversation);
    assert_eq!(ids(&agent.get(&of_chat).await.expect(200)), [plain.id]);

    let sent = agent.send(agent.request(reqwest::Method::POST, &plain.path("approve"))).await.expect(200);
    assert_eq!(
        (&sent["state"], &sent["edited"], &sent["decided_by"]),
        (&json!("approved"), &json!(false), &json!(agent.user))
    );
    assert_eq!(sent["job_ids"].as_array().map(Vec::len), Some(1), "{sent}");
    assert_eq!(desk.received(&plain, 1).await, ["您好，这款有现货。"]);
    let text = json!({"text": " 我们尽力让您满意。 "});
    let sent = agent.post(&changed.path("approve"), text).await.expect(200);
    assert_eq!((&sent["edited"], &sent["parts"]), (&json!(true), &json!(["我们尽力让您满意。"])));
    assert_eq!(desk.received(&changed, 1).await, ["我们尽力让您满意。"]);
    assert_problem(agent.post(&plain.path("reject"), json!({})).await, 409, "already_decided", "");
    let log = desk.admin.get("/audit-log").await;
    assert!(log.text.contains("draft.approve") && !log.text.contains("满意"), "no message in {}", log.text);
    for job in sent["job_ids"].as_array().expect("ids") {
        let job = desk.here.ended(&desk.admin, id(job)).await;
        assert_eq!(job["state"], "completed", "{job}");
    }
}

#[tokio::test]
async fn a_rejected_draft_is_not_sent() {
    let desk = Desk::open().await;
    let draft = desk.draft(&["不对的话"], 60).await;
    let too_long = json!({"reason": "字".repeat(201)});
    assert_problem(
        desk.admin.post(&draft.path("reject"), too_long).await,
        422,
        "validation_failed",
        "reason",
    );
    let rejected = desk.admin.post(&draft.path("reject"), json!({"reason": "价格不对"})).await.expect(200);
    assert_eq!((&rejected["state"], &rejected["job_ids"]), (&json!("rejected"), &Value::Null));
    assert!(desk.turn_state(&draft, "handed_off").await);
    for decision in ["approve", "reject"] {
        let again = desk.admin.post(&draft.path(decision), json!({})).await;
        assert_problem(again, 409, "already_decided", "");
    }
    assert_eq!(desk.jobs().await, 0);
}

#[tokio::test]
async fn of_two_people_who_decide_at_once_one_does() {
    let desk = Desk::open().await;
    let agent = person(&desk.admin, "agent").await.at(desk.here.base(1));
    for _ in 0..5 {
        let draft = desk.draft(&["好的"], 60).await;
        let before = desk.jobs().await;
        let (approve, reject) = (draft.path("approve"), draft.path("reject"));
        let replies = tokio::join!(
            desk.admin.post(&approve, json!({})),
            agent.post(&approve, json!({})),
            agent.post(&reject, json!({})),
        );
        let replies = [replies.0, replies.1, replies.2];
        let approved = replies[..2].iter().filter(|reply| reply.status == 200).count();
        assert_eq!(replies.iter().filter(|reply| reply.status == 200).count(), 1, "{replies:?}");
        for reply in replies.into_iter().filter(|reply| reply.status != 200) {
            assert_problem(reply, 409, "already_decided", "");
        }
        assert_eq!(desk.jobs().await - before, approved as i64);
    }
}

#[tokio::test]
async fn a_draft_that_came_too_late_is_not_sent() {
    let desk = Desk::open().await;
    let expired = desk.draft(&["晚了"], 60).await;
    desk.change(&format!(
        "UPDATE drafts SET expires_at = now() - interval '1 second' WHERE id = '{}'",
        expired.id
    ))
    .await;
    let moved: [&dyn Fn(&Waiting) -> String; 6] = [
        &|draft| format!("UPDATE conversations SET mode_epoch = 1 WHERE id = '{}'", draft.conversation),
        &|draft| format!("UPDATE conversations SET mode = 'human' WHERE id = '{}'", draft.conversation),
        &|draft| format!("UPDATE turns SET run = 2 WHERE id = '{}'", draft.turn),
        &|draft| format!("UPDATE turns SET state = 'open' WHERE id = '{}'", draft.turn),
        &|draft| format!("UPDATE drafts SET state = 'superseded' WHERE id = '{}'", draft.id),
        &|draft| {
            format!(
                "INSERT INTO opt_outs (organization_id, wxid, reason) SELECT organization_id, peer_wxid, '退订' \
                 FROM conversations WHERE id = '{}'",
                draft.conversation
            )
        },
    ];
    for change in moved {
        let draft = desk.draft(&["晚了"], 60).await;
        desk.change(&change(&draft)).await;
        let reply = desk.admin.post(&draft.path("approve"), json!({})).await;
        assert_problem(reply, 409, "conversation_moved_on", "");
    }
    for decision in ["approve", "reject"] {
        let reply = desk.admin.post(&expired.path(decision), json!({})).await;
        assert_problem(reply, 409, "draft_expired", "");
    }
    let shown = desk.admin.all("/drafts").await;
    let shown = shown.iter().find(|draft| id(&draft["id"]) == expired.id).expect("it is listed");
    assert_eq!(shown["state"], "expired");
    let off = desk.draft(&["晚了"], 60).await;
    desk.switch(false).await;
    assert_problem(desk.admin.post(&off.path("approve"), json!({})).await, 409, "conversation_moved_on", "");
    assert_eq!(desk.jobs().await, 0);
}

#[tokio::test]
async fn what_a_person_says_instead_is_checked_too() {
    let desk = Desk::open().await;
    let (path, draft) = ("/sensitive-words", desk.draft(&["稳 赚"], 60).await);
    desk.admin.post(path, json!({"word": "稳赚", "action": "block"})).await.expect(201);
    desk.admin.post(path, json!({"word": "微信", "action": "mask"})).await.expect(201);
    let approve = |body: Value| {
        let (client, path) = (desk.admin.clone(), draft.path("approve"));
        async move { client.post(&path, body).await }
    };
    for text in ["", " \n", "\u{200b}", "a\u{7}", "一定稳\u{200b}赚", &"字".repeat(1501)] {
        assert_problem(approve(json!({ "text": text })).await, 422, "validation_failed", "text");
    }
    assert_problem(approve(json!({})).await, 422, "validation_failed", "text");
    assert_problem(approve(json!({"parts": []})).await, 400, "invalid_request", "parts");
    let stranger = desk.here.register().await;
    for decision in ["approve", "reject"] {
        assert_problem(stranger.post(&draft.path(decision), json!({})).await, 404, "draft_not_found", "");
    }
    assert_eq!(stranger.get("/drafts").await.expect(200)["items"], json!([]));
    let sent = approve(json!({"text": "加我微 信"})).await.expect(200);
    assert_eq!(sent["parts"], json!(["加我＊＊＊"]));
    assert_eq!(desk.received(&draft, 1).await, ["加我＊＊＊"]);
}

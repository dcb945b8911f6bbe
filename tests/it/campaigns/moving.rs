//! The ways through a plan.

use entropy_jobs::incoming::{ContactChange, What};
use serde_json::json;
use uuid::Uuid;

use super::Scene;
use super::scene::{end, send};

#[tokio::test]
async fn a_message_a_wait_another_message_and_the_end() {
    let scene = Scene::set().await;
    let plan = scene
        .plan_with(json!({
            "variables": { "称呼": { "label": "称呼", "default": "您" }, "顾问名": { "label": "顾问" } },
            "steps": [
                send("first", "{{称呼}}好，我是{{顾问名}}。", json!("rest")),
                { "id": "rest", "type": "wait", "for": "PT30M", "next": "second" },
                send("second", "大纲发您了。", json!("over")),
                end("over", "已完成"),
            ],
        }))
        .await;
    let contact = scene.friend("wxid_a").await;
    assert_eq!(scene.enroll(plan, &[contact]).await.enrolled.len(), 1);
    assert_eq!(scene.standing().await, ["pending first 11-23 10:00 begins"]);
    scene.settles().await;
    assert_eq!(scene.words(), ["王女士好，我是小李。"]);
    assert_eq!(scene.standing().await, ["waiting rest 11-23 10:30 wait"]);
    scene.clock("2026-11-23T10:29:59+08:00").await;
    scene.settles().await;
    assert_eq!(scene.words().len(), 1, "not a moment early");
    scene.clock("2026-11-23T10:30:00+08:00").await;
    scene.settles().await;
    assert_eq!(scene.words()[1..], ["大纲发您了。"]);
    assert_eq!(scene.standing().await, ["completed over 已完成"]);
    assert_eq!(scene.steps().await, ["first sent", "over done", "rest done", "second sent"]);
    assert_eq!(scene.book.number("SELECT sent::bigint AS n FROM sop_enrollments").await, 2);
    // In the conversation they stand as what a campaign has said.
    let said = "SELECT count(*) AS n FROM messages WHERE origin = 'sop'";
    assert_eq!(scene.book.number(said).await, 2);
    let again = scene.enroll(plan, &[contact]).await;
    assert_eq!(again.refused, [(contact, "entered_before")]);
    scene.book.assert_sound().await;
}

#[tokio::test]
async fn tags_branches_and_splits_lead_where_they_say() {
    let scene = Scene::set().await;
    let plan = scene
        .plan(json!([
            { "id": "first", "type": "tag", "add": ["高意向"], "remove": ["新线索"], "next": "which" },
            { "id": "which", "type": "branch", "cases": [
                { "when": { "fact": "contact.tags", "op": "contains", "value": "高意向" }, "next": "arm" },
            ], "else": "wrong" },
            { "id": "arm", "type": "split", "arms": [
                { "key": "all", "weight": 100, "next": "asked" }, { "key": "none", "weight": 0, "next": "wrong" },
            ] },
            { "id": "asked", "type": "branch", "cases": [
                { "when": { "fact": "enrollment.arm.arm", "op": "eq", "value": "all" }, "next": "right" },
            ], "else": "wrong" },
            send("right", "您好", json!(null)),
            send("wrong", "错", json!(null)),
        ]))
        .await;
    let contact = scene.friend("wxid_a").await;
    scene.book.run("UPDATE contacts SET tags = ARRAY['新线索', '老客户']").await;
    scene.enroll(plan, &[contact]).await;
    scene.settles().await;
    assert_eq!(scene.words(), ["您好"]);
    assert_eq!(scene.standing().await, ["completed"]);
    let tags = scene.lines("SELECT array_to_string(tags, ' ') AS word FROM contacts").await;
    assert_eq!(tags, ["老客户 高意向"]);
    let rows =
        scene.lines("SELECT concat_ws(' ', step_id, reason) AS word FROM sop_steps ORDER BY step_id").await;
    assert_eq!(rows, ["arm all", "asked case_0", "first", "right", "which case_0"]);
}

#[tokio::test]
async fn an_answer_goes_its_own_way_and_silence_another() {
    let scene = Scene::set().await;
    let plan = scene
        .plan(json!([
            send("first", "周六有空吗？", json!("listen")),
            { "id": "listen", "type": "wait_reply", "timeout": "P2D", "on_reply": "said", "on_timeout": "silent" },
            { "id": "said", "type": "branch", "cases": [
                { "when": { "fact": "last_reply.text", "op": "contains_any", "value": ["不需要"] }, "next": "no" },
            ], "else": "person" },
            { "id": "person", "type": "handoff", "to": "owner", "note": "请顾问接手。", "next": "human" },
            end("human", "转人工"),
            end("no", "客户婉拒"),
            end("silent", "未回复"),
        ]))
        .await;
    let mut contacts = Vec::new();
    for wxid in ["wxid_yes", "wxid_no", "wxid_silent"] {
        contacts.push(scene.friend(wxid).await);
    }
    scene.enroll(plan, &contacts).await;
    scene.settles().await;
    assert_eq!(scene.words().len(), 3);
    scene.clock("2026-11-23T11:00:00+08:00").await;
    scene.writes("wxid_yes", "有的").await;
    scene.writes("wxid_no", "不需要了谢谢").await;
    scene.settles().await;
    assert_eq!(
        scene.standing().await,
        ["completed human 转人工", "completed no 客户婉拒", "waiting listen 11-25 10:00 wait_reply"]
    );
    let human = "SELECT count(*) AS n FROM conversations WHERE mode = 'human' AND peer_wxid = 'wxid_yes'";
    assert_eq!(scene.book.number(human).await, 1);
    scene.clock("2026-11-25T10:00:01+08:00").await;
    scene.settles().await;
    assert_eq!(scene.standing().await[2], "completed silent 未回复");
    scene.book.assert_sound().await;
}

#[tokio::test]
async fn nobody_is_in_a_plan_twice_whoever_brings_them_in() {
    let scene = Scene::set().await;
    let plan = scene.plan(json!([send("first", "您好", json!(null))])).await;
    let contact = scene.friend("wxid_a").await;
    let other = scene.another_account().await;
    let same_person = scene.friend_of(other, "wxid_a").await;
    let twice = [contact, contact];
    let both = futures::future::join_all((0..4).map(|_| scene.enroll(plan, &twice))).await;
    assert_eq!(both.iter().map(|done| done.enrolled.len()).sum::<usize>(), 1);
    let again = scene.enroll(plan, &[same_person, Uuid::nil()]).await;
    assert_eq!(again.refused, [(same_person, "in_plan"), (Uuid::nil(), "contact_not_found")]);
    // The same job may run twice, and two dispatchers may look at once.
    let passes = futures::future::join_all((0..3).map(|_| scene.hand_out())).await;
    let jobs: Vec<_> = passes.into_iter().flatten().collect();
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    for job in jobs {
        scene.run(job).await;
    }
    scene.book.run("UPDATE sop_enrollments SET due_at = campaign_now()").await;
    scene.settles().await;
    assert_eq!(scene.words(), ["您好"]);
    assert_eq!(scene.standing().await, ["completed"]);
}

#[tokio::test]
async fn what_happens_to_a_contact_brings_it_into_the_plans_that_begin_with_it() {
    let scene = Scene::set().await;
    let config = |trigger: serde_json::Value, text: &str| {
        json!({
            "trigger": trigger, "stop": [], "steps": [send("first", text, json!(null))],
            "audience": { "kind": "friend", "consent": { "required": false }, "exclude_other_active_sop": false },
        })
    };
    let word = json!({ "type": "event", "event": "keyword_received", "keywords": ["课程"], "delay": "PT2M" });
    scene.plan_with(config(word, "课程资料")).await;
    scene.plan_with(config(json!({ "type": "event", "event": "friend_added" }), "欢迎")).await;
    scene.friend("wxid_a").await;
    scene.writes("wxid_a", "你好").await;
    assert_eq!(scene.standing().await, Vec::<String>::new());
    scene.writes("wxid_a", "想问一下 课 程").await;
    assert_eq!(scene.standing().await, ["pending first 11-23 10:02 begins"]);
    scene.clock("2026-11-23T10:01:00+08:00").await;
    scene.writes("wxid_a", "课程还有吗？").await;
    scene.settles().await;
    assert_eq!(scene.standing().await, ["waiting first 11-23 10:02 begins"], "not before its time, and once");
    let change = ContactChange {
        wxid: "wxid_new".into(),
        nickname: Some("新朋友".into()),
        remark: None,
        alias: None,
        avatar: None,
        became_friend: true,
    };
    scene.happens(What::ContactChanged(change.clone())).await;
    scene.happens(What::ContactChanged(change)).await;
    scene.clock("2026-11-23T10:02:00+08:00").await;
    scene.settles().await;
    assert_eq!(scene.standing().await, ["completed", "completed"]);
    let mut said = scene.said();
    said.sort();
    assert_eq!(said, [("wxid_a".into(), "课程资料".into()), ("wxid_new".into(), "欢迎".into())]);
}

//! What stops an enrollment, whatever step it is at.

use entropy_schema::campaigns::steps;
use serde_json::json;

use super::Scene;
use super::scene::{end, send};

fn two_messages() -> serde_json::Value {
    json!([
        send("first", "第一条", json!("rest")),
        { "id": "rest", "type": "wait", "for": "P1D", "next": "second" },
        send("second", "第二条", json!("over")),
        end("over", "已完成"),
    ])
}

#[tokio::test]
async fn an_answer_stops_it() {
    let scene = Scene::set().await;
    let plan = scene.plan(two_messages()).await;
    let contact = scene.friend("wxid_a").await;
    scene.enroll(plan, &[contact]).await;
    scene.settles().await;
    scene.clock("2026-11-23T12:00:00+08:00").await;
    scene.writes("wxid_a", "多少钱？").await;
    scene.settles().await;
    assert_eq!(scene.standing().await, ["exited rest replied 客户已回复"]);
    scene.clock("2026-11-25T12:00:00+08:00").await;
    scene.settles().await;
    assert_eq!(scene.words(), ["第一条"]);
}

#[tokio::test]
async fn who_wants_no_more_messages_is_out_of_it_at_once_also_between_the_lane_and_the_phone() {
    let scene = Scene::set().await;
    let plan = scene.plan(two_messages()).await;
    let contact = scene.friend("wxid_a").await;
    scene.enroll(plan, &[contact]).await;
    // The step is carried on; its message waits in the account's lane.
    for job in scene.hand_out().await {
        scene.run(job).await;
    }
    assert_eq!(scene.steps().await, ["first due"]);
    scene.clock("2026-11-23T10:00:05+08:00").await;
    scene.writes("wxid_a", "退订").await;
    assert_eq!(scene.standing().await, ["exited first opted_out"]);
    assert_eq!(scene.steps().await, ["first canceled opted_out"]);
    scene.settles().await;
    let said = scene.words();
    assert!(said.len() == 1 && said[0].contains("不再给您发送"), "{said:?}");
    let ended = scene.lines("SELECT error ->> 'code' AS word FROM jobs WHERE args ? 'campaign'").await;
    assert_eq!(ended, ["step_passed"]);
    assert_eq!(scene.enroll(plan, &[contact]).await.refused, [(contact, "opted_out")]);
    scene.book.assert_sound().await;
}

#[tokio::test]
async fn what_became_of_a_message_is_noted_also_if_its_worker_died_and_its_recipient_has_answered() {
    let scene = Scene::set().await;
    let plan = scene.plan(two_messages()).await;
    let contacts = [scene.friend("wxid_a").await, scene.friend("wxid_b").await];
    scene.enroll(plan, &contacts).await;
    scene.settles().await;
    // Back to the moment at which both were on their way.
    scene
        .book
        .run(
            "UPDATE sends SET state = 'unknown', new_msg_id = NULL, msg_id = NULL;
             UPDATE sop_steps SET state = 'sending', finished_at = NULL WHERE step_id = 'first'",
        )
        .await;
    scene.writes("wxid_a", "在吗").await;
    scene.settles().await;
    let jobs = scene.lines("SELECT job_id::text AS word FROM sop_steps WHERE step_id = 'first'").await;
    let jobs: Vec<uuid::Uuid> = jobs.iter().map(|id| id.parse().expect("an id")).collect();
    for _ in 0..2 {
        steps::settle_lost(&mut *scene.book.conn().await, &jobs).await.expect("settled");
    }
    scene.settles().await;
    let first =
        scene.lines("SELECT state || ' ' || reason AS word FROM sop_steps WHERE step_id = 'first'").await;
    assert_eq!(first, ["unknown outcome_unknown"; 2]);
    let standing = scene.standing().await;
    assert!(standing[0].starts_with("exited") && standing[1].starts_with("waiting rest"), "{standing:?}");
    assert_eq!(scene.words().len(), 2, "nothing is sent again");
}

#[tokio::test]
async fn tags_goals_and_failures_stop_it_as_the_plan_says() {
    let scene = Scene::set().await;
    let rules = json!([
        { "on": "reply", "do": "exit" },
        { "on": "goal", "do": "exit", "outcome": "已预约" },
        { "on": "tag_added", "do": "exit", "tags": ["已成交"], "outcome": "状态变化" },
        { "on": "send_failures", "do": "pause", "count": 1, "resume_after": "PT1H" },
    ]);
    let plan = scene
        .plan_with(json!({
            "stop": rules, "steps": two_messages(),
            "goal": { "fact": "contact.tags", "op": "contains", "value": "已预约试听" },
        }))
        .await;
    let booked = scene.friend("wxid_booked").await;
    let bought = scene.friend("wxid_bought").await;
    let before = scene.friend("wxid_before").await;
    scene.book.run(&format!("UPDATE contacts SET tags = ARRAY['已成交'] WHERE id = '{before}'")).await;
    scene.enroll(plan, &[booked, bought, before]).await;
    scene.settles().await;
    for (who, tag) in [(booked, "已预约试听"), (bought, "已成交")] {
        scene
            .book
            .run(&format!("UPDATE contacts SET tags = tags || ARRAY['{tag}'] WHERE id = '{who}'"))
            .await;
        let mut conn = scene.book.conn().await;
        entropy_jobs::campaign::events::changed(&mut conn, who).await.expect("told");
    }
    scene.settles().await;
    assert_eq!(
        scene.standing().await,
        ["exited rest goal 已预约", "exited rest tag_rule 状态变化", "waiting rest 11-24 10:00 wait"],
        "a tag that was there before stops nothing"
    );
    scene.clock("2026-11-24T10:00:00+08:00").await;
    scene.refuses(true);
    scene.settles().await;
    assert_eq!(scene.standing().await[2], "paused over 11-24 11:00 send_failures");
    scene.refuses(false);
    scene.clock("2026-11-24T11:00:00+08:00").await;
    scene.settles().await;
    assert_eq!(scene.standing().await[2], "completed over 已完成");
    assert_eq!(
        scene.steps().await[4..],
        ["first sent", "over done", "rest done", "second failed gewe_refused"]
    );
}

#[tokio::test]
async fn a_stopped_organisation_and_a_paused_plan_send_nothing_until_they_go_on() {
    let scene = Scene::set().await;
    let plan = scene.plan(two_messages()).await;
    let contact = scene.friend("wxid_a").await;
    scene.enroll(plan, &[contact]).await;
    for job in scene.hand_out().await {
        scene.run(job).await;
    }
    let organization = scene.book.organization;
    scene
        .book
        .run(&format!(
            "INSERT INTO stops (organization_id, scope, scope_id, reason)
             VALUES ('{organization}', 'organization', '{organization}', '误发')"
        ))
        .await;
    scene.settles().await;
    assert_eq!(scene.words().len(), 0, "also what waits in the lane");
    assert_eq!(scene.steps().await, ["first deferred stopped"]);
    scene.book.run("DELETE FROM stops").await;
    scene.clock("2026-11-23T10:20:00+08:00").await;
    scene.book.run("UPDATE sop_tasks SET status = 'PAUSED'").await;
    scene.settles().await;
    assert_eq!(scene.standing().await, ["waiting first 11-23 11:20 sop_paused"]);
    scene.book.run("UPDATE sop_tasks SET status = 'RUNNING'").await;
    let mut conn = scene.book.conn().await;
    entropy_schema::campaigns::enrollments::wake_waiting(&mut conn, organization, plan, "sop_paused")
        .await
        .expect("woken");
    scene.settles().await;
    assert_eq!(scene.words(), ["第一条"]);
}

#[tokio::test]
async fn nobody_is_written_to_over_a_person_and_a_deadline_ends_the_waiting() {
    let scene = Scene::set().await;
    let plan = scene
        .plan_with(json!({
            "stop": [{ "on": "reply", "do": "exit" }, { "on": "deadline", "do": "exit", "after": "P3D", "outcome": "超期" }],
            "steps": two_messages(),
        }))
        .await;
    let contact = scene.friend("wxid_a").await;
    scene.enroll(plan, &[contact]).await;
    scene.settles().await;
    scene.book.run("UPDATE conversations SET mode = 'human', mode_until = NULL").await;
    scene.clock("2026-11-24T10:00:00+08:00").await;
    scene.settles().await;
    assert_eq!(scene.standing().await, ["waiting second 11-24 10:30 taken_over"]);
    scene.clock("2026-11-26T10:00:00+08:00").await;
    scene.settles().await;
    assert_eq!(scene.standing().await, ["exited second deadline 超期"]);
    assert_eq!(scene.words(), ["第一条"]);
}

//! When a campaign may speak: windows, holidays, caps, lateness.

use entropy_jobs::job::Job;
use entropy_jobs::kinds::check_calendars::CheckCalendars;
use serde_json::json;
use uuid::Uuid;

use super::Scene;
use super::scene::{end, send};

#[tokio::test]
async fn nothing_is_said_at_night_on_weekends_and_on_holidays() {
    let scene = Scene::set().await;
    // Wednesday evening, before the seven days of the National Day.
    scene.clock("2026-09-30T22:00:00+08:00").await;
    let plan = scene
        .plan_with(json!({
            "send_window": { "days": "workday", "ranges": [{ "from": "09:30", "to": "12:00" }, { "from": "14:00", "to": "20:30" }] },
            "steps": [
                send("first", "第一条", json!("day")),
                { "id": "day", "type": "wait", "until": { "from": "start", "day_offset": 1, "at": "10:00", "count": "workday" },
                  "next": "second" },
                send("second", "第二条", json!("long")),
                { "id": "long", "type": "wait", "for": "PT3H", "next": "third" },
                send("third", "第三条", json!(null)),
            ],
        }))
        .await;
    let contact = scene.friend("wxid_a").await;
    scene.enroll(plan, &[contact]).await;
    scene.settles().await;
    assert_eq!(scene.standing().await, ["pending first 10-08 09:30 begins"]);
    scene.clock("2026-10-08T09:30:00+08:00").await;
    scene.settles().await;
    assert_eq!(scene.standing().await, ["waiting day 10-09 10:00 wait"]);
    scene.clock("2026-10-09T10:00:00+08:00").await;
    scene.settles().await;
    assert_eq!(scene.standing().await, ["waiting long 10-09 13:00 wait"]);
    scene.clock("2026-10-09T13:00:00+08:00").await;
    scene.settles().await;
    assert_eq!(scene.standing().await, ["waiting third 10-09 14:00 window"], "nobody writes at noon");
    // Nobody was there that afternoon. Saturday is a make-up day.
    scene.clock("2026-10-09T21:00:00+08:00").await;
    scene.settles().await;
    assert_eq!(scene.standing().await, ["waiting third 10-10 09:30 window"]);
    scene.clock("2026-10-10T09:30:00+08:00").await;
    scene.settles().await;
    assert_eq!(scene.words(), ["第一条", "第二条", "第三条"]);
    assert_eq!(scene.standing().await, ["completed"]);
}

#[tokio::test]
async fn caps_over_all_plans_make_a_message_wait_for_the_next_day() {
    let scene = Scene::set().await;
    let one_a_day = json!({ "per_contact_per_day": 1, "per_account_per_day": 2, "max_unanswered": 3 });
    let config = |text: &str| {
        json!({
            "caps": one_a_day, "steps": [send("first", text, json!("second")), send("second", "再见", json!(null))],
            "audience": { "kind": "friend", "consent": { "required": false }, "exclude_other_active_sop": false },
        })
    };
    let one = scene.plan_with(config("一")).await;
    let other = scene.plan_with(config("二")).await;
    let contact = scene.friend("wxid_a").await;
    scene.enroll(one, &[contact]).await;
    scene.enroll(other, &[contact]).await;
    scene.settles().await;
    assert_eq!(scene.words().len(), 1);
    let standing = scene.standing().await;
    assert!(standing.iter().all(|line| line.ends_with("11-24 09:00 per_contact_per_day")), "{standing:?}");
    scene.clock("2026-11-24T09:00:00+08:00").await;
    scene.settles().await;
    scene.clock("2026-11-25T09:00:00+08:00").await;
    scene.settles().await;
    assert_eq!(scene.words().len(), 3);
    scene.clock("2026-11-26T09:00:00+08:00").await;
    scene.settles().await;
    assert_eq!(scene.words().len(), 3, "three without an answer are enough");
    let ends = scene.lines("SELECT COALESCE(reason, '-') AS word FROM sop_enrollments ORDER BY reason").await;
    assert!(ends.contains(&"max_unanswered".to_owned()), "{ends:?}");
}

#[tokio::test]
async fn what_comes_too_late_is_left_out() {
    let scene = Scene::set().await;
    let plan = scene
        .plan_with(json!({
            "late": { "max_delay": "PT2H", "on_expired": "skip" },
            "steps": [
                send("first", "早上好", json!("rest")),
                { "id": "rest", "type": "wait", "for": "PT1H", "next": "second" },
                send("second", "第二条", json!("over")),
                end("over", "已完成"),
            ],
        }))
        .await;
    let contact = scene.friend("wxid_a").await;
    scene.enroll(plan, &[contact]).await;
    scene.settles().await;
    // Nobody was there until three hours after the second message was due.
    scene.clock("2026-11-23T14:00:00+08:00").await;
    scene.settles().await;
    assert_eq!(scene.words(), ["早上好"]);
    assert_eq!(scene.steps().await[3], "second skipped late");
    assert_eq!(scene.standing().await, ["completed over 已完成"]);
}

#[tokio::test]
async fn a_plan_that_counts_working_days_misses_next_years_calendar_once() {
    let scene = Scene::set().await;
    let steps = json!([
        { "id": "first", "type": "wait", "until": { "day_offset": 2, "at": "10:00", "count": "workday" }, "next": "over" },
        end("over", "已完成"),
    ]);
    scene.plan(json!([end("first", "已完成")])).await;
    let context = scene.context(Uuid::now_v7(), 1, Uuid::now_v7());
    let alerts = "SELECT dedupe_key AS word FROM alerts WHERE kind = 'calendar_missing'";
    CheckCalendars {}.run(&context).await.expect("looked");
    assert_eq!(scene.lines(alerts).await.len(), 0, "nobody counts working days");
    scene.plan(steps).await;
    for _ in 0..2 {
        CheckCalendars {}.run(&context).await.expect("looked");
    }
    assert_eq!(scene.lines(alerts).await, ["calendar_missing:2027"]);
}

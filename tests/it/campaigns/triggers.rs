//! Plans that begin by themselves, at a time.

use std::time::Duration;

use diesel_async::SimpleAsyncConnection;
use entropy_jobs::campaign::plan::Plans;
use entropy_jobs::campaign::ticks;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Scene;
use super::scene::send;
use crate::harness::{Platform, eventually, secs};

/// A plan for everybody with a tag, with its first time set.
async fn plan(scene: &Scene, trigger: Value, next: &str, more: Value) -> Uuid {
    let mut config = json!({
        "trigger": trigger, "timezone": "Asia/Shanghai", "stop": [],
        "audience": { "kind": "friend", "consent": { "required": false }, "re_entry": { "max_times": 3 } },
        "steps": [send("first", "本周活动", json!(null))],
    });
    let fields = config.as_object_mut().expect("an object");
    fields.extend(more.as_object().expect("an object").clone());
    let id = scene.plan_with(config).await;
    scene
        .book
        .run(&format!(
            "UPDATE sop_tasks SET target_type = 'tag', target_ids = ARRAY['老客户'], next_trigger_at = '{next}' WHERE id = '{id}'"
        ))
        .await;
    id
}

async fn customer(scene: &Scene, wxid: &str) {
    let contact = scene.friend(wxid).await;
    scene.book.run(&format!("UPDATE contacts SET tags = ARRAY['老客户'] WHERE id = '{contact}'")).await;
}

/// Several look at once. Returns how many runs they have made.
async fn tick(scene: &Scene) -> usize {
    let plans = [Plans::default(), Plans::default(), Plans::default()];
    let passes = plans.each_ref().map(|plans| ticks::pass(&scene.book.db, plans));
    let made = futures::future::join_all(passes).await;
    made.into_iter().map(|made| made.expect("a pass")).sum()
}

/// The runs, oldest first, with the time in Shanghai, their state and how many were brought in.
async fn runs(scene: &Scene) -> Vec<String> {
    scene
        .lines(
            "SELECT concat_ws(' ', to_char(fire_at AT TIME ZONE 'Asia/Shanghai', 'MM-DD HH24:MI'), source, state, audience,
                 enrolled) AS word FROM sop_runs ORDER BY id",
        )
        .await
}

#[tokio::test]
async fn a_month_of_a_weekly_plan_fires_every_week_once() {
    let scene = Scene::set().await;
    let weekly = json!({ "type": "cron", "cron": "30 10 * * 1", "catch_up": "skip" });
    plan(&scene, weekly, "2026-11-23T10:30:00+08:00", json!({})).await;
    customer(&scene, "wxid_a").await;
    assert_eq!(tick(&scene).await, 0, "not before its time");
    let mut expected = Vec::new();
    for (week, day) in ["11-23", "11-30", "12-07", "12-14"].iter().enumerate() {
        if week == 1 {
            // From the second week on there is one more.
            customer(&scene, "wxid_b").await;
        }
        scene.clock(&format!("2026-{day}T10:30:07+08:00")).await;
        assert_eq!(tick(&scene).await, 1);
        assert_eq!(tick(&scene).await, 0);
        scene.settles().await;
        let audience = if week == 0 { 1 } else { 2 };
        // Nobody more often than three times.
        let enrolled = if week == 3 { 1 } else { audience };
        expected.push(format!("{day} 10:30 cron finished {audience} {enrolled}"));
    }
    assert_eq!(runs(&scene).await, expected);
    assert_eq!(scene.words().len(), 6);
    let refused = scene.lines("SELECT refused::text AS word FROM sop_runs ORDER BY id DESC LIMIT 1").await;
    assert_eq!(refused, ["{\"entered_before\": 1}"]);
    let next = scene
        .lines("SELECT to_char(next_trigger_at AT TIME ZONE 'Asia/Shanghai', 'MM-DD HH24:MI') AS word FROM sop_tasks")
        .await;
    assert_eq!(next, ["12-21 10:30"]);
    let keys = "SELECT count(*) AS n FROM idempotency_keys WHERE key LIKE 'sop:%'";
    assert_eq!(scene.book.number(keys).await, 4, "a job a tick, by its name");
    scene.book.assert_sound().await;
}

#[tokio::test]
async fn times_that_nobody_was_there_for_are_made_good_once_or_let_go() {
    let scene = Scene::set().await;
    let daily = |catch_up: &str| json!({ "type": "cron", "cron": "0 9 * * *", "catch_up": catch_up });
    let first = "2026-11-23T09:00:00+08:00";
    let apart = json!({ "audience": { "kind": "friend", "consent": { "required": false },
        "exclude_other_active_sop": false } });
    plan(&scene, daily("run_once"), first, apart.clone()).await;
    plan(&scene, daily("skip"), first, apart).await;
    customer(&scene, "wxid_a").await;
    // Three days without anybody.
    scene.clock("2026-11-26T12:00:00+08:00").await;
    assert_eq!(tick(&scene).await, 1);
    assert_eq!(tick(&scene).await, 0);
    scene.settles().await;
    let mut seen = runs(&scene).await;
    seen.sort();
    assert_eq!(seen, ["11-26 09:00 cron finished 1 1", "11-26 09:00 cron missed 0"]);
    let next = "SELECT count(*) AS n FROM sop_tasks WHERE next_trigger_at = '2026-11-27T09:00:00+08:00'";
    assert_eq!(scene.book.number(next).await, 2);
}

#[tokio::test]
async fn a_moment_fires_once_also_late_and_only_while_the_plan_runs() {
    let scene = Scene::set().await;
    let at = "2026-11-23T10:05:00+08:00";
    let id = plan(&scene, json!({ "type": "once", "at": at }), at, json!({})).await;
    customer(&scene, "wxid_a").await;
    scene.book.run("UPDATE sop_tasks SET status = 'PAUSED'").await;
    scene.clock("2026-11-23T15:00:00+08:00").await;
    assert_eq!(tick(&scene).await, 0);
    scene.book.run("UPDATE sop_tasks SET status = 'RUNNING'").await;
    assert_eq!(tick(&scene).await, 1);
    // It is halted again before anybody was written down, and goes on.
    scene.book.run("UPDATE sop_tasks SET status = 'PAUSED'").await;
    scene.settles().await;
    assert_eq!(runs(&scene).await, ["11-23 10:05 once waiting 0"]);
    scene.book.run("UPDATE sop_tasks SET status = 'RUNNING'").await;
    let mut conn = scene.book.conn().await;
    let organization = scene.book.organization;
    entropy_jobs::campaign::run::go_on(&mut conn, organization, id, None).await.expect("goes on");
    scene.settles().await;
    assert_eq!(runs(&scene).await, ["11-23 10:05 once finished 1 1"]);
    assert_eq!(scene.words(), ["本周活动"]);
    let set = "SELECT count(*) AS n FROM sop_tasks WHERE next_trigger_at IS NULL AND triggered_at = '2026-11-23T10:05:00+08:00'";
    assert_eq!(scene.book.number(set).await, 1);
}

#[tokio::test]
async fn a_time_that_concerns_more_people_than_the_plan_allows_takes_nobody_in_and_says_so() {
    let scene = Scene::set().await;
    let daily = json!({ "type": "cron", "cron": "30 10 * * *" });
    let few = json!({ "audience": { "kind": "friend", "consent": { "required": false }, "max_size": 1 } });
    plan(&scene, daily, "2026-11-23T10:30:00+08:00", few).await;
    customer(&scene, "wxid_a").await;
    customer(&scene, "wxid_b").await;
    scene.clock("2026-11-23T10:30:00+08:00").await;
    assert_eq!(tick(&scene).await, 1);
    scene.settles().await;
    assert_eq!(runs(&scene).await, ["11-23 10:30 cron refused 2 0"]);
    assert!(scene.words().is_empty());
    let alerts = scene.lines("SELECT kind || ': ' || text AS word FROM alerts").await;
    assert!(
        alerts.len() == 1 && alerts[0].contains("audience_too_large") && alerts[0].contains("测试计划"),
        "{alerts:?}"
    );
}

#[tokio::test]
async fn a_stranger_in_the_place_of_a_ticks_key_does_not_keep_it_from_firing() {
    let scene = Scene::set().await;
    let at = "2026-11-23T10:05:00+08:00";
    let id = plan(&scene, json!({ "type": "once", "at": at }), at, json!({})).await;
    customer(&scene, "wxid_a").await;
    scene
        .book
        .run(&format!(
            "INSERT INTO idempotency_keys (organization_id, key, request_hash, job_id)
             VALUES ('{}', 'sop:{id}:2026-11-23T02:05:00Z', 'x', '{id}')",
            scene.book.organization
        ))
        .await;
    scene.clock("2026-11-23T10:06:00+08:00").await;
    assert_eq!(tick(&scene).await, 1);
    tokio::time::timeout(Duration::from_secs(30), scene.settles()).await.expect("settles");
    assert_eq!(scene.words(), ["本周活动"]);
}

#[tokio::test]
async fn three_schedulers_of_which_one_is_always_being_killed_fire_every_time_once() {
    let mut platform = Platform::with().schedulers(3).start().await;
    let admin = platform.register().await;
    let config = json!({
        "schema_version": 1, "timezone": "Asia/Shanghai", "trigger": { "type": "cron", "cron": "0 * * * *", "catch_up": "run_once" },
        "audience": { "kind": "friend", "consent": { "required": false } },
        "send_window": { "days": "any", "ranges": [{ "from": "09:00", "to": "20:00" }] },
        "caps": { "per_contact_per_day": 1, "per_account_per_day": 100, "max_unanswered": 2 },
        "stop": [], "entry": "over", "steps": [{ "id": "over", "type": "end", "outcome": "已完成" }],
    });
    // An hour of campaign in two seconds, and twenty plans that fire every hour.
    let organization = admin.organization;
    let statements = format!(
        "DO $$ BEGIN EXECUTE format('CREATE OR REPLACE FUNCTION campaign_now() RETURNS timestamptz LANGUAGE sql VOLATILE
             AS $now$SELECT %L::timestamptz + (clock_timestamp() - %L::timestamptz) * 1800$now$',
             '2026-12-01T09:59:00+08:00', clock_timestamp()); END $$;
         WITH made AS (
             INSERT INTO sop_tasks (id, organization_id, user_id, name, target_type, target_ids, workflow_config, status, version,
                 next_trigger_at)
             SELECT gen_random_uuid(), '{organization}', '{organization}', '测试计划', 'tag', ARRAY['老客户'], '{config}', 'RUNNING', 1,
                 '2026-12-01T10:00:00+08:00' FROM generate_series(1, 20) RETURNING id
         )
         INSERT INTO sop_versions (sop_id, version, organization_id, config, sha256, state, created_by)
         SELECT id, 1, '{organization}', '{config}', sha256('x'), 'approved', '{organization}' FROM made"
    );
    platform.db.conn().await.expect("a connection").batch_execute(&statements).await.expect("plans");
    // One is killed each second.
    for second in 0..6 {
        tokio::time::sleep(secs(1)).await;
        platform.replace_scheduler(second % 3);
    }
    eventually("every plan has fired four times", secs(60), async || {
        let fewest =
            "SELECT min(n) AS n FROM (SELECT (SELECT count(*) FROM sop_runs r WHERE r.sop_id = t.id) AS n
            FROM sop_tasks t) AS counted";
        let fewest = platform.number(fewest).await;
        if fewest >= 4 { Ok(()) } else { Err(format!("the slowest has fired {fewest} times")) }
    })
    .await;
    // In one statement, since they go on firing: each time is one run, and one job.
    let apart = "SELECT (SELECT count(*) FROM sop_runs) - (SELECT count(DISTINCT (sop_id, fire_at)) FROM sop_runs) AS n";
    assert_eq!(platform.number(apart).await, 0);
    let alone = "SELECT (SELECT count(*) FROM sop_runs) - (SELECT count(*) FROM jobs WHERE kind = 'sop_enroll')
        + abs((SELECT count(*) FROM sop_runs) - (SELECT count(*) FROM idempotency_keys WHERE key LIKE 'sop:%')) AS n";
    assert_eq!(platform.number(alone).await, 0);
    let crooked =
        "SELECT count(*) AS n FROM sop_runs WHERE fire_at <> date_trunc('hour', fire_at) OR source <> 'cron'";
    assert_eq!(platform.number(crooked).await, 0);
}

//! Accounts at risk are held, everything of theirs waits, and what waits together leaves one after the other.

use entropy_jobs::incoming::{AccountEvent, Message, What};
use entropy_jobs::job::Job;
use entropy_jobs::kinds::check_risk::CheckRisk;
use entropy_schema::{lanes, risk, sends};
use serde_json::json;
use uuid::Uuid;

use super::Scene;
use super::scene::{end, send};

impl Scene {
    /// The account's state, and the signal of its latest hold.
    async fn risk(&self) -> String {
        let state =
            "SELECT concat_ws(' ', status, risk_signal) AS word FROM wechat_accounts ORDER BY id LIMIT 1";
        self.lines(state).await.remove(0)
    }

    /// Alerts of holds.
    async fn alarms(&self) -> i64 {
        self.book.number("SELECT count(*) AS n FROM alerts WHERE kind = 'account_risk_hold'").await
    }

    /// A manager has looked at the phone.
    async fn lifts(&self) {
        let (account, organization) = (self.account, self.book.organization);
        self.book.run(&format!("UPDATE wechat_accounts SET status = 'ONLINE' WHERE id = '{account}'")).await;
        let mut conn = self.book.conn().await;
        risk::lift(&mut conn, organization, account).await.expect("lifted");
        assert!(lanes::resume(&mut conn, organization, account).await.expect("resumed"));
    }

    async fn friends(&self, count: usize) -> Vec<Uuid> {
        let mut friends = Vec::new();
        for n in 0..count {
            friends.push(self.friend(&format!("wxid_{n:02}")).await);
        }
        friends
    }
}

#[tokio::test]
async fn three_refusals_in_a_row_hold_the_account_and_who_waited_goes_on_with_half_of_the_caps_afterwards() {
    let scene = Scene::set().await;
    let plan = scene
        .plan_with(json!({
            "caps": { "per_contact_per_day": 5, "per_contact_per_week": 10, "per_account_per_day": 6, "max_unanswered": 5 },
            "steps": [send("first", "您好", json!("over")), end("over", "已完成")],
        }))
        .await;
    let friends = scene.friends(8).await;
    scene.enroll(plan, &friends).await;
    scene.refuses(true);
    scene.settles().await;
    assert_eq!(scene.risk().await, "RISK_HOLD failures_in_a_row");
    assert_eq!(scene.alarms().await, 1);
    let audit = "SELECT count(*) AS n FROM audit_log WHERE action = 'account.risk_hold' AND user_id IS NULL
        AND after ->> 'risk_signal' = 'failures_in_a_row'";
    assert_eq!(scene.book.number(audit).await, 1);
    let count = async |line: &str| scene.standing().await.iter().filter(|found| found.contains(line)).count();
    assert_eq!(count("completed").await, 3, "{:?}", scene.standing().await);
    assert_eq!(count("waiting first 11-23 11:00 account_risk").await, 3, "{:?}", scene.standing().await);
    assert_eq!(count("11-24 09:00 per_account_per_day").await, 2, "{:?}", scene.standing().await);
    scene.refuses(false);
    scene.clock("2026-11-23T11:30:00+08:00").await;
    scene.settles().await;
    assert_eq!(count("account_risk").await, 3, "it does not go on by itself: {:?}", scene.standing().await);
    assert!(scene.said().is_empty());

    scene.clock("2026-11-23T14:00:00+08:00").await;
    scene.lifts().await;
    scene.settles().await;
    // What was left over in the lane has ended at its gate; its key is free now.
    scene.clock("2026-11-23T14:00:05+08:00").await;
    scene.settles().await;
    assert_eq!(scene.said().len(), 3, "half of six: {:?}", scene.standing().await);
    assert_eq!(scene.risk().await, "ONLINE failures_in_a_row", "what was before is not held against it");
    let halved = "SELECT count(*) AS n FROM wechat_accounts WHERE risk_lifted_at = '2026-11-23 14:00+08'";
    assert_eq!(scene.book.number(halved).await, 1);
    scene.clock("2026-11-24T09:00:00+08:00").await;
    scene.settles().await;
    assert_eq!(count("completed").await, 8, "{:?}", scene.standing().await);
    scene.book.assert_sound().await;
}

#[tokio::test]
async fn a_complaint_holds_the_account_and_silences_the_ai() {
    let scene = Scene::set().await;
    let (account, organization) = (scene.account, scene.book.organization);
    scene
        .book
        .run(&format!(
            "INSERT INTO account_ai (account_id, organization_id, enabled) VALUES ('{account}', '{organization}', true);
             INSERT INTO organization_settings (organization_id, complaint_words) VALUES ('{organization}', ARRAY['骗子'])"
        ))
        .await;
    let turns = "SELECT count(*) AS n FROM turns";
    scene.writes("wxid_a", "这个多少钱？").await;
    assert_eq!((scene.risk().await.as_str(), scene.book.number(turns).await), ("ONLINE", 1));
    scene.writes("wxid_b", "再发我就投 诉你们").await;
    assert_eq!(scene.risk().await, "RISK_HOLD complaint");
    scene.writes("wxid_c", "在吗？").await;
    scene.writes("wxid_b", "举报了").await;
    assert_eq!(scene.book.number(turns).await, 1, "people answer by hand");
    assert_eq!(scene.alarms().await, 1, "one alarm for one hold");
    assert_eq!(scene.book.number("SELECT count(*) AS n FROM messages WHERE direction = 'in'").await, 4);
    scene.lifts().await;
    scene.writes("wxid_d", "骗子！").await;
    assert_eq!(
        (scene.risk().await.as_str(), scene.alarms().await),
        ("RISK_HOLD complaint", 2),
        "in our own words"
    );
}

#[tokio::test]
async fn people_who_leave_hold_the_account_but_not_one_alone() {
    let scene = Scene::set().await;
    let plan = scene.plan(json!([send("first", "您好", json!("over")), end("over", "已完成")])).await;
    let friends = scene.friends(20).await;
    scene.enroll(plan, &friends).await;
    scene.settles().await;
    assert_eq!(scene.said().len(), 20);
    scene.happens(What::ContactRemoved { wxid: "wxid_03".into() }).await;
    // A stranger to whom nothing was sent is no sign.
    scene.friend("wxid_x").await;
    scene.happens(What::ContactRemoved { wxid: "wxid_x".into() }).await;
    assert_eq!(scene.risk().await, "ONLINE");
    scene.writes("wxid_04", "退订").await;
    assert_eq!(scene.risk().await, "RISK_HOLD recipients_leave");
    scene.lifts().await;
    scene.happens(What::ContactRemoved { wxid: "wxid_05".into() }).await;
    assert_eq!(scene.risk().await, "ONLINE recipients_leave", "those before the hold do not count again");
}

#[tokio::test]
async fn a_forced_logout_and_a_question_who_is_there_hold_the_account_and_a_lost_connection_does_not() {
    let scene = Scene::set().await;
    scene.happens(What::Account(AccountEvent::Offline)).await;
    assert_eq!(scene.risk().await, "OFFLINE");
    scene.happens(What::Account(AccountEvent::Online)).await;
    scene.happens(What::Account(AccountEvent::Verification)).await;
    assert_eq!(scene.risk().await, "RISK_HOLD login_verification");
    scene.lifts().await;
    scene.happens(What::Account(AccountEvent::LoggedOut)).await;
    assert_eq!(scene.risk().await, "RISK_HOLD forced_logout");
    let logged_out = "SELECT count(*) AS n FROM wechat_accounts WHERE offline_since IS NOT NULL";
    assert_eq!(scene.book.number(logged_out).await, 1);
    scene.happens(What::Account(AccountEvent::Online)).await;
    assert_eq!(scene.risk().await, "RISK_HOLD forced_logout", "only a person lifts it");
    assert_eq!(scene.book.number(logged_out).await, 0);
    assert_eq!(scene.alarms().await, 2);
}

#[tokio::test]
async fn an_account_that_was_logged_out_for_more_than_a_day_is_new_again() {
    let scene = Scene::set().await;
    let report = async |status: &'static str| {
        let mut conn = scene.book.conn().await;
        sends::report_account(&mut conn, scene.book.organization, scene.account, status).await.expect("noted")
    };
    let since = async || {
        let since =
            "SELECT COALESCE(to_char(warm_since AT TIME ZONE 'Asia/Shanghai', 'MM-DD HH24:MI'), '-') AS word
            FROM wechat_accounts";
        scene.lines(since).await.remove(0)
    };
    assert_eq!(since().await, "01-01 08:00");
    assert!(report("OFFLINE").await && !report("OFFLINE").await);
    scene.clock("2026-11-24T09:59:00+08:00").await;
    assert!(report("ONLINE").await && !report("ONLINE").await);
    assert_eq!(since().await, "01-01 08:00", "not a whole day");
    report("OFFLINE").await;
    scene.clock("2026-11-25T10:00:00+08:00").await;
    report("ONLINE").await;
    assert_eq!(since().await, "11-25 10:00");
    // One of which nobody has written when it logged in is seen at the next look.
    scene.book.run("UPDATE wechat_accounts SET warm_since = NULL").await;
    assert!(!report("ONLINE").await);
    assert_eq!(since().await, "11-25 10:00");
}

#[tokio::test]
async fn echoes_that_stop_hold_the_account() {
    let scene = Scene::set().await;
    let other = scene.another_account().await;
    for (account, echoes) in [(scene.account, 6), (other, 0)] {
        let organization = scene.book.organization;
        scene
            .book
            .run(&format!(
                "UPDATE wechat_accounts SET echoes = {echoes},
                     echoed_at = CASE WHEN {echoes} > 0 THEN now() - interval '1 hour' END WHERE id = '{account}';
                 INSERT INTO sends (id, organization_id, account_id, token_key, job_id, attempt, to_wxid, message_kind, state,
                     started_at, finished_at, window_at)
                 SELECT gen_random_uuid(), '{organization}', '{account}', 'install', gen_random_uuid(), 1, 'wxid_a', 'text', 'sent',
                     at, at, at FROM (SELECT now() - n * interval '1 minute' AS at FROM generate_series(6, 24) AS n) t"
            ))
            .await;
    }
    let looks = async || {
        let context = scene.context(Uuid::now_v7(), 1, Uuid::now_v7());
        CheckRisk {}.run(&context).await.expect("looked at").result.expect("a result")["held"].clone()
    };
    assert_eq!(looks().await, 0, "nineteen are not enough");
    scene
        .book
        .run(
            "INSERT INTO sends (id, organization_id, account_id, token_key, job_id, attempt, to_wxid, message_kind, state,
                 started_at, finished_at, window_at)
             SELECT gen_random_uuid(), organization_id, account_id, 'install', gen_random_uuid(), 1, 'wxid_b', 'text', 'sent', at, at, at
             FROM (SELECT DISTINCT organization_id, account_id, now() - interval '30 minutes' AS at FROM sends) t",
        )
        .await;
    assert_eq!((looks().await, looks().await), (json!(1), json!(0)));
    assert_eq!(scene.risk().await, "RISK_HOLD echoes_gone");
    assert_eq!(scene.alarms().await, 1, "who never had echoes misses none");
}

#[tokio::test]
async fn an_echo_of_our_own_is_noted() {
    let scene = Scene::set().await;
    let plan = scene.plan(json!([send("first", "您好", json!(null))])).await;
    let friends = scene.friends(1).await;
    scene.enroll(plan, &friends).await;
    scene.settles().await;
    let new_msg_id = scene.lines("SELECT new_msg_id AS word FROM sends").await.remove(0);
    let echo = Message {
        peer_wxid: "wxid_00".into(),
        sender_wxid: format!("own-{}", scene.account),
        from_me: true,
        kind: "text",
        text: "您好".into(),
        content: None,
        mentions_me: false,
        mentions_all: false,
        sender_name: None,
        new_msg_id,
        msg_id: None,
        sent_at: chrono::Utc::now(),
        media: None,
    };
    for _ in 0..2 {
        scene.happens(What::Message(echo.clone())).await;
    }
    let noted = "SELECT count(*) AS n FROM wechat_accounts WHERE echoes = 1 AND echoed_at IS NOT NULL";
    assert_eq!(scene.book.number(noted).await, 1);
}

#[tokio::test]
async fn many_who_are_due_at_once_leave_one_after_the_other_and_not_all_stand_in_the_lane() {
    let scene = Scene::set().await;
    scene.book.run("UPDATE wechat_accounts SET messages_per_minute = 10, min_gap_ms = 5000").await;
    let plan = scene.plan(json!([send("first", "您好", json!("over")), end("over", "已完成")])).await;
    let friends = scene.friends(30).await;
    scene.enroll(plan, &friends).await;
    let jobs = scene.hand_out().await;
    assert_eq!(jobs.len(), 30);
    for job in jobs {
        scene.run(job).await;
    }
    let places =
        "SELECT concat_ws(' ', wait_code, to_char(due_at AT TIME ZONE 'Asia/Shanghai', 'HH24:MI:SS')) AS word
        FROM sop_enrollments ORDER BY wait_code, due_at";
    let found = scene.lines(places).await;
    assert!(found[..11].iter().all(|line| line.starts_with("sending")), "a minute in the lane: {found:?}");
    assert_eq!((found[11].as_str(), found[29].as_str()), ("spread 10:01:06", "spread 10:02:54"), "{found:?}");
    let waiting = "SELECT count(*) AS n FROM pending WHERE lane_id IS NOT NULL";
    assert_eq!(scene.book.number(waiting).await, 11);

    // Who is paused has no place any more; then nothing of it counts against the account.
    scene.book.run("UPDATE wechat_accounts SET messages_per_minute = 600, min_gap_ms = 0").await;
    scene.book.run("UPDATE sop_tasks SET status = 'PAUSED'").await;
    scene.clock("2026-11-23T10:03:00+08:00").await;
    scene.settles().await;
    let rows = "SELECT DISTINCT concat_ws(' ', state, reason) AS word FROM sop_steps";
    assert_eq!(scene.lines(rows).await, ["deferred sop_paused"]);

    // It goes on, and the account may say more in a minute: all of them leave.
    scene.book.run("UPDATE sop_tasks SET status = 'RUNNING'").await;
    scene.book.run("UPDATE sop_enrollments SET due_at = campaign_now()").await;
    scene.settles().await;
    assert_eq!(scene.said().len(), 30, "{:?}", scene.standing().await);
    scene.book.assert_sound().await;
}

//! Lists of jobs and sends: filters, and pages that do not shift.

use std::collections::HashSet;

use serde_json::json;
use uuid::Uuid;

use super::{id, ids, items, pause, unique};
use crate::harness::Here;
use crate::harness::client::send;

#[tokio::test]
async fn jobs_are_found_by_each_filter() {
    let here = Here::open().await;
    let admin = here.register().await;
    let (busy, paused) = (admin.account(600, 0).await, admin.account(600, 0).await);
    pause(&admin, &paused).await;
    let completed = admin.text(&busy, "wxid_customer", "你好", "interactive").await;
    here.ended(&admin, completed).await;
    here.sandbox.fail(json!({"mode": "unknown_error", "app_id": busy.app_id})).await;
    let dead = admin.text(&busy, "wxid_customer", "你好", "interactive").await;
    here.ended(&admin, dead).await;
    let cancelled = admin.text(&paused, "wxid_customer", "你好", "interactive").await;
    admin.post(&format!("/jobs/{cancelled}/cancel"), json!({})).await.expect(200);
    let mut later = send(paused.id, "wxid_customer", "明天见", "campaign");
    later["scheduled_at"] = json!(chrono::Utc::now() + chrono::TimeDelta::days(1));
    let scheduled = id(&admin.post("/jobs/send-message", later).await.expect(202)["id"]);
    let middle = admin.job(scheduled).await["created_at"].as_str().expect("a time").replace('+', "%2B");
    let available = admin.text(&paused, "wxid_customer", "你好", "interactive").await;
    let tally = json!({"request_id": unique("r"), "account_id": busy.id, "model": "m", "input_tokens": 1, "output_tokens": 1});
    let tally = id(&admin.post("/jobs/cost-tally", tally).await.expect(202)["id"]);
    here.ended(&admin, tally).await;

    let found = async |query: &str| ids(&admin.get(&format!("/jobs{query}")).await.expect(200));
    let all = [tally, available, scheduled, cancelled, dead, completed];
    assert_eq!(found("").await, all, "newest first");
    let cases = [
        ("?state=completed".to_owned(), vec![tally, completed]),
        ("?state=dead".into(), vec![dead]),
        ("?state=cancelled".into(), vec![cancelled]),
        ("?state=scheduled".into(), vec![scheduled]),
        ("?state=available".into(), vec![available]),
        ("?state=running".into(), vec![]),
        ("?state=retryable".into(), vec![]),
        ("?kind=cost_tally".into(), vec![tally]),
        ("?kind=send_message&state=completed".into(), vec![completed]),
        ("?kind=unheard_of".into(), vec![]),
        (format!("?account_id={}", busy.id), vec![tally, dead, completed]),
        (format!("?lane=account:{}", busy.id), vec![dead, completed]),
        (format!("?lane={}&state=dead", busy.id), vec![dead]),
        (format!("?lane={}", Uuid::now_v7()), vec![]),
        (format!("?created_from={middle}"), vec![tally, available, scheduled]),
        (format!("?created_to={middle}"), vec![cancelled, dead, completed]),
        (
            format!("?created_to={middle}&state=completed&kind=send_message&account_id={}", busy.id),
            vec![completed],
        ),
        ("?created_from=0001-01-01T00:00:00Z&created_to=9999-01-01T00:00:00Z".into(), all.to_vec()),
        ("?created_from=9999-01-01T00:00:00Z".into(), vec![]),
    ];
    for (query, expected) in cases {
        assert_eq!(found(&query).await, expected, "{query}");
        // The same, page by page.
        let by_one = admin.all_by(&format!("/jobs{query}"), 1).await;
        assert_eq!(
            by_one.iter().map(|job| id(&job["id"])).collect::<Vec<_>>(),
            expected,
            "{query}, one by one"
        );
    }
    let listed = admin.get("/jobs").await.expect(200);
    for job in items(&listed) {
        let shown = admin.job(id(&job["id"])).await;
        for field in [
            "kind",
            "state",
            "lane",
            "priority",
            "attempt",
            "max_attempts",
            "error",
            "created_at",
            "scheduled_at",
            "finalized_at",
        ] {
            assert_eq!(job[field], shown[field], "{field} in the list and alone");
        }
    }
}

#[tokio::test]
async fn a_walk_over_250_jobs_has_no_gaps_and_no_repeats_while_new_ones_arrive() {
    let here = Here::open().await;
    let admin = here.register().await;
    let account = admin.account(600, 0).await;
    pause(&admin, &account).await;
    let item = |n: usize| json!({"kind": "send_message", "args": send(account.id, "wxid_customer", &format!("{n}"), "campaign")});
    let batch = json!({"jobs": (0..250).map(item).collect::<Vec<_>>()});
    let made = admin.post("/jobs/batch", batch).await.expect(202);
    let mut made: Vec<Uuid> = items(&made).iter().map(|item| id(&item["id"])).collect();
    made.reverse();
    let (mut walked, mut cursor, mut newer) = (Vec::new(), String::new(), 0);
    loop {
        let page = admin.get(&format!("/jobs?limit=40{cursor}")).await.expect(200);
        assert!(items(&page).len() <= 40);
        walked.extend(ids(&page));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
        // Somebody goes on working meanwhile.
        let new = admin.text(&account, "wxid_customer", "新的", "interactive").await;
        admin.post(&format!("/jobs/{new}/cancel"), json!({})).await.expect(200);
        admin.post(&format!("/jobs/{}/cancel", made[newer]), json!({})).await.expect(200);
        newer += 1;
    }
    assert_eq!(walked.len(), walked.iter().collect::<HashSet<_>>().len(), "nothing is repeated");
    assert_eq!(walked, made, "nothing is missing");
    assert_eq!(newer, 6);
    assert_eq!(admin.all("/jobs").await.len(), 256);
    admin.post("/jobs/bulk/cancel", json!({"filter": {}})).await.expect(200);
}

#[tokio::test]
async fn sends_are_found_by_each_filter_and_the_open_ones_come_first_on_every_page() {
    let here = Here::open().await;
    let admin = here.register().await;
    let (one, other) = (admin.account(600, 0).await, admin.account(600, 0).await);
    let mut jobs = Vec::new();
    for (n, mode) in ["not_json", "", "unknown_error", "not_json", ""].iter().enumerate() {
        if !mode.is_empty() {
            here.sandbox.fail(json!({"mode": mode, "app_id": one.app_id})).await;
        }
        let job = admin.text(&one, &format!("wxid_{n}"), "你好", "interactive").await;
        here.ended(&admin, job).await;
        jobs.push(job);
    }
    let last = admin.text(&other, "wxid_0", "你好", "interactive").await;
    here.ended(&admin, last).await;
    jobs.push(last);
    let found = async |query: &str| {
        let sends = admin.all_by(&format!("/sends{query}"), 2).await;
        sends
            .iter()
            .map(|send| jobs.iter().position(|job| *job == id(&send["job_id"])).expect("ours"))
            .collect::<Vec<_>>()
    };
    assert_eq!(found("").await, [3, 0, 5, 4, 2, 1], "what waits for a decision, then the rest; newest first");
    assert_eq!(found("?state=unknown").await, [3, 0]);
    assert_eq!(found("?state=sent").await, [5, 4, 1]);
    assert_eq!(found("?state=failed").await, [2]);
    assert_eq!(found("?to_wxid=wxid_0").await, [0, 5]);
    assert_eq!(found(&format!("?account_id={}", other.id)).await, [5]);
    assert_eq!(found(&format!("?job_id={}", jobs[2])).await, [2]);
    let sends = admin.get("/sends").await.expect(200);
    let middle = items(&sends)[3]["started_at"].as_str().expect("a time").replace('+', "%2B");
    assert_eq!(found(&format!("?from={middle}")).await, [5, 4]);
    assert_eq!(found(&format!("?to={middle}")).await, [3, 0, 2, 1]);
    let failed = &items(&sends)[4];
    assert_eq!(
        (&failed["state"], &failed["error_code"], &failed["needs_decision"]),
        (&json!("failed"), &json!("refused"), &json!(false))
    );
    let sent = &items(&sends)[2];
    assert_eq!((&sent["message_kind"], &sent["to_wxid"]), (&json!("text"), &json!("wxid_0")));
    for field in ["new_msg_id", "msg_id", "create_time"] {
        assert!(sent[field].is_string(), "{field} is a string: {sent}");
    }
}

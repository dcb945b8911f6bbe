//! Alerts: raised once, seen by somebody, kept for half a year.

use entropy_schema::alerts::{NewAlert, Severity, raise};
use entropy_schema::retention::prune_alerts;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{assert_problem, id, ids, items, person};
use crate::harness::client::Client;
use crate::harness::{Book, Here};

/// Raises an alert as the platform does. Returns whether it was new.
async fn alert(here: &Here, client: &Client, kind: &str, key: &str, account: Option<Uuid>) -> bool {
    let mut conn = here.conn().await;
    let alert = NewAlert {
        organization_id: client.organization,
        kind,
        severity: Severity::Warning,
        dedupe_key: key,
        text: "账号已掉线，请重新登录。",
        account_id: account,
        conversation_id: None,
        details: Some(json!({"n": 1})),
    };
    raise(&mut conn, &alert).await.expect("raised")
}

#[tokio::test]
async fn an_alert_is_shown_until_somebody_has_seen_it() {
    let here = Here::open().await;
    let admin = here.register().await;
    let agent = person(&admin, "agent").await;
    let account = Uuid::now_v7();
    assert!(alert(&here, &admin, "account_offline", "a", Some(account)).await);
    assert!(!alert(&here, &admin, "account_offline", "a", Some(account)).await, "the same matter");
    assert!(alert(&here, &admin, "budget_reached", "b", None).await);
    assert!(alert(&here, &admin, "budget_reached", "c", None).await);
    let all = admin.get("/alerts").await.expect(200);
    let [third, second, first] = ids(&all)[..] else { panic!("three: {all}") };
    let oldest = &items(&all)[2];
    assert_eq!((&oldest["kind"], &oldest["severity"]), (&json!("account_offline"), &json!("warning")));
    assert_eq!((&oldest["account_id"], &oldest["details"]["n"]), (&json!(account), &json!(1)));
    for (query, found) in [
        ("kind=budget_reached".to_owned(), vec![third, second]),
        (format!("account_id={account}"), vec![first]),
        ("acknowledged=true".to_owned(), vec![]),
        ("acknowledged=false&limit=1".to_owned(), vec![third]),
    ] {
        assert_eq!(ids(&admin.get(&format!("/alerts?{query}")).await.expect(200)), found, "{query}");
    }

    let path = format!("/alerts/{first}/acknowledge");
    let seen = agent.post(&path, Value::Null).await.expect(200);
    assert_eq!(seen["acknowledged_by"], json!(agent.user));
    assert_eq!(admin.post(&path, Value::Null).await.expect(200), seen, "who was first stays named");
    assert_eq!(ids(&admin.get("/alerts?acknowledged=true").await.expect(200)), [first]);

    let stranger = here.register().await;
    assert_problem(stranger.post(&path, Value::Null).await, 404, "alert_not_found", "");
    assert_eq!(stranger.get("/alerts").await.expect(200)["items"], json!([]));
    let all = "/alerts/acknowledge-all";
    assert_eq!(stranger.post(all, json!({})).await.expect(200)["acknowledged"], 0);
    assert_eq!(admin.post(all, json!({"kind": "account_offline"})).await.expect(200)["acknowledged"], 0);
    let rest = admin.send(admin.request(reqwest::Method::POST, all)).await.expect(200);
    assert_eq!((&rest["acknowledged"], &rest["remaining"]), (&json!(2), &json!(false)));
    assert_eq!(admin.get("/alerts?acknowledged=false").await.expect(200)["items"], json!([]));
    assert_problem(admin.post(all, json!({"id": id(&seen["id"])})).await, 400, "invalid_request", "id");
    let log = admin.get("/audit-log").await.expect(200);
    let actions: Vec<_> = items(&log).iter().filter(|line| line["target_kind"] == "alert").collect();
    assert_eq!(actions.len(), 1, "once more is not one more");
}

#[tokio::test]
async fn alerts_are_kept_for_their_days() {
    let book = Book::open().await;
    for days in [1, 179, 181, 400] {
        book.run(&format!(
            "INSERT INTO alerts (id, organization_id, kind, severity, dedupe_key, text, created_at) \
             SELECT rpad(lpad(to_hex((EXTRACT(EPOCH FROM at) * 1000)::bigint), 12, '0'), 32, md5(random()::text))::uuid, \
                 '{}', 'k', 'info', '{days}', 't', at \
             FROM (SELECT now() - interval '{days} days' AS at) AS made",
            book.organization
        ))
        .await;
    }
    let mut conn = book.conn().await;
    assert_eq!(prune_alerts(&mut conn, 180, 1).await.expect("pruned"), 1, "no more than a slice");
    assert_eq!(prune_alerts(&mut conn, 180, 100).await.expect("pruned"), 1);
    assert_eq!(book.number("SELECT count(*) AS n FROM alerts").await, 2);
}

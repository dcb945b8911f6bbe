//! WeChat accounts: their life, their limits, pause and resume.

use serde_json::{Value, json};

use super::{assert_problem, id, ids, items, pause, person, resume, unique};
use crate::harness::Here;
use crate::harness::client::{Account, Client, send};

/// Adds an account with the default limits.
async fn plain_account(client: &Client) -> (Account, Value) {
    let app_id = unique("wx_");
    let body = json!({"wxid": unique("wxid_"), "nickname": "小李", "gewe_app_id": app_id});
    let shown = client.post("/wechat-accounts", body).await.expect(201);
    (Account { id: id(&shown["id"]), app_id }, shown)
}

#[tokio::test]
async fn an_account_is_added_read_changed_and_removed() {
    let here = Here::open().await;
    let admin = here.register().await;
    let (wxid, app_id) = (unique("wxid_"), unique("wx_"));
    let body = json!({"wxid": wxid, "nickname": "小李", "avatar": "https://cdn.example.com/a.png", "gewe_app_id": app_id});
    let added = admin.post("/wechat-accounts", body).await.expect(201);
    let path = format!("/wechat-accounts/{}", id(&added["id"]));
    assert_eq!((&added["wxid"], &added["gewe_app_id"]), (&json!(wxid), &json!(app_id)));
    assert_eq!((&added["status"], &added["paused"]), (&json!("ONLINE"), &json!(false)));
    assert_eq!((&added["user_id"], &added["has_own_token"]), (&json!(admin.user), &json!(false)));
    assert_eq!(added["sent"], json!({"last_minute": 0, "last_day": 0}));
    assert_eq!(admin.get(&path).await.expect(200), added);

    let changed = admin.patch(&path, json!({"nickname": "小王", "avatar": null})).await.expect(200);
    assert_eq!((&changed["nickname"], &changed["avatar"]), (&json!("小王"), &Value::Null));
    assert_eq!(changed["wxid"], json!(wxid), "what is left out stays");
    let changed = admin.put(&path, json!({"nickname": "小张"})).await.expect(200);
    assert_eq!((&changed["nickname"], &changed["wxid"]), (&json!("小张"), &json!(wxid)));

    let second = admin.post("/wechat-accounts", json!({})).await.expect(201);
    assert_eq!((&second["status"], &second["wxid"]), (&json!("NEW"), &Value::Null));
    let list = admin.get("/wechat-accounts").await.expect(200);
    assert_eq!(ids(&list), [id(&second["id"]), id(&added["id"])], "newest first");
    let logged_in = json!({"wxid": unique("wxid_"), "gewe_app_id": unique("wx_")});
    let logged_in =
        admin.patch(&format!("/wechat-accounts/{}", id(&second["id"])), logged_in).await.expect(200);
    assert_eq!(logged_in["status"], "ONLINE", "it has all that it takes to send");

    assert_eq!(admin.delete(&path).await.status, 204);
    assert_problem(admin.get(&path).await, 404, "account_not_found", "");
    assert_problem(admin.delete(&path).await, 404, "account_not_found", "");
    assert_eq!(ids(&admin.get("/wechat-accounts").await.expect(200)), [id(&second["id"])]);
    // Its names are free again.
    admin.post("/wechat-accounts", json!({"wxid": wxid, "gewe_app_id": app_id})).await.expect(201);
}

#[tokio::test]
async fn limits_have_careful_defaults_and_only_an_admin_raises_them_up_to_the_ceiling() {
    let here = Here::open().await;
    let admin = here.register().await;
    let agent = person(&admin, "agent").await;
    let (account, shown) = plain_account(&agent).await;
    let defaults = json!({
        "messages_per_minute": 10, "min_gap_ms": 1000, "messages_per_day": 500, "recipients_per_minute": 15,
        "api_calls_per_hour": 100_000,
    });
    assert_eq!(shown["limits"], defaults);
    let path = format!("/wechat-accounts/{}", account.id);
    let with = |name: &str, value: i64| json!({"limits": {name: value}});

    for (name, value) in [
        ("messages_per_minute", 11),
        ("min_gap_ms", 999),
        ("messages_per_day", 501),
        ("recipients_per_minute", 16),
    ] {
        assert_problem(agent.patch(&path, with(name, value)).await, 403, "limits_need_admin", "");
    }
    let fast =
        json!({"wxid": unique("wxid_"), "gewe_app_id": unique("wx_"), "limits": {"messages_per_minute": 11}});
    assert_problem(agent.post("/wechat-accounts", fast).await, 403, "limits_need_admin", "");
    assert_eq!(agent.get(&path).await.expect(200)["limits"], defaults, "nothing has changed");
    let lowered = agent.patch(&path, with("messages_per_minute", 5)).await.expect(200);
    assert_eq!(lowered["limits"]["messages_per_minute"], 5);

    let raised = admin.patch(&path, with("messages_per_minute", 600)).await.expect(200);
    assert_eq!(raised["limits"]["messages_per_minute"], 600);
    for (name, value) in [
        ("messages_per_minute", 601),
        ("messages_per_minute", 0),
        ("min_gap_ms", -1),
        ("messages_per_day", 100_001),
        ("recipients_per_minute", 0),
        ("api_calls_per_hour", 100_001),
    ] {
        let reply = admin.patch(&path, with(name, value)).await;
        assert_problem(reply, 422, "validation_failed", &format!("limits.{name}"));
    }
    let reply = admin.patch(&path, with("messages_per_minute", 601)).await;
    assert!(reply.text.contains("600"), "the ceiling is named: {}", reply.text);
    assert_eq!(admin.get(&path).await.expect(200)["limits"], raised["limits"]);
}

#[tokio::test]
async fn a_wxid_and_a_device_belong_to_one_account() {
    let here = Here::open().await;
    let (one, other) = (here.register().await, here.register().await);
    let (wxid, app_id) = (unique("wxid_"), unique("wx_"));
    one.post("/wechat-accounts", json!({"wxid": wxid, "gewe_app_id": app_id})).await.expect(201);
    for client in [&one, &other] {
        let same = json!({"wxid": wxid, "gewe_app_id": unique("wx_")});
        assert_problem(client.post("/wechat-accounts", same).await, 409, "wxid_taken", "");
    }
    let same = json!({"wxid": unique("wxid_"), "gewe_app_id": app_id});
    assert_problem(one.post("/wechat-accounts", same).await, 409, "app_id_taken", "");
    let (account, _) = plain_account(&one).await;
    let reply = one.patch(&format!("/wechat-accounts/{}", account.id), json!({"wxid": wxid})).await;
    assert_problem(reply, 409, "wxid_taken", "");
}

#[tokio::test]
async fn an_accounts_own_token_is_sealed_never_shown_and_used() {
    let here = Here::open().await;
    let admin = here.register().await;
    let (token, app_id) = (unique("own-gewe-token-"), unique("wx_"));
    let body = json!({"wxid": unique("wxid_"), "gewe_app_id": app_id, "gewe_token_id": token});
    let added = admin.post("/wechat-accounts", body).await;
    assert!(!added.text.contains(&token), "{}", added.text);
    let added = added.expect(201);
    assert_eq!(added["has_own_token"], true);
    let account = Account { id: id(&added["id"]), app_id };
    let path = format!("/wechat-accounts/{}", account.id);
    let job = admin.text(&account, "wxid_customer", "你好", "interactive").await;
    assert_eq!(here.ended(&admin, job).await["state"], "completed");
    for path in [path.as_str(), "/wechat-accounts", "/audit-log", "/jobs", "/sends", &format!("/jobs/{job}")]
    {
        let shown = admin.get(path).await;
        assert!(!shown.text.contains(&token), "{path}: {}", shown.text);
    }
    let stored = |table: &str| {
        format!("SELECT count(*) AS n FROM {table} AS t WHERE position('{token}' IN t::text) > 0")
    };
    for table in ["wechat_accounts", "audit_log", "jobs", "sends"] {
        assert_eq!(here.number(&stored(table)).await, 0, "{table} holds a token in plain text");
    }
    assert_eq!(here.received_from(&account).await[0]["token"], json!(token), "and yet GeWe gets it");
    let cleared = admin.patch(&path, json!({"gewe_token_id": null})).await.expect(200);
    assert_eq!(cleared["has_own_token"], false);
}

#[tokio::test]
async fn a_paused_account_sends_nothing_and_a_resumed_one_goes_on() {
    let here = Here::open().await;
    let admin = here.register().await;
    let (paused, running) = (admin.account(600, 0).await, admin.account(600, 0).await);
    let path = format!("/wechat-accounts/{}/pause", paused.id);
    let shown = admin.post(&path, json!({"reason": "holidays until the 8th"})).await.expect(200);
    assert_eq!((&shown["paused"], &shown["paused_reason"]), (&json!(true), &json!("holidays until the 8th")));
    let waiting = admin.text(&paused, "wxid_customer", "等一下", "interactive").await;
    let job = here.waits(&admin, waiting, "lane_paused").await;
    let why = &job["why"];
    assert!(why["message"].as_str().is_some_and(|text| text.contains("holidays until the 8th")), "{why}");
    assert_eq!(
        (&why["next_try_at"], &why["jobs_ahead"]),
        (&Value::Null, &json!(0)),
        "only a person lets it go on"
    );
    // Work that was asked for later overtakes it, so it is not just slow.
    let other = admin.text(&running, "wxid_customer", "你好", "campaign").await;
    assert_eq!(here.ended(&admin, other).await["state"], "completed");
    assert_eq!(here.received_from(&paused).await.len(), 0);

    resume(&admin, &paused).await;
    let job = here.ended(&admin, waiting).await;
    assert_eq!((&job["state"], &job["attempt"], &job["why"]), (&json!("completed"), &json!(1), &Value::Null));
    let shown = admin.get(&format!("/wechat-accounts/{}", paused.id)).await.expect(200);
    assert_eq!((&shown["paused"], &shown["sent"]["last_minute"]), (&json!(false), &json!(1)));
}

#[tokio::test]
async fn changed_limits_hold_from_the_next_send_on() {
    let here = Here::open().await;
    let admin = here.register().await;
    let account = admin.account(1, 0).await;
    let first = admin.text(&account, "wxid_customer", "第一条", "interactive").await;
    here.ended(&admin, first).await;
    let second = admin.text(&account, "wxid_customer", "第二条", "interactive").await;
    let job = here.waits(&admin, second, "messages_per_minute").await;
    assert!(job["why"]["next_try_at"].is_string(), "{job}");
    let path = format!("/wechat-accounts/{}", account.id);
    admin.patch(&path, json!({"limits": {"messages_per_minute": 600}})).await.expect(200);
    assert_eq!(here.ended(&admin, second).await["state"], "completed");
    admin.patch(&path, json!({"limits": {"messages_per_minute": 2}})).await.expect(200);
    let third = admin.text(&account, "wxid_customer", "第三条", "interactive").await;
    here.waits(&admin, third, "messages_per_minute").await;
    assert_eq!(here.received_from(&account).await.len(), 2);
}

#[tokio::test]
async fn removing_an_account_cancels_what_waits_for_it() {
    let here = Here::open().await;
    let admin = here.register().await;
    let account = admin.account(600, 0).await;
    pause(&admin, &account).await;
    let mut waiting = Vec::new();
    for n in 0..3 {
        waiting.push(admin.text(&account, "wxid_customer", &format!("第 {n} 条"), "interactive").await);
    }
    let mut later = send(account.id, "wxid_customer", "明天见", "campaign");
    later["scheduled_at"] = json!((chrono::Utc::now() + chrono::TimeDelta::days(1)).to_rfc3339());
    waiting.push(id(&admin.post("/jobs/send-message", later).await.expect(202)["id"]));
    assert_eq!(admin.delete(&format!("/wechat-accounts/{}", account.id)).await.status, 204);
    for job in waiting {
        let job = admin.job(job).await;
        assert_eq!((&job["state"], &job["why"]), (&json!("cancelled"), &Value::Null), "{job}");
    }
    let late = admin.post("/jobs/send-message", send(account.id, "wxid_customer", "你好", "reply")).await;
    assert_problem(late, 404, "account_not_found", "");
    assert!(items(&admin.get("/lanes").await.expect(200)).is_empty(), "its lane is gone, too");
    assert_eq!(here.received_from(&account).await.len(), 0);
}

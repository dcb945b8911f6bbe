//! Contacts that are fetched from the provider, and accounts that are looked after.

use entropy_jobs::kinds::check_silence::CheckSilence;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::client::{Account, Client};
use crate::harness::{Here, eventually, secs};

fn id(value: &Value) -> Uuid {
    value.as_str().and_then(|id| id.parse().ok()).expect("an id")
}

async fn sync(here: &Here, client: &Client, account: &Account) -> Value {
    let reply = client.post(&format!("/wechat-accounts/{}/contacts/sync", account.id), Value::Null).await;
    let job = reply.expect(202);
    assert_eq!(job["lane"].as_str().map(|lane| lane.starts_with("background:")), Some(true), "{job}");
    let job = here.ended(client, id(&job["id"])).await;
    assert_eq!(job["state"], "completed", "{job}");
    client.get(&format!("/wechat-accounts/{}/contacts/sync", account.id)).await.expect(200)
}

async fn contacts(client: &Client, account: &Account) -> Vec<Value> {
    client.all(&format!("/contacts?account_id={}", account.id)).await
}

fn named<'a>(contacts: &'a [Value], wxid: &str) -> &'a Value {
    contacts
        .iter()
        .find(|contact| contact["wxid"] == wxid)
        .unwrap_or_else(|| panic!("{wxid} in {contacts:?}"))
}

#[tokio::test]
async fn friends_groups_and_labels_come_in_and_what_people_wrote_of_them_stays() {
    let here = Here::open().await;
    let admin = here.register().await;
    let account = admin.account(600, 0).await;
    let before = admin.get(&format!("/wechat-accounts/{}/contacts/sync", account.id)).await.expect(200);
    assert_eq!(before["state"], "never");
    let mut friends: Vec<Value> = (0..23)
        .map(|n| json!({"wxid": format!("wxid_f{n:02}"), "nickname": format!("好友{n}"), "labels": ["华东"]}))
        .collect();
    friends[0] =
        json!({"wxid": "wxid_f00", "nickname": "李雷", "remark": "李总", "labels": ["大客户", "华东"]});
    let groups = json!([{"wxid": "77@chatroom", "nickname": "客户群", "members": [
        {"wxid": "wxid_f00", "nickname": "李雷", "display_name": "雷"}, {"wxid": "wxid_x", "nickname": "韩梅梅"}]}]);
    let book = json!({"friends": friends, "groups": groups, "officials": ["gh_1"]});
    here.sandbox.set_book(&account.app_id, &book).await;

    let done = sync(&here, &admin, &account).await;
    assert_eq!((&done["state"], &done["total"], &done["fetched"]), (&json!("done"), &json!(26), &json!(26)));
    let found = contacts(&admin, &account).await;
    let leader = named(&found, "wxid_f00");
    assert_eq!((&leader["nickname"], &leader["remark"]), (&json!("李雷"), &json!("李总")));
    let mut labels: Vec<&str> =
        leader["labels"].as_array().expect("labels").iter().filter_map(Value::as_str).collect();
    labels.sort_unstable();
    assert_eq!(labels, ["华东", "大客户"]);
    assert_eq!(named(&found, "77@chatroom")["kind"], "group");
    assert!(found.iter().all(|contact| contact["wxid"] != "filehelper"), "WeChat's tools are nobody");
    let members = format!("SELECT count(*) AS n FROM group_members WHERE account_id = '{}'", account.id);
    assert_eq!(here.number(&members).await, 2);

    // A second time: one friend is gone, one is called otherwise, and our tags are ours.
    let path = format!("/contacts/{}", leader["id"].as_str().expect("an id"));
    admin.put(&path, json!({"tags": ["重点"]})).await.expect(200);
    friends.truncate(22);
    friends[0]["nickname"] = json!("李雷雷");
    here.sandbox.set_book(&account.app_id, &json!({"friends": friends})).await;
    sync(&here, &admin, &account).await;
    let leader = admin.get(&path).await.expect(200);
    assert_eq!((&leader["nickname"], &leader["tags"]), (&json!("李雷雷"), &json!(["重点"])));
    let gone = |wxid: &str| {
        format!(
            "SELECT count(*) AS n FROM contacts WHERE account_id = '{}' AND wxid = '{wxid}' AND removed_at IS NOT NULL",
            account.id
        )
    };
    assert_eq!(here.number(&gone("wxid_f22")).await, 1);
    assert_eq!(here.number(&gone("wxid_f21")).await, 0);
    assert_eq!(here.number(&gone("77@chatroom")).await, 0, "a group may only have left the address book");

    let lanes = admin.all("/lanes?kind=background").await;
    assert_eq!(lanes.len(), 1);
    assert_eq!((&lanes[0]["account_id"], &lanes[0]["label"]), (&json!(account.id), &json!("小李")));
}

#[tokio::test]
async fn a_sync_is_the_organisations_own_and_one_at_a_time() {
    let here = Here::open().await;
    let (admin, other) = (here.register().await, here.register().await);
    let account = admin.account(600, 0).await;
    let path = format!("/wechat-accounts/{}/contacts/sync", account.id);
    assert_eq!(other.post(&path, Value::Null).await.problem(404), "account_not_found");
    assert_eq!(other.get(&path).await.problem(404), "account_not_found");
    admin
        .post(&format!("/wechat-accounts/{}/pause", account.id), json!({"reason": "休息"}))
        .await
        .expect(200);
    let first = admin.post(&path, Value::Null).await.expect(202);
    let second = admin.post(&path, Value::Null).await.expect(200);
    assert_eq!(first["id"], second["id"]);
    here.waits(&admin, id(&first["id"]), "lane_paused").await;
    // Its lane can be paused for itself, as every other.
    let lane = admin.all("/lanes?kind=background").await[0]["id"].as_str().expect("an id").to_owned();
    let paused = admin.post(&format!("/lanes/{lane}/pause"), json!({})).await.expect(200);
    assert_eq!((&paused["paused"], &paused["kind"]), (&json!(true), &json!("background")));
    assert_eq!(other.post(&format!("/lanes/{lane}/pause"), json!({})).await.problem(404), "lane_not_found");
    let cancelled =
        admin.post(&format!("/jobs/{}/cancel", first["id"].as_str().expect("an id")), Value::Null).await;
    assert_eq!(cancelled.status, 200, "{}", cancelled.text);
}

#[tokio::test]
async fn an_account_that_says_nothing_for_too_long_raises_one_alert_per_silence() {
    let here = Here::open().await;
    let admin = here.register().await;
    let account = admin.account(600, 0).await;
    here.run(&format!(
        "INSERT INTO account_ai (account_id, organization_id, enabled, silence_minutes) \
         VALUES ('{0}', '{1}', false, 30); \
         UPDATE wechat_accounts SET last_seen_at = now() - interval '31 minutes' WHERE id = '{0}'",
        account.id, admin.organization
    ))
    .await;
    let alerts = format!(
        "SELECT count(*) AS n FROM alerts WHERE account_id = '{}' AND kind = 'account_silent'",
        account.id
    );
    for _ in 0..2 {
        let ran = here.run_now(&CheckSilence {}).await;
        eventually("every account was looked at", secs(20), async || here.is_over(ran).await).await;
        assert_eq!(here.number(&alerts).await, 1, "the same silence is the same matter");
    }
    here.run(&format!(
        "UPDATE wechat_accounts SET last_seen_at = now() - interval '40 minutes' WHERE id = '{}'",
        account.id
    ))
    .await;
    let ran = here.run_now(&CheckSilence {}).await;
    eventually("every account was looked at", secs(20), async || here.is_over(ran).await).await;
    assert_eq!(here.number(&alerts).await, 2, "another silence");
}

#[tokio::test]
async fn an_account_whose_callback_was_lost_is_found_offline_and_back_again() {
    let here = Here::open().await;
    let admin = here.register().await;
    let account = admin.account(600, 0).await;
    let alerts = format!(
        "SELECT count(*) AS n FROM alerts WHERE account_id = '{}' AND kind = 'account_offline'",
        account.id
    );
    for (state, status) in [("offline", "OFFLINE"), ("offline", "OFFLINE"), ("online", "ONLINE")] {
        here.sandbox.set_state(&account.app_id, state).await;
        let job = here.ask_whether_online(&admin, &account).await;
        assert_eq!(here.ended(&admin, job).await["state"], "completed");
        let shown = admin.get(&format!("/wechat-accounts/{}", account.id)).await.expect(200);
        assert_eq!(shown["status"], status);
    }
    assert_eq!(here.number(&alerts).await, 1, "one outage, one alert");
}

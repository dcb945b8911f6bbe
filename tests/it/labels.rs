//! Tags become labels in WeChat, one call after the other; what was made on the phone stays.

use serde_json::{Value, json};

use crate::harness::{Here, eventually, secs};

#[tokio::test]
async fn tags_become_labels_and_go_with_them_and_those_of_the_phone_stay() {
    let here = Here::open().await;
    let admin = here.register().await;
    let account = admin.account(600, 0).await;
    let book = json!({"friends": [{"wxid": "wxid_a", "nickname": "李雷", "labels": ["同学"]}],
        "labels": [{"id": 4, "name": "老客户"}]});
    here.sandbox.set_book(&account.app_id, &book).await;
    let import = json!({"account_id": account.id, "items": [{"wxid": "wxid_a"}, {"wxid": "9@chatroom"}]});
    assert_eq!(admin.post("/contacts/import", import).await.expect(200)["created"], 2);
    let contacts = admin.all(&format!("/contacts?account_id={}", account.id)).await;
    let path = |wxid: &str| {
        let contact = contacts.iter().find(|contact| contact["wxid"] == wxid).expect("a contact");
        format!("/contacts/{}", contact["id"].as_str().expect("an id"))
    };
    let labels = async |expected: &[&str]| {
        eventually(&format!("the labels are {expected:?}"), secs(20), async || {
            let book = here.sandbox.show(&format!("/_sandbox/books/{}", account.app_id)).await;
            let labels = book["friends"][0]["labels"].as_array().cloned().unwrap_or_default();
            let mut labels: Vec<&str> = labels.iter().filter_map(Value::as_str).collect();
            labels.sort_unstable();
            if labels == expected { Ok(()) } else { Err(book.to_string()) }
        })
        .await;
    };
    let friend = path("wxid_a");
    admin.put(&friend, json!({"tags": ["老客户", "高意向"]})).await.expect(200);
    labels(&["同学", "老客户", "高意向"]).await;
    admin.put(&friend, json!({"tags": ["高意向"]})).await.expect(200);
    labels(&["同学", "高意向"]).await;
    eventually("it is shown", secs(10), async || {
        let shown = admin.get(&friend).await.expect(200);
        if shown["labels"] == json!(["高意向"]) { Ok(()) } else { Err(shown.to_string()) }
    })
    .await;

    // Groups have none, and neither has an account that was told not to.
    admin.put(&path("9@chatroom"), json!({"tags": ["高意向"]})).await.expect(200);
    let account_path = format!("/wechat-accounts/{}", account.id);
    let shown = admin.patch(&account_path, json!({"label_sync": false})).await.expect(200);
    assert_eq!(shown["label_sync"], false);
    let jobs = admin.all("/jobs?kind=sync_labels").await.len();
    admin.put(&friend, json!({"tags": []})).await.expect(200);
    assert_eq!(admin.all("/jobs?kind=sync_labels").await.len(), jobs);
    labels(&["同学", "高意向"]).await;
}

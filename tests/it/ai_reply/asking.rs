//! `POST /jobs/ai-reply`, alone and in a batch, and the list of the runs.

use serde_json::json;
use uuid::Uuid;

use crate::harness::client::Reply;
use crate::harness::{Client, Here};

/// Makes a conversation of an account that answers by machine, and returns its id.
async fn conversation(here: &Here, client: &Client) -> Uuid {
    let account = client.account(600, 0).await.id;
    let [chat, contact, workflow] = std::array::from_fn(|_| Uuid::now_v7());
    // The key cannot be opened: nothing is asked, and the conversation goes to people.
    let made = format!(
        "WITH o AS (SELECT organization_id AS id FROM wechat_accounts WHERE id = '{account}'),
         w AS (INSERT INTO ai_workflows (id, organization_id, alias, api_key, key_hash)
             SELECT '{workflow}', id, '客服', 'nothing', 'hash-{workflow}' FROM o),
         k AS (INSERT INTO contacts (id, organization_id, account_id, wxid, kind)
             SELECT '{contact}', id, '{account}', 'wxid_li', 'friend' FROM o),
         l AS (INSERT INTO lanes (id, organization_id, kind) SELECT '{chat}', id, 'conversation' FROM o),
         c AS (INSERT INTO conversations (id, organization_id, account_id, contact_id, peer_wxid, kind)
             SELECT '{chat}', id, '{account}', '{contact}', 'wxid_li', 'friend' FROM o)
         SELECT count(*) AS n FROM o"
    );
    assert_eq!(here.number(&made).await, 1);
    let on = format!(
        "WITH a AS (INSERT INTO account_ai (account_id, organization_id, enabled, workflow_id)
             SELECT account_id, organization_id, true, '{workflow}' FROM conversations WHERE id = '{chat}' RETURNING 1)
         SELECT count(*) AS n FROM a"
    );
    assert_eq!(here.number(&on).await, 1);
    chat
}

fn assert_problem(reply: &Reply, status: u16, code: &str) {
    assert!(reply.status == status && reply.text.contains(code), "{} {}", reply.status, reply.text);
}

#[tokio::test]
async fn an_answer_is_asked_for_once_per_key_and_only_where_the_model_answers() {
    let here = Here::open().await;
    let client = here.register().await;
    let chat = conversation(&here, &client).await;
    let body = json!({"conversation_id": chat, "instruction": "提醒客户明天到期"});
    let first = client.post_once("/jobs/ai-reply", "k-1", body.clone()).await.expect(202);
    let job = first["id"].as_str().expect("an id").parse().expect("a UUID");
    let ended = here.ended(&client, job).await;
    assert_eq!(ended["result"]["details"]["reason"], "ai_key_unreadable", "{ended}");
    assert_eq!(ended["lane"], format!("conversation:{chat}"));
    // People answer there now.
    let again = client.post_once("/jobs/ai-reply", "k-1", body.clone()).await.expect(200);
    assert_eq!(again["id"], first["id"], "the same request is answered as before");
    assert_problem(&client.post("/jobs/ai-reply", body.clone()).await, 409, "human_answers");
    let other = json!({"conversation_id": chat});
    let reused = client.post_once("/jobs/ai-reply", "k-1", other.clone()).await;
    assert_eq!(reused.status, 409, "{}", reused.text);

    let stranger = here.register().await;
    assert_problem(&stranger.post("/jobs/ai-reply", other).await, 404, "conversation_not_found");
    let long = json!({"conversation_id": chat, "instruction": "字".repeat(2001)});
    let reply = client.post("/jobs/ai-reply", long).await;
    assert!(reply.status == 422 && reply.text.contains("instruction"), "{}", reply.text);
    assert_eq!(client.get("/ai-runs").await.expect(200)["items"], json!([]), "nothing was asked");
}

#[tokio::test]
async fn a_batch_may_ask_for_answers_and_each_is_judged_alone() {
    let here = Here::open().await;
    let client = here.register().await;
    let chat = conversation(&here, &client).await;
    let item =
        |chat: Uuid| json!({"kind": "ai_reply", "args": {"conversation_id": chat, "instruction": "问候"}});
    let body = json!({"jobs": [item(chat), item(Uuid::now_v7())]});
    let items = client.post("/jobs/batch", body).await.expect(202)["items"].clone();
    assert_eq!(items[0]["created"], true, "{items}");
    assert_eq!(items[1]["error"]["code"], "conversation_not_found");
    let job = items[0]["id"].as_str().expect("an id").parse().expect("a UUID");
    here.ended(&client, job).await;
}

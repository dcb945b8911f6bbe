//! What makes the demo's customers heard, answered and written to: callbacks, a workflow, prices, drafts of plans.
//!
//! Everything is done over HTTP, as anybody else would: the sandbox is told where callbacks go, the API
//! who answers. What a visitor has changed stays as it is: only what is missing is made.

use std::net::SocketAddr;

use anyhow::bail;
use serde_json::{Value, json};

use super::dev::call;

/// The workflow's name, and a key that the sandbox takes.
const WORKFLOW: &str = "demo";
const KEY: &str = "fastgpt-demo";

/// The GeWe token of the demo.
const TOKEN: &str = "sandbox-token";

/// Yuan per 1,000 tokens of the sandbox's models: in and out.
const PRICES: [(&str, &str, &str); 3] = [
    ("sandbox-chat", "0.002", "0.006"),
    ("sandbox-mini", "0.0005", "0.001"),
    ("sandbox-embedding", "0.0001", "0"),
];

/// Tells the sandbox who the account is and where its callbacks go.
pub(super) async fn connect(phone: SocketAddr, account: &Value, url: &str) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let app_id = account["gewe_app_id"].as_str().unwrap_or_default();
    let who = json!({ "wxid": account["wxid"], "token": TOKEN });
    let told = call(client.put(format!("http://{phone}/_sandbox/accounts/{app_id}")).json(&who)).await?;
    let book = json!({
        "profile": { "wxid": account["wxid"], "nickname": account["nickname"] },
        "friends": [
            { "wxid": "wxid_first_customer", "nickname": "李雷", "remark": "李总", "labels": ["意向客户"] },
            { "wxid": "wxid_second_customer", "nickname": "韩梅梅" }
        ],
        "groups": [{
            "wxid": "28888888888@chatroom", "nickname": "客户交流群", "owner": account["wxid"],
            "members": [{ "wxid": "wxid_first_customer", "nickname": "李雷" },
                        { "wxid": "wxid_group_member", "nickname": "群友" }]
        }]
    });
    let known = call(client.put(format!("http://{phone}/_sandbox/books/{app_id}")).json(&book)).await?;
    let body = json!({ "token": TOKEN, "callbackUrl": url });
    let request = client.post(format!("http://{phone}/gewe/v2/api/login/setCallback")).json(&body);
    let set = call(request.header("X-GEWE-TOKEN", TOKEN)).await?;
    if told.0 != 200 || known.0 != 200 || set.1["ret"] != 200 {
        bail!("the sandbox could not be connected: {} {} {}", told.0, known.0, set.1["msg"]);
    }
    Ok(())
}

/// Lets the AI answer for the account, unless a workflow of the demo's name is there already.
pub(super) async fn answer(
    api: SocketAddr,
    token: &str,
    account: &Value,
    key: Option<&str>,
) -> anyhow::Result<()> {
    let base = format!("http://{api}/api/v1");
    let client = reqwest::Client::builder().no_proxy().build()?;
    let prices = call(client.get(format!("{base}/model-prices")).bearer_auth(token)).await?.1;
    for (model, input, output) in PRICES {
        let listed =
            prices["items"].as_array().is_some_and(|all| all.iter().any(|one| one["model"] == model));
        if !listed {
            let price = json!({
                "model": model, "effective_from": "2026-01-01T00:00:00Z", "input_per_1k": input, "output_per_1k": output
            });
            let made = client.post(format!("{base}/model-prices")).bearer_auth(token).json(&price);
            expect(call(made).await?, 201, "a price")?;
        }
    }
    let workflows = call(client.get(format!("{base}/ai-workflows")).bearer_auth(token)).await?.1;
    if workflows["items"].as_array().is_some_and(|all| all.iter().any(|one| one["alias"] == WORKFLOW)) {
        return Ok(());
    }
    let mut workflow = json!({ "alias": WORKFLOW, "api_key": key.unwrap_or(KEY) });
    if key.is_none() {
        workflow["app_id"] = json!("appdemo");
    }
    let made = client.post(format!("{base}/ai-workflows")).bearer_auth(token).json(&workflow);
    expect(call(made).await?, 201, "the workflow")?;
    let ai = json!({
        "enabled": true, "workflow": WORKFLOW, "groups": "at_only",
        "debounce": { "quiet_ms": 3000, "max_ms": 15000, "max_messages": 10 }
    });
    let path = format!("{base}/wechat-accounts/{}/ai", account["id"].as_str().unwrap_or_default());
    expect(call(client.put(path).bearer_auth(token).json(&ai)).await?, 200, "who answers")
}

/// Makes a draft of every template, unless there are plans already.
pub(super) async fn plans(api: SocketAddr, token: &str) -> anyhow::Result<()> {
    let base = format!("http://{api}/api/v1");
    let client = reqwest::Client::builder().no_proxy().build()?;
    let there = call(client.get(format!("{base}/sop-tasks?limit=1")).bearer_auth(token)).await?.1;
    if there["items"].as_array().is_none_or(|items| !items.is_empty()) {
        return Ok(());
    }
    let templates = call(client.get(format!("{base}/sop/templates")).bearer_auth(token)).await?.1;
    // The list shows the newest first.
    for template in templates["items"].as_array().into_iter().flatten().rev() {
        let plan = json!({
            "name": template["name"], "description": template["description"], "target_type": template["target_type"],
            "workflow_config": template["workflow_config"]
        });
        let made = client.post(format!("{base}/sop-tasks")).bearer_auth(token).json(&plan);
        expect(call(made).await?, 201, "a plan")?;
    }
    Ok(())
}

fn expect((status, body): (u16, Value), wanted: u16, what: &str) -> anyhow::Result<()> {
    if status == wanted {
        Ok(())
    } else {
        bail!("{what} of the demo could not be set: {status} {}", body["detail"])
    }
}

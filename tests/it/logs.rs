//! What the logs say, and what they must never say.

use serde_json::{Value, json};

use crate::harness::platform::{GEWE_TOKEN, JWT_SECRET};
use crate::harness::{Platform, secs};

/// Every secret that a process of this test ever holds, but for those that the harness makes up.
const PASSWORD: &str = "密码-plantedpassword-77131";
const TEXT: &str = "plantedtext-尊敬的王女士您的订单已发货-90422";
const ACCOUNT_TOKEN: &str = "plantedgewetoken-55310";

#[tokio::test]
async fn no_log_shows_a_secret_or_what_a_message_says() {
    let platform = Platform::with().schedulers(1).start().await;
    let nobody = platform.anonymous();
    let body = json!({ "organization": "熵变", "username": "planted-admin", "password": PASSWORD });
    nobody.post("/auth/register", body).await.expect(201);
    let client = nobody.login("planted-admin", PASSWORD).await;
    let wrong = json!({ "username": "planted-admin", "password": format!("{PASSWORD}?") });
    nobody.post("/auth/login", wrong).await.problem(401);
    nobody.with_token("plantedjwt.plantedjwt.plantedjwt").get("/auth/me").await.problem(401);

    let body = json!({ "wxid": "wxid_planted", "nickname": "小王", "gewe_app_id": "wx_planted", "gewe_token_id": ACCOUNT_TOKEN });
    let account = client.post("/wechat-accounts", body).await.expect(201);
    let send = |to: &str| json!({ "account_id": account["id"], "to_wxid": to, "message": { "kind": "text", "text": TEXT }, "priority": "reply" });
    // One that goes well, two that fail in ways that tempt a program to show what it sent or got, and bad input.
    platform.sandbox.fail(json!({ "mode": "bad_gateway_html", "to_wxid": "wxid_gateway" })).await;
    platform.sandbox.fail(json!({ "mode": "unknown_error", "to_wxid": "wxid_refused" })).await;
    let mut jobs = Vec::new();
    for to in ["wxid_good", "wxid_gateway", "wxid_refused"] {
        jobs.push(client.post("/jobs/send-message", send(to)).await.expect(202)["id"].clone());
    }
    let mut unknown_field = send("wxid_good");
    unknown_field[TEXT] = json!(TEXT);
    assert!(client.post("/jobs/send-message", unknown_field).await.status < 500);
    for job in jobs {
        let id = job.as_str().and_then(|id| id.parse().ok()).expect("an id");
        platform.ended(&client, id, secs(60)).await;
    }
    assert!(platform.ledger().await.iter().any(|arrival| arrival.message.text == TEXT));

    let database_password = platform.database.url().split(['@', ':']).nth(2).expect("a password").to_owned();
    let secrets = [
        PASSWORD,
        TEXT,
        ACCOUNT_TOKEN,
        GEWE_TOKEN,
        JWT_SECRET,
        client.token(),
        "plantedjwt",
        "尊敬的王女士",
        &database_password,
    ];
    for (name, log) in platform.logs() {
        for secret in secrets {
            if let Some(line) = log.lines().find(|line| line.contains(secret)) {
                panic!("{name} shows a secret ({secret}): {line}");
            }
        }
    }
    let stored = "SELECT count(*) AS n FROM wechat_accounts WHERE gewe_token_id LIKE '%planted%'";
    assert_eq!(platform.number(stored).await, 0, "provider tokens are stored sealed");
}

#[tokio::test]
async fn one_trace_id_leads_from_the_request_to_the_phone() {
    let platform = Platform::start().await;
    let client = platform.register().await;
    let account = client.account(600, 0).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let body = crate::harness::client::send(account.id, "wxid_customer", "请看", "interactive");
    let request = client
        .request(reqwest::Method::POST, "/jobs/send-message")
        .header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"))
        .json(&body);
    let job = client.send(request).await.expect(202);
    let id = job["id"].as_str().and_then(|id| id.parse().ok()).expect("an id");
    platform.ended(&client, id, secs(20)).await;

    let arrived = platform.ledger().await;
    assert_eq!(arrived[0].trace_id.as_deref(), Some(trace));
    assert_eq!(
        platform.number(&format!("SELECT count(*) AS n FROM jobs WHERE trace_id = '{trace}'")).await,
        1
    );
    let logs = platform.logs();
    for (process, message) in
        [("api", "answered"), ("worker", "provider called"), ("worker", "attempt ended")]
    {
        let found =
            logs.iter().filter(|(name, _)| name.contains(process)).flat_map(|(_, log)| log.lines()).any(
                |line| {
                    let line: Value = serde_json::from_str(line).unwrap_or_default();
                    line["message"] == message && line.to_string().contains(trace)
                },
            );
        assert!(found, "no line \"{message}\" of the {process} has the trace id");
    }
}

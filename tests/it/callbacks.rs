//! Callbacks of the provider: each comes in once, whatever it holds, and is answered in milliseconds.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::client::{Account, Client, Reply};
use crate::harness::platform::CALLBACK_SECRET;
use crate::harness::{Here, Platform, chaos, eventually, secs};

/// The customer.
const CUSTOMER: &str = "wxid_demo0000000009";

fn own_wxid(account: &Account) -> String {
    account.app_id.replacen("wx_", "wxid_", 1)
}

/// A text from the customer in the nested format.
fn classic(account: &Account, new_msg_id: u64, text: &str) -> Value {
    json!({"TypeName": "AddMsg", "Appid": account.app_id, "Wxid": own_wxid(account), "Data": {
        "MsgId": 510_000_001, "FromUserName": {"string": CUSTOMER}, "ToUserName": {"string": own_wxid(account)},
        "MsgType": 1, "Content": {"string": text}, "ImgBuf": {"iLen": 0}, "CreateTime": 1_790_000_100,
        "PushContent": format!("李雷 : {text}"), "NewMsgId": new_msg_id}})
}

/// The same in the flat format.
fn flat(account: &Account, new_msg_id: u64, text: &str) -> Value {
    json!({"appid": account.app_id, "wxid": own_wxid(account), "msgType": "TEXT", "msgId": 510_000_001,
        "newMsgId": new_msg_id, "createTime": 1_790_000_100_000_i64, "fromUser": CUSTOMER, "toUser": own_wxid(account),
        "content": text, "pushContent": format!("李雷 : {text}"), "isSelf": false})
}

async fn call(client: &Client, body: impl Into<reqwest::Body>) -> Reply {
    call_with(client, CALLBACK_SECRET, body).await
}

async fn call_with(client: &Client, secret: &str, body: impl Into<reqwest::Body>) -> Reply {
    let request = client.bare(Method::POST, &format!("/callbacks/gewe/{secret}"));
    client.send(request.header("Content-Type", "application/json").body(body)).await
}

async fn number_of_events(here: &Here, client: &Client) -> i64 {
    let organization = client.organization;
    here.number(&format!(
        "SELECT count(*) AS n FROM callback_events WHERE organization_id = '{organization}'"
    ))
    .await
}

/// Waits until every event of the organisation was handled.
async fn all_are_handled(here: &Here, client: &Client) {
    let open = format!(
        "SELECT count(*) AS n FROM callback_events WHERE organization_id = '{}' AND outcome IS NULL",
        client.organization
    );
    eventually("every event is handled", secs(20), async || here.number(&open).await == 0).await;
}

#[tokio::test]
async fn an_event_that_comes_many_times_in_both_formats_is_stored_once_and_has_one_job() {
    let here = Here::open().await;
    let admin = here.register().await;
    let account = admin.account(600, 0).await;
    let provider = admin.anonymous_again();
    let id = 7_300_000_000_000_000_000 + fastrand::u64(..1_000_000);
    let bodies = [
        classic(&account, id, "多少钱？"),
        flat(&account, id, "多少钱？"),
        classic(&account, id, "多少钱？"),
        flat(&account, id, "多少钱？"),
        classic(&account, id, "多少钱？"),
        classic(&account, id + 1, "还在吗"),
    ];
    let replies = bodies.iter().map(|body| call(&provider, body.to_string()));
    for reply in futures::future::join_all(replies).await {
        assert_eq!((reply.status, reply.text.as_str()), (200, ""), "{reply:?}");
    }
    assert_eq!(number_of_events(&here, &admin).await, 2);
    let jobs = admin.all("/jobs?kind=handle_callback").await;
    assert_eq!(jobs.len(), 2);
    all_are_handled(&here, &admin).await;
    for job in jobs {
        let id: Uuid = job["id"].as_str().and_then(|id| id.parse().ok()).expect("an id");
        assert_eq!(here.ended(&admin, id).await["state"], "completed");
    }
    assert_eq!(call(&provider, flat(&account, id, "多少钱？").to_string()).await.status, 200);
    assert_eq!(number_of_events(&here, &admin).await, 2, "it is known for ever");
    let keys = format!("SELECT count(*) AS n FROM callback_keys WHERE account_id = '{}'", account.id);
    assert_eq!(here.number(&keys).await, 2);
}

#[tokio::test]
async fn probes_are_answered_and_strangers_are_not() {
    let here = Here::open().await;
    let admin = here.register().await;
    let account = admin.account(600, 0).await;
    let provider = admin.anonymous_again();
    for probe in [
        "",
        r#"{"testMsg":"回调地址链接成功！","token":"t"}"#,
        r#"{"msg":"设置订阅成功!!","callBackUrl":"http://example.com/x"}"#,
        r#"{"text":"验证回调地址是否可用"}"#,
    ] {
        assert_eq!(call(&provider, probe).await.status, 200, "{probe}");
    }
    let text = classic(&account, 1, "你好").to_string();
    assert_eq!(call_with(&provider, "another-secret", text.clone()).await.problem(404), "route_not_found");
    let stranger = Account { id: Uuid::nil(), app_id: "wx_nobody".into() };
    assert_eq!(
        call(&provider, classic(&stranger, 1, "你好").to_string()).await.problem(404),
        "unknown_account"
    );
    assert_eq!(number_of_events(&here, &admin).await, 0);
    // The account logged in on another device: its wxid tells whose event it is.
    let moved = Account { id: account.id, app_id: account.app_id.clone() };
    let mut body = classic(&moved, 1, "你好");
    body["Appid"] = json!("wx_another_device");
    assert_eq!(call(&provider, body.to_string()).await.status, 200);
    assert_eq!(number_of_events(&here, &admin).await, 1);
    let metrics = here.anonymous().send(here.anonymous().bare(Method::GET, "/metrics")).await.text;
    for outcome in ["probe", "wrong_secret", "unknown_account", "stored"] {
        let counted = format!("entropy_callbacks_total{{outcome=\"{outcome}\"}}");
        assert!(metrics.contains(&counted), "{outcome} is not counted");
    }
    assert!(!metrics.contains(CALLBACK_SECRET) && !metrics.contains("another-secret"));
}

#[tokio::test]
async fn events_need_the_header_secret_where_there_is_one_and_probes_do_not() {
    let platform =
        Platform::with().workers(0).env("GEWE_CALLBACK_HEADER_SECRET", "头 secret 1").start().await;
    let admin = platform.register().await;
    let account = admin.account(600, 0).await;
    let provider = admin.anonymous_again();
    assert_eq!(call(&provider, r#"{"testMsg":"回调地址链接成功！"}"#).await.status, 200);
    let text = classic(&account, 1, "你好").to_string();
    assert_eq!(call(&provider, text.clone()).await.problem(401), "wrong_header_secret");
    let with = async |secret: &str| {
        let request = provider.bare(Method::POST, &format!("/callbacks/gewe/{CALLBACK_SECRET}"));
        let value = reqwest::header::HeaderValue::from_bytes(secret.as_bytes()).expect("a header");
        provider.send(request.header("Authorization", value).body(text.clone())).await.status
    };
    assert_eq!(with("secret 1").await, 401);
    assert_eq!(with("头 secret 1").await, 200);
}

#[tokio::test]
async fn hostile_bodies_are_refused_or_kept_and_never_our_fault() {
    let here = Here::open().await;
    let admin = here.register().await;
    let account = admin.account(600, 0).await;
    let provider = admin.anonymous_again();
    let of_type = |number: i64, id: u64, content: &str| {
        let mut body = classic(&account, id, content);
        body["Data"]["MsgType"] = json!(number);
        body.to_string()
    };
    let laughs = "<!DOCTYPE l [<!ENTITY a \"哈哈哈哈\"><!ENTITY b \"&a;&a;&a;&a;\"><!ENTITY c \"&b;&b;&b;&b;\">]>\
        <msg><appmsg><title>&c;</title><type>5</type></appmsg></msg>";
    let deep_xml = format!("{}{}", "<a>".repeat(50_000), "</a>".repeat(50_000));
    let mut padded = classic(&account, 11, "图");
    padded["Data"]["ImgBuf"] = json!({"iLen": 1, "buffer": "A".repeat((2 << 20) - 2000)});
    let mut huge = classic(&account, 12, "数");
    huge["Data"]["MsgId"] = json!(1e300);
    huge["Data"]["CreateTime"] = json!(i64::MAX);
    let text = classic(&account, 13, "x").to_string();
    let surrogate = text.replace("\"string\":\"x\"", "\"string\":\"x\\ud83dy\\u0000\\u0001\"");
    let mut raw = classic(&account, 14, "原").to_string().into_bytes();
    let at = raw.iter().position(|byte| *byte == b'{').expect("a brace") + 1;
    raw.splice(at..at, b"\"\x01\xff\":\"\n\",".iter().copied());
    let kept: Vec<Vec<u8>> = vec![
        of_type(49, 1, laughs).into_bytes(),
        of_type(49, 2, &deep_xml).into_bytes(),
        of_type(49, 3, "<msg><appmsg><title>坏的").into_bytes(),
        of_type(10_002, 4, "<sysmsg type=\"brandneu\"/>").into_bytes(),
        of_type(9_223_372_036_854_775_807, 5, "?").into_bytes(),
        classic(&account, 6, &"长".repeat(500_000)).to_string().into_bytes(),
        padded.to_string().into_bytes(),
        huge.to_string().into_bytes(),
        surrogate.into_bytes(),
        raw,
    ];
    for body in &kept {
        let reply = call(&provider, body.clone()).await;
        assert_eq!(
            reply.status,
            200,
            "{}: {}",
            String::from_utf8_lossy(&body[..200.min(body.len())]),
            reply.text
        );
    }
    let refused = [
        ("{".to_owned(), 400),
        ("你好".into(), 400),
        ("[]".into(), 400),
        (format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)), 400),
        (format!("{{\"Appid\":\"{}\"}}", "x".repeat(200)), 400),
        (format!("{{\"Appid\":\"wx_1\",\"x\":1e999{}}}", "9".repeat(400)), 400),
        (" ".repeat((2 << 20) + 1), 413),
    ];
    for (body, status) in refused {
        let reply = call(&provider, body.clone()).await;
        assert_eq!(reply.status, status, "{}: {}", &body[..60.min(body.len())], reply.text);
    }
    assert_eq!(number_of_events(&here, &admin).await, kept.len() as i64);
    all_are_handled(&here, &admin).await;
    let unknown = admin.all("/callback-events?outcome=unknown").await;
    let texts: Vec<&str> =
        unknown.iter().filter_map(|event| event["body"]["Data"]["Content"]["string"].as_str()).collect();
    assert_eq!(texts, ["?", "<sysmsg type=\"brandneu\"/>"], "kept as they came, newest first");
    let dead = format!(
        "SELECT count(*) AS n FROM job_endings JOIN jobs ON jobs.id = job_endings.job_id \
         WHERE jobs.organization_id = '{}'",
        admin.organization
    );
    assert_eq!(here.number(&dead).await, 0);
}

#[tokio::test]
async fn another_organisation_sees_nothing_of_an_event() {
    let here = Here::open().await;
    let (admin, other) = (here.register().await, here.register().await);
    let account = admin.account(600, 0).await;
    assert_eq!(call(&admin.anonymous_again(), classic(&account, 1, "秘密").to_string()).await.status, 200);
    assert_eq!(admin.all("/callback-events").await.len(), 1);
    assert_eq!(admin.all(&format!("/callback-events?account_id={}", account.id)).await.len(), 1);
    assert!(other.all("/callback-events").await.is_empty());
    assert!(other.all(&format!("/callback-events?account_id={}", account.id)).await.is_empty());
    assert_eq!(admin.get("/callback-events?outcome=else").await.problem(400), "invalid_request");
}

#[tokio::test]
async fn without_a_secret_nobody_may_call_and_without_a_database_the_provider_may_come_again() {
    let mut platform =
        Platform::with().workers(0).own_postgres().env("GEWE_CALLBACK_SECRET", CALLBACK_SECRET).start().await;
    let admin = platform.register().await;
    let account = admin.account(600, 0).await;
    platform.start_other_api(crate::harness::process::ENTROPY.as_ref(), &[("GEWE_CALLBACK_SECRET", "")]);
    platform.ready().await;
    let closed = admin.anonymous_again().at(platform.base(1));
    let text = classic(&account, 1, "你好").to_string();
    assert_eq!(call(&closed, text.clone()).await.problem(404), "route_not_found");
    assert_eq!(call_with(&closed, "%00", text.clone()).await.status, 404);
    platform.database.server().kill().expect("Postgres is killed");
    let provider = admin.anonymous_again();
    assert_eq!(call(&provider, text).await.problem(503), "database_unavailable");
    assert_eq!(call(&provider, r#"{"testMsg":"x"}"#).await.status, 200, "a probe needs no database");
}

/// Callbacks at a steady rate. The long form asserts what is promised; the short one only that nothing is slow beyond
/// all measure, since it runs on an unoptimised build.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_callbacks_a_second_are_answered_in_time() {
    const PER_SECOND: u64 = 500;
    let platform = Platform::with().workers(0).alone().env("DATABASE_POOL_SIZE", "16").start().await;
    let admin = platform.register().await;
    let mut accounts = Vec::new();
    for _ in 0..10 {
        accounts.push(admin.account(600, 0).await);
    }
    let provider = admin.anonymous_again();
    for account in &accounts {
        assert_eq!(call(&provider, classic(account, 1, "热身").to_string()).await.status, 200);
    }
    let total = PER_SECOND * chaos::seconds(4);
    let mut calls = tokio::task::JoinSet::new();
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    let mut sent = 0;
    while sent < total {
        ticks.tick().await;
        for _ in 0..PER_SECOND / 100 {
            let account = &accounts[(sent % 10) as usize];
            let body = classic(account, 1000 + sent, "在吗？想问一下价格").to_string();
            let provider = provider.clone();
            calls.spawn(async move {
                let begun = Instant::now();
                assert_eq!(call(&provider, body).await.status, 200);
                begun.elapsed()
            });
            sent += 1;
        }
    }
    let mut times = calls.join_all().await;
    times.sort_unstable();
    let of = |percent: usize| times[(times.len() - 1) * percent / 100];
    let (p50, p99) = (of(50), of(99));
    chaos::report(&format!(
        "callbacks: {total} at {PER_SECOND}/s, p50 {p50:?}, p99 {p99:?}, worst {:?}",
        of(100)
    ));
    let most = if chaos::long() { Duration::from_millis(50) } else { Duration::from_secs(2) };
    assert!(p99 < most, "p99 {p99:?}");
    let stored = platform.number("SELECT count(*) AS n FROM callback_events").await;
    assert_eq!(stored, total as i64 + 10);
}

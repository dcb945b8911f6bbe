//! A message from the request to the phone: every kind, when, in which order, and only once.

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use futures::future::join_all;
use serde_json::{Value, json};

use super::{assert_problem, count_jobs, id, pause, resume, unique};
use crate::harness::client::send;
use crate::harness::{Here, eventually, secs};

const URL: &str = "https://cdn.example.com/a?x=1&y=2";
const THUMB: &str = "https://cdn.example.com/thumb.jpg";

/// Each kind as the API takes it, GeWe's route, and GeWe's fields.
fn kinds() -> Vec<(Value, &'static str, Value)> {
    let xml = "<appmsg appid=\"\" sdkver=\"0\"><title>报价</title></appmsg>";
    vec![
        (
            json!({"kind": "text", "text": "您好，😀\n第二行"}),
            "postText",
            json!({"content": "您好，😀\n第二行"}),
        ),
        (
            json!({"kind": "text", "text": "@小李 @小王 你们好", "ats": ["wxid_li", "wxid_wang"]}),
            "postText",
            json!({"content": "@小李 @小王 你们好", "ats": "wxid_li,wxid_wang"}),
        ),
        (json!({"kind": "image", "url": URL}), "postImage", json!({"imgUrl": URL})),
        (
            json!({"kind": "file", "url": URL, "name": "报价 2026.pdf"}),
            "postFile",
            json!({"fileUrl": URL, "fileName": "报价 2026.pdf"}),
        ),
        (
            json!({"kind": "voice", "url": URL, "duration_ms": 2500}),
            "postVoice",
            json!({"voiceUrl": URL, "voiceDuration": 2500}),
        ),
        (
            json!({"kind": "video", "url": URL, "thumb_url": THUMB, "duration_s": 12}),
            "postVideo",
            json!({"videoUrl": URL, "thumbUrl": THUMB, "videoDuration": 12}),
        ),
        (
            json!({"kind": "link", "title": "新品", "desc": "到店", "url": URL, "thumb_url": THUMB}),
            "postLink",
            json!({"title": "新品", "desc": "到店", "linkUrl": URL, "thumbUrl": THUMB}),
        ),
        (
            json!({"kind": "mini_program", "app_id": "wx0123456789", "user_name": "gh_0a1b@app", "title": "商城",
                   "display_name": "小店", "page_path": "pages/index.html?id=1", "cover_url": THUMB}),
            "postMiniApp",
            json!({"miniAppId": "wx0123456789", "userName": "gh_0a1b@app", "title": "商城", "displayName": "小店",
                   "pagePath": "pages/index.html?id=1", "coverImgUrl": THUMB}),
        ),
        (
            json!({"kind": "name_card", "wxid": "wxid_li", "nickname": "小李"}),
            "postNameCard",
            json!({"nickName": "小李", "nameCardWxid": "wxid_li"}),
        ),
        (
            json!({"kind": "emoji", "md5": "4cc7540a85b5b6cf4ba14e9f4ae08b7c", "size": 102_357}),
            "postEmoji",
            json!({"emojiMd5": "4cc7540a85b5b6cf4ba14e9f4ae08b7c", "emojiSize": 102_357}),
        ),
        (json!({"kind": "app_message", "xml": xml}), "postAppMsg", json!({"appmsg": xml})),
    ]
}

#[tokio::test]
async fn every_kind_arrives_with_its_fields_and_the_job_holds_its_id() {
    let here = Here::open().await;
    let admin = here.register().await;
    let account = admin.account(600, 0).await;
    let mut jobs = Vec::new();
    for (message, ..) in kinds() {
        let body = json!({"account_id": account.id, "to_wxid": "12345678@chatroom", "message": message});
        let reply = admin.post("/jobs/send-message", body).await;
        let location = reply.header("location").map(str::to_owned);
        let job = reply.expect(202);
        assert_eq!(location, Some(format!("/api/v1/jobs/{}", id(&job["id"]))));
        assert_eq!((&job["kind"], &job["state"]), (&json!("send_message"), &json!("available")));
        assert_eq!(
            (&job["priority"], &job["lane"]),
            (&json!("interactive"), &json!(format!("account:{}", account.id)))
        );
        assert_eq!(job["args"]["message"], message, "it is kept as it was given");
        jobs.push(id(&job["id"]));
    }
    let mut results = Vec::new();
    for job in jobs {
        let job = here.ended(&admin, job).await;
        assert_eq!(
            (&job["state"], &job["error"], &job["attempt"]),
            (&json!("completed"), &Value::Null, &json!(1)),
            "{job}"
        );
        for time in ["created_at", "started_at", "finalized_at"] {
            assert!(
                job[time].as_str().is_some_and(|at| at.parse::<DateTime<Utc>>().is_ok()),
                "{time} of {job}"
            );
        }
        results.push(job["result"].clone());
    }
    let received = here.received_from(&account).await;
    assert_eq!(received.len(), kinds().len());
    for (((message, route, fields), entry), result) in kinds().into_iter().zip(&received).zip(results) {
        assert!(entry["route"].as_str().is_some_and(|path| path.ends_with(route)), "{message}: {entry}");
        let mut expected = json!({"appId": account.app_id, "toWxid": "12345678@chatroom"});
        expected.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
        assert_eq!(entry["body"], expected, "{message}");
        assert_eq!(result["send_status"], "sent");
        assert!(entry["new_msg_id"].is_string());
        assert_eq!(result["new_msg_id"], entry["new_msg_id"], "the id is exact, and a string");
    }
}

#[tokio::test]
async fn a_message_of_the_future_waits_for_its_time_and_one_of_the_past_goes_now() {
    let here = Here::open().await;
    let admin = here.register().await;
    let account = admin.account(600, 0).await;
    let at = |at: DateTime<Utc>| {
        let mut body = send(account.id, "wxid_customer", &at.to_rfc3339(), "campaign");
        body["scheduled_at"] = json!(at);
        body
    };
    let (far, near, past) = (TimeDelta::days(30), TimeDelta::seconds(2), TimeDelta::days(-30));
    let now = Utc::now().trunc_subsecs(3);
    let far = admin.post("/jobs/send-message", at(now + far)).await.expect(202);
    let due = now + near;
    let near = admin.post("/jobs/send-message", at(due)).await.expect(202);
    let past = admin.post("/jobs/send-message", at(now + past)).await.expect(202);
    assert_eq!((&far["state"], &near["state"]), (&json!("scheduled"), &json!("scheduled")));
    assert_eq!((&past["state"], &past["scheduled_at"]), (&json!("available"), &Value::Null));

    let waiting = admin.job(id(&far["id"])).await;
    assert_eq!((&waiting["state"], &waiting["why"]["code"]), (&json!("scheduled"), &json!("scheduled")));
    let told: DateTime<Utc> =
        waiting["why"]["next_try_at"].as_str().and_then(|at| at.parse().ok()).expect("a time");
    assert_eq!(told, now + TimeDelta::days(30));
    assert_eq!(here.ended(&admin, id(&past["id"])).await["state"], "completed");
    assert_eq!(here.ended(&admin, id(&near["id"])).await["state"], "completed");
    let received = here.received_from(&account).await;
    assert_eq!(received.len(), 2, "the far one still waits");
    let late_us = received[1]["received_at_us"].as_i64().expect("a time") - due.timestamp_micros();
    assert!((0..2_000_000).contains(&late_us), "{late_us} µs after its time");
    assert_eq!(admin.job(id(&far["id"])).await["state"], "scheduled");
}

#[tokio::test]
async fn a_person_goes_before_replies_and_replies_before_campaigns() {
    let here = Here::open().await;
    let admin = here.register().await;
    let account = admin.account(600, 0).await;
    pause(&admin, &account).await;
    let mut jobs = Vec::new();
    for (n, priority) in
        ["campaign", "reply", "interactive", "campaign", "reply", "interactive"].iter().enumerate()
    {
        jobs.push(admin.text(&account, &format!("wxid_{n}"), &format!("{priority}-{n}"), priority).await);
    }
    let last = admin.job(jobs[3]).await;
    assert_eq!((&last["priority"], &last["why"]["jobs_ahead"]), (&json!("campaign"), &json!(5)), "{last}");
    resume(&admin, &account).await;
    for job in jobs {
        here.ended(&admin, job).await;
    }
    let texts: Vec<Value> =
        here.received_from(&account).await.iter().map(|one| one["body"]["content"].clone()).collect();
    assert_eq!(texts, ["interactive-2", "interactive-5", "reply-1", "reply-4", "campaign-0", "campaign-3"]);
}

#[tokio::test]
async fn a_message_that_comes_too_late_is_not_sent() {
    let here = Here::open().await;
    let admin = here.register().await;
    let account = admin.account(600, 0).await;
    pause(&admin, &account).await;
    let mut body = send(account.id, "wxid_customer", "限时优惠", "campaign");
    body["expires_at"] = json!(Utc::now() + TimeDelta::milliseconds(700));
    let job = id(&admin.post("/jobs/send-message", body).await.expect(202)["id"]);
    let job = here.ended(&admin, job).await;
    assert_eq!((&job["state"], &job["error"]["code"]), (&json!("cancelled"), &json!("expired")), "{job}");
    resume(&admin, &account).await;
    let next = admin.text(&account, "wxid_customer", "你好", "interactive").await;
    here.ended(&admin, next).await;
    assert_eq!(here.received_from(&account).await.len(), 1);
}

#[tokio::test]
async fn the_same_request_twice_is_one_job() {
    let here = Here::open().await;
    let admin = here.register().await;
    let account = admin.account(600, 0).await;
    let key = unique("order-");
    let body = send(account.id, "wxid_customer", "您的订单已发货", "interactive");
    let first = admin.post_once("/jobs/send-message", &key, body.clone()).await.expect(202);
    let ended = here.ended(&admin, id(&first["id"])).await;
    let again = admin.post_once("/jobs/send-message", &key, body.clone()).await.expect(200);
    assert_eq!(
        (&again["id"], &again["state"], &again["result"]),
        (&first["id"], &json!("completed"), &ended["result"])
    );
    // The order of fields means nothing.
    let turned = format!(
        r#"{{"priority":"interactive","message":{{"text":"您的订单已发货","kind":"text"}},"to_wxid":"wxid_customer","account_id":"{}"}}"#,
        account.id
    );
    let request = admin.request(reqwest::Method::POST, "/jobs/send-message").header("Idempotency-Key", &key);
    let turned =
        admin.send(request.header("content-type", "application/json").body(turned)).await.expect(200);
    assert_eq!(turned["id"], first["id"]);

    let other = send(account.id, "wxid_customer", "您的订单已取消", "interactive");
    let reply = admin.post_once("/jobs/send-message", &key, other.clone()).await;
    assert_problem(reply, 409, "idempotency_key_reused", "");
    let mut later = body.clone();
    later["scheduled_at"] = json!(Utc::now() + TimeDelta::days(1));
    let reply = admin.post_once("/jobs/send-message", &key, later).await;
    assert_problem(reply, 409, "idempotency_key_reused", "");
    assert_eq!(count_jobs(&here, &admin).await, 1);
    // Another organisation's keys are its own.
    let stranger = here.register().await;
    let theirs = stranger.account(600, 0).await;
    let theirs = send(theirs.id, "wxid_customer", "您的订单已取消", "interactive");
    let theirs = stranger.post_once("/jobs/send-message", &key, theirs).await.expect(202);
    assert_ne!(theirs["id"], first["id"]);
    assert_eq!(here.received_from(&account).await.len(), 1);
}

#[tokio::test]
async fn fifty_identical_requests_at_once_are_one_job_and_one_message() {
    let here = Here::open().await;
    let admin = here.register().await;
    let account = admin.account(600, 0).await;
    let key = unique("50-");
    let body = send(account.id, "wxid_customer", "只发一次", "interactive");
    // To both processes of the API.
    let clients = [admin.clone(), admin.at(here.base(1))];
    let ask = |n: usize| {
        let (client, key, body) = (clients[n % 2].clone(), key.clone(), body.clone());
        async move { client.post_once("/jobs/send-message", &key, body).await }
    };
    let replies = join_all((0..50).map(ask)).await;
    let mut statuses = [0, 0];
    let mut jobs = Vec::new();
    for reply in replies {
        assert!(matches!(reply.status, 200 | 202), "{} {}", reply.status, reply.text);
        statuses[usize::from(reply.status == 202)] += 1;
        jobs.push(id(&reply.body["id"]));
    }
    jobs.dedup();
    assert_eq!((jobs.len(), statuses), (1, [49, 1]));
    assert_eq!(count_jobs(&here, &admin).await, 1);
    here.ended(&admin, jobs[0]).await;
    assert_eq!(here.received_from(&account).await.len(), 1);
    let sends = admin.get("/sends").await.expect(200);
    assert_eq!(sends["items"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_trace_leads_from_the_request_through_the_job_to_gewe() {
    let here = Here::open().await;
    let admin = here.register().await;
    let account = admin.account(600, 0).await;
    let trace = format!("{:032x}", fastrand::u128(1..));
    let body = send(account.id, "wxid_customer", "你好", "interactive");
    let request = admin
        .request(reqwest::Method::POST, "/jobs/send-message")
        .header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"))
        .json(&body);
    let reply = admin.send(request).await;
    assert_eq!(reply.header("x-trace-id"), Some(trace.as_str()));
    let job = reply.expect(202);
    assert_eq!(job["trace_id"], json!(trace));
    here.ended(&admin, id(&job["id"])).await;
    let arrival = eventually("it arrived", secs(5), async || here.received_from(&account).await.pop()).await;
    assert_eq!(arrival["trace_id"], json!(trace));
}

//! Every failure mode, as the client sees it and as the phone sees it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{APP, FRIEND, TestSandbox, envelope};

const NOTHING: [&str; 0] = [];

/// Sends with a time limit that the answer will miss.
async fn times_out(sandbox: &TestSandbox, failure: &str) {
    let error =
        sandbox.text_failing("m", failure).timeout(Duration::from_millis(100)).send().await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
}

#[tokio::test]
async fn delay_after_accept_delivers_and_then_keeps_the_client_waiting() {
    let sandbox = TestSandbox::start().await;
    times_out(&sandbox, "delay_after_accept;delay_ms=5000").await;
    sandbox.wait_for(&["m"]).await;
    let start = Instant::now();
    let answer = envelope(sandbox.text_failing("n", "delay_after_accept;delay_ms=50")).await;
    assert_eq!(answer["ret"], 200);
    assert!(start.elapsed() >= Duration::from_millis(50));
}

#[tokio::test]
async fn delay_before_accept_delivers_nothing_to_a_client_that_hangs_up() {
    let sandbox = TestSandbox::start().await;
    times_out(&sandbox, "delay_before_accept;delay_ms=1000").await;
    let answer = envelope(sandbox.text_failing("n", "delay_before_accept;delay_ms=1100")).await;
    assert_eq!(answer["ret"], 200);
    assert_eq!(sandbox.received().await, ["n"]);
    let calls = sandbox.get("/_sandbox/calls").await;
    let endings = [0, 1].map(|n| (&calls["items"][n]["outcome"], &calls["items"][n]["client_gone"]));
    assert_eq!(endings[0], (&json!("not_accepted"), &json!(true)));
    assert_eq!(endings[1], (&json!("delivered"), &json!(false)));
}

#[tokio::test]
async fn late_accept_delivers_though_the_client_has_hung_up() {
    let sandbox = TestSandbox::start().await;
    times_out(&sandbox, "late_accept;delay_ms=1500").await;
    assert_eq!(sandbox.received().await, NOTHING);
    sandbox.wait_for(&["m"]).await;
    let call = sandbox.last_call().await;
    assert_eq!((&call["outcome"], &call["client_gone"]), (&json!("delivered"), &json!(true)));
}

#[tokio::test]
async fn resets_end_the_connection_without_a_byte_of_answer() {
    let sandbox = TestSandbox::start().await;
    for (failure, outcome) in [("reset_before_accept", "not_accepted"), ("reset_after_accept", "delivered")] {
        let body = json!({"appId": APP, "toWxid": FRIEND, "content": failure}).to_string();
        let request = format!(
            "POST /v2/api/message/postText HTTP/1.1\r\nHost: s\r\nX-GEWE-TOKEN: t\r\n\
             X-Sandbox-Failure: {failure}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(sandbox.base.trim_start_matches("http://")).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let error = stream.read_to_end(&mut answer).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{failure}");
        assert!(answer.is_empty(), "{failure}");
        let call = sandbox.last_call().await;
        assert_eq!(call["outcome"], outcome);
        assert_eq!(call["failure"], failure);
        assert_eq!(call["http_status"], Value::Null);
    }
    assert_eq!(sandbox.received().await, ["reset_after_accept"]);
}

#[tokio::test]
async fn a_reset_looks_like_a_lost_connection_to_an_http_client_and_spares_the_next_call() {
    let sandbox = TestSandbox::start().await;
    let error = sandbox.text_failing("m", "reset_after_accept").send().await.unwrap_err();
    assert!(error.is_request() && !error.is_connect() && !error.is_timeout(), "{error:?}");
    assert_eq!(envelope(sandbox.text("n")).await["ret"], 200);
    assert_eq!(sandbox.received().await, ["m", "n"]);
}

#[tokio::test]
async fn truncated_body_delivers_and_breaks_off_after_the_headers() {
    let sandbox = TestSandbox::start().await;
    let mut response = sandbox.text_failing("m", "truncated_body").send().await.unwrap();
    assert_eq!(response.status(), 200);
    let announced = response.content_length().unwrap();
    let mut got = 0;
    let broken = loop {
        match response.chunk().await {
            Ok(Some(chunk)) => got += chunk.len() as u64,
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    assert!(broken && got > 0 && got < announced, "got {got} of {announced}");
    assert_eq!(sandbox.received().await, ["m"]);
}

#[tokio::test]
async fn bad_gateway_is_html_and_may_hide_a_delivery() {
    let sandbox = TestSandbox::start().await;
    for mode in ["bad_gateway_html", "bad_gateway_html_before_accept", "bad_gateway_html_after_accept"] {
        let response = sandbox.text_failing(mode, mode).send().await.unwrap();
        assert_eq!(response.status(), 502);
        assert_eq!(response.headers()["content-type"], "text/html");
        assert!(response.text().await.unwrap().starts_with("<html>"));
    }
    assert_eq!(sandbox.received().await, ["bad_gateway_html_after_accept"]);
}

#[tokio::test]
async fn not_json_delivers_and_answers_what_no_parser_takes() {
    let sandbox = TestSandbox::start().await;
    let response = sandbox.text_failing("m", "not_json").send().await.unwrap();
    assert_eq!(response.status(), 200);
    let text = response.text().await.unwrap();
    assert!(serde_json::from_str::<Value>(&text).is_err());
    assert_eq!(sandbox.received().await, ["m"]);
}

#[tokio::test]
async fn refusals_have_the_texts_of_their_class_and_deliver_nothing() {
    let sandbox = TestSandbox::start().await;
    for (mode, text) in
        [("offline", "离线"), ("risk", "频繁"), ("token", "不可用或已过期"), ("unknown_error", "-4013")]
    {
        let answer = envelope(sandbox.text_failing("m", mode)).await;
        assert_eq!(answer["ret"], 500, "{mode}");
        assert!(answer.to_string().contains(text), "{mode}: {answer}");
        assert_eq!(sandbox.last_call().await["failure"], mode);
    }
    assert_eq!(sandbox.received().await, NOTHING);
}

#[tokio::test]
async fn silent_drop_answers_as_usual_and_is_kept_from_the_phone() {
    let sandbox = TestSandbox::start().await;
    let answer = envelope(sandbox.text_failing("m", "silent_drop")).await;
    assert_eq!(answer["ret"], 200);
    assert!(answer["data"]["newMsgId"].is_u64());
    assert_eq!(sandbox.received().await, NOTHING);
    let dropped = sandbox.get("/_sandbox/ledger?delivered=false").await;
    assert_eq!(dropped["total"], 1);
    assert_eq!(dropped["items"][0]["delivered"], false);
    assert_eq!(sandbox.get("/_sandbox/ledger?delivered=all").await["total"], 1);
    assert_eq!(sandbox.last_call().await["outcome"], "dropped");
}

#[tokio::test]
async fn slow_drip_sends_the_right_answer_byte_by_byte() {
    let sandbox = TestSandbox::start().await;
    let mut response = sandbox.text_failing("m", "slow_drip;delay_ms=2").send().await.unwrap();
    let mut body = Vec::new();
    let mut chunks = 0;
    while let Some(chunk) = response.chunk().await.unwrap() {
        body.extend_from_slice(&chunk);
        chunks += 1;
    }
    assert!(chunks > 20, "came in {chunks} pieces");
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["ret"], 200);
    assert_eq!(sandbox.received().await, ["m"]);
}

#[tokio::test]
async fn huge_body_is_a_right_answer_of_more_than_ten_mebibytes() {
    let sandbox = TestSandbox::start().await;
    let response = sandbox.text_failing("m", "huge_body").send().await.unwrap();
    let body = response.bytes().await.unwrap();
    assert!(body.len() > 10 * 1024 * 1024);
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["ret"], 200);
    assert_eq!(sandbox.received().await, ["m"]);
}

#[tokio::test]
async fn wrong_content_type_is_json_that_calls_itself_html() {
    let sandbox = TestSandbox::start().await;
    let response = sandbox.text_failing("m", "wrong_content_type").send().await.unwrap();
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/html"));
    assert_eq!(response.json::<Value>().await.unwrap()["ret"], 200);
    assert_eq!(sandbox.received().await, ["m"]);
}

#[tokio::test]
async fn redirect_points_to_a_private_address_and_tells_on_who_follows() {
    let sandbox = TestSandbox::start().await;
    let response = sandbox.text_failing("m", "redirect").send().await.unwrap();
    assert_eq!(response.status(), 302);
    let target = response.headers()["location"].to_str().unwrap().to_owned();
    assert_eq!(target, format!("{}/_sandbox/redirect-target", sandbox.base));
    assert_eq!(sandbox.received().await, NOTHING);
    sandbox.client.get(target).send().await.unwrap();
    assert_eq!(sandbox.last_call().await["outcome"], "redirect_followed");
}

#[tokio::test]
async fn server_error_envelope_is_json_under_http_500() {
    let sandbox = TestSandbox::start().await;
    let response = sandbox.text_failing("m", "server_error_envelope").send().await.unwrap();
    assert_eq!(response.status(), 500);
    assert_eq!(response.json::<Value>().await.unwrap()["ret"], 500);
    assert_eq!(sandbox.received().await, NOTHING);
}

#[tokio::test]
async fn a_failure_header_that_cannot_be_read_is_the_callers_fault() {
    let sandbox = TestSandbox::start().await;
    let response = sandbox.text_failing("m", "explode").send().await.unwrap();
    assert_eq!(response.status(), 400);
    assert!(response.text().await.unwrap().contains("slow_drip"), "the answer lists the modes");
    assert_eq!(sandbox.received().await, NOTHING);
}

#[tokio::test]
async fn an_offline_account_accepts_nothing_whatever_the_failure() {
    let sandbox = TestSandbox::start().await;
    sandbox.put(&format!("/_sandbox/accounts/{APP}"), json!({"state": "offline"})).await;
    assert_eq!(envelope(sandbox.text_failing("m", "wrong_content_type")).await["ret"], 500);
    assert_eq!(sandbox.received().await, NOTHING);
    assert_eq!(sandbox.last_call().await["outcome"], "offline");
}

/// Reads an answer that is right in all but its frame, after a client has refused to read it.
async fn raw_answer(sandbox: &TestSandbox, mode: &str) -> (reqwest::Response, Value) {
    let response = sandbox.text_failing(mode, mode).send().await.unwrap();
    let call = sandbox.last_call().await;
    (response, call["outcome"].clone())
}

#[tokio::test]
async fn endless_drip_delivers_and_never_ends() {
    let sandbox = TestSandbox::start().await;
    let (mut response, _) = raw_answer(&sandbox, "endless_drip;delay_ms=1").await;
    for _ in 0..100 {
        assert!(
            response.chunk().await.unwrap().is_some_and(|blanks| blanks.iter().all(|byte| *byte == b' '))
        );
    }
    assert_eq!(sandbox.received().await.len(), 1);
}

#[tokio::test]
async fn answers_without_a_readable_body_deliver_all_the_same() {
    let sandbox = TestSandbox::start().await;
    let (response, outcome) = raw_answer(&sandbox, "empty_answer").await;
    assert_eq!((response.status().as_u16(), &outcome), (204, &json!("delivered")));
    assert_eq!(response.bytes().await.unwrap().len(), 0);
    let (response, outcome) = raw_answer(&sandbox, "huge_garbage").await;
    assert_eq!(outcome, "delivered");
    assert!(response.bytes().await.unwrap().len() > 10 * 1024 * 1024);
    let (response, outcome) = raw_answer(&sandbox, "gzip_body").await;
    assert_eq!(
        (&response.headers()["content-encoding"], &outcome),
        (&"gzip".parse().unwrap(), &json!("delivered"))
    );
    assert_eq!(response.bytes().await.unwrap()[..3], [0x1f, 0x8b, 8]);
    let error = sandbox.text_failing("header_flood", "header_flood").send().await.unwrap_err();
    assert!(error.is_request(), "{error:?}");
    assert_eq!(sandbox.last_call().await["outcome"], "delivered");
}

#[tokio::test]
async fn envelopes_that_prove_nothing_deliver_all_the_same() {
    let sandbox = TestSandbox::start().await;
    assert_eq!(envelope(sandbox.text_failing("1", "no_message_id")).await["data"], Value::Null);
    let answer = envelope(sandbox.text_failing("2", "unstorable_id")).await;
    assert!(answer["data"]["newMsgId"].as_str().is_some_and(|id| id.contains('\0')), "{answer}");
    let answer = envelope(sandbox.text_failing("3", "upstream_lost")).await;
    assert!(answer["ret"] == 500 && answer["data"]["msg"].as_str().is_some_and(|text| text.ends_with("EOF")));
    assert_eq!(sandbox.received().await, ["1", "2", "3"]);
}

#[tokio::test]
async fn an_echoing_refusal_repeats_the_token_and_delivers_nothing() {
    let sandbox = TestSandbox::start().await;
    let answer = envelope(sandbox.text_failing("m", "echoing_refusal")).await;
    assert_eq!(answer["ret"], 500);
    let echo = answer["data"]["echo"].as_str().unwrap();
    assert!(echo.starts_with("token-1\0\r\n") && echo.len() > 1000);
    assert_eq!(sandbox.received().await, NOTHING);
}

#[tokio::test]
async fn a_redirect_to_itself_sends_for_those_who_follow_it() {
    let sandbox = TestSandbox::start().await;
    let response = sandbox.text_failing("m", "redirect_to_itself").send().await.unwrap();
    assert_eq!(response.status(), 307);
    assert_eq!(response.headers()["location"], "/gewe/v2/api/message/postText");
    assert_eq!(sandbox.received().await, NOTHING);
}

#[tokio::test]
async fn a_mix_meets_its_exact_share_of_each_kind_of_call_behind_the_plans() {
    let sandbox = TestSandbox::start().await;
    let mix =
        json!({"app_id": APP, "seed": 4, "of": 5, "modes": [{"mode": "risk"}, {"mode": "unknown_error"}]});
    let planned = sandbox.post("/_sandbox/failures/mix", mix).await;
    assert_eq!(planned.status(), 201);
    assert_eq!(planned.json::<Value>().await.unwrap(), json!({"seed": 4}));
    sandbox.post("/_sandbox/failures", json!({"mode": "server_error_envelope"})).await;
    assert_eq!(sandbox.text("planned").send().await.unwrap().status(), 500);
    for n in 0..20 {
        sandbox.text(&n.to_string()).send().await.unwrap();
    }
    let calls = sandbox.get("/_sandbox/calls").await;
    let met =
        |mode: &str| calls["items"].as_array().unwrap().iter().filter(|call| call["failure"] == mode).count();
    assert_eq!((met("risk"), met("unknown_error"), met("server_error_envelope")), (4, 4, 1));
    assert_eq!(sandbox.received().await.len(), 12);
    let refused =
        sandbox.post("/_sandbox/failures/mix", json!({"of": 1, "modes": [{"mode": "explode"}]})).await;
    assert_eq!(refused.status(), 400);
    sandbox.client.delete(format!("{}/_sandbox/failures", sandbox.base)).send().await.unwrap();
    sandbox.text("after").send().await.unwrap();
    assert_eq!(sandbox.received().await.last().map(String::as_str), Some("after"));
}

//! Calls that bring no answer.

use super::*;

fn refuse(status: &str, headers: &str, body: &str) -> Act {
    Act::Write(http(status, headers, body))
}

fn envelope(code: i64, status_text: &str, message: &str) -> String {
    json!({"code": code, "statusText": status_text, "message": message, "data": null}).to_string()
}

#[tokio::test]
async fn refusals_are_classed_by_their_names_whatever_the_http_status() {
    for stream in [false, true] {
        for status in ["500 Internal Server Error", "200 OK", "403 Forbidden"] {
            let check = async |code, name, message, class, expected| {
                let act = refuse(status, "", &envelope(code, name, message));
                check(ask(act, stream).await, class, expected);
            };
            check(403, "unAuthorization", "", ErrorClass::Refused, "key_refused").await;
            check(500_002, "aiPointsNotEnough", "", ErrorClass::Quota, "points_used_up").await;
            check(502_001, "unAuthApp", "", ErrorClass::Refused, "app_refused").await;
            check(500, "", "secret words", ErrorClass::Failed, "run_failed").await;
        }
    }
    let other = async |code, name, message, class, expected| {
        check(ask(refuse("500 Oops", "", &envelope(code, name, message)), false).await, class, expected);
    };
    other(429, "", "", ErrorClass::Throttled, "throttled").await;
    other(510, "insufficientQuota", "", ErrorClass::Quota, "points_used_up").await;
    other(511, "unAuthModel", "", ErrorClass::Refused, "model_refused").await;
    other(504_000, "unAuthChat", "", ErrorClass::Refused, "chat_refused").await;
    other(508_000, "pluginUnExist", "", ErrorClass::Refused, "refused").await;
    other(500, "error", "messages is empty", ErrorClass::Refused, "refused").await;
    other(500, "", "您的工作流版本过低，请重新发布一次", ErrorClass::Refused, "workflow_outdated").await;
    other(500, "", "网络连接异常", ErrorClass::Failed, "upstream_lost").await;
    other(500, "", "429 You exceeded your current quota", ErrorClass::Failed, "run_failed").await;
    other(500, "", "Rate limit service unavailable, try later", ErrorClass::Throttled, "throttled").await;
    let openai = json!({"error": {"message": "secret words", "type": "x"}}).to_string();
    check(ask(refuse("200 OK", "", &openai), false).await, ErrorClass::Failed, "run_failed");
}

#[tokio::test]
async fn a_limit_says_when_to_come_again() {
    let wait = async |status: &str, headers: &str, body: &str| {
        let error = check(ask(refuse(status, headers, body), true).await, ErrorClass::Throttled, "throttled");
        error.retry_after.map(|wait| wait.as_secs())
    };
    assert_eq!(wait("429 Too Many Requests", "Retry-After: 7\r\n", "").await, Some(7));
    assert_eq!(wait("429 Too Many Requests", "X-RateLimit-Reset: 12\r\n", "{}").await, Some(12));
    assert_eq!(wait("429 Too Many Requests", "Retry-After: 99999999\r\n", "").await, Some(3600));
    assert_eq!(
        wait("429 Too Many Requests", "Retry-After: -1\r\nX-RateLimit-Reset: x\r\n", "").await,
        Some(1)
    );
    assert_eq!(wait("429 Too Many Requests", "X-RateLimit-Reset: 1000000001\r\n", "").await, Some(1));
    assert_eq!(wait("429 Too Many Requests", "", "").await, None);
    let words = "Rate limit exceeded. Maximum 60 requests per 60 seconds for this team. Please try again in 31 seconds.";
    assert_eq!(wait("429 Too Many Requests", "", &envelope(429, "", words)).await, Some(31));
    assert_eq!(wait("500 Oops", "", &envelope(500, "", words)).await, Some(31));
}

#[tokio::test]
async fn a_gateways_page_is_not_fastgpts_word() {
    let page = async |status: &str, class, code| {
        let html = "<html>secret words</html>";
        for stream in [false, true] {
            check(ask(refuse(status, "Content-Type: text/html\r\n", html), stream).await, class, code);
        }
    };
    page("502 Bad Gateway", ErrorClass::Ambiguous, "gateway_lost").await;
    page("504 Gateway Timeout", ErrorClass::Ambiguous, "gateway_lost").await;
    page("500 Oops", ErrorClass::Ambiguous, "http_server_error").await;
    page("200 OK", ErrorClass::Ambiguous, "answer_unreadable").await;
    page("404 Not Found", ErrorClass::Refused, "not_found").await;
    page("401 Unauthorized", ErrorClass::Refused, "key_refused").await;
    page("413 Payload Too Large", ErrorClass::Refused, "refused").await;
    let dressed = refuse("502 Bad Gateway", "", &envelope(514, "unAuthApiKey", ""));
    check(ask(dressed, false).await, ErrorClass::Ambiguous, "gateway_lost");
    for nothing in
        ["", "null", "{}", "[]", "\"text\"", r#"{"code":200,"statusText":"","message":"","data":1}"#]
    {
        check(ask(refuse("200 OK", "", nothing), false).await, ErrorClass::Ambiguous, "answer_unreadable");
    }
    let zipped = refuse("200 OK", "Content-Encoding: gzip\r\n", "\u{1f}\u{8b}secret words");
    check(ask(zipped, false).await, ErrorClass::Ambiguous, "answer_unreadable");
    let answered = json!({"choices": [{"message": {"content": "secret words"}}]}).to_string();
    check(ask(refuse("500 Oops", "", &answered), false).await, ErrorClass::Ambiguous, "contradictory_answer");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let away = refuse("307 Temporary Redirect", "Location: /api/v1/elsewhere\r\n", "");
    check(ask(away, true).await, ErrorClass::Refused, "http_redirect");
}

#[tokio::test]
async fn a_connection_that_breaks_after_the_question_is_ambiguous_and_not_repeated() {
    for stream in [false, true] {
        check(ask(Act::Reset, stream).await, ErrorClass::Ambiguous, "connection_lost");
        check(ask(Act::WriteAndClose(Vec::new()), stream).await, ErrorClass::Ambiguous, "connection_lost");
        let half = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"choices\":[".to_vec();
        check(ask(Act::WriteAndClose(half), stream).await, ErrorClass::Ambiguous, "answer_incomplete");
    }
}

#[tokio::test]
async fn nothing_ran_where_nobody_was_reached() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/api", listener.local_addr().unwrap());
    drop(listener);
    let answer = client(Some(&endpoint)).ask(&app(), &question(true)).await;
    check(answer, ErrorClass::NotRun, "connect_failed");
    let answer = client(Some("http://fastgpt.invalid/api")).ask(&app(), &question(true)).await;
    check(answer, ErrorClass::NotRun, "connect_failed");
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused_before_a_connection_is_made() {
    let without = client(None);
    let refused = async |app: App, ask: Ask, code: &str| {
        check(without.ask(&app, &ask).await, ErrorClass::Refused, code);
    };
    refused(app(), question(true), "no_endpoint").await;
    let there = || App { endpoint: Some("http://127.0.0.1:9/api".into()), ..app() };
    refused(
        App { endpoint: Some("http://169.254.169.254/api".into()), ..app() },
        question(true),
        "endpoint_malformed",
    )
    .await;
    refused(App { api_key: Secret::new("hunter2\u{1}"), ..there() }, question(true), "key_malformed").await;
    refused(App { api_key: Secret::new(" "), ..there() }, question(true), "key_malformed").await;
    for parts in [vec![], vec![Part::Text(" \n".into())]] {
        refused(there(), Ask { parts, ..question(true) }, "empty_question").await;
    }
    let parts = vec![Part::Text("长".repeat(7 * 1024 * 1024))];
    refused(there(), Ask { parts, ..question(true) }, "question_too_large").await;
}

#[tokio::test]
async fn an_endless_answer_is_cut_off_at_the_limit() {
    let head = b"HTTP/1.1 200 OK\r\n\r\n{\"choices\":[{\"message\":{\"content\":\"".to_vec();
    let endless = Act::WriteAndRepeat(head, vec![b'x'; 1024 * 1024], Duration::ZERO);
    check(ask(endless, false).await, ErrorClass::Ambiguous, "answer_too_large");
}

//! Answers as streams of events.

use super::*;

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream;charset=utf-8\r\n\r\n";
const DONE: &str = "event: answer\ndata: [DONE]\n\n";
const STOP: &str =
    "event: answer\ndata: {\"choices\":[{\"delta\":{\"content\":null},\"finish_reason\":\"stop\"}]}\n\n";
const NODES: &str =
    "event: flowResponses\ndata: [{\"id\":\"n3\",\"inputTokens\":812,\"outputTokens\":46}]\n\n";

fn piece(name: &str, text: &str) -> String {
    let data = json!({"choices": [{"delta": {"role": "assistant", "content": text}, "index": 0, "finish_reason": null}]});
    format!("event: {name}\ndata: {data}\n\n")
}

fn events(events: &[&str]) -> Vec<u8> {
    format!("{HEAD}{}", events.concat()).into_bytes()
}

async fn read(all: &[&str]) -> Result<Answer, AiError> {
    ask(Act::WriteAndClose(events(all)), true).await
}

/// The text, the number of nodes, and whether it is a question.
fn shape(answer: Result<Answer, AiError>) -> (String, usize, bool) {
    let answer = answer.unwrap();
    (answer.text, answer.nodes.len(), answer.interactive)
}

#[tokio::test]
async fn both_orders_of_the_end_are_read_to_the_end() {
    let hello = [piece("answer", "您好，"), piece("answer", ""), piece("answer", "九点。")].concat();
    for ending in [[STOP, DONE, NODES], [STOP, NODES, DONE], [NODES, STOP, DONE]] {
        assert_eq!(shape(read(&[&[&*hello], &ending[..]].concat()).await), ("您好，九点。".into(), 1, false));
    }
    // Without the bill it is an answer all the same.
    assert_eq!(shape(read(&[&hello, STOP, DONE]).await), ("您好，九点。".into(), 0, false));
    assert_eq!(shape(read(&[&hello, DONE]).await), ("您好，九点。".into(), 0, false));
    assert_eq!(shape(read(&[&hello, STOP]).await), ("您好，九点。".into(), 0, false));
}

#[tokio::test]
async fn everything_that_a_stream_can_say_is_understood_or_passed_by() {
    let thinking = "event: answer\ndata: {\"choices\":[{\"delta\":{\"reasoning_content\":\"想\"}}]}\n\n";
    let unknown =
        "event: plan\ndata: not json\n\nevent: flowNodeStatus\ndata: {\"status\":\"running\"}\n\n: ping\n\n";
    let duration = "event: workflowDuration\ndata: {\"durationSeconds\":2.31}\n\n";
    let fixed = piece("fastAnswer", "固定回复");
    let answer =
        read(&[unknown, thinking, &piece("answer", "一"), &fixed, duration, STOP, DONE, NODES]).await;
    assert_eq!(shape(answer), ("一固定回复".into(), 1, false));

    let node = "event: flowNodeResponse\ndata: {\"id\":\"a\",\"inputTokens\":1}\n\n";
    assert_eq!(shape(read(&[node, node, &piece("answer", "二"), STOP, DONE]).await), ("二".into(), 2, false));
    assert_eq!(shape(read(&[node, node, STOP, NODES, DONE]).await).1, 1, "the whole list counts");

    let asks = "event: interactive\ndata: {\"interactive\":{\"params\":{\"description\":\"选\",\"userSelectOptions\":[{\"value\":\"甲\"}]}}}\n\n";
    assert_eq!(shape(read(&[asks, STOP, DONE]).await), ("选\n1. 甲".into(), 0, true));
}

#[tokio::test]
async fn bytes_may_come_in_any_pieces_and_lines_end_in_any_way() {
    let text = format!("{}{STOP}{DONE}{NODES}", piece("answer", "九点开门😀"));
    for (ending, head) in [("\n", ""), ("\r\n", "\u{feff}"), ("\r", "")] {
        let body = format!("{head}{}", text.replace('\n', ending));
        let mut pieces = vec![HEAD.as_bytes().to_vec()];
        pieces.extend(body.into_bytes().chunks(1).map(<[u8]>::to_vec));
        let answer = ask(Act::Pieces(pieces), true).await;
        assert_eq!(shape(answer), ("九点开门😀".into(), 1, false), "{ending:?}");
    }
    // Data without blanks, in two lines, and an end without its last blank line.
    let bare = "data:{\"choices\":[{\"delta\":\ndata:{\"content\":\"好\"}}]}\n\ndata:[DONE]\n\nevent:flowResponses\ndata:[{\"id\":\"n\"}]";
    assert_eq!(shape(read(&[bare]).await), ("好".into(), 1, false));
}

#[tokio::test]
async fn a_stream_that_ends_too_early_is_ambiguous() {
    let hello = piece("answer", "您好");
    for all in [&[][..], &[&*hello], &[&*hello, NODES]] {
        check(read(all).await, ErrorClass::Ambiguous, "answer_incomplete");
    }
    // Cut inside HTTP's own framing.
    let chunked = HEAD.replace("\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n");
    let cut = |events: &str| {
        Act::WriteAndClose(format!("{chunked}{:x}\r\n{events}\r\n", events.len()).into_bytes())
    };
    check(ask(cut(&hello), true).await, ErrorClass::Ambiguous, "answer_incomplete");
    let whole = format!("{hello}{STOP}{DONE}");
    assert_eq!(shape(ask(cut(&whole), true).await), ("您好".into(), 0, false), "only the bill is missing");

    let hole = "event: answer\ndata: {\"choices\":[{\"delta\":{\"content\":\"a\n\n";
    check(read(&[hole, STOP, DONE]).await, ErrorClass::Ambiguous, "answer_unreadable");
}

#[tokio::test]
async fn an_error_in_a_stream_is_classed_in_every_shape() {
    let error = |data: &str| format!("event: error\ndata: {data}\n\n");
    let check_one = async |data: &str, class, code| {
        check(read(&[&error(data)]).await, class, code);
        // As it comes before the head of a stream was written: nothing says that it is one.
        let bare = http("200 OK", "", &error(data));
        check(ask(Act::Write(bare), true).await, class, code);
    };
    check_one(
        r#"{"code":514,"statusText":"unAuthApiKey","message":"secret words"}"#,
        ErrorClass::Refused,
        "key_refused",
    )
    .await;
    check_one(r#"{"code":500004,"statusText":"aiPointsNotEnough"}"#, ErrorClass::Quota, "points_used_up")
        .await;
    check_one(r#"{"message":"secret words"}"#, ErrorClass::Failed, "run_failed").await;
    check_one(r#""secret words""#, ErrorClass::Failed, "run_failed").await;
    check_one("secret words", ErrorClass::Failed, "run_failed").await;
    check_one(r#"{"error":{"code":"tooManyRequest"}}"#, ErrorClass::Throttled, "throttled").await;

    // What has begun was not refused, and what is whole stays whole.
    let refused = error(r#"{"code":429,"statusText":"tooManyRequest"}"#);
    check(read(&[&piece("answer", "一"), &refused]).await, ErrorClass::Failed, "run_failed");
    assert_eq!(shape(read(&[&piece("answer", "一"), STOP, DONE, &refused]).await).0, "一");
}

#[tokio::test]
async fn waiting_ends_by_silence_by_the_time_of_the_call_and_soon_after_the_end() {
    let patience = Patience {
        silence: Duration::from_millis(400),
        bill: Duration::from_millis(50),
        close: Duration::from_millis(50),
        ..Patience::default()
    };
    let asked = async |act, patience, timeout| {
        let server = Server::start([act]).await;
        let ask = Ask { timeout, ..question(true) };
        client_with(Some(&server.endpoint), patience).ask(&app(), &ask).await
    };
    let long = Duration::from_secs(20);
    let hello = piece("answer", "您好");
    let silent = Act::WriteAndHang(events(&[&hello]));
    check(asked(silent, patience, long).await, ErrorClass::Ambiguous, "silence");

    // A heartbeat keeps a call alive, and not for ever.
    let beat = piece("answer", "").into_bytes();
    let endless = Act::WriteAndRepeat(events(&[&hello]), beat.clone(), Duration::from_millis(20));
    check(asked(endless, patience, Duration::from_millis(900)).await, ErrorClass::Ambiguous, "timeout");
    for head in ["", "HTTP/1.1 200 OK\r\n"] {
        let hangs = Act::WriteAndHang(head.into());
        let answer = asked(hangs, patience, Duration::from_millis(300)).await;
        check(answer, ErrorClass::Ambiguous, "timeout");
    }

    for ending in [&[STOP, DONE][..], &[STOP, DONE, NODES]] {
        let whole = events(&[&[&*hello], ending].concat());
        assert_eq!(shape(asked(Act::WriteAndHang(whole.clone()), patience, long).await).0, "您好");
        let trickles = Act::WriteAndRepeat(whole, beat.clone(), Duration::from_millis(20));
        assert_eq!(shape(asked(trickles, patience, Duration::from_millis(900)).await).0, "您好");
    }
}

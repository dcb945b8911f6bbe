//! A far end that means harm, or is broken beyond what HTTP and JSON allow.
//!
//! Whatever it writes, the call ends in time, takes little memory, goes out once, and is classed by what it proves: a
//! request that was written and not answered by a plain "no" is `ambiguous`.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// Short, where it is the call's limit that has to end it.
const BRIEF: Timeouts = Timeouts {
    connect: Duration::from_secs(5),
    text: Duration::from_millis(400),
    media: Duration::from_millis(400),
};

/// What a call came to, in one line.
type Verdict = Result<String, (ErrorClass, &'static str)>;

fn verdict(outcome: Result<Sent, SendError>) -> Verdict {
    outcome.map(|sent| sent.new_msg_id).map_err(|error| (error.class, error.code))
}

fn sent(id: &str) -> Verdict {
    Ok(id.to_owned())
}

fn ambiguous(code: &'static str) -> Verdict {
    Err((ErrorClass::Ambiguous, code))
}

fn refused(code: &'static str) -> Verdict {
    Err((ErrorClass::Refused, code))
}

/// Sends one message to a far end that answers with these bytes and closes. The request must come once.
async fn verdict_on(answer: &[u8]) -> Verdict {
    let far = Far::start(Habit::Answers(answer.to_vec())).await;
    let found = verdict(send(&client(&far.base_url)).await);
    assert_eq!(
        (far.requests(), far.connections()),
        (1, 1),
        "{}",
        String::from_utf8_lossy(&answer[..answer.len().min(200)])
    );
    found
}

/// The same, with a right frame of HTTP around the body.
async fn verdict_on_body(status: &str, body: &[u8]) -> Verdict {
    let mut answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend(body);
    verdict_on(&answer).await
}

/// What the far end does with a connection.
#[derive(Clone)]
enum Habit {
    /// Reads the request, writes these bytes and closes.
    Answers(Vec<u8>),
    /// Reads the request, writes the first bytes, and then the second for as long as the client takes them.
    Floods(Vec<u8>, Vec<u8>, Duration),
    /// Writes these bytes before it reads anything, and closes without having read.
    AnswersUnasked(Vec<u8>),
    /// Takes the connection and reads nothing, ever.
    Deaf,
}

struct Far {
    base_url: String,
    requests: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
    written: Arc<AtomicUsize>,
    closed: Arc<AtomicUsize>,
}

impl Far {
    async fn start(habit: Habit) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let far = Self {
            base_url: format!("http://{}/gewe/v2/api", listener.local_addr().unwrap()),
            requests: Arc::default(),
            connections: Arc::default(),
            written: Arc::default(),
            closed: Arc::default(),
        };
        let (requests, connections, written, closed) = (
            Arc::clone(&far.requests),
            Arc::clone(&far.connections),
            Arc::clone(&far.written),
            Arc::clone(&far.closed),
        );
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::Relaxed);
                let behaving = behave(stream, habit.clone(), Arc::clone(&requests), Arc::clone(&written));
                let closed = Arc::clone(&closed);
                tokio::spawn(async move {
                    behaving.await;
                    closed.fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        far
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn behave(mut stream: TcpStream, habit: Habit, requests: Arc<AtomicUsize>, written: Arc<AtomicUsize>) {
    match habit {
        Habit::AnswersUnasked(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
            // Counts what was written to it all the same.
            if read_request(&mut stream).await.is_some() {
                requests.fetch_add(1, Ordering::Relaxed);
            }
        }
        Habit::Deaf => std::future::pending().await,
        Habit::Answers(bytes) => {
            while read_request(&mut stream).await.is_some() {
                requests.fetch_add(1, Ordering::Relaxed);
                let _ = stream.write_all(&bytes).await;
                let _ = stream.shutdown().await;
            }
        }
        Habit::Floods(start, piece, pause) => {
            if read_request(&mut stream).await.is_none() {
                return;
            }
            requests.fetch_add(1, Ordering::Relaxed);
            let _ = stream.write_all(&start).await;
            while stream.write_all(&piece).await.is_ok() {
                written.fetch_add(piece.len(), Ordering::Relaxed);
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_frame_that_is_not_http_proves_nothing() {
    let body = format!("Content-Length: {}\r\n\r\n{SENT}", SENT.len());
    let long = |bytes: usize| "x".repeat(bytes);
    let headers: String = (0..5000).map(|n| format!("X-{n}: {n}\r\n")).collect();
    let cases = [
        format!("HTTP/1.1 abc OK\r\n{body}"),
        format!("HTTP/1.1 20 OK\r\n{body}"),
        format!("HTTP/1.1 2000 OK\r\n{body}"),
        format!("HTTP/9.9 200 OK\r\n{body}"),
        format!("ICY 200 OK\r\n{body}"),
        format!("\0\0\0 200 OK\r\n{body}"),
        SENT.to_owned(),
        "\r\n\r\n".repeat(10),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0".to_owned(),
        format!("HTTP/1.1 200 {}\r\n{body}", long(1 << 20)),
        format!("HTTP/1.1 200 OK\r\n{headers}{body}"),
        format!("HTTP/1.1 200 OK\r\nX: {}\r\n{body}", long(1 << 20)),
        format!("HTTP/1.1 200 OK\r\n{}: x\r\n{body}", long(1 << 20)),
        format!("HTTP/1.1 200 OK\r\nno colon\r\n{body}"),
        format!("HTTP/1.1 200 OK\r\nX: a\0b\r\n{body}"),
        format!("HTTP/1.1 200 OK\r\n: nameless\r\n{body}"),
        format!("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n{body}"),
        format!("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{SENT}"),
        format!("HTTP/1.1 200 OK\r\nContent-Length: +170\r\n\r\n{SENT}"),
        format!("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n{SENT}"),
        format!("HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n{SENT}"),
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: cunked\r\n{body}"),
    ];
    for answer in cases {
        let found = verdict_on(answer.as_bytes()).await;
        // Some of it reads as a body that lasts until the connection closes, and then holds no answer either.
        let classed = found.as_ref().err().map(|(class, _)| *class);
        assert!(
            classed == Some(ErrorClass::Ambiguous)
                || found == sent("7300000000000000011") && answer.contains("cunked"),
            "{found:?} for {}",
            &answer[..answer.len().min(100)]
        );
    }
}

#[tokio::test]
async fn a_length_that_is_wrong_is_never_half_an_answer_taken_for_a_whole() {
    let with_length = |length: usize| format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{SENT}");
    assert_eq!(verdict_on(with_length(SENT.len() + 1).as_bytes()).await, ambiguous("answer_incomplete"));
    assert_eq!(verdict_on(with_length(usize::MAX).as_bytes()).await, ambiguous("connection_lost"));
    assert_eq!(verdict_on(with_length(SENT.len() - 1).as_bytes()).await, ambiguous("answer_unreadable"));
    assert_eq!(verdict_on(with_length(0).as_bytes()).await, ambiguous("answer_unreadable"));
    let chunked = |chunks: &str| format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
    let whole = format!("{:x}\r\n{SENT}\r\n", SENT.len());
    assert_eq!(
        verdict_on(chunked(&format!("{whole}0\r\n\r\n")).as_bytes()).await,
        sent("7300000000000000011")
    );
    let long = "x".repeat(1 << 20);
    for chunks in [
        whole.clone(),
        format!("{whole}0\r\n"),
        format!("{whole}zz\r\n"),
        "zz\r\n".to_owned(),
        "-1\r\n".to_owned(),
        "\r\n".to_owned(),
        format!("FFFFFFFFFFFFFFFFFF\r\n{SENT}"),
        format!("FFFFFFFFFFFFFFF\r\n{SENT}"),
        format!("{:x}\r\n{SENT}no end of line", SENT.len()),
        format!("1;{long}\r\n{{\r\n{whole}"),
        format!("{whole}0\r\nX: {long}\r\n\r\n"),
    ] {
        let found = verdict_on(chunked(&chunks).as_bytes()).await;
        assert_eq!(found, ambiguous("answer_incomplete"), "{}", &chunks[..chunks.len().min(100)]);
    }
}

#[tokio::test]
async fn interim_answers_and_answers_without_a_body_are_no_proof() {
    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(20);
    let right = format!("{interim}{}", http("200 OK", SENT));
    assert_eq!(verdict_on(right.as_bytes()).await, sent("7300000000000000011"));
    assert_eq!(verdict_on(interim.as_bytes()).await, ambiguous("connection_lost"));
    for status in ["204 No Content", "205 Reset Content"] {
        let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n\r\n");
        assert_eq!(verdict_on(head.as_bytes()).await, ambiguous("answer_unreadable"), "{status}");
    }
    let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n";
    let (class, _) = verdict_on(head.as_bytes()).await.unwrap_err();
    assert_eq!(class, ErrorClass::Ambiguous);
    assert_eq!(verdict_on(b"HTTP/1.1 304 Not Modified\r\n\r\n").await, ambiguous("http_redirect"));
    assert_eq!(
        verdict_on(b"HTTP/1.1 999 \r\nContent-Length: 0\r\n\r\n").await,
        ambiguous("http_server_error")
    );
    assert_eq!(
        verdict_on(format!("HTTP/1.0 200 OK\r\n\r\n{SENT}").as_bytes()).await,
        sent("7300000000000000011")
    );
}

#[tokio::test]
async fn whatever_never_ends_is_cut_off_at_the_calls_limit() {
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    let slow = Duration::from_millis(5);
    let cases: [(&str, Vec<u8>, &[u8], Duration); 6] = [
        ("a drip of blanks", head.clone(), b"1\r\n \r\n", slow),
        ("a drip inside a chunk", [head, b"FFFFF\r\n".to_vec()].concat(), b" ", slow),
        ("a drip of interim answers", Vec::new(), b"HTTP/1.1 100 Continue\r\n\r\n", slow),
        ("a flood of interim answers", Vec::new(), b"HTTP/1.1 100 Continue\r\n\r\n", Duration::ZERO),
        ("a drip of a status line", b"HTTP/1.1 200 ".to_vec(), b"x", slow),
        ("a drip of headers", b"HTTP/1.1 200 OK\r\n".to_vec(), b"X: y\r\n", slow),
    ];
    for (what, start, piece, pause) in cases {
        let far = Far::start(Habit::Floods(start, piece.to_vec(), pause)).await;
        let begun = Instant::now();
        let (class, code) = verdict(send(&client_with(&far.base_url, BRIEF).unwrap()).await).unwrap_err();
        assert_eq!(class, ErrorClass::Ambiguous, "{what}: {code}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
        assert_eq!(far.requests(), 1, "{what}");
    }
}

#[tokio::test]
async fn a_flood_is_cut_off_long_before_it_fills_the_memory() {
    let ok = "HTTP/1.1 200 OK\r\n";
    let cases: [(&str, String, &[u8]); 5] = [
        ("a header without end", format!("{ok}X: "), &[b'x'; 16 * 1024]),
        ("headers without end", ok.to_owned(), b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n"),
        ("a status line without end", "HTTP/1.1 200 ".to_owned(), &[b'x'; 16 * 1024]),
        ("garbage without end", format!("{ok}Content-Length: 10737418240\r\n\r\n"), &[0xff; 16 * 1024]),
        ("valid JSON without end", format!("{ok}\r\n{{\"ret\":200,\"data\":["), &[b'0'; 16 * 1024]),
    ];
    for (what, start, piece) in cases {
        let far = Far::start(Habit::Floods(start.into_bytes(), piece.to_vec(), Duration::ZERO)).await;
        let begun = Instant::now();
        let (class, code) = verdict(send(&client(&far.base_url)).await).unwrap_err();
        assert_eq!(class, ErrorClass::Ambiguous, "{what}: {code}");
        assert!(begun.elapsed() < Duration::from_secs(15), "{what} was ended by the timeout only");
        // What it got rid of had to fit into the client's limit and the buffers of the two sockets.
        assert!(far.written.load(Ordering::Relaxed) < 32 * 1024 * 1024, "{what}");
    }
}

#[tokio::test]
async fn an_answer_that_comes_before_the_request_is_judged_by_whether_the_request_left() {
    let refusal = http("200 OK", r#"{"ret":500,"msg":"失败"}"#);
    for answer in
        [http("200 OK", SENT), http("408 Request Timeout", ""), refusal, String::new(), "\0".repeat(64)]
    {
        for _ in 0..20 {
            let far = Far::start(Habit::AnswersUnasked(answer.clone().into_bytes())).await;
            let client = client(&far.base_url);
            let found = verdict(send(&client).await);
            drop(client);
            let begun = Instant::now();
            while far.closed.load(Ordering::Relaxed) < far.connections() && begun.elapsed().as_secs() < 10 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let requests = far.requests();
            match found {
                Err((ErrorClass::NotSent, _)) => assert_eq!(requests, 0, "{answer}"),
                // It was written, and what had been lying there reads as its answer.
                Ok(_) | Err((ErrorClass::Ambiguous | ErrorClass::Refused, _)) => assert!(requests <= 1),
                other => panic!("{other:?} for {answer}"),
            }
        }
    }
}

#[tokio::test]
async fn a_far_end_that_never_reads_is_a_timeout_of_unknown_outcome() {
    let far = Far::start(Habit::Deaf).await;
    let text = "熵".repeat(2000);
    let text = serde_json::from_value(json!({"kind": "text", "text": text})).unwrap();
    let client = client_with(&far.base_url, BRIEF).unwrap();
    assert_eq!(verdict(send_message(&client, &text).await), ambiguous("timeout"));
}

#[tokio::test]
async fn what_is_left_over_of_one_answer_is_not_taken_for_the_next_ones() {
    let other = SENT.replace("7300000000000000011", "7300000000000000099");
    let doubled = format!("{}{}", http("200 OK", SENT), http("200 OK", SENT));
    let server = Server::start([Act::Write(doubled), Act::Write(http("200 OK", &other))]).await;
    let client = server.client();
    assert_eq!(verdict(send(&client).await), sent("7300000000000000011"));
    assert_eq!(verdict(send(&client).await), sent("7300000000000000099"));
    assert_eq!(
        (server.requests().len(), server.connections()),
        (2, 2),
        "a connection that says too much is left"
    );
}

#[tokio::test]
async fn no_redirect_is_followed_wherever_it_points() {
    let trap = Far::start(Habit::Answers(http("200 OK", SENT).into_bytes())).await;
    let trap_host = trap.base_url.trim_start_matches("http://").trim_end_matches("/gewe/v2/api").to_owned();
    let locations = [
        format!("http://{trap_host}/gewe/v2/api/message/postText"),
        format!("//{trap_host}/"),
        format!("http://127.1:{}/", trap_host.rsplit(':').next().unwrap()),
        "/gewe/v2/api/message/postText".to_owned(),
        "?again".to_owned(),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "http://10.0.0.1/".to_owned(),
        "http://[::1]/".to_owned(),
        "file:///etc/passwd".to_owned(),
        "gopher://127.0.0.1:6379/_FLUSHALL".to_owned(),
        "not a url at all \u{1}".to_owned(),
    ];
    for status in [300, 301, 302, 303, 305, 307, 308] {
        for location in &locations {
            // With the answer of a success, and of a refusal, in the body: who redirects is not GeWe.
            for body in ["", SENT, r#"{"ret":500,"msg":"失败"}"#] {
                let answer = format!(
                    "HTTP/1.1 {status} Elsewhere\r\nLocation: {}\r\nRefresh: 0;url={}\r\nContent-Length: {}\r\n\r\n{body}",
                    location.replace('\u{1}', ""),
                    location.replace('\u{1}', ""),
                    body.len()
                );
                assert_eq!(
                    verdict_on(answer.as_bytes()).await,
                    ambiguous("http_redirect"),
                    "{status} {location} {body}"
                );
            }
        }
    }
    assert_eq!(trap.connections(), 0, "nobody came");
}

#[tokio::test]
async fn nothing_is_decoded_that_was_not_asked_for() {
    // A frame of gzip whose one stored block is the right answer, by hand.
    let length = SENT.len() as u16;
    let mut gzip = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1];
    gzip.extend(length.to_le_bytes());
    gzip.extend((!length).to_le_bytes());
    gzip.extend(SENT.as_bytes());
    for encoding in ["gzip", "deflate", "br", "zstd", "gzip, gzip"] {
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: {}\r\n\r\n",
            gzip.len()
        );
        let answer = [head.into_bytes(), gzip.clone()].concat();
        assert_eq!(verdict_on(&answer).await, ambiguous("answer_unreadable"), "{encoding}");
    }
    let server = Server::start([ok(SENT)]).await;
    send(&server.client()).await.unwrap();
    assert_eq!(header(&server.requests()[0].head, "accept-encoding"), None);
    // A label without the thing does no harm.
    let labelled =
        format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Type: image/gif\r\n\r\n{SENT}");
    assert_eq!(verdict_on(labelled.as_bytes()).await, sent("7300000000000000011"));
}

#[tokio::test]
async fn an_envelope_counts_for_what_it_proves() {
    let id = "7300000000000000011";
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let long_digits = "7".repeat(100_000);
    let cases: Vec<(String, Verdict)> = vec![
        // The status, in and out of its type.
        (r#"{"ret":"200","data":{"newMsgId":5}}"#.into(), sent("5")),
        (r#"{"ret":200.0,"data":{"newMsgId":5}}"#.into(), ambiguous("answer_unreadable")),
        (r#"{"ret":true,"data":{"newMsgId":5}}"#.into(), ambiguous("answer_unreadable")),
        (r#"{"ret":[200],"data":{"newMsgId":5}}"#.into(), ambiguous("answer_unreadable")),
        (r#"{"ret":20000000000000000000,"data":{"newMsgId":5}}"#.into(), ambiguous("answer_unreadable")),
        (r#"{"ret":1e999,"data":{"newMsgId":5}}"#.into(), ambiguous("answer_unreadable")),
        (r#"{"RET":200,"data":{"newMsgId":5}}"#.into(), ambiguous("answer_unreadable")),
        // Said twice, and not the same: nobody knows which holds.
        (r#"{"ret":500,"ret":200,"data":{"newMsgId":5}}"#.into(), ambiguous("answer_unreadable")),
        (
            r#"{"ret":200,"data":{"newMsgId":5},"ret":500,"msg":"失败"}"#.into(),
            ambiguous("answer_unreadable"),
        ),
        (r#"{"ret":200,"data":{"newMsgId":5},"data":null}"#.into(), ambiguous("answer_unreadable")),
        (r#"{"ret":200,"data":{"newMsgId":5,"newMsgId":6}}"#.into(), ambiguous("answer_unreadable")),
        // The id, at and beyond the edges of 64 bits.
        (r#"{"ret":200,"data":{"newMsgId":18446744073709551615}}"#.into(), sent("18446744073709551615")),
        (r#"{"ret":200,"data":{"newMsgId":18446744073709551616}}"#.into(), ambiguous("no_message_id")),
        (r#"{"ret":200,"data":{"newMsgId":"18446744073709551616"}}"#.into(), ambiguous("no_message_id")),
        (r#"{"ret":200,"data":{"newMsgId":-9223372036854775808}}"#.into(), sent("-9223372036854775808")),
        (r#"{"ret":200,"data":{"newMsgId":"-9223372036854775809"}}"#.into(), ambiguous("no_message_id")),
        (r#"{"ret":200,"data":{"newMsgId":7.5}}"#.into(), ambiguous("no_message_id")),
        (r#"{"ret":200,"data":{"newMsgId":"7e18"}}"#.into(), ambiguous("no_message_id")),
        (r#"{"ret":200,"data":{"newMsgId":" 73\n"}}"#.into(), sent("73")),
        (r#"{"ret":200,"data":{"newMsgId":"00"}}"#.into(), ambiguous("no_message_id")),
        (r#"{"ret":200,"data":{"newMsgId":-0}}"#.into(), ambiguous("no_message_id")),
        (r#"{"ret":200,"data":{"newMsgId":true}}"#.into(), ambiguous("no_message_id")),
        (r#"{"ret":200,"data":{"newMsgId":{"a":1}}}"#.into(), ambiguous("no_message_id")),
        (r#"{"ret":200,"data":{"newMsgId":"null"}}"#.into(), ambiguous("no_message_id")),
        (r#"{"ret":200,"data":{"newMsgId":"٧٣"}}"#.into(), ambiguous("no_message_id")),
        (format!(r#"{{"ret":200,"data":{{"newMsgId":"{long_digits}"}}}}"#), ambiguous("no_message_id")),
        (format!(r#"{{"ret":200,"data":{{"newMsgId":{long_digits}}}}}"#), ambiguous("answer_unreadable")),
        // Postgres takes no NUL into a text: an id with one would make the record refuse the outcome.
        (r#"{"ret":200,"data":{"newMsgId":"73\u000000"}}"#.into(), ambiguous("no_message_id")),
        (
            format!(r#"{{"ret":200,"data":{{"newMsgId":{id},"msgId":"\u0000","createTime":"\u0000"}}}}"#),
            sent(id),
        ),
        (
            format!(
                r#"{{"ret":200,"data":{{"newMsgId":{id},"msgId":1e99,"createTime":18446744073709551615}}}}"#
            ),
            sent(id),
        ),
        // The rest of the envelope.
        (r#"{"ret":200,"data":null}"#.into(), ambiguous("no_message_id")),
        (r#"{"ret":200,"data":"ok"}"#.into(), ambiguous("no_message_id")),
        (r#"{"ret":200,"data":[{"newMsgId":5}]}"#.into(), ambiguous("no_message_id")),
        (r#"{"ret":200,"data":{"data":{"newMsgId":5}}}"#.into(), ambiguous("no_message_id")),
        (r#"[{"ret":200,"data":{"newMsgId":5}}]"#.into(), ambiguous("answer_unreadable")),
        (format!("{SENT}{SENT}"), ambiguous("answer_unreadable")),
        (format!("{SENT}\0"), ambiguous("answer_unreadable")),
        (format!("\u{feff}{SENT}"), ambiguous("answer_unreadable")),
        (r#"{"ret":200,"msg":"\ud800","data":{"newMsgId":5}}"#.into(), ambiguous("answer_unreadable")),
        // Depth: what is not needed is passed over, and what is needed is not deep.
        (deep.clone(), ambiguous("answer_unreadable")),
        (format!(r#"{{"ret":200,"data":{deep}}}"#), ambiguous("no_message_id")),
        (format!(r#"{{"ret":200,"more":{deep},"data":{{"newMsgId":{id}}}}}"#), sent(id)),
        ("{\"ret\":".repeat(10_000), ambiguous("answer_unreadable")),
        (format!(r#"{{"ret":500,"data":{{"detail":"{}"}}}}"#, "[".repeat(10_000)), refused("refused")),
        // GeWe says no, in words that are no help, too long, or unfit for a text.
        (r#"{"ret":500,"msg":null,"data":[]}"#.into(), refused("refused")),
        (format!(r#"{{"ret":500,"msg":"{}"}}"#, "熵".repeat(200_000)), refused("refused")),
        (r#"{"ret":500,"msg":"\u0000\u0000"}"#.into(), refused("refused")),
    ];
    for (body, expected) in cases {
        let shown: String = body.chars().take(120).collect();
        assert_eq!(verdict_on_body("200 OK", body.as_bytes()).await, expected, "{shown}");
    }
    let invalid = b"{\"ret\":500,\"msg\":\"\xff\xfe\"}";
    assert_eq!(verdict_on_body("200 OK", invalid).await, ambiguous("answer_unreadable"));
}

#[tokio::test]
async fn a_no_that_is_not_gewes_own_or_not_about_the_message_proves_nothing() {
    let refusal = r#"{"ret":500,"msg":"发送消息失败","data":{"code":"-1","msg":null}}"#;
    for status in ["502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout"] {
        assert_eq!(
            verdict_on_body(status, refusal.as_bytes()).await,
            ambiguous("http_server_error"),
            "{status}"
        );
    }
    let timeout = verdict_on_body("408 Request Timeout", refusal.as_bytes()).await;
    assert_eq!(timeout, ambiguous("http_client_error"));
    assert_eq!(verdict_on_body("500 Internal Server Error", refusal.as_bytes()).await, refused("refused"));
    for said in [
        r#""msg":"发送消息失败","data":{"code":"-1","msg":"Post \"http://10.0.0.7/api\": EOF"}"#,
        r#""msg":"发送消息失败","data":{"code":"-1","msg":"unexpected EOF"}"#,
        r#""msg":"发送消息失败","data":{"code":"-1","msg":"exceeded maximum retries"}"#,
        r#""msg":"发送消息失败","data":{"msg":"invalid character '<' looking for beginning of value"}"#,
        r#""msg":"context deadline exceeded (Client.Timeout exceeded while awaiting headers)""#,
        r#""msg":"read tcp 10.0.0.7:80: read: connection reset by peer""#,
        r#""msg":"Read timed out""#,
        r#""msg":"请求超时""#,
    ] {
        let body = format!(r#"{{"ret":500,{said}}}"#);
        assert_eq!(verdict_on_body("200 OK", body.as_bytes()).await, ambiguous("upstream_lost"), "{said}");
    }
    for ret in [408, 502, 503, 504] {
        let body = format!(r#"{{"ret":{ret},"msg":"?"}}"#);
        assert_eq!(verdict_on_body("200 OK", body.as_bytes()).await, ambiguous("upstream_lost"), "{ret}");
    }
}

#[tokio::test]
async fn nothing_of_a_hostile_answer_is_printed_and_its_detail_is_short_and_clean() {
    let echo = format!("{TOKEN}\\u0000\\r\\nsecret words").repeat(3000);
    for (status, body) in [
        ("200 OK", format!(r#"{{"ret":500,"msg":"失败","data":{{"echo":"{echo}"}}}}"#)),
        ("200 OK", echo.clone()),
        ("502 Bad Gateway", echo.replace("\\u0000", "\0")),
        ("302 Found", echo.clone()),
        ("200 OK", format!("{}{echo}", "x".repeat(2 << 20))),
    ] {
        let error =
            send(&Far::client_of(Habit::Answers(http(status, &body).into_bytes())).await).await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("secret words"), "{error:?}");
        assert!(!format!("{error} {error:?}").contains(TOKEN), "{error:?}");
        let detail = error.detail.unwrap();
        assert!(
            detail.chars().count() <= 500 && !detail.contains(TOKEN) && !detail.contains(char::is_control),
            "{detail}"
        );
    }
}

#[tokio::test]
async fn the_question_whether_an_account_is_online_takes_only_a_plain_yes_for_one() {
    let frame = |body: &str| http("200 OK", body).into_bytes();
    let yes = r#"{"ret":200,"data":true}"#;
    let client = Far::client_of(Habit::Answers(frame(yes))).await;
    assert_eq!(client.check_online(&device(), "t").await, Ok(true));
    for body in [
        r#"{"ret":200,"data":1}"#,
        r#"{"ret":200,"data":"true"}"#,
        r#"{"ret":200,"data":[true]}"#,
        r#"{"ret":200,"data":{"data":true}}"#,
        r#"{"ret":500,"data":true}"#,
        r#"{"ret":200,"data":false,"data":true}"#,
        r#"{"data":true}"#,
        "true",
        "",
    ] {
        let client = Far::client_of(Habit::Answers(frame(body))).await;
        assert!(client.check_online(&device(), "t").await.is_err(), "{body}");
    }
    for answer in [http("500 Oops", yes), http("302 Found", yes), http("503 Busy", yes), "\0".to_owned()] {
        let client = Far::client_of(Habit::Answers(answer.clone().into_bytes())).await;
        assert!(client.check_online(&device(), "t").await.is_err(), "{answer}");
    }
}

impl Far {
    /// A client of a far end of this habit, which goes on in the background.
    async fn client_of(habit: Habit) -> GeweClient {
        client(&Self::start(habit).await.base_url)
    }
}

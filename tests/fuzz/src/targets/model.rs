//! What the host of a model answers.

use entropy_jobs::ai::port::{AiError, Answer, ErrorClass};
use entropy_jobs::ai::usage;
use entropy_workers::adapters::fastgpt::fuzzing::read_answer;
use serde_json::Value;

use super::{assert_is_a_short_line, head_and_rest};

/// A status in the first line, perhaps with `cut`, then the body of FastGPT's answer in one piece.
pub fn fastgpt_answer(bytes: &[u8]) {
    let (head, body) = head_and_rest(bytes);
    let status = head.split(' ').next().and_then(|status| status.parse().ok()).unwrap_or(200);
    let cut = head.contains("cut");
    let Some(answer) = read_answer(status, false, &[body], cut) else { return };
    if answer.is_ok() {
        assert!((200..300).contains(&status), "an answer in an HTTP error");
    }
    look_at(&answer);
    let bytes: Vec<&[u8]> = body.chunks(1).collect();
    assert_eq!(told(&answer), told(&read_answer(status, false, &bytes, cut).expect("the same status")));
}

/// The size of the chunks in the first line, perhaps with `cut`, then FastGPT's stream of events.
pub fn fastgpt_stream(bytes: &[u8]) {
    let (head, body) = head_and_rest(bytes);
    let size = head.split(' ').next().and_then(|size| size.parse().ok()).unwrap_or(1_usize).clamp(1, 4096);
    let cut = head.contains("cut");
    let chunks: Vec<&[u8]> = body.chunks(size).collect();
    let answer = read_answer(200, true, &chunks, cut).expect("a status");
    if answer.is_ok() {
        let text = String::from_utf8_lossy(body);
        assert!(
            text.contains("[DONE]") || text.contains("finish_reason"),
            "half a stream is taken for a whole"
        );
    }
    look_at(&answer);
    assert_eq!(
        told(&answer),
        told(&read_answer(200, true, &[body], cut).expect("a status")),
        "chunks of {size}"
    );
}

/// What must hold of everything that is read.
fn look_at(answer: &Result<Answer, AiError>) {
    match answer {
        Ok(answer) => {
            assert!(answer.text.chars().count() <= 200_000);
            assert!(!answer.text.contains('\0'), "a text that cannot be stored");
            if let Some(said) = &answer.node_error {
                assert_is_a_short_line(said, 500);
            }
            answer.nodes.iter().for_each(|node| assert_is_trimmed(node, 1));
            bill(&answer.nodes);
        }
        Err(error) => {
            assert_ne!(error.class, ErrorClass::NotRun, "whoever answers was asked");
            assert_is_a_short_line(error.code, 40);
            assert_is_a_short_line(&error.message, 200);
            assert!(error.retry_after.is_none_or(|wait| (1..=3600).contains(&wait.as_secs())));
        }
    }
}

/// The bill is one that a ledger takes, whatever stands in the results.
fn bill(nodes: &[Value]) {
    let lines = usage::lines(nodes);
    assert!(lines.windows(2).all(|pair| pair[0].index < pair[1].index), "two lines in one place");
    assert_eq!(lines, usage::lines(nodes), "the same results are the same lines");
    let most = usage::points(nodes).unwrap_or_default();
    for points in lines.iter().filter_map(|line| line.points.as_ref()).chain([&most]) {
        let written = points.to_plain_string();
        let (whole, part) = written.split_once('.').unwrap_or((&written, ""));
        assert!(!written.starts_with('-') && whole.len() <= 10 && part.len() <= 10, "{written} points");
    }
    for line in &lines {
        assert!((0..=1_000_000_000).contains(&line.input_tokens), "{line:?}");
        assert!((0..=1_000_000_000).contains(&line.output_tokens), "{line:?}");
        assert!((0..=line.input_tokens).contains(&line.cached_input_tokens), "{line:?}");
        for name in [&line.name, &line.module_type, &line.model] {
            assert!(name.chars().count() <= 200 && !name.chars().any(char::is_control), "{name:?}");
        }
    }
}

/// Nothing of what the customer or the documents said is carried on.
fn assert_is_trimmed(node: &Value, depth: usize) {
    assert!(depth <= usage::MAX_DEPTH, "deeper than nodes can stand");
    for (name, value) in node.as_object().expect("a node") {
        let inner = usage::CHILDREN.contains(&name.as_str());
        match value {
            Value::String(text) => assert!(text.chars().count() <= 500 && !text.contains('\0'), "{name}"),
            Value::Array(nodes) if inner => nodes.iter().for_each(|node| assert_is_trimmed(node, depth + 1)),
            Value::Object(fields) => {
                assert!(!fields.values().any(|value| value.is_object() || value.is_array()))
            }
            Value::Array(_) | Value::Null => panic!("{name} is kept"),
            Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

/// An answer as far as two readings of it must agree.
fn told(answer: &Result<Answer, AiError>) -> String {
    match answer {
        Ok(answer) => {
            format!("{} {:?} {} {:?}", answer.text, answer.nodes, answer.interactive, answer.node_error)
        }
        Err(error) => format!("{error} {:?}", error.retry_after),
    }
}

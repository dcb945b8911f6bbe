//! How answers look: the envelope, the object, the stream.
//!
//! A stream is a list of [`Step`]s made beforehand, so that what is sent in which order is a pure
//! function of the run and its version.

use std::time::Duration;

use poem::Response;
use poem::http::StatusCode;
use serde_json::{Value, json};

use super::Profile;
use super::keys::Refused;
use super::scripts::Fail;

/// Characters of a piece, unless a script says otherwise.
const CHUNK: usize = 12;

/// How long a hanging run keeps its client.
const HANG: Duration = Duration::from_secs(600);

/// What a run says, whatever its form.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    pub(crate) chat_id: String,
    pub(crate) answer: String,
    pub(crate) reasoning: Option<String>,
    pub(crate) interactive: Option<Value>,
    pub(crate) tools: bool,
    pub(crate) array: bool,
    pub(crate) fast: bool,
    pub(crate) nodes: Vec<Value>,
    pub(crate) variables: Value,
    pub(crate) profile: Profile,
    pub(crate) detail: bool,
    pub(crate) is_v2: bool,
    pub(crate) delay: Duration,
    pub(crate) chunk: Duration,
    pub(crate) chunk_chars: Option<usize>,
    pub(crate) fail: Option<Fail>,
    /// What an `error` in the middle says.
    pub(crate) refused: Refused,
}

/// One step of a stream.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    Wait(Duration),
    Send(String),
    /// The round is in the records from here on.
    Save,
    /// The connection breaks.
    Cut,
    /// The body ends in good order.
    End,
}

/// The envelope of the management routes.
pub(crate) fn envelope(data: Value) -> Response {
    let body = json!({ "code": 200, "statusText": "", "message": "", "data": data });
    Response::builder().content_type("application/json; charset=utf-8").body(body.to_string())
}

/// Says no: an envelope with HTTP 500, or the only event of a stream.
pub(crate) fn refuse(refused: &Refused, stream: bool) -> Response {
    if stream {
        // Errors before the workflow begins come before any header of a stream is set.
        return Response::builder().body(error_event(refused));
    }
    Response::builder()
        .status(StatusCode::INTERNAL_SERVER_ERROR)
        .content_type("application/json; charset=utf-8")
        .body(refused.envelope().to_string())
}

/// Says no to a call that came too soon.
pub(crate) fn refuse_haste(profile: Profile, limit: u32, seconds: u64) -> Response {
    let refused = Refused {
        code: 429,
        status_text: "tooManyRequest".to_owned(),
        message: format!(
            "Rate limit exceeded. Maximum {limit} requests per 60 seconds for this team. Please try again in {seconds} seconds."
        ),
    };
    let status = match profile {
        Profile::Main => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let builder = Response::builder().status(status).content_type("application/json; charset=utf-8");
    let builder = match profile {
        Profile::Main => builder
            .header("X-RateLimit-Limit", limit)
            .header("X-RateLimit-Remaining", 0)
            .header("X-RateLimit-Reset", seconds),
        _ => builder,
    };
    builder.body(refused.envelope().to_string())
}

impl Refused {
    pub(crate) fn envelope(&self) -> Value {
        json!({ "code": self.code, "statusText": self.status_text, "message": self.message, "data": null })
    }
}

/// The answer of a call that asked for no stream.
pub(crate) fn object(said: &Said) -> Value {
    let mut message = json!({ "role": "assistant", "content": content(said) });
    if let (false, Profile::Main, Some(reasoning)) = (said.detail, said.profile, &said.reasoning) {
        message["reasoning_content"] = json!(reasoning);
    }
    let mut object = json!({
        "id": if said.is_v2 || !said.chat_id.is_empty() { said.chat_id.as_str() } else { "sandboxChat00000000000000" },
        "model": "",
        // The same in every version: never bill from it.
        "usage": { "prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 1 },
        "choices": [{ "message": message, "finish_reason": "stop", "index": 0 }]
    });
    if said.detail {
        object["responseData"] = json!(said.nodes);
        object["newVariables"] = said.variables.clone();
    }
    if said.profile != Profile::V4_12
        && let Some(error) = said.nodes.last().and_then(|node| node.get("error"))
    {
        object["error"] = error.clone();
    }
    object
}

fn content(said: &Said) -> Value {
    let items = items(said);
    let is_plain = said.reasoning.is_none() && said.interactive.is_none() && !said.tools && !said.array;
    if said.detail && !is_plain { Value::Array(items) } else { json!(said.answer) }
}

/// The answer as the records keep it.
pub(crate) fn items(said: &Said) -> Vec<Value> {
    let text = |content: &str| json!({ "type": "text", "text": { "content": content } });
    let mut items = Vec::new();
    if let Some(reasoning) = &said.reasoning {
        items.push(json!({ "type": "reasoning", "reasoning": { "content": reasoning } }));
    }
    if said.tools {
        items.push(json!({ "type": "tool", "tools": [tool(Some("{\"stock\":3}"))] }));
    }
    if said.array {
        items.extend(said.answer.lines().map(text));
    } else if !said.answer.is_empty() || items.is_empty() {
        items.push(text(&said.answer));
    }
    if let Some(interactive) = &said.interactive {
        items.push(json!({ "type": "interactive", "interactive": interactive }));
    }
    items
}

fn tool(response: Option<&str>) -> Value {
    json!({
        "id": "call_sandbox01", "toolName": "查库存", "toolAvatar": "", "functionName": "stock",
        "params": "{\"item\":\"A1\"}", "response": response.unwrap_or_default()
    })
}

/// Lays out the stream of a run.
pub(crate) fn steps(said: &Said) -> Vec<Step> {
    let mut steps = Vec::new();
    if said.detail {
        let status = json!({ "status": "running", "name": "AI 对话" });
        steps.push(Step::Send(said.event("flowNodeStatus", &status)));
    }
    steps.push(Step::Wait(said.delay));
    if said.fail == Some(Fail::Hang) {
        steps.extend([Step::Wait(HANG), Step::Cut]);
        return steps;
    }
    let mut send = |event: &str, data: &Value| steps.push(Step::Send(said.event(event, data)));
    if let (true, Some(reasoning)) = (said.detail, &said.reasoning) {
        send("answer", &delta(json!({ "role": "assistant", "reasoning_content": reasoning }), None));
    }
    if said.detail && said.tools {
        send("toolCall", &json!({ "tool": tool(None) }));
        send("toolResponse", &json!({ "tool": { "id": "call_sandbox01", "response": "{\"stock\":3}" } }));
    }
    let pieces = said.pieces();
    let half = pieces.len().div_ceil(2);
    for (index, piece) in pieces.iter().enumerate() {
        if index == half && said.breaks_in_the_middle() {
            break;
        }
        let event = if said.fast { "fastAnswer" } else { "answer" };
        let data = delta(json!({ "role": "assistant", "content": piece }), None);
        steps.push(Step::Send(said.event(event, &data)));
        if !said.chunk.is_zero() {
            steps.push(Step::Wait(said.chunk));
        }
    }
    match said.fail {
        Some(Fail::Cut) => steps.extend([Step::Cut, Step::Save]),
        Some(Fail::EndsEarly) => steps.extend([Step::End, Step::Save]),
        Some(Fail::ErrorMidStream) => {
            steps.extend([Step::Save, Step::Send(error_event(&said.refused)), Step::End]);
        }
        _ => end_of_stream(said, &mut steps),
    }
    steps
}

fn end_of_stream(said: &Said, steps: &mut Vec<Step>) {
    let send = |event: &str, data: &Value| Step::Send(said.event(event, data));
    if said.detail {
        if let Some(interactive) = &said.interactive {
            steps.push(send("interactive", &json!({ "interactive": interactive })));
        }
        if said.is_v2 {
            steps.extend(said.nodes.iter().map(|node| send("flowNodeResponse", node)));
        }
        if said.profile != Profile::V4_8 {
            steps.push(send("workflowDuration", &json!({ "durationSeconds": 2.31 })));
        }
        steps.push(send("updateVariables", &said.variables));
    }
    steps.push(Step::Save);
    steps.push(send("answer", &delta(json!({ "role": "assistant", "content": null }), Some("stop"))));
    let done = Step::Send(said.framed("answer", "[DONE]"));
    let nodes = (said.detail && !said.is_v2).then(|| send("flowResponses", &json!(said.nodes)));
    if said.fail == Some(Fail::CutBeforeNodes) {
        if said.profile != Profile::Main {
            steps.push(done);
        }
        steps.push(Step::Cut);
        return;
    }
    match said.profile {
        Profile::Main => steps.extend(nodes.into_iter().chain([done])),
        Profile::V4_8 | Profile::V4_12 => steps.extend([done].into_iter().chain(nodes)),
    }
    steps.push(Step::End);
}

impl Said {
    fn breaks_in_the_middle(&self) -> bool {
        matches!(self.fail, Some(Fail::Cut | Fail::EndsEarly | Fail::ErrorMidStream))
    }

    fn pieces(&self) -> Vec<String> {
        if self.fast {
            return vec![self.answer.clone()];
        }
        let characters: Vec<_> = self.answer.chars().collect();
        characters.chunks(self.chunk_chars.unwrap_or(CHUNK)).map(|piece| piece.iter().collect()).collect()
    }

    /// One event; without detail only answers are sent, and without their names.
    fn event(&self, name: &str, data: &Value) -> String {
        self.framed(name, &data.to_string())
    }

    fn framed(&self, name: &str, data: &str) -> String {
        if self.detail { format!("event: {name}\ndata: {data}\n\n") } else { format!("data: {data}\n\n") }
    }

    /// The empty chunk that says that the run lives.
    pub(crate) fn heartbeat(&self) -> String {
        self.event("answer", &delta(json!({ "role": "assistant", "content": "" }), None))
    }
}

fn delta(delta: Value, finish_reason: Option<&str>) -> Value {
    json!({
        "id": "", "object": "", "created": 0, "model": "",
        "choices": [{ "delta": delta, "index": 0, "finish_reason": finish_reason }]
    })
}

/// The last event of a stream that failed, named even without detail.
fn error_event(refused: &Refused) -> String {
    let data = if refused.status_text.is_empty() {
        json!({ "message": refused.message })
    } else {
        refused.envelope()
    };
    format!("event: error\ndata: {data}\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said() -> Said {
        Said {
            chat_id: "c1".into(),
            answer: "我们九点开门，欢迎光临，期待您的到来。".into(),
            reasoning: None,
            interactive: None,
            tools: false,
            array: false,
            fast: false,
            nodes: vec![json!({"id": "n1"})],
            variables: json!({}),
            profile: Profile::V4_12,
            detail: true,
            is_v2: false,
            delay: Duration::ZERO,
            chunk: Duration::ZERO,
            chunk_chars: None,
            fail: None,
            refused: Refused::text("x"),
        }
    }

    /// The names of the events, `[DONE]` and the steps that send nothing, in order.
    fn outline(said: &Said) -> Vec<String> {
        let name = |step: &Step| match step {
            Step::Send(text) if text.contains("[DONE]") => "[DONE]".to_owned(),
            Step::Send(text) if text.contains("\"stop\"") => "stop".to_owned(),
            Step::Send(text) => {
                text.lines().next().unwrap_or_default().trim_start_matches("event: ").to_owned()
            }
            other => format!("{other:?}"),
        };
        steps(said).iter().map(name).collect()
    }

    #[test]
    fn the_nodes_report_after_done_in_older_versions_and_before_it_in_newer_ones() {
        let outline_of = |profile| outline(&Said { profile, ..said() });
        let tail = |profile| outline_of(profile).into_iter().rev().take(5).rev().collect::<Vec<_>>();
        assert_eq!(tail(Profile::V4_12), ["Save", "stop", "[DONE]", "flowResponses", "End"]);
        assert_eq!(tail(Profile::Main), ["Save", "stop", "flowResponses", "[DONE]", "End"]);
    }

    #[test]
    fn the_second_route_reports_each_node_and_not_all_at_the_end() {
        let outline = outline(&Said { is_v2: true, ..said() });
        assert!(outline.contains(&"flowNodeResponse".to_owned()));
        assert_eq!(outline[outline.len() - 2..], ["[DONE]", "End"]);
    }

    #[test]
    fn without_detail_there_are_only_unnamed_answers() {
        let steps = steps(&Said { detail: false, ..said() });
        let sent = steps.iter().filter_map(|step| match step {
            Step::Send(text) => Some(text.as_str()),
            _ => None,
        });
        let sent: Vec<_> = sent.collect();
        assert!(sent.iter().all(|text| text.starts_with("data: ")), "{sent:?}");
        assert_eq!(sent.len(), 2 + 2);
    }

    #[test]
    fn a_cut_comes_in_the_middle_and_the_run_is_saved_after_it() {
        let outline = outline(&Said { fail: Some(Fail::Cut), ..said() });
        assert_eq!(outline, ["flowNodeStatus", "Wait(0ns)", "answer", "Cut", "Save"]);
        let before_nodes = Said { fail: Some(Fail::CutBeforeNodes), profile: Profile::Main, ..said() };
        assert_eq!(super::tests::outline(&before_nodes).last().map(String::as_str), Some("Cut"));
    }

    #[test]
    fn content_is_an_array_as_soon_as_it_is_more_than_a_text() {
        assert!(object(&said())["choices"][0]["message"]["content"].is_string());
        let thought = Said { reasoning: Some("想".into()), ..said() };
        assert_eq!(object(&thought)["choices"][0]["message"]["content"][0]["type"], "reasoning");
        let plain = Said { detail: false, ..thought };
        assert!(object(&plain)["choices"][0]["message"]["content"].is_string());
        assert!(object(&plain).get("responseData").is_none());
    }
}

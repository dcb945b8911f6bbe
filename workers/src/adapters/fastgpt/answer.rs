//! The words of an answer, and the answer that comes in one piece.

use entropy_jobs::ai::usage::MAX_DEPTH;
use serde_json::Value;

use super::errors::Envelope;
use super::nodes::{self, Kept};

/// The longest text that is kept, in characters. No customer reads more, and no model writes as much.
const MAX_TEXT_CHARS: usize = 200_000;

/// The most choices of a question back that are listed.
const MAX_CHOICES: usize = 100;

/// The text for the customer, as it grows.
#[derive(Default)]
pub(super) struct Words {
    text: String,
    chars: usize,
    question: Option<String>,
}

impl Words {
    /// Appends a piece.
    pub(super) fn push(&mut self, piece: &str) {
        // Postgres takes no NUL, and no customer needs the others.
        let written = piece.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t'));
        for c in written.take(MAX_TEXT_CHARS - self.chars) {
            self.text.push(c);
            self.chars += 1;
        }
    }

    /// Appends a text of its own, on a new line.
    fn push_line(&mut self, line: &str) {
        if self.chars > 0 && !line.is_empty() {
            self.push("\n");
        }
        self.push(line);
    }

    /// Takes what a node asks the customer.
    pub(super) fn ask_back(&mut self, interactive: &Value) {
        self.question = Some(question(interactive));
    }

    /// Anything at all has come.
    pub(super) fn has_any(&self) -> bool {
        self.chars > 0 || self.question.is_some()
    }

    /// Returns the whole text, and whether it ends in a question with choices.
    pub(super) fn into_text(mut self) -> (String, bool) {
        let question = self.question.take();
        if let Some(question) = &question {
            self.push_line(question);
        }
        (self.text, question.is_some())
    }

    /// Takes the items of which a message or a record consists. Thinking and tools are passed by.
    pub(super) fn items(&mut self, items: &[Value]) {
        for item in items {
            // The newest versions name no type.
            if let Some(interactive) = item.get("interactive").filter(|interactive| interactive.is_object()) {
                self.ask_back(interactive);
            } else if let Some(text) =
                item.pointer("/text/content").or_else(|| item.get("text")).and_then(Value::as_str)
            {
                self.push_line(text);
            }
        }
    }

    /// Takes the content of a message: a text, or its items.
    pub(super) fn content(&mut self, content: &Value) {
        match content {
            Value::String(text) => self.push(text),
            Value::Array(items) => self.items(items),
            _ => {}
        }
    }
}

/// Writes a question back as text: what is asked, and the choices with a number each.
fn question(interactive: &Value) -> String {
    let mut innermost = interactive;
    for _ in 0..MAX_DEPTH {
        match innermost.pointer("/params/childrenResponse") {
            Some(inner) if inner.is_object() => innermost = inner,
            _ => break,
        }
    }
    let params = innermost.get("params").unwrap_or(innermost);
    let said = |value: &Value, field: &str| {
        value
            .get(field)
            .and_then(Value::as_str)
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    };
    let list =
        |field: &str| params.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let options = list("userSelectOptions").iter().filter_map(|option| said(option, "value"));
    let fields =
        list("inputForm").iter().filter_map(|field| said(field, "label").or_else(|| said(field, "key")));
    let choices = options.chain(fields).take(MAX_CHOICES).enumerate();
    let lines = choices.map(|(number, choice)| format!("{}. {choice}", number + 1));
    said(params, "description").into_iter().chain(lines).collect::<Vec<_>>().join("\n")
}

/// A whole answer, in whichever form it came.
pub(super) struct Whole {
    pub(super) words: Words,
    pub(super) nodes: Kept,
    pub(super) node_error: Option<String>,
}

impl Whole {
    /// Reads an answer that came in one piece. Err: it is FastGPT's word that there is none, or not FastGPT's word at all.
    pub(super) fn parse(body: &[u8]) -> Result<Whole, Option<Envelope>> {
        let body: Value = serde_json::from_slice(body).map_err(|_| None)?;
        let choice = body.pointer("/choices/0");
        let results = body.get("responseData").and_then(Value::as_array);
        if choice.is_none() && results.is_none() {
            return Err(Envelope::is_one(&body).then(|| Envelope::of(&body)));
        }
        let mut words = Words::default();
        if let Some(content) = choice.and_then(|choice| choice.pointer("/message/content")) {
            words.content(content);
        }
        let nodes = Kept::all(results.map(Vec::as_slice).unwrap_or_default());
        let top = body.get("error").and_then(nodes::error_text);
        let node_error = top.or_else(|| nodes::error_in(nodes.as_slice()));
        Ok(Whole { words, nodes, node_error })
    }
}

//! What is kept of the nodes' results.
//!
//! They repeat the question, the history and whole documents, and may be megabytes. What the cost and a diagnosis need is
//! a few numbers and names, so everything else is left behind here, at the door.

use entropy_jobs::ai::usage;
use serde_json::{Map, Value};

/// Numbers and names.
const PLAIN: [&str; 26] = [
    "id",
    "nodeId",
    "parentId",
    "moduleName",
    "moduleType",
    "runningTime",
    "totalPoints",
    "childTotalPoints",
    "model",
    "tokens",
    "inputTokens",
    "outputTokens",
    "cachedInputTokens",
    "toolCallInputTokens",
    "toolCallOutputTokens",
    "embeddingModel",
    "embeddingTokens",
    "rerankModel",
    "reRankInputTokens",
    "extensionModel",
    "extensionTokens",
    "finishReason",
    "maxToken",
    "contextTotalLen",
    "searchMode",
    "toolStop",
];

/// Numbers and names one step further in.
const INNER: [&str; 3] = ["queryExtensionResult", "deepSearchResult", "compressTextAgent"];

/// Their fields.
const INNER_PLAIN: [&str; 5] = ["model", "inputTokens", "outputTokens", "cachedInputTokens", "totalPoints"];

/// Where a node says what went wrong.
const ERRORS: [&str; 2] = ["error", "errorText"];

/// The most nodes that are kept of a run, inner ones included. FastGPT runs at most 500 per call.
const MAX_NODES: usize = 2000;

/// The longest text that is kept of a node, in characters.
const MAX_TEXT_CHARS: usize = 500;

/// The results of a run's nodes, trimmed.
#[derive(Default)]
pub(super) struct Kept {
    nodes: Vec<Value>,
    count: usize,
}

impl Kept {
    /// Trims and keeps all of a list.
    pub(super) fn all(results: &[Value]) -> Kept {
        let mut kept = Kept::default();
        results.iter().for_each(|result| kept.add(result));
        kept
    }

    /// Trims and keeps one node's result.
    pub(super) fn add(&mut self, result: &Value) {
        if let Some(node) = trimmed(result, 1, &mut self.count) {
            self.nodes.push(node);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub(super) fn as_slice(&self) -> &[Value] {
        &self.nodes
    }

    pub(super) fn into_vec(self) -> Vec<Value> {
        self.nodes
    }
}

/// Returns what the last node that failed said, among the trimmed results.
pub(super) fn error_in(nodes: &[Value]) -> Option<String> {
    nodes.iter().rev().find_map(|node| {
        let own = ERRORS.iter().find_map(|field| node.get(field)?.as_str());
        own.map(str::to_owned)
            .or_else(|| usage::CHILDREN.iter().find_map(|field| error_in(node.get(field)?.as_array()?)))
    })
}

/// Returns the words of an error, which may be a text or an object around one.
pub(super) fn error_text(error: &Value) -> Option<String> {
    let words = match error {
        Value::String(text) => Some(text.as_str()),
        Value::Object(fields) => ["message", "errorText", "error", "msg", "system_error_text", "code"]
            .iter()
            .find_map(|field| fields.get(*field)?.as_str()),
        _ => None,
    };
    match words.map(plain_text) {
        Some(text) if !text.is_empty() => Some(text),
        // An error is an error, whatever it looks like; only its absence may look like nothing.
        _ if matches!(error, Value::Object(fields) if !fields.is_empty()) => Some("error".to_owned()),
        _ => None,
    }
}

fn trimmed(result: &Value, depth: usize, count: &mut usize) -> Option<Value> {
    let fields = result.as_object()?;
    if *count >= MAX_NODES {
        return None;
    }
    *count += 1;
    let mut kept = Map::new();
    copy(fields, &PLAIN, &mut kept);
    for name in INNER {
        if let Some(inner) = fields.get(name).and_then(Value::as_object) {
            let mut numbers = Map::new();
            copy(inner, &INNER_PLAIN, &mut numbers);
            kept.insert(name.to_owned(), numbers.into());
        }
    }
    for name in ERRORS {
        if let Some(text) = fields.get(name).and_then(error_text) {
            kept.insert(name.to_owned(), text.into());
        }
    }
    if depth < usage::MAX_DEPTH {
        for name in usage::CHILDREN {
            if let Some(inner) = fields.get(name).and_then(Value::as_array).filter(|inner| !inner.is_empty())
            {
                let inner: Vec<Value> =
                    inner.iter().filter_map(|node| trimmed(node, depth + 1, count)).collect();
                kept.insert(name.to_owned(), inner.into());
            }
        }
    }
    Some(kept.into())
}

fn copy(from: &Map<String, Value>, names: &[&str], to: &mut Map<String, Value>) {
    for name in names {
        let value = match from.get(*name) {
            Some(value @ (Value::Number(_) | Value::Bool(_))) => value.clone(),
            Some(Value::String(text)) => plain_text(text).into(),
            _ => continue,
        };
        to.insert((*name).to_owned(), value);
    }
}

/// One line of bounded length. Postgres refuses NUL in a text, and a failed write of an outcome would lose it.
fn plain_text(text: &str) -> String {
    let line: String =
        text.chars().take(MAX_TEXT_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect();
    line.trim().to_owned()
}

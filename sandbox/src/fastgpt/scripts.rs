//! What is answered, and how it fails: scripts, set through the control API.
//!
//! A script meets the calls whose question, key and chat it matches. Those that are for a number of
//! calls come first, in the order in which they were set; then the newest of those that stand for
//! ever; then the default, a friendly sentence that quotes the question.

use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Profile;

/// The longest wait that can be asked for.
const MAX_MS: u64 = 600_000;

/// How much of a question the default answer quotes, in characters.
const QUOTED: usize = 200;

/// A part of the question, or a pattern over it. A bare text is a part.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Match {
    Part(String),
    Rule(Rule),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Rule {
    Substring(String),
    Regex(String),
}

/// Which nodes report, if the script names none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Preset {
    /// The start and one chat node.
    Plain,
    /// With a search, which uses an embedding model.
    #[default]
    Search,
    /// With a search, two more models, and tools with nested results.
    Rich,
}

/// One way to fail. "Runs" means that it costs, and that the answer is in the records afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fail {
    /// Refused before the run, as `code`, `status_text` and `message` say: HTTP 500, or an event.
    Error,
    /// As `error`, but after half of the answer; runs.
    ErrorMidStream,
    /// The envelope of an error under HTTP 200 and as JSON, even for a stream.
    ErrorAsOk,
    /// HTTP 200, no text, and the last node says why.
    NodeError,
    /// HTTP 200, no text, and no reason.
    Empty,
    /// Too many calls of the team.
    RateLimit,
    /// The team has no points left.
    PointsExhausted,
    /// The answer breaks off in its middle; runs.
    Cut,
    /// The answer breaks off after the text, before the nodes have reported; runs.
    CutBeforeNodes,
    /// The answer ends in good order in its middle, without `stop` and `[DONE]`; runs.
    EndsEarly,
    /// HTTP 504 with a page of HTML after the delay, while the run goes on and is saved later.
    GatewayTimeout,
    /// HTTP 502 with a page of HTML; does not run.
    BadGateway,
    /// The connection is reset without an answer; does not run.
    Reset,
    /// The connection is reset without an answer; runs.
    ResetAfterRun,
    /// Nothing comes but heartbeats, for ten minutes; does not end well.
    Hang,
    /// HTTP 200 with something that is not JSON; runs.
    NotJson,
}

/// A script as it is asked for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct NewScript {
    /// Which questions it meets; absent: all.
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    matches: Option<Match>,
    /// Only this key.
    #[serde(skip_serializing)]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chat_id: Option<String>,
    /// How many calls it meets; 1 if absent, and 0 means every call until it is removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    times: Option<u64>,
    /// What is said; absent: the default sentence.
    pub(crate) answer: Option<String>,
    /// What is thought before, in newer versions.
    pub(crate) reasoning: Option<String>,
    /// The node's object that asks the customer: `{"type":"userSelect","params":{…}}`.
    pub(crate) interactive: Option<Value>,
    /// A tool was used: the content of an answer that is not streamed is an array.
    pub(crate) tools: bool,
    /// The content of an answer that is not streamed is an array, a text of it per line.
    pub(crate) array: bool,
    /// The whole text comes as one `fastAnswer`.
    pub(crate) fast: bool,
    /// What the nodes report, each completed with what every node has.
    pub(crate) nodes: Option<Vec<Value>>,
    pub(crate) preset: Preset,
    pub(crate) model: Option<String>,
    pub(crate) input_tokens: Option<u64>,
    pub(crate) output_tokens: Option<u64>,
    /// Before the first word.
    pub(crate) delay_ms: Option<u64>,
    /// Between two pieces of a stream.
    pub(crate) chunk_ms: u64,
    /// Characters of a piece; 12 if absent.
    pub(crate) chunk_chars: Option<usize>,
    /// How much later than its end a run is found in the records.
    pub(crate) save_after_ms: u64,
    pub(crate) profile: Option<Profile>,
    pub(crate) fail: Option<Fail>,
    /// Of an `error`; 500 if absent.
    pub(crate) code: Option<u32>,
    pub(crate) status_text: Option<String>,
    /// Of an `error` or a `node_error`.
    pub(crate) message: Option<String>,
}

/// A script in force.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Script {
    pub(crate) id: u64,
    #[serde(flatten)]
    pub(crate) says: NewScript,
    /// How many calls it will still meet; absent if it has no end.
    remaining: Option<u64>,
    /// How many calls it has met.
    met: u64,
    #[serde(skip)]
    pattern: Option<Regex>,
}

/// All scripts, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Scripts {
    scripts: Vec<Script>,
    last_id: u64,
}

impl Scripts {
    /// Adds a script, or says what is wrong with it.
    pub(crate) fn add(&mut self, new: NewScript) -> Result<Script, String> {
        let waits = [new.delay_ms.unwrap_or(0), new.chunk_ms, new.save_after_ms];
        if waits.iter().any(|wait| *wait > MAX_MS) {
            return Err(format!("delay_ms, chunk_ms and save_after_ms must be at most {MAX_MS}"));
        }
        if new.chunk_chars == Some(0) {
            return Err("chunk_chars must be at least 1".to_owned());
        }
        let pattern = match &new.matches {
            Some(Match::Rule(Rule::Regex(pattern))) => {
                Some(Regex::new(pattern).map_err(|error| error.to_string())?)
            }
            _ => None,
        };
        self.last_id += 1;
        let times = new.times.unwrap_or(1);
        let remaining = (times > 0).then_some(times);
        let script = Script { id: self.last_id, says: new, remaining, met: 0, pattern };
        self.scripts.push(script.clone());
        Ok(script)
    }

    pub(crate) fn list(&self) -> &[Script] {
        &self.scripts
    }

    pub(crate) fn clear(&mut self) {
        self.scripts.clear();
    }

    /// Takes the script for a call, if there is one.
    pub(crate) fn take(&mut self, question: &str, key: &str, chat_id: &str) -> Option<Script> {
        let meets = |script: &&Script| script.meets(question, key, chat_id);
        let limited = self.scripts.iter().filter(|script| script.remaining.is_some()).find(meets);
        let chosen = limited
            .or_else(|| self.scripts.iter().rev().filter(|script| script.remaining.is_none()).find(meets));
        let id = chosen?.id;
        let index = self.scripts.iter().position(|script| script.id == id)?;
        let script = self.scripts.get_mut(index)?;
        script.met += 1;
        if let Some(remaining) = &mut script.remaining {
            *remaining -= 1;
        }
        let taken = script.clone();
        if taken.remaining == Some(0) {
            self.scripts.remove(index);
        }
        Some(taken)
    }
}

impl Script {
    fn meets(&self, question: &str, key: &str, chat_id: &str) -> bool {
        let right_question = match (&self.says.matches, &self.pattern) {
            (_, Some(pattern)) => pattern.is_match(question),
            (Some(Match::Part(part) | Match::Rule(Rule::Substring(part))), None) => question.contains(part),
            _ => true,
        };
        right_question
            && self.says.key.as_deref().is_none_or(|wanted| wanted == key)
            && self.says.chat_id.as_deref().is_none_or(|wanted| wanted == chat_id)
    }
}

/// The answer of a run that no script meets: it quotes the question and counts its messages.
pub(crate) fn friendly(question: &str) -> String {
    let lines: Vec<_> = question.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let quoted: String = lines.join("；").chars().take(QUOTED).collect();
    match lines.len() {
        0 => "您好，很高兴为您服务，请问有什么可以帮您？".to_owned(),
        1 => format!("您好！您说的“{quoted}”我已经收到，很高兴为您服务。"),
        count => format!("您好！您的 {count} 条消息“{quoted}”我都收到了，很高兴为您服务。"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn scripts(list: &[Value]) -> Scripts {
        let mut scripts = Scripts::default();
        for script in list {
            scripts.add(serde_json::from_value(script.clone()).unwrap()).unwrap();
        }
        scripts
    }

    fn take(scripts: &mut Scripts, question: &str) -> Option<String> {
        scripts.take(question, "fastgpt-a", "c1")?.says.answer
    }

    #[test]
    fn limited_scripts_come_first_and_in_order_then_the_newest_standing_one() {
        let mut scripts = scripts(&[
            json!({"times": 0, "answer": "old"}),
            json!({"times": 0, "answer": "new"}),
            json!({"answer": "1"}),
            json!({"answer": "2", "match": {"substring": "价格"}}),
            json!({"answer": "3", "match": {"regex": "^多少"}}),
        ]);
        assert_eq!(take(&mut scripts, "多少钱").as_deref(), Some("1"));
        assert_eq!(take(&mut scripts, "多少钱").as_deref(), Some("3"));
        assert_eq!(take(&mut scripts, "多少钱").as_deref(), Some("new"));
        assert_eq!(take(&mut scripts, "问价格").as_deref(), Some("2"));
        assert_eq!(scripts.list().len(), 2);
    }

    #[test]
    fn a_script_can_be_for_one_key_or_chat() {
        let mut scripts = scripts(&[
            json!({"answer": "key", "key": "fastgpt-b"}),
            json!({"answer": "chat", "chat_id": "c2"}),
        ]);
        assert_eq!(take(&mut scripts, "x"), None);
        assert!(scripts.take("x", "fastgpt-b", "c1").is_some());
        assert!(scripts.take("x", "fastgpt-a", "c2").is_some());
    }

    #[test]
    fn bad_scripts_are_refused() {
        let mut scripts = Scripts::default();
        let pattern =
            NewScript { matches: Some(Match::Rule(Rule::Regex("(".into()))), ..NewScript::default() };
        assert!(scripts.add(pattern).is_err());
        assert!(scripts.add(NewScript { delay_ms: Some(MAX_MS + 1), ..NewScript::default() }).is_err());
        assert!(serde_json::from_value::<NewScript>(json!({"explode": true})).is_err());
    }

    #[test]
    fn the_default_answer_counts_the_messages() {
        assert_eq!(friendly("你好"), "您好！您说的“你好”我已经收到，很高兴为您服务。");
        assert!(friendly("你好\n在吗\n\n多少钱").contains("3 条消息“你好；在吗；多少钱”"));
    }
}

//! The answer as a stream of events.

use serde_json::Value;

use super::answer::Words;
use super::errors::Envelope;
use super::nodes::{self, Kept};

/// Cuts bytes into events. Lines may end in any of the three ways, and a chunk may end anywhere.
#[derive(Default)]
pub(super) struct Events {
    line: Vec<u8>,
    name: String,
    data: String,
    has_data: bool,
    after_cr: bool,
    begun: bool,
}

impl Events {
    /// Takes the next bytes and hands each whole event to `on`, as name and data.
    pub(super) fn feed(&mut self, bytes: &[u8], on: &mut impl FnMut(&str, &str)) {
        for &byte in bytes {
            let after_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => self.line(on),
                _ => self.line.push(byte),
            }
        }
    }

    /// Hands out what is left when the stream ends without its last blank line.
    pub(super) fn finish(&mut self, on: &mut impl FnMut(&str, &str)) {
        if !self.line.is_empty() {
            self.line(on);
        }
        self.line(on);
    }

    fn line(&mut self, on: &mut impl FnMut(&str, &str)) {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        // A byte order mark may stand before the first line.
        let line = if std::mem::replace(&mut self.begun, true) {
            &*line
        } else {
            line.trim_start_matches('\u{feff}')
        };
        if line.is_empty() {
            if self.has_data {
                on(&self.name, &self.data);
            }
            self.name.clear();
            self.data.clear();
            self.has_data = false;
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                if self.has_data {
                    self.data.push('\n');
                }
                self.data.push_str(value);
                self.has_data = true;
            }
            // Comments, ids and whatever else.
            _ => {}
        }
    }
}

/// What the events have said so far.
#[derive(Default)]
pub(super) struct Told {
    /// The text of the answer.
    pub(super) words: Words,
    /// The results of the nodes.
    pub(super) nodes: Kept,
    /// The whole list has come, and not only one node after the other.
    listed: bool,
    /// The failure that ended the stream.
    pub(super) error: Option<Envelope>,
    /// The last piece of text has come.
    stopped: bool,
    /// `[DONE]` has come.
    done: bool,
    /// A piece of the text was no JSON: the text has a hole.
    pub(super) broken: bool,
}

impl Told {
    /// Takes one event. Unknown ones are of newer versions and pass by.
    pub(super) fn event(&mut self, name: &str, data: &str) {
        match name {
            "" | "answer" | "fastAnswer" | "message" => self.answer(data),
            "flowResponses" => {
                if let Ok(Value::Array(results)) = serde_json::from_str(data) {
                    self.nodes = Kept::default();
                    results.iter().for_each(|result| self.nodes.add(result));
                    self.listed = true;
                }
            }
            "flowNodeResponse" if !self.listed => {
                if let Ok(result) = serde_json::from_str(data) {
                    self.nodes.add(&result);
                }
            }
            "interactive" => {
                if let Ok(event) = serde_json::from_str::<Value>(data) {
                    self.words.ask_back(event.get("interactive").unwrap_or(&event));
                }
            }
            "error" => self.fail(Envelope::of_text(data)),
            _ => {}
        }
    }

    /// The answer is whole: what may still come is the bill.
    pub(super) fn is_whole(&self) -> bool {
        self.done || self.stopped
    }

    /// Nothing is left to wait for but the end of the connection.
    pub(super) fn is_over(&self) -> bool {
        self.done && !self.nodes.is_empty()
    }

    /// `[DONE]` has come, and in old versions the nodes' results only come now.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// Something of a run was seen.
    pub(super) fn has_begun(&self) -> bool {
        self.words.has_any() || !self.nodes.is_empty()
    }

    fn answer(&mut self, data: &str) {
        let data = data.trim();
        if data == "[DONE]" {
            self.done = true;
            return;
        }
        let Ok(chunk) = serde_json::from_str::<Value>(data) else {
            self.broken |= !data.is_empty() && !self.is_whole();
            return;
        };
        let Some(choice) = chunk.pointer("/choices/0") else {
            if Envelope::is_one(&chunk) {
                self.fail(Envelope::of(&chunk));
            }
            return;
        };
        // Empty pieces are heartbeats. What the model thinks stands in `reasoning_content` and is not for customers.
        if let Some(text) = choice.pointer("/delta/content").and_then(Value::as_str) {
            self.words.push(text);
        }
        self.stopped |= choice.get("finish_reason").is_some_and(Value::is_string);
    }

    fn fail(&mut self, envelope: Envelope) {
        // What fails behind a whole answer takes nothing of it back.
        if !self.is_whole() && self.error.is_none() {
            self.error = Some(envelope);
        }
    }
}

impl Told {
    /// Returns what a node that failed said.
    pub(super) fn node_error(&self) -> Option<String> {
        nodes::error_in(self.nodes.as_slice())
    }
}

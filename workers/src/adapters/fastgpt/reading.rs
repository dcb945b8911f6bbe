//! Which form an answer has, and when it is whole. Knows bytes and no connection.

use std::time::{Duration, Instant};

use entropy_jobs::ai::port::{AiError, Answer};
use reqwest::StatusCode;

use super::answer::{Whole, Words};
use super::errors;
use super::nodes::Kept;
use super::stream::{Events, Told};

/// The longest answer that is read.
pub(super) const MAX_ANSWER_BYTES: usize = 20 * 1024 * 1024;

/// How the last byte became the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The answer ended as HTTP wants it.
    Closed,
    /// The connection broke.
    Cut,
    /// Nothing came for too long.
    Silent,
    /// The time of the whole call was over.
    TimedOut,
}

/// What is still to be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outstanding {
    /// The answer.
    Answer,
    /// Only the results of the nodes, which come at once if they come.
    Bill,
    /// Only the end of the connection.
    Nothing,
}

/// An answer that is being read.
pub(super) struct Reading {
    status: StatusCode,
    retry_after: Option<Duration>,
    bytes: usize,
    form: Form,
}

enum Form {
    /// Not a byte of it has come that tells.
    Unknown,
    /// Events. Boxed: it is many times as large as the others.
    Stream(Box<(Events, Told)>),
    /// One piece.
    Whole(Vec<u8>),
}

impl Reading {
    /// Begins with what the head says. `stream`: it calls itself a stream of events.
    pub(super) fn new(status: StatusCode, stream: bool, retry_after: Option<Duration>) -> Reading {
        let form = if stream { Form::Stream(Box::default()) } else { Form::Unknown };
        Reading { status, retry_after, bytes: 0, form }
    }

    /// Takes the next bytes. False: it is more than any answer can be.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> bool {
        self.bytes = self.bytes.saturating_add(bytes.len());
        if self.bytes > MAX_ANSWER_BYTES {
            return false;
        }
        if matches!(self.form, Form::Unknown) {
            // The head of a stream that failed early may not say what it is.
            let Some(first) = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) else { return true };
            self.form = if matches!(first, b'e' | b'd' | b':' | b'i' | b'r' | 0xef) {
                Form::Stream(Box::default())
            } else {
                Form::Whole(Vec::new())
            };
        }
        match &mut self.form {
            Form::Unknown => {}
            Form::Stream(stream) => {
                let (events, told) = &mut **stream;
                events.feed(bytes, &mut |name, data| told.event(name, data));
            }
            Form::Whole(body) => body.extend_from_slice(bytes),
        }
        true
    }

    /// Tells what there is still to wait for.
    pub(super) fn outstanding(&self) -> Outstanding {
        match &self.form {
            Form::Stream(stream) if stream.1.is_over() => Outstanding::Nothing,
            Form::Stream(stream) if stream.1.is_done() => Outstanding::Bill,
            _ => Outstanding::Answer,
        }
    }

    /// Ends the answer and says what it came to. `finished`: when its last byte had come.
    pub(super) fn end(self, end: End, finished: Instant) -> Result<Answer, AiError> {
        let Reading { status, retry_after, form, .. } = self;
        if let Some(mut error) = errors::of_status(status) {
            if error.retry_after.is_none() && status.as_u16() == 429 {
                error.retry_after = retry_after.or_else(|| named_in(&form));
            }
            return Err(error);
        }
        let whole = match form {
            Form::Unknown => Err(None),
            Form::Whole(_) if end != End::Closed => return Err(broken_off(end)),
            Form::Whole(body) => Whole::parse(&body),
            Form::Stream(stream) => {
                let (mut events, mut told) = *stream;
                if end == End::Closed {
                    events.finish(&mut |name, data| told.event(name, data));
                }
                if let Some(envelope) = &told.error {
                    return Err(envelope.error(told.has_begun(), retry_after));
                }
                if told.broken {
                    return Err(errors::unreadable());
                }
                if told.is_whole() {
                    let node_error = told.node_error();
                    Ok(Whole { words: told.words, nodes: told.nodes, node_error })
                } else if end != End::Closed || told.has_begun() || status.is_success() {
                    return Err(broken_off(end));
                } else {
                    Err(None)
                }
            }
        };
        match whole {
            Ok(_) if !status.is_success() => Err(errors::contradictory()),
            Ok(Whole { words, nodes, node_error }) => Ok(answer(words, nodes, node_error, finished)),
            Err(Some(envelope)) if envelope.is_success() => Err(errors::unreadable()),
            Err(Some(envelope)) => Err(envelope.error(false, retry_after)),
            Err(None) if end != End::Closed => Err(broken_off(end)),
            Err(None) => Err(errors::foreign(status)),
        }
    }
}

/// Puts an answer together.
pub(super) fn answer(words: Words, nodes: Kept, node_error: Option<String>, finished: Instant) -> Answer {
    let (text, interactive) = words.into_text();
    Answer { text, nodes: nodes.into_vec(), node_error, interactive, finished }
}

fn broken_off(end: End) -> AiError {
    match end {
        End::Closed | End::Cut => errors::incomplete(),
        End::Silent => errors::silent(),
        End::TimedOut => errors::timed_out_after_writing(),
    }
}

/// A limiter may name the seconds in its words alone.
fn named_in(form: &Form) -> Option<Duration> {
    let envelope = match form {
        Form::Whole(body) => Whole::parse(body).err().flatten()?,
        Form::Stream(stream) => stream.1.error.clone()?,
        Form::Unknown => return None,
    };
    envelope.error(false, None).retry_after
}

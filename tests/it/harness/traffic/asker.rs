//! Asks until it is answered, at any process of the API that lives.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder};

use crate::harness::Client;
use crate::harness::client::Reply;

/// How long one process may take for an ordinary request before another one is asked.
const SOON: Duration = Duration::from_secs(5);

/// How long it may take for a switch: longer than any process is frozen.
///
/// A switch that is given up may still be carried out later, when somebody has set it again.
const SURELY: Duration = Duration::from_secs(60);

/// How many requests go to one process before the next one gets its turn.
///
/// While a process is frozen, requests to it cost time; whoever has moved on stays where answers come from for a while.
const IN_A_ROW: u32 = 8;

/// How long nobody may answer at all.
const PATIENCE: Duration = Duration::from_secs(180);

/// What was counted over all requests.
#[derive(Debug, Default)]
pub(super) struct Counts {
    answers: AtomicU64,
    repeated: AtomicU64,
}

impl Counts {
    /// Answers that came.
    pub(super) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Requests that were made again.
    pub(super) fn repeated(&self) -> u64 {
        self.repeated.load(Ordering::Relaxed)
    }
}

/// Somebody who asks again.
#[derive(Debug, Clone)]
pub(super) struct Asker {
    client: Client,
    bases: Vec<String>,
    turn: usize,
    in_a_row: u32,
    counts: Arc<Counts>,
}

/// An answer, and what came before it.
#[derive(Debug)]
pub(super) struct Answer {
    /// What was answered in the end.
    pub(super) reply: Reply,
    /// A request before it was given up while its process may live: it may still be carried out.
    pub(super) given_up: bool,
}

impl Asker {
    pub(super) fn new(client: Client, bases: Vec<String>, counts: Arc<Counts>) -> Asker {
        assert!(!bases.is_empty(), "an API to ask");
        Asker { client, bases, turn: 0, in_a_row: 0, counts }
    }

    /// The same, beginning at the n-th process.
    pub(super) fn beginning_at(&self, n: usize) -> Asker {
        Asker { turn: n % self.bases.len(), ..self.clone() }
    }

    /// Returns the organisation of whoever asks.
    pub(super) fn organization(&self) -> uuid::Uuid {
        self.client.organization
    }

    /// Asks until a process answers with something that another one would answer as well.
    pub(super) async fn ask(&mut self, request: impl Fn(&Client) -> RequestBuilder) -> Answer {
        self.ask_within(SOON, request).await
    }

    /// Sets a switch: a POST without a body that is answered 200.
    pub(super) async fn switch(&mut self, path: &str) -> Answer {
        let answer = self.ask_within(SURELY, |client| client.request(Method::POST, path)).await;
        assert_eq!(answer.reply.status, 200, "{} answered {}", answer.reply.asked, answer.reply.text);
        answer
    }

    async fn ask_within(&mut self, most: Duration, request: impl Fn(&Client) -> RequestBuilder) -> Answer {
        let deadline = Instant::now() + PATIENCE;
        let mut given_up = false;
        let mut pause = Duration::from_millis(10);
        loop {
            self.in_a_row += 1;
            if self.in_a_row > IN_A_ROW {
                self.next_process();
            }
            let client = self.client.at(&self.bases[self.turn]);
            let standing = match client.try_send(request(&client).timeout(most)).await {
                Ok(reply) if reply.status < 500 && reply.status != 429 => {
                    self.counts.answers.fetch_add(1, Ordering::Relaxed);
                    return Answer { reply, given_up };
                }
                Ok(reply) => format!("{} answered {} {}", reply.asked, reply.status, reply.text),
                Err(error) => {
                    given_up |= error.is_timeout();
                    format!("{error:?}")
                }
            };
            assert!(Instant::now() < deadline, "no API has answered for {PATIENCE:?}: {standing}");
            self.counts.repeated.fetch_add(1, Ordering::Relaxed);
            self.next_process();
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }

    fn next_process(&mut self) {
        self.turn = (self.turn + 1) % self.bases.len();
        self.in_a_row = 0;
    }
}

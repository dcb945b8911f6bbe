//! The state of one sandbox and the few moves that change it.
//!
//! One mutex guards all of it. Each move takes the lock once, never across an await, and reads the
//! clock while it holds it, so the ledger's order is the order of its times.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::Config;
use crate::accounts::{Accounts, Admission};
use crate::connection::Connections;
use crate::failures::{Failure, Failures, Target};
use crate::gewe::{CallbackUrl, Message, Refusal};
use crate::ledger::{Arrival, Ending, Ledger, Receipt};

/// One stand-in for GeWe: its accounts, its planned failures and the phone's ledger.
///
/// Cheap to clone; clones share the same state.
#[derive(Clone)]
pub struct Sandbox {
    inner: Arc<Inner>,
}

struct Inner {
    tokens: Vec<String>,
    connections: Connections,
    state: Mutex<State>,
}

/// Everything that `POST /_sandbox/reset` empties.
pub(crate) struct State {
    pub(crate) ledger: Ledger,
    pub(crate) failures: Failures,
    pub(crate) accounts: Accounts,
    /// The callback address set for each token.
    pub(crate) callbacks: BTreeMap<String, String>,
}

impl Sandbox {
    /// Makes an empty sandbox.
    pub fn new(config: Config) -> Self {
        let state = State {
            ledger: Ledger::new(),
            failures: Failures::default(),
            accounts: Accounts::default(),
            callbacks: BTreeMap::new(),
        };
        Self {
            inner: Arc::new(Inner {
                tokens: config.tokens,
                connections: Connections::default(),
                state: Mutex::new(state),
            }),
        }
    }

    /// Locks the state; a panic under the lock leaves nothing half done, so poison is ignored.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn connections(&self) -> &Connections {
        &self.inner.connections
    }

    pub(crate) fn accepts_token(&self, token: &str) -> bool {
        if self.inner.tokens.is_empty() {
            !token.starts_with("bad") && !token.starts_with("expired")
        } else {
            self.inner.tokens.iter().any(|known| known == token)
        }
    }

    /// Notes that a call has arrived; its ending follows through the returned handle.
    pub(crate) fn begin_call(&self, arrival: Arrival) -> OpenCall {
        let seq = self.state().ledger.begin_call(arrival);
        OpenCall { sandbox: self.clone(), seq }
    }

    /// Takes the next failure that was planned for a call like this one.
    pub(crate) fn take_failure(&self, target: Target<'_>) -> Option<Failure> {
        self.state().failures.take(target)
    }

    /// Answers whether the account behind `app_id` is online.
    pub(crate) fn is_online(&self, app_id: &str) -> Result<bool, Refusal> {
        self.state().accounts.is_online(app_id).ok_or_else(|| Refusal::UnknownDevice(app_id.to_owned()))
    }

    pub(crate) fn has_device(&self, app_id: &str) -> bool {
        self.state().accounts.knows(app_id)
    }

    pub(crate) fn set_callback(&self, callback: &CallbackUrl) {
        self.state().callbacks.insert(callback.token.clone(), callback.url.clone());
    }

    /// Puts a message on the phone, unless the account's state or its throttle forbids it.
    ///
    /// The receipt of a silently dropped message looks like any other, as in life; only the ledger
    /// knows the difference.
    pub(crate) fn accept(&self, message: Message) -> Result<Receipt, Refusal> {
        let mut state = self.state();
        let now = state.ledger.now();
        match state.accounts.admit(&message.app_id, now) {
            Admission::Deliver => Ok(state.ledger.record(message, now, true)),
            Admission::Drop => Ok(state.ledger.record(message, now, false)),
            Admission::Risk => Err(Refusal::Risk),
            Admission::Offline => Err(Refusal::Offline),
            Admission::Unknown => Err(Refusal::UnknownDevice(message.app_id)),
        }
    }

    /// Answers as if the message had been accepted, and keeps it from the phone.
    pub(crate) fn accept_and_drop(&self, message: Message) -> Receipt {
        let mut state = self.state();
        let now = state.ledger.now();
        state.ledger.record(message, now, false)
    }
}

/// A call that has not ended; one that never does stays pending in the list.
pub(crate) struct OpenCall {
    sandbox: Sandbox,
    seq: u64,
}

impl OpenCall {
    /// Writes down how the call ended.
    pub(crate) fn finish(self, ending: Ending) {
        self.sandbox.state().ledger.finish_call(self.seq, ending);
    }
}

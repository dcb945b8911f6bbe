//! The state of one sandbox and the few moves that change it.
//!
//! One mutex guards all of it. Each move takes the lock once, never across an await, and reads the
//! clock while it holds it, so the ledger's order is the order of its times.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Config;
use crate::accounts::{Accounts, Admission};
use crate::books::Books;
use crate::connection::Connections;
use crate::customer::{Customer, Parcel, delivery, echo};
use crate::failures::{Failure, Failures, Target};
use crate::fastgpt::FastGpt;
use crate::gewe::{CallbackUrl, Message, Refusal};
use crate::ledger::{Arrival, Ending, Ledger, Receipt};
use crate::media::Media;

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
    /// What goes on without a call: runs whose client has left, callbacks under way.
    tasks: TaskTracker,
    stopping: CancellationToken,
    http: reqwest::Client,
    state: Mutex<State>,
}

/// Everything that `POST /_sandbox/reset` empties.
pub(crate) struct State {
    pub(crate) ledger: Ledger,
    pub(crate) failures: Failures,
    pub(crate) accounts: Accounts,
    /// The callback address set for each token.
    pub(crate) callbacks: BTreeMap<String, String>,
    pub(crate) fastgpt: FastGpt,
    pub(crate) customer: Customer,
    pub(crate) books: Books,
    pub(crate) media: Media,
}

impl Sandbox {
    /// Makes an empty sandbox.
    pub fn new(config: Config) -> Self {
        let state = State {
            ledger: Ledger::new(),
            failures: Failures::default(),
            accounts: Accounts::default(),
            callbacks: BTreeMap::new(),
            fastgpt: FastGpt::default(),
            customer: Customer::default(),
            books: Books::default(),
            media: Media::default(),
        };
        Self {
            inner: Arc::new(Inner {
                tokens: config.tokens,
                connections: Connections::default(),
                tasks: TaskTracker::new(),
                stopping: CancellationToken::new(),
                http: http_client(),
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

    /// Starts a task that ends with the sandbox at the latest.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stopping = self.inner.stopping.clone();
        self.inner.tasks.spawn(async move {
            stopping.run_until_cancelled(task).await;
        });
    }

    /// Ends the tasks and waits for them.
    pub(crate) async fn stop_tasks(&self) {
        self.inner.stopping.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    /// The client that brings callbacks to their address.
    pub(crate) fn http(&self) -> &reqwest::Client {
        &self.inner.http
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

    /// Stores the address of a token and tries it, as GeWe does; a try that fails is only written down.
    pub(crate) fn set_callback(&self, callback: &CallbackUrl) {
        self.state().callbacks.insert(callback.token.clone(), callback.url.clone());
        let body = json!({ "testMsg": "回调地址链接成功！", "token": callback.token });
        let probe = Parcel {
            app_id: String::new(),
            event: "probe".to_owned(),
            new_msg_id: None,
            copy: 1,
            url: callback.url.as_str().into(),
            authorization: None,
            body: body.to_string().into(),
            retries: 0,
            retry: Duration::ZERO,
        };
        delivery::in_order(self, vec![(Duration::ZERO, probe)]);
    }

    /// Remembers whose callback address an account's events go to.
    pub(crate) fn note_token(&self, app_id: &str, token: &str) {
        self.state().accounts.set_token(app_id, token);
    }

    /// Puts a message on the phone, unless the account's state or its throttle forbids it.
    ///
    /// The receipt of a silently dropped message looks like any other, as in life; only the ledger
    /// knows the difference.
    pub(crate) fn accept(&self, message: Message) -> Result<Receipt, Refusal> {
        let mut guard = self.state();
        let state = &mut *guard;
        let now = state.ledger.now();
        match state.accounts.admit(&message.app_id, now) {
            Admission::Deliver => {
                let sent = state.customer.settings.echo_api_sends.then(|| message.clone());
                let receipt = state.ledger.record(message, now, true);
                let echo = sent.and_then(|sent| echo(state, &sent, &receipt));
                drop(guard);
                if let Some(parcel) = echo {
                    delivery::in_order(self, vec![(Duration::ZERO, parcel)]);
                }
                Ok(receipt)
            }
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

impl State {
    /// Returns what a person or group is called: as it said itself, as the book has it, or by its id.
    pub(crate) fn name_of(&self, app_id: &str, wxid: &str) -> String {
        let said = self.customer.names.get(wxid).cloned();
        said.or_else(|| self.books.name(app_id, wxid)).unwrap_or_else(|| wxid.to_owned())
    }
}

fn http_client() -> reqwest::Client {
    // reqwest is built without a TLS provider of its own; a second call in one process changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    client.build().unwrap_or_default()
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

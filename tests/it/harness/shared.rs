//! One platform that many tests share: for tests that only look at an organisation of their own.

use std::time::Duration;

use diesel_async::SimpleAsyncConnection;
use entropy_schema::{Db, Profile};
use serde_json::Value;
use tokio::sync::{OnceCell, oneshot};
use uuid::Uuid;

use super::client::Account;
use super::turn::{self, Turn};
use super::{Client, Platform, Sandbox, book, eventually, process, secs};

/// Never dropped: its processes end with the test run.
static PLATFORM: OnceCell<Platform> = OnceCell::const_new();

/// How long anything may take that has nothing to wait for.
const SOON: Duration = secs(20);

/// Two processes of the API and one worker, shared with other tests.
#[derive(Debug)]
pub(crate) struct Here {
    _turn: Turn,
    platform: &'static Platform,
    /// The sandbox's switches and its ledger. Name an `app_id` of your own in every plan.
    pub(crate) sandbox: Sandbox,
    /// Connections of this test.
    db: Db,
}

impl Here {
    /// Takes a place on the shared platform, and starts it if nobody has yet.
    pub(crate) async fn open() -> Here {
        // In this order: whoever starts it takes a place for that, and with another one would wait for itself.
        let platform = PLATFORM.get_or_init(start).await;
        let turn = turn::shared().await;
        let db = Db::new(platform.database.url(), 2, Profile::Api).expect("a pool");
        Here { _turn: turn, platform, sandbox: platform.sandbox.again(), db }
    }

    /// Returns the address of the n-th process of the API.
    pub(crate) fn base(&self, n: usize) -> &str {
        self.platform.base(n)
    }

    /// Returns the API as nobody.
    pub(crate) fn anonymous(&self) -> Client {
        self.platform.anonymous()
    }

    /// Makes an organisation and returns its first admin, logged in.
    pub(crate) async fn register(&self) -> Client {
        self.platform.register().await
    }

    /// Runs statements for their effect, on rows of an organisation of this test's own.
    pub(crate) async fn run(&self, statements: &str) {
        let mut conn = self.db.conn().await.expect("a connection");
        conn.batch_execute(statements).await.unwrap_or_else(|error| panic!("{statements}: {error}"));
    }

    /// Returns the number `n` that a statement selects.
    pub(crate) async fn number(&self, statement: &str) -> i64 {
        book::number(&self.db, statement).await
    }

    /// Waits until a job has ended and returns it.
    pub(crate) async fn ended(&self, client: &Client, job: Uuid) -> Value {
        self.platform.ended(client, job, SOON).await
    }

    /// Waits until a job that is not over waits for `code`, and returns it.
    pub(crate) async fn waits(&self, client: &Client, job: Uuid, code: &str) -> Value {
        eventually(&format!("the job waits for {code}"), SOON, async || {
            let job = client.job(job).await;
            if job["why"]["code"] == code { Ok(job) } else { Err(job.to_string()) }
        })
        .await
    }

    /// Returns what the phone received from an account, as the sandbox shows it.
    pub(crate) async fn received_from(&self, account: &Account) -> Vec<Value> {
        let mut entries = self.sandbox.entries().await;
        entries.retain(|entry| entry["app_id"] == account.app_id.as_str());
        entries
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        if std::thread::panicking() {
            process::keep_dirs();
            eprintln!("--- logs of the shared platform: {}", self.platform.dir().display());
        }
    }
}

/// Starts it on a thread with a runtime that outlives every test: the connections of its pool live there.
async fn start() -> Platform {
    let (tell, told) = oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut platform = Platform::with().api(2).start().await;
            process::remove_at_the_end(platform.dir());
            // It is idle unless a test uses it, and such a test holds a place of its own.
            platform.rest();
            let _ = tell.send(platform);
            std::future::pending::<()>().await;
        });
    });
    told.await.expect("the shared platform starts")
}

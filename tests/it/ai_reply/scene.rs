//! An account with a customer, and a model that does as it is told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Jsonb, Text, Uuid as SqlUuid};
use diesel_async::{AsyncConnection, RunQueryDsl};
use entropy_jobs::ai::port::{AiClient, AiError, Answer, App, Ask, ErrorClass, Found, Part};
use entropy_jobs::conversation::mode;
use entropy_jobs::conversation::turn::{self, Arrival, Debounce};
use entropy_jobs::job::{Done, Job, JobError};
use entropy_jobs::kinds::ai_reply::AiReply;
use entropy_jobs::secret::Secret;
use entropy_jobs::services::{Context, Services};
use entropy_jobs::vault::Vault;
use entropy_schema::conversations::{self, NewChat};
use entropy_schema::{Conn, lanes, settings};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::harness::{Book, services};

/// Opens the workflows' keys in these tests.
const VAULT_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// The customer.
pub(super) const CUSTOMER: &str = "wxid_li_nushi";

/// What a call comes to, and what happens in the world while it is under way.
pub(super) struct Script {
    pub(super) meanwhile: Option<BoxFuture<'static, ()>>,
    pub(super) outcome: Result<Answer, AiError>,
}

/// The model.
#[derive(Default)]
pub(super) struct Model {
    scripts: Mutex<VecDeque<Script>>,
    asked: Mutex<Vec<Ask>>,
    records: Mutex<Option<Answer>>,
}

impl AiClient for Model {
    fn ask<'a>(&'a self, app: &'a App, ask: &'a Ask) -> BoxFuture<'a, Result<Answer, AiError>> {
        Box::pin(async move {
            assert_eq!(app.api_key.expose(), "fastgpt-geheim");
            self.asked.lock().expect("a lock").push(ask.clone());
            let script = self.scripts.lock().expect("a lock").pop_front().expect("a call that was foreseen");
            if let Some(meanwhile) = script.meanwhile {
                meanwhile.await;
            }
            // The moment is that of the call, not of the script.
            script.outcome.map(|answer| Answer { finished: Instant::now(), ..answer })
        })
    }

    fn look_up<'a>(
        &'a self,
        _app: &'a App,
        _chat_id: &'a str,
        _run_id: Uuid,
        _trace_id: &'a str,
    ) -> BoxFuture<'a, Result<Found, AiError>> {
        let found = self.records.lock().expect("a lock").clone();
        Box::pin(async move { Ok(found.map_or(Found::Nothing, Found::Ran)) })
    }
}

/// An answer that used one node.
pub(super) fn answer(text: &str) -> Answer {
    let node = json!({
        "id": "n1", "nodeId": "ai01", "moduleName": "AI 对话", "moduleType": "chatNode", "model": "demo-model",
        "inputTokens": 812, "outputTokens": 46, "totalPoints": 0.31,
    });
    Answer {
        text: text.to_owned(),
        nodes: vec![node],
        node_error: None,
        interactive: false,
        finished: Instant::now(),
    }
}

/// A call that brought no answer.
pub(super) fn error(class: ErrorClass) -> AiError {
    AiError { class, code: "told_so", message: "the script says so".to_owned(), retry_after: None }
}

/// An account whose customers are answered by the model, in a database of its own.
pub(super) struct Scene {
    pub(super) book: Book,
    pub(super) model: Arc<Model>,
    pub(super) account: Uuid,
    pub(super) chat: Uuid,
    services: Arc<Services>,
}

impl Scene {
    pub(super) async fn open() -> Scene {
        Scene::open_with(|_| {}).await
    }

    /// The same with other services than these tests have.
    pub(super) async fn open_with(change: impl FnOnce(&mut Services)) -> Scene {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let book = Book::open().await;
        let (organization, account, user) = (book.organization, Uuid::now_v7(), Uuid::now_v7());
        let vault = Vault::from_base64_key(VAULT_KEY).expect("a key");
        let key = vault.seal(&Secret::new("fastgpt-geheim"), &settings::key_context(organization));
        let workflow = Uuid::now_v7();
        book.run(&format!(
            "INSERT INTO users (id, organization_id, username, hashed_password, role)
             VALUES ('{user}', '{organization}', 'u-{user}', '-', 'agent');
             INSERT INTO wechat_accounts (id, organization_id, user_id, status, messages_per_minute, min_gap_ms,
                 messages_per_day, recipients_per_minute, api_calls_per_hour)
             VALUES ('{account}', '{organization}', '{user}', 'ONLINE', 40, 0, 500, 40, 1000);
             INSERT INTO ai_workflows (id, organization_id, alias, api_key, key_hash, app_id)
             VALUES ('{workflow}', '{organization}', '客服', '{key}', 'hash-1', 'app-1');
             INSERT INTO account_ai (account_id, organization_id, enabled, workflow_id, disclosure)
             VALUES ('{account}', '{organization}', true, '{workflow}', '我是 AI 助手。')"
        ))
        .await;
        let mut conn = book.conn().await;
        lanes::create(&mut conn, account, organization, "account").await.expect("a lane");
        let chat = NewChat {
            organization_id: organization,
            account_id: account,
            peer_wxid: CUSTOMER,
            contact_kind: "friend",
            kind: "friend",
        };
        let chat = conversations::open(&mut conn, chat).await.expect("a conversation");
        drop(conn);
        let model = Arc::new(Model::default());
        let mut services =
            Services { ai: model.clone(), vault: Some(Arc::new(vault)), ..services::alone(&book.db) };
        change(&mut services);
        Scene { book, model, account, chat, services: Arc::new(services) }
    }

    /// The customer writes; the turn is due at once. Returns the turn.
    pub(super) async fn write(&self, text: &str) -> Uuid {
        write(&mut *self.book.conn().await, self.book.organization, self.chat, text).await
    }

    /// Returns a future in which the customer writes, for while a call is under way.
    pub(super) fn writing(&self, text: &'static str) -> BoxFuture<'static, ()> {
        let (db, organization, chat) = (self.book.db.clone(), self.book.organization, self.chat);
        Box::pin(async move {
            write(&mut db.conn().await.expect("a connection"), organization, chat, text).await;
        })
    }

    /// Returns a future in which a person takes the conversation over, for while a call is under way.
    pub(super) fn taking_over(&self) -> BoxFuture<'static, ()> {
        let (db, organization, chat) = (self.book.db.clone(), self.book.organization, self.chat);
        Box::pin(async move {
            let mut conn = db.conn().await.expect("a connection");
            conn.transaction(async |conn| mode::take_over(conn, organization, chat, Some(30), None).await)
                .await
                .expect("taken over");
        })
    }

    /// A person takes the conversation over.
    pub(super) async fn take_over(&self) {
        self.taking_over().await;
    }

    /// What the next call comes to.
    pub(super) fn next(&self, outcome: Result<Answer, AiError>) {
        self.script(Script { meanwhile: None, outcome });
    }

    /// What the next call comes to, and what happens meanwhile.
    pub(super) fn script(&self, script: Script) {
        self.model.scripts.lock().expect("a lock").push_back(script);
    }

    /// What the provider's records say of a lost answer.
    pub(super) fn records(&self, found: Option<Answer>) {
        *self.model.records.lock().expect("a lock") = found;
    }

    /// The questions, as texts.
    pub(super) fn questions(&self) -> Vec<String> {
        let asked = self.model.asked.lock().expect("a lock");
        let text = |ask: &Ask| match &ask.parts[0] {
            Part::Text(text) => text.clone(),
            other => panic!("{other:?}"),
        };
        asked.iter().map(text).collect()
    }

    /// The parts of the last question.
    pub(super) fn parts(&self) -> Vec<Part> {
        self.model.asked.lock().expect("a lock").last().expect("a question").parts.clone()
    }

    /// Runs one attempt of a turn's present job.
    pub(super) async fn attempt(&self, turn: Uuid) -> Result<Done, JobError> {
        let job = self.id(&format!("SELECT job_id AS id FROM turns WHERE id = '{turn}'")).await;
        self.attempt_of(job).await
    }

    /// Runs one attempt of a job.
    pub(super) async fn attempt_of(&self, job: Uuid) -> Result<Done, JobError> {
        let args = self.json(&format!("SELECT args AS value FROM jobs WHERE id = '{job}'")).await;
        let args: AiReply = serde_json::from_value(args).expect("args of the kind");
        args.run(&self.context(job)).await
    }

    /// What an attempt of a job is given.
    pub(super) fn context(&self, job_id: Uuid) -> Context {
        Context {
            services: self.services.clone(),
            job_id,
            attempt: 1,
            worker_id: Uuid::now_v7(),
            organization_id: self.book.organization,
            created_by: None,
            trace_id: "0af7651916cd43dd8448eb211c80319c".to_owned(),
            stop: CancellationToken::new(),
        }
    }

    /// The messages that were enqueued, in order.
    pub(super) async fn sends(&self) -> Vec<String> {
        #[derive(QueryableByName)]
        struct Row {
            #[diesel(sql_type = Text)]
            text: String,
        }
        let rows: Vec<Row> = sql_query(
            "SELECT args #>> '{message,text}' AS text FROM jobs WHERE kind = 'send_message' ORDER BY id",
        )
        .load(&mut self.book.conn().await)
        .await
        .expect("jobs");
        rows.into_iter().map(|row| row.text).collect()
    }

    /// How a turn stands.
    pub(super) async fn state(&self, turn: Uuid) -> String {
        self.word(&format!("SELECT state AS word FROM turns WHERE id = '{turn}'")).await
    }

    /// The kinds of the alerts and what handoffs gave as their reason.
    pub(super) async fn alerts(&self) -> Vec<String> {
        let value = "SELECT coalesce(jsonb_agg(kind || CASE kind WHEN 'handed_off' THEN ':' || (details ->> 'reason') \
            ELSE '' END ORDER BY id), '[]') AS value FROM alerts WHERE kind <> 'model_without_price'";
        serde_json::from_value(self.json(value).await).expect("texts")
    }

    pub(super) async fn word(&self, statement: &str) -> String {
        #[derive(QueryableByName)]
        struct Row {
            #[diesel(sql_type = Text)]
            word: String,
        }
        sql_query(statement).get_result::<Row>(&mut self.book.conn().await).await.expect(statement).word
    }

    pub(super) async fn id(&self, statement: &str) -> Uuid {
        #[derive(QueryableByName)]
        struct Row {
            #[diesel(sql_type = SqlUuid)]
            id: Uuid,
        }
        sql_query(statement).get_result::<Row>(&mut self.book.conn().await).await.expect(statement).id
    }

    pub(super) async fn json(&self, statement: &str) -> Value {
        #[derive(QueryableByName)]
        struct Row {
            #[diesel(sql_type = Jsonb)]
            value: Value,
        }
        sql_query(statement).get_result::<Row>(&mut self.book.conn().await).await.expect(statement).value
    }
}

async fn write(conn: &mut Conn, organization: Uuid, chat: Uuid, text: &str) -> Uuid {
    let debounce =
        Debounce { quiet: chrono::TimeDelta::zero(), max: chrono::TimeDelta::zero(), max_messages: 10 };
    conn.transaction(async |conn| {
        let locked = conversations::lock(conn, organization, chat).await?.expect("a conversation");
        let arrival = Arrival {
            chat: &locked.conversation,
            now: locked.now,
            sender: CUSTOMER,
            debounce,
            trace_id: "0af7651916cd43dd8448eb211c80319c",
        };
        let turn = turn::receive(conn, &arrival).await?;
        sql_query(
            "INSERT INTO messages (id, organization_id, account_id, conversation_id, direction, origin, kind, text, \
                 sender_wxid, new_msg_id, sent_at, turn_id) \
             SELECT $1, organization_id, account_id, id, 'in', 'customer', 'text', $2, peer_wxid, $1::text, \
                 clock_timestamp(), $3 FROM conversations WHERE id = $4",
        )
        .bind::<SqlUuid, _>(Uuid::now_v7())
        .bind::<Text, _>(text)
        .bind::<SqlUuid, _>(turn)
        .bind::<SqlUuid, _>(chat)
        .execute(conn)
        .await?;
        Ok::<_, entropy_schema::Error>(turn)
    })
    .await
    .expect("written")
}

/// The code with which an attempt ended that brought no result.
pub(super) fn code(end: &Result<Done, JobError>) -> &str {
    match end {
        Err(JobError::Cancel(failure) | JobError::Discard(failure) | JobError::Retry(failure)) => {
            &failure.code
        }
        Err(JobError::Snooze(snooze)) => snooze.code,
        Err(JobError::Lost) => "lost",
        Err(JobError::Unrecorded) => "unrecorded",
        Ok(_) => "done",
    }
}

/// What became of the run, as the job's result says.
pub(super) fn outcome(end: &Result<Done, JobError>) -> String {
    let result = end.as_ref().ok().and_then(|done| done.result.as_ref());
    result.map_or_else(|| code(end).to_owned(), |result| result["outcome"].as_str().unwrap_or("?").to_owned())
}

/// How long a job waits that was put back.
pub(super) fn waits(end: &Result<Done, JobError>) -> Duration {
    match end {
        Err(JobError::Snooze(snooze)) => snooze.delay,
        other => panic!("{other:?}"),
    }
}

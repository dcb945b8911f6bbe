//! An account with a customer, events that come in, and answers that try to leave.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use diesel_async::AsyncConnection;
use entropy_jobs::class::Class;
use entropy_jobs::conversation::apply::{Applied, apply};
use entropy_jobs::conversation::mode::{self, Standing};
use entropy_jobs::conversation::{Origin, Reply};
use entropy_jobs::enqueue::{Options, new_job};
use entropy_jobs::incoming::{Event, Message, What};
use entropy_jobs::job::{Done, Job, JobError};
use entropy_jobs::kinds::send_message::SendMessage;
use entropy_jobs::lifecycle::OnUnknown;
use entropy_jobs::message::{self, Text as Words};
use entropy_jobs::process::config::Ceilings;
use entropy_jobs::secret::Secret;
use entropy_jobs::services::{Context, Services};
use entropy_schema::conversations::{self, Conversation};
use entropy_schema::record::dispatch::Dispatched;
use entropy_schema::record::finish::Becomes;
use entropy_schema::turns::{self, Turn};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::harness::Book;
use crate::harness::book::end_of;
use crate::harness::phone::Phone;
use crate::harness::services;

/// What is said of the account's AI, unless a test says otherwise: on, and slow enough to look at a turn.
const AI: &str = "enabled, quiet_ms, max_ms, max_messages";
const AI_VALUES: &str = "true, 60000, 240000, 10";

/// A book with an account, and everything that an attempt needs.
pub(super) struct Scene {
    pub(super) book: Book,
    /// The account; also its lane.
    pub(super) account: Uuid,
    phone: Arc<Phone>,
    services: Arc<Services>,
}

impl Scene {
    /// An account whose AI answers.
    pub(super) async fn set() -> Scene {
        let book = Book::open().await;
        let phone = Arc::new(Phone::default());
        let services = Services {
            sender: phone.clone(),
            guard: phone.clone(),
            default_token: Some((Secret::new("token"), "install".into())),
            ceilings: Ceilings { messages_per_minute: 600, api_calls_per_hour: 100_000 },
            ..services::alone(&book.db)
        };
        let mut scene = Scene { book, account: Uuid::nil(), phone, services: Arc::new(services) };
        scene.account = scene.another_account().await;
        scene
    }

    /// One more account of the organisation whose AI answers.
    pub(super) async fn another_account(&self) -> Uuid {
        let (id, user, organization) = (Uuid::now_v7(), Uuid::now_v7(), self.book.organization);
        self.book
            .run(&format!(
                "INSERT INTO users (id, organization_id, username, hashed_password, role)
                 VALUES ('{user}', '{organization}', 'u-{user}', '-', 'agent');
                 INSERT INTO lanes (id, organization_id, kind) VALUES ('{id}', '{organization}', 'account');
                 INSERT INTO wechat_accounts (id, organization_id, user_id, wxid, gewe_app_id, messages_per_minute, min_gap_ms,
                     messages_per_day, recipients_per_minute, api_calls_per_hour, status)
                 VALUES ('{id}', '{organization}', '{user}', 'own-{id}', 'wx-{id}', 600, 0, 100000, 600, 100000, 'ONLINE');
                 INSERT INTO account_ai (account_id, organization_id, {AI}) VALUES ('{id}', '{organization}', {AI_VALUES})"
            ))
            .await;
        id
    }

    /// Changes what was chosen for the account's AI.
    pub(super) async fn choose(&self, what: &str) {
        let account = self.account;
        self.book.run(&format!("UPDATE account_ai SET {what} WHERE account_id = '{account}'")).await;
    }

    /// What an attempt has.
    pub(super) fn context(&self, job: Uuid, attempt: i16, worker: Uuid) -> Context {
        Context {
            services: self.services.clone(),
            job_id: job,
            attempt,
            worker_id: worker,
            organization_id: self.book.organization,
            created_by: None,
            trace_id: "0123456789abcdef0123456789abcdef".into(),
            stop: CancellationToken::new(),
        }
    }

    /// Applies an event as the job of a callback does.
    pub(super) async fn try_apply(
        &self,
        account: Uuid,
        what: What,
        attempt: i16,
    ) -> Result<Applied, JobError> {
        let event = Event {
            app_id: format!("wx-{account}"),
            wxid: None,
            type_name: "AddMsg".into(),
            key: "m:1".into(),
            what,
        };
        let context = self.context(Uuid::now_v7(), attempt, Uuid::now_v7());
        apply(&context, account, Uuid::now_v7(), &event).await
    }

    /// Applies an event.
    pub(super) async fn happens(&self, what: What) -> Applied {
        self.try_apply(self.account, what, 1).await.expect("applied")
    }

    /// The customer writes.
    pub(super) async fn writes(&self, text: &str) -> Message {
        let message = from(CUSTOMER, text);
        assert_eq!(self.happens(What::Message(message.clone())).await, Applied::Applied);
        message
    }

    /// The conversation of an account with somebody.
    pub(super) async fn chat_of(&self, account: Uuid, peer: &str) -> Conversation {
        let (mut conn, organization) = (self.book.conn().await, self.book.organization);
        let id = conversations::find(&mut conn, organization, account, peer).await.expect("an answer");
        let id = id.unwrap_or_else(|| panic!("no chat with {peer}"));
        conversations::get(&mut conn, organization, id).await.expect("an answer").expect("a conversation")
    }

    /// The conversation with the customer.
    pub(super) async fn chat(&self) -> Conversation {
        self.chat_of(self.account, CUSTOMER).await
    }

    /// Who answers the customer.
    pub(super) async fn standing(&self) -> (mode::Mode, Option<DateTime<Utc>>) {
        let chat = self.chat().await;
        (mode::effective(&chat, Utc::now()), chat.mode_until)
    }

    /// All turns, oldest first, as `state run/messages`.
    pub(super) async fn turns(&self) -> Vec<String> {
        self.book
            .words(
                "SELECT state || ' ' || run || '/' || messages || COALESCE(' ' || reason, '') AS word FROM turns ORDER BY id",
            )
            .await
    }

    /// The latest turn.
    pub(super) async fn turn(&self) -> Turn {
        let ids = self.book.words("SELECT id::text AS word FROM turns ORDER BY id DESC LIMIT 1").await;
        let id = ids.first().expect("a turn").parse().expect("an id");
        let mut conn = self.book.conn().await;
        turns::get(&mut conn, self.book.organization, id).await.expect("an answer").expect("a turn")
    }

    /// Moves a turn as the kind that answers does.
    pub(super) async fn turn_is(&self, turn: &Turn, from: &str, to: &str) {
        let mut conn = self.book.conn().await;
        let moved =
            turns::set_state(&mut conn, turn.id, turn.run, &[from], to, None).await.expect("an answer");
        assert!(moved, "the turn was {from}: {:?}", self.turns().await);
    }

    /// Enqueues the first part of the answer to a turn.
    pub(super) async fn answer(&self, turn: &Turn, text: &str) -> Uuid {
        self.part(turn, 0, text).await
    }

    /// Enqueues a part of the answer to a turn.
    pub(super) async fn part(&self, turn: &Turn, part: u8, text: &str) -> Uuid {
        let reply = Reply {
            conversation_id: turn.conversation_id,
            turn_id: turn.id,
            run: turn.run,
            epoch: turn.epoch,
            part,
            answered_at: None,
        };
        self.enqueue(SendMessage {
            account_id: turn.account_id,
            to_wxid: CUSTOMER.into(),
            message: words(text),
            on_unknown: OnUnknown::Hold,
            origin: Origin::Ai,
            reply: Some(reply),
            confirms_opt_out: false,
            campaign: None,
        })
        .await
    }

    /// Enqueues a message.
    pub(super) async fn enqueue(&self, send: SendMessage) -> Uuid {
        let options = Options {
            organization_id: self.book.organization,
            class: Class::Reply,
            scheduled_at: None,
            expires_at: None,
            idempotency: None,
            trace_id: "0123456789abcdef0123456789abcdef".into(),
            created_by: None,
        };
        let job = new_job(&send, options);
        let id = job.id;
        self.book.enqueue(&[job]).await;
        id
    }

    /// A message of no turn.
    pub(super) fn message(&self, account: Uuid, origin: Origin, text: &str) -> SendMessage {
        SendMessage {
            account_id: account,
            to_wxid: CUSTOMER.into(),
            message: words(text),
            on_unknown: OnUnknown::Hold,
            origin,
            reply: None,
            confirms_opt_out: false,
            campaign: None,
        }
    }

    /// Runs the next job of the sends that wait, which must be this one, and tells how it ended: `sent`, or the code.
    pub(super) async fn leaves(&self, job: Uuid) -> String {
        let delivery = self.book.dispatch_one().await;
        assert_eq!(delivery.job_id, job);
        self.finish(delivery).await
    }

    /// Runs a message that was handed out, and tells how it ended.
    pub(super) async fn finish(&self, delivery: Dispatched) -> String {
        let worker = Uuid::now_v7();
        let claimed = self.book.claim(&[delivery], worker).await.remove(0);
        let job = claimed.job_id;
        let send: SendMessage = serde_json::from_value(claimed.args.clone()).expect("args of a message");
        let context = self.context(job, claimed.attempt, worker);
        let ended = send.run(&context).await;
        let end = end_of(&claimed, worker);
        let (word, end) = match ended {
            Ok(Done { .. }) => ("sent".to_owned(), end),
            Err(JobError::Cancel(failure)) => {
                let end = entropy_schema::record::finish::Finish {
                    outcome: Some("cancelled"),
                    becomes: Becomes::Final("cancelled"),
                    error: Some(failure.to_json()),
                    ..end
                };
                (failure.code, end)
            }
            Err(other) => panic!("neither sent nor cancelled: {other:?}"),
        };
        assert!(self.book.finish(end).await);
        word
    }

    /// What the phone has been told to say, as recipient and words.
    pub(super) fn said(&self) -> Vec<(String, String)> {
        self.phone.received()
    }

    /// A person takes the conversation over.
    pub(super) async fn take_over(&self, minutes: Option<i32>) -> Standing {
        let (organization, chat) = (self.book.organization, self.chat().await);
        let mut conn = self.book.conn().await;
        conn.transaction(async |conn| mode::take_over(conn, organization, chat.id, minutes, None).await)
            .await
            .expect("an answer")
            .expect("a conversation")
    }

    /// A person hands the conversation back.
    pub(super) async fn hand_back(&self) -> Standing {
        let (organization, chat) = (self.book.organization, self.chat().await);
        let mut conn = self.book.conn().await;
        conn.transaction(async |conn| mode::hand_back(conn, organization, chat.id, None).await)
            .await
            .expect("an answer")
            .expect("a conversation")
    }

    /// How many alerts of a kind there are.
    pub(super) async fn alerts(&self, kind: &str) -> i64 {
        self.book.number(&format!("SELECT count(*) AS n FROM alerts WHERE kind = '{kind}'")).await
    }
}

/// The customer of the scene.
pub(super) const CUSTOMER: &str = "wxid_customer";

fn words(text: &str) -> message::Message {
    message::Message::Text(Words { text: text.into(), ats: None })
}

/// A text of somebody in a chat of two, written just now.
pub(super) fn from(wxid: &str, text: &str) -> Message {
    Message {
        peer_wxid: wxid.into(),
        sender_wxid: wxid.into(),
        from_me: false,
        kind: "text",
        text: text.into(),
        content: None,
        mentions_me: false,
        mentions_all: false,
        sender_name: Some("小王".into()),
        new_msg_id: format!("73{:017}", fastrand::u64(..100_000_000_000_000_000)),
        msg_id: None,
        sent_at: Utc::now() - TimeDelta::milliseconds(300),
        media: None,
    }
}

/// A text of the customer in a group.
pub(super) fn in_group(text: &str, mentions_me: bool) -> Message {
    Message { peer_wxid: "100@chatroom".into(), mentions_me, ..from(CUSTOMER, text) }
}

/// A text that the owner typed to the customer on the phone.
pub(super) fn typed(text: &str) -> Message {
    Message { from_me: true, sender_wxid: "own".into(), ..from(CUSTOMER, text) }
}

//! Conversations: what was said, what waits to be said, and who answers.

use chrono::{DateTime, SecondsFormat, Utc};
use diesel_async::AsyncConnection;
use entropy_jobs::conversation::mode::{self, Standing};
use entropy_schema::conversations as rows;
use entropy_schema::views::conversations::{self as views, Chat, ChatFilter, ChatPlace, Said};
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{Enum, Object, OpenApi};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Tag;
use super::audit::Note;
use crate::AppState;
use crate::auth::caller::Caller;
use crate::auth::role::Role;
use crate::http::body::OptionalBody;
use crate::http::origin::Origin;
use crate::page::{Ask, Page, bad_cursor, decode, encode, limit_of};
use crate::problem::{ApiError, FieldProblem};

/// The longest takeover with an end, in minutes: a week.
const MAX_MINUTES: i32 = 10_080;

/// How many messages that wait are shown before the latest one.
const MAX_WAITING: i64 = 50;

/// Who answers in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
pub(super) enum ChatMode {
    /// The AI.
    Ai,
    /// A person.
    Human,
    /// Nobody by machine.
    Paused,
}

impl ChatMode {
    fn as_str(self) -> &'static str {
        match self {
            ChatMode::Ai => "ai",
            ChatMode::Human => "human",
            ChatMode::Paused => "paused",
        }
    }
}

impl From<mode::Mode> for ChatMode {
    fn from(mode: mode::Mode) -> Self {
        match mode {
            mode::Mode::Ai => ChatMode::Ai,
            mode::Mode::Human => ChatMode::Human,
            mode::Mode::Paused => ChatMode::Paused,
        }
    }
}

/// The other side of a conversation.
#[derive(Debug, Object)]
struct PeerView {
    /// The contact.
    id: Uuid,
    wxid: String,
    nickname: String,
    /// What the account's owner calls it.
    remark: String,
    avatar: Option<String>,
    tags: Vec<String>,
}

/// A conversation of an account.
#[derive(Debug, Object)]
struct ConversationView {
    /// Also the id of the lane in which its answers are written.
    id: Uuid,
    account_id: Uuid,
    contact: PeerView,
    /// `friend` or `group`.
    kind: String,
    /// Who answers at this moment.
    mode: ChatMode,
    /// When the mode ends by itself; null: when somebody hands back.
    mode_until: Option<DateTime<Utc>>,
    /// `takeover`, `hand_back`, `phone`, `handoff`, `paused` or `opt_out`; null: it was never changed.
    mode_reason: Option<String>,
    /// Grows with every change of the mode.
    mode_epoch: i64,
    unread: i32,
    last_message_at: Option<DateTime<Utc>>,
    last_inbound_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
}

/// A message of a conversation, or one that waits to be sent.
#[derive(Debug, Object)]
struct MessageView {
    /// Of what waits, that of its job.
    id: Uuid,
    /// `in` or `out`.
    direction: String,
    /// `customer`, `phone` (typed on the phone), `person` (over the API), `ai` or `sop`.
    origin: String,
    kind: String,
    /// What a person reads of it; null for a viewer.
    text: Option<String>,
    /// What the kind has beside its text; null for a viewer.
    content: Option<Value>,
    sender_wxid: Option<String>,
    /// The name of who wrote it in a group.
    sender_name: Option<String>,
    mentions_me: bool,
    /// `received`, `scheduled`, `queued`, `sending`, `sent`, `failed` or `unknown`; null: its send is too old to be known.
    status: Option<String>,
    /// The provider's id, a string.
    new_msg_id: Option<String>,
    /// The provider's time.
    sent_at: Option<DateTime<Utc>>,
    /// The job that sends it.
    job_id: Option<Uuid>,
    /// What was written in a row and is answered together.
    turn_id: Option<Uuid>,
    /// The person who asked for it.
    user_id: Option<Uuid>,
    recalled_at: Option<DateTime<Utc>>,
    /// `waiting`, `stored`, `refused`, `gone` or `pruned` (kept for its time, then deleted); null: it has no media.
    media_state: Option<String>,
    created_at: DateTime<Utc>,
}

/// Who answers.
#[derive(Debug, Object)]
struct ModeView {
    mode: ChatMode,
    /// When it ends by itself; null: when somebody hands back.
    mode_until: Option<DateTime<Utc>>,
}

/// A change of the mode.
#[derive(Debug, Object)]
struct ModeChangeView {
    id: Uuid,
    /// `ai`, `human` or `paused`.
    mode: String,
    until: Option<DateTime<Utc>>,
    /// `takeover`, `hand_back`, `phone`, `handoff`, `paused` or `opt_out`.
    reason: String,
    note: Option<String>,
    changed_by: Option<Uuid>,
    epoch: i64,
    changed_at: DateTime<Utc>,
}

/// For how long.
#[derive(Default, Object)]
#[oai(deny_unknown_fields)]
struct TakeoverRequest {
    /// 1 to 10080; without it, until somebody hands back.
    minutes: Option<i32>,
}

/// Nothing to say.
#[derive(Default, Object)]
#[oai(deny_unknown_fields)]
struct NothingRequest {}

/// Conversations.
pub(super) struct Conversations;

#[OpenApi(tag = "Tag::Conversations")]
impl Conversations {
    /// Lists conversations
    ///
    /// The one with the latest message first. All filters given must apply.
    #[oai(path = "/conversations", method = "get", operation_id = "list_conversations")]
    #[expect(clippy::too_many_arguments, reason = "one per query parameter")]
    async fn list(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        /// Only of this account.
        account_id: Query<Option<Uuid>>,
        /// Only those answered by this at the moment.
        mode: Query<Option<ChatMode>>,
        /// Only those with unread messages.
        unread: Query<Option<bool>>,
        /// Only with this in nickname, remark or wxid; 1 to 100 characters.
        q: Query<Option<String>>,
        /// Items on the page, 1 to 200; 50 if not given.
        limit: Query<Option<i64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<Page<ConversationView>>, ApiError> {
        let limit = limit_of(limit.0)?;
        let after = cursor.0.as_deref().map(place).transpose()?;
        let filter = ChatFilter {
            account_id: account_id.0,
            mode: mode.0.map(ChatMode::as_str),
            unread: unread.0.unwrap_or(false),
            name: searched(q.0)?,
        };
        let mut conn = state.db.conn().await?;
        let mut rows = views::chats(&mut conn, caller.organization_id, &filter, after, limit + 1).await?;
        let asked = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rows.len() > asked;
        rows.truncate(asked);
        let next_cursor = rows.last().filter(|_| more).map(cursor_after);
        Ok(Json(Page { items: rows.into_iter().map(view).collect(), next_cursor }))
    }

    /// Shows a conversation
    ///
    /// With who answers at this moment, and until when.
    #[oai(path = "/conversations/:id", method = "get", operation_id = "get_conversation")]
    async fn get(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        id: Path<Uuid>,
    ) -> Result<Json<ConversationView>, ApiError> {
        let mut conn = state.db.conn().await?;
        let chat = views::chat(&mut conn, caller.organization_id, id.0).await?;
        chat.map(|chat| Json(view(chat))).ok_or_else(conversation_not_found)
    }

    /// Lists what was said
    ///
    /// Newest first. The first page begins with what still waits to be sent. A viewer does not see what messages say.
    #[oai(path = "/conversations/:id/messages", method = "get", operation_id = "list_messages")]
    async fn messages(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        id: Path<Uuid>,
        /// Items on the page, 1 to 200; 50 if not given. What waits comes on top.
        limit: Query<Option<i64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<Page<MessageView>>, ApiError> {
        let ask = Ask::new(limit.0, cursor.0.as_deref())?;
        let organization = caller.organization_id;
        let mut conn = state.db.conn().await?;
        let chat = rows::get(&mut conn, organization, id.0).await?.ok_or_else(conversation_not_found)?;
        let waiting = match ask.before {
            // Read first: what leaves meanwhile is then in both lists, and shown once, rather than in none.
            None => {
                views::waiting(&mut conn, organization, chat.account_id, &chat.peer_wxid, MAX_WAITING).await?
            }
            Some(_) => Vec::new(),
        };
        let said = views::messages(&mut conn, organization, id.0, ask.before, ask.fetch()).await?;
        let with_text = caller.role >= Role::Agent;
        let left: Vec<Option<Uuid>> = said.iter().map(|said| said.job_id).collect();
        let mut page = ask.page(said, |said| said.id, |said| show(said, with_text));
        let waiting = waiting.into_iter().filter(|one| !left.contains(&one.job_id));
        let mut items: Vec<MessageView> = waiting.map(|one| show(one, with_text)).collect();
        items.append(&mut page.items);
        Ok(Json(Page { items, ..page }))
    }

    /// Takes a conversation over
    ///
    /// Needs the role agent. In force for every answer that has not passed its gate when this is answered: the AI says
    /// nothing more until the time is up or somebody hands back.
    #[oai(path = "/conversations/:id/takeover", method = "post", operation_id = "take_over_conversation")]
    async fn take_over(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
        body: OptionalBody<TakeoverRequest>,
    ) -> Result<Json<ModeView>, ApiError> {
        caller.require(Role::Agent)?;
        let minutes = body.0.minutes;
        if minutes.is_some_and(|minutes| !(1..=MAX_MINUTES).contains(&minutes)) {
            let message = format!("must lie between 1 and {MAX_MINUTES}; leave it out for no end");
            return Err(ApiError::field("minutes", "out_of_range", message));
        }
        let mut conn = state.db.conn().await?;
        let standing = conn
            .transaction(async |conn| {
                let (organization, by) = (caller.organization_id, Some(caller.id));
                let standing = mode::take_over(conn, organization, id.0, minutes, by).await?;
                note(conn, "conversation.takeover", id.0, standing, &caller, &origin).await
            })
            .await?;
        Ok(Json(mode_view(standing)))
    }

    /// Hands a conversation back to the AI
    ///
    /// Needs the role agent. What was written meanwhile is not answered by itself; the next message is.
    #[oai(path = "/conversations/:id/hand-back", method = "post", operation_id = "hand_back_conversation")]
    async fn hand_back(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
        body: OptionalBody<NothingRequest>,
    ) -> Result<Json<ModeView>, ApiError> {
        caller.require(Role::Agent)?;
        let NothingRequest {} = body.0;
        let mut conn = state.db.conn().await?;
        let standing = conn
            .transaction(async |conn| {
                let standing = mode::hand_back(conn, caller.organization_id, id.0, Some(caller.id)).await?;
                note(conn, "conversation.hand_back", id.0, standing, &caller, &origin).await
            })
            .await?;
        Ok(Json(mode_view(standing)))
    }

    /// Pauses a conversation
    ///
    /// Needs the role agent. Nobody answers by machine until somebody hands it back.
    #[oai(path = "/conversations/:id/pause", method = "post", operation_id = "pause_conversation")]
    async fn pause(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
        body: OptionalBody<NothingRequest>,
    ) -> Result<Json<ModeView>, ApiError> {
        caller.require(Role::Agent)?;
        let NothingRequest {} = body.0;
        let mut conn = state.db.conn().await?;
        let standing = conn
            .transaction(async |conn| {
                let standing = mode::pause(conn, caller.organization_id, id.0, Some(caller.id)).await?;
                note(conn, "conversation.pause", id.0, standing, &caller, &origin).await
            })
            .await?;
        Ok(Json(mode_view(standing)))
    }

    /// Marks a conversation as read
    ///
    /// Needs the role agent. Its count of unread messages begins anew.
    #[oai(path = "/conversations/:id/read", method = "post", operation_id = "read_conversation")]
    async fn read(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        id: Path<Uuid>,
        body: OptionalBody<NothingRequest>,
    ) -> Result<Json<ConversationView>, ApiError> {
        caller.require(Role::Agent)?;
        let NothingRequest {} = body.0;
        let mut conn = state.db.conn().await?;
        if !rows::mark_read(&mut conn, caller.organization_id, id.0).await? {
            return Err(conversation_not_found());
        }
        let chat = views::chat(&mut conn, caller.organization_id, id.0).await?;
        chat.map(|chat| Json(view(chat))).ok_or_else(conversation_not_found)
    }

    /// Lists who answered when
    ///
    /// The changes of the mode, newest first.
    #[oai(path = "/conversations/:id/mode-changes", method = "get", operation_id = "list_mode_changes")]
    async fn mode_changes(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        id: Path<Uuid>,
        /// Items on the page, 1 to 200; 50 if not given.
        limit: Query<Option<i64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<Page<ModeChangeView>>, ApiError> {
        let ask = Ask::new(limit.0, cursor.0.as_deref())?;
        let organization = caller.organization_id;
        let mut conn = state.db.conn().await?;
        rows::get(&mut conn, organization, id.0).await?.ok_or_else(conversation_not_found)?;
        let changes = views::mode_changes(&mut conn, organization, id.0, ask.before, ask.fetch()).await?;
        Ok(Json(ask.page(
            changes,
            |change| change.id,
            |change| ModeChangeView {
                id: change.id,
                mode: change.mode,
                until: change.until,
                reason: change.reason,
                note: change.note,
                changed_by: change.changed_by,
                epoch: change.epoch,
                changed_at: change.changed_at,
            },
        )))
    }
}

async fn note(
    conn: &mut entropy_schema::Conn,
    action: &'static str,
    id: Uuid,
    standing: Option<Standing>,
    caller: &Caller,
    origin: &Origin,
) -> Result<Standing, ApiError> {
    let standing = standing.ok_or_else(conversation_not_found)?;
    Note::new(action, "conversation", id)
        .after(json!({"mode": standing.mode.as_str(), "until": standing.until, "epoch": standing.epoch}))
        .write(conn, caller, origin)
        .await?;
    Ok(standing)
}

fn conversation_not_found() -> ApiError {
    ApiError::not_found("conversation_not_found", "Your organisation has no such conversation.")
}

/// Checks what is searched for in names.
pub(super) fn searched(q: Option<String>) -> Result<Option<String>, ApiError> {
    let Some(q) = q else { return Ok(None) };
    let q = q.trim();
    if q.is_empty() || q.chars().count() > 100 || q.chars().any(char::is_control) {
        let message = "must have 1 to 100 characters, none of them a control character";
        return Err(ApiError::malformed(vec![FieldProblem::new("q", "bad_text", message)]));
    }
    Ok(Some(q.to_owned()))
}

fn cursor_after(chat: &Chat) -> String {
    let at = chat.conversation.last_message_at;
    let at = at.map(|at| at.to_rfc3339_opts(SecondsFormat::Micros, true)).unwrap_or_default();
    encode(&format!("{at}|{}", chat.conversation.id))
}

fn place(cursor: &str) -> Result<ChatPlace, ApiError> {
    let text = decode(cursor)?;
    let (at, id) = text.split_once('|').ok_or_else(bad_cursor)?;
    let at = match at {
        "" => None,
        at => Some(at.parse::<DateTime<Utc>>().map(super::jobs::storable).map_err(|_| bad_cursor())?),
    };
    Ok((at, id.parse().map_err(|_| bad_cursor())?))
}

fn view(chat: Chat) -> ConversationView {
    let Chat { conversation, nickname, remark, avatar, tags, now } = chat;
    let mode = mode::effective(&conversation, now);
    ConversationView {
        id: conversation.id,
        account_id: conversation.account_id,
        contact: PeerView {
            id: conversation.contact_id,
            wxid: conversation.peer_wxid,
            nickname,
            remark,
            avatar,
            tags,
        },
        kind: conversation.kind,
        mode: mode.into(),
        mode_until: conversation.mode_until.filter(|_| mode == mode::Mode::Human),
        mode_reason: conversation.mode_reason,
        mode_epoch: conversation.mode_epoch,
        unread: conversation.unread,
        last_message_at: conversation.last_message_at,
        last_inbound_at: conversation.last_inbound_at,
        created_at: conversation.created_at,
    }
}

fn mode_view(standing: Standing) -> ModeView {
    ModeView { mode: standing.mode.into(), mode_until: standing.until }
}

fn show(said: Said, with_text: bool) -> MessageView {
    MessageView {
        id: said.id,
        direction: said.direction,
        origin: said.origin,
        kind: said.kind,
        text: with_text.then_some(said.text),
        content: said.content.filter(|_| with_text),
        sender_wxid: said.sender_wxid,
        sender_name: said.sender_name,
        mentions_me: said.mentions_me,
        status: said.status,
        new_msg_id: said.new_msg_id,
        sent_at: said.sent_at,
        job_id: said.job_id,
        turn_id: said.turn_id,
        user_id: said.user_id,
        recalled_at: said.recalled_at,
        media_state: said.media_state,
        created_at: said.created_at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_leads_back_to_its_place() {
        let id = Uuid::now_v7();
        assert_eq!(place(&encode(&format!("|{id}"))).ok(), Some((None, id)));
        let at: DateTime<Utc> = "2026-11-22T10:00:00.123456Z".parse().expect("a time");
        assert_eq!(place(&encode(&format!("2026-11-22T10:00:00.123456Z|{id}"))).ok(), Some((Some(at), id)));
        for bad in ["", "x", "|", "yesterday|", "2026-11-22T10:00:00Z|x"] {
            assert!(place(&encode(bad)).is_err(), "{bad}");
        }
    }
}

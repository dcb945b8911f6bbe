//! Drafts: answers of the AI that wait for a person, who sends them, changes them first, or rejects them.

use chrono::{DateTime, Utc};
use diesel_async::AsyncConnection;
use entropy_jobs::ai::deliver::{Delivery, deliver};
use entropy_jobs::ai::text::split;
use entropy_jobs::ai::words::{Action, Words, normalize};
use entropy_schema::drafts::{self, Draft, Filter};
use entropy_schema::replies::{self, Chat, Turn};
use entropy_schema::{Conn, settings};
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{Enum, Object, OpenApi};
use serde_json::json;
use uuid::Uuid;

use super::Tag;
use super::account_ai::has_controls;
use super::audit::Note;
use crate::AppState;
use crate::auth::caller::Caller;
use crate::auth::role::Role;
use crate::http::body::OptionalBody;
use crate::http::origin::Origin;
use crate::http::text::Text;
use crate::page::{Ask, Page};
use crate::problem::ApiError;

/// Where a draft stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
enum DraftState {
    /// Somebody should look at it.
    Waiting,
    /// It is sent.
    Approved,
    /// It is not sent; people answer.
    Rejected,
    /// Nobody decided in time; people answer.
    Expired,
    /// The conversation moved on: a newer message, a takeover.
    Superseded,
}

impl DraftState {
    fn as_str(self) -> &'static str {
        match self {
            DraftState::Waiting => "waiting",
            DraftState::Approved => "approved",
            DraftState::Rejected => "rejected",
            DraftState::Expired => "expired",
            DraftState::Superseded => "superseded",
        }
    }

    /// Reads what is stored. A draft whose time has passed is over, also before anybody has noted it.
    fn of(draft: &Draft, now: DateTime<Utc>) -> DraftState {
        match draft.state.as_str() {
            "approved" => DraftState::Approved,
            "rejected" => DraftState::Rejected,
            "superseded" => DraftState::Superseded,
            "waiting" if draft.expires_at > now => DraftState::Waiting,
            _ => DraftState::Expired,
        }
    }
}

/// How to send a draft.
#[derive(Default, Object)]
#[oai(deny_unknown_fields)]
struct Approve {
    /// What to say instead; 1 to 1500 characters. Without it, the draft as it is.
    text: Option<Text>,
}

/// Why a draft is not sent.
#[derive(Default, Object)]
#[oai(deny_unknown_fields)]
struct Reject {
    /// For people, in the audit log; up to 200 characters.
    reason: Option<Text>,
}

/// An answer that waits for a person, or waited.
#[derive(Debug, Object)]
struct DraftView {
    id: Uuid,
    account_id: Uuid,
    conversation_id: Uuid,
    turn_id: Uuid,
    /// The messages, in order, as they would be sent.
    parts: Vec<String>,
    /// `asked`: the account has every answer reviewed. `sensitive_words`: it holds words that ask for a review.
    reason: String,
    /// The sensitive words that were found.
    word_ids: Vec<Uuid>,
    state: DraftState,
    /// Nobody can decide after this moment.
    expires_at: DateTime<Utc>,
    /// A person has changed it.
    edited: bool,
    decided_by: Option<Uuid>,
    decided_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    /// The jobs that send it; told to who approves it.
    job_ids: Option<Vec<Uuid>>,
}

/// Drafts.
pub(super) struct Drafts;

#[OpenApi(tag = "Tag::Answers")]
impl Drafts {
    /// Lists the drafts
    ///
    /// Newest first. Needs the role agent.
    #[oai(path = "/drafts", method = "get", operation_id = "list_drafts")]
    #[expect(clippy::too_many_arguments, reason = "one per query parameter")]
    async fn list(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        /// Only drafts that stand there. One whose time has just passed may still be listed among those that wait.
        #[oai(name = "state")]
        in_state: Query<Option<DraftState>>,
        /// Only of this account.
        account_id: Query<Option<Uuid>>,
        /// Only of this conversation.
        conversation_id: Query<Option<Uuid>>,
        /// Items on the page, 1 to 200; 50 if not given.
        limit: Query<Option<i64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<Page<DraftView>>, ApiError> {
        caller.require(Role::Agent)?;
        let ask = Ask::new(limit.0, cursor.0.as_deref())?;
        let filter = Filter {
            state: in_state.0.map(|state| state.as_str().to_owned()),
            account_id: account_id.0,
            conversation_id: conversation_id.0,
            before: ask.before,
        };
        let now = state.now().await;
        let mut conn = state.db.conn().await?;
        let rows = drafts::list(&mut conn, caller.organization_id, &filter, ask.fetch()).await?;
        Ok(Json(ask.page(rows, |row| row.id, |row| view(row, now, None))))
    }

    /// Sends a draft
    ///
    /// Needs the role agent. As it is, or with other words, which are checked for words that must not be said. 409 if
    /// somebody has decided (`already_decided`), its time has passed (`draft_expired`), or the conversation has moved on
    /// (`conversation_moved_on`): the customer wrote more, a person took over, the AI was switched off; or if the AI is stopped
    /// (`ai_stopped`).
    #[oai(path = "/drafts/:id/approve", method = "post", operation_id = "approve_draft")]
    async fn approve(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
        body: OptionalBody<Approve>,
    ) -> Result<Json<DraftView>, ApiError> {
        caller.require(Role::Agent)?;
        let edited = body.0.text.as_deref().map(edited).transpose()?;
        let mut conn = state.db.conn().await?;
        let approved = conn
            .transaction(async |conn| approve(conn, &caller, &origin, id.0, edited.as_deref()).await)
            .await?;
        state.waker.wake();
        Ok(Json(approved))
    }

    /// Rejects a draft
    ///
    /// Needs the role agent. It is not sent, and the customer waits for a person. 409 as when approving.
    #[oai(path = "/drafts/:id/reject", method = "post", operation_id = "reject_draft")]
    async fn reject(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
        body: OptionalBody<Reject>,
    ) -> Result<Json<DraftView>, ApiError> {
        caller.require(Role::Agent)?;
        let reason = body.0.reason.as_deref().map(str::trim);
        if reason.is_some_and(|reason| reason.chars().count() > 200 || reason.chars().any(char::is_control)) {
            let message = "must have at most 200 characters and no control characters";
            return Err(ApiError::field("reason", "too_long", message));
        }
        let mut conn = state.db.conn().await?;
        let rejected = conn
            .transaction(async |conn| {
                let at_hand = AtHand::lock(conn, &caller, id.0).await?;
                let organization = caller.organization_id;
                if !drafts::decide(conn, organization, id.0, "rejected", Some(caller.id), None).await? {
                    return Err(expired());
                }
                if at_hand.turn.state == "review" && at_hand.turn.run == at_hand.draft.run {
                    replies::set_turn(conn, at_hand.turn.id, "handed_off", Some("rejected")).await?;
                }
                Note::new("draft.reject", "draft", id.0)
                    .after(json!({ "reason": reason }))
                    .write(conn, &caller, &origin)
                    .await?;
                let draft = drafts::read(conn, organization, id.0).await?.ok_or_else(draft_not_found)?;
                Ok(view(draft, at_hand.chat.now, None))
            })
            .await?;
        Ok(Json(rejected))
    }
}

/// A draft that waits, with what it concerns, all locked.
struct AtHand {
    draft: Draft,
    chat: Chat,
    turn: Turn,
}

impl AtHand {
    /// Locks a draft that can be decided, in the order lane, chat, turn: whoever decides or moves the conversation on comes
    /// before this or after it.
    async fn lock(conn: &mut Conn, caller: &Caller, id: Uuid) -> Result<AtHand, ApiError> {
        let organization = caller.organization_id;
        let found = drafts::read(conn, organization, id).await?.ok_or_else(draft_not_found)?;
        replies::lock_lane(conn, found.account_id).await?;
        let chat = replies::lock_chat(conn, organization, found.conversation_id).await?;
        let turn = replies::lock_turn(conn, organization, found.conversation_id, found.turn_id).await?;
        // As it stands under the locks.
        let draft = drafts::read(conn, organization, id).await?.ok_or_else(draft_not_found)?;
        let (Some(chat), Some(turn)) = (chat, turn) else { return Err(moved_on()) };
        match DraftState::of(&draft, chat.now) {
            DraftState::Waiting => Ok(AtHand { draft, chat, turn }),
            DraftState::Approved | DraftState::Rejected => {
                let detail = format!("Somebody has decided about this draft already: it is {}.", draft.state);
                Err(ApiError::conflict("already_decided", detail))
            }
            DraftState::Expired => Err(expired()),
            DraftState::Superseded => Err(moved_on()),
        }
    }

    /// Tells whether the turn still waits for this draft, in the epoch in which it was written.
    fn is_wanted(&self) -> bool {
        let AtHand { draft, chat, turn } = self;
        chat.is_ai()
            && chat.mode_epoch == draft.epoch
            && turn.epoch == draft.epoch
            && turn.run == draft.run
            && turn.state == "review"
    }
}

async fn approve(
    conn: &mut Conn,
    caller: &Caller,
    origin: &Origin,
    id: Uuid,
    edited: Option<&str>,
) -> Result<DraftView, ApiError> {
    let organization = caller.organization_id;
    let at_hand = AtHand::lock(conn, caller, id).await?;
    let AtHand { draft, chat, turn } = &at_hand;
    let chosen = settings::account_ai(conn, organization, draft.account_id).await?;
    let facts = replies::facts(conn, organization, draft.conversation_id, &turn.sender_wxid).await?;
    let Some(facts) = facts.filter(|facts| !facts.opted_out && !facts.suppressed && !facts.account_removed)
    else {
        return Err(moved_on());
    };
    if facts.ai_stopped {
        let detail =
            "An emergency stop of the AI is in force. Lift it first, or answer this customer yourself.";
        return Err(ApiError::conflict("ai_stopped", detail));
    }
    if !at_hand.is_wanted() || !chosen.is_some_and(|chosen| chosen.enabled) {
        return Err(moved_on());
    }
    let text = edited.map_or_else(|| draft.texts().join("\n"), str::to_owned);
    let words = Words::new(&replies::sensitive_words(conn, organization).await?);
    let verdict = words.check(&text);
    if verdict.action == Some(Action::Block) {
        let message =
            "holds a word that your organisation does not let the AI say; change it, or reject the draft";
        return Err(ApiError::field("text", "blocked_word", message));
    }
    let parts = edited.map(|_| split(&verdict.text).parts);
    if !drafts::decide(conn, organization, id, "approved", Some(caller.id), parts.as_deref()).await? {
        return Err(expired());
    }
    let delivered = deliver(
        conn,
        &Delivery {
            organization_id: organization,
            account_id: draft.account_id,
            conversation_id: draft.conversation_id,
            peer_wxid: &chat.peer_wxid,
            mention: (chat.kind == "group").then_some((turn.sender_wxid.as_str(), facts.name.as_str())),
            turn_id: turn.id,
            run: turn.run,
            epoch: turn.epoch,
            text: &verdict.text,
            disclosed: facts.disclosed,
            now: chat.now,
            trace_id: &origin.trace_id,
            created_by: Some(caller.id),
        },
    )
    .await?;
    // Not what it says: the log holds no messages.
    Note::new("draft.approve", "draft", id)
        .after(json!({"edited": edited.is_some(), "job_ids": delivered.job_ids}))
        .write(conn, caller, origin)
        .await?;
    let draft = drafts::read(conn, organization, id).await?.ok_or_else(draft_not_found)?;
    Ok(view(draft, chat.now, Some(delivered.job_ids)))
}

/// Checks what a person wants to say instead.
fn edited(text: &str) -> Result<String, ApiError> {
    let text = text.trim();
    // What cannot be seen says nothing.
    if normalize(text).is_empty() {
        return Err(ApiError::field("text", "blank", "must not be empty or blank"));
    }
    if has_controls(text) {
        let message = "must not have control characters other than line breaks";
        return Err(ApiError::field("text", "control_character", message));
    }
    if text.chars().count() > 1500 || split(text).cut {
        let message = "must fit into three messages of 500 characters";
        return Err(ApiError::field("text", "too_long", message));
    }
    Ok(text.to_owned())
}

fn draft_not_found() -> ApiError {
    ApiError::not_found("draft_not_found", "Your organisation has no such draft.")
}

fn expired() -> ApiError {
    let detail = "The time of this draft has passed. A person should answer this customer.";
    ApiError::conflict("draft_expired", detail)
}

fn moved_on() -> ApiError {
    let detail = "The conversation has moved on since this was written: the customer wrote more, a person took over, or \
        nobody may answer any more. Look at the conversation.";
    ApiError::conflict("conversation_moved_on", detail)
}

fn view(draft: Draft, now: DateTime<Utc>, job_ids: Option<Vec<Uuid>>) -> DraftView {
    DraftView {
        id: draft.id,
        account_id: draft.account_id,
        conversation_id: draft.conversation_id,
        turn_id: draft.turn_id,
        parts: draft.texts(),
        state: DraftState::of(&draft, now),
        reason: draft.reason,
        word_ids: draft.word_ids,
        expires_at: draft.expires_at,
        edited: draft.edited,
        decided_by: draft.decided_by,
        decided_at: draft.decided_at,
        created_at: draft.created_at,
        job_ids,
    }
}

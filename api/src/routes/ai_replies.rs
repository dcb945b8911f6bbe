//! Asks the model for an answer in a conversation.

use std::collections::HashMap;

use entropy_jobs::class::Class;
use entropy_jobs::enqueue::{Idempotency, NewJob, new_job};
use entropy_jobs::kinds::ai_reply::{AiReply, Asked};
use entropy_schema::replies::{self, Askable};
use poem::web::Data;
use poem_openapi::param::Header;
use poem_openapi::{Object, OpenApi};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Tag;
use super::enqueue::{Accepted, Making, Refused, accept, again, checked_key, request_hash};
use crate::AppState;
use crate::auth::caller::Caller;
use crate::auth::role::Role;
use crate::http::body::Body;
use crate::http::origin::Origin;
use crate::http::text::Text;
use crate::problem::{ApiError, FieldProblem};

/// The longest instruction, in characters.
const MAX_INSTRUCTION_CHARS: usize = 2000;

/// An answer that the model is to write.
#[derive(Debug, Object)]
#[oai(deny_unknown_fields)]
pub(super) struct AiReplyRequest {
    /// The conversation.
    pub(super) conversation_id: Uuid,
    /// What the answer should say, in words for the model. 1 to 2000 characters.
    instruction: Option<Text>,
}

/// Answers on demand.
pub(super) struct AiReplies;

#[OpenApi(tag = "Tag::Jobs")]
impl AiReplies {
    /// Lets the model answer in a conversation
    ///
    /// Needs the role agent. Answers what the customer wrote since anybody answered, at once; with an `instruction`, also if
    /// there is nothing to answer. 409 if people answer there (`human_answers`), if nobody answers by machine for the account
    /// (`ai_disabled`), or if no machine may write to this contact (`contact_stopped`).
    #[oai(path = "/jobs/ai-reply", method = "post", operation_id = "enqueue_ai_reply")]
    async fn ai_reply(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        /// The caller's token, 1 to 255 characters: the same key and body is the same job.
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<String>>,
        body: Body<AiReplyRequest>,
    ) -> Result<Accepted, ApiError> {
        caller.require(Role::Agent)?;
        let key = checked_key(idempotency_key.0.as_deref(), "Idempotency-Key")?;
        let chats = askable(&state, &caller, &[body.0.conversation_id]).await?;
        let context = Making { state: &state, caller: &caller, origin: &origin, now: state.now().await };
        let made = match context.ai_reply(body.0, &chats, key.clone()) {
            Err(Refused { error, request_hash: Some(hash) }) => {
                // The same request again, after people took over: it was accepted then, so it is answered now.
                return match again(&context, key, hash).await? {
                    Some(found) => Ok(found),
                    None => Err(*error),
                };
            }
            made => made?,
        };
        let lane = made.lane_id;
        accept(&context, made, lane).await
    }
}

/// Reads how conversations stand. Those of other tenants are not among them.
pub(super) async fn askable(
    state: &AppState,
    caller: &Caller,
    ids: &[Uuid],
) -> Result<HashMap<Uuid, Askable>, ApiError> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let mut conn = state.db.conn().await?;
    let found = replies::askable(&mut conn, caller.organization_id, ids).await?;
    Ok(found.into_iter().map(|chat| (chat.id, chat)).collect())
}

/// Returns the conversations that the items of a batch name, before they are read.
pub(super) fn named_in(items: &[&Value]) -> Vec<Uuid> {
    let id = |item: &&Value| {
        let item = item.as_object()?;
        let asked = item.get("kind")?.as_str()? == "ai_reply";
        let id = item.get("args")?.get("conversation_id")?.as_str()?.parse().ok()?;
        asked.then_some(id)
    };
    items.iter().filter_map(id).collect()
}

impl Making<'_> {
    /// Checks a request for an answer and makes its job.
    pub(super) fn ai_reply(
        &self,
        request: AiReplyRequest,
        chats: &HashMap<Uuid, Askable>,
        key: Option<String>,
    ) -> Result<NewJob, Refused> {
        let instruction = request.instruction.map(|text| text.0.trim().to_owned());
        let length = instruction.as_ref().map(|text| text.chars().count());
        if length.is_some_and(|length| !(1..=MAX_INSTRUCTION_CHARS).contains(&length)) {
            let message = format!("must have 1 to {MAX_INSTRUCTION_CHARS} characters");
            return Err(
                ApiError::unprocessable(vec![FieldProblem::new("instruction", "bad_text", message)]).into()
            );
        }
        let asked = json!({
            "kind": "ai_reply", "conversation_id": request.conversation_id, "instruction": &instruction,
        });
        let request_hash = request_hash(&asked);
        let Some(chat) = chats.get(&request.conversation_id) else {
            let detail = "Your organisation has no such conversation.";
            return Err(ApiError::not_found("conversation_not_found", detail).into());
        };
        if let Some(error) = refusal(chat) {
            let request_hash = key.is_some().then_some(request_hash);
            return Err(Refused { error: Box::new(error), request_hash });
        }
        let args = AiReply {
            account_id: chat.account_id,
            conversation_id: chat.id,
            turn_id: Uuid::now_v7(),
            run: 1,
            epoch: chat.mode_epoch,
            asked: Some(Asked { instruction }),
        };
        let idempotency = key.map(|key| Idempotency { key, request_hash });
        Ok(new_job(&args, self.options(Class::Reply, None, None, idempotency)))
    }
}

fn refusal(chat: &Askable) -> Option<ApiError> {
    if !chat.is_ai {
        let detail = "People answer in this conversation. Hand it back to the AI first.";
        return Some(ApiError::conflict("human_answers", detail));
    }
    if !chat.enabled {
        let detail = "Nobody answers by machine for this account. Turn its AI on, with a workflow.";
        return Some(ApiError::conflict("ai_disabled", detail));
    }
    chat.stopped.then(|| {
        let detail =
            "No machine may write to this contact: it opted out, was suppressed, or is no contact any more.";
        ApiError::conflict("contact_stopped", detail)
    })
}

//! Takes work, one job at a time.

use chrono::{DateTime, TimeDelta, Utc};
use entropy_jobs::canonical::canonical;
use entropy_jobs::class::Class;
use entropy_jobs::enqueue::{Enqueued, Idempotency, NewJob, Options, new_job};
use entropy_jobs::kinds::cost_tally::CostTally;
use entropy_jobs::kinds::send_message::SendMessage;
use entropy_jobs::lifecycle::OnUnknown;
use entropy_jobs::message::validate_wxid;
use entropy_schema::{accounts, jobs};
use poem::web::Data;
use poem_openapi::param::Header;
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};
use ring::digest::{Context, SHA256};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Tag;
use super::accounts::account_not_found;
use super::job_view::{JobView, fresh, read};
use super::message::MessageArg;
use crate::AppState;
use crate::auth::caller::Caller;
use crate::auth::role::Role;
use crate::http::body::Body;
use crate::http::origin::Origin;
use crate::http::text::Text;
use crate::problem::{ApiError, FieldProblem};

/// Who waits for a job; decides the order within its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
pub(super) enum Priority {
    /// A person waits in front of a screen.
    Interactive,
    /// A customer waits for an answer.
    Reply,
    /// Nobody waits.
    Campaign,
}

impl From<Priority> for Class {
    fn from(priority: Priority) -> Class {
        match priority {
            Priority::Interactive => Class::Interactive,
            Priority::Reply => Class::Reply,
            Priority::Campaign => Class::Campaign,
        }
    }
}

/// What to do when nobody can know whether a message was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
pub(super) enum UnknownPolicy {
    /// Ask a person.
    Hold,
    /// Send again, at the risk of sending twice.
    Resend,
    /// Leave it at that, at the risk of not having sent.
    Drop,
}

impl From<UnknownPolicy> for OnUnknown {
    fn from(policy: UnknownPolicy) -> OnUnknown {
        match policy {
            UnknownPolicy::Hold => OnUnknown::Hold,
            UnknownPolicy::Resend => OnUnknown::Resend,
            UnknownPolicy::Drop => OnUnknown::Drop,
        }
    }
}

/// A message to send.
#[derive(Debug, Object)]
#[oai(deny_unknown_fields)]
pub(super) struct SendMessageRequest {
    /// The account that sends.
    pub(super) account_id: Uuid,
    /// The person or group that receives.
    to_wxid: Text,
    message: MessageArg,
    /// `interactive` if not given.
    priority: Option<Priority>,
    /// Not before; the past means now. At most a year ahead.
    scheduled_at: Option<DateTime<Utc>>,
    /// Not after: a message that has not been sent by then is cancelled.
    expires_at: Option<DateTime<Utc>>,
    /// `hold` if not given.
    on_unknown: Option<UnknownPolicy>,
}

/// What one AI run cost, in tokens.
#[derive(Debug, Object)]
#[oai(deny_unknown_fields)]
pub(super) struct CostTallyRequest {
    /// Names the run: it is entered into the ledger once. 1 to 255 characters.
    request_id: Text,
    /// The account that it was run for.
    pub(super) account_id: Uuid,
    /// The model's name as the provider reports it. 1 to 200 characters.
    model: Text,
    /// Tokens read.
    input_tokens: i64,
    /// Tokens written.
    output_tokens: i64,
    /// Of the tokens read, those that came out of a cache: they are priced as such. None if not given.
    cached_input_tokens: Option<i64>,
    /// When it was run: the price of that moment counts. Now if not given.
    occurred_at: Option<DateTime<Utc>>,
}

#[derive(ApiResponse)]
pub(super) enum Accepted {
    /// Stored; it will run.
    #[oai(status = 202)]
    New(Json<JobView>, #[oai(header = "Location")] String),
    /// The same request was made before with this key; this is the job that it made.
    #[oai(status = 200)]
    Existing(Json<JobView>, #[oai(header = "Location")] String),
}

/// Enqueueing.
pub(super) struct Enqueue;

#[OpenApi(tag = "Tag::Jobs")]
impl Enqueue {
    /// Sends a message
    ///
    /// Needs the role agent. 202 means that it is stored and will be sent, within the account's limits and in the order
    /// of its conversation; with Redis away it waits until Redis is back. An account that is paused or offline accepts
    /// it too: the job waits and says why.
    #[oai(path = "/jobs/send-message", method = "post", operation_id = "enqueue_send_message")]
    async fn send_message(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        /// The caller's token, 1 to 255 characters: the same key and body is the same job.
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<String>>,
        body: Body<SendMessageRequest>,
    ) -> Result<Accepted, ApiError> {
        caller.require(Role::Agent)?;
        let key = checked_key(idempotency_key.0.as_deref(), "Idempotency-Key")?;
        let account = body.0.account_id;
        let context = Making { state: &state, caller: &caller, origin: &origin, now: state.now().await };
        let made = match context.send_message(body.0, key.clone()) {
            Err(Refused { error, request_hash: Some(hash) }) => {
                // The same request again, after its deadline: it was accepted then, so it is answered now.
                return match again(&context, key, hash).await? {
                    Some(found) => Ok(found),
                    None => Err(*error),
                };
            }
            made => made?,
        };
        check_account(&state, &caller, account).await?;
        accept(&context, made, Some(account)).await
    }

    /// Enters what an AI run cost
    ///
    /// Needs the role agent. The ledger gets one line per `request_id`, priced with the price that was valid then; an
    /// unknown model is entered unpriced.
    #[oai(path = "/jobs/cost-tally", method = "post", operation_id = "enqueue_cost_tally")]
    async fn cost_tally(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        /// The caller's token, 1 to 255 characters: the same key and body is the same job.
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<String>>,
        body: Body<CostTallyRequest>,
    ) -> Result<Accepted, ApiError> {
        caller.require(Role::Agent)?;
        let key = checked_key(idempotency_key.0.as_deref(), "Idempotency-Key")?;
        let account = body.0.account_id;
        let context = Making { state: &state, caller: &caller, origin: &origin, now: state.now().await };
        let made = context.cost_tally(body.0, key)?;
        check_account(&state, &caller, account).await?;
        accept(&context, made, None).await
    }
}

/// What every job is made with.
pub(super) struct Making<'a> {
    pub(super) state: &'a AppState,
    pub(super) caller: &'a Caller,
    pub(super) origin: &'a Origin,
    pub(super) now: DateTime<Utc>,
}

/// A request that makes no job.
pub(super) struct Refused {
    /// Why.
    pub(super) error: Box<ApiError>,
    /// Hash of the request, if only how things stand now is against it.
    pub(super) request_hash: Option<Vec<u8>>,
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        Refused { error: Box::new(error), request_hash: None }
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        *refused.error
    }
}

impl Making<'_> {
    /// Checks a message and makes its job; the account is not looked up.
    pub(super) fn send_message(
        &self,
        request: SendMessageRequest,
        key: Option<String>,
    ) -> Result<NewJob, Refused> {
        let now = self.now;
        let mut problems = Vec::new();
        if let Err(message) = validate_wxid(&request.to_wxid) {
            problems.push(FieldProblem::new("to_wxid", "bad_wxid", message));
        }
        let message = request.message.0;
        let wrong = message.validate(&self.state.url_policy);
        problems.extend(wrong.into_iter().map(|error| FieldProblem::below("message", error)));
        if request.scheduled_at.is_some_and(|at| at > now + TimeDelta::days(366)) {
            problems.push(FieldProblem::new("scheduled_at", "too_far", "must be at most a year ahead"));
        }
        if request.expires_at.is_some_and(|at| at > now + TimeDelta::days(3660)) {
            problems.push(FieldProblem::new("expires_at", "too_far", "must be at most ten years ahead"));
        }
        let first = request.scheduled_at.map_or(now, |at| at.max(now));
        let too_late = request.expires_at.is_some_and(|at| at <= first);
        let only_late = too_late && problems.is_empty();
        if too_late {
            let message = "lies in the past or before scheduled_at; choose a later time or leave it out";
            problems.push(FieldProblem::new("expires_at", "in_the_past", message));
        }
        let class = request.priority.map_or(Class::Interactive, Class::from);
        let args = SendMessage {
            account_id: request.account_id,
            to_wxid: request.to_wxid.0,
            message,
            on_unknown: request.on_unknown.map(OnUnknown::from).unwrap_or_default(),
            origin: entropy_jobs::conversation::Origin::Person,
            reply: None,
            confirms_opt_out: false,
            campaign: None,
        };
        let hash = || {
            let (scheduled_at, expires_at) = (request.scheduled_at, request.expires_at);
            let asked = json!({
                "kind": "send_message", "args": serde_json::to_value(&args).unwrap_or_default(),
                "class": class.as_str(), "scheduled_at": scheduled_at, "expires_at": expires_at,
            });
            request_hash(&asked)
        };
        if !problems.is_empty() {
            let request_hash = (only_late && key.is_some()).then(hash);
            return Err(Refused { error: Box::new(ApiError::unprocessable(problems)), request_hash });
        }
        let idempotency = key.map(|key| Idempotency { key, request_hash: hash() });
        let scheduled_at = request.scheduled_at.filter(|at| *at > now);
        Ok(new_job(&args, self.options(class, scheduled_at, request.expires_at, idempotency)))
    }

    /// Checks a tally and makes its job; the account is not looked up.
    pub(super) fn cost_tally(
        &self,
        request: CostTallyRequest,
        key: Option<String>,
    ) -> Result<NewJob, Refused> {
        let mut problems = Vec::new();
        let mut text = |path: &str, text: &str, most: usize| {
            if !(1..=most).contains(&text.chars().count()) || text.chars().any(char::is_control) {
                let message = format!("must have 1 to {most} characters and no control characters");
                problems.push(FieldProblem::new(path, "bad_text", message));
            }
        };
        text("request_id", &request.request_id, 255);
        text("model", &request.model, 200);
        for (path, tokens) in
            [("input_tokens", request.input_tokens), ("output_tokens", request.output_tokens)]
        {
            if !(0..=1_000_000_000_000).contains(&tokens) {
                problems.push(FieldProblem::new(path, "out_of_range", "must lie between 0 and 10^12"));
            }
        }
        let cached_input_tokens = request.cached_input_tokens.unwrap_or_default();
        if !(0..=request.input_tokens.max(0)).contains(&cached_input_tokens) {
            let message = "must lie between 0 and input_tokens, of which they are a part";
            problems.push(FieldProblem::new("cached_input_tokens", "out_of_range", message));
        }
        let now = self.now;
        let known_times = DateTime::UNIX_EPOCH..now + TimeDelta::days(1);
        if request.occurred_at.is_some_and(|at| !known_times.contains(&at)) {
            problems.push(FieldProblem::new("occurred_at", "out_of_range", "must not lie in the future"));
        }
        if !problems.is_empty() {
            return Err(ApiError::unprocessable(problems).into());
        }
        let args = CostTally {
            request_id: request.request_id.0,
            account_id: Some(request.account_id),
            user_id: Some(self.caller.id),
            model: request.model.0,
            input_tokens: request.input_tokens,
            output_tokens: request.output_tokens,
            cached_input_tokens,
            occurred_at: request.occurred_at,
        };
        let idempotency = key.map(|key| {
            let mut asked = serde_json::to_value(&args).unwrap_or_default();
            // Another person may repeat the request.
            asked["user_id"] = Value::Null;
            let asked = json!({"kind": "cost_tally", "args": asked});
            Idempotency { key, request_hash: request_hash(&asked) }
        });
        // The run is over: nobody waits for its line, but the time it is priced at is the time of the request.
        let args = CostTally { occurred_at: args.occurred_at.or(Some(now)), ..args };
        Ok(new_job(&args, self.options(Class::Campaign, None, None, idempotency)))
    }

    pub(super) fn options(
        &self,
        class: Class,
        scheduled_at: Option<DateTime<Utc>>,
        expires_at: Option<DateTime<Utc>>,
        idempotency: Option<Idempotency>,
    ) -> Options {
        Options {
            organization_id: self.caller.organization_id,
            class,
            scheduled_at,
            expires_at,
            idempotency,
            trace_id: self.origin.trace_id.clone(),
            created_by: Some(self.caller.id),
        }
    }
}

pub(super) async fn accept(
    context: &Making<'_>,
    job: NewJob,
    lane: Option<Uuid>,
) -> Result<Accepted, ApiError> {
    let (state, caller) = (context.state, context.caller);
    let lanes: Vec<(Uuid, i64)> = lane.map(|lane| (lane, 1)).into_iter().collect();
    state.backlog.admit(&state.db, caller.organization_id, 1, &lanes).await?;
    let view = fresh(&job, caller, context.now);
    let answer = state.enqueuer.enqueue(vec![job]).await?.pop();
    match answer {
        Some(Enqueued::Created(id)) => Ok(Accepted::New(Json(view), location(id))),
        Some(Enqueued::Existing(id)) => existing(context, id).await,
        Some(Enqueued::KeyReused) => Err(key_reused()),
        None => Err(ApiError::internal("the enqueuer gave no answer")),
    }
}

async fn existing(context: &Making<'_>, id: Uuid) -> Result<Accepted, ApiError> {
    let mut conn = context.state.db.conn().await?;
    let view = read(&mut conn, context.caller, id).await?;
    Ok(Accepted::Existing(Json(view), location(id)))
}

/// Looks for the job that the same key made before.
pub(super) async fn again(
    context: &Making<'_>,
    key: Option<String>,
    request_hash: Vec<u8>,
) -> Result<Option<Accepted>, ApiError> {
    let Some(key) = key else { return Ok(None) };
    let mut conn = context.state.db.conn().await?;
    let found = jobs::by_idempotency_key(&mut conn, context.caller.organization_id, &key).await?;
    drop(conn);
    match found {
        None => Ok(None),
        Some((_, hash)) if hash != request_hash => Err(key_reused()),
        Some((id, _)) => Ok(Some(existing(context, id).await?)),
    }
}

fn location(id: Uuid) -> String {
    format!("/api/v1/jobs/{id}")
}

/// The answer to a key that belongs to another request.
pub(super) fn key_reused() -> ApiError {
    let detail = "This idempotency key was used with another request. Use a new key for a new request.";
    ApiError::conflict("idempotency_key_reused", detail)
}

/// Checks a caller's key.
pub(super) fn checked_key(key: Option<&str>, path: &str) -> Result<Option<String>, ApiError> {
    let Some(key) = key else { return Ok(None) };
    if (1..=255).contains(&key.chars().count()) && !key.chars().any(char::is_control) {
        return Ok(Some(key.to_owned()));
    }
    let message = "must have 1 to 255 characters and no control characters";
    Err(ApiError::malformed(vec![FieldProblem::new(path, "bad_key", message)]))
}

/// Makes sure that the account is the caller's. A yes may be two seconds old; removing an account in this process is
/// seen at once.
async fn check_account(state: &AppState, caller: &Caller, account: Uuid) -> Result<(), ApiError> {
    let place = (account, caller.organization_id);
    if state.accounts.get(&place).is_some() {
        return Ok(());
    }
    let mut conn = state.db.conn().await?;
    if !accounts::exists(&mut conn, caller.organization_id, account).await? {
        return Err(account_not_found());
    }
    state.accounts.put(place, ());
    Ok(())
}

/// Hashes what was asked, however its fields were ordered.
pub(super) fn request_hash(asked: &Value) -> Vec<u8> {
    let mut context = Context::new(&SHA256);
    canonical(asked, &mut |text| context.update(text.as_bytes()));
    context.finish().as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_fields_does_not_matter_and_everything_else_does() {
        let hash = |text: &str| request_hash(&serde_json::from_str(text).expect("JSON"));
        assert_eq!(hash(r#"{"a":1,"b":{"c":[1,2],"d":null}}"#), hash(r#"{"b":{"d":null,"c":[1,2]},"a":1}"#));
        assert_ne!(hash(r#"{"a":[1,2]}"#), hash(r#"{"a":[2,1]}"#));
        assert_ne!(hash(r#"{"a":"1"}"#), hash(r#"{"a":1}"#));
        assert_ne!(hash(r#"{"a":{"b":1}}"#), hash(r#"{"a":{},"b":1}"#));
    }

    #[test]
    fn keys_have_their_lengths() {
        assert!(matches!(checked_key(None, "k"), Ok(None)));
        assert!(matches!(checked_key(Some("a"), "k"), Ok(Some(_))));
        for key in ["", "a\nb", &"a".repeat(256)] {
            assert!(checked_key(Some(key), "k").is_err(), "{key}");
        }
    }
}

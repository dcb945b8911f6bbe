//! Takes up to a thousand jobs at once, each answered on its own.

use std::collections::{HashMap, HashSet};

use entropy_jobs::enqueue::{Enqueued, NewJob};
use entropy_schema::accounts;
use entropy_schema::replies::Askable;
use poem::web::Data;
use poem_openapi::payload::Json;
use poem_openapi::registry::{MetaSchemaRef, Registry};
use poem_openapi::types::{ParseFromJSON, ParseResult, ToJSON, Type};
use poem_openapi::{ApiResponse, Enum, Object, OpenApi, Union};
use serde_json::Value;
use uuid::Uuid;

use super::Tag;
use super::accounts::account_not_found;
use super::ai_replies::{AiReplyRequest, askable, named_in};
use super::enqueue::{CostTallyRequest, Making, SendMessageRequest, checked_key, key_reused};
use crate::AppState;
use crate::auth::caller::Caller;
use crate::auth::role::Role;
use crate::explain::explain;
use crate::http::body::Body;
use crate::http::origin::Origin;
use crate::http::text::Text;
use crate::problem::{ApiError, FieldProblem};

/// Jobs in one batch.
const MAX_ITEMS: usize = 1000;

/// Kinds that a batch may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
enum BatchKind {
    SendMessage,
    CostTally,
    AiReply,
}

/// The same as the body of the kind's own operation.
#[derive(Union)]
enum BatchArgs {
    SendMessage(SendMessageRequest),
    CostTally(CostTallyRequest),
    AiReply(AiReplyRequest),
}

/// One job of a batch, as it is documented.
#[derive(Object)]
#[oai(rename = "BatchItem", deny_unknown_fields)]
struct ItemSchema {
    kind: BatchKind,
    /// The caller's token, 1 to 255 characters: the same key and item is the same job.
    idempotency_key: Option<Text>,
    args: BatchArgs,
}

/// One job of a batch, as it is read: its args are looked at when its kind is known.
#[derive(Object)]
#[oai(deny_unknown_fields)]
struct ReadItem {
    kind: BatchKind,
    idempotency_key: Option<Text>,
    args: Value,
}

/// One job of a batch, not yet read: a mistake in one must not be the others'.
#[derive(Debug)]
struct RawItem(Value);

/// Up to 1000 jobs.
#[derive(Object)]
#[oai(deny_unknown_fields)]
struct BatchRequest {
    /// 1 to 1000 jobs, which keep their order.
    jobs: Vec<RawItem>,
}

/// Why one job was not made.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
struct BatchError {
    /// Stable name of the problem.
    code: String,
    /// What happened and what to do about it.
    message: String,
    /// The fields to change, from the item's top on.
    #[oai(skip_serializing_if_is_empty)]
    errors: Vec<FieldProblem>,
}

/// What became of one job: `id` and `created`, or `error`.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
struct BatchAnswer {
    /// The item's place in the request, from 0.
    index: u32,
    id: Option<Uuid>,
    /// False: the key made this job before.
    created: Option<bool>,
    error: Option<BatchError>,
}

/// What became of each job.
#[derive(Debug, Object)]
struct BatchView {
    /// One answer for each job, in their order.
    items: Vec<BatchAnswer>,
}

#[derive(ApiResponse)]
enum BatchAccepted {
    /// Each item that could be was stored, all of them in one commit. See each answer.
    #[oai(status = 202)]
    Accepted(Json<BatchView>),
}

/// Batches.
pub(super) struct Batch;

#[OpenApi(tag = "Tag::Jobs")]
impl Batch {
    /// Makes up to a thousand jobs
    ///
    /// Needs the role agent. Each item is answered on its own: a mistake in one does not hold back the others. All that
    /// are made are stored in one commit, in their order.
    #[oai(path = "/jobs/batch", method = "post", operation_id = "enqueue_batch")]
    async fn batch(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        body: Body<BatchRequest>,
    ) -> Result<BatchAccepted, ApiError> {
        caller.require(Role::Agent)?;
        let items = body.0.jobs;
        if !(1..=MAX_ITEMS).contains(&items.len()) {
            let message = format!("must hold 1 to {MAX_ITEMS} jobs; split it into several batches");
            return Err(ApiError::field("jobs", "too_many", message));
        }
        let context = Making { state: &state, caller: &caller, origin: &origin, now: state.now().await };
        let named = named_in(&items.iter().map(|RawItem(item)| item).collect::<Vec<_>>());
        let chats = askable(&state, &caller, &named).await?;
        let mut made: Vec<Result<NewJob, ApiError>> =
            items.into_iter().map(|RawItem(item)| make(&context, &chats, item)).collect();
        refuse_foreign_accounts(&state, &caller, &mut made).await?;
        let (count, lanes) = counts(&made);
        if count > 0 {
            state.backlog.admit(&state.db, caller.organization_id, count, &lanes).await?;
        }
        let mut refusals = HashMap::new();
        let mut jobs = Vec::with_capacity(made.len());
        let total = made.len();
        for (index, made) in made.into_iter().enumerate() {
            match made {
                Ok(job) => jobs.push(job),
                Err(error) => {
                    refusals.insert(index, error);
                }
            }
        }
        let enqueued = if jobs.is_empty() { Vec::new() } else { state.enqueuer.enqueue(jobs).await? };
        let mut enqueued = enqueued.into_iter();
        let mut answers = Vec::with_capacity(total);
        for index in 0..total {
            let answer = match refusals.remove(&index) {
                Some(error) => Err(error),
                None => match enqueued.next() {
                    Some(Enqueued::Created(id)) => Ok((id, true)),
                    Some(Enqueued::Existing(id)) => Ok((id, false)),
                    Some(Enqueued::KeyReused) => Err(key_reused()),
                    None => return Err(ApiError::internal("the enqueuer gave too few answers")),
                },
            };
            answers.push(view(index, answer));
        }
        Ok(BatchAccepted::Accepted(Json(BatchView { items: answers })))
    }
}

fn make(context: &Making<'_>, chats: &HashMap<Uuid, Askable>, item: Value) -> Result<NewJob, ApiError> {
    let ReadItem { kind, idempotency_key, args } = parse::<ReadItem>(item, "")?;
    let key = checked_key(idempotency_key.as_deref(), "idempotency_key")?;
    let made = match kind {
        BatchKind::SendMessage => context.send_message(parse(args, "args")?, key),
        BatchKind::CostTally => context.cost_tally(parse(args, "args")?, key),
        BatchKind::AiReply => context.ai_reply(parse(args, "args")?, chats, key),
    };
    made.map_err(|refused| ApiError::from(refused).below("args"))
}

fn parse<T: ParseFromJSON>(value: Value, at: &str) -> Result<T, ApiError> {
    // The parser takes the value with it; a copy for the explanation costs less than reading it twice.
    let copy = value.clone();
    T::parse_from_json(Some(value)).map_err(|_| explain::<T>(&copy, at))
}

async fn refuse_foreign_accounts(
    state: &AppState,
    caller: &Caller,
    made: &mut [Result<NewJob, ApiError>],
) -> Result<(), ApiError> {
    let asked: HashSet<Uuid> = made.iter().flatten().filter_map(|job| job.account_id).collect();
    let known: HashSet<Uuid> = if asked.is_empty() {
        HashSet::new()
    } else {
        let asked: Vec<Uuid> = asked.into_iter().collect();
        let mut conn = state.db.conn().await?;
        accounts::existing(&mut conn, caller.organization_id, &asked).await?.into_iter().collect()
    };
    for item in made.iter_mut() {
        let foreign = item.as_ref().is_ok_and(|job| job.account_id.is_some_and(|id| !known.contains(&id)));
        if foreign {
            *item = Err(account_not_found());
        }
    }
    Ok(())
}

/// Counts the jobs, all of them and by lane.
fn counts(made: &[Result<NewJob, ApiError>]) -> (i64, Vec<(Uuid, i64)>) {
    let mut lanes: HashMap<Uuid, i64> = HashMap::new();
    let mut count = 0;
    for job in made.iter().flatten() {
        count += 1;
        if let Some(lane) = job.lane_id {
            *lanes.entry(lane).or_default() += 1;
        }
    }
    (count, lanes.into_iter().collect())
}

fn view(index: usize, answer: Result<(Uuid, bool), ApiError>) -> BatchAnswer {
    let index = u32::try_from(index).unwrap_or(u32::MAX);
    match answer {
        Ok((id, created)) => BatchAnswer { index, id: Some(id), created: Some(created), error: None },
        Err(error) => {
            let error = BatchError {
                code: error.code().to_owned(),
                message: error.detail().to_owned(),
                errors: error.into_errors(),
            };
            BatchAnswer { index, id: None, created: None, error: Some(error) }
        }
    }
}

impl Type for RawItem {
    const IS_REQUIRED: bool = true;

    type RawValueType = Self;
    type RawElementValueType = Self;

    fn name() -> std::borrow::Cow<'static, str> {
        ItemSchema::name()
    }

    fn schema_ref() -> MetaSchemaRef {
        ItemSchema::schema_ref()
    }

    fn register(registry: &mut Registry) {
        ItemSchema::register(registry);
    }

    fn as_raw_value(&self) -> Option<&Self> {
        Some(self)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
        Box::new(std::iter::once(self))
    }
}

impl ParseFromJSON for RawItem {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        Ok(RawItem(value.unwrap_or_default()))
    }
}

impl ToJSON for RawItem {
    fn to_json(&self) -> Option<Value> {
        Some(self.0.clone())
    }
}

//! Plans of campaigns: writing them, looking at them and at their versions. Their life is in [`super::sop_life`].

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use diesel_async::AsyncConnection;
use entropy_jobs::campaign::life::{self, Action, Status};
use entropy_schema::Conn;
use entropy_schema::accounts;
use entropy_schema::campaigns::plans::{self, Plan};
use entropy_schema::campaigns::versions;
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Tag;
use super::account_ai::has_controls;
use super::audit::Note;
use super::sop_tasks_view::{
    PlanStatus, PlanView, TargetType, VersionSummary, VersionView, listed, summary, version_view, view,
};
use crate::AppState;
use crate::auth::caller::Caller;
use crate::auth::role::Role;
use crate::http::body::Body;
use crate::http::origin::Origin;
use crate::http::text::Text;
use crate::page::{Ask, Page, bad_cursor, decode, encode, limit_of};
use crate::problem::{ApiError, FieldProblem};

/// The most targets of a plan; more people are better named by a tag.
const MAX_TARGETS: usize = 10_000;
/// The most accounts of a plan.
const MAX_ACCOUNTS: usize = 1000;
/// The most plans of an organisation that are not archived.
const MAX_PLANS: i64 = 5000;
/// A page of plans has no more drafts than this.
const MAX_PAGE_BYTES: i64 = 4 << 20;

/// A plan as it is written. A change replaces all of it: what is left out takes its default.
#[derive(Debug, Object)]
#[oai(deny_unknown_fields)]
pub(super) struct PutPlan {
    /// 1 to 100 characters.
    pub(super) name: Text,
    /// Up to 2000 characters.
    pub(super) description: Option<Text>,
    /// Of whom `target_ids` speaks.
    pub(super) target_type: TargetType,
    /// Up to 10,000 ids of contacts, or words of tags.
    pub(super) target_ids: Option<Vec<Text>>,
    /// The accounts that write; all of the organisation if empty.
    pub(super) account_ids: Option<Vec<Uuid>>,
    /// The plan has no targets and is meant for everybody. Needs the role manager.
    pub(super) everyone: Option<bool>,
    /// The draft, in format 1 (`GET sop/schema`). It may have errors: only submitting refuses them.
    pub(super) workflow_config: Value,
}

#[derive(ApiResponse)]
pub(super) enum Created {
    /// It is a draft.
    #[oai(status = 201)]
    Created(Json<PlanView>),
}

/// Plans.
pub(super) struct SopTasks;

#[OpenApi(tag = "Tag::Campaigns")]
impl SopTasks {
    /// Makes a plan
    ///
    /// Needs the role agent. It is a draft, and may have errors.
    #[oai(path = "/sop-tasks", method = "post", operation_id = "create_sop_task")]
    async fn create(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        body: Body<PutPlan>,
    ) -> Result<Created, ApiError> {
        caller.require(Role::Agent)?;
        let now = state.now().await;
        let fields = read(&caller, body.0)?;
        let mut conn = state.db.conn().await?;
        let plan = conn
            .transaction(async |conn| {
                let plan = new_plan(&caller, fields, now);
                insert(conn, &caller, &origin, &plan, "sop_task.create").await?;
                Ok::<_, ApiError>(plan)
            })
            .await?;
        Ok(Created::Created(Json(view(plan, None))))
    }

    /// Lists the plans
    ///
    /// Newest first. A page with more than 4 MiB of drafts leaves the rest of them out.
    #[oai(path = "/sop-tasks", method = "get", operation_id = "list_sop_tasks")]
    async fn list(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        /// Only plans with this status.
        status: Query<Option<PlanStatus>>,
        /// Items on the page, 1 to 200; 50 if not given.
        limit: Query<Option<i64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<Page<PlanView>>, ApiError> {
        let ask = Ask::new(limit.0, cursor.0.as_deref())?;
        let status = status.0.map(|status| status.stored().as_str());
        let mut conn = state.db.conn().await?;
        let organization = caller.organization_id;
        let rows =
            plans::list(&mut conn, organization, status, ask.before, ask.fetch(), MAX_PAGE_BYTES).await?;
        Ok(Json(ask.page(rows, |row| row.id, listed)))
    }

    /// Shows a plan
    ///
    /// With its draft, and the version that waits for its approval.
    #[oai(path = "/sop-tasks/:id", method = "get", operation_id = "get_sop_task")]
    async fn get(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        id: Path<Uuid>,
    ) -> Result<Json<PlanView>, ApiError> {
        let mut conn = state.db.conn().await?;
        let plan = plans::get(&mut conn, caller.organization_id, id.0).await?.ok_or_else(plan_not_found)?;
        let waiting = versions::in_review(&mut conn, caller.organization_id, id.0).await?;
        Ok(Json(view(plan, waiting)))
    }

    /// Changes a plan
    ///
    /// Needs the role agent. Replaces all of it. A review and an approval that has not begun to run are void: the plan is a draft
    /// again. A plan that runs or is paused keeps running as it was approved, and its targets stay; submit the new draft to
    /// have it approved as the next version.
    #[oai(path = "/sop-tasks/:id", method = "put", operation_id = "put_sop_task")]
    async fn put(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
        body: Body<PutPlan>,
    ) -> Result<Json<PlanView>, ApiError> {
        caller.require(Role::Agent)?;
        let now = state.now().await;
        let fields = read(&caller, body.0)?;
        let mut conn = state.db.conn().await?;
        let plan = conn
            .transaction(async |conn| {
                let mut plan = lock(conn, &caller, id.0).await?;
                let before = facts(&plan);
                let status = status_of(&plan)?;
                let next = life::after(status, Action::Edit).map_err(refused)?;
                if status.is_live() && !fields.has_targets_of(&plan) {
                    let detail = "The targets, accounts and `everyone` of a plan are frozen when it starts. Copy the plan, or \
                        enroll people one by one.";
                    return Err(ApiError::conflict("targets_frozen", detail));
                }
                check_accounts(conn, &caller, &fields.account_ids).await?;
                fields.put_into(&mut plan);
                (plan.status, plan.updated_at) = (next.as_str().to_owned(), now);
                versions::retire_in_review(conn, caller.organization_id, plan.id).await?;
                if next == Status::Draft {
                    versions::retire_approved(conn, caller.organization_id, plan.id).await?;
                    plan.version = None;
                }
                plans::update(conn, &plan).await?;
                Note::new("sop_task.update", "sop_task", plan.id)
                    .before(before)
                    .after(facts(&plan))
                    .write(conn, &caller, &origin)
                    .await?;
                Ok::<_, ApiError>(plan)
            })
            .await?;
        Ok(Json(view(plan, None)))
    }

    /// Lists a plan's versions
    ///
    /// Newest first, without what they say.
    #[oai(path = "/sop-tasks/:id/versions", method = "get", operation_id = "list_sop_versions")]
    async fn versions(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        id: Path<Uuid>,
        /// Items on the page, 1 to 200; 50 if not given.
        limit: Query<Option<i64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<Page<VersionSummary>>, ApiError> {
        let limit = limit_of(limit.0)?;
        let before = cursor.0.as_deref().map(|cursor| decode(cursor)?.parse().map_err(|_| bad_cursor()));
        let before = before.transpose()?;
        let mut conn = state.db.conn().await?;
        let organization = caller.organization_id;
        plans::get(&mut conn, organization, id.0).await?.ok_or_else(plan_not_found)?;
        let mut rows = versions::list(&mut conn, organization, id.0, before, limit + 1).await?;
        let most = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rows.len() > most;
        rows.truncate(most);
        let next_cursor = rows.last().filter(|_| more).map(|last| encode(&last.version.to_string()));
        Ok(Json(Page { items: rows.into_iter().map(summary).collect(), next_cursor }))
    }

    /// Shows a version of a plan
    ///
    /// What it says never changes.
    #[oai(path = "/sop-tasks/:id/versions/:version", method = "get", operation_id = "get_sop_version")]
    async fn version(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        id: Path<Uuid>,
        version: Path<i32>,
    ) -> Result<Json<VersionView>, ApiError> {
        let mut conn = state.db.conn().await?;
        let found = versions::get(&mut conn, caller.organization_id, id.0, version.0).await?;
        let found = found.ok_or_else(|| {
            ApiError::not_found("version_not_found", "Your organisation has no plan with such a version.")
        })?;
        Ok(Json(version_view(found)))
    }
}

/// What was read of a request.
pub(super) struct Fields {
    pub(super) name: String,
    pub(super) description: String,
    pub(super) target_type: TargetType,
    pub(super) target_ids: Vec<String>,
    pub(super) account_ids: Vec<Uuid>,
    pub(super) everyone: bool,
    pub(super) workflow_config: Value,
}

impl Fields {
    fn has_targets_of(&self, plan: &Plan) -> bool {
        self.target_type.as_str() == plan.target_type
            && self.target_ids == plan.target_ids
            && self.account_ids == plan.account_ids
            && self.everyone == plan.everyone
    }

    fn put_into(self, plan: &mut Plan) {
        plan.name = self.name;
        plan.description = self.description;
        plan.target_type = self.target_type.as_str().to_owned();
        plan.target_ids = self.target_ids;
        plan.account_ids = self.account_ids;
        plan.everyone = self.everyone;
        plan.workflow_config = self.workflow_config;
    }
}

/// Reads a plan of a request, all problems at once.
pub(super) fn read(caller: &Caller, asked: PutPlan) -> Result<Fields, ApiError> {
    let mut problems = Vec::new();
    let mut add = |path: String, code: &str, message: &str| {
        problems.push(FieldProblem::new(path, code, message));
    };
    let name = asked.name.trim().to_owned();
    if !(1..=100).contains(&name.chars().count()) || name.chars().any(char::is_control) {
        add("name".into(), "bad_name", "must have 1 to 100 characters and no control characters");
    }
    let description = asked.description.as_deref().unwrap_or_default().trim().to_owned();
    if description.chars().count() > 2000 || has_controls(&description) {
        let message = "must have at most 2000 characters, and no control characters but line breaks";
        add("description".into(), "too_long", message);
    }
    let targets = asked.target_ids.unwrap_or_default();
    if targets.len() > MAX_TARGETS {
        let message = "must have at most 10000 entries; give more people a tag, and name the tag";
        add("target_ids".into(), "too_many", message);
    }
    let (mut target_ids, mut seen) = (Vec::new(), HashSet::new());
    for (index, target) in targets.iter().take(MAX_TARGETS).enumerate() {
        let read = match asked.target_type {
            TargetType::Tag => {
                let word = target.trim();
                let fits = (1..=40).contains(&word.chars().count()) && !word.chars().any(char::is_control);
                fits.then(|| word.to_owned()).ok_or(("bad_text", "must be a tag of 1 to 40 characters"))
            }
            TargetType::Friend | TargetType::Group => target
                .parse::<Uuid>()
                .map(|id| id.to_string())
                .map_err(|_| ("bad_id", "must be the id of a contact; for tags, set target_type to tag")),
        };
        match read {
            Ok(target) if seen.insert(target.clone()) => target_ids.push(target),
            Ok(_) => {}
            Err((code, message)) => add(format!("target_ids[{index}]"), code, message),
        }
    }
    let mut account_ids = asked.account_ids.unwrap_or_default();
    account_ids.sort_unstable();
    account_ids.dedup();
    if account_ids.len() > MAX_ACCOUNTS {
        add(
            "account_ids".into(),
            "too_many",
            "must have at most 1000 entries; leave it empty for all accounts",
        );
    }
    let everyone = asked.everyone.unwrap_or(false);
    if everyone && !target_ids.is_empty() {
        let message =
            "must not be true beside target_ids: a plan is for everybody, or for those that it names";
        add("everyone".into(), "contradiction", message);
    }
    if !asked.workflow_config.is_object() {
        add("workflow_config".into(), "wrong_type", "must be an object; see GET sop/schema");
    }
    if !problems.is_empty() {
        problems.truncate(100);
        return Err(ApiError::unprocessable(problems));
    }
    if everyone && caller.role < Role::Manager {
        let detail = "Only a manager may make a plan for everybody. Name targets, or ask a manager.";
        return Err(ApiError::forbidden("everyone_needs_manager", detail));
    }
    Ok(Fields {
        name,
        description,
        target_type: asked.target_type,
        target_ids,
        account_ids,
        everyone,
        workflow_config: asked.workflow_config,
    })
}

/// A draft that nobody has seen.
pub(super) fn new_plan(caller: &Caller, fields: Fields, now: DateTime<Utc>) -> Plan {
    let mut plan = Plan {
        id: Uuid::now_v7(),
        organization_id: caller.organization_id,
        user_id: caller.id,
        name: String::new(),
        description: String::new(),
        target_type: String::new(),
        target_ids: Vec::new(),
        account_ids: Vec::new(),
        everyone: false,
        workflow_config: Value::Null,
        status: Status::Draft.as_str().to_owned(),
        status_reason: None,
        version: None,
        triggered_at: None,
        next_trigger_at: None,
        started_at: None,
        created_at: now,
        updated_at: now,
    };
    fields.put_into(&mut plan);
    plan
}

/// Adds a plan, with its line in the audit log.
pub(super) async fn insert(
    conn: &mut Conn,
    caller: &Caller,
    origin: &Origin,
    plan: &Plan,
    action: &'static str,
) -> Result<(), ApiError> {
    if plans::count(conn, caller.organization_id).await? >= MAX_PLANS {
        let detail = "Your organisation has 5000 plans. Archive those that you do not need.";
        return Err(ApiError::conflict("too_many_plans", detail));
    }
    check_accounts(conn, caller, &plan.account_ids).await?;
    plans::insert(conn, plan).await?;
    Note::new(action, "sop_task", plan.id).after(facts(plan)).write(conn, caller, origin).await
}

async fn check_accounts(conn: &mut Conn, caller: &Caller, ids: &[Uuid]) -> Result<(), ApiError> {
    if ids.is_empty() {
        return Ok(());
    }
    let known: HashSet<Uuid> =
        accounts::existing(conn, caller.organization_id, ids).await?.into_iter().collect();
    match ids.iter().find(|id| !known.contains(id)) {
        None => Ok(()),
        Some(id) => Err(ApiError::field(
            "account_ids",
            "not_yours",
            format!("must be accounts of yours: {id} is none"),
        )),
    }
}

/// Locks a plan of the caller's organisation.
pub(super) async fn lock(conn: &mut Conn, caller: &Caller, id: Uuid) -> Result<Plan, ApiError> {
    plans::lock(conn, caller.organization_id, id).await?.ok_or_else(plan_not_found)
}

/// The organisation has no such plan.
pub(super) fn plan_not_found() -> ApiError {
    ApiError::not_found("plan_not_found", "Your organisation has no such plan.")
}

/// Reads a plan's status.
pub(super) fn status_of(plan: &Plan) -> Result<Status, ApiError> {
    plan.status.parse().map_err(ApiError::internal)
}

/// An action that the plan's status does not allow.
pub(super) fn refused(refusal: life::Refusal) -> ApiError {
    ApiError::conflict(refusal.code, refusal.message)
}

/// What the audit log keeps of a plan: which text it was, not the text.
pub(super) fn facts(plan: &Plan) -> Value {
    json!({
        "name": plan.name,
        "status": plan.status,
        "version": plan.version,
        "target_type": plan.target_type,
        "targets": plan.target_ids.len(),
        "accounts": plan.account_ids.len(),
        "everyone": plan.everyone,
        "config_sha256": entropy_jobs::sop::config::sha256(&plan.workflow_config),
    })
}

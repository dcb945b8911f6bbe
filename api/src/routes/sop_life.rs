//! What is done with plans: submit, approve, pause, resume, stop, archive, copy; starting them is in [`super::sop_runs`]. Which of it
//! is possible when, says [`entropy_jobs::campaign::life`].

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use diesel_async::AsyncConnection;
use entropy_jobs::campaign::life::{self, Action, Status};
use entropy_jobs::campaign::surroundings::Held;
use entropy_jobs::campaign::{audience, clock, run, trigger};
use entropy_jobs::sop::config::rules::{ApproverRole, AudienceKind};
use entropy_jobs::sop::config::step::Step;
use entropy_jobs::sop::config::trigger::Trigger;
use entropy_jobs::sop::config::{WorkflowConfig, sha256};
use entropy_jobs::sop::validate::AccountLoad;
use entropy_schema::Conn;
use entropy_schema::campaigns::enrollments::{self, Whose};
use entropy_schema::campaigns::plans::{self, Plan};
use entropy_schema::campaigns::versions::{self, Version};
use entropy_schema::campaigns::{materials, stops};
use poem::http::StatusCode;
use poem::web::Data;
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Tag;
use super::audit::Note;
use super::sop::{FindingView, finding};
use super::sop_tasks::{facts, insert, lock, plan_not_found, refused, status_of};
use super::sop_tasks_view::{PlanView, hex, view};
use crate::AppState;
use crate::auth::caller::Caller;
use crate::auth::role::Role;
use crate::http::body::Body;
use crate::http::origin::Origin;
use crate::http::text::Text;
use crate::problem::{ApiError, FieldProblem};

/// How many people a stop takes out of a plan in one transaction, and how many in one request. The others are taken out
/// when their next step is due.
const SLICE: i64 = 1000;
const SLICES: usize = 50;

/// What is approved.
#[derive(Object)]
#[oai(deny_unknown_fields)]
struct ApprovePlan {
    /// `review.sha256` of the plan, as it was looked at.
    sha256: Text,
}

/// What is done with plans.
pub(super) struct SopLife;

#[OpenApi(tag = "Tag::Campaigns")]
impl SopLife {
    /// Submits a plan
    ///
    /// Needs the role agent. Makes a version of the draft, with the approved revision of each material pinned. 422 `invalid_plan`
    /// with all errors at once. Where neither the plan nor the organisation asks for an approval, it is approved with that.
    #[oai(path = "/sop-tasks/:id/submit", method = "post", operation_id = "submit_sop_task")]
    async fn submit(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
    ) -> Result<Json<PlanView>, ApiError> {
        caller.require(Role::Agent)?;
        let now = state.now().await;
        let mut conn = state.db.conn().await?;
        conn.transaction(async |conn| {
            let mut plan = lock(conn, &caller, id.0).await?;
            let before = facts(&plan);
            let next = life::after(status_of(&plan)?, Action::Submit).map_err(refused)?;
            let (config, warnings, needs_approval) = checked(conn, &plan, now).await?;
            versions::retire_in_review(conn, caller.organization_id, plan.id).await?;
            let version = Version {
                sop_id: plan.id,
                version: versions::latest(conn, plan.id).await? + 1,
                organization_id: caller.organization_id,
                sha256: digest(&plan.workflow_config),
                materials: pins(conn, &caller, &config).await?,
                config: plan.workflow_config.clone(),
                state: "in_review".to_owned(),
                created_by: caller.id,
                created_at: now,
                approved_by: None,
                approved_at: None,
            };
            versions::insert(conn, &version).await?;
            (plan.status, plan.updated_at) = (next.as_str().to_owned(), now);
            let waiting = if needs_approval {
                Some(version)
            } else {
                put_in_force(conn, &caller, &mut plan, &version, now).await?;
                None
            };
            plans::update(conn, &plan).await?;
            note("sop_task.submit", &plan, before).write(conn, &caller, &origin).await?;
            Ok(Json(view(plan, waiting).with_warnings(warnings)))
        })
        .await
    }

    /// Approves a plan
    ///
    /// Needs the role manager, or admin where the plan asks for one. Approves exactly the text that was looked at: 409
    /// `version_changed` if another one waits. Of a plan that runs, the version is in force for whoever enters from now on.
    #[oai(path = "/sop-tasks/:id/approve", method = "post", operation_id = "approve_sop_task")]
    async fn approve(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
        body: Body<ApprovePlan>,
    ) -> Result<Json<PlanView>, ApiError> {
        caller.require(Role::Manager)?;
        let now = state.now().await;
        let mut conn = state.db.conn().await?;
        conn.transaction(async |conn| {
            let mut plan = lock(conn, &caller, id.0).await?;
            let before = facts(&plan);
            let next = life::after(status_of(&plan)?, Action::Approve).map_err(refused)?;
            let waiting = versions::in_review(conn, caller.organization_id, plan.id).await?;
            let version = waiting.ok_or_else(|| {
                ApiError::conflict("not_in_review", "No version of the plan waits for an approval. Submit it first.")
            })?;
            let config = parsed(&version)?;
            if config.approval.and_then(|approval| approval.role) == Some(ApproverRole::Admin) {
                caller.require(Role::Admin)?;
            }
            if !hex(&version.sha256).eq_ignore_ascii_case(body.0.sha256.trim()) {
                let detail = "The text that waits for an approval is not the one with this sha256. Look at it again, and \
                    approve what `review.sha256` says.";
                return Err(ApiError::conflict("version_changed", detail));
            }
            (plan.status, plan.updated_at) = (next.as_str().to_owned(), now);
            put_in_force(conn, &caller, &mut plan, &version, now).await?;
            plans::update(conn, &plan).await?;
            note("sop_task.approve", &plan, before).write(conn, &caller, &origin).await?;
            Ok(Json(view(plan, None)))
        })
        .await
    }

    /// Pauses a plan
    ///
    /// Needs the role agent. Nobody enters it, and when this is answered nothing of it is sent any more, until it is resumed.
    /// People keep their place.
    #[oai(path = "/sop-tasks/:id/pause", method = "post", operation_id = "pause_sop_task")]
    async fn pause(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
    ) -> Result<Json<PlanView>, ApiError> {
        let plan = change(&state, &caller, &origin, id.0, Action::Pause, "sop_task.pause").await?;
        silence(&state, &caller).await?;
        Ok(plan)
    }

    /// Resumes a plan
    ///
    /// Needs the role agent. What is late by now goes by the plan's rule for late steps. Whoever was being brought in still is. Times
    /// of a trigger that repeats, which came meanwhile, are let go; the only moment of a trigger `once` is made good.
    #[oai(path = "/sop-tasks/:id/resume", method = "post", operation_id = "resume_sop_task")]
    async fn resume(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
    ) -> Result<Json<PlanView>, ApiError> {
        let plan = change(&state, &caller, &origin, id.0, Action::Resume, "sop_task.resume").await?;
        // A transaction of its own: whoever holds an enrollment may be waiting for the plan. Should it fail, they look by
        // themselves within the hour.
        let mut conn = state.db.conn().await?;
        enrollments::wake_waiting(&mut conn, caller.organization_id, id.0, "sop_paused").await?;
        Ok(plan)
    }

    /// Stops a plan
    ///
    /// Needs the role agent. Ends it for everybody, for good; when this is answered nothing of it is sent any more.
    #[oai(path = "/sop-tasks/:id/stop", method = "post", operation_id = "stop_sop_task")]
    async fn stop(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
    ) -> Result<Json<PlanView>, ApiError> {
        let plan = change(&state, &caller, &origin, id.0, Action::Stop, "sop_task.stop").await?;
        silence(&state, &caller).await?;
        let mut conn = state.db.conn().await?;
        // A commit each: whoever is being written to just now is not held up by a hundred thousand others.
        for _ in 0..SLICES {
            let whose = Whose::Plan(id.0, SLICE);
            if enrollments::end(&mut conn, caller.organization_id, whose, "canceled").await?.seen < SLICE {
                break;
            }
        }
        Ok(plan)
    }

    /// Archives a plan
    ///
    /// Needs the role agent. 409 while it runs or is paused.
    #[oai(path = "/sop-tasks/:id/archive", method = "post", operation_id = "archive_sop_task")]
    async fn archive(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
    ) -> Result<Json<PlanView>, ApiError> {
        change(&state, &caller, &origin, id.0, Action::Archive, "sop_task.archive").await
    }

    /// Copies a plan
    ///
    /// Needs the role agent. The answer is the copy: a draft of the plan's draft, with its targets.
    #[oai(path = "/sop-tasks/:id/copy", method = "post", operation_id = "copy_sop_task")]
    async fn copy(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
    ) -> Result<Json<PlanView>, ApiError> {
        caller.require(Role::Agent)?;
        let now = state.now().await;
        let mut conn = state.db.conn().await?;
        conn.transaction(async |conn| {
            let old = plans::get(conn, caller.organization_id, id.0).await?.ok_or_else(plan_not_found)?;
            let plan = Plan {
                id: Uuid::now_v7(),
                user_id: caller.id,
                name: name_of_copy(&old.name),
                // Whoever copies may not be allowed to say it; the draft shows what is missing.
                everyone: old.everyone && caller.role >= Role::Manager,
                status: Status::Draft.as_str().to_owned(),
                status_reason: None,
                version: None,
                triggered_at: None,
                next_trigger_at: None,
                started_at: None,
                created_at: now,
                updated_at: now,
                ..old
            };
            insert(conn, &caller, &origin, &plan, "sop_task.copy").await?;
            Ok(Json(view(plan, None)))
        })
        .await
    }
}

/// Carries out an action that changes nothing but the status.
async fn change(
    state: &AppState,
    caller: &Caller,
    origin: &Origin,
    id: Uuid,
    action: Action,
    named: &'static str,
) -> Result<Json<PlanView>, ApiError> {
    caller.require(Role::Agent)?;
    let now = state.now().await;
    let mut conn = state.db.conn().await?;
    let changed = conn.transaction(async |conn| {
        let mut plan = lock(conn, caller, id).await?;
        let before = facts(&plan);
        let next = life::after(status_of(&plan)?, action).map_err(refused)?;
        plan.status = next.as_str().to_owned();
        (plan.status_reason, plan.updated_at) = (None, now);
        if matches!(next, Status::Stopped | Status::Archived) {
            plan.next_trigger_at = None;
            versions::retire_in_review(conn, caller.organization_id, id).await?;
        }
        if matches!(action, Action::Resume) {
            let config = in_force(conn, &plan).await?;
            plan.next_trigger_at = trigger::resumed(&config, plan.triggered_at, clock::now(conn).await?);
        }
        plans::update(conn, &plan).await?;
        if matches!(action, Action::Resume | Action::Stop) {
            run::go_on(conn, caller.organization_id, id, Some(caller.id)).await?;
        }
        note(named, &plan, before).write(conn, caller, origin).await?;
        let waiting = versions::in_review(conn, caller.organization_id, id).await?;
        Ok::<_, ApiError>(Json(view(plan, waiting)))
    });
    let changed = changed.await?;
    state.waker.wake();
    Ok(changed)
}

/// Waits for what is being sent just now, so that nothing begins after the answer.
async fn silence(state: &AppState, caller: &Caller) -> Result<(), ApiError> {
    let mut conn = state.db.conn().await?;
    conn.transaction(async |conn| stops::wait_for_gates(conn, caller.organization_id, None).await).await?;
    Ok(())
}

pub(super) fn note(action: &'static str, plan: &Plan, before: Value) -> Note {
    Note::new(action, "sop_task", plan.id).before(before).after(facts(plan))
}

/// Looks at a plan that is submitted. Returns what it says, what somebody should look at, and whether it needs an approval.
async fn checked(
    conn: &mut Conn,
    plan: &Plan,
    now: DateTime<Utc>,
) -> Result<(WorkflowConfig, Vec<FindingView>, bool), ApiError> {
    let held = Held::read(conn, plan.organization_id, now).await?;
    let kind = kind_of(plan);
    let per_day = u32::try_from(held.settings.account_per_day).unwrap_or(u32::MAX);
    let loads = plans::reach(conn, plan, kind).await?.into_iter().map(|reach| AccountLoad {
        name: reach.name,
        recipients: u64::try_from(reach.recipients).unwrap_or(0),
        per_day,
    });
    let held = held.for_accounts(loads.collect());
    let (report, config) = held.check(&plan.workflow_config);
    let mut problems: Vec<FieldProblem> = report
        .errors
        .into_iter()
        .map(|finding| FieldProblem::new(finding.path, &finding.code.to_string(), finding.message))
        .collect();
    if let Some(config) = &config {
        problems.extend(targets(conn, plan, config).await?);
    }
    match config {
        Some(config) if problems.is_empty() => {
            let by_plan = config.approval.is_some_and(|approval| approval.required);
            let needs_approval = by_plan || held.settings.approval_required || plan.everyone;
            Ok((config, report.warnings.into_iter().map(finding).collect(), needs_approval))
        }
        _ => {
            let detail = format!(
                "The plan has {} errors; `errors` says which, where and what to change. Change it, and submit it again.",
                problems.len()
            );
            Err(ApiError::unfit(StatusCode::UNPROCESSABLE_ENTITY, "invalid_plan", detail)
                .with_errors(problems))
        }
    }
}

/// The kind of contacts that a plan writes to.
fn kind_of(plan: &Plan) -> &'static str {
    let by_config = plan.workflow_config.pointer("/audience/kind").and_then(Value::as_str);
    if plan.target_type == "group" || by_config == Some("group") { "group" } else { "friend" }
}

/// Says what is wrong with whom a plan is for.
async fn targets(
    conn: &mut Conn,
    plan: &Plan,
    config: &WorkflowConfig,
) -> Result<Vec<FieldProblem>, ApiError> {
    let mut problems = Vec::new();
    let of_kind = match config.audience.kind {
        AudienceKind::Friend => "friend",
        AudienceKind::Group => "group",
    };
    if plan.target_type != "tag" && plan.target_type != of_kind {
        let message = format!("must be {of_kind} or tag, as audience.kind says, or change audience.kind");
        problems.push(FieldProblem::new("target_type", "wrong_kind", message));
    } else if plan.target_type != "tag" && !plan.target_ids.is_empty() {
        let ids: Vec<Uuid> = plan.target_ids.iter().filter_map(|id| id.parse().ok()).collect();
        let known: BTreeSet<Uuid> =
            plans::known_contacts(conn, plan.organization_id, &ids, of_kind).await?.into_iter().collect();
        if let Some(stranger) = ids.iter().find(|id| !known.contains(id)) {
            let message = format!(
                "must be contacts of yours of kind {of_kind}: {} are not, the first is {stranger}",
                ids.len() - known.len()
            );
            problems.push(FieldProblem::new("target_ids", "not_yours", message));
        }
    }
    let timed = matches!(config.trigger, Trigger::Once { .. } | Trigger::Cron { .. });
    if timed && !audience::names_somebody(plan, config) {
        let message = "must name somebody, or add a filter to the audience; if everybody is meant, a manager sets `everyone`";
        problems.push(FieldProblem::new("target_ids", "missing", message));
    }
    Ok(problems)
}

/// Pins the approved revision of every material that a plan names, by key.
async fn pins(conn: &mut Conn, caller: &Caller, config: &WorkflowConfig) -> Result<Value, ApiError> {
    let keys: BTreeSet<String> = config
        .steps
        .iter()
        .filter_map(|step| match step {
            Step::Send(send) => send.message.material().map(|(_, key)| key.to_owned()),
            _ => None,
        })
        .collect();
    let keys: Vec<String> = keys.into_iter().collect();
    if keys.is_empty() {
        return Ok(json!({}));
    }
    let held = materials::hold(conn, caller.organization_id, &keys).await?;
    let pins: BTreeMap<String, i32> =
        held.into_iter().filter_map(|material| Some((material.key, material.approved_revision?))).collect();
    if pins.len() < keys.len() {
        let detail = "A material of the plan was removed meanwhile. Look at the plan again.";
        return Err(ApiError::conflict("material_changed", detail));
    }
    Ok(json!(pins))
}

/// Approves a version, and lets new people enter it.
async fn put_in_force(
    conn: &mut Conn,
    caller: &Caller,
    plan: &mut Plan,
    version: &Version,
    now: DateTime<Utc>,
) -> Result<(), ApiError> {
    versions::retire_approved(conn, caller.organization_id, plan.id).await?;
    versions::approve(conn, caller.organization_id, plan.id, version.version, caller.id, now).await?;
    plan.version = Some(version.version);
    match status_of(plan)? {
        Status::Running | Status::Paused => {
            plan.next_trigger_at = trigger::next_at(&parsed(version)?, clock::now(conn).await?);
        }
        _ => plan.status = Status::Approved.as_str().to_owned(),
    }
    Ok(())
}

/// Returns what the version says that new people are enrolled in.
pub(super) async fn in_force(conn: &mut Conn, plan: &Plan) -> Result<WorkflowConfig, ApiError> {
    let number = plan.version.ok_or_else(|| ApiError::internal("an approved plan has no version"))?;
    let version = versions::get(conn, plan.organization_id, plan.id, number).await?;
    parsed(&version.ok_or_else(|| ApiError::internal("an approved version is missing"))?)
}

fn parsed(version: &Version) -> Result<WorkflowConfig, ApiError> {
    WorkflowConfig::parse(&version.config)
        .map_err(|_| ApiError::internal("a version that was checked cannot be read"))
}

fn digest(config: &Value) -> Vec<u8> {
    let digits = sha256(config);
    (0..digits.len())
        .step_by(2)
        .filter_map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok())
        .collect()
}

/// The name of a copy, within the longest that a name may be.
fn name_of_copy(name: &str) -> String {
    const MARK: &str = "（副本）";
    let room = 100 - MARK.chars().count();
    name.chars().take(room).chain(MARK.chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_a_name_that_fits() {
        assert_eq!(name_of_copy("新线索"), "新线索（副本）");
        let long = name_of_copy(&"名".repeat(100));
        assert!(long.chars().count() == 100 && long.ends_with("（副本）"));
    }

    #[test]
    fn a_digest_is_the_bytes_of_its_digits() {
        let config = json!({"a": 1});
        assert_eq!(hex(&digest(&config)), sha256(&config));
        assert_eq!(digest(&config).len(), 32);
    }
}

//! How plans take people in: whom a plan is meant for, its start, its runs, and what becomes of people on an older version.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use diesel_async::AsyncConnection;
use entropy_jobs::campaign::audience::{self, Audience, Extent};
use entropy_jobs::campaign::life::{self, Action};
use entropy_jobs::campaign::plan;
use entropy_jobs::campaign::run::{self, Begins};
use entropy_jobs::campaign::succession::{self, How};
use entropy_jobs::campaign::{clock, material, trigger};
use entropy_jobs::sop::config::WorkflowConfig;
use entropy_jobs::sop::config::trigger::Trigger;
use entropy_schema::Conn;
use entropy_schema::campaigns::audience::faces;
use entropy_schema::campaigns::plans::{self, Plan};
use entropy_schema::campaigns::runs::{self, Run};
use poem::http::StatusCode;
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{Enum, Object, OpenApi};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::Tag;
use super::audit::Note;
use super::sop_life::{in_force, note};
use super::sop_tasks::{facts, lock, plan_not_found, refused, status_of};
use super::sop_tasks_view::{PlanView, view};
use crate::AppState;
use crate::auth::caller::Caller;
use crate::auth::role::Role;
use crate::http::body::{Body, OptionalBody};
use crate::http::origin::Origin;
use crate::page::{Ask, Page};
use crate::problem::{ApiError, FieldProblem};

/// People of an audience who are asked about one by one whether the plan would take them in.
const MAX_LOOKED_AT: usize = 10_000;
/// People of an audience who are named.
const SAMPLE: usize = 20;

/// How a plan is started.
#[derive(Debug, Default, Object)]
#[oai(deny_unknown_fields)]
struct StartPlan {
    /// `count` of the audience, as it was looked at: the plan does not start if the number is off by more than a tenth.
    expected_count: Option<u32>,
}

/// Somebody whom a plan is meant for.
#[derive(Debug, Object)]
struct FaceView {
    contact_id: Uuid,
    account_id: Uuid,
    /// The name that they have given themselves.
    nickname: String,
    /// What the account's owner calls them.
    remark: String,
}

/// Whom a plan is meant for now.
#[derive(Debug, Object)]
struct AudienceView {
    /// How many: by targets, accounts, kind and filter.
    count: u64,
    /// The most that the plan may take in at once.
    max_size: u32,
    /// Some of them.
    sample: Vec<FaceView>,
    /// How many of them would not be brought in now, by the reason. See `POST …/enrollments` for the reasons.
    blocked: Value,
    /// For how many of them `blocked` speaks: all, up to 10,000.
    looked_at: u64,
}

/// A time at which a plan took people in.
#[derive(Debug, Object)]
struct SopRunView {
    id: Uuid,
    /// The version in force.
    version: i32,
    /// `manual`, `once` or `cron`.
    source: String,
    /// The moment for which it is.
    fire_at: DateTime<Utc>,
    /// `waiting`: whom it concerns is not written down yet. `enrolling`: they are brought in. `finished`. `stopped`: the plan
    /// has ended before. `missed`: nobody was there at its time, and the plan lets such times go. `refused`: it
    /// concerned more people than the plan may take in.
    state: String,
    /// Whom it concerned, when that was written down.
    audience: Option<i32>,
    /// When that was. Nobody has come in addition after it.
    frozen_at: Option<DateTime<Utc>>,
    /// How many were brought in.
    enrolled: i32,
    /// How many were not, by the reason.
    refused: Value,
    /// Who began it.
    created_by: Option<Uuid>,
    created_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
}

/// What becomes of people on an older version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
enum MoveHow {
    /// They finish what they began.
    Finish,
    /// They are out of the plan, as `superseded`.
    Stop,
    /// They go on in the version in force, if it has their step: the same id and type. The others finish.
    Move,
}

impl MoveHow {
    fn how(self) -> How {
        match self {
            MoveHow::Finish => How::Finish,
            MoveHow::Stop => How::Stop,
            MoveHow::Move => How::Move,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            MoveHow::Finish => "finish",
            MoveHow::Stop => "stop",
            MoveHow::Move => "move",
        }
    }
}

/// Who is moved.
#[derive(Debug, Object)]
#[oai(deny_unknown_fields)]
struct MovePeople {
    /// Only people on this version; on every older one if left out.
    from_version: Option<i32>,
    how: MoveHow,
}

/// What became of them.
#[derive(Debug, Object)]
struct MovedView {
    /// The version in force.
    to_version: i32,
    /// They go on in it.
    moved: i64,
    /// They are out of the plan.
    stopped: i64,
    /// They finish the version that they began.
    finishing: i64,
    /// They stay where they are because a message of theirs is under way: ask again when it has left.
    under_way: i64,
    /// There are more people: ask again.
    more: bool,
}

/// How plans take people in.
pub(super) struct SopRuns;

#[OpenApi(tag = "Tag::Campaigns")]
impl SopRuns {
    /// Shows whom a plan is meant for
    ///
    /// Needs the role agent. As things stand now, by the version in force, or by the draft while there is none. 422 `invalid_plan` if
    /// the draft cannot be read.
    #[oai(path = "/sop-tasks/:id/audience", method = "post", operation_id = "preview_sop_audience")]
    async fn audience(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        id: Path<Uuid>,
    ) -> Result<Json<AudienceView>, ApiError> {
        caller.require(Role::Agent)?;
        let organization = caller.organization_id;
        let mut conn = state.db.conn().await?;
        let plan = plans::get(&mut conn, organization, id.0).await?.ok_or_else(plan_not_found)?;
        let config = match plan.version {
            Some(_) => in_force(&mut conn, &plan).await?,
            None => draft(&plan)?,
        };
        let max_size = config.audience.max_size.map_or(audience::MOST, |size| size.min(audience::MOST));
        let read = bare(&plan, config);
        let people = match audience::of(&mut conn, &plan, &read).await? {
            Audience::People(people) => people,
            Audience::TooMany { count, most } => return Err(too_large(count, most)),
        };
        let faces = faces(&mut conn, organization, &people[..people.len().min(SAMPLE)]).await?;
        let looked_at = &people[..people.len().min(MAX_LOOKED_AT)];
        let blocked = audience::blocked(&mut conn, plan.id, &read, looked_at).await?;
        let blocked = blocked.into_iter().map(|(code, count)| (code.to_owned(), Value::from(count)));
        Ok(Json(AudienceView {
            count: people.len() as u64,
            max_size,
            sample: faces
                .into_iter()
                .map(|face| FaceView {
                    contact_id: face.contact_id,
                    account_id: face.account_id,
                    nickname: face.nickname,
                    remark: face.remark,
                })
                .collect(),
            blocked: Value::Object(blocked.collect::<Map<_, _>>()),
            looked_at: looked_at.len() as u64,
        }))
    }

    /// Starts a plan
    ///
    /// Needs the role agent; manager for a plan that is for everybody. Whom it is meant for at this moment is written down, and they
    /// are brought in (`GET …/runs` shows how far that is); nobody comes in addition. A trigger of time, or an event, lets
    /// people in from now on instead. 409 `audience_too_large`, `audience_changed` with the number, and `no_targets` if it
    /// names nobody: bring people in one by one after starting it with `expected_count` 0.
    #[oai(path = "/sop-tasks/:id/start", method = "post", operation_id = "start_sop_task")]
    async fn start(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
        body: OptionalBody<StartPlan>,
    ) -> Result<Json<PlanView>, ApiError> {
        caller.require(Role::Agent)?;
        let expected = body.0.expected_count;
        let now = state.now().await;
        let mut conn = state.db.conn().await?;
        let started = conn
            .transaction(async |conn| {
                let mut plan = lock(conn, &caller, id.0).await?;
                let before = facts(&plan);
                let next = life::after(status_of(&plan)?, Action::Start).map_err(refused)?;
                if plan.everyone && caller.role < Role::Manager {
                    let detail = "The plan is for everybody. Only a manager may start it.";
                    return Err(ApiError::forbidden("everyone_needs_manager", detail));
                }
                let config = in_force(conn, &plan).await?;
                // Campaigns go by a clock of their own.
                let moment = clock::now(conn).await?;
                if trigger::has_passed(&config, moment) {
                    let detail = "The moment at which the plan was to begin has passed. Choose another one, and have it approved.";
                    return Err(ApiError::conflict("trigger_passed", detail));
                }
                materials_open(conn, &plan, &origin).await?;
                if audience::is_taken_at_once(&config) {
                    names_somebody(&plan, &config, expected)?;
                    let read = bare(&plan, config.clone());
                    let extent = if let (Trigger::Manual {}, Some(version)) = (&config.trigger, plan.version) {
                        let begins = Begins {
                            organization: plan.organization_id,
                            sop: plan.id,
                            version,
                            source: "manual",
                            fire_at: moment,
                            by: Some(caller.id),
                        };
                        run::begin(conn, begins, &plan, &read, moment).await?
                    } else {
                        audience::of(conn, &plan, &read).await?.into()
                    };
                    as_expected(extent, expected)?;
                }
                plan.status = next.as_str().to_owned();
                plan.next_trigger_at = trigger::next_at(&config, moment);
                (plan.started_at, plan.updated_at) = (Some(now), now);
                plans::update(conn, &plan).await?;
                note("sop_task.start", &plan, before).write(conn, &caller, &origin).await?;
                Ok(Json(view(plan, None)))
            })
            .await?;
        state.waker.wake();
        Ok(started)
    }

    /// Lists the runs of a plan
    ///
    /// Newest first: its start, and the times at which its trigger fired, with how many people were brought in so far.
    #[oai(path = "/sop-tasks/:id/runs", method = "get", operation_id = "list_sop_runs")]
    async fn runs(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        id: Path<Uuid>,
        /// Items on the page, 1 to 200; 50 if not given.
        limit: Query<Option<i64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<Page<SopRunView>>, ApiError> {
        let ask = Ask::new(limit.0, cursor.0.as_deref())?;
        let organization = caller.organization_id;
        let mut conn = state.db.conn().await?;
        plans::get(&mut conn, organization, id.0).await?.ok_or_else(plan_not_found)?;
        let rows = runs::list(&mut conn, organization, id.0, ask.before, ask.fetch()).await?;
        Ok(Json(ask.page(rows, |row| row.id, run_view)))
    }

    /// Decides about people on an older version
    ///
    /// Needs the role agent. Left alone, people finish the version that they began; this stops them instead, or has them go on in the
    /// version in force. Up to 20,000 at once: `more` says whether to ask again. 409 `plan_not_running` if the plan was not started
    /// or has ended.
    #[oai(path = "/sop-tasks/:id/move", method = "post", operation_id = "move_sop_people")]
    async fn move_people(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
        body: Body<MovePeople>,
    ) -> Result<Json<MovedView>, ApiError> {
        caller.require(Role::Agent)?;
        let MovePeople { from_version, how } = body.0;
        let organization = caller.organization_id;
        let mut conn = state.db.conn().await?;
        let plan = plans::get(&mut conn, organization, id.0).await?.ok_or_else(plan_not_found)?;
        let to_version = plan.version.filter(|_| status_of(&plan).is_ok_and(life::Status::is_live));
        let to_version = to_version.ok_or_else(|| {
            ApiError::conflict("plan_not_running", "Nobody is on their way through a plan that does not run.")
        })?;
        if from_version == Some(to_version) {
            let message = format!("must be an older version: {to_version} is the one in force");
            return Err(ApiError::field("from_version", "in_force", message));
        }
        let whose = (organization, plan.id);
        let way = (from_version, to_version);
        let done = succession::carry_out(&mut conn, &state.plans, whose, way, how.how()).await?;
        Note::new("sop_task.move", "sop_task", plan.id)
            .after(json!({
                "how": how.as_str(), "from_version": from_version, "to_version": to_version, "moved": done.moved,
                "stopped": done.stopped, "finishing": done.finishing, "under_way": done.under_way,
            }))
            .write(&mut conn, &caller, &origin)
            .await?;
        Ok(Json(MovedView {
            to_version,
            moved: done.moved,
            stopped: done.stopped,
            finishing: done.finishing,
            under_way: done.under_way,
            more: done.more,
        }))
    }
}

/// A plan without what it sends.
fn bare(plan: &Plan, config: WorkflowConfig) -> plan::Plan {
    plan::Plan { organization_id: plan.organization_id, config, materials: HashMap::new() }
}

/// Reads the draft of a plan that has no version yet.
fn draft(plan: &Plan) -> Result<WorkflowConfig, ApiError> {
    WorkflowConfig::parse(&plan.workflow_config).map_err(|findings| {
        let problems = findings
            .into_iter()
            .map(|finding| FieldProblem::new(finding.path, &finding.code.to_string(), finding.message))
            .collect();
        let detail = "The draft cannot be read; `errors` says where. Change it first.";
        ApiError::unfit(StatusCode::UNPROCESSABLE_ENTITY, "invalid_plan", detail).with_errors(problems)
    })
}

/// Refuses to start a plan that names nobody, unless somebody says so.
fn names_somebody(plan: &Plan, config: &WorkflowConfig, expected: Option<u32>) -> Result<(), ApiError> {
    if audience::names_somebody(plan, config) || expected == Some(0) {
        return Ok(());
    }
    let detail = "The plan names nobody: no targets, no filter. Name somebody; have a manager set `everyone`; or start it \
        with `expected_count` 0, and bring people in one by one.";
    Err(ApiError::conflict("no_targets", detail))
}

/// Refuses to start a plan that is not meant for about as many people as somebody has looked at.
fn as_expected(extent: Extent, expected: Option<u32>) -> Result<(), ApiError> {
    let count = match extent {
        Extent::People(count) => count,
        Extent::TooMany { count, most } => return Err(too_large(count, most)),
    };
    if let Some(expected) = expected.filter(|expected| is_far_from(count, *expected)) {
        let detail = format!(
            "The plan is meant for {count} people now, and {expected} were expected. Look at its audience again."
        );
        return Err(ApiError::conflict("audience_changed", detail));
    }
    Ok(())
}

/// Tells whether a number is off by more than a tenth.
fn is_far_from(count: usize, expected: u32) -> bool {
    let expected = expected as usize;
    count.abs_diff(expected).saturating_mul(10) > expected
}

fn too_large(count: usize, most: u32) -> ApiError {
    let detail = format!(
        "The plan is meant for {count} people, and may take in {most} at once. Narrow its audience, or have a larger max_size approved; \
         {} is the most.",
        audience::MOST
    );
    ApiError::conflict("audience_too_large", detail)
}

fn run_view(run: Run) -> SopRunView {
    SopRunView {
        id: run.id,
        version: run.version,
        source: run.source,
        fire_at: run.fire_at,
        state: run.state,
        audience: run.audience,
        frozen_at: run.frozen_at,
        enrolled: run.enrolled,
        refused: run.refused,
        created_by: run.created_by,
        created_at: run.created_at,
        finished_at: run.finished_at,
    }
}

/// Refuses to start a plan that sends what cannot be opened, and has everything else that it sends looked at once more.
async fn materials_open(conn: &mut Conn, plan: &Plan, origin: &Origin) -> Result<(), ApiError> {
    let Some(version) = plan.version else { return Ok(()) };
    let dead = material::before_start(conn, plan.organization_id, plan.id, version, &origin.trace_id).await?;
    if dead.is_empty() {
        return Ok(());
    }
    let detail = format!(
        "These materials of the plan cannot be opened: {}. Put that right, look at them again with POST \
         /materials/{{id}}/check, or change the plan.",
        dead.join(", ")
    );
    Err(ApiError::conflict("dead_material", detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_more_or_less_is_what_was_looked_at() {
        for (count, expected) in [(0, 0), (3, 3), (10, 11), (11, 10), (900, 1000), (1100, 1000)] {
            assert!(!is_far_from(count, expected), "{count} {expected}");
        }
        for (count, expected) in [(1, 0), (4, 3), (8, 9), (12, 10), (899, 1000), (1101, 1000)] {
            assert!(is_far_from(count, expected), "{count} {expected}");
        }
    }
}

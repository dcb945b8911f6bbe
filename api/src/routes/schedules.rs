//! The platform's own timetable: what it does by the clock, when it did and will, pause, other times, run now.
//!
//! The lines belong to the install. Managers of any organisation may read them; only admins of the one that runs the install
//! may change them.

use chrono::{DateTime, Utc};
use diesel_async::AsyncConnection;
use entropy_jobs::class::Class;
use entropy_jobs::enqueue::{Enqueued, Idempotency, Options};
use entropy_jobs::timetable::{self, Timing};
use entropy_schema::record::enqueue::enqueue;
use entropy_schema::schedules::{self, Listed, Schedule};
use entropy_schema::{Conn, Error, SYSTEM_ORGANIZATION, clock, schedule_ticks, users};
use poem::web::Data;
use poem_openapi::param::{Header, Path};
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Tag;
use super::audit::Note;
use super::enqueue::{checked_key, key_reused, request_hash};
use super::schedule_lines::{ChangeSchedule, CreateSchedule, changed_line, new_line, task_here};
use crate::AppState;
use crate::auth::caller::Caller;
use crate::auth::role::Role;
use crate::http::body::Body;
use crate::http::origin::Origin;
use crate::problem::ApiError;

/// Lines of a timetable.
const MOST: i64 = 200;

/// Tries to enqueue while another job of the task ends at that very moment.
const TRIES: usize = 4;

/// What became of the last job of a line.
#[derive(Debug, Object)]
struct LastJobView {
    id: Uuid,
    /// As the state of any job: `completed`, `running`, `dead` and so on.
    state: String,
    finished_at: Option<DateTime<Utc>>,
    /// Stable name of what it failed of.
    error_code: Option<String>,
}

/// A line of the platform's timetable.
#[derive(Debug, Object)]
struct ScheduleView {
    id: Uuid,
    name: String,
    /// What is done.
    task: String,
    /// The same, for people.
    about: Option<String>,
    cron: String,
    /// The zone in which `cron` is read.
    timezone: String,
    /// `skip`: ticks that no scheduler was there for are let go. `run_once`: the latest of them runs, once for all.
    catch_up: String,
    paused: bool,
    /// When its last job was to run; null: it has had none.
    last_run_at: Option<DateTime<Utc>>,
    /// When it ticks next; null: it is paused, or there is nothing to do for its task in this install.
    next_run_at: Option<DateTime<Utc>>,
    /// Null: there was none, or it is forgotten.
    last_job: Option<LastJobView>,
    /// The program brings this line: it can be paused, but not removed.
    built_in: bool,
    updated_at: DateTime<Utc>,
    created_at: DateTime<Utc>,
}

/// The platform's timetable.
#[derive(Debug, Object)]
struct SchedulesView {
    items: Vec<ScheduleView>,
}

/// A run that was asked for.
#[derive(Debug, Object)]
struct ScheduleRunView {
    /// The job that does it.
    job_id: Uuid,
    /// False: this is the job that the same key made before, or one of the same task that had not ended.
    created: bool,
    schedule: ScheduleView,
}

#[derive(ApiResponse)]
enum Created {
    /// It ticks, unless it is paused.
    #[oai(status = 201)]
    Created(Json<ScheduleView>),
}

#[derive(ApiResponse)]
enum Ran {
    /// Stored; it will run.
    #[oai(status = 202)]
    New(Json<ScheduleRunView>),
    /// The same key made this job before, or a job of the same task had not ended: it is this one.
    #[oai(status = 200)]
    Existing(Json<ScheduleRunView>),
}

#[derive(ApiResponse)]
enum Removed {
    /// It is gone.
    #[oai(status = 204)]
    Gone,
}

/// The timetable.
pub(super) struct Schedules;

#[OpenApi(tag = "Tag::Operations")]
impl Schedules {
    /// Lists what the platform does by the clock
    ///
    /// Needs the role manager. All lines, by name; they are those of the install, whatever organisation asks.
    #[oai(path = "/schedules", method = "get", operation_id = "list_schedules")]
    async fn list(&self, state: Data<&AppState>, caller: Caller) -> Result<Json<SchedulesView>, ApiError> {
        caller.require(Role::Manager)?;
        let now = state.now().await;
        let mut conn = state.db.conn().await?;
        let lines = schedules::list(&mut conn).await?;
        Ok(Json(SchedulesView { items: lines.into_iter().map(|line| view(&state, line, now)).collect() }))
    }

    /// Shows a line of the timetable
    ///
    /// Needs the role manager.
    #[oai(path = "/schedules/:id", method = "get", operation_id = "get_schedule")]
    async fn get(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        id: Path<Uuid>,
    ) -> Result<Json<ScheduleView>, ApiError> {
        caller.require(Role::Manager)?;
        let now = state.now().await;
        read(&state, &mut *state.db.conn().await?, id.0, now).await.map(Json)
    }

    /// Adds a line to the timetable
    ///
    /// Needs the role admin, in the organisation that runs the install. For a task that the platform has, at times of its own. In
    /// force in every scheduler within a few seconds.
    #[oai(path = "/schedules", method = "post", operation_id = "create_schedule")]
    async fn create(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        body: Body<CreateSchedule>,
    ) -> Result<Created, ApiError> {
        caller.require(Role::Admin)?;
        let new = new_line(&state, &caller, &body.0)?;
        let mut conn = state.db.conn().await?;
        let (line, now) = conn
            .transaction(async |conn| {
                require_operator(conn, &state, &caller).await?;
                // These are the names of the lines that the program brings, now or in another install.
                if timetable::task(&new.name).is_some() {
                    return Err(name_taken());
                }
                if schedules::count(conn).await? >= MOST {
                    let detail = format!("The timetable has {MOST} lines. Remove one first.");
                    return Err(ApiError::conflict("too_many_schedules", detail));
                }
                let now = clock::now(conn).await?;
                let line = Schedule { updated_at: now, created_at: now, ..new };
                schedules::insert(conn, &line).await.map_err(taken)?;
                // From here on, and whatever stands there of a line of this name that was removed.
                schedule_ticks::remember(conn, &line.name, now).await?;
                Note::new("schedule.create", "schedule", line.id)
                    .after(facts(&line))
                    .write(conn, &caller, &origin)
                    .await?;
                Ok::<_, ApiError>((line, now))
            })
            .await?;
        Ok(Created::Created(Json(read(&state, &mut conn, line.id, now).await?)))
    }

    /// Changes a line of the timetable, found by its name
    ///
    /// As `PUT /schedules/{id}`; `name` is needed.
    #[oai(path = "/schedules", method = "put", operation_id = "update_schedule_by_name")]
    async fn change_named(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        body: Body<ChangeSchedule>,
    ) -> Result<Json<ScheduleView>, ApiError> {
        caller.require(Role::Admin)?;
        let Some(name) = &body.0.name else {
            return Err(ApiError::field("name", "missing", "must say which line is to be changed"));
        };
        let id = schedules::named(&mut *state.db.conn().await?, name).await?.ok_or_else(not_found)?;
        change(&state, &caller, &origin, id, &body.0).await
    }

    /// Changes a line of the timetable
    ///
    /// Needs the role admin, in the organisation that runs the install. Ticks at the old times end with the answer, those at the
    /// new ones are in force in every scheduler within a few seconds. Nothing is made good for other times or for a pause.
    #[oai(path = "/schedules/:id", method = "put", operation_id = "update_schedule")]
    async fn change(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
        body: Body<ChangeSchedule>,
    ) -> Result<Json<ScheduleView>, ApiError> {
        caller.require(Role::Admin)?;
        change(&state, &caller, &origin, id.0, &body.0).await
    }

    /// Removes a line from the timetable
    ///
    /// Needs the role admin, in the organisation that runs the install. Only lines that were added can be removed; pause the
    /// others.
    #[oai(path = "/schedules/:id", method = "delete", operation_id = "delete_schedule")]
    async fn remove(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
    ) -> Result<Removed, ApiError> {
        caller.require(Role::Admin)?;
        let mut conn = state.db.conn().await?;
        conn.transaction(async |conn| {
            let line = schedules::lock(conn, id.0).await?.ok_or_else(not_found)?;
            require_operator(conn, &state, &caller).await?;
            if is_built_in(&line) {
                let detail = "The platform needs this line. Pause it instead.";
                return Err(ApiError::conflict("schedule_built_in", detail));
            }
            schedules::remove(conn, line.id).await?;
            Note::new("schedule.delete", "schedule", line.id)
                .before(facts(&line))
                .write(conn, &caller, &origin)
                .await
        })
        .await?;
        Ok(Removed::Gone)
    }

    /// Does at once what a line does by the clock
    ///
    /// Needs the role admin, in the organisation that runs the install. Also for a line that is paused; its times stay as they
    /// are. A task has one job at a time: if one has not ended, it is that one.
    #[oai(path = "/schedules/:id/run", method = "post", operation_id = "run_schedule")]
    async fn run(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
        /// The caller's token, 1 to 255 characters: the same key and line is the same job.
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<String>>,
    ) -> Result<Ran, ApiError> {
        caller.require(Role::Admin)?;
        let key = checked_key(idempotency_key.0.as_deref(), "Idempotency-Key")?;
        let mut tries = 0;
        let mut conn = state.db.conn().await?;
        let (job_id, created) = loop {
            tries += 1;
            let ran = conn
                .transaction(async |conn| run(conn, &state, &caller, &origin, id.0, key.as_deref()).await)
                .await;
            match ran {
                // A job of the same task ended at this very moment: look again.
                Err(Refusal::Again) if tries < TRIES => {}
                Err(refusal) => return Err(refusal.into()),
                Ok(ran) => break ran,
            }
        };
        state.waker.wake();
        let now = state.now().await;
        let schedule = read(&state, &mut conn, id.0, now).await?;
        let view = Json(ScheduleRunView { job_id, created, schedule });
        Ok(if created { Ran::New(view) } else { Ran::Existing(view) })
    }
}

/// Why a run was not enqueued.
enum Refusal {
    /// The same again may succeed.
    Again,
    /// It is answered so.
    Final(ApiError),
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Refusal {
        Refusal::Final(error)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        match error {
            Error::Query(diesel::result::Error::RollbackTransaction) => Refusal::Again,
            error => Refusal::Final(error.into()),
        }
    }
}

impl From<diesel::result::Error> for Refusal {
    fn from(error: diesel::result::Error) -> Refusal {
        Error::from(error).into()
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> ApiError {
        match refusal {
            Refusal::Again => ApiError::unavailable("jobs of this task end all the time"),
            Refusal::Final(error) => error,
        }
    }
}

async fn run(
    conn: &mut Conn,
    state: &AppState,
    caller: &Caller,
    origin: &Origin,
    id: Uuid,
    key: Option<&str>,
) -> Result<(Uuid, bool), Refusal> {
    let line = schedules::lock(conn, id).await?.ok_or_else(not_found)?;
    require_operator(conn, state, caller).await?;
    let Some(task) = task_here(state, &line.task) else {
        let detail = "There is nothing to do for this task in this install.";
        return Err(ApiError::conflict("task_unavailable", detail).into());
    };
    let idempotency = key.map(|key| Idempotency {
        // Keys belong to the organisation, and this job does not.
        key: format!("run:{}:{}", caller.organization_id, hex(&request_hash(&json!(key)))),
        request_hash: request_hash(&json!(line.id)),
    });
    let job = task.job(Options {
        organization_id: SYSTEM_ORGANIZATION,
        class: Class::Interactive,
        scheduled_at: None,
        expires_at: None,
        idempotency,
        trace_id: origin.trace_id.clone(),
        created_by: Some(caller.id),
    });
    match enqueue(conn, &[job]).await?.pop() {
        Some(Enqueued::Created(job)) => {
            schedules::ran(conn, line.id, job, DateTime::UNIX_EPOCH).await?;
            Note::new("schedule.run", "schedule", line.id)
                .after(json!({"name": line.name, "job_id": job}))
                .write(conn, caller, origin)
                .await?;
            Ok((job, true))
        }
        Some(Enqueued::Existing(job)) => Ok((job, false)),
        Some(Enqueued::KeyReused) => Err(key_reused().into()),
        None => Err(ApiError::internal("the record gave no answer").into()),
    }
}

async fn change(
    state: &AppState,
    caller: &Caller,
    origin: &Origin,
    id: Uuid,
    asked: &ChangeSchedule,
) -> Result<Json<ScheduleView>, ApiError> {
    let mut conn = state.db.conn().await?;
    conn.transaction(async |conn| {
        let old = schedules::lock(conn, id).await?.ok_or_else(not_found)?;
        require_operator(conn, state, caller).await?;
        let changed = changed_line(&old, asked)?;
        if changed == old {
            return Ok(());
        }
        let now = clock::now(conn).await?;
        let changed = Schedule { updated_by: Some(caller.id), updated_at: now, ..changed };
        schedules::change(conn, &changed).await?;
        let other_times = (&changed.cron, &changed.timezone) != (&old.cron, &old.timezone);
        if other_times || (old.paused && !changed.paused) {
            schedule_ticks::remember(conn, &changed.name, now).await?;
        }
        Note::new("schedule.update", "schedule", id)
            .before(facts(&old))
            .after(facts(&changed))
            .write(conn, caller, origin)
            .await
    })
    .await?;
    let now = state.now().await;
    read(state, &mut conn, id, now).await.map(Json)
}

/// Lets nobody pass but people of the organisation that runs the install.
async fn require_operator(conn: &mut Conn, state: &AppState, caller: &Caller) -> Result<(), ApiError> {
    let operator = match state.http.platform_organization {
        Some(id) => Some(id),
        None => users::first_organization(conn).await?,
    };
    if operator == Some(caller.organization_id) {
        return Ok(());
    }
    let detail = "The timetable belongs to the whole install. Only admins of the organisation that runs it may change it: the \
        one that PLATFORM_ORGANIZATION names, or else the first one.";
    Err(ApiError::forbidden("not_the_operator", detail))
}

/// The lines that the program brings are named after their tasks, and no others can be: those names are taken.
fn is_built_in(line: &Schedule) -> bool {
    line.name == line.task
}

fn facts(line: &Schedule) -> Value {
    json!({
        "name": line.name, "task": line.task, "cron": line.cron, "timezone": line.timezone,
        "catch_up": line.catch_up, "paused": line.paused,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn not_found() -> ApiError {
    ApiError::not_found("schedule_not_found", "The timetable has no such line.")
}

fn taken(error: Error) -> ApiError {
    if error.violated_constraint() == Some(schedules::NAME_KEY) { name_taken() } else { error.into() }
}

fn name_taken() -> ApiError {
    ApiError::conflict("schedule_exists", "The timetable has a line of this name. Choose another name.")
}

async fn read(
    state: &AppState,
    conn: &mut Conn,
    id: Uuid,
    now: DateTime<Utc>,
) -> Result<ScheduleView, ApiError> {
    Ok(view(state, schedules::get(conn, id).await?.ok_or_else(not_found)?, now))
}

fn view(state: &AppState, listed: Listed, now: DateTime<Utc>) -> ScheduleView {
    let Listed { schedule: line, last_state, last_finished_at, last_error } = listed;
    let task = task_here(state, &line.task);
    let timing = Timing::read(&line.cron, &line.timezone).ok();
    ScheduleView {
        next_run_at: timing
            .filter(|_| !line.paused && task.is_some())
            .and_then(|timing| timing.next_after(now)),
        last_job: line.last_job_id.zip(last_state).map(|(id, state)| LastJobView {
            id,
            state,
            finished_at: last_finished_at,
            error_code: last_error,
        }),
        built_in: is_built_in(&line),
        about: timetable::task(&line.task).map(|task| task.about.to_owned()),
        id: line.id,
        name: line.name,
        task: line.task,
        cron: line.cron,
        timezone: line.timezone,
        catch_up: line.catch_up,
        paused: line.paused,
        last_run_at: line.last_run_at,
        updated_at: line.updated_at,
        created_at: line.created_at,
    }
}

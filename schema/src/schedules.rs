//! The lines of the platform's timetable: as the program brought them, and as people have changed them.
//!
//! They belong to the install and to no organisation: who may change them is decided by whoever calls. A line whose
//! `updated_by` is empty follows the program; one that a person has changed stays as it is.
//!
//! Whoever records a tick of a line, and whoever changes it, locks its row first: of the two, one comes first.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use crate::tables::schedules;
use crate::{Conn, Result, SYSTEM_ORGANIZATION};

/// Name of the constraint that a taken name runs into.
pub const NAME_KEY: &str = "schedules_name_key";

/// A line of the timetable.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable, QueryableByName)]
#[diesel(table_name = schedules, check_for_backend(diesel::pg::Pg))]
pub struct Schedule {
    /// UUIDv7.
    pub id: Uuid,
    /// Unique, stored with every tick and part of its key: it never changes.
    pub name: String,
    /// What is done.
    pub task: String,
    /// When.
    pub cron: String,
    /// IANA name of the zone in which `cron` is read.
    pub timezone: String,
    /// `skip` or `run_once`.
    pub catch_up: String,
    /// True: it does not tick.
    pub paused: bool,
    /// From when on its last job was to run.
    pub last_run_at: Option<DateTime<Utc>>,
    /// That job.
    pub last_job_id: Option<Uuid>,
    /// Who changed it last; none: it is as the program brought it.
    pub updated_by: Option<Uuid>,
    /// When it was changed last.
    pub updated_at: DateTime<Utc>,
    /// When it was added.
    pub created_at: DateTime<Utc>,
}

/// A line with what became of its last job.
#[derive(Debug, Clone, QueryableByName)]
pub struct Listed {
    /// The line.
    #[diesel(embed)]
    pub schedule: Schedule,
    /// State of the last job, as the lists of jobs name it. None: there was none, or it was pruned.
    #[diesel(sql_type = Nullable<Text>)]
    pub last_state: Option<String>,
    /// When the last job ended.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub last_finished_at: Option<DateTime<Utc>>,
    /// What the last job failed of.
    #[diesel(sql_type = Nullable<Text>)]
    pub last_error: Option<String>,
}

/// A line as the program brings it.
#[derive(Debug, Clone, Copy)]
pub struct Brought<'a> {
    /// Its name, and that of its task.
    pub name: &'a str,
    /// When.
    pub cron: &'a str,
    /// IANA name of the zone in which `cron` is read.
    pub timezone: &'a str,
    /// `skip` or `run_once`.
    pub catch_up: &'a str,
}

/// Adds the lines that the program brings, and brings those up to date that nobody has changed. Schedulers may do so at once.
pub async fn bring(conn: &mut Conn, lines: &[Brought<'_>]) -> Result<()> {
    let column = |pick: for<'a> fn(&Brought<'a>) -> &'a str| lines.iter().map(pick).collect::<Vec<_>>();
    sql_query(
        "INSERT INTO schedules AS s (id, name, task, cron, timezone, catch_up)
         SELECT id, name, name, cron, timezone, catch_up
         FROM unnest($1, $2, $3, $4, $5) AS t (id, name, cron, timezone, catch_up) ORDER BY name
         ON CONFLICT (name) DO UPDATE SET task = excluded.task, cron = excluded.cron, timezone = excluded.timezone,
            catch_up = excluded.catch_up, updated_at = clock_timestamp()
         WHERE s.updated_by IS NULL AND (s.task, s.cron, s.timezone, s.catch_up)
            IS DISTINCT FROM (excluded.task, excluded.cron, excluded.timezone, excluded.catch_up)",
    )
    .bind::<Array<SqlUuid>, _>(lines.iter().map(|_| Uuid::now_v7()).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(column(|line| line.name))
    .bind::<Array<Text>, _>(column(|line| line.cron))
    .bind::<Array<Text>, _>(column(|line| line.timezone))
    .bind::<Array<Text>, _>(column(|line| line.catch_up))
    .execute(conn)
    .await?;
    Ok(())
}

/// Returns the lines that tick.
pub async fn ticking(conn: &mut Conn) -> Result<Vec<Schedule>> {
    Ok(schedules::table
        .filter(schedules::paused.eq(false))
        .order(schedules::name)
        .select(Schedule::as_select())
        .load(conn)
        .await?)
}

/// Locks a line until the caller's transaction ends, and returns it.
pub async fn lock(conn: &mut Conn, id: Uuid) -> Result<Option<Schedule>> {
    Ok(schedules::table.find(id).for_update().select(Schedule::as_select()).first(conn).await.optional()?)
}

/// Returns the id of the line of this name.
pub async fn named(conn: &mut Conn, name: &str) -> Result<Option<Uuid>> {
    Ok(schedules::table
        .filter(schedules::name.eq(name))
        .select(schedules::id)
        .first(conn)
        .await
        .optional()?)
}

/// Counts the lines.
pub async fn count(conn: &mut Conn) -> Result<i64> {
    Ok(schedules::table.count().get_result(conn).await?)
}

/// Adds a line. A taken name violates [`NAME_KEY`].
pub async fn insert(conn: &mut Conn, schedule: &Schedule) -> Result<()> {
    diesel::insert_into(schedules::table).values(schedule).execute(conn).await?;
    Ok(())
}

/// Writes what a person has changed about a line that the caller has locked.
pub async fn change(conn: &mut Conn, schedule: &Schedule) -> Result<()> {
    diesel::update(schedules::table.find(schedule.id))
        .set((
            schedules::cron.eq(&schedule.cron),
            schedules::timezone.eq(&schedule.timezone),
            schedules::catch_up.eq(&schedule.catch_up),
            schedules::paused.eq(schedule.paused),
            schedules::updated_by.eq(schedule.updated_by),
            schedules::updated_at.eq(schedule.updated_at),
        ))
        .execute(conn)
        .await?;
    Ok(())
}

/// Removes a line.
pub async fn remove(conn: &mut Conn, id: Uuid) -> Result<()> {
    diesel::delete(schedules::table.find(id)).execute(conn).await?;
    Ok(())
}

/// Notes the last job of a line that the caller has locked, which runs from `at` on, or from now on if that is past.
pub async fn ran(conn: &mut Conn, id: Uuid, job: Uuid, at: DateTime<Utc>) -> Result<()> {
    sql_query(
        "UPDATE schedules SET last_job_id = $2, last_run_at = greatest($3, clock_timestamp()) WHERE id = $1",
    )
    .bind::<SqlUuid, _>(id)
    .bind::<SqlUuid, _>(job)
    .bind::<Timestamptz, _>(at)
    .execute(conn)
    .await?;
    Ok(())
}

const LISTED: &str = "\
SELECT s.id, s.name, s.task, s.cron, s.timezone, s.catch_up, s.paused, s.last_run_at, s.last_job_id, s.updated_by,
    s.updated_at, s.created_at,
    CASE WHEN j.final_state IS NOT NULL THEN j.final_state
        WHEN l.worker_id IS NOT NULL THEN 'running'
        WHEN p.wait_code = 'scheduled' THEN 'scheduled'
        WHEN p.due_at IS NOT NULL THEN 'retryable'
        WHEN j.id IS NOT NULL THEN 'available' END AS last_state,
    j.finalized_at AS last_finished_at, j.error ->> 'code' AS last_error
FROM schedules s
    LEFT JOIN jobs j ON j.id = s.last_job_id AND j.organization_id = $1
    LEFT JOIN pending p ON p.job_id = j.id
    LEFT JOIN leases l ON l.job_id = j.id";

/// Returns all lines, by name.
pub async fn list(conn: &mut Conn) -> Result<Vec<Listed>> {
    Ok(sql_query(format!("{LISTED} ORDER BY s.name"))
        .bind::<SqlUuid, _>(SYSTEM_ORGANIZATION)
        .load(conn)
        .await?)
}

/// Returns a line.
pub async fn get(conn: &mut Conn, id: Uuid) -> Result<Option<Listed>> {
    Ok(sql_query(format!("{LISTED} WHERE s.id = $2"))
        .bind::<SqlUuid, _>(SYSTEM_ORGANIZATION)
        .bind::<SqlUuid, _>(id)
        .get_result(conn)
        .await
        .optional()?)
}
